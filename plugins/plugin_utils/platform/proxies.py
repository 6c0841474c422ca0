# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which proxy a request takes, and which option or variable names it.

The address of a proxy may contain a password. Messages show its scheme, host and port only.

Private to the collection.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import ProvisioningError
from .exchange import Endpoint

with contextlib.suppress(ImportError):  # reported by ``trust.REQUESTS_MISSING``
    import requests.utils

SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")  # in the order in which requests reads them
_EXCEPTIONS = ("no_proxy", "NO_PROXY")


@dataclass(frozen=True)
class Proxy:
    """A proxy whose address can be used.

    :param origin: the option or variable that names it.
    :param url: its address; may contain a password.
    :param address: scheme, host and port.
    """

    origin: str
    url: str = field(repr=False)
    scheme: str
    address: str
    has_login: bool

    def __str__(self) -> str:
        return f"the proxy {self.address} ({self.origin})"


def choose(endpoint: Endpoint) -> Proxy | None:
    """Return the proxy for a request to an endpoint, or ``None`` for a direct connection.

    Without TLS, which is for a simulator on loopback, a proxy would read the token: no variable applies then.

    :raises ProvisioningError: ``bad_option`` if the address of the proxy cannot be used.
    """
    if urlsplit(endpoint.url).scheme.lower() != "https":
        if endpoint.proxy:
            raise ProvisioningError(
                "bad_option",
                "api_url begins with http://, so that the proxy could read the token: remove proxy, or use https://.",
            )
        return None
    if endpoint.proxy is not None:
        return parse("proxy", endpoint.proxy) if endpoint.proxy else None
    found = requests.utils.select_proxy(endpoint.url, requests.utils.get_environ_proxies(endpoint.url))
    if not found:
        return None
    names = (name for name in _VARIABLES if os.environ.get(name) == found)
    return parse(next(names, "the proxy settings of the system"), found)


def parse(origin: str, text: str) -> Proxy:
    """Return the proxy that a text describes; without a scheme it is an HTTP proxy, as for ``requests``.

    :raises ProvisioningError: ``bad_option``; the message contains nothing that could be a password.
    """
    text = text.strip()
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _malformed(origin) from None
    # a password with an unescaped / ? or # ends the host early
    misplaced = "@" in parts.path + parts.query + parts.fragment
    if not host or misplaced or not url.isprintable() or " " in url:
        raise _malformed(origin)
    if parts.scheme not in SCHEMES:
        socks = " (socks:// names no version of SOCKS; most such proxies are socks5h://)"
        raise ProvisioningError(
            "bad_option",
            f"The proxy in {origin} must begin with http://, https://, socks5h://, socks5:// or socks4a://"
            f"{socks if parts.scheme == 'socks' else ''}: correct {origin}.",
        )
    shown = f"[{host}]" if ":" in host else host
    address = f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")
    return Proxy(origin, url, parts.scheme, address, parts.username is not None)


def exempting_variable(endpoint: Endpoint) -> str | None:
    """Return the variable that exempts an endpoint from the proxy that other variables name, if there is one."""
    if endpoint.proxy is not None or not any(os.environ.get(name) for name in _VARIABLES):
        return None
    return next((name for name in _EXCEPTIONS if os.environ.get(name)), None)


def _malformed(origin: str) -> ProvisioningError:
    return ProvisioningError(
        "bad_option",
        f"The proxy in {origin} is not an address such as http://proxy.example.com:3128: correct {origin}. In a user "
        "name or password, percent-encode every special character.",
    )

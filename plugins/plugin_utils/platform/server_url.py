# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take apart what people write for a server: a host name, with a port, or a whole URL.

Private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .user_files import refuse

MQTT_SCHEMES = ("", "ssl", "tls", "mqtts")  # MQTT over TLS
NTRIP_SCHEMES = ("", "http", "ntrip", "ntrip1", "ntrip2")  # without TLS


@dataclass(frozen=True)
class ServerUrl:
    """A server.

    :param host: without the brackets of an IPv6 address.
    :param path: without slashes around it; empty if there is none.
    """

    host: str
    port: int | None
    path: str


def parse(name: str, value: Any, schemes: tuple[str, ...]) -> ServerUrl:
    """Return the parts of a server's address.

    :param name: what messages call it. They never show the value, which may hold a password.
    :param schemes: the ones that are accepted, an empty one for none.
    :raises ProvisioningError: ``bad_option``.
    """
    if not isinstance(value, str):
        raise refuse(name, "is not text: quote it")
    text = value.strip()
    unknown = refuse(name, "is not the address of a server, such as host.example.com:8883")
    if "@" in text:
        raise refuse(name, "has a login in it: put user name and password into fields of their own")
    if not text.isprintable() or " " in text:  # the library would remove some of them
        raise unknown
    try:
        url = urlsplit(text if "://" in text else f"//{_bracketed(text)}")
        host, port = url.hostname, url.port
    except ValueError:
        raise unknown from None
    if url.scheme not in schemes:
        known = ", ".join(f"{scheme}://" for scheme in schemes if scheme)
        raise refuse(name, f"has a scheme that does not fit: use {known} or none")
    if not host or url.netloc.endswith(":") or url.query or url.fragment or port == 0:
        raise unknown
    return ServerUrl(host, port, url.path.strip("/"))


def _bracketed(text: str) -> str:
    """Return the text, with brackets around an IPv6 address that has none.

    With more than one colon, the last one begins no port.
    """
    return f"[{text}]" if text.count(":") > 1 and not text.startswith("[") and "/" not in text else text

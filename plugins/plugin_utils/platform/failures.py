# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn exceptions of the HTTP library into errors: a code, and advice on what to change.

The text of such an exception is dropped, because it may quote a URL with a password.

Private to the collection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
from http.client import HTTPException, IncompleteRead
from urllib.parse import urlsplit

from ..errors import ProvisioningError
from . import proxies, trust
from .exchange import Endpoint, NotSent, OutcomeUnknown
from .proxies import Proxy

with contextlib.suppress(ImportError):  # reported by ``trust.REQUESTS_MISSING``
    from requests import exceptions as failures
    from urllib3.exceptions import DecodeError, HTTPError, ReadTimeoutError

_TUNNEL_FAILED = re.compile(r"Tunnel connection failed: ([0-9]{3})")  # http.client, for a CONNECT without success
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG",
           "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "NO_PROTOCOLS_AVAILABLE")  # fmt: skip


def meaning(error: Exception, endpoint: Endpoint, proxy: Proxy | None, sent: bool) -> Exception:
    """Return what to raise in place of an exception; itself if it is none of the HTTP library.

    :param proxy: the proxy that the request took.
    :param sent: whether any part of the request was sent to the platform.
    """
    problem = _problem(error, endpoint, proxy, sent)
    if problem is None:
        return error
    if sent:
        return OutcomeUnknown(problem)
    # only a connection that never came about is worth another try
    return NotSent(problem.message) if problem.code == "unreachable" else problem


def _problem(error: Exception, endpoint: Endpoint, proxy: Proxy | None, sent: bool) -> ProvisioningError | None:
    host = urlsplit(endpoint.url).netloc
    if isinstance(error, failures.InvalidSchema) and proxy is not None and proxy.scheme.startswith("socks"):
        return ProvisioningError(
            "bad_option",
            f"{proxy.origin} names a SOCKS proxy, and the Python package PySocks is missing on the controller: install "
            "it for the Python of Ansible (pip install PySocks), or name an HTTP proxy.",
        )
    if not sent and isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
        named = f"api_url or {proxy.origin}" if proxy else "api_url"  # an invalid URL is a ValueError everywhere
        return ProvisioningError("bad_option", f"{named} is not a URL that can be used.")
    if not isinstance(error, (failures.RequestException, HTTPError, OSError)):
        return None
    if sent:
        return _after_sending(error, endpoint, host)
    if proxy is not None and (problem := _proxy_problem(error, endpoint, proxy, host)) is not None:
        return problem
    if _find(error, ssl.SSLError) is not None or isinstance(error, failures.SSLError):
        return _tls_problem(error, endpoint, proxy, host)
    return _unreachable(error, endpoint, proxy, host)


def _after_sending(error: Exception, endpoint: Endpoint, host: str) -> ProvisioningError:
    if _find(error, (TimeoutError, failures.Timeout, ReadTimeoutError)) is not None:
        return ProvisioningError("timeout", f"{host} did not respond within {endpoint.timeout:g} seconds: see timeout.")
    if _find(error, (IncompleteRead, DecodeError)) is not None:
        return ProvisioningError("bad_response", f"The response of {host} ended before it was whole.")
    if _find(error, ssl.SSLError) is not None:
        return ProvisioningError("tls", f"The TLS connection to {host} broke after the request was sent.")
    return ProvisioningError("unreachable", f"The connection to {host} broke after the request was sent.")


# ---- without a proxy ----


def _unreachable(error: Exception, endpoint: Endpoint, proxy: Proxy | None, host: str) -> ProvisioningError:
    if proxy is not None:
        return ProvisioningError(
            "unreachable",
            f"Cannot connect to {host} through {proxy} within {endpoint.timeout:g} seconds: compare {proxy.origin} "
            "and api_url, and check the network of the controller.",
        )
    if _find(error, socket.gaierror) is not None:
        return ProvisioningError(
            "unreachable",
            f"The name in {host} does not resolve on the controller: check api_url and the DNS of the controller. "
            f"Where only a proxy reaches the internet, set proxy or HTTPS_PROXY.{_exemption(endpoint)}",
        )
    return ProvisioningError(
        "unreachable",
        f"Cannot connect to {host} ({_reason(error, endpoint)}): check api_url and the network of the controller. "
        f"Where only a proxy reaches the internet, set proxy or HTTPS_PROXY.{_exemption(endpoint)}",
    )


def _exemption(endpoint: Endpoint) -> str:
    variable = proxies.exempting_variable(endpoint)
    return f" {variable} exempts this host from the proxy." if variable else ""


def _tls_problem(error: Exception, endpoint: Endpoint, proxy: Proxy | None, host: str) -> ProvisioningError:
    reason = _tls_reason(error)
    if proxy is not None and reason in _NO_TLS:
        return _no_tls_behind(proxy, host)
    return ProvisioningError(
        "tls", f"The TLS connection to {host} failed: {reason}. {_tls_advice(reason, endpoint, proxy)}"
    )


def _tls_advice(reason: str, endpoint: Endpoint, proxy: Proxy | None) -> str:
    if "expired" in reason or "not yet valid" in reason:
        return "Look at the clock of the controller first, then at the certificate of the server."
    if "mismatch" in reason:
        return "Compare the host name in api_url with the certificate."
    if reason in _NO_TLS:
        return "The server does not speak TLS: compare host and port in api_url."
    inspecting = f" If {proxy} inspects TLS, this is the CA of the proxy." if proxy else ""
    return (
        f"Name the CA that signed the certificate with ca_path, and compare the host name in api_url with the "
        f"certificate. Trusted CAs: {trust.bundle_of(endpoint)}.{inspecting}"
    )


# ---- with a proxy ----


def _proxy_problem(error: Exception, endpoint: Endpoint, proxy: Proxy, host: str) -> ProvisioningError | None:
    """Return what is wrong with the proxy or what it says; ``None`` if the connection to it is not the problem."""
    if (status := _tunnel_status(error)) is not None:
        return _tunnel_refused(status, proxy, host)
    socks = _socks_error(error)
    if socks is not None and (problem := _socks_refused(socks, proxy, host)) is not None:
        return problem
    # nothing was sent, so that a response of HTTP can be that to CONNECT only
    by_proxy = socks is not None or _find(error, (failures.ProxyError, HTTPException)) is not None
    if _find(error, socket.gaierror) is not None:
        if by_proxy or proxy.scheme in ("socks4a", "socks5h"):  # otherwise the controller resolves both names
            return ProvisioningError(
                "unreachable",
                f"The name of {proxy} does not resolve on the controller: correct {proxy.origin}, or check the DNS of "
                "the controller.",
            )
        return ProvisioningError(
            "unreachable",
            f"The name in {host}, or that of {proxy}, does not resolve on the controller: compare api_url and "
            f"{proxy.origin}. With socks5h:// or socks4a:// the proxy resolves names.",
        )
    if by_proxy:
        return _no_connection_to(proxy, error, endpoint)
    if _find(error, (TimeoutError, failures.Timeout, ReadTimeoutError)) is None and (
        _find(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)) is not None
    ):
        return _no_tls_behind(proxy, host)
    return None


def _no_connection_to(proxy: Proxy, error: Exception, endpoint: Endpoint) -> ProvisioningError:
    """Return why the controller cannot talk to its proxy."""
    if _find(error, ssl.SSLError) is not None:
        reason = _tls_reason(error)
        if reason in _NO_TLS:
            return ProvisioningError(
                "bad_option",
                f"{proxy.origin} begins with https://, and {proxy.address} does not speak TLS: most proxies are "
                f"http://, also for https requests. Correct {proxy.origin}.",
            )
        advice = _tls_advice(reason, endpoint, None).replace("api_url", proxy.origin)
        return ProvisioningError("tls", f"The TLS connection to {proxy} failed: {reason}. {advice}")
    timed_out = _find(error, (TimeoutError, failures.Timeout)) is not None
    if timed_out or _errno(error) not in (None, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE):
        return ProvisioningError(
            "unreachable",
            f"Cannot connect to {proxy} ({_reason(error, endpoint)}): check whether it runs, and compare host and port "
            f"in {proxy.origin}. Without a proxy, set proxy to an empty text.",
        )
    return ProvisioningError(
        "unreachable",
        f"{_capital(proxy)} closed the connection without a response: compare scheme and port in {proxy.origin}.",
    )


def _tunnel_refused(status: int, proxy: Proxy, host: str) -> ProvisioningError:
    """Return what a proxy says by the status of its response to CONNECT."""
    if status == 407:
        login = (
            f"does not accept the user name or password in {proxy.origin} (HTTP 407): correct them there"
            if proxy.has_login
            else f"requires a login (HTTP 407): write it into {proxy.origin}, as http://USER:PASSWORD@HOST:PORT"
        )
        return ProvisioningError(
            "proxy_refused",
            f"{_capital(proxy)} {login}. Only Basic authentication is supported; for NTLM or Kerberos, use a local "
            "proxy that logs in.",
        )
    if status >= 500:
        return ProvisioningError(
            "unreachable",
            f"{_capital(proxy)} cannot reach {host} (HTTP {status}): compare api_url, and whether {proxy.origin} names "
            "the proxy for this destination.",
        )
    if 300 <= status < 400:
        return ProvisioningError(
            "proxy_refused",
            f"{_capital(proxy)} redirects instead of connecting to {host} (HTTP {status}): log in to the network, or "
            f"name another proxy in {proxy.origin}.",
        )
    return ProvisioningError(
        "proxy_refused",
        f"{_capital(proxy)} does not allow connections to {host} (HTTP {status}): have its administrator allow "
        f"them, or name another proxy in {proxy.origin}.",
    )


def _socks_refused(socks: BaseException, proxy: Proxy, host: str) -> ProvisioningError | None:
    """Return what a SOCKS proxy says; ``None`` if there is no connection to it."""
    kind, text = type(socks).__name__, str(socks)
    if kind == "ProxyConnectionError":
        return None
    if kind == "SOCKS5AuthError" or re.search(r"0x5[CcDd]", text):
        return ProvisioningError(
            "proxy_refused",
            f"{_capital(proxy)} requires a login or does not accept it: write user name and password into "
            f"{proxy.origin}, as socks5h://USER:PASSWORD@HOST:PORT.",
        )
    if "0x02" in text or "0x5B" in text:  # "not allowed by ruleset"; SOCKS4 has one code for every refusal
        return ProvisioningError(
            "proxy_refused",
            f"{_capital(proxy)} does not allow connections to {host}: have its administrator allow them, or name "
            f"another proxy in {proxy.origin}.",
        )
    if kind in ("SOCKS5Error", "SOCKS4Error"):
        return ProvisioningError(
            "unreachable", f"{_capital(proxy)} cannot reach {host}: compare api_url and {proxy.origin}."
        )
    if getattr(socks, "socket_err", None) is not None:
        return None
    return ProvisioningError(
        "bad_option",
        f"{_capital(proxy)} does not speak this version of SOCKS: compare scheme and port in {proxy.origin}.",
    )


def _no_tls_behind(proxy: Proxy, host: str) -> ProvisioningError:
    return ProvisioningError(
        "tls",
        f"{_capital(proxy)} accepted the connection to {host}, but no TLS server is at its other end. A login page of "
        f"the network may respond in its place: log in, name another proxy in {proxy.origin}, or compare the port in "
        "api_url.",
    )


# ---- what an exception contains ----


def _find(error: BaseException, kind: type[BaseException] | tuple[type[BaseException], ...]) -> BaseException | None:
    """Return the first exception of a kind among those that an exception wraps, as urllib3 and requests nest them."""
    return next((candidate for candidate in _wrapped(error) if isinstance(candidate, kind)), None)


def _wrapped(error: BaseException) -> list[BaseException]:
    """Return an exception and every one that it wraps, the outermost first."""
    found: list[BaseException] = []
    pending: list[BaseException] = [error]
    while pending:
        candidate = pending.pop(0)
        if any(candidate is known for known in found):
            continue
        found.append(candidate)
        attributes = (getattr(candidate, "reason", None), getattr(candidate, "socket_err", None))
        inner = (*candidate.args, *attributes, candidate.__cause__, candidate.__context__)
        pending += [one for one in inner if isinstance(one, BaseException)]
    return found


def _tunnel_status(error: BaseException) -> int | None:
    for candidate in _wrapped(error):
        if match := _TUNNEL_FAILED.search(str(candidate)):
            return int(match[1])
    return None


def _socks_error(error: BaseException) -> BaseException | None:
    """Return the exception of PySocks, which may be missing, so that its classes cannot be named."""
    found = [one for one in _wrapped(error) if type(one).__module__ == "socks"]
    return found[-1] if found else None  # the others wrap it


def _reason(error: Exception, endpoint: Endpoint) -> str:
    if _find(error, (TimeoutError, failures.Timeout)) is not None:
        return f"no response within {endpoint.timeout:g} seconds"
    code = _errno(error)
    return os.strerror(code).lower() if code else "the connection was closed"


def _errno(error: Exception) -> int | None:
    codes = (getattr(one, "errno", None) for one in _wrapped(error) if isinstance(one, OSError))
    return next((code for code in codes if isinstance(code, int)), None)


def _tls_reason(error: BaseException) -> str:
    found = _find(error, ssl.SSLError)
    return getattr(found, "verify_message", None) or getattr(found, "reason", None) or "no further reason"


def _capital(proxy: Proxy) -> str:
    text = str(proxy)
    return text[0].upper() + text[1:]

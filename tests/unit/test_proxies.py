# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which proxy a request takes, that no proxy sees a token, and what each failure of a proxy means."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, proxies
from ansible_collections.thingstream.ztp.tests.unit.https import (
    Pki,
    closed_port,
    endpoint,
    make_pki,
    no_proxies,
    pki_fixture,
    post,
    post_fails,
    tls_fixture,
)
from ansible_collections.thingstream.ztp.tests.unit.support import TOKEN, Behavior, answering, serving
from requests.exceptions import InvalidSchema

_FIXTURES = (no_proxies, pki_fixture, tls_fixture)  # pytest finds them by these names

PASSWORD = "PLANTED-proxy-PASSWORD"


def fails(where: api.Endpoint) -> tuple[str, ProvisioningError]:
    """Return the result of ``post_fails``, after checking that the message is a sentence without a password."""
    kind, error = post_fails(where)
    assert PASSWORD not in repr(error) + error.message
    assert error.message.isprintable()
    assert error.message.endswith(".")
    assert len(error.message) < 500
    return kind, error


def bridge(connection: socket.socket, target: socket.socket, seconds: float) -> None:
    """Pass on data from either side until one of them ends or the time is over."""
    for side in (connection, target):
        side.settimeout(0.02)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for source, sink in ((connection, target), (target, connection)):
            with suppress(TimeoutError):
                data = source.recv(65536)
                if not data:
                    return
                sink.sendall(data)


@pytest.fixture
def tunnel() -> Iterator[Callable[[], Any]]:
    """A proxy that tunnels one connection after the other to the host that it names."""

    def behave(connection: socket.socket, request: bytes) -> None:
        host, port = request.split(b" ")[1].decode().rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=3) as target:
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            bridge(connection, target, 3)

    with serving(behave) as proxy:
        yield lambda: proxy


def test_a_proxy_tunnels_and_sees_nothing(pki: Pki, tls: ssl.SSLContext, tunnel: Any) -> None:
    proxy = tunnel()
    with serving(answering("200 OK", b"the body"), tls=tls) as server:
        where = endpoint(server.port, pki, proxy=f"http://127.0.0.1:{proxy.port}")
        assert post(where).body == b"the body"
    assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{server.port} ".encode())
    assert TOKEN.encode() not in b"".join(proxy.requests)


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_the_usual_variables_name_a_proxy(
    pki: Pki, tls: ssl.SSLContext, tunnel: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    proxy = tunnel()
    monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    with serving(answering("200 OK"), tls=tls) as server:
        post(endpoint(server.port, pki))
        assert len(proxy.requests) == 1
        post(endpoint(server.port, pki, proxy=""))
        assert len(proxy.requests) == 1, 'proxy="" uses none'
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        post(endpoint(server.port, pki))
        assert len(proxy.requests) == 1, "no_proxy is respected"


def test_the_proxy_of_the_endpoint_wins(
    pki: Pki, tls: ssl.SSLContext, tunnel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = tunnel()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    with serving(answering("200 OK"), tls=tls) as server:
        post(endpoint(server.port, pki, proxy=f"http://127.0.0.1:{proxy.port}"))
    assert len(proxy.requests) == 1


def test_the_certificate_is_checked_through_a_proxy_too(pki: Pki, tunnel: Any) -> None:
    proxy = tunnel()
    with serving(answering("200 OK"), tls=pki.context("api.example.com")) as server:
        where = endpoint(server.port, pki, proxy=f"http://127.0.0.1:{proxy.port}")
        assert post_fails(where)[1].code == "tls"
    assert server.requests == []


def test_a_proxy_that_drips(pki: Pki, tls: ssl.SSLContext) -> None:
    """Once the time is over, nothing is sent any more, though the tunnel comes about in the end."""

    def hesitate(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _second in range(20):
            connection.sendall(b"x")
            time.sleep(0.05)
        target = socket.create_connection(("127.0.0.1", server.port), timeout=3)
        connection.sendall(b"\r\n\r\n")
        with target:
            bridge(connection, target, 1)

    with serving(answering("200 OK"), tls=tls) as server, serving(hesitate) as slow:
        where = endpoint(server.port, pki, proxy=f"http://127.0.0.1:{slow.port}", timeout=0.2)
        kind, _error = post_fails(where)
        assert len(slow.requests) == 1
        time.sleep(1.5)  # the tunnel is there meanwhile
    assert kind == "not_sent"
    assert TOKEN.encode() not in b"".join(server.requests)


# ---- the token ----


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_without_tls_no_proxy_gets_the_token(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Plain HTTP is for a simulator on loopback."""
    with serving(answering("200 OK", b"simulated")) as server, serving(answering("200 OK", b"stolen")) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        where = api.Endpoint(f"http://127.0.0.1:{server.port}/ztp", timeout=3)
        assert post(where).body == b"simulated"
        assert TOKEN.encode() in server.requests[0]
        assert proxy.requests == []


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_without_tls_the_option_is_refused(pki: Pki, scheme: str) -> None:
    with serving(answering("200 OK", b"stolen")) as proxy:
        where = api.Endpoint(f"{scheme}://127.0.0.1:1/ztp", proxy=f"http://127.0.0.1:{proxy.port}", timeout=3)
        kind, error = fails(where)
    assert (kind, error.code, "remove proxy" in error.message) == ("error", "bad_option", True)
    assert proxy.requests == []


# ---- addresses ----


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://proxy.example.com:3128", "http://proxy.example.com:3128"),
        ("proxy.example.com:3128", "http://proxy.example.com:3128"),
        ("proxy.example.com", "http://proxy.example.com"),
        (" http://proxy.example.com:3128/\n", "http://proxy.example.com:3128"),
        ("HTTPS://Proxy.example.com", "https://proxy.example.com"),
        ("socks5h://127.0.0.1:1080/", "socks5h://127.0.0.1:1080"),
        (f"http://somebody:{PASSWORD}@proxy.example.com:3128", "http://proxy.example.com:3128"),
        (f"somebody:{PASSWORD}@proxy.example.com:3128", "http://proxy.example.com:3128"),
        (f"http://some@body:{PASSWORD}@[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
    ],
)
def test_what_is_shown_of_a_proxy(text: str, address: str) -> None:
    proxy = proxies.parse("HTTPS_PROXY", text)
    assert proxy.address == address
    assert str(proxy) == f"the proxy {address} (HTTPS_PROXY)"
    assert PASSWORD not in repr(proxy)
    assert proxy.has_login == (PASSWORD in text)


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http://:3128",
        "http://[::1",
        "http://host:port",
        "http://host:99999",
        "::",
        "http://ho st:3128",
        "http://host\x00:3128",
        f"http://somebody:{PASSWORD}/x@host:3128",
        f"http://somebody:{PASSWORD}#x@host:3128",
        f"http://somebody:12?{PASSWORD}@host:3128",
        f"http://somebody:12/{PASSWORD}@host:3128",
        f"http://{PASSWORD}@",
        f"somebody:{PASSWORD}://host",
    ],
)
@pytest.mark.parametrize("variable", [None, "https_proxy", "ALL_PROXY"])
def test_an_address_that_cannot_be_used(
    pki: Pki, monkeypatch: pytest.MonkeyPatch, text: str, variable: str | None
) -> None:
    """Nothing is sent, and the message names where the address comes from."""
    if variable:
        text = text.replace("\0", "\x01")  # which no variable can contain
        monkeypatch.setenv(variable, text)
    kind, error = fails(endpoint(1, pki, proxy=None if variable else text))
    assert (kind, error.code) == ("error", "bad_option")
    assert f"proxy in {variable or 'proxy'} is not an address" in error.message
    assert "percent-encode" in error.message


@pytest.mark.parametrize("text", ["socks://127.0.0.1:1080/", "SOCKS://x", "nonsense://x:1", "htp://x:1", "ftp://x"])
def test_a_scheme_that_no_proxy_has(pki: Pki, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """GNOME sets all_proxy=socks://HOST:PORT/."""
    monkeypatch.setenv("all_proxy", text)
    kind, error = fails(endpoint(1, pki))
    assert (kind, error.code) == ("error", "bad_option")
    assert "correct all_proxy" in error.message
    assert ("names no version" in error.message) == text.lower().startswith("socks:")


def test_a_socks_proxy_without_the_library_for_it(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_arguments: Any, **_options: Any) -> None:
        raise InvalidSchema("Missing dependencies for SOCKS support.")  # what requests does without PySocks

    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", missing)
    monkeypatch.setenv("HTTPS_PROXY", "socks5h://127.0.0.1:1")
    kind, error = fails(endpoint(1, pki))
    assert (kind, error.code) == ("error", "bad_option")
    assert "HTTPS_PROXY names a SOCKS proxy" in error.message
    assert "PySocks" in error.message


# ---- what an HTTP proxy says ----


def login(port: int) -> str:
    return f"http://somebody:{PASSWORD}@127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("status", "kind", "code", "says"),
    [
        ("407 Proxy Authentication Required", "error", "proxy_refused", "does not accept the user name or password"),
        ("403 Forbidden", "error", "proxy_refused", "does not allow connections to 127.0.0.1:"),
        ("401 Unauthorized", "error", "proxy_refused", "does not allow connections"),
        ("405 Method Not Allowed", "error", "proxy_refused", "does not allow connections"),
        ("302 Found", "error", "proxy_refused", "log in to the network"),
        ("511 Network Authentication Required", "not_sent", "unreachable", "cannot reach 127.0.0.1:"),
        ("500 Oops", "not_sent", "unreachable", "cannot reach"),
        ("502 Bad Gateway", "not_sent", "unreachable", "cannot reach"),
        ("503 Service Unavailable", "not_sent", "unreachable", "cannot reach"),
        ("504 Gateway Timeout", "not_sent", "unreachable", "cannot reach"),
    ],
)
def test_a_proxy_that_refuses(
    pki: Pki, monkeypatch: pytest.MonkeyPatch, status: str, kind: str, code: str, says: str
) -> None:
    with serving(answering(status, PASSWORD.encode())) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", login(proxy.port))
        found, error = fails(endpoint(closed_port(), pki))
        assert len(proxy.requests) == 1
    assert (found, error.code) == (kind, code)
    assert says in error.message
    assert f"proxy http://127.0.0.1:{proxy.port} (HTTPS_PROXY)" in error.message
    assert f"HTTP {status[:3]}" in error.message
    assert error.status is None, "it is not a status of the platform"


def test_a_proxy_that_requires_a_login(pki: Pki) -> None:
    with serving(answering("407 Proxy Authentication Required", b"", "Proxy-Authenticate: Negotiate")) as proxy:
        kind, error = fails(endpoint(closed_port(), pki, proxy=f"http://127.0.0.1:{proxy.port}"))
    assert (kind, error.code) == ("error", "proxy_refused")
    assert "write it into proxy, as http://USER:PASSWORD@HOST:PORT" in error.message
    assert "Basic" in error.message


def page_of_a_portal(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Please log in</html>")


def patient_portal(connection: socket.socket, request: bytes) -> None:
    """Behave as a portal whose page arrives after the handshake began."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.recv(4096)
    connection.sendall(b"<html>Please log in</html>" * 100)


def abrupt_portal(connection: socket.socket, request: bytes) -> None:
    """Behave as a portal that resets the connection when the handshake begins."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.recv(4096)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("portal", [page_of_a_portal, patient_portal, abrupt_portal])
def test_a_captive_portal_behind_connect(pki: Pki, monkeypatch: pytest.MonkeyPatch, portal: Behavior) -> None:
    with serving(portal) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        kind, error = fails(endpoint(closed_port(), pki))
    assert (kind, error.code) == ("error", "tls")
    assert "login page" in error.message
    assert "https_proxy" in error.message


def test_a_certificate_that_a_proxy_has_replaced(pki: Pki, tunnel: Any, tmp_path_factory: Any) -> None:
    """As by a proxy that inspects TLS: the message says whose CA is missing."""
    other = make_pki(tmp_path_factory.mktemp("other"))
    with serving(answering("200 OK"), tls=other.context("127.0.0.1")) as server:
        proxy = f"http://127.0.0.1:{tunnel().port}"
        kind, error = fails(endpoint(server.port, pki, proxy=proxy))
    assert (kind, error.code) == ("error", "tls")
    assert f"If the proxy {proxy} (proxy) inspects TLS, this is the CA of the proxy" in error.message
    assert f"ca_path ({pki.ca_path})" in error.message


# ---- no connection to the proxy ----


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h", "socks4"])
def test_a_proxy_that_is_not_there(pki: Pki, scheme: str) -> None:
    port = closed_port()
    kind, error = fails(endpoint(1, pki, proxy=f"{scheme}://127.0.0.1:{port}"))
    assert kind == "not_sent"
    assert f"Cannot connect to the proxy {scheme}://127.0.0.1:{port} (proxy) (connection refused)" in error.message


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_a_proxy_whose_name_does_not_resolve(pki: Pki, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("https_proxy", f"{scheme}://somebody:{PASSWORD}@proxy.example:3128")
    unresolved(monkeypatch)
    kind, error = fails(endpoint(1, pki))
    assert kind == "not_sent"
    assert f"name of the proxy {scheme}://proxy.example:3128 (https_proxy) does not resolve" in error.message


def test_a_platform_whose_name_does_not_resolve(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    unresolved(monkeypatch)
    where = endpoint(1, pki, url="https://api.example:8443/ztp")
    kind, error = fails(where)
    assert kind == "not_sent"
    assert "name in api.example:8443 does not resolve" in error.message
    assert "HTTPS_PROXY" in error.message
    assert "exempts" not in error.message
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "localhost,.example")
    assert "NO_PROXY exempts this host from the proxy." in fails(where)[1].message


def unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no name resolve."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


def test_a_proxy_that_is_exempted_by_mistake(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.0/8")
    kind, error = fails(endpoint(closed_port(), pki))
    assert kind == "not_sent"
    assert "Cannot connect to 127.0.0.1:" in error.message
    assert "no_proxy exempts this host from the proxy." in error.message


@pytest.mark.parametrize(
    "behavior", [lambda connection, request: None, lambda connection, request: connection.sendall(b"SSH-2.0-x\r\n")]
)
def test_what_is_no_proxy(pki: Pki, behavior: Behavior) -> None:
    with serving(behavior) as server:
        kind, error = fails(endpoint(closed_port(), pki, proxy=f"http://127.0.0.1:{server.port}"))
    assert kind == "not_sent"
    assert "compare scheme and port in proxy" in error.message


def test_a_proxy_that_says_nothing(pki: Pki) -> None:
    with serving(raw=lambda connection, request: time.sleep(0.6)) as silent:
        where = endpoint(closed_port(), pki, proxy=f"http://127.0.0.1:{silent.port}", timeout=0.2)
        kind, error = fails(where)
    assert kind == "not_sent"
    assert f"through the proxy http://127.0.0.1:{silent.port} (proxy)" in error.message


# ---- a proxy with TLS of its own ----


def test_https_to_a_plain_proxy(pki: Pki, tunnel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS to the proxy itself; most people mean http://."""
    with serving(raw=lambda connection, request: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as plain:
        monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{plain.port}")
        kind, error = fails(endpoint(closed_port(), pki))
    assert (kind, error.code) == ("error", "bad_option")
    assert "HTTPS_PROXY begins with https://" in error.message
    assert "Correct HTTPS_PROXY" in error.message


def test_a_proxy_with_tls(pki: Pki, tls: ssl.SSLContext) -> None:
    """The CA of the options holds for the proxy, too."""
    with serving(answering("407 Proxy Authentication Required"), tls=tls) as proxy:
        address = f"https://127.0.0.1:{proxy.port}"
        assert fails(endpoint(closed_port(), pki, proxy=address))[1].code == "proxy_refused"
        kind, error = fails(endpoint(closed_port(), pki, proxy=address, ca_path=None))
    assert (kind, error.code) == ("error", "tls")
    assert f"TLS connection to the proxy {address} (proxy) failed" in error.message


# ---- SOCKS ----


def socks5(*replies: bytes) -> Behavior:
    """Return the behavior of a SOCKS proxy that sends these replies, one for each message."""

    def behave(connection: socket.socket, request: bytes) -> None:
        for reply in replies:
            if not connection.recv(4096):
                return
            connection.sendall(reply)

    return behave


@pytest.mark.parametrize(
    ("replies", "kind", "code", "says"),
    [
        ([b"\x05\xff"], "error", "proxy_refused", "requires a login or does not accept it"),
        ([b"\x05\x02", b"\x01\x01"], "error", "proxy_refused", "requires a login or does not accept it"),
        ([b"\x05\x00", b"\x05\x02\x00\x01" + bytes(6)], "error", "proxy_refused", "does not allow connections"),
        ([b"\x05\x00", b"\x05\x04\x00\x01" + bytes(6)], "not_sent", "unreachable", "cannot reach 127.0.0.1:"),
        ([b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)], "not_sent", "unreachable", "cannot reach 127.0.0.1:"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "error", "bad_option", "does not speak this version of SOCKS"),
        ([b"\x05\x00", b"\x05\x00\x00\x01" + bytes(6), b"<html>"], "error", "tls", "login page"),
    ],
)
def test_what_a_socks_proxy_says(pki: Pki, replies: list[bytes], kind: str, code: str, says: str) -> None:
    with serving(raw=socks5(*replies)) as proxy:
        address = f"socks5h://somebody:{PASSWORD}@127.0.0.1:{proxy.port}"
        found, error = fails(endpoint(closed_port(), pki, proxy=address))
    assert (found, error.code) == (kind, code), error.message
    assert says in error.message

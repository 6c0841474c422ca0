# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Responses of casters, and of servers that are none: the code, the status, and the cause in the message."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify import ntrip
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import VerifySettings
from ansible_collections.thingstream.ztp.tests.unit.servers import (
    DATA,
    HERE,
    STREAM,
    Pki,
    fails,
    hang,
    leave,
    reset,
    send,
    with_caster,
)
from ansible_collections.thingstream.ztp.tests.unit.support import Behavior, serving


@dataclass(frozen=True)
class Case:
    """A response.

    :param in_use: the code if the login may be in use; the same one if empty.
    """

    response: bytes
    code: str
    status: int | None
    says: str
    in_use: str = ""


def http(status: str, *headers: str, body: bytes = b"SECRET-BODY") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


BASIC, EITHER = "credentials_refused", "refused_or_in_use"
TABLE = b"CAS;caster.example;2101;SECRET-BODY;x;0;DEU;50;8;0.0.0.0;0;z\r\nSTR;OTHER;x\r\nENDSOURCETABLE\r\n"
HTML = b"<!DOCTYPE html><html><title>SECRET-BODY</title></html>"
JSON = b'{"error": "SECRET-BODY"}'
OK = "200 OK"
LONG = b"x" * 100_000

RESPONSES = {
    # the login
    "401": Case(http("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"'), BASIC, 401, "password", EITHER),
    "401 version 1": Case(b"HTTP/1.0 401 Unauthorized\r\n", BASIC, 401, "password", EITHER),
    "401 without a line end": Case(b"HTTP/1.1 401 Unauthorized", BASIC, 401, "password", EITHER),
    "401 in lower case": Case(b"http/1.1 401 unauthorized\n\n", BASIC, 401, "password", EITHER),
    "401 after 100": Case(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 No\r\n\r\n", BASIC, 401, "password", EITHER),
    "401 after blank lines": Case(b"\r\n\r\nHTTP/1.1 401 No\r\n\r\n", BASIC, 401, "password", EITHER),
    "401 ICY": Case(b"ICY 401 Unauthorized\r\n\r\n", BASIC, 401, "password", EITHER),
    "401 with a page": Case(http("401 No", "Content-Type: text/html", body=HTML), BASIC, 401, "password", EITHER),
    "401 Digest": Case(http("401 No", "WWW-Authenticate: Digest realm=x"), "bad_response", 401, "Digest"),
    "401 Digest or Basic": Case(
        http("401 No", "WWW-Authenticate: Digest realm=x", "WWW-Authenticate: Basic realm=x"),
        BASIC, 401, "password", EITHER,
    ),
    "403": Case(http("403 SECRET-BODY"), BASIC, 403, "does not allow this login", EITHER),
    "409": Case(http("409 Conflict"), EITHER, 409, "one connection for each login"),
    "bad password": Case(b"ERROR - Bad Password\r\n", BASIC, None, "password", EITHER),
    "bad user": Case(b"ERROR - Invalid Username\r\n", BASIC, None, "password", EITHER),
    "not authorized": Case(b"ERROR - Not Authorized: unauthorized\r\n", BASIC, None, "password", EITHER),
    "bad password in lower case": Case(b"error - bad password", BASIC, None, "password", EITHER),
    "bad password with 200": Case(http(OK, body=b"ERROR - Bad Password\r\n"), BASIC, None, "password", EITHER),
    "connected": Case(b"ERROR - User already connected\r\n", EITHER, None, "a further login"),
    "too many": Case(b"ERROR - Too many connections SECRET-BODY\r\n", EITHER, None, "a further login"),
    # the plan and the mount point
    "402": Case(http("402 Payment Required"), "no_plan", 402, "plan"),
    "404": Case(http("404 Not Found"), "refused", 404, "does not know the mount point NEAR-RTCM"),
    "404 ICY": Case(b"ICY 404 Not Found\r\n", "refused", 404, "does not know"),
    "410": Case(http("410 Gone"), "refused", 410, "does not know"),
    "mount point": Case(b"ERROR - Mount Point Taken or Invalid\r\n", "refused", None, "NEAR-RTCM"),
    "mount point in one word": Case(b"ERROR - Mountpoint Taken or Invalid\r\n", "refused", None, "NEAR-RTCM"),
    "error alone": Case(b"ERROR\r\n", "refused", None, "NEAR-RTCM"),
    "error without a position": Case(b"ERROR - GGA required\r\n", "refused", None, "set position"),
    "table": Case(b"SOURCETABLE 200 OK\r\nServer: x\r\n\r\n" + TABLE, "refused", 200, "source table"),
    "table without headers": Case(b"SOURCETABLE 200 OK\r\n" + TABLE, "refused", 200, "source table"),
    "table version 2": Case(http(OK, "Content-Type: gnss/sourcetable", body=TABLE), "refused", 200, "source table"),
    "table as text": Case(http(OK, "Content-Type: text/plain", body=TABLE), "refused", 200, "source table"),
    "table after ICY": Case(b"ICY 200 OK\r\n\r\n" + TABLE, "refused", 200, "source table"),
    "empty table": Case(http(OK, body=b"ENDSOURCETABLE\r\n"), "refused", 200, "source table"),
    # the state of the caster
    "408": Case(http("408 Request Timeout"), "timeout", 408, "run again"),
    "429": Case(http("429 Too Many Requests", "Retry-After: 60"), "rate_limited", 429, "too many requests"),
    "500": Case(http("500 SECRET-BODY"), "server_error", 500, "run again later"),
    "503": Case(http("503 Service Unavailable"), "server_error", 503, "run again later"),
    "504 of a proxy": Case(http("504 Gateway Timeout", body=HTML), "server_error", 504, "run again later"),
    # the way to the caster
    "301": Case(http("301 Moved", "Location: https://SECRET-BODY/"), "bad_response", 301, "another address"),
    "302": Case(http("302 Found", "Location: /SECRET-BODY"), "bad_response", 302, "another address"),
    "400": Case(http("400 Bad Request"), "refused", 400, "NEAR-RTCM"),
    "400 of a port with TLS": Case(
        http("400 Bad Request", body=b"<html>The plain HTTP request was sent to HTTPS port</html>"),
        "tls", 400, "ntrip_tls_port",
    ),
    "400 of another port with TLS": Case(
        http("400 Bad Request", body=b"You're speaking plain HTTP to an SSL-enabled server port."),
        "tls", 400, "ntrip_tls_port",
    ),
    "405": Case(http("405 Method Not Allowed"), "refused", 405, "HTTP 405"),
    "407": Case(http("407 Proxy Authentication Required"), "proxy_refused", 407, "proxy"),
    "426": Case(http("426 Upgrade Required", "Upgrade: TLS/1.2"), "tls", 426, "ntrip_tls_port"),
    "497": Case(http("497 x", body=b"The plain HTTP request was sent to HTTPS port"), "tls", 497, "ntrip_tls_port"),
    "a TLS alert": Case(b"\x15\x03\x01\x00\x02\x02\x46", "tls", None, "ntrip_tls_port"),
    "page": Case(http(OK, "Content-Type: text/html", body=HTML), "bad_response", 200, "web page"),
    "page without a type": Case(http(OK, body=HTML), "bad_response", 200, "web page"),
    "page in chunks": Case(
        http(OK, "Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(HTML), HTML)),
        "bad_response", 200, "web page",
    ),
    "page after ICY": Case(b"ICY 200 OK\r\n\r\n" + HTML, "bad_response", 200, "web page"),
    "JSON": Case(http(OK, "Content-Type: application/json", body=JSON), "bad_response", 200, "JSON"),
    "JSON without a type": Case(http(OK, body=JSON), "bad_response", 200, "JSON"),
    "text": Case(http(OK, "Content-Type: text/plain", body=b"SECRET-BODY"), "bad_response", 200, "text"),
    "text as a stream": Case(http(OK, "Content-Type: gnss/data", body=b"banned"), "bad_response", 200, "text"),
    "text after ICY": Case(b"ICY 200 OK\r\nbanned SECRET-BODY", "bad_response", 200, "text"),
    "nothing": Case(http(OK, "Content-Length: 0", body=b""), "bad_response", 200, "closed the connection"),
    "a damaged message": Case(http(OK, body=DATA[:-1] + b"\0"), "bad_response", 200, "no message of RTCM 3"),
    "204": Case(http("204 No Content", body=b""), "bad_response", 204, "not NTRIP"),
    "206": Case(http("206 Partial Content"), "bad_response", 206, "not NTRIP"),
    "HTTP/2": Case(b"HTTP/2 200\r\ncontent-type: gnss/data\r\n\r\n" + DATA, "bad_response", None, "HTTP/2"),
    "RTSP": Case(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n", "bad_response", None, "RTSP"),
    "SSH": Case(b"SSH-2.0-SECRET-BODY\r\n", "bad_response", None, "SSH"),
    "mail": Case(b"220 SECRET-BODY ESMTP\r\n", "bad_response", None, "not NTRIP"),
    "messages without a head": Case(DATA, "bad_response", None, "not NTRIP"),
    "four digits": Case(b"HTTP/1.1 2000 OK\r\n\r\n", "bad_response", None, "not NTRIP"),
    "half a status": Case(b"HTTP/1.1 4", "bad_response", None, "not NTRIP"),
    "half a header": Case(b"HTTP/1.1 200 OK\r\nContent-Ty", "bad_response", 200, "no corrections"),
    "endless headers": Case(b"HTTP/1.1 200 OK\r\n" + b"X: SECRET-BODY\r\n" * 9000, "bad_response", 200, "closed"),
    "an endless line": Case(b"ICY 200 " + LONG, "bad_response", 200, "closed"),
    "an endless page": Case(b"ICY 200 OK\r\n\r\n" + LONG, "bad_response", 200, "text"),
    "silence": Case(b"", "bad_response", None, "closed the connection without a response"),
    "blank lines": Case(b"\r\n\r\n", "bad_response", None, "closed the connection without a response"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ntrip, "PAUSE", 0.2)


@pytest.mark.parametrize("name", RESPONSES)
def test_each_response_has_its_code(settings: VerifySettings, name: str) -> None:
    case = RESPONSES[name]
    assert case.code in ERROR_CODES
    for in_use in (False, True):
        for position in (None, HERE):
            with serving(send(case.response)) as server:
                error = fails(with_caster(server.port), replace(settings, position=position, in_use=in_use))
            code = (in_use and case.in_use) or case.code
            assert (error.code, error.status) == (code, case.status)
            assert case.says in error.message
            assert f"127.0.0.1:{server.port}" in error.message
            assert error.message.endswith(".")
            if code == EITHER:
                assert "in use" in error.message


@pytest.mark.parametrize("name", RESPONSES)
def test_a_server_that_keeps_the_connection_open_changes_no_code(settings: VerifySettings, name: str) -> None:
    """A known result does not wait for the end of the connection."""
    case = RESPONSES[name]
    with serving(send(case.response, hang)) as server:
        error = fails(with_caster(server.port), replace(settings, position=HERE, timeout=0.6))
    # without the end, what is incomplete may go on
    assert error.code in (case.code, "timeout")
    if error.code == "timeout":
        assert "within 0.6 seconds" in error.message or case.code == "timeout"


@pytest.mark.parametrize("in_use", [False, True])
def test_a_login_in_use_is_never_called_refused(settings: VerifySettings, in_use: bool) -> None:
    codes = {case.in_use or case.code for case in RESPONSES.values()} if in_use else set()
    assert BASIC not in codes


@pytest.mark.parametrize(
    ("behavior", "code", "says"),
    [
        (leave, "bad_response", "TLS"),
        (reset, "bad_response", "TLS"),
        (hang, "timeout", "did not respond"),
        (send(b"HTTP/1.1 200 OK\r\n", hang), "timeout", "did not respond"),
        (send(b"\r\n", hang), "timeout", "did not respond"),
        (send(b"ICY 200 OK\r\n\r\n" + b"\r\n" * 20, hang), "timeout", "no message of RTCM 3 or SPARTN"),
        (send(b"ICY 200 OK\r\n\r\n" + b"\0" * 200, hang), "timeout", "no message of RTCM 3 or SPARTN"),
    ],
)
def test_silence(settings: VerifySettings, behavior: Behavior, code: str, says: str) -> None:
    with serving(behavior) as server:
        error = fails(with_caster(server.port), replace(settings, position=HERE, timeout=0.5))
    assert error.code == code
    assert says in error.message


def test_tls_on_a_port_without(settings: VerifySettings) -> None:
    for response in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"ICY 200 OK\r\n"):

        def respond(connection: socket.socket, _request: bytes, response: bytes = response) -> None:
            connection.recv(4096)
            connection.sendall(response)

        with serving(raw=respond) as server:
            error = fails(with_caster(server.port, tls=True), settings)
        assert (error.code, "this port uses TLS" in error.message) == ("tls", True)
    with serving(raw=hang) as server:
        error = fails(with_caster(server.port, tls=True), replace(settings, timeout=0.3))
    assert (error.code, "this port uses TLS" in error.message) == ("timeout", True)


def test_no_tls_on_a_port_with_it(pki: Pki, settings: VerifySettings) -> None:
    with serving(STREAM, tls=pki.server()) as server:
        error = fails(with_caster(server.port), settings)
    assert error.code in ("tls", "bad_response")
    assert "TLS" in error.message

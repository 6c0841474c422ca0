# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Positions in NMEA, and what each response of a caster means."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify import ntrip
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.connection import Connection
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.ntrip import gga
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import (
    Verification,
    VerifySettings,
    verify,
)
from ansible_collections.thingstream.ztp.tests.unit.servers import (
    DATA,
    HERE,
    NTRIP_USER,
    STREAM,
    Pki,
    fails,
    hang,
    leave,
    open_files,
    reset,
    send,
    spartn_frame,
    trickle,
    with_caster,
)
from ansible_collections.thingstream.ztp.tests.unit.support import NOW, NTRIP_PASSWORD, Behavior, serving


def checked(sentence: str) -> list[str]:
    """Return the fields of a sentence, after checking its start, end and checksum."""
    assert sentence[0] == "$"
    assert sentence.endswith("\r\n")
    body, _star, checksum = sentence[1:-2].partition("*")
    value = 0
    for character in body:
        value ^= ord(character)
    assert checksum == f"{value:02X}"
    return body.split(",")


def test_a_sentence_as_a_receiver_writes_it() -> None:
    moment = datetime(2026, 11, 22, 12, 35, 19, 999_999, tzinfo=timezone.utc)
    expected = "$GPGGA,123519.00,4807.0380,N,01131.0000,E,1,12,1.0,0.0,M,0.0,M,,*51\r\n"
    assert gga(48.1173, 11 + 31 / 60, moment) == expected
    checked(expected)


@pytest.mark.parametrize(
    ("latitude", "longitude", "place"),
    [
        (0, 0, "0000.0000,N,00000.0000,E"),
        (-33.856784, 151.215297, "3351.4070,S,15112.9178,E"),
        (40.689247, -74.044502, "4041.3548,N,07402.6701,W"),
        (-54.8, -68.3, "5448.0000,S,06818.0000,W"),
        (90, 180, "9000.0000,N,18000.0000,E"),
        (-90, -180, "9000.0000,S,18000.0000,W"),
        (47 + 59.99994 / 60, 8 + 59.99994 / 60, "4759.9999,N,00859.9999,E"),
        (47 + 59.99999 / 60, 8 + 59.99999 / 60, "4800.0000,N,00900.0000,E"),
        (-(9 + 59.99999 / 60), -(99 + 59.99999 / 60), "1000.0000,S,10000.0000,W"),
        (1e-7, 1 / 60, "0000.0000,N,00001.0000,E"),
    ],
)
def test_a_position(latitude: float, longitude: float, place: str) -> None:
    assert checked(gga(latitude, longitude, NOW))[2:6] == place.split(",")


def test_the_time_of_a_position_is_in_utc() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert checked(gga(0, 0, datetime(2026, 11, 22, 3, 4, 5, tzinfo=zone)))[1] == "213405.00"


def assert_corrections(verifications: list[Verification], port: int, tls: bool = False) -> None:
    """Check the verification of a caster that sent ``DATA``."""
    (found,) = verifications
    assert found == Verification(
        "ntrip", "127.0.0.1", port, tls, True, found.first_correction_ms, ("RTCM 1005",), "NEAR-RTCM"
    )
    assert found.first_correction_ms is not None
    assert 0 <= found.first_correction_ms < 3000


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for what may follow a response no longer than servers on this machine need."""
    monkeypatch.setattr(ntrip, "PAUSE", 0.2)


def test_the_request(settings: VerifySettings) -> None:
    with serving(STREAM) as server:
        assert_corrections(verify(with_caster(server.port), settings), server.port)
    login = base64.b64encode(f"{NTRIP_USER}:{NTRIP_PASSWORD}".encode()).decode()
    assert server.requests[0].decode().split("\r\n") == [
        "GET /NEAR-RTCM HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "Ntrip-Version: Ntrip/2.0",
        "User-Agent: NTRIP thingstream.ztp",
        "Accept: */*",
        f"Authorization: Basic {login}",
        "Connection: close",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("mountpoint", "path"),
    [
        ("NEAR-RTCM", "/NEAR-RTCM"),
        ("/NEAR-RTCM", "/NEAR-RTCM"),
        ("a b", "/a%20b"),
        ("a HTTP/1.1 x", "/a%20HTTP/1.1%20x"),
        ("a?b#c%d", "/a%3Fb%23c%25d"),
        ("Zürich", "/Z%C3%BCrich"),
    ],
)
def test_a_mount_point_is_one_word(settings: VerifySettings, mountpoint: str, path: str) -> None:
    with serving(STREAM) as server:
        verify(with_caster(server.port, mountPoint=mountpoint), settings)
    assert server.requests[0].decode().split("\r\n")[0] == f"GET {path} HTTP/1.1"


def test_a_line_break_does_not_get_into_a_request(settings: VerifySettings) -> None:
    """The check of credentials refuses them; here the request itself stays intact."""
    with serving(STREAM) as server:
        verify(replace(with_caster(server.port), ntrip_mountpoint="a\r\nX: y"), settings)
    assert b"\r\nX" not in server.requests[0]


def test_a_position_is_sent_in_every_way(settings: VerifySettings) -> None:
    sentences = b""

    def respond_then_listen(connection: socket.socket, request: bytes) -> None:
        nonlocal sentences
        sentences = request.partition(b"\r\n\r\n")[2]
        while sentences.count(b"\r\n") < 1:
            sentences += connection.recv(4096)
        connection.sendall(b"ICY 200 OK\r\n")
        while sentences.count(b"\r\n") < 2:
            sentences += connection.recv(4096)
        connection.sendall(DATA)
        hang(connection)

    with serving(respond_then_listen) as server:
        assert_corrections(verify(with_caster(server.port), replace(settings, position=HERE)), server.port)
    head, _blank, _body = server.requests[0].decode().partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    expected = ["4656.8800", "N", "00726.8440", "E"]
    assert checked(headers["Ntrip-GGA"] + "\r\n")[2:6] == expected
    # behind the request, and after the response
    sent = [checked(sentence)[2:6] for sentence in sentences.decode().splitlines(keepends=True)]
    assert sent == [expected, expected]


def test_a_caster_that_sends_data_and_closes(settings: VerifySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending the position again fails, but the data has arrived."""
    real, sent = Connection.send, []

    def once(connection: Connection, data: bytes) -> int:
        sent.append(data)
        if len(sent) > 1:
            raise BrokenPipeError
        return real(connection, data)

    monkeypatch.setattr(Connection, "send", once)
    with serving(send(b"ICY 200 OK\r\n" + DATA)) as server:
        assert verify(with_caster(server.port), replace(settings, position=HERE))[0].data is True
    assert len(sent) == 2


OK = b"HTTP/1.1 200 OK\r\nContent-Type: gnss/data\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    "response",
    [
        OK + b"\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\nServer: x\n\n",
        b"ICY 200 OK\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"ICY 200 OK\r\nServer: x\r\nDate: y\r\n\r\n",
    ],
)
def test_a_stream(pki: Pki, settings: VerifySettings, response: bytes, tls: bool) -> None:
    def slowly(connection: socket.socket, request: bytes) -> None:
        for byte in response:
            connection.sendall(bytes([byte]))
        time.sleep(0.05)
        connection.sendall(DATA)
        hang(connection)

    with serving(slowly, tls=pki.server() if tls else None) as server:
        credentials = with_caster(server.port, tls)
        for position in (None, HERE):
            assert_corrections(verify(credentials, replace(settings, position=position)), server.port, tls)


HALVES = (DATA[:11], DATA[11:])


@pytest.mark.parametrize(
    ("response", "data"),
    [
        (OK + b"\r\n", False),
        (OK + b"\r\n" + DATA, True),
        (OK + b"\r\n" + DATA[:-1], False),
        (OK + b"\r\n" + DATA[:-1] + b"x", False),
        (OK + b"\r\n\r\n\r\n", False),
        (OK + DATA, True),
        (CHUNKED, False),
        (CHUNKED + b"4\r\n", False),
        (CHUNKED + b"4;x=y\r\n\xd3", False),
        (CHUNKED + b"19\r\n" + DATA, True),
        (CHUNKED + b"b ; x=y\r\n%b\r\n00E\r\n%b" % HALVES, True),
        (CHUNKED + b"".join(b"1\n%c\n" % byte for byte in DATA), True),
        (CHUNKED + DATA, True),
        (b"ICY 200 OK\r\n", False),
        (b"ICY 200 OK\r\n\r", False),
        (b"ICY 200 OK\r\n\r\n", False),
        (b"ICY 200 OK\r\n" + DATA, True),
        (b"icy 200 ok\r\n\r\n" + DATA, True),
        (b"ICY 200 OK\n\n" + DATA, True),
        (b"\r\n\r\nICY 200 OK\r\n\r\n" + DATA, True),
        (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 102 x\r\n\r\n" + OK + b"\r\n" + DATA, True),
        (b"ICY 200 OK\r\nServer: x\r\nDa", False),
        (b"ICY 200 OK\r\nServer: x\r\n\r\n" + DATA, True),
        (b"ICY 200 OK\r\n\r\n" + spartn_frame(1, 0, b"x" * 50, encrypted=True), True),
        (b"ICY 200 OK\r\n\r\ns\x00\x12\xe2" + bytes(30), False),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + DATA, True),
    ],
)
@pytest.mark.parametrize("then", [hang, leave], ids=["silent", "closed"])
def test_what_is_data(settings: VerifySettings, response: bytes, data: bool, then: Behavior) -> None:
    with serving(send(response, then)) as server:
        credentials = with_caster(server.port)
        with_position = replace(settings, position=HERE, timeout=3 if data else 0.3)
        if data:
            assert verify(credentials, settings)[0].data is True
            assert verify(credentials, with_position)[0].data is True
            return
        error = fails(credentials, with_position)
        assert error.code == ("timeout" if then is hang else "bad_response")
        assert "accepted the login" in error.message
        assert "position" in error.message


@pytest.mark.parametrize(
    ("response", "accepted"),
    [
        (OK + b"\r\n", True),
        (OK + b"\r\n\r\n", True),
        (b"ICY 200 OK\r\n", True),
        (b"ICY 200 OK\r\nServer: x\r\n", True),
        (CHUNKED, True),
        (b"ICY 200 OK\r\nbanned", False),
        (b"ICY 200 OK\r\n\r\nbanned", False),
        (OK + b"\r\nbanned", False),
        (CHUNKED + b"6\r\nbanned", False),
        (CHUNKED + b"0\r\n\r\n", False),
        (OK + b"Content-Length: 0\r\n\r\n", False),
        (OK + b"\r\n" + DATA[:-1], False),
    ],
)
def test_a_silent_caster_has_accepted_the_login_without_a_position(
    settings: VerifySettings, response: bytes, accepted: bool
) -> None:
    settings = replace(settings, timeout=0.6)
    with serving(send(response, hang)) as server:
        if accepted:
            (found,) = verify(with_caster(server.port), settings)
            assert (found.data, found.first_correction_ms, found.message_types) == (False, None, ())
        else:
            assert fails(with_caster(server.port), settings).code in ("bad_response", "timeout")
    with serving(send(response, leave)) as server:
        assert fails(with_caster(server.port), settings).code == "bad_response"


def test_a_server_that_is_no_caster_fails_at_once(settings: VerifySettings) -> None:
    begin = time.monotonic()
    for response in (b"SSH-2.0-x\r\n", b"220 mail\r\n", b"\x16\x03", b"H\n"):
        with serving(send(response, hang)) as server:
            assert fails(with_caster(server.port), settings).code == "bad_response"
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_connection_that_breaks(pki: Pki, settings: VerifySettings, tls: bool) -> None:
    with serving(reset, tls=pki.server() if tls else None) as server:
        assert fails(with_caster(server.port, tls), settings).code == "bad_response"
    with serving(send(OK + b"\r\n", reset), tls=pki.server() if tls else None) as server:
        error = fails(with_caster(server.port, tls), replace(settings, position=HERE))
        assert error.code == "bad_response"


@pytest.mark.parametrize("behavior", [hang, send(b"HTTP/1.1 200 OK\r\n", hang), trickle(b"HTTP/1.1 200 OK\r\nX")])
def test_a_slow_caster(settings: VerifySettings, behavior: Behavior) -> None:
    for position in (None, HERE):
        begin = time.monotonic()
        with serving(behavior) as server:
            error = fails(with_caster(server.port), replace(settings, position=position, timeout=0.2))
            assert time.monotonic() - begin < 1
        assert (error.code, "within 0.2 seconds" in error.message) == ("timeout", True)
        assert ("request with a position" in error.message) is (position is None)


def test_a_caster_that_never_has_data(settings: VerifySettings) -> None:
    begin = time.monotonic()
    with serving(send(b"ICY 200 OK\r\n", trickle(b"X-Header: x\r\n"))) as server:
        error = fails(with_caster(server.port), replace(settings, position=HERE, timeout=0.3))
        assert time.monotonic() - begin < 1
    assert error.code == "timeout"


def test_a_caster_leaves_nothing_open(pki: Pki, settings: VerifySettings) -> None:
    calls: list[tuple[Callable[[socket.socket, bytes], None], bool]] = [
        (send(OK + b"\r\n"), True),
        (send(b"HTTP/1.1 401 No\r\n"), True),
        (hang, False),
    ]
    for behavior, tls in calls:
        with serving(behavior, tls=pki.server() if tls else None) as server:
            before = open_files()
            with suppress(ProvisioningError):
                verify(with_caster(server.port, tls), replace(settings, timeout=0.2))
            time.sleep(0.05)  # the server has closed its end
            assert open_files() == before

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The meaning of each response of a broker."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import struct
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify import mqtt
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.connection import Server
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import (
    Verification,
    VerifySettings,
    verify,
)
from ansible_collections.thingstream.ztp.tests.unit.servers import (
    CONNACK,
    MQTT_USER,
    STREAM,
    Pki,
    broker,
    closed_port,
    fails,
    hang,
    leave,
    lifetime,
    open_files,
    reset,
    send,
    trickle,
    with_caster,
    with_pair,
    with_password,
)
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    MQTT_PASSWORD,
    Behavior,
    Pair,
    serving,
)

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
def test_an_accepted_certificate(pki: Pki, thing: Pair, settings: VerifySettings, version: ssl.TLSVersion) -> None:
    seen: list[bytes] = []

    def accept(connection: socket.socket, request: bytes) -> None:
        connection.sendall(CONNACK + b"\0")
        seen.extend([request, connection.recv(100), connection.recv(100)])

    with serving(raw=broker(pki.server(version=version, mutual=True), accept)) as server:
        credentials = with_pair(thing, server.port)
        assert verify(credentials, settings) == [Verification("mqtt", "127.0.0.1", server.port, tls=True, data=False)]
    identity = (credentials.client_id or "").encode()
    # MQTT 3.1.1, clean session, 30 seconds, a client ID and nothing else; then DISCONNECT, and the end
    header = b"\x00\x04MQTT\x04\x02\x00\x1e" + struct.pack(">H", len(identity))
    assert seen == [bytes([0x10, len(header + identity)]) + header + identity, b"\xe0\x00", b""]


def test_an_accepted_password(pki: Pki, settings: VerifySettings) -> None:
    seen: list[bytes] = []

    def accept(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        connection.sendall(CONNACK + b"\0")
        hang(connection)

    with serving(raw=broker(pki.server(), accept)) as server:
        assert verify(with_password(server.port), settings)
    assert seen[0].endswith(f"{MQTT_USER}\x00{chr(len(MQTT_PASSWORD))}{MQTT_PASSWORD}".encode())


@VERSIONS
def test_a_refused_certificate(pki: Pki, settings: VerifySettings, version: ssl.TLSVersion) -> None:
    """With TLS 1.3 the alert comes after the handshake. Repeated, because its timing varies."""
    past = {"not_before": lifetime()["not_before"] - DAY, "not_after": lifetime()["not_before"]}
    foreign, expired = pki.issue(pki.stranger), pki.issue(pki.things, **past)
    with serving(raw=broker(pki.server(version=version, mutual=True))) as server:
        for pair in (foreign, expired) * 10:
            credentials = replace(
                with_pair(foreign, server.port), certificate=pair.certificate, private_key=pair.private_key
            )
            error = fails(credentials, settings)
            assert (error.code, f"127.0.0.1:{server.port}" in error.message) == ("credentials_refused", True)


@pytest.mark.parametrize(
    ("alert", "code"),
    [
        *[(alert, "credentials_refused") for alert in (40, 42, 43, 44, 45, 46, 48, 49, 51, 116)],
        *[(alert, "tls") for alert in (10, 20, 47, 50, 70, 71, 80, 112)],
    ],
)
def test_each_alert(thing: Pair, settings: VerifySettings, alert: int, code: str) -> None:
    with serving(raw=send(b"\x15\x03\x03\x00\x02\x02" + bytes([alert]), hang)) as server:
        assert fails(with_pair(thing, server.port), settings).code == code
        # without a client certificate, only one alert concerns the credentials
        without = "credentials_refused" if alert == 116 else "tls"
        assert fails(with_password(server.port), settings).code == without
        assert fails(with_caster(server.port, tls=True), settings).code == without


def test_an_alert_that_came_before_the_login_was_sent(thing: Pair, settings: VerifySettings, pki: Pki) -> None:
    """Writing fails by then, and the alert can still be read."""
    server = Server("MQTT broker", "127.0.0.1", 8883, True, 3)

    class Closed:
        def settimeout(self, _seconds: float) -> None:
            pass

        def sendall(self, _data: bytes) -> None:
            raise BrokenPipeError

        def recv(self, _size: int) -> bytes:
            problem = ssl.SSLError(1, "alert")
            problem.reason = "TLSV1_ALERT_UNKNOWN_CA"
            raise problem

    connection = mqtt.MqttConnection(Closed(), server)  # type: ignore[arg-type]
    with pytest.raises(BrokenPipeError):
        connection.send(b"CONNECT")
    assert mqtt.login_problem(server, connection, [], True).code == "credentials_refused"


@pytest.mark.parametrize(
    ("behavior", "code"),
    [
        (send(CONNACK + b"\x01"), "bad_response"),
        (send(CONNACK + b"\x02"), "credentials_refused"),
        (send(CONNACK + b"\x03"), "server_error"),
        (send(CONNACK + b"\x04"), "credentials_refused"),
        (send(CONNACK + b"\x05"), "credentials_refused"),
        (send(CONNACK + b"\x06"), "bad_response"),
        (send(CONNACK + b"\xff", hang), "bad_response"),
        (send(b"\x20\x00", hang), "bad_response"),
        (send(b"\x20\x03\x00\x00\x00", hang), "bad_response"),
        (send(b"\x20\xff\xff\xff\x7f" + b"x" * 200_000, hang), "bad_response"),
        (send(b"\x20\xff\xff\xff\xff\xff", hang), "bad_response"),
        (send(b"HTTP/1.1 400 SECRET-BODY\r\n\r\n", hang), "bad_response"),
        (send(b"\x30\x05\x00\x01txx", hang), "bad_response"),
        (send(b"\x90\x03\x00\x01\x00", hang), "bad_response"),
        (send(b"\x20"), "bad_response"),
        (leave, "bad_response"),
        (reset, "bad_response"),
    ],
)
def test_each_response_to_a_login(
    pki: Pki, thing: Pair, settings: VerifySettings, behavior: Behavior, code: str
) -> None:
    begin = time.monotonic()
    with serving(raw=broker(pki.server(), behavior)) as server:
        error = fails(with_pair(thing, server.port), settings)
        assert time.monotonic() - begin < 1
    assert (error.code, error.status) == (code, None)
    assert f"127.0.0.1:{server.port}" in error.message
    if behavior in (leave, reset):
        assert "AWS IoT" in error.message


@pytest.mark.parametrize("behavior", [hang, send(b"\x20", hang), trickle(b"\x20\xff\xff\xff\x7f")])
def test_a_slow_broker(pki: Pki, thing: Pair, settings: VerifySettings, behavior: Behavior) -> None:
    begin = time.monotonic()
    with serving(raw=broker(pki.server(), behavior)) as server:
        error = fails(with_pair(thing, server.port), replace(settings, timeout=0.3))
        assert time.monotonic() - begin < 1
    assert (error.code, "within 0.3 seconds" in error.message) == ("timeout", True)


def test_the_key_is_not_written_to_a_file(
    pki: Pki, thing: Pair, settings: VerifySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ssl.SSLContext.load_cert_chain
    paths: list[str] = []

    def watched(context: ssl.SSLContext, *arguments: str) -> None:
        paths.extend(arguments)
        assert all(stat.S_ISFIFO(os.stat(path).st_mode) for path in arguments)
        real(context, *arguments)

    with serving(raw=broker(pki.server(mutual=True))) as server:
        monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
        assert verify(with_pair(thing, server.port), settings)
    assert len(paths) == 2


def test_nothing_stays_open(pki: Pki, thing: Pair, settings: VerifySettings) -> None:
    refused, brief = send(CONNACK + b"\x05"), replace(settings, timeout=0.1)
    calls: list[tuple[Behavior, VerifySettings]] = [
        (broker(pki.server(mutual=True)), settings),
        (broker(pki.server(), refused), settings),
        (broker(pki.server(), hang), brief),
        (hang, brief),
        (reset, settings),
    ]
    for behavior, used in calls:
        with serving(raw=behavior) as server:
            before = open_files()
            with suppress(ProvisioningError):
                verify(with_pair(thing, server.port), used)
            time.sleep(0.05)  # the server has closed its end
            assert open_files() == before
    before = open_files()
    broken = replace(with_pair(thing, 8883), private_key="no key")
    assert fails(broken, settings).code == "tls"
    assert open_files() == before


def test_a_chain_that_exceeds_a_pipe(thing: Pair, settings: VerifySettings) -> None:
    """A write to a full pipe without a reader never returns."""
    before = open_files()
    for size in (60, 2000):
        credentials = replace(with_pair(thing, 8883), certificate=thing.certificate * size)
        error = fails(replace(credentials, port=closed_port()), settings)
        assert error.code == ("tls" if size == 2000 else "unreachable")
        assert ("longer than a pipe" in error.message) is (size == 2000)
    assert open_files() == before


def test_a_pair_that_openssl_does_not_take(thing: Pair, other_pair: Pair, settings: VerifySettings) -> None:
    error = fails(replace(with_pair(thing, 8883), private_key=other_pair.private_key), settings)
    assert (error.code, "the certificate and its key" in error.message) == ("tls", True)


def test_without_paho(thing: Pair, settings: VerifySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """NTRIP needs no paho-mqtt."""
    monkeypatch.setattr(mqtt, "PAHO_MISSING", ImportError("no paho"))
    error = fails(with_pair(thing, 8883), settings)
    assert (error.code, "paho-mqtt" in error.message) == ("bad_option", True)
    with serving(STREAM) as server:
        assert verify(with_caster(server.port), settings)

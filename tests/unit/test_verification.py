# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a position looks like, and what each answer of a broker and a caster means, against servers on loopback."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.credentials import Credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify import verification
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import Proof, Trial, gga, prove
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    MQTT_PASSWORD,
    NOW,
    NTRIP_PASSWORD,
    Behavior,
    Pair,
    answering,
    assert_no_secret,
    cloudlocate,
    make_pair,
    parse,
    rtcm,
    serving,
    spartn,
)
from cryptography.hazmat.primitives.asymmetric import ec

HERE = (46.948, 7.4474)
DATA = b"\xd3\x00\x13\x3e"
MQTT_USER, NTRIP_USER = "PLANTED-MQTT-USER", "planted-ntrip-user"


# ---- positions ----


def checked(sentence: str) -> list[str]:
    """The fields of a sentence whose checksum is right."""
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


# ---- servers and credentials ----


@dataclass(frozen=True)
class Pki:
    """A CA for servers, one for Things, and one that nobody trusts."""

    directory: Path
    servers: Pair
    things: Pair
    stranger: Pair

    @property
    def ca_path(self) -> str:
        return str(self.directory / "servers.pem")

    def issue(self, signer: Pair, **options: Any) -> Pair:
        return make_pair(ec.generate_private_key(ec.SECP256R1()), signer=signer, **{**lifetime(), **options})

    def server(self, *names: str, version: ssl.TLSVersion | None = None, mutual: bool = False) -> ssl.SSLContext:
        """The TLS context of a server with a certificate for these names."""
        pair = self.issue(self.servers, names=names or ("127.0.0.1", "localhost"))
        (self.directory / "server.pem").write_text(pair.certificate + pair.private_key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.pem")
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if mutual:
            context.load_verify_locations(cadata=self.things.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def lifetime() -> dict[str, datetime]:
    now = datetime.now(timezone.utc)
    return {"not_before": now - DAY, "not_after": now + DAY}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    authorities = [
        make_pair(ec.generate_private_key(ec.SECP256R1()), f"CA of {name}", authority=True, **lifetime())
        for name in ("servers", "Things", "nobody")
    ]
    directory = tmp_path_factory.mktemp("pki")
    (directory / "servers.pem").write_text(authorities[0].certificate)
    return Pki(directory, *authorities)


@pytest.fixture(scope="module")
def thing(pki: Pki) -> Pair:
    """The pair of a Thing."""
    return pki.issue(pki.things)


@pytest.fixture
def trial(pki: Pki) -> Trial:
    return Trial(timeout=3, position=None, broker_ca=pki.servers.certificate, caster_ca_path=pki.ca_path)


def read(response: dict[str, Any], service: str = "pointperfect") -> Credentials:
    return parse(response, service, now=datetime.now(timezone.utc))


def with_pair(pair: Pair, port: int, host: str = "127.0.0.1", **changes: Any) -> Credentials:
    return read(spartn(pair, brokerHost=host, brokerPort=port, **changes))


def with_password(port: int, host: str = "127.0.0.1") -> Credentials:
    return read(cloudlocate(hostname=host, port=port, username=MQTT_USER), "cloudlocate")


def with_caster(port: int, tls: bool = False, host: str = "127.0.0.1", **changes: Any) -> Credentials:
    ports = {"httpPort": closed_port(), "httpsPort": port} if tls else {"httpPort": port}
    return read(rtcm(endpoint=host, userName=NTRIP_USER, **ports, **changes))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def fails(credentials: Credentials, trial: Trial) -> ProvisioningError:
    """The error of a proof, after a look for secrets in it."""
    with pytest.raises(ProvisioningError) as caught:
        prove(credentials, trial)
    error = caught.value
    login = base64.b64encode(f"{NTRIP_USER}:{NTRIP_PASSWORD}".encode()).decode()
    key = credentials.private_key.splitlines()[1:2] if credentials.private_key else []
    assert_no_secret(error, error.message, also=(MQTT_USER, NTRIP_USER, login, "SECRET-BODY", *key))
    assert error.message.isprintable()
    assert len(error.message) < 500
    return error


def reset(connection: socket.socket, request: bytes = b"") -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang(connection: socket.socket, request: bytes = b"") -> None:
    with suppress(OSError):
        while connection.recv(4096):  # until the other side gives up
            pass


def leave(connection: socket.socket, request: bytes = b"") -> None:
    """The end of a connection, without a word."""


def send(data: bytes, then: Behavior = leave) -> Behavior:
    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall(data)
        then(connection, request)

    return behave


def trickle(data: bytes) -> Behavior:
    """Something new every few moments, so that no single wait is long."""

    def behave(connection: socket.socket, request: bytes) -> None:
        for byte in data * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return behave


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- what is tried ----


def test_nothing_to_connect_to(ec_pair: Pair, trial: Trial) -> None:
    password = replace(with_password(1), delivery=("lband",))
    nowhere = replace(with_pair(ec_pair, 1), delivery=("lband",), host=None, port=None)
    for credentials in (password, nowhere):
        error = fails(credentials, trial)
        assert (error.code, "nothing to connect to" in error.message) == ("bad_option", True)


def test_a_plan_of_lband_alone_logs_in(pki: Pki, thing: Pair, trial: Trial) -> None:
    with serving(raw=broker(pki.server(mutual=True))) as server:
        credentials = with_pair(thing, server.port, supportsMqtt=False)
        assert credentials.delivery == ("lband",)
        assert [proof.delivery for proof in prove(credentials, trial)] == ["mqtt"]
    with serving(answering("200 OK")) as caster:
        block = rtcm(endpoint="127.0.0.1", httpPort=caster.port)
        credentials = with_pair(thing, closed_port(), supportsMqtt=False, **block)
        assert [proof.delivery for proof in prove(credentials, trial)] == ["ntrip"]


def test_each_delivery_is_tried_and_has_its_own_time(pki: Pki, thing: Pair, trial: Trial) -> None:
    def late(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.4)
        connection.sendall(CONNACK + b"\0")

    def late_too(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.4)
        connection.sendall(b"ICY 200 OK\r\n\r\n")

    with serving(raw=broker(pki.server(mutual=True), late)) as mqtt, serving(late_too) as ntrip:
        block = rtcm(endpoint="localhost", httpPort=ntrip.port)
        proofs = prove(with_pair(thing, mqtt.port, **block), replace(trial, timeout=0.75))
    assert proofs == [
        Proof("mqtt", "127.0.0.1", mqtt.port, tls=True, data=False),
        Proof("ntrip", "localhost", ntrip.port, tls=False, data=False),
    ]


def test_the_first_delivery_that_fails_ends_it(thing: Pair, trial: Trial) -> None:
    with serving(answering("200 OK")) as ntrip:
        block = rtcm(endpoint="127.0.0.1", httpPort=ntrip.port)
        assert fails(with_pair(thing, closed_port(), **block), trial).code == "unreachable"
    assert ntrip.requests == []


# ---- connections ----


def test_nobody_listens(thing: Pair, trial: Trial) -> None:
    for credentials in (with_pair(thing, closed_port()), with_caster(closed_port()), with_caster(closed_port(), True)):
        error = fails(credentials, trial)
        port = credentials.port or credentials.ntrip_tls_port or credentials.ntrip_port
        assert (error.code, f"127.0.0.1:{port}" in error.message) == ("unreachable", True)


def test_an_address_of_version_6_is_told_from_its_port(thing: Pair, trial: Trial) -> None:
    error = fails(with_pair(thing, closed_port(), host="[::1]"), trial)
    assert (error.code, " [::1]:" in error.message) == ("unreachable", True)


def test_a_name_that_does_not_resolve(thing: Pair, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for credentials in (with_pair(thing, 8883, host="no.such.example"), with_caster(2101, host="no.such.example")):
        error = fails(credentials, trial)
        assert (error.code, "no.such.example:" in error.message) == ("unreachable", True)
        assert "cannot be resolved" in error.message


def test_addresses_share_the_time(thing: Pair, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def addresses(*_arguments: object, **_options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{last}", 8883)) for last in (1, 2, 3, 4)]

    def swallow(address: tuple[str, int], timeout: float) -> None:
        tried.append(address)
        time.sleep(timeout)
        raise TimeoutError

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    monkeypatch.setattr(socket, "create_connection", swallow)
    begin = time.monotonic()
    error = fails(with_pair(thing, 8883, host="broker.example"), replace(trial, timeout=0.4))
    assert (error.code, "firewall" in error.message) == ("timeout", True)
    assert 0.3 < time.monotonic() - begin < 1
    assert tried == [(f"192.0.2.{last}", 8883) for last in (1, 2, 3, 4)]


def test_the_next_address_helps(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def addresses(host: str, *arguments: Any, **options: Any) -> list[Any]:
        hosts = ("127.0.0.77", "127.0.0.1") if host == "caster.example" else (host,)
        return [found for host in hosts for found in real(host, *arguments, **options)]

    with serving(send(b"ICY 200 OK\r\n")) as server:
        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        assert prove(with_caster(server.port, host="caster.example"), trial)


@pytest.mark.parametrize("silent", [hang, trickle(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xf0")], ids=["silent", "slow"])
def test_a_server_that_takes_its_time_before_tls(thing: Pair, trial: Trial, silent: Behavior) -> None:
    for credentials in (lambda port: with_pair(thing, port), lambda port: with_caster(port, tls=True)):
        begin = time.monotonic()
        with serving(raw=silent) as server:
            error = fails(credentials(server.port), replace(trial, timeout=0.2))
            assert time.monotonic() - begin < 1
        assert (error.code, "TLS handshake within 0.2 seconds" in error.message) == ("timeout", True)


@pytest.mark.parametrize("behavior", [leave, reset, send(b"HTTP/1.1 400 Bad Request\r\n\r\n")])
def test_a_server_without_tls(thing: Pair, trial: Trial, behavior: Behavior) -> None:
    for credentials in (lambda port: with_pair(thing, port), lambda port: with_caster(port, tls=True)):
        with serving(raw=behavior) as server:
            # a reset may be faster than the connection
            codes = ("tls", "unreachable") if behavior is reset else ("tls",)
            assert fails(credentials(server.port), trial).code in codes


def test_a_server_that_is_not_trusted(pki: Pki, thing: Pair, trial: Trial) -> None:
    (pki.directory / "stranger.pem").write_text(pki.stranger.certificate)
    other = replace(trial, broker_ca=pki.stranger.certificate, caster_ca_path=str(pki.directory / "stranger.pem"))
    right, wrong_name = pki.server(), pki.server("broker.example")
    for tls, used in ((right, other), (wrong_name, trial)):
        for credentials in (lambda port: with_pair(thing, port), lambda port: with_caster(port, tls=True)):
            with serving(answering("200 OK"), tls=tls) as server:
                error = fails(credentials(server.port), used)
            assert error.code == "tls"
            assert f"127.0.0.1:{server.port}" in error.message
            assert server.requests == []


@pytest.mark.parametrize("text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_ca_that_cannot_be_used(thing: Pair, trial: Trial, tmp_path: Path, text: str) -> None:
    """In particular nothing is trusted in its place."""
    error = fails(with_pair(thing, 8883), replace(trial, broker_ca=text))
    assert (error.code, "broker_ca_path" in error.message) == ("bad_option", True)
    (tmp_path / "ca.pem").write_text(text)
    for path in (str(tmp_path / "ca.pem"), str(tmp_path / "missing"), str(tmp_path), ""):
        assert fails(with_caster(2102, tls=True), replace(trial, caster_ca_path=path)).code == "bad_option"


# ---- MQTT ----

CONNACK = b"\x20\x02\x00"


ACCEPT = send(CONNACK + b"\0", hang)


def broker(tls: ssl.SSLContext, behavior: Behavior = ACCEPT) -> Behavior:
    """Takes a TLS connection and one packet, and then behaves."""

    def serve(connection: socket.socket, _request: bytes) -> None:
        with tls.wrap_socket(connection, server_side=True) as secured:
            behavior(secured, secured.recv(4096))

    return serve


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
def test_a_certificate_that_is_accepted(pki: Pki, thing: Pair, trial: Trial, version: ssl.TLSVersion) -> None:
    seen: list[bytes] = []

    def accept(connection: socket.socket, request: bytes) -> None:
        connection.sendall(CONNACK + b"\0")
        seen.extend([request, connection.recv(100), connection.recv(100)])

    with serving(raw=broker(pki.server(version=version, mutual=True), accept)) as server:
        credentials = with_pair(thing, server.port)
        assert prove(credentials, trial) == [Proof("mqtt", "127.0.0.1", server.port, tls=True, data=False)]
    identity = (credentials.client_id or "").encode()
    # MQTT 3.1.1, clean session, 30 seconds, a client ID and nothing else; then DISCONNECT, and the end
    header = b"\x00\x04MQTT\x04\x02\x00\x1e" + struct.pack(">H", len(identity))
    assert seen == [bytes([0x10, len(header + identity)]) + header + identity, b"\xe0\x00", b""]


def test_a_password_that_is_accepted(pki: Pki, trial: Trial) -> None:
    seen: list[bytes] = []

    def accept(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        connection.sendall(CONNACK + b"\0")
        hang(connection)

    with serving(raw=broker(pki.server(), accept)) as server:
        assert prove(with_password(server.port), trial)
    assert seen[0].endswith(f"{MQTT_USER}\x00{chr(len(MQTT_PASSWORD))}{MQTT_PASSWORD}".encode())


@VERSIONS
def test_a_certificate_that_is_refused(pki: Pki, trial: Trial, version: ssl.TLSVersion) -> None:
    """With TLS 1.3 the broker says so only after the handshake. Often, so that the alert comes at any moment."""
    past = {"not_before": lifetime()["not_before"] - DAY, "not_after": lifetime()["not_before"]}
    foreign, expired = pki.issue(pki.stranger), pki.issue(pki.things, **past)
    with serving(raw=broker(pki.server(version=version, mutual=True))) as server:
        for pair in (foreign, expired) * 10:
            credentials = replace(
                with_pair(foreign, server.port), certificate=pair.certificate, private_key=pair.private_key
            )
            error = fails(credentials, trial)
            assert (error.code, f"127.0.0.1:{server.port}" in error.message) == ("credentials_refused", True)


@pytest.mark.parametrize(
    ("alert", "code"),
    [
        *[(alert, "credentials_refused") for alert in (40, 42, 43, 44, 45, 46, 48, 49, 51, 116)],
        *[(alert, "tls") for alert in (10, 20, 47, 50, 70, 71, 80, 112)],
    ],
)
def test_each_alert(thing: Pair, trial: Trial, alert: int, code: str) -> None:
    with serving(raw=send(b"\x15\x03\x03\x00\x02\x02" + bytes([alert]), hang)) as server:
        assert fails(with_pair(thing, server.port), trial).code == code
        # of a certificate that was not shown only one alert can speak
        without = "credentials_refused" if alert == 116 else "tls"
        assert fails(with_password(server.port), trial).code == without
        assert fails(with_caster(server.port, tls=True), trial).code == without


def test_an_alert_that_came_before_the_login_was_sent(thing: Pair, trial: Trial, pki: Pki) -> None:
    """The connection is over for writing by then, and still has the alert to read."""
    server = verification._Server("MQTT broker", "127.0.0.1", 8883, True, 3)

    class Closed:
        def settimeout(self, _seconds: float) -> None:
            pass

        def sendall(self, _data: bytes) -> None:
            raise BrokenPipeError

        def recv(self, _size: int) -> bytes:
            problem = ssl.SSLError(1, "alert")
            problem.reason = "TLSV1_ALERT_UNKNOWN_CA"
            raise problem

    connection = verification._MqttConnection(Closed(), server)  # type: ignore[arg-type]
    with pytest.raises(BrokenPipeError):
        connection.send(b"CONNECT")
    assert verification._mqtt_problem(server, connection, [], True).code == "credentials_refused"


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
def test_each_answer_to_a_login(pki: Pki, thing: Pair, trial: Trial, behavior: Behavior, code: str) -> None:
    begin = time.monotonic()
    with serving(raw=broker(pki.server(), behavior)) as server:
        error = fails(with_pair(thing, server.port), trial)
        assert time.monotonic() - begin < 1
    assert (error.code, error.status) == (code, None)
    assert f"127.0.0.1:{server.port}" in error.message
    if behavior in (leave, reset):
        assert "AWS IoT" in error.message


@pytest.mark.parametrize("behavior", [hang, send(b"\x20", hang), trickle(b"\x20\xff\xff\xff\x7f")])
def test_a_broker_that_takes_its_time(pki: Pki, thing: Pair, trial: Trial, behavior: Behavior) -> None:
    begin = time.monotonic()
    with serving(raw=broker(pki.server(), behavior)) as server:
        error = fails(with_pair(thing, server.port), replace(trial, timeout=0.3))
        assert time.monotonic() - begin < 1
    assert (error.code, "within 0.3 seconds" in error.message) == ("timeout", True)


def test_the_key_is_in_no_file(pki: Pki, thing: Pair, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    real, paths = ssl.SSLContext.load_cert_chain, []

    def watched(context: ssl.SSLContext, *arguments: str) -> None:
        paths.extend(arguments)
        assert all(stat.S_ISFIFO(os.stat(path).st_mode) for path in arguments)
        real(context, *arguments)

    with serving(raw=broker(pki.server(mutual=True))) as server:
        monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
        assert prove(with_pair(thing, server.port), trial)
    assert len(paths) == 2


def test_nothing_stays_open(pki: Pki, thing: Pair, trial: Trial) -> None:
    refused, brief = send(CONNACK + b"\x05"), replace(trial, timeout=0.1)
    calls: list[tuple[Behavior, Trial]] = [
        (broker(pki.server(mutual=True)), trial),
        (broker(pki.server(), refused), trial),
        (broker(pki.server(), hang), brief),
        (hang, brief),
        (reset, trial),
    ]
    for behavior, used in calls:
        with serving(raw=behavior) as server:
            before = open_files()
            with suppress(ProvisioningError):
                prove(with_pair(thing, server.port), used)
            time.sleep(0.05)  # the server has closed its end
            assert open_files() == before
    before = open_files()
    broken = replace(with_pair(thing, 8883), private_key="no key")
    assert fails(broken, trial).code == "tls"
    assert open_files() == before


def test_a_chain_that_no_pipe_holds(thing: Pair, trial: Trial) -> None:
    """It would wait for a reader for ever."""
    before = open_files()
    for size in (60, 2000):
        credentials = replace(with_pair(thing, 8883), certificate=thing.certificate * size)
        error = fails(replace(credentials, port=closed_port()), trial)
        assert error.code == ("tls" if size == 2000 else "unreachable")
        assert ("longer than a pipe" in error.message) is (size == 2000)
    assert open_files() == before


def test_a_pair_that_openssl_does_not_take(thing: Pair, other_pair: Pair, trial: Trial) -> None:
    error = fails(replace(with_pair(thing, 8883), private_key=other_pair.private_key), trial)
    assert (error.code, "the certificate and its key" in error.message) == ("tls", True)


def test_without_paho(thing: Pair, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who needs it misses it."""
    monkeypatch.setattr(verification, "PAHO_MISSING", ImportError("no paho"))
    error = fails(with_pair(thing, 8883), trial)
    assert (error.code, "paho-mqtt" in error.message) == ("bad_option", True)
    with serving(answering("200 OK")) as server:
        assert prove(with_caster(server.port), trial)


# ---- NTRIP ----


def test_what_is_asked(trial: Trial) -> None:
    with serving(answering("200 OK", b"", "Content-Type: gnss/data")) as server:
        proofs = prove(with_caster(server.port), trial)
    assert proofs == [Proof("ntrip", "127.0.0.1", server.port, tls=False, data=False)]
    login = base64.b64encode(f"{NTRIP_USER}:{NTRIP_PASSWORD}".encode()).decode()
    assert server.requests[0].decode().split("\r\n") == [
        "GET /NEAR-RTCM HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "Ntrip-Version: Ntrip/2.0",
        "User-Agent: NTRIP thingstream.ztp",
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
def test_a_mount_point_is_one_word(trial: Trial, mountpoint: str, path: str) -> None:
    with serving(answering("200 OK")) as server:
        prove(with_caster(server.port, mountPoint=mountpoint), trial)
    assert server.requests[0].decode().split("\r\n")[0] == f"GET {path} HTTP/1.1"


def test_a_line_break_does_not_get_into_a_request(trial: Trial) -> None:
    """Such credentials do not pass the check; if they did, nothing would come of it."""
    with serving(answering("200 OK")) as server:
        prove(replace(with_caster(server.port), ntrip_mountpoint="a\r\nX: y"), trial)
    assert b"\r\nX" not in server.requests[0]


def test_a_position_is_told_in_every_way(trial: Trial) -> None:
    sentences = b""

    def answer_then_listen(connection: socket.socket, request: bytes) -> None:
        nonlocal sentences
        sentences = request.partition(b"\r\n\r\n")[2]
        while sentences.count(b"\r\n") < 1:
            sentences += connection.recv(4096)
        connection.sendall(b"ICY 200 OK\r\n")
        while sentences.count(b"\r\n") < 2:
            sentences += connection.recv(4096)
        connection.sendall(DATA)
        hang(connection)

    with serving(answer_then_listen) as server:
        proofs = prove(with_caster(server.port), replace(trial, position=HERE))
    assert proofs == [Proof("ntrip", "127.0.0.1", server.port, tls=False, data=True)]
    head, _blank, _body = server.requests[0].decode().partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    expected = ["4656.8800", "N", "00726.8440", "E"]
    assert checked(headers["Ntrip-GGA"] + "\r\n")[2:6] == expected
    # behind the request, and after the answer
    told = [checked(sentence)[2:6] for sentence in sentences.decode().splitlines(keepends=True)]
    assert told == [expected, expected]


def test_a_caster_that_sends_and_leaves(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there to be told the position again, and the data are there."""
    real, sent = verification._Connection.send, []

    def once(connection: verification._Connection, data: bytes) -> int:
        sent.append(data)
        if len(sent) > 1:
            raise BrokenPipeError
        return real(connection, data)

    monkeypatch.setattr(verification._Connection, "send", once)
    with serving(send(b"ICY 200 OK\r\n" + DATA)) as server:
        assert prove(with_caster(server.port), replace(trial, position=HERE))[0].data is True
    assert len(sent) == 2


OK = b"HTTP/1.1 200 OK\r\nContent-Type: gnss/data\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    "answer",
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
def test_a_stream(pki: Pki, trial: Trial, answer: bytes, tls: bool) -> None:
    def slowly(connection: socket.socket, request: bytes) -> None:
        for byte in answer:
            connection.sendall(bytes([byte]))
        time.sleep(0.05)
        connection.sendall(DATA)
        hang(connection)

    with serving(slowly, tls=pki.server() if tls else None) as server:
        credentials = with_caster(server.port, tls)
        for position in (None, HERE):
            proof = Proof("ntrip", "127.0.0.1", server.port, tls, data=position is not None)
            assert prove(credentials, replace(trial, position=position)) == [proof]


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (OK + b"\r\n", False),
        (OK + b"\r\n" + DATA, True),
        (CHUNKED, False),
        (CHUNKED + b"4\r\n", False),
        (CHUNKED + b"4;x=y\r\n\xd3", True),
        (CHUNKED + b"0A\r\n" + DATA, True),
        (CHUNKED + b"0\r\n\r\n", False),
        (b"ICY 200 OK\r\n", False),
        (b"ICY 200 OK\r\n\r", False),
        (b"ICY 200 OK\r\n\r\n", False),
        (b"ICY 200 OK\r\n" + DATA, True),
        (b"ICY 200 OK\r\n\r\n" + DATA, True),
        (b"ICY 200 OK\r\nServer: half a he", False),
        (b"ICY 200 OK\r\nServer: x\r\nDa", False),
        (b"ICY 200 OK\r\nServer: x\r\n\r\n" + DATA, True),
        (b"ICY 200 OK\r\n\r\ns\x00\x12\xe7", True),
    ],
)
@pytest.mark.parametrize("then", [hang, leave], ids=["silent", "closed"])
def test_what_is_data(trial: Trial, answer: bytes, data: bool, then: Behavior) -> None:
    with serving(send(answer, then)) as server:
        credentials = with_caster(server.port)
        assert prove(credentials, trial)[0].data is False
        with_position = replace(trial, position=HERE, timeout=0.1)
        if data:
            assert prove(credentials, with_position)[0].data is True
        else:
            error = fails(credentials, with_position)
            assert error.code == ("timeout" if then is hang else "bad_response")
            assert "accepted the login" in error.message
            assert "position" in error.message


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\nSECRET-BODY", "credentials_refused", 401),
        (b"HTTP/1.0 401 Unauthorized\r\n", "credentials_refused", 401),
        (b"HTTP/1.1 403 SECRET-BODY\r\n\r\n", "credentials_refused", 403),
        (b"ICY 401 Unauthorized\r\n", "credentials_refused", 401),
        (b"ERROR - Bad Password\r\n", "credentials_refused", None),
        (b"ERROR - Mount Point Taken or Invalid\r\n", "refused", None),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "refused", 404),
        (b"HTTP/1.1 400 Bad\r\n\r\n", "refused", 400),
        (b"HTTP/1.1 429 Slow down\r\n\r\n", "refused", 429),
        (b"SOURCETABLE 200 OK\r\nSTR;OTHER;SECRET-BODY\r\nENDSOURCETABLE\r\n", "refused", 200),
        (b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-type:gnss/sourcetable\r\n\r\nSTR;OTHER", "refused", 200),
        (b"HTTP/1.1 500 SECRET-BODY\r\n\r\n", "server_error", 500),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "server_error", 503),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>SECRET-BODY", "bad_response", 200),
        (b"HTTP/1.1 302 Found\r\nLocation: /SECRET-BODY\r\n\r\n", "bad_response", 302),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "bad_response", 204),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "bad_response", None),
        (b"HTTP/2 200\r\n\r\n", "bad_response", None),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", "bad_response", None),
        (b"HTTP/1.1 4", "bad_response", None),
        (b"SSH-2.0-SECRET-BODY\r\n", "bad_response", None),
        (b"\xd3\x00\x13\x00", "bad_response", None),
        (b"HTTP/1.1 200 OK\r\n" + b"X: SECRET-BODY\r\n" * 10_000, "bad_response", None),
        (b"ICY 200 " + b"x" * 100_000, "bad_response", None),
        (b"", "bad_response", None),
    ],
)
def test_each_answer_of_a_caster(trial: Trial, answer: bytes, code: str, status: int | None) -> None:
    for position in (None, HERE):
        with serving(send(answer)) as server:
            error = fails(with_caster(server.port), replace(trial, position=position))
        assert (error.code, error.status) == (code, status)
        assert f"127.0.0.1:{server.port}" in error.message
        if code in ("refused", "credentials_refused"):
            assert "NEAR-RTCM" in error.message
        assert ("broke the connection" in error.message) is (answer == b"")


def test_what_is_no_caster_is_known_at_once(trial: Trial) -> None:
    begin = time.monotonic()
    for answer in (b"SSH-2.0-x\r\n", b"220 mail\r\n", b"\x15\x03", b"H\n"):
        with serving(send(answer, hang)) as server:
            assert fails(with_caster(server.port), trial).code == "bad_response"
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_connection_that_breaks(pki: Pki, trial: Trial, tls: bool) -> None:
    with serving(reset, tls=pki.server() if tls else None) as server:
        assert fails(with_caster(server.port, tls), trial).code == "bad_response"
    with serving(send(OK + b"\r\n", reset), tls=pki.server() if tls else None) as server:
        error = fails(with_caster(server.port, tls), replace(trial, position=HERE))
        assert error.code == "bad_response"


@pytest.mark.parametrize("behavior", [hang, send(b"HTTP/1.1 200 OK\r\n", hang), trickle(b"HTTP/1.1 200 OK\r\nX")])
def test_a_caster_that_takes_its_time(trial: Trial, behavior: Behavior) -> None:
    for position in (None, HERE):
        begin = time.monotonic()
        with serving(behavior) as server:
            error = fails(with_caster(server.port), replace(trial, position=position, timeout=0.2))
            assert time.monotonic() - begin < 1
        assert (error.code, "within 0.2 seconds" in error.message) == ("timeout", True)
        assert ("need a position" in error.message) is (position is None)


def test_a_caster_that_never_has_data(trial: Trial) -> None:
    begin = time.monotonic()
    with serving(send(b"ICY 200 OK\r\n", trickle(b"X-Header: x\r\n"))) as server:
        error = fails(with_caster(server.port), replace(trial, position=HERE, timeout=0.3))
        assert time.monotonic() - begin < 1
    assert error.code == "timeout"


def test_a_caster_leaves_nothing_open(pki: Pki, trial: Trial) -> None:
    calls: list[tuple[Callable[[socket.socket, bytes], None], bool]] = [
        (send(OK + b"\r\n"), True),
        (send(b"HTTP/1.1 401 No\r\n"), True),
        (hang, False),
    ]
    for behavior, tls in calls:
        with serving(behavior, tls=pki.server() if tls else None) as server:
            before = open_files()
            with suppress(ProvisioningError):
                prove(with_caster(server.port, tls), replace(trial, timeout=0.2))
            time.sleep(0.05)  # the server has closed its end
            assert open_files() == before


def test_representations_hold_no_secret(thing: Pair, trial: Trial) -> None:
    assert_no_secret(trial, Proof("mqtt", "h", 1, True, False), with_pair(thing, 1), also=(thing.secret_line,))

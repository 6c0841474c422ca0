# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves credentials by using them: an MQTT CONNECT until CONNACK, an NTRIP request until the caster's answer.

Nothing here knows of Ansible. No user, password, key or answer ever enters an error, and no key a file.

Private to the collection.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import reduce
from operator import xor
from typing import Any
from urllib.parse import quote

try:
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion  # not in versions before 2
except ImportError as error:
    PAHO_MISSING: ImportError | None = error
else:
    PAHO_MISSING = None

from ..errors import ProvisioningError
from ..platform.credentials import Credentials

MAX_RESPONSE = 64 * 1024  # bytes that are read of a connection
KEEPALIVE = 30  # seconds

_PLAIN_PORT = 1883  # the one port of MQTT without TLS


@dataclass(frozen=True)
class Trial:
    """How credentials are tried.

    :param timeout: seconds for each delivery as a whole; a name that does not resolve takes as long as the system's
        resolver does.
    :param position: latitude and longitude in degrees for casters that want one, or ``None``.
    :param broker_ca: PEM text: whom to trust as the MQTT broker.
    :param caster_ca_path: a file of PEM certificates: whom to trust as an NTRIP caster with TLS.
    """

    timeout: float
    position: tuple[float, float] | None
    broker_ca: str
    caster_ca_path: str


@dataclass(frozen=True)
class Proof:
    """That a server accepted the credentials.

    :param delivery: ``mqtt`` or ``ntrip``.
    :param data: whether corrections arrived, which is waited for only where a position is given.
    """

    delivery: str
    host: str
    port: int
    tls: bool
    data: bool


@dataclass(frozen=True)
class _Server:
    """Whom the credentials are shown to, and for how many seconds from now on."""

    kind: str
    host: str
    port: int
    tls: bool
    timeout: float
    started: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.kind} {_authority(self.host, self.port)}"

    def remaining(self) -> float:
        """Seconds that are left. Raises ``TimeoutError`` when none are."""
        seconds = self.started + self.timeout - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


def prove(credentials: Credentials, trial: Trial) -> list[Proof]:
    """Logs in over each delivery that the credentials have.

    A broker ends the session of whoever is connected with the same client ID, so that a consumer that runs on the
    gateway is interrupted and has to connect again.

    :raises ProvisioningError: ``credentials_refused`` if they do not work; ``tls``, ``unreachable``, ``timeout``,
        ``server_error``, ``refused`` and ``bad_response`` if that was not found out, or something else is wrong;
        ``bad_option`` if there is nothing to connect to.
    """
    proofs = []
    # A plan of L-band alone logs in to get its keys, although no corrections come that way.
    logs_in = "mqtt" in credentials.delivery or ("ntrip" not in credentials.delivery and credentials.certificate)
    if logs_in and credentials.host and credentials.port:
        tls = credentials.port != _PLAIN_PORT
        broker = _Server("MQTT broker", credentials.host, credentials.port, tls, trial.timeout)
        proofs.append(_prove_mqtt(broker, credentials, trial))
    port = credentials.ntrip_tls_port or credentials.ntrip_port
    if "ntrip" in credentials.delivery and credentials.ntrip_host and port:
        tls = credentials.ntrip_tls_port is not None
        caster = _Server("NTRIP caster", credentials.ntrip_host, port, tls, trial.timeout)
        proofs.append(_prove_ntrip(caster, credentials, trial))
    if not proofs:
        raise ProvisioningError(
            "bad_option",
            "The credentials name no MQTT broker and no NTRIP caster, so there is nothing to connect to: do not verify "
            "them, or use a device profile that delivers over one of the two.",
        )
    return proofs


# ---- connections ----


class _Connection:
    """A connection that ends with the time of its server, and from which only so much is read."""

    def __init__(self, connection: socket.socket, server: _Server) -> None:
        self._connection = connection
        self._server = server
        self._room = MAX_RESPONSE

    @property
    def received(self) -> bool:
        """Whether anything came."""
        return self._room < MAX_RESPONSE

    def recv(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end, or when enough has been read."""
        self._connection.settimeout(self._server.remaining())
        data = self._connection.recv(min(size, self._room))
        self._room -= len(data)
        return data

    def send(self, data: bytes | bytearray) -> int:
        """Sends everything."""
        self._connection.settimeout(self._server.remaining())
        self._connection.sendall(data)
        return len(data)

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _trusting(origin: str, cafile: str | None = None, cadata: str | None = None) -> ssl.SSLContext:
    """A TLS context that trusts these certificates and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=cafile, cadata=cadata)
    except (OSError, ValueError) as error:
        reason = _reason(error) if isinstance(error, OSError) else "no certificate in it"
        raise ProvisioningError("bad_option", f"Cannot use {origin} on the controller: {reason}.") from None
    return context


def _open(server: _Server, context: ssl.SSLContext | None, has_pair: bool = False) -> socket.socket:
    """Connects, with TLS where there is a context.

    :raises ProvisioningError: ``unreachable``, ``timeout``, ``tls``, ``credentials_refused``.
    """
    try:
        connection = _connect(server)
    except TimeoutError:
        raise ProvisioningError(
            "timeout",
            f"The {server} did not take a connection within {server.timeout:g} seconds: check the firewall between the "
            "controller and that port.",
        ) from None
    except (socket.gaierror, UnicodeError):
        raise ProvisioningError(
            "unreachable", f"The name of the {server} cannot be resolved: check the DNS of the controller."
        ) from None
    except OSError as error:
        raise ProvisioningError(
            "unreachable", f"Cannot connect to the {server}: {_reason(error)}. Check the network of the controller."
        ) from None
    if context is None:
        return connection
    try:
        connection.settimeout(server.remaining())
        return context.wrap_socket(connection, server_hostname=server.host)
    except ConnectionError as error:
        connection.close()
        raise _tls_problem(server, _reason(error), has_pair) from None
    except OSError as error:
        connection.close()
        raise _problem(server, error, has_pair, "did not finish the TLS handshake") from None


def _connect(server: _Server) -> socket.socket:
    """Tries each address of the server. One that swallows everything leaves the others their share of the time."""
    problem = OSError("it has no address")
    addresses = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    for index, (*_family, address) in enumerate(addresses):
        try:
            return socket.create_connection(
                (str(address[0]), server.port), server.remaining() / (len(addresses) - index)
            )
        except OSError as error:
            problem = error
    raise problem


# What a broker says of a certificate that it does not want. decrypt_error is there because OpenSSL says it of a
# certificate whose signature is not that of the CA it names.
_ALERTS = re.compile(
    r"_ALERT_(?:UNKNOWN_CA|NO_CERTIFICATE|(?:BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_(?:UNKNOWN|EXPIRED|REVOKED)"
    r"|ACCESS_DENIED|HANDSHAKE_FAILURE|DECRYPT_ERROR)$"
)


def _problem(server: _Server, error: OSError, has_pair: bool, silence: str) -> ProvisioningError:
    """What a failure of an established connection means.

    :param has_pair: whether a certificate was shown to the server.
    :param silence: what the server did not do in time.
    """
    if isinstance(error, TimeoutError):
        return ProvisioningError(
            "timeout", f"The {server} {silence} within {server.timeout:g} seconds: run again, or allow it more time."
        )
    if isinstance(error, ssl.SSLError):
        return _tls_problem(server, _reason(error), has_pair)
    return ProvisioningError(
        "bad_response", f"The {server} broke the connection in place of an answer: run again later."
    )


def _tls_problem(server: _Server, reason: str, has_pair: bool) -> ProvisioningError:
    if reason.endswith("_ALERT_CERTIFICATE_REQUIRED") or (has_pair and _ALERTS.search(reason)):
        return ProvisioningError(
            "credentials_refused",
            f"The {server} does not accept the certificate ({reason}): look at the Thing in the portal, and renew the "
            "credentials with force.",
        )
    return ProvisioningError(
        "tls",
        f"The TLS connection to the {server} failed: {reason}. Check that the port is one with TLS, that the "
        "host name is in the server's certificate, and which CA is trusted.",
    )


def _reason(error: OSError) -> str:
    return str(
        getattr(error, "verify_message", None)
        or getattr(error, "reason", None)
        or error.strerror
        or (error.args[0] if error.args else type(error).__name__)
    )


# ---- MQTT ----

_CONNACK = b"\x20"  # its first byte
# paho gives the codes of MQTT 5 also where a broker speaks MQTT 3.1.1.
_ACCEPTED = 0x00
_REFUSALS = {
    0x85: "the client ID",  # CONNACK 2
    0x86: "user name or password",  # CONNACK 4
    0x87: "the credentials (not authorized)",  # CONNACK 5
}
_UNAVAILABLE = 0x88  # CONNACK 3


def _prove_mqtt(server: _Server, credentials: Credentials, trial: Trial) -> Proof:
    if PAHO_MISSING is not None:
        raise ProvisioningError(
            "bad_option", f"To try the {server}, the controller needs the Python library paho-mqtt, version 2 or newer."
        )
    context = _trusting("broker_ca_path", cadata=trial.broker_ca) if server.tls else None
    has_pair = False
    if context is not None and credentials.certificate is not None and credentials.private_key is not None:
        _present(context, credentials.certificate, credentials.private_key)
        has_pair = True
    with closing(_MqttConnection(_open(server, context, has_pair), server)) as connection:

        class Client(mqtt.Client):
            """Uses the open connection. Should a later paho not ask, it opens its own, with the same TLS."""

            def _create_socket(self) -> Any:
                return connection

        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=credentials.client_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        answers: list[int] = []
        client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.append(reason.value)
        if context is not None:
            client.tls_set_context(context)
        if credentials.username is not None:
            client.username_pw_set(credentials.username, credentials.password)
        client.connect(server.host, server.port, keepalive=KEEPALIVE)
        while not answers and client.socket() is not None:
            client.loop_read()
        if answers == [_ACCEPTED]:
            client.disconnect()
            return Proof("mqtt", server.host, server.port, server.tls, data=False)
        raise _mqtt_problem(server, connection, answers, has_pair)


class _MqttConnection(_Connection):
    """A connection as ``paho`` wants a socket to be.

    ``paho`` keeps to itself why a connection failed, so it is noted here. It also takes any packet for what it is, so
    that an answer that does not begin as a CONNACK does is stopped here.
    """

    problem: OSError | None = None

    def recv(self, size: int) -> bytes:
        is_first = not self.received
        try:
            data = super().recv(size)
            if is_first and data not in (b"", _CONNACK):
                raise ConnectionAbortedError
        except OSError as error:
            self.problem = error
            raise
        return data

    def send(self, data: bytes | bytearray) -> int:
        try:
            return super().send(data)
        except OSError as error:
            self.problem = error
            # With TLS 1.3 a certificate is refused after the handshake: the alert that says so may be here already.
            with suppress(OSError):
                self.recv(1)
            raise

    def setblocking(self, flag: bool) -> None:
        """Nothing: whoever reads here waits."""


def _mqtt_problem(
    server: _Server, connection: _MqttConnection, answers: list[int], has_pair: bool
) -> ProvisioningError:
    """Why there was no CONNACK, or what it says."""
    for answer in answers:
        if answer in _REFUSALS:
            return ProvisioningError(
                "credentials_refused",
                f"The {server} does not accept {_REFUSALS[answer]}: look at the Thing in the portal, and renew the "
                "credentials with force.",
            )
        if answer == _UNAVAILABLE:
            return ProvisioningError("server_error", f"The {server} says that it is unavailable: run again later.")
    if connection.received and not isinstance(connection.problem, TimeoutError):
        return ProvisioningError(
            "bad_response", f"What the {server} answers is not MQTT 3.1.1: check host and port of the credentials."
        )
    if connection.problem is not None and not isinstance(connection.problem, ConnectionError):
        return _problem(server, connection.problem, has_pair, "did not answer the login")
    return ProvisioningError(
        "bad_response",
        f"The {server} closed the connection without an answer to the login. Brokers such as AWS IoT do that when the "
        "policy of the certificate does not allow the client ID, or when the certificate is not active: look at the "
        "Thing in the portal.",
    )


def _present(context: ssl.SSLContext, certificate: str, private_key: str) -> None:
    """Loads a pair into a TLS context.

    OpenSSL wants paths. These are of pipes, so that the key is in no file.
    """
    try:
        with _pipe(certificate) as certificate_path, _pipe(private_key) as key_path:
            context.load_cert_chain(certificate_path, key_path)
    except OSError as error:
        raise ProvisioningError(
            "tls", f"OpenSSL on the controller cannot use the certificate and its key: {_reason(error)}."
        ) from None


@contextmanager
def _pipe(text: str) -> Iterator[str]:
    """The path of a pipe that holds a text, whole, for one reader."""
    content = text.encode()
    reader, writer = os.pipe()
    try:
        try:
            os.set_blocking(writer, False)  # nobody reads yet: what does not fit would wait for ever
            if os.write(writer, content) < len(content):
                raise OSError("it is longer than a pipe holds")
        finally:
            os.close(writer)
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)


# ---- NTRIP ----

_HEAD = re.compile(
    rb"HTTP/1\.[0-9] 200\b[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n"  # version 2, with headers
    rb"|(?!HTTP/1\.[0-9] 200\b)(?:HTTP/1\.[0-9]|ICY|SOURCETABLE|ERROR) [^\n]*\n"  # a refusal, or version 1
)
_STATUS = re.compile(rb"(?:HTTP/1\.[0-9]|ICY|SOURCETABLE) ([0-9]{3})\b")
_BEGINNINGS = (b"HTTP/1.", b"ICY ", b"SOURCETABLE ", b"ERROR")
_SOURCE_TABLE = re.compile(rb"SOURCETABLE|.*^content-type:[ \t]*gnss/sourcetable", re.I | re.M | re.S)
_PAGE = re.compile(rb"^content-type:[ \t]*text/html", re.I | re.M)
_CHUNKED = re.compile(rb"^transfer-encoding:[ \t]*chunked", re.I | re.M)
_CHUNK_WITH_DATA = re.compile(rb"0*[1-9A-Fa-f][0-9A-Fa-f]*[^\n]*\n.", re.S)
_STRAY_HEADERS = re.compile(rb"(?:[A-Za-z-]+:[^\r\n]*\r?\n)*(?:\r?\n)?")
_HALF_A_HEADER = re.compile(rb"[A-Za-z-]*(?::[^\r\n]*)?\r?")


def gga(latitude: float, longitude: float, now: datetime) -> str:
    """The NMEA sentence by which a caster learns a position.

    :param latitude: degrees from -90 to 90.
    :param longitude: degrees from -180 to 180.
    :param now: aware.
    """
    north = f"{_angle(latitude, 2)},{'S' if latitude < 0 else 'N'}"
    east = f"{_angle(longitude, 3)},{'W' if longitude < 0 else 'E'}"
    fields = f"GPGGA,{now.astimezone(timezone.utc):%H%M%S}.00,{north},{east},1,12,1.0,0.0,M,0.0,M,,"
    return f"${fields}*{reduce(xor, fields.encode()):02X}\r\n"


def _angle(degrees: float, digits: int) -> str:
    """Degrees and minutes as NMEA writes them, rounded before they are taken apart: no minute is 60.0000."""
    whole, rest = divmod(round(abs(degrees) * 600_000), 600_000)
    return f"{whole:0{digits}d}{rest // 10_000:02d}.{rest % 10_000:04d}"


def _prove_ntrip(server: _Server, credentials: Credentials, trial: Trial) -> Proof:
    context = _trusting("the CA bundle for NTRIP casters", cafile=trial.caster_ca_path) if server.tls else None
    position = gga(*trial.position, datetime.now(timezone.utc)) if trial.position is not None else ""
    with closing(_Connection(_open(server, context), server)) as connection:
        try:
            connection.send(_request(server, credentials, position))
            head, body = _read_head(connection)
        except OSError as error:
            problem = _problem(server, error, False, "did not answer the request")
            if problem.code == "timeout" and not position:
                problem = problem.with_advice("Some casters need a position before they answer.")
            raise problem from None
        _check_head(server, head, credentials.ntrip_mountpoint or "")
        if position:
            _await_data(server, connection, head, body, position.encode())
    return Proof("ntrip", server.host, server.port, server.tls, data=bool(position))


def _request(server: _Server, credentials: Credentials, position: str) -> bytes:
    """A request that casters of both versions understand."""
    path = quote((credentials.ntrip_mountpoint or "").lstrip("/"), safe="/!$&'()*+,;=:@")  # what a path may hold
    login = base64.b64encode(f"{credentials.ntrip_username}:{credentials.ntrip_password}".encode()).decode()
    lines = [
        f"GET /{path} HTTP/1.1",
        f"Host: {_authority(server.host, server.port)}",
        "Ntrip-Version: Ntrip/2.0",
        "User-Agent: NTRIP thingstream.ztp",
        f"Authorization: Basic {login}",
        "Connection: close",
        *([f"Ntrip-GGA: {position.strip()}"] if position else []),
    ]
    return "\r\n".join([*lines, "", position]).encode()


def _read_head(connection: _Connection) -> tuple[bytes, bytes]:
    """What comes before the data, and what of the data came with it; both empty if it is not the answer of a caster."""
    received = b""
    while (match := _HEAD.match(received)) is None:
        chunk = connection.recv(4096)
        received += chunk
        if not received:
            raise ConnectionResetError
        if not chunk or not any(received.startswith(known[: len(received)]) for known in _BEGINNINGS):
            return b"", b""
    return match.group(), received[match.end() :]


def _check_head(server: _Server, head: bytes, mountpoint: str) -> None:
    """Accepts the head of a stream.

    :raises ProvisioningError: what any other head means.
    """
    found = _STATUS.match(head)
    status = int(found.group(1)) if found else None
    if status in (401, 403) or re.match(rb"ERROR\b.*password", head, re.I):
        raise ProvisioningError(
            "credentials_refused",
            f"The {server} does not accept user name and password for the mount point {mountpoint}: look at the Thing "
            "in the portal, and renew the credentials with force.",
            status,
        )
    if status is not None and 500 <= status < 600:
        raise ProvisioningError("server_error", f"The {server} has a problem (HTTP {status}): run again later.", status)
    if status is not None and 400 <= status < 500:
        known = "does not know" if status == 404 else f"refuses (HTTP {status})"
        raise ProvisioningError(
            "refused", f"The {server} {known} the mount point {mountpoint}: compare it with the plan.", status
        )
    if status == 200 and _SOURCE_TABLE.match(head):
        raise ProvisioningError(
            "refused",
            f"The {server} answers with its source table, because it does not know the mount point {mountpoint}: "
            "compare it with the plan.",
            status,
        )
    if head.startswith(b"ERROR"):
        raise ProvisioningError(
            "refused", f"The {server} refuses the mount point {mountpoint}: compare it with the plan."
        )
    if status != 200 or _PAGE.search(head):
        raise ProvisioningError(
            "bad_response",
            f"What the {server} answers is not NTRIP: check host and port of the credentials, and whether a proxy is "
            "in between.",
            status,
        )


def _await_data(server: _Server, connection: _Connection, head: bytes, body: bytes, position: bytes) -> None:
    """Waits for the first byte of corrections, after telling the position once more: some casters only listen now."""
    advice = "Check that the position is in the region of the plan."
    try:
        with suppress(ConnectionError):  # whoever sends and closes may have sent enough
            connection.send(position)
        while not _has_data(head, body):
            chunk = connection.recv(4096)
            body += chunk
            if not chunk:
                raise ConnectionResetError
    except TimeoutError:
        raise ProvisioningError(
            "timeout",
            f"The {server} accepted the login, but sent no corrections within {server.timeout:g} seconds. {advice}",
        ) from None
    except ConnectionError:
        raise ProvisioningError(
            "bad_response",
            f"The {server} accepted the login, but closed the connection without corrections. {advice}",
        ) from None
    except OSError as error:
        raise _problem(server, error, False, "") from None


def _has_data(head: bytes, body: bytes) -> bool:
    """Whether any byte of a stream is data, and not part of how it is wrapped."""
    if head.startswith(b"ICY"):
        stray = _STRAY_HEADERS.match(body)  # such as no specification has and some casters send
        return _HALF_A_HEADER.fullmatch(body, stray.end() if stray else 0) is None
    return bool(_CHUNK_WITH_DATA.match(body) if _CHUNKED.search(head) else body)

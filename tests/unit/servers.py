# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers on loopback that behave like brokers and casters, and credentials that name them."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypedDict

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.credentials import Credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import VerifySettings, verify
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    NTRIP_PASSWORD,
    Behavior,
    Pair,
    assert_no_secret,
    cloudlocate,
    make_pair,
    parse,
    rtcm,
    spartn,
)
from cryptography.hazmat.primitives.asymmetric import ec

HERE = (46.948, 7.4474)
DATA = bytes.fromhex("d300133ed7d30202980edeef34b4bd62ac0941986f33360b98")  # one message 1005 of RTCM 3
MQTT_USER, NTRIP_USER = "PLANTED-MQTT-USER", "planted-ntrip-user"
CONNACK = b"\x20\x02\x00"


@dataclass(frozen=True)
class Pki:
    """A CA for servers, one for Things, and an untrusted one."""

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
        """Return the TLS context of a server with a certificate for these names."""
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


class Lifetime(TypedDict):
    """The first and last moment at which a certificate is valid."""

    not_before: datetime
    not_after: datetime


def lifetime() -> Lifetime:
    now = datetime.now(timezone.utc)
    return {"not_before": now - DAY, "not_after": now + DAY}


def read(response: dict[str, Any], service: str = "pointperfect") -> Credentials:
    return parse(response, service, now=datetime.now(timezone.utc))


def with_pair(pair: Pair, port: int, host: str = "127.0.0.1", **changes: Any) -> Credentials:
    return read(spartn(pair, brokerHost=host, brokerPort=port, **changes))


def with_password(port: int, host: str = "127.0.0.1") -> Credentials:
    return read(cloudlocate(hostname=host, port=port, username=MQTT_USER), "cloudlocate")


def with_caster(port: int, tls: bool = False, host: str = "127.0.0.1", **changes: Any) -> Credentials:
    ports = {"httpPort": closed_port(), "httpsPort": port} if tls else {"httpPort": port}
    return read(rtcm(endpoint=host, userName=NTRIP_USER, **ports, **changes))


def checksum(data: bytes, width: int, polynomial: int, initial: int = 0) -> bytes:
    """Return a CRC, calculated bit by bit."""
    value = initial
    for bit in "".join(f"{byte:08b}" for byte in data):
        top = value >> (width - 1) ^ int(bit)
        value = (value << 1) % (1 << width) ^ (polynomial if top else 0)
    return (value ^ initial).to_bytes(width // 8, "big")


def rtcm_frame(number: int = 0, rest: bytes = b"", raw: bytes | None = None) -> bytes:
    """Return a frame of RTCM 3 with a message of this number, or with any bytes in place of a message."""
    message = raw if raw is not None else (number << 4).to_bytes(2, "big") + rest
    frame = b"\xd3" + len(message).to_bytes(2, "big") + message
    return frame + checksum(frame, 24, 0x864CFB)


def spartn_frame(
    kind: int,
    subtype: int,
    payload: bytes,
    *,
    crc_type: int = 2,
    long_time: bool = False,
    encrypted: bool = False,
    authentication: int = 0,
) -> bytes:
    """Return a frame of SPARTN.

    :param authentication: bytes of embedded authentication data.
    """
    header = f"{kind:07b}{len(payload):010b}{encrypted:b}{crc_type:02b}"
    value = 0
    for byte in int(header + "0000", 2).to_bytes(3, "big"):  # a CRC that begins with the lowest bit of each byte
        for bit in reversed(f"{byte:08b}"):
            value = value >> 1 ^ (0b1001 if (value ^ int(bit)) & 1 else 0)
    described = f"{subtype:04b}{long_time:b}" + "01" * (16 if long_time else 8) + "0" * 11
    if encrypted:
        size = (0, 8, 12, 16, 32, 64).index(authentication)
        described += "0" * 10 + (f"010{size - 1:03b}" if size else "001000")
    bits = f"{header}{value:04b}{described}"
    core = int(bits, 2).to_bytes(len(bits) // 8, "big") + payload + b"a" * authentication
    width, polynomial, initial = (
        (8, 0x07, 0), (16, 0x1021, 0), (24, 0x864CFB, 0), (32, 0x04C11DB7, 0xFFFFFFFF),
    )[crc_type]  # fmt: skip
    return b"s" + core + checksum(core, width, polynomial, initial)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def fails(credentials: Credentials, settings: VerifySettings) -> ProvisioningError:
    """Return the error of a verification, after checking that it contains no secret."""
    with pytest.raises(ProvisioningError) as caught:
        verify(credentials, settings)
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
        while connection.recv(4096):  # until the client closes the connection
            pass


def leave(connection: socket.socket, request: bytes = b"") -> None:
    """Close the connection without sending anything."""


def send(data: bytes, then: Behavior = leave) -> Behavior:
    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall(data)
        then(connection, request)

    return behave


def trickle(data: bytes) -> Behavior:
    """Send bytes at short intervals, so that no single read times out."""

    def behave(connection: socket.socket, request: bytes) -> None:
        for byte in data * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return behave


STREAM = send(b"ICY 200 OK\r\n\r\n" + DATA, hang)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


ACCEPT = send(CONNACK + b"\0", hang)


def broker(tls: ssl.SSLContext, behavior: Behavior = ACCEPT) -> Behavior:
    """Accept a TLS connection, read one packet, then behave as given."""

    def serve(connection: socket.socket, _request: bytes) -> None:
        with tls.wrap_socket(connection, server_side=True) as secured:
            behavior(secured, secured.recv(4096))

    return serve

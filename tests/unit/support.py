# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared parts of test modules: planted secrets, self-made certificates, responses, a local gateway, a server."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc)
DAY = timedelta(days=1)
MS_PER_DAY = 86_400_000

# Each is recognizable in any text it leaks into.
TOKEN = "5ec2e700-0000-4000-8000-70cea5ec2e70"
MQTT_PASSWORD = "mqtt/PASSWORD+planted=="
NTRIP_PASSWORD = "ntrip&PASSWORD$planted"
KEY_CURRENT = "c0ffee00c0ffee00c0ffee00c0ffee00"
KEY_NEXT = "deadbeefdeadbeefdeadbeefdeadbeef"
SECRETS = (TOKEN, MQTT_PASSWORD, NTRIP_PASSWORD, KEY_CURRENT, KEY_NEXT)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


# ---- secrets ----


def assert_no_secret(*things: object, also: tuple[str, ...] = ()) -> None:
    """Check that nothing a log, a report or a traceback could show of these things contains a planted secret."""
    for thing in things:
        shown = [str(thing), repr(thing)]
        if isinstance(thing, BaseException):
            shown += ["".join(traceback.format_exception(thing)), repr(vars(thing)), repr(thing.args)]
        text = "\n".join(shown)
        found = [secret for secret in (*SECRETS, *also) if secret in text]
        assert not found, f"{type(thing).__name__} shows a secret"


# ---- certificates ----


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, with what is needed to sign with them."""

    key: PrivateKey
    leaf: x509.Certificate

    @property
    def certificate(self) -> str:
        return self.leaf.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def private_key(self) -> str:
        return pem_of(self.key, serialization.PrivateFormat.TraditionalOpenSSL)

    @property
    def secret_line(self) -> str:
        """A line out of the middle of the key that occurs nowhere else."""
        lines = self.private_key.splitlines()
        return lines[len(lines) // 2]


def pem_of(key: Any, form: serialization.PrivateFormat, password: bytes | None = None) -> str:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, form, encryption)
    return pem.decode()


RSA_NUMBERS = ("n", "e", "d", "p", "q", "dmp1", "dmq1", "iqmp")


def rsa_pem(key: PrivateKey, **changes: int) -> str:
    """Return an RSA key in PKCS#1 with changed numbers, as no library writes it."""
    assert isinstance(key, rsa.RSAPrivateKey)
    secret = key.private_numbers()
    public = secret.public_numbers
    numbers = [changes.get(name, getattr(public if name in "ne" else secret, name)) for name in RSA_NUMBERS]
    encoded_numbers = b"".join(
        _der(2, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in (0, *numbers)
    )
    body = base64.encodebytes(_der(0x30, encoded_numbers)).decode()
    return f"-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n"


def _der(tag: int, content: bytes) -> bytes:
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, len(content)] if len(content) < 128 else [tag, 0x80 | len(length), *length]) + content


def make_pair(
    key: PrivateKey,
    name: str = "planted-thing",
    *,
    not_before: datetime = NOW - 10 * DAY,
    not_after: datetime = NOW + 365 * DAY,
    signer: Pair | None = None,
    authority: bool = False,
    names: tuple[str, ...] = (),
) -> Pair:
    """Return a key and its certificate, self-signed or signed by another pair."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.leaf.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer is not None:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
    if authority:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        builder = builder.add_extension(
            x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False),
            critical=True,
        )
    if names:
        entries = [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
    return Pair(key, builder.sign(signer.key if signer else key, hashes.SHA256()))


# ---- responses ----


def dynamic_key(value: str, start: datetime, days: float = 28) -> dict[str, Any]:
    return {"value": value, "start": int(start.timestamp() * 1000), "duration": int(days * MS_PER_DAY) - 1}


def spartn(pair: Pair, **changes: Any) -> dict[str, Any]:
    """Return a "keys" response of PointPerfect Flex; a change to ``None`` removes the key."""
    response = {
        "certificate": pair.certificate,
        "clientId": "11111111-2222-4333-8444-555555555555",
        "privateKey": pair.private_key,
        "subscriptionsTitle": "Topics",
        "brokerHost": "pp.services.u-blox.com",
        "supportsLband": True,
        "supportsMqtt": True,
        "subscriptions": [
            {"description": "L-band + IP key distribution topic", "path": "/pp/ubx/0236/Lb"},
            {"description": "L-band + IP correction topic for EU region", "path": "/pp/Lb/eu"},
            {"path": "/pp/Lb/eu/gad;/pp/Lb/eu/hpac;/pp/Lb/eu/ocb"},
        ],
        "rotatingKeyTitle": "L-band + IP Dynamic Keys",
        "dynamickeys": {
            "next": dynamic_key(KEY_NEXT, NOW + 23 * DAY),
            "current": dynamic_key(KEY_CURRENT, NOW - 5 * DAY),
        },
    }
    return changed(response, changes)


def rtcm(**changes: Any) -> dict[str, Any]:
    """Return an NTRIP response in its present, flat shape."""
    block = {
        "endpoint": "ppntrip.services.u-blox.com",
        "httpPort": "2101",
        "mountPoint": "NEAR-RTCM",
        "userName": "abcdefghijkl",
        "password": NTRIP_PASSWORD,
    }
    return {"rtcmCredentials": changed(block, changes)}


def cloudlocate(**changes: Any) -> dict[str, Any]:
    response = {
        "hostname": "mqtt.thingstream.io",
        "clientId": "device:11111111-2222-4333-8444-666666666666",
        "username": "ABCDEFGHIJKLMNOPQRST",
        "password": MQTT_PASSWORD,
    }
    return changed(response, changes)


def changed(mapping: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**mapping, **changes}.items() if value is not None}


def encoded(response: Any) -> bytes:
    return json.dumps(response).encode()


def parse(
    response: Mapping[str, Any],
    service: str = "pointperfect",
    field_map: Mapping[str, str] | None = None,
    now: datetime = NOW,
) -> credentials.Credentials:
    """Return the credentials in a response, as a run reads them."""
    decoded = credentials.decode(encoded(response))
    fields = credentials.extract(decoded, SERVICES[service], field_map or {})
    return credentials.check(decoded, fields, SERVICES[service], field_map or {}, now)


# ---- a gateway that is this machine ----


def run_locally(command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
    """Run a command as Ansible's local connection does."""
    done = subprocess.run(["/bin/sh", "-c", command], input=standard_input, capture_output=True, check=False)
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "replace")


def tree(path: Path) -> dict[str, tuple[Any, ...]]:
    """Return a path and everything below it: type, mode, owner, group, modification time and content."""
    found: dict[str, tuple[Any, ...]] = {}
    for entry in [path, *sorted(path.rglob("*"))]:
        status = entry.lstat()
        if entry.is_symlink():
            content: object = entry.readlink()
        else:
            content = entry.read_bytes() if entry.is_file() else None
        found[str(entry)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


# ---- a server ----

Behavior = Callable[[socket.socket, bytes], None]


@dataclass
class Server:
    """A server on loopback and what it was asked."""

    port: int
    requests: list[bytes] = field(default_factory=list)


def answering(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> Behavior:
    """Return the behavior of a server that sends one HTTP response and closes the connection."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}", "", ""]

    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall("\r\n".join(lines).encode() + body)

    return behave


def read_request(connection: socket.socket) -> bytes:
    """Read one HTTP request with its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            return received
        received += chunk
    head, _blank, body = received.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length and (chunk := connection.recv(65536)):
        body += chunk
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(*behaviors: Behavior, tls: ssl.SSLContext | None = None, raw: Behavior | None = None) -> Iterator[Server]:
    """Serve one behavior per connection, and the last one for all that follow, until the block ends.

    :param raw: the behavior that takes each connection before TLS and before anything is read.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener.getsockname()[1])

    def serve(connection: socket.socket) -> None:
        connection.settimeout(3)
        if raw is not None:
            raw(connection, b"")
            return
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        with closing(connection):
            request = read_request(connection)
            server.requests.append(request)
            behaviors[min(len(server.requests), len(behaviors)) - 1](connection, request)

    def loop() -> None:
        while True:
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            with closing(connection), suppress(OSError):
                serve(connection)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        assert not thread.is_alive()

# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Keys, certificates and the revocation list: the part that a cloud's certificate authority plays on the platform."""

from __future__ import annotations

import ipaddress
import os
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from simulator.store import Store

CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Thingstream ZTP simulator CA")])
# Wide enough for a simulated clock that is decades off.
CA_LIFETIME = (datetime(1960, 1, 1, tzinfo=timezone.utc), datetime(2400, 1, 1, tzinfo=timezone.utc))
SERVER_DAYS = 3650
CRL_DAYS = 30


@dataclass(frozen=True)
class Authority:
    """The simulator's own certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class KeyPair:
    """An RSA-2048 key of a Thing: PKCS#1 PEM, and the public half as DER."""

    private_key: str
    public_key: bytes


def write_private(path: Path, data: bytes) -> None:
    """Write a file that no other user can read, not even for a moment."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def create_authority(directory: Path) -> None:
    """Create `ca.crt` and `ca.key` in `directory`.

    Elliptic curve, so that signing and handshakes cost little and a benchmark measures something else.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _builder(CA_NAME, key.public_key(), key, *CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(directory / "ca.key", _pem(key))
    (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def load_authority(directory: Path) -> Authority:
    """Read what create_authority wrote."""
    key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("ca.key is not an elliptic curve key")
    return Authority(x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes()), key)


def create_server_certificate(
    authority: Authority, directory: Path, names: Iterable[str], addresses: Iterable[str]
) -> None:
    """Create `server.crt` and `server.key` in `directory`, for DNS `names` and IP `addresses`."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ZTP simulator server")])
    today = datetime.now(timezone.utc)
    validity = (today - timedelta(days=1), today + timedelta(days=SERVER_DAYS))
    certificate = (
        _leaf(subject, key.public_key(), authority, ExtendedKeyUsageOID.SERVER_AUTH, *validity)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    write_private(directory / "server.key", _pem(key))
    (directory / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def issue(authority: Authority, client_id: str, public_key: bytes, now: float, days: float) -> tuple[str, int]:
    """Return the PEM certificate and serial number of a Thing.

    `now` is in seconds since the epoch; negative `days` give a certificate that has expired already.
    Subject and validity of the platform's certificates are not public: the common name is assumed, so that a broker
    can authorize by it.
    """
    end = datetime.fromtimestamp(now, timezone.utc) + timedelta(days=days)
    start = min(datetime.fromtimestamp(now, timezone.utc) - timedelta(minutes=5), end - timedelta(days=1))
    public = serialization.load_der_public_key(public_key)
    if not isinstance(public, rsa.RSAPublicKey):
        raise TypeError("the key of a Thing is not an RSA key")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, client_id)])
    certificate = _leaf(subject, public, authority, ExtendedKeyUsageOID.CLIENT_AUTH, start, end).sign(
        authority.key, hashes.SHA256()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), certificate.serial_number


def revocation_list(authority: Authority, serials: Iterable[int]) -> bytes:
    """Return a PEM revocation list of certificates by serial number, dated by the real clock as brokers are."""
    today = datetime.now(timezone.utc)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(CA_NAME)
        .last_update(today - timedelta(minutes=5))
        .next_update(today + timedelta(days=CRL_DAYS))
        .add_extension(x509.CRLNumber(int(today.timestamp())), critical=False)
        .add_extension(_issued_by(authority.key), critical=False)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(today).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def new_key_pair() -> KeyPair:
    """Generate a key (about 80 ms of processor time).

    RSA-2048 as PKCS#1: header and size were seen in client code.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(_pem(key).decode(), public)


def fill_pool(store: Store, size: int) -> None:
    """Generate keys until the pool holds `size` of them."""
    with store.transaction() as connection:
        missing = size - pool_size(connection)
    # Key generation releases the interpreter lock, so threads use all processors.
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for pair in executor.map(lambda _: new_key_pair(), range(missing)):
            with store.transaction() as connection:
                connection.execute(
                    "INSERT INTO keys (private_key, public_key) VALUES (?, ?)", (pair.private_key, pair.public_key)
                )


def pool_size(connection: sqlite3.Connection) -> int:
    """Return the number of keys generated in advance."""
    return int(connection.execute("SELECT count(*) FROM keys").fetchone()[0])


def take_key_pair(connection: sqlite3.Connection) -> KeyPair:
    """Return a key of the pool, or a new one if the pool is empty."""
    row = connection.execute(
        "DELETE FROM keys WHERE id = (SELECT min(id) FROM keys) RETURNING private_key, public_key"
    ).fetchone()
    return KeyPair(row["private_key"], row["public_key"]) if row else new_key_pair()


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _issued_by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _builder(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    issuer: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    # Both identifiers are there because a strict verifier (Python 3.13's default) insists on them.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(CA_NAME)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_issued_by(issuer), critical=False)
    )


def _leaf(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    authority: Authority,
    purpose: x509.ObjectIdentifier,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    return (
        _builder(subject, public, authority.key, start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )

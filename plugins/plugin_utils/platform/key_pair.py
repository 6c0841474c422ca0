# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a certificate and its private key against each other and against the clock.

Private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
except ImportError as error:
    CRYPTOGRAPHY_MISSING: ImportError | None = error
else:
    CRYPTOGRAPHY_MISSING = None
    # The exceptions of the library for a damaged certificate, some of them only when a part of it is read
    DAMAGED = (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    )

from ..errors import ProvisioningError, bad_field

_MAX_RSA_NUMBER = 8192  # bits; signing with larger ones takes from many seconds to hours


@dataclass(frozen=True)
class KeyPair:
    """A certificate chain, leaf first, and its key as canonical PEM text. Dates are aware and in UTC."""

    certificate: str
    private_key: str = field(repr=False)
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: str


def check(certificate: Any, private_key: Any, now: datetime) -> KeyPair:
    """Return the pair in two PEM texts.

    :param now: aware; a certificate that has expired by then is refused.
    :raises ProvisioningError: ``bad_response``, or ``pair_mismatch`` if the key does not belong to the first
        certificate.
    """
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
        for entry in chain:
            read_whole(entry)
        certificate_key = chain[0].public_key()
    except (AttributeError, *DAMAGED):
        raise bad_field("certificate", "is not an X.509 certificate in PEM") from None
    try:
        # The validation of the library takes longer than everything else together; that the key does its work is
        # proven below.
        key = serialization.load_pem_private_key(
            private_key.encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        raise bad_field("private_key", "is not an unencrypted private key in PEM") from None
    problem = key_problem(key)
    if problem is not None:
        raise bad_field("private_key", problem)
    if not belong_together(key, certificate_key):
        raise ProvisioningError("pair_mismatch", "The private key does not belong to the certificate.")
    leaf = chain[0]
    if leaf.not_valid_after_utc <= now:
        raise bad_field(
            "certificate",
            f"has expired on {leaf.not_valid_after_utc:%Y-%m-%d}; look at the clock of the controller, then at the "
            "Thing in the portal",
        )
    return KeyPair(
        certificate=certificate_pem(chain),
        private_key=private_key_pem(key),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        fingerprint_sha256=leaf.fingerprint(hashes.SHA256()).hex(),
    )


def read_whole(certificate: x509.Certificate) -> None:
    """Read every part of a certificate that is used later, because the library parses most parts on first use.

    :raises: one of ``DAMAGED``.
    """
    certificate.public_key()
    _parts = certificate.subject, certificate.issuer, certificate.not_valid_before_utc, certificate.not_valid_after_utc


def certificate_pem(chain: list[x509.Certificate]) -> str:
    """Return certificates as PEM text."""
    return "".join(entry.public_bytes(serialization.Encoding.PEM).decode() for entry in chain)


def private_key_pem(key: Any) -> str:
    """Return a key for which ``key_problem`` finds nothing as PEM text.

    An RSA key is in PKCS#1 ("RSA PRIVATE KEY"), as the platform sends it and as clients expect it.
    """
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return pem.decode()


def key_problem(key: Any) -> str | None:
    """Return why a private key cannot be used, as the end of a sentence, or ``None``."""
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        return "is neither an RSA nor an elliptic-curve key"
    if isinstance(key, rsa.RSAPrivateKey) and _is_too_large(key):
        return f"is an RSA key with more than {_MAX_RSA_NUMBER} bits"
    return None


def belong_together(key: Any, certificate_key: Any) -> bool:
    """Return whether the public key of a certificate verifies what a private key signs.

    :param key: one for which ``key_problem`` finds nothing.
    """
    message = b"thingstream.ztp"
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            rsa_scheme = (padding.PKCS1v15(), hashes.SHA256())
            certificate_key.verify(key.sign(message, *rsa_scheme), message, *rsa_scheme)
        else:
            ec_scheme = ec.ECDSA(hashes.SHA256())
            certificate_key.verify(key.sign(message, ec_scheme), message, ec_scheme)
    except (InvalidSignature, ValueError, TypeError, AttributeError):
        return False
    return True


def _is_too_large(key: rsa.RSAPrivateKey) -> bool:
    """Return whether one of its numbers, which are not validated yet, would keep the controller busy."""
    secret = key.private_numbers()
    public = secret.public_numbers
    numbers = (public.n, public.e, secret.d, secret.p, secret.q, secret.dmp1, secret.dmq1, secret.iqmp)
    return any(number.bit_length() > _MAX_RSA_NUMBER for number in numbers)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the client certificate and its key in files that people give, as OpenSSL does.

PEM blocks count wherever they stand in a text, whatever their line ends and blanks. The content of a block, and not its
label, determines the kind of key. DER is accepted as well.

Private to the collection.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
except ImportError:
    pass  # ``key_pair.CRYPTOGRAPHY_MISSING`` says so

from ..errors import ProvisioningError
from . import key_pair
from .user_files import UserFile, refuse, text_of

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----(.*?)-----END \1-----", re.DOTALL)
_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----")
_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE")
_PRIVATE_KEYS = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY")
_PASS_PHRASE = "is encrypted with a pass phrase: decrypt it with openssl pkey, and encrypt the file with Ansible Vault"
# Other kinds of blocks, in the order in which a message names them
_OTHERS = {
    "ENCRYPTED PRIVATE KEY": _PASS_PHRASE,
    "OPENSSH PRIVATE KEY": "holds a key in the format of OpenSSH: convert a copy of it with ssh-keygen -p -m PEM",
    "CERTIFICATE REQUEST": "holds a certificate request: use the certificate that was issued for it",
    "NEW CERTIFICATE REQUEST": "holds a certificate request: use the certificate that was issued for it",
    "TRUSTED CERTIFICATE": "holds a certificate in OpenSSL's own format: convert it with openssl x509",
    "PKCS7": "holds PKCS#7: extract the certificate with openssl pkcs7 -print_certs",
    "PUBLIC KEY": "holds a public key: use the private key of the Thing",
    "RSA PUBLIC KEY": "holds a public key: use the private key of the Thing",
}


@dataclass(frozen=True)
class _Block:
    """One PEM block; ``der`` is ``None`` where the base64 is damaged."""

    label: str
    der: bytes | None
    is_encrypted: bool = False


def read_pair(certificate_file: UserFile, key_file: UserFile) -> tuple[str, str]:
    """Return the certificate of the Thing with its issuers, and its key, as PEM text.

    Both files may hold more than that, in any order: what belongs together counts.

    :raises ProvisioningError: ``bad_option`` if a file does not hold what it should, ``pair_mismatch`` if no
        certificate belongs to a key.
    """
    certificates = _certificates(certificate_file)
    keys = _private_keys(key_file)
    matches = [(leaf, key) for leaf in certificates for key in keys if _match(leaf, key)]
    if not matches:
        raise _mismatch(certificate_file, key_file, certificates)
    if len({leaf for leaf, _key in matches}) > 1:
        raise refuse(certificate_file.name, "holds more than one certificate with its key: keep that of the Thing")
    leaf, key = matches[0]
    return key_pair.certificate_pem(_chain(leaf, certificates)), key_pair.private_key_pem(key)


def framed(file: UserFile, label: str) -> UserFile:
    """Return base64 without a frame, as u-center has it, as PEM; PEM stays as it is."""
    if b"-----BEGIN" in file.content:
        return file
    frame = (f"-----BEGIN {label}-----\n".encode(), f"\n-----END {label}-----\n".encode())
    return UserFile(file.name, file.content.join(frame) if file.content.strip() else b"")


# ---- certificates ----


def _certificates(file: UserFile) -> list[x509.Certificate]:
    """Return the certificates in a file, each once."""
    found = _load_certificate(file.content)
    if found is not None:
        return [found]
    blocks = _blocks(file)
    bodies = [block.der for block in blocks if block.label in _CERTIFICATES]
    if not bodies:
        labels = {block.label for block in blocks}
        if labels & {*_PRIVATE_KEYS, "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"}:
            raise refuse(file.name, "holds a private key and no certificate: certificate and key may be mixed up")
        raise _lacks(file, "certificate", labels)
    certificates = [_load_certificate(body) for body in bodies]
    loaded = [one for one in certificates if one is not None]
    if len(loaded) < len(certificates):
        raise refuse(file.name, "holds a damaged certificate: download or copy it again")
    return list(dict.fromkeys(loaded))


def _load_certificate(der: bytes | None) -> x509.Certificate | None:
    try:
        certificate = x509.load_der_x509_certificate(der or b"")
        key_pair.read_whole(certificate)
    except key_pair.DAMAGED:
        return None
    return certificate


def _chain(leaf: x509.Certificate, certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificate of the Thing, then its issuers among the others, as a server expects them."""
    chain = [leaf]
    while issuer := next(
        (one for one in certificates if one not in chain and one.subject == chain[-1].issuer and _is_ca(one)), None
    ):
        chain.append(issuer)
    return chain


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *key_pair.DAMAGED):
        return False


# ---- keys ----


def _private_keys(file: UserFile) -> list[Any]:
    """Return the usable private keys in a file; a key in two encodings occurs twice."""
    blocks = _blocks_of_key(file)
    bodies = list(
        dict.fromkeys(block.der for block in blocks if block.label in _PRIVATE_KEYS and not block.is_encrypted)
    )
    if not bodies:
        labels = {"ENCRYPTED PRIVATE KEY" if block.is_encrypted else block.label for block in blocks}
        if labels and labels <= set(_CERTIFICATES):
            raise refuse(file.name, "holds a certificate and no private key: certificate and key may be mixed up")
        raise _lacks(file, "private key", labels)
    return [_usable(file, _load_key(file, body)) for body in bodies]


def _blocks_of_key(file: UserFile) -> list[_Block]:
    """Return the blocks of a file, or the file itself as a block if it is a key in DER."""
    is_der = file.content.startswith(b"\x30") and _load_key(file, file.content) is not None
    return [_Block("PRIVATE KEY", file.content)] if is_der else _blocks(file)


def _load_key(file: UserFile, der: bytes | None) -> Any:
    """Load a key of any kind; ``None`` if it is damaged."""
    try:
        # that the key does its work is proven by ``_match``
        return serialization.load_der_private_key(der or b"", password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise refuse(file.name, _PASS_PHRASE) from None
    except UnsupportedAlgorithm:
        raise refuse(file.name, "holds a private key of a kind that cannot be used: use an RSA key") from None
    except ValueError:
        return None


def _usable(file: UserFile, key: Any) -> Any:
    if key is None:
        raise refuse(file.name, "holds a damaged private key: download or copy it again")
    problem = key_pair.key_problem(key)
    if problem is not None:
        raise refuse(file.name, problem)
    return key


# ---- both ----


def _blocks(file: UserFile) -> list[_Block]:
    # line ends that were escaped in JSON, YAML or an environment variable
    text = re.sub(r"\\r|\\n", "\n", text_of(file))
    blocks = [_block(label, body) for label, body in _BLOCK.findall(text)]
    if len(blocks) < len(_BEGIN.findall(text)):
        raise refuse(file.name, "is cut off: a line -----BEGIN has no matching line -----END")
    return blocks


def _block(label: str, body: str) -> _Block:
    if "ENCRYPTED" in body and ":" in body:  # Proc-Type: 4,ENCRYPTED; base64 has no colon
        return _Block(label, None, is_encrypted=True)
    try:
        return _Block(label, base64.b64decode("".join(body.split()), validate=True))
    except (binascii.Error, ValueError):
        return _Block(label, None)


def _lacks(file: UserFile, wanted: str, labels: set[str]) -> ProvisioningError:
    """Return the error for a file without the wanted content; it says what the file holds instead, if that is known."""
    known = next((problem for label, problem in _OTHERS.items() if label in labels), None)
    return refuse(file.name, known or f"holds no {wanted} in PEM or DER")


def _match(certificate: x509.Certificate, key: Any) -> bool:
    return key_pair.belong_together(key, certificate.public_key())


def _mismatch(
    certificate_file: UserFile, key_file: UserFile, certificates: Sequence[x509.Certificate]
) -> ProvisioningError:
    if all(_is_ca(one) for one in certificates):
        return refuse(
            certificate_file.name,
            "holds the certificate of a CA: use the client certificate of the Thing",
            "pair_mismatch",
        )
    return refuse(
        certificate_file.name,
        f"does not belong to the private key of {key_file.name}: download both for one Thing",
        "pair_mismatch",
    )

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificate and key in files that people give: what OpenSSL reads is accepted, and the rest is named."""

from __future__ import annotations

import re
import ssl
from collections import Counter
from collections.abc import Callable

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import pem_files
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.user_files import UserFile
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    NOW,
    Pair,
    assert_no_secret,
    make_pair,
    parse,
    pem_of,
    rsa_pem,
    spartn,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

PKCS1 = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8
OPENSSH = serialization.PrivateFormat.OpenSSH
DER = serialization.Encoding.DER
EC_PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
TEXT = "Bag Attributes\n    localKeyID: 01\nsubject=CN = x\n\n"


def read(certificate: str | bytes, key: str | bytes) -> tuple[str, str]:
    files = [
        UserFile(name, content if isinstance(content, bytes) else content.encode())
        for name, content in (("certificate_path: c.crt", certificate), ("private_key_path: k.pem", key))
    ]
    return pem_files.read_pair(files[0], files[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip(),
        lambda text: "\n\n" + text,
        lambda text: text.replace("\n", "  \t\n"),
        lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("\n", "\\n"),
        lambda text: '"' + text.replace("\n", "\\r\\n") + '"',
        lambda text: TEXT + text,
        lambda text: text + "\n\n# a comment\n",
        lambda text: text.replace("\n", "", 1),
    ],
)
def test_blanks_line_ends_and_text_around_do_not_matter(any_pair: Pair, change: Callable[[str], str]) -> None:
    expected = any_pair.certificate, any_pair.private_key
    assert read(change(any_pair.certificate), change(any_pair.private_key)) == expected
    assert read(change(any_pair.certificate), change(pem_of(any_pair.key, PKCS8))) == expected


@pytest.mark.parametrize("form", [PKCS1, PKCS8])
@pytest.mark.parametrize("label", ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"])
def test_the_label_of_a_key_does_not_matter(any_pair: Pair, form: serialization.PrivateFormat, label: str) -> None:
    pem = pem_of(any_pair.key, form)
    own = pem.splitlines()[0].removeprefix("-----BEGIN ").removesuffix("-----")
    assert read(any_pair.certificate, pem.replace(own, label)) == (any_pair.certificate, any_pair.private_key)


def test_der(any_pair: Pair) -> None:
    key = any_pair.key.private_bytes(DER, PKCS8, serialization.NoEncryption())
    assert read(any_pair.leaf.public_bytes(DER), key) == (any_pair.certificate, any_pair.private_key)


def test_one_file_for_both_in_any_order(ec_pair: Pair) -> None:
    expected = ec_pair.certificate, ec_pair.private_key
    for both in (
        ec_pair.certificate + ec_pair.private_key,
        ec_pair.private_key + ec_pair.certificate,
        EC_PARAMETERS + ec_pair.private_key + ec_pair.certificate + ec_pair.certificate,
    ):
        assert read(both, both) == expected


def test_a_chain_in_any_order(ec_pair: Pair, other_pair: Pair) -> None:
    root = make_pair(ec.generate_private_key(ec.SECP256R1()), "root", authority=True)
    middle = make_pair(ec.generate_private_key(ec.SECP256R1()), "middle", signer=root, authority=True)
    leaf = make_pair(ec_pair.key, signer=middle)
    chain = leaf.certificate + middle.certificate + root.certificate
    assert read(chain, leaf.private_key)[0] == chain
    assert read(root.certificate + middle.certificate + leaf.certificate, leaf.private_key)[0] == chain
    # another CA, and the certificate of another Thing, are none of its issuers
    assert read(other_pair.certificate + leaf.certificate + root.certificate, leaf.private_key)[0] == leaf.certificate
    # one key of two is that of the certificate
    assert read(leaf.certificate, other_pair.private_key + leaf.private_key)[1] == leaf.private_key


def test_one_key_in_two_encodings(any_pair: Pair) -> None:
    both = pem_of(any_pair.key, PKCS8) + pem_of(any_pair.key, PKCS1)
    assert read(any_pair.certificate, both) == (any_pair.certificate, any_pair.private_key)


def refused(certificate: str | bytes, key: str | bytes) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        read(certificate, key)
    message = caught.value.message
    assert message.startswith(("certificate_path: c.crt ", "private_key_path: k.pem "))
    for words in ("response", "answer", "u-blox", "Error", "MII"):
        assert words not in message
    return caught.value


def assert_says(error: ProvisioningError, said: str) -> None:
    assert re.search(said, error.message), error.message


def test_two_certificates_for_one_key(ec_pair: Pair) -> None:
    renewed = make_pair(ec_pair.key, not_after=NOW + 700 * DAY)
    error = refused(ec_pair.certificate + renewed.certificate, ec_pair.private_key)
    assert (error.code, "more than one certificate" in error.message) == ("bad_option", True)


def test_what_does_not_belong_together(rsa_pair: Pair, ec_pair: Pair, other_pair: Pair) -> None:
    for key in (rsa_pair.private_key, other_pair.private_key):
        error = refused(ec_pair.certificate, key)
        assert error.code == "pair_mismatch"
        assert "does not belong to the private key of private_key_path: k.pem" in error.message
    authority = make_pair(other_pair.key, "authority", authority=True)
    error = refused(authority.certificate, ec_pair.private_key)
    assert (error.code, "certificate of a CA" in error.message) == ("pair_mismatch", True)


def request_of(pair: Pair) -> str:
    name = x509.Name([])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(pair.key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda pair: "", "is empty"),
        (lambda pair: "planted", "holds no certificate"),
        (lambda pair: pair.private_key, "holds a private key and no certificate: .* mixed up"),
        (lambda pair: pem_of(pair.key, PKCS8, b"x"), "holds a private key and no certificate"),
        (request_of, "certificate request"),
        (lambda pair: pair.certificate[:300], "is cut off"),
        (lambda pair: pair.certificate + pair.certificate[:300], "is cut off"),
        (lambda pair: pair.certificate.replace("M", "A", 5), "damaged certificate"),
        (lambda pair: pair.certificate.replace("\n", "%\n"), "damaged certificate"),
        (lambda pair: pair.certificate.replace(" CERT", " TRUSTED CERT"), "OpenSSL's own format"),
        (lambda pair: pair.certificate.replace("CERTIFICATE", "PKCS7"), "PKCS#7"),
        (lambda pair: pair.certificate.replace("CERTIFICATE", "X509 CRL"), "holds no certificate"),
        (lambda pair: pair.certificate.encode("utf-16"), "UTF-16"),
        (lambda pair: b"\x30\x82\x01\xff" * 9, "binary"),
    ],
)
def test_a_certificate_file_that_holds_none(ec_pair: Pair, content: Callable[[Pair], str], said: str) -> None:
    error = refused(content(ec_pair), ec_pair.private_key)
    assert error.code == "bad_option"
    assert error.message.startswith("certificate_path: c.crt ")
    assert_says(error, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda pair: " \n", "is empty"),
        (lambda pair: "planted", "holds no private key"),
        (lambda pair: pair.certificate, "holds a certificate and no private key: .* mixed up"),
        (lambda pair: pem_of(pair.key, PKCS8, b"secret"), "encrypted with a pass phrase"),
        (lambda pair: pem_of(pair.key, PKCS1, b"secret"), "encrypted with a pass phrase"),
        (
            lambda pair: pair.key.private_bytes(DER, PKCS8, serialization.BestAvailableEncryption(b"secret")),
            "encrypted with a pass phrase",
        ),
        (lambda pair: pem_of(pair.key, OPENSSH), "OpenSSH"),
        (lambda pair: pem_of(ed25519.Ed25519PrivateKey.generate(), PKCS8), "neither an RSA nor"),
        (
            lambda pair: (
                pair.key.public_key()
                .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
                .decode()
            ),
            "holds a public key",
        ),
        (lambda pair: EC_PARAMETERS, "holds no private key"),
        (lambda pair: pair.private_key[:120], "is cut off"),
        (lambda pair: pair.private_key.replace("M", "A", 3), "damaged private key"),
        (lambda pair: pair.private_key.encode("utf-16-le"), "UTF-16"),
    ],
)
def test_a_key_file_that_holds_none(ec_pair: Pair, content: Callable[[Pair], str], said: str) -> None:
    error = refused(ec_pair.certificate, content(ec_pair))
    assert error.code == "bad_option"
    assert error.message.startswith("private_key_path: k.pem ")
    assert_says(error, said)
    assert_no_secret(error, also=(ec_pair.secret_line,))


def test_an_rsa_key_with_huge_numbers_is_not_used(rsa_pair: Pair) -> None:
    error = refused(rsa_pair.certificate, rsa_pem(rsa_pair.key, d=1 << 100_000))
    assert_says(error, "more than 8192 bits")


@pytest.mark.parametrize("change", [0x01, 0x04, 0x80, 0xFF])
def test_a_damaged_byte_anywhere_in_a_certificate(ec_pair: Pair, change: int) -> None:
    """The library has an error of its own for some of them, such as a version that does not exist."""
    whole = ec_pair.leaf.public_bytes(DER)
    codes = Counter[str]()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= change
        pem = ssl.DER_cert_to_PEM_cert(bytes(damaged))
        codes[code_of(lambda text: read(text, ec_pair.private_key), pem)] += 1
        codes[code_of(lambda text: parse(spartn(ec_pair, certificate=text)), pem)] += 1
    assert codes.keys() - {"pair_mismatch"} == {"accepted", "bad_option", "bad_response"}, codes


def code_of(check: Callable[[str], object], text: str) -> str:
    try:
        check(text)
    except ProvisioningError as error:
        return error.code
    return "accepted"

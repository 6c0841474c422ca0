# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind of file that a person gave."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.user_files import (
    MAX_USER_FILE,
    UserFile,
    text_of,
)
from ansible_collections.thingstream.ztp.tests.unit.support import MQTT_PASSWORD, Pair, assert_no_secret
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

SECRET = MQTT_PASSWORD.encode()


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("key.pem"), SECRET)  # without the time of day, which would name the test
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \r\n\t\n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"\0" * 4096, "is empty"),
        (zipped(), "ZIP archive"),
        (gzip.compress(SECRET, mtime=0), "gzip archive"),
        (b"%PDF-1.7\n" + SECRET, "PDF"),
        (b"\xfe\xed\xfe\xed\0\0\0\2", "Java key store"),
        (b"<!DOCTYPE html><html>" + SECRET, "HTML page"),
        (b"\n<HTML lang=en>" + SECRET, "HTML page"),
        (b"<?xml version='1.0'?><Error>" + SECRET, "XML"),
        (b"\xef\xbb\xbf$ANSIBLE_VAULT;1.1;AES256\n33", "Ansible Vault"),
        (b"version https://git-lfs.github.com/spec/v1\noid x", "Git LFS"),
        (MQTT_PASSWORD.encode("utf-16"), "UTF-16"),
        (MQTT_PASSWORD.encode("utf-16-le"), "UTF-16"),
        (MQTT_PASSWORD.encode("utf-16-be"), "UTF-16"),
        (MQTT_PASSWORD.encode("utf-32"), "UTF-16 or UTF-32"),
        (b"caf\xe9 " + SECRET, "another encoding than UTF-8"),
        (SECRET + b"\0" + SECRET, "is binary"),
        (b"{" + b" " * MAX_USER_FILE, "1024 KiB"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_no_text_is_named(content: bytes, said: str) -> None:
    with pytest.raises(ProvisioningError, match=said) as caught:
        text_of(UserFile("option: file", content))
    assert caught.value.code == "bad_option"
    assert caught.value.message.startswith("option: file ")
    assert_no_secret(caught.value)
    assert_no_secret(UserFile("option: file", content))


@pytest.mark.parametrize("password", [None, b"secret"])
def test_pkcs12_is_named(ec_pair: Pair, password: bytes | None) -> None:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = ec_pair.key
    content = pkcs12.serialize_key_and_certificates(b"x", key, ec_pair.leaf, None, encryption)
    with pytest.raises(ProvisioningError, match="PKCS#12"):
        text_of(UserFile("option: file", content))


@pytest.mark.parametrize("content", [b"{}", b"\xef\xbb\xbf{}", b"0", "ü".encode(), b"{}\r\n\0"[:4]])
def test_text_is_read_without_its_byte_order_mark(content: bytes) -> None:
    assert text_of(UserFile("x", content)).encode() == content.removeprefix(b"\xef\xbb\xbf")

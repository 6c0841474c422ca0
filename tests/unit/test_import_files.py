# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that ``thingstream_import`` reads on the controller, before it looks at the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.action import thingstream_import
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from ansible_collections.thingstream.ztp.tests.unit.support import (
    NTRIP_PASSWORD,
    Pair,
    assert_no_secret,
    rtcm,
    spartn,
)

OPTIONS = ("ucenter_path", "certificate_path", "private_key_path", "fields", "store_path")
LOGIN = {"ntrip_host": "http://c/NEAR", "ntrip_port": 2101, "ntrip_username": "u", "ntrip_password": NTRIP_PASSWORD}


def decrypt(content: bytes) -> bytes:
    if content.startswith(b"$ANSIBLE_VAULT;"):
        raise ValueError
    return content


def read(**options: Any) -> thingstream_import._Found:
    arguments = {**dict.fromkeys(OPTIONS), "field_map": {}, **options}
    return thingstream_import._read(arguments, SERVICES["pointperfect"], decrypt)


def refused(**options: Any) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        read(**options)
    assert_no_secret(caught.value)
    return caught.value


def test_sources_are_named(tmp_path: Path, ec_pair: Pair) -> None:
    certificate, key = tmp_path / "c.crt", tmp_path / "k.pem"
    certificate.write_text(ec_pair.certificate)
    key.write_text(ec_pair.private_key)
    files = {"certificate_path": str(certificate), "private_key_path": str(key)}
    found = read(**files, fields={"client_id": "x", "host": "h"})
    assert (found.source.origin, found.source.name) == ("files", f"certificate_path: {certificate} with fields")
    assert refused(**files).message.startswith(f"certificate_path: {certificate} lacks client_id, host: set fields.")
    assert read(fields=LOGIN).source.name == "fields"


@pytest.mark.parametrize("option", ["ucenter_path", "certificate_path", "store_path"])
def test_a_path_that_cannot_be_read(tmp_path: Path, option: str) -> None:
    places: list[tuple[Any, str]] = [
        (tmp_path / "absent", "cannot be read: No such file or directory."),
        (tmp_path, "cannot be read: "),
        ("a\0b", "is not a path."),
    ]
    for path, said in places:
        error = refused(**{option: path, "private_key_path": path})
        assert error.code == "bad_option"
        assert error.message.startswith(option)
        assert said in error.message


def test_a_file_that_no_vault_secret_decrypts(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("$ANSIBLE_VAULT;1.1;AES256\n3333")
    error = refused(ucenter_path=tmp_path / "x.json")
    assert (error.code, "no Vault secret of this run decrypts it" in error.message) == ("bad_option", True)


def test_a_file_without_an_end() -> None:
    for path in ("/dev/zero", "/dev/urandom"):
        assert refused(ucenter_path=path).code == "bad_option"


def store(path: Path, record: Any, response: Any) -> Path:
    (path / "current").mkdir()
    for name, content in (("thing.json", record), ("credentials.json", response)):
        (path / "current" / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("record", "response", "code", "said"),
    [
        ("", {}, "bad_option", "thing.json is empty"),
        ("{}", {}, "bad_option", "thing.json is not the record of a store"),
        (None, "<html>", "bad_option", "credentials.json is an HTML page"),
        (None, "{", "bad_option", "credentials.json is not one JSON object"),
        (None, {}, "missing_field", "credentials.json lacks client_id, host, certificate, private_key: use another"),
        (None, rtcm(httpPort="x"), "bad_option", "credentials.json: The field ntrip_port is not a port number"),
    ],
)
def test_a_store_that_is_none(
    installed_record: dict[str, Any], tmp_path: Path, record: Any, response: Any, code: str, said: str
) -> None:
    error = refused(store_path=store(tmp_path, installed_record if record is None else record, response))
    assert (error.code, said in error.message) == (code, True), error.message
    assert error.message.startswith(f"store_path: {tmp_path}")


def test_a_store_of_another_service(installed_record: dict[str, Any], tmp_path: Path, ec_pair: Pair) -> None:
    path = store(tmp_path, {**installed_record, "service": "cloudlocate"}, spartn(ec_pair))
    assert "is of the service cloudlocate, not pointperfect" in refused(store_path=path).message


@pytest.fixture
def installed_record(installed: Rig) -> dict[str, Any]:
    """The record of a real bundle."""
    record: dict[str, Any] = json.loads((installed.current / "thing.json").read_text())
    return record

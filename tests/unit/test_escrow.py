# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in escrow is private, whole, found again, and never taken for something else."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils import escrow
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from unit.support import MQTT_PASSWORD, NOW, assert_no_secret, cloudlocate, encoded

RESPONSE = encoded(cloudlocate())
ENTRY = escrow.Entry("cloudlocate", "hw-1", "gw1", "absent", NOW, RESPONSE)


def flip(content: bytes) -> bytes:
    """A cipher that is its own inverse, and that shows nothing at a glance."""
    return bytes(byte ^ 0x5A for byte in content)


def clear(content: bytes) -> bytes:
    return content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = escrow.location(str(tmp_path / "escrow"), "cloudlocate", "hw-1", "gw1")
    escrow.prepare(place)
    return place


# ---- round trips ----


@pytest.mark.parametrize("response", [RESPONSE, b"", b"\x00\xff\xfe not JSON", b"\r\n" * 1000])
@pytest.mark.parametrize("hardware_id", ["hw-1", None])
@pytest.mark.parametrize("encrypt", [None, flip])
def test_what_is_stored_is_loaded_again(path: Path, encrypt: Any, hardware_id: str | None, response: bytes) -> None:
    entry = replace(ENTRY, hardware_id=hardware_id, response=response, given_name="Grüße")
    escrow.store(path, entry, encrypt)
    assert escrow.load(path, encrypt or clear) == entry


def test_what_is_encrypted_shows_nothing(path: Path) -> None:
    escrow.store(path, ENTRY, flip)
    content = path.read_bytes()
    assert not [word for word in (b"response", b"hw-1", base64.b64encode(RESPONSE)[:20]) if word in content]


def test_nothing_in_escrow(path: Path) -> None:
    assert escrow.load(path, clear) is None
    assert escrow.load(path.parent / "no" / "directory", clear) is None


# ---- private ----


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes(tmp_path: Path, mask: int) -> None:
    place = escrow.location(str(tmp_path / "a" / "b"), "cloudlocate", "hw-1", "gw1")
    before = os.umask(mask)
    try:
        escrow.prepare(place)
        escrow.store(place, ENTRY, None)
        escrow.store(place, ENTRY, None)
    finally:
        os.umask(before)
    assert place.parent.stat().st_mode & 0o7777 == 0o700
    assert place.stat().st_mode & 0o7777 == 0o600


def test_a_file_is_private_from_its_first_moment(path: Path) -> None:
    """The cipher is called while the file is already there and still empty."""
    seen: list[tuple[int, int]] = []

    def look(content: bytes) -> bytes:
        seen.extend((entry.stat().st_mode & 0o7777, entry.stat().st_size) for entry in path.parent.iterdir())
        return content

    escrow.store(path, ENTRY, look)
    assert all(mode == 0o600 for mode, _size in seen)
    assert path.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o710, 0o701, 0o704, 0o777, 0o1700 | 0o020])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "escrow"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ProvisioningError) as caught:
        escrow.prepare(directory / "x.escrow")
    assert (caught.value.code, "0700" in caught.value.message) == ("escrow_failed", True)
    assert directory.stat().st_mode & 0o7777 == mode, "it may be shared on purpose: nobody asked to change it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "escrow"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, -1)
    with pytest.raises(ProvisioningError) as caught:
        escrow.prepare(directory / "x.escrow")
    assert caught.value.code == "escrow_failed"


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file" / "x.escrow", tmp_path / "file" / "deep" / "x.escrow"):
        with pytest.raises(ProvisioningError) as caught:
            escrow.prepare(place)
        assert (caught.value.code, "escrow_path" in caught.value.message) == ("escrow_failed", True)


def test_preparing_twice_is_fine(path: Path) -> None:
    escrow.prepare(path)
    assert list(path.parent.iterdir()) == []


# ---- all or nothing ----


def test_an_older_entry_is_replaced_and_nothing_else_stays(path: Path) -> None:
    escrow.store(path, ENTRY, None)
    before = path.stat().st_ino
    escrow.store(path, replace(ENTRY, response=b"newer"), None)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.stat().st_ino != before, "a file that is written over is neither old nor new for a moment"
    loaded = escrow.load(path, clear)
    assert loaded is not None
    assert loaded.response == b"newer"


def test_a_link_in_its_place_is_replaced_and_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    path.symlink_to(tmp_path / "elsewhere")
    escrow.store(path, ENTRY, None)
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert not path.is_symlink()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_older_entry(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    escrow.store(path, ENTRY, None)

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", MQTT_PASSWORD)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(ProvisioningError) as caught:
            escrow.store(path, replace(ENTRY, response=b"newer"), None)
    assert caught.value.code == "escrow_failed"
    assert "No space left on device" in caught.value.message
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert escrow.load(path, clear) == ENTRY


def test_it_is_on_the_disk_before_it_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, move = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        order.append("sync")
        fsync(descriptor)

    def note_move(old: str, new: Path) -> None:
        order.append("replace")
        move(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_move)
    escrow.store(path, ENTRY, None)
    assert order == ["sync", "replace", "sync"]


def test_a_cipher_that_fails_leaves_nothing_behind(path: Path) -> None:
    def fail(content: bytes) -> bytes:
        raise RuntimeError("no secret to encrypt with")

    with pytest.raises((RuntimeError, ProvisioningError)):
        escrow.store(path, ENTRY, fail)
    assert list(path.parent.iterdir()) == []


def test_a_store_without_its_directory_fails(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError) as caught:
        escrow.store(tmp_path / "gone" / "x.escrow", ENTRY, None)
    assert caught.value.code == "escrow_failed"


def test_discard(path: Path) -> None:
    escrow.store(path, ENTRY, None)
    other = path.with_name("other.escrow")
    escrow.store(other, ENTRY, None)
    escrow.discard(path)
    escrow.discard(path)
    assert list(path.parent.iterdir()) == [other]


# ---- unreadable ----

WHOLE = {
    "service": "cloudlocate",
    "hardware_id": "hw-1",
    "given_name": "gw1",
    "reason": "absent",
    "received_at": "2026-11-22T12:00:00Z",
    "response": base64.b64encode(RESPONSE).decode(),
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        MQTT_PASSWORD.encode(),
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"[" * 100_000,
        b"{}",
        *(json.dumps({k: v for k, v in WHOLE.items() if k != name}).encode() for name in WHOLE),
        json.dumps({**WHOLE, "received_at": "yesterday"}).encode(),
        json.dumps({**WHOLE, "received_at": None}).encode(),
        json.dumps({**WHOLE, "response": "not base64!"}).encode(),
        json.dumps({**WHOLE, "response": "ü"}).encode(),
        json.dumps({**WHOLE, "response": 5}).encode(),
        json.dumps(WHOLE).encode()[:-1],
    ],
    ids=lambda content: repr(content[:40]),
)
def test_an_entry_that_cannot_be_read(path: Path, content: bytes) -> None:
    """It is never taken for "there is none": that would ask, and maybe pay, a second time."""
    path.write_bytes(content)
    with pytest.raises(ProvisioningError) as caught:
        escrow.load(path, clear)
    assert caught.value.code == "escrow_failed"
    assert str(path) in caught.value.message
    assert_no_secret(caught.value, also=(WHOLE["response"][:20],))
    assert path.read_bytes() == content


def test_a_wrong_secret(path: Path) -> None:
    escrow.store(path, ENTRY, flip)

    def refuse(content: bytes) -> bytes:
        raise ValueError(f"{content!r} {MQTT_PASSWORD}")

    for decrypt in (clear, refuse):
        with pytest.raises(ProvisioningError) as caught:
            escrow.load(path, decrypt)
        assert (caught.value.code, "Vault" in caught.value.message) == ("escrow_failed", True)
        assert_no_secret(caught.value)


def test_a_directory_in_the_place_of_an_entry(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ProvisioningError) as caught:
        escrow.load(path, clear)
    assert caught.value.code == "escrow_failed"


def test_the_representation_of_an_entry_hides_the_response() -> None:
    assert_no_secret(ENTRY, replace(ENTRY, response=MQTT_PASSWORD.encode()))


# ---- where ----


def test_every_thing_has_its_own_place() -> None:
    places = [
        escrow.location("/e", service, hardware_id, given_name)
        for service in ("pointperfect", "pointperfect-live", "cloudlocate")
        for hardware_id, given_name in (
            ("hw-1", "a"),
            ("hw-2", "a"),
            (None, "a"),
            (None, "hw-1"),
            ("", "a"),
            ("a", "b"),
        )
    ]
    assert len(set(places)) == len(places)


def test_a_hardware_id_has_one_place_whatever_its_name_is() -> None:
    assert escrow.location("/e", "cloudlocate", "hw-1", "a") == escrow.location("/e", "cloudlocate", "hw-1", "b")


@pytest.mark.parametrize("hardware_id", ["352753090041680", "../../etc/passwd", "a/b", "x" * 1000, "\x00", "Gerät"])
def test_a_place_shows_the_service_and_nothing_of_the_gateway(hardware_id: str) -> None:
    for place in (
        escrow.location("/e", "cloudlocate", hardware_id, "gw1"),
        escrow.location("/e", "cloudlocate", None, hardware_id),
    ):
        assert place.parent == Path("/e")
        assert place.name.startswith("cloudlocate-")
        assert place.name.isascii()
        assert len(place.name) < 100
        assert hardware_id not in place.name
        assert "gw1" not in place.name


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert escrow.location("~/escrow", "cloudlocate", "hw-1", "gw1").parent == Path("/home/somebody/escrow")

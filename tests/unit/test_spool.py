# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in the spool is private, whole, found again, and never taken for something else."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    MQTT_PASSWORD,
    NOW,
    assert_no_secret,
    cloudlocate,
    encoded,
)

RESPONSE = encoded(cloudlocate())
ENTRY = spool.Entry("cloudlocate", "hw-1", "gw1", "absent", NOW, RESPONSE)


def flip(content: bytes) -> bytes:
    """A cipher that is its own inverse, and that shows nothing at a glance."""
    return bytes(byte ^ 0x5A for byte in content)


def clear(content: bytes) -> bytes:
    return content


def store(
    place: Path, entry: spool.Entry = ENTRY, encrypt: Callable[[bytes], bytes] | None = None
) -> tuple[spool.Entry, Path]:
    """What is stored, and the file that holds it."""
    stored = spool.store(place, entry, encrypt)
    assert stored.file is not None
    return stored, stored.file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = spool.location(str(tmp_path / "spool"), "cloudlocate", "hw-1", "gw1")
    spool.prepare(place)
    return place


# ---- round trips ----


@pytest.mark.parametrize("response", [RESPONSE, b"", b"\x00\xff\xfe not JSON", b"\r\n" * 1000])
@pytest.mark.parametrize("hardware_id", ["hw-1", None])
@pytest.mark.parametrize("encrypt", [None, flip])
def test_what_is_stored_is_loaded_again(
    place: Path, encrypt: Callable[[bytes], bytes] | None, hardware_id: str | None, response: bytes
) -> None:
    entry = replace(ENTRY, hardware_id=hardware_id, response=response, given_name="Grüße")
    stored, file = store(place, entry, encrypt)
    assert stored == replace(entry, file=file)
    assert spool.load(place, encrypt or clear) == [stored]


def test_what_is_encrypted_shows_nothing(place: Path) -> None:
    content = store(place, ENTRY, flip)[1].read_bytes()
    assert not [word for word in (b"response", b"hw-1", base64.b64encode(RESPONSE)[:20]) if word in content]


def test_nothing_in_spool(place: Path) -> None:
    assert (spool.files(place), spool.load(place, clear)) == ([], [])
    nowhere = place.parent / "no" / "directory"
    assert (spool.files(nowhere), spool.load(nowhere, clear)) == ([], [])


def test_entries_are_loaded_oldest_first(place: Path) -> None:
    """Whatever their names are, and in whatever order they were written."""
    for days in (2, 0, 3, 1, 4):
        store(place, replace(ENTRY, received_at=NOW + days * DAY))
    loaded = spool.load(place, clear)
    assert [entry.received_at for entry in loaded] == [NOW + days * DAY for days in range(5)]
    assert sorted(filter(None, (entry.file for entry in loaded))) == spool.files(place)


def test_entries_of_other_things_are_not_found(tmp_path: Path, place: Path) -> None:
    for service, hardware_id in (("cloudlocate", "hw-2"), ("pointperfect", "hw-1"), ("pointperfect-live", "hw-1")):
        store(spool.location(str(tmp_path / "spool"), service, hardware_id, "gw1"))
    for name in (f".{place.name}-x.spool", f"{place.name}-x.spool.bak", f"{place.name}.spool", f"x{place.name}-x"):
        place.with_name(name).write_bytes(b"nothing of ours")
    assert spool.files(place) == []
    _entry, file = store(place)
    assert spool.files(place) == [file]


# ---- private ----


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes(tmp_path: Path, mask: int) -> None:
    place = spool.location(str(tmp_path / "a" / "b"), "cloudlocate", "hw-1", "gw1")
    before = os.umask(mask)
    try:
        spool.prepare(place)
        files = [store(place)[1] for _number in range(2)]
    finally:
        os.umask(before)
    assert [above.stat().st_mode & 0o7777 for above in (place.parent, place.parent.parent)] == [0o700, 0o700]
    assert [file.stat().st_mode & 0o7777 for file in files] == [0o600, 0o600]


def test_a_file_is_private_from_its_first_moment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    make = tempfile.mkstemp

    def look(**options: Any) -> tuple[int, str]:
        made: tuple[int, str] = make(**options)
        seen.append(os.stat(made[1]).st_mode & 0o7777)
        return made

    monkeypatch.setattr(tempfile, "mkstemp", look)
    before = os.umask(0)
    try:
        _entry, file = store(place)
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert file.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o710, 0o701, 0o704, 0o777, 0o1700 | 0o020])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ProvisioningError) as caught:
        spool.prepare(directory / "x")
    assert (caught.value.code, "0700" in caught.value.message) == ("spool_failed", True)
    assert directory.stat().st_mode & 0o7777 == mode, "it may be shared on purpose: nobody asked to change it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, -1)
    with pytest.raises(ProvisioningError) as caught:
        spool.prepare(directory / "x")
    assert caught.value.code == "spool_failed"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755])
def test_nothing_is_read_where_others_could_have_put_it(place: Path, mode: int) -> None:
    store(place)
    place.parent.chmod(mode)
    for read in (
        lambda: spool.files(place),
        lambda: spool.load(place, clear),
        lambda: spool.survey(str(place.parent), clear),
        lambda: spool.survey_unanswered(str(place.parent)),
    ):
        with pytest.raises(ProvisioningError) as caught:
            read()
        assert (caught.value.code, "0700" in caught.value.message) == ("spool_failed", True)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file" / "x", tmp_path / "file" / "deep" / "x"):
        with pytest.raises(ProvisioningError) as caught:
            spool.prepare(place)
        assert (caught.value.code, "spool_path" in caught.value.message) == ("spool_failed", True)


def test_a_volume_that_is_not_mounted(tmp_path: Path) -> None:
    place = spool.location(str(tmp_path / "volume" / "spool"), "cloudlocate", "hw-1", "gw1")
    with pytest.raises(ProvisioningError) as caught:
        spool.prepare(place, make_parents=False)
    assert (caught.value.code, "spool_path" in caught.value.message) == ("spool_failed", True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "volume").mkdir()
    spool.prepare(place, make_parents=False)
    assert place.parent.is_dir()


def test_preparing_twice_is_fine(place: Path) -> None:
    spool.prepare(place)
    assert list(place.parent.iterdir()) == []


# ---- all or nothing ----


def test_an_older_entry_is_never_written_over(place: Path) -> None:
    older, file = store(place)
    before = (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes())
    newer, other = store(place, replace(ENTRY, response=b"newer", received_at=NOW + DAY))
    assert (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()) == before
    assert spool.load(place, clear) == [older, newer]
    assert sorted(place.parent.iterdir()) == sorted([file, other]), "and nothing else stays"


def test_stores_that_meet_lose_nothing(place: Path) -> None:
    entries = [replace(ENTRY, response=str(number).encode()) for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        stored = list(threads.map(lambda entry: store(place, entry)[0], entries))
    assert {entry.response for entry in spool.load(place, clear)} == {entry.response for entry in entries}
    assert len(list(place.parent.iterdir())) == len({entry.file for entry in stored}) == len(entries)


def test_links_in_its_place_are_not_followed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: iter(["first", "second"]))
    for name in (f".{place.name}-first.response", f"{place.name}-second.response"):
        place.with_name(name).symlink_to(tmp_path / "elsewhere")
    _entry, file = store(place)
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert (file.name, file.is_symlink()) == (f"{place.name}-second.response", False)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_older_entry(place: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    older, file = store(place)

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", MQTT_PASSWORD)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(ProvisioningError) as caught:
            store(place, replace(ENTRY, response=b"newer"))
    assert caught.value.code == "spool_failed"
    assert "No space left on device" in caught.value.message
    assert list(place.parent.iterdir()) == [file]
    assert spool.load(place, clear) == [older]


def test_it_is_on_the_disk_before_it_counts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, move = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        order.append("sync")
        assert "replace" in order or spool.files(place) == []
        fsync(descriptor)

    def note_move(old: str, new: Path) -> None:
        order.append("replace")
        move(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_move)
    store(place)
    assert order == ["sync", "replace", "sync"]


def test_a_cipher_that_fails_leaves_nothing_behind(place: Path) -> None:
    def fail(content: bytes) -> bytes:
        raise RuntimeError("no secret to encrypt with")

    with pytest.raises((RuntimeError, ProvisioningError)):
        store(place, ENTRY, fail)
    assert list(place.parent.iterdir()) == []


def test_a_store_without_its_directory_fails(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError) as caught:
        store(tmp_path / "gone" / "x")
    assert caught.value.code == "spool_failed"


# ---- unfinished ----


def die_in(step: str, action: Callable[[], object]) -> None:
    """Something is done by a process that is killed at a step of ``os``."""
    process = os.fork()
    if process == 0:
        try:
            setattr(os, step, lambda *_arguments: os.kill(os.getpid(), signal.SIGKILL))
            action()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("encrypt", [None, flip])
def test_an_entry_that_was_not_given_its_name_is_found(
    place: Path, step: str, encrypt: Callable[[bytes], bytes] | None
) -> None:
    die_in(step, lambda: store(place, ENTRY, encrypt))
    (told,) = spool.survey(str(place.parent), encrypt or clear)
    assert (told["service"], told["readable"]) == ("cloudlocate", True)
    (entry,) = spool.load(place, encrypt or clear)
    assert replace(entry, file=None) == ENTRY
    spool.discard(entry)
    assert list(place.parent.iterdir()) == []


def test_half_an_entry_is_removed_in_time(place: Path) -> None:
    _entry, file = store(place)
    half = file.with_name(f".{file.name}")
    file.rename(half)
    half.write_bytes(half.read_bytes()[:-5])
    assert spool.load(place, clear) == []
    assert half.exists(), "its writer may not have locked it yet"
    os.utime(half, (0, 0))
    assert spool.load(place, clear) == []
    assert list(place.parent.iterdir()) == []


def test_what_cannot_be_decrypted_now_is_not_removed(place: Path) -> None:
    die_in("fsync", lambda: store(place, ENTRY, flip))
    (unfinished,) = place.parent.iterdir()
    os.utime(unfinished, (0, 0))
    assert spool.load(place, clear) == []
    assert [replace(entry, file=None) for entry in spool.load(place, flip)] == [ENTRY]


def test_an_entry_that_is_being_written_is_left_alone(place: Path) -> None:
    _entry, file = store(place)
    half = file.rename(file.with_name(f".{file.name}"))
    with half.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert spool.load(place, clear) == []
        assert spool.survey(str(place.parent), clear) == []
    assert len(spool.load(place, clear)) == 1


# ---- discarded ----


def test_a_discard_takes_its_own_entry_and_no_other(place: Path) -> None:
    """Another run may have stored an answer for the same Thing meanwhile, at the same second even."""
    mine, _file = store(place)
    other, file = store(place)
    spool.discard(mine)
    spool.discard(mine)
    assert spool.load(place, clear) == [other]
    spool.discard(replace(other, file=None))
    assert list(place.parent.iterdir()) == [file]


def test_an_entry_that_another_run_discards_while_it_is_looked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, _file = store(place)
    stays, _other = store(place)
    found = spool.files(place)
    spool.discard(gone)
    monkeypatch.setattr(spool, "files", lambda _place: found)
    assert spool.load(place, clear) == [stays]


# ---- unreadable ----

WHOLE = {
    "service": "cloudlocate",
    "hardware_id": "hw-1",
    "given_name": "gw1",
    "reason": "absent",
    "received_at": "2026-11-22T12:00:00Z",
    "response": base64.b64encode(RESPONSE).decode(),
}


def entry_file(place: Path) -> Path:
    """A file that counts as an entry, and comes after every other one."""
    return place.with_name(f"{place.name}-zzzzzzzzz{spool.SUFFIX}")


def unreadable(file: Path) -> dict[str, object]:
    """What is told of an entry that cannot be read."""
    nothing = dict.fromkeys(("hardware_id", "given_name", "reason", "received_at"))
    return {"file": str(file), "service": "cloudlocate", "readable": False, **nothing}


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
def test_an_entry_that_cannot_be_read(place: Path, content: bytes) -> None:
    """It is never taken for "there is none": that would ask, and maybe pay, a second time."""
    store(place)
    path = entry_file(place)
    path.write_bytes(content)
    with pytest.raises(ProvisioningError) as caught:
        spool.load(place, clear)
    assert caught.value.code == "spool_failed"
    assert str(path) in caught.value.message
    assert_no_secret(caught.value, also=(WHOLE["response"][:20],))
    assert path.read_bytes() == content
    assert spool.survey(str(place.parent), clear)[-1] == unreadable(path)


def test_a_wrong_secret(place: Path) -> None:
    _entry, file = store(place, ENTRY, flip)

    def refuse(content: bytes) -> bytes:
        raise ValueError(f"{content!r} {MQTT_PASSWORD}")

    for decrypt in (clear, refuse):
        with pytest.raises(ProvisioningError) as caught:
            spool.load(place, decrypt)
        assert (caught.value.code, "Vault" in caught.value.message) == ("spool_failed", True)
        assert_no_secret(caught.value)
        assert spool.survey(str(place.parent), decrypt) == [unreadable(file)]


def test_a_directory_in_the_place_of_an_entry(place: Path) -> None:
    entry_file(place).mkdir()
    with pytest.raises(ProvisioningError) as caught:
        spool.load(place, clear)
    assert caught.value.code == "spool_failed"
    assert spool.survey(str(place.parent), clear) == [unreadable(entry_file(place))]


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    look: Callable[[], object]
    for look in (
        lambda: spool.load(tmp_path / "spool" / "x", clear),
        lambda: spool.survey(str(tmp_path / "spool"), clear),
    ):
        with pytest.raises(ProvisioningError) as caught:
            look()
        assert caught.value.code == "spool_failed"


def test_the_representation_of_an_entry_hides_the_response() -> None:
    assert_no_secret(ENTRY, replace(ENTRY, response=MQTT_PASSWORD.encode()))


# ---- survey ----


@pytest.mark.parametrize("cipher", [None, flip])
def test_a_survey_tells_of_every_entry_and_of_no_secret(
    tmp_path: Path, cipher: Callable[[bytes], bytes] | None
) -> None:
    directory = str(tmp_path / "spool")
    entries = [
        ENTRY,
        replace(ENTRY, received_at=NOW + DAY, reason="forced"),
        replace(ENTRY, service="pointperfect-live", hardware_id=None, given_name="gw2"),
    ]
    for entry in entries:
        place = spool.location(directory, entry.service, entry.hardware_id, entry.given_name)
        spool.prepare(place)
        store(place, entry, cipher)
    (tmp_path / "spool" / "notes.txt").write_bytes(b"not ours")
    with (tmp_path / "spool" / ".cloudlocate-x.spool").open("wb") as under_way:
        fcntl.flock(under_way, fcntl.LOCK_EX)
        found = spool.survey(directory, cipher or clear)
    assert [one["file"] for one in found] == sorted(one["file"] for one in found)
    assert_no_secret(found, also=(base64.b64encode(RESPONSE).decode()[:20],))
    told = {(one["service"], one["hardware_id"], one["given_name"], one["reason"], one["received_at"]) for one in found}
    assert told == {
        ("cloudlocate", "hw-1", "gw1", "absent", "2026-11-22T12:00:00Z"),
        ("cloudlocate", "hw-1", "gw1", "forced", "2026-11-23T12:00:00Z"),
        ("pointperfect-live", None, "gw2", "absent", "2026-11-22T12:00:00Z"),
    }
    assert all(one["readable"] and Path(one["file"]).is_file() for one in found)


@pytest.mark.parametrize("service", ["pointperfect", "pointperfect-live", "cloudlocate"])
def test_the_service_of_an_entry_that_cannot_be_read_is_in_its_name(tmp_path: Path, service: str) -> None:
    place = spool.location(str(tmp_path / "spool"), service, "hw-1", "gw1")
    spool.prepare(place)
    _entry, file = store(place)
    file.write_bytes(b"{}")
    assert spool.survey(str(tmp_path / "spool"), clear) == [{**unreadable(file), "service": service}]


def test_one_entry_that_cannot_be_read_hides_no_other(place: Path) -> None:
    _entry, file = store(place)
    entry_file(place).write_bytes(b"{}")
    found = spool.survey(str(place.parent), clear)
    assert [(one["file"], one["readable"]) for one in found] == [(str(file), True), (str(entry_file(place)), False)]


def test_requests_without_an_answer_are_surveyed(place: Path) -> None:
    with spool.announced(place, "cloudlocate", "hw-1", "gw1", NOW) as request:
        assert spool.survey_unanswered(str(place.parent)) == [], "its run may still get the answer"
    place.with_name("cloudlocate-0-broken.request").write_bytes(b"\xff")
    known = {"hardware_id": "hw-1", "given_name": "gw1", "asked_at": "2026-11-22T12:00:00Z"}
    unknown = dict.fromkeys(known)
    files = {request: known, place.with_name("cloudlocate-0-broken.request"): unknown}
    expected = [{"file": str(file), "service": "cloudlocate", **files[file]} for file in sorted(files)]
    assert spool.survey_unanswered(str(place.parent)) == expected
    spool.store(place, ENTRY, None, request)
    assert [entry["file"] for entry in spool.survey_unanswered(str(place.parent))] == [
        str(place.with_name("cloudlocate-0-broken.request"))
    ]
    assert spool.survey_unanswered(str(place)) == []


def test_a_survey_of_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spool.survey(str(place.parent), clear) == []
    assert spool.survey(str(place.parent / "none"), clear) == []
    monkeypatch.setenv("HOME", str(place.parent.parent))
    _entry, file = store(place)
    assert [one["file"] for one in spool.survey("~/spool", clear)] == [str(file)]


# ---- where ----


def test_every_thing_has_its_own_place() -> None:
    places = [
        spool.location("/e", service, hardware_id, given_name)
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
    assert spool.location("/e", "cloudlocate", "hw-1", "a") == spool.location("/e", "cloudlocate", "hw-1", "b")


@pytest.mark.parametrize("hardware_id", ["352753090041680", "../../etc/passwd", "a/b", "x" * 1000, "\x00", "Gerät"])
def test_a_place_shows_the_service_and_nothing_of_the_gateway(hardware_id: str) -> None:
    for place in (
        spool.location("/e", "cloudlocate", hardware_id, "gw1"),
        spool.location("/e", "cloudlocate", None, hardware_id),
    ):
        assert place.parent == Path("/e")
        assert place.name.startswith("cloudlocate-")
        assert place.name.isascii()
        assert len(place.name) < 100
        assert hardware_id not in place.name
        assert "gw1" not in place.name


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert spool.location("~/spool", "cloudlocate", "hw-1", "gw1").parent == Path("/home/somebody/spool")

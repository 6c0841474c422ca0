# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spool entries: their space is allocated first, they are private and whole, and every run finds them again."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.api import MAX_RESPONSE
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, responses
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.directory import MAX_ENTRY_BYTES, Cipher
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.responses import Entry, SpoolReport, allocate, load
from ansible_collections.thingstream.ztp.tests.unit.rig import flip
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    MQTT_PASSWORD,
    NOW,
    assert_no_secret,
    cloudlocate,
    encoded,
)

RESPONSE = encoded(cloudlocate())
NO_FILE = Path()
ENTRY = Entry(
    service="cloudlocate",
    hardware_id="hw-1",
    given_name="gw1",
    host="gw1",
    path="/etc/thingstream/x",
    reason="absent",
    received_at=NOW,
    sequence=1,
    replaces="1" * 64,
    response=RESPONSE,
    file=NO_FILE,
)
FULL = OSError(errno.ENOSPC, "No space left on device", MQTT_PASSWORD)


def clear(content: bytes) -> bytes:
    return content


def store(place: Path, entry: Entry = ENTRY, encrypt: Cipher | None = None) -> Entry:
    """Allocate, store and release, as a run does."""
    allocation = allocate(place, entry.sequence)
    try:
        return allocation.store(entry, encrypt)
    finally:
        allocation.release()


def place_in(spool: Path, service: str = "cloudlocate", hardware_id: str | None = "hw-1") -> Path:
    directory.prepare(spool, make_parents=True)
    return directory.location(str(spool), service, hardware_id, "gw1 /etc/thingstream/x")


def files_in(place: Path) -> list[Path]:
    """Return every file in the spool except the ledger."""
    return sorted(file for file in place.parent.iterdir() if file.name != "ledger")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return place_in(tmp_path / "spool")


def fail(*_arguments: object, **_options: object) -> NoReturn:
    raise FULL


# ---- round trips ----


@pytest.mark.parametrize("response", [RESPONSE, b"", b"\x00\xff\xfe not JSON", b"\r\n" * 1000, bytes(1000)])
@pytest.mark.parametrize("changes", [{}, {"hardware_id": None, "replaces": None, "given_name": "Grüße", "sequence": 7}])
@pytest.mark.parametrize("encrypt", [None, flip])
def test_what_is_stored_is_loaded_again(
    place: Path, encrypt: Cipher | None, changes: dict[str, str | None], response: bytes
) -> None:
    entry = replace(ENTRY, **changes, response=response)  # type: ignore[arg-type]
    stored = store(place, entry, encrypt)
    assert stored == replace(entry, file=stored.file)
    assert load(place, encrypt or clear) == [stored]
    assert files_in(place) == [stored.file] == responses.entry_files(place)


def test_the_largest_response_fits(place: Path) -> None:
    stored = store(place, replace(ENTRY, response=b"\xff" * MAX_RESPONSE), lambda content: content.hex().encode())
    assert load(place, lambda content: bytes.fromhex(content.decode())) == [stored]
    assert stored.file.stat().st_size < MAX_ENTRY_BYTES


def test_an_encrypted_entry_shows_nothing(place: Path) -> None:
    content = store(place, ENTRY, flip).file.read_bytes()
    assert not [word for word in (b"response", b"hw-1", base64.b64encode(RESPONSE)[:20]) if word in content]


def test_an_empty_spool(place: Path) -> None:
    assert (responses.entry_files(place), load(place, clear)) == ([], [])
    nowhere = place.parent / "no" / "directory"
    assert (responses.entry_files(nowhere), load(nowhere, clear)) == ([], [])


def test_entries_are_loaded_by_their_sequence(place: Path) -> None:
    """Whatever their dates and names say, and in whatever order they were written."""
    for sequence in (3, 1, 4, 20, 2):
        store(place, replace(ENTRY, sequence=sequence, received_at=NOW - sequence * DAY))
    loaded = load(place, clear)
    assert [entry.sequence for entry in loaded] == [1, 2, 3, 4, 20]
    assert sorted(entry.file for entry in loaded) == responses.entry_files(place)


def test_the_next_sequence_is_above_every_other_one(place: Path) -> None:
    """The ledger may know less, or more, than the spool."""
    assert responses.next_sequence(place, 0) == 1
    assert responses.next_sequence(place, 7) == 8
    store(place, replace(ENTRY, sequence=12))
    assert responses.next_sequence(place, 0) == 13
    assert responses.next_sequence(place, 41) == 42
    place.with_name(f"{place.name}-x{responses.SUFFIX}").touch()
    assert responses.next_sequence(place, 0) == 13


def test_entries_of_other_things_are_not_found(tmp_path: Path, place: Path) -> None:
    for service, hardware_id in (("cloudlocate", "hw-2"), ("pointperfect", "hw-1"), ("pointperfect-live", "hw-1")):
        store(place_in(tmp_path / "spool", service, hardware_id))
    for name in (f"{place.name}-x.response.bak", f"{place.name}.response", f"x{place.name}-x.response"):
        place.with_name(name).write_bytes(b"another file")
    assert responses.entry_files(place) == []
    stored = store(place)
    assert responses.entry_files(place) == [stored.file]
    assert load(place, clear) == [stored]


# ---- allocated first ----


def test_the_space_is_allocated_before_anything_arrives(place: Path) -> None:
    allocation = allocate(place, 1)
    (file,) = files_in(place)
    status = file.stat()
    assert file.name.startswith(".")
    assert (status.st_size, status.st_mode & 0o7777) == (MAX_ENTRY_BYTES, 0o600)
    assert status.st_blocks * 512 >= MAX_ENTRY_BYTES, "the space really is taken"
    assert directory.is_locked(file)
    assert load(place, clear) == [], "another run leaves it alone"
    assert files_in(place) == [file]
    allocation.release()
    assert files_in(place) == []


@pytest.mark.parametrize("step", ["posix_fallocate", "fsync"])
def test_a_full_disk_fails_before_the_request(place: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(ProvisioningError) as caught:
        allocate(place, 1)
    assert caught.value.code == "spool_failed"
    assert "No space left on device" in caught.value.message
    assert "No request was sent." in caught.value.message
    assert_no_secret(caught.value.message)
    assert files_in(place) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_allocate(place: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def unknown(*_arguments: object) -> NoReturn:
        raise OSError(number, "Not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    allocation = allocate(place, 1)
    assert allocation.file.stat().st_size == MAX_ENTRY_BYTES
    assert allocation.file.stat().st_blocks * 512 >= MAX_ENTRY_BYTES
    allocation.store(ENTRY, None)
    allocation.release()
    assert len(load(place, clear)) == 1


def test_no_space_is_allocated_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError) as caught:
        allocate(tmp_path / "gone" / "x", 1)
    assert caught.value.code == "spool_failed"


def test_a_stored_response_stays_when_its_space_is_released(place: Path) -> None:
    allocation = allocate(place, 1)
    stored = allocation.store(ENTRY, None)
    assert files_in(place) == [stored.file]
    allocation.release()
    assert files_in(place) == [stored.file]


def test_a_response_that_arrives_after_the_release_is_written_nowhere(place: Path, tmp_path: Path) -> None:
    """The number of the descriptor belongs to another file by then."""
    allocation = allocate(place, 1)
    allocation.release()
    with (tmp_path / "innocent").open("wb") as innocent:
        assert innocent.fileno() == allocation.descriptor
        with pytest.raises(ProvisioningError) as caught:
            allocation.store(ENTRY, None)
    assert caught.value.code == "spool_failed"
    assert (tmp_path / "innocent").read_bytes() == b""
    assert files_in(place) == []


def test_another_run_may_remove_the_file_before_it_is_locked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two it looks like one that a crashed run has left."""
    lock = fcntl.flock
    is_first = iter([True])

    def late(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and next(is_first, False):
            assert load(place, clear) == []
            assert files_in(place) == []
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    allocation = allocate(place, 1)
    assert files_in(place) == [allocation.file]
    stored = allocation.store(ENTRY, None)
    allocation.release()
    assert load(place, clear) == [stored]


def test_a_run_that_cleans_up_holds_off_one_that_allocates(place: Path) -> None:
    """The file is locked until it is gone, so that a run that gets the lock after that sees that it is."""
    allocation = allocate(place, 1)
    name = allocation.file
    os.close(allocation.descriptor)  # its process has died
    read = responses._is_empty
    seen = []

    def look(file: Path) -> bool:
        with file.open("rb") as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(file)
        return read(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responses, "_is_empty", look)
        assert load(place, clear) == []
    assert seen == [name]
    assert files_in(place) == []


# ---- all or nothing ----


def test_an_entry_is_never_written_over(place: Path) -> None:
    older = store(place)
    before = (older.file.stat().st_ino, older.file.stat().st_mtime_ns, older.file.read_bytes())
    newer = store(place, replace(ENTRY, response=b"newer", received_at=NOW + DAY))
    assert (older.file.stat().st_ino, older.file.stat().st_mtime_ns, older.file.read_bytes()) == before
    assert load(place, clear) == [older, newer]
    assert files_in(place) == sorted([older.file, newer.file])


def test_runs_that_meet_lose_nothing(place: Path) -> None:
    entries = [replace(ENTRY, response=str(number).encode()) for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda entry: (store(place, entry), load(place, clear)), entries))
    assert {entry.response for entry in load(place, clear)} == {entry.response for entry in entries}
    assert len(files_in(place)) == len(entries)


def test_links_in_its_place_are_not_followed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    monkeypatch.setattr(secrets, "token_hex", lambda _count: "0badcafe")
    place.with_name(f".{place.name}-000001-0badcafe.response").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProvisioningError):
        allocate(place, 1)
    place.with_name(f"{place.name}-000002-0badcafe.response").symlink_to(tmp_path / "elsewhere")
    stored = store(place, replace(ENTRY, sequence=2))
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert not stored.file.is_symlink()


@pytest.mark.parametrize("step", ["pwrite", "ftruncate", "fsync"])
def test_a_disk_that_fails_leaves_the_other_entries(place: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    older = store(place)
    allocation = allocate(place, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(ProvisioningError) as caught:
            allocation.store(replace(ENTRY, response=b"newer"), None)
    allocation.release()
    assert caught.value.code == "spool_failed"
    assert "No space left on device" in caught.value.message
    assert files_in(place) == [older.file]
    assert load(place, clear) == [older]


def test_an_entry_is_on_the_disk_before_it_has_its_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocation = allocate(place, 1)
    order: list[str] = []
    fsync = os.fsync

    def note_sync(descriptor: int) -> None:
        is_named = bool(responses.entry_files(place))
        order.append("directory" if os.path.samestat(os.fstat(descriptor), place.parent.stat()) else "file")
        assert is_named is (order[-1] == "directory")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note_sync)
    allocation.store(ENTRY, None)
    assert order == ["file", "directory"]
    allocation.release()


def test_a_cipher_that_fails_leaves_nothing_behind(place: Path) -> None:
    def refuse(_content: bytes) -> bytes:
        raise ProvisioningError("bad_option", "There is no secret to encrypt with.")

    with pytest.raises(ProvisioningError):
        store(place, ENTRY, refuse)
    assert files_in(place) == []


# ---- what a crashed run leaves ----


def die(*_arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_at(owner: object, step: str, action: Callable[[], object], after: int = 0) -> None:
    """Do something in a process that is killed at a step, or at a later one of the same name."""
    process = os.fork()
    if process == 0:
        try:
            original, calls = getattr(owner, step), iter(range(after))

            def call(*arguments: object) -> object:
                if next(calls, None) is None:
                    die()
                return original(*arguments)

            setattr(owner, step, call)
            action()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(process, 0)[1])


# the calls of fsync: of the allocation, of the response, of the directory
@pytest.mark.parametrize(("owner", "step", "after"), [(os, "ftruncate", 0), (os, "fsync", 1), (Path, "rename", 0)])
@pytest.mark.parametrize("encrypt", [None, flip])
def test_an_entry_without_its_name_is_found(
    place: Path, owner: object, step: str, after: int, encrypt: Cipher | None
) -> None:
    crash_at(owner, step, lambda: store(place, ENTRY, encrypt), after)
    (report,) = responses.survey(str(place.parent), encrypt or clear)
    assert (report.service, report.readable, report.hardware_id) == ("cloudlocate", True, "hw-1")
    (entry,) = load(place, encrypt or clear)
    assert replace(entry, file=NO_FILE) == ENTRY
    assert files_in(place) == [entry.file]
    assert not entry.file.name.startswith(".")
    responses.discard([entry])
    assert files_in(place) == []


@pytest.mark.parametrize(("owner", "step"), [(os, "posix_fallocate"), (os, "fsync"), (os, "pwrite")])
def test_an_empty_space_is_removed(place: Path, owner: object, step: str) -> None:
    crash_at(owner, step, lambda: store(place))
    assert len(files_in(place)) == 1
    assert responses.survey(str(place.parent), clear) == []
    assert load(place, clear) == []
    assert files_in(place) == []


def half_written(place: Path, size: int = MAX_ENTRY_BYTES) -> Path:
    """Write a hidden file with the first half of an entry, as a crash during the write leaves it."""
    stored = store(place)
    hidden = stored.file.rename(stored.file.with_name(f".{stored.file.name}"))
    content = hidden.read_bytes()
    hidden.write_bytes(content[: len(content) // 2].ljust(size, b"\0"))
    return hidden


def test_half_an_entry_is_removed_in_time(place: Path) -> None:
    hidden = half_written(place)
    assert load(place, clear) == []
    assert hidden.exists()
    os.utime(hidden, (0, 0))
    assert load(place, clear) == []
    assert files_in(place) == []


def test_what_cannot_be_decrypted_now_is_not_removed(place: Path) -> None:
    crash_at(os, "ftruncate", lambda: store(place, ENTRY, flip))
    (hidden,) = files_in(place)
    os.utime(hidden, (0, 0))
    assert load(place, clear) == []
    assert [replace(entry, file=NO_FILE) for entry in load(place, flip)] == [ENTRY]


@pytest.mark.parametrize("is_empty", [True, False])
def test_what_cannot_be_read_now_is_not_removed(place: Path, monkeypatch: pytest.MonkeyPatch, is_empty: bool) -> None:
    """A disk that fails for a moment."""
    allocation = allocate(place, 1)
    os.close(allocation.descriptor)
    if not is_empty:
        allocation.file.write_bytes(store(place).file.read_bytes())
    (hidden, *others) = files_in(place)
    os.utime(hidden, (0, 0))
    read = Path.open

    def broken(path: Path, mode: str = "r") -> object:
        if path == hidden:
            raise OSError(errno.EIO, "Input/output error")
        return read(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken)
        load(place, clear)
    assert files_in(place) == [hidden, *others]


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def test_an_entry_that_is_being_written_is_left_alone(place: Path) -> None:
    stored = store(place)
    hidden = stored.file.rename(stored.file.with_name(f".{stored.file.name}"))
    os.utime(hidden, (0, 0))
    with locked(hidden):
        assert load(place, clear) == []
        assert responses.survey(str(place.parent), clear) == []
    assert len(load(place, clear)) == 1


def test_without_locks_only_an_old_space_is_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run may still wait for the response."""

    def no_locks(*_arguments: object) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    allocation = allocate(place, 1)
    assert load(place, clear) == []
    assert files_in(place) == [allocation.file]
    os.utime(allocation.file, (0, 0))
    assert load(place, clear) == []
    assert files_in(place) == []
    allocation.release()


# ---- discarded ----


def test_discard_removes_its_own_entries_and_no_other(place: Path) -> None:
    """Another run may have stored a response for the same Thing meanwhile, even in the same second."""
    mine, other = store(place), store(place)
    responses.discard([mine])
    responses.discard([mine])
    assert load(place, clear) == [other]
    responses.discard([])
    assert files_in(place) == [other.file]


def test_a_discard_that_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store(place)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(ProvisioningError) as caught:
        responses.discard([stored])
    assert caught.value.code == "spool_failed"


def test_an_entry_that_another_run_discards_meanwhile(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, stays = store(place), store(place)
    found = responses.entry_files(place)
    responses.discard([gone])
    monkeypatch.setattr(responses, "entry_files", lambda _place: found)
    assert load(place, clear) == [stays]


# ---- unreadable ----

WHOLE = {
    "service": "cloudlocate",
    "hardware_id": "hw-1",
    "given_name": "gw1",
    "host": "gw1",
    "path": "/etc/thingstream/x",
    "reason": "absent",
    "received_at": "2026-11-22T12:00:00Z",
    "sequence": 1,
    "replaces": None,
    "response": base64.b64encode(RESPONSE).decode(),
}


def entry_file(place: Path) -> Path:
    """Return the path of a file that counts as an entry, and comes after every other one."""
    return place.with_name(f"{place.name}-zzzzzzzzz{responses.SUFFIX}")


def unreadable(file: Path, service: str = "cloudlocate") -> SpoolReport:
    return SpoolReport(str(file), service, readable=False)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(100),
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
        json.dumps({**WHOLE, "sequence": "first"}).encode(),
        json.dumps({**WHOLE, "sequence": None}).encode(),
        json.dumps({**WHOLE, "response": "not base64!"}).encode(),
        json.dumps({**WHOLE, "response": "ü"}).encode(),
        json.dumps({**WHOLE, "response": 5}).encode(),
        json.dumps(WHOLE).encode()[:-1],
    ],
    ids=lambda content: repr(content[:40]),
)
def test_an_unreadable_entry(place: Path, content: bytes) -> None:
    """It never counts as none: then another request would be sent, and maybe billed."""
    store(place)
    path = entry_file(place)
    path.write_bytes(content)
    with pytest.raises(ProvisioningError) as caught:
        load(place, clear)
    assert caught.value.code == "spool_failed"
    assert str(path) in caught.value.message
    assert_no_secret(caught.value, also=(str(WHOLE["response"])[:20],))
    assert path.read_bytes() == content
    assert responses.survey(str(place.parent), clear)[-1] == unreadable(path)


def test_a_wrong_vault_secret(place: Path) -> None:
    stored = store(place, ENTRY, flip)

    def refuse(content: bytes) -> bytes:
        raise ValueError(f"{content!r} {MQTT_PASSWORD}")

    for decrypt in (clear, refuse):
        with pytest.raises(ProvisioningError) as caught:
            load(place, decrypt)
        assert (caught.value.code, "Vault" in caught.value.message) == ("spool_failed", True)
        assert_no_secret(caught.value)
        assert responses.survey(str(place.parent), decrypt) == [unreadable(stored.file)]


def test_a_directory_in_the_place_of_an_entry(place: Path) -> None:
    entry_file(place).mkdir()
    with pytest.raises(ProvisioningError) as caught:
        load(place, clear)
    assert caught.value.code == "spool_failed"
    assert responses.survey(str(place.parent), clear) == [unreadable(entry_file(place))]


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    look: Callable[[], object]
    for look in (
        lambda: load(tmp_path / "spool" / "x", clear),
        lambda: responses.entry_files(tmp_path / "spool" / "x"),
        lambda: responses.survey(str(tmp_path / "spool"), clear),
    ):
        with pytest.raises(ProvisioningError) as caught:
            look()
        assert caught.value.code == "spool_failed"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755])
def test_nothing_is_read_where_others_could_have_put_it(place: Path, mode: int) -> None:
    store(place)
    place.parent.chmod(mode)
    look: Callable[[], object]
    for look in (
        lambda: responses.entry_files(place),
        lambda: load(place, clear),
        lambda: responses.survey(str(place.parent), clear),
    ):
        with pytest.raises(ProvisioningError) as caught:
            look()
        assert (caught.value.code, "0700" in caught.value.message) == ("spool_failed", True)


def test_the_representation_of_an_entry_hides_the_response() -> None:
    assert_no_secret(ENTRY, replace(ENTRY, response=MQTT_PASSWORD.encode()))


# ---- survey ----


@pytest.mark.parametrize("cipher", [None, flip])
def test_a_survey_describes_every_entry_and_no_secret(tmp_path: Path, cipher: Cipher | None) -> None:
    spool = tmp_path / "spool"
    entries = [
        ENTRY,
        replace(ENTRY, received_at=NOW + DAY, reason="forced"),
        replace(ENTRY, service="pointperfect-live", hardware_id=None, given_name="gw2"),
    ]
    for entry in entries:
        store(place_in(spool, entry.service, entry.hardware_id), entry, cipher)
    (spool / "notes.txt").write_bytes(b"another file")
    allocation = allocate(place_in(spool), 9)
    found = responses.survey(str(spool), cipher or clear)
    allocation.release()
    assert [one.file for one in found] == sorted(one.file for one in found)
    assert_no_secret(found, *(one.to_dict() for one in found), also=(base64.b64encode(RESPONSE).decode()[:20],))
    assert {(one.service, one.hardware_id, one.given_name, one.reason, one.received_at) for one in found} == {
        (entry.service, entry.hardware_id, entry.given_name, entry.reason, entry.received_at) for entry in entries
    }
    assert all(one.readable and Path(one.file).is_file() for one in found)
    plain = {one.to_dict()["received_at"] for one in found}
    assert plain == {"2026-11-22T12:00:00Z", "2026-11-23T12:00:00Z"}
    assert unreadable(NO_FILE).to_dict()["received_at"] is None


@pytest.mark.parametrize("service", ["pointperfect", "pointperfect-live", "cloudlocate"])
def test_the_service_of_an_unreadable_entry_is_in_its_name(tmp_path: Path, service: str) -> None:
    stored = store(place_in(tmp_path / "spool", service))
    stored.file.write_bytes(b"{}")
    assert responses.survey(str(tmp_path / "spool"), clear) == [unreadable(stored.file, service)]


def test_an_unreadable_entry_hides_no_other(place: Path) -> None:
    stored = store(place)
    entry_file(place).write_bytes(b"{}")
    found = responses.survey(str(place.parent), clear)
    assert [(one.file, one.readable) for one in found] == [(str(stored.file), True), (str(entry_file(place)), False)]


def test_a_survey_of_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert responses.survey(str(place.parent), clear) == []
    assert responses.survey(str(place.parent / "none"), clear) == []
    monkeypatch.setenv("HOME", str(place.parent.parent))
    stored = store(place)
    assert [one.file for one in responses.survey("~/spool", clear)] == [str(stored.file)]

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request markers: one for each Thing, locked while its run waits, abandoned if it ended without a response."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, ledger, requests
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.ledger import LedgerEntry
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.requests import OpenRequest, RequestMarker
from ansible_collections.thingstream.ztp.tests.unit.support import NOW, tree

RESPONSE = "cloudlocate-0-000001-0badcafe.response"
CONTENT = {
    "service": "cloudlocate",
    "hardware_id": "hw-1",
    "given_name": "gw1",
    "requested_at": "2026-11-22T12:00:00Z",
    "response": RESPONSE,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory.prepare(tmp_path / "spool", make_parents=True)
    return directory.location(str(tmp_path / "spool"), "cloudlocate", "hw-1", "gw1 /x")


def marker_of(place: Path) -> Path:
    return place.with_name(place.name + requests.SUFFIX)


def begin(place: Path, response: str = RESPONSE) -> OpenRequest:
    return requests.begin(place, "cloudlocate", "hw-1", "gw1", response, NOW)


def abandon(place: Path) -> Path:
    """Leave and return the marker of a run that has sent a request and ended without a response."""
    request = begin(place)
    request.close()
    return request.file


def found(place: Path, *, is_live: bool) -> RequestMarker:
    return RequestMarker(marker_of(place), "cloudlocate", "hw-1", "gw1", NOW, RESPONSE, is_live)


def fails(place: Path) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        begin(place)
    return caught.value


def note_received(place: Path, response: str = RESPONSE) -> None:
    entry = LedgerEntry("cloudlocate", None, "hw-1", "gw1", "gw1", "/x", response, NOW)
    ledger.append(place, "received", entry, NOW)


# ---- one request ----


def test_a_request_from_its_begin_to_its_end(place: Path) -> None:
    assert requests.find(place) is None
    request = begin(place)
    assert request.file == marker_of(place)
    assert json.loads(request.file.read_text()) == CONTENT
    assert request.file.stat().st_mode & 0o7777 == 0o600
    assert requests.find(place) == found(place, is_live=True)
    request.settle()
    assert requests.find(place) is None
    request.close()
    assert not request.file.exists()
    again = begin(place)
    again.settle()
    again.close()


def test_a_request_whose_response_was_lost(place: Path) -> None:
    """It stays until a person removes it."""
    marker = abandon(place)
    assert requests.find(place) == found(place, is_live=False)
    before = marker.read_bytes()
    for _try in range(2):
        error = fails(place)
        assert error.code == "response_lost"
        assert str(marker) in error.message
    assert marker.read_bytes() == before
    assert not directory.is_locked(marker)
    marker.unlink()
    begin(place).close()


def test_a_request_that_another_process_waits_for(place: Path) -> None:
    request = begin(place)
    error = fails(place)
    assert (error.code, str(request.file) in error.message) == ("concurrent_change", True)
    assert requests.find(place) == found(place, is_live=True)
    assert json.loads(request.file.read_text()) == CONTENT
    request.close()


def test_requests_for_different_things_do_not_meet(place: Path) -> None:
    other = directory.location(str(place.parent), "cloudlocate", "hw-2", "gw2 /x")
    mine, theirs = begin(place), begin(other)
    assert mine.file != theirs.file
    assert requests.find(place) == found(place, is_live=True)
    for request in (mine, theirs):
        request.close()


# ---- settled, incomplete ----


def test_a_request_whose_response_is_in_the_spool_is_settled(place: Path) -> None:
    """Its run ended before it could remove the marker."""
    marker = abandon(place)
    place.with_name(RESPONSE).touch()
    assert requests.find(place) is None
    assert requests.survey(str(place.parent)) == []
    request = begin(place, "another.response")
    assert json.loads(marker.read_text()) == {**CONTENT, "response": "another.response"}
    request.close()


def test_a_request_whose_response_is_in_the_ledger_is_settled(place: Path) -> None:
    """Also after later responses, for the same Thing and for others."""
    abandon(place)
    note_received(place)
    for _number in range(2):
        note_received(place, f"{_number}.response")
    assert requests.find(place) is None
    assert requests.survey(str(place.parent)) == []
    begin(place, "another.response").close()
    assert fails(place).code == "response_lost"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        json.dumps(CONTENT).encode()[:-1],
        json.dumps({**CONTENT, "requested_at": None}).encode(),
        json.dumps({name: value for name, value in CONTENT.items() if name != "response"}).encode(),
    ],
    ids=repr,
)
def test_an_incomplete_marker_is_used_again(place: Path, content: bytes) -> None:
    """Its run ended before the marker was complete, and so before the request."""
    marker_of(place).write_bytes(content)
    assert requests.find(place) is None
    assert requests.survey(str(place.parent)) == []
    request = begin(place)
    assert json.loads(request.file.read_text()) == CONTENT
    request.close()


def test_an_incomplete_marker_of_a_live_run_is_live(place: Path) -> None:
    marker_of(place).touch()
    with marker_of(place).open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        live = requests.find(place)
        assert live is not None
        assert (live.is_live, live.requested_at) == (True, None)
        assert fails(place).code == "concurrent_change"


def test_a_settled_marker_is_cleaned_up(place: Path) -> None:
    marker = abandon(place)
    requests.clean_up(place)
    assert marker.exists(), "its response was lost"
    place.with_name(RESPONSE).touch()
    with marker.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        requests.clean_up(place)
        assert marker.exists(), "its run is about to remove it"
    requests.clean_up(place)
    assert not marker.exists()
    requests.clean_up(place)


def test_a_marker_that_cannot_be_cleaned_up_does_no_harm(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abandon(place)
    place.with_name(RESPONSE).touch()
    monkeypatch.setattr(Path, "unlink", fail)
    requests.clean_up(place)
    assert requests.find(place) is None


# ---- interrupted before anything was sent ----


def fail(*_arguments: object, **_options: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_arguments: object, **_options: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["ftruncate", "pwrite", "fsync"])
@pytest.mark.parametrize(("problem", "kind"), [(fail, ProvisioningError), (interrupt, KeyboardInterrupt)])
@pytest.mark.parametrize("is_settled", [False, True])
def test_a_marker_that_cannot_be_written_is_removed(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    problem: Callable[..., NoReturn],
    kind: type[BaseException],
    is_settled: bool,
) -> None:
    """No request was sent; also where the marker of a settled request is used again."""
    if is_settled:
        abandon(place)
        note_received(place)
    with monkeypatch.context() as patch:
        patch.setattr(os, step, problem)
        with pytest.raises(kind) as caught:
            begin(place)
    if isinstance(caught.value, ProvisioningError):
        assert caught.value.code == "spool_failed"
    assert not marker_of(place).exists()
    begin(place).close()


def test_an_interruption_of_the_look_leaves_a_lost_request(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = abandon(place)
    before = tree(place.parent)
    for owner, step, problem in ((ledger, "read", interrupt), (ledger, "read", fail), (Path, "read_bytes", interrupt)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, problem)
            with pytest.raises((KeyboardInterrupt, OSError)):
                begin(place)
    assert tree(place.parent) == before
    assert not directory.is_locked(marker)


def test_a_process_that_dies_leaves_an_abandoned_marker(place: Path) -> None:
    process = os.fork()
    if process == 0:
        begin(place)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert requests.find(place) == found(place, is_live=False)


# ---- locks ----


def test_a_look_is_no_run_that_waits(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the lock for a moment."""
    marker_of(place).touch()
    stream = marker_of(place).open("rb")
    fcntl.flock(stream, fcntl.LOCK_SH)
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        stream.close()

    monkeypatch.setattr(time, "sleep", wait)
    begin(place).close()
    assert len(waits) == 1


def test_a_marker_that_its_run_removes_meanwhile(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a file without a name excludes no other run."""
    lock = fcntl.flock
    is_first = iter([True])

    def late(descriptor: int, operation: int) -> None:
        lock(descriptor, operation)
        if next(is_first, False):
            marker_of(place).unlink()

    monkeypatch.setattr(fcntl, "flock", late)
    request = begin(place)
    assert os.path.samestat(os.fstat(request.descriptor), marker_of(place).stat())
    assert fails(place).code == "concurrent_change"
    request.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_without_locks_a_marker_counts_as_abandoned(place: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_locks(*_arguments: object) -> NoReturn:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    request = begin(place)
    assert requests.find(place) == found(place, is_live=False)
    assert fails(place).code == "response_lost"
    place.with_name(RESPONSE).touch()
    requests.clean_up(place)
    request.settle()
    request.close()
    assert not request.file.exists()


def test_a_lock_that_fails_otherwise(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    assert fails(place).code == "spool_failed"


def test_a_link_in_its_place_is_not_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    marker_of(place).symlink_to(tmp_path / "elsewhere")
    assert fails(place).code == "spool_failed"
    assert (tmp_path / "elsewhere").read_text() == "untouched"


def test_no_directory(tmp_path: Path) -> None:
    assert fails(tmp_path / "gone" / "x").code == "spool_failed"
    assert requests.find(tmp_path / "gone" / "x") is None
    assert requests.survey(str(tmp_path / "gone")) == []
    requests.clean_up(tmp_path / "gone" / "x")


# ---- survey ----


def test_a_survey_of_abandoned_requests(place: Path) -> None:
    live = begin(directory.location(str(place.parent), "cloudlocate", "hw-2", "gw2 /x"))
    marker = abandon(place)
    place.with_name("notes.txt").touch()
    (one,) = requests.survey(str(place.parent))
    assert one == found(place, is_live=False)
    assert one.to_dict() == {
        "file": str(marker),
        "service": "cloudlocate",
        "hardware_id": "hw-1",
        "given_name": "gw1",
        "requested_at": "2026-11-22T12:00:00Z",
    }
    live.close()
    assert len(requests.survey(str(place.parent))) == 2


def test_a_survey_of_a_directory_that_is_not_private(place: Path) -> None:
    abandon(place)
    place.parent.chmod(0o755)
    with pytest.raises(ProvisioningError) as caught:
        requests.survey(str(place.parent))
    assert (caught.value.code, "0700" in caught.value.message) == ("spool_failed", True)


def test_a_request_that_begins_during_a_look_is_live(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is locked is asked before it is, and what it says is read after that."""
    begin(place).close()
    place.with_name(place.name + requests.SUFFIX).write_bytes(b"")  # incomplete, so that another run may begin
    begun: list[OpenRequest] = []

    def locked(file: Path) -> bool:
        found = directory.is_locked(file)
        if not begun:
            begun.append(begin(place))
        return found

    monkeypatch.setattr(requests, "is_locked", locked)
    found = requests.find(place)
    assert found is not None
    assert found.is_live


def test_a_request_that_is_settled_during_a_look_is_not_lost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = begin(place)

    def locked(file: Path) -> bool:
        if file.exists():
            request.settle()
            request.close()
        return directory.is_locked(file)

    monkeypatch.setattr(requests, "is_locked", locked)
    assert requests.find(place) is None
    assert requests.survey(str(place.parent)) == []

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: what each event means, what a crash or a hostile line leaves, and that it holds no secret."""

from __future__ import annotations

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import FormerThing
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, ledger
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.ledger import (
    PENDING,
    Event,
    Ledger,
    LedgerEntry,
    append,
    entry_of,
    not_deactivated,
    read,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.responses import Entry
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    MQTT_PASSWORD,
    NOW,
    assert_no_secret,
    cloudlocate,
    encoded,
)

PATH = "/etc/thingstream/x"
LOGIN = "f" * 64


EVENT = {
    "event": "received",
    "at": "2026-11-22T12:00:00Z",
    "service": "cloudlocate",
    "client_id": "device:1",
    "login_sha256": LOGIN,
    "hardware_id": "hw-1",
    "given_name": "gw1",
    "host": "gw1",
    "path": PATH,
    "response": "1.response",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory.prepare(tmp_path / "spool", make_parents=True)
    return directory.location(str(tmp_path / "spool"), "cloudlocate", "hw-1", f"gw1 {PATH}")


def file_of(place: Path) -> Path:
    return place.parent / "ledger" / f"{place.name}.ledger"


def known(number: int | None, **changes: Any) -> LedgerEntry:
    """Return a Thing as the ledger has it after its response arrived."""
    thing_id = None if number is None else ThingId(f"device:{number}")
    entry = LedgerEntry("cloudlocate", thing_id, "hw-1", "gw1", "gw1", PATH, f"{number}.response", NOW)
    return replace(entry, **changes)


def written(place: Path, *events: tuple[Event, LedgerEntry]) -> Ledger:
    """Append these events, one day apart, and return the ledger."""
    for number, (event, entry) in enumerate(events):
        append(place, event, entry, NOW + number * DAY)
    return read(place)


# ---- events ----


def test_the_life_of_two_things(place: Path) -> None:
    found = written(
        place,
        ("received", known(1)),
        ("delivered", known(1)),
        ("received", known(2)),
        ("delivered", known(2)),
        ("deactivated", known(1)),
        ("left", known(2)),
    )
    assert found.entries == (
        known(1, delivered_at=NOW + DAY, left_at=NOW + 3 * DAY, deactivated_at=NOW + 4 * DAY),
        known(2, received_at=NOW + 2 * DAY, delivered_at=NOW + 3 * DAY, left_at=NOW + 5 * DAY),
    )
    assert found.received == 2
    assert found.responses == {"1.response", "2.response"}


def test_a_thing_that_is_delivered_again_is_in_use(place: Path) -> None:
    found = written(place, ("received", known(1)), ("left", known(1)), ("delivered", known(1)))
    assert found.entries == (known(1, delivered_at=NOW + 2 * DAY),)


def test_a_thing_that_is_received_again_is_no_longer_deactivated(place: Path) -> None:
    """The platform has returned it."""
    events: list[tuple[Event, LedgerEntry]] = [("received", known(1)), ("deactivated", known(1))]
    assert written(place, *events).entries == (known(1, left_at=NOW + DAY, deactivated_at=NOW + DAY),)
    found = written(place, ("received", known(1, response="again.response")))
    assert [(one.deactivated_at, one.response) for one in found.entries] == [(None, "again.response")]
    assert found.responses == {"1.response", "again.response"}, "the names of earlier responses stay"


def test_the_first_date_on_which_a_thing_left_counts(place: Path) -> None:
    found = written(place, ("received", known(1)), ("left", known(1)), ("left", known(1)))
    assert found.entries == (known(1, left_at=NOW + DAY),)


def test_a_delivery_at_another_place_leaves_this_one_as_it_is(place: Path) -> None:
    for other in (known(2, host="gw2"), known(2, path="/elsewhere")):
        found = written(place, ("delivered", known(1)), ("delivered", other))
        assert [one.left_at for one in found.entries if one.thing_id == ThingId("device:1")] == [None]


def test_a_response_that_another_gateway_got_is_not_with_the_first_one(place: Path) -> None:
    """The host was renamed, or its hardware moved, while the response was in the spool."""
    found = written(place, ("received", known(1)), ("delivered", known(1, host="gw2")))
    assert found.entries == (known(1, host="gw2", received_at=NOW + DAY, delivered_at=NOW + DAY),)
    found = written(place, ("delivered", known(1, host="gw3")))
    assert [one.host for one in found.entries] == ["gw2", "gw3"], "two hosts have it: both are known"


def test_a_deactivation_counts_for_every_gateway_that_has_the_thing(place: Path) -> None:
    found = written(
        place, ("delivered", known(1)), ("delivered", known(1, host="gw2", response="x")), ("deactivated", known(1))
    )
    assert [bool(one.deactivated_at) for one in found.entries] == [True, True]


def test_an_identity_may_become_known_later(place: Path) -> None:
    """By the name of the response: ``field_map`` was corrected, for example."""
    found = written(place, ("received", known(None, response="1.response")), ("delivered", known(1)))
    assert found.entries == (known(1, delivered_at=NOW + DAY),)
    assert found.received == 1


def test_things_without_client_id_are_told_apart_by_their_login(place: Path) -> None:
    things = [known(number, thing_id=ThingId(None, digit * 64)) for number, digit in enumerate("12")]
    found = written(place, *(("received", thing) for thing in things), ("deactivated", things[0]))
    assert {one.login_sha256: bool(one.deactivated_at) for one in found.entries} == {"1" * 64: True, "2" * 64: False}
    assert [one.client_id for one in found.entries] == [None, None]


def test_responses_that_name_no_thing_are_told_apart_by_their_names(place: Path) -> None:
    found = written(
        place,
        ("received", known(None, response="a")),
        ("received", known(None, response="b")),
        ("left", known(None, response="a")),
    )
    assert {one.response: bool(one.left_at) for one in found.entries} == {"a": True, "b": False}
    assert (found.entries[0].client_id, found.entries[0].login_sha256) == (None, None)


def test_a_pending_activation_ends_with_the_next_response(place: Path) -> None:
    """It counts as no response: it held no credentials."""
    found = written(place, ("received", known(None, response=PENDING)))
    assert ([one.response for one in found.entries], found.received) == ([PENDING], 0)
    found = written(place, ("received", known(1)))
    assert ([one.response for one in found.entries], found.received) == (["1.response"], 1)


def test_a_delivery_of_what_was_never_noted_counts_as_a_response(place: Path) -> None:
    """The run that received it crashed before it could note that."""
    assert written(place, ("delivered", known(1))).received == 1
    assert written(place, ("left", known(2))).received == 2


# ---- the file ----


def test_a_missing_file_is_no_error(tmp_path: Path, place: Path) -> None:
    assert read(place) == Ledger() == read(tmp_path / "gone" / "x")
    assert ledger.survey(str(place.parent)) == []
    assert ledger.survey(str(tmp_path / "gone")) == []


def test_the_directory_is_made_where_it_is_missing(place: Path) -> None:
    """Only a request makes the spool directory; the ledger may have been removed since."""
    (place.parent / "ledger").rmdir()
    append(place, "received", known(1), NOW)
    assert read(place).entries == (known(1),)
    assert (place.parent / "ledger").stat().st_mode & 0o7777 == 0o700


def test_the_file_is_private_and_has_no_secret(place: Path) -> None:
    response = Entry("cloudlocate", "hw-1", "gw1", "gw1", PATH, "absent", NOW, 1, None, encoded(cloudlocate()),
                     place.with_name("1.response"))  # fmt: skip
    before = os.umask(0)
    try:
        append(place, "received", entry_of(response, ThingId("device:1", LOGIN)), NOW)
    finally:
        os.umask(before)
    assert file_of(place).stat().st_mode & 0o7777 == 0o600
    content = file_of(place).read_text()
    assert_no_secret(content, read(place))
    assert "username" not in content
    assert json.loads(content) == EVENT


def test_an_event_is_on_the_disk_when_it_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    append(place, "received", known(1), NOW)
    assert synced == [str(file_of(place))]


def test_events_that_meet_are_all_there(place: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: append(place, "received", known(number), NOW), range(200)))
    assert {one.client_id for one in read(place).entries} == {f"device:{number}" for number in range(200)}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"5",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b"{}",
        b'{"event": "received", "at": "2026-11-22T12:00:00Z"}',
        b'{"event": "received", "at": "soon", "hardware_id": null, "given_name": null, "host": "", "path": "", '
        b'"response": ""}',
        *(
            json.dumps({**EVENT, name: value}).encode()
            for name in EVENT
            for value in (5, ["x"])
            if name not in ("service", "client_id", "login_sha256")
        ),
    ],
    ids=lambda line: repr(line[:30]),
)
def test_a_line_that_cannot_be_read_changes_nothing(place: Path, line: bytes) -> None:
    """A crash cuts the last line short, and the next event begins a new line."""
    append(place, "received", known(1), NOW)
    with file_of(place).open("ab") as stream:
        stream.write(line)
    assert read(place) == Ledger((known(1),), frozenset({"1.response"}))
    append(place, "received", known(2), NOW)
    assert [one.client_id for one in read(place).entries] == ["device:1", "device:2"]


def test_an_event_that_is_cut_at_any_byte_is_ignored(place: Path) -> None:
    append(place, "received", known(1), NOW)
    whole = file_of(place).read_bytes()
    append(place, "delivered", known(1), NOW + DAY)
    full = file_of(place).read_bytes()
    for length in range(len(whole), len(full) - 1):
        file_of(place).write_bytes(full[:length])
        assert [one.delivered_at for one in read(place).entries] in ([None], [NOW + DAY])
        append(place, "left", known(1), NOW + 2 * DAY)
        assert [one.left_at for one in read(place).entries] == [NOW + 2 * DAY]


def test_an_unknown_event_of_a_later_version_is_no_crash(place: Path) -> None:
    append(place, "moved", known(1), NOW)  # type: ignore[arg-type]
    assert [one.client_id for one in read(place).entries] == ["device:1"]


@pytest.mark.parametrize("problem", ["error", "short"])
def test_a_full_disk(place: Path, monkeypatch: pytest.MonkeyPatch, problem: str) -> None:
    def full(_descriptor: int, content: bytes) -> int:
        if problem == "short":
            return len(content) // 2
        raise OSError(errno.ENOSPC, "No space left on device", MQTT_PASSWORD)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ProvisioningError) as caught:
        append(place, "received", known(1), NOW)
    assert (caught.value.code, "No space left on device" in caught.value.message) == ("spool_failed", True)
    assert_no_secret(caught.value.message)


def test_a_file_that_cannot_be_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: Path) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    append(place, "received", known(1), NOW)
    monkeypatch.setattr(Path, "read_bytes", broken)
    for look in (lambda: read(place), lambda: ledger.survey(str(place.parent))):
        with pytest.raises(ProvisioningError) as caught:
            look()
        assert caught.value.code == "spool_failed"


def test_a_link_in_its_place_is_not_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    file_of(place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProvisioningError):
        append(place, "received", known(1), NOW)
    assert (tmp_path / "elsewhere").read_text() == "untouched"


# ---- what others read ----


def test_a_survey_has_the_things_of_all_places(place: Path) -> None:
    other = directory.location(str(place.parent), "pointperfect", None, f"gw2 {PATH}")
    append(place, "received", known(1), NOW)
    append(place, "received", known(2), NOW)
    append(other, "received", known(3, service="pointperfect", hardware_id=None, host="gw2"), NOW)
    found = ledger.survey(str(place.parent))
    assert {(one.service, one.client_id, one.host) for one in found} == {
        ("cloudlocate", "device:1", "gw1"),
        ("cloudlocate", "device:2", "gw1"),
        ("pointperfect", "device:3", "gw2"),
    }


def test_a_survey_of_a_directory_that_is_not_private(place: Path) -> None:
    append(place, "received", known(1), NOW)
    (place.parent / "ledger").chmod(0o755)
    with pytest.raises(ProvisioningError) as caught:
        ledger.survey(str(place.parent))
    assert (caught.value.code, "0700" in caught.value.message) == ("spool_failed", True)


def test_an_entry_as_reports_and_histories_show_it() -> None:
    entry = known(1, thing_id=ThingId("device:1", LOGIN), delivered_at=NOW + DAY, left_at=NOW + 2 * DAY)
    assert entry.to_dict() == {
        "service": "cloudlocate",
        "client_id": "device:1",
        "login_sha256": LOGIN,
        "hardware_id": "hw-1",
        "given_name": "gw1",
        "host": "gw1",
        "path": PATH,
        "received_at": "2026-11-22T12:00:00Z",
        "delivered_at": "2026-11-23T12:00:00Z",
        "left_at": "2026-11-24T12:00:00Z",
        "deactivated_at": None,
    }
    assert entry.as_former() == FormerThing(entry.thing_id, "cloudlocate", "hw-1", "gw1")


def test_the_things_that_a_gateway_may_still_have() -> None:
    entries = (
        known(1),
        known(2, left_at=NOW),
        known(3, deactivated_at=NOW),
        known(4, host="gw2"),
        known(5, path="/elsewhere"),
        known(None),
    )
    assert list(not_deactivated(entries, "gw1", PATH)) == list(entries[:2])


def test_a_long_life_is_read_quickly(place: Path) -> None:
    """Twenty years of daily renewals."""
    append(place, "received", known(1), NOW)
    line = file_of(place).read_text()
    lines = (line.replace("device:1", f"device:{day % 50}").replace("1.response", f"{day}.x") for day in range(7300))
    file_of(place).write_text("".join(lines))
    begin = time.process_time()
    found = read(place)
    assert time.process_time() - begin < 1
    assert (len(found.entries), found.received) == (50, 7300)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of a path as tables: what is made of a hostile one, who is one Thing, and who is on the list."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import history
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import policy
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW

AT = "2026-11-22T12:00:00Z"
EMPTY: history.History = {"things": []}


def thing(number: int | None, **changes: Any) -> dict[str, Any]:
    """The identity of a Thing, as it is in a record."""
    client_id = f"device:{number}" if number is not None else None
    return {"client_id": client_id, "service": "cloudlocate", "hardware_id": "hw-1", "given_name": "gw1", **changes}


def entry(number: int | None, **changes: Any) -> dict[str, Any]:
    """A Thing in a history."""
    return {**thing(number), "since": AT, "done_at": None, **changes}


def listed(number: int | None, **changes: Any) -> dict[str, Any]:
    """A Thing on the retirement list."""
    return {**thing(number), "since": AT, **changes}


def past(*entries: Mapping[str, Any]) -> history.History:
    return {"things": list(entries)}


# ---- what is made of what a gateway claims ----


@pytest.mark.parametrize(
    ("found", "things"),
    [
        ({}, []),
        ({"things": None}, []),
        ({"things": 7}, []),
        ({"things": "text"}, []),
        ({"things": {"0": entry(1)}}, []),
        ({"things": [None, 7, "text", [], [entry(1)], True]}, []),
        ({"things": [{}]}, [dict.fromkeys(entry(1))]),
        ({"things": [entry(1)]}, [entry(1)]),
        ({"things": [entry(1), "noise", entry(2, done_at=AT)]}, [entry(1), entry(2, done_at=AT)]),
        ({"things": [{**entry(1), "more": {"deep": [1]}}], "more": 5}, [entry(1)]),
        ({"things": [listed(1)]}, [entry(1)]),
    ],
)
def test_what_is_readable(found: Mapping[str, Any], things: list[Any]) -> None:
    assert history.readable(found, None) == {"things": things}


@pytest.mark.parametrize("name", [name for name in history.IDENTITY if name != "client_id"])
@pytest.mark.parametrize(
    "value",
    [5, True, [], {"a": "b"}, "a\nb", "\x1b[31m", "\x00", "\u202e", "\u2028", "\udcff", "x" * 257],
    ids=lambda value: repr(value)[:12],
)
def test_an_identity_that_is_no_plain_text_is_none(name: str, value: object) -> None:
    assert history.readable(past(entry(1, **{name: value})), None) == past(entry(1, **{name: None}))


@pytest.mark.parametrize(
    "value",
    [5, True, [], {"a": "b"}, "", "a\nb", "$(id)", "a b", "../a", "{{ 7 * 7 }}", "\uff11", "x" * 129],
    ids=lambda value: repr(value)[:12],
)
def test_an_entry_whose_client_id_is_none_is_not_read_as_one_without(value: object) -> None:
    assert history.readable(past(entry(1, client_id=value), entry(2)), None) == past(entry(2))


@pytest.mark.parametrize("text", ["", "x" * 256, "Grüße 日本", "{{ lookup('pipe', 'id') }}"])
def test_a_plain_text_stays_what_it_is(text: str) -> None:
    assert history.readable(past(entry(1, given_name=text)), None) == past(entry(1, given_name=text))


NO_DATES: tuple[object, ...] = (
    5,
    True,
    [],
    {},
    "",
    "now",
    "2026-11-22",
    "2026-11-22T12:00:00+00:00",
    "2026-11-22T12:00:00Z\n",
    "2026-13-22T12:00:00Z",
    "2026-02-30T12:00:00Z",
    "9999-99-99T99:99:99Z",
    "0000-01-01T00:00:00Z",
    "٢٠٢٦-11-22T12:00:00Z",
)


@pytest.mark.parametrize("value", NO_DATES, ids=repr)
def test_a_date_that_is_none(value: object) -> None:
    assert history.readable(past(entry(1, since=value)), None) == past(entry(1, since=None))
    assert history.readable(past(entry(1, done_at=value)), None) == past(entry(1))
    confirmed = {"at": value, "identity_sha256": "1" * 64}
    assert history.readable({"things": [], "confirmed": confirmed}, None) == EMPTY


@pytest.mark.parametrize(
    ("confirmed", "expected"),
    [
        ({"at": AT, "identity_sha256": "1" * 64}, {"at": AT, "identity_sha256": "1" * 64}),
        ({"at": AT, "identity_sha256": "1" * 64, "x": []}, {"at": AT, "identity_sha256": "1" * 64}),
        ({"at": AT, "identity_sha256": None}, None),
        ({"at": AT, "identity_sha256": ["1"]}, None),
        ({"at": AT}, None),
        ({"identity_sha256": "1" * 64}, None),
        ({}, None),
        ([], None),
        ("text", None),
        (None, None),
    ],
)
def test_what_is_readable_of_a_confirmation(confirmed: object, expected: object) -> None:
    found = history.readable({"things": [], "confirmed": confirmed}, None)
    assert found.get("confirmed") == expected
    assert ("confirmed" in found) == (expected is not None)


@pytest.mark.parametrize(
    ("record", "things"),
    [
        (None, []),
        ({}, []),
        ({"retired": None}, []),
        ({"retired": "text"}, []),
        ({"retired": [listed(1), 5]}, [entry(1)]),
    ],
)
def test_where_there_is_no_history_the_list_in_the_record_counts(
    record: Mapping[str, Any] | None, things: list[Any]
) -> None:
    assert history.readable(None, record) == {"things": things}
    assert history.readable(past(entry(2)), record) == past(entry(2)), "a history counts alone"
    assert history.readable(EMPTY, record) == EMPTY, "even one that is empty"


def test_a_huge_list_is_cut_to_its_end_and_read_quickly() -> None:
    begin = time.process_time()
    found = history.readable(past(*(entry(number) for number in range(20_000))), None)
    assert found == past(*(entry(number) for number in range(19_800, 20_000)))
    assert time.process_time() - begin < 2


def test_a_deep_one_is_no_crash() -> None:
    deep: Any = []
    for _level in range(100_000):
        deep = [deep]
    assert history.readable({"things": deep, "confirmed": deep}, None) == EMPTY
    assert history.readable(past(entry(1, given_name=deep)), None) == past(entry(1, given_name=None))
    while deep:
        deep = deep[0]


def test_what_is_readable_is_encoded_as_one_line_of_ascii() -> None:
    found = history.readable(past(entry(1, given_name="Grüße 'quoted' \u00a0")), None)
    text = history.encode(found)
    assert text.isascii()
    assert text.isprintable()
    assert history.readable(json.loads(text), None) == found


# ---- who is one Thing ----


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (thing(1), thing(1), True),
        (thing(1), thing(2), False),
        (thing(1), thing(1, service="pointperfect", hardware_id="hw-2", given_name="gw2"), True),
        (thing(1), thing(None), False),
        (thing(1), thing(1, client_id=""), False),
        (thing(None), thing(None), True),
        (thing(None), thing(1, client_id=""), True),
        (thing(None), thing(None, given_name="gw2"), True),
        (thing(None), thing(None, hardware_id="hw-2"), False),
        (thing(None), thing(None, hardware_id=None), False),
        (thing(None), thing(None, service="pointperfect"), False),
        ({}, {}, True),
        ({}, thing(1), False),
        (thing(1), {"client_id": "device:1"}, True),
        (thing(1), {"client_id": ["device:1"]}, False),
    ],
)
def test_same_thing(one: Mapping[str, Any], other: Mapping[str, Any], same: bool) -> None:
    assert [history.same_thing(*pair) for pair in ((one, other), (other, one))] == [same, same]


# ---- the list ----


@pytest.mark.parametrize(
    ("entries", "record", "expected"),
    [
        ((), None, []),
        ((), thing(1), []),
        ((entry(1), entry(2)), None, [1, 2]),
        ((entry(1), entry(2)), thing(2), [1]),
        ((entry(1), entry(2)), thing(3), [1, 2]),
        ((entry(1, done_at=AT), entry(2)), thing(3), [2]),
        ((entry(1, done_at=AT),), thing(1), []),
        ((entry(None), entry(1)), thing(None), [1]),
        ((entry(None), entry(1)), thing(1), [None]),
    ],
)
def test_the_list_has_neither_what_is_in_use_nor_what_is_done(
    entries: tuple[Any, ...], record: Mapping[str, Any] | None, expected: list[int | None]
) -> None:
    assert history.retired(past(*entries), record) == [listed(number) for number in expected]


@pytest.mark.parametrize(
    ("entries", "record", "done"),
    [
        ((), thing(1), False),
        ((entry(1),), thing(1), False),
        ((entry(1, done_at=AT),), thing(1), True),
        ((entry(1, done_at=AT),), thing(2), False),
        ((entry(1), entry(2, done_at=AT)), thing(2), True),
    ],
)
def test_what_is_done(entries: tuple[Any, ...], record: Mapping[str, Any], done: bool) -> None:
    assert history.is_done(past(*entries), record) is done


# ---- leave, mark, confirm ----


@pytest.mark.parametrize(
    ("before", "record", "after"),
    [
        ((), None, ()),
        ((entry(1),), None, (entry(1),)),
        ((), thing(1), (entry(1),)),
        ((entry(1),), thing(2), (entry(1), entry(2))),
        ((entry(1, since="2020-01-01T00:00:00Z"), entry(2)), thing(1), (entry(2), entry(1))),
        ((entry(1, done_at=AT),), thing(1), (entry(1),)),
        ((), {**thing(1), "host": "mqtt.example.com", "retired": []}, (entry(1),)),
        ((), {}, (dict.fromkeys(entry(1)) | {"since": AT},)),
    ],
)
def test_leave(before: tuple[Any, ...], record: Mapping[str, Any] | None, after: tuple[Any, ...]) -> None:
    held = past(*before)
    assert history.leave(held, record, NOW) == past(*after)
    assert held == past(*before), "nothing is changed in place"


@pytest.mark.parametrize(
    ("before", "things", "after"),
    [
        ((entry(1), entry(2)), (), (entry(1), entry(2))),
        ((entry(1), entry(2)), (thing(2),), (entry(1), entry(2, done_at=AT))),
        ((entry(1), entry(2)), (thing(1), thing(2)), (entry(1, done_at=AT), entry(2, done_at=AT))),
        ((entry(1),), (thing(3), {}), (entry(1),)),
        ((entry(1, done_at="2020-01-01T00:00:00Z"),), (thing(1),), (entry(1, done_at="2020-01-01T00:00:00Z"),)),
        ((entry(None),), ({"service": "cloudlocate", "hardware_id": "hw-1"},), (entry(None, done_at=AT),)),
    ],
)
def test_mark_done(before: tuple[Any, ...], things: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    held = past(*before)
    assert history.mark_done(held, things, NOW) == past(*after)
    assert held == past(*before)


def test_a_confirmation_says_of_whom_it_is() -> None:
    record = {**thing(1), "identity_sha256": "1" * 64, "issued_at": policy.timestamp(NOW - DAY)}
    confirmed = history.confirm(past(entry(2)), record, NOW)
    assert confirmed == {**past(entry(2)), "confirmed": {"at": AT, "identity_sha256": "1" * 64}}
    assert history.leave(confirmed, thing(1), NOW)["confirmed"] == confirmed["confirmed"]
    assert history.mark_done(confirmed, [thing(2)], NOW)["confirmed"] == confirmed["confirmed"]
    assert history.told(record, confirmed) == {**record, "retired": [listed(2)], "confirmed_at": AT}
    other = {**record, "identity_sha256": "2" * 64}
    assert history.told(other, confirmed) == {**other, "retired": [listed(2)]}
    assert history.told(None, confirmed) is None


def test_what_is_told_replaces_the_list_of_the_record() -> None:
    record = {**thing(3), "retired": [listed(1), listed(2)]}
    told = history.told(record, past(entry(1, done_at=AT), entry(2), entry(3), entry(4)))
    assert told == {**record, "retired": [listed(2), listed(4)]}
    assert record["retired"] == [listed(1), listed(2)]


# ---- bounds ----


def test_the_oldest_things_are_forgotten_last() -> None:
    """What is done makes room first; what nobody has deactivated goes only when there are too many."""
    held = EMPTY
    for number in range(150):
        held = history.leave(held, thing(number), NOW + timedelta(seconds=number))
    held = history.mark_done(held, [thing(number) for number in range(0, 100, 2)], NOW)
    done = [one["client_id"] for one in held["things"] if one["done_at"]]
    assert done == [f"device:{number}" for number in range(60, 100, 2)]
    assert len(held["things"]) == 100 + history.MAX_DONE
    for number in range(150, 300):
        held = history.leave(held, thing(number), NOW)
    assert len(held["things"]) == history.MAX_THINGS
    assert held["things"][-1]["client_id"] == "device:299"


def test_the_largest_history_can_be_read_back() -> None:
    """The identities as long as the platform and the options allow them."""
    held = EMPTY
    for number in range(300):
        long = thing(number, client_id=f"{number:0128d}", hardware_id="h" * 128, given_name="g" * 50)
        held = history.leave(held, long, NOW)
    assert len(history.encode(held)) < 256 * 1024 / 2

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of a path: what is read of a hostile one, which entries name one Thing, and which Things are retired."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import (
    MAX_DEACTIVATED,
    MAX_TEXT,
    MAX_THINGS,
    Confirmation,
    FormerThing,
    History,
    parse_things,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import (
    ThingId,
    parse_thing_id,
    same_thing,
)
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW
from ansible_collections.thingstream.ztp.tests.unit.test_dates import NOT_DATES

AT = "2026-11-22T12:00:00Z"
LOGIN, OTHER_LOGIN = "1" * 64, "2" * 64


def named(client_id: str | None = None, login_sha256: str | None = None) -> ThingId:
    return ThingId(client_id, login_sha256)


def thing(number: int | None, **changes: Any) -> FormerThing:
    """Return a Thing as it enters the history; without a number, it is unidentified."""
    thing_id = None if number is None else named(f"device:{number}")
    return replace(FormerThing(thing_id, "cloudlocate", "hw-1", "gw1"), **changes)


def past(*things: FormerThing) -> History:
    return History(things)


def entry(number: int | None, **changes: Any) -> dict[str, Any]:
    """Return the entry of a Thing in the file."""
    client_id = f"device:{number}" if number is not None else None
    return {
        "client_id": client_id,
        "login_sha256": None,
        "service": "cloudlocate",
        "hardware_id": "hw-1",
        "given_name": "gw1",
        "since": AT,
        "deactivated_at": None,
        **changes,
    }


def left(number: int | None, **changes: Any) -> FormerThing:
    """Return a Thing that is in the history."""
    return thing(number, **{"since": NOW, **changes})


def parse(**content: Any) -> History:
    found = History.parse(json.dumps(content))
    assert found is not None
    return found


# ---- the identity of a Thing ----


def test_an_identity_has_a_part() -> None:
    """Two unknown Things never count as one."""
    with pytest.raises(ValueError, match="no identity"):
        ThingId()
    assert not same_thing(None, None)
    assert not same_thing(named("a"), None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (named("a"), named("a"), True),
        (named("a"), named("b"), False),
        (named("a", LOGIN), named("b", LOGIN), False),
        (named("a", LOGIN), named("a", OTHER_LOGIN), True),
        (named("a", LOGIN), named(None, LOGIN), True),
        (named("a", LOGIN), named(None, OTHER_LOGIN), False),
        (named("a"), named(None, LOGIN), False),
        (named(None, LOGIN), named(None, LOGIN), True),
        (named(None, LOGIN), named(None, OTHER_LOGIN), False),
    ],
)
def test_the_same_thing(one: ThingId, other: ThingId, same: bool) -> None:
    """The client ID decides where both have one, the login where one of them has none."""
    assert [one.same_as(other), other.same_as(one), same_thing(one, other)] == [same] * 3


@pytest.mark.parametrize(
    ("client_id", "login_sha256", "expected"),
    [
        ("device:1", LOGIN, named("device:1", LOGIN)),
        ("device:1", None, named("device:1")),
        (None, LOGIN, named(None, LOGIN)),
        (None, None, None),
        ("", "", None),
        ("a b", LOGIN, named(None, LOGIN)),
        ("device:1", LOGIN.upper().replace("1", "A"), named("device:1")),
        ("device:1", "1" * 63, named("device:1")),
        (5, ["x"], None),
        (["device:1"], {"a": 1}, None),
    ],
)
def test_an_identity_in_a_file(client_id: object, login_sha256: object, expected: ThingId | None) -> None:
    assert parse_thing_id(client_id, login_sha256) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (thing(1), thing(1, service="pointperfect", hardware_id="hw-2", given_name="gw2"), True),
        (thing(1), thing(2), False),
        (thing(1), thing(None), False),
        (thing(None), thing(None, since=NOW), True),
        (thing(None), thing(None, given_name="gw2"), False),
        (thing(None), thing(None, hardware_id="hw-2"), False),
        (thing(None), thing(None, service="pointperfect"), False),
    ],
)
def test_the_same_former_thing(one: FormerThing, other: FormerThing, same: bool) -> None:
    assert [one.same_thing(other), other.same_thing(one)] == [same, same]


# ---- what is read of a file ----


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", '"text"', "[" * 100_000, "\udcff", "{'things': []}"])
def test_a_text_that_is_no_history(text: str) -> None:
    assert History.parse(text) is None


@pytest.mark.parametrize(
    ("things", "expected"),
    [
        (None, ()),
        (7, ()),
        ("text", ()),
        ({"0": entry(1)}, ()),
        ([None, 7, "text", [], [entry(1)], True], ()),
        ([{}], (FormerThing(None, None, None, None),)),
        ([entry(1)], (left(1),)),
        ([entry(1), "noise", entry(2, deactivated_at=AT)], (left(1), left(2, deactivated_at=NOW))),
        ([{**entry(1), "more": {"deep": [1]}}], (left(1),)),
        ([entry(None)], (left(None),)),
        ([entry(None, login_sha256=LOGIN)], (left(None, thing_id=named(None, LOGIN)),)),
    ],
)
def test_the_things_that_are_read(things: object, expected: tuple[FormerThing, ...]) -> None:
    assert parse(things=things, more=5) == History(expected)
    assert parse_things(things) == expected


def test_a_history_without_things() -> None:
    assert parse() == History()


@pytest.mark.parametrize("name", ["service", "hardware_id", "given_name"])
@pytest.mark.parametrize(
    "value",
    [5, True, [], {"a": "b"}, "a\nb", "\x1b[31m", "\x00", "\u202e", "\u2028", "\udcff", "x" * (MAX_TEXT + 1)],
    ids=lambda value: repr(value)[:12],
)
def test_a_value_that_is_no_plain_text_is_left_out(name: str, value: object) -> None:
    assert parse(things=[entry(1, **{name: value})]) == past(left(1, **{name: None}))


@pytest.mark.parametrize(
    "value",
    [5, True, [], {"a": "b"}, "", "a\nb", "$(id)", "a b", "../a", "{{ 7 * 7 }}", "\uff11", "x" * 129],
    ids=lambda value: repr(value)[:12],
)
def test_an_entry_with_a_wrong_client_id_is_not_read_as_one_without(value: object) -> None:
    """It would name another Thing."""
    assert parse(things=[entry(1, client_id=value), entry(2)]) == past(left(2))


@pytest.mark.parametrize("text", ["", "x" * MAX_TEXT, "Grüße 日本", "{{ lookup('pipe', 'id') }}"])
def test_a_plain_text_stays_as_it_is(text: str) -> None:
    assert parse(things=[entry(1, given_name=text)]) == past(left(1, given_name=text))


@pytest.mark.parametrize("value", NOT_DATES, ids=repr)
def test_a_value_that_is_no_date_is_left_out(value: object) -> None:
    assert parse(things=[entry(1, since=value)]) == past(left(1, since=None))
    assert parse(things=[entry(1, deactivated_at=value)]) == past(left(1))
    assert parse(confirmed={"at": value, "identity_sha256": LOGIN}) == History()


@pytest.mark.parametrize(
    ("confirmed", "expected"),
    [
        ({"at": AT, "identity_sha256": LOGIN}, Confirmation(NOW, LOGIN)),
        ({"at": AT, "identity_sha256": LOGIN, "x": []}, Confirmation(NOW, LOGIN)),
        ({"at": AT, "identity_sha256": None}, None),
        ({"at": AT, "identity_sha256": ["1"]}, None),
        ({"at": AT}, None),
        ({"identity_sha256": LOGIN}, None),
        ({}, None),
        ([], None),
        ("text", None),
        (None, None),
    ],
)
def test_the_confirmation_that_is_read(confirmed: object, expected: Confirmation | None) -> None:
    assert parse(confirmed=confirmed).confirmation == expected


def test_a_huge_list_is_cut_to_its_end_and_read_quickly() -> None:
    begin = time.process_time()
    found = parse(things=[entry(number) for number in range(20_000)])
    assert found == past(*(left(number) for number in range(20_000 - MAX_THINGS, 20_000)))
    assert time.process_time() - begin < 2


def test_a_deep_one_is_no_crash() -> None:
    deep = "[" * 50_000 + "]" * 50_000
    assert History.parse(f'{{"things": {deep}}}') in (None, History())
    assert parse(things=[entry(1, given_name=[[[["x"]]]])]) == past(left(1, given_name=None))


def test_a_history_is_one_line_of_ascii_that_is_read_again() -> None:
    history = replace(
        past(
            left(1, given_name="Grüße 'quoted'"),
            left(2, deactivated_at=NOW, thing_id=named("a", LOGIN)),
            left(None),
            left(3, thing_id=named(None, OTHER_LOGIN), since=None),
        ),
        confirmation=Confirmation(NOW, LOGIN),
    )
    text = history.encode()
    assert text.isascii()
    assert text.isprintable()
    assert History.parse(text) == history
    assert History.parse(History().encode()) == History()


def test_the_entry_of_a_retirement_list() -> None:
    assert left(1, thing_id=named("device:1", LOGIN)).to_dict() == {
        "client_id": "device:1",
        "login_sha256": LOGIN,
        "service": "cloudlocate",
        "hardware_id": "hw-1",
        "given_name": "gw1",
        "since": AT,
    }


# ---- the retirement list ----


@pytest.mark.parametrize(
    ("things", "in_use", "expected"),
    [
        ((), None, []),
        ((), named("device:1"), []),
        ((left(1), left(2)), None, [1, 2]),
        ((left(1), left(2)), named("device:2"), [1]),
        ((left(1), left(2)), named("device:3"), [1, 2]),
        ((left(1, deactivated_at=NOW), left(2)), named("device:3"), [2]),
        ((left(1, deactivated_at=NOW),), named("device:1"), []),
        ((left(None), left(1)), named("device:1"), [None]),
        ((left(None), left(1)), None, [None, 1]),
    ],
)
def test_the_list_has_neither_the_thing_in_use_nor_deactivated_ones(
    things: tuple[FormerThing, ...], in_use: ThingId | None, expected: list[int | None]
) -> None:
    assert past(*things).retired(in_use) == tuple(left(number) for number in expected)


def test_things_without_client_id_are_each_on_the_list() -> None:
    """NTRIP: the login distinguishes them, with or without a hardware ID."""
    things = [left(None, thing_id=named(None, digit * 64), hardware_id=None) for digit in "123"]
    history = past(*things)
    assert history.retired(named(None, "3" * 64)) == tuple(things[:2])
    assert history.deactivate([things[0]], NOW).retired(named(None, "3" * 64)) == (things[1],)


@pytest.mark.parametrize(
    ("things", "thing_id", "expected"),
    [
        ((), named("device:1"), False),
        ((left(1),), named("device:1"), False),
        ((left(1, deactivated_at=NOW),), named("device:1"), True),
        ((left(1, deactivated_at=NOW),), named("device:2"), False),
        ((left(1), left(2, deactivated_at=NOW)), named("device:2"), True),
        ((left(None, deactivated_at=NOW),), named("device:1"), False),
    ],
)
def test_a_deactivated_thing(things: tuple[FormerThing, ...], thing_id: ThingId, expected: bool) -> None:
    assert past(*things).is_deactivated(thing_id) is expected


# ---- leave, note, deactivate, confirm ----


@pytest.mark.parametrize(
    ("before", "leaving", "after"),
    [
        ((), thing(1), (left(1),)),
        ((left(1),), thing(2), (left(1), left(2))),
        ((left(1, since=NOW - DAY), left(2)), thing(1), (left(2), left(1))),
        ((left(1, deactivated_at=NOW - DAY),), thing(1), (left(1),)),
        ((left(None),), thing(None), (left(None),)),
        ((left(None),), thing(None, hardware_id="hw-2"), (left(None), left(None, hardware_id="hw-2"))),
    ],
)
def test_leave(before: tuple[FormerThing, ...], leaving: FormerThing, after: tuple[FormerThing, ...]) -> None:
    assert past(*before).leave(leaving, NOW) == past(*after)


def test_note_adds_what_is_unknown_only() -> None:
    """A Thing that is deactivated stays so, and the date of a known one stays."""
    history = past(left(1, since=NOW - DAY), left(2, deactivated_at=NOW - DAY))
    assert history.note([thing(1), thing(2)], NOW) == history
    assert history.note([thing(3), thing(1), thing(3)], NOW) == past(*history.things, left(3))


@pytest.mark.parametrize(
    ("before", "marked", "after"),
    [
        ((left(1), left(2)), (), (left(1), left(2))),
        ((left(1), left(2)), (thing(2),), (left(1), left(2, deactivated_at=NOW))),
        ((left(1), left(2)), (thing(1), thing(2)), (left(1, deactivated_at=NOW), left(2, deactivated_at=NOW))),
        ((left(1),), (thing(3), thing(None)), (left(1),)),
        ((left(1, deactivated_at=NOW - DAY),), (thing(1),), (left(1, deactivated_at=NOW - DAY),)),
        ((left(None),), (thing(None),), (left(None, deactivated_at=NOW),)),
    ],
)
def test_deactivate(
    before: tuple[FormerThing, ...], marked: tuple[FormerThing, ...], after: tuple[FormerThing, ...]
) -> None:
    assert past(*before).deactivate(marked, NOW) == past(*after)


def test_a_confirmation_survives_other_changes() -> None:
    confirmed = past(left(2)).confirm(LOGIN, NOW)
    assert confirmed == History((left(2),), Confirmation(NOW, LOGIN))
    for changed in (confirmed.leave(thing(1), NOW), confirmed.deactivate([thing(2)], NOW), confirmed.note([], NOW)):
        assert changed.confirmation == confirmed.confirmation
    assert confirmed.confirm(OTHER_LOGIN, NOW + DAY).confirmation == Confirmation(NOW + DAY, OTHER_LOGIN)


# ---- bounds ----


def test_deactivated_things_make_room_first() -> None:
    """A Thing that is still to be deactivated goes only when there are too many."""
    history = History()
    for number in range(150):
        history = history.leave(thing(number), NOW + timedelta(seconds=number))
    history = history.deactivate([thing(number) for number in range(0, 100, 2)], NOW)
    deactivated = [one.thing_id for one in history.things if one.deactivated_at]
    assert deactivated == [named(f"device:{number}") for number in range(60, 100, 2)]
    assert len(history.things) == 100 + MAX_DEACTIVATED
    for number in range(150, 300):
        history = history.leave(thing(number), NOW)
    assert len(history.things) == MAX_THINGS
    assert history.things[-1].thing_id == named("device:299")


def test_the_largest_history_can_be_read_again() -> None:
    """The identities are as long as the platform and the options allow them."""
    history = History()
    for number in range(300):
        long = thing(number, thing_id=named(f"{number:0128d}", LOGIN), hardware_id="h" * 128, given_name="g" * 50)
        history = history.leave(long, NOW)
    assert len(history.encode()) < 256 * 1024 / 2
    assert History.parse(history.encode()) == history

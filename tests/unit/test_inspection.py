# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on a gateway: the findings that a run acts upon, and no invention of a hostile gateway."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import FormerThing, History
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import Attributes
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import inspection
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy, due_dates
from ansible_collections.thingstream.ztp.tests.unit.observations import MODES, PATH, RECORD, bare_gateway, gateway
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW

PLAIN = replace(RECORD, not_before=None, not_after=None, keys_expire_at=None, issued_at=NOW - DAY)
OLD_THING = FormerThing(ThingId("device:0"), "pointperfect", "hw-1", "gw1", NOW - DAY)


def describe(record: Record | None = PLAIN, renewal: RenewalPolicy | None = None, **changes: Any) -> dict[str, Any]:
    """Return the description of a gateway in order; ``changes`` apply to its bundle."""
    return inspection.describe(gateway(record, **changes), NOW, renewal=renewal or RenewalPolicy(), **MODES)


def test_a_gateway_in_order() -> None:
    assert describe() == {
        "path": PATH,
        "present": True,
        "generation": "000002",
        "thing": PLAIN.to_dict(),
        "retired": [],
        "generations": [{"name": "000001", "thing": None}, {"name": "000002", "thing": PLAIN.to_dict()}],
        "damaged": [],
        "drift": [],
        "leftovers": [],
        "due_at": None,
        "not_after_days": None,
        "keys_expire_days": None,
        "age_days": 1.0,
        "warnings": [],
    }


def test_a_gateway_without_credentials() -> None:
    found = inspection.describe(bare_gateway(), NOW, renewal=RenewalPolicy(), **MODES)
    assert (found["present"], found["generation"], found["thing"], found["generations"]) == (False, None, None, [])
    assert (found["damaged"], found["drift"], found["due_at"], found["age_days"]) == ([], [], None, None)


def test_the_list_of_a_gateway_without_credentials() -> None:
    state = bare_gateway()
    bundle = replace(state.bundle, history=History((OLD_THING,)).encode())
    found = inspection.describe(replace(state, bundle=bundle), NOW, renewal=RenewalPolicy(), **MODES)
    assert found["retired"] == [OLD_THING.to_dict()]


def test_damage_drift_and_leftovers() -> None:
    found = describe(
        digests={**PLAIN.files, "client.key": "0" * 64},
        files={**gateway().bundle.files, "credentials.json": Attributes("-rw-r--r--", 0, 0)},
        leftovers=(".staging-dead",),
    )
    assert (found["damaged"], found["drift"], found["leftovers"]) == (
        ["client.key"],
        ["credentials.json"],
        [".staging-dead"],
    )


def test_days_count_up_and_down() -> None:
    found = describe(replace(PLAIN, not_before=NOW, not_after=NOW + 10 * DAY, keys_expire_at=NOW - 2.5 * DAY))
    assert (found["not_after_days"], found["keys_expire_days"], found["age_days"]) == (10.0, -2.5, 1.0)


def test_it_is_due_when_a_run_would_find_it_due() -> None:
    record = replace(PLAIN, not_before=NOW, not_after=NOW + 100 * DAY)
    expected = due_dates(record, History(), RenewalPolicy(), NOW).next
    assert expected is not None
    assert describe(record)["due_at"] == f"{expected:%Y-%m-%dT%H:%M:%SZ}"
    assert NOW + 63 * DAY <= expected <= NOW + 70 * DAY
    aged = RenewalPolicy.parse(max_age=90, renew_spread=0)
    confirmed = History().confirm(PLAIN.identity_sha256, NOW)
    assert describe(renewal=aged)["due_at"] == "2027-02-19T12:00:00Z"
    assert describe(renewal=aged, history=confirmed.encode())["due_at"] == "2027-02-20T12:00:00Z"


def test_capped_settings_and_dates_in_the_future_are_reported() -> None:
    (warning,) = describe(renewal=RenewalPolicy.parse(max_age=3))["warnings"]
    assert "renew_spread is capped" in warning
    (warning,) = describe(replace(PLAIN, issued_at=NOW + 3650 * DAY))["warnings"]
    assert "lies in the future" in warning


def test_a_history_takes_the_place_of_the_list_in_the_record() -> None:
    """The list of an earlier generation is shown as it was."""
    record = replace(PLAIN, retired=(OLD_THING,))
    found = describe(record)
    assert found["retired"] == found["thing"]["retired"] == [OLD_THING.to_dict()]
    deactivated = History((OLD_THING,)).deactivate([OLD_THING], NOW).confirm(PLAIN.identity_sha256, NOW)
    found = describe(record, history=deactivated.encode())
    assert found["retired"] == found["thing"]["retired"] == []
    assert found["thing"]["confirmed_at"] == "2026-11-22T12:00:00Z"
    assert found["generations"][1]["thing"] == record.to_dict()


UNREADABLE: list[dict[str, Any]] = [
    {},
    {"service": "x"},
    {**PLAIN.to_dict(), "files": 5},
    {**PLAIN.to_dict(), "not_after": "soon"},
    {**PLAIN.to_dict(), "issued_at": 1},
    {**PLAIN.to_dict(), "client_id": None},
]


@pytest.mark.parametrize("text", [None, "damaged", *(json.dumps(content) for content in UNREADABLE)])
def test_an_unreadable_record_is_not_shown(text: str | None) -> None:
    """Nor is a list: the Thing in use may be any one on it."""
    history = History((OLD_THING,)).encode()
    found = describe(record=None, generations={"000002": text}, history=history)
    assert (found["thing"], found["damaged"], found["drift"]) == (None, ["thing.json"], [])
    assert (found["present"], found["retired"]) == (True, [])
    assert found["generations"] == [{"name": "000002", "thing": None}]

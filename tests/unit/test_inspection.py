# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a gateway: the same findings as the policy acts upon, and nothing that a hostile one made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import Attributes
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import inspection, policy
from ansible_collections.thingstream.ztp.tests.unit.looks import MODES, PATH, RENEWAL, held
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW

HELD = held()
assert HELD.record
RECORD = HELD.record


def describe(renewal: Mapping[str, Any] = RENEWAL, **changes: Any) -> dict[str, Any]:
    return inspection.describe(replace(HELD, **changes), NOW, renewal=renewal, **MODES)


def test_a_gateway_in_order() -> None:
    assert describe() == {
        "path": PATH,
        "present": True,
        "generation": "000002",
        "thing": RECORD,
        "retired": [],
        "generations": [{"name": "000001", "thing": None}, {"name": "000002", "thing": RECORD}],
        "damaged": [],
        "drift": [],
        "leftovers": [],
        "due_at": None,
        "not_after_days": None,
        "keys_expire_days": None,
        "age_days": 1.0,
    }


def test_an_empty_gateway() -> None:
    empty: dict[str, Any] = {"current": None, "record": None, "digests": {}, "files": {}, "generations": {}}
    found = describe(**empty)
    assert (found["present"], found["thing"], found["damaged"], found["age_days"]) == (False, None, [], None)


def test_damage_drift_and_leftovers() -> None:
    found = describe(
        digests={**HELD.digests, "credentials.env": "0" * 64},
        files={**HELD.files, "credentials.json": Attributes("-rw-r--r--", 0, 0)},
        leftovers=(".staging-dead",),
    )
    assert (found["damaged"], found["drift"], found["leftovers"]) == (
        ["credentials.env"],
        ["credentials.json"],
        [".staging-dead"],
    )


def test_days_count_up_and_down() -> None:
    dates = {"not_after": policy.timestamp(NOW + 10 * DAY), "keys_expire_at": policy.timestamp(NOW - 2.5 * DAY)}
    found = describe(record={**RECORD, **dates})
    assert (found["not_after_days"], found["keys_expire_days"], found["age_days"]) == (10.0, -2.5, 1.0)


def test_it_is_due_when_a_renewal_would_find_it_due() -> None:
    record = {**RECORD, "not_before": policy.timestamp(NOW), "not_after": policy.timestamp(NOW + 100 * DAY)}
    wanted = policy.Wanted(service=record["service"], hardware_id=record["hardware_id"], **RENEWAL)
    due_at = describe(record=record)["due_at"]
    assert due_at == policy.timestamp(policy.renewal_due_at(record, wanted))
    assert policy.timestamp(NOW + 63 * DAY) <= due_at <= policy.timestamp(NOW + 70 * DAY)
    confirmed = {"things": [], "confirmed": {"at": policy.timestamp(NOW), "identity_sha256": RECORD["identity_sha256"]}}
    aged = {"renewal": {**RENEWAL, "max_age_days": 90, "renew_spread_days": 0}}
    assert describe(**aged)["due_at"] == policy.timestamp(NOW + 89 * DAY)
    assert describe(**aged, history=confirmed)["due_at"] == policy.timestamp(NOW + 90 * DAY)


@pytest.mark.parametrize(
    "record",
    [None, {}, {"service": "x"}, {**RECORD, "files": 5}, {**RECORD, "not_after": "soon"}, {**RECORD, "issued_at": 1}],
)
def test_a_record_that_cannot_be_read_is_not_shown(record: Any) -> None:
    found = describe(record=record, generations={"000002": record})
    assert (found["thing"], found["damaged"], found["drift"]) == (None, ["thing.json"], [])
    assert found["generations"] == [{"name": "000002", "thing": None}]

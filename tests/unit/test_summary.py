# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Summaries of runs over a fleet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.action.thingstream_summary import published
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.inventory import registered
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.summary import summary, total


def result(action: str, reason: str = "none", due_at: str | None = None, **more: Any) -> dict[str, Any]:
    return {"action": action, "reason": reason, "due_at": due_at, **more}


def test_every_host_is_counted_once() -> None:
    results = [
        result("none", due_at="2027-03-01T00:00:00Z"),
        result("none", due_at="2027-01-01T00:00:00Z"),
        result("created", "absent", "2027-02-01T00:00:00Z"),
        result("renewed", "expiring"),
        result("refreshed", "keys_expiring"),
        result("unchanged", "keys_expiring"),
        result("repaired", "drift"),
        {"failed": True, "error_code": "no_plan", "msg": "…"},
        {"unreachable": True},
        {},
        None,
    ]
    found = summary(results)
    assert found == {
        "hosts": 11,
        "due": 5,
        "renewed": 3,
        "unchanged": 1,
        "repaired": 1,
        "not_due": 2,
        "failed": 4,
        "reasons": {"absent": 1, "drift": 1, "expiring": 1, "keys_expiring": 2},
        "next_due_at": "2027-01-01T00:00:00Z",
    }
    assert found["hosts"] == found["due"] + found["not_due"] + found["failed"]


@pytest.mark.parametrize("slices", [1, 2, 3, 20])
def test_slices_add_up_to_the_whole(slices: int) -> None:
    actions = ["none", "created", "renewed", "unchanged", "repaired"]
    results = [
        result(actions[number % 5], f"reason-{number % 3}", f"2027-01-{number + 1:02}T00:00:00Z")
        for number in range(12)
    ] + [{"failed": True}, {}]
    parts = [summary(results[number::slices]) for number in range(slices)]
    assert total(parts) == summary(results)


def test_no_host_at_all() -> None:
    assert summary([])["next_due_at"] is None
    assert total([]) == total([summary([])]) == summary([])


def test_an_empty_summary_adds_nothing() -> None:
    """A later job of a workflow empties those of earlier jobs."""
    part = summary([result("created", "absent")])
    assert total([{}, part]) == part


def test_what_a_job_of_awx_publishes() -> None:
    """Under its own name, too; what earlier nodes of the workflow have published is emptied."""
    found = summary([result("created", "absent")])
    variables = {"thingstream_summary": {}, "thingstream_summary_7": {"hosts": 1}, "thingstream_summary_x": 1}
    assert published(found, variables) == {"thingstream_summary": found, "thingstream_summary_7": {}}
    assert published(found, {**variables, "awx_job_id": 8}) == {
        "thingstream_summary": found,
        "thingstream_summary_7": {},
        "thingstream_summary_8": found,
    }
    assert published(found, {"awx_job_id": 7, "thingstream_summary_7": {}})["thingstream_summary_7"] == found


def test_what_a_task_has_registered_is_found_however_ansible_keeps_it() -> None:
    variables = {"one": {"registered": result("none")}, "two": {}}
    store = SimpleNamespace(_nonpersistent_fact_cache={"one": variables["one"]})
    kept = SimpleNamespace(_variable_manager=store, raw_get=None)
    elsewhere = SimpleNamespace(raw_get=variables.get)
    for hostvars in (kept, elsewhere):
        assert registered(hostvars, "one", "registered") == result("none")  # type: ignore[arg-type]
        assert registered(hostvars, "two", "registered") is None  # type: ignore[arg-type]

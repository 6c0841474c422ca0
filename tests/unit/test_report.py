# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums over a fleet."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import report

THING = {
    "client_id": "device:1",
    "hardware_id": "hw-1",
    "service": "cloudlocate",
    "given_name": "gw1",
    "since": "2026-11-22T12:00:00Z",
}


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
    found = report.summary(results)
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
    parts = [report.summary(results[number::slices]) for number in range(slices)]
    assert report.total(parts) == report.summary(results)


def test_no_host_at_all() -> None:
    assert report.summary([])["next_due_at"] is None
    assert report.total([]) == report.total([report.summary([])]) == report.summary([])
    assert report.retirement_list({}) == []


def test_the_longest_retired_comes_first_and_who_could_not_be_asked_is_left_out() -> None:
    older = {**THING, "client_id": None, "since": "2025-01-01T00:00:00Z"}
    bundles = {
        "b": [{"path": "/b", "retired": [THING]}, {"path": "/c", "retired": []}],
        "a": [{"path": "/a", "retired": [THING, older]}],
        "gone": None,
    }
    found = report.retirement_list(bundles)
    assert [(entry["since"][:4], entry["host"], entry["path"]) for entry in found] == [
        ("2025", "a", "/a"),
        ("2026", "a", "/a"),
        ("2026", "b", "/b"),
    ]
    assert all(tuple(entry) == report.RETIRED_COLUMNS for entry in found)


# ---- a list is what its gateway says ----

UNNAMED = {**THING, "client_id": None}


def bundle_of(thing: dict[str, Any] | None = None, *retired: dict[str, Any], path: str = "/p") -> dict[str, Any]:
    return {"path": path, "thing": thing, "retired": list(retired)}


@pytest.mark.parametrize(
    ("entry", "in_use"),
    [
        (THING, THING),
        ({**THING, "client_id": "DEVICE:1"}, THING),
        ({**THING, "client_id": "1"}, THING),
        ({**THING, "client_id": "device:1-"}, THING),
        ({**THING, "service": "pointperfect", "hardware_id": "x", "given_name": "y"}, THING),
        (UNNAMED, UNNAMED),
        (UNNAMED, THING),
        ({**UNNAMED, "service": "pointperfect", "hardware_id": " HW-1"}, THING),
        ({**UNNAMED, "hardware_id": None}, THING),
        ({**UNNAMED, "hardware_id": "", "given_name": "GW1"}, UNNAMED),
    ],
)
def test_what_another_gateway_uses_is_not_retired_but_named(entry: dict[str, Any], in_use: dict[str, Any]) -> None:
    bundles = {"bad": [bundle_of(None, entry)], "good": [bundle_of(), bundle_of(in_use)], "gone": None}
    assert report.retirement_list(bundles) == []
    (found,) = report.retirement_conflicts(bundles)
    assert found == {**entry, "host": "bad", "path": "/p", "used_by": ["good"]}
    # not because of the list, but because it is in use
    del bundles["good"]
    assert len(report.retirement_list(bundles)) == 1
    assert report.retirement_conflicts(bundles) == []


@pytest.mark.parametrize(
    ("entry", "in_use"),
    [
        (THING, {**THING, "client_id": "device:2"}),  # a modem that another gateway has now: another Thing
        (THING, UNNAMED),
        (UNNAMED, {**THING, "hardware_id": "hw-2"}),
        ({**UNNAMED, "hardware_id": None}, {**THING, "given_name": "gw2"}),
        (dict.fromkeys(THING), dict.fromkeys(THING)),
    ],
)
def test_what_nobody_uses_stays_on_the_list(entry: dict[str, Any], in_use: dict[str, Any]) -> None:
    bundles = {"a": [bundle_of(None, entry)], "b": [bundle_of(in_use)]}
    assert len(report.retirement_list(bundles)) == 1
    assert report.retirement_conflicts(bundles) == []


def test_a_gateway_that_uses_a_thing_at_another_path_keeps_it() -> None:
    moved = [bundle_of(None, UNNAMED, path="/old"), bundle_of(UNNAMED, path="/new")]
    assert report.retirement_list({"a": moved}) == []
    assert [entry["used_by"] for entry in report.retirement_conflicts({"a": moved})] == [["a"]]
    # one hardware ID, two services: two Things
    other = [bundle_of(None, UNNAMED), bundle_of({**UNNAMED, "service": "pointperfect"}, path="/other")]
    assert len(report.retirement_list({"a": other})) == 1


def test_a_large_fleet_with_long_lists_is_quick() -> None:
    def thing(number: int) -> dict[str, Any]:
        return {**THING, "client_id": f"device:{number}", "hardware_id": f"hw-{number}"}

    bundles = {
        f"gw-{number}": [bundle_of(thing(number), *map(thing, range(number, number + 20)))] for number in range(2000)
    }
    begin = time.process_time()
    assert len(report.retirement_conflicts(bundles)) == 2000 * 20 - 190
    assert len(report.retirement_list(bundles)) == 190
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("plain", "plain"),
        ("with, comma", "with, comma"),
        ('with "quotes"', 'with "quotes"'),
        (None, ""),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@x", "'@x"),
        ("Grüße", "Grüße"),
    ],
)
def test_a_cell_survives_and_is_no_formula(value: str | None, cell: str) -> None:
    text = report.to_csv([{**THING, "given_name": value}], report.RETIRED_COLUMNS)
    header, row = csv.reader(io.StringIO(text))
    assert tuple(header) == report.RETIRED_COLUMNS
    assert row[3] == cell
    assert text.count("\r\n") == 2

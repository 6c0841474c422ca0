# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums over a fleet."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils import report

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

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The retirement list of a fleet, and the Things on it that are in use."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.csv_table import to_csv
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.retirement import (
    RETIRED_COLUMNS,
    retirement_conflicts,
    retirement_list,
)

THING = {
    "client_id": "device:1",
    "hardware_id": "hw-1",
    "service": "cloudlocate",
    "given_name": "gw1",
    "since": "2026-11-22T12:00:00Z",
}


def test_no_host() -> None:
    assert retirement_list({}) == retirement_conflicts({}) == []


def test_the_longest_retired_comes_first_and_a_host_without_a_result_is_omitted() -> None:
    older = {**THING, "client_id": None, "since": "2025-01-01T00:00:00Z"}
    bundles: dict[str, Any] = {
        "b": [{"path": "/b", "retired": [THING]}, {"path": "/c", "retired": []}],
        "a": [{"path": "/a", "retired": [THING, older]}],
        "gone": None,
    }
    found = retirement_list(bundles)
    assert [(entry["since"][:4], entry["host"], entry["path"]) for entry in found] == [
        ("2025", "a", "/a"),
        ("2026", "a", "/a"),
        ("2026", "b", "/b"),
    ]
    assert all(tuple(entry) == RETIRED_COLUMNS for entry in found)


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
def test_a_thing_in_use_is_a_conflict(entry: dict[str, Any], in_use: dict[str, Any]) -> None:
    bundles = {"bad": [bundle_of(None, entry)], "good": [bundle_of(), bundle_of(in_use)], "gone": None}
    assert retirement_list(bundles) == []
    (found,) = retirement_conflicts(bundles)
    more = {"login_sha256": None, "from_ledger": False}
    assert found == {**entry, "host": "bad", "path": "/p", **more, "used_by": ["good"]}
    # because it is in use, not because of the list
    del bundles["good"]
    assert len(retirement_list(bundles)) == 1
    assert retirement_conflicts(bundles) == []


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
def test_an_unused_thing_stays_on_the_list(entry: dict[str, Any], in_use: dict[str, Any]) -> None:
    bundles = {"a": [bundle_of(None, entry)], "b": [bundle_of(in_use)]}
    assert len(retirement_list(bundles)) == 1
    assert retirement_conflicts(bundles) == []


def test_a_thing_in_use_at_another_path_of_its_gateway() -> None:
    moved = [bundle_of(None, UNNAMED, path="/old"), bundle_of(UNNAMED, path="/new")]
    assert retirement_list({"a": moved}) == []
    assert [entry["used_by"] for entry in retirement_conflicts({"a": moved})] == [["a"]]
    # one hardware ID, two services: two Things
    other = [bundle_of(None, UNNAMED), bundle_of({**UNNAMED, "service": "pointperfect"}, path="/other")]
    assert len(retirement_list({"a": other})) == 1


def test_a_large_fleet_with_long_lists_is_quick() -> None:
    def thing(number: int) -> dict[str, Any]:
        return {**THING, "client_id": f"device:{number}", "hardware_id": f"hw-{number}"}

    bundles = {
        f"gw-{number}": [bundle_of(thing(number), *map(thing, range(number, number + 20)))] for number in range(2000)
    }
    begin = time.process_time()
    assert len(retirement_conflicts(bundles)) == 2000 * 20 - 190
    assert len(retirement_list(bundles)) == 190
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
    text = to_csv([{**THING, "given_name": value}], RETIRED_COLUMNS)
    header, row = csv.reader(io.StringIO(text))
    assert tuple(header) == RETIRED_COLUMNS
    assert row[3] == cell
    assert text.count("\r\n") == 2


def test_lists_and_booleans_in_a_cell() -> None:
    row = {"list": ["one", "two"], "yes": True, "no": False, "number": 5}
    assert to_csv([row], ["list", "yes", "no", "number", "missing"]).splitlines()[1] == "one two,true,false,5,"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Things that only the ledger knows: what became of their gateways, and which of them may still be in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.ledger import (
    Inventory,
    LedgerRow,
    ledger_rows,
    retired_in_ledger,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.retirement import gather
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.things import things_in_use
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.ledger import PENDING, LedgerEntry
from ansible_collections.thingstream.ztp.tests.unit.looks import PATH, ledger_entry
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW

LEFT: dict[str, Any] = {"left_at": NOW - DAY}
LOGIN = {"client_id": None, "login_sha256": "aa", "hardware_id": "hw"}
UNIDENTIFIED = {"client_id": None, "hardware_id": "hw"}


def path(thing: Mapping[str, Any] | None = None, *retired: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return one path of a gateway."""
    found = {"path": PATH, "present": thing is not None, "thing": thing, "retired": list(retired), "generations": []}
    return {**found, **changes}


def record(client_id: str | None = "device:1", **names: Any) -> dict[str, Any]:
    """Return a Thing as a gateway reports it."""
    return {"service": "cloudlocate", "client_id": client_id, **names}


def rows_of(
    entries: Sequence[LedgerEntry],
    bundles: Mapping[str, Sequence[Mapping[str, Any]] | None],
    *,
    others: Sequence[str] = (),
    spool: Sequence[str] = (),
    hardware_ids: Mapping[str, str] | None = None,
) -> list[LedgerRow]:
    inventory = Inventory(frozenset([*bundles, *others]), hardware_ids or {})
    return ledger_rows(entries, bundles, things_in_use(bundles), frozenset(spool), inventory)


ABSENT = [path()]
DAMAGED = [path(present=True)]
WITHOUT_LINK = [path(generations=[{"name": "000001", "thing": None}])]
ELSEWHERE = [path(path="/elsewhere")]
OTHER_THING = [path(record("device:2"))]


@pytest.mark.parametrize(
    ("entry", "bundles", "status"),
    [
        # known to a gateway
        ({}, {"a": [path(record())]}, None),
        ({}, {"a": [path(record("DEVICE:1"))]}, None),
        ({}, {"a": ABSENT, "b": [path(record(), path="/q")]}, None),
        ({}, {"a": [path(None, record())]}, None),
        (LEFT, {"a": [path(record("device:2"), record())]}, None),
        ({}, {"b": [path(None, record())]}, None),
        (LEFT, {"a": [path(record())]}, None),
        (LOGIN, {"a": [path(record(None, login_sha256="aa"))]}, None),
        (UNIDENTIFIED, {"a": [path(record(hardware_id="hw"))]}, None),
        # reported as deactivated
        ({"deactivated_at": NOW}, {"a": ABSENT}, None),
        ({"deactivated_at": NOW, **LEFT}, {}, None),
        # gone
        ({}, {}, "removed"),
        (LEFT, {}, "removed"),
        ({}, {"b": OTHER_THING}, "removed"),
        ({}, {"a": ABSENT}, "missing"),
        ({"delivered_at": None}, {"a": ABSENT}, "missing"),
        ({}, {"a": OTHER_THING}, "missing"),
        ({}, {"a": ABSENT, "b": None}, "missing"),
        (LEFT, {"a": ABSENT}, "left"),
        (LEFT, {"a": OTHER_THING}, "left"),
        (LOGIN, {"a": [path(record(None, login_sha256="bb", hardware_id="hw"))]}, "missing"),
        (LOGIN, {"a": [path(record("device:2", hardware_id="hw"))]}, "missing"),
        (UNIDENTIFIED, {"a": ABSENT}, "missing"),
        # not seen
        ({}, {"a": None}, "unreachable"),
        (LEFT, {"a": None}, "unreachable"),
        ({}, {"a": []}, "unreachable"),
        ({}, {"a": ELSEWHERE}, "unreachable"),
        ({}, {"a": DAMAGED}, "unreachable"),
        (LEFT, {"a": DAMAGED}, "unreachable"),
        ({}, {"a": WITHOUT_LINK}, "unreachable"),
        # the platform has not activated it yet
        ({**UNIDENTIFIED, "response": PENDING}, {"a": ABSENT}, None),
        ({**UNIDENTIFIED, "response": PENDING, **LEFT}, {"a": ABSENT}, "left"),
        ({**UNIDENTIFIED, "response": PENDING}, {}, "removed"),
    ],
)
def test_the_status_of_a_thing(
    entry: dict[str, Any], bundles: Mapping[str, Sequence[Mapping[str, Any]] | None], status: str | None
) -> None:
    found = rows_of([ledger_entry(**{"client_id": "device:1", **entry})], bundles)
    assert [row.status for row in found] == ([status] if status else [])
    assert bool(retired_in_ledger(found)) is (status in ("removed", "missing", "left"))


def test_a_response_in_the_spool_is_not_gone() -> None:
    entry = ledger_entry(delivered_at=None, response="x.response")
    assert rows_of([entry], {"a": ABSENT}, spool=["x.response"]) == []
    assert len(rows_of([entry], {"a": ABSENT}, spool=["y.response"])) == 1


def test_a_host_that_is_not_in_the_audit_is_omitted() -> None:
    assert rows_of([ledger_entry()], {"b": ABSENT}, others=["a"]) == []
    assert len(rows_of([ledger_entry()], {"b": ABSENT})) == 1


@pytest.mark.parametrize(("bundles", "others", "status"), [({"b": None}, [], "unreachable"), ({}, ["b"], None)])
@pytest.mark.parametrize("first", [{"host": "gone"}, {"host": "a"}, {"host": "a", **LEFT}])
def test_a_thing_that_an_unseen_gateway_received_too(
    bundles: dict[str, Any], others: list[str], status: str | None, first: dict[str, Any]
) -> None:
    """The gateway was renamed, or the modem of one gateway was moved to another one."""
    entries = [ledger_entry(**first), ledger_entry(host="b")]
    found = rows_of(entries, {"a": ABSENT, **bundles}, others=others)
    assert {row.status for row in found} == ({status} if status else set())
    # what left use there does not matter
    found = rows_of([ledger_entry(**first), ledger_entry(host="b", **LEFT)], {"a": ABSENT, **bundles}, others=others)
    assert any(row.status in ("removed", "missing", "left") for row in found)


def test_a_renamed_gateway_that_was_not_seen() -> None:
    entry = ledger_entry(host="old-name", hardware_id="hw")
    hardware_ids = {"new-name": "hw"}
    unseen = rows_of([entry], {"new-name": None}, hardware_ids=hardware_ids)
    assert [row.status for row in unseen] == ["unreachable"]
    seen = rows_of([entry], {"new-name": OTHER_THING}, hardware_ids=hardware_ids)
    assert [row.status for row in seen] == ["removed"]
    without = rows_of([ledger_entry(host="old-name", hardware_id=None)], {"new-name": None}, hardware_ids={})
    assert [row.status for row in without] == ["removed"]


def test_the_retirement_list_has_the_things_of_gone_gateways() -> None:
    entries = [
        ledger_entry("device:1", host="gone", **LEFT),
        ledger_entry("device:2", host="gone", delivered_at=None),
        ledger_entry("device:3", host="b"),
        ledger_entry(None, host="gone", login_sha256="aa", hardware_id="hw"),
    ]
    bundles = {"a": [path(None, {**record("device:9"), "since": "2026-01-01T00:00:00Z"})], "b": None}
    rows = rows_of(entries, bundles)
    retired, conflicts = gather(bundles, things_in_use(bundles), retired_in_ledger(rows))
    assert conflicts == []
    assert [(entry.host, entry.thing.client_id, entry.since, entry.from_ledger) for entry in retired] == [
        ("gone", None, None, True),
        ("gone", "device:2", None, True),
        ("a", "device:9", "2026-01-01T00:00:00Z", False),
        ("gone", "device:1", "2026-11-21T12:00:00Z", True),
    ]
    assert retired[0].to_dict()["login_sha256"] == "aa"
    assert retired[0].path == PATH


def test_a_gone_thing_whose_hardware_id_is_in_use_is_a_conflict() -> None:
    """Without a client ID, the user would find the Thing that is in use."""
    entry = ledger_entry(None, host="gone", login_sha256="aa", hardware_id="hw")
    bundles = {"b": [path(record(None, login_sha256="bb", hardware_id="hw"))]}
    retired, conflicts = gather(bundles, things_in_use(bundles), retired_in_ledger(rows_of([entry], bundles)))
    assert retired == []
    assert [(conflict.entry.host, conflict.used_by) for conflict in conflicts] == [("gone", ("b",))]

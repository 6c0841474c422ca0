# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No Thing is forgotten where the record in use cannot be read, or where nothing says which generation is in use."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import inspection
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig, corrupt
from ansible_collections.thingstream.ztp.tests.unit.support import Pair, cloudlocate, spartn

NEXT = cloudlocate(clientId="device:4")

DAMAGE: dict[str, Callable[[Rig], object]] = {
    "corrupt": lambda rig: corrupt(rig.current / "thing.json"),
    "empty": lambda rig: (rig.current / "thing.json").write_bytes(b""),
    "gone": lambda rig: (rig.current / "thing.json").unlink(),
    "no link": lambda rig: rig.current.unlink(),
}


@pytest.fixture(params=DAMAGE)
def damaged(thrice: Rig, request: pytest.FixtureRequest) -> Rig:
    DAMAGE[request.param](thrice)
    return thrice


def test_a_new_thing(damaged: Rig) -> None:
    outcome = damaged.present(NEXT)
    assert outcome.thing is not None
    assert {entry["client_id"] for entry in outcome.thing["retired"]} == {"device:1", "device:2", "device:3"}
    assert sorted(damaged.retired_ids) == ["device:1", "device:2", "device:3"]
    assert damaged.present().action == "none"


def test_removal(damaged: Rig) -> None:
    damaged.absent()
    assert sorted(damaged.retired_ids) == ["device:1", "device:2", "device:3"]


def test_roll_back(damaged: Rig) -> None:
    damaged.roll_back("000002")
    assert sorted(damaged.retired_ids) == ["device:1", "device:3"]


def test_a_deactivated_thing_stays_deactivated(damaged: Rig) -> None:
    past: dict[str, Any] = damaged.history
    past["things"][0]["deactivated_at"] = "2026-11-22T00:00:00Z"
    (damaged.path / "history.json").write_text(json.dumps(past))
    damaged.present(NEXT)
    assert sorted(damaged.retired_ids) == ["device:2", "device:3"]


def forget_ledger(rig: Rig) -> None:
    """Remove the ledger, as of another controller or an earlier version."""
    for file in directory.ledger_directory(rig.spool).iterdir():
        file.unlink()


def spoil_record_and_response(rig: Rig) -> None:
    for name in ("thing.json", "credentials.json"):
        (rig.current / name).write_bytes(b"")


def test_an_unreadable_response_too(thrice: Rig) -> None:
    """Only the ledger names the Thing in use."""
    spoil_record_and_response(thrice)
    assert thrice.present(NEXT).action == "renewed"
    assert sorted(thrice.retired_ids) == ["device:1", "device:2", "device:3"]


def test_an_unreadable_response_without_a_ledger(thrice: Rig) -> None:
    """Nothing names the Thing in use."""
    spoil_record_and_response(thrice)
    forget_ledger(thrice)
    assert thrice.present(NEXT).action == "renewed"
    assert sorted(thrice.retired_ids) == ["device:1", "device:2"]


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_records_and_the_response_are_enough_without_a_ledger(thrice: Rig, kind: str) -> None:
    DAMAGE[kind](thrice)
    forget_ledger(thrice)
    thrice.present(NEXT)
    assert sorted(thrice.retired_ids) == ["device:1", "device:2", "device:3"]


def test_an_incomplete_record_is_unreadable(thrice: Rig) -> None:
    """Its Thing is known from the response that is installed beside it."""
    (thrice.current / "thing.json").write_text('{"client_id": "device:3", "given_name": "\\u001b[2J"}')
    forget_ledger(thrice)
    thrice.present(NEXT)
    assert [(entry["client_id"], entry["given_name"]) for entry in thrice.retired][-1] == ("device:3", None)


def test_the_same_thing_again_is_in_use(rig: Rig, ec_pair: Pair) -> None:
    rig.present(spartn(ec_pair))
    corrupt(rig.current / "thing.json")
    rig.present(spartn(ec_pair))
    assert rig.retired_ids == []


@pytest.mark.parametrize("kind", ["corrupt", "empty", "gone"])
def test_the_thing_in_use_is_on_no_list(thrice: Rig, kind: str) -> None:
    """After a rollback the history names it, and only the record says that it is in use."""
    thrice.roll_back()
    DAMAGE[kind](thrice)
    (state,) = commands.look_at_generations(thrice.execute, [str(thrice.path)])
    described = inspection.describe(state, thrice.now, renewal=RenewalPolicy(), directory_mode=0o750, secret_mode=0o640)
    assert (described["thing"], described["retired"]) == (None, [])
    assert thrice.retire({"client_id": "device:2"}).action == "none"
    assert all(entry["deactivated_at"] is None for entry in thrice.history["things"])

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the record in use cannot be read, or nothing says which generation is in use: no Thing is forgotten by that."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import inspection
from ansible_collections.thingstream.ztp.tests.unit.looks import MODES, RENEWAL
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


def test_what_is_deactivated_stays_so(damaged: Rig) -> None:
    past: dict[str, Any] = damaged.history
    past["things"][0]["done_at"] = "2026-11-22T00:00:00Z"
    (damaged.path / "history.json").write_text(json.dumps(past))
    damaged.present(NEXT)
    assert sorted(damaged.retired_ids) == ["device:2", "device:3"]


def test_an_answer_that_cannot_be_read_either(thrice: Rig) -> None:
    """Nobody knows then which Thing it was, and the gateway gets another one."""
    for name in ("thing.json", "credentials.json"):
        (thrice.current / name).write_bytes(b"")
    assert thrice.present(NEXT).action == "renewed"
    assert sorted(thrice.retired_ids) == ["device:1", "device:2"]


def test_a_record_that_lacks_something_names_its_thing(thrice: Rig) -> None:
    (thrice.current / "credentials.json").unlink()
    (thrice.current / "thing.json").write_text('{"client_id": "device:3", "given_name": "\\u001b[2J"}')
    thrice.present(NEXT)
    assert [(entry["client_id"], entry["given_name"]) for entry in thrice.retired][-1] == ("device:3", None)


def test_the_same_thing_again_is_in_use(rig: Rig, ec_pair: Pair) -> None:
    rig.present(spartn(ec_pair))
    corrupt(rig.current / "thing.json")
    rig.present(spartn(ec_pair))
    assert rig.retired_ids == []


@pytest.mark.parametrize("kind", ["corrupt", "empty", "gone"])
def test_the_thing_in_use_is_on_no_list(thrice: Rig, kind: str) -> None:
    """After a roll back the history names it, and only the record says that it is in use."""
    thrice.roll_back()
    DAMAGE[kind](thrice)
    (held,) = gateway.survey(thrice.execute, [str(thrice.path)])
    assert inspection.describe(held, thrice.now, renewal=RENEWAL, **MODES)["retired"] == []
    assert thrice.retire({"client_id": "device:2"}).action == "none"
    assert all(entry["done_at"] is None for entry in thrice.history["things"])

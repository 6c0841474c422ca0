# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Things are marked as deactivated if they are on the retirement list, once, and never the one in use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import MAX_THINGS, History, parse_things
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import retirement
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import ledger
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, cloudlocate, rtcm, tree


def named(*numbers: int) -> list[dict[str, str]]:
    return [{"client_id": f"device:{number}"} for number in numbers]


@pytest.mark.parametrize(
    ("things", "left"),
    [
        (named(1), ["device:2"]),
        (named(2), ["device:1"]),
        (named(1, 2), []),
        (named(2, 2, 9), ["device:1"]),
        (named(1, 3), ["device:2"]),
    ],
)
def test_a_marked_thing_leaves_the_list(thrice: Rig, things: list[dict[str, str]], left: list[str]) -> None:
    generation = tree(thrice.current.resolve())
    outcome = thrice.retire(*things)
    assert thrice.commands == ["exec sh -s"] * 2, "a look and the history"
    assert (outcome.action, outcome.reason, outcome.changed) == ("retired", "retired", True)
    assert (outcome.generation, outcome.before is not None) == ("000003", True)
    assert outcome.thing is not None
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == left == thrice.retired_ids
    assert tree(thrice.current.resolve()) == generation
    thrice.assert_in_order()
    assert thrice.present().action == "none"
    assert thrice.retired_ids == left


@pytest.mark.parametrize("things", [named(1), named(1, 2)])
def test_marking_again_changes_nothing(thrice: Rig, things: list[dict[str, str]]) -> None:
    thrice.retire(*things)
    before, retired = tree(thrice.root), thrice.retired
    outcome = thrice.retire(*things)
    assert (outcome.action, outcome.reason, outcome.changed, outcome.generation) == ("none", "none", False, "000003")
    assert outcome.thing is not None
    assert outcome.thing["retired"] == retired
    assert tree(thrice.root) == before


def test_a_whole_entry_of_the_list_can_be_given_back(thrice: Rig) -> None:
    assert thrice.retire(*thrice.retired).action == "retired"
    assert thrice.retired == []


@pytest.mark.parametrize(
    "things",
    [
        [],
        named(3),
        named(4),
        [{}],
        [{"client_id": None, "service": "cloudlocate", "hardware_id": "hw-1"}],
        [{"client_id": "", "given_name": "gw1"}],
        [{"client_id": ["device:1"]}],
        [{"hardware_id": "hw-1"}],
    ],
)
def test_the_thing_in_use_and_unknown_ones_are_never_marked(thrice: Rig, things: list[dict[str, Any]]) -> None:
    before = tree(thrice.root)
    assert thrice.retire(*things).action == "none"
    assert tree(thrice.root) == before


def test_the_thing_in_use_is_not_marked_although_the_history_names_it(thrice: Rig) -> None:
    """A rollback has put it in use again."""
    thrice.roll_back()
    assert thrice.retire(*named(2)).action == "none"
    assert thrice.retire(*named(2, 3)).action == "retired"
    assert [(entry["client_id"], bool(entry["deactivated_at"])) for entry in thrice.history["things"]] == [
        ("device:1", False),
        ("device:2", False),
        ("device:3", True),
    ]


def test_things_without_client_id_and_hardware_id_are_told_apart_by_their_login(rig: Rig) -> None:
    rig.hardware_id = None
    logins = []
    for number in range(3):
        rig.now = NOW + number * DAY
        rig.present(rtcm(userName=f"user{number}"), force=number > 0)
        logins.append(rig.record["login_sha256"])
    assert [(entry["client_id"], entry["login_sha256"]) for entry in rig.retired] == [
        (None, login) for login in logins[:2]
    ]
    for unknown in ({}, {"login_sha256": logins[2]}, {"service": "pointperfect", "given_name": "gw1"}):
        assert rig.retire(unknown).action == "none"
    assert rig.retire({"client_id": None, "login_sha256": logins[0]}).action == "retired"
    assert [entry["login_sha256"] for entry in rig.retired] == logins[1:2]


def test_an_unidentified_thing_is_marked_by_everything_that_is_known_of_it(thrice: Rig) -> None:
    """A history of an earlier version names it without client ID and login."""
    thing = {"service": "pointperfect", "hardware_id": "hw-1", "given_name": "gw1"}
    (thrice.path / "history.json").write_text(json.dumps({"things": [thing, {**thing, "hardware_id": "hw-2"}]}))
    assert thrice.retire({"hardware_id": "hw-1"}).action == "none"
    assert thrice.retire({**thing, "client_id": None}).action == "retired"
    assert [entry["hardware_id"] for entry in thrice.retired] == ["hw-2"]


def test_the_list_survives_absent(thrice: Rig) -> None:
    thrice.absent()
    assert thrice.retired_ids == ["device:1", "device:2", "device:3"]
    outcome = thrice.retire(*named(1, 3))
    assert (outcome.action, outcome.thing, outcome.generation, outcome.files) == ("retired", None, None, ())
    assert thrice.retired_ids == ["device:2"]
    assert thrice.retire(*named(1, 3)).action == "none"
    assert [entry.name for entry in thrice.path.iterdir()] == ["history.json"]


def test_a_bare_gateway(rig: Rig) -> None:
    outcome = rig.retire(*named(1))
    assert (outcome.action, outcome.thing, outcome.generation) == ("none", None, None)
    assert not rig.path.exists()


def test_check_mode_changes_nothing(thrice: Rig) -> None:
    before = tree(thrice.root)
    predicted = thrice.retire(*named(1), check_mode=True)
    assert tree(thrice.root) == before
    assert thrice.commands == ["exec sh -s"]
    assert predicted == thrice.retire(*named(1))


def test_a_list_that_only_the_record_has_moves_to_the_history(thrice: Rig) -> None:
    (thrice.path / "history.json").unlink()
    thrice.retire(*named(1))
    assert thrice.retired_ids == ["device:2"]
    assert thrice.record["retired"] != thrice.retired, "a generation never changes"


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"[" * 10_000, b'{"things": 5}', b'{"things": [5, null, []]}', b"\xff\xfe", b"a\nb\n"],
)
def test_a_hostile_history_is_no_crash(thrice: Rig, content: bytes) -> None:
    (thrice.path / "history.json").write_bytes(content)
    thrice.retire(*named(1))
    assert thrice.present().action == "none"
    assert thrice.present(cloudlocate(clientId="device:4"), force=True).action == "renewed"
    assert thrice.retired_ids[-1] == "device:3"
    thrice.assert_in_order()


def in_the_way(rig: Rig) -> None:
    (rig.path / "history.json").unlink()
    (rig.path / "history.json").mkdir()
    (rig.path / "history.json" / "x").write_text("not empty")


def follow_me(rig: Rig) -> None:
    rig.path.rename(rig.path.with_name("elsewhere"))
    rig.path.symlink_to("elsewhere")


@pytest.mark.parametrize(("prepare", "code"), [(in_the_way, "permission"), (follow_me, "none")])
def test_a_history_that_cannot_be_written(thrice: Rig, prepare: Callable[[Rig], object], code: str) -> None:
    prepare(thrice)
    before = tree(thrice.root)
    try:
        assert thrice.retire(*named(1)).action == code
    except ProvisioningError as error:
        assert error.code == code  # noqa: PT017  # where the list is still known, the writing fails
    assert {name: entry[4] for name, entry in tree(thrice.root).items()} == {
        name: entry[4] for name, entry in before.items()
    }


@pytest.mark.parametrize(("number", "is_full"), [(MAX_THINGS - 1, False), (MAX_THINGS, True)])
def test_a_full_list_warns_before_a_thing_is_forgotten(thrice: Rig, number: int, is_full: bool) -> None:
    past = History(parse_things(named(*range(10, 10 + number))))
    (thrice.path / "history.json").write_text(past.encode())
    outcome = thrice.present()
    assert outcome.thing is not None
    assert len(outcome.thing["retired"]) == number
    assert [str(thrice.path) in warning for warning in outcome.warnings] == [True] * is_full


# ---- the ledger ----


def things_of_ledger(rig: Rig) -> list[tuple[str | None, bool, bool]]:
    return [
        (entry["client_id"], bool(entry["left_at"]), bool(entry["deactivated_at"]))
        for entry in sorted(rig.ledger, key=lambda entry: entry["client_id"] or "")
    ]


def test_things_of_the_ledger_are_marked(thrice: Rig) -> None:
    """For gateways that cannot be reached any more: host and path, which the ledger has, say which."""
    known = ledger.survey(str(thrice.spool))
    chosen = [entry for entry in known if entry.client_id in ("device:1", "device:2")]
    before = tree(thrice.root)
    predicted = retirement.retire_in_ledger(str(thrice.spool), chosen, thrice.runtime(), check_mode=True)
    assert tree(thrice.root) == before
    marked = retirement.retire_in_ledger(str(thrice.spool), chosen, thrice.runtime())
    assert marked == predicted == chosen
    assert things_of_ledger(thrice) == [("device:1", True, True), ("device:2", True, True), ("device:3", False, False)]
    after = tree(thrice.root)
    assert retirement.retire_in_ledger(str(thrice.spool), chosen, thrice.runtime()) == []
    assert tree(thrice.root) == after


def test_things_of_a_wiped_gateway_that_are_marked_do_not_return_to_its_list(thrice: Rig) -> None:
    shutil.rmtree(thrice.path)
    known = ledger.survey(str(thrice.spool))
    marked = [entry for entry in known if entry.client_id == "device:2"]
    retirement.retire_in_ledger(str(thrice.spool), marked, thrice.runtime())
    thrice.present(cloudlocate(clientId="device:4"))
    assert thrice.retired_ids == ["device:1", "device:3"]


def test_things_that_the_ledger_does_not_know_are_not_marked(thrice: Rig) -> None:
    (known, *_others) = ledger.survey(str(thrice.spool))
    unknown = [
        replace(known, hardware_id="hw-2"),
        replace(known, hardware_id=None),
        replace(known, service="pointperfect"),
        replace(known, thing_id=ThingId("device:9")),
    ]
    before = tree(thrice.root)
    assert retirement.retire_in_ledger(str(thrice.spool), unknown, thrice.runtime()) == []
    assert tree(thrice.root) == before

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marking Things as deactivated on a directory of this machine: those on the list, once, and never the one in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import result_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import history
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from ansible_collections.thingstream.ztp.tests.unit.support import cloudlocate, rtcm, tree


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
def test_what_is_marked_leaves_the_list(thrice: Rig, things: list[dict[str, str]], left: list[str]) -> None:
    generation = tree(thrice.current.resolve())
    outcome = thrice.retire(*things)
    assert thrice.commands == ["sh -s"] * 2, "one to look, one to write"
    assert (outcome.action, outcome.reason, outcome.changed) == ("retired", "retired", True)
    assert (outcome.generation, outcome.before is not None) == ("000003", True)
    assert outcome.thing is not None
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == left == thrice.retired_ids
    assert tree(thrice.current.resolve()) == generation
    thrice.assert_in_order()
    assert thrice.present().action == "none"
    assert thrice.retired_ids == left


@pytest.mark.parametrize("things", [named(1), named(1, 2)])
def test_marking_again_is_nothing(thrice: Rig, things: list[dict[str, str]]) -> None:
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


def test_the_thing_in_use_is_not_marked_although_the_history_knows_it(thrice: Rig) -> None:
    """A roll back has put it in use again."""
    thrice.roll_back()
    assert thrice.retire(*named(2)).action == "none"
    assert thrice.retire(*named(2, 3)).action == "retired"
    assert [(entry["client_id"], bool(entry["done_at"])) for entry in thrice.history["things"]] == [
        ("device:1", False),
        ("device:2", False),
        ("device:3", True),
    ]


def test_a_thing_without_a_client_id_is_known_by_what_it_was_asked_with(rig: Rig) -> None:
    rig.present(rtcm(), hardware_id="hw-1")
    rig.present(rtcm(userName="another"), hardware_id="hw-2")
    assert [entry["hardware_id"] for entry in rig.retired] == ["hw-1"]
    thing = {"client_id": None, "service": "pointperfect", "hardware_id": "hw-2"}
    assert rig.retire(thing).action == "none", "that one is in use"
    assert rig.retire({**thing, "hardware_id": "hw-1"}).action == "retired"
    assert rig.retired == []


def test_the_list_outlives_what_was_installed(thrice: Rig) -> None:
    thrice.absent()
    assert thrice.retired_ids == ["device:1", "device:2", "device:3"]
    outcome = thrice.retire(*named(1, 3))
    assert (outcome.action, outcome.thing, outcome.generation, outcome.files) == ("retired", None, None, ())
    assert thrice.retired_ids == ["device:2"]
    assert thrice.retire(*named(1, 3)).action == "none"
    assert [entry.name for entry in thrice.path.iterdir()] == ["history.json"]


def test_a_gateway_that_holds_nothing(rig: Rig) -> None:
    outcome = rig.retire(*named(1))
    assert (outcome.action, outcome.thing, outcome.generation) == ("none", None, None)
    assert not rig.path.exists()


def test_check_mode_changes_nothing(thrice: Rig) -> None:
    before = tree(thrice.root)
    predicted = thrice.retire(*named(1), check_mode=True)
    assert tree(thrice.root) == before
    assert thrice.commands == ["sh -s"]
    assert predicted == thrice.retire(*named(1))


def test_a_list_that_only_the_record_has_is_written_down(thrice: Rig) -> None:
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


@pytest.mark.parametrize(("number", "is_full"), [(history.MAX_THINGS - 1, False), (history.MAX_THINGS, True)])
def test_a_full_list_warns_before_a_thing_is_forgotten(thrice: Rig, number: int, is_full: bool) -> None:
    past = history.readable({"things": named(*range(10, 10 + number))}, None)
    (thrice.path / "history.json").write_text(history.encode(past))
    outcome = thrice.present()
    assert outcome.thing is not None
    assert len(outcome.thing["retired"]) == number
    warnings = result_of(outcome, thrice.target(), with_diff=False).get("warnings", [])
    assert [str(thrice.path) in warning for warning in warnings] == [True] * is_full

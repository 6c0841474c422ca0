# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marking Things as deactivated on a directory of this machine: those on the list, once, and never the one in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from unit.rig import Rig
from unit.support import DAY, NOW, cloudlocate, rtcm, tree


@pytest.fixture
def renewed(rig: Rig) -> Rig:
    """A gateway that uses the third of three Things."""
    rig.service = "cloudlocate"
    for number in (1, 2, 3):
        rig.now = NOW + number * DAY
        rig.present(cloudlocate(clientId=f"device:{number}"), force=number > 1)
    rig.now = NOW + 10 * DAY
    return rig


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
def test_what_is_marked_leaves_the_list(renewed: Rig, things: list[dict[str, str]], left: list[str]) -> None:
    generation = tree(renewed.current.resolve())
    outcome = renewed.retire(*things)
    assert renewed.commands == ["sh -s"] * 2, "one to look, one to write"
    assert (outcome.action, outcome.reason, outcome.changed) == ("retired", "retired", True)
    assert (outcome.generation, outcome.before is not None) == ("000003", True)
    assert outcome.thing is not None
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == left == renewed.retired_ids
    assert tree(renewed.current.resolve()) == generation
    renewed.assert_in_order()
    assert renewed.present().action == "none"
    assert renewed.retired_ids == left


@pytest.mark.parametrize("things", [named(1), named(1, 2)])
def test_marking_again_is_nothing(renewed: Rig, things: list[dict[str, str]]) -> None:
    renewed.retire(*things)
    before, retired = tree(renewed.root), renewed.retired
    outcome = renewed.retire(*things)
    assert (outcome.action, outcome.reason, outcome.changed, outcome.generation) == ("none", "none", False, "000003")
    assert outcome.thing is not None
    assert outcome.thing["retired"] == retired
    assert tree(renewed.root) == before


def test_a_whole_entry_of_the_list_can_be_given_back(renewed: Rig) -> None:
    assert renewed.retire(*renewed.retired).action == "retired"
    assert renewed.retired == []


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
def test_the_thing_in_use_and_unknown_ones_are_never_marked(renewed: Rig, things: list[dict[str, Any]]) -> None:
    before = tree(renewed.root)
    assert renewed.retire(*things).action == "none"
    assert tree(renewed.root) == before


def test_the_thing_in_use_is_not_marked_although_the_history_knows_it(renewed: Rig) -> None:
    """A roll back has put it in use again."""
    renewed.roll_back()
    assert renewed.retire(*named(2)).action == "none"
    assert renewed.retire(*named(2, 3)).action == "retired"
    assert [(entry["client_id"], bool(entry["done_at"])) for entry in renewed.history["things"]] == [
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


def test_the_list_outlives_what_was_installed(renewed: Rig) -> None:
    renewed.absent()
    assert renewed.retired_ids == ["device:1", "device:2", "device:3"]
    outcome = renewed.retire(*named(1, 3))
    assert (outcome.action, outcome.thing, outcome.generation, outcome.files) == ("retired", None, None, ())
    assert renewed.retired_ids == ["device:2"]
    assert renewed.retire(*named(1, 3)).action == "none"
    assert [entry.name for entry in renewed.path.iterdir()] == ["history.json"]


def test_a_gateway_that_holds_nothing(rig: Rig) -> None:
    outcome = rig.retire(*named(1))
    assert (outcome.action, outcome.thing, outcome.generation) == ("none", None, None)
    assert not rig.path.exists()


def test_check_mode_changes_nothing(renewed: Rig) -> None:
    before = tree(renewed.root)
    predicted = renewed.retire(*named(1), check_mode=True)
    assert tree(renewed.root) == before
    assert renewed.commands == ["sh -s"]
    assert predicted == renewed.retire(*named(1))


def test_a_list_that_only_the_record_has_is_written_down(renewed: Rig) -> None:
    (renewed.path / "history.json").unlink()
    renewed.retire(*named(1))
    assert renewed.retired_ids == ["device:2"]
    assert renewed.record["retired"] != renewed.retired, "a generation never changes"


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"[" * 10_000, b'{"things": 5}', b'{"things": [5, null, []]}', b"\xff\xfe", b"a\nb\n"],
)
def test_a_hostile_history_is_no_crash(renewed: Rig, content: bytes) -> None:
    (renewed.path / "history.json").write_bytes(content)
    renewed.retire(*named(1))
    assert renewed.present().action == "none"
    assert renewed.present(cloudlocate(clientId="device:4"), force=True).action == "renewed"
    assert renewed.retired_ids[-1] == "device:3"
    renewed.assert_in_order()


def in_the_way(rig: Rig) -> None:
    (rig.path / "history.json").unlink()
    (rig.path / "history.json").mkdir()
    (rig.path / "history.json" / "x").write_text("not empty")


def follow_me(rig: Rig) -> None:
    rig.path.rename(rig.path.with_name("elsewhere"))
    rig.path.symlink_to("elsewhere")


@pytest.mark.parametrize(("prepare", "code"), [(in_the_way, "permission"), (follow_me, "none")])
def test_a_history_that_cannot_be_written(renewed: Rig, prepare: Callable[[Rig], object], code: str) -> None:
    prepare(renewed)
    before = tree(renewed.root)
    try:
        assert renewed.retire(*named(1)).action == code
    except ProvisioningError as error:
        assert error.code == code  # noqa: PT017  # where the list is still known, the writing fails
    assert {name: entry[4] for name, entry in tree(renewed.root).items()} == {
        name: entry[4] for name, entry in before.items()
    }

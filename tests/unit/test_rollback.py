# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollbacks on a directory of this machine: to which generation, with which history, and when they are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import Hooks
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig, corrupt, newer_keys
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    NOW,
    Pair,
    assert_no_secret,
    cloudlocate,
    make_pair,
    spartn,
    tree,
)


def refused(rig: Rig, generation: str | None = None, **options: Any) -> str:
    """Return the message of a rollback that is refused, and that changes nothing."""
    before = tree(rig.root)
    for check_mode in (True, False):
        with pytest.raises(ProvisioningError) as caught:
            rig.roll_back(generation, check_mode=check_mode, **options)
        assert caught.value.code == "no_generation"
        assert_no_secret(caught.value)
    assert tree(rig.root) == before
    return caught.value.message


# ---- to which ----


@pytest.mark.parametrize(
    ("generation", "chosen", "retired"),
    [
        (None, "000002", ["device:1", "device:3"]),
        ("000002", "000002", ["device:1", "device:3"]),
        ("000001", "000001", ["device:2", "device:3"]),
    ],
)
def test_a_rollback(thrice: Rig, generation: str | None, chosen: str, retired: list[str]) -> None:
    before = thrice.record
    outcome = thrice.roll_back(generation)
    assert (outcome.action, outcome.reason, outcome.changed) == ("rolled_back", "rolled_back", True)
    assert (outcome.generation, thrice.current.readlink().name) == (chosen, chosen)
    assert outcome.before is not None
    assert outcome.before["client_id"] == before["client_id"]
    assert outcome.thing is not None
    assert outcome.thing["client_id"] == f"device:{chosen[-1]}" == thrice.record["client_id"]
    assert thrice.commands == ["exec sh -s"] * 2, "a look and a switch"
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == retired == thrice.retired_ids
    assert {Path(file["path"]).name for file in outcome.files} == {entry.name for entry in thrice.current.iterdir()}
    assert thrice.generations == ["000001", "000002", "000003"]
    thrice.assert_in_order(".newest")
    assert thrice.present().action == "none", "it stays in use"


@pytest.mark.parametrize("generation", [None, "000001"])
def test_a_second_run_finds_nothing_to_do(thrice: Rig, generation: str | None) -> None:
    thrice.roll_back(generation)
    before, in_use = tree(thrice.root), thrice.record["client_id"]
    outcome = thrice.roll_back(generation)
    assert (outcome.action, outcome.reason, outcome.changed) == ("none", "none", False)
    assert outcome.thing is not None
    assert outcome.thing["client_id"] == in_use
    assert thrice.commands == ["exec sh -s"]
    assert tree(thrice.root) == before


def test_a_second_run_finishes_what_a_crashed_one_began(thrice: Rig) -> None:
    """A run that crashed after its switch has not reloaded the consumers."""
    thrice.roll_back("000001")
    (thrice.path / ".health-check").symlink_to("000003")
    reloaded = thrice.root / "reloaded"
    hooks = Hooks(reload_command=f"touch {reloaded}")
    assert thrice.roll_back("000001", hooks=hooks, check_mode=True).action == "repaired"
    assert not reloaded.exists()
    outcome = thrice.roll_back("000001", hooks=hooks)
    assert (outcome.action, outcome.reason, outcome.generation) == ("repaired", "drift", "000001")
    assert reloaded.exists()
    thrice.assert_in_order(".newest")
    assert thrice.roll_back("000001", hooks=hooks).action == "none"


def test_forward_and_back_again(thrice: Rig) -> None:
    """Each time the Thing that is left is on the list from then on, and the one in use never is."""
    steps = ((None, 2, [1, 3]), ("000003", 3, [1, 2]), (None, 2, [1, 3]), ("000001", 1, [3, 2]))
    for number, (generation, in_use, retired) in enumerate(steps):
        thrice.now = NOW + (20 + number) * DAY
        outcome = thrice.roll_back(generation)
        assert (outcome.action, outcome.generation) == ("rolled_back", f"00000{in_use}")
        assert thrice.retired_ids == [f"device:{one}" for one in retired]
        assert thrice.retired[-1]["since"] == f"2026-12-{12 + number}T12:00:00Z"
        thrice.assert_in_order(".newest")


def test_a_renewal_after_a_rollback_gets_the_next_number(thrice: Rig) -> None:
    thrice.roll_back("000001")
    outcome = thrice.present(cloudlocate(clientId="device:4"), force=True)
    assert (outcome.action, outcome.generation) == ("renewed", "000004")
    assert thrice.retired_ids == ["device:2", "device:3", "device:1"]
    thrice.assert_in_order()


def test_a_rollback_between_two_generations_of_one_thing_retires_no_thing(installed: Rig, ec_pair: Pair) -> None:
    installed.now = NOW + DAY
    assert installed.present(newer_keys(ec_pair), force=True).action == "refreshed"
    assert installed.roll_back().generation == "000001"
    assert installed.retired == []
    assert installed.roll_back("000002").generation == "000002"
    assert installed.retired == []
    installed.assert_in_order(".newest")


def test_files_get_their_owner_and_modes_again(thrice: Rig) -> None:
    for file in (thrice.path / "generations" / "000002").iterdir():
        file.chmod(0o666)
    thrice.roll_back()
    thrice.assert_in_order(".newest")


def test_a_rollback_without_a_history_takes_the_list_of_the_record(thrice: Rig) -> None:
    (thrice.path / "history.json").unlink()
    outcome = thrice.roll_back()
    assert outcome.thing is not None
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == ["device:1", "device:3"]
    assert thrice.retired_ids == ["device:1", "device:3"]


# ---- refused ----


def remove_others(rig: Rig) -> None:
    rig.present(cloudlocate(clientId="device:4"), force=True, keep=0)


def spoil(name: str) -> Callable[[Rig], None]:
    return lambda rig: corrupt(rig.path / "generations" / "000002" / name)


def edit(**changes: Any) -> Callable[[Rig], None]:
    def rewrite(rig: Rig) -> None:
        file = rig.path / "generations" / "000002" / "thing.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return rewrite


@pytest.mark.parametrize(
    ("prepare", "generation", "words"),
    [
        (remove_others, None, "no earlier generation"),
        (remove_others, "000002", "no generation 000002"),
        (lambda rig: None, "000009", "no generation 000009 at {path}, only: 000001, 000002, 000003."),
        (lambda rig: None, "", "no generation "),
        (lambda rig: None, "2", "no generation 2"),
        (lambda rig: None, "../../000002", "no generation ../../000002"),
        (lambda rig: rig.absent(), None, "no earlier generation"),
        (lambda rig: rig.absent(), "000002", "only: none."),
        (lambda rig: rig.current.unlink(), None, "no earlier generation"),
        (spoil("thing.json"), None, "no record that can be read"),
        (spoil("thing.json"), "000002", "no record that can be read"),
        (edit(files={"../../../etc/passwd": "d" * 64}), None, "no record that can be read"),
        (edit(not_after="never"), None, "no record that can be read"),
    ],
)
def test_what_is_refused_after_the_first_look(
    thrice: Rig, prepare: Callable[[Rig], object], generation: str | None, words: str
) -> None:
    prepare(thrice)
    for force in (False, True):
        assert words.format(path=thrice.path) in refused(thrice, generation, force=force)


def test_nothing_installed_at_all(rig: Rig) -> None:
    assert "no earlier generation" in refused(rig)
    assert "only: none." in refused(rig, "000001")
    assert not rig.path.exists()


@pytest.mark.parametrize("name", ["credentials.json", "credentials.env", "ca.crt"])
def test_the_gateway_finds_a_damaged_generation(thrice: Rig, name: str) -> None:
    spoil(name)(thrice)
    before = thrice.history
    with pytest.raises(ProvisioningError) as caught:
        thrice.roll_back()
    assert (caught.value.code, "damaged" in caught.value.message) == ("no_generation", True)
    assert thrice.current.readlink().name == "000003"
    assert thrice.history == before
    thrice.assert_in_order()


def test_a_certificate_that_has_expired(rig: Rig, ec_pair: Pair, other_pair: Pair) -> None:
    short = make_pair(ec_pair.key, not_after=NOW + 5 * DAY)
    rig.present(spartn(short))
    rig.now = NOW + 4 * DAY
    rig.present(spartn(make_pair(other_pair.key), clientId="device:2"))
    rig.now = NOW + 5 * DAY
    assert "expired on 2026-11-27" in refused(rig)
    assert "expired on 2026-11-27" in refused(rig, "000001")
    assert rig.roll_back(force=True).action == "rolled_back"


def test_a_thing_that_is_reported_as_deactivated(thrice: Rig) -> None:
    assert thrice.retire({"client_id": "device:2"}).action == "retired"
    assert "deactivated" in refused(thrice)
    assert "deactivated" in refused(thrice, "000002")
    assert thrice.roll_back("000001").action == "rolled_back"
    assert thrice.roll_back("000002", force=True).action == "rolled_back"
    assert thrice.retired_ids == ["device:3", "device:1"]


# ---- without a current generation ----


def test_a_named_generation_is_used_where_none_was_in_use(thrice: Rig) -> None:
    thrice.current.unlink()
    outcome = thrice.roll_back("000002")
    assert (outcome.action, outcome.before) == ("rolled_back", None)
    assert thrice.record["client_id"] == "device:2"
    assert thrice.present().action == "none"


def test_a_generation_that_never_was_in_use_is_used_once_it_is_named(thrice: Rig) -> None:
    """A run has crashed after the files were in place, and before the switch."""
    thrice.current.unlink()
    thrice.current.symlink_to("generations/000002")
    assert thrice.roll_back("000003").generation == "000003"
    assert thrice.record["client_id"] == "device:3"
    thrice.assert_in_order(".newest")


# ---- check mode, health check, and other runs ----


@pytest.mark.parametrize("generation", [None, "000001"])
def test_check_mode_changes_nothing(thrice: Rig, generation: str | None) -> None:
    before = tree(thrice.root)
    predicted = thrice.roll_back(generation, check_mode=True)
    assert tree(thrice.root) == before
    assert thrice.commands == ["exec sh -s"]
    done = thrice.roll_back(generation)
    assert predicted == done


def test_a_health_check_that_fails(thrice: Rig) -> None:
    hooks = Hooks(health_command="false", health_timeout=1)
    with pytest.raises(ProvisioningError) as caught:
        thrice.roll_back(hooks=hooks)
    assert caught.value.code == "health_check_failed"
    assert thrice.record["client_id"] == "device:3"
    assert thrice.retired_ids == ["device:1", "device:2"], "the Thing in use again is not on the list"
    assert thrice.present().action == "none"


def test_another_run_was_faster(thrice: Rig) -> None:
    other = Rig(thrice.root, "cloudlocate", controller="elsewhere", now=thrice.now)
    look = thrice.execute
    looks = 0

    def race(command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        nonlocal looks
        looks += 1
        if looks == 2:
            other.present(cloudlocate(clientId="device:4"), force=True)
        return look(command, standard_input, secret)

    thrice.execute = race  # type: ignore[method-assign]
    with pytest.raises(ProvisioningError) as caught:
        thrice.roll_back()
    assert caught.value.code == "concurrent_change"
    assert other.record["client_id"] == "device:4"
    other.assert_in_order()


def test_a_path_that_cannot_be_trusted(thrice: Rig) -> None:
    thrice.path.parent.chmod(0o777)
    with pytest.raises(ProvisioningError) as caught:
        thrice.roll_back(check_mode=True)
    assert caught.value.code == "bad_path"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""roll_back: an earlier generation in use again, and what the runs after it make of the later ones."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from shell.consumer import Consumer
from shell.host import DIRECTORY_MODE, MODES, Host, change, outcome, plant_generation, refused, snapshot
from shell.steps import stepping

BEFORE_THE_SWITCH = 26  # the commands of a roll back until then


@pytest.fixture
def consumer(host: Host, tmp_path: Path) -> Consumer:
    return Consumer(host, tmp_path / "consumer")


def assert_in_use(host: Host, marker: str, generations: list[str], newest: str | None) -> None:
    """Check that this marker is in use among these generations; nothing else is there but the link ``.newest``."""
    assert host.marker == marker
    assert host.generations == generations
    assert host.leftovers == ([".newest"] if newest else [])
    state = host.look()
    assert state.bundle.newest == (newest or state.bundle.current)
    assert state.bundle.leftovers == ()


# ---- there and back ----


def test_back_and_forward(host: Host) -> None:
    host.plant("a", "b", "c")
    generations = host.generations
    before = {name: snapshot(host.path / "generations" / name) for name in ("000001", "000003")}
    for target, marker in (("000002", "b"), ("000001", "a"), ("000003", "c"), ("000002", "b")):
        assert host.roll_back(target, keep=2) == target
        assert_in_use(host, marker, generations, "000003")
    for name, found in before.items():
        after = snapshot(host.path / "generations" / name)
        # their content is what it was, down to the time of the last change
        assert [(look[0], *look[4:6], look[-1]) for look in after.values()] == [
            (look[0], *look[4:6], look[-1]) for look in found.values()
        ]


def test_modes_are_put_right(host: Host) -> None:
    host.plant("a", "b")
    target = host.path / "generations" / "000001"
    for entry in (target / "client.key", target / "thing.json", target):
        entry.chmod(0o755)
    host.roll_back("000001")
    assert host.drift() == []
    assert stat.S_IMODE(target.stat().st_mode) == DIRECTORY_MODE
    assert {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in target.iterdir()} == MODES


def test_with_consumers(host: Host, consumer: Consumer) -> None:
    host.plant("a", "b")
    host.roll_back("000001", **consumer.options)
    assert consumer.calls == ["reload 000001", "health 000001"]
    consumer.assert_up_to_date()
    assert_in_use(host, "a", ["000001", "000002"], "000002")


def change_a_file(target: Path) -> None:
    (target / "client.crt").write_bytes((target / "client.crt").read_bytes() + b"x")


def lose_a_file(target: Path) -> None:
    (target / "client.key").unlink()


def put_a_link_there(target: Path) -> None:
    target.rename(target.with_name("elsewhere"))
    target.symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [change_a_file, lose_a_file, put_a_link_there, shutil.rmtree])
def test_a_damaged_target(host: Host, consumer: Consumer, damage: Callable[[Path], None]) -> None:
    host.plant("a", "b")
    state = host.checked()
    target = host.path / "generations" / "000001"
    digests = json.loads((target / "thing.json").read_bytes())["files"]
    damage(target)
    before = snapshot(host.path / "generations")
    with refused("no_generation"):
        commands.roll_back(host.execute, state, "000001", MODES, digests, change(**consumer.options))
    assert snapshot(host.path / "generations") == before
    assert host.marker == "b"
    assert host.leftovers == []
    assert consumer.calls == []


def test_a_link_in_the_target(host: Host, tmp_path: Path) -> None:
    """Its content is what the record says, and yet another user can change it."""
    host.plant("a", "b")
    key = host.path / "generations" / "000001" / "client.key"
    elsewhere = tmp_path / "elsewhere"
    key.rename(elsewhere)
    elsewhere.chmod(0o604)
    key.symlink_to(elsewhere)
    with refused("no_generation"):
        host.roll_back("000001")
    assert host.marker == "b"
    assert host.leftovers == []
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o604


# ---- what the runs after it do ----


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_how_many_stay(host: Host, keep: int) -> None:
    """Never without the one in use, wherever it stands, and not without the newest, so that its name leads back."""
    host.plant("a", "b", "c")
    stay = {0: ["000001", "000003"], 1: ["000001", "000003"], 2: ["000001", "000002", "000003"]}[keep]
    host.roll_back("000001", keep=keep)
    assert_in_use(host, "a", stay, "000003")
    host.set_attributes(keep=keep)
    assert_in_use(host, "a", stay, "000003")
    assert host.install("d", keep=keep) == "000004"
    assert_in_use(host, "d", ["000001", "000004"] if keep else ["000004"], None)


def test_back_and_forward_where_nothing_is_kept(host: Host) -> None:
    host.plant("a", "b", "c")
    host.roll_back("000001", keep=0)
    assert host.roll_back("000003", keep=0) == "000003"
    assert_in_use(host, "c", ["000003"], "000003")


def test_the_next_installation_drops_what_was_given_up(host: Host) -> None:
    host.plant("a", "b", "c")
    host.roll_back("000002", keep=2)
    assert host.install("d", keep=5) == "000004"
    assert_in_use(host, "d", ["000001", "000002", "000004"], None)


def test_what_a_dead_run_left(host: Host) -> None:
    """It stands after everything that has ever been in use."""
    host.plant("a", "b")
    host.roll_back("000001")
    plant_generation(host, "000003", "dead")
    assert host.checked().bundle.leftovers == ("000003",)
    host.set_attributes()
    assert_in_use(host, "a", ["000001", "000002"], "000002")
    plant_generation(host, "000005", "dead")
    assert host.install("c") == "000006"
    assert_in_use(host, "c", ["000001", "000006"], None)


@pytest.mark.parametrize("junk", ["000001", "../000009", "0000009", "file"])
def test_junk_in_the_place_of_the_link(host: Host, junk: str) -> None:
    host.plant("a", "b")
    newest = host.path / ".newest"
    if junk == "file":
        newest.write_text("000009")
    else:
        newest.symlink_to(junk)
    assert host.checked().bundle.newest == "000002"
    host.set_attributes()
    assert host.generations == ["000001", "000002"]
    host.roll_back("000001")
    assert_in_use(host, "a", ["000001", "000002"], "000002")
    assert host.install("c") == "000003"


# ---- it does not work ----


def test_back_to_what_does_not_work(host: Host, consumer: Consumer) -> None:
    host.plant("bad", "good")
    with refused("health_check_failed"):
        host.roll_back("000001", health_timeout=1, **consumer.options)
    assert consumer.calls == ["reload 000001", "health 000001", "reload 000002"]
    consumer.assert_up_to_date()
    assert_in_use(host, "good", ["000001", "000002"], "000002")


def test_forward_to_what_does_not_work(host: Host, consumer: Consumer) -> None:
    """It has been in use, so it keeps its name; what was installed for the first time does not."""
    host.plant("good", "bad")
    host.roll_back("000001")
    with refused("health_check_failed"):
        host.roll_back("000002", health_timeout=1, **consumer.options)
    assert_in_use(host, "good", ["000001", "000002"], "000002")
    with refused("health_check_failed"):
        host.install("bad", health_timeout=1, **consumer.options)
    assert_in_use(host, "good", ["000001", "000002", "000003-failed"], "000002")
    consumer.assert_up_to_date()


def test_somebody_was_faster(host: Host, consumer: Consumer) -> None:
    host.plant("a", "b")
    state = host.checked()
    host.install("c", state)
    before = snapshot(host.path / "generations")
    with refused("concurrent_change"):
        host.roll_back("000002", state, **consumer.options)
    assert snapshot(host.path / "generations") == before
    assert_in_use(host, "c", ["000002", "000003"], None)
    assert consumer.calls == []


def test_nobody_comes_between_switch_and_check(host: Host, tmp_path: Path) -> None:
    host.plant("a", "b")
    state = host.checked()
    paused, resume = tmp_path / "paused", tmp_path / "resume"
    wait = f': >"{paused}"; until [ -e "{resume}" ]; do sleep 0.03; done; exit 1'
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(outcome, partial(host.roll_back, "000001", state, health_command=wait, health_timeout=1))
        while not paused.exists() and not slow.done():
            time.sleep(0.002)
        found = host.checked()
        others = [
            outcome(action) for action in (partial(host.install, "c", found), partial(host.set_attributes, found))
        ]
        resume.touch()
        assert slow.result() == "health_check_failed"
    assert (found.bundle.current, found.bundle.leftovers) == ("000001", (".health-check",))
    assert others == ["concurrent_change", "concurrent_change"]
    assert_in_use(host, "b", ["000001", "000002"], "000002")


@pytest.mark.parametrize("marker", ["good", "bad"])
def test_killed_before_every_command(
    host: Host, consumer: Consumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    host.plant(marker, "old")
    first = host.checked()
    codes = []
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in host.steps(BEFORE_THE_SWITCH):
            shutil.rmtree(host.path)
            host.plant(marker, "old")
            consumer.used.write_bytes((host.path / "current" / "client.key").read_bytes())
            dying = at_step(step, "kill -9 0")
            codes.append(outcome(partial(dying.roll_back, "000001", first, health_timeout=1, **consumer.options)))
            assert host.marker in (marker, "old")
            if len(codes) == 1:
                assert consumer.calls == []
            code = outcome(partial(host.set_attributes, host.believing(first), health_timeout=1, **consumer.options))
            if code == "health_check_failed" and marker == "bad":
                code = outcome(partial(host.set_attributes, host.believing(first), **consumer.options))
            assert code == "done"
            assert host.marker in ("good", "old")
            assert host.generations == ["000001", "000002"]
            assert host.leftovers in ([], [".newest"])
            consumer.assert_up_to_date()
            if codes[-1] != "gateway_unsupported":
                break
    assert codes[-1] == ("done" if marker == "good" else "health_check_failed")
    assert len(codes) > (3 if host.full else 1)


def test_what_is_no_file_is_not_read(host: Host) -> None:
    """Reading a pipe would never end."""
    host.plant("a", "b")
    state = host.checked()
    key = host.path / "generations" / "000001" / "client.key"
    key.unlink()
    os.mkfifo(key)
    with refused("no_generation"):
        host.roll_back("000001", state)
    assert host.marker == "b"

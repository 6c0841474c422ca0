# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""remove: everything of ours goes, and nothing of anybody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from shell.host import Host, change, outcome, plant_generation, plant_leftovers, refused, snapshot


def test_everything_goes(host: Host) -> None:
    host.plant("a", "b")
    state = host.checked()
    host.remove()
    assert not host.path.exists()
    assert host.path.parent.is_dir()
    commands.remove(host.execute, state, change())
    with refused("concurrent_change"):
        commands.remove(host.execute, state, change(history="{}"))
    assert host.install("c") == "000001"
    host.assert_in_order("c", ["000001"])
    host.remove()
    assert not host.path.exists()


def test_leftovers_go_too(host: Host) -> None:
    host.plant("a")
    plant_leftovers(host)
    plant_generation(host, "000007", "dead")
    plant_generation(host, "000003-failed", "kept aside")
    host.remove()
    assert not host.path.exists()


def test_only_leftovers(host: Host) -> None:
    host.path.mkdir(parents=True)
    plant_leftovers(host)
    host.remove()
    assert not host.path.exists()


def test_foreign_files_survive(host: Host) -> None:
    host.plant("a")
    foreign = [host.path / "README", host.path / ".hidden", host.path / "directory" / "file"]
    foreign[2].parent.mkdir()
    for entry in foreign:
        entry.write_text("mine")
    before = [snapshot(entry) for entry in foreign]
    for _time in range(2):
        host.remove()
        assert [snapshot(entry) for entry in foreign] == before
        assert sorted(entry.name for entry in host.path.iterdir()) == [".hidden", "README", "directory"]


def test_neighbors_survive(host: Host, tmp_path: Path) -> None:
    neighbor = host.at(host.path.with_name("cloudlocate"))
    neighbor.install("x")
    before = snapshot(neighbor.path)
    host.plant("a")
    host.remove()
    assert snapshot(neighbor.path) == before


def test_what_cannot_be_removed_is_no_success(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.plant("a")
    state = host.look()
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", f"rm() {{ return 1; }}\n{commands.CHANGE_SCRIPT}")
    with refused("permission", "bad_path"):
        commands.remove(host.execute, state, change())
    assert host.generations == ["000001"]


def test_a_directory_that_is_named_current(host: Host) -> None:
    host.plant("a")
    link = host.path / "current"
    link.unlink()
    link.mkdir()
    (link / "file").write_text("mine")
    outcome(host.remove)
    assert (link / "file").read_text() == "mine"

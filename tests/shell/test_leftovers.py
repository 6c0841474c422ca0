# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The next change removes what dead runs left, and nothing else."""

from __future__ import annotations

from shell.host import Host, plant_generation, plant_leftovers, snapshot


def test_the_next_installation_clears_up(host: Host) -> None:
    host.plant("a", "b")
    plant_leftovers(host)
    plant_generation(host, "000003", "dead")
    plant_generation(host, "000005", "dead too")
    assert host.install("c") == "000006"
    host.assert_in_order("c", ["000002", "000006"])
    assert host.look().bundle.leftovers == ()


def test_a_first_installation_clears_up(host: Host) -> None:
    host.path.mkdir(parents=True)
    plant_leftovers(host)
    plant_generation(host, "000001", "dead")
    assert host.install("a", keep=5) == "000002"
    host.assert_in_order("a", ["000002"])


def test_repair_clears_up(host: Host) -> None:
    host.plant("a", "b", "c")
    plant_leftovers(host)
    plant_generation(host, "000004", "dead")
    plant_generation(host, "000009", "dead too")
    kept = [snapshot(host.path / "generations" / name) for name in ("000002", "000003")]
    assert host.set_attributes(keep=1) == "000003"
    host.assert_in_order("c", ["000002", "000003"])
    assert [sorted(snapshot(host.path / "generations" / name)) for name in ("000002", "000003")] == [
        sorted(before) for before in kept
    ]
    assert host.look().bundle.leftovers == ()


def test_what_was_kept_outlives_leftovers(host: Host) -> None:
    host.plant("a", "b", "c")
    for name in ("000004", "000005", "000006"):
        plant_generation(host, name, "dead")
    host.install("d", keep=2)
    host.assert_in_order("d", ["000002", "000003", "000007"])


def test_foreign_files_stay(host: Host) -> None:
    host.plant("a")
    foreign = [
        host.path / "README",
        host.path / ".hidden",
        host.path / "staging-mine",
        host.path / "generations" / "notes",
        host.path / "generations" / "000001.failed",
        host.path / "generations" / "0000009",
    ]
    for entry in foreign:
        entry.write_text("mine")
    set_aside = plant_generation(host, "000004-failed", "kept aside")
    host.set_attributes(keep=0)
    assert set_aside.is_dir()
    host.install("b", keep=0)
    assert all(entry.read_text() == "mine" for entry in foreign)
    assert not set_aside.exists(), "a sound installation has made it useless"
    assert host.marker == "b"


def test_repair_prunes_to_what_is_to_be_kept(host: Host) -> None:
    host.plant("a", "b", "c")
    host.set_attributes(keep=0)
    host.assert_in_order("c", ["000003"])


def test_after_going_back_to_a_previous_generation(host: Host) -> None:
    host.plant("a", "b")
    link = host.path / "current"
    link.unlink()
    link.symlink_to("generations/000001")
    host.set_attributes()
    host.assert_in_order("a", ["000001"])
    assert host.install("c") == "000002"
    host.assert_in_order("c", ["000001", "000002"])

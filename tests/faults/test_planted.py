# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links of every kind, planted at every name that the scripts use: none is followed, nothing outside is touched.

The user that runs the commands plants them, and can do more than any attacker: others cannot write at the path.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.tests.unit.support import Pair, spartn, tree
from faults.conftest import Trial
from faults.host_rig import HostRig, error_of
from shell.host import SHELLS

DIRECTORIES = (
    "generations",
    "generations/000001",
    "generations/000002",
    "generations/000003",
    "generations/000003-failed",
)
FILES = ("client.key", "client.crt", "client.pem", "ca.crt", "credentials.json", "thing.json", "unknown")
# names of an attempt, which end with its nonce and the number of its process; the first is made before the script runs
OF_AN_ATTEMPT = (".staging-", ".staging-history-", ".staging-link-")
DEAD = "boot.4194305.1.dead"  # how a lock names a process that does not exist
LINKS = ("current", ".lock", ".health-check", ".newest", ".last-change")
NAMES = (
    "history.json",
    *LINKS,
    *OF_AN_ATTEMPT,
    f".staging-heir-{DEAD}",
    ".staging-heir-unknown",
    ".thingstream-absent",
    *DIRECTORIES,
    *(f"{generation}/{name}" for generation in DIRECTORIES[1:3] for name in FILES),
)
SECOND = "22222222-2222-4333-8444-555555555555"
# as shell commands over $name and $outside
PLANTED = {
    "link to a directory": 'ln -s "$outside" "$name"',
    "link to a generation": 'ln -s "$outside/000001" "$name"',
    "link to a file": 'ln -s "$outside/client.key" "$name"',
    "link to nothing": 'ln -s "$outside/nothing" "$name"',
    "hard link": 'ln "$outside/client.key" "$name"',
    "directory": 'mkdir -m 0700 "$name"',
    "fifo": 'mkfifo "$name"',
}


def operations(rig: HostRig) -> Mapping[str, Callable[[], object]]:
    """Return everything that changes a gateway."""
    return {
        "renew": lambda: rig.present(force=True),
        "repair": rig.present,
        "roll back": lambda: rig.roll_back(force=True),
        "remove": rig.absent,
    }


@pytest.fixture
def outside(rig: HostRig) -> Path:
    """A directory that no run may touch: it has every name that the scripts may look for, and a generation."""
    directory = rig.root / "outside"
    for place in (directory, directory / "000001", directory / "files", directory / "000001" / "files"):
        place.mkdir(0o711, parents=True)
        for name in (*FILES, "history.json"):
            (place / name).write_text(f"{name} of another user")
            (place / name).chmod(0o604)
    return directory


def plant(rig: HostRig, name: str, kind: str, outside: Path) -> None:
    """Plant something at a name, in place of what is there."""
    subprocess.run(["sh", "-ec", planting(rig, name, kind, outside)], check=True)


def planting(rig: HostRig, name: str, kind: str, outside: Path) -> str:
    """Return the shell commands that plant something."""
    commands = (f"outside={outside}", f"name={rig.path}/{name}", 'mkdir -p "${name%/*}"; rm -rf "$name"', PLANTED[kind])
    return "; ".join(commands) + "; "


def plant_in_the_change(
    rig: HostRig, name: str, kind: str, outside: Path, patch: pytest.MonkeyPatch, script: str
) -> None:
    """Plant something just before the next change; at a name of an attempt, by the process that uses the name.

    :param script: the unchanged ``commands.CHANGE_SCRIPT``.
    """
    if name == OF_AN_ATTEMPT[0]:

        def plant_first() -> None:
            rig.give(banner=f"({planting(rig, f'{name}{rig.nonce}-$$', kind, outside)}) 2>/dev/null; ")

        rig.before_change = plant_first
    elif name in OF_AN_ATTEMPT:
        planted = planting(rig, f"{name}$request_nonce-$$", kind, outside)
        patch.setattr(commands, "CHANGE_SCRIPT", f"({planted})\n{script}")
    else:
        rig.before_change = partial(plant, rig, name, kind, outside)


@pytest.mark.parametrize("operation", ["renew", "repair", "roll back", "remove"])
@pytest.mark.parametrize("moment", ["before the run", "after the look"])
def test_planted(
    rig: HostRig,
    outside: Path,
    ec_pair: Pair,
    other_pair: Pair,
    trials: Trial,
    full: bool,
    operation: str,
    moment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, script = tree(outside), commands.CHANGE_SCRIPT
    rig.host.outputs.clear()
    rig.begin(other_pair)
    rig.present(spartn(ec_pair, clientId=SECOND), force=True)
    (rig.current / "ca.crt").chmod(0o600)
    (rig.path / ".lock").symlink_to(DEAD)  # so that every change inherits it
    shutil.copytree(rig.root / "etc", tmp_path / "etc", symlinks=True)
    rig.standing = spartn(ec_pair, clientId=SECOND)
    trial = [*SHELLS].index(rig.host.shell) + 5 * len(operation)
    for name in NAMES:
        for kind in PLANTED:
            trial += 1
            if not full and trial % 60:
                continue
            rig.clear()
            shutil.copytree(tmp_path / "etc", rig.root / "etc", symlinks=True)
            if moment == "before the run":
                plant(rig, f"{name}dead-1" if name in OF_AN_ATTEMPT else name, kind, outside)
            else:
                plant_in_the_change(rig, name, kind, outside, monkeypatch, script)
            with trials(f"Planted {moment}: {operation}"):
                error = error_of(operations(rig)[operation])
                assert tree(outside) == before, (name, kind, error)
                assert "earlier attempt" not in str(error), (name, kind)  # it would wait for itself
                # a hard link is the file itself, which only a user who may write here can make
                assert kind == "hard link" or "of another user" not in "".join(rig.host.outputs), (name, kind)
                assert error is None or error.code in (
                    "bad_path",
                    "concurrent_change",
                    "permission",
                    "no_generation",
                    "bad_option",
                    "disk_full",
                    "gateway_unsupported",
                ), (name, kind, error)
                if error is None and operation != "remove" and not rig.path.is_symlink():
                    assert rig.current.resolve().parent == rig.path / "generations", (name, kind)
                    links = [entry for entry in LINKS if os.path.lexists(rig.path / entry)]
                    assert name in LINKS or all((rig.path / link).is_symlink() for link in links), (name, kind)
            rig.before_change = None
            rig.give(banner="")
            monkeypatch.setattr(commands, "CHANGE_SCRIPT", script)
            rig.host.outputs.clear()


@pytest.mark.usefixtures("root")
def test_nobody_else_can_plant(rig: HostRig, ec_pair: Pair, trials: Trial) -> None:
    """Neither can the owner of the files, nor their group."""
    owner = next(user for user in pwd.getpwall() if user.pw_uid not in (0, 65534))
    wanted: dict[str, Any] = {"owner": owner.pw_name, "hardware_id": "hw-1"}
    rig.spool.parent.mkdir()
    rig.present(spartn(ec_pair), **wanted)
    assert rig.present(**wanted).action == "none"
    for directory in (rig.path, rig.path / "generations", rig.current.resolve()):
        with trials("Planted by the owner of the files"):
            tried = subprocess.run(
                ["/bin/sh", "-c", f"cat {rig.current}/client.key >/dev/null || exit 9; ln -s / {directory}/planted"],
                user=owner.pw_uid,
                group=owner.pw_gid,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )
            assert tried.returncode not in (0, 9), tried
            assert not (directory / "planted").is_symlink()

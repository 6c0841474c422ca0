# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links of every kind, planted at every name that the script uses: none is followed, nothing outside is touched.

They are planted by whoever runs the commands, who can do more than any attacker: others cannot write at the path.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.tests.unit.support import Pair, spartn, tree
from faults.conftest import Trial
from faults.host_rig import NONCE, HostRig, error_of
from shell.host import SHELLS

DIRECTORIES = (
    "generations",
    "generations/000001",
    "generations/000002",
    "generations/000003",
    "generations/000003-failed",
)
FILES = ("client.key", "client.crt", "client.pem", "ca.crt", "credentials.json", "thing.json", "unknown")
NAMES = (
    "current",
    "history.json",
    ".lock",
    ".trial",
    ".newest",
    f".staging-{NONCE}",
    f".staging-history-{NONCE}",
    f".current-{NONCE}",
    ".staging-lock-1",
    ".thingstream-absent",
    *DIRECTORIES,
    *(f"{generation}/{name}" for generation in DIRECTORIES[1:3] for name in FILES),
)
SECOND = "22222222-2222-4333-8444-555555555555"
PLANTED: Mapping[str, Callable[[Path, Path], object]] = {
    "link to a directory": lambda name, outside: name.symlink_to(outside),
    "link to a generation": lambda name, outside: name.symlink_to(outside / "000001"),
    "link to a file": lambda name, outside: name.symlink_to(outside / "client.key"),
    "link to nothing": lambda name, outside: name.symlink_to(outside / "nothing"),
    "hard link": lambda name, outside: os.link(outside / "client.key", name),
    "directory": lambda name, _outside: name.mkdir(0o700),
    "fifo": lambda name, _outside: os.mkfifo(name),
}


def operations(rig: HostRig) -> Mapping[str, Callable[[], object]]:
    """Everything that changes a gateway."""
    return {
        "renew": lambda: rig.present(force=True),
        "repair": rig.present,
        "roll back": lambda: rig.roll_back(force=True),
        "remove": rig.absent,
    }


@pytest.fixture
def outside(rig: HostRig) -> Path:
    """What nobody may touch: every name is there that the script may look for, and a generation."""
    directory = rig.root / "outside"
    for place in (directory, directory / "000001", directory / "files", directory / "000001" / "files"):
        place.mkdir(0o711, parents=True)
        for name in (*FILES, "history.json"):
            (place / name).write_text(f"{name} of somebody else")
            (place / name).chmod(0o604)
    return directory


def plant(rig: HostRig, name: str, kind: str, outside: Path) -> None:
    entry = rig.path / name
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)
    entry.parent.mkdir(parents=True, exist_ok=True)
    PLANTED[kind](entry, outside)


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
) -> None:
    before = tree(outside)
    rig.host.outputs.clear()
    rig.begin(other_pair)
    rig.present(spartn(ec_pair, clientId=SECOND), force=True)
    (rig.current / "ca.crt").chmod(0o600)
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
                plant(rig, name, kind, outside)
            else:
                rig.before_change = lambda: plant(rig, name, kind, outside)  # noqa: B023
            with trials(f"Planted {moment}: {operation}"):
                error = error_of(operations(rig)[operation])
                assert tree(outside) == before, (name, kind, error)
                # a hard link is the file itself, which only somebody who may write here can make
                assert kind == "hard link" or "of somebody else" not in "".join(rig.host.outputs), (name, kind)
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
            rig.before_change = None
            rig.host.outputs.clear()


@pytest.mark.usefixtures("root")
def test_nobody_else_can_plant(rig: HostRig, ec_pair: Pair, trials: Trial) -> None:
    """Not even the owner of the files, nor their group."""
    owner = next(user for user in pwd.getpwall() if user.pw_uid not in (0, 65534))
    wanted: dict[str, Any] = {"owner": owner.pw_name, "hardware_id": "hw-1"}
    rig.spool_place.parent.parent.mkdir()
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

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show where a run with nothing due spends its CPU time, beyond what Ansible spends on a `raw` task.

Gateways are directories on this machine. Profiling makes Python slower, so that the figures are for comparison only.
PROFILE_GATEWAYS (100) and PROFILE_ROWS (40) change the size.
"""

from __future__ import annotations

import os
import pstats
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
sys.path[0] = str(PROJECT / "tests")  # instead of this directory, whose bench.py is not the package

from bench.scaling import controller_environment, write_inventory  # noqa: E402
from simulator.client import start  # noqa: E402

GATEWAYS = int(os.environ.get("PROFILE_GATEWAYS", "100"))
ROWS = int(os.environ.get("PROFILE_ROWS", "40"))
PROVISION = "thingstream.ztp.provision"
FORKS = 10

Function = tuple[str, int, str]  # file, line, name


@dataclass(frozen=True)
class Profile:
    """CPU seconds and calls of each function, with everything that it calls."""

    seconds: dict[Function, float]
    calls: dict[Function, int]

    @classmethod
    def read(cls, files: list[Path]) -> Profile:
        """Add up the profiles of several processes."""
        stats = pstats.Stats(*map(str, files)).stats  # type: ignore[attr-defined]
        return cls({key: entry[3] for key, entry in stats.items()}, {key: entry[0] for key, entry in stats.items()})


def run(playbook: str, inventory: Path, directory: Path) -> dict[str, Profile]:
    """Run a playbook; return the profile of the main process and that of all workers."""
    directory.mkdir()
    program = str(PROJECT / "tests" / "bench" / "profiled.py")
    command = [sys.executable, program, str(directory), "-i", str(inventory), playbook]
    subprocess.run(command, env=controller_environment(directory, FORKS), stdout=subprocess.DEVNULL, check=True)
    return {
        "main process": Profile.read([directory / "main.pstats"]),
        "workers": Profile.read(sorted(directory.glob("worker-*.pstats"))),
    }


def show(name: str, ours: Profile, raw: Profile) -> None:
    """Print the functions that take more than with a raw task, the largest difference first."""
    differences = {key: seconds - raw.seconds.get(key, 0.0) for key, seconds in ours.seconds.items()}
    print(f"\n{name}: CPU seconds, with a raw task, calls, function")
    for key in sorted(differences, key=differences.__getitem__, reverse=True)[:ROWS]:
        file, line, function = key
        place = "/".join(Path(file).parts[-3:])
        figures = f"{ours.seconds[key]:7.2f} {raw.seconds.get(key, 0.0):7.2f} {ours.calls[key]:7}"
        print(f"{figures}  {function} ({place}:{line})")


def main() -> None:
    """Provision the gateways, then profile a run with nothing due and a raw task."""
    with tempfile.TemporaryDirectory(prefix="ztp-profile-") as name, start(Path(name) / "simulator") as simulator:
        work = Path(name)
        inventory = write_inventory(simulator, work, GATEWAYS)
        raw = work / "raw.yml"
        raw.write_text(
            yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.raw": "true"}]}])
        )
        run(PROVISION, inventory, work / "first")
        ours, floor = run(PROVISION, inventory, work / "again"), run(str(raw), inventory, work / "raw")
        print(f"{GATEWAYS} gateways, forks {FORKS}")
        for process, profile in ours.items():
            show(process, profile, floor[process])


if __name__ == "__main__":
    main()

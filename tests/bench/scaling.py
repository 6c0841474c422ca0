# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures what sizes a fleet: what a gateway costs the controller, and what forks gain where gateways answer slowly.

Gateways are directories on this machine, so that there can be many; a shell that sleeps first stands for a slow line.
For each run: wall time, CPU of all processes, CPU of Ansible's main process, which alone cannot be divided among
processors, and the peak memory of all processes (proportional share). CPU and memory hardly depend on what else the
machine does; wall times do.

SCALING_GATEWAYS (100) and SCALING_RUNS change the size; a run is `playbook:forks:seconds until a gateway answers`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from simulator.client import RunningSimulator, start  # noqa: E402

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
GATEWAYS = int(os.environ.get("SCALING_GATEWAYS", "100"))
RUNS = os.environ.get("SCALING_RUNS", "provision:10:0 renew:5:0 renew:10:0 renew:50:0 renew:10:1 renew:50:1").split()
SAMPLE_SECONDS = 0.5


def controller_cpu() -> float:
    """CPU seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@dataclass
class Seen:
    """Of a process: its own CPU seconds; and the most memory that it and its workers had, in MiB."""

    main: float = 0.0
    memory: float = 0.0


def watch(process: int, seen: Seen, ended: threading.Event) -> None:
    """Sample a process and its workers until it has ended."""
    main = Path("/proc") / str(process)
    while not ended.wait(SAMPLE_SECONDS):
        with contextlib.suppress(OSError, IndexError):
            own = (main / "stat").read_text().rpartition(")")[2].split()
            seen.main = (int(own[11]) + int(own[12])) / TICKS_PER_SECOND
            workers = (main / "task" / str(process) / "children").read_text().split()
            seen.memory = max(seen.memory, sum(map(memory, [str(process), *workers])))


def memory(process: str) -> float:
    """The share of a process in the memory of the machine, in MiB."""
    with contextlib.suppress(OSError, IndexError):
        return int((Path("/proc") / process / "smaps_rollup").read_text().split("\nPss:")[1].split()[0]) / 1024
    return 0.0


def run(playbook: str, forks: int, answer: float, inventory: Path, work: Path) -> None:
    """Run a playbook and print a row of the table."""
    shell = work / "slow-shell"
    shell.write_text(f'#!/bin/sh\nsleep {answer}\nexec /bin/sh "$@"\n')
    shell.chmod(0o700)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache"),
        "ANSIBLE_HOME": str(work / "ansible"),
        "ANSIBLE_FORKS": str(forks),
        "ANSIBLE_PIPELINING": "1",
        **({"ANSIBLE_EXECUTABLE": str(shell)} if answer else {}),
    }
    command = [f"{sys.prefix}/bin/ansible-playbook", "-i", str(inventory), f"thingstream.ztp.{playbook}"]
    seen, ended = Seen(), threading.Event()
    before = controller_cpu(), time.perf_counter()
    with (work / "output.txt").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        watcher = threading.Thread(target=watch, args=(process.pid, seen, ended))
        watcher.start()
        status = process.wait()
        ended.set()
        watcher.join()
    cpu, wall = controller_cpu() - before[0], time.perf_counter() - before[1]
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed: {(work / 'output.txt').read_text()[-2000:]}")
    each = 1000 / GATEWAYS
    cells = [GATEWAYS, playbook, forks, f"{answer:g}", f"{wall:.1f}", f"{cpu * each:.0f}", f"{seen.main * each:.0f}"]
    print(f"| {' | '.join(map(str, cells))} | {seen.memory:.0f} |", flush=True)


def write_inventory(simulator: RunningSimulator, work: Path) -> Path:
    """An inventory of gateways that hold nothing, with CloudLocate, whose answers cost the platform no time."""
    common = {
        "service": "cloudlocate",
        "token": simulator.put_profile("scaling", service="cloudlocate"),
        "api_url": simulator.url,
        "ca_path": str(simulator.ca_path),
        "broker_ca_path": str(simulator.ca_path),
        "escrow_path": str(work / "escrow"),
        "hardware_id": "{{ inventory_hostname }}",
        "path": f"{work}/gateways/{{{{ inventory_hostname }}}}/thingstream",
    }
    variables = {f"thingstream_gateway_{name}": value for name, value in common.items()}
    hosts = [f"gateway-{number:05}" for number in range(GATEWAYS)]
    inventory = work / "inventory.yml"
    inventory.write_text(
        yaml.safe_dump({"all": {"vars": {"ansible_connection": "local", **variables}, "hosts": dict.fromkeys(hosts)}})
    )
    return inventory


def main() -> None:
    """Start the platform, run everything, stop it."""
    with tempfile.TemporaryDirectory(prefix="ztp-scaling-") as name, start(Path(name) / "simulator") as simulator:
        inventory = write_inventory(simulator, Path(name))
        print(f"{os.cpu_count()} processors; the last three per gateway in ms of CPU, and MiB in all")
        print("| gateways | playbook | forks | answer, s | wall, s | CPU, ms | main process, ms | memory, MiB |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for one in RUNS:
            playbook, forks, answer = one.split(":")
            run(playbook, int(forks), float(answer), inventory, Path(name))


if __name__ == "__main__":
    main()

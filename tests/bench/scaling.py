# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what sizes a fleet: what a gateway costs the controller, and what forks gain where gateways respond slowly.

Gateways are directories on this machine, so that there can be many; a shell that sleeps first stands for a slow line.
For each run: wall time, CPU of all processes, CPU of Ansible's main process, which alone cannot be divided among
processors, and the peak memory of all processes (proportional share). CPU and memory hardly depend on what else the
machine does; wall times do.

SCALING_GATEWAYS (100) and SCALING_RUNS change the size; a run is `playbook:forks:seconds until a gateway responds`, and
`:slices` after it cuts the fleet as AWX does, into jobs that run one for each processor at a time.
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
from concurrent.futures import ThreadPoolExecutor
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
    """Return the CPU seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def controller_environment(work: Path, forks: int) -> dict[str, str]:
    """Return the environment of a run that keeps its files in ``work``, without settings of the user."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache"),
        "ANSIBLE_HOME": str(work / "ansible"),
        "ANSIBLE_FORKS": str(forks),
        "ANSIBLE_PIPELINING": "1",
    }


@dataclass
class Seen:
    """Of a process: its own CPU seconds, and the most memory in MiB that it had, alone and with its workers."""

    main: float = 0.0
    main_memory: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class Measured:
    """A run: wall seconds, CPU seconds of all processes and of the main one, MiB of the main one and of all.

    Of several jobs, the CPU seconds are added up, and the memory is that of the largest job.
    """

    wall: float
    cpu: float
    main: float
    main_memory: float
    memory: float


def cpu_of(process: int) -> float:
    """Return the CPU seconds that a process has taken so far."""
    own = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    return (int(own[11]) + int(own[12])) / TICKS_PER_SECOND


def watch(process: int, seen: Seen, ended: threading.Event) -> None:
    """Sample a process and its workers until it has ended."""
    main = Path("/proc") / str(process)
    while not ended.wait(SAMPLE_SECONDS):
        with contextlib.suppress(OSError, IndexError):
            seen.main = cpu_of(process)
            workers = (main / "task" / str(process) / "children").read_text().split()
            seen.main_memory = max(seen.main_memory, resident(main))
            seen.memory = max(seen.memory, sum(map(memory, [str(process), *workers])))


def memory(process: str) -> float:
    """Return the proportional share of a process in the memory of the machine, in MiB."""
    with contextlib.suppress(OSError, IndexError):
        return int((Path("/proc") / process / "smaps_rollup").read_text().split("\nPss:")[1].split()[0]) / 1024
    return 0.0


def resident(process: Path) -> float:
    """Return the most memory that a process had itself, shared or not, in MiB."""
    return int((process / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure(playbook: str, forks: int, delay: float, inventories: list[Path], work: Path) -> Measured:
    """Run a playbook for each inventory; each gateway responds after ``delay`` seconds."""
    before, begin = controller_cpu(), time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = list(pool.map(lambda inventory: run(playbook, forks, delay, inventory, work), inventories))
    return Measured(
        wall=time.perf_counter() - begin,
        cpu=controller_cpu() - before,
        main=sum(job.main for job in jobs),
        main_memory=max(job.main_memory for job in jobs),
        memory=max(job.memory for job in jobs),
    )


def run(playbook: str, forks: int, delay: float, inventory: Path, work: Path) -> Seen:
    """Run a playbook in a directory of its own below ``work``."""
    place = work / f"{playbook}-{inventory.stem}"
    place.mkdir(exist_ok=True)
    shell = place / "slow-shell"
    shell.write_text(f'#!/bin/sh\nsleep {delay}\nexec /bin/sh "$@"\n')
    shell.chmod(0o700)
    environment = controller_environment(place, forks) | ({"ANSIBLE_EXECUTABLE": str(shell)} if delay else {})
    command = [f"{sys.prefix}/bin/ansible-playbook", "-i", str(inventory), f"thingstream.ztp.{playbook}"]
    command += [f"-ethingstream_report_directory={place}"] if playbook == "audit" else []
    seen, ended = Seen(), threading.Event()
    with (place / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=place
        )
        watcher = threading.Thread(target=watch, args=(process.pid, seen, ended))
        watcher.start()
        status = process.wait()
        ended.set()
        watcher.join()
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed: {(place / 'output.txt').read_text()[-2000:]}")
    return seen


def write_inventories(simulator: RunningSimulator, work: Path, gateways: int, slices: int) -> list[Path]:
    """Write the inventory, cut as AWX cuts it: the first of n slices has the first, the n+1st, … gateway."""
    whole = yaml.safe_load(write_inventory(simulator, work, gateways).read_text())["all"]
    hosts = sorted(whole["hosts"])
    paths = []
    for number in range(slices):
        path = work / f"inventory-{number + 1}-of-{slices}.yml"
        path.write_text(yaml.safe_dump({"all": {**whole, "hosts": dict.fromkeys(hosts[number::slices])}}))
        paths.append(path)
    return paths


def write_inventory(simulator: RunningSimulator, work: Path, gateways: int) -> Path:
    """Write an inventory of gateways with CloudLocate, whose responses cost the platform no time."""
    common = {
        "service": "cloudlocate",
        "token": simulator.put_profile("scaling", service="cloudlocate"),
        "api_url": simulator.url,
        "ca_path": str(simulator.ca_path),
        "broker_ca_path": str(simulator.ca_path),
        "spool_path": str(work / "spool"),
        "hardware_id": "{{ inventory_hostname }}",
        "path": f"{work}/gateways/{{{{ inventory_hostname }}}}/thingstream",
    }
    variables = {f"thingstream_gateway_{name}": value for name, value in common.items()}
    hosts = [f"gateway-{number:05}" for number in range(gateways)]
    inventory = work / "inventory.yml"
    inventory.write_text(
        yaml.safe_dump({"all": {"vars": {"ansible_connection": "local", **variables}, "hosts": dict.fromkeys(hosts)}})
    )
    return inventory


def main() -> None:
    """Start the platform, run everything, stop it."""
    with tempfile.TemporaryDirectory(prefix="ztp-scaling-") as name, start(Path(name) / "simulator") as simulator:
        print(f"{os.cpu_count()} processors; CPU per gateway, memory of the job, and how busy the simulator was")
        columns = ["gateways", "playbook", "forks", "slices", "delay, s", "wall, s", "CPU, ms", "main, ms"]
        columns += ["memory, MiB", "simulator"]
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
        for one in RUNS:
            playbook, forks, delay, *sliced = one.split(":")
            slices = int(sliced[0]) if sliced else 1
            inventories = write_inventories(simulator, Path(name), GATEWAYS, slices)
            before = cpu_of(simulator.process.pid)
            taken = measure(playbook, int(forks), float(delay), inventories, Path(name))
            busy = (cpu_of(simulator.process.pid) - before) / taken.wall
            each = 1000 / GATEWAYS
            cells = [GATEWAYS, playbook, forks, slices, delay, f"{taken.wall:.1f}", f"{taken.cpu * each:.0f}"]
            cells += [f"{taken.main * each:.0f}", f"{taken.memory:.0f}", f"{busy:.0%}"]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()

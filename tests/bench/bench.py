# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the collection against Ansible's own floor and against a role written by hand, over gateways by SSH.

Controller, gateways and platform share this machine, so each run has three figures: CPU seconds of the controller
(with everything it starts), CPU seconds of the whole machine, and wall time. Other work on the machine spoils the last
two. Figures are medians over rounds in which the runs take turns; what is printed are ratios.

BENCH_GATEWAYS (50), BENCH_ROUNDS (5) and BENCH_HANDWRITTEN (1; 0 leaves the slow comparison out) change the size.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
sys.path[0] = str(PROJECT / "tests")  # instead of this directory, whose bench.py is not the package

from bench.scaling import TICKS_PER_SECOND, controller_cpu, controller_environment  # noqa: E402
from gateways.fleet import EXIT_UNAVAILABLE, Fleet, Unavailable, fleet  # noqa: E402
from simulator.client import RunningSimulator, start  # noqa: E402

GATEWAYS = int(os.environ.get("BENCH_GATEWAYS", "50"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
HANDWRITTEN = os.environ.get("BENCH_HANDWRITTEN", "1") != "0"
PATH = "/etc/thingstream/pointperfect"
BY_HAND = PROJECT / "tests" / "bench" / "handwritten" / "playbook.yml"
FORKS = 10


@dataclass(frozen=True)
class Figures:
    """The cost of one run, in seconds."""

    controller: float
    machine: float
    wall: float


def machine_cpu() -> float:
    """Return the CPU seconds that all processors have worked since the machine started."""
    user, nice, system, _idle, _iowait, irq, softirq, *_rest = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq))) / TICKS_PER_SECOND


def measure(command: list[str], environment: dict[str, str], log: Path) -> Figures:
    """Run a command to its end; its output goes to a file, and a failure ends the benchmark."""
    before = controller_cpu(), machine_cpu(), time.perf_counter()
    with log.open("w") as output:
        status = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
    after = controller_cpu(), machine_cpu(), time.perf_counter()
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed; see {log}")
    return Figures(*(end - begin for begin, end in zip(before, after, strict=True)))


def median(figures: list[Figures]) -> Figures:
    """Return the median of each figure by itself."""
    return Figures(*(statistics.median(getattr(one, name) for one in figures) for name in Figures.__annotations__))


def bench(gateways: Fleet, simulator: RunningSimulator, work: Path) -> None:
    """Take all figures and print the table."""
    environment = controller_environment(work, FORKS)
    playbooks = write_playbooks(work)
    token = simulator.put_profile("bench", service="pointperfect", plan="mqtt")

    hardware = work / "hardware.ini"

    def run(playbook: str, variables: dict[str, str] | None = None) -> Figures:
        """Run a playbook; every run reads the same inventories and one file of variables, which may be empty."""
        file = work / "variables.yml"
        file.write_text(yaml.safe_dump(variables or {}))
        command = [f"{sys.prefix}/bin/ansible-playbook", "-i", str(gateways.inventory), "-i", str(hardware)]
        return measure([*command, "-e", f"@{file}", playbook], environment, work / "output.txt")

    def name_hardware(serial: int) -> None:
        lines = [f"gw{number} thingstream_gateway_hardware_id=gw{number}-{serial}" for number in numbers()]
        hardware.write_text("\n".join(["[debian]", *lines, ""]))

    def provision() -> Figures:
        variables = {
            "service": "pointperfect",
            "token": token,
            "api_url": simulator.url,
            "ca_path": str(simulator.ca_path),
            "spool_path": str(work / "spool"),
        }
        prefixed = {f"thingstream_gateway_{name}": value for name, value in variables.items()}
        return run("thingstream.ztp.provision", prefixed)

    def clear() -> None:
        for number in numbers():
            shutil.rmtree(gateways.root(f"gw{number}") / PATH[1:], ignore_errors=True)

    progress("warming up")
    name_hardware(0)
    run(playbooks["raw"])
    first = []
    for number in range(min(ROUNDS, 3)):
        progress(f"first provisioning, round {number + 1}")
        clear()
        name_hardware(number)
        first.append(provision())
    turns: dict[str, Callable[[], Figures]] = {
        "again": provision,
        "raw": lambda: run(playbooks["raw"]),
        "ping": lambda: run(playbooks["ping"]),
    }
    figures: dict[str, list[Figures]] = {name: [] for name in turns}
    for number in range(ROUNDS):
        progress(f"nothing due, raw and ping, round {number + 1}")
        for name, turn in turns.items():
            figures[name].append(turn())
    medians = {name: median(taken) for name, taken in figures.items()} | {"first": median(first)}
    rows = [("provision again, nothing due", "again", 'raw "true"', "raw", "1.2; controller 1.15")]
    rows += [("provision again, nothing due", "again", "ping", "ping", "0.6")]
    if HANDWRITTEN:
        progress("the role written by hand (minutes)")
        clear()
        by_hand = {
            "api_url": simulator.url,
            "api_ca_path": str(simulator.ca_path),
            "token": token,
            "install_path": PATH,
        }
        medians["by hand"] = run(str(BY_HAND), by_hand)
        rows += [("first provisioning", "first", "the role written by hand", "by hand", "0.1")]
    show(rows, medians)


def numbers() -> range:
    """Return the numbers of the gateways."""
    return range(1, GATEWAYS + 1)


def write_playbooks(work: Path) -> dict[str, str]:
    """Write the two playbooks that are Ansible's floor, and return their paths by name."""
    tasks = {"raw": {"ansible.builtin.raw": "true"}, "ping": {"ansible.builtin.ping": None}}
    paths = {}
    for name, task in tasks.items():
        path = work / f"{name}.yml"
        path.write_text(yaml.safe_dump([{"hosts": "debian", "gather_facts": False, "tasks": [task]}]))
        paths[name] = str(path)
    return paths


def show(rows: list[tuple[str, str, str, str, str]], medians: dict[str, Figures]) -> None:
    """Print the ratios, then the seconds they are made of."""
    print(f"\n{GATEWAYS} gateways by SSH, forks {FORKS}, pipelining; {os.cpu_count()} processors")
    print(
        "| run | against | CPU of the machine | wall time | CPU of the controller | goal |\n|---|---|---|---|---|---|"
    )
    for run, mine, against, theirs, goal in rows:
        one, other = medians[mine], medians[theirs]
        ratios = [getattr(one, name) / getattr(other, name) for name in ("machine", "wall", "controller")]
        print(f"| {run} | {against} | {ratios[0]:.2f} | {ratios[1]:.2f} | {ratios[2]:.2f} | {goal} |")
    print("\n| run | CPU of the machine, s | wall time, s | CPU of the controller, s |\n|---|---|---|---|")
    for name, figures in medians.items():
        print(f"| {name} | {figures.machine:.2f} | {figures.wall:.2f} | {figures.controller:.2f} |")


def progress(text: str) -> None:
    """Say what goes on, on standard error."""
    print(f"... {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Start platform and gateways, measure, and stop them."""
    keys = GATEWAYS * (min(ROUNDS, 3) + 1)
    with tempfile.TemporaryDirectory(prefix="ztp-bench-") as name:
        work = Path(name)
        progress(f"generating {keys} keys, so that this is not measured")
        try:
            with start(work / "simulator", key_pool=keys) as simulator, fleet(work, debian=GATEWAYS) as gateways:
                bench(gateways, simulator, work)
        except Unavailable as reason:
            print(f"The benchmark cannot run here: {reason}")
            return EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twice the gateways may cost twice the CPU and no more memory per gateway, and Ansible is what is measured.

CPU is that of all processes of a run, not wall time, so that other load of the machine hardly matters. The CPU time of
the simulator is measured separately: a busy simulator would hide the growth.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench.scaling import Measured, cpu_of, measure, write_inventory
from faults.conftest import Trial
from simulator.client import start

ALL = ("provision", "renew", "retire", "audit")
FORKS = 10
# What the larger fleet may cost per gateway, as a multiple of the smaller one, whose start weighs more.
MAX_GROWTH = 1.25
MEMORY_MIB_PER_GATEWAY = 0.5  # of Ansible's main process, for every gateway more
PLATFORM_SHARE = 0.3


@dataclass(frozen=True)
class Load:
    """The cost of one size of the fleet: playbook to figures, and the CPU seconds of the platform for the requests."""

    gateways: int
    runs: Mapping[str, Measured]
    platform_cpu: float


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> list[Load]:
    """Return the figures of a small and of a large fleet."""
    return [load(gateways, ALL, tmp_path_factory.mktemp(f"load-{gateways}")) for gateways in (100, 1000)]


def load(gateways: int, playbooks: Sequence[str], work: Path) -> Load:
    with start(work / "simulator") as simulator:
        inventory = write_inventory(simulator, work, gateways)
        before = cpu_of(simulator.process.pid)
        runs = {"provision": measure("provision", FORKS, 0, [inventory], work)}
        platform = cpu_of(simulator.process.pid) - before
        assert len(simulator.requests()) == gateways
        runs |= {name: measure(name, FORKS, 0, [inventory], work) for name in playbooks[1:]}
    return Load(gateways, runs, platform)


@pytest.mark.full
def test_the_cost_of_a_gateway_does_not_grow(loads: list[Load], trials: Trial) -> None:
    """Further gateways cost no more each than the first ones, which include the start of Ansible."""
    small, large = loads
    for playbook, run in large.runs.items():
        for name in ("cpu", "main"):
            first, all_of_them = getattr(small.runs[playbook], name), getattr(run, name)
            further = (all_of_them - first) / (large.gateways - small.gateways)
            text = f"{playbook}, {name}: {1000 * first / small.gateways:.0f} ms, then {1000 * further:.0f} ms"
            print(text)
            with trials(f"Load: {playbook}, {name}"):
                assert further <= MAX_GROWTH * first / small.gateways, text


@pytest.mark.full
def test_the_memory_of_a_gateway_is_bounded(loads: list[Load], trials: Trial) -> None:
    small, large = loads
    for playbook, run in large.runs.items():
        more = (run.main_memory - small.runs[playbook].main_memory) / (large.gateways - small.gateways)
        print(f"{playbook}: {run.main_memory:.0f} MiB, {more:.3f} MiB for each gateway")
        with trials(f"Load: {playbook}, memory"):
            assert more <= MEMORY_MIB_PER_GATEWAY


@pytest.mark.full
def test_the_platform_is_not_what_is_measured(loads: list[Load], trials: Trial) -> None:
    """The simulator responds in one thread, which is busy for a small part of a run."""
    for load in loads:
        with trials("Load: share of the platform"):
            # no run is shorter than with all processors busy for it, however long it took on a busy machine
            shortest = load.runs["provision"].cpu / (os.cpu_count() or 1)
            share, rate = load.platform_cpu / shortest, load.gateways / load.platform_cpu
            print(f"{load.gateways} gateways: it can serve {rate:.0f} requests a second, and is busy for {share:.0%}")
            assert 0 < share < PLATFORM_SHARE

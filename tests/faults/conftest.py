# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count what was tried and what survived, and print one table at the end: class, tried, survived, lost.

A test counts with the fixture `trials`; a failed test is a row of its own. Short by default; `--full` tries everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.tests.unit.conftest import ec_pair, other_pair
from faults.host_rig import HostRig
from shell.conftest import mount, plain_host, public_path, root
from shell.host import Host
from stage import gateways, platform, running_simulator, simulator

__all__ = [
    "ec_pair",
    "gateways",
    "mount",
    "other_pair",
    "plain_host",
    "platform",
    "public_path",
    "root",
    "running_simulator",
    "simulator",
]

Trial = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def trials(record_property: Callable[[str, object], None]) -> Iterator[Trial]:
    """``with trials("Kill, install"):`` counts one trial of a class, as survived if nothing is raised in it."""
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()

    @contextmanager
    def trial(name: str) -> Iterator[None]:
        tried[name] += 1
        yield
        survived[name] += 1

    yield trial
    record_property("trials", {name: (tried[name], survived[name]) for name in tried})


@pytest.fixture
def rig(plain_host: Host, public_path: Path) -> HostRig:
    """A bare gateway with one of the shells; the spool is not on its disk."""
    return HostRig(public_path, host=plain_host, controller=str(public_path / "controller" / "spool"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "teardown":
                continue
            for kind, counts in report.user_properties:
                if kind == "trials":
                    for name, (one, other) in counts.items():
                        tried[name] += one
                        survived[name] += other
    for outcome in ("failed", "error"):
        tried.update(f"Failed: {report.nodeid.rpartition('::')[2]}" for report in terminalreporter.getreports(outcome))
    if not tried:
        return
    width = max(map(len, [*tried, "class"]))
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'class':{width}}  {'tried':>7}  {'survived':>8}  {'lost':>5}")
    for name in [*sorted(tried), "all"]:
        one = tried[name] if name in tried else sum(tried.values())
        other = survived[name] if name in tried else sum(survived.values())
        terminalreporter.write_line(f"{name:{width}}  {one:7}  {other:8}  {one - other:5}")

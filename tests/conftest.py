# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings for all tests: continuous integration skips none, and workers do not disturb each other."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="try every fault, state and test, not the short selection")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked ``full`` without that option. They are not skipped, which would count as a failure."""
    if config.getoption("--full"):
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("full")])
    items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether everything is tried, or the short selection."""
    return bool(request.config.getoption("--full"))


def pytest_configure() -> None:
    """Give each test worker its own range of ports, in which its fleets look for a free one."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        os.environ["FLEET_PORT"] = str(2222 + 100 * int(worker.removeprefix("gw")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report

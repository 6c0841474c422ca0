# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator and the gateways, as fixtures that integration tests and fault tests share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateways.fleet import BASE, Fleet, Unavailable, build, fleet
from simulator.client import RunningSimulator, start


@pytest.fixture(scope="session")
def running_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with start(tmp_path_factory.mktemp("simulator"), key_pool=20) as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: RunningSimulator) -> RunningSimulator:
    """The platform, without requests and faults of other tests."""
    running_simulator.clear_requests()
    running_simulator.clear_faults()
    return running_simulator


@contextmanager
def running_fleet(directory: Path, debian: int, busybox: int, firmwares: Sequence[str] = ()) -> Iterator[Fleet]:
    """Run gateways until the block ends; skip the test where this machine cannot have any."""
    try:
        build(BASE)
        with fleet(directory, debian, busybox, firmwares=firmwares) as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three Debian gateways and one with the applets of OpenWrt 22.03, each reached by SSH."""
    with running_fleet(tmp_path_factory.mktemp("fleet"), debian=3, busybox=1) as running:
        yield running


@pytest.fixture
def platform(simulator: RunningSimulator, tmp_path: Path) -> dict[str, Any]:
    """The variables that lead a run to the simulator, whose CA also signs the certificates of brokers."""
    return {
        "thingstream_gateway_api_url": simulator.url,
        "thingstream_gateway_ca_path": simulator.ca_path,
        "thingstream_gateway_broker_ca_path": simulator.ca_path,
        "thingstream_gateway_spool_path": tmp_path / "spool",
        "thingstream_gateway_allow_volatile": True,  # some systems have /tmp in memory
    }

# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""One simulator for all tests of this folder, cleaned between them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulator import client


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[client.RunningSimulator]:
    with client.start(tmp_path_factory.mktemp("simulator"), key_pool=20) as running:
        yield running


@pytest.fixture
def simulator(_server: client.RunningSimulator) -> client.RunningSimulator:
    """A running simulator without faults, logged requests or clock offset."""
    _server.clear_faults()
    _server.clear_requests()
    _server.set_clock_offset(0)
    _server.set_unknown_token_status(403)
    return _server

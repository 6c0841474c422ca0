# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that asks the simulator for one gateway, which is a directory; its runs can be processes that die."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.order import Order, Runtime
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from simulator.client import RunningSimulator

MAX_AGE_DAYS = 50


@dataclass
class Controller(Rig):
    """What is older than MAX_AGE_DAYS is due for it."""

    simulator: RunningSimulator | None = None
    token: str = ""
    hardware_id: str = ""
    ahead: timedelta = timedelta(0)

    def post(self, endpoint: api.Endpoint, payload: bytes) -> api.Answer:
        return api.post(endpoint, payload)

    def runtime(self) -> Runtime:
        return replace(super().runtime(), now=self.clock, nonce=lambda: secrets.token_hex(8))

    def clock(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def order(self, **changes: Any) -> Order:
        assert self.simulator is not None
        order = super().order(hardware_id=self.hardware_id, max_age_days=MAX_AGE_DAYS, **changes)
        url, ca_path = self.simulator.url + order.service.path, str(self.simulator.ca_path)
        return replace(order, token=self.token, endpoint=api.Endpoint(url, ca_path=ca_path, retries=0, timeout=20))

    def let_pass(self, days: float) -> None:
        """Moves the clocks of controller and platform on."""
        assert self.simulator is not None
        self.ahead += timedelta(days=days)
        self.simulator.set_clock_offset(self.ahead.total_seconds())

    @property
    def things(self) -> set[str]:
        """The client IDs of the Things that the platform has for this gateway."""
        assert self.simulator is not None
        found = self.simulator.things(hardware_id=self.hardware_id, service=self.service)
        return {thing["client_id"] for thing in found}


def forked(action: Callable[[], object]) -> int:
    """Runs something in a process that leads its own process group, and returns its number."""
    process = os.fork()
    if process == 0:
        try:
            os.setsid()
            action()
        finally:
            os._exit(0)
    return process

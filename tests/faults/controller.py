# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that sends real requests to the simulator for one gateway, which is a directory.

Its runs can be processes that die.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Platform, Runtime
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from simulator.client import RunningSimulator

MAX_AGE_DAYS = 50


@dataclass
class Controller(Rig):
    """Credentials that are older than MAX_AGE_DAYS are due."""

    simulator: RunningSimulator | None = None
    token: str = ""
    ahead: timedelta = timedelta(0)

    def post(self, endpoint: api.Endpoint, payload: bytes, sending: api.Sending) -> api.HttpResponse:
        return api.post(endpoint, payload, sending)

    def runtime(self) -> Runtime:
        return replace(super().runtime(), now=self.clock, nonce=lambda: secrets.token_hex(8))

    def clock(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def desired(self, **changes: Any) -> Desired:
        return super().desired(**{"max_age": MAX_AGE_DAYS, **changes})

    def source(self, **changes: Any) -> Platform:
        assert self.simulator is not None
        url, ca_path = self.simulator.url + SERVICES[self.service].path, str(self.simulator.ca_path)
        endpoint = api.Endpoint(url, ca_path=ca_path, retries=0, timeout=20)
        return super().source(**{"token": self.token, "endpoint": endpoint, **changes})

    def let_pass(self, days: float) -> None:
        """Move the clocks of controller and platform on."""
        assert self.simulator is not None
        self.ahead += timedelta(days=days)
        self.simulator.set_clock_offset(self.ahead.total_seconds())

    @property
    def things(self) -> set[str]:
        """The client IDs of the Things that the platform has for this gateway."""
        assert self.simulator is not None
        found = self.simulator.things(hardware_id=self.hardware_id, service=self.service)
        return {thing["client_id"] for thing in found}

    @property
    def known_things(self) -> set[str]:
        """The client IDs of the Things in the ledger."""
        return {client_id for entry in self.ledger if (client_id := entry["client_id"])}


def forked(action: Callable[[], object]) -> int:
    """Run something in a process that leads its own process group, and return its number."""
    process = os.fork()
    if process == 0:
        try:
            os.setsid()
            action()
        finally:
            os._exit(0)
    return process

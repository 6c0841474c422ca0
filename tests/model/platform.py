# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform as far as a model needs it: it makes Things, returns existing ones, and knows what was deactivated.

It lives in a file, so that a run that is killed in a process of its own leaves behind what it did.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass
class Thing:
    """One Thing. ``number`` stands for its client ID or its login."""

    number: int
    service: str
    hardware_id: str | None
    deactivated: bool = False
    pending: bool = False


class Platform:
    """Things, and how the device profile answers a repeated request.

    :param activates_late: whether the first response for a new Thing has no credentials.
    :param returns_existing: whether a repeated request returns the existing Thing, or an error.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.activates_late = False
        self.returns_existing = True
        self._save([], 0)

    @property
    def things(self) -> list[Thing]:
        return [Thing(**entry) for entry in self._load()["things"]]

    @property
    def requests(self) -> int:
        """How many requests arrived."""
        return int(self._load()["requests"])

    def answer(self, request: dict[str, Any], service: str, now: datetime) -> dict[str, Any] | None:
        """Return a response, for an existing Thing where the service knows the hardware ID; ``None`` for a refusal."""
        things, hardware_id = self.things, request.get("hardwareId")
        known = next(
            (
                thing
                for thing in things
                if service != "cloudlocate"
                and hardware_id is not None
                and (thing.service, thing.hardware_id, thing.deactivated) == (service, hardware_id, False)
            ),
            None,
        )
        if known is not None and not self.returns_existing:
            self._save(things, self.requests + 1)
            return None
        if known is None:
            known = Thing(len(things) + 1, service, hardware_id, pending=self.activates_late)
            things.append(known)
            is_pending = known.pending
        else:
            is_pending, known.pending = False, False
        self._save(things, self.requests + 1)
        return {"status": "activating"} if is_pending and service == "pointperfect" else response(known, now)

    def deactivate(self, number: int) -> None:
        things = self.things
        things[number - 1].deactivated = True
        self._save(things, self.requests)

    def _load(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.file.read_text())
        return content

    def _save(self, things: list[Thing], requests: int) -> None:
        self.file.write_text(json.dumps({"things": [asdict(thing) for thing in things], "requests": requests}))


def response(thing: Thing, now: datetime) -> dict[str, Any]:
    """Return the credentials of a Thing, in the shape of its service."""
    if thing.service == "cloudlocate":
        return {
            "hostname": "mqtt.example.com",
            "clientId": f"device:{thing.number}",
            "username": f"user{thing.number}",
            "password": f"secret of {thing.number}",
        }
    # only NTRIP: Things without client ID
    return {
        "rtcmCredentials": {
            "endpoint": "caster.example.com",
            "httpPort": "2101",
            "mountPoint": "NEAR-RTCM",
            "userName": f"user{thing.number}",
            "password": f"secret of {thing.number}",
        }
    }

# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The log of requests to the simulated platform: who asked for what, and never a secret."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


class LoggedRequest(BaseModel):
    """One request; `time` is real, in seconds since the epoch; `status` is null if no response was sent."""

    sequence: int
    time: float
    method: str
    path: str
    service: str | None
    status: int | None
    profile: str | None
    hardware_id: str | None
    given_name: str | None
    tags: list[str]
    thing: str | None
    fault: str | None


def add(
    connection: sqlite3.Connection,
    *,
    method: str,
    path: str,
    status: int | None,
    service: str | None = None,
    profile: str | None = None,
    hardware_id: str | None = None,
    given_name: str | None = None,
    tags: list[str] | None = None,
    thing: str | None = None,
    fault: str | None = None,
) -> None:
    """Append one request."""
    connection.execute(
        "INSERT INTO requests (time, method, path, service, status, profile, hardware_id, given_name, tags, thing,"
        " fault) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(time.time(), method, path, service, status, profile),
            *(hardware_id, given_name, json.dumps(tags or []), thing, fault),
        ),
    )


def select(connection: sqlite3.Connection, after: int = 0, **wanted: str | int | None) -> list[LoggedRequest]:
    """Return the requests with a sequence number above `after` that match all the given columns, in order."""
    given = {column: value for column, value in wanted.items() if value is not None}
    where = "".join(f" AND {column} = :{column}" for column in given)
    rows = connection.execute(
        f"SELECT * FROM requests WHERE sequence > :after{where} ORDER BY sequence", {**given, "after": after}
    )
    return [LoggedRequest.model_validate(_document(dict(row))) for row in rows]


def clear(connection: sqlite3.Connection) -> None:
    """Forget all requests; sequence numbers go on."""
    connection.execute("DELETE FROM requests")


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "tags": json.loads(row["tags"])}

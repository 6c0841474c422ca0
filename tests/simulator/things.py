# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Things: what the platform creates for a request, and their credentials."""

from __future__ import annotations

import json
import secrets
import sqlite3
import string
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from simulator import pki
from simulator.profiles import Profile, Service

# "Allocated" is the platform's word for a Thing that was not activated (documented); the other two are assumed.
Status = Literal["allocated", "active", "deactivated"]

ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Thing:
    """One Thing; `credentials` are its secrets, `answered` counts the successful responses that named it."""

    id: str
    service: Service
    profile: str
    hardware_id: str | None
    given_name: str | None
    tags: list[str]
    status: Status
    answered: int
    created: float
    client_id: str
    serial: str | None
    credentials: dict[str, str]


def create(
    connection: sqlite3.Connection,
    authority: pki.Authority,
    profile: Profile,
    hardware_id: str | None,
    given_name: str | None,
    tags: Sequence[str],
    now: float,
) -> Thing:
    """Create and store a Thing of `profile`, with credentials of its own; `now` is in seconds since the epoch."""
    identity = str(uuid.uuid4())
    # The bare UUID for PointPerfect, the prefixed one for CloudLocate: both seen in client code.
    client_id = f"device:{identity}" if profile.service == "cloudlocate" else identity
    serial = None
    if profile.service == "cloudlocate":
        credentials = _mqtt_login()
    elif profile.over_ntrip:
        credentials = _ntrip_login()
    else:
        pair = pki.take_key_pair(connection)
        days = profile.simulator.certificate_days
        certificate, number = pki.issue(authority, client_id, pair.public_key, now, days)
        credentials, serial = {"certificate": certificate, "private_key": pair.private_key}, f"{number:x}"
    thing = Thing(
        id=identity,
        service=profile.service,
        profile=profile.name,
        hardware_id=hardware_id,
        given_name=given_name,
        tags=list(dict.fromkeys([*profile.tags, *tags])),  # assumed: the tags of both places are joined
        status="active" if profile.auto_activate else "allocated",
        answered=0,
        created=now,
        client_id=client_id,
        serial=serial,
        credentials=credentials,
    )
    connection.execute(
        "INSERT INTO things (id, service, profile, hardware_id, given_name, tags, status, answered, created,"
        " client_id, serial, credentials) VALUES (:id, :service, :profile, :hardware_id, :given_name, :tags, :status,"
        " :answered, :created, :client_id, :serial, :credentials)",
        {**vars(thing), "tags": json.dumps(thing.tags), "credentials": json.dumps(thing.credentials)},
    )
    return thing


def newest(connection: sqlite3.Connection, service: Service, hardware_id: str | None) -> Thing | None:
    """Return the newest Thing of a service with `hardware_id`; without one, nothing can be found again."""
    if hardware_id is None:
        return None
    found = select(connection, service=service, hardware_id=hardware_id)
    return found[-1] if found else None


def select(
    connection: sqlite3.Connection,
    *,
    identity: str | None = None,
    service: Service | None = None,
    profile: str | None = None,
    hardware_id: str | None = None,
    status: Status | None = None,
) -> list[Thing]:
    """Return the Things that match all the given values, oldest first."""
    wanted = {"id": identity, "service": service, "profile": profile, "hardware_id": hardware_id, "status": status}
    given = {column: value for column, value in wanted.items() if value is not None}
    where = " AND ".join(f"{column} = :{column}" for column in given) or "1"
    rows = connection.execute(f"SELECT * FROM things WHERE {where} ORDER BY sequence", given)
    return [_thing(row) for row in rows]


def set_status(connection: sqlite3.Connection, identity: str, status: Status) -> Thing | None:
    """Activate or deactivate a Thing, as a user does in the portal; None if there is no such Thing."""
    connection.execute("UPDATE things SET status = ? WHERE id = ?", (status, identity))
    found = select(connection, identity=identity)
    return found[0] if found else None


def remove(connection: sqlite3.Connection, identity: str) -> bool:
    """Remove a Thing, which frees its hardware ID; return whether there was one."""
    return connection.execute("DELETE FROM things WHERE id = ?", (identity,)).rowcount > 0


def count_answer(connection: sqlite3.Connection, thing: Thing) -> None:
    """Record one more successful response for `thing`."""
    connection.execute("UPDATE things SET answered = answered + 1 WHERE id = ?", (thing.id,))


def revoked_serials(connection: sqlite3.Connection) -> list[int]:
    """Return the serial numbers of certificates whose Thing was deactivated."""
    return [int(thing.serial, 16) for thing in select(connection, status="deactivated") if thing.serial]


def _thing(row: sqlite3.Row) -> Thing:
    columns = {key: row[key] for key in row.keys() if key != "sequence"}  # noqa: SIM118 - a Row iterates over values
    return Thing(**{**columns, "tags": json.loads(row["tags"]), "credentials": json.loads(row["credentials"])})


def _mqtt_login() -> dict[str, str]:
    """Return a login of 20 upper-case alphanumerics and 40 characters of the base64 alphabet: seen in client code."""
    return {
        "username": _random(string.ascii_uppercase + string.digits, 20),
        "password": _random(ALPHANUMERIC + "+/", 40),
    }


def _ntrip_login() -> dict[str, str]:
    """Return a user name of 12 alphanumerics, and a password with symbols such as `&`: seen in client code.

    The platform's passwords have symbols sometimes; here every one has two, so that bad quoting cannot go unnoticed.
    """
    symbols = [secrets.choice("&%#+/"), secrets.choice("!?@:$=")]
    letters = list(_random(ALPHANUMERIC, 10)) + symbols
    secrets.SystemRandom().shuffle(letters)
    return {"username": _random(ALPHANUMERIC, 12), "password": "".join(letters)}


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _position in range(length))

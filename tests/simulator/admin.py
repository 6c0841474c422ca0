# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The simulator's own interface, under /simulator. Nothing here exists on the platform."""

from __future__ import annotations

import sqlite3
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from simulator import faults, pki, profiles, request_log, things
from simulator.faults import Fault, WaitingFault
from simulator.profiles import Profile, ProfileSettings, Service
from simulator.request_log import LoggedRequest
from simulator.schemas import Refusal
from simulator.store import Store, set_setting, setting
from simulator.things import Status, Thing

PREFIX = "/simulator"

YEAR = 365.25 * 86400


class Health(BaseModel):
    """That the server runs, and how much it holds."""

    status: str
    key_pool: int
    things: int
    requests: int


class RequestList(BaseModel):
    """Requests and their number."""

    count: int
    requests: list[LoggedRequest]


class PublicThing(BaseModel):
    """A Thing without its secrets; `serial` is its certificate's, in hexadecimal; `created` is simulated time."""

    model_config = ConfigDict(from_attributes=True)

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


class Clock(BaseModel):
    """How far the simulated clock is ahead of the real one."""

    offset_seconds: float = Field(default=0, strict=True, ge=-50 * YEAR, le=100 * YEAR)


class Settings(BaseModel):
    """Requests for no profile; a status of 422 is sent in that status's shape, the others as plain text."""

    unknown_token_status: int = Field(default=403, ge=400, le=499)


def router(store: Store) -> APIRouter:
    """Return the routes of the interface on `store`."""
    routes = APIRouter(prefix=PREFIX, tags=["simulator only"], responses={400: {"model": Refusal}})
    _add_observation(routes, store)
    _add_control(routes, store)
    return routes


def _add_observation(routes: APIRouter, store: Store) -> None:
    """Add what a test looks at: health, request log, Things."""

    @routes.get("/health")
    def health() -> Health:
        """Tell that the server runs."""
        with store.transaction() as connection:
            counts = {table: _count(connection, table) for table in ("things", "requests")}
            return Health(status="ok", key_pool=pki.pool_size(connection), **counts)

    @routes.get("/requests")
    def get_requests(
        service: Service | None = None,
        hardware_id: str | None = None,
        profile: str | None = None,
        thing: str | None = None,
        status: Annotated[int | None, Query(ge=100, le=599)] = None,
        after: Annotated[int, Query(ge=0, le=2**53, description="A sequence number")] = 0,
    ) -> RequestList:
        """List the requests to the platform's part of the server, oldest first."""
        wanted = {"service": service, "hardware_id": hardware_id, "profile": profile, "thing": thing, "status": status}
        with store.transaction() as connection:
            found = request_log.select(connection, after, **wanted)
        return RequestList(count=len(found), requests=found)

    @routes.delete("/requests", status_code=204, response_class=Response)
    def delete_requests() -> None:
        """Forget all requests."""
        with store.transaction() as connection:
            request_log.clear(connection)

    @routes.get("/things", response_model=list[PublicThing])
    def get_things(
        service: Service | None = None,
        hardware_id: str | None = None,
        profile: str | None = None,
        status: Status | None = None,
    ) -> list[Thing]:
        """List the Things, oldest first."""
        with store.transaction() as connection:
            return things.select(connection, service=service, hardware_id=hardware_id, profile=profile, status=status)

    @routes.post("/things/{identity}/activate", response_model=PublicThing, responses={404: {"model": Refusal}})
    def activate(identity: str) -> Thing:
        """Activate a Thing, as a user does in the portal."""
        return _set_status(store, identity, "active")

    @routes.post("/things/{identity}/deactivate", response_model=PublicThing, responses={404: {"model": Refusal}})
    def deactivate(identity: str) -> Thing:
        """Deactivate a Thing, as a user does in the portal."""
        return _set_status(store, identity, "deactivated")

    @routes.delete("/things/{identity}", status_code=204, response_class=Response, responses={404: {"model": Refusal}})
    def delete_thing(identity: str) -> None:
        """Remove a Thing, as a user does in the portal."""
        with store.transaction() as connection:
            removed = things.remove(connection, identity)
        if not removed:
            raise HTTPException(404, "no such Thing")


def _add_control(routes: APIRouter, store: Store) -> None:
    """Add what a test prepares: profiles, faults, clock, settings."""

    @routes.get("/profiles")
    def get_profiles() -> list[Profile]:
        """List the device profiles, with their tokens."""
        with store.transaction() as connection:
            return profiles.every(connection)

    @routes.put("/profiles/{name}", responses={409: {"model": Refusal}})
    def put_profile(name: Annotated[str, Path(min_length=1)], settings: ProfileSettings) -> Profile:
        """Add or replace a device profile."""
        try:
            with store.transaction() as connection:
                return profiles.put(connection, name, settings)
        except sqlite3.IntegrityError:
            raise HTTPException(409, "another profile has this token") from None

    @routes.get("/faults")
    def get_faults() -> list[WaitingFault]:
        """List the faults that wait, in order."""
        with store.transaction() as connection:
            return faults.every(connection)

    @routes.post("/faults", status_code=201)
    def post_fault(fault: Fault) -> WaitingFault:
        """Append a fault to the queue."""
        with store.transaction() as connection:
            return faults.add(connection, fault)

    @routes.delete("/faults", status_code=204, response_class=Response)
    def delete_faults() -> None:
        """Remove all faults."""
        with store.transaction() as connection:
            faults.clear(connection)

    @routes.get("/clock")
    def get_clock() -> Clock:
        """Tell the offset of the simulated clock."""
        with store.transaction() as connection:
            return Clock(offset_seconds=float(setting(connection, "clock_offset")))

    @routes.put("/clock")
    def put_clock(clock: Clock) -> Clock:
        """Set the offset of the simulated clock."""
        with store.transaction() as connection:
            set_setting(connection, "clock_offset", clock.offset_seconds)
        return clock

    @routes.get("/settings")
    def get_settings() -> Settings:
        """Tell the settings that belong to no profile."""
        with store.transaction() as connection:
            return Settings(unknown_token_status=int(setting(connection, "unknown_token_status")))

    @routes.put("/settings")
    def put_settings(settings: Settings) -> Settings:
        """Change the settings that belong to no profile."""
        with store.transaction() as connection:
            set_setting(connection, "unknown_token_status", settings.unknown_token_status)
        return settings


def _set_status(store: Store, identity: str, status: Status) -> Thing:
    with store.transaction() as connection:
        thing = things.set_status(connection, identity, status)
    if thing is None:
        raise HTTPException(404, "no such Thing")
    return thing


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

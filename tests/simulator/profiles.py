# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Device profiles: the settings of the platform's portal, and the switches that only the simulator has."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Service = Literal["pointperfect", "pointperfect-live", "cloudlocate"]

_MQTT_PLANS = ("mqtt", "lband", "both")

# Lower-case UUID: seen in client code ("Tokens are case sensitive. Must be lower case").
LOWER_CASE_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class SimulatorSwitches(BaseModel):
    """Simulator only: nothing in this group exists on the platform."""

    model_config = ConfigDict(extra="forbid")

    pending_calls: int = Field(
        default=0, ge=0, le=1_000_000, description="First N successful calls of a Thing lack credentials"
    )
    ntrip_shape: Literal["flat", "endpoints"] = Field(
        default="flat", description="'endpoints' is the shape of March 2025"
    )
    http_port_as: Literal["string", "number"] = Field(default="string", description="JSON type of httpPort")
    new_thing_on_repeat: bool | None = Field(
        default=None,
        strict=True,
        description="Each call creates a Thing; null means true for CloudLocate and false otherwise",
    )
    field_names: dict[str, str] = Field(
        default_factory=dict, description="Dotted path in the default response -> dotted path in the response sent"
    )
    certificate_days: float = Field(
        default=10950, strict=True, ge=-3650, le=36500, description="Validity of certificates, in days"
    )
    mismatched_pair: bool = Field(default=False, strict=True, description="privateKey does not belong to certificate")
    without_descriptions: bool = Field(default=False, strict=True, description="Subscriptions carry a path only")
    key_period_days: int = Field(default=28, ge=1, le=3650, description="Lifetime of a dynamic key, in days")
    host: str | None = Field(default=None, description="Host that responses point at; null means the platform's")
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Port that responses point at, where they name one"
    )
    mount_point: str | None = Field(default=None, description="NTRIP mount point; null means the platform's")


class PortalSettings(BaseModel):
    """The settings of the portal's device profile page (documented, unless a field says otherwise)."""

    model_config = ConfigDict(extra="forbid")

    service: Service = "pointperfect"
    format: Literal["SPARTN", "RTCM"] | None = Field(
        default=None, description="PointPerfect Flex only; null means what the client protocol delivers"
    )
    client_protocol: Literal["MQTT", "NTRIP"] | None = Field(
        default=None, description="PointPerfect Flex only; null means MQTT for a plan with MQTT or L-band, else NTRIP"
    )
    region: str | None = Field(
        default=None, description="PointPerfect Live only; its values are not public, and it has no effect (assumed)"
    )
    auto_activate: bool = True
    plan: Literal["mqtt", "lband", "both", "none"] | None = Field(
        default=None,
        description="Deliveries of the plan (the names are the simulator's); null means what the client protocol needs,"
        " and 'none' means no plan",
    )
    tags: list[str] = Field(default_factory=list)
    hardware_code_mandatory: bool = False
    allow_list: list[str] | None = Field(
        default=None, description="Hardware IDs that may be provisioned; null means all"
    )
    already_exists: Literal["error", "existing"] = "existing"
    status: Literal["enabled", "disabled"] = "enabled"
    simulator: SimulatorSwitches = Field(default_factory=SimulatorSwitches)

    @model_validator(mode="after")
    def _possible(self) -> PortalSettings:
        if self.service == "pointperfect" and self.format == "RTCM" and self.client_protocol == "MQTT":
            raise ValueError("RTCM is delivered by NTRIP, not by MQTT")
        return self


class ProfileSettings(PortalSettings):
    """The body of a request that adds or replaces a profile."""

    token: Annotated[str, Field(pattern=LOWER_CASE_UUID)] | None = Field(
        default=None, description="null keeps the token of an existing profile, or makes a new one"
    )


class Profile(PortalSettings):
    """A device profile as it is stored; the token is its only authentication."""

    name: str = Field(min_length=1)
    token: str = Field(pattern=LOWER_CASE_UUID)

    @property
    def over_ntrip(self) -> bool:
        """Whether the credentials are an NTRIP login rather than a certificate and a key."""
        if self.service == "pointperfect-live":
            return True
        if self.service == "cloudlocate" or self.client_protocol == "MQTT":
            return False
        return self.format == "RTCM" or self.client_protocol == "NTRIP" or self.plan not in _MQTT_PLANS

    @property
    def topics(self) -> Literal["mqtt", "lband", "both"]:
        """The plan that decides on the topics of a Thing with MQTT."""
        return "mqtt" if self.plan is None or self.plan == "none" else self.plan

    @property
    def creates_on_repeat(self) -> bool:
        """Whether a repeated hardware ID gets one more Thing (documented for CloudLocate)."""
        switch = self.simulator.new_thing_on_repeat
        return self.service == "cloudlocate" if switch is None else switch


def put(connection: sqlite3.Connection, name: str, settings: ProfileSettings) -> Profile:
    """Add or replace the profile `name`; raises sqlite3.IntegrityError if another profile has the token."""
    row = connection.execute("SELECT token FROM profiles WHERE name = ?", (name,)).fetchone()
    token = settings.token or (row["token"] if row else str(uuid.uuid4()))
    profile = Profile.model_validate({**settings.model_dump(), "name": name, "token": token})
    connection.execute(
        "INSERT INTO profiles (name, token, document) VALUES (:name, :token, :document)"
        " ON CONFLICT (name) DO UPDATE SET token = :token, document = :document",
        {"name": name, "token": token, "document": profile.model_dump_json()},
    )
    return profile


def by_token(connection: sqlite3.Connection, token: str) -> Profile | None:
    """Return the profile that `token` authenticates, of whatever service."""
    row = connection.execute("SELECT document FROM profiles WHERE token = ?", (token,)).fetchone()
    return Profile.model_validate_json(row["document"]) if row else None


def every(connection: sqlite3.Connection) -> list[Profile]:
    """Return all profiles by name."""
    rows = connection.execute("SELECT document FROM profiles ORDER BY name")
    return [Profile.model_validate_json(row["document"]) for row in rows]

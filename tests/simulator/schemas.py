# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The OpenAPI document of the platform's part of the server.

All fields of a successful response are optional: a Thing that is being activated has no credentials yet, and a profile
can rename fields.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from simulator.provision import GIVEN_NAME_LENGTH


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class DynamicKeyModel(_Open):
    """Milliseconds, milliseconds since the epoch, and 128 bits in hexadecimal (seen in client code)."""

    duration: int
    start: int
    value: str


class DynamicKeys(_Open):
    """The key in use and the one after it (seen in client code)."""

    current: DynamicKeyModel
    next: DynamicKeyModel


class Subscription(_Open):
    """One topic, or several joined by `;` without a description (seen in client code)."""

    description: str = ""
    path: str


class KeysResponse(_Open):
    """PointPerfect Flex, SPARTN over MQTT or L-band (seen in client code)."""

    certificate: str = ""
    privateKey: str = ""
    clientId: str = ""
    brokerHost: str = ""
    supportsMqtt: bool = False
    supportsLband: bool = False
    subscriptionsTitle: str = ""
    rotatingKeyTitle: str = ""
    subscriptions: list[Subscription] = []
    dynamickeys: DynamicKeys | None = None


class Caster(_Open):
    """An NTRIP caster of the old shape."""

    region: str
    endpoint: str
    httpPort: str | int


class NtripLogin(_Open):
    """An NTRIP login, in the shape of today or with the old list of casters (both seen in client code)."""

    endpoint: str = ""
    httpPort: str | int = ""
    endPoints: list[Caster] = []
    mountPoint: str = ""
    userName: str = ""
    password: str = ""


class NtripResponse(_Open):
    """PointPerfect Flex as RTCM (seen in client code); as SPARTN over NTRIP, and Live (assumed)."""

    rtcmCredentials: NtripLogin | None = None
    spartnCredentials: NtripLogin | None = None


class CloudLocateResponse(_Open):
    """CloudLocate (the content is documented, the names are assumed)."""

    hostname: str = ""
    port: int = 0
    clientId: str = ""
    username: str = ""
    password: str = ""


class Errors(BaseModel):
    """Refused fields, each as `<field> <problem>` (seen in client code)."""

    errors: list[str]


class Refusal(BaseModel):
    """Why the simulator's own interface refused a request."""

    detail: str


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


# Names are documented, and so is that only the token is always mandatory; the token's form and the length of givenName
# were seen in client code; that an empty hardwareId is refused is assumed.
CREDENTIALS_REQUEST: dict[str, Any] = {
    "title": "CredentialsRequest",
    "type": "object",
    "required": ["token"],
    "properties": {
        "token": {
            "type": "string",
            "pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
            "description": "The token of a device profile of this service",
        },
        "givenName": {
            "type": "string",
            "minLength": 1,
            "maxLength": GIVEN_NAME_LENGTH,
            "description": "Name of the Thing in the portal; need not be unique",
        },
        "hardwareId": {
            "type": "string",
            "minLength": 1,
            "description": "Identity of the device, such as its IMEI; mandatory if the profile says so",
        },
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Tags for the Thing"},
    },
}

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": CREDENTIALS_REQUEST}}}
}

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Errors, "description": "The body is not a JSON object (assumed)"},
    403: _text(
        "Device already registered; No plan for device device:<uuid>; Device hardware code not whitelisted (seen in"
        " client code). Invalid token; Device profile is disabled (assumed)"
    ),
    422: {"model": Errors, "description": "A field is refused (seen in client code for the token, otherwise assumed)"},
}

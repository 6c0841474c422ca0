# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Respond to a request as the platform does, within one transaction."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from simulator import dynamic_keys, pki, profiles, responses, store, things
from simulator.profiles import Profile, Service
from simulator.things import Thing

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
GIVEN_NAME_LENGTH = 50  # seen in client code


@dataclass(frozen=True)
class Answer:
    """A response: a `dict` is sent as JSON, a `str` as plain text. Profile and Thing are for the request log."""

    status: int
    content: dict[str, Any] | str
    profile: str | None = None
    thing: str | None = None


def parse(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `body`, or None if there is none."""
    try:
        document = json.loads(body)
        json.dumps(document, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def text(document: Mapping[str, Any] | None, field: str) -> str | None:
    """Return a string member of a document that may be anything."""
    value = (document or {}).get(field)
    return value if isinstance(value, str) else None


def tags(document: Mapping[str, Any] | None) -> list[str]:
    """Return the strings among the tags of a document that may be anything."""
    value = (document or {}).get("tags")
    return [tag for tag in value if isinstance(tag, str)] if isinstance(value, list) else []


def provision(
    connection: sqlite3.Connection, authority: pki.Authority, service: Service, document: Mapping[str, Any] | None
) -> Answer:
    """Answer a request whose body was `document` (None: not a JSON object), creating a Thing if one is due."""
    if document is None:
        return Answer(400, {"errors": ["body is not a JSON object"]})  # assumed
    errors = _field_errors(document)
    if errors:
        return Answer(422, {"errors": errors})
    profile = profiles.by_token(connection, document["token"])
    if profile is None or profile.service != service:
        return _unknown_token(connection)
    return replace(_for_profile(connection, authority, profile, document), profile=profile.name)


def _field_errors(document: Mapping[str, Any]) -> list[str]:
    """Return the errors of the fields.

    The shape `<field> <problem>` and the first text were seen in client code; everything else is assumed.
    """
    errors = []
    if not UUID.fullmatch(text(document, "token") or ""):
        errors.append("token invalid token format")
    if "givenName" in document and not 1 <= len(text(document, "givenName") or "") <= GIVEN_NAME_LENGTH:
        errors.append(f"givenName must be a string of 1 to {GIVEN_NAME_LENGTH} characters")
    if "hardwareId" in document and not text(document, "hardwareId"):
        errors.append("hardwareId must be a string that is not empty")
    if "tags" in document and tags(document) != document["tags"]:
        errors.append("tags must be a list of strings")
    return errors


def _unknown_token(connection: sqlite3.Connection) -> Answer:
    """Return the refusal of an unknown token, or of a token of another service; all of it is assumed."""
    status = int(store.setting(connection, "unknown_token_status"))
    return Answer(status, {"errors": ["token is not known"]} if status == 422 else "Invalid token")


def _for_profile(
    connection: sqlite3.Connection, authority: pki.Authority, profile: Profile, document: Mapping[str, Any]
) -> Answer:
    hardware_id = text(document, "hardwareId")
    if profile.status == "disabled":
        return Answer(403, "Device profile is disabled")  # assumed; that it is refused is documented
    if profile.hardware_code_mandatory and hardware_id is None:
        return Answer(422, {"errors": ["hardwareId is mandatory"]})  # assumed; that it is refused is documented
    if profile.allow_list is not None and hardware_id not in profile.allow_list:
        return Answer(403, "Device hardware code not whitelisted")  # seen in client code
    now = store.now(connection)
    known = None if profile.creates_on_repeat else things.newest(connection, profile.service, hardware_id)
    thing = known or things.create(
        connection, authority, profile, hardware_id, text(document, "givenName"), tags(document), now
    )
    return replace(_for_thing(connection, profile, thing, known is not None, now), thing=thing.id)


def _for_thing(connection: sqlite3.Connection, profile: Profile, thing: Thing, known: bool, now: float) -> Answer:
    """Return the response for a Thing. Texts of refusals were seen in client code; their order is assumed."""
    if thing.profile != profile.name:
        return Answer(403, "Device already registered")
    if thing.status == "deactivated" or profile.plan == "none":
        return Answer(403, f"No plan for device device:{thing.id}")
    if known and profile.already_exists == "error":
        return Answer(403, "Device already registered")
    ready = thing.status == "active" and thing.answered >= profile.simulator.pending_calls
    things.count_answer(connection, thing)
    keys = dynamic_keys.current_and_next(
        store.setting(connection, "key_seed"), responses.family_of(profile), now, profile.simulator.key_period_days
    )
    if profile.simulator.mismatched_pair and "private_key" in thing.credentials:
        other = pki.take_key_pair(connection).private_key
        thing = replace(thing, credentials={**thing.credentials, "private_key": other})
    # Assumed: name and tags of a Thing that exists already stay as they are.
    return Answer(200, responses.success(profile, thing, keys, ready))

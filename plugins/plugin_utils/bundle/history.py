# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of one path: the Things formerly in use there, and when the platform last confirmed the present one.

A generation never changes, but the state of its Thing does. So the history lies beside the generations and survives
their removal; the list in a record is a copy from the time when its generation was made. The history may name the Thing
that is in use: readers leave that one out, so that the history can be written before a switch.

Private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .dates import optional_timestamp, parse_date, timestamp
from .thing_id import ThingId, parse_thing_id, same_thing

MAX_THINGS = 200
MAX_DEACTIVATED = 20  # kept for a rollback, which refuses a deactivated Thing
MAX_TEXT = 256  # characters


@dataclass(frozen=True)
class FormerThing:
    """A Thing that was in use at a path, or that the platform made for it.

    :param thing_id: ``None`` where a damaged file does not name it.
    :param since: when it left use (aware).
    :param deactivated_at: when the user reported it as deactivated on the platform (aware).
    """

    thing_id: ThingId | None
    service: str | None
    hardware_id: str | None
    given_name: str | None
    since: datetime | None = None
    deactivated_at: datetime | None = None

    def same_thing(self, other: FormerThing) -> bool:
        """Return whether both name one Thing; unidentified ones do if all that is known of them is equal."""
        if self.thing_id is None and other.thing_id is None:
            return (self.service, self.hardware_id, self.given_name) == (
                other.service,
                other.hardware_id,
                other.given_name,
            )
        return same_thing(self.thing_id, other.thing_id)

    def to_dict(self) -> dict[str, str | None]:
        """Return what results and retirement lists show of it."""
        return {
            "client_id": self.thing_id.client_id if self.thing_id else None,
            "login_sha256": self.thing_id.login_sha256 if self.thing_id else None,
            "service": self.service,
            "hardware_id": self.hardware_id,
            "given_name": self.given_name,
            "since": optional_timestamp(self.since),
        }


@dataclass(frozen=True)
class Confirmation:
    """That the platform returned the installed credentials again.

    :param at: when (aware).
    :param identity_sha256: of which credentials, as the record says.
    """

    at: datetime
    identity_sha256: str


@dataclass(frozen=True)
class History:
    """The history of one path."""

    things: tuple[FormerThing, ...] = ()
    confirmation: Confirmation | None = None

    def retired(self, in_use: ThingId | None) -> tuple[FormerThing, ...]:
        """Return the Things that are neither in use nor deactivated."""
        return tuple(
            thing for thing in self.things if thing.deactivated_at is None and not same_thing(thing.thing_id, in_use)
        )

    def is_deactivated(self, thing_id: ThingId) -> bool:
        """Return whether the user reported a Thing as deactivated."""
        return any(thing.deactivated_at is not None and same_thing(thing.thing_id, thing_id) for thing in self.things)

    def leave(self, left: FormerThing, since: datetime) -> History:
        """Return the history once a Thing is no longer in use."""
        others = tuple(thing for thing in self.things if not thing.same_thing(left))
        return replace(self, things=_bounded((*others, replace(left, since=since, deactivated_at=None))))

    def note(self, things: Iterable[FormerThing], since: datetime) -> History:
        """Return the history with these Things, as far as it does not know them."""
        history = self
        for found in things:
            if not any(known.same_thing(found) for known in history.things):
                history = history.leave(found, since)
        return history

    def deactivate(self, things: Iterable[FormerThing], at: datetime) -> History:
        """Return the history once the user reported these Things as deactivated."""
        marked = tuple(things)
        entries = (
            replace(known, deactivated_at=at)
            if known.deactivated_at is None and any(known.same_thing(thing) for thing in marked)
            else known
            for known in self.things
        )
        return replace(self, things=_bounded(tuple(entries)))

    def confirm(self, identity_sha256: str, at: datetime) -> History:
        """Return the history once the platform has returned the installed credentials again."""
        return replace(self, confirmation=Confirmation(at, identity_sha256))

    def encode(self) -> str:
        """Return the content of ``history.json``: one line of ASCII."""
        content: dict[str, Any] = {
            "things": [
                {**thing.to_dict(), "deactivated_at": optional_timestamp(thing.deactivated_at)} for thing in self.things
            ]
        }
        if self.confirmation is not None:
            content["confirmed"] = {
                "at": timestamp(self.confirmation.at),
                "identity_sha256": self.confirmation.identity_sha256,
            }
        return json.dumps(content, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> History | None:
        """Return the usable parts of ``history.json``, or ``None`` if it is none; a gateway is not trusted."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(content, dict):
            return None
        return cls(parse_things(content.get("things")), _confirmation(content.get("confirmed")))


def parse_things(value: object) -> tuple[FormerThing, ...]:
    """Return the Things that a list out of a gateway's file or a user's variable names, bounded in number and size."""
    entries = value if isinstance(value, list) else []
    return tuple(_thing(entry) for entry in entries if _names_a_thing(entry))[-MAX_THINGS:]


def _names_a_thing(entry: object) -> bool:
    """Return whether an entry can name a Thing; one with an ID that is none would name another Thing without it."""
    if not isinstance(entry, dict):
        return False
    thing_id = parse_thing_id(entry.get("client_id"), entry.get("login_sha256"))
    client_id = thing_id.client_id if thing_id else None
    return entry.get("client_id") in (None, client_id)


def _thing(entry: Mapping[str, Any]) -> FormerThing:
    return FormerThing(
        thing_id=parse_thing_id(entry.get("client_id"), entry.get("login_sha256")),
        service=_text(entry.get("service")),
        hardware_id=_text(entry.get("hardware_id")),
        given_name=_text(entry.get("given_name")),
        since=_date(entry.get("since")),
        deactivated_at=_date(entry.get("deactivated_at")),
    )


def _confirmation(value: object) -> Confirmation | None:
    if not isinstance(value, dict):
        return None
    at, identity = _date(value.get("at")), value.get("identity_sha256")
    return Confirmation(at, identity) if at is not None and isinstance(identity, str) else None


def _bounded(things: tuple[FormerThing, ...]) -> tuple[FormerThing, ...]:
    deactivated = [thing for thing in things if thing.deactivated_at is not None][-MAX_DEACTIVATED:]
    return tuple(thing for thing in things if thing.deactivated_at is None or thing in deactivated)[-MAX_THINGS:]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() and len(value) <= MAX_TEXT else None


def _date(value: object) -> datetime | None:
    try:
        return parse_date(value)
    except ValueError:
        return None

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognize a Thing that several places of a fleet name: records, retirement lists, the ledger.

Private to the collection.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

# Host to the ``bundles`` in the result of ``thingstream_ztp_info``; ``None`` for a gateway that was not seen.
Bundles = Mapping[str, Sequence[Mapping[str, Any]] | None]

Value = TypeVar("Value")
Name = tuple[str, ...]  # one of ``NAMES`` and its value, for a hardware ID with the service

# By what a Thing is recognized, the most reliable first.
NAMES = ("client_id", "login_sha256", "hardware_id")


@dataclass(frozen=True)
class Thing:
    """The names of a Thing. A name that is empty or ``None`` is unknown.

    :param login_sha256: the fingerprint of the login of a Thing for which the platform sends no client ID (NTRIP).
    """

    service: str | None = None
    client_id: str | None = None
    login_sha256: str | None = None
    hardware_id: str | None = None
    given_name: str | None = None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Thing:
        """Return the Thing that a record or an entry of a list names; values that are no text are unknown."""
        return cls(
            service=_text(values.get("service")),
            client_id=_text(values.get("client_id")),
            login_sha256=_text(values.get("login_sha256")),
            hardware_id=_text(values.get("hardware_id")),
            given_name=_text(values.get("given_name")),
        )

    def same_as(self, other: Thing) -> bool:
        """Return whether both are one Thing.

        Client IDs decide where both are known, and logins where both are known. A Thing of which neither is known is
        recognized by service and hardware ID.
        """
        if self.client_id and other.client_id:
            return normalize(self.client_id) == normalize(other.client_id)
        if self.login_sha256 and other.login_sha256:
            return self.login_sha256 == other.login_sha256
        if self._is_identified and other._is_identified:
            return False
        return bool(self.hardware_id) and (self.service, self.hardware_id) == (other.service, other.hardware_id)

    def names(self) -> Iterator[Name]:
        """Yield names, of which the same Things have at least one in common."""
        if self.client_id:
            yield ("client_id", normalize(self.client_id))
        if self.login_sha256:
            yield ("login_sha256", self.login_sha256)
        if self.hardware_id:
            yield ("hardware_id", self.service or "", self.hardware_id)

    @property
    def _is_identified(self) -> bool:
        return bool(self.client_id or self.login_sha256)


@dataclass(frozen=True)
class UsedThing:
    """A Thing that is in use at a path of a host."""

    thing: Thing
    host: str
    path: str


def things_in_use(bundles: Bundles) -> list[UsedThing]:
    """Return the Things that the gateways use, as far as they were seen."""
    return [
        UsedThing(Thing.parse(bundle["thing"]), host, bundle["path"])
        for host, found in bundles.items()
        for bundle in found or ()
        if bundle.get("thing")
    ]


class ThingIndex(Generic[Value]):
    """Things with a value each, found by any of their names."""

    def __init__(self, things: Iterable[tuple[Thing, Value]]) -> None:
        self._by_name: dict[Name, list[tuple[Thing, Value]]] = defaultdict(list)
        for thing, value in things:
            for name in thing.names():
                self._by_name[name].append((thing, value))

    def find(self, thing: Thing) -> Iterator[Value]:
        """Yield the value of each entry that is the same Thing; one that has several names in common repeatedly."""
        for name in thing.names():
            for found, value in self._by_name.get(name, ()):
                if found.same_as(thing):
                    yield value


@lru_cache(maxsize=1 << 16)
def normalize(name: str) -> str:
    """Return a name as a search in the portal compares it; letter case and punctuation do not matter there."""
    text = name if name.isascii() else unicodedata.normalize("NFKC", name)
    text = text.casefold().removeprefix("device:")
    return "".join(filter(str.isalnum, text)) or text


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the Things that several gateways use at the same time.

Private to the collection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .things import NAMES, Name, Thing, UsedThing

Place = tuple[str, str]  # host and path

SHARED_COLUMNS = ("service", "client_id", "hardware_id", "hosts")


@dataclass(frozen=True)
class SharedThing:
    """A client ID, a login, or a hardware ID for one service, that several hosts use.

    A name is ``None`` if the hosts do not agree on it.

    :param hosts: sorted.
    """

    service: str | None
    client_id: str | None
    hardware_id: str | None
    hosts: tuple[str, ...]
    places: frozenset[Place]

    def to_dict(self) -> dict[str, Any]:
        """Return the values of ``SHARED_COLUMNS``."""
        return {
            "service": self.service,
            "client_id": self.client_id,
            "hardware_id": self.hardware_id,
            "hosts": list(self.hosts),
        }


def shared_things(in_use: Iterable[UsedThing]) -> list[SharedThing]:
    """Return the Things that several hosts use, sorted by hosts."""
    users: dict[Name, list[UsedThing]] = defaultdict(list)
    for used in in_use:
        for name in _names(used.thing):
            users[name].append(used)
    shared = [
        _shared(members)
        for name, members in users.items()
        if len({used.host for used in members}) > 1 and not _has_better_name(name, members)
    ]
    return sorted(shared, key=lambda found: (found.hosts, found.service or "", found.client_id or ""))


def _names(thing: Thing) -> set[Name]:
    """Return the hardware ID of a Thing and the name that identifies it: its login only if it has no client ID."""
    names = list(thing.names())
    return {*names[:1], *(name for name in names if name[0] == "hardware_id")}


def _has_better_name(name: Name, members: Sequence[UsedThing]) -> bool:
    """Return whether the same members also share a name that comes earlier in ``NAMES``."""
    better = NAMES[: NAMES.index(name[0])]
    names = [{found for found in _names(used.thing) if found[0] in better} for used in members]
    return bool(set.intersection(*names))


def _shared(members: Sequence[UsedThing]) -> SharedThing:
    return SharedThing(
        service=_common([used.thing.service for used in members]),
        client_id=_common([used.thing.client_id for used in members]),
        hardware_id=_common([used.thing.hardware_id for used in members]),
        hosts=tuple(sorted({used.host for used in members})),
        places=frozenset((used.host, used.path) for used in members),
    )


def _common(values: Sequence[str | None]) -> str | None:
    return values[0] if len(set(values)) == 1 else None

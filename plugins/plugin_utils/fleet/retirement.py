# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gather the retirement lists of a fleet: the Things that the user has to deactivate on the platform.

A list is a claim of its gateway. A compromised gateway can list Things of other gateways, so Things in use are
separated from the others.

Private to the collection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from .things import Bundles, Thing, UsedThing, normalize, things_in_use

RETIRED_COLUMNS = (
    "client_id",
    "hardware_id",
    "service",
    "given_name",
    "since",
    "host",
    "path",
    "login_sha256",
    "from_ledger",
)

# The names by which a user finds a Thing on the platform; the first that is known counts.
_SEARCH_NAMES = ("client_id", "hardware_id", "given_name")

Name = tuple[str, str]  # one of ``_SEARCH_NAMES`` and its normalized value


@dataclass(frozen=True)
class RetiredThing:
    """A Thing that is no longer in use at a path of a host.

    :param since: when it left use, in UTC, if that is known.
    :param from_ledger: whether only the ledger of the controller knows it, because its host no longer does.
    """

    thing: Thing
    since: str | None
    host: str
    path: str
    from_ledger: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the values of ``RETIRED_COLUMNS``."""
        return {
            "client_id": self.thing.client_id,
            "hardware_id": self.thing.hardware_id,
            "service": self.thing.service,
            "given_name": self.thing.given_name,
            "since": self.since,
            "host": self.host,
            "path": self.path,
            "login_sha256": self.thing.login_sha256,
            "from_ledger": self.from_ledger,
        }


@dataclass(frozen=True)
class Conflict:
    """An entry of a retirement list whose Thing is in use, so that it must not be deactivated.

    :param used_by: the sorted names of the hosts that use it.
    """

    entry: RetiredThing
    used_by: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the values of ``RETIRED_COLUMNS`` and ``used_by``."""
        return {**self.entry.to_dict(), "used_by": list(self.used_by)}


def retirement_list(bundles: Bundles) -> list[dict[str, Any]]:
    """Return the Things on the retirement lists of a fleet that no gateway uses.

    :param bundles: host to the ``bundles`` in the result of ``thingstream_ztp_info``; ``None`` without a result.
    :returns: entries with ``RETIRED_COLUMNS``, the longest retired first.
    """
    retired, _conflicts = gather(bundles, things_in_use(bundles))
    return [entry.to_dict() for entry in retired]


def retirement_conflicts(bundles: Bundles) -> list[dict[str, Any]]:
    """Return the entries of retirement lists whose Things are in use; ``retirement_list`` omits them.

    :param bundles: as for ``retirement_list``.
    :returns: entries with ``RETIRED_COLUMNS``, and ``used_by``, a sorted list of hosts.
    """
    _retired, conflicts = gather(bundles, things_in_use(bundles))
    return [conflict.to_dict() for conflict in conflicts]


def gather(
    bundles: Bundles, in_use: Iterable[UsedThing], from_ledger: Iterable[RetiredThing] = ()
) -> tuple[list[RetiredThing], list[Conflict]]:
    """Return the Things to deactivate, the longest retired first, and the entries whose Things are in use.

    :param in_use: the Things in use on the gateways of ``bundles``.
    :param from_ledger: entries in addition to those of the retirement lists.
    """
    entries = sorted((*_listed(bundles), *from_ledger), key=_order)
    users = _users(in_use, {_search_name(entry.thing) for entry in entries})
    retired, conflicts = [], []
    for entry in entries:
        used_by = _used_by(entry, users)
        if used_by:
            conflicts.append(Conflict(entry, used_by))
        else:
            retired.append(entry)
    return retired, conflicts


def _listed(bundles: Bundles) -> Iterable[RetiredThing]:
    for host, found in bundles.items():
        for bundle in found or ():
            for entry in bundle["retired"]:
                yield RetiredThing(Thing.parse(entry), entry.get("since"), host, bundle["path"])


def _order(entry: RetiredThing) -> tuple[str, str, str]:
    return str(entry.since or ""), entry.host, entry.thing.client_id or ""


def _search_name(thing: Thing) -> Name | None:
    """Return the name by which a user finds a Thing; ``None`` if it has none."""
    return next(_search_names(thing), None)


def _search_names(thing: Thing) -> Iterator[Name]:
    for name in _SEARCH_NAMES:
        value = getattr(thing, name)
        if value:
            yield name, normalize(value)


def _users(in_use: Iterable[UsedThing], wanted: Set[Name | None]) -> Mapping[Name, Sequence[UsedThing]]:
    """Return the Things in use by each of the wanted names."""
    users = defaultdict(list)
    for used in in_use:
        for name in _search_names(used.thing):
            if name in wanted:
                users[name].append(used)
    return users


def _used_by(entry: RetiredThing, users: Mapping[Name, Sequence[UsedThing]]) -> tuple[str, ...]:
    """Return the hosts that use a Thing of this name, for any service.

    On the host of the entry itself, the Thing must be the same: its hardware ID may now name another Thing.
    """
    name = _search_name(entry.thing)
    found = users.get(name, ()) if name is not None else ()
    return tuple(sorted({used.host for used in found if used.host != entry.host or used.thing.same_as(entry.thing)}))

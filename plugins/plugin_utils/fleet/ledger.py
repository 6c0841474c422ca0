# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the Things that only the ledger of the controller still knows.

Their gateways were wiped, re-imaged, destroyed or removed from the inventory. A Thing is reported as gone only if no
gateway that was not seen can still use it.

Private to the collection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ..bundle.dates import optional_timestamp, timestamp
from ..spool.ledger import PENDING, LedgerEntry
from .retirement import RetiredThing
from .things import Bundles, Thing, ThingIndex, UsedThing

Status = Literal["removed", "missing", "unreachable", "left"]

# Things with the last status are presumably in use; the user has to deactivate the others.
STATUSES: tuple[Status, ...] = ("removed", "missing", "left", "unreachable")
GONE = STATUSES[:3]

LEDGER_COLUMNS = (
    "status",
    "host",
    "path",
    "service",
    "client_id",
    "hardware_id",
    "given_name",
    "received_at",
    "delivered_at",
    "left_at",
)


@dataclass(frozen=True)
class Inventory:
    """The hosts of the inventory.

    :param hosts: the names of all of them, including those that are not in the audit.
    :param hardware_ids: host to its configured hardware ID, where one is known.
    """

    hosts: Set[str] = frozenset()
    hardware_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LedgerRow:
    """A Thing that only the ledger knows.

    :param status: ``removed``: its host is not in the inventory. ``missing``: its host was seen and does not have it.
        ``left``: it left use, and its host was seen and does not list it. ``unreachable``: a gateway that was not seen
        presumably uses it.
    """

    status: Status
    thing: Thing
    host: str
    path: str
    received_at: datetime
    delivered_at: datetime | None
    left_at: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return the values of ``LEDGER_COLUMNS``."""
        return {
            "status": self.status,
            "host": self.host,
            "path": self.path,
            "service": self.thing.service,
            "client_id": self.thing.client_id,
            "hardware_id": self.thing.hardware_id,
            "given_name": self.thing.given_name,
            "received_at": timestamp(self.received_at),
            "delivered_at": optional_timestamp(self.delivered_at),
            "left_at": optional_timestamp(self.left_at),
        }


def ledger_rows(
    entries: Iterable[LedgerEntry],
    bundles: Bundles,
    in_use: Iterable[UsedThing],
    spool_files: Set[str],
    inventory: Inventory,
) -> list[LedgerRow]:
    """Return the Things of the ledger that are not deactivated, and that neither a gateway nor the spool has.

    A Thing of a host that is in the inventory but not in the audit is omitted: nothing is known about it.

    :param entries: the ledger.
    :param in_use: the Things in use on the gateways of ``bundles``.
    :param spool_files: the names of the files of the spool that contain responses.
    """
    open_entries = [entry for entry in entries if entry.deactivated_at is None]
    if not open_entries:
        return []
    fleet = _Fleet(open_entries, bundles, in_use, inventory)
    rows = []
    for entry in open_entries:
        thing = thing_of(entry)
        if entry.response in spool_files or fleet.knows(thing):
            continue
        status = fleet.status(entry, thing)
        if status is not None:
            dates = entry.received_at, entry.delivered_at, entry.left_at
            rows.append(LedgerRow(status, thing, entry.host, entry.path, *dates))
    return sorted(rows, key=lambda row: (STATUSES.index(row.status), row.host, row.path, row.received_at))


def retired_in_ledger(rows: Iterable[LedgerRow]) -> list[RetiredThing]:
    """Return those of the rows that the user has to deactivate, as entries of a retirement list."""
    return [
        RetiredThing(row.thing, optional_timestamp(row.left_at), row.host, row.path, from_ledger=True)
        for row in rows
        if row.status in GONE
    ]


def thing_of(entry: LedgerEntry) -> Thing:
    """Return the names of the Thing of an entry."""
    return Thing(entry.service, entry.client_id, entry.login_sha256, entry.hardware_id, entry.given_name)


class _Fleet:
    """The findings of an audit, and the places in which an unseen Thing can be."""

    def __init__(
        self,
        open_entries: Sequence[LedgerEntry],
        bundles: Bundles,
        in_use: Iterable[UsedThing],
        inventory: Inventory,
    ) -> None:
        self._bundles = bundles
        self._hosts = inventory.hosts | bundles.keys()
        found = [(host, bundle) for host, seen in bundles.items() for bundle in seen or ()]
        used = [used.thing for used in in_use]
        listed = [Thing.parse(entry) for _host, bundle in found for entry in bundle["retired"]]
        self._known = ThingIndex((thing, True) for thing in (*used, *listed))
        self._readable_paths = {(host, bundle["path"]) for host, bundle in found if _is_readable(bundle)}
        self._not_left = ThingIndex((thing_of(entry), entry) for entry in open_entries if entry.left_at is None)
        self._unseen_by_hardware_id: dict[str, list[str]] = defaultdict(list)
        for host, hardware_id in inventory.hardware_ids.items():
            if bundles.get(host) is None:
                self._unseen_by_hardware_id[hardware_id].append(host)

    def knows(self, thing: Thing) -> bool:
        """Return whether a gateway that was seen uses the Thing or lists it as retired."""
        return any(self._known.find(thing))

    def status(self, entry: LedgerEntry, thing: Thing) -> Status | None:
        """Return the status of a Thing that no seen gateway has; ``None`` if it is not a subject of the audit."""
        unseen = self._unseen_hosts(entry, thing)
        if unseen:
            return "unreachable" if unseen & self._bundles.keys() else None
        if entry.host not in self._hosts:
            return "removed"
        if entry.left_at is not None:
            return "left"
        # The host of a Thing that the platform has not activated yet waits for it.
        return None if entry.response == PENDING else "missing"

    def _unseen_hosts(self, entry: LedgerEntry, thing: Thing) -> set[str]:
        """Return the hosts that may use the Thing although the audit has not seen it there.

        These are its own host, other hosts that received it, and hosts that are configured with its hardware ID, for
        example because a gateway was renamed in the inventory.
        """
        holders = (entry, *self._not_left.find(thing))
        unseen = {
            holder.host
            for holder in holders
            if holder.host in self._hosts and (holder.host, holder.path) not in self._readable_paths
        }
        return unseen | set(self._unseen_by_hardware_id.get(entry.hardware_id or "", ()))


def _is_readable(bundle: Mapping[str, Any]) -> bool:
    """Return whether a path shows which Things it has: a damaged one may have any."""
    if bundle["present"]:
        return bool(bundle.get("thing"))
    return not bundle.get("generations")

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums up what was found and done over a fleet: pure functions over the results of tasks, which hold no secret.

Private to the collection.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..bundle import history

COUNTS = ("hosts", "due", "renewed", "unchanged", "repaired", "not_due", "failed")
RETIRED_COLUMNS = ("client_id", "hardware_id", "service", "given_name", "since", "host", "path")

# By what somebody finds a Thing on the platform; the first that an entry has is its name.
_FOUND_BY = ("client_id", "hardware_id", "given_name")

Bundles = Mapping[str, "Sequence[Mapping[str, Any]] | None"]


def summary(results: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Counts what ``thingstream_ztp`` did on each host of a fleet.

    :param results: its results, failed ones among them; empty for a host that has none.
    :returns: ``hosts`` = ``failed`` + ``not_due`` + ``due``; ``due`` = ``renewed`` (another identity or newer keys) +
        ``unchanged`` (the platform returned the same) + ``repaired`` (without the platform); ``reasons`` of those that
        were due; ``next_due_at`` in UTC or ``None``.
    """
    known = [result or {} for result in results]
    sound = [result for result in known if "action" in result and not result.get("failed")]
    actions = Counter("renewed" if _is_new(result) else result["action"] for result in sound)
    due = [result for result in sound if result["action"] != "none"]
    return {
        "hosts": len(known),
        "due": len(due),
        "renewed": actions["renewed"],
        "unchanged": actions["unchanged"],
        "repaired": actions["repaired"],
        "not_due": actions["none"],
        "failed": len(known) - len(sound),
        "reasons": dict(sorted(Counter(str(result["reason"]) for result in due).items())),
        "next_due_at": min((result["due_at"] for result in sound if result.get("due_at")), default=None),
    }


def total(summaries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds up the summaries of parts of a fleet, such as the slices of a job.

    :param summaries: as ``summary`` returns them.
    :returns: the same as ``summary`` over all hosts at once.
    """
    parts = list(summaries)
    return {
        **{name: sum(part[name] for part in parts) for name in COUNTS},
        "reasons": dict(sorted(sum((Counter(part["reasons"]) for part in parts), Counter[str]()).items())),
        "next_due_at": min((part["next_due_at"] for part in parts if part["next_due_at"]), default=None),
    }


def _is_new(result: Mapping[str, Any]) -> bool:
    return result["action"] in ("created", "renewed", "refreshed")


def retirement_list(bundles: Bundles) -> list[dict[str, Any]]:
    """The Things of a fleet that nobody uses and nobody has marked as deactivated, in a stable order.

    :param bundles: host to the ``bundles`` that ``thingstream_ztp_info`` returned, or ``None`` if it could not.
    :returns: entries with ``RETIRED_COLUMNS``.
    """
    users = _users(bundles)
    return [entry for entry in _retired(bundles) if not _used_by(entry, users)]


def retirement_conflicts(bundles: Bundles) -> list[dict[str, Any]]:
    """What is on the list of one gateway while another one uses it, and must not be deactivated.

    A list is what its gateway says. One that somebody has taken over can name the Things of others.

    :param bundles: as for ``retirement_list``, which leaves these out.
    :returns: entries with ``RETIRED_COLUMNS``, and ``used_by``, a sorted list of hosts.
    """
    users = _users(bundles)
    return [{**entry, "used_by": used_by} for entry in _retired(bundles) if (used_by := _used_by(entry, users))]


def _retired(bundles: Bundles) -> list[dict[str, Any]]:
    entries = [
        {**dict.fromkeys(RETIRED_COLUMNS), **thing, "host": host, "path": bundle["path"]}
        for host, found in bundles.items()
        for bundle in found or ()
        for thing in bundle["retired"]
    ]
    return sorted(entries, key=lambda entry: tuple(str(entry[name] or "") for name in ("since", "host", "client_id")))


def _users(bundles: Bundles) -> Mapping[tuple[str, str], Sequence[tuple[str, Mapping[str, Any]]]]:
    """A name of a Thing to the hosts that use it, each with its record."""
    users = defaultdict(list)
    for host, found in bundles.items():
        for bundle in found or ():
            thing = bundle.get("thing") or {}
            for name in _FOUND_BY:
                if thing.get(name):
                    users[name, _spelled(thing[name])].append((host, thing))
    return users


def _used_by(
    entry: Mapping[str, Any], users: Mapping[tuple[str, str], Sequence[tuple[str, Mapping[str, Any]]]]
) -> list[str]:
    """Who uses the Thing of an entry, whatever service it claims; a gateway itself may use its name for another one."""
    name = next((name for name in _FOUND_BY if entry[name]), None)
    found = users.get((name, _spelled(entry[name])), ()) if name else ()
    return sorted({host for host, thing in found if host != entry["host"] or history.same_thing(thing, entry)})


def _spelled(name: str) -> str:
    """A name as a search would find it: in the portal, the spelling of a client ID does not matter."""
    text = unicodedata.normalize("NFKC", name).casefold().removeprefix("device:")
    return "".join(filter(str.isalnum, text)) or text


def to_csv(entries: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A table in CSV (RFC 4180) with a header; a text that a spreadsheet would take for a formula is quoted."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for entry in entries:
        writer.writerow([_cell(entry.get(name)) for name in columns])
    return text.getvalue()


def _cell(value: Any) -> str:
    shown = "" if value is None else str(value)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@", "\t", "\r")) else shown

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sum up the results of ``thingstream_ztp`` over a fleet.

Private to the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

COUNTS = ("hosts", "due", "renewed", "unchanged", "repaired", "not_due", "failed")

_NEW_CREDENTIALS = ("created", "renewed", "refreshed")  # actions that installed another Thing or newer keys


def summary(results: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Count what ``thingstream_ztp`` did on each host of a fleet.

    :param results: one result for each host, including failed ones; empty for a host without a result.
    :returns: ``hosts`` = ``failed`` + ``not_due`` + ``due``; ``due`` = ``renewed`` (another Thing or newer keys) +
        ``unchanged`` (the platform returned the same) + ``repaired`` (without the platform); ``reasons`` of the hosts
        that were due; ``next_due_at`` in UTC or ``None``.
    """
    known = [result or {} for result in results]
    succeeded = [result for result in known if "action" in result and not result.get("failed")]
    actions = Counter("renewed" if result["action"] in _NEW_CREDENTIALS else result["action"] for result in succeeded)
    due = [result for result in succeeded if result["action"] != "none"]
    return {
        "hosts": len(known),
        "due": len(due),
        "renewed": actions["renewed"],
        "unchanged": actions["unchanged"],
        "repaired": actions["repaired"],
        "not_due": actions["none"],
        "failed": len(known) - len(succeeded),
        "reasons": dict(sorted(Counter(str(result["reason"]) for result in due).items())),
        "next_due_at": min((result["due_at"] for result in succeeded if result.get("due_at")), default=None),
    }


def total(summaries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the summaries of parts of a fleet, for example of the slices of a job.

    :param summaries: results of ``summary``. An empty one adds nothing.
    :returns: the same as ``summary`` over all hosts.
    """
    parts = [part for part in summaries if part]
    return {
        **{name: sum(part[name] for part in parts) for name in COUNTS},
        "reasons": dict(sorted(sum((Counter(part["reasons"]) for part in parts), Counter[str]()).items())),
        "next_due_at": min((part["next_due_at"] for part in parts if part["next_due_at"]), default=None),
    }

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the report of an audit: pure functions over results that contain no secret.

Private to the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from ..bundle.dates import timestamp
from ..spool.ledger import LedgerEntry
from .gateway_rows import STATES, UNSEEN, GatewayRow, gateway_rows, seen_bundles
from .ledger import STATUSES, Inventory, LedgerRow, ledger_rows, retired_in_ledger
from .retirement import Conflict, RetiredThing, gather
from .shared import SharedThing, shared_things
from .text import clean
from .things import things_in_use
from .timeline import timeline


@dataclass(frozen=True)
class SpoolSurvey:
    """The content of this controller's spool, without any secret.

    :param responses: a row for each response that waits for its gateway; ``file`` is its path.
    :param abandoned_requests: a row for each request that may have created a Thing and whose run ended without a
        response.
    :param ledger: the Things that this controller received.
    :param error: why a spool could not be read.
    """

    responses: Sequence[Mapping[str, Any]] = ()
    abandoned_requests: Sequence[Mapping[str, Any]] = ()
    ledger: Sequence[LedgerEntry] = ()
    error: str | None = None


@dataclass(frozen=True)
class Totals:
    """The figures of a report.

    :param states: state to number of rows, for each of ``STATES``.
    :param ledger: status to number of Things that only the ledger knows, for each of ``STATUSES``.
    """

    gateways: int
    states: Mapping[str, int]
    retired: int
    conflicts: int
    shared: int
    ledger: Mapping[str, int]
    spool: int
    abandoned_requests: int
    next_due_at: str | None
    next_end_at: str | None


@dataclass(frozen=True)
class Report:
    """The report of an audit.

    :param complete: whether every gateway and the spool were seen.
    :param timeline: ``weeks`` and ``months``: periods with the number of each of ``EVENTS``.
    """

    generated_at: datetime
    complete: bool
    totals: Totals
    timeline: Mapping[str, Sequence[Mapping[str, Any]]]
    gateways: Sequence[GatewayRow]
    retired: Sequence[RetiredThing]
    conflicts: Sequence[Conflict]
    shared: Sequence[SharedThing]
    ledger: Sequence[LedgerRow]
    spool: SpoolSurvey

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON contains it."""
        return {
            "report_version": 1,
            "generated_at": timestamp(self.generated_at),
            "complete": self.complete,
            "totals": asdict(self.totals),
            "timeline": self.timeline,
            "gateways": [row.to_dict() for row in self.gateways],
            "retired": [clean(entry.to_dict()) for entry in self.retired],
            "conflicts": [clean(conflict.to_dict()) for conflict in self.conflicts],
            "shared": [clean(found.to_dict()) for found in self.shared],
            "ledger": [clean(row.to_dict()) for row in self.ledger],
            "spool": [dict(row) for row in self.spool.responses],
            "abandoned_requests": [dict(row) for row in self.spool.abandoned_requests],
            "spool_error": self.spool.error,
        }


def fleet_report(
    results: Mapping[str, Mapping[str, Any] | None],
    spool: SpoolSurvey,
    now: datetime,
    inventory: Inventory | None = None,
    verifications: Mapping[str, Mapping[str, Any] | None] | None = None,
) -> Report:
    """Return the report on a fleet.

    :param results: host to the result of ``thingstream_ztp_info``, including failed and unreachable ones; ``None`` or
        empty for a host without a result.
    :param now: aware.
    :param inventory: by default, the hosts of the results.
    :param verifications: host to the result of ``thingstream_verify``, where there is one.
    """
    inventory = inventory or Inventory()
    bundles = {host: seen_bundles(result) for host, result in results.items()}
    files = {PurePath(str(row["file"])).name.lstrip(".") for row in spool.responses}
    in_use = things_in_use(bundles)
    gone = ledger_rows(spool.ledger, bundles, in_use, files, inventory)
    retired, conflicts = gather(bundles, in_use, retired_in_ledger(gone))
    shared = shared_things(in_use)
    rows = gateway_rows(results, shared, inventory.hardware_ids, verifications or {}, timestamp(now))
    states = Counter(row.state for row in rows)
    statuses = Counter(row.status for row in gone)
    totals = Totals(
        gateways=len(results),
        states={state: states[state] for state in STATES},
        retired=len(retired),
        conflicts=len(conflicts),
        shared=len(shared),
        ledger={status: statuses[status] for status in STATUSES},
        spool=len(spool.responses),
        abandoned_requests=len(spool.abandoned_requests),
        next_due_at=_earliest(row.due_at for row in rows),
        next_end_at=_earliest(end for row in rows for end in (row.not_after, row.keys_expire_at)),
    )
    return Report(
        generated_at=now,
        complete=not any(states[state] for state in UNSEEN) and spool.error is None,
        totals=totals,
        timeline=timeline(rows, now),
        gateways=rows,
        retired=retired,
        conflicts=conflicts,
        shared=shared,
        ledger=gone,
        spool=spool,
    )


def _earliest(dates: Iterable[str | None]) -> str | None:
    return min((date for date in dates if date), default=None)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the certificates and keys that end, and the renewals that become due, in the coming weeks and months.

Private to the collection.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from ..bundle.dates import timestamp
from .gateway_rows import GatewayRow

EVENTS = {"certificates": "not_after", "keys": "keys_expire_at", "renewals": "due_at"}
WEEKS = 12
MONTHS = 12


def timeline(rows: Sequence[GatewayRow], now: datetime) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return the periods of ``weeks`` and of ``months``.

    :param now: aware.
    :returns: for each period its first day as ``from``, and the number of each of ``EVENTS``; the first period is
        ``overdue``, the last one ``later``.
    """
    today = timestamp(now)
    return {"weeks": _periods(rows, today, _weeks(now)), "months": _periods(rows, today, _months(now))}


def _periods(rows: Sequence[GatewayRow], now: str, starts: Sequence[date]) -> list[dict[str, Any]]:
    """Return how many of each of ``EVENTS`` are past, in each period, and after the last one.

    :param starts: the first day of each period, and the first day after the last one.
    """
    labels = [start.isoformat() for start in starts]
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for event, name in EVENTS.items():
            when = getattr(row, name)
            if when:
                counts["overdue" if when <= now else _period(when, labels), event] += 1
    periods = ["overdue", *labels[:-1], "later"]
    return [{"from": period, **{event: counts[period, event] for event in EVENTS}} for period in periods]


def _period(when: str, labels: Sequence[str]) -> str:
    """Return the label of the period that a date is in."""
    return "later" if when >= labels[-1] else labels[bisect.bisect_right(labels, when) - 1]


def _weeks(now: datetime) -> list[date]:
    monday = now.date() - timedelta(days=now.weekday())
    return [monday + timedelta(weeks=number) for number in range(WEEKS + 1)]


def _months(now: datetime) -> list[date]:
    first = now.year * 12 + now.month - 1
    return [date(number // 12, number % 12 + 1, 1) for number in range(first, first + MONTHS + 1)]

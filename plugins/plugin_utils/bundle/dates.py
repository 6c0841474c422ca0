# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dates as records, histories and the ledger hold them: ISO 8601 in UTC, to the second.

Private to the collection.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
LATEST = datetime.max.replace(tzinfo=timezone.utc)

_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def timestamp(date: datetime) -> str:
    """Return a date (aware) as ISO 8601 in UTC with seconds: ``2026-11-22T01:10:09Z``."""
    # strftime writes the year 1 as 1
    return f"{date.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def optional_timestamp(date: datetime | None) -> str | None:
    """Return ``timestamp`` of a date, or ``None`` where there is none."""
    return None if date is None else timestamp(date)


def parse_date(value: object) -> datetime:
    """Return the date (aware) that ``timestamp`` wrote.

    :raises ValueError: if the value is anything else.
    """
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        raise ValueError("not a date in ISO 8601 and UTC")
    return datetime.fromisoformat(f"{value[:-1]}+00:00")


def optional_date(value: object) -> datetime | None:
    """Return ``parse_date`` of a value, or ``None`` for ``None``.

    :raises ValueError: if the value is neither.
    """
    return None if value is None else parse_date(value)


def whole_seconds(date: datetime) -> datetime:
    """Return a date as ``timestamp`` keeps it."""
    return date.replace(microsecond=0)


def shift(date: datetime, by: timedelta) -> datetime:
    """Return a sum that stays within the calendar; the dates of a gateway's record can be any."""
    try:
        return date + by
    except OverflowError:
        return LATEST if by > timedelta(0) else EARLIEST

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dates as text: one form only, for any year of the calendar."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import (
    EARLIEST,
    LATEST,
    optional_date,
    optional_timestamp,
    parse_date,
    shift,
    timestamp,
    whole_seconds,
)
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW

NOT_DATES: tuple[object, ...] = (
    None,
    5,
    True,
    [],
    {},
    "",
    "now",
    "2026-11-22",
    "2026-11-22T12:00:00",
    "2026-11-22T12:00:00+00:00",
    "2026-11-22T12:00:00.5Z",
    "2026-11-22t12:00:00z",
    "2026-11-22T12:00:00Z\n",
    "2026-13-22T12:00:00Z",
    "2026-02-30T12:00:00Z",
    "9999-99-99T99:99:99Z",
    "0000-01-01T00:00:00Z",
    "٢٠٢٦-11-22T12:00:00Z",
    ["2026-11-22T12:00:00Z"],
)


@pytest.mark.parametrize(
    ("date", "text"),
    [
        (NOW, "2026-11-22T12:00:00Z"),
        (NOW.replace(microsecond=999_999), "2026-11-22T12:00:00Z"),
        (datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T23:00:00Z"),
        (EARLIEST, "0001-01-01T00:00:00Z"),
        (LATEST, "9999-12-31T23:59:59Z"),
    ],
)
def test_dates_are_iso_8601_in_utc(date: datetime, text: str) -> None:
    assert timestamp(date) == text == optional_timestamp(date)
    assert parse_date(text) == whole_seconds(date) == optional_date(text)
    assert parse_date(text).utcoffset() == timedelta(0)


@pytest.mark.parametrize("value", NOT_DATES, ids=repr)
def test_anything_else_is_no_date(value: object) -> None:
    with pytest.raises(ValueError, match=r"date|month|day|year|hour|calendar"):
        parse_date(value)
    if value is not None:
        with pytest.raises(ValueError, match=r"date|month|day|year|hour|calendar"):
            optional_date(value)


def test_no_date() -> None:
    assert (optional_timestamp(None), optional_date(None)) == (None, None)


def test_a_sum_stays_within_the_calendar() -> None:
    assert shift(NOW, DAY) == NOW + DAY
    assert shift(NOW, -DAY) == NOW - DAY
    assert shift(LATEST, DAY) == LATEST
    assert shift(EARLIEST, -DAY) == EARLIEST

# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Dynamic keys: the SPARTN decryption keys that change every four weeks."""

from __future__ import annotations

import hashlib
import hmac
from typing import TypedDict

DAY_MS = 86_400_000
# Start of a key that was seen in client code, 2024-06-30T23:59:42Z: midnight of GPS time, which runs 18 s ahead of UTC.
# The other keys follow in whole periods.
ANCHOR_MS = 1_719_791_982_000


class DynamicKey(TypedDict):
    """Start and duration are in milliseconds; the value is 128 bits in lower-case hexadecimal (seen in client code)."""

    duration: int
    start: int
    value: str


def current_and_next(seed: str, family: str, now: float, period_days: int) -> dict[str, DynamicKey]:
    """Return the keys valid at `now` (seconds since the epoch) and after it.

    They depend on time and plan `family` alone: all the devices of the platform share them.
    """
    period = period_days * DAY_MS
    start = ANCHOR_MS + (int(now * 1000) - ANCHOR_MS) // period * period
    return {"current": _key(seed, family, start, period), "next": _key(seed, family, start + period, period)}


def _key(seed: str, family: str, start: int, period: int) -> DynamicKey:
    value = hmac.new(bytes.fromhex(seed), f"{family} {start}".encode(), hashlib.sha256).hexdigest()[:32]
    return {"duration": period - 1, "start": start, "value": value}

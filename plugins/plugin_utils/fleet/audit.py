# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was found on each gateway of a fleet -> one report: pure functions over results that hold no secret.

What a gateway claims is not trusted: columns are chosen by name, and texts are bounded.

Private to the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from ..job import policy
from . import report

Row = Mapping[str, Any]

# The first that applies; a row that is in one of the first two was not seen.
STATES = ("unreachable", "failed", "absent", "damaged", "expired", "due", "drift", "in_order")
UNSEEN = STATES[:2]
COLUMNS = (
    "host",
    "state",
    "service",
    "delivery",
    "hardware_id",
    "given_name",
    "client_id",
    "path",
    "generation",
    "issued_at",
    "not_after",
    "keys_expire_at",
    "due_at",
    "fingerprint_sha256",
    "damaged",
    "drift",
    "leftovers",
    "retired",
    "error_code",
    "error",
)
EVENTS = {"certificates": "not_after", "keys": "keys_expire_at", "renewals": "due_at"}
WEEKS = 12
MONTHS = 12
MAX_TEXT = 256  # characters
MAX_NAMES = 20

_OF_THE_RECORD = (
    "service",
    "delivery",
    "hardware_id",
    "given_name",
    "client_id",
    "issued_at",
    "not_after",
    "keys_expire_at",
    "fingerprint_sha256",
)
_OF_THE_BUNDLE = ("path", "generation", "due_at", "damaged", "drift", "leftovers")
_NOTHING: Mapping[str, Any] = {**dict.fromkeys(_OF_THE_BUNDLE), "present": False, "thing": None, "retired": []}


def fleet_report(
    looks: Mapping[str, Mapping[str, Any] | None],
    spool: Sequence[Mapping[str, Any]],
    unanswered: Sequence[Mapping[str, Any]],
    now: datetime,
    spool_error: str | None = None,
) -> dict[str, Any]:
    """Everything that an audit tells, ready to be written as JSON.

    :param looks: host to the result of ``thingstream_ztp_info``, failed and unreachable ones among them; ``None`` or
        empty where there is none.
    :param spool: as ``spool.survey`` returns it.
    :param unanswered: as ``spool.survey_unanswered`` returns it.
    :param now: aware.
    :param spool_error: why the spool could not be read.
    :returns: ``generated_at``, ``complete`` (whether all was seen), ``totals``, ``timeline``, ``gateways`` (``COLUMNS``
        of each gateway and path), ``retired`` (``report.RETIRED_COLUMNS`` of each Thing), ``conflicts`` (the same,
        and ``used_by``), ``spool``, ``unanswered``, ``spool_error``.
    """
    rows = [row for host in sorted(looks) for row in _rows(host, looks[host] or {}, now)]
    bundles = {host: (look or {}).get("bundles") for host, look in looks.items()}
    retired, conflicts = report.retirement_list(bundles), report.retirement_conflicts(bundles)
    states = Counter(row["state"] for row in rows)
    return {
        "report_version": 1,
        "generated_at": policy.timestamp(now),
        "complete": not any(states[state] for state in UNSEEN) and spool_error is None,
        "totals": {
            "gateways": len(looks),
            "states": {state: states[state] for state in STATES},
            "retired": len(retired),
            "conflicts": len(conflicts),
            "spool": len(spool),
            "unanswered": len(unanswered),
            "next_due_at": _earliest(rows, "due_at"),
            "next_end_at": _earliest(rows, "not_after", "keys_expire_at"),
        },
        "timeline": {"weeks": _timeline(rows, now, _weeks(now)), "months": _timeline(rows, now, _months(now))},
        "gateways": rows,
        "retired": [_clean(entry) for entry in retired],
        "conflicts": [_clean(entry) for entry in conflicts],
        "spool": [dict(entry) for entry in spool],
        "unanswered": [dict(request) for request in unanswered],
        "spool_error": spool_error,
    }


def _rows(host: str, look: Mapping[str, Any], now: datetime) -> list[Row]:
    """One row for each path with a bundle; one for a gateway that has none, or that could not be seen."""
    if "bundles" not in look or look.get("failed"):
        why = {
            "state": "unreachable" if look.get("unreachable") else "failed",
            "error_code": _text(look.get("error_code")),
            "error": _text(look.get("msg")) or "Nobody has looked at this gateway.",
        }
        return [{**dict.fromkeys(COLUMNS), "host": host, **why}]
    bundles = look["bundles"]
    held = [bundle for bundle in bundles if bundle["present"] or bundle["leftovers"] or bundle["retired"]]
    return [_row(host, bundle, now) for bundle in held or (bundles if len(bundles) == 1 else [_NOTHING])]


def _row(host: str, bundle: Mapping[str, Any], now: datetime) -> Row:
    thing = bundle["thing"] or {}
    found = {**{name: thing.get(name) for name in _OF_THE_RECORD}, **{name: bundle[name] for name in _OF_THE_BUNDLE}}
    row = {**dict.fromkeys(COLUMNS), **_clean(found), "host": host, "retired": len(bundle["retired"])}
    return {**row, "state": _state(bundle["present"], row, now)}


def _state(present: bool, row: Row, now: datetime) -> str:
    checks = (
        ("absent", not present),
        ("damaged", bool(row["damaged"])),
        ("expired", any(_reached(row, name, now) for name in ("not_after", "keys_expire_at"))),
        ("due", _reached(row, "due_at", now)),
        ("drift", bool(row["drift"] or row["leftovers"])),
    )
    return next((state for state, applies in checks if applies), "in_order")


def _reached(row: Row, name: str, now: datetime) -> bool:
    when = policy.moment(row, name)
    return when is not None and when <= now


def _earliest(rows: Iterable[Row], *names: str) -> str | None:
    return min((row[name] for row in rows for name in names if row[name]), default=None)


def _timeline(rows: Sequence[Row], now: datetime, starts: Sequence[date]) -> list[dict[str, Any]]:
    """How many of each of ``EVENTS`` are past, begin in each period, or come after the last of them.

    :param starts: the first day of each period, and the first day after the last one.
    """
    labels = [start.isoformat() for start in starts]
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for event, name in EVENTS.items():
            if row[name]:
                counts[_period(row[name], _reached(row, name, now), labels), event] += 1
    periods = ["overdue", *labels[:-1], "later"]
    return [{"from": period, **{event: counts[period, event] for event in EVENTS}} for period in periods]


def _period(when: str, reached: bool, labels: Sequence[str]) -> str:
    if reached:
        return "overdue"
    if when >= labels[-1]:
        return "later"
    return next(label for label in reversed(labels) if when >= label)


def _weeks(now: datetime) -> list[date]:
    monday = now.date() - timedelta(days=now.weekday())
    return [monday + timedelta(weeks=number) for number in range(WEEKS + 1)]


def _months(now: datetime) -> list[date]:
    first = now.year * 12 + now.month - 1
    return [date(number // 12, number % 12 + 1, 1) for number in range(first, first + MONTHS + 1)]


def _clean(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _names(value) if isinstance(value, list) else _text(value) for name, value in values.items()}


def _names(values: Sequence[Any]) -> list[str]:
    names = [text for value in values if (text := _text(value))]
    return names if len(names) <= MAX_NAMES else [*names[:MAX_NAMES], f"({len(names) - MAX_NAMES} more)"]


def _text(value: Any) -> str | None:
    """One line that can be shown anywhere; an error of SSH may have many."""
    if not isinstance(value, str):
        return None
    line = "".join(character if character.isprintable() else " " for character in value[: 4 * MAX_TEXT])
    line = " ".join(line.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of an audit -> metrics for the textfile collector of Prometheus.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..job import policy
from ..platform.services import SERVICES
from . import audit

Sample = tuple[Mapping[str, str], float]


def render(report: Mapping[str, Any]) -> str:
    """The text format, version 0.0.4; every metric is a gauge, whether or not it has samples."""
    return "".join(
        line
        for name, explained, samples in _metrics(report)
        for line in _lines(f"thingstream_{name}", explained, samples)
    )


def _metrics(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Iterable[Sample]]]:
    totals, rows = report["totals"], report["gateways"]
    seen: dict[str, bool] = {}
    for row in rows:
        seen[row["host"]] = row["state"] not in audit.UNSEEN
    yield "audit_timestamp_seconds", "When the fleet was looked at.", [({}, _seconds(report, "generated_at") or 0)]
    yield "audit_complete", "Whether every gateway and the spool could be seen.", [({}, report["complete"])]
    yield "gateways", "Gateways that should have been looked at.", [({}, totals["gateways"])]
    by_state = [({"state": state}, count) for state, count in totals["states"].items()]
    yield "bundles", "Bundles by state; a gateway without one, or that was not seen, counts once.", by_state
    yield "retired_things", "Things that nobody uses and that must still be deactivated.", [({}, totals["retired"])]
    yield (
        "retirement_conflicts",
        "Things on the list of a gateway while another one uses them.",
        [({}, totals["conflicts"])],
    )
    yield "spool_responses", "Responses that wait in the spool for their gateway.", [({}, totals["spool"])]
    yield (
        "unanswered_requests",
        "Requests whose answer was lost: somebody must look for their Things in the portal.",
        [({}, totals["unanswered"])],
    )
    yield (
        "gateway_seen",
        "Whether the gateway could be looked at.",
        [({"gateway": host}, up) for host, up in seen.items()],
    )
    yield (
        "bundle_in_order",
        "Whether nothing is wrong with the bundle and nothing is due.",
        [(_labels(row), row["state"] == "in_order") for row in rows if row["path"]],
    )
    for name, column, explained in (
        ("certificate_end", "not_after", "When the certificate ends."),
        ("keys_end", "keys_expire_at", "When the last dynamic key ends."),
        ("renewal_due", "due_at", "When a renewal becomes due by a date."),
    ):
        dated = ((row, _seconds(row, column)) for row in rows)
        samples = [(_labels(row), seconds) for row, seconds in dated if seconds is not None]
        yield f"{name}_timestamp_seconds", explained, samples


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    service = row["service"] if row["service"] in SERVICES else "unknown"  # a gateway must not invent label values
    return {"gateway": row["host"], "path": row["path"], "service": service}


def _seconds(entry: Mapping[str, Any], name: str) -> float | None:
    when = policy.moment(entry, name)
    return when.timestamp() if when else None


def _lines(name: str, explained: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {explained}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{inside}}} {value:.0f}\n" if inside else f"{name} {value:.0f}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

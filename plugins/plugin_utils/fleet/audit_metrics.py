# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the report of an audit as metrics for the textfile collector of Prometheus.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from ..platform.services import SERVICES
from .audit import Report
from .gateway_rows import UNSEEN, GatewayRow

Sample = tuple[str, float]  # labels and value


@dataclass(frozen=True)
class Metric:
    """A gauge. Its name does not contain the prefix of the collection."""

    name: str
    help: str
    samples: Iterable[Sample]


def render(report: Report) -> str:
    """Return the metrics in version 0.0.4 of the text format. A metric without samples is still declared."""
    return "".join(line for metric in _metrics(report) for line in _lines(metric))


def _metrics(report: Report) -> Iterator[Metric]:
    totals = report.totals
    seen = {row.host: row.state not in UNSEEN for row in report.gateways}
    rows = [(_labels_of(row), row) for row in report.gateways]
    yield _figure("audit_timestamp_seconds", "When the audit was made.", int(report.generated_at.timestamp()))
    yield _figure("audit_complete", "Whether every gateway and the spool were seen.", report.complete)
    yield _figure("gateways", "Gateways in the audit, seen or not.", totals.gateways)
    yield Metric(
        "bundles",
        "Bundles by state; a gateway without one, or that was not seen, counts once.",
        [(_labels(state=state), count) for state, count in totals.states.items()],
    )
    yield _figure("retired_things", "Things that no gateway uses and that must be deactivated.", totals.retired)
    yield _figure(
        "retirement_conflicts", "Things on the retirement list of a gateway that are in use.", totals.conflicts
    )
    yield _figure("shared_things", "Things that several gateways use.", totals.shared)
    yield Metric(
        "ledger_things",
        "Things that only the ledger of the controller knows, by status.",
        [(_labels(status=status), count) for status, count in totals.ledger.items()],
    )
    yield _figure("spool_responses", "Responses in the spool that wait for their gateway.", totals.spool)
    yield _figure(
        "abandoned_requests",
        "Requests whose response was lost; look for their Things in the portal.",
        totals.abandoned_requests,
    )
    yield Metric(
        "gateway_seen", "Whether the gateway was seen.", [(_labels(gateway=host), up) for host, up in seen.items()]
    )
    yield Metric(
        "bundle_in_order",
        "Whether nothing is wrong with the bundle and no renewal is due.",
        [(labels, row.state == "in_order") for labels, row in rows if row.path],
    )
    yield _dates(rows, "certificate_end", "not_after", "When the certificate ends.")
    yield _dates(rows, "keys_end", "keys_expire_at", "When the last dynamic key ends.")
    yield _dates(rows, "renewal_due", "due_at", "When a renewal becomes due by a date.")


def _figure(name: str, text: str, value: float) -> Metric:
    return Metric(name, text, [("", value)])


def _dates(rows: Iterable[tuple[str, GatewayRow]], name: str, column: str, text: str) -> Metric:
    dated = ((labels, getattr(row, column)) for labels, row in rows)
    samples = [(labels, _seconds(date)) for labels, date in dated if date is not None]
    return Metric(f"{name}_timestamp_seconds", text, samples)


def _labels_of(row: GatewayRow) -> str:
    # a gateway must not create label values
    service = row.service if row.service is not None and row.service in SERVICES else "unknown"
    return _labels(gateway=row.host, path=row.path or "", service=service)


def _labels(**values: str) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in values.items()) + "}"


def _seconds(date: str) -> float:
    return datetime.fromisoformat(date.replace("Z", "+00:00")).timestamp()


def _lines(metric: Metric) -> Iterator[str]:
    name = f"thingstream_{metric.name}"
    yield f"# HELP {name} {metric.help}\n# TYPE {name} gauge\n"
    for labels, value in metric.samples:
        yield f"{name}{labels} {value:.0f}\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

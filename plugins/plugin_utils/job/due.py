# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which reason applies first: an ordered chain of checks, each with a reason code and the values that it compared.

Pure functions of what is desired, what was observed, and the time. Private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ..bundle.dates import timestamp
from ..bundle.record import RECORD_VERSION, RESPONSE_NAME, Record
from ..bundle.render import file_modes
from ..gateway import preflight
from .desired import Desired
from .observe import Observed
from .renewal import arrived_before, due_dates

REASONS = (
    "absent",
    "damaged",
    "service_changed",
    "hardware_id_changed",
    "expired",
    "forced",
    "expiring",
    "keys_expiring",
    "max_age",
    "refused",
    "drift",
    "none",
)

Action = Literal["request", "render", "attributes"]


@dataclass(frozen=True)
class Due:
    """A due change, and its reason."""

    reason: str
    action: Action
    message: str


def find_due(desired: Desired, observed: Observed, now: datetime) -> Due | None:
    """Return the first reason to do something, or ``None``."""
    if not observed.is_installed:
        return Due("absent", "request", f"Nothing is installed at {desired.target.path}.")
    record = observed.record
    if record is None:
        return Due("damaged", "request", f"{desired.target.path}/current/thing.json is missing or cannot be read.")
    requested = next((due for check in CHAIN if (due := check(desired, observed, record, now))), None)
    damaged = damaged_files(observed)
    if damaged:
        # an intact response is rendered again without a request, which might create a Thing
        renders = requested is None and RESPONSE_NAME in record.files and RESPONSE_NAME not in damaged
        names = ", ".join(damaged)
        return Due(
            "damaged", "render" if renders else "request", f"Missing or changed since the installation: {names}."
        )
    return requested or _drift(desired, observed, record)


def damaged_files(observed: Observed) -> list[str]:
    """Return the names of files that are missing, or whose content is not what the record says."""
    record, digests = observed.record, observed.gateway.bundle.digests
    if record is None:
        return ["thing.json"] if observed.is_installed else []
    return sorted(name for name, digest in record.files.items() if digests.get(name) != digest)


_Check = Callable[[Desired, Observed, Record, datetime], "Due | None"]


def _service_changed(desired: Desired, observed: Observed, record: Record, now: datetime) -> Due | None:
    if record.service != desired.service.name:
        return Due(
            "service_changed", "request", f"The service was {record.service}, and is to be {desired.service.name}."
        )
    if desired.delivery in (None, *record.delivery):
        return None
    delivery = " and ".join(record.delivery) or "nothing"
    return Due("service_changed", "request", f"The delivery was {delivery}, and is to be {desired.delivery}.")


def _hardware_id_changed(desired: Desired, observed: Observed, record: Record, now: datetime) -> Due | None:
    if desired.hardware_id in (None, record.hardware_id):
        return None
    return Due(
        "hardware_id_changed", "request",
        f"The hardware ID was {record.hardware_id or 'none'}, and is to be {desired.hardware_id}.",
    )  # fmt: skip


def _expired(desired: Desired, observed: Observed, record: Record, now: datetime) -> Due | None:
    if record.not_after is None or record.not_after > now:
        return None
    return Due("expired", "request", f"The certificate ended {timestamp(record.not_after)}.")


def _forced(desired: Desired, observed: Observed, record: Record, now: datetime) -> Due | None:
    if desired.force:
        return Due("forced", "request", "force is set.")
    if not rotation_due(desired, observed, now) or desired.rotate_before is None:
        return None
    return Due(
        "forced", "request",
        f"The credentials arrived {timestamp(record.issued_at)}, the rotation began "
        f"{timestamp(desired.rotate_before)}.",
    )  # fmt: skip


def rotation_due(desired: Desired, observed: Observed, now: datetime) -> bool:
    """Return whether the credentials in use must be replaced because they arrived before a rotation began."""
    before, record = desired.rotate_before, observed.record
    return before is not None and record is not None and arrived_before(record.issued_at, before, now)


def _by_date(desired: Desired, observed: Observed, record: Record, now: datetime) -> Due | None:
    dates = due_dates(record, observed.history, desired.renewal, now)
    candidates = (("expiring", dates.certificate), ("keys_expiring", dates.keys), ("max_age", dates.age))
    for reason, date in candidates:
        if date is not None and date.at <= now:
            return Due(reason, "request", date.message)
    return None


def _login_refused(desired: Desired, observed: Observed, record: Record, now: datetime) -> Due | None:
    if not observed.login_refused:
        return None
    return Due("refused", "request", "The server refused the credentials in use.")


CHAIN: Sequence[_Check] = (_service_changed, _hardware_id_changed, _expired, _forced, _by_date, _login_refused)


def _drift(desired: Desired, observed: Observed, record: Record) -> Due | None:
    """Return what differs from the options without concerning the credentials."""
    formats = tuple(sorted(desired.formats)) if desired.formats is not None else None
    templates_sha256 = desired.templates.sha256 if desired.templates else None
    broker_ca_sha256 = record.files.get("ca.crt")
    differing = [
        name
        for name, differs in (
            ("the version of the rendering", record.record_version != RECORD_VERSION),
            ("formats", record.formats != formats),
            ("templates", record.templates_sha256 != templates_sha256),
            ("the CA of the broker", broker_ca_sha256 is not None
             and desired.broker_ca_sha256 not in (None, broker_ca_sha256)),
        )
        if differs
    ]  # fmt: skip
    if differing:
        return Due("drift", "render", f"Changed since the installation: {', '.join(differing)}.")
    modes = file_modes(record, desired.target.layout.secret_mode)
    drifted = preflight.attribute_drift(observed.gateway, modes, desired.target.directory_mode)
    if drifted:
        return Due("drift", "attributes", f"Owner, group or mode differ: {', '.join(drifted)}.")
    leftovers = observed.gateway.bundle.leftovers
    if leftovers:
        return Due("drift", "attributes", f"An interrupted run left {', '.join(leftovers)}.")
    return None

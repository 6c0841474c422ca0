# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what to do for one gateway, and why: pure functions over a record, what is wanted, and the time.

The ordered chain ``CHAIN`` is the policy: the first check that applies gives the reason.

Private to the collection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from ..errors import ProvisioningError

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
    "drift",
    "refused",
    "none",
)

# ask: the API is asked. render: files are rendered again from the installed response, without the API.
# attributes: owner, group and modes are set again. nothing: nobody is called.
Remedy = Literal["ask", "render", "attributes", "nothing"]

RECORD_VERSION = 1  # raised when the files of a bundle are rendered differently; older bundles are rendered again


@dataclass(frozen=True)
class Wanted:
    """What must hold for one gateway, as far as the decision depends on it. Durations are days.

    :param delivery: ``mqtt`` or ``ntrip``, or ``None`` for whatever the device profile delivers.
    :param rotate_before: credentials that arrived before this moment (aware) must be replaced by others.
    """

    service: str
    hardware_id: str | None = None
    delivery: str | None = None
    rotate_before: datetime | None = None
    formats: tuple[str, ...] | None = None
    templates_sha256: str | None = None
    broker_ca_sha256: str | None = None
    force: bool = False
    renew_before: str = "30"
    renew_spread_days: float = 0
    keys_renew_before_days: float = 14
    max_age_days: float | None = None


@dataclass(frozen=True)
class State:
    """What the policy needs to know of a gateway, compared already with what its record says.

    :param record: the record, or ``None`` where there is none.
    :param present: whether there is a current generation at all.
    :param damaged: names of files that are missing or whose content is not what the record says.
    :param response_intact: whether the installed raw response is what the record says.
    :param attributes_differ: whether an owner, a group or a mode is not as wanted, or a dead run left something.
    """

    record: Mapping[str, Any] | None
    present: bool
    damaged: Sequence[str]
    response_intact: bool
    attributes_differ: bool


@dataclass(frozen=True)
class Decision:
    """What to do, and why."""

    reason: str
    remedy: Remedy


_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_TEXTS = (
    "hardware_id",
    "given_name",
    "client_id",
    "host",
    "ntrip_host",
    "ntrip_mountpoint",
    "fingerprint_sha256",
    "identity_sha256",
    "templates_sha256",
    "origin",
)
_DATES = ("issued_at", "not_before", "not_after", "keys_expire_at", "confirmed_at")
_LEAD_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(%?)")
_MAX_DAYS = 36500
_EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
_LATEST = datetime.max.replace(tzinfo=timezone.utc)

Check = Callable[[Mapping[str, Any], Wanted, datetime], bool]


def decide(state: State, wanted: Wanted, now: datetime) -> Decision:
    """Takes the first reason of the chain that applies.

    :param now: aware.
    :raises ProvisioningError: as ``check_wanted``.
    """
    check_wanted(wanted)
    record = readable(state.record)
    if not state.present:
        return Decision("absent", "ask")
    if record is None:
        return Decision("damaged", "ask")
    asking = next((reason for reason, applies in CHAIN if applies(record, wanted, now)), None)
    if state.damaged:
        # What can be rendered again from an intact response needs no API, which might create a Thing.
        rendered = state.response_intact and asking is None
        return Decision("damaged", "render" if rendered else "ask")
    if asking:
        return Decision(asking, "ask")
    if _rendered_differently(record, wanted):
        return Decision("drift", "render")
    if state.attributes_differ:
        return Decision("drift", "attributes")
    return Decision("none", "nothing")


def check_wanted(wanted: Wanted) -> None:
    """Refuses durations that are not some number of days up to a hundred years.

    :raises ProvisioningError: ``bad_option``.
    """
    days = {
        "renew_spread": wanted.renew_spread_days,
        "keys_renew_before": wanted.keys_renew_before_days,
        "max_age": wanted.max_age_days or 0,
    }
    for name, value in days.items():
        if not 0 <= value <= _MAX_DAYS:
            raise ProvisioningError("bad_option", f"{name} must be a number of days from 0 to {_MAX_DAYS}.")
    lead_time(wanted.renew_before, timedelta(0))


def rotation_due(record: Mapping[str, Any] | None, wanted: Wanted) -> bool:
    """Whether credentials must be replaced by others because they arrived before a rotation began."""
    issued_at = moment(record, "issued_at") if record else None
    return wanted.rotate_before is not None and issued_at is not None and issued_at < wanted.rotate_before


def lead_time(renew_before: str, lifetime: timedelta) -> timedelta:
    """How long before its end a certificate is renewed: ``30`` (days) or ``33%`` (of the lifetime).

    :raises ProvisioningError: ``bad_option``.
    """
    match = _LEAD_TIME.fullmatch(renew_before.strip())
    number = float(match.group(1)) if match else -1
    if match and match.group(2) and number < 100:
        return lifetime * (number / 100)
    if match and not match.group(2) and number <= _MAX_DAYS:
        return timedelta(days=number)
    raise ProvisioningError(
        "bad_option",
        f"renew_before is a number of days up to {_MAX_DAYS}, or a percentage of the lifetime below 100%.",
    )


def spread(hardware_id: str | None, days: float) -> timedelta:
    """A share of ``days``, always the same for the same gateway, evenly distributed over a fleet."""
    digest = hashlib.sha256((hardware_id or "").encode()).digest()
    return timedelta(days=days * int.from_bytes(digest[:8], "big") / 2**64)


def renewal_due_at(record: Mapping[str, Any], wanted: Wanted) -> datetime | None:
    """The earliest moment at which a renewal becomes due by a date, or ``None`` if no date asks for one."""
    moments = (_certificate_due_at(record, wanted), _keys_due_at(record, wanted), _age_due_at(record, wanted))
    return min((moment for moment in moments if moment is not None), default=None)


def classify(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """Names what came back: ``created``, ``renewed``, ``refreshed`` or ``unchanged``.

    :param before: the record that was installed, or ``None``.
    :param after: the record of what has arrived.
    """
    if before is None:
        return "created"
    before = readable(before)
    if before is None:
        return "renewed"  # nobody can tell what it was
    if before.get("identity_sha256") != after["identity_sha256"]:
        return "renewed"
    if any(before.get(name) != after.get(name) for name in ("keys_expire_at", "formats", "templates_sha256")):
        return "refreshed"
    return "unchanged" if _rendered(before) == _rendered(after) else "refreshed"


def _rendered(record: Mapping[str, Any]) -> dict[str, str]:
    """The digests of what was made of a response; the raw response may differ in what nobody reads."""
    return {name: digest for name, digest in record["files"].items() if name != "credentials.json"}


def timestamp(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with seconds, as records hold it: ``2026-11-22T01:10:09Z``."""
    # strftime writes the year 1 as 1
    return f"{moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec='seconds')}Z" if moment else None


def moment(record: Mapping[str, Any], name: str) -> datetime | None:
    """A date of a record, aware; ``None`` where the service has none.

    :raises ValueError: if it is not a date.
    """
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        raise ValueError(f"{name} is not a date")
    return datetime.fromisoformat(f"{value[:-1]}+00:00")


def readable(record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A record in which everything that is used has its type, or ``None``: what a gateway claims is not trusted."""
    if record is None or not _has_necessary_parts(record):
        return None
    retired = record.get("retired")
    entries = [entry for entry in retired if isinstance(entry, dict)] if isinstance(retired, list) else []
    clean = {name: record[name] if isinstance(record.get(name), str) else None for name in _TEXTS}
    delivery = record.get("delivery")
    ways = [way for way in delivery if isinstance(way, str)] if isinstance(delivery, list) else []
    modes = record.get("modes")
    return {
        **record,
        **clean,
        "retired": entries,
        "delivery": ways,
        "modes": {name: mode for name, mode in modes.items() if _is_mode(mode)} if isinstance(modes, dict) else {},
    }


def _is_mode(mode: object) -> bool:
    return isinstance(mode, str) and re.fullmatch(r"0[0-7][0-7][0145]", mode) is not None


def _has_necessary_parts(record: Mapping[str, Any]) -> bool:
    try:
        dates = [moment(record, name) for name in _DATES]
    except ValueError:
        return False
    digests = record.get("files")
    return (
        dates[0] is not None
        and isinstance(record.get("service"), str)
        and isinstance(digests, dict)
        and all(_FILE_NAME.fullmatch(name) and isinstance(digest, str) for name, digest in digests.items())
    )


def _reached(due_at: datetime | None, now: datetime) -> bool:
    return due_at is not None and due_at <= now


CHAIN: Sequence[tuple[str, Check]] = (
    (
        "service_changed",
        lambda record, wanted, now: (
            record["service"] != wanted.service or wanted.delivery not in (None, *record["delivery"])
        ),
    ),
    (
        "hardware_id_changed",
        lambda record, wanted, now: wanted.hardware_id not in (None, record.get("hardware_id")),
    ),
    ("expired", lambda record, wanted, now: _reached(moment(record, "not_after"), now)),
    ("forced", lambda record, wanted, now: wanted.force or rotation_due(record, wanted)),
    ("expiring", lambda record, wanted, now: _reached(_certificate_due_at(record, wanted), now)),
    ("keys_expiring", lambda record, wanted, now: _reached(_keys_due_at(record, wanted), now)),
    ("max_age", lambda record, wanted, now: _reached(_age_due_at(record, wanted), now)),
)


def _certificate_due_at(record: Mapping[str, Any], wanted: Wanted) -> datetime | None:
    not_before, not_after = moment(record, "not_before"), moment(record, "not_after")
    if not_before is None or not_after is None:
        return None
    lead = lead_time(wanted.renew_before, not_after - not_before)
    return _shifted(not_after, -lead - spread(wanted.hardware_id, wanted.renew_spread_days))


def _keys_due_at(record: Mapping[str, Any], wanted: Wanted) -> datetime | None:
    keys_expire_at = moment(record, "keys_expire_at")
    if keys_expire_at is None:
        return None
    lead = timedelta(days=wanted.keys_renew_before_days) + spread(wanted.hardware_id, wanted.renew_spread_days)
    return _shifted(keys_expire_at, -lead)


def _age_due_at(record: Mapping[str, Any], wanted: Wanted) -> datetime | None:
    if wanted.max_age_days is None:
        return None
    # what the platform has returned once more is as good as new
    dates = [date for name in ("issued_at", "confirmed_at") if (date := moment(record, name))]
    age = timedelta(days=wanted.max_age_days) - spread(wanted.hardware_id, wanted.renew_spread_days)
    return _shifted(max(dates), age) if dates else None


def _shifted(start: datetime, by: timedelta) -> datetime:
    """A sum that stays within the calendar; the dates of a record can be any."""
    try:
        return start + by
    except OverflowError:
        return _LATEST if by > timedelta(0) else _EARLIEST


def _rendered_differently(record: Mapping[str, Any], wanted: Wanted) -> bool:
    formats = sorted(wanted.formats) if wanted.formats is not None else None
    broker_ca_sha256 = record["files"].get("ca.crt")
    return (
        record.get("record_version") != RECORD_VERSION
        or record.get("formats") != formats
        or record.get("templates_sha256") != wanted.templates_sha256
        or (broker_ca_sha256 is not None and wanted.broker_ca_sha256 not in (None, broker_ca_sha256))
    )

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a renewal is due by a date: pure functions over the dates of a record and the renewal settings.

Lead and spread never reach the lifetime that they are taken from. They are capped, with a warning, so that credentials
that were just issued are never due at once. After a response, the same date asks for the next request
``REQUEST_INTERVAL`` later at the earliest: a device profile may return the same credentials again.

Private to the collection.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..bundle.dates import shift
from ..bundle.history import History
from ..bundle.record import Record
from ..errors import ProvisioningError

MAX_DAYS = 36500
MIN_AGE = timedelta(days=1)
# The next dynamic keys are published 28 days before the present ones end (seen in client code).
MAX_KEYS_LEAD = timedelta(days=28)
REQUEST_INTERVAL = timedelta(hours=20)  # clients try once a day (seen in client code); a daily run is not that punctual
MAX_CLOCK_SKEW = timedelta(days=1)  # a date that lies further in the future comes from a wrong clock

_LEAD = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:(%)|\s*(?:d|days?))?")


@dataclass(frozen=True)
class RenewalPolicy:
    """How long before an end, or at what age, credentials are renewed.

    :param lead: how long before the end of the certificate, or ``None`` where ``lead_share`` says it.
    :param lead_share: the same as a share of its lifetime, from 0 to below 1.
    :param spread: over what time the renewals of a fleet are distributed.
    :param keys_lead: how long before the end of the dynamic keys.
    :param max_age: at what age, whatever ends when; ``None`` for never.
    """

    lead: timedelta | None = timedelta(days=30)
    lead_share: float = 0
    spread: timedelta = timedelta(days=7)
    keys_lead: timedelta = timedelta(days=14)
    max_age: timedelta | None = None

    @classmethod
    def parse(
        cls,
        renew_before: str = "30",
        renew_spread: float = 7,
        keys_renew_before: float = 14,
        max_age: float | None = None,
    ) -> RenewalPolicy:
        """Return the policy that options describe.

        :param renew_before: days, or a percentage of the lifetime such as ``33%``.
        :param renew_spread: days, as are the following.
        :raises ProvisioningError: ``bad_option``.
        """
        days = {"renew_spread": renew_spread, "keys_renew_before": keys_renew_before, "max_age": max_age or 0}
        for name, value in days.items():
            if not 0 <= value <= MAX_DAYS:
                raise ProvisioningError("bad_option", f"{name} must be a number of days from 0 to {MAX_DAYS}.")
        if max_age is not None and timedelta(days=max_age) < MIN_AGE:
            raise ProvisioningError("bad_option", "max_age must be at least 1 day.")
        lead, share = _parse_lead(renew_before)
        return cls(
            lead=lead,
            lead_share=share,
            spread=timedelta(days=renew_spread),
            keys_lead=timedelta(days=keys_renew_before),
            max_age=None if max_age is None else timedelta(days=max_age),
        )


@dataclass(frozen=True)
class DueDate:
    """When something is due, and why.

    :param event: what happens on a date, which makes it due.
    :param date: that date, or ``None`` if it cannot be believed.
    :param rule: how long ``before`` or ``after`` that date the renewal is.
    """

    at: datetime
    event: str
    date: datetime | None
    rule: tuple[timedelta, str]

    @property
    def message(self) -> str:
        """The sentence that says why, with the dates that were compared; most runs need none."""
        if self.date is None:
            return f"{self.event} on a date that lies in the future, so their age is unknown."
        span, relation = self.rule
        return f"{self.event} {self.date:%Y-%m-%d}, renewal {_days(span)} {relation}."


@dataclass(frozen=True)
class DueDates:
    """The dates at which changes are due; ``None`` for a missing date. ``warnings`` are for the user."""

    certificate: DueDate | None
    keys: DueDate | None
    age: DueDate | None
    warnings: tuple[str, ...]

    @property
    def next(self) -> datetime | None:
        """The earliest of them."""
        dates = (self.certificate, self.keys, self.age)
        return min((date.at for date in dates if date is not None), default=None)


def due_dates(record: Record, history: History, policy: RenewalPolicy, now: datetime) -> DueDates:
    """Return when the credentials of a record are due.

    :param now: aware.
    """
    confirmed_at = confirmed(record, history)
    arrivals = [date for date in (record.issued_at, confirmed_at) if date is not None]
    believed = [date for date in arrivals if not is_from_the_future(date, now)]
    last = max(believed, default=None)
    share = _share(record)
    warnings: list[str] = []
    if len(believed) < len(arrivals):
        warnings.append(
            f"The credentials are said to have arrived on {max(arrivals):%Y-%m-%d}, which lies in the future: compare "
            "the clock of the controller now with that of the run that installed them."
        )
    return DueDates(
        _certificate(record, policy, share, last, warnings),
        _keys(record, policy, share, last, warnings),
        _age(policy, share, last, now, warnings),
        tuple(warnings),
    )


def is_from_the_future(date: datetime, now: datetime) -> bool:
    """Return whether a date of the past can only come from a wrong clock."""
    return date > shift(now, MAX_CLOCK_SKEW)


def arrived_before(date: datetime, before: datetime, now: datetime) -> bool:
    """Return whether something arrived before a moment; a date in the future says nothing, and counts as before."""
    return date < before or is_from_the_future(date, now)


def confirmed(record: Record, history: History) -> datetime | None:
    """Return when the platform last returned these very credentials again."""
    confirmation = history.confirmation
    if confirmation is None or confirmation.identity_sha256 != record.identity_sha256:
        return None
    return confirmation.at


def _certificate(
    record: Record, policy: RenewalPolicy, share: float, last: datetime | None, warnings: list[str]
) -> DueDate | None:
    begin, end = record.not_before, record.not_after
    if begin is None or end is None:
        return None
    lifetime = max(end - begin, timedelta(0))
    wanted = lifetime * policy.lead_share if policy.lead is None else policy.lead
    lead = wanted if policy.lead is None else min(wanted, lifetime / 2)
    spread = min(policy.spread, (lifetime - lead) / 2)
    if (lead, spread) != (wanted, policy.spread):
        warnings.append(
            f"renew_before and renew_spread are capped to {_days(lead)} and {_days(spread)}, because the certificate "
            f"is valid for {_days(lifetime)}."
        )
    before = lead + spread * share
    due_at = _not_too_soon(shift(end, -before), last)
    return DueDate(due_at, "The certificate ends", end, (before, "before"))


def _keys(
    record: Record, policy: RenewalPolicy, share: float, last: datetime | None, warnings: list[str]
) -> DueDate | None:
    end = record.keys_expire_at
    if end is None:
        return None
    lead = min(policy.keys_lead, MAX_KEYS_LEAD)
    spread = min(policy.spread, MAX_KEYS_LEAD - lead)
    if (lead, spread) != (policy.keys_lead, policy.spread):
        warnings.append(
            f"keys_renew_before and renew_spread are capped to {_days(lead)} and {_days(spread)}, because the platform "
            f"publishes the next keys {_days(MAX_KEYS_LEAD)} before the present ones end."
        )
    before = lead + spread * share
    due_at = _not_too_soon(shift(end, -before), last)
    return DueDate(due_at, "The dynamic keys end", end, (before, "before"))


def _age(
    policy: RenewalPolicy, share: float, last: datetime | None, now: datetime, warnings: list[str]
) -> DueDate | None:
    if policy.max_age is None:
        return None
    if last is None:
        return DueDate(now, "The credentials arrived", None, (policy.max_age, "later"))
    spread = min(policy.spread, policy.max_age / 2)
    if spread != policy.spread:
        warnings.append(f"renew_spread is capped to {_days(spread)}, because max_age is {_days(policy.max_age)}.")
    age = policy.max_age - spread * share
    return DueDate(_not_too_soon(shift(last, age), last), "The credentials arrived", last, (age, "later"))


def _not_too_soon(due_at: datetime, last: datetime | None) -> datetime:
    return due_at if last is None else max(due_at, shift(last, REQUEST_INTERVAL))


def _share(record: Record) -> float:
    """Return a number from 0 to 1, always the same for one Thing, evenly distributed over a fleet."""
    digest = hashlib.sha256((record.hardware_id or record.given_name or "").encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _parse_lead(text: str) -> tuple[timedelta | None, float]:
    match = _LEAD.fullmatch(text.strip().lower())
    number = float(match.group(1)) if match else -1
    if match and match.group(2) and number < 100:
        return None, number / 100
    if match and not match.group(2) and number <= MAX_DAYS:
        return timedelta(days=number), 0
    raise ProvisioningError(
        "bad_option",
        f"renew_before: {text!r} is neither a number of days up to {MAX_DAYS}, such as 30 or 30d, nor a percentage of "
        "the lifetime below 100%.",
    )


def _days(duration: timedelta) -> str:
    days = round(duration / timedelta(days=1), 1)
    return f"{days:g} day{'' if days == 1 else 's'}"

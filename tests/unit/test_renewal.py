# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a renewal is due by a date: every edge, the caps on lead and spread, and dates that lie in the future."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import EARLIEST, LATEST
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import Confirmation, History
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import renewal
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import (
    MAX_CLOCK_SKEW,
    MAX_DAYS,
    REQUEST_INTERVAL,
    DueDates,
    RenewalPolicy,
    arrived_before,
    due_dates,
)
from ansible_collections.thingstream.ztp.tests.unit.observations import RECORD
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
SHARE = 0.228044  # of hw-1


def dates(record: Record = RECORD, confirmed_at: datetime | None = None, **options: Any) -> DueDates:
    """Return the due dates with a spread of 0, unless the options name one."""
    confirmation = None if confirmed_at is None else Confirmation(confirmed_at, record.identity_sha256)
    policy = RenewalPolicy.parse(**{"renew_spread": 0, **options})
    return due_dates(record, History(confirmation=confirmation), policy, NOW)


def certificate(**options: Any) -> timedelta:
    """Return the time from now until the certificate of the record is due."""
    due = dates(**options).certificate
    assert due is not None
    return due.at - NOW


# ---- options ----


@pytest.mark.parametrize(
    ("renew_before", "days"),
    [
        ("30", 70),
        ("0", 100),
        ("0.5", 99.5),
        (" 30 ", 70),
        ("25%", 50),
        ("0%", 100),
        ("12.5%", 75),
        ("99.9%", -99.8),
    ],
)
def test_the_lead_of_a_certificate(renew_before: str, days: float) -> None:
    """The certificate of the record lives 200 days, 100 of which are over."""
    due = dates(replace(RECORD, issued_at=NOW - 101 * DAY), renew_before=renew_before).certificate
    assert due is not None
    assert abs(due.at - NOW - timedelta(days=days)) < SECOND


@pytest.mark.parametrize(
    "renew_before",
    [
        "",
        "%",
        "-1",
        "+1",
        "100%",
        "250%",
        "30x",
        "30 %",
        "1e3",
        "0x10",
        ".5",
        "5.",
        "a",
        "nan",
        "inf",
        "\uff13\uff10",
        "30\n5",
        "1000000",
        "99999999999",
    ],
)
def test_a_lead_that_is_refused(renew_before: str) -> None:
    with pytest.raises(ProvisioningError) as caught:
        RenewalPolicy.parse(renew_before=renew_before)
    assert (caught.value.code, "renew_before" in caught.value.message) == ("bad_option", True)


@pytest.mark.parametrize("days", [-1, -0.001, MAX_DAYS + 1, 1e7, 1e12, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", ["renew_spread", "keys_renew_before", "max_age"])
def test_days_that_are_refused(name: str, days: float) -> None:
    options: dict[str, Any] = {name: days}
    with pytest.raises(ProvisioningError) as caught:
        RenewalPolicy.parse(**options)
    assert (caught.value.code, name in caught.value.message) == ("bad_option", True)


@pytest.mark.parametrize("days", [0, 0.5, 0.99])
def test_a_max_age_below_a_day_is_refused(days: float) -> None:
    """Every run would send a request."""
    with pytest.raises(ProvisioningError) as caught:
        RenewalPolicy.parse(max_age=days)
    assert (caught.value.code, "max_age" in caught.value.message) == ("bad_option", True)


@pytest.mark.parametrize("days", [1, 1.5, MAX_DAYS])
def test_a_max_age_from_a_day_on_is_taken(days: float) -> None:
    assert RenewalPolicy.parse(max_age=days).max_age == timedelta(days=days)


def test_the_defaults_of_the_options_are_those_of_the_policy() -> None:
    assert RenewalPolicy.parse() == RenewalPolicy()


# ---- each date ----


@pytest.mark.parametrize(
    ("changes", "options", "name", "due_at"),
    [
        ({"not_after": NOW + 30 * DAY}, {}, "certificate", NOW),
        ({"not_after": NOW}, {}, "certificate", NOW - 30 * DAY),
        ({"keys_expire_at": NOW + 14 * DAY}, {}, "keys", NOW),
        ({"keys_expire_at": NOW - DAY}, {}, "keys", NOW - 15 * DAY),
        ({"keys_expire_at": NOW + 3 * DAY}, {"keys_renew_before": 2}, "keys", NOW + DAY),
        ({"keys_expire_at": NOW + 3 * DAY}, {"keys_renew_before": 0}, "keys", NOW + 3 * DAY),
        ({"issued_at": NOW - 10 * DAY}, {"max_age": 10}, "age", NOW),
        ({"issued_at": NOW - 10 * DAY}, {"max_age": 11}, "age", NOW + DAY),
    ],
)
def test_each_date(changes: dict[str, Any], options: dict[str, Any], name: str, due_at: datetime) -> None:
    due = getattr(dates(replace(RECORD, **changes), **options), name)
    assert due.at == due_at


@pytest.mark.parametrize(
    ("confirmed_days", "issued_days", "due_days"), [(-10, -90, 0), (-9, -90, 1), (-20, -5, 5), (-20, -10, 0)]
)
def test_the_age_counts_from_the_last_response(confirmed_days: int, issued_days: int, due_days: int) -> None:
    found = dates(replace(RECORD, issued_at=NOW + issued_days * DAY), NOW + confirmed_days * DAY, max_age=10)
    assert found.age is not None
    assert found.age.at == NOW + due_days * DAY


def test_a_confirmation_of_other_credentials_does_not_count() -> None:
    history = History(confirmation=Confirmation(NOW, "2" * 64))
    found = due_dates(RECORD, history, RenewalPolicy.parse(renew_spread=0, max_age=110), NOW)
    assert found.age is not None
    assert found.age.at == NOW + 10 * DAY


@pytest.mark.parametrize(
    ("changes", "name"), [({"not_before": None}, "certificate"), ({"not_after": None}, "certificate"),
                          ({"keys_expire_at": None}, "keys"), ({}, "age")],
)  # fmt: skip
def test_a_date_that_the_credentials_do_not_have_is_never_due(changes: dict[str, Any], name: str) -> None:
    assert getattr(dates(replace(RECORD, **changes)), name) is None


@pytest.mark.parametrize("renew_before", ["30", "33%"])
def test_a_certificate_without_end_is_due_in_a_far_future(renew_before: str) -> None:
    assert dates(replace(RECORD, not_after=LATEST), renew_before=renew_before).certificate.at.year > 7000  # type: ignore[union-attr]


def test_dates_at_the_edges_of_the_calendar_are_no_crash() -> None:
    for record in (
        replace(RECORD, not_before=EARLIEST, not_after=EARLIEST, keys_expire_at=EARLIEST, issued_at=EARLIEST),
        replace(RECORD, not_before=EARLIEST, not_after=LATEST, keys_expire_at=LATEST, issued_at=LATEST),
        replace(RECORD, not_before=LATEST, not_after=EARLIEST),
    ):
        for options in ({}, {"max_age": MAX_DAYS, "renew_spread": MAX_DAYS}, {"renew_before": "99%"}):
            dates(record, **options)
            dates(record, LATEST, **options)


def test_the_next_date_is_the_earliest() -> None:
    """Certificate: in 70 days. Keys: in 26 days. Age: in 10 days."""
    assert dates().next == NOW + 26 * DAY
    assert dates(max_age=110).next == NOW + 10 * DAY
    assert dates(replace(RECORD, keys_expire_at=None)).next == NOW + 70 * DAY
    assert dates(replace(RECORD, keys_expire_at=None, not_after=None)).next is None


def test_each_message_names_what_was_compared() -> None:
    found = dates(max_age=110)
    assert [due.message for due in (found.certificate, found.keys, found.age) if due] == [
        "The certificate ends 2027-03-02, renewal 30 days before.",
        "The dynamic keys end 2027-01-01, renewal 14 days before.",
        "The credentials arrived 2026-08-14, renewal 110 days later.",
    ]


# ---- lead and spread never reach the lifetime ----


def just_issued(lifetime: timedelta, **options: Any) -> DueDates:
    """Return the due dates of a certificate issued now."""
    record = replace(RECORD, issued_at=NOW, not_before=NOW, not_after=NOW + lifetime, keys_expire_at=None)
    return dates(record, **{"renew_spread": 7, **options})


def test_a_short_certificate_with_the_default_lead() -> None:
    """30 days of lead and 7 days of spread would make a certificate of 30 days due at once, in every run."""
    found = just_issued(30 * DAY)
    assert found.certificate is not None
    assert abs(found.certificate.at - (NOW + (15 - 7 * SHARE) * DAY)) < SECOND
    (warning,) = found.warnings
    assert "capped to 15 days and 7 days" in warning
    assert "valid for 30 days" in warning


def test_a_short_max_age_with_the_default_spread() -> None:
    """7 days of spread would make the credentials due at once, in every run."""
    record = replace(RECORD, issued_at=NOW, not_after=None, keys_expire_at=None)
    found = dates(record, max_age=3, renew_spread=7)
    assert found.age is not None
    assert NOW + 1.5 * DAY <= found.age.at <= NOW + 3 * DAY
    (warning,) = found.warnings
    assert "renew_spread is capped to 1.5 days" in warning
    assert "max_age is 3 days" in warning


@pytest.mark.parametrize(
    ("options", "lead", "spread"),
    [
        ({"keys_renew_before": 28, "renew_spread": 7}, 28, 0),
        ({"keys_renew_before": 60, "renew_spread": 0}, 28, 0),
        ({"keys_renew_before": 14, "renew_spread": 30}, 14, 14),
    ],
)
def test_keys_are_not_requested_before_the_platform_publishes_them(
    options: dict[str, Any], lead: float, spread: float
) -> None:
    found = dates(replace(RECORD, issued_at=NOW), **options)
    assert found.keys is not None
    assert abs(found.keys.at - (NOW + (40 - lead - spread * SHARE) * DAY)) < SECOND
    assert [warning for warning in found.warnings if "keys_renew_before" in warning]


@pytest.mark.parametrize(
    ("lifetime", "options"),
    [
        (365 * DAY, {}),
        (365 * DAY, {"renew_before": "33%"}),
        (90 * DAY, {"renew_before": "45", "renew_spread": 22}),
    ],
)
def test_settings_that_fit_are_not_capped(lifetime: timedelta, options: dict[str, Any]) -> None:
    assert just_issued(lifetime, **options).warnings == ()


@pytest.mark.parametrize("text", ["30", "30d", "30 days", " 30D ", "30.0"])
def test_days_may_have_their_unit(text: str) -> None:
    assert RenewalPolicy.parse(text).lead == 30 * DAY


@pytest.mark.parametrize("text", ["30s", "4 weeks", "d", "1 month", "30%d"])
def test_another_unit_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ProvisioningError, match=re.escape(repr(text))):
        RenewalPolicy.parse(text)


@pytest.mark.parametrize("lifetime", [timedelta(0), SECOND, HOUR, DAY, 2 * DAY, 7 * DAY, 29 * DAY, 3650 * DAY])
@pytest.mark.parametrize("renew_before", ["0", "1", "30", "36500", "0%", "33%", "99.9%"])
@pytest.mark.parametrize("renew_spread", [0, 1, 7, 36500])
def test_after_a_response_nothing_is_due_at_once(lifetime: timedelta, renew_before: str, renew_spread: float) -> None:
    """Whatever the settings, and whatever the platform returns."""
    found = just_issued(
        lifetime, renew_before=renew_before, renew_spread=renew_spread, max_age=1, keys_renew_before=36500
    )
    assert found.next is not None
    assert found.next >= NOW + timedelta(hours=12)


def test_the_same_date_asks_again_after_an_interval_at_the_earliest() -> None:
    """The platform may return the same credentials again, whose end does not move."""
    old = replace(RECORD, not_after=NOW + DAY, keys_expire_at=NOW + HOUR)
    for confirmed_at in (NOW, NOW - REQUEST_INTERVAL + HOUR):
        found = dates(old, confirmed_at)
        assert found.certificate is not None
        assert found.keys is not None
        assert found.certificate.at == found.keys.at == confirmed_at + REQUEST_INTERVAL > NOW
    assert dates(old, NOW - REQUEST_INTERVAL).next == NOW
    assert REQUEST_INTERVAL < DAY, "a daily run is not that punctual"


# ---- the spread ----


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"keys_expire_at": None}, {}),
        ({"keys_expire_at": None}, {"renew_before": "25%"}),
        ({"not_after": None}, {}),
        ({"not_after": None, "keys_expire_at": None}, {"max_age": 150}),
    ],
)
def test_the_spread_only_makes_a_renewal_earlier(changes: dict[str, Any], options: dict[str, Any]) -> None:
    at_once = dates(replace(RECORD, **changes), **options).next
    spread_out = dates(replace(RECORD, **changes), renew_spread=7, **options).next
    assert at_once is not None
    assert spread_out is not None
    assert abs(at_once - spread_out - 7 * SHARE * DAY) < SECOND


def share(hardware_id: str | None, given_name: str | None = None) -> float:
    record = replace(RECORD, hardware_id=hardware_id, given_name=given_name, keys_expire_at=None)
    due = dates(record, renew_spread=10).certificate
    assert due is not None
    return (NOW + 70 * DAY - due.at) / (10 * DAY)


def test_the_spread_is_the_same_in_every_process() -> None:
    """A hash that is salted per process would renew on another day with every run."""
    assert round(share("hw-1"), 6) == SHARE == round(share(None, "hw-1"), 6)
    assert share("hw-1", "gw1") == share("hw-1", "gw2")
    assert all(0 <= share(name) < 1 for name in (None, "", "352753090041680", "Grüße"))


def test_the_spread_is_even_over_a_fleet() -> None:
    tenths = Counter(int(share(f"hpg-{number:06d}") * 10) for number in range(10_000))
    assert sorted(tenths) == list(range(10))
    assert all(850 < count < 1150 for count in tenths.values())


# ---- dates in the future ----

FUTURE = NOW + 3650 * DAY


def test_a_date_in_the_future_is_not_believed() -> None:
    found = dates(replace(RECORD, issued_at=FUTURE), max_age=10)
    assert found.age is not None
    assert found.age.at == NOW, "the age is unknown"
    assert "lies in the future" in found.age.message
    (warning,) = found.warnings
    assert "2036-11-19" in warning
    assert "clock" in warning
    assert dates(replace(RECORD, issued_at=FUTURE)).next == NOW + 26 * DAY, "the other dates hold"


def test_a_later_confirmation_ends_what_a_date_in_the_future_began() -> None:
    found = dates(replace(RECORD, issued_at=FUTURE), NOW, max_age=10)
    assert found.age is not None
    assert found.age.at == NOW + 10 * DAY
    assert dates(replace(RECORD, issued_at=NOW), FUTURE, max_age=10).next == NOW + 10 * DAY


def test_a_small_difference_between_two_clocks_is_no_wrong_clock() -> None:
    assert dates(replace(RECORD, issued_at=NOW + MAX_CLOCK_SKEW), max_age=10).warnings == ()
    assert dates(replace(RECORD, issued_at=NOW + MAX_CLOCK_SKEW + SECOND), max_age=10).warnings != ()


@pytest.mark.parametrize(
    ("days", "before_days", "expected"),
    [(-2, -1, True), (-1, -1, False), (0, -1, False), (1, 2, True), (1, 0, False), (3650, -1, True)],
)
def test_what_arrived_before_a_moment(days: float, before_days: float, expected: bool) -> None:
    """A date in the future says nothing, so that a rotation replaces those credentials, too."""
    assert arrived_before(NOW + days * DAY, NOW + before_days * DAY, NOW) is expected


def test_ten_thousand_decisions_take_a_fraction_of_two_seconds() -> None:
    fleet = [replace(RECORD, hardware_id=f"hw-{number}") for number in range(10_000)]
    policy = RenewalPolicy.parse(renew_before="33%", max_age=1000)
    begin = time.process_time()
    assert all(renewal.due_dates(record, History(), policy, NOW).next for record in fleet)
    assert time.process_time() - begin < 2

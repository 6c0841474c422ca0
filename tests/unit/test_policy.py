# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy as tables: every reason, which of two wins, and every moment at which something becomes due."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import policy
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW

RECORD = MappingProxyType(
    {
        "record_version": policy.RECORD_VERSION,
        "service": "pointperfect",
        "delivery": ["mqtt", "lband"],
        "hardware_id": "hw-1",
        "issued_at": policy.timestamp(NOW - 100 * DAY),
        "not_before": policy.timestamp(NOW - 100 * DAY),
        "not_after": policy.timestamp(NOW + 100 * DAY),
        "keys_expire_at": policy.timestamp(NOW + 40 * DAY),
        "identity_sha256": "1" * 64,
        "formats": None,
        "files": {"credentials.json": "a" * 64, "ca.crt": "c" * 64, "client.key": "d" * 64},
    }
)
WANTED: Mapping[str, Any] = {"service": "pointperfect", "hardware_id": "hw-1", "broker_ca_sha256": "c" * 64}
STATE: Mapping[str, Any] = {"present": True, "damaged": (), "response_intact": True, "attributes_differ": False}


@dataclass(frozen=True)
class Cause:
    """What makes one reason apply, on top of a gateway that is in order."""

    reason: str
    remedy: str
    record: Mapping[str, Any] = field(default_factory=dict)
    wanted: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


# in the order of the chain
CAUSES = (
    Cause("absent", "ask", state={"present": False}),
    Cause("damaged", "ask", state={"damaged": ("credentials.json",), "response_intact": False}),
    Cause("service_changed", "ask", wanted={"service": "cloudlocate"}),
    Cause("service_changed", "ask", wanted={"delivery": "ntrip"}),
    Cause("hardware_id_changed", "ask", wanted={"hardware_id": "hw-2"}),
    Cause("expired", "ask", record={"not_after": policy.timestamp(NOW)}),
    Cause("forced", "ask", wanted={"force": True}),
    Cause("forced", "ask", wanted={"rotate_before": NOW}),
    Cause("expiring", "ask", record={"not_after": policy.timestamp(NOW + 30 * DAY)}),
    Cause("keys_expiring", "ask", record={"keys_expire_at": policy.timestamp(NOW + 14 * DAY)}),
    Cause("max_age", "ask", wanted={"max_age_days": 100}),
    Cause("drift", "render", wanted={"formats": ("pem",)}),
    Cause("none", "nothing"),
)


def wanted(**changes: Any) -> policy.Wanted:
    return policy.Wanted(**{**WANTED, **changes})


def state(record: Mapping[str, Any] | None = RECORD, **changes: Any) -> policy.State:
    return policy.State(record=record, **{**STATE, **changes})


def decide(*causes: Cause) -> policy.Decision:
    """Where two causes want the same thing, the first one has its way."""
    record, want, found = dict(RECORD), dict(WANTED), dict(STATE)
    for cause in reversed(causes):
        record.update(cause.record)
        want.update(cause.wanted)
        found.update(cause.state)
    return policy.decide(policy.State(record=record, **found), policy.Wanted(**want), NOW)


def test_the_table_has_every_reason_in_its_order() -> None:
    found_by_using_them = {"refused"}
    reasons = [reason for reason in policy.REASONS if reason not in found_by_using_them]
    assert list(dict.fromkeys(cause.reason for cause in CAUSES)) == reasons


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.reason)
def test_each_reason(cause: Cause) -> None:
    assert decide(cause) == policy.Decision(cause.reason, cause.remedy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("earlier", "later"), list(itertools.combinations(CAUSES, 2)), ids=lambda cause: cause.reason if cause else ""
)
def test_the_earlier_reason_wins(earlier: Cause, later: Cause) -> None:
    assert decide(earlier, later).reason == earlier.reason


# ---- damage and drift ----


@pytest.mark.parametrize(
    ("changes", "due", "decision"),
    [
        ({"damaged": ("client.key",)}, {}, ("damaged", "render")),
        ({"damaged": ("client.key",)}, {"force": True}, ("damaged", "ask")),
        ({"damaged": ("client.key",)}, {"service": "cloudlocate"}, ("damaged", "ask")),
        ({"damaged": ("client.key",)}, {"renew_before": "200"}, ("damaged", "ask")),
        ({"damaged": ("client.key",)}, {"keys_renew_before_days": 50}, ("damaged", "ask")),
        ({"damaged": ("client.key",)}, {"max_age_days": 1}, ("damaged", "ask")),
        ({"damaged": ("client.key",)}, {"formats": ("pem",)}, ("damaged", "render")),
        ({"damaged": ("client.key",), "response_intact": False}, {}, ("damaged", "ask")),
        ({"damaged": ("client.key",), "attributes_differ": True}, {}, ("damaged", "render")),
        ({"attributes_differ": True}, {}, ("drift", "attributes")),
        ({"attributes_differ": True}, {"formats": ("env",)}, ("drift", "render")),
        ({"attributes_differ": True}, {"force": True}, ("forced", "ask")),
        ({}, {"broker_ca_sha256": "e" * 64}, ("drift", "render")),
        ({}, {"broker_ca_sha256": None}, ("none", "nothing")),
    ],
)
def test_damage_and_drift(changes: dict[str, Any], due: dict[str, Any], decision: tuple[str, str]) -> None:
    assert policy.decide(state(**changes), wanted(**due), NOW) == policy.Decision(*decision)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "formats", "reason"),
    [
        ({"record_version": policy.RECORD_VERSION - 1}, None, "drift"),
        ({"record_version": None}, None, "drift"),
        ({"formats": ["env", "pem"]}, ("pem", "env"), "none"),
        ({"formats": ["env", "pem"]}, None, "drift"),
        ({"formats": ["pem"]}, ("env",), "drift"),
    ],
)
def test_bundles_that_were_rendered_differently(
    changes: dict[str, Any], formats: tuple[str, ...] | None, reason: str
) -> None:
    assert policy.decide(state({**RECORD, **changes}), wanted(formats=formats), NOW).reason == reason


def test_a_bundle_without_a_ca_does_not_drift_with_the_ca_of_the_controller() -> None:
    record = {**RECORD, "files": {"credentials.json": "a" * 64}}
    assert policy.decide(state(record), wanted(broker_ca_sha256="e" * 64), NOW).reason == "none"


@pytest.mark.parametrize(
    "changes",
    [
        {"issued_at": None},
        {"issued_at": "2026-11-22"},
        {"issued_at": 1700000000},
        {"confirmed_at": "soon"},
        {"confirmed_at": "9999-99-99T99:99:99Z"},
        {"not_before": "soon"},
        {"not_after": "2026-13-01T00:00:00Z"},
        {"not_after": ["2026-11-22T00:00:00Z"]},
        {"not_after": "2026-11-22T00:00:00+00:00"},
        {"keys_expire_at": {"value": 1}},
        {"service": None},
        {"service": 7},
        {"files": None},
        {"files": ["client.key"]},
        {"files": {"client.key": None}},
        {"files": {"client.key": 5}},
        {"files": {"../client.key": "d" * 64}},
        {"files": {"": "d" * 64}},
        {"files": {".hidden": "d" * 64}},
        {"files": {"a b": "d" * 64}},
        {"files": {"a\n": "d" * 64}},
        {"files": {"a" * 129: "d" * 64}},
    ],
)
def test_an_unreadable_record_is_damage(changes: dict[str, Any]) -> None:
    assert policy.decide(state({**RECORD, **changes}), wanted(), NOW) == policy.Decision("damaged", "ask")


def test_a_generation_without_a_record_is_damage() -> None:
    assert policy.decide(state(None), wanted(), NOW) == policy.Decision("damaged", "ask")


@pytest.mark.parametrize("name", ["not_before", "not_after", "keys_expire_at"])
def test_dates_that_a_service_does_not_have_make_nothing_due(name: str) -> None:
    assert policy.decide(state({**RECORD, name: None}), wanted(), NOW).reason == "none"


def test_a_hardware_id_that_is_not_given_is_not_compared() -> None:
    assert policy.decide(state(), wanted(hardware_id=None), NOW).reason == "none"


def test_a_hardware_id_is_a_change_where_there_was_none() -> None:
    assert policy.decide(state({**RECORD, "hardware_id": None}), wanted(), NOW).reason == "hardware_id_changed"


@pytest.mark.parametrize(
    ("delivery", "wish", "reason"),
    [
        (["mqtt", "lband"], None, "none"),
        (["mqtt", "lband"], "mqtt", "none"),
        (["mqtt", "lband"], "ntrip", "service_changed"),
        (["mqtt", "ntrip"], "ntrip", "none"),
        (["ntrip"], "mqtt", "service_changed"),
        ([], None, "none"),
        ([], "mqtt", "service_changed"),
        (None, None, "none"),
        (None, "mqtt", "service_changed"),
        ("mqtt", "mqtt", "service_changed"),
        ([["mqtt"], 5, None], "mqtt", "service_changed"),
        ({"mqtt": 1}, "mqtt", "service_changed"),
    ],
)
def test_the_delivery_that_is_wanted(delivery: object, wish: str | None, reason: str) -> None:
    assert policy.decide(state({**RECORD, "delivery": delivery}), wanted(delivery=wish), NOW).reason == reason


@pytest.mark.parametrize(
    ("days", "changes", "reason"),
    [
        (100 * DAY, {}, "none"),
        (100 * DAY - timedelta(seconds=1), {}, "forced"),
        (100 * DAY + timedelta(seconds=1), {}, "none"),
        (timedelta(0), {}, "forced"),
        (-1000 * DAY, {}, "forced"),
        (timedelta(0), {"confirmed_at": policy.timestamp(NOW)}, "forced"),
        (timedelta(0), {"issued_at": policy.timestamp(NOW)}, "none"),
    ],
)
def test_what_a_rotation_replaces(days: timedelta, changes: dict[str, Any], reason: str) -> None:
    """What arrived before it began, 100 days ago here; that the platform has returned it since does not count."""
    record, want = {**RECORD, **changes}, wanted(rotate_before=NOW - days)
    assert policy.decide(state(record), want, NOW).reason == reason
    assert policy.rotation_due(record, want) is (reason == "forced")


def test_a_rotation_asks_also_where_files_could_be_rendered_again() -> None:
    damaged = state(damaged=("client.key",))
    assert policy.decide(damaged, wanted(rotate_before=NOW), NOW) == policy.Decision("damaged", "ask")


def test_nothing_to_rotate() -> None:
    assert not policy.rotation_due(None, wanted(rotate_before=NOW))
    assert not policy.rotation_due(RECORD, wanted())
    assert policy.decide(state(present=False), wanted(rotate_before=NOW), NOW).reason == "absent"


# ---- when something becomes due ----


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({"renew_before": "30"}, 70),
        ({"renew_before": "0"}, 100),
        ({"renew_before": "0.5"}, 99.5),
        ({"renew_before": " 30 "}, 70),
        ({"renew_before": "25%"}, 50),
        ({"renew_before": "0%"}, 100),
        ({"renew_before": "12.5%"}, 75),
        ({"renew_before": "99.9%"}, -99.8),
    ],
)
def test_the_moment_at_which_a_certificate_is_due(changes: dict[str, Any], days: float) -> None:
    """The certificate of the record lives 200 days, 100 of which are over."""
    record = {**RECORD, "keys_expire_at": None}
    due_at = policy.renewal_due_at(record, wanted(**changes))
    assert due_at is not None
    assert abs(due_at - (NOW + timedelta(days=days))) < timedelta(seconds=1)
    before, after = due_at - timedelta(seconds=1), due_at + timedelta(seconds=1)
    assert policy.decide(state(record), wanted(**changes), before).reason == "none"
    assert policy.decide(state(record), wanted(**changes), after).reason in ("expiring", "expired")


@pytest.mark.parametrize(
    "renew_before",
    [
        "",
        "%",
        "-1",
        "+1",
        "100%",
        "250%",
        "30d",
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
    ],
)
def test_a_renew_before_that_cannot_be_read(renew_before: str) -> None:
    for present in (True, False):
        with pytest.raises(ProvisioningError) as caught:
            policy.decide(state(present=present), wanted(renew_before=renew_before), NOW)
        assert caught.value.code == "bad_option"
        assert "renew_before" in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"renew_before": "1000000"},
        {"renew_before": "99999999999"},
        {"max_age_days": 1e7},
        {"max_age_days": 1e12},
        {"keys_renew_before_days": 1e7},
        {"keys_renew_before_days": float("inf")},
        {"renew_spread_days": 1e9},
        {"max_age_days": float("nan")},
    ],
    ids=str,
)
def test_a_duration_beyond_the_calendar_is_no_crash(changes: dict[str, Any]) -> None:
    """Whether it is refused or taken as forever: it is never an ``OverflowError`` in the face of the user."""
    try:
        decision = policy.decide(state(), wanted(**changes), NOW)
    except ProvisioningError as error:
        assert error.code == "bad_option"  # noqa: PT017  # either outcome is right
    else:
        assert decision.reason in policy.REASONS


@pytest.mark.parametrize(
    ("record", "changes", "reason"),
    [
        ({"not_after": NOW}, {}, "expired"),
        ({"not_after": NOW + timedelta(seconds=1)}, {}, "expiring"),
        ({"not_after": NOW + 30 * DAY}, {}, "expiring"),
        ({"not_after": NOW + 30 * DAY + timedelta(seconds=1)}, {}, "none"),
        ({"keys_expire_at": NOW + 14 * DAY}, {}, "keys_expiring"),
        ({"keys_expire_at": NOW + 14 * DAY + timedelta(seconds=1)}, {}, "none"),
        ({"keys_expire_at": NOW - DAY}, {}, "keys_expiring"),
        ({"keys_expire_at": NOW + 3 * DAY}, {"keys_renew_before_days": 2}, "none"),
        ({"issued_at": NOW - 10 * DAY}, {"max_age_days": 10}, "max_age"),
        ({"issued_at": NOW - 10 * DAY + timedelta(seconds=1)}, {"max_age_days": 10}, "none"),
        ({"issued_at": NOW - 10 * DAY}, {"max_age_days": None}, "none"),
        ({"issued_at": NOW - 10 * DAY}, {"max_age_days": 0}, "max_age"),
        ({"issued_at": NOW - 90 * DAY, "confirmed_at": NOW - 10 * DAY}, {"max_age_days": 10}, "max_age"),
        (
            {"issued_at": NOW - 90 * DAY, "confirmed_at": NOW - 10 * DAY + timedelta(seconds=1)},
            {"max_age_days": 10},
            "none",
        ),
        ({"issued_at": NOW - 5 * DAY, "confirmed_at": NOW - 20 * DAY}, {"max_age_days": 10}, "none"),
        ({"issued_at": NOW - 10 * DAY, "confirmed_at": NOW - 20 * DAY}, {"max_age_days": 10}, "max_age"),
    ],
)
def test_the_edges_of_each_date(record: dict[str, datetime], changes: dict[str, Any], reason: str) -> None:
    dates = {name: policy.timestamp(date) for name, date in record.items()}
    assert policy.decide(state({**RECORD, **dates}), wanted(**changes), NOW).reason == reason


def test_a_certificate_without_end_is_never_due() -> None:
    record = {**RECORD, "not_after": "9999-12-31T23:59:59Z"}
    assert policy.decide(state(record), wanted(renew_before="33%"), NOW).reason == "none"


def test_renewal_is_due_at_the_earliest_of_its_dates() -> None:
    """Certificate: in 70 days. Keys: in 26 days. Age: in 10 days."""
    assert policy.renewal_due_at(RECORD, wanted()) == NOW + 26 * DAY
    assert policy.renewal_due_at(RECORD, wanted(max_age_days=110)) == NOW + 10 * DAY
    confirmed = {**RECORD, "confirmed_at": policy.timestamp(NOW - 90 * DAY)}
    assert policy.renewal_due_at(confirmed, wanted(max_age_days=110)) == NOW + 20 * DAY
    assert policy.renewal_due_at({"issued_at": RECORD["issued_at"]}, wanted()) is None


# ---- the spread ----


@pytest.mark.parametrize(
    ("date", "changes"),
    [
        ("not_after", {}),
        ("not_after", {"renew_before": "25%"}),
        ("keys_expire_at", {}),
        ("issued_at", {"max_age_days": 150}),
    ],
)
def test_the_spread_only_makes_a_renewal_earlier(date: str, changes: dict[str, Any]) -> None:
    others = dict.fromkeys({"not_after", "keys_expire_at"} - {date})
    at_once = policy.renewal_due_at({**RECORD, **others}, wanted(**changes))
    spread_out = policy.renewal_due_at({**RECORD, **others}, wanted(renew_spread_days=7, **changes))
    assert at_once is not None
    assert spread_out == at_once - policy.spread("hw-1", 7)
    assert spread_out < at_once


@pytest.mark.parametrize("hardware_id", [None, "", "hw-1", "352753090041680", "Grüße"])
def test_the_spread_of_a_gateway_is_always_the_same_and_within_its_bounds(hardware_id: str | None) -> None:
    assert policy.spread(hardware_id, 7) == policy.spread(hardware_id, 7)
    assert timedelta(0) <= policy.spread(hardware_id, 7) < 7 * DAY
    assert policy.spread(hardware_id, 0) == timedelta(0)


def test_the_spread_is_the_same_in_every_process() -> None:
    """A hash that is salted per process would renew on another day with every run."""
    assert round(policy.spread("hw-1", 1000) / DAY, 3) == 228.044


def test_the_spread_is_even_over_a_fleet() -> None:
    days = Counter(policy.spread(f"hpg-{number:06d}", 10) // DAY for number in range(10_000))
    assert sorted(days) == list(range(10))
    assert all(850 < count < 1150 for count in days.values())


# ---- dates ----


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, None),
        (NOW, "2026-11-22T12:00:00Z"),
        (NOW.replace(microsecond=999_999), "2026-11-22T12:00:00Z"),
        (datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T23:00:00Z"),
    ],
)
def test_dates_are_iso_8601_in_utc(moment: datetime | None, text: str | None) -> None:
    assert policy.timestamp(moment) == text
    back = policy.moment({"date": text}, "date")
    assert back == (moment.replace(microsecond=0) if moment else None)
    assert back is None or back.utcoffset() == timedelta(0)


# ---- what came back ----


@pytest.mark.parametrize(
    ("after", "action"),
    [
        ({}, "unchanged"),
        ({"identity_sha256": "2" * 64}, "renewed"),
        ({"identity_sha256": "2" * 64, "keys_expire_at": "2027-01-01T00:00:00Z"}, "renewed"),
        ({"keys_expire_at": "2027-01-01T00:00:00Z"}, "refreshed"),
        ({"keys_expire_at": None}, "refreshed"),
        ({"formats": ["pem"]}, "refreshed"),
        ({"files": {**RECORD["files"], "client.key": "e" * 64}}, "refreshed"),
        ({"files": {**RECORD["files"], "more.env": "e" * 64}}, "refreshed"),
        ({"files": {**RECORD["files"], "credentials.json": "e" * 64}}, "unchanged"),
        ({"issued_at": "2027-01-01T00:00:00Z"}, "unchanged"),
    ],
)
def test_what_came_back(after: dict[str, Any], action: str) -> None:
    assert policy.classify(RECORD, {**RECORD, **after}) == action
    assert policy.classify(None, {**RECORD, **after}) == "created"


@pytest.mark.parametrize("files", [None, "missing", [], "text", {"client.key": 5}])
def test_what_came_back_for_a_record_that_cannot_be_read(files: Any) -> None:
    """A damaged record is asked for again, and what it held is compared with what came back."""
    before = {name: value for name, value in RECORD.items() if name != "files"}
    if files != "missing":
        before["files"] = files
    assert policy.classify(before, RECORD) in ("renewed", "refreshed")


def test_ten_thousand_decisions_take_a_fraction_of_two_seconds() -> None:
    fleet = [wanted(renew_spread_days=7, renew_before="33%", max_age_days=1000 + number) for number in range(10_000)]
    found = state()
    begin = time.process_time()
    assert {policy.decide(found, want, NOW).reason for want in fleet} == {"none"}
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("year", [1, 999, 1950, 2026, 9999])
def test_a_record_of_any_year_can_be_read_again(year: int) -> None:
    then = datetime(year, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)
    assert policy.moment({"date": policy.timestamp(then)}, "date") == then.replace(microsecond=0)

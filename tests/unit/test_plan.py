# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for hand-made states: every reason, which of two wins, the spool, the history, and every refusal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import FormerThing, History
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import RECORD_VERSION, Record, response_id
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.render import Templates
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import Attributes
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import due
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import plan as planning
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Given
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.observe import Observed, Spooled
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.plan import (
    Install,
    Nothing,
    Plan,
    Refuse,
    Remove,
    Render,
    Request,
    SetAttributes,
    WriteHistory,
    needs_complete_observation,
    plan_installation,
    plan_removal,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.ledger import Ledger, LedgerEntry
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.requests import RequestMarker
from ansible_collections.thingstream.ztp.tests.unit.observations import (
    PATH,
    RECORD,
    bare_gateway,
    desired,
    gateway,
    nothing_observed,
    observed,
    platform,
    spooled,
)
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    NOW,
    Pair,
    assert_no_secret,
    cloudlocate,
    encoded,
    rtcm,
    spartn,
)

SECOND = timedelta(seconds=1)
POLICY: Mapping[str, Any] = {"renew_spread": 0}
ERROR = ProvisioningError("permission", "No.")


def plan(found: Observed | None = None, source: Given | None = None, **wanted: Any) -> Plan:
    """Return the plan for a gateway in order, or for an observation; the spread is 0."""
    want = desired(**{"renewal": RenewalPolicy.parse(**POLICY), **wanted})
    made = planning.plan(want, source or platform(), found or observed(), NOW)
    assert_no_secret(made)
    return made


def costly(**changes: Any) -> dict[str, Any]:
    """Return settings under which each request creates another Thing."""
    return {"service": SERVICES["cloudlocate"], **changes}


LOCATE = replace(
    RECORD, service="cloudlocate", delivery=("mqtt",), not_before=None, not_after=None, keys_expire_at=None
)


def device(number: int, sequence: int | None = None, **changes: Any) -> Spooled:
    """Return a spool entry with a response of CloudLocate."""
    response = cloudlocate(clientId=f"device:{number}", username=f"user{number}")
    return spooled(
        response, sequence or number, **{"service": "cloudlocate", "replaces": LOCATE.response_id, **changes}
    )


def former(number: int, **changes: Any) -> FormerThing:
    return replace(FormerThing(ThingId(f"device:{number}"), "cloudlocate", "hw-1", "gw1"), **changes)


def ids(history: History) -> list[str | None]:
    return [thing.thing_id.client_id if thing.thing_id else None for thing in history.things]


# ---- the reasons ----


@dataclass(frozen=True)
class Cause:
    """The change to a gateway in order that makes one reason apply."""

    reason: str
    kind: type[Plan]
    word: str
    record: Mapping[str, Any] = field(default_factory=dict)
    desired: Mapping[str, Any] = field(default_factory=dict)
    observed: Mapping[str, Any] = field(default_factory=dict)
    bundle: Mapping[str, Any] = field(default_factory=dict)


BARE = {"gateway": bare_gateway(), "record": None}

# in the order of the chain
CAUSES = (
    Cause("absent", Request, "Nothing is installed", observed=BARE),
    Cause("damaged", Request, "thing.json is missing or cannot be read", observed={"record": None}),
    Cause("damaged", Request, "credentials.json", bundle={"digests": {}}),
    Cause("service_changed", Request, "The service was cloudlocate", record={"service": "cloudlocate"}),
    Cause("service_changed", Request, "The delivery was mqtt and lband", desired={"delivery": "ntrip"}),
    Cause("hardware_id_changed", Request, "was hw-1, and is to be hw-2", desired={"hardware_id": "hw-2"}),
    Cause("expired", Request, "ended 2026-11-22T12:00:00Z", record={"not_after": NOW}),
    Cause("forced", Request, "force is set", desired={"force": True}),
    Cause("forced", Request, "the rotation began", desired={"rotate_before": NOW}),
    Cause("expiring", Request, "The certificate ends 2026-12-22", record={"not_after": NOW + 30 * DAY}),
    Cause("keys_expiring", Request, "The dynamic keys end", record={"keys_expire_at": NOW + 14 * DAY}),
    Cause("max_age", Request, "arrived 2026-08-14", desired={"renewal": RenewalPolicy.parse(max_age=100, **POLICY)}),
    Cause("refused", Request, "refused the credentials in use", observed={"login_refused": True}),
    Cause("drift", Render, "formats", desired={"formats": ("pem",)}),
    Cause("drift", SetAttributes, "An interrupted run left .staging-x", bundle={"leftovers": (".staging-x",)}),
    Cause("none", Nothing, "Nothing is due before 2026-12-18T12:00:00Z."),
)


def plan_of(*causes: Cause) -> Plan:
    """Return the plan for these causes; where two change the same field, the first one wins."""
    changes: dict[str, Any] = {"record": {}, "desired": {}, "observed": {}, "bundle": {}}
    for cause in reversed(causes):
        for name, values in changes.items():
            values.update(getattr(cause, name))
    record = replace(RECORD, **changes["record"])
    found = observed(record, gateway=gateway(record, **changes["bundle"]))
    return plan(replace(found, **changes["observed"]), **changes["desired"])


def test_the_table_has_every_reason_in_its_order() -> None:
    assert tuple(dict.fromkeys(cause.reason for cause in CAUSES)) == due.REASONS


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.word)
def test_each_reason(cause: Cause) -> None:
    made = plan_of(cause)
    assert (made.reason, type(made)) == (cause.reason, cause.kind)
    assert cause.word in made.message
    assert made.message.endswith(".")


@pytest.mark.parametrize(
    ("earlier", "later"), list(itertools.combinations(CAUSES, 2)), ids=lambda cause: cause.word[:20]
)
def test_the_earlier_reason_wins(earlier: Cause, later: Cause) -> None:
    assert plan_of(earlier, later).reason == earlier.reason


# ---- damage and drift ----

DAMAGED_KEY = {**RECORD.files, "client.key": "0" * 64}
OPEN_KEY = {**gateway().bundle.files, "client.key": Attributes("-rw-rw-rw-", 0, 0)}
OPEN_DIRECTORY = {**gateway().bundle.directories, "generations": Attributes("drwxrwxrwx", 0, 0)}


@pytest.mark.parametrize(
    ("bundle", "wanted", "reason", "kind"),
    [
        ({"digests": DAMAGED_KEY}, {}, "damaged", Render),
        ({"digests": DAMAGED_KEY}, {"force": True}, "damaged", Request),
        ({"digests": DAMAGED_KEY}, {"delivery": "ntrip"}, "damaged", Request),
        ({"digests": DAMAGED_KEY}, {"renewal": RenewalPolicy.parse(max_age=1)}, "damaged", Request),
        ({"digests": DAMAGED_KEY}, {"renewal": RenewalPolicy.parse(renew_before="99%")}, "damaged", Request),
        ({"digests": DAMAGED_KEY}, {"rotate_before": NOW}, "damaged", Request),
        ({"digests": DAMAGED_KEY}, {"formats": ("pem",)}, "damaged", Render),
        ({"digests": DAMAGED_KEY, "files": OPEN_KEY}, {}, "damaged", Render),
        ({"digests": {**RECORD.files, "credentials.json": "0" * 64}}, {}, "damaged", Request),
        ({"digests": {name: RECORD.files[name] for name in ("ca.crt", "client.key")}}, {}, "damaged", Request),
        ({"files": OPEN_KEY}, {}, "drift", SetAttributes),
        ({"directories": OPEN_DIRECTORY}, {}, "drift", SetAttributes),
        ({"files": OPEN_KEY}, {"formats": ("env",)}, "drift", Render),
        ({"files": OPEN_KEY}, {"force": True}, "forced", Request),
        ({}, {"broker_ca_sha256": "e" * 64}, "drift", Render),
        ({}, {"broker_ca_sha256": None}, "none", Nothing),
        ({}, {"templates": Templates("t" * 64, {}, lambda _record, _fields: {})}, "drift", Render),
    ],
)
def test_damage_and_drift(bundle: dict[str, Any], wanted: dict[str, Any], reason: str, kind: type[Plan]) -> None:
    made = plan(observed(gateway=gateway(**bundle)), **wanted)
    assert (made.reason, type(made)) == (reason, kind)


def test_a_bundle_whose_record_names_no_response_is_requested() -> None:
    record = replace(RECORD, files={name: RECORD.files[name] for name in ("ca.crt", "client.key")})
    made = plan(observed(record, gateway=gateway(record, digests={**record.files, "client.key": "0" * 64})))
    assert (made.reason, type(made)) == ("damaged", Request)


@pytest.mark.parametrize(
    ("changes", "formats", "reason"),
    [
        ({"record_version": RECORD_VERSION - 1}, None, "drift"),
        ({"formats": ("env", "pem")}, ("pem", "env"), "none"),
        ({"formats": ("env", "pem")}, None, "drift"),
        ({"formats": ("pem",)}, ("env",), "drift"),
        ({"formats": ()}, (), "none"),
        ({"formats": ()}, None, "drift"),
    ],
)
def test_bundles_that_were_rendered_differently(
    changes: dict[str, Any], formats: tuple[str, ...] | None, reason: str
) -> None:
    record = replace(RECORD, **changes)
    assert plan(observed(record), formats=formats).reason == reason


def test_a_bundle_without_a_ca_does_not_drift_with_the_ca_of_the_controller() -> None:
    record = replace(RECORD, files={"credentials.json": "a" * 64})
    assert plan(observed(record), broker_ca_sha256="e" * 64).reason == "none"


@pytest.mark.parametrize("name", ["not_before", "not_after", "keys_expire_at"])
def test_a_date_that_a_service_does_not_have_makes_nothing_due(name: str) -> None:
    changes: dict[str, Any] = {name: None}
    assert plan(observed(replace(RECORD, **changes))).reason == "none"


def test_a_hardware_id_that_is_not_given_is_not_compared() -> None:
    assert plan(hardware_id=None).reason == "none"


def test_a_hardware_id_is_a_change_where_there_was_none() -> None:
    made = plan(observed(replace(RECORD, hardware_id=None)))
    assert (made.reason, made.message) == ("hardware_id_changed", "The hardware ID was none, and is to be hw-1.")


@pytest.mark.parametrize(
    ("delivery", "wish", "reason"),
    [
        (("mqtt", "lband"), None, "none"),
        (("mqtt", "lband"), "mqtt", "none"),
        (("mqtt", "lband"), "ntrip", "service_changed"),
        (("mqtt", "ntrip"), "ntrip", "none"),
        (("ntrip",), "mqtt", "service_changed"),
        ((), None, "none"),
        ((), "mqtt", "service_changed"),
    ],
)
def test_the_delivery(delivery: tuple[str, ...], wish: str | None, reason: str) -> None:
    assert plan(observed(replace(RECORD, delivery=delivery)), delivery=wish).reason == reason


@pytest.mark.parametrize(
    ("issued_at", "before", "reason"),
    [
        (NOW - 100 * DAY, NOW - 100 * DAY, "none"),
        (NOW - 100 * DAY, NOW - 100 * DAY + SECOND, "forced"),
        (NOW - 100 * DAY, NOW - 100 * DAY - SECOND, "none"),
        (NOW - 100 * DAY, NOW, "forced"),
        (NOW - 100 * DAY, NOW + SECOND, "bad_option"),
        (NOW, NOW, "none"),
        (NOW + 3650 * DAY, NOW - DAY, "forced"),  # a wrong clock: when they arrived is unknown
    ],
)
def test_what_a_rotation_replaces(issued_at: Any, before: Any, reason: str) -> None:
    assert plan(observed(replace(RECORD, issued_at=issued_at)), rotate_before=before).reason == reason


def test_a_rotation_that_begins_in_the_future_is_refused() -> None:
    """Every run until then would replace the credentials again, each time by a new Thing."""
    for found in (observed(), observed(None), nothing_observed()):
        made = plan(found, rotate_before=NOW + SECOND)
        assert isinstance(made, Refuse)
        assert made.error.code == "bad_option"
        assert "2026-11-22T12:00:01Z" in made.error.message
        assert "2026-11-22T12:00:00Z on the controller" in made.error.message


def test_a_confirmation_is_no_rotation() -> None:
    history = History().confirm(RECORD.identity_sha256, NOW)
    assert plan(observed(history=history), rotate_before=NOW - DAY).reason == "forced"


# ---- the spool ----


def test_a_response_that_replaces_what_is_installed_is_installed(other_pair: Pair) -> None:
    waiting = spooled(spartn(other_pair, clientId="device:2"), reason="expiring")
    made = plan(observed(spooled=(waiting,)))
    assert isinstance(made, Install)
    assert (made.reason, made.entry, made.outdated) == ("expiring", waiting.entry, ())
    assert made.message == "A response of 2026-11-22T12:00:00Z waits in the spool."
    assert made.credentials == waiting.credentials
    assert ids(made.history) == ["device:1"]
    assert made.history.things[0].since == NOW


def test_a_response_that_waits_gets_the_reason_that_applies_now() -> None:
    waiting = device(2, reason="max_age")
    for wanted, reason in ((costly(force=True), "forced"), (costly(formats=("env",)), "max_age")):
        assert plan(observed(LOCATE, spooled=(waiting,)), **wanted).reason == reason


@pytest.mark.parametrize(
    "replaces",
    [None, response_id("1" * 64, NOW), response_id("2" * 64, LOCATE.issued_at)],
    ids=["nothing installed", "another date", "another identity"],
)
@pytest.mark.parametrize("days", [-200, 0, 3650])
def test_a_response_that_replaces_another_one_is_outdated(replaces: str | None, days: float) -> None:
    """Whatever its date says."""
    waiting = device(2, replaces=replaces, received_at=NOW + days * DAY)
    made = plan(observed(LOCATE, spooled=(waiting,)), **costly())
    assert isinstance(made, WriteHistory)
    assert (made.reason, made.outdated, ids(made.history)) == ("none", (waiting,), ["device:2"])
    made = plan(observed(LOCATE, spooled=(waiting,)), **costly(force=True))
    assert isinstance(made, Request)
    assert made.outdated == (waiting,)


@pytest.mark.parametrize(
    ("found", "wanted", "kind"),
    [({"leftovers": (".staging-x",)}, {}, SetAttributes), ({}, {"formats": ("env",)}, Render)],
    ids=["attributes", "render"],
)
def test_a_repair_settles_outdated_responses(
    found: dict[str, Any], wanted: dict[str, Any], kind: type[SetAttributes | Render]
) -> None:
    """So that nothing is left for another run."""
    waiting = device(2, replaces=None)
    made = plan(observed(LOCATE, gateway=gateway(LOCATE, **found), spooled=(waiting,)), **costly(**wanted))
    assert isinstance(made, kind)
    assert (made.outdated, ids(made.history)) == ((waiting,), ["device:2"])


def test_the_response_that_is_installed_is_outdated() -> None:
    """A run installed it, and its report was lost."""
    waiting = device(2, replaces=None)
    assert waiting.credentials is not None
    record = replace(LOCATE, thing_id=ThingId("device:2"), issued_at=NOW,
                     identity_sha256=waiting.credentials.identity_sha256)  # fmt: skip
    for replaces in (None, LOCATE.response_id, record.response_id):
        again = replace(waiting, entry=replace(waiting.entry, replaces=replaces))
        made = plan(observed(record, spooled=(again,)), **costly())
        assert isinstance(made, WriteHistory)
        assert (made.outdated, made.history) == ((again,), History())


def test_the_last_response_counts_and_the_others_are_outdated() -> None:
    waiting = (device(2), device(3, received_at=NOW - DAY), device(4, received_at=NOW - 2 * DAY))
    made = plan(observed(LOCATE, spooled=waiting), **costly())
    assert isinstance(made, Install)
    assert (made.entry, made.outdated) == (waiting[2].entry, waiting[:2])
    assert ids(made.history) == ["device:2", "device:3", "device:1"]


@pytest.mark.parametrize("create", [True, False])
def test_a_response_for_a_gateway_without_credentials(create: bool) -> None:
    waiting = device(2, replaces=None)
    made = plan(nothing_observed(spooled=(waiting,)), **costly(create=create))
    assert isinstance(made, Install)
    assert (made.reason, made.entry) == ("absent", waiting.entry)


def test_a_response_for_an_unreadable_record_is_installed() -> None:
    """Nothing says which response is installed."""
    for replaces in (None, LOCATE.response_id):
        assert isinstance(plan(observed(None, spooled=(device(2, replaces=replaces),)), **costly()), Install)


@pytest.mark.parametrize(
    ("received_days", "before_days", "kind"),
    [(-3, -2, Request), (-2, -2, Install), (-1, -2, Install), (3650, -2, Request)],
)
def test_a_response_from_before_a_rotation(received_days: float, before_days: float, kind: type[Plan]) -> None:
    waiting = device(2, received_at=NOW + received_days * DAY)
    made = plan(observed(LOCATE, spooled=(waiting,)), **costly(rotate_before=NOW + before_days * DAY))
    assert isinstance(made, kind)


def test_a_rotation_that_is_done_leaves_an_older_response_to_its_gateway() -> None:
    record = replace(LOCATE, issued_at=NOW - DAY)
    waiting = device(2, replaces=record.response_id, received_at=NOW - 3 * DAY)
    assert isinstance(plan(observed(record, spooled=(waiting,)), **costly(rotate_before=NOW - 2 * DAY)), Install)


# ---- responses that cannot be used ----


@pytest.mark.parametrize("response", [b"<html>", b"", encoded({"login": {}})])
def test_an_unusable_response_is_requested_again_where_that_creates_nothing(response: bytes) -> None:
    waiting = spooled(response, reason="keys_expiring")
    made = plan(observed(spooled=(waiting,)))
    assert isinstance(made, Request)
    assert (made.reason, made.outdated) == ("keys_expiring", (waiting,))
    assert plan(observed(spooled=(waiting,)), force=True).reason == "forced"
    made = plan(nothing_observed(spooled=(replace(waiting, entry=replace(waiting.entry, replaces=None)),)))
    assert (made.reason, type(made)) == ("absent", Request)


@pytest.mark.parametrize("wanted", [{"hardware_id": None}, costly(), {"create": False}])
def test_an_unusable_response_is_refused_elsewhere(wanted: dict[str, Any]) -> None:
    """Another request would create another Thing, or create is false and nothing is installed."""
    waiting = spooled(b"<html>", replaces=None)
    made = plan(nothing_observed(spooled=(waiting,)), **wanted)
    assert isinstance(made, Refuse)
    assert (made.error.code, made.discard) == ("bad_response", ())
    assert str(waiting.entry.file) in made.error.message


def test_an_outdated_response_that_names_no_thing_stays_where_a_request_creates_one() -> None:
    """Its Thing may exist, and only the marker names it."""
    waiting = spooled(b"<html>", replaces=None, service="cloudlocate")
    assert isinstance(plan(observed(LOCATE, spooled=(waiting,)), **costly()), Nothing)
    made = plan(observed(LOCATE, spooled=(waiting,)), **costly(force=True))
    assert isinstance(made, Request)
    assert made.outdated == ()
    made = plan(observed(LOCATE, spooled=(waiting, device(2, sequence=7))), **costly())
    assert isinstance(made, Install)
    assert made.outdated == ()


def test_an_outdated_response_that_names_no_thing_goes_where_a_request_creates_nothing() -> None:
    waiting = spooled(b"<html>", replaces=None)
    made = plan(observed(spooled=(waiting,)))
    assert isinstance(made, WriteHistory)
    assert (made.outdated, made.history) == ((waiting,), History())


def test_a_response_with_another_delivery_is_requested_again_where_that_creates_nothing(ec_pair: Pair) -> None:
    """The token may have changed since."""
    waiting = spooled(spartn(ec_pair, clientId="device:2"))
    made = plan(observed(spooled=(waiting,)), delivery="ntrip")
    assert isinstance(made, Request)
    assert made.outdated == (waiting,)
    for found, wanted in (
        (observed(spooled=(waiting,)), {"hardware_id": None}),
        (nothing_observed(spooled=(waiting,)), {"create": False}),
    ):
        made = plan(found, delivery="ntrip", **wanted)
        assert isinstance(made, Refuse)
        assert (made.error.code, made.discard) == ("wrong_delivery", ())


# ---- create: false ----


def test_nothing_is_created_where_create_is_false() -> None:
    for wanted in ({}, {"force": True}, {"rotate_before": NOW}, {"renewal": RenewalPolicy.parse(max_age=1)}):
        made = plan(nothing_observed(), create=False, **wanted)
        assert (type(made), made.reason) == (Nothing, "absent")
    assert isinstance(plan(create=False, force=True), Request)
    assert isinstance(plan(observed(None), create=False), Request), "damaged credentials are installed ones"


# ---- refusals ----


def marker(*, is_live: bool) -> RequestMarker:
    return RequestMarker(Path("/spool/x.request"), "cloudlocate", "hw-1", "gw1", NOW, "x.response", is_live)


@pytest.mark.parametrize(
    ("found", "wanted", "code"),
    [
        ({"spool_error": ERROR}, {}, "permission"),
        ({"conflict": ProvisioningError("concurrent_change", "Run again.")}, {}, "concurrent_change"),
        ({"spool_problem": ProvisioningError("spool_failed", "The disk is full.")}, {}, "spool_failed"),
        ({"marker": marker(is_live=True)}, costly(), "concurrent_change"),
        ({"marker": marker(is_live=False)}, costly(), "response_lost"),
        ({"marker": marker(is_live=True)}, {"hardware_id": None}, "concurrent_change"),
        ({"marker": marker(is_live=False)}, {"hardware_id": None}, "response_lost"),
        ({}, {"given_name": ""}, "bad_option"),
    ],
)
@pytest.mark.parametrize("is_installed", [True, False])
def test_a_request_that_is_refused(
    found: dict[str, Any], wanted: dict[str, Any], code: str, is_installed: bool
) -> None:
    state = observed(**found) if is_installed else nothing_observed(**found)
    made = plan(state, force=True, **wanted)
    assert isinstance(made, Refuse)
    assert (made.reason, made.error.code, made.message, made.discard) == (code, code, made.error.message, ())


@pytest.mark.parametrize("is_live", [True, False])
def test_a_marker_does_not_matter_where_a_request_creates_nothing(is_live: bool) -> None:
    assert isinstance(plan(observed(marker=marker(is_live=is_live)), force=True), Request)


@pytest.mark.parametrize("is_live", [True, False])
def test_a_marker_does_not_matter_where_nothing_is_due(is_live: bool) -> None:
    assert isinstance(plan(observed(LOCATE, marker=marker(is_live=is_live)), **costly()), Nothing)


@pytest.mark.parametrize("changes", [{"token": None}, {"endpoint": api.Endpoint("http://api.example.com")}])
def test_a_request_that_must_not_be_sent(changes: dict[str, Any]) -> None:
    made = planning.plan(desired(force=True), platform(**changes), observed(), NOW)
    assert isinstance(made, Refuse)
    assert made.error.code in ("token_invalid", "bad_option")


def test_what_the_gateway_lacks_is_refused_before_a_request_and_before_an_installation() -> None:
    state = gateway(LOCATE)
    full = replace(state, storage=replace(state.storage, free_kib=1))
    for found, wanted in (
        (observed(LOCATE, gateway=full), costly(force=True)),
        (observed(LOCATE, gateway=full, spooled=(device(2),)), costly()),
        (observed(LOCATE, gateway=full), costly(formats=("env",))),
    ):
        made = plan(found, **wanted)
        assert isinstance(made, Refuse)
        assert made.error.code == "disk_full"
    assert isinstance(plan(observed(LOCATE, gateway=full), **costly()), Nothing)


def test_a_history_that_cannot_be_written_is_refused() -> None:
    state = gateway(LOCATE)
    read_only = replace(state, storage=replace(state.storage, not_writable=PATH))
    made = plan(observed(LOCATE, gateway=read_only, spooled=(device(2, replaces=None),)), **costly())
    assert isinstance(made, Refuse)
    assert made.error.code == "permission"


def test_an_error_of_the_spool_comes_first() -> None:
    made = plan(nothing_observed(spool_error=ERROR), create=False)
    assert isinstance(made, Refuse)
    assert made.error is ERROR


# ---- what is written down ----


def known(number: int, **changes: Any) -> LedgerEntry:
    entry = LedgerEntry(
        "cloudlocate", ThingId(f"device:{number}"), "hw-1", "gw1", "gw1", PATH, f"{number}.response", NOW - DAY
    )
    return replace(entry, **changes)


def test_the_things_of_a_wiped_gateway_are_written_down() -> None:
    """The ledger knows them; those of other hosts and paths, deactivated and unidentified ones are left out."""
    ledger = Ledger(
        (
            known(5, delivered_at=NOW - DAY),
            known(6, delivered_at=NOW - DAY, left_at=NOW),
            known(7, deactivated_at=NOW),
            known(8, host="gw2"),
            known(9, path="/elsewhere"),
            known(10, thing_id=None),
            known(2),
        )
    )
    made = plan(nothing_observed(ledger=ledger, spooled=(device(2, replaces=None),)), **costly())
    assert isinstance(made, Install)
    assert ids(made.history) == ["device:5", "device:6"]
    found = nothing_observed(ledger=ledger)
    step = plan_installation(desired(**costly()), found, device(2), (), ("absent", "."), NOW)
    assert isinstance(step, Install)
    assert ids(step.history) == ["device:5", "device:6", "device:2"], "the one in use is left out by its readers"


def test_things_that_are_known_are_not_written_down_again() -> None:
    """A Thing that is deactivated does not return to the list."""
    history = History((former(5, deactivated_at=NOW), former(6, since=NOW - 9 * DAY)))
    ledger = Ledger((known(5), known(6), known(1, delivered_at=NOW)))
    waiting = (device(5, replaces=None), device(6, replaces=None), device(1, replaces=None))
    made = plan(observed(LOCATE, history=history, ledger=ledger, spooled=waiting), **costly())
    assert isinstance(made, WriteHistory)
    assert made.history == history


def test_the_things_of_damaged_bundles_are_written_down() -> None:
    left_behind = (former(5), former(6))
    for wanted in (costly(force=True), costly()):
        step = plan(observed(None, left_behind=left_behind, spooled=(device(2),)), **wanted)
        assert isinstance(step, Install)
        assert ids(step.history) == ["device:5", "device:6"]


def test_the_thing_in_use_leaves_with_the_date_of_its_successor() -> None:
    waiting = device(2, received_at=NOW - 5 * DAY)
    made = plan(observed(LOCATE, spooled=(waiting,)), **costly())
    assert isinstance(made, Install)
    assert made.history.things == (replace(LOCATE.as_former(), since=NOW - 5 * DAY),)


def test_a_response_of_the_thing_in_use_retires_no_thing(ec_pair: Pair) -> None:
    waiting = spooled(spartn(ec_pair, clientId="device:1"))
    made = plan(observed(spooled=(waiting,)))
    assert isinstance(made, Install)
    assert made.history == History()


# ---- misfits ----


def same(record: Record, arrived: Spooled) -> Record:
    """Return the record with the identity of the credentials in a response."""
    assert arrived.credentials is not None
    return replace(record, identity_sha256=arrived.credentials.identity_sha256)


def installation(arrived: Spooled, found: Observed, **wanted: Any) -> Install | Refuse:
    return plan_installation(desired(**wanted), found, arrived, (), ("forced", "force is set."), NOW)


def test_what_arrived_is_installed_for_the_reason_of_its_request(ec_pair: Pair) -> None:
    arrived = spooled(spartn(ec_pair))
    for record in (RECORD, same(RECORD, arrived)):
        step = installation(arrived, observed(record))
        assert isinstance(step, Install)
        assert (step.reason, step.message, step.entry, step.origin) == ("forced", "force is set.", arrived.entry, "ztp")


@pytest.mark.parametrize(
    ("wanted", "found", "code"),
    [
        ({"delivery": "ntrip"}, {}, "wrong_delivery"),
        ({"rotate_before": NOW}, {}, "not_rotated"),
        ({}, {"login_refused": True}, "credentials_refused"),
    ],
)
def test_the_same_credentials_that_are_of_no_use_are_refused_and_not_kept(
    ec_pair: Pair, wanted: dict[str, Any], found: dict[str, Any], code: str
) -> None:
    """The gateway has them already."""
    arrived = spooled(spartn(ec_pair))
    step = installation(arrived, observed(same(RECORD, arrived), **found), **wanted)
    assert isinstance(step, Refuse)
    assert (step.error.code, step.discard) == (code, (arrived.entry,))


def test_others_that_are_of_no_use_are_refused_and_kept(ec_pair: Pair) -> None:
    arrived = spooled(spartn(ec_pair))
    step = installation(arrived, observed(), delivery="ntrip")
    assert isinstance(step, Refuse)
    assert (step.error.code, step.discard) == ("wrong_delivery", ())
    assert str(arrived.entry.file) in step.error.message


def test_others_complete_a_rotation(ec_pair: Pair) -> None:
    arrived = spooled(spartn(ec_pair))
    assert isinstance(installation(arrived, observed(), rotate_before=NOW), Install)
    assert isinstance(installation(arrived, observed(login_refused=True)), Install)


# ---- a given response ----


def test_a_given_response_is_installed_where_something_is_due(ec_pair: Pair) -> None:
    response = encoded(spartn(ec_pair, clientId="device:2"))
    given = Given(response, "ucenter", NOW - 3 * DAY)
    made = plan(observed(), given, force=True)
    assert isinstance(made, Install)
    assert (made.reason, made.entry, made.origin, made.response) == ("forced", None, "ucenter", response)
    assert made.received_at == NOW - 3 * DAY
    assert [(thing.thing_id, thing.since) for thing in made.history.things] == [(RECORD.thing_id, NOW - 3 * DAY)]
    assert isinstance(plan(observed(), given), Nothing)
    undated = plan(nothing_observed(), Given(response, "pem"))
    assert isinstance(undated, Install)
    assert undated.received_at == NOW


def test_a_given_response_that_is_none() -> None:
    made = plan(nothing_observed(), Given(b"<html>", "raw", name="store_path: x"))
    assert isinstance(made, Refuse)
    assert (made.error.code, made.error.message) == ("bad_option", "store_path: x is not one JSON object.")


def test_a_given_response_needs_no_token_and_no_marker(ec_pair: Pair) -> None:
    found = nothing_observed(marker=marker(is_live=False))
    assert isinstance(plan(found, Given(encoded(rtcm()), "raw"), hardware_id=None, given_name=""), Install)


# ---- removal ----


def removal(found: Observed, **wanted: Any) -> Plan:
    return plan_removal(desired(**costly(**wanted)), found, NOW)


def test_a_removal_retires_every_thing() -> None:
    waiting = (device(2), device(3, replaces=None), spooled(b"<html>", 4, service="cloudlocate"))
    ledger = Ledger((known(1), known(2), known(7)))
    made = removal(observed(LOCATE, spooled=waiting, ledger=ledger, history=History((former(9),))))
    assert isinstance(made, Remove)
    assert (made.reason, made.outdated, made.on_gateway) == ("absent", waiting, True)
    assert ids(made.history) == ["device:9", "device:2", "device:3", "device:7", "device:1"]


def test_a_removal_on_a_gateway_without_credentials_clears_the_spool() -> None:
    for waiting in (device(2, replaces=None), spooled(b"<html>", replaces=None, service="cloudlocate")):
        made = removal(nothing_observed(spooled=(waiting,)))
        assert isinstance(made, Remove)
        assert (made.outdated, made.on_gateway) == ((waiting,), False)
    made = removal(nothing_observed())
    assert (type(made), made.reason) == (Nothing, "none")


def test_a_removal_of_what_a_crashed_run_left() -> None:
    state = bare_gateway()
    for changes in ({"leftovers": (".staging-x",)}, {"directories": {"generations": Attributes("drwx------", 0, 0)}}):
        found = nothing_observed(gateway=replace(state, bundle=replace(state.bundle, **changes)))
        made = removal(found)
        assert isinstance(made, Remove)
        assert made.on_gateway


def test_a_removal_that_is_refused() -> None:
    state = gateway(LOCATE)
    read_only = replace(state, storage=replace(state.storage, not_writable=PATH))
    for found, code in (
        (observed(spool_error=ERROR), "permission"),
        (observed(LOCATE, gateway=read_only), "permission"),
    ):
        made = removal(found)
        assert isinstance(made, Refuse)
        assert made.error.code == code


# ---- complete observation ----


@pytest.mark.parametrize(
    ("made", "needed"),
    [
        (Nothing("none", "."), False),
        (Refuse("permission", ".", ERROR), False),
        (WriteHistory("none", ".", History()), False),
        (SetAttributes("drift", ".", History()), False),
        (Render("drift", ".", History()), False),
        (Request("absent", "."), True),
        (Remove("absent", ".", History()), True),
    ],
)
def test_which_plans_need_a_complete_observation(made: Plan, needed: bool) -> None:
    assert needs_complete_observation(made, replace(observed(), complete=False)) is needed
    assert not needs_complete_observation(made, observed())


def test_an_installation_needs_a_complete_observation() -> None:
    found = replace(observed(LOCATE, spooled=(device(2),)), complete=False)
    assert needs_complete_observation(plan(found, **costly()), found)


def test_ten_thousand_plans_take_a_fraction_of_two_seconds() -> None:
    found = observed()
    fleet = [desired(hardware_id=None, given_name=f"gw{number}") for number in range(10_000)]
    begin = time.process_time()
    assert {planning.plan(want, platform(), found, NOW).reason for want in fleet} == {"none"}
    assert time.process_time() - begin < 2


# ---- volatile storage ----


def on_volatile_storage() -> Observed:
    state = bare_gateway()
    storage = replace(state.storage, file_systems=("overlay", "tmpfs"))
    return nothing_observed(gateway=replace(state, storage=storage))


@pytest.mark.parametrize("wanted", [{"hardware_id": None}, costly()])
def test_volatile_storage_is_refused_where_a_request_creates_another_thing(wanted: dict[str, Any]) -> None:
    made = plan(on_volatile_storage(), **wanted)
    assert isinstance(made, Refuse)
    assert made.error.code == "volatile_path"
    assert "(overlay on tmpfs)" in made.error.message
    assert isinstance(plan(on_volatile_storage(), **wanted, allow_volatile=True), Request)


def test_volatile_storage_gets_a_thing_that_the_platform_returns_again() -> None:
    assert isinstance(plan(on_volatile_storage()), Request)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials over many runs: renewed, rotated, delivered in another way, verified, confirmed, retired."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import timestamp
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import RESPONSE_NAME, Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import GatewayUnreachable, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import Hooks
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, ledger, responses
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig, corrupt, flip, newer_keys, unreachable
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    NOW,
    Pair,
    assert_no_secret,
    cloudlocate,
    encoded,
    rtcm,
    spartn,
    tree,
)

SECOND = timedelta(seconds=1)
CLIENT_ID = "11111111-2222-4333-8444-555555555555"  # of the Thing that is installed


@pytest.fixture
def locate(rig: Rig) -> Rig:
    """A gateway on which every request makes a new Thing; it uses the first."""
    rig.service = "cloudlocate"
    rig.present(cloudlocate(clientId="device:1"))
    return rig


def device(number: int) -> dict[str, Any]:
    return cloudlocate(clientId=f"device:{number}")


def keep(rig: Rig, response: Mapping[str, Any] | bytes, days: float, reason: str = "absent") -> Path:
    """Put a response into the spool as a run does that could not install it."""
    directory.prepare(rig.spool, make_parents=True)
    sequence = responses.next_sequence(rig.spool_place, ledger.read(rig.spool_place).received)
    allocation = responses.allocate(rig.spool_place, sequence)
    record = Record.parse((rig.current / "thing.json").read_text()) if rig.current.exists() else None
    entry = responses.Entry(
        service=rig.service,
        hardware_id="hw-1",
        given_name="gw1",
        host="gw1",
        path=str(rig.path),
        reason=reason,
        received_at=NOW + days * DAY,
        sequence=sequence,
        replaces=record.response_id if record else None,
        response=response if isinstance(response, bytes) else encoded(response),
        file=allocation.file,
    )
    stored = allocation.store(entry, rig.cipher)
    allocation.release()
    return stored.file


def outdate(rig: Rig, response: Mapping[str, Any] | bytes, days: float) -> Path:
    """Put a response into the spool that was requested when another one was installed."""
    record = Record.parse((rig.current / "thing.json").read_text())
    assert record is not None
    rig.rewrite(issued_at=timestamp(NOW - 99 * DAY))
    file = keep(rig, response, days)
    rig.rewrite(issued_at=timestamp(record.issued_at))
    return file


def files_in_spool(rig: Rig) -> list[Path]:
    return responses.entry_files(rig.spool_place)


# ---- the history ----


def test_the_list_grows_and_never_has_the_thing_in_use(locate: Rig) -> None:
    for number in (2, 3, 4):
        locate.now = NOW + number * DAY
        outcome = locate.present(device(number), force=True)
        assert outcome.thing is not None
        assert outcome.thing["retired"] == locate.retired == locate.record["retired"]
        assert [(entry["client_id"], entry["since"]) for entry in locate.retired] == [
            (f"device:{before}", timestamp(NOW + (before + 1) * DAY)) for before in range(1, number)
        ]
    locate.assert_in_order()


def test_a_thing_that_is_returned_again_leaves_the_list(locate: Rig) -> None:
    for number in (2, 1):
        locate.present(device(number), force=True)
    assert locate.retired_ids == ["device:2"]


def test_new_keys_retire_no_thing(installed: Rig, ec_pair: Pair) -> None:
    assert installed.present(newer_keys(ec_pair), force=True).action == "refreshed"
    assert (installed.retired, installed.history) == ([], None)


def test_the_list_outlives_its_generations(locate: Rig) -> None:
    for number in (2, 3):
        locate.present(device(number), force=True, keep=0)
    assert locate.generations == ["000003"]
    assert locate.retired_ids == ["device:1", "device:2"]


def test_the_list_survives_absent(locate: Rig) -> None:
    locate.present(device(2), force=True)
    locate.now = NOW + DAY
    outcome = locate.absent()
    assert outcome.thing is not None
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == ["device:1", "device:2"]
    assert locate.retired == outcome.thing["retired"]
    assert locate.retired[-1]["since"] == timestamp(NOW + DAY)
    assert locate.absent().action == "none"
    assert locate.present(device(3)).action == "created"
    assert locate.retired_ids == locate.retired_ids == ["device:1", "device:2"]
    locate.present(device(4), force=True)
    assert locate.retired_ids == ["device:1", "device:2", "device:3"]
    locate.assert_in_order()


def test_another_service_at_the_same_path_leaves_the_old_thing_on_the_list(installed: Rig) -> None:
    installed.service = "cloudlocate"
    installed.present(device(1))
    assert [(entry["client_id"], entry["service"]) for entry in installed.retired] == [(CLIENT_ID, "pointperfect")]


def test_a_deactivated_thing_stays_deactivated(locate: Rig) -> None:
    locate.present(device(2), force=True)
    locate.retire({"client_id": "device:1"})
    locate.present(device(3), force=True)
    assert locate.retired_ids == ["device:2"]
    corrupt(locate.current / "credentials.env")
    assert locate.present().action == "repaired"
    assert locate.retired_ids == ["device:2"]
    locate.absent()
    assert locate.retired_ids == ["device:2", "device:3"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"5",
        json.dumps({"things": [{"client_id": ["x"]}], "confirmed": 5}).encode(),
        json.dumps({"confirmed": {"at": "9999-99-99T99:99:99Z", "identity_sha256": "IDENTITY"}}).encode(),
        json.dumps({"confirmed": {"at": "0000-01-01T00:00:00Z", "identity_sha256": "IDENTITY"}}).encode(),
    ],
    ids=repr,
)
def test_a_hostile_history_causes_no_request_and_no_crash(installed: Rig, ec_pair: Pair, content: bytes) -> None:
    identity = installed.record["identity_sha256"]
    (installed.path / "history.json").write_bytes(content.replace(b"IDENTITY", identity.encode()))
    assert installed.present(max_age=10).action == "none"
    installed.present(spartn(ec_pair), force=True, max_age=10)
    installed.present(newer_keys(ec_pair), force=True, max_age=10)
    installed.assert_in_order()


# ---- rotate_before ----


@pytest.mark.parametrize(
    ("begin", "requests"),
    [(-DAY, False), (timedelta(0), False), (SECOND, True), (DAY, True)],
)
def test_a_rotation_replaces_what_arrived_before_it(locate: Rig, begin: timedelta, requests: bool) -> None:
    locate.now = NOW + 2 * DAY
    outcome = locate.present(*[device(2)] * requests, rotate_before=NOW + begin)
    assert (outcome.action, outcome.reason) == (("renewed", "forced") if requests else ("none", "none"))
    assert locate.retired_ids == ["device:1"] * requests
    assert locate.present(rotate_before=NOW + begin).action == "none", (
        "a second run goes on with the gateways that are left"
    )
    locate.assert_in_order()


def test_a_rotation_in_check_mode(locate: Rig) -> None:
    locate.now = NOW + 2 * DAY
    before = tree(locate.root)
    outcome = locate.present(check_mode=True, rotate_before=NOW + DAY)
    assert (outcome.action, outcome.reason) == ("renewed", "forced")
    assert tree(locate.root) == before


@pytest.mark.parametrize("response", ["the same", "the same with other keys"])
def test_the_same_credentials_are_no_rotation(installed: Rig, ec_pair: Pair, response: str) -> None:
    returned = spartn(ec_pair) if response == "the same" else newer_keys(ec_pair)
    before = tree(installed.path)
    installed.now = NOW + 2 * DAY
    for _run in range(2):
        error = installed.fails(returned, rotate_before=NOW + DAY)
        assert error.code == "not_rotated"
        assert files_in_spool(installed) == []
        assert tree(installed.path) == before


def test_a_rotation_succeeds_once_the_platform_returns_others(installed: Rig, ec_pair: Pair, other_pair: Pair) -> None:
    installed.now = NOW + 2 * DAY
    assert installed.fails(spartn(ec_pair), rotate_before=NOW + DAY).code == "not_rotated"
    assert installed.present(spartn(other_pair), rotate_before=NOW + DAY).action == "renewed"
    installed.assert_in_order()


def test_a_response_from_before_a_rotation_does_not_complete_it(locate: Rig) -> None:
    """It is newer than the installed one, but what exposed that one may have exposed this one, too."""
    keep(locate, device(2), days=1)
    locate.now = NOW + 3 * DAY
    outcome = locate.present(device(3), rotate_before=NOW + 2 * DAY)
    assert (outcome.action, locate.record["client_id"]) == ("renewed", "device:3")
    assert sorted(locate.retired_ids) == ["device:1", "device:2"]
    locate.assert_in_order()


def test_a_response_from_a_rotation_is_installed_without_a_request(locate: Rig) -> None:
    keep(locate, device(2), days=2.5, reason="forced")
    locate.now = NOW + 3 * DAY
    outcome = locate.present(rotate_before=NOW + 2 * DAY)
    assert (outcome.action, outcome.reason, locate.record["client_id"]) == ("renewed", "forced", "device:2")
    locate.assert_in_order()


# ---- delivery ----


def test_another_delivery(installed: Rig) -> None:
    assert installed.present(delivery="mqtt").action == "none"
    before = tree(installed.root)
    outcome = installed.present(check_mode=True, delivery="ntrip")
    assert (outcome.action, outcome.reason) == ("renewed", "service_changed")
    assert tree(installed.root) == before
    outcome = installed.present(rtcm(), delivery="ntrip")
    assert (outcome.action, outcome.reason, outcome.generation) == ("renewed", "service_changed", "000002")
    assert installed.retired_ids == [CLIENT_ID]
    assert installed.present(delivery="ntrip").action == "none"
    installed.assert_in_order()
    assert installed.roll_back().generation == "000001"
    assert installed.record["delivery"] == ["mqtt", "lband"]
    assert [(entry["client_id"], entry["hardware_id"]) for entry in installed.retired] == [(None, "hw-1")]
    assert installed.present(rtcm(), delivery="ntrip").reason == "service_changed"
    assert installed.retired_ids == [CLIENT_ID]


def test_a_token_for_another_delivery(installed: Rig, other_pair: Pair) -> None:
    wrong = spartn(other_pair, clientId="another")
    before = tree(installed.path)
    error = installed.fails(wrong, delivery="ntrip")
    assert error.code == "wrong_delivery"
    assert str(installed.spool_file) in error.message
    assert tree(installed.path) == before
    outcome = installed.present(rtcm(), delivery="ntrip")
    assert (outcome.action, outcome.reason) == ("renewed", "service_changed")
    assert sorted(installed.retired_ids) == [CLIENT_ID, "another"], "the first response is not in use either"
    installed.assert_in_order()


def test_a_token_that_returns_the_thing_in_use(installed: Rig, ec_pair: Pair) -> None:
    """The hardware ID still belongs to the old profile."""
    before = tree(installed.path)
    for _run in range(2):
        assert installed.fails(spartn(ec_pair), delivery="ntrip").code == "wrong_delivery"
        assert files_in_spool(installed) == [], "the gateway has it already"
    assert tree(installed.path) == before
    installed.present(rtcm(), delivery="ntrip")
    assert installed.retired_ids == [CLIENT_ID]
    installed.assert_in_order()


def test_an_unwanted_delivery_is_not_requested_again_where_that_creates_a_thing(rig: Rig, ec_pair: Pair) -> None:
    rig.hardware_id = None
    assert rig.fails(spartn(ec_pair), delivery="ntrip").code == "wrong_delivery"
    error = rig.fails(delivery="ntrip")
    assert error.code == "wrong_delivery"
    assert str(rig.spool_file) in error.message
    assert not rig.path.exists()
    assert rig.present().action == "created", "any delivery is wanted now"
    rig.assert_in_order()


# ---- create: false ----


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_bare_gateway_is_left_alone_where_create_is_false(rig: Rig, check_mode: bool) -> None:
    before = tree(rig.root)
    outcome = rig.present(check_mode=check_mode, create=False, force=True, token=None)
    assert (outcome.action, outcome.reason, outcome.changed, outcome.thing) == ("none", "absent", False, None)
    assert rig.commands == ["exec sh -s"]
    assert tree(rig.root) == before


def test_a_gateway_after_absent_is_left_alone_where_create_is_false(locate: Rig) -> None:
    locate.absent()
    before = tree(locate.root)
    assert locate.present(create=False, force=True).action == "none"
    assert tree(locate.root) == before


def test_a_response_for_a_bare_gateway_is_installed_where_create_is_false(rig: Rig) -> None:
    rig.service = "cloudlocate"
    keep(rig, device(1), days=-1)
    before = tree(rig.root)
    assert rig.present(check_mode=True, create=False).action == "created"
    assert tree(rig.root) == before
    assert rig.present(create=False).action == "created"
    rig.assert_in_order()


def test_installed_credentials_are_renewed_where_create_is_false(locate: Rig) -> None:
    assert locate.present(create=False).action == "none"
    assert locate.present(device(2), create=False, force=True).action == "renewed"


# ---- max_age ----


def test_a_confirmation_restarts_the_age(installed: Rig, ec_pair: Pair) -> None:
    before = tree(installed.current.resolve())
    for days in (10, 20, 30.5):
        installed.now = NOW + days * DAY
        outcome = installed.present(spartn(ec_pair), max_age=10, keys_renew_before=0)
        assert (outcome.action, outcome.reason, outcome.changed) == ("unchanged", "max_age", False)
        assert outcome.thing is not None
        assert outcome.thing["confirmed_at"] == timestamp(installed.now)
        assert outcome.thing["issued_at"] == timestamp(NOW)
        assert outcome.due_at == NOW + (days + 10) * DAY
        for later in (timedelta(0), 9 * DAY, 10 * DAY - SECOND):
            installed.now = NOW + days * DAY + later
            outcome = installed.present(max_age=10, keys_renew_before=0)
            assert (outcome.action, outcome.reason) == ("none", "none")
            assert outcome.thing is not None
            assert outcome.thing["confirmed_at"] == timestamp(NOW + days * DAY)
    assert tree(installed.current.resolve()) == before
    installed.assert_in_order()


def test_newer_keys_count_more_than_an_earlier_confirmation(installed: Rig, ec_pair: Pair) -> None:
    installed.now = NOW + 10 * DAY
    installed.present(spartn(ec_pair), max_age=10)
    installed.now = NOW + 15 * DAY
    outcome = installed.present(newer_keys(ec_pair), max_age=10, force=True)
    assert (outcome.action, outcome.due_at) == ("refreshed", NOW + 25 * DAY)
    installed.now = NOW + 20 * DAY
    assert installed.present(max_age=10).action == "none"


def test_a_confirmation_says_nothing_about_other_credentials(installed: Rig, ec_pair: Pair, other_pair: Pair) -> None:
    installed.now = NOW + 10 * DAY
    installed.present(spartn(ec_pair), max_age=10)
    installed.now = NOW + 11 * DAY
    outcome = installed.present(spartn(other_pair, clientId="another"), force=True)
    assert outcome.action == "renewed"
    assert "confirmed_at" not in (outcome.thing or {})
    assert "confirmed_at" not in installed.record


def test_a_response_that_is_installed_confirms_nothing(installed: Rig, ec_pair: Pair) -> None:
    """The report of its installation was lost."""
    keep(installed, spartn(ec_pair), days=0)
    assert installed.present().action == "none"
    assert installed.history is None
    installed.assert_in_order()


# ---- verification ----

REFUSED = ProvisioningError("credentials_refused", "The broker does not accept the certificate.")
CLOSED = ProvisioningError("unreachable", "The broker does not respond.")


@pytest.mark.parametrize("problem", [REFUSED, CLOSED])
def test_non_working_credentials_are_not_installed(
    installed: Rig, other_pair: Pair, problem: ProvisioningError
) -> None:
    before = tree(installed.path)
    installed.refusal = problem
    for replies in ([spartn(other_pair, clientId="another")], []):
        error = installed.fails(*replies, force=bool(replies), verify="before_switch")
        assert error.code == problem.code
        assert error.message.startswith(problem.message)
        assert str(installed.spool_file) in error.message
        assert tree(installed.path) == before
        assert_no_secret(error, also=(other_pair.secret_line,))
    installed.refusal = None
    outcome = installed.present(verify="before_switch")
    assert (outcome.action, outcome.reason) == ("renewed", "forced")
    assert [parsed.client_id for parsed in installed.verified] == ["another"] * 3
    installed.assert_in_order()


def test_the_first_credentials_are_verified_too(rig: Rig, ec_pair: Pair) -> None:
    rig.refusal = REFUSED
    assert rig.fails(spartn(ec_pair), verify="before_switch").code == "credentials_refused"
    assert not rig.path.exists()


@pytest.mark.parametrize(
    ("changes", "response", "verified"),
    [
        ({"verify": "never"}, "another", 0),
        ({"verify": "before_switch"}, "another", 1),
        ({"verify": "before_switch"}, "the same", 0),
        ({"verify": "before_switch"}, "other keys", 0),
        ({"verify": "before_switch"}, "", 0),
        ({"verify": "before_switch", "formats": ("env",)}, "", 0),
        ({"verify": "always"}, "another", 1),
        ({"verify": "always"}, "", 1),
        ({"verify": "never"}, "", 0),
        ({"verify": "always", "check_mode": True}, "", 0),
    ],
)
def test_which_credentials_are_verified(
    installed: Rig, ec_pair: Pair, other_pair: Pair, changes: dict[str, Any], response: str, verified: int
) -> None:
    known = {
        "another": spartn(other_pair, clientId="another"),
        "the same": spartn(ec_pair),
        "other keys": newer_keys(ec_pair),
    }
    replies = [known[response]] if response else []
    installed.present(*replies, force=bool(response), **changes)
    assert len(installed.verified) == verified


@pytest.mark.parametrize("force", [False, True])
def test_check_mode_verifies_nothing(installed: Rig, force: bool) -> None:
    installed.refusal = REFUSED
    outcome = installed.present(check_mode=True, force=force, verify="always", renew_refused=True)
    assert outcome.reason == ("forced" if force else "none")
    assert installed.verified == []


def test_refused_credentials_are_renewed_with_renew_refused(
    installed: Rig, other_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(parsed: Any) -> None:
        installed.verified.append(parsed)
        if parsed.client_id == CLIENT_ID:
            raise REFUSED

    monkeypatch.setattr(installed, "verify", verify)
    outcome = installed.present(spartn(other_pair, clientId="another"), verify="always", renew_refused=True)
    assert (outcome.action, outcome.reason, outcome.generation) == ("renewed", "refused", "000002")
    assert [parsed.client_id for parsed in installed.verified] == [CLIENT_ID, "another"]
    assert installed.retired_ids == [CLIENT_ID]
    installed.assert_in_order()
    assert installed.present(verify="always", renew_refused=True).action == "none"


@pytest.mark.parametrize(
    ("problem", "renew_refused"), [(REFUSED, False), (CLOSED, False), (CLOSED, True)], ids=["refused", "closed", "both"]
)
def test_non_working_credentials_in_use_are_an_error_and_cause_no_request(
    installed: Rig, problem: ProvisioningError, renew_refused: bool
) -> None:
    before = tree(installed.root)
    installed.refusal = problem
    assert installed.fails(verify="always", renew_refused=renew_refused).code == problem.code
    assert tree(installed.root) == before


def test_a_login_that_may_be_in_use_is_a_warning_and_no_reason(installed: Rig) -> None:
    before = tree(installed.root)
    installed.unverified = "The login is wrong, or it is in use."
    outcome = installed.present(verify="always", renew_refused=True)
    assert (outcome.action, outcome.reason) == ("none", "none")
    assert "The login is wrong, or it is in use." in outcome.warnings
    assert tree(installed.root) == before


def test_a_response_that_is_not_the_installed_one_is_not_used(installed: Rig) -> None:
    """A gateway can report the digest that is expected, and hand out another file."""
    real = (installed.path / "current" / RESPONSE_NAME).read_bytes()
    for response in (real.replace(b'"', b' "', 1), real + b" ", b""):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "read_response", lambda *_arguments, response=response: response)
            assert installed.fails(verify="always", renew_refused=True).code == "no_generation"
    assert installed.verified == []


def test_refused_credentials_that_are_returned_again_are_an_error(installed: Rig, ec_pair: Pair) -> None:
    """A run that verifies must not succeed with credentials that do not work."""
    before = tree(installed.path)
    installed.refusal = REFUSED
    for _run in range(2):
        error = installed.fails(spartn(ec_pair), verify="always", renew_refused=True)
        assert error.code == "credentials_refused"
        assert files_in_spool(installed) == []
        assert tree(installed.path) == before


# ---- spool ----


@pytest.mark.parametrize("cipher", [None, flip])
def test_the_later_of_two_responses_is_installed(locate: Rig, cipher: Any) -> None:
    locate.cipher = cipher
    """By their sequence, not by their dates."""
    keep(locate, device(2), days=2)
    keep(locate, device(3), days=1)
    locate.now = NOW + 3 * DAY
    outcome = locate.present()
    assert (outcome.action, locate.record["client_id"]) == ("renewed", "device:3")
    assert [(entry["client_id"], entry["since"]) for entry in locate.retired] == [
        ("device:2", timestamp(NOW + 3 * DAY)),
        ("device:1", timestamp(NOW + DAY)),
    ]
    locate.assert_in_order()


def test_two_responses_for_a_bare_gateway(rig: Rig) -> None:
    rig.service = "cloudlocate"
    for number in (1, 2):
        keep(rig, device(number), days=number)
    rig.now = NOW + 3 * DAY
    outcome = rig.present()
    assert (outcome.action, rig.record["client_id"], rig.retired_ids) == ("created", "device:2", ["device:1"])
    rig.assert_in_order()


def test_the_thing_of_an_outdated_response_is_retired_once(locate: Rig) -> None:
    outdate(locate, device(0), days=1)
    before = tree(locate.root)
    assert locate.present(check_mode=True).action == "none"
    assert tree(locate.root) == before
    generation = tree(locate.current.resolve())
    outcome = locate.present()
    assert (outcome.action, outcome.changed) == ("none", False)
    assert locate.commands == ["exec sh -s"] * 2, "a look and the history"
    assert locate.retired_ids == ["device:0"]
    assert tree(locate.current.resolve()) == generation
    locate.assert_in_order()
    locate.present()
    assert locate.commands == ["exec sh -s"]


def test_an_outdated_response_does_not_bring_back_a_known_thing(locate: Rig) -> None:
    """Another controller has installed it, replaced it, and marked it as deactivated meanwhile."""
    for number in (2, 3):
        locate.now = NOW + number * DAY
        locate.present(device(number), force=True)
    locate.retire({"client_id": "device:1"})
    before = locate.history
    for number in (1, 2, 3):
        keep(locate, device(number), days=0)
    locate.present()
    assert locate.retired_ids == ["device:2"]
    assert [one for one in locate.history["things"] if one["client_id"] != "device:3"] == before["things"]
    locate.assert_in_order()


def test_a_response_stays_until_its_thing_is_in_the_history(locate: Rig) -> None:
    """The connection breaks in between."""
    file = outdate(locate, device(0), days=1)
    execute, looks = locate.execute, iter([True, False])

    def breaks(command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        return execute(command, standard_input, secret) if next(looks, True) else unreachable(command, standard_input)

    locate.execute = breaks  # type: ignore[method-assign]
    with pytest.raises(GatewayUnreachable):
        locate.present()
    assert files_in_spool(locate) == [file]
    locate.present()
    assert locate.retired_ids == ["device:0"]
    locate.assert_in_order()


def test_an_unusable_response_is_requested_again_for_the_same_reason(installed: Rig, other_pair: Pair) -> None:
    keep(installed, b"<html>", days=1, reason="expiring")
    installed.now = NOW + 2 * DAY
    outcome = installed.present(spartn(other_pair, clientId="another"))
    assert (outcome.action, outcome.reason) == ("renewed", "expiring")
    installed.assert_in_order()


@pytest.mark.parametrize("response", [b"<html>", b"", encoded({"login": {"pass": "x"}})])
def test_an_outdated_response_that_names_no_thing_stays_where_a_request_creates_one(
    locate: Rig, response: bytes
) -> None:
    """``absent`` discards it: the ledger has its hardware ID and name."""
    file = outdate(locate, response, days=-1)
    before = tree(locate.path)
    assert locate.present().action == "none"
    assert locate.commands == ["exec sh -s"]
    assert (files_in_spool(locate), tree(locate.path)) == ([file], before)
    locate.present(device(2), force=True)
    assert (files_in_spool(locate), locate.retired_ids) == ([file], ["device:1"])
    assert locate.absent().action == "removed"
    assert files_in_spool(locate) == []
    unidentified = [entry for entry in locate.ledger if entry["client_id"] is None]
    assert [(entry["hardware_id"], bool(entry["left_at"])) for entry in unidentified] == [("hw-1", True)]


def test_an_unusable_response_goes_where_a_request_creates_nothing(installed: Rig, ec_pair: Pair) -> None:
    keep(installed, b"<html>", days=1)
    installed.now = NOW + 2 * DAY
    installed.present(newer_keys(ec_pair), force=True)
    installed.assert_in_order()
    assert installed.retired == [], "it names no Thing, and the hardware ID is that of the one in use"


def test_absent_retires_the_thing_of_a_response(locate: Rig) -> None:
    keep(locate, device(2), days=1)
    locate.now = NOW + 2 * DAY
    before = tree(locate.root)
    predicted = locate.absent(check_mode=True)
    assert tree(locate.root) == before
    outcome = locate.absent()
    assert predicted == outcome
    assert locate.retired_ids == ["device:2", "device:1"]
    assert files_in_spool(locate) == []


def test_absent_dates_the_thing_in_use_by_its_removal(locate: Rig) -> None:
    """Although its response is still in the spool."""
    keep(locate, device(1), days=0)
    locate.now = NOW + 2 * DAY
    locate.absent()
    assert [(entry["client_id"], entry["since"]) for entry in locate.retired] == [
        ("device:1", timestamp(NOW + 2 * DAY))
    ]
    assert files_in_spool(locate) == []


# ---- health check ----


@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_a_health_check_that_fails(rig: Rig, ec_pair: Pair, other_pair: Pair, service: str) -> None:
    rig.service = service
    flex = [spartn(ec_pair), spartn(other_pair, clientId="another")]
    first, second = flex if service == "pointperfect" else [device(1), device(2)]
    rig.present(first)
    before, in_use = tree(rig.current.resolve()), rig.record["client_id"]
    failing = Hooks(health_command="false", health_timeout=1)
    for replies in ([second], []):
        error = rig.fails(*replies, force=bool(replies), hooks=failing)
        assert error.code == "health_check_failed"
        assert str(rig.spool_file) in error.message
        assert rig.current.readlink() == Path("generations/000001")
        assert tree(rig.current.resolve()) == before
        assert in_use not in rig.retired_ids
    passing = Hooks(reload_command="true", health_command="true", health_timeout=5)
    outcome = rig.present(hooks=passing)
    assert (outcome.action, outcome.reason) == ("renewed", "forced")
    assert rig.record["client_id"] == second["clientId"]
    assert rig.retired_ids == [in_use]
    rig.assert_in_order()


def test_a_health_check_that_fails_on_the_first_installation(rig: Rig, ec_pair: Pair) -> None:
    failing = Hooks(health_command="false", health_timeout=1)
    assert rig.fails(spartn(ec_pair), hooks=failing).code == "health_check_failed"
    assert not rig.current.exists()
    outcome = rig.present(hooks=Hooks(health_command="true", health_timeout=5))
    assert (outcome.action, outcome.reason) == ("created", "absent")
    rig.assert_in_order()

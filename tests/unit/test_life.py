# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a credential over many runs: renewed, rotated, delivered otherwise, proven, confirmed, left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import GatewayUnreachable, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import policy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool
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
    """Puts an answer into the spool as a run does that could not install it."""
    spool.prepare(rig.spool_place)
    raw = response if isinstance(response, bytes) else encoded(response)
    entry = spool.Entry(rig.service, "hw-1", "gw1", reason, NOW + days * DAY, raw)
    file = spool.store(rig.spool_place, entry, rig.cipher).file
    assert file is not None
    return file


def files_in_spool(rig: Rig) -> list[Path]:
    return spool.files(rig.spool_place)


# ---- the history ----


def test_the_list_grows_and_never_has_the_thing_in_use(locate: Rig) -> None:
    for number in (2, 3, 4):
        locate.now = NOW + number * DAY
        outcome = locate.present(device(number), force=True)
        assert outcome.thing is not None
        assert outcome.thing["retired"] == locate.retired == locate.record["retired"]
        assert [(entry["client_id"], entry["since"]) for entry in locate.retired] == [
            (f"device:{before}", policy.timestamp(NOW + (before + 1) * DAY)) for before in range(1, number)
        ]
    locate.assert_in_order()


def test_a_thing_that_comes_back_is_no_longer_on_the_list(locate: Rig) -> None:
    for number in (2, 1):
        locate.present(device(number), force=True)
    assert locate.retired_ids == ["device:2"]


def test_fresh_keys_retire_nobody(installed: Rig, ec_pair: Pair) -> None:
    assert installed.present(newer_keys(ec_pair), force=True).action == "refreshed"
    assert (installed.retired, installed.history) == ([], None)


def test_the_list_outlives_its_generations(locate: Rig) -> None:
    for number in (2, 3):
        locate.present(device(number), force=True, keep=0)
    assert locate.generations == ["000003"]
    assert locate.retired_ids == ["device:1", "device:2"]


def test_the_list_survives_absent_and_goes_on(locate: Rig) -> None:
    locate.present(device(2), force=True)
    locate.now = NOW + DAY
    outcome = locate.absent()
    assert outcome.thing is not None
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == ["device:1", "device:2"]
    assert locate.retired == outcome.thing["retired"]
    assert locate.retired[-1]["since"] == policy.timestamp(NOW + DAY)
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


def test_what_is_marked_stays_marked(locate: Rig) -> None:
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
def test_a_hostile_history_is_no_reason_to_ask_and_no_crash(installed: Rig, ec_pair: Pair, content: bytes) -> None:
    identity = installed.record["identity_sha256"]
    (installed.path / "history.json").write_bytes(content.replace(b"IDENTITY", identity.encode()))
    assert installed.present(max_age_days=10).action == "none"
    installed.present(spartn(ec_pair), force=True, max_age_days=10)
    installed.present(newer_keys(ec_pair), force=True, max_age_days=10)
    installed.assert_in_order()


# ---- rotate_before ----


@pytest.mark.parametrize(
    ("begin", "asks"),
    [(-DAY, False), (timedelta(0), False), (SECOND, True), (DAY, True)],
)
def test_only_what_is_older_than_a_rotation_is_rotated(locate: Rig, begin: timedelta, asks: bool) -> None:
    locate.now = NOW + 2 * DAY
    outcome = locate.present(*[device(2)] * asks, rotate_before=NOW + begin)
    assert (outcome.action, outcome.reason) == (("renewed", "forced") if asks else ("none", "none"))
    assert locate.retired_ids == ["device:1"] * asks
    assert locate.present(rotate_before=NOW + begin).action == "none", "a fleet goes on where it stopped"
    locate.assert_in_order()


def test_a_rotation_in_check_mode(locate: Rig) -> None:
    before = tree(locate.root)
    outcome = locate.present(check_mode=True, rotate_before=NOW + DAY)
    assert (outcome.action, outcome.reason) == ("renewed", "forced")
    assert tree(locate.root) == before


@pytest.mark.parametrize("response", ["the same", "the same with other keys"])
def test_the_same_credentials_are_no_rotation(installed: Rig, ec_pair: Pair, response: str) -> None:
    answer = spartn(ec_pair) if response == "the same" else newer_keys(ec_pair)
    before = tree(installed.path)
    installed.now = NOW + 2 * DAY
    for _run in range(2):
        error = installed.fails(answer, rotate_before=NOW + DAY)
        assert error.code == "not_rotated"
        assert files_in_spool(installed) == []
        assert tree(installed.path) == before


def test_a_rotation_that_was_not_one_goes_on_once_there_are_others(
    installed: Rig, ec_pair: Pair, other_pair: Pair
) -> None:
    installed.now = NOW + 2 * DAY
    assert installed.fails(spartn(ec_pair), rotate_before=NOW + DAY).code == "not_rotated"
    assert installed.present(spartn(other_pair), rotate_before=NOW + DAY).action == "renewed"
    installed.assert_in_order()


def test_an_answer_from_before_a_rotation_is_not_taken_for_it(locate: Rig) -> None:
    """It is newer than what is installed, but whoever read that one may have read this one, too."""
    keep(locate, device(2), days=1)
    locate.now = NOW + 3 * DAY
    outcome = locate.present(device(3), rotate_before=NOW + 2 * DAY)
    assert (outcome.action, locate.record["client_id"]) == ("renewed", "device:3")
    assert sorted(locate.retired_ids) == ["device:1", "device:2"]
    locate.assert_in_order()


def test_an_answer_from_a_rotation_is_installed_without_a_request(locate: Rig) -> None:
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


def test_a_token_that_delivers_otherwise(installed: Rig, other_pair: Pair) -> None:
    wrong = spartn(other_pair, clientId="another")
    before = tree(installed.path)
    error = installed.fails(wrong, delivery="ntrip")
    assert error.code == "wrong_delivery"
    assert str(installed.spool_file) in error.message
    assert tree(installed.path) == before
    outcome = installed.present(rtcm(), delivery="ntrip")
    assert (outcome.action, outcome.reason) == ("renewed", "service_changed")
    assert sorted(installed.retired_ids) == [CLIENT_ID, "another"], "nobody uses the one that came first either"
    installed.assert_in_order()


def test_a_token_that_delivers_the_thing_in_use(installed: Rig, ec_pair: Pair) -> None:
    """The hardware ID still belongs to the old profile."""
    before = tree(installed.path)
    for _run in range(2):
        assert installed.fails(spartn(ec_pair), delivery="ntrip").code == "wrong_delivery"
        assert files_in_spool(installed) == [], "the gateway has it already"
    assert tree(installed.path) == before
    installed.present(rtcm(), delivery="ntrip")
    assert installed.retired_ids == [CLIENT_ID]
    installed.assert_in_order()


def test_an_unwanted_delivery_is_not_asked_for_again_where_that_makes_things(rig: Rig, ec_pair: Pair) -> None:
    assert rig.fails(spartn(ec_pair), delivery="ntrip", repeatable=False).code == "wrong_delivery"
    error = rig.fails(delivery="ntrip", repeatable=False)
    assert error.code == "wrong_delivery"
    assert str(rig.spool_file) in error.message
    assert not rig.path.exists()
    assert rig.present(repeatable=False).action == "created", "now it is wanted as it is"
    rig.assert_in_order()


# ---- only what is installed ----


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_gateway_that_holds_nothing_is_left_alone(rig: Rig, check_mode: bool) -> None:
    before = tree(rig.root)
    outcome = rig.present(check_mode=check_mode, only_installed=True, force=True, token=None)
    assert (outcome.action, outcome.reason, outcome.changed, outcome.thing) == ("none", "absent", False, None)
    assert rig.commands == ["sh -s"]
    assert tree(rig.root) == before


def test_a_gateway_that_holds_nothing_any_more_is_left_alone(locate: Rig) -> None:
    locate.absent()
    before = tree(locate.root)
    assert locate.present(only_installed=True, force=True).action == "none"
    assert tree(locate.root) == before


def test_an_answer_that_a_gateway_has_not_got_yet_is_installed(rig: Rig) -> None:
    rig.service = "cloudlocate"
    keep(rig, device(1), days=-1)
    before = tree(rig.root)
    assert rig.present(check_mode=True, only_installed=True).action == "created"
    assert tree(rig.root) == before
    assert rig.present(only_installed=True).action == "created"
    rig.assert_in_order()


def test_what_is_installed_is_renewed_as_ever(locate: Rig) -> None:
    assert locate.present(only_installed=True).action == "none"
    assert locate.present(device(2), only_installed=True, force=True).action == "renewed"


# ---- max_age ----


def test_credentials_that_come_back_are_as_good_as_new(installed: Rig, ec_pair: Pair) -> None:
    before = tree(installed.current.resolve())
    for days in (10, 20, 30.5):
        installed.now = NOW + days * DAY
        outcome = installed.present(spartn(ec_pair), max_age_days=10, keys_renew_before_days=0)
        assert (outcome.action, outcome.reason, outcome.changed) == ("unchanged", "max_age", False)
        assert outcome.thing is not None
        assert outcome.thing["confirmed_at"] == policy.timestamp(installed.now)
        assert outcome.thing["issued_at"] == policy.timestamp(NOW)
        assert outcome.due_at == NOW + (days + 10) * DAY
        for later in (timedelta(0), 9 * DAY, 10 * DAY - SECOND):
            installed.now = NOW + days * DAY + later
            outcome = installed.present(max_age_days=10, keys_renew_before_days=0)
            assert (outcome.action, outcome.reason) == ("none", "none")
            assert outcome.thing is not None
            assert outcome.thing["confirmed_at"] == policy.timestamp(NOW + days * DAY)
    assert tree(installed.current.resolve()) == before
    installed.assert_in_order()


def test_a_confirmation_is_no_older_than_what_it_confirms(installed: Rig, ec_pair: Pair) -> None:
    """Fresh keys for the same Thing have arrived since."""
    installed.now = NOW + 10 * DAY
    installed.present(spartn(ec_pair), max_age_days=10)
    installed.now = NOW + 15 * DAY
    outcome = installed.present(newer_keys(ec_pair), max_age_days=10, force=True)
    assert (outcome.action, outcome.due_at) == ("refreshed", NOW + 25 * DAY)
    installed.now = NOW + 20 * DAY
    assert installed.present(max_age_days=10).action == "none"


def test_a_confirmation_is_not_that_of_other_credentials(installed: Rig, ec_pair: Pair, other_pair: Pair) -> None:
    installed.now = NOW + 10 * DAY
    installed.present(spartn(ec_pair), max_age_days=10)
    installed.now = NOW + 11 * DAY
    outcome = installed.present(spartn(other_pair, clientId="another"), force=True)
    assert outcome.action == "renewed"
    assert "confirmed_at" not in (outcome.thing or {})
    assert "confirmed_at" not in installed.record


def test_an_answer_that_was_installed_already_confirms_nothing(installed: Rig, ec_pair: Pair) -> None:
    keep(installed, spartn(ec_pair), days=0)
    assert installed.present().action == "unchanged"
    assert installed.history is None
    installed.assert_in_order()


# ---- proving ----

REFUSED = ProvisioningError("credentials_refused", "The broker does not accept the certificate.")
CLOSED = ProvisioningError("unreachable", "The broker does not answer.")


@pytest.mark.parametrize("proof", [REFUSED, CLOSED])
def test_what_does_not_work_is_not_switched_to(installed: Rig, other_pair: Pair, proof: ProvisioningError) -> None:
    before = tree(installed.path)
    installed.proof = proof
    for replies in ([spartn(other_pair, clientId="another")], []):
        error = installed.fails(*replies, force=bool(replies), proving="before_switch")
        assert error.code == proof.code
        assert error.message.startswith(proof.message)
        assert str(installed.spool_file) in error.message
        assert tree(installed.path) == before
        assert_no_secret(error, also=(other_pair.secret_line,))
    installed.proof = None
    outcome = installed.present(proving="before_switch")
    assert (outcome.action, outcome.reason) == ("renewed", "forced")
    assert [parsed.client_id for parsed in installed.proven] == ["another"] * 3
    installed.assert_in_order()


def test_a_first_thing_is_proven_too(rig: Rig, ec_pair: Pair) -> None:
    rig.proof = REFUSED
    assert rig.fails(spartn(ec_pair), proving="before_switch").code == "credentials_refused"
    assert not rig.path.exists()


@pytest.mark.parametrize(
    ("changes", "answer", "proven"),
    [
        ({"proving": "never"}, "another", 0),
        ({"proving": "before_switch"}, "another", 1),
        ({"proving": "before_switch"}, "the same", 0),
        ({"proving": "before_switch"}, "other keys", 0),
        ({"proving": "before_switch"}, "", 0),
        ({"proving": "before_switch", "formats": ("env",)}, "", 0),
        ({"proving": "always"}, "another", 1),
        ({"proving": "always"}, "", 1),
        ({"proving": "never"}, "", 0),
        ({"proving": "always", "check_mode": True}, "", 0),
    ],
)
def test_what_is_proven(
    installed: Rig, ec_pair: Pair, other_pair: Pair, changes: dict[str, Any], answer: str, proven: int
) -> None:
    answers = {
        "another": spartn(other_pair, clientId="another"),
        "the same": spartn(ec_pair),
        "other keys": newer_keys(ec_pair),
    }
    replies = [answers[answer]] if answer else []
    installed.present(*replies, force=bool(answer), **changes)
    assert len(installed.proven) == proven


@pytest.mark.parametrize("force", [False, True])
def test_check_mode_proves_nothing(installed: Rig, force: bool) -> None:
    installed.proof = REFUSED
    outcome = installed.present(check_mode=True, force=force, proving="always", renew_refused=True)
    assert outcome.reason == ("forced" if force else "none")
    assert installed.proven == []


def test_what_is_refused_is_renewed_where_that_is_wanted(
    installed: Rig, other_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prove(parsed: Any) -> None:
        installed.proven.append(parsed)
        if parsed.client_id == CLIENT_ID:
            raise REFUSED

    monkeypatch.setattr(installed, "prove", prove)
    outcome = installed.present(spartn(other_pair, clientId="another"), proving="always", renew_refused=True)
    assert (outcome.action, outcome.reason, outcome.generation) == ("renewed", "refused", "000002")
    assert [parsed.client_id for parsed in installed.proven] == [CLIENT_ID, "another"]
    assert installed.retired_ids == [CLIENT_ID]
    installed.assert_in_order()
    assert installed.present(proving="always", renew_refused=True).action == "none"


@pytest.mark.parametrize(
    ("proof", "renew_refused"), [(REFUSED, False), (CLOSED, False), (CLOSED, True)], ids=["refused", "closed", "both"]
)
def test_what_does_not_work_in_use_is_an_error_and_no_request(
    installed: Rig, proof: ProvisioningError, renew_refused: bool
) -> None:
    before = tree(installed.root)
    installed.proof = proof
    assert installed.fails(proving="always", renew_refused=renew_refused).code == proof.code
    assert tree(installed.root) == before


def test_what_is_refused_and_comes_back_is_still_refused(installed: Rig, ec_pair: Pair) -> None:
    """A run that proves what is in use must not end well with credentials that do not work."""
    before = tree(installed.path)
    installed.proof = REFUSED
    for _run in range(2):
        error = installed.fails(spartn(ec_pair), proving="always", renew_refused=True)
        assert error.code == "credentials_refused"
        assert files_in_spool(installed) == []
        assert tree(installed.path) == before


# ---- spool ----


@pytest.mark.parametrize("cipher", [None, flip])
def test_of_two_answers_the_newer_one_is_installed(locate: Rig, cipher: Any) -> None:
    locate.cipher = cipher
    keep(locate, device(3), days=2)
    keep(locate, device(2), days=1)
    locate.now = NOW + 3 * DAY
    outcome = locate.present()
    assert (outcome.action, locate.record["client_id"]) == ("renewed", "device:3")
    assert [(entry["client_id"], entry["since"]) for entry in locate.retired] == [
        ("device:2", policy.timestamp(NOW + DAY)),
        ("device:1", policy.timestamp(NOW + 2 * DAY)),
    ]
    locate.assert_in_order()


def test_two_answers_for_a_gateway_that_holds_nothing(rig: Rig) -> None:
    rig.service = "cloudlocate"
    for number in (1, 2):
        keep(rig, device(number), days=number)
    rig.now = NOW + 3 * DAY
    outcome = rig.present()
    assert (outcome.action, rig.record["client_id"], rig.retired_ids) == ("created", "device:2", ["device:1"])
    rig.assert_in_order()


def test_what_is_older_than_what_is_installed_is_remembered_once(locate: Rig) -> None:
    keep(locate, device(0), days=-1)
    before = tree(locate.root)
    assert locate.present(check_mode=True).action == "none"
    assert tree(locate.root) == before
    generation = tree(locate.current.resolve())
    outcome = locate.present()
    assert (outcome.action, outcome.changed) == ("none", False)
    assert locate.commands == ["sh -s"] * 2, "one to look, one to write"
    assert locate.retired_ids == ["device:0"]
    assert tree(locate.current.resolve()) == generation
    locate.assert_in_order()
    locate.present()
    assert locate.commands == ["sh -s"]


def test_an_old_answer_does_not_bring_back_what_is_known(locate: Rig) -> None:
    """Another controller has installed it, replaced it, and marked it meanwhile."""
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


def test_an_answer_stays_until_its_thing_is_written_down(locate: Rig) -> None:
    """The connection breaks in between."""
    file = keep(locate, device(0), days=-1)
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


def test_a_useless_answer_is_asked_for_again_for_the_reason_it_was_asked_for(installed: Rig, other_pair: Pair) -> None:
    keep(installed, b"<html>", days=1, reason="expiring")
    installed.now = NOW + 2 * DAY
    outcome = installed.present(spartn(other_pair, clientId="another"))
    assert (outcome.action, outcome.reason) == ("renewed", "expiring")
    installed.assert_in_order()


@pytest.mark.parametrize("response", [b"<html>", b"", encoded({"login": {"pass": "x"}})])
def test_an_old_answer_that_nobody_understands_stays_where_things_cost_money(locate: Rig, response: bytes) -> None:
    file = keep(locate, response, days=-1)
    before = tree(locate.path)
    assert locate.present().action == "none"
    assert locate.commands == ["sh -s"]
    assert (files_in_spool(locate), tree(locate.path)) == ([file], before)
    locate.present(device(2), force=True)
    assert (files_in_spool(locate), locate.retired_ids) == ([file], ["device:1"])
    outcome = locate.absent()
    assert outcome.thing is not None
    assert files_in_spool(locate) == [file]


def test_an_old_answer_that_nobody_understands_goes_where_asking_again_is_free(installed: Rig, ec_pair: Pair) -> None:
    keep(installed, b"<html>", days=1)
    installed.now = NOW + 2 * DAY
    installed.present(newer_keys(ec_pair), force=True)
    installed.assert_in_order()
    assert installed.retired == [], "nobody knows of a Thing in it, and the hardware ID is that of the one in use"


def test_absent_takes_the_thing_in_spool_onto_the_list(locate: Rig) -> None:
    keep(locate, device(2), days=1)
    locate.now = NOW + 2 * DAY
    before = tree(locate.root)
    predicted = locate.absent(check_mode=True)
    assert tree(locate.root) == before
    outcome = locate.absent()
    assert predicted == outcome
    assert locate.retired_ids == ["device:2", "device:1"]
    assert files_in_spool(locate) == []


def test_absent_dates_the_thing_in_use_by_its_end(locate: Rig) -> None:
    """Although the answer that was installed is still in the spool."""
    keep(locate, device(1), days=0)
    locate.now = NOW + 2 * DAY
    locate.absent()
    assert [(entry["client_id"], entry["since"]) for entry in locate.retired] == [
        ("device:1", policy.timestamp(NOW + 2 * DAY))
    ]
    assert files_in_spool(locate) == []


# ---- consumers that do not come back ----


@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_consumers_that_do_not_come_back(rig: Rig, ec_pair: Pair, other_pair: Pair, service: str) -> None:
    rig.service = service
    answers = [spartn(ec_pair), spartn(other_pair, clientId="another")]
    first, second = answers if service == "pointperfect" else [device(1), device(2)]
    rig.present(first)
    before, in_use = tree(rig.current.resolve()), rig.record["client_id"]
    ill = gateway.Consumers(health_command="false", health_timeout=1)
    for replies in ([second], []):
        error = rig.fails(*replies, force=bool(replies), consumers=ill)
        assert error.code == "health_check_failed"
        assert str(rig.spool_file) in error.message
        assert rig.current.readlink() == Path("generations/000001")
        assert tree(rig.current.resolve()) == before
        assert in_use not in rig.retired_ids
    well = gateway.Consumers(reload_command="true", health_command="true", health_timeout=5)
    outcome = rig.present(consumers=well)
    assert (outcome.action, outcome.reason) == ("renewed", "forced")
    assert rig.record["client_id"] == second["clientId"]
    assert rig.retired_ids == [in_use]
    rig.assert_in_order()


def test_the_first_consumers_that_do_not_come_back(rig: Rig, ec_pair: Pair) -> None:
    ill = gateway.Consumers(health_command="false", health_timeout=1)
    assert rig.fails(spartn(ec_pair), consumers=ill).code == "health_check_failed"
    assert not rig.current.exists()
    outcome = rig.present(consumers=gateway.Consumers(health_command="true", health_timeout=5))
    assert (outcome.action, outcome.reason) == ("created", "absent")
    rig.assert_in_order()

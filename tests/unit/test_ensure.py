# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on a directory of this machine: commands really run, the platform and the clock are scripted."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import parse_date, timestamp
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import GatewayUnreachable, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import GatewayState
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import ensure
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses
from ansible_collections.thingstream.ztp.tests.unit.rig import CA, Reply, Rig, corrupt, flip, newer_keys, unreachable
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    NOW,
    TOKEN,
    Pair,
    assert_no_secret,
    cloudlocate,
    make_pair,
    rtcm,
    run_locally,
    spartn,
    tree,
)

PENDING = {"clientId": "11111111-2222-4333-8444-555555555555", "subscriptionsTitle": "Topics"}


# ---- the first run and the second ----


def test_the_first_run_creates(rig: Rig, any_pair: Pair) -> None:
    outcome = rig.present(spartn(any_pair))
    assert (outcome.action, outcome.reason, outcome.changed) == ("created", "absent", True)
    assert (outcome.generation, outcome.before) == ("000001", None)
    assert rig.bodies == [{"token": TOKEN, "givenName": "gw1", "hardwareId": "hw-1", "tags": ["ztp"]}]
    assert len(rig.commands) == 2, "a look and an installation"
    rig.assert_in_order()
    assert outcome.thing == rig.record
    assert (rig.current / "client.key").read_text() == any_pair.private_key
    assert (rig.current / "ca.crt").read_text() == CA
    assert rig.record["retired"] == []
    assert outcome.due_at == parse_date(rig.record["keys_expire_at"]) - 14 * DAY


def test_the_files_of_an_outcome(installed: Rig) -> None:
    files = installed.present().files
    assert [(Path(entry["path"]).name, entry["mode"]) for entry in files] == [
        ("ca.crt", "0644"),
        ("client.crt", "0644"),
        ("client.key", "0640"),
        ("client.pem", "0640"),
        ("credentials.env", "0640"),
        ("credentials.json", "0600"),
        ("thing.json", "0640"),
    ]
    for entry in files:
        path = Path(entry["path"])
        assert path.parent == installed.current
        assert (path.owner(), path.group()) == (entry["owner"], entry["group"])


@pytest.mark.parametrize(
    ("service", "response"),
    [("pointperfect", rtcm()), ("pointperfect-live", rtcm()), ("cloudlocate", cloudlocate())],
)
def test_the_second_run_does_nothing(tmp_path: Path, service: str, response: dict[str, Any]) -> None:
    rig = Rig(tmp_path, service)
    assert rig.present(response).action == "created"
    rig.assert_in_order()
    before = tree(tmp_path)
    outcome = rig.present(token=None)
    assert (outcome.action, outcome.reason, outcome.changed, outcome.generation) == ("none", "none", False, "000001")
    assert rig.commands == ["exec sh -s"], "one round trip when nothing is due"
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({"hardware_id": None}, {"token": TOKEN, "givenName": "gw1", "tags": ["ztp"]}),
        ({"tags": None}, {"token": TOKEN, "givenName": "gw1", "hardwareId": "hw-1"}),
        ({"tags": ()}, {"token": TOKEN, "givenName": "gw1", "hardwareId": "hw-1", "tags": []}),
    ],
)
def test_the_body_of_a_request(rig: Rig, changes: dict[str, Any], body: dict[str, Any]) -> None:
    rig.present(rtcm(), **changes)
    assert rig.bodies == [body]


# ---- renewal ----


@pytest.mark.parametrize(
    ("changes", "days", "reason"),
    [
        ({"force": True}, 0, "forced"),
        ({"hardware_id": "hw-2"}, 0, "hardware_id_changed"),
        ({"renew_before": "99%"}, 1, "expiring"),
        ({}, 37.1, "keys_expiring"),
        ({"max_age": 1}, 1, "max_age"),
        ({}, 366, "expired"),
    ],
)
def test_a_renewal(installed: Rig, other_pair: Pair, changes: dict[str, Any], days: float, reason: str) -> None:
    installed.now = NOW + days * DAY
    before = installed.record
    pair = make_pair(other_pair.key, not_after=NOW + 1000 * DAY)
    response = {**newer_keys(pair), "clientId": "another"}
    outcome = installed.present(response, **changes)
    assert (outcome.action, outcome.reason, outcome.generation) == ("renewed", reason, "000002")
    assert (outcome.before, outcome.thing) == (before, installed.record)
    assert installed.generations == ["000001", "000002"]
    assert (installed.current / "client.key").read_text() == other_pair.private_key
    installed.assert_in_order()


def test_another_service_at_the_same_path(installed: Rig) -> None:
    installed.service = "cloudlocate"
    outcome = installed.present(cloudlocate())
    assert (outcome.action, outcome.reason) == ("renewed", "service_changed")
    installed.assert_in_order()


def test_fresh_keys_for_the_same_thing(installed: Rig, ec_pair: Pair) -> None:
    installed.now = NOW + 38 * DAY
    outcome = installed.present(newer_keys(ec_pair))
    assert (outcome.action, outcome.reason, outcome.generation) == ("refreshed", "keys_expiring", "000002")
    assert installed.record["retired"] == []
    assert installed.record["keys_expire_at"] == timestamp(NOW + 79 * DAY - DAY / 86_400_000)
    installed.assert_in_order()


def test_the_same_credentials_change_nothing(installed: Rig, ec_pair: Pair) -> None:
    before = tree(installed.path)
    response = {**spartn(ec_pair), "an unknown key": "another"}
    outcome = installed.present(response, force=True)
    assert (outcome.action, outcome.reason, outcome.changed, outcome.generation) == (
        "unchanged",
        "forced",
        False,
        "000001",
    )
    assert tree(installed.path) == before
    installed.assert_in_order()


def test_the_same_credentials_on_a_gateway_with_drift(installed: Rig, ec_pair: Pair) -> None:
    (installed.current / "client.key").chmod(0o666)
    outcome = installed.present(spartn(ec_pair), force=True)
    assert (outcome.action, outcome.reason, outcome.generation) == ("repaired", "forced", "000001")
    installed.assert_in_order()


def test_the_list_of_retired_things_grows(rig: Rig) -> None:
    rig.service = "cloudlocate"
    rig.present(cloudlocate(clientId="device:1"))
    for number in (2, 3):
        rig.now += DAY
        assert rig.present(cloudlocate(clientId=f"device:{number}"), force=True).action == "renewed"
    entry = {
        "login_sha256": rig.record["login_sha256"],
        "service": "cloudlocate",
        "hardware_id": "hw-1",
        "given_name": "gw1",
    }
    assert rig.record["retired"] == [
        {"client_id": "device:1", **entry, "since": timestamp(NOW + DAY)},
        {"client_id": "device:2", **entry, "since": timestamp(NOW + 2 * DAY)},
    ]
    (rig.current / "ca.crt").write_text("damaged")
    rig.present()
    assert len(rig.record["retired"]) == 2, "a repair forgets nothing"


def test_a_thing_is_retired_when_its_successor_arrived(installed: Rig, other_pair: Pair) -> None:
    """Not when the gateway got that one."""
    installed.hook = unreachable
    with pytest.raises(GatewayUnreachable):
        installed.present({**spartn(other_pair), "clientId": "another"}, force=True)
    installed.now = NOW + DAY
    installed.present()
    assert [entry["since"] for entry in installed.record["retired"]] == [timestamp(NOW)]


@pytest.mark.parametrize(
    ("keep", "names"), [(0, ["000003"]), (1, ["000002", "000003"]), (9, ["000001", "000002", "000003"])]
)
def test_keep_says_how_many_generations_stay(installed: Rig, keep: int, names: list[str]) -> None:
    for number in range(2):
        installed.present(rtcm(userName=f"user{number}"), force=True, keep=keep)
    assert installed.generations == names
    installed.assert_in_order()


# ---- repairs without the platform ----


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def swap(path: Path) -> None:
    path.unlink()
    path.symlink_to("thing.json")


@pytest.mark.parametrize(
    ("name", "damage"),
    [("client.key", corrupt), ("client.crt", cut), ("client.pem", swap), ("ca.crt", Path.unlink),
     ("credentials.env", cut)],
)  # fmt: skip
def test_a_damaged_file_is_rendered_again(installed: Rig, name: str, damage: Callable[[Path], None]) -> None:
    whole = (installed.current / name).read_bytes()
    damage(installed.current / name)
    outcome = installed.present()
    assert (outcome.action, outcome.reason, outcome.generation) == ("repaired", "damaged", "000002")
    assert (installed.current / name).read_bytes() == whole
    assert outcome.thing == installed.record
    assert installed.record["issued_at"] == timestamp(NOW)
    installed.assert_in_order()


def test_a_link_to_the_same_content_is_damage(installed: Rig, tmp_path: Path) -> None:
    """The owner of the target could change it at any time."""
    (installed.current / "client.key").rename(tmp_path / "copy.key")
    (installed.current / "client.key").symlink_to(tmp_path / "copy.key")
    assert installed.present().reason == "damaged"
    assert not (installed.current / "client.key").is_symlink()
    installed.assert_in_order()


def test_a_repair_keeps_the_date_of_the_credentials(installed: Rig) -> None:
    installed.now = NOW + 5 * DAY
    corrupt(installed.current / "client.key")
    installed.present()
    assert installed.record["issued_at"] == timestamp(NOW)


@pytest.mark.parametrize("damage", [corrupt, cut, swap, Path.unlink])
def test_a_damaged_response_is_requested_again(installed: Rig, ec_pair: Pair, damage: Callable[[Path], None]) -> None:
    damage(installed.current / "credentials.json")
    outcome = installed.present(spartn(ec_pair))
    assert (outcome.action, outcome.reason, outcome.generation) == ("repaired", "damaged", "000002")
    installed.assert_in_order()


@pytest.mark.parametrize("damage", [corrupt, cut, Path.unlink])
def test_a_damaged_record_is_requested_again(installed: Rig, ec_pair: Pair, damage: Callable[[Path], None]) -> None:
    damage(installed.current / "thing.json")
    outcome = installed.present(spartn(ec_pair))
    assert outcome.changed
    assert outcome.reason == "damaged"
    installed.assert_in_order()


def test_the_key_of_another_thing_is_damage(installed: Rig, other_pair: Pair) -> None:
    """Its digest differs from that in the record."""
    (installed.current / "client.key").write_text(other_pair.private_key)
    assert installed.present().reason == "damaged"
    installed.assert_in_order()


_NO_FILES = {"files": ...}
_UNREADABLE: list[dict[str, Any]] = [
    _NO_FILES,
    {"files": []},
    {"files": {"../x": "d" * 64}},
    {"issued_at": "yesterday"},
    {"not_after": "never"},
    {"service": None},
    {"identity_sha256": ..., "files": 5},
]


@pytest.mark.parametrize("changes", _UNREADABLE, ids=str)
def test_an_unreadable_record_is_requested_again(installed: Rig, ec_pair: Pair, changes: dict[str, Any]) -> None:
    installed.rewrite(**changes)
    outcome = installed.present(spartn(ec_pair))
    assert (outcome.reason, outcome.changed) == ("damaged", True)
    installed.assert_in_order()
    assert installed.present().action == "none", "one request repairs it"


@pytest.mark.parametrize("changes", _UNREADABLE, ids=str)
def test_check_mode_with_an_unreadable_record(installed: Rig, changes: dict[str, Any]) -> None:
    installed.rewrite(**changes)
    outcome = installed.present(check_mode=True)
    assert (outcome.reason, outcome.changed) == ("damaged", True)


@pytest.mark.parametrize(
    ("changes", "force"),
    [
        ({"retired": 7}, False),
        ({"retired": 7}, True),
        ({"retired": "text"}, False),
        ({"retired": {"a": 1}}, True),
        ({"retired": ...}, False),
        ({"hardware_id": ["hw-1"]}, False),
        ({"hardware_id": ...}, False),
        ({"given_name": ...}, False),
        ({"client_id": {"a": 1}}, True),
        ({"formats": 5}, False),
        ({"record_version": "x"}, False),
        ({"keys_expire_at": None}, True),
    ],
    ids=str,
)
def test_an_edited_record_is_no_crash(installed: Rig, ec_pair: Pair, changes: dict[str, Any], force: bool) -> None:
    """A gateway may be compromised, and a record may be that of an older version: the run repairs it."""
    installed.rewrite(**changes)
    corrupt(installed.current / "client.key")
    requests = force or "hardware_id" in changes
    installed.present(*[spartn(ec_pair)] * requests, force=force)
    installed.present()
    installed.assert_in_order()
    retired = installed.record["retired"]
    assert isinstance(retired, list)
    assert all(isinstance(entry, dict) for entry in retired)


@pytest.mark.parametrize("wanted", ["hw-1", None])
def test_an_edited_record_names_no_other_gateway(installed: Rig, ec_pair: Pair, wanted: str | None) -> None:
    """A compromised gateway could otherwise get the credentials of another one."""
    installed.rewrite(hardware_id="hw-of-another")
    installed.present(spartn(ec_pair), hardware_id=wanted, force=True)
    assert installed.bodies[-1].get("hardwareId") == wanted
    assert "hw-of-another" not in str(installed.bodies)


def test_a_damaged_bundle_whose_record_names_no_response_is_requested_again(installed: Rig, ec_pair: Pair) -> None:
    files = {name: digest for name, digest in installed.record["files"].items() if name != "credentials.json"}
    installed.rewrite(files=files)
    (installed.current / "credentials.json").unlink()
    corrupt(installed.current / "client.key")
    installed.present(spartn(ec_pair))
    installed.assert_in_order()


@pytest.mark.parametrize(
    "drift",
    [
        lambda rig: (rig.current / "client.key").chmod(0o644),
        lambda rig: (rig.current / "client.crt").chmod(0o600),
        lambda rig: (rig.current / "credentials.json").chmod(0o640),
        lambda rig: (rig.current / "thing.json").chmod(0o666),
        lambda rig: rig.path.chmod(0o755),
        lambda rig: (rig.path / "generations").chmod(0o777),
        lambda rig: rig.current.resolve().chmod(0o700),
        lambda rig: (rig.path / ".staging-dead").mkdir(),
        lambda rig: (rig.path / ".staging-link-dead").symlink_to("generations/000009"),
        lambda rig: (rig.path / "generations" / "000002").mkdir(),
        pytest.param(
            lambda rig: os.chown(rig.current / "client.key", 12345, -1),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away"),
        ),
        pytest.param(
            lambda rig: os.chown(rig.current.resolve(), -1, 12345),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away"),
        ),
    ],
)
def test_drift_is_repaired_in_place(installed: Rig, drift: Callable[[Rig], object]) -> None:
    drift(installed)
    outcome = installed.present()
    assert (outcome.action, outcome.reason, outcome.generation) == ("repaired", "drift", "000001")
    assert installed.generations == ["000001"]
    installed.assert_in_order()
    assert installed.present().action == "none"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"formats": ("env",)}, {"credentials.env", "credentials.json", "thing.json"}),
        ({"formats": ()}, {"credentials.json", "thing.json"}),
    ],
)
def test_other_formats_are_rendered_without_the_platform(
    installed: Rig, changes: dict[str, Any], names: set[str]
) -> None:
    outcome = installed.present(**changes)
    assert (outcome.action, outcome.reason, outcome.generation) == ("repaired", "drift", "000002")
    assert {entry.name for entry in installed.current.iterdir()} == names
    installed.assert_in_order()
    assert installed.present(**changes).action == "none"


def test_another_ca_is_rendered_without_the_platform(installed: Rig) -> None:
    layout = Layout(str(installed.path), secret_mode=0o640, broker_ca="a newer CA\n")
    changes: dict[str, Any] = {"layout": layout, "broker_ca_sha256": render.digest(b"a newer CA\n")}
    assert installed.present(**changes).action == "repaired"
    assert (installed.current / "ca.crt").read_text() == "a newer CA\n"
    installed.assert_in_order()


# ---- before any request ----


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"owner": "no-such-user-here"}, "bad_option"),
        ({"group": "no-such-group-here"}, "bad_option"),
        ({"token": None}, "token_invalid"),
        ({"given_name": ""}, "bad_option"),
        ({"endpoint": api.Endpoint("http://api.example.com")}, "bad_option"),
        ({"renew_before": "often"}, "bad_option"),
        ({"layout": Layout("relative", 0o640, CA)}, "bad_path"),
    ],
)
def test_a_refusal_before_any_request(rig: Rig, tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    before = tree(tmp_path)
    assert rig.fails(**changes).code == code
    assert tree(tmp_path) == before


def test_no_request_without_a_place_for_its_response(rig: Rig) -> None:
    (rig.root / "spool").mkdir(mode=0o755)
    (rig.root / "spool").chmod(0o755)
    assert rig.fails().code == "spool_failed"
    assert not rig.path.exists()


def test_a_path_that_is_a_link_or_a_file(rig: Rig) -> None:
    rig.path.parent.mkdir(parents=True)
    rig.path.symlink_to(rig.root)
    assert rig.fails().code == "bad_path"
    rig.path.unlink()
    rig.path.write_text("in the way")
    assert rig.fails().code == "bad_path"


def test_a_shared_hardware_id_matters_where_a_response_is_wanted(installed: Rig) -> None:
    """It is refused before anything is requested; a gateway with nothing due needs no look at the inventory."""

    def refuse() -> None:
        raise ProvisioningError("bad_option", "shared")

    runtime = replace(installed.runtime(), check_inventory=refuse)
    source = installed.source(place=installed.spool_place)
    assert ensure.ensure_present(installed.desired(), source, runtime).action == "none"
    for check_mode in (True, False):
        with pytest.raises(ProvisioningError, match="shared"):
            ensure.ensure_present(installed.desired(force=True), source, runtime, check_mode=check_mode)
    assert installed.bodies == []


def test_an_unreachable_gateway(rig: Rig) -> None:
    runtime = replace(
        rig.runtime(), execute=lambda command, standard_input, secret: unreachable(command, standard_input)
    )
    with pytest.raises(GatewayUnreachable):
        ensure.ensure_present(rig.desired(), rig.source(), runtime)
    assert rig.bodies == []


@pytest.mark.parametrize(
    ("replies", "code"),
    [
        ([api.HttpResponse(403, {}, b"Device already registered")], "already_registered"),
        ([api.HttpResponse(503, {}, b"")] * 2, "server_error"),
        ([api.NotSent("no network")] * 2, "unreachable"),
        ([api.OutcomeUnknown(ProvisioningError("timeout", "none"))] * 2, "timeout"),
    ],
)
def test_a_platform_that_refuses_changes_nothing(installed: Rig, replies: list[Reply], code: str) -> None:
    before = tree(installed.path)
    assert installed.fails(*replies, force=True).code == code
    assert tree(installed.path) == before
    assert responses.entry_files(installed.spool_place) == []


# ---- spool ----


@pytest.mark.parametrize("cipher", [None, flip])
def test_a_connection_that_breaks_before_the_installation(
    rig: Rig, ec_pair: Pair, cipher: Callable[[bytes], bytes] | None
) -> None:
    rig.cipher, rig.hook = cipher, unreachable
    with pytest.raises(GatewayUnreachable) as caught:
        rig.present(spartn(ec_pair))
    assert str(rig.spool_file) in caught.value.message
    assert_no_secret(caught.value, also=(ec_pair.secret_line,))
    assert rig.spool_file.stat().st_mode & 0o7777 == 0o600
    assert not rig.path.exists()

    rig.now += DAY
    outcome = rig.present()
    assert (outcome.action, outcome.reason) == ("created", "absent")
    assert rig.record["issued_at"] == timestamp(NOW), "as old as the response, not as the installation"
    rig.assert_in_order()


def test_a_connection_that_breaks_after_the_installation(rig: Rig, ec_pair: Pair) -> None:
    def late(command: str, standard_input: bytes) -> tuple[int, str, str]:
        run_locally(command, standard_input, False)
        raise GatewayUnreachable("ssh: connection reset.")

    rig.hook = late
    with pytest.raises(GatewayUnreachable):
        rig.present(spartn(ec_pair))
    before = tree(rig.path)
    outcome = rig.present()
    assert (outcome.action, outcome.reason, outcome.changed, outcome.generation) == ("none", "none", False, "000001")
    assert tree(rig.path) == before
    assert [(entry["delivered_at"], entry["left_at"]) for entry in rig.ledger] == [(timestamp(NOW), None)]
    rig.assert_in_order()


def test_a_stream_that_is_cut(installed: Rig, other_pair: Pair) -> None:
    def half(command: str, standard_input: bytes) -> tuple[int, str, str]:
        return run_locally(command, standard_input[: len(standard_input) // 2], False)

    installed.hook = half
    before = tree(installed.current.resolve())
    error = installed.fails(spartn(other_pair), force=True)
    assert str(installed.spool_file) in error.message
    assert tree(installed.current.resolve()) == before
    outcome = installed.present()
    assert (outcome.action, outcome.reason, outcome.generation) == ("renewed", "forced", "000002")
    installed.assert_in_order()


def test_content_that_the_disk_did_not_keep(installed: Rig, other_pair: Pair) -> None:
    def falsify(command: str, standard_input: bytes) -> tuple[int, str, str]:
        falsified = standard_input.replace(b"-----BEGIN CERTIFICATE-----", b"-----BEGIN CERTIFICATE*----")
        assert falsified != standard_input
        return run_locally(command, falsified, False)

    installed.hook = falsify
    assert installed.fails(spartn(other_pair), force=True).code == "disk_full"
    assert installed.current.readlink() == Path("generations/000001")
    assert installed.present().action == "renewed"
    installed.assert_in_order()


def test_a_missing_field_is_mapped_later_without_a_second_request(rig: Rig) -> None:
    """For CloudLocate every request may create a Thing that costs money."""
    rig.service = "cloudlocate"
    response = {
        "mqtt": {"identity": "device:1", "server": "mqtt.example.com"},
        "login": {"name": "someone", "pass": "x"},
    }
    error = rig.fails(response)
    assert error.code == "missing_field"
    assert "mqtt.identity" in error.message
    assert str(rig.spool_file) in error.message
    assert not rig.path.exists()
    assert rig.fails().code == "missing_field"
    field_map = {
        "client_id": "mqtt.identity",
        "host": "mqtt.server",
        "username": "login.name",
        "password": "login.pass",
    }
    outcome = rig.present(field_map=field_map)
    assert (outcome.action, outcome.reason) == ("created", "absent")
    assert rig.record["client_id"] == "device:1"
    rig.assert_in_order()


def test_an_unusable_response_is_requested_again_where_that_creates_nothing(rig: Rig, ec_pair: Pair) -> None:
    assert rig.fails(spartn(ec_pair, brokerHost=None)).code == "missing_field"
    assert rig.spool_file.exists()
    assert rig.present(spartn(ec_pair)).action == "created"
    rig.assert_in_order()


@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_a_response_that_is_not_json_is_kept_too(rig: Rig, service: str) -> None:
    rig.service = service
    error = rig.fails(b"<html>" + TOKEN.encode())
    assert error.code == "bad_response"
    assert str(rig.spool_file) in error.message
    (kept,) = responses.load(rig.spool_place, bytes)
    assert kept is not None
    assert kept.response == b"<html>" + TOKEN.encode()
    if service == "cloudlocate":
        assert rig.fails().code == "bad_response"


def test_an_unreadable_spool_entry_is_not_ignored(installed: Rig) -> None:
    corrupt(installed.spool_place.with_name(f"{installed.spool_place.name}-x{responses.SUFFIX}"))
    before = tree(installed.path)
    for changes in ({}, {"force": True}):
        assert installed.fails(**changes).code == "spool_failed"
    assert tree(installed.path) == before


def test_a_spool_entry_never_replaces_a_newer_response(installed: Rig, ec_pair: Pair) -> None:
    """One controller could not install its response; another controller has installed a newer one since."""
    installed.now, installed.hook = NOW + DAY, unreachable
    with pytest.raises(GatewayUnreachable):
        installed.present({**spartn(ec_pair), "brokerHost": "old.example.com"}, force=True)
    other = replace(installed, controller="elsewhere", hook=None, now=NOW + 2 * DAY)
    assert other.present(newer_keys(ec_pair), force=True).action == "refreshed"
    newest = other.record
    installed.now = NOW + 3 * DAY
    installed.present()
    assert installed.record["keys_expire_at"] == newest["keys_expire_at"]


# ---- activation ----


def test_a_thing_that_is_being_activated(rig: Rig, ec_pair: Pair) -> None:
    outcome = rig.present(PENDING, {}, PENDING, PENDING, spartn(ec_pair))
    assert outcome.action == "created"
    assert rig.sleeps == [5, 10, 20, 30]
    assert all(body == rig.bodies[0] for body in rig.bodies)
    rig.assert_in_order()


@pytest.mark.parametrize(
    ("timeout", "sleeps"), [(0, []), (4.9, []), (5, [5]), (14, [5]), (15, [5, 10]), (66, [5, 10, 20, 30])]
)
def test_a_thing_that_is_never_activated(rig: Rig, timeout: float, sleeps: list[float]) -> None:
    error = rig.fails(*[PENDING] * (len(sleeps) + 1), activation_timeout=timeout)
    assert (error.code, error.status) == ("activation_pending", 200)
    assert "Auto Activate" in error.message
    assert "clientId, subscriptionsTitle" in error.message
    assert rig.sleeps == sleeps
    assert not rig.path.exists()
    assert responses.entry_files(rig.spool_place) == [], "a response without credentials is not kept"


def test_no_wait_for_activation_where_a_repeated_request_creates_a_thing(rig: Rig) -> None:
    rig.hardware_id = None
    error = rig.fails(PENDING)
    assert error.code == "activation_pending"
    assert rig.sleeps == []
    assert str(rig.spool_file) in error.message, "its Thing exists"
    error = rig.fails()
    assert error.code == "missing_field"
    assert str(rig.spool_file) in error.message


def test_a_refusal_while_waiting(rig: Rig) -> None:
    error = rig.fails(PENDING, api.HttpResponse(403, {}, b"No plan for device device:1"))
    assert error.code == "no_plan"


# ---- check mode ----


def nothing(rig: Rig) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "changes", "action", "reason", "looks"),
    [
        (nothing, {}, "none", "none", 1),
        (nothing, {"force": True}, "renewed", "forced", 2),
        (nothing, {"formats": ("env",)}, "repaired", "drift", 1),
        (lambda rig: corrupt(rig.current / "client.key"), {}, "repaired", "damaged", 1),
        (lambda rig: corrupt(rig.current / "credentials.json"), {}, "renewed", "damaged", 2),
        (lambda rig: corrupt(rig.current / "thing.json"), {}, "renewed", "damaged", 4),
        (lambda rig: (rig.current / "client.key").chmod(0o644), {}, "repaired", "drift", 1),
        (lambda rig: (rig.path / ".staging-dead").mkdir(), {}, "repaired", "drift", 1),
        (lambda rig: rig.current.unlink(), {}, "created", "absent", 2),
    ],
)
def test_check_mode_changes_nothing(
    installed: Rig, prepare: Callable[[Rig], object], changes: dict[str, Any], action: str, reason: str, looks: int
) -> None:
    """It observes as completely as a real run: preflight checks; records and response of a damaged bundle."""
    prepare(installed)
    before = tree(installed.root)
    outcome = installed.present(check_mode=True, **changes)
    assert (outcome.action, outcome.reason, outcome.changed) == (action, reason, action != "none")
    assert tree(installed.root) == before
    assert installed.commands == ["exec sh -s"] * looks


def test_check_mode_of_a_first_run(rig: Rig) -> None:
    before = tree(rig.root)
    outcome = rig.present(check_mode=True)
    assert (outcome.action, outcome.reason, outcome.changed) == ("created", "absent", True)
    assert tree(rig.root) == before
    assert rig.fails(check_mode=True, token=None).code == "token_invalid"


def test_check_mode_leaves_the_spool_alone(rig: Rig, ec_pair: Pair) -> None:
    rig.hook = unreachable
    with pytest.raises(GatewayUnreachable):
        rig.present(spartn(ec_pair))
    before = tree(rig.root)
    assert rig.present(check_mode=True).action == "created"
    assert tree(rig.root) == before


# ---- two runs at once ----


def test_another_run_was_faster(rig: Rig, ec_pair: Pair, other_pair: Pair) -> None:
    other = Rig(rig.root, controller="elsewhere")

    def race(command: str, standard_input: bytes) -> None:
        other.present(spartn(other_pair))

    rig.hook = race
    error = rig.fails(spartn(ec_pair))
    assert error.code == "concurrent_change"
    assert str(rig.spool_file) in error.message
    assert rig.generations == ["000001"]
    assert (rig.current / "client.key").read_text() == other_pair.private_key
    other.assert_in_order()


def test_another_run_was_faster_than_a_renewal(installed: Rig, other_pair: Pair) -> None:
    other = replace(installed, controller="elsewhere")

    def race(command: str, standard_input: bytes) -> None:
        assert other.present(rtcm(), force=True).generation == "000002"

    installed.hook = race
    assert installed.fails(spartn(other_pair), force=True).code == "concurrent_change"
    assert installed.generations == ["000001", "000002"]
    other.assert_in_order()


# ---- absent ----


def test_absent(installed: Rig) -> None:
    before, record = tree(installed.root), installed.record
    assert installed.absent(check_mode=True).action == "removed"
    assert tree(installed.root) == before
    outcome = installed.absent()
    assert (outcome.action, outcome.reason, outcome.changed) == ("removed", "absent", True)
    assert (outcome.before, outcome.generation, outcome.files) == (record, None, ())
    retired = {name: record[name] for name in ("client_id", "login_sha256", "service", "hardware_id", "given_name")}
    assert outcome.thing == {**record, "retired": [{**retired, "since": "2026-11-22T12:00:00Z"}]}
    assert [entry.name for entry in installed.path.iterdir()] == ["history.json"]
    after = tree(installed.path)
    for check_mode in (True, False):
        outcome = installed.absent(check_mode)
        assert (outcome.action, outcome.changed) == ("none", False)
    assert tree(installed.path) == after


def test_absent_leaves_the_files_of_others(installed: Rig) -> None:
    (installed.path / "notes.txt").write_text("mine")
    (installed.path / ".staging-dead").mkdir()
    installed.absent()
    assert sorted(entry.name for entry in installed.path.iterdir()) == ["history.json", "notes.txt"]
    assert installed.absent().action == "none"


def test_absent_cleans_up_after_a_crashed_run(rig: Rig) -> None:
    (rig.path / ".staging-dead").mkdir(parents=True)
    assert rig.absent().action == "removed"
    assert not rig.path.exists()


def test_absent_does_not_follow_a_link(rig: Rig) -> None:
    (rig.root / "elsewhere" / "generations").mkdir(parents=True)
    rig.path.parent.mkdir(parents=True)
    rig.path.symlink_to(rig.root / "elsewhere")
    before = tree(rig.root / "elsewhere")
    assert rig.absent().action == "none"
    rig.path.unlink()
    (rig.path).mkdir()
    (rig.path / "generations").symlink_to(rig.root / "elsewhere" / "generations")
    rig.absent()
    assert tree(rig.root / "elsewhere") == before


def test_present_again_after_absent(installed: Rig, ec_pair: Pair) -> None:
    installed.absent()
    outcome = installed.present(spartn(ec_pair))
    assert (outcome.action, outcome.generation) == ("created", "000001")
    installed.assert_in_order()


def test_another_run_between_the_two_looks(installed: Rig, other_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of the first look no longer holds, so that the run sends no request."""
    look = commands.look

    def look_late(*arguments: Any, thorough: bool = False, **options: Any) -> GatewayState:
        if thorough:
            monkeypatch.setattr(commands, "look", look)
            replace(installed, controller="elsewhere").present(spartn(other_pair), force=True)
        return look(*arguments, thorough=thorough, **options)

    monkeypatch.setattr(commands, "look", look_late)
    error = installed.fails(force=True)
    assert error.code == "concurrent_change"
    assert "000002" in error.message


def test_a_response_is_dated_when_it_arrives(rig: Rig, ec_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it was requested."""
    post = rig.post

    def slow(endpoint: api.Endpoint, payload: bytes, sending: api.Sending) -> api.HttpResponse:
        rig.now = NOW + DAY
        return post(endpoint, payload, sending)

    monkeypatch.setattr(rig, "post", slow)
    rig.present(spartn(ec_pair))
    assert rig.record["issued_at"] == timestamp(NOW + DAY)

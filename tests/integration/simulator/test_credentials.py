# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Successful responses: their shapes, and that the credentials in them are real."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from simulator.client import RunningSimulator

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DAY = 86400
PERIOD = 28 * DAY
LIVE = {"service": "pointperfect-live"}
CLOUD = {"service": "cloudlocate"}


def certificate_of(body: dict[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(body["certificate"].encode())


def key_of(body: dict[str, Any]) -> rsa.RSAPrivateKey:
    key = load_pem_private_key(body["privateKey"].encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def test_server_certificate_is_not_trusted_without_the_ca(simulator: RunningSimulator) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{simulator.url}/simulator/health", timeout=20)
    by_name = simulator.url.replace("127.0.0.1", "localhost")
    assert requests.get(f"{by_name}/simulator/health", verify=str(simulator.ca_path), timeout=20).ok


def test_keys_response(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("keys", plan="both")
    response = simulator.post(token, hardwareId="keys", givenName="gateway", tags=["ztp"])
    body = response.json()
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert int(response.headers["Content-Length"]) == len(response.content) < 6 * 1024
    assert set(body) == {
        *("certificate", "privateKey", "clientId", "brokerHost", "supportsMqtt", "supportsLband"),
        *("subscriptionsTitle", "rotatingKeyTitle", "subscriptions", "dynamickeys"),
    }
    assert body["privateKey"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert body["certificate"].startswith("-----BEGIN CERTIFICATE-----\n")
    assert body["certificate"].endswith("\n")
    assert UUID.fullmatch(body["clientId"])
    assert body["brokerHost"] == "pp.services.u-blox.com"
    assert body["subscriptionsTitle"] == "Topics"
    assert body["rotatingKeyTitle"] == "L-band + IP Dynamic Keys"


def test_pair_matches_and_chains_to_the_ca(simulator: RunningSimulator) -> None:
    body = simulator.post(simulator.put_profile("pair", plan="mqtt"), hardwareId="pair").json()
    certificate, ca = certificate_of(body), x509.load_pem_x509_certificate(simulator.ca_path.read_bytes())
    assert key_of(body).key_size == 2048
    assert key_of(body).public_key() == certificate.public_key()
    certificate.verify_directly_issued_by(ca)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == body["clientId"]
    lifetime = certificate.not_valid_after_utc - datetime.now(timezone.utc)
    assert abs(lifetime - timedelta(days=10950)) < timedelta(minutes=1)


def test_mismatched_pair(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("mismatch", simulator={"mismatched_pair": True}, plan="mqtt")
    body = simulator.post(token, hardwareId="mismatch").json()
    assert key_of(body).public_key() != certificate_of(body).public_key()
    simulator.put_profile("mismatch", plan="mqtt")
    body = simulator.post(token, hardwareId="mismatch").json()
    assert key_of(body).public_key() == certificate_of(body).public_key()


@pytest.mark.parametrize("days", [-1, 0.5])
def test_validity_of_certificates(simulator: RunningSimulator, days: float) -> None:
    token = simulator.put_profile("days", simulator={"certificate_days": days}, plan="mqtt")
    certificate = certificate_of(simulator.post(token).json())
    end = datetime.now(timezone.utc) + timedelta(days=days)
    assert abs(certificate.not_valid_after_utc - end) < timedelta(minutes=1)
    assert certificate.not_valid_before_utc < certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("plan", "mqtt", "lband", "title", "family"),
    [
        ("mqtt", True, False, "IP", "ip"),
        ("lband", False, True, "L-band", "Lb"),
        ("both", True, True, "L-band + IP", "Lb"),
    ],
)
def test_plan(simulator: RunningSimulator, plan: str, mqtt: bool, lband: bool, title: str, family: str) -> None:
    token = simulator.put_profile("plan", already_exists="existing", plan="mqtt")
    simulator.put_profile("plan", plan=plan)
    body = simulator.post(token, hardwareId="plan").json()
    assert (body["supportsMqtt"], body["supportsLband"]) == (mqtt, lband)
    assert body["subscriptions"][0] == {
        "description": f"{title} key distribution topic",
        "path": f"/pp/ubx/0236/{family}",
    }
    paths = [subscription["path"] for subscription in body["subscriptions"]]
    assert ("/pp/frequencies/Lb" in paths) is lband
    assert (f"/pp/{family}/eu" in paths) is mqtt
    assert ("/pp/ip/kr" in paths) is (plan == "mqtt")
    joined = [subscription for subscription in body["subscriptions"] if ";" in subscription["path"]]
    assert all("description" not in subscription for subscription in joined)
    if mqtt:
        eu = f"/pp/{family}/eu"
        assert joined[0]["path"] == f"{eu}/gad;{eu}/hpac;{eu}/ocb;{eu}/clk"


def test_subscriptions_without_descriptions(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("bare", simulator={"without_descriptions": True}, plan="mqtt")
    subscriptions = simulator.post(token, hardwareId="bare").json()["subscriptions"]
    assert subscriptions[0] == {"path": "/pp/ubx/0236/ip"}
    assert all(set(subscription) == {"path"} for subscription in subscriptions)


def test_dynamic_keys_have_the_platforms_shape(simulator: RunningSimulator) -> None:
    keys = simulator.post(simulator.put_profile("shape", plan="mqtt"), hardwareId="shape").json()["dynamickeys"]
    now = datetime.now(timezone.utc).timestamp() * 1000
    assert set(keys) == {"current", "next"}
    assert keys["current"]["duration"] == keys["next"]["duration"] == 2_419_199_999
    assert keys["current"]["start"] <= now < keys["next"]["start"] == keys["current"]["start"] + 2_419_200_000
    assert (keys["current"]["start"] + 18_000) % 86_400_000 == 0
    assert (keys["current"]["start"] - 1_719_791_982_000) % 2_419_200_000 == 0
    for key in keys.values():
        assert re.fullmatch("[0-9a-f]{32}", key["value"])


def test_repeated_call_returns_the_identity_with_fresh_keys(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("repeat", plan="mqtt")
    first = simulator.post(token, hardwareId="repeat").json()
    assert simulator.post(token, hardwareId="repeat").json() == first
    simulator.set_clock_offset(PERIOD)
    second = simulator.post(token, hardwareId="repeat").json()
    assert second.pop("dynamickeys")["current"] == first["dynamickeys"]["next"]
    first.pop("dynamickeys")
    assert second == first
    simulator.set_clock_offset(10 * 365 * DAY)
    later = simulator.post(token, hardwareId="repeat").json()["dynamickeys"]["current"]["start"] / 1000
    assert 0 <= datetime.now(timezone.utc).timestamp() + 10 * 365 * DAY - later < PERIOD


def test_devices_share_the_dynamic_keys_of_a_plan(simulator: RunningSimulator) -> None:
    ip, band = simulator.put_profile("ip", plan="mqtt"), simulator.put_profile("band", plan="lband")
    a, b, c = (simulator.post(token).json()["dynamickeys"] for token in (ip, ip, band))
    assert a == b
    assert a["current"]["value"] != c["current"]["value"]


def test_key_period(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("period", simulator={"key_period_days": 7}, plan="mqtt")
    keys = simulator.post(token, hardwareId="period").json()["dynamickeys"]
    assert keys["current"]["duration"] == 7 * DAY * 1000 - 1
    assert keys["next"]["start"] - keys["current"]["start"] == 7 * DAY * 1000


def test_certificates_follow_the_simulated_clock(simulator: RunningSimulator) -> None:
    simulator.set_clock_offset(365 * DAY)
    certificate = certificate_of(simulator.post(simulator.put_profile("later", plan="mqtt")).json())
    assert certificate.not_valid_before_utc > datetime.now(timezone.utc) + timedelta(days=364)


@pytest.mark.parametrize(
    ("settings", "block", "mount_point"),
    [
        ({}, "rtcmCredentials", "NEAR-RTCM"),
        ({"format": "RTCM"}, "rtcmCredentials", "NEAR-RTCM"),
        ({"format": "SPARTN"}, "spartnCredentials", "NEAR-SPARTN"),
        ({"format": "SPARTN", "client_protocol": "NTRIP"}, "spartnCredentials", "NEAR-SPARTN"),
        ({"service": "pointperfect-live", "region": "anywhere"}, "rtcmCredentials", "NEAR-RTCM"),
    ],
)
def test_ntrip_response(simulator: RunningSimulator, settings: dict[str, Any], block: str, mount_point: str) -> None:
    token = simulator.put_profile("ntrip", **settings)
    body = simulator.post(token, settings.get("service", "pointperfect")).json()
    assert set(body) == {block}
    login = body[block]
    assert set(login) == {"endpoint", "httpPort", "mountPoint", "userName", "password"}
    assert (login["endpoint"], login["httpPort"]) == ("ppntrip.services.u-blox.com", "2101")
    assert login["mountPoint"] == mount_point
    assert re.fullmatch("[A-Za-z0-9]{12}", login["userName"])
    assert len(login["password"]) == 12
    assert re.search("[&%#+/]", login["password"])


def test_ntrip_port_as_a_number(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("number", simulator={"http_port_as": "number", "port": 2102}, **LIVE)
    assert simulator.post(token, **LIVE).json()["rtcmCredentials"]["httpPort"] == 2102


def test_old_ntrip_shape(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("old", format="RTCM", simulator={"ntrip_shape": "endpoints"})
    login = simulator.post(token).json()["rtcmCredentials"]
    assert set(login) == {"endPoints", "mountPoint", "userName", "password"}
    assert login["endPoints"] == [
        {"region": region, "endpoint": "ppntrip.services.u-blox.com", "httpPort": "2101"}
        for region in ("North America", "Europe")
    ]


def test_cloudlocate_response(simulator: RunningSimulator) -> None:
    body = simulator.post(simulator.put_profile("cloud", **CLOUD), **CLOUD).json()
    assert set(body) == {"hostname", "port", "clientId", "username", "password"}
    assert (body["hostname"], body["port"]) == ("mqtt.thingstream.io", 8883)
    assert UUID.fullmatch(body["clientId"].removeprefix("device:"))
    assert body["clientId"].startswith("device:")
    assert re.fullmatch("[A-Z0-9]{20}", body["username"])
    assert re.fullmatch("[A-Za-z0-9+/]{40}", body["password"])


def test_cloudlocate_creates_a_thing_for_each_call(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("each", **CLOUD)
    first, second = (simulator.post(token, hardwareId="each", **CLOUD).json() for _round in range(2))
    assert all(first[field] != second[field] for field in ("clientId", "username", "password"))
    assert len(simulator.things(hardware_id="each")) == 2
    simulator.put_profile("each", simulator={"new_thing_on_repeat": False}, **CLOUD)
    assert simulator.post(token, hardwareId="each", **CLOUD).json() == second


def test_pointperfect_can_be_made_to_create_a_thing_for_each_call(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("twice", simulator={"new_thing_on_repeat": True}, **LIVE)
    assert (
        simulator.post(token, hardwareId="twice", **LIVE).json()
        != simulator.post(token, hardwareId="twice", **LIVE).json()
    )


def test_calls_without_hardware_id_create_things(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("anonymous", **LIVE)
    assert simulator.post(token, **LIVE).json() != simulator.post(token, **LIVE).json()
    assert len(simulator.things(profile="anonymous")) == 2


def test_services_do_not_share_hardware_ids(simulator: RunningSimulator) -> None:
    live, cloud = simulator.put_profile("live", **LIVE), simulator.put_profile("locate", **CLOUD)
    assert simulator.post(live, hardwareId="shared", **LIVE).ok
    assert simulator.post(cloud, hardwareId="shared", **CLOUD).ok


def test_renamed_fields(simulator: RunningSimulator) -> None:
    names = {"clientId": "mqtt.identity", "hostname": "mqtt.server", "username": "password", "password": "username"}
    plain = simulator.put_profile("names", simulator={"new_thing_on_repeat": False}, **CLOUD)
    before = simulator.post(plain, hardwareId="names", **CLOUD).json()
    simulator.put_profile("names", simulator={"new_thing_on_repeat": False, "field_names": names}, **CLOUD)
    assert simulator.post(plain, hardwareId="names", **CLOUD).json() == {
        "port": before["port"],
        "mqtt": {"identity": before["clientId"], "server": before["hostname"]},
        "username": before["password"],
        "password": before["username"],
    }


def test_renamed_block(simulator: RunningSimulator) -> None:
    fields = ("endpoint", "httpPort", "mountPoint", "userName", "password")
    names = {f"rtcmCredentials.{field}": f"live.{field}" for field in fields}
    body = simulator.post(simulator.put_profile("block", simulator={"field_names": names}, **LIVE), **LIVE).json()
    assert set(body) == {"live"}
    assert set(body["live"]) == set(fields)


def test_responses_can_point_elsewhere(simulator: RunningSimulator) -> None:
    elsewhere = {"host": "localhost", "port": 2, "mount_point": "TEST"}
    live = simulator.post(simulator.put_profile("there", simulator=elsewhere, **LIVE), **LIVE).json()["rtcmCredentials"]
    assert (live["endpoint"], live["httpPort"], live["mountPoint"]) == ("localhost", "2", "TEST")
    cloud = simulator.post(simulator.put_profile("there-too", simulator=elsewhere, **CLOUD), **CLOUD).json()
    assert (cloud["hostname"], cloud["port"]) == ("localhost", 2)
    keys = simulator.post(simulator.put_profile("and-there", simulator=elsewhere, plan="mqtt")).json()
    assert keys["brokerHost"] == "localhost"


@pytest.mark.parametrize(
    ("settings", "secret"),
    [
        ({"service": "pointperfect", "plan": "mqtt"}, {"certificate", "privateKey"}),
        ({"service": "pointperfect"}, {"rtcmCredentials"}),
        ({"service": "pointperfect-live"}, {"rtcmCredentials"}),
        ({"service": "cloudlocate"}, {"clientId", "username", "password"}),
    ],
)
def test_pending_calls_lack_credentials(
    simulator: RunningSimulator, settings: dict[str, Any], secret: set[str]
) -> None:
    switches = {"pending_calls": 2, "new_thing_on_repeat": False}
    token = simulator.put_profile("pending", simulator=switches, **settings)
    responses = [
        simulator.post(token, settings["service"], hardwareId=f"pending-{'-'.join(settings.values())}")
        for _round in range(4)
    ]
    assert [response.status_code for response in responses] == [200] * 4
    first, second, third, fourth = (response.json() for response in responses)
    assert first == second != third == fourth
    if secret == {"rtcmCredentials"}:
        assert first == {"rtcmCredentials": {"mountPoint": "NEAR-RTCM"}}
    else:
        assert set(third) - set(first) == secret


def test_pending_and_an_error_on_repeat_is_the_platforms_trap(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("trap", already_exists="error", simulator={"pending_calls": 1}, **LIVE)
    assert "userName" not in simulator.post(token, hardwareId="trap", **LIVE).text
    assert simulator.post(token, hardwareId="trap", **LIVE).text == "Device already registered"


def test_thing_that_is_not_activated_has_no_credentials(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("manual", auto_activate=False, **LIVE)
    for _round in range(3):
        assert "userName" not in simulator.post(token, hardwareId="manual", **LIVE).text
    (thing,) = simulator.things(hardware_id="manual")
    assert thing["status"] == "allocated"
    simulator.activate(thing["id"])
    assert "userName" in simulator.post(token, hardwareId="manual", **LIVE).text


def test_thing_keeps_its_kind_of_credentials_if_the_format_changes(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("format", plan="mqtt")
    before = simulator.post(token, hardwareId="format").json()
    simulator.put_profile("format", format="RTCM")
    assert simulator.post(token, hardwareId="format").json() == before
    assert "rtcmCredentials" in simulator.post(token, hardwareId="format-new").json()


def test_tags_of_profile_and_request_are_joined(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("tags", tags=["fleet", "ztp"], **LIVE)
    simulator.post(token, hardwareId="tags", givenName="first", tags=["ztp", "north"], **LIVE)
    simulator.post(token, hardwareId="tags", givenName="second", tags=["south"], **LIVE)
    (thing,) = simulator.things(hardware_id="tags")
    assert (thing["given_name"], thing["tags"]) == ("first", ["fleet", "ztp", "north"])

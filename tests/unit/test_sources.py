# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came from elsewhere takes the shape of an answer, and is read like one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import formats
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import sources
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import FIELDS, SERVICES
from ansible_collections.thingstream.ztp.tests.unit.support import (
    MQTT_PASSWORD,
    NOW,
    NTRIP_PASSWORD,
    Pair,
    assert_no_secret,
    cloudlocate,
    make_pair,
    parse,
    rtcm,
    spartn,
)

LAYOUT = formats.Layout("/etc/x", 0o640, "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n")
LOGIN = {
    "ntrip_host": "caster.example.com",
    "ntrip_port": 2101,
    "ntrip_mountpoint": "NEAR-RTCM",
    "ntrip_username": "user",
    "ntrip_password": NTRIP_PASSWORD,
}


def read(answer: bytes, service: str, field_map: dict[str, str] | None = None) -> credentials.Credentials:
    response = credentials.decode(answer)
    fields = credentials.extract(response, SERVICES[service], field_map or {})
    return credentials.check(response, fields, SERVICES[service], field_map or {}, NOW)


@pytest.mark.parametrize("service", ["pointperfect", "pointperfect-live"])
@pytest.mark.parametrize("field_map", [{}, {"ntrip_username": "login.name", "ntrip_password": "login.secret"}])
def test_a_login_by_its_fields(service: str, field_map: dict[str, str]) -> None:
    parsed = read(sources.response_of(LOGIN, SERVICES[service], field_map), service, field_map)
    assert {name: getattr(parsed, name) for name in LOGIN} == LOGIN
    assert parsed.delivery == ("ntrip",)


@pytest.mark.parametrize(
    ("response", "service"), [(cloudlocate(), "cloudlocate"), (rtcm(), "pointperfect"), (rtcm(), "pointperfect-live")]
)
def test_fields_that_are_read_and_written_again_are_the_same(response: dict[str, Any], service: str) -> None:
    parsed = parse(response, service)
    known = {name: value for name, value in parsed.fields().items() if name in FIELDS and value}
    assert read(sources.response_of(known, SERVICES[service], {}), service) == parsed


def test_what_ucenter_reads_is_read_back(rsa_pair: Pair) -> None:
    parsed = parse(spartn(rsa_pair, supportsLband=False))
    file = formats.FORMATS["ucenter"].render(parsed, LAYOUT)["ucenter-config.json"]
    again = read(
        sources.response_of(sources.ucenter_fields(file.content.decode()), SERVICES["pointperfect"], {}), "pointperfect"
    )
    assert sorted(one.path for one in again.subscriptions) == sorted(one.path for one in parsed.subscriptions)
    assert replace(again, subscriptions=()) == replace(parsed, subscriptions=())
    assert again.identity_sha256 == parsed.identity_sha256


def test_without_topics_and_keys(rsa_pair: Pair) -> None:
    parsed = parse(spartn(rsa_pair, supportsLband=False))
    content = json.loads(formats.FORMATS["ucenter"].render(parsed, LAYOUT)["ucenter-config.json"].content)
    del content["MQTT"]["Subscriptions"], content["MQTT"]["dynamickeys"]
    again = read(
        sources.response_of(sources.ucenter_fields(json.dumps(content)), SERVICES["pointperfect"], {}), "pointperfect"
    )
    assert (again.subscriptions, again.keys_current, again.keys_next) == ((), None, None)
    assert again.certificate == parsed.certificate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"MQTT": []}',
        '{"MQTT": {"Connectivity": {}}}',
        "[" * 100_000,
        json.dumps({"MQTT": MQTT_PASSWORD}),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_ucenter_file(text: str) -> None:
    with pytest.raises(ProvisioningError) as caught:
        sources.ucenter_fields(text)
    assert caught.value.code == "bad_response"
    assert_no_secret(caught.value)


@pytest.mark.parametrize(
    ("fields", "service", "field_map", "said"),
    [
        ({"user": MQTT_PASSWORD}, "cloudlocate", {}, "'user'"),
        ({"certificate": MQTT_PASSWORD}, "cloudlocate", {}, "keeps no certificate"),
        ({"password": MQTT_PASSWORD}, "cloudlocate", {"password": "logins[0].pw"}, "no plain key"),
    ],
)
def test_fields_that_have_no_place(fields: dict[str, Any], service: str, field_map: dict[str, str], said: str) -> None:
    with pytest.raises(ProvisioningError, match=said) as caught:
        sources.response_of(fields, SERVICES[service], field_map)
    assert caught.value.code == "bad_option"
    assert_no_secret(caught.value)


def test_a_pair_that_does_not_fit_is_found_out(rsa_pair: Pair, ec_pair: Pair) -> None:
    other = make_pair(ec_pair.key, "other")
    fields = {"client_id": "x", "host": "h", "certificate": rsa_pair.certificate, "private_key": other.private_key}
    with pytest.raises(ProvisioningError) as caught:
        read(sources.response_of(fields, SERVICES["pointperfect"], {}), "pointperfect")
    assert caught.value.code == "pair_mismatch"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials that came from elsewhere take the shape of a response and are read like one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import formats
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import sources
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Given
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import FIELDS, SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.user_files import UserFile
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    MQTT_PASSWORD,
    NOW,
    NTRIP_PASSWORD,
    Pair,
    assert_no_secret,
    cloudlocate,
    encoded,
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
PLACE = {"client_id": "thing-1", "host": "pp.example.com"}


def read(
    fields: dict[str, Any], service: str = "pointperfect", field_map: dict[str, str] | None = None, **options: Any
) -> credentials.Credentials:
    response = sources.response_of(fields, SERVICES[service], field_map or {})
    given = Given(response, options.pop("origin", "fields"), name="fields")
    return sources.parse_given(given, SERVICES[service], field_map or {}, options.pop("now", NOW))


def ucenter_file(document: Any) -> UserFile:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return UserFile("ucenter_path: x.json", content)


def downloaded(pair: Pair) -> tuple[credentials.Credentials, Any]:
    """Return credentials, and the u-center file that is rendered from them."""
    parsed = parse(spartn(pair, supportsLband=False))
    return parsed, json.loads(formats.FORMATS["ucenter"].render(parsed, LAYOUT)["ucenter-config.json"].content)


@pytest.mark.parametrize("service", ["pointperfect", "pointperfect-live"])
@pytest.mark.parametrize("field_map", [{}, {"ntrip_username": "login.name", "ntrip_password": "login.secret"}])
def test_a_login_by_its_fields(service: str, field_map: dict[str, str]) -> None:
    parsed = read(sources.fields_of(LOGIN), service, field_map)
    assert {name: getattr(parsed, name) for name in LOGIN} == LOGIN
    assert parsed.delivery == ("ntrip",)


@pytest.mark.parametrize(
    ("response", "service"), [(cloudlocate(), "cloudlocate"), (rtcm(), "pointperfect"), (rtcm(), "pointperfect-live")]
)
def test_fields_that_are_read_and_written_again_are_the_same(response: dict[str, Any], service: str) -> None:
    parsed = parse(response, service)
    known = {name: value for name, value in parsed.fields().items() if name in FIELDS and value}
    assert read(known, service) == parsed


def test_a_rendered_ucenter_file_is_read_back(rsa_pair: Pair) -> None:
    parsed, document = downloaded(rsa_pair)
    again = read(sources.fields_of({}, ucenter_file(document)))
    assert sorted(one.path for one in again.subscriptions) == sorted(one.path for one in parsed.subscriptions)
    assert replace(again, subscriptions=()) == replace(parsed, subscriptions=())
    assert again.identity_sha256 == parsed.identity_sha256


def test_fields_take_precedence_over_a_ucenter_file_and_complete_it(ec_pair: Pair, other_pair: Pair) -> None:
    _parsed, document = downloaded(ec_pair)
    del document["MQTT"]["Connectivity"]["ClientID"]
    fields = {"client_id": "mine", "host": "broker.example.com", "port": None}
    again = read(sources.fields_of(fields, ucenter_file(document)))
    assert (again.client_id, again.host, again.port) == ("mine", "broker.example.com", 8883)
    pair = {"certificate": other_pair.certificate, "private_key": other_pair.private_key}
    assert read(sources.fields_of({**fields, **pair}, ucenter_file(document))).certificate == other_pair.certificate


def test_a_pair_in_fields_is_read_as_one_in_files(ec_pair: Pair) -> None:
    pair = {"certificate": ec_pair.certificate, "private_key": ec_pair.private_key.replace("\n", "\\n")}
    by_fields = read(sources.fields_of({**PLACE, **pair}))
    files = (
        UserFile("certificate_path: c", ec_pair.certificate.encode()),
        UserFile("private_key_path: k", ec_pair.private_key.encode()),
    )
    assert read(sources.fields_of(PLACE, None, files)) == by_fields
    assert by_fields.private_key == ec_pair.private_key


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"Cert": "%"}, "bad_option", "ClientCredentials.Cert holds a damaged certificate"),
        ({"Key": "AAAA"}, "bad_option", "ClientCredentials.Key holds a damaged private key"),
        ({"Key": 5}, "bad_option", "ClientCredentials.Key is not text"),
        ({"Key": "\ud800"}, "bad_option", "ClientCredentials.Key holds a damaged private key"),
        ({"Key": "  "}, "bad_option", "ClientCredentials.Key is empty"),
        ({"Key": None}, "missing_field", "lacks MQTT.Connectivity.ClientCredentials.Key: set fields.private_key"),
        ({"Cert": ""}, "missing_field", "lacks MQTT.Connectivity.ClientCredentials.Cert: set fields.certificate"),
    ],
)
def test_a_ucenter_file_with_a_damaged_login(ec_pair: Pair, changes: dict[str, Any], code: str, said: str) -> None:
    _parsed, document = downloaded(ec_pair)
    document["MQTT"]["Connectivity"]["ClientCredentials"] |= changes

    def adopt() -> None:
        response = sources.response_of(sources.fields_of({}, ucenter_file(document)), SERVICES["pointperfect"], {})
        sources.parse_given(Given(response, "ucenter", name="ucenter_path: x.json"), SERVICES["pointperfect"], {}, NOW)

    with pytest.raises(ProvisioningError, match=said) as caught:
        adopt()
    assert caught.value.code == code
    assert caught.value.message.startswith("ucenter_path: x.json")
    assert_no_secret(caught.value, also=(ec_pair.secret_line,))


@pytest.mark.parametrize(
    ("fields", "service", "field_map", "said"),
    [
        ({"certificate": MQTT_PASSWORD}, "cloudlocate", {}, "keeps no certificate"),
        ({"password": MQTT_PASSWORD}, "cloudlocate", {"password": "logins[0].pw"}, "no plain key"),
        ({"username": "u", "password": "p"}, "cloudlocate", {"username": "a", "password": "a.b"}, "of another field"),
        ({"subscriptions": [NOW]}, "pointperfect", {}, "neither text"),
    ],
)
def test_fields_that_have_no_place(fields: dict[str, Any], service: str, field_map: dict[str, str], said: str) -> None:
    with pytest.raises(ProvisioningError, match=said) as caught:
        sources.response_of(fields, SERVICES[service], field_map)
    assert caught.value.code == "bad_option"
    assert_no_secret(caught.value)


def refused(given: Given, now: datetime = NOW) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        sources.parse_given(given, SERVICES["pointperfect"], {}, now)
    for words in ("response", "answer", "u-blox", "api_url"):
        assert words not in caught.value.message
    return caught.value


def test_messages_name_the_source_and_not_a_response(ec_pair: Pair, other_pair: Pair) -> None:
    def given(response: Any) -> Given:
        return Given(response if isinstance(response, bytes) else encoded(response), "store", name="store_path: x")

    assert refused(given(b"<html>")).message == "store_path: x is not one JSON object."
    assert refused(given(b"[]")).code == "bad_option"
    error = refused(given(spartn(ec_pair, clientId="a b")))
    assert (error.code, error.message) == ("bad_option", "store_path: x: The field client_id is not a client ID.")
    error = refused(given(spartn(ec_pair, brokerHost=None, clientId=None)))
    assert error.code == "missing_field"
    assert error.message.startswith("store_path: x lacks client_id, host: use another store")
    error = refused(given(spartn(ec_pair, privateKey=other_pair.private_key)))
    assert (error.code, error.message.startswith("store_path: x: ")) == ("pair_mismatch", True)


def test_an_expired_certificate_is_refused_only_when_it_is_installed(ec_pair: Pair) -> None:
    given = Given(encoded(spartn(ec_pair)), "files", name="certificate_path: c.crt")
    error = refused(given, NOW + 400 * DAY)
    assert (error.code, "certificate_path: c.crt" in error.message) == ("bad_option", True)
    assert "expired" in error.message
    long_ago = datetime.min.replace(tzinfo=timezone.utc)
    assert sources.parse_given(given, SERVICES["pointperfect"], {}, long_ago).certificate == ec_pair.certificate

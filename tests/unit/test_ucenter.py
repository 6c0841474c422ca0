# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""u-center files as people have them: nulls, missing parts, other schemes, topics as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import ucenter
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.user_files import UserFile
from ansible_collections.thingstream.ztp.tests.unit.support import MQTT_PASSWORD, assert_no_secret

KEY = {"duration": 1000, "start": 1_700_000_000_000, "value": "00ff"}


def document(subscriptions: Any = None, keys: Any = None, **connectivity: Any) -> dict[str, Any]:
    login = {"Cert": "cert", "Key": MQTT_PASSWORD, "RootCA": "ca"}
    places = {"ClientID": "thing", "ServerURI": "ssl://pp.example.com:8883", "ClientCredentials": login}
    return {"MQTT": {"Connectivity": {**places, **connectivity}, "Subscriptions": subscriptions, "dynamickeys": keys}}


def fields_of(content: Any) -> dict[str, Any]:
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ucenter.fields_of(UserFile("ucenter_path: x.json", encoded))


MINIMUM = {"client_id": "thing", "certificate": "cert", "private_key": MQTT_PASSWORD, "host": "pp.example.com"}


@pytest.mark.parametrize(
    "content",
    [
        document(),
        document(subscriptions={}, keys={}),
        document(subscriptions={"Key": None, "AssistNow": {"AssistNowTopics": None}, "Data": {"DataTopics": [None]}}),
        document(keys={"current": None, "next": {}}),
        document(keys={"current": {"duration": 0, "start": 0, "value": ""}, "next": {"value": None}}),
        [document()],
        b"\xef\xbb\xbf" + json.dumps(document()).encode(),
        json.dumps(document(), indent=2).replace("\n", "\r\n").encode() + b"\r\n\r\n",
    ],
)
def test_nulls_and_missing_parts(content: Any) -> None:
    assert fields_of(content) == {**MINIMUM, "port": 8883}
    if isinstance(content, dict):
        for part in ("Subscriptions", "dynamickeys"):
            without = {"MQTT": {name: value for name, value in content["MQTT"].items() if name != part}}
            assert fields_of(without) == {**MINIMUM, "port": 8883}


@pytest.mark.parametrize("name", ["ClientID", "ServerURI", "ClientCredentials"])
@pytest.mark.parametrize("value", [None, "delete"])
def test_what_is_missing_is_left_out(name: str, value: Any) -> None:
    content = document(**{name: None})
    if value == "delete":
        del content["MQTT"]["Connectivity"][name]
    gone = {"ClientID": {"client_id"}, "ServerURI": {"host"}, "ClientCredentials": {"certificate", "private_key"}}
    assert fields_of(content).keys() & MINIMUM.keys() == MINIMUM.keys() - gone[name]
    assert fields_of({"MQTT": None}) == {}


@pytest.mark.parametrize(
    ("uri", "host", "port"),
    [
        ("ssl://pp.example.com", "pp.example.com", None),
        ("pp.example.com", "pp.example.com", None),
        ("pp.example.com:443", "pp.example.com", 443),
        ("mqtts://pp.example.com:8883/", "pp.example.com", 8883),
        ("TLS://pp.example.com:8883", "pp.example.com", 8883),
        (" ssl://[2001:db8::1]:8883 ", "2001:db8::1", 8883),
    ],
)
def test_a_server_in_any_form(uri: str, host: str, port: int | None) -> None:
    fields = fields_of(document(ServerURI=uri))
    assert (fields["host"], fields.get("port")) == (host, port)


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        ("/pp/ip/eu;/pp/ip/eu/gad", ["/pp/ip/eu;/pp/ip/eu/gad"]),
        ("/pp/ip/eu, /pp/ip/us", ["/pp/ip/eu", "/pp/ip/us"]),
        (["/pp/ip/eu;/pp/ip/eu/gad", "/pp/ip/us,/pp/ip/au"], ["/pp/ip/eu;/pp/ip/eu/gad", "/pp/ip/us", "/pp/ip/au"]),
        ([" /a ", "", None, "/b,c"], ["/a", "/b,c"]),
    ],
)
def test_topics_as_text_and_joined(topics: Any, expected: list[str]) -> None:
    for section, key in (("Key", "KeyTopics"), ("AssistNow", "AssistNowTopics"), ("Data", "DataTopics")):
        found = fields_of(document(subscriptions={section: {key: topics}}))["subscriptions"]
        assert [one["path"] for one in found] == expected


def test_dynamic_keys() -> None:
    texts = {name: str(value) for name, value in KEY.items()}
    fields = fields_of(document(keys={"current": texts, "next": KEY}))
    assert (fields["keys_current"], fields["keys_next"]) == (texts, KEY)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<html>" + MQTT_PASSWORD.encode(), "is an HTML page"),
        (b'{"MQTT": {},}', "is not valid JSON, see line 1, column"),
        (b'{"MQTT": "' + MQTT_PASSWORD.encode(), "is not valid JSON, see line 1"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"MQTT": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (json.dumps(document()).encode("utf-16"), "UTF-16"),
        ([], "list of 0 entries"),
        ([document(), document()], "list of 2 entries: use a file with one Thing"),
        ("text", "is not a JSON object"),
        ([MQTT_PASSWORD], "is not a JSON object"),
        ({}, "has no MQTT"),
        ({"privateKey": MQTT_PASSWORD, "clientId": "x"}, "is JSON of the API"),
        ({"rtcmCredentials": {"password": MQTT_PASSWORD}}, "is JSON of the API"),
        ({"MQTT": MQTT_PASSWORD}, "has MQTT, but it is not an object"),
        (document(subscriptions=[MQTT_PASSWORD]), "has MQTT.Subscriptions, but it is not an object"),
        (document(subscriptions={"Data": {"DataTopics": [5]}}), "Data.DataTopics has an entry that is not text"),
        (document(keys=MQTT_PASSWORD), "has MQTT.dynamickeys, but it is not an object"),
        (document(ClientCredentials=[1]), "ClientCredentials, but it is not an object"),
        (document(ServerURI="wss://pp.example.com:443/mqtt"), "ServerURI has a scheme that does not fit"),
        (document(ServerURI="tcp://pp.example.com:1883"), "ServerURI has a scheme that does not fit"),
        (document(ServerURI="ssl://pp.example.com/mqtt"), "ServerURI has a path"),
        (document(ServerURI=f"ssl://u:{MQTT_PASSWORD}@pp.example.com"), "ServerURI has a login"),
        (document(ServerURI=8883), "ServerURI is not text"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_ucenter_file_of_one_thing(content: Any, said: str) -> None:
    with pytest.raises(ProvisioningError, match=said) as caught:
        fields_of(content)
    assert caught.value.code == "bad_option"
    assert caught.value.message.startswith("ucenter_path: x.json")
    assert_no_secret(caught.value)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields as people write them: accepted where only one meaning is possible."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import user_fields
from ansible_collections.thingstream.ztp.tests.unit.support import MQTT_PASSWORD, assert_no_secret


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ntrip_host": "http://c.example.com:2101/NEAR"}, ("c.example.com", 2101, "NEAR")),
        ({"ntrip_host": "ntrip://c.example.com/NEAR/"}, ("c.example.com", None, "NEAR")),
        ({"ntrip_host": "c.example.com:2101/NEAR"}, ("c.example.com", 2101, "NEAR")),
        ({"ntrip_host": " c.example.com/ "}, ("c.example.com", None, None)),
        ({"ntrip_host": "c.example.com:2101", "ntrip_port": "2101"}, ("c.example.com", 2101, None)),
        ({"ntrip_host": "http://c/NEAR", "ntrip_mountpoint": "/NEAR"}, ("c", None, "NEAR")),
        ({"ntrip_host": "2001:db8::1", "ntrip_port": 2101}, ("2001:db8::1", 2101, None)),
        ({"ntrip_host": "[2001:db8::1]:2101"}, ("2001:db8::1", 2101, None)),
        ({"ntrip_host": "c", "ntrip_mountpoint": "/NEAR-RTCM"}, ("c", None, "NEAR-RTCM")),
        ({"ntrip_host": "c", "ntrip_port": 2102}, ("c", 2102, None)),
    ],
)
def test_a_caster(given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    fields = user_fields.normalize(given)
    assert tuple(fields.get(name) for name in ("ntrip_host", "ntrip_port", "ntrip_mountpoint")) == expected
    assert "ntrip_tls_port" not in fields


@pytest.mark.parametrize("host", ["ssl://b.example.com:8883", "mqtts://b.example.com:8883/", "b.example.com:8883"])
def test_a_broker(host: str) -> None:
    assert user_fields.normalize({"host": host, "port": None}) == {"host": "b.example.com", "port": 8883}


def test_topics_in_one_text() -> None:
    given = {"subscriptions": "/pp/ip/eu;/pp/ip/eu/gad, /pp/ip/us"}
    paths = [{"path": "/pp/ip/eu;/pp/ip/eu/gad"}, {"path": "/pp/ip/us"}]
    assert user_fields.normalize(given) == {"subscriptions": paths}
    assert user_fields.normalize({"subscriptions": paths}) == {"subscriptions": paths}


@pytest.mark.parametrize("value", [12345678, 0o17, 1.5, True, False, 0, date(2026, 1, 2), [MQTT_PASSWORD], {"a": 1}])
@pytest.mark.parametrize("name", ["ntrip_password", "ntrip_username", "ntrip_mountpoint", "password", "client_id"])
def test_a_value_that_yaml_may_have_changed(name: str, value: Any) -> None:
    with pytest.raises(ProvisioningError, match=f"^fields: {name} is not text.*: quote it") as caught:
        user_fields.normalize({name: value})
    assert caught.value.code == "bad_option"
    assert "1234" not in caught.value.message
    assert_no_secret(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"user": MQTT_PASSWORD}, "no field 'user'"),
        ({"ntrip_host": "https://c.example.com:2102"}, "ntrip_host has a scheme that does not fit: use http://"),
        ({"ntrip_host": f"http://user:{MQTT_PASSWORD}@c.example.com"}, "ntrip_host has a login in it"),
        ({"ntrip_host": "http://c:2101", "ntrip_port": 2102}, "ntrip_host has another ntrip_port"),
        ({"ntrip_host": "http://c/A", "ntrip_mountpoint": "B"}, "ntrip_host has another ntrip_mountpoint"),
        ({"ntrip_host": "http://c/A/B"}, "ntrip_host has no plain mount point"),
        ({"ntrip_host": "http://c/A?x=1"}, "ntrip_host is not the address"),
        ({"ntrip_host": "http://"}, "ntrip_host is not the address"),
        ({"ntrip_host": "http:/c"}, "ntrip_host is not the address"),
        ({"ntrip_host": "c:99999"}, "ntrip_host is not the address"),
        ({"ntrip_host": "c:x"}, "ntrip_host is not the address"),
        ({"ntrip_host": "c:"}, "ntrip_host is not the address"),
        ({"ntrip_host": "a\nb"}, "ntrip_host is not the address"),
        ({"ntrip_host": "[::1"}, "ntrip_host is not the address"),
        ({"ntrip_host": 5}, "ntrip_host is not text"),
        ({"ntrip_mountpoint": "A/B"}, "ntrip_mountpoint has no plain mount point"),
        ({"ntrip_mountpoint": "/"}, "ntrip_mountpoint has no plain mount point"),
        ({"host": "wss://b.example.com:443/mqtt"}, "host has a scheme that does not fit: use ssl://"),
        ({"host": "tcp://b.example.com:1883"}, "host has a scheme that does not fit"),
        ({"host": "b.example.com/path"}, "host has a path"),
        ({"host": "ssl://b:8883", "port": 443}, "host has another port"),
    ],
)
def test_fields_that_have_no_certain_meaning(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ProvisioningError, match=said) as caught:
        user_fields.normalize(given)
    assert caught.value.code == "bad_option"
    assert_no_secret(caught.value)

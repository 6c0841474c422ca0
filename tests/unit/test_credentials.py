# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From responses in every shape that was seen to credentials, and what is said of those that are no good."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import FIELDS, SERVICES
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    KEY_CURRENT,
    KEY_NEXT,
    MQTT_PASSWORD,
    NOW,
    NTRIP_PASSWORD,
    RSA_NUMBERS,
    Pair,
    assert_no_secret,
    changed,
    cloudlocate,
    dynamic_key,
    encoded,
    make_pair,
    parse,
    pem_of,
    rsa_pem,
    rtcm,
    spartn,
)
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PKCS1 = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8


def refused(response: dict[str, Any], service: str = "pointperfect", **options: Any) -> ProvisioningError:
    """Return the error for a response, after checking that it shows no secret."""
    with pytest.raises(ProvisioningError) as caught:
        parse(response, service, **options)
    key = str(response.get("privateKey", ""))
    assert_no_secret(caught.value, also=tuple(line for line in key.splitlines() if len(line) == 64))
    return caught.value


# ---- the shapes ----


def test_a_spartn_response(any_pair: Pair) -> None:
    found = parse(spartn(any_pair))
    assert found.service == "pointperfect"
    assert found.delivery == ("mqtt", "lband")
    assert (found.client_id, found.host, found.port) == (
        "11111111-2222-4333-8444-555555555555",
        "pp.services.u-blox.com",
        8883,
    )
    assert found.certificate == any_pair.certificate
    assert found.private_key == any_pair.private_key
    assert found.not_before == NOW - 10 * DAY
    assert found.not_after == NOW + 365 * DAY
    assert found.fingerprint_sha256 is not None
    assert len(bytes.fromhex(found.fingerprint_sha256)) == 32
    assert [(entry.path, entry.description) for entry in found.subscriptions] == [
        ("/pp/ubx/0236/Lb", "L-band + IP key distribution topic"),
        ("/pp/Lb/eu", "L-band + IP correction topic for EU region"),
        ("/pp/Lb/eu/gad;/pp/Lb/eu/hpac;/pp/Lb/eu/ocb", None),
    ]
    assert found.keys_current is not None
    assert found.keys_next is not None
    assert (found.keys_current.value, found.keys_next.value) == (KEY_CURRENT, KEY_NEXT)
    assert found.keys_expire_at == NOW + 51 * DAY - timedelta(milliseconds=1)
    absent = (found.username, found.password, found.ntrip_host, found.ntrip_port, found.ntrip_password)
    assert absent == (None,) * 5


@pytest.mark.parametrize("port", ["2101", 2101, " 2101 "])
def test_an_rtcm_response(port: Any) -> None:
    found = parse(rtcm(httpPort=port))
    assert found.delivery == ("ntrip",)
    assert (found.ntrip_host, found.ntrip_port, found.ntrip_tls_port, found.ntrip_mountpoint) == (
        "ppntrip.services.u-blox.com",
        2101,
        None,
        "NEAR-RTCM",
    )
    assert (found.ntrip_username, found.ntrip_password) == ("abcdefghijkl", NTRIP_PASSWORD)
    absent = (found.client_id, found.host, found.certificate, found.not_after, found.keys_expire_at)
    assert absent == (None,) * 5


def test_an_rtcm_response_in_its_older_shape() -> None:
    regions = [
        {"region": "Europe", "endpoint": "eu.example.com", "httpPort": "2103"},
        {"region": "North America", "endpoint": "us.example.com", "httpPort": 2104},
    ]
    older = rtcm(endpoint=None, httpPort=None, endPoints=regions)
    found = parse(older)
    assert (found.ntrip_host, found.ntrip_port) == ("eu.example.com", 2103)
    picked = {
        "ntrip_host": "rtcmCredentials.endPoints[?region=='North America'] | [0].endpoint",
        "ntrip_port": "rtcmCredentials.endPoints[?region=='North America'] | [0].httpPort",
    }
    found = parse(older, field_map=picked)
    assert (found.ntrip_host, found.ntrip_port) == ("us.example.com", 2104)


def test_the_flat_shape_is_preferred_to_the_older_one() -> None:
    both = rtcm(endPoints=[{"endpoint": "old.example.com", "httpPort": "1"}])
    assert parse(both).ntrip_host == "ppntrip.services.u-blox.com"


def test_a_tls_port_is_taken_where_there_is_one() -> None:
    assert parse(rtcm(httpsPort="2102")).ntrip_tls_port == 2102


def test_a_live_response() -> None:
    found = parse(rtcm(), "pointperfect-live")
    assert (found.service, found.delivery, found.ntrip_password) == ("pointperfect-live", ("ntrip",), NTRIP_PASSWORD)


@pytest.mark.parametrize(
    ("changes", "host", "port"),
    [
        ({}, "mqtt.thingstream.io", 8883),
        ({"port": 1883}, "mqtt.thingstream.io", 1883),
        ({"port": "1883"}, "mqtt.thingstream.io", 1883),
        ({"hostname": None, "serverUri": "ssl://mqtt.example.com:8884"}, "mqtt.example.com", 8884),
    ],
)
def test_a_cloudlocate_response(changes: dict[str, Any], host: str, port: int) -> None:
    found = parse(cloudlocate(**changes), "cloudlocate")
    assert found.delivery == ("mqtt",)
    assert (found.host, found.port) == (host, port)
    assert (found.client_id, found.username, found.password) == (
        "device:11111111-2222-4333-8444-666666666666",
        "ABCDEFGHIJKLMNOPQRST",
        MQTT_PASSWORD,
    )
    assert (found.certificate, found.keys_expire_at, found.not_after) == (None, None, None)


def test_both_deliveries_in_one_response(ec_pair: Pair) -> None:
    found = parse({**spartn(ec_pair), **rtcm()})
    assert found.delivery == ("mqtt", "ntrip", "lband")
    assert found.password is None
    assert found.ntrip_password == NTRIP_PASSWORD


@pytest.mark.parametrize(
    ("flags", "delivery"),
    [
        ({"supportsMqtt": True, "supportsLband": True}, ("mqtt", "lband")),
        ({"supportsMqtt": True, "supportsLband": False}, ("mqtt",)),
        ({"supportsMqtt": False, "supportsLband": True}, ("lband",)),
        ({"supportsMqtt": None, "supportsLband": None}, ("mqtt",)),
        ({"supportsLband": "no"}, ("mqtt",)),
    ],
)
def test_delivery_follows_the_plan(ec_pair: Pair, flags: dict[str, Any], delivery: tuple[str, ...]) -> None:
    assert parse(spartn(ec_pair, **flags)).delivery == delivery


def test_unknown_fields_never_break_a_run(ec_pair: Pair) -> None:
    news = {"newThing": {"deep": [[1, None, {"x": "y"}]]}, "certificateTitle": 5, "": None, "\u0000": True}
    assert parse({**spartn(ec_pair), **news}).client_id == parse(spartn(ec_pair)).client_id


# ---- is it ready ----


@pytest.mark.parametrize(
    ("service", "response", "ready"),
    [
        ("pointperfect", {}, False),
        ("pointperfect", {"clientId": "x", "brokerHost": "h"}, False),
        ("pointperfect", {"certificate": "", "privateKey": None}, False),
        ("pointperfect", {"certificate": "c"}, True),
        ("pointperfect", {"privateKey": "c"}, True),
        ("pointperfect", {"rtcmCredentials": {}}, False),
        ("pointperfect", {"rtcmCredentials": {"userName": "u"}}, False),
        ("pointperfect", {"rtcmCredentials": {"endpoint": "h"}}, True),
        ("pointperfect-live", {"certificate": "c"}, False),
        ("pointperfect-live", {"rtcmCredentials": {"endpoint": "h"}}, True),
        ("cloudlocate", {}, True),
    ],
)
def test_a_thing_that_is_being_activated(service: str, response: dict[str, Any], ready: bool) -> None:
    fields = credentials.extract(response, SERVICES[service], {})
    assert credentials.is_ready(fields, SERVICES[service]) is ready


# ---- field_map ----


def test_the_field_map_of_the_documentation() -> None:
    response = {
        "mqtt": {"identity": "device:abc", "server": "mqtt.example.com"},
        "login": {"name": "someone", "pass": MQTT_PASSWORD},
    }
    field_map = {
        "client_id": "mqtt.identity",
        "host": "mqtt.server",
        "username": "login.name",
        "password": "login.pass",
    }
    credentials.check_field_map(field_map)
    found = parse(response, "cloudlocate", field_map)
    assert (found.client_id, found.host, found.port, found.username, found.password) == (
        "device:abc",
        "mqtt.example.com",
        8883,
        "someone",
        MQTT_PASSWORD,
    )


def test_a_field_map_replaces_every_candidate(ec_pair: Pair) -> None:
    error = refused(spartn(ec_pair), field_map={"client_id": "other.place"})
    assert error.code == "missing_field"
    assert "tried: other.place." in error.message


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_can_be_mapped(name: str) -> None:
    fields = credentials.extract({"x": {"y": "found"}}, SERVICES["pointperfect"], {name: "x.y"})
    assert fields[name] == "found"


@pytest.mark.parametrize(
    "expression",
    ["length(port)", "list[::0]", "list[5]", "sort(mixed)", "to_number(host)", "join('', mixed)", "max_by(list, &@)"],
)
def test_an_expression_that_does_not_fit_what_arrived_finds_nothing(expression: str) -> None:
    response = {"port": 5, "list": [{"a": 1}, {"a": "b"}], "mixed": [1, "a"], "host": "h"}
    assert "client_id" not in credentials.extract(response, SERVICES["cloudlocate"], {"client_id": expression})


@pytest.mark.parametrize(
    ("field_map", "named"),
    [
        ({"hosts": "a.b"}, "'hosts'"),
        ({"host": "a..b"}, "host"),
        ({"host": ""}, "host"),
        ({"host": "["}, "host"),
        ({"host": None}, "host"),
        ({"host": 5}, "host"),
        ({"host": ["a"]}, "host"),
        ({"host": {"a": "b"}}, "host"),
        ({5: "a"}, "5"),
    ],
)
def test_a_field_map_that_cannot_be_used(field_map: dict[Any, Any], named: str) -> None:
    with pytest.raises(ProvisioningError) as caught:
        credentials.check_field_map(field_map)
    assert caught.value.code == "bad_option"
    assert named in caught.value.message


# ---- what is missing ----

_MISSING = (
    [("spartn", key, name) for key, name in (
        ("clientId", "client_id"), ("brokerHost", "host"), ("certificate", "certificate"), ("privateKey", "private_key")
    )]
    + [("rtcm", key, name) for key, name in (
        ("endpoint", "ntrip_host"), ("httpPort", "ntrip_port"), ("mountPoint", "ntrip_mountpoint"),
        ("userName", "ntrip_username"), ("password", "ntrip_password"),
    )]
    + [("cloudlocate", key, name) for key, name in (
        ("clientId", "client_id"), ("hostname", "host"), ("username", "username"), ("password", "password"),
    )]
)  # fmt: skip


@pytest.mark.parametrize("empty", [None, ""])
@pytest.mark.parametrize(("shape", "key", "name"), _MISSING)
def test_each_necessary_field(ec_pair: Pair, shape: str, key: str, name: str, empty: str | None) -> None:
    """The error names the field, what was tried, and the keys that arrived, but no value."""
    change = {key: empty}
    if shape == "spartn":
        response, service = spartn(ec_pair, **change), "pointperfect"
    elif shape == "rtcm":
        response, service = rtcm(**change), "pointperfect"
    else:
        response, service = cloudlocate(**change), "cloudlocate"
    error = refused(response, service)
    assert error.code == "missing_field"
    assert f"has no {name};" in error.message
    assert f"tried: {' | '.join(SERVICES[service].fields[name])}." in error.message
    assert f"field_map.{name}." in error.message
    block = response.get("rtcmCredentials")
    arrived = [f"rtcmCredentials.{inner}" for inner in block] if block else list(response)
    assert all(other in error.message for other in arrived if "dynamic" not in other)
    values = [value for value in (block or response).values() if isinstance(value, str) and value]
    assert not [value for value in values if value in error.message]


@pytest.mark.parametrize(("service", "name"), [("pointperfect", "client_id"), ("cloudlocate", "client_id")])
def test_a_response_with_nothing_in_it(service: str, name: str) -> None:
    error = refused({}, service)
    assert (error.code, f"no {name};" in error.message) == ("missing_field", True)
    assert "Keys that arrived: none." in error.message


def test_a_field_that_a_service_is_not_known_to_have() -> None:
    error = refused(cloudlocate(cert="x"), "cloudlocate", field_map={"certificate": "cert"})
    assert error.code == "missing_field"
    assert "has no private_key; tried: nothing" in error.message


def test_names_of_keys_are_printable_few_and_short() -> None:
    hostile = {f"\x1b[31mred\n{number}" + "x" * 500: 1 for number in range(5000)}
    error = refused(hostile)
    assert error.message.isprintable()
    assert len(error.message) < 4000
    assert "…" in error.message


# ---- what is wrong ----


def test_a_pair_that_does_not_match(any_pair: Pair, other_pair: Pair) -> None:
    error = refused(spartn(any_pair, privateKey=other_pair.private_key))
    assert error.code == "pair_mismatch"


def test_two_rsa_pairs_that_were_mixed_up(rsa_pair: Pair) -> None:
    other = pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048), PKCS1)
    assert refused(spartn(rsa_pair, privateKey=other)).code == "pair_mismatch"
    assert refused(spartn(make_pair(ec.generate_private_key(ec.SECP256R1())), privateKey=other)).code == "pair_mismatch"


def test_a_damaged_rsa_key_with_the_right_modulus(rsa_pair: Pair) -> None:
    """The library does not validate keys: the collection itself must find an unusable one."""
    assert isinstance(rsa_pair.key, rsa.RSAPrivateKey)
    numbers = rsa_pair.key.private_numbers()
    parts = {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    parts["d"], parts["dmp1"] = parts["d"] ^ 1 << 100, parts["dmp1"] ^ 1 << 100
    damaged = rsa.RSAPrivateNumbers(**parts, public_numbers=numbers.public_numbers)
    key = damaged.private_key(unsafe_skip_rsa_key_validation=True)
    assert refused(spartn(rsa_pair, privateKey=pem_of(key, PKCS1))).code == "pair_mismatch"


@pytest.mark.parametrize(("days", "expired"), [(-1, True), (0, True), (1 / 86400, False), (1, False)])
def test_a_certificate_that_has_expired(ec_pair: Pair, days: float, expired: bool) -> None:
    pair = make_pair(ec_pair.key, not_after=NOW + days * DAY)
    if not expired:
        assert parse(spartn(pair)).not_after == NOW + days * DAY
        return
    error = refused(spartn(pair))
    assert error.code == "bad_response"
    assert f"has expired on {pair.leaf.not_valid_after_utc:%Y-%m-%d}" in error.message


def test_a_certificate_of_tomorrow_is_taken(ec_pair: Pair) -> None:
    """The clock of a controller may be wrong; the broker decides."""
    pair = make_pair(ec_pair.key, not_before=NOW + DAY)
    assert parse(spartn(pair)).not_before == NOW + DAY


@pytest.mark.parametrize(
    "certificate",
    [
        "c2VjcmV0",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n",
        "\ud800",
        "ü",
        5,
        ["x"],
        {"pem": "x"},
        True,
    ],
)
def test_a_certificate_that_is_none(ec_pair: Pair, certificate: Any) -> None:
    error = refused(spartn(ec_pair, certificate=certificate))
    assert (error.code, "The field certificate" in error.message) == ("bad_response", True)


@pytest.mark.parametrize(
    "key", ["c2VjcmV0", "-----BEGIN RSA PRIVATE KEY-----\n", "\ud800", 5, ["x"], {"pem": "x"}, True]
)
def test_a_key_that_is_none(ec_pair: Pair, key: Any) -> None:
    error = refused(spartn(ec_pair, privateKey=key))
    assert (error.code, "The field private_key" in error.message) == ("bad_response", True)


def test_the_certificate_in_the_place_of_the_key(ec_pair: Pair) -> None:
    error = refused(spartn(ec_pair, privateKey=ec_pair.certificate))
    assert (error.code, "private_key" in error.message) == ("bad_response", True)


@pytest.mark.parametrize("form", [PKCS1, PKCS8])
def test_an_encrypted_key(ec_pair: Pair, form: serialization.PrivateFormat) -> None:
    error = refused(spartn(ec_pair, privateKey=pem_of(ec_pair.key, form, b"password")))
    assert (error.code, "unencrypted" in error.message) == ("bad_response", True)


def test_a_key_of_another_kind(ec_pair: Pair) -> None:
    key = pem_of(ed25519.Ed25519PrivateKey.generate(), PKCS8)
    error = refused(spartn(ec_pair, privateKey=key))
    assert (error.code, "private_key" in error.message) == ("bad_response", True)


def test_a_key_arrives_in_any_form_and_leaves_in_one(any_pair: Pair) -> None:
    as_pkcs8 = parse(spartn(any_pair, privateKey=pem_of(any_pair.key, PKCS8)))
    assert as_pkcs8.private_key == any_pair.private_key
    assert as_pkcs8.identity_sha256 == parse(spartn(any_pair)).identity_sha256


@pytest.mark.parametrize("ending", ["\r\n", "\n\n"])
def test_line_ends_do_not_matter(ec_pair: Pair, ending: str) -> None:
    text = {name: getattr(ec_pair, name) for name in ("certificate", "private_key")}
    if ending == "\r\n":
        text = {name: value.replace("\n", ending) for name, value in text.items()}
    else:
        text = {name: value + ending for name, value in text.items()}
    found = parse(spartn(ec_pair, certificate=text["certificate"], privateKey=text["private_key"]))
    assert (found.certificate, found.private_key) == (ec_pair.certificate, ec_pair.private_key)


def test_a_chain_is_kept_whole_and_its_first_certificate_counts(ec_pair: Pair) -> None:
    authority = make_pair(ec.generate_private_key(ec.SECP256R1()), "authority", authority=True)
    leaf = make_pair(ec_pair.key, signer=authority, not_after=NOW + 5 * DAY)
    found = parse(spartn(leaf, certificate=leaf.certificate + authority.certificate))
    assert found.certificate == leaf.certificate + authority.certificate
    assert found.not_after == NOW + 5 * DAY
    assert refused(spartn(leaf, certificate=authority.certificate + leaf.certificate)).code == "pair_mismatch"


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        ("mqtt.example.com", "mqtt.example.com", 8883),
        ("mqtt.example.com:1884", "mqtt.example.com", 1884),
        ("ssl://mqtt.example.com:1884", "mqtt.example.com", 1884),
        ("https://mqtt.example.com/", "mqtt.example.com", 8883),
        ("192.0.2.1", "192.0.2.1", 8883),
        ("[2001:db8::1]:1884", "2001:db8::1", 1884),
        ("[2001:db8::1]", "2001:db8::1", 8883),
        ("host_with_underscore", "host_with_underscore", 8883),
        ("mqtt.example.com.", "mqtt.example.com.", 8883),
        ("mqtt.example.com/", "mqtt.example.com", 8883),
    ],
)
def test_a_host_with_a_scheme_or_a_port(host: str, name: str, port: int) -> None:
    found = parse(cloudlocate(hostname=host), "cloudlocate")
    assert (found.host, found.port) == (name, port)


@pytest.mark.parametrize(
    "host",
    [
        "a b",
        "host\n",
        "\nhost",
        "-host",
        "host-",
        "a..b",
        "user@host",
        "https://host/path",
        "host:",
        "host:0",
        "host:65536",
        "host:99999999",
        "host:8883:8883",
        "[]",
        "[::1",
        "[:]",
        "ho$(id)st",
        "host;id",
        "'host'",
        "bücher.example",
        "x" * 64,
        ".".join(["x" * 60] * 5),
        "x" * 100_000,
        5,
        True,
        ["host"],
        {"host": "x"},
    ],
)
def test_a_host_that_is_none(host: Any) -> None:
    error = refused(cloudlocate(hostname=host), "cloudlocate")
    assert (error.code, "The field host" in error.message) == ("bad_response", True)
    assert refused(rtcm(endpoint=host)).message.startswith("The field ntrip_host")


@pytest.mark.parametrize(
    "port",
    ["0", 0, -1, "-1", "65536", 65536, "2101x", "2101/tcp", 2101.0, True, [2101], {"a": 1}, "9" * 5000, "²", "1 2"],
)
def test_a_port_that_is_none(port: Any) -> None:
    error = refused(rtcm(httpPort=port))
    assert (error.code, "The field ntrip_port" in error.message) == ("bad_response", True)


@pytest.mark.parametrize("port", [1, "1", 65535, "65535"])
def test_the_edges_of_ports(port: Any) -> None:
    assert parse(rtcm(httpPort=port)).ntrip_port == int(port)


@pytest.mark.parametrize(
    "value", ["a\nb", "a\x00b", "a\x1b[31m", "a\u2028b", "\ud800", "x" * 1025, 5, True, ["x"], {"a": "b"}]
)
@pytest.mark.parametrize(
    ("shape", "key", "name"),
    [
        ("rtcm", "userName", "ntrip_username"),
        ("rtcm", "password", "ntrip_password"),
        ("rtcm", "mountPoint", "ntrip_mountpoint"),
        ("cloudlocate", "username", "username"),
        ("cloudlocate", "password", "password"),
        ("cloudlocate", "clientId", "client_id"),
    ],
)
def test_a_text_that_is_none(shape: str, key: str, name: str, value: Any) -> None:
    if shape == "rtcm":
        error = refused(rtcm(**{key: value}))
    else:
        error = refused(cloudlocate(**{key: value}), "cloudlocate")
    assert error.code == "bad_response"
    assert f"The field {name}" in error.message
    assert error.message.isprintable()


@pytest.mark.parametrize("client_id", ["-x", "a b", "../x", "a/b", "$(id)", "a'b", "ü", "x" * 129])
def test_a_client_id_that_is_none(client_id: str) -> None:
    error = refused(cloudlocate(clientId=client_id), "cloudlocate")
    assert (error.code, "client_id" in error.message) == ("bad_response", True)


# ---- not an answer at all ----


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>proxy</html>",
        b"{" + MQTT_PASSWORD.encode(),
        b'{"password": "' + MQTT_PASSWORD.encode() + b'"',
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"\xff\xfe\x00",
        b"\x80",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        b"9" * 5000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{} {"b": 1}',
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_a_body_that_is_not_one_json_object(raw: bytes) -> None:
    with pytest.raises(ProvisioningError) as caught:
        credentials.decode(raw)
    assert caught.value.code == "bad_response"
    assert_no_secret(caught.value)
    assert caught.value.__cause__ is None


def test_deep_nesting_that_json_still_takes(ec_pair: Pair) -> None:
    deep: Any = "bottom"
    for _level in range(400):
        deep = {"down": deep}
    assert parse({**spartn(ec_pair), "deep": deep}).host == "pp.services.u-blox.com"


# ---- subscriptions ----


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (["/a", {"path": "/b"}], [("/a", None), ("/b", None)]),
        ("/a", [("/a", None)]),
        ({"path": "/a", "description": "d"}, [("/a", "d")]),
        ([{"path": "/a", "description": 5}], [("/a", None)]),
        ([{"path": "/a", "description": "a\x1bb"}], [("/a", None)]),
        ([], []),
        (None, []),
    ],
)
def test_subscriptions(ec_pair: Pair, value: Any, paths: list[tuple[str, str | None]]) -> None:
    found = parse(spartn(ec_pair, subscriptions=value)).subscriptions
    assert [(entry.path, entry.description) for entry in found] == paths


@pytest.mark.parametrize(
    "value", [[5], [{}], [{"path": ""}], [{"path": "/a\n/b"}], [{"description": "d"}], 5, True, [None]]
)
def test_subscriptions_that_are_none(ec_pair: Pair, value: Any) -> None:
    error = refused(spartn(ec_pair, subscriptions=value))
    assert (error.code, "subscriptions" in error.message) == ("bad_response", True)


# ---- dynamic keys ----


@pytest.mark.parametrize("form", [int, str, float])
def test_dynamic_keys_count_in_milliseconds(ec_pair: Pair, form: type) -> None:
    """18 leap seconds before midnight in UTC is midnight in GPS time; nothing is rounded to a day."""
    key = {"value": KEY_CURRENT, "start": form(1719791982000), "duration": form(2419199999)}
    if form is float:
        key["start"], key["duration"] = 1719791982000.0, 2419199999.0
    found = parse(spartn(ec_pair, dynamickeys={"current": key, "next": {}})).keys_current
    assert found is not None
    assert found.start.isoformat() == "2024-06-30T23:59:42+00:00"
    assert found.end.isoformat() == "2024-07-28T23:59:41.999000+00:00"


@pytest.mark.parametrize(
    ("keys", "expire_at"),
    [
        ({"current": dynamic_key("a", NOW, 28), "next": dynamic_key("b", NOW + 28 * DAY, 28)}, NOW + 56 * DAY),
        ({"current": dynamic_key("a", NOW, 28), "next": {}}, NOW + 28 * DAY),
        ({"current": dynamic_key("a", NOW, 28)}, NOW + 28 * DAY),
        ({"next": dynamic_key("b", NOW, 29)}, NOW + 29 * DAY),
        ({"current": {}, "next": {}}, None),
        (None, None),
    ],
)
def test_when_the_last_key_ends(ec_pair: Pair, keys: Any, expire_at: Any) -> None:
    found = parse(spartn(ec_pair, dynamickeys=keys)).keys_expire_at
    assert found == (expire_at - timedelta(milliseconds=1) if expire_at else None)


@pytest.mark.parametrize(
    "change",
    [
        {"value": None},
        {"value": ""},
        {"value": 5},
        {"value": "a\nb"},
        {"value": "x" * 1025},
        {"start": None},
        {"start": "soon"},
        {"start": 10**30},
        {"start": float("inf")},
        {"start": float("nan")},
        {"start": {"ms": 1}},
        {"duration": None},
        {"duration": 10**400},
        {"duration": 10**18},
        {"duration": [1]},
    ],
)
def test_a_dynamic_key_that_is_none(ec_pair: Pair, change: dict[str, Any]) -> None:
    key = changed(dynamic_key(KEY_NEXT, NOW), change)
    error = refused(spartn(ec_pair, dynamickeys={"next": key}))
    assert (error.code, "keys_next" in error.message) == ("bad_response", True)


@pytest.mark.parametrize("key", [KEY_CURRENT, 5, True, [KEY_CURRENT]])
def test_a_dynamic_key_of_another_shape(ec_pair: Pair, key: Any) -> None:
    error = refused(spartn(ec_pair, dynamickeys={"current": key}))
    assert (error.code, "keys_current" in error.message) == ("bad_response", True)


# ---- identity and secrecy ----


@pytest.mark.parametrize(
    "changes",
    [
        {"clientId": "another"},
        {"username": "another"},
        {"password": "another"},
    ],
)
def test_the_identity_changes_with_the_login(changes: dict[str, Any]) -> None:
    before = parse(cloudlocate(), "cloudlocate").identity_sha256
    assert parse(cloudlocate(**changes), "cloudlocate").identity_sha256 != before


@pytest.mark.parametrize("key", ["userName", "password", "mountPoint"])
def test_the_identity_changes_with_the_ntrip_login(key: str) -> None:
    assert parse(rtcm(**{key: "another"})).identity_sha256 != parse(rtcm()).identity_sha256


def test_the_identity_changes_with_the_certificate_and_not_with_what_else_arrives(
    ec_pair: Pair, other_pair: Pair
) -> None:
    before = parse(spartn(ec_pair)).identity_sha256
    assert parse(spartn(make_pair(ec_pair.key, not_after=NOW + DAY))).identity_sha256 != before
    assert parse(spartn(other_pair)).identity_sha256 != before
    news = {"dynamickeys": None, "subscriptions": None, "supportsLband": False, "brokerHost": "b.example.com"}
    assert parse(spartn(ec_pair, **news)).identity_sha256 == before


def test_nothing_shows_a_secret(any_pair: Pair) -> None:
    both = parse({**spartn(any_pair), **rtcm()})
    assert both.private_key is not None
    lines = tuple(line for line in both.private_key.splitlines() if len(line) == 64)
    assert lines
    assert_no_secret(both, both.keys_current, both.keys_next, [both], {"credentials": both}, also=lines)
    assert_no_secret(parse(cloudlocate(), "cloudlocate"))
    assert f"{both.keys_current}".startswith("DynamicKey(start=")


def test_the_certificate_is_the_one_of_the_response(rsa_pair: Pair) -> None:
    found = parse(spartn(rsa_pair))
    assert found.certificate is not None
    loaded = x509.load_pem_x509_certificate(found.certificate.encode())
    assert loaded == rsa_pair.leaf
    assert found.private_key is not None
    assert found.private_key.startswith("-----BEGIN RSA PRIVATE KEY-----\n")


def test_a_response_is_decoded_as_it_is(ec_pair: Pair) -> None:
    response = spartn(ec_pair)
    assert credentials.decode(encoded(response)) == response
    assert credentials.decode(b"\xef\xbb\xbf" + encoded(response)) == response
    assert credentials.decode(json.dumps(response, indent=2).replace("\n", "\r\n").encode()) == response


@pytest.mark.parametrize("name", RSA_NUMBERS)
def test_an_rsa_key_that_would_keep_the_controller_busy_is_refused_at_once(rsa_pair: Pair, name: str) -> None:
    begin = time.process_time()
    error = refused(spartn(rsa_pair, privateKey=rsa_pem(rsa_pair.key, **{name: 1 << 100_000 | 1})))
    assert (error.code, "private_key" in error.message) == ("bad_response", True)
    assert time.process_time() - begin < 2


def test_the_made_up_rsa_key_is_one_where_nothing_is_changed(rsa_pair: Pair) -> None:
    assert parse(spartn(rsa_pair, privateKey=rsa_pem(rsa_pair.key))).private_key == rsa_pair.private_key


@pytest.mark.parametrize("paths", [["/t" * 32_768], [f"/topic/{number}" for number in range(6_000)]], ids=len)
def test_topics_that_no_environment_holds_are_refused(ec_pair: Pair, paths: list[str]) -> None:
    error = refused(spartn(ec_pair, subscriptions=[{"path": path} for path in paths]))
    assert (error.code, "subscriptions" in error.message) == ("bad_response", True)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each way to write credentials down: exact content, quoting, modes, and what cannot be served."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    PUBLIC_FILES,
    Layout,
    check_formats,
    topics_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.render import Origin, render
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import File
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    KEY_CURRENT,
    KEY_NEXT,
    MQTT_PASSWORD,
    NOW,
    NTRIP_PASSWORD,
    Pair,
    assert_no_secret,
    cloudlocate,
    dynamic_key,
    encoded,
    parse,
    rtcm,
    spartn,
)
from cryptography import x509
from cryptography.hazmat.primitives import serialization

CURRENT = "/etc/thingstream/x/current"
THING = "11111111-2222-4333-8444-555555555555"
ORIGIN = Origin("ztp", NOW, "hw-1", "gw1")

HOSTILE = [
    "plain",
    'double"quote',
    "apostrophe's",
    "'\"'",
    "two words",
    " leading and trailing ",
    "#comment",
    "a#rtcm3",
    "&PASS&",
    "50%41",
    "%s",
    "a/b",
    "/",
    "a@b@",
    "a:b",
    "back\\slash",
    "end\\",
    "$HOME",
    "$(touch pwned)",
    "`touch pwned`",
    "{{ 7*7 }}",
    "[a]?*~!;|<>",
    "grüße",
]


def made(name: str, response: dict[str, Any], service: str = "pointperfect", ca: str = "the CA\n") -> dict[str, File]:
    """Return the files that one format makes of a response, with different modes for secret and public files."""
    layout = Layout("/etc/thingstream/x", secret_mode=0o400, broker_ca=ca)
    files, _record = render(parse(response, service), encoded(response), layout, [name], ORIGIN)
    return {name: file for name, file in files.items() if name not in ("credentials.json", "thing.json")}


def text(name: str, response: dict[str, Any], service: str = "pointperfect") -> str:
    """Return the content of the one file that a format makes."""
    (file,) = made(name, response, service).values()
    return file.content.decode()


def refused(name: str, response: dict[str, Any], service: str = "pointperfect") -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        made(name, response, service)
    assert caught.value.code == "bad_option"
    assert_no_secret(caught.value)
    return caught.value


# ---- names, modes, deliveries ----

PAIR = {"client.crt": 0o644, "client.key": 0o400, "client.pem": 0o400, "ca.crt": 0o644}
PORTAL = {f"device-{THING}-pp-cert.crt": 0o400, f"device-{THING}-pp-key.pem": 0o400}


@pytest.mark.parametrize(
    ("name", "shape", "modes"),
    [
        ("pem", "spartn", PAIR),
        ("pem", "cloudlocate", {"ca.crt": 0o644}),
        ("pem", "rtcm", None),
        ("env", "spartn", {"credentials.env": 0o400}),
        ("env", "cloudlocate", {"credentials.env": 0o400}),
        ("env", "rtcm", {"credentials.env": 0o400}),
        ("env-plain", "spartn", {"credentials.plain.env": 0o400}),
        ("env-plain", "cloudlocate", {"credentials.plain.env": 0o400}),
        ("env-plain", "rtcm", {"credentials.plain.env": 0o400}),
        ("mosquitto", "spartn", {**PAIR, "mosquitto.conf": 0o400}),
        ("mosquitto", "cloudlocate", {"ca.crt": 0o644, "mosquitto.conf": 0o400}),
        ("mosquitto", "plain", {"mosquitto.conf": 0o400}),
        ("mosquitto", "rtcm", None),
        ("topics", "spartn", {"topics.txt": 0o644}),
        ("topics", "cloudlocate", None),
        ("topics", "rtcm", None),
        ("ucenter", "spartn", {"ucenter-config.json": 0o400}),
        ("ucenter", "cloudlocate", None),
        ("ucenter", "rtcm", None),
        ("pygnssutils", "spartn", {**PORTAL, "pygnssutils.env": 0o400}),
        ("pygnssutils", "both", {**PORTAL, "pygnssutils.env": 0o400}),
        ("pygnssutils", "rtcm", {"pygnssutils.env": 0o400}),
        ("pygnssutils", "cloudlocate", None),
        ("gpsd", "rtcm", {"gpsd.url": 0o400}),
        ("gpsd", "both", {"gpsd.url": 0o400}),
        ("gpsd", "spartn", None),
        ("gpsd", "cloudlocate", None),
        ("str2str", "rtcm", {"str2str.args": 0o400}),
        ("str2str", "both", {"str2str.args": 0o400}),
        ("str2str", "spartn", None),
        ("str2str", "cloudlocate", None),
    ],
)
def test_files_and_modes(ec_pair: Pair, name: str, shape: str, modes: dict[str, int] | None) -> None:
    """Every format with every kind of credentials; ``None`` is refused, with the name of the format."""
    shapes = {
        "spartn": spartn(ec_pair),
        "rtcm": rtcm(),
        "both": {**spartn(ec_pair), **rtcm()},
        "cloudlocate": cloudlocate(port=8883),
        "plain": cloudlocate(port=1883),
    }
    service = "cloudlocate" if shape in ("cloudlocate", "plain") else "pointperfect"
    if modes is None:
        assert f"The format {name} " in refused(name, shapes[shape], service).message
    else:
        found = made(name, shapes[shape], service)
        assert {file: found[file].mode for file in found} == modes
        assert {file for file, mode in modes.items() if mode == 0o644} <= set(PUBLIC_FILES)


@pytest.mark.parametrize(
    ("formats", "deliveries", "wrong"),
    [
        (None, ("ntrip",), None),
        ((), ("ntrip",), None),
        (("env", "pygnssutils"), ("ntrip",), None),
        (("gpsd", "str2str"), ("mqtt", "ntrip"), None),
        (("pem", "mosquitto", "topics", "ucenter", "pygnssutils", "env"), ("lband",), None),
        (("env", "pem"), ("ntrip",), "pem"),
        (("mosquitto",), ("ntrip",), "mosquitto"),
        (("topics",), ("ntrip",), "topics"),
        (("ucenter",), ("ntrip",), "ucenter"),
        (("gpsd",), ("mqtt", "lband"), "gpsd"),
        (("str2str",), ("mqtt",), "str2str"),
    ],
)
def test_what_no_delivery_serves_is_known_before_a_request(
    formats: tuple[str, ...] | None, deliveries: tuple[str, ...], wrong: str | None
) -> None:
    if wrong is None:
        check_formats(formats, deliveries)
        return
    with pytest.raises(ProvisioningError) as caught:
        check_formats(formats, deliveries)
    assert caught.value.code == "bad_option"
    assert caught.value.message.startswith(f"The format {wrong} needs ")


def test_what_serves_credentials_needs_one_of_their_deliveries(ec_pair: Pair) -> None:
    """The early check refuses nothing that would be served."""
    for response, service in (
        (spartn(ec_pair), "pointperfect"),
        (rtcm(), "pointperfect"),
        ({**spartn(ec_pair), **rtcm()}, "pointperfect"),
        (cloudlocate(), "cloudlocate"),
    ):
        credentials = parse(response, service)
        for name, one in FORMATS.items():
            if one.serves(credentials):
                check_formats([name], credentials.delivery)
    assert set(DEFAULT_FORMATS) < set(FORMATS)


# ---- mosquitto, topics ----


def test_mosquitto_with_a_certificate(ec_pair: Pair) -> None:
    assert made("mosquitto", spartn(ec_pair))["mosquitto.conf"].content.decode().splitlines() == [
        "connection thingstream-pointperfect",
        "address pp.services.u-blox.com:8883",
        f"remote_clientid {THING}",
        "bridge_protocol_version mqttv311",
        "cleansession true",
        "keepalive_interval 60",
        "notifications_local_only true",
        "notification_topic $SYS/broker/connection/thingstream-pointperfect/state",
        "try_private false",
        f"bridge_cafile {CURRENT}/ca.crt",
        f"bridge_certfile {CURRENT}/client.crt",
        f"bridge_keyfile {CURRENT}/client.key",
        "topic /pp/ubx/0236/Lb in 1",
        "topic /pp/Lb/eu in 0",
        "topic /pp/Lb/eu/gad in 0",
        "topic /pp/Lb/eu/hpac in 0",
        "topic /pp/Lb/eu/ocb in 0",
    ]


@pytest.mark.parametrize("port", [1883, 8883, 2883])
def test_mosquitto_with_a_password(port: int) -> None:
    """TLS on every port but the one of plain MQTT; the topics of CloudLocate where none are named."""
    client = "device:11111111-2222-4333-8444-666666666666"
    lines = made("mosquitto", cloudlocate(port=port), "cloudlocate")["mosquitto.conf"].content.decode().splitlines()
    assert lines[:3] == [
        "connection thingstream-cloudlocate",
        f"address mqtt.thingstream.io:{port}",
        f"remote_clientid {client}",
    ]
    assert lines[-4:] == [
        "remote_username ABCDEFGHIJKLMNOPQRST",
        f"remote_password {MQTT_PASSWORD}",
        "topic CloudLocate/GNSS/request out 0",
        f"topic CloudLocate/{client}/GNSS/response in 0",
    ]
    assert [line for line in lines if line.startswith("bridge_c")] == (
        [] if port == 1883 else [f"bridge_cafile {CURRENT}/ca.crt"]
    )


@pytest.mark.parametrize("password", HOSTILE)
def test_mosquitto_takes_a_value_up_to_the_end_of_its_line(password: str) -> None:
    """Spaces at an end get lost there; everything else is kept (shown by the program in the integration tests)."""
    for name in ("username", "password"):
        response = cloudlocate(**{name: password})
        if password != password.strip():
            refused("mosquitto", response, "cloudlocate")
        else:
            content = made("mosquitto", response, "cloudlocate")["mosquitto.conf"].content.decode()
            assert f"\nremote_{name} {password}\n" in content


def test_mosquitto_refuses_a_topic_with_a_space(ec_pair: Pair) -> None:
    refused("mosquitto", spartn(ec_pair, subscriptions=[{"path": "/pp/x in 0"}]))
    assert text("topics", spartn(ec_pair, subscriptions=[{"path": "/pp/x in 0"}])) == "/pp/x in 0\n"


def test_mosquitto_writes_ipv6_without_brackets(ec_pair: Pair) -> None:
    content = made("mosquitto", spartn(ec_pair, brokerHost="ssl://[2001:db8::7]:8884"))["mosquitto.conf"].content
    assert b"\naddress 2001:db8::7:8884\n" in content


@pytest.mark.parametrize(("path", "topics"), [(";", []), ("a;;b;", ["a", "b"])])
def test_an_empty_topic_is_none(ec_pair: Pair, path: str, topics: list[str]) -> None:
    assert topics_of(parse(spartn(ec_pair, subscriptions=[{"path": path}]))) == topics


def test_topics_are_each_there_once(ec_pair: Pair) -> None:
    more = [{"path": "/a;/b"}, {"path": "/b"}, {"path": "/c/#"}]
    assert text("topics", spartn(ec_pair, subscriptions=more)) == "/a\n/b\n/c/#\n"


# ---- u-center ----


def unframed(body: str, frame: str) -> bytes:
    """Put the frame back around a body, as a reader does."""
    return f"-----BEGIN {frame}-----\n{body}\n-----END {frame}-----\n".encode()


def test_the_structure_of_the_u_center_file(rsa_pair: Pair, other_pair: Pair) -> None:
    """No public tool of the vendor reads it here; the keys are those that public client code reads."""
    response = spartn(
        rsa_pair,
        subscriptions=[
            {"path": "/pp/ubx/0236/ip"},
            {"path": "/pp/ubx/mga"},
            {"path": "/pp/ip/eu"},
            {"path": "/pp/ip/eu/gad;/pp/ip/eu/hpac"},
            {"path": "/pp/frequencies/Lb"},
        ],
    )
    (file,) = made("ucenter", response, ca=other_pair.certificate).values()
    document = json.loads(file.content)
    login = document["MQTT"]["Connectivity"].pop("ClientCredentials")
    assert document == {
        "MQTT": {
            "Connectivity": {
                "ClientID": THING,
                "ServerURI": "ssl://pp.services.u-blox.com:8883",
                "KeepAliveInterval": 60,
                "SSL": {"Protocol": "TLSv1.2"},
            },
            "Subscriptions": {
                "Key": {"KeyTopics": ["/pp/ubx/0236/ip"], "QoS": 1},
                "AssistNow": {"AssistNowTopics": ["/pp/ubx/mga"]},
                "Data": {
                    "DataTopics": ["/pp/ip/eu", "/pp/ip/eu/gad;/pp/ip/eu/hpac", "/pp/frequencies/Lb"],
                    "QoS": 0,
                },
            },
            "dynamickeys": response["dynamickeys"],
        }
    }
    assert sorted(login) == ["Cert", "Key", "RootCA"]
    for body in login.values():
        assert "-----" not in body
        assert "\n" not in body
        base64.b64decode(body, validate=True)
    assert x509.load_pem_x509_certificate(unframed(login["Cert"], "CERTIFICATE")) == rsa_pair.leaf
    assert x509.load_pem_x509_certificate(unframed(login["RootCA"], "CERTIFICATE")) == other_pair.leaf
    key = serialization.load_pem_private_key(unframed(login["Key"], "RSA PRIVATE KEY"), None)
    assert key.public_key() == rsa_pair.key.public_key()


@pytest.mark.parametrize("start", [1, 1_700_000_000_001, 1_763_769_581_999, 1_795_305_581_333, 253_402_300_799_000])
@pytest.mark.parametrize("duration", [1, 2_419_199_999, 2_419_200_000, 31_535_999_997])
def test_dynamic_keys_keep_their_milliseconds(ec_pair: Pair, start: int, duration: int) -> None:
    if start + duration > 253_402_300_799_999:  # the year 10000
        return
    key = {"value": KEY_CURRENT, "start": start, "duration": duration}
    keys = {"current": key, "next": dynamic_key(KEY_NEXT, NOW + DAY)}
    assert json.loads(text("ucenter", spartn(ec_pair, dynamickeys=keys)))["MQTT"]["dynamickeys"] == keys


def test_a_missing_dynamic_key_is_empty(ec_pair: Pair) -> None:
    keys = {"current": dynamic_key(KEY_CURRENT, NOW)}
    document = json.loads(text("ucenter", spartn(ec_pair, dynamickeys=keys)))
    assert document["MQTT"]["dynamickeys"] == {**keys, "next": {}}


def test_the_leaf_of_a_chain_comes_first(ec_pair: Pair, other_pair: Pair) -> None:
    chain = ec_pair.certificate + other_pair.certificate
    document = json.loads(text("ucenter", spartn(ec_pair, certificate=chain)))
    body = document["MQTT"]["Connectivity"]["ClientCredentials"]["Cert"]
    assert x509.load_pem_x509_certificate(unframed(body, "CERTIFICATE")) == ec_pair.leaf


# ---- pygnssutils ----


def test_pygnssutils_with_everything(ec_pair: Pair) -> None:
    found = made("pygnssutils", {**spartn(ec_pair), **rtcm()})
    assert found[f"device-{THING}-pp-cert.crt"].content.decode() == ec_pair.certificate
    assert found[f"device-{THING}-pp-key.pem"].content.decode() == ec_pair.private_key
    assert found["pygnssutils.env"].content.decode().splitlines() == [
        'PYGPSCLIENT_USER="abcdefghijkl"',
        'PYGPSCLIENT_PASSWORD="' + NTRIP_PASSWORD.replace("$", "\\$") + '"',
        f'MQTTCLIENTID="{THING}"',
        f'MQTTCRT="{CURRENT}/device-{THING}-pp-cert.crt"',
        f'MQTTPEM="{CURRENT}/device-{THING}-pp-key.pem"',
        f'MQTTKEY="{KEY_CURRENT}"',
    ]


def test_pygnssutils_without_keys(ec_pair: Pair) -> None:
    content = made("pygnssutils", spartn(ec_pair, dynamickeys=None))["pygnssutils.env"].content.decode()
    assert [line.partition("=")[0] for line in content.splitlines()] == ["MQTTCLIENTID", "MQTTCRT", "MQTTPEM"]


@pytest.mark.parametrize("client", ["device:11111111-2222", "a@b", "x" * 100])
def test_a_client_id_that_cannot_be_a_file_name(ec_pair: Pair, client: str) -> None:
    assert "file name" in refused("pygnssutils", spartn(ec_pair, clientId=client)).message
    assert made("mosquitto", spartn(ec_pair, clientId=client)), "elsewhere it is no file name"


@pytest.mark.parametrize("password", HOSTILE)
def test_no_password_breaks_out_of_the_environment(password: str) -> None:
    content = text("pygnssutils", rtcm(password=password))
    shell = subprocess.run(
        ["/bin/sh", "-euc", f'{content}\nprintf "%s" "$PYGPSCLIENT_PASSWORD"'], capture_output=True, check=True
    )
    assert (shell.stdout.decode(), shell.stderr) == (password, b"")


# ---- the environment without quotes ----


@pytest.mark.parametrize("password", HOSTILE)
def test_a_plain_environment_holds_every_value_as_it_is(password: str) -> None:
    """Blanks at an end are refused; the error names the field and the remedy, and not the value."""
    if password == password.strip():
        assert f"\nTHINGSTREAM_NTRIP_PASSWORD={password}\n" in text("env-plain", rtcm(password=password))
    else:
        message = refused("env-plain", rtcm(password=password)).message
        assert message == (
            "The format env-plain cannot hold ntrip_password, which begins or ends with a blank or has a line break: "
            "take env-plain out of formats, and mount credentials.env of the format env."
        )


def test_both_environments_have_the_same_variables(ec_pair: Pair) -> None:
    response = {**spartn(ec_pair), **rtcm()}
    quoted, plain = text("env", response).splitlines(), text("env-plain", response).splitlines()
    assert [shlex.split(line.replace("\\$", "$")) for line in quoted] == [[line] for line in plain]


# ---- NTRIP URLs ----


def url(**changes: Any) -> str:
    """Return the URL of gpsd, after checking that str2str has the same one."""
    words = shlex.split(text("str2str", rtcm(**changes)))
    found = text("gpsd", rtcm(**changes))
    assert words == ["-in", found.removesuffix("\n")]
    return words[1]


@pytest.mark.parametrize("password", HOSTILE)
def test_a_password_is_in_the_url_as_it_is(password: str) -> None:
    """No program decodes it (shown by the programs in the integration tests)."""
    assert url(password=password) == f"ntrip://abcdefghijkl:{password}@ppntrip.services.u-blox.com:2101/NEAR-RTCM"


@pytest.mark.parametrize("password", HOSTILE)
def test_a_shell_and_xargs_read_the_same_arguments(password: str) -> None:
    line = text("str2str", rtcm(password=password))
    expected = f"-in\0ntrip://abcdefghijkl:{password}@ppntrip.services.u-blox.com:2101/NEAR-RTCM\0".encode()
    for command in (["sh", "-c", f"printf '%s\\0' {line}"], ["xargs", "printf", "%s\\0"]):
        assert subprocess.run(command, input=line.encode(), capture_output=True, check=True).stdout == expected


@pytest.mark.parametrize(
    ("changes", "gpsd", "str2str"),
    [
        ({"userName": "a:b"}, False, False),
        ({"mountPoint": "A/B"}, False, False),
        ({"mountPoint": "A:B"}, False, False),
        ({"mountPoint": "A@B"}, False, False),
        ({"endpoint": "2001:db8::7"}, None, None),
        ({"endpoint": "[2001:db8::7]:2102"}, True, False),
        ({"userName": "u", "password": "x" * 43}, True, True),
        ({"userName": "u", "password": "x" * 44}, False, True),
        ({"userName": "u", "password": "ü" * 22}, False, True),
        ({"userName": "u", "password": "x" * 253}, False, True),
        ({"userName": "u", "password": "x" * 254}, False, False),
        ({"userName": "a@b", "password": "c@d:e/f"}, True, True),
    ],
)
def test_what_an_ntrip_url_cannot_hold(changes: dict[str, str], gpsd: bool | None, str2str: bool | None) -> None:
    for name, fits in (("gpsd", gpsd), ("str2str", str2str)):
        if fits is None:
            with pytest.raises(ProvisioningError, match="ntrip_host"):
                made(name, rtcm(**changes))
        elif fits:
            assert made(name, rtcm(**changes))
        else:
            refused(name, rtcm(**changes))


def test_ipv6_is_in_brackets() -> None:
    assert "@[2001:db8::7]:2102/" in text("gpsd", rtcm(endpoint="[2001:db8::7]:2102"))


def test_a_login_by_certificate_uses_tls_whatever_the_port(ec_pair: Pair) -> None:
    files = made("mosquitto", spartn(ec_pair, brokerPort=1883))
    assert b"bridge_cafile" in files["mosquitto.conf"].content

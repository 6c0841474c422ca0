# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a bundle: their content, their modes, and what the record says of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests.utils
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render as bundle
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import timestamp
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import FormerThing
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import RECORD_VERSION, Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.render import Origin, Templates
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import File
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.plan import plan
from ansible_collections.thingstream.ztp.tests.unit.observations import desired, observed, platform
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    KEY_CURRENT,
    KEY_NEXT,
    MQTT_PASSWORD,
    NOW,
    NTRIP_PASSWORD,
    SECRETS,
    Pair,
    assert_no_secret,
    cloudlocate,
    encoded,
    parse,
    rtcm,
    spartn,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes

LAYOUT = Layout("/etc/thingstream/x", secret_mode=0o640, broker_ca="the CA\n")
ORIGIN = Origin("ztp", NOW, "hw-1", "gw1")


def render(
    response: dict[str, Any],
    service: str = "pointperfect",
    formats: tuple[str, ...] | None = None,
    origin: Origin = ORIGIN,
    layout: Layout = LAYOUT,
) -> tuple[dict[str, File], Record]:
    return bundle.render(parse(response, service), encoded(response), layout, formats, origin)


# ---- files and modes ----

COMMON = {"credentials.json": 0o600, "thing.json": 0o640}
PAIR = {"client.crt": 0o644, "client.key": 0o640, "client.pem": 0o640, "ca.crt": 0o644}


@pytest.mark.parametrize(
    ("shape", "formats", "modes"),
    [
        ("spartn", None, {**COMMON, **PAIR, "credentials.env": 0o640}),
        ("spartn", ("pem",), {**COMMON, **PAIR}),
        ("spartn", ("env",), {**COMMON, "credentials.env": 0o640}),
        ("spartn", (), COMMON),
        ("rtcm", None, {**COMMON, "credentials.env": 0o640}),
        ("cloudlocate", None, {**COMMON, "ca.crt": 0o644, "credentials.env": 0o640}),
        ("cloudlocate", ("pem",), {**COMMON, "ca.crt": 0o644}),
    ],
)
def test_files_and_modes(ec_pair: Pair, shape: str, formats: tuple[str, ...] | None, modes: Mapping[str, int]) -> None:
    response = {"spartn": spartn(ec_pair), "rtcm": rtcm(), "cloudlocate": cloudlocate()}[shape]
    files, record = render(response, "cloudlocate" if shape == "cloudlocate" else "pointperfect", formats)
    assert {name: file.mode for name, file in files.items()} == modes
    assert bundle.file_modes(record, LAYOUT.secret_mode) == modes


def test_modes_follow_the_layout_and_the_response_stays_private(ec_pair: Pair) -> None:
    strict_layout = Layout("/x/y", secret_mode=0o400, broker_ca="")
    files, record = render(spartn(ec_pair), layout=strict_layout)
    modes = {name: file.mode for name, file in files.items()}
    assert modes == {
        "credentials.json": 0o600,
        "thing.json": 0o640,
        "client.crt": 0o644,
        "ca.crt": 0o644,
        "client.key": 0o400,
        "client.pem": 0o400,
        "credentials.env": 0o400,
    }
    assert bundle.file_modes(record, 0o400) == modes


def test_the_pair_apart_and_in_one_file(any_pair: Pair) -> None:
    files, _record = render(spartn(any_pair))
    assert files["client.crt"].content.decode() == any_pair.certificate
    assert files["client.key"].content.decode() == any_pair.private_key
    assert files["client.pem"].content.decode() == any_pair.certificate + any_pair.private_key
    assert files["ca.crt"].content == b"the CA\n"


def test_the_raw_response_is_kept_byte_by_byte() -> None:
    raw = b'{ "rtcmCredentials" :' + encoded(rtcm()["rtcmCredentials"]) + b"\r\n}\n\n"
    files, record = bundle.render(parse(rtcm()), raw, LAYOUT, None, ORIGIN)
    assert files["credentials.json"].content == raw
    assert record.files["credentials.json"] == hashlib.sha256(raw).hexdigest()


def test_no_public_file_holds_a_secret(rsa_pair: Pair) -> None:
    files, _record = render({**spartn(rsa_pair), **rtcm()})
    for name, file in files.items():
        held = [secret for secret in (*SECRETS, rsa_pair.secret_line) if secret.encode() in file.content]
        assert not (held and file.mode & 0o004), name


# ---- the record ----


def test_the_record_of_a_pair(rsa_pair: Pair) -> None:
    files, record = render(spartn(rsa_pair))
    assert Record.parse(files["thing.json"].content.decode()) == record
    assert json.loads(files["thing.json"].content) == {
        "record_version": RECORD_VERSION,
        "service": "pointperfect",
        "delivery": ["mqtt", "lband"],
        "hardware_id": "hw-1",
        "given_name": "gw1",
        "client_id": "11111111-2222-4333-8444-555555555555",
        "login_sha256": None,
        "host": "pp.services.u-blox.com",
        "port": 8883,
        "ntrip_host": None,
        "ntrip_port": None,
        "ntrip_mountpoint": None,
        "issued_at": "2026-11-22T12:00:00Z",
        "not_before": timestamp(NOW - 10 * DAY),
        "not_after": timestamp(NOW + 365 * DAY),
        "fingerprint_sha256": rsa_pair.leaf.fingerprint(hashes.SHA256()).hex(),
        "identity_sha256": parse(spartn(rsa_pair)).identity_sha256,
        "keys_expire_at": "2027-01-12T11:59:59Z",
        "formats": None,
        "templates_sha256": None,
        "modes": {},
        "origin": "ztp",
        "files": {
            name: hashlib.sha256(file.content).hexdigest() for name, file in files.items() if name != "thing.json"
        },
        "retired": [],
    }


@pytest.mark.parametrize(
    ("response", "service", "values"),
    [
        (
            rtcm(),
            "pointperfect",
            {"delivery": ["ntrip"], "ntrip_host": "ppntrip.services.u-blox.com", "ntrip_port": 2101,
             "ntrip_mountpoint": "NEAR-RTCM", "client_id": None, "host": None, "port": None, "not_before": None,
             "not_after": None, "fingerprint_sha256": None, "keys_expire_at": None},
        ),
        (
            cloudlocate(),
            "cloudlocate",
            {"delivery": ["mqtt"], "client_id": "device:11111111-2222-4333-8444-666666666666",
             "host": "mqtt.thingstream.io", "port": 8883, "ntrip_host": None, "ntrip_port": None,
             "ntrip_mountpoint": None, "not_before": None, "not_after": None, "fingerprint_sha256": None,
             "keys_expire_at": None},
        ),
    ],
    ids=["rtcm", "cloudlocate"],
)  # fmt: skip
def test_what_a_service_does_not_have_is_null(response: dict[str, Any], service: str, values: dict[str, Any]) -> None:
    _files, record = render(response, service)
    content = record.to_dict()
    assert {name: content[name] for name in values} == values
    assert content["login_sha256"] == parse(response, service).login_sha256


def test_the_record_holds_no_secret_in_any_form(rsa_pair: Pair) -> None:
    for response, service in (({**spartn(rsa_pair), **rtcm()}, "pointperfect"), (cloudlocate(), "cloudlocate")):
        files, record = render(response, service)
        assert_no_secret(record, files, files["thing.json"].content.decode(), also=(rsa_pair.secret_line,))
        digests = [hashlib.sha256(secret.encode()).hexdigest() for secret in SECRETS]
        assert not [digest for digest in digests if digest in repr(record)], "a digest of a password can be searched"


def test_the_record_is_ascii_whatever_the_names_are() -> None:
    origin = replace(ORIGIN, hardware_id="Gerät 7 \x1b", given_name="ü" * 50)
    files, record = render(rtcm(), origin=origin)
    assert files["thing.json"].content.isascii()
    assert json.loads(files["thing.json"].content)["hardware_id"] == record.hardware_id == "Gerät 7 \x1b"


def test_the_formats_of_the_record_are_those_that_were_asked_for(ec_pair: Pair) -> None:
    assert render(spartn(ec_pair))[1].formats is None
    assert render(spartn(ec_pair), formats=("pem", "env"))[1].formats == ("env", "pem")
    assert render(spartn(ec_pair), formats=())[1].formats == ()


def test_rendering_the_same_again_gives_the_same_bytes(ec_pair: Pair) -> None:
    once, again = render(spartn(ec_pair)), render(spartn(ec_pair))
    assert {name: file.content for name, file in once[0].items()} == {
        name: file.content for name, file in again[0].items()
    }


def test_the_record_has_the_origin(rsa_pair: Pair) -> None:
    """Dates to the second, and the Things formerly in use."""
    retired = (FormerThing(ThingId("device:1"), "pointperfect", "hw-1", "gw1", NOW - DAY),)
    origin = Origin("ucenter", NOW.replace(microsecond=999_999), None, None, retired)
    files, record = render(spartn(rsa_pair), origin=origin)
    assert (record.origin, record.issued_at, record.hardware_id, record.given_name) == ("ucenter", NOW, None, None)
    assert record.retired == retired
    assert Record.parse(files["thing.json"].content.decode()) == record


@pytest.mark.parametrize(
    ("shape", "client_id", "user"),
    [("spartn", True, None), ("rtcm", False, "abcdefghijkl"), ("both", True, "abcdefghijkl"),
     ("cloudlocate", True, "ABCDEFGHIJKLMNOPQRST")],
)  # fmt: skip
def test_the_identity_of_the_thing(ec_pair: Pair, shape: str, client_id: bool, user: str | None) -> None:
    """A client ID, or a fingerprint of the user name, which the password does not change."""
    shapes = {"spartn": spartn(ec_pair), "rtcm": rtcm(), "cloudlocate": cloudlocate()}
    shapes["both"] = {**spartn(ec_pair), **rtcm()}
    service = "cloudlocate" if shape == "cloudlocate" else "pointperfect"
    thing_id = render(shapes[shape], service)[1].thing_id
    assert (thing_id.client_id is not None) is client_id
    assert thing_id.login_sha256 == (hashlib.sha256(f"login {user}".encode()).hexdigest() if user else None)
    assert bundle.thing_id_of(parse(shapes[shape], service)) == thing_id
    if shape == "rtcm":
        assert render(rtcm(password="another"))[1].thing_id == thing_id
        assert render(rtcm(userName="another"))[1].thing_id != thing_id


def test_the_next_run_finds_a_fresh_record_in_order(ec_pair: Pair) -> None:
    _files, record = render(spartn(ec_pair))
    want = desired(broker_ca_sha256=bundle.digest(b"the CA\n"))
    assert plan(want, platform(), observed(record), NOW).reason == "none"


# ---- templates ----


def rendered(content: Mapping[str, bytes]) -> tuple[Templates, list[tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    """Return templates that make these files, and the list of the arguments that they receive."""
    given: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []

    def make(record: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, bytes]:
        given.append((record, fields))
        return content

    return Templates("t" * 64, dict.fromkeys(content, 0o600), make), given


def test_files_of_templates() -> None:
    templates, given = rendered({"own.conf": b"own"})
    files, record = bundle.render(parse(rtcm()), b"{}", LAYOUT, ("env",), ORIGIN, templates)
    assert (files["own.conf"].content, files["own.conf"].mode) == (b"own", 0o600)
    assert record.files["own.conf"] == bundle.digest(b"own")
    assert (record.templates_sha256, record.modes) == ("t" * 64, {"own.conf": 0o600})
    assert bundle.file_modes(record, LAYOUT.secret_mode)["own.conf"] == 0o600
    ((known, fields),) = given
    assert sorted(known["files"]) == ["credentials.env", "credentials.json"]
    assert (known["service"], fields["ntrip_password"]) == ("pointperfect", NTRIP_PASSWORD)


@pytest.mark.parametrize("name", ["credentials.json", "credentials.env", "thing.json"])
def test_a_template_replaces_no_file_of_the_bundle(name: str) -> None:
    templates, _given = rendered({name: b"own"})
    with pytest.raises(ProvisioningError) as caught:
        bundle.render(parse(rtcm()), b"{}", LAYOUT, ("env",), ORIGIN, templates)
    assert (caught.value.code, name in caught.value.message) == ("bad_option", True)


# ---- formats that cannot be served ----


@pytest.mark.parametrize(
    ("response", "service", "formats", "named"),
    [
        (rtcm(), "pointperfect", ("pem",), ("pem", "ntrip")),
        (rtcm(), "pointperfect", ("env", "pem"), ("pem", "ntrip")),
        (rtcm(), "pointperfect-live", ("pem",), ("pem", "ntrip")),
    ],
)
def test_a_format_that_cannot_be_served(
    response: dict[str, Any], service: str, formats: tuple[str, ...], named: tuple[str, ...]
) -> None:
    with pytest.raises(ProvisioningError) as caught:
        render(response, service, formats)
    assert caught.value.code == "bad_option"
    assert all(word in caught.value.message for word in named)
    assert_no_secret(caught.value)


def test_a_plan_that_delivers_nothing_has_no_env_file(ec_pair: Pair) -> None:
    nothing = spartn(ec_pair, supportsMqtt=False, supportsLband=False)
    assert "credentials.env" not in render(nothing)[0]
    with pytest.raises(ProvisioningError) as caught:
        render(nothing, formats=("env",))
    assert (caught.value.code, "none" in caught.value.message) == ("bad_option", True)


# ---- the CA of the broker ----


def test_the_broker_ca_comes_out_of_the_bundle_of_requests() -> None:
    found = bundle.broker_ca(Path(requests.utils.DEFAULT_CA_BUNDLE_PATH).read_text(encoding="utf-8"))
    certificates = x509.load_pem_x509_certificates(found.encode())
    assert len(certificates) == 1
    assert certificates[0].subject.rfc4514_string() == "CN=Amazon Root CA 1,O=Amazon,C=US"
    fingerprint = "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e"
    assert certificates[0].fingerprint(hashes.SHA256()).hex() == fingerprint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_bundle_without_the_broker_ca(text: str, ec_pair: Pair) -> None:
    for before in ("", ec_pair.certificate):
        with pytest.raises(ProvisioningError) as caught:
            bundle.broker_ca(before + text)
        assert (caught.value.code, "broker_ca_path" in caught.value.message) == ("bad_option", True)


def test_a_broken_certificate_does_not_hide_the_broker_ca() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"
    whole = Path(requests.utils.DEFAULT_CA_BUNDLE_PATH).read_text(encoding="utf-8")
    assert bundle.broker_ca(broken + whole) == bundle.broker_ca(whole)


# ---- the env file ----


def sourced(path: Path) -> dict[str, str]:
    """Return the variables that a real shell reads from an env file."""
    script = 'set -eu; . "$1"; set | grep -a ^THINGSTREAM_ >/dev/null; for n in $(sed "s/=.*//" "$1"); do '
    script += 'eval "v=\\$$n"; printf "%s\\0%s\\0" "$n" "$v"; done'
    done = subprocess.run(["/bin/sh", "-c", script, "sh", str(path)], capture_output=True, check=True, cwd=path.parent)
    assert done.stderr == b""
    words = done.stdout.decode().split("\0")[:-1]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_env_file_of_everything(tmp_path: Path, ec_pair: Pair) -> None:
    files, _record = render({**spartn(ec_pair), **rtcm(httpsPort="2102")})
    (tmp_path / "credentials.env").write_bytes(files["credentials.env"].content)
    assert sourced(tmp_path / "credentials.env") == {
        "THINGSTREAM_SERVICE": "pointperfect",
        "THINGSTREAM_CLIENT_ID": "11111111-2222-4333-8444-555555555555",
        "THINGSTREAM_HOST": "pp.services.u-blox.com",
        "THINGSTREAM_PORT": "8883",
        "THINGSTREAM_CERTIFICATE": "/etc/thingstream/x/current/client.crt",
        "THINGSTREAM_PRIVATE_KEY": "/etc/thingstream/x/current/client.key",
        "THINGSTREAM_CA": "/etc/thingstream/x/current/ca.crt",
        "THINGSTREAM_TOPICS": "/pp/ubx/0236/Lb /pp/Lb/eu /pp/Lb/eu/gad /pp/Lb/eu/hpac /pp/Lb/eu/ocb",
        "THINGSTREAM_KEY_CURRENT": KEY_CURRENT,
        "THINGSTREAM_KEY_NEXT": KEY_NEXT,
        "THINGSTREAM_NTRIP_HOST": "ppntrip.services.u-blox.com",
        "THINGSTREAM_NTRIP_PORT": "2101",
        "THINGSTREAM_NTRIP_TLS_PORT": "2102",
        "THINGSTREAM_NTRIP_MOUNTPOINT": "NEAR-RTCM",
        "THINGSTREAM_NTRIP_USERNAME": "abcdefghijkl",
        "THINGSTREAM_NTRIP_PASSWORD": NTRIP_PASSWORD,
    }


def test_the_env_file_names_only_what_is_there(tmp_path: Path) -> None:
    files, _record = render(rtcm())
    (tmp_path / "credentials.env").write_bytes(files["credentials.env"].content)
    names = set(sourced(tmp_path / "credentials.env"))
    assert names == {f"THINGSTREAM_{name}" for name in ("SERVICE", "NTRIP_HOST", "NTRIP_PORT", "NTRIP_MOUNTPOINT",
                                                        "NTRIP_USERNAME", "NTRIP_PASSWORD")}  # fmt: skip
    files, _record = render(cloudlocate(), "cloudlocate")
    (tmp_path / "credentials.env").write_bytes(files["credentials.env"].content)
    assert sourced(tmp_path / "credentials.env")["THINGSTREAM_PASSWORD"] == MQTT_PASSWORD


@pytest.mark.parametrize(
    "password",
    [
        "plain",
        'double"quote',
        "single'quote",
        '"',
        "'",
        "\\",
        "\\\\",
        "end\\",
        '\\"',
        "$HOME",
        "${HOME}",
        "$(touch pwned)",
        "`touch pwned`",
        "a\\$b",
        "a\\`b",
        " leading and trailing ",
        "a & b; touch pwned | c > pwned",
        "# comment",
        "a#b",
        "!history",
        "%s%n",
        "*?[a-z]",
        "~",
        "a=b",
        "grüße-日本-🔑",
        "\\n\\t\\0",
        "{{ jinja }}",
    ],
)
def test_no_password_can_break_out_of_the_env_file(tmp_path: Path, password: str) -> None:
    files, _record = render(rtcm(password=password))
    path = tmp_path / "credentials.env"
    path.write_bytes(files["credentials.env"].content)
    assert sourced(path)["THINGSTREAM_NTRIP_PASSWORD"] == password
    assert [entry.name for entry in tmp_path.iterdir()] == ["credentials.env"]
    assert all(line.endswith(b'"') for line in files["credentials.env"].content.splitlines())

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hostile response becomes checked credentials or an error that says what is wrong, and nothing else.

The credentials reach every program that reads them unchanged; a real parser of each format reads them here.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import formats
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import FORMATS, Layout, topics_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.render import Origin, render
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import FILE_NAME, File
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.credentials import Credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    NOW,
    Pair,
    assert_no_secret,
    cloudlocate,
    make_pair,
    pem_of,
    rsa_pem,
    rtcm,
    spartn,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from faults.conftest import Trial
from faults.hostile import MARKER, OTHERS, TEXTS, any_json, attempt, for_all
from hypothesis import strategies as st
from unit.rig import Rig

PKCS1, PKCS8 = serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8
LAYOUT = Layout("/etc/thingstream/x", secret_mode=0o640, broker_ca="the CA\n")
ORIGIN = Origin("ztp", NOW, "hw-1", "gw1")
OF_A_RESPONSE = ("bad_response", "missing_field", "pair_mismatch")
REFUSING = ("pygnssutils", "env-plain")  # formats that cannot hold every value
MAX_SECONDS = 10.0  # of the processor, for a response of 1 MiB; most take milliseconds


@cache
def pair() -> Pair:
    return make_pair(ec.generate_private_key(ec.SECP256R1()))


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def sound() -> list[tuple[str, dict[str, Any]]]:
    """Return a sound response of each kind, with its service."""
    return [
        ("pointperfect", spartn(pair())),
        ("pointperfect", rtcm()),
        ("pointperfect-live", rtcm()),
        ("cloudlocate", cloudlocate()),
    ]


# ---- what must hold ----


def survive(service: str, raw: bytes) -> Credentials | None:
    """Check that a response gives credentials whose files hold its values, or a documented error that shows none."""
    begin = time.process_time()
    found, error = attempt(lambda: credentials.parse(raw, SERVICES[service], {}, NOW))
    assert time.process_time() - begin < MAX_SECONDS
    assert_no_secret(error, found, also=(MARKER, *key_lines()))
    if error is not None:
        assert error.code in OF_A_RESPONSE
        assert len(error.message) < 10_000
        assert error.message.isprintable()
        return None
    assert isinstance(found, Credentials)
    usable = [name for name, one in FORMATS.items() if one.serves(found)]
    rendered, error = attempt(lambda: render(found, raw, LAYOUT, usable, ORIGIN))
    while error is not None:
        named = [name for name in REFUSING if f"take {name} out of formats" in error.message]
        assert (error.code, len(named)) == ("bad_option", 1), error.message
        usable.remove(named[0])
        rendered, error = attempt(lambda: render(found, raw, LAYOUT, usable, ORIGIN))
    files, record = rendered
    assert Record.parse(record.encode()) == record
    assert all(FILE_NAME.fullmatch(name) for name in files)
    assert_no_secret(record, record.encode(), also=key_lines())
    for name in usable:
        if name in READERS:
            READERS[name](found, files)
    return found


@cache
def key_lines() -> tuple[str, ...]:
    lines = pair().private_key.splitlines() + pem_of(rsa_key(), PKCS1).splitlines()
    return tuple(line for line in lines if len(line) == 64)


def read_env(found: Credentials, files: Mapping[str, File]) -> None:
    values = sourced(files["credentials.env"].content)
    wanted = {
        "CLIENT_ID": found.client_id,
        "HOST": found.host,
        "USERNAME": found.username,
        "PASSWORD": found.password,
        "TOPICS": " ".join(topics_of(found)) or None,
        "KEY_CURRENT": found.keys_current.value if found.keys_current else None,
        "KEY_NEXT": found.keys_next.value if found.keys_next else None,
        "NTRIP_HOST": found.ntrip_host,
        "NTRIP_MOUNTPOINT": found.ntrip_mountpoint,
        "NTRIP_USERNAME": found.ntrip_username,
        "NTRIP_PASSWORD": found.ntrip_password,
    }
    assert {name: values.pop(f"THINGSTREAM_{name}", None) for name in wanted} == wanted
    others = ("SERVICE", "PORT", "CERTIFICATE", "PRIVATE_KEY", "CA", "NTRIP_PORT", "NTRIP_TLS_PORT")
    assert set(values) <= {f"THINGSTREAM_{name}" for name in others}


def read_pygnssutils(found: Credentials, files: Mapping[str, File]) -> None:
    values = sourced(files["pygnssutils.env"].content)
    assert values.get("PYGPSCLIENT_PASSWORD") == found.ntrip_password
    assert values.get("MQTTCLIENTID") == (found.client_id if found.certificate else None)
    for name in ("MQTTCRT", "MQTTPEM"):
        if name in values:
            assert values[name].rpartition("/")[2] in files


def read_env_plain(found: Credentials, files: Mapping[str, File]) -> None:
    """Split each line as podman does: a name, the first sign of equality, the rest."""
    lines = files["credentials.plain.env"].content.decode().removesuffix("\n").split("\n")
    values = dict(line.split("=", 1) for line in lines)
    wanted = {"PASSWORD": found.password, "USERNAME": found.username, "NTRIP_PASSWORD": found.ntrip_password}
    assert {name: values.get(f"THINGSTREAM_{name}") for name in wanted} == wanted
    assert all(name.startswith("THINGSTREAM_") for name in values)


def sourced(content: bytes) -> dict[str, str]:
    """Return the environment of a shell once it has read the file."""
    script = 'set -e; set -a; eval "$(cat)"; exec /usr/bin/env -0'
    run = subprocess.run(["/bin/sh", "-c", script], input=content, capture_output=True, env={}, check=True)
    assert run.stderr == b""
    lines = run.stdout.decode().removesuffix("\0").split("\0")
    return {name: value for name, _sign, value in (line.partition("=") for line in lines) if name != "PWD"}


def read_mosquitto(found: Credentials, files: Mapping[str, File]) -> None:
    """Split each line as mosquitto does: a keyword, a space, the rest; three words follow a topic."""
    lines = files["mosquitto.conf"].content.decode().removesuffix("\n").split("\n")
    values = {keyword: rest for keyword, _space, rest in (line.partition(" ") for line in lines) if keyword != "topic"}
    assert values["address"] == f"{found.host}:{found.port}"
    assert values.get("remote_clientid") == found.client_id
    assert values.get("remote_username") == found.username
    assert values.get("remote_password") == found.password
    assert set(values) <= MOSQUITTO_KEYWORDS
    topics = [line.split(" ") for line in lines if line.startswith("topic ")]
    assert all(len(words) == 4 and words[2] in ("in", "out") and words[3] in "01" for words in topics)
    if found.subscriptions:
        assert [words[1] for words in topics] == topics_of(found)


MOSQUITTO_KEYWORDS = {
    "connection", "address", "remote_clientid", "bridge_protocol_version", "cleansession", "keepalive_interval",
    "notifications_local_only", "notification_topic", "try_private", "bridge_cafile", "bridge_certfile",
    "bridge_keyfile", "remote_username", "remote_password",
}  # fmt: skip


def read_topics(found: Credentials, files: Mapping[str, File]) -> None:
    assert files["topics.txt"].content.decode().splitlines() == topics_of(found)


def read_ucenter(found: Credentials, files: Mapping[str, File]) -> None:
    content = json.loads(files["ucenter-config.json"].content)["MQTT"]
    assert content["Connectivity"]["ClientID"] == found.client_id
    subscriptions = content["Subscriptions"]
    paths = [*subscriptions["Key"]["KeyTopics"], *subscriptions["AssistNow"]["AssistNowTopics"]]
    assert sorted([*paths, *subscriptions["Data"]["DataTopics"]]) == sorted(one.path for one in found.subscriptions)
    key = base64.b64decode(content["Connectivity"]["ClientCredentials"]["Key"])
    assert serialization.load_der_private_key(key, None, unsafe_skip_rsa_key_validation=True)


def read_gpsd(found: Credentials, files: Mapping[str, File]) -> None:
    is_url(found, files["gpsd.url"].content.decode().removesuffix("\n"))


def read_str2str(found: Credentials, files: Mapping[str, File]) -> None:
    content = files["str2str.args"].content.decode()
    option, url = shlex.split(content)
    assert option == "-in"
    is_url(found, url)
    words = subprocess.run(["xargs", "printf", "%s\\n"], input=content, capture_output=True, text=True, check=True)
    assert words.stdout == f"-in\n{url}\n"


def is_url(found: Credentials, url: str) -> None:
    """Split the URL as gpsd and RTKLIB do."""
    login, _at, place = url.removeprefix("ntrip://").rpartition("@")
    user, _colon, password = login.partition(":")
    assert (user, password) == (found.ntrip_username, found.ntrip_password)
    host, _slash, mount_point = place.rpartition("/")
    assert (host.rpartition(":")[0].strip("[]"), mount_point) == (found.ntrip_host, found.ntrip_mountpoint)


def read_pem(found: Credentials, files: Mapping[str, File]) -> None:
    if found.certificate is None:
        return
    leaf, *_chain = x509.load_pem_x509_certificates(files["client.crt"].content)
    key = serialization.load_pem_private_key(files["client.key"].content, None, unsafe_skip_rsa_key_validation=True)
    both = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert leaf.public_key().public_bytes(*both) == key.public_key().public_bytes(*both)
    # nothing but PEM: what stood around it is gone
    blocks = r"(-----BEGIN [A-Z ]+-----\n([A-Za-z0-9+/=]{1,64}\n)+-----END [A-Z ]+-----\n)+"
    for name in ("client.crt", "client.key", "client.pem"):
        assert re.fullmatch(blocks, files[name].content.decode())


READERS: Mapping[str, Callable[[Credentials, Mapping[str, File]], None]] = {
    "pem": read_pem,
    "env": read_env,
    "env-plain": read_env_plain,
    "mosquitto": read_mosquitto,
    "topics": read_topics,
    "ucenter": read_ucenter,
    "pygnssutils": read_pygnssutils,
    "gpsd": read_gpsd,
    "str2str": read_str2str,
}


def test_every_format_has_a_reader(trials: Trial) -> None:
    assert set(READERS) == set(formats.FORMATS)
    for service, response in sound():
        with trials("Responses: sound ones"):
            assert survive(service, json.dumps(response).encode()) is not None


# ---- any response ----


def test_any_bytes_and_any_json(full: bool, trials: Trial) -> None:
    services = st.sampled_from(sorted(SERVICES))
    for_all(
        full,
        trials,
        "Responses: any bytes",
        st.tuples(services, st.binary()),
        lambda case: survive(*case),
        short=50,
    )

    def check(case: tuple[str, Any]) -> None:
        survive(case[0], json.dumps(case[1]).encode())

    for_all(full, trials, "Responses: any JSON", st.tuples(services, any_json()), check, short=100)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return every place of a value in a response."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from places(inner, (*path, key))


def replaced(response: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(response)
    holder: Any = changed
    for key in path[:-1]:
        if not isinstance(holder, (dict, list)):
            return changed
        holder = holder[key]
    if isinstance(holder, (dict, list)):
        holder[path[-1]] = value
    return changed


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a sound response with one or two hostile values in it, the marker in each text."""
    service, response = draw(st.sampled_from(sound()))
    texts = st.sampled_from(TEXTS) | st.text(max_size=40) | st.text(st.characters(codec="ascii"), max_size=40)
    values = texts.map(lambda text: f"{MARKER}{text}") | st.sampled_from((*TEXTS[:4], *OTHERS)) | any_json(5)
    for path in draw(st.lists(st.sampled_from(list(places(response))), min_size=1, max_size=2)):
        # the second place may be gone
        with suppress(KeyError, IndexError, TypeError):
            response = replaced(response, path, draw(values))
    return service, json.dumps(response).encode()


def test_sound_responses_with_hostile_values(full: bool, trials: Trial) -> None:
    for_all(full, trials, "Responses: hostile values", spoiled(), lambda case: survive(*case), short=120)


def test_hostile_values_at_every_place(full: bool, trials: Trial) -> None:
    """Not at random: every text at every place of a secret or a name."""
    for service, response in sound():
        for path in places(response):
            for text in (*TEXTS, *OTHERS) if full else TEXTS[2:20:3]:
                with trials("Responses: every place"):
                    survive(service, json.dumps(replaced(response, path, text)).encode())


# ---- responses that are hard to parse ----


def huge() -> dict[str, bytes]:
    text = json.dumps(spartn(pair()))
    password = json.dumps(cloudlocate())
    return {
        "deep lists": b"[" * 500_000,
        "deep objects": b'{"a":' * 150_000,
        "deep but closed": b'{"clientId":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "just not too deep": text[:-1].encode() + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}",
        "number of a million digits": b'{"clientId": ' + b"9" * 1_000_000 + b"}",
        "key start of a million digits": re.sub(r'"start": \d+', '"start": "' + "9" * 900_000 + '"', text).encode(),
        "exponent": re.sub(r'"start": \d+', '"start": 1e999', text).encode(),
        "year 9999": re.sub(r'"start": \d+', '"start": 253402300799000', text).encode(),
        "year 1": re.sub(r'"start": \d+, "duration": \d+', '"start": -62135596800000, "duration": 1', text).encode(),
        "many names": json.dumps({f"name-{number}": MARKER for number in range(50_000)}).encode(),
        "long name": json.dumps({"n" * 1_000_000: MARKER}).encode(),
        "many topics": json.dumps(spartn(pair(), subscriptions=[{"path": f"/t/{n}"} for n in range(30_000)])).encode(),
        "joined topics": json.dumps(spartn(pair(), subscriptions=[{"path": ";" * 900_000}])).encode(),
        "duplicate keys": password[:-1].encode() + b', "password": "' + MARKER.encode() + b'", "clientId": "../../x"}',
        "duplicate objects": text[:-1].encode() + b', "dynamickeys": null, "subscriptions": 5}',
        "lone surrogate": password.replace('"password": "', '"password": "\\ud800').encode(),
        "NUL": password.replace('"password": "', '"password": "\\u0000').encode(),
        "UTF-16": text.encode("utf-16"),
        "UTF-16 marked": b"\xff\xfe" + text.encode("utf-16-le"),
        "byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "Latin-1": password.replace("mqtt/", "ü").encode("latin-1"),
        "many certificates": json.dumps(spartn(pair(), certificate=pair().certificate * 1200)).encode(),
        "white space": b" " * 1_000_000,
    }


@pytest.mark.parametrize("name", huge())
def test_huge_and_deep(name: str, trials: Trial) -> None:
    with trials("Responses: huge and deep"):
        survive("cloudlocate" if b'"password"' in huge()[name] else "pointperfect", huge()[name])


# ---- keys and certificates ----


def certificate_of(key: Any, **changes: Any) -> str:
    """Return a certificate with dates and extensions of its own."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, changes.get("name", "x"))])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(changes.get("start", NOW - DAY))
        .not_valid_after(changes.get("end", NOW + DAY))
    )
    for extension in changes.get("extensions", ()):
        builder = builder.add_extension(extension, critical=True)
    algorithm = None if isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def unusual() -> dict[str, tuple[str, str, bool | None]]:
    """Return by name: certificate, key, and whether they are accepted (``None``: as the library likes)."""
    key = pair().key
    good, plain = pair().certificate, pair().private_key
    latest = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")
    weird = [x509.UnrecognizedExtension(oid, MARKER.encode() * 1000)]
    rsa_pkcs1, rsa_certificate = pem_of(rsa_key(), PKCS1), certificate_of(rsa_key())
    curves = (ec.SECP192R1(), ec.SECP224R1(), ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1(), ec.BrainpoolP512R1())
    on_curves = {curve.name: ec.generate_private_key(curve) for curve in curves}
    others = {
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
        "Ed448": ed448.Ed448PrivateKey.generate(),
        "DSA": dsa.generate_private_key(1024),
    }
    return {
        "RSA": (rsa_certificate, rsa_pkcs1, True),
        "PKCS#8": (rsa_certificate, pem_of(rsa_key(), PKCS8), True),
        "encrypted": (good, pem_of(key, PKCS8, MARKER.encode()), False),
        "encrypted, PKCS#1": (rsa_certificate, pem_of(rsa_key(), PKCS1, MARKER.encode()), False),
        **{name: (certificate_of(one), pem_of(one, PKCS8), None) for name, one in on_curves.items()},
        **{name: (certificate_of(one), pem_of(one, PKCS8), False) for name, one in others.items()},
        "RSA, 1024 bits": _rsa(1024),
        "RSA, 4096 bits": _rsa(4096),
        "RSA, 16384 bits claimed": (rsa_certificate, rsa_pem(rsa_key(), n=1 << 16383 | 1), False),
        "RSA, 1 million bits claimed": (rsa_certificate, rsa_pem(rsa_key(), n=1 << 999_999 | 1), False),
        "RSA, exponent of a million bits": (rsa_certificate, rsa_pem(rsa_key(), d=1 << 999_999 | 1), False),
        "RSA, zeros": (rsa_certificate, rsa_pem(rsa_key(), p=0, q=0, dmp1=0, dmq1=0, iqmp=0), None),
        "RSA, modulus 0": (rsa_certificate, rsa_pem(rsa_key(), n=0), False),
        "RSA, another prime": (rsa_certificate, rsa_pem(rsa_key(), p=3), None),
        "CRLF": (good.replace("\n", "\r\n"), plain.replace("\n", "\r\n"), True),
        "without line ends": (good.replace("\n", ""), plain.replace("\n", ""), None),
        "junk behind": (f"{good}\n$(touch canary)\n{MARKER}", f"{plain}\n{MARKER}\n`touch canary`", True),
        "junk before": (f"{MARKER}\n{good}", f"{MARKER}\n{plain}", True),
        "key in the certificate": (f"{good}{plain}", plain, True),
        "certificate in the key": (good, f"{good}{plain}", None),
        "two keys": (good, f"{pem_of(others['Ed25519'], PKCS8)}{plain}", False),
        "swapped": (plain, good, False),
        "the key of another": (good, pem_of(on_curves["secp384r1"], PKCS8), False),
        "of another kind": (good, rsa_pkcs1, False),
        "NUL in PEM": (good.replace("M", "\0", 1), plain, False),
        "a surrogate in PEM": (good + "\ud800", plain + "\ud800", False),
        "year 9999": (certificate_of(key, end=latest), plain, True),
        "year 2049": (certificate_of(key, end=latest.replace(year=2049)), plain, True),
        "from 1950": (certificate_of(key, start=datetime(1950, 1, 1, tzinfo=timezone.utc)), plain, True),
        "expired": (certificate_of(key, start=NOW - 2 * DAY, end=NOW - DAY), plain, False),
        "unknown extension": (certificate_of(key, extensions=weird), plain, True),
        "hostile name": (certificate_of(key, name="$(touch canary)\n../../x"), plain, True),
        "a broken certificate": (good.replace("M", "A"), plain, False),
        "a request": ("-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n", plain, False),
        "empty PEM": ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", plain, False),
        "no PEM": (MARKER, MARKER, False),
    }


def _rsa(bits: int) -> tuple[str, str, bool | None]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return certificate_of(key), pem_of(key, PKCS1), None if bits < 2048 else True


def test_unusual_keys_and_certificates(trials: Trial) -> None:
    for name, (certificate, key, is_accepted) in unusual().items():
        with trials("Responses: keys and certificates"):
            raw = json.dumps(spartn(pair(), certificate=certificate, privateKey=key)).encode()
            begin = time.process_time()
            found = survive("pointperfect", raw)
            assert is_accepted in (None, found is not None), name
            assert time.process_time() - begin < 5, name


def test_damaged_pem(full: bool, trials: Trial) -> None:
    """A pair with damaged bytes somewhere."""
    places_of = st.integers(0, len(pair().certificate) + len(pair().private_key) - 1)

    def check(case: tuple[int, str]) -> None:
        place, text = case
        both = pair().certificate + "|" + pair().private_key
        certificate, _bar, key = (both[:place] + text + both[place + 1 :]).partition("|")
        survive("pointperfect", json.dumps(spartn(pair(), certificate=certificate, privateKey=key)).encode())

    for_all(full, trials, "Responses: damaged PEM", st.tuples(places_of, st.text(max_size=3)), check, short=100)


# ---- whole runs ----

RUNS = ("deep lists", "duplicate keys", "lone surrogate", "many certificates", "joined topics", "Latin-1", "many names")


def test_whole_runs_install_or_refuse_and_leave_nothing_half_done(full: bool, trials: Trial, tmp_path: Path) -> None:
    cases = huge()
    for name in cases if full else RUNS:
        rig = Rig(tmp_path / name.replace(" ", "-"), "cloudlocate" if b'"password"' in cases[name] else "pointperfect")
        rig.path.parent.mkdir(parents=True)
        with trials("Responses: whole runs"):
            outcome, error = attempt(lambda: rig.present(cases[name], activation_timeout=0.0))  # noqa: B023 - called here
            if error is not None:
                assert error.code in (*OF_A_RESPONSE, "activation_pending")
                assert_no_secret(error, also=(MARKER,))
                assert not rig.current.exists()
            else:
                assert outcome.action == "created"
                rig.assert_in_order()
    assert not list(tmp_path.rglob("canary"))

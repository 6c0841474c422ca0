# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""State, log and command line: what survives, what is safe, and what must not be written down."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from cryptography import x509
from simulator import client
from simulator.__main__ import main
from simulator.client import RunningSimulator
from simulator.server import is_loopback
from simulator.store import Store, set_setting, setting

TESTS = Path(client.__file__).parents[1]
LIVE = {"service": "pointperfect-live"}


@dataclass
class Finished:
    """The result of a command."""

    code: str | int | None
    printed: str


def run(*arguments: str | Path) -> Finished:
    """Run a command of the command line in this process, which is quicker; a code that is text is an error message."""
    code: str | int | None = 0
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
    return Finished(code, printed.getvalue())


@pytest.mark.parametrize("how", [pytest.param(signal.SIGTERM, marks=pytest.mark.full), signal.SIGKILL])
def test_state_survives_a_restart(tmp_path: Path, how: signal.Signals) -> None:
    with client.start(tmp_path) as running:
        token = running.put_profile("kept", plan="mqtt")
        running.set_clock_offset(3 * 365 * 86400)
        before = running.post(token, hardwareId="kept").json()
        running.add_fault("status", status=500, count=2)
        assert running.post(token, hardwareId="kept").status_code == 500
        log, ca = running.requests(), running.ca_path.read_bytes()
        running.process.send_signal(how)
        running.process.wait(10)
        assert running.process.returncode == (0 if how == signal.SIGTERM else -signal.SIGKILL)
        assert (tmp_path / "url").exists() is (how == signal.SIGKILL)
    with client.start(tmp_path) as running:
        assert (tmp_path / "url").read_text().strip() == running.url
        assert int((tmp_path / "pid").read_text()) == running.process.pid
        assert running.requests() == log
        assert running.ca_path.read_bytes() == ca
        assert running.post(token, hardwareId="kept").status_code == 500
        assert running.post(token, hardwareId="kept").json() == before
        assert running.put_profile("kept", plan="mqtt") == token


def test_simultaneous_calls_create_one_thing(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("concurrent", plan="mqtt")
    with ThreadPoolExecutor(12) as executor:
        bodies = set(executor.map(lambda _: simulator.post(token, hardwareId="concurrent").text, range(24)))
    assert len(bodies) == 1
    assert "privateKey" in bodies.pop()
    assert len(simulator.things(hardware_id="concurrent")) == 1
    assert len(simulator.requests(hardware_id="concurrent", status=200)) == 24


def test_transactions_do_not_interleave(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "state.db") for _round in range(2)]

    def increment(store: Store) -> None:
        with store.transaction() as connection:
            before = float(setting(connection, "clock_offset"))
            time.sleep(0.05)
            set_setting(connection, "clock_offset", before + 1)

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(increment, stores * 2))
    with stores[0].transaction() as connection:
        assert float(setting(connection, "clock_offset")) == 4
    for store in stores:
        store.close()


def test_another_process_may_write_meanwhile(simulator: RunningSimulator) -> None:
    with ThreadPoolExecutor(2) as executor:
        command = [sys.executable, "-m", "simulator", "pool", str(simulator.directory), "12"]
        pool = executor.submit(subprocess.run, command, env={**os.environ, "PYTHONPATH": str(TESTS)}, check=False)
        token = simulator.put_profile("meanwhile", **LIVE)
        assert "password" in simulator.post(token, hardwareId="meanwhile", **LIVE).text
        assert pool.result().returncode == 0
    health = requests.get(f"{simulator.url}/simulator/health", verify=str(simulator.ca_path), timeout=20).json()
    assert health["status"] == "ok"
    assert health["key_pool"] >= 12


def test_log_says_who_asked_for_what(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("logged", **LIVE)
    simulator.post(token, hardwareId="logged", givenName="gateway", tags=["a", "b"], **LIVE)
    simulator.post("bad", hardwareId="other", **LIVE)
    first, second = simulator.requests()
    (thing,) = simulator.things(hardware_id="logged")
    assert first["sequence"] + 1 == second["sequence"]
    assert 0 <= second["time"] - first["time"] < 20
    assert {key: first[key] for key in first if key not in ("sequence", "time")} == {
        "method": "POST",
        "path": "/ztp/pointperfect-live/credentials",
        "service": "pointperfect-live",
        "status": 200,
        "profile": "logged",
        "hardware_id": "logged",
        "given_name": "gateway",
        "tags": ["a", "b"],
        "thing": thing["id"],
        "fault": None,
    }
    assert (second["status"], second["profile"], second["hardware_id"]) == (422, None, "other")
    assert simulator.requests(status=422) == simulator.requests(after=first["sequence"]) == [second]
    assert simulator.requests(profile="logged", service="pointperfect-live", thing=thing["id"]) == [first]
    simulator.clear_requests()
    simulator.post("bad", **LIVE)
    assert simulator.requests()[0]["sequence"] > second["sequence"]


def test_log_and_things_hold_no_secret(simulator: RunningSimulator) -> None:
    tokens = [simulator.put_profile(f"secret-{service}", service=service, plan="mqtt") for service in SERVICES]
    secrets = list(tokens)
    for token, service in zip(tokens, SERVICES, strict=True):
        body = simulator.post(token, service, hardwareId="secret").json()
        login = body.get("rtcmCredentials", body)
        secrets += [
            login[field]
            for field in ("password", "userName", "username", "certificate", "privateKey")
            if field in login
        ]
        simulator.add_fault("status", after_processing=True)
        simulator.post(token, service, hardwareId="secret")
        simulator.post(token, service, hardwareId="secret", tags=5)
        simulator.post(token, "nothing")
    assert len(simulator.requests()) == 12
    written = [json.dumps(simulator.requests()), json.dumps(simulator.things())]
    written += [run("requests", simulator.directory).printed, run("things", simulator.directory).printed]
    assert all("secret-cloudlocate" in text for text in written)
    written.append((simulator.directory / "server.log").read_text())
    for secret in secrets:
        # Any line of a PEM text would do harm, and JSON writes its line ends differently.
        for line in secret.splitlines():
            assert not any(line in text for text in written)


SERVICES = ("pointperfect", "pointperfect-live", "cloudlocate")


def test_files_with_secrets_are_private(simulator: RunningSimulator) -> None:
    for name in ("ca.key", "server.key", "state.db"):
        assert (simulator.directory / name).stat().st_mode & 0o077 == 0


def test_openapi_declares_what_the_platform_sends(simulator: RunningSimulator) -> None:
    document = requests.get(f"{simulator.url}/simulator/openapi.json", verify=str(simulator.ca_path), timeout=20).json()
    for service in SERVICES:
        operation = document["paths"][f"/ztp/{service}/credentials"]["post"]
        assert set(operation["responses"]) == {"200", "400", "403", "422"}
        assert set(operation["responses"]["403"]["content"]) == {"text/plain"}
        errors = operation["responses"]["422"]["content"]["application/json"]["schema"]
        assert errors == {"$ref": "#/components/schemas/Errors"}
        assert operation["requestBody"]["content"]["application/json"]["schema"]["required"] == ["token"]


def test_two_profiles_cannot_have_one_token(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("one", plan="mqtt")
    with pytest.raises(ValueError, match="409"):
        simulator.put_profile("two", token=token, plan="mqtt")


def test_impossible_profiles_are_refused(simulator: RunningSimulator) -> None:
    for settings in ({"plann": "both"}, {"format": "RTCM", "client_protocol": "MQTT"}, {"token": "x"}):
        with pytest.raises(ValueError, match="422"):
            simulator.put_profile("impossible", **settings)


def test_command_line_profile(simulator: RunningSimulator, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps({"name": "by-hand", "service": "pointperfect-live", "tags": ["x"]}))
    token = run("profile", simulator.directory, file).printed.strip()
    assert simulator.post(token, hardwareId="by-hand", **LIVE).status_code == 200
    changes = ("--set", "already_exists=error", "--set", "simulator.http_port_as=number")
    assert run("profile", simulator.directory, file, *changes).printed.strip() == token
    assert simulator.post(token, hardwareId="by-hand", **LIVE).text == "Device already registered"
    assert simulator.post(token, hardwareId="by-hand-2", **LIVE).json()["rtcmCredentials"]["httpPort"] == 2101
    for arguments, message in ((["--service", "x"], "name"), (["--name", "n", "--set", "plan=5"], "plan: ")):
        failed = run("profile", simulator.directory, *arguments)
        assert message in str(failed.code)


def test_init_is_idempotent(tmp_path: Path) -> None:
    assert run("init", tmp_path / "new").code == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir() if path.name != "state.db"}
    assert set(files) == {"ca.crt", "ca.key", "server.crt", "server.key"}
    assert run("init", tmp_path / "new").code == 0
    assert {name: (tmp_path / "new" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::", "::ffff:192.0.2.1"])
def test_other_addresses_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


def test_only_this_machine_is_served(tmp_path: Path) -> None:
    # In a process of its own, with a time limit: a server that did start would not come back.
    refused = subprocess.run(
        [sys.executable, "-m", "simulator", "serve", str(tmp_path / "never"), "--host", "0.0.0.0"],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
        check=False,
    )
    assert refused.returncode == 1
    assert "not a loopback address" in refused.stderr
    assert not (tmp_path / "never").exists()


def handshake(server: ssl.SSLContext, connecting: ssl.SSLContext) -> None:
    """Let a client meet a server in memory; raises ssl.SSLError if either refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    a = connecting.wrap_bio(to_client, to_server, server_hostname="localhost")
    b = server.wrap_bio(to_server, to_client, server_side=True)
    finished: set[ssl.SSLObject] = set()
    for side in (a, b) * 4:
        if side not in finished:
            try:
                side.do_handshake()
                finished.add(side)
            except ssl.SSLWantReadError:
                continue
    assert finished == {a, b}


def test_broker_accepts_things_that_are_not_revoked(simulator: RunningSimulator, tmp_path: Path) -> None:
    token = simulator.put_profile("broker", plan="mqtt")
    body = simulator.post(token, hardwareId="broker").json()
    (tmp_path / "client.pem").write_text(body["certificate"] + body["privateKey"])
    options = ("--name", "localhost", "--address", "127.0.0.1", "--output", tmp_path)
    assert run("server-certificate", simulator.directory, *options).code == 0

    def connect() -> None:
        assert run("crl", simulator.directory, tmp_path / "crl.pem").code == 0
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
        server.load_verify_locations(tmp_path / "ca.crt")
        server.load_verify_locations(tmp_path / "crl.pem")
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
        connecting = ssl.create_default_context(cafile=str(simulator.ca_path))
        connecting.verify_flags |= ssl.VERIFY_X509_STRICT
        connecting.load_cert_chain(tmp_path / "client.pem")
        handshake(server, connecting)

    connect()
    (thing,) = simulator.things(hardware_id="broker")
    simulator.deactivate(thing["id"])
    with pytest.raises(ssl.SSLError, match="revoked"):
        connect()
    crl = x509.load_pem_x509_crl((tmp_path / "crl.pem").read_bytes())
    assert crl.get_revoked_certificate_by_serial_number(int(thing["serial"], 16)) is not None
    simulator.activate(thing["id"])
    connect()

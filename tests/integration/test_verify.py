# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks verify credentials: those in use, and new ones before a gateway gets them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.tests.unit.support import read_request
from integration.ansible_run import Run, run_playbook, spool_files, write_inventory
from integration.broker import running_broker, simulate
from integration.patience import PATIENCE, eventually
from integration.programs import RTCM
from simulator.client import RunningSimulator

HERE = {"timeout": 5, "allowed_hosts": ["127.0.0.1"]}
ALWAYS = {**HERE, "when": "always"}


@dataclass
class Gateway:
    """One gateway with a local connection."""

    platform: dict[str, Any]
    work: Path
    name: str

    def run(self, playbook: str, *arguments: str, **options: Any) -> Run:
        own = {"hardware_id": self.name, "path": self.work / "one", **options}
        hosts = {"one": {f"thingstream_gateway_{name}": value for name, value in own.items()}}
        inventory = write_inventory(self.work / "inventory.yml", hosts, self.platform)
        return run_playbook(self.work, inventory, *arguments, playbook=f"thingstream.ztp.{playbook}")

    @property
    def spool(self) -> list[Path]:
        return spool_files(self.work / "spool")

    @property
    def current(self) -> Path:
        return self.work / "one" / "current"


@pytest.fixture
def gateway(platform: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Gateway:
    return Gateway(platform, tmp_path, re.sub(r"\W", "-", request.node.name))


def test_the_pair_in_use(gateway: Gateway, simulator: RunningSimulator, tmp_path: Path) -> None:
    work = tmp_path / "broker"
    work.mkdir()
    crl = work / "crl.pem"
    simulate("crl", simulator.directory, crl)
    mutual = f"require_certificate true\nuse_identity_as_username true\ncrlfile {crl}"
    token = simulator.put_profile("verify", service="pointperfect", simulator={"host": "127.0.0.1"}, plan="mqtt")
    with running_broker(simulator, work, mutual) as broker:
        options = {"service": "pointperfect", "token": token, "field_map": {"port": f"`{broker.port}`"}}
        run = gateway.run("provision", **options, verify={"when": "before_switch"})
        assert run.values("action") == {"one": "created"}, run.output
        client_id = run.hosts["one"]["thing"]["client_id"]
        assert broker.log(client_id), "it was really used before the switch"

        check = gateway.run("verify", "--check", **options)
        assert check.values("verifications") == {"one": []}, check.output
        assert "disconnects the consumer" in check.hosts["one"]["msg"]
        elsewhere = gateway.run("verify", **options)
        assert elsewhere.values("error_code") == {"one": "host_not_allowed"}, elsewhere.output
        verified = gateway.run("verify", **options, verify=HERE)
        assert verified.values("changed") == {"one": False}, verified.output
        assert verified.hosts["one"]["verifications"] == [
            {
                "delivery": "mqtt",
                "host": "127.0.0.1",
                "port": broker.port,
                "tls": True,
                "data": False,
                "first_correction_ms": None,
                "message_types": [],
                "mount_point": None,
            }
        ]
    (thing,) = simulator.things(hardware_id=gateway.name)
    simulator.deactivate(thing["id"])
    simulate("crl", simulator.directory, crl)
    with running_broker(simulator, work, mutual) as broker:
        refused = gateway.run("verify", **{**options, "field_map": {"port": f"`{broker.port}`"}}, verify=HERE)
    assert refused.values("error_code") == {"one": "credentials_refused"}, refused.output
    # without a broker, it is the network
    gone = gateway.run("verify", **{**options, "field_map": {"port": f"`{broker.port}`"}}, verify=HERE)
    assert gone.values("error_code") == {"one": "unreachable"}, gone.output


def test_what_does_not_work_is_never_activated(gateway: Gateway, simulator: RunningSimulator, tmp_path: Path) -> None:
    """The response of CloudLocate waits until the broker, which knows the first Thing only, also knows the second."""
    work = tmp_path / "broker"
    work.mkdir()
    passwords = work / "passwords"
    passwords.touch()
    token = simulator.put_profile("login", service="cloudlocate", simulator={"host": "127.0.0.1", "port": 8883})
    options: dict[str, Any] = {"service": "cloudlocate", "token": token}
    assert gateway.run("provision", **options).values("action") == {"one": "created"}
    before = os.readlink(gateway.current)
    simulator.clear_requests()
    with running_broker(simulator, work, f"allow_anonymous false\npassword_file {passwords}") as broker:
        options["field_map"] = {"port": f"`{broker.port}`"}
        verifying = {**options, "force": True, "verify": {"when": "before_switch", "timeout": 5}}
        run = gateway.run("provision", **verifying)
        assert run.values("error_code") == {"one": "credentials_refused"}, run.output
        assert os.readlink(gateway.current) == before
        (kept,) = gateway.spool
        assert str(kept) in run.hosts["one"]["msg"]
    login = json.loads(base64.b64decode(json.loads(kept.read_text())["response"]))
    subprocess.run(
        ["mosquitto_passwd", "-b", str(passwords), login["username"], login["password"]],
        env={"PATH": "/usr/bin:/usr/sbin:/bin"},
        check=True,
    )
    with running_broker(simulator, work, f"allow_anonymous false\npassword_file {passwords}") as broker:
        verifying["field_map"] = {"port": f"`{broker.port}`"}
        again = gateway.run("provision", **verifying)
    assert again.values("action") == {"one": "renewed"}, again.output
    assert len(simulator.requests()) == 1
    assert gateway.spool == []


@pytest.mark.full
def test_a_certificate_that_a_broker_refuses_is_renewed_if_that_is_wanted(
    gateway: Gateway, simulator: RunningSimulator, tmp_path: Path
) -> None:
    """Without ``interrupt`` the broker is left alone, because a login would disconnect the consumer."""
    work = tmp_path / "broker"
    work.mkdir()
    crl = work / "crl.pem"
    switches = {"host": "127.0.0.1", "new_thing_on_repeat": True}
    token = simulator.put_profile("refused", service="pointperfect", simulator=switches, plan="mqtt")
    options: dict[str, Any] = {"service": "pointperfect", "token": token}
    assert gateway.run("provision", **options).values("action") == {"one": "created"}
    (thing,) = simulator.things(hardware_id=gateway.name)
    simulator.deactivate(thing["id"])
    simulate("crl", simulator.directory, crl)
    simulator.clear_requests()
    mutual = f"require_certificate true\nuse_identity_as_username true\ncrlfile {crl}"
    with running_broker(simulator, work, mutual) as broker:
        options["field_map"] = {"port": f"`{broker.port}`"}
        quiet = gateway.run("provision", **options, verify={**ALWAYS, "renew_refused": True})
        assert quiet.values("action") == {"one": "none"}, quiet.output
        assert "verify.interrupt" in quiet.output
        plain = gateway.run("provision", **options, verify={**ALWAYS, "interrupt": True})
        assert plain.values("error_code") == {"one": "credentials_refused"}, plain.output
        assert simulator.requests() == []
        renewing = {**ALWAYS, "interrupt": True, "renew_refused": True}
        renewed = gateway.run("provision", **options, verify=renewing)
        assert (renewed.values("action"), renewed.values("reason")) == ({"one": "renewed"}, {"one": "refused"})
        assert len(simulator.requests()) == 1
        again = gateway.run("provision", **options, verify=renewing)
        assert again.values("changed") == {"one": False}, again.output


@dataclass
class OneSessionCaster:
    """A caster that allows one session for each login, and refuses a further one as it refuses a wrong password."""

    port: int
    sessions: set[bytes]
    refusals: int = 0


@pytest.fixture
def caster() -> Iterator[OneSessionCaster]:
    lock = threading.Lock()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(PATIENCE)
            login = re.search(rb"Authorization: Basic (\S+)", read_request(connection))
            assert login is not None
            with lock:
                is_free = login.group(1) not in found.sessions
                found.sessions.add(login.group(1))
                found.refusals += not is_free
            if not is_free:
                connection.sendall(b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n")
                return
            try:
                connection.sendall(b"ICY 200 OK\r\n\r\n")
                while True:
                    connection.sendall(RTCM)
                    time.sleep(0.1)
            finally:
                with lock:
                    found.sessions.discard(login.group(1))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = OneSessionCaster(listener.getsockname()[1], set())

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def consuming(current: Path) -> Iterator[list[int]]:
    """Use the installed credentials as a consumer does; yield the sizes of what arrives, 0 for a lost connection."""
    values = dict(re.findall(r'^THINGSTREAM_(\w+)="(.*)"$', (current / "credentials.env").read_text(), re.M))
    user, password = (re.sub(r"\\(.)", r"\1", values[f"NTRIP_{name}"]) for name in ("USERNAME", "PASSWORD"))
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    received: list[int] = []
    with socket.create_connection((values["NTRIP_HOST"], int(values["NTRIP_PORT"])), PATIENCE) as connection:
        request = f"GET /{values['NTRIP_MOUNTPOINT']} HTTP/1.1\r\nAuthorization: Basic {login}\r\n\r\n"
        connection.sendall(request.encode())

        def consume() -> None:
            with suppress(OSError):
                while not received or received[-1]:
                    received.append(len(connection.recv(4096)))

        thread = threading.Thread(target=consume, daemon=True)
        thread.start()
        assert eventually(lambda: len(received) > 1)
        try:
            yield received
        finally:
            is_connected, seen = 0 not in received, len(received)
            assert is_connected, "the consumer lost its connection"
            assert eventually(lambda: len(received) > seen), "the consumer still receives"
            connection.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


def test_a_login_that_the_consumer_uses_is_not_taken_for_refused(
    gateway: Gateway, simulator: RunningSimulator, caster: OneSessionCaster
) -> None:
    switches = {"host": "127.0.0.1", "port": caster.port, "new_thing_on_repeat": True}
    token = simulator.put_profile("rtcm", service="pointperfect", format="RTCM", simulator=switches)
    options: dict[str, Any] = {"service": "pointperfect", "token": token, "formats": ["env"]}
    always = {**ALWAYS, "renew_refused": True, "position": [52.52, 13.405]}
    created = gateway.run("provision", **options, verify=always)
    assert created.values("action") == {"one": "created"}, created.output
    assert eventually(lambda: not caster.sessions)
    simulator.clear_requests()
    with consuming(gateway.current):
        for night, playbook in enumerate(("renew", "provision", "renew"), 1):
            run = gateway.run(playbook, **options, verify=always)
            assert (run.values("action"), run.values("reason")) == ({"one": "none"}, {"one": "none"}), run.output
            assert "it is in use" in run.output
            assert caster.refusals == night
        verified = gateway.run("verify", **options, verify=HERE)
        assert verified.values("error_code") == {"one": "refused_or_in_use"}, verified.output
    assert simulator.requests() == []
    assert eventually(lambda: not caster.sessions)

    sound = gateway.run("renew", **options, verify=always)
    assert (sound.values("action"), "it is in use" in sound.output) == ({"one": "none"}, False), sound.output
    assert eventually(lambda: not caster.sessions)
    verified = gateway.run("verify", **options, verify={**HERE, "position": [52.52, 13.405]})
    (found,) = verified.hosts["one"]["verifications"]
    assert found.pop("first_correction_ms") >= 0
    assert found == {
        "delivery": "ntrip",
        "host": "127.0.0.1",
        "port": caster.port,
        "tls": False,
        "data": True,
        "message_types": ["RTCM 1005"],
        "mount_point": "NEAR-RTCM",
    }
    assert eventually(lambda: not caster.sessions)
    wanted = {"verify": {**HERE, "position": [52.52, 13.405]}, **options}
    for extra, expected in ((["-e", "thingstream_audit_verify=true"], "TLS, RTCM 1005, first after"), ([], "None")):
        audit = gateway.run("audit", *extra, "-e", f"thingstream_report_directory={gateway.work}", **wanted)
        assert audit.status == 0, audit.output
        (row,) = json.loads((gateway.work / "thingstream-audit.json").read_text())["gateways"]
        assert expected in str(row["verification"])
    assert simulator.requests() == []


def test_a_gateway_does_not_choose_where_the_controller_connects(
    gateway: Gateway, simulator: RunningSimulator, caster: OneSessionCaster
) -> None:
    """Neither by another host in its files, nor by one whose digest it has corrected in its record."""
    token = simulator.put_profile("steered", service="pointperfect", format="RTCM")
    options: dict[str, Any] = {"service": "pointperfect", "token": token}
    assert gateway.run("provision", **options).values("action") == {"one": "created"}
    simulator.clear_requests()
    stored, record = gateway.current / "credentials.json", gateway.current / "thing.json"
    before = stored.read_bytes()
    response = json.loads(before)
    response["rtcmCredentials"].update(endpoint="127.0.0.1", httpPort=caster.port)
    stored.write_text(json.dumps(response))
    changed = gateway.run("verify", **options, verify=HERE)
    assert changed.values("error_code") == {"one": "no_generation"}, changed.output
    old, new = (hashlib.sha256(content).hexdigest() for content in (before, stored.read_bytes()))
    record.write_text(record.read_text().replace(old, new))
    for playbook in ("verify", "renew"):
        steered = gateway.run(playbook, **options, verify={"when": "always", "renew_refused": True})
        assert steered.values("error_code") == {"one": "host_not_allowed"}, steered.output
    assert (caster.refusals, simulator.requests()) == (0, [])


def test_a_network_that_does_not_work_is_no_reason(gateway: Gateway, simulator: RunningSimulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    switches = {"host": "127.0.0.1", "port": port}
    token = simulator.put_profile("nobody", service="pointperfect", format="RTCM", simulator=switches)
    options: dict[str, Any] = {"service": "pointperfect", "token": token}
    assert gateway.run("provision", **options).values("action") == {"one": "created"}
    simulator.clear_requests()
    run = gateway.run("provision", **options, verify={**ALWAYS, "renew_refused": True})
    assert run.values("error_code") == {"one": "unreachable"}, run.output
    assert simulator.requests() == []

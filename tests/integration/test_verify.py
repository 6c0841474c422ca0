# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks verify credentials: those in use, and new ones before a gateway gets them."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.tests.unit.support import serving
from integration.ansible_run import Run, run_playbook, spool_files, write_inventory
from integration.broker import running_broker, simulate
from simulator.client import RunningSimulator


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
    token = simulator.put_profile("verify", service="pointperfect", simulator={"host": "127.0.0.1"})
    with running_broker(simulator, work, mutual) as broker:
        options = {"service": "pointperfect", "token": token, "field_map": {"port": f"`{broker.port}`"}}
        run = gateway.run("provision", **options, verify={"when": "before_switch"})
        assert run.values("action") == {"one": "created"}, run.output
        client_id = run.hosts["one"]["thing"]["client_id"]
        assert broker.log(client_id), "it was really used before the switch"

        check = gateway.run("verify", "--check", **options)
        assert check.values("verifications") == {"one": []}, check.output
        verified = gateway.run("verify", **options, verify={"timeout": 5})
        assert verified.values("changed") == {"one": False}, verified.output
        assert verified.hosts["one"]["verifications"] == [
            {"delivery": "mqtt", "host": "127.0.0.1", "port": broker.port, "tls": True, "data": False}
        ]
    (thing,) = simulator.things(hardware_id=gateway.name)
    simulator.deactivate(thing["id"])
    simulate("crl", simulator.directory, crl)
    with running_broker(simulator, work, mutual) as broker:
        refused = gateway.run("verify", **{**options, "field_map": {"port": f"`{broker.port}`"}})
    assert refused.values("error_code") == {"one": "credentials_refused"}, refused.output
    # without a broker, it is the network
    gone = gateway.run("verify", **{**options, "field_map": {"port": f"`{broker.port}`"}})
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


@pytest.fixture
def caster() -> Iterator[tuple[int, set[str]]]:
    """An NTRIP caster that refuses the logins it is told to."""
    refused: set[str] = set()

    def answer(connection: socket.socket, request: bytes) -> None:
        login = re.search(rb"Authorization: Basic (\S+)", request)
        assert login is not None
        user = base64.b64decode(login.group(1)).partition(b":")[0].decode()
        status = "401 Unauthorized" if user in refused else "200 OK"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Type: gnss/data\r\n\r\n".encode() + b"\xd3\x00\x13" * 20)

    with serving(answer) as server:
        yield server.port, refused


def test_a_refused_login_is_renewed_if_that_is_wanted(
    gateway: Gateway, simulator: RunningSimulator, caster: tuple[int, set[str]]
) -> None:
    port, refused = caster
    switches = {"host": "127.0.0.1", "port": port, "new_thing_on_repeat": True}
    token = simulator.put_profile("rtcm", service="pointperfect", format="RTCM", simulator=switches)
    options: dict[str, Any] = {"service": "pointperfect", "token": token}
    always = {"when": "always", "timeout": 5, "position": [52.52, 13.405]}
    assert gateway.run("provision", **options).values("action") == {"one": "created"}
    simulator.clear_requests()
    sound = gateway.run("provision", **options, verify=always)
    assert (sound.values("reason"), sound.values("changed")) == ({"one": "none"}, {"one": False}), sound.output

    environment = (gateway.current / "credentials.env").read_text()
    refused.add(re.findall(r'NTRIP_USERNAME="(.*)"', environment)[0])
    plain = gateway.run("provision", **options, verify=always)
    assert (plain.values("error_code"), plain.values("status")) == (
        {"one": "credentials_refused"},
        {"one": "failed"},
    ), plain.output
    assert simulator.requests() == []

    renewed = gateway.run("provision", **options, verify={**always, "renew_refused": True})
    assert (renewed.values("action"), renewed.values("reason")) == ({"one": "renewed"}, {"one": "refused"})
    assert len(simulator.requests()) == 1
    again = gateway.run("provision", **options, verify={**always, "renew_refused": True})
    assert again.values("changed") == {"one": False}, again.output


def test_a_network_that_does_not_work_is_no_reason(gateway: Gateway, simulator: RunningSimulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    switches = {"host": "127.0.0.1", "port": port}
    token = simulator.put_profile("nobody", service="pointperfect", format="RTCM", simulator=switches)
    options: dict[str, Any] = {"service": "pointperfect", "token": token}
    assert gateway.run("provision", **options).values("action") == {"one": "created"}
    simulator.clear_requests()
    run = gateway.run("provision", **options, verify={"when": "always", "renew_refused": True})
    assert run.values("error_code") == {"one": "unreachable"}, run.output
    assert simulator.requests() == []

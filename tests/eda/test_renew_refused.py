# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rulebook of `extensions/eda`, run by `ansible-rulebook`: reports of refused logins come in by its webhook."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from integration.ansible_run import PROJECT, run_playbook, settings, write_inventory
from integration.broker import PROGRAMS, running_broker, simulate
from simulator.client import RunningSimulator, start

RULEBOOK = PROJECT / "extensions/eda/rulebooks/renew_refused.yml"
REPORT = PROJECT / "extensions/eda/gateway/report-refused"
ENVIRONMENT = PROJECT / ".cache/venv/eda/bin"
GATEWAYS = ("refused", "sound", "fence-1", "fence-2")


@dataclass(frozen=True)
class Engine:
    """A running ``ansible-rulebook``, and what its playbooks did."""

    url: str
    token: str
    ca_path: Path
    output: Path
    results: Path

    def report(self, body: Any, token: str | None = None) -> int:
        """Send an event and return the HTTP status."""
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return requests.post(self.url, json=body, headers=headers, verify=str(self.ca_path), timeout=10).status_code

    def refused(self, gateway: Any) -> int:
        """Report a refused login of a gateway."""
        return self.report({"report": "login_refused", "gateway": gateway})

    def runs(self) -> list[tuple[str, str]]:
        """Return the host and action of every run so far."""
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        entries = [entry for entry in map(json.loads, lines) if entry["task"] == "Renew what is due"]
        return [(entry["host"], entry["result"].get("action", entry["status"])) for entry in entries]

    def wait_for(self, gateway: str) -> None:
        """Wait until a playbook has run for a gateway. ``ansible-rulebook`` handles one event after the other."""
        deadline = time.monotonic() + 60
        while gateway not in [host for host, _action in self.runs()]:
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)


@contextmanager
def engine(simulator: RunningSimulator, work: Path, inventory: Path) -> Iterator[Engine]:
    """Run ``ansible-rulebook`` with the unchanged rulebook until the block ends."""
    if not (ENVIRONMENT / "ansible-rulebook").exists():
        pytest.skip("ansible-rulebook is not installed: make eda")
    simulate("server-certificate", simulator.directory, "--name", "localhost", "--output", work)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {
        "THINGSTREAM_EDA_PORT": str(port),
        "THINGSTREAM_EDA_TOKEN": secrets.token_urlsafe(),
        "THINGSTREAM_EDA_CERTIFICATE": str(work / "server.crt"),
        "THINGSTREAM_EDA_KEY": str(work / "server.key"),
        "THINGSTREAM_ALLOWED_HOSTS": "127.0.0.1",
    }
    path = f"{ENVIRONMENT}:{PROJECT}/.venv/bin:{os.environ['PATH']}"
    command = [f"{ENVIRONMENT}/ansible-rulebook", "-r", str(RULEBOOK), "-i", str(inventory), "-E", ",".join(own)]
    output = work / "output"
    with output.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=work, env={**settings(work), "PATH": path, **own}, stdout=stream, stderr=stream
        )
    token = own["THINGSTREAM_EDA_TOKEN"]
    running = Engine(f"https://localhost:{port}/", token, simulator.ca_path, output, work / "results.jsonl")
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                running.report({}, token="wrong")
                break
            except requests.ConnectionError:
                time.sleep(0.2)
        assert process.poll() is None, output.read_text()
        yield running
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def reporting_bridge(rulebook: Engine, work: Path, gateway: str, port: int) -> Iterator[None]:
    """Run mosquitto with a gateway's credentials, and the script that follows its log, until the block ends."""
    current = work / "on" / gateway / "current"
    files = {"cafile": "ca.crt", "certfile": "client.crt", "keyfile": "client.key"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        own_port = free.getsockname()[1]
    lines = ["user root", f"listener {own_port} 127.0.0.1", "log_dest stderr", "log_type all"]
    lines += ["connection thingstream", f"address localhost:{port}", "topic # in", "restart_timeout 1"]
    lines += [f"bridge_{option} {current}/{file}" for option, file in files.items()]
    configuration = work / "bridge.conf"
    configuration.write_text("\n".join(lines) + "\n")
    program = shutil.which("mosquitto", path=PROGRAMS)
    environment = {
        "PATH": PROGRAMS,
        "THINGSTREAM_EDA_URL": rulebook.url,
        "THINGSTREAM_EDA_TOKEN": rulebook.token,
        "THINGSTREAM_EDA_GATEWAY": gateway,
        "THINGSTREAM_EDA_CA": str(rulebook.ca_path),
    }
    with (work / "bridge.log").open("w") as log:
        bridge = subprocess.Popen([str(program), "-c", str(configuration)], stderr=subprocess.PIPE)
        script = subprocess.Popen([str(REPORT)], stdin=bridge.stderr, stderr=log, env=environment)
        assert bridge.stderr is not None
        bridge.stderr.close()
        try:
            yield
        finally:
            bridge.terminate()
            bridge.wait(timeout=10)
            script.wait(timeout=30)
    assert (work / "bridge.log").read_text() == ""


def test_one_gateway_is_renewed_if_its_login_really_is_refused(tmp_path: Path) -> None:
    with start(tmp_path / "simulator", key_pool=6) as simulator, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        switches = {"host": "127.0.0.1", "new_thing_on_repeat": True}
        common: dict[str, Any] = {
            "api_url": simulator.url,
            "ca_path": simulator.ca_path,
            "broker_ca_path": simulator.ca_path,
            "spool_path": tmp_path / "spool",
            "service": "pointperfect",
            "token": simulator.put_profile("eda", service="pointperfect", simulator=switches, plan="mqtt"),
            "field_map": {"port": f"`{port}`"},
        }
        inventory = write_inventory(
            tmp_path / "inventory.yml",
            {
                name: {"thingstream_gateway_hardware_id": name, "thingstream_gateway_path": tmp_path / "on" / name}
                for name in GATEWAYS
            },
            {f"thingstream_gateway_{name}": value for name, value in common.items()},
        )
        provisioned = run_playbook(tmp_path, inventory)
        assert set(provisioned.values("action").values()) == {"created"}, provisioned.output
        (thing,) = simulator.things(hardware_id="refused")
        simulator.deactivate(thing["id"])
        simulator.clear_requests()
        broker_work, engine_work = tmp_path / "broker", tmp_path / "engine"
        broker_work.mkdir()
        engine_work.mkdir()
        crl = broker_work / "crl.pem"
        simulate("crl", simulator.directory, crl)
        mutual = f"require_certificate true\nuse_identity_as_username true\ncrlfile {crl}"
        with (
            running_broker(simulator, broker_work, mutual, address=("127.0.0.1", port)),
            engine(simulator, engine_work, inventory) as rulebook,
        ):
            assert_nobody_can_do_harm(rulebook)
            assert simulator.requests() == []

            # the login of this one works, whatever the report says
            assert rulebook.refused("sound") == 200
            with reporting_bridge(rulebook, tmp_path, "refused", port):
                rulebook.wait_for("refused")
            assert rulebook.runs()[1:] == [("sound", "none"), ("refused", "renewed")]
            (request,) = simulator.requests()
            assert len(simulator.things(hardware_id="refused")) == 2

            # who reports again soon is not looked at again
            for _report in range(3):
                assert rulebook.refused("refused") == 200
            assert rulebook.refused("fence-2") == 200
            rulebook.wait_for("fence-2")
            assert rulebook.runs()[3:] == [("fence-2", "none")]
            assert simulator.requests() == [request]
        output = rulebook.output.read_text()
        assert rulebook.token not in output
        assert common["token"] not in output


def assert_nobody_can_do_harm(rulebook: Engine) -> None:
    """Check that only the last event starts a run: no other is a report for one gateway with the right token."""
    assert rulebook.report({"report": "login_refused", "gateway": "refused"}, token="wrong") == 401
    patterns = ["all", "ungrouped", "*", "sound,refused", "sound:refused", "!sound", "&all", "~.*", "sound[0:9]", ""]
    hostile = [
        "{{ lookup('pipe', 'id') }}",
        "refused\n",
        "-e",
        "../refused",
        "refused x",
        ["refused"],
        {"a": 1},
        None,
    ]
    for name in [*patterns, *hostile]:
        assert rulebook.refused(name) == 200
    for body in ({"gateway": "refused"}, {"report": "hello", "gateway": "refused"}, ["login_refused"], {}):
        assert rulebook.report(body) == 200
    meta = {"meta": {"hosts": "all", "limit": "all"}, "hosts": "all", "limit": "all"}
    assert rulebook.report({"report": "login_refused", "gateway": "fence-1", **meta}) == 200
    rulebook.wait_for("fence-1")
    assert rulebook.runs() == [("fence-1", "none")], rulebook.output.read_text()

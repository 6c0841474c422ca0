# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real programs connect with what is deployed, and nothing else."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.ansible_run import PROJECT, run_playbook, write_inventory
from simulator.client import RunningSimulator

CONFIGURATION = """\
per_listener_settings true
listener {port} 127.0.0.1
cafile {work}/ca.crt
certfile {work}/server.crt
keyfile {work}/server.key
require_certificate true
use_identity_as_username true
acl_file {work}/acl
user root
"""


@pytest.fixture
def broker(simulator: RunningSimulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A mosquitto that wants a certificate of the platform's CA, and lets each Thing read the corrections."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    work = tmp_path_factory.mktemp("broker")
    subprocess.run(
        [sys.executable, "-m", "simulator", "server-certificate", str(simulator.directory), "--name", "localhost"]
        + ["--address", "127.0.0.1", "--output", str(work)],
        cwd=PROJECT / "tests",
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (work / "acl").write_text("pattern read /pp/#\npattern write /pp/ip/eu\n")
    (work / "mosquitto.conf").write_text(CONFIGURATION.format(port=port, work=work))
    with (work / "log").open("w") as log:
        process = subprocess.Popen([program, "-c", str(work / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        for _attempt in range(6000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise AssertionError((work / "log").read_text())
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


def mosquitto(program: str, port: int, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a client that knows the deployed files and the port, which on this machine is not 8883."""
    files = ["--cafile", str(directory / "ca.crt"), "--cert", str(directory / "client.crt")]
    command = [program, "-h", "127.0.0.1", "-p", str(port), *files, "--key", str(directory / "client.key"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_mosquitto_accepts_the_deployed_pair(
    simulator: RunningSimulator, platform: dict[str, Any], broker: int, tmp_path: Path
) -> None:
    token = simulator.put_profile("consumers", service="pointperfect", plan="mqtt")
    hosts = {
        name: {
            "thingstream_gateway_service": "pointperfect",
            "thingstream_gateway_token": token,
            "thingstream_gateway_hardware_id": f"consumer-{name}",
            "thingstream_gateway_path": tmp_path / name,
        }
        for name in ("one", "two")
    }
    run = run_playbook(tmp_path, write_inventory(tmp_path / "inventory.yml", hosts, platform))
    assert run.values("action") == {"one": "created", "two": "created"}, run.output
    one, two = (tmp_path / name / "current" for name in hosts)
    identity = ["-i", run.hosts["one"]["thing"]["client_id"]]

    published = mosquitto("mosquitto_pub", broker, two, "-t", "/pp/ip/eu", "-m", "correction", "-r", "-q", "1")
    assert published.returncode == 0, published.stderr
    received = mosquitto("mosquitto_sub", broker, one, *identity, "-t", "/pp/ip/eu", "-C", "1", "-W", "10")
    assert (received.returncode, received.stdout) == (0, "correction\n"), received.stderr

    # proof that the broker looks: a certificate with the key of another Thing, and one that its CA did not sign
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for source, name in ((one, "ca.crt"), (one, "client.crt"), (two, "client.key")):
        shutil.copy(source / name, mixed / name)
    assert mosquitto("mosquitto_sub", broker, mixed, "-t", "/pp/ip/eu", "-C", "1", "-W", "10").returncode != 0
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stranger"]
        + ["-keyout", str(mixed / "client.key"), "-out", str(mixed / "client.crt")],
        check=True,
        capture_output=True,
    )
    assert mosquitto("mosquitto_sub", broker, mixed, "-t", "/pp/ip/eu", "-C", "1", "-W", "10").returncode != 0


def test_the_environment_file_is_read_by_a_shell(
    simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path
) -> None:
    token = simulator.put_profile("environment", service="pointperfect-live")
    options = {"service": "pointperfect-live", "token": token, "hardware_id": "environment", "path": tmp_path / "one"}
    hosts = {"one": {f"thingstream_gateway_{name}": value for name, value in options.items()}}
    run = run_playbook(tmp_path, write_inventory(tmp_path / "inventory.yml", hosts, platform))
    assert run.values("action") == {"one": "created"}, run.output
    current = tmp_path / "one" / "current"
    script = '. ./credentials.env; printf "%s" "$THINGSTREAM_NTRIP_USERNAME:$THINGSTREAM_NTRIP_PASSWORD"'
    shown = subprocess.run(["sh", "-eu", "-c", script], cwd=current, capture_output=True, text=True, check=True)
    response = simulator.post(token, "pointperfect-live", hardwareId="environment").json()["rtcmCredentials"]
    assert shown.stdout == f"{response['userName']}:{response['password']}"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job over SSH: three Debian gateways and a BusyBox one without Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways.fleet import Fleet
from integration.ansible_run import Run, plain, run_playbook, spool_files
from simulator.client import RunningSimulator

HOSTS = ["bb1", "gw1", "gw2", "gw3"]
PATH = "/etc/thingstream/pointperfect"


@pytest.fixture
def settings(simulator: RunningSimulator, platform: dict[str, Any]) -> dict[str, Any]:
    token = simulator.put_profile("ssh", service="pointperfect", hardware_code_mandatory=True, plan="mqtt")
    return {
        **platform,
        "thingstream_gateway_service": "pointperfect",
        "thingstream_gateway_token": token,
        "thingstream_gateway_hardware_id": "{{ 'imei-' ~ inventory_hostname }}",
        "thingstream_gateway_group": "thingstream",
    }


@pytest.fixture
def empty_gateways(gateways: Fleet) -> Fleet:
    """The gateways, without anything that another test has installed."""
    for host in HOSTS:
        shutil.rmtree(gateways.root(host) / "etc" / "thingstream", ignore_errors=True)
    return gateways


def provision(gateways: Fleet, settings: dict[str, Any], work: Path, *arguments: str, **options: Any) -> Run:
    variables = work / "variables.yml"
    variables.write_text(yaml.safe_dump(plain(settings)))
    return run_playbook(work, gateways.inventory, "-e", f"@{variables}", *arguments, **options)


def current(gateways: Fleet, host: str) -> Path:
    """Return the path of the link to the generation in use, from outside, where only a relative link leads to it."""
    return gateways.root(host) / PATH[1:] / "current"


def test_check_run_again_check(
    empty_gateways: Fleet, settings: dict[str, Any], simulator: RunningSimulator, tmp_path: Path
) -> None:
    check = provision(empty_gateways, settings, tmp_path, "--check", "--diff")
    assert check.status == 0, check.output
    assert check.values("changed") == dict.fromkeys(HOSTS, True)
    assert not any(current(empty_gateways, host).parent.exists() for host in HOSTS)
    assert simulator.requests() == []

    first = provision(empty_gateways, settings, tmp_path)
    assert first.status == 0, first.output
    assert first.values("action") == dict.fromkeys(HOSTS, "created")
    assert first.values("reason") == dict.fromkeys(HOSTS, "absent")
    # a run that an earlier test stopped may still send its own
    sent = sorted(entry["hardware_id"] for entry in simulator.requests())
    assert [name for name in sent if name.startswith("imei-")] == [f"imei-{host}" for host in HOSTS]
    simulator.clear_requests()

    for arguments in ([], ["--check"]):
        again = provision(empty_gateways, settings, tmp_path, *arguments)
        assert again.status == 0, again.output
        assert again.values("changed") == dict.fromkeys(HOSTS, False)
        assert again.values("reason") == dict.fromkeys(HOSTS, "none")
        assert again.values("thing") == first.values("thing")
    assert simulator.requests() == []


def test_owner_group_and_modes(empty_gateways: Fleet, settings: dict[str, Any], tmp_path: Path) -> None:
    assert provision(empty_gateways, settings, tmp_path).status == 0
    for host in HOSTS:
        root = empty_gateways.root(host)
        group = next(line for line in (root / "etc/group").read_text().splitlines() if line.startswith("thingstream:"))
        found = {}
        for entry in [current(empty_gateways, host).parent, *current(empty_gateways, host).parent.rglob("*")]:
            status = entry.lstat()
            assert (status.st_uid, status.st_gid) in {(0, int(group.split(":")[2])), (0, 0)}
            if entry.name not in ("current", ".last-change", ".lock"):
                assert status.st_gid == int(group.split(":")[2]), entry
                found[entry.name] = f"{status.st_mode & 0o7777:04o}"
        assert found == {
            "pointperfect": "0750",
            "generations": "0750",
            "000001": "0750",
            "thing.json": "0640",
            "credentials.json": "0600",
            "credentials.env": "0640",
            "client.crt": "0644",
            "client.key": "0640",
            "client.pem": "0640",
            "ca.crt": "0644",
        }
        assert os.readlink(current(empty_gateways, host)) == "generations/000001"
        # the consumer is in the group, and reads with its own eyes
        assert empty_gateways.ssh(f"consumer@{host}", f"cat {PATH}/current/client.key").stdout.startswith("-----BEGIN")
        assert empty_gateways.ssh(f"consumer@{host}", f"cat {PATH}/current/credentials.json").returncode != 0


def test_the_pair_belongs_together(empty_gateways: Fleet, settings: dict[str, Any], tmp_path: Path) -> None:
    assert provision(empty_gateways, settings, tmp_path).status == 0
    moduli = set()
    for host in HOSTS:
        directory = current(empty_gateways, host)

        def openssl(*arguments: str) -> str:
            return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True).stdout

        certificate = openssl("x509", "-noout", "-modulus", "-in", str(directory / "client.crt"))
        assert openssl("rsa", "-noout", "-modulus", "-in", str(directory / "client.key")) == certificate
        assert "OK" in openssl("verify", "-CAfile", str(directory / "ca.crt"), str(directory / "client.crt"))
        record = json.loads((directory / "thing.json").read_text())
        fingerprint = openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", str(directory / "client.crt"))
        assert fingerprint.strip().split("=")[1].replace(":", "").lower() == record["fingerprint_sha256"]
        assert f"CN = {record['client_id']}" in openssl(
            "x509", "-noout", "-subject", "-in", str(directory / "client.crt")
        )
        moduli.add(certificate)
    assert len(moduli) == len(HOSTS)


@pytest.mark.parametrize("user", ["operator", "careful"])
def test_become_by_sudo(empty_gateways: Fleet, settings: dict[str, Any], tmp_path: Path, user: str) -> None:
    become = {"ansible_user": user, "ansible_become": True}
    if user == "careful":
        become["ansible_become_password"] = "careful-password"
    run = provision(empty_gateways, {**settings, **become}, tmp_path, "--limit", "gw1")
    assert run.values("action") == {"gw1": "created"}, run.output
    assert current(empty_gateways, "gw1").parent.stat().st_uid == 0
    assert provision(empty_gateways, {**settings, **become}, tmp_path, "--limit", "gw1").values("changed") == {
        "gw1": False
    }


def test_without_become_nothing_is_asked(
    empty_gateways: Fleet, settings: dict[str, Any], simulator: RunningSimulator, tmp_path: Path
) -> None:
    run = provision(empty_gateways, {**settings, "ansible_user": "operator"}, tmp_path, "--limit", "gw1")
    assert run.values("error_code") == {"gw1": "permission"}
    assert "become" in run.hosts["gw1"]["msg"]
    assert simulator.requests() == []


def test_drift_and_damage_are_repaired_without_the_platform(
    empty_gateways: Fleet, settings: dict[str, Any], simulator: RunningSimulator, tmp_path: Path
) -> None:
    assert provision(empty_gateways, settings, tmp_path).status == 0
    simulator.clear_requests()
    (current(empty_gateways, "gw1") / "client.key").write_text("damaged")
    (current(empty_gateways, "gw2") / "client.pem").chmod(0o644)
    os.chown(current(empty_gateways, "gw3") / "client.crt", 1, 1)
    (current(empty_gateways, "bb1") / "ca.crt").unlink()
    check = provision(empty_gateways, settings, tmp_path, "--check")
    assert check.values("changed") == dict.fromkeys(HOSTS, True)
    run = provision(empty_gateways, settings, tmp_path)
    assert run.values("action") == dict.fromkeys(HOSTS, "repaired"), run.output
    assert run.values("reason") == {"bb1": "damaged", "gw1": "damaged", "gw2": "drift", "gw3": "drift"}
    assert run.values("generation") == {"bb1": "000002", "gw1": "000002", "gw2": "000001", "gw3": "000001"}
    assert provision(empty_gateways, settings, tmp_path).values("changed") == dict.fromkeys(HOSTS, False)
    assert simulator.requests() == []


def test_a_gateway_that_vanishes_finds_its_response_in_spool(
    empty_gateways: Fleet, settings: dict[str, Any], simulator: RunningSimulator, tmp_path: Path
) -> None:
    """The path becomes unwritable between request and installation, on a gateway whose user is not root."""
    path = empty_gateways.root("gw1") / "home/operator/credentials"
    shutil.rmtree(path.parent / "credentials", ignore_errors=True)
    here = {"ansible_user": "operator", "thingstream_gateway_path": "/home/operator/credentials"}
    del settings["thingstream_gateway_group"]
    simulator.add_fault("delay_after", seconds=3, hardware_id="imei-gw1")
    variables = tmp_path / "variables.yml"
    variables.write_text(yaml.safe_dump(plain({**settings, **here})))
    known = len(simulator.things(hardware_id="imei-gw1"))
    owner = path.parent.stat()

    def take_away() -> None:
        """Make the path unwritable once the Thing exists: then the look is over, and the response is on its way."""
        while len(simulator.things(hardware_id="imei-gw1")) == known:
            time.sleep(0.1)
        os.chown(path.parent, 0, 0)

    simulator.put_profile("ssh", service="pointperfect", simulator={"new_thing_on_repeat": True}, plan="mqtt")
    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    try:
        run = run_playbook(tmp_path, empty_gateways.inventory, "-e", f"@{variables}", "--limit", "gw1")
    finally:
        thread.join(timeout=30)
        os.chown(path.parent, owner.st_uid, owner.st_gid)
    assert run.values("error_code") == {"gw1": "permission"}, run.output
    assert "kept in" in run.hosts["gw1"]["msg"]
    (spooled,) = spool_files(tmp_path / "spool")
    assert spooled.stat().st_mode & 0o777 == 0o600
    assert len(simulator.requests()) == 1

    run = run_playbook(tmp_path, empty_gateways.inventory, "-e", f"@{variables}", "--limit", "gw1")
    assert run.values("action") == {"gw1": "created"}, run.output
    assert len(simulator.requests()) == 1
    assert spool_files(tmp_path / "spool") == []


@pytest.mark.parametrize("program", ["sha256sum", "tar"])
def test_a_gateway_without_a_necessary_program(
    empty_gateways: Fleet, settings: dict[str, Any], simulator: RunningSimulator, tmp_path: Path, program: str
) -> None:
    path = empty_gateways.root("gw1") / "usr/bin" / program
    path.rename(path.with_name("hidden"))
    try:
        run = provision(empty_gateways, settings, tmp_path, "--limit", "gw1")
    finally:
        path.with_name("hidden").rename(path)
    assert run.values("error_code") == {"gw1": "gateway_unsupported"}, run.output
    assert program in run.hosts["gw1"]["msg"]
    assert simulator.requests() == []


def test_no_host_is_a_success(gateways: Fleet, settings: dict[str, Any], tmp_path: Path) -> None:
    empty = tmp_path / "empty.yml"
    empty.write_text("all:\n  hosts: {}\n")
    assert run_playbook(tmp_path, empty).status == 0
    assert run_playbook(tmp_path, gateways.inventory, "-e", "thingstream_hosts=nobody").status == 0

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is configured in AWX runs: job templates by ansible-runner, with what AWX makes of their credentials."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from awx.conftest import EXTENSION, Site
from awx.job import Job, launch
from integration.ansible_run import PROJECT
from integration.leaks import found_in
from simulator.client import RunningSimulator

TASK = "Ensure credentials"


@pytest.fixture
def hosts(site: Site, simulator: RunningSimulator, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Two gateways on this machine, and no request yet."""
    simulator.clear_requests()
    common = {
        "ansible_connection": "local",
        "ansible_become": False,
        "thingstream_gateway_broker_ca_path": simulator.ca_path,
    }
    return {
        name: {
            **common,
            "thingstream_gateway_hardware_id": f"{tmp_path.name}-{name}",
            "thingstream_gateway_path": tmp_path / name,
        }
        for name in ("gw1", "gw2")
    }


@pytest.fixture
def volume(site: Site) -> Path:
    """What every job mounts; not there unless a test asks for it."""
    path = Path(site.settings["thingstream_awx_volume"])
    path.mkdir(exist_ok=True)
    return path


def values(job: Job, name: str) -> dict[str, Any]:
    return {host: result.get(name) for host, result in sorted(job.results(TASK).items())}


def secrets_of(site: Site, *directories: Path) -> dict[str, str]:
    keys = {str(directory): (directory / "current/client.key").read_text() for directory in directories}
    return {**site.secrets, **keys}


def shown_in(job: Job, secrets: Mapping[str, str]) -> set[str]:
    """The secrets that AWX would keep with a job: in its events and its output."""
    artifacts = job.directory / "artifacts/job"
    files = [file for file in (artifacts / "job_events", artifacts / "stdout") if file.exists()]
    content = b"".join(one.read_bytes() for file in files for one in (file.rglob("*") if file.is_dir() else [file]))
    assert content
    return found_in(content, dict(secrets))


def test_without_the_volume_nothing_is_asked(
    site: Site, simulator: RunningSimulator, hosts: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert not Path(site.settings["thingstream_awx_volume"]).exists()
    job = launch(site.awx, "Thingstream provision", tmp_path / "job", hosts)
    assert values(job, "error_code") == dict.fromkeys(hosts, "spool_failed")
    assert simulator.requests() == []


def test_provision_with_what_the_credential_injects(
    site: Site, simulator: RunningSimulator, hosts: dict[str, dict[str, Any]], tmp_path: Path, volume: Path
) -> None:
    hosts["gw2"]["thingstream_gateway_reload_command"] = "false"
    job = launch(site.awx, "Thingstream provision", tmp_path / "first", hosts)
    assert values(job, "action")["gw1"] == "created", job.results(TASK)
    # the response for a gateway that could not take it outlives the job, encrypted by the Vault credential
    assert values(job, "error_code")["gw2"] == "health_check_failed"
    (kept,) = (volume / "spool").glob("*.response")  # the ledger stays
    assert kept.read_bytes().startswith(b"$ANSIBLE_VAULT")
    assert not list((tmp_path / "first/home").rglob("*.response"))
    assert len(simulator.requests()) == 2
    assert (tmp_path / "gw1/current/client.crt").exists()

    del hosts["gw2"]["thingstream_gateway_reload_command"]
    again = launch(site.awx, "Thingstream provision", tmp_path / "second", hosts)
    assert values(again, "action") == {"gw1": "none", "gw2": "created"}
    assert list((volume / "spool").glob("*.response")) == []
    assert len(simulator.requests()) == 2

    secrets = secrets_of(site, tmp_path / "gw1", tmp_path / "gw2")
    assert [shown_in(one, secrets) for one in (job, again)] == [set(), set()]


def test_a_blank_ca_trusts_the_usual_authorities(
    site: Site, simulator: RunningSimulator, hosts: dict[str, dict[str, Any]], tmp_path: Path, volume: Path
) -> None:
    credential = site.awx.named("credentials", "Thingstream")
    credential["inputs"]["ca"] = ""
    job = launch(site.awx, "Thingstream provision", tmp_path / "usual", hosts)
    assert values(job, "error_code") == dict.fromkeys(hosts, "tls")
    usual = {"REQUESTS_CA_BUNDLE": str(simulator.ca_path)}
    job = launch(site.awx, "Thingstream provision", tmp_path / "own", hosts, environment=usual)
    assert values(job, "action") == dict.fromkeys(hosts, "created")


def test_reports_are_kept_on_the_volume(
    site: Site, hosts: dict[str, dict[str, Any]], tmp_path: Path, volume: Path
) -> None:
    job = launch(site.awx, "Thingstream audit", tmp_path / "job", hosts)
    assert job.status == 0
    assert list(volume.glob("thingstream-audit*"))


def test_nobody_rolls_back_the_fleet_by_a_click(site: Site, hosts: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    job = launch(site.awx, "Thingstream rollback", tmp_path / "job", hosts)
    assert job.status != 0
    assert job.results("Roll back") == {}
    chosen = launch(site.awx, "Thingstream rollback", tmp_path / "chosen", hosts, limit="gw1")
    assert {host: result["error_code"] for host, result in chosen.results("Roll back").items()} == {
        "gw1": "no_generation"
    }


def test_every_playbook_of_the_project_can_be_read() -> None:
    playbooks = sorted(path.name for path in (EXTENSION / "project").glob("*.yml") if path.name != "inventory.yml")
    assert playbooks == sorted(
        path.name for path in (PROJECT / "playbooks").glob("*.yml") if path.name != "identify.yml"
    )
    command = [f"{sys.prefix}/bin/ansible-playbook", "--syntax-check", "-i", "inventory.yml", *playbooks]
    run = subprocess.run(
        command,
        cwd=EXTENSION / "project",
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr

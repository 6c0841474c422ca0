# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Job templates run: ansible-runner starts them with what AWX makes of template, inventory and credentials."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import summary
from awx.conftest import EXTENSION, Site
from awx.job import Job, launch, launch_slices
from awx.stand_in import Refused
from integration.ansible_run import PROJECT, plain
from integration.leaks import found_in
from simulator.client import RunningSimulator

TASK = "Ensure credentials"


class Fleet(dict[str, dict[str, Any]]):
    """The gateways in the inventory of the repository, with their variables."""

    def __init__(self, file: Path, hosts: Mapping[str, dict[str, Any]]) -> None:
        super().__init__(hosts)
        self.file = file

    def commit(self) -> None:
        self.file.write_text(yaml.safe_dump({"gateways": {"hosts": plain(dict(self))}}))


@pytest.fixture
def fleet(site: Site, simulator: RunningSimulator, tmp_path: Path) -> Iterator[Fleet]:
    """Two gateways on this machine, and no request yet."""
    simulator.clear_requests()
    file = site.awx.projects / "gateways/inventory.yml"
    before = file.read_text()
    common = {
        "ansible_connection": "local",
        "ansible_become": False,
        "thingstream_gateway_broker_ca_path": simulator.ca_path,
    }
    hosts = {
        name: {
            **common,
            "thingstream_gateway_hardware_id": f"{tmp_path.name}-{name}",
            "thingstream_gateway_path": tmp_path / name,
        }
        for name in ("gw1", "gw2")
    }
    found = Fleet(file, hosts)
    found.commit()
    yield found
    file.write_text(before)


@pytest.fixture
def volume(site: Site) -> Path:
    """The volume that every job mounts; missing unless a test asks for it."""
    path = Path(site.settings["thingstream_awx_volume"])
    path.mkdir(exist_ok=True)
    return path


def values(job: Job, name: str) -> dict[str, Any]:
    return {host: result.get(name) for host, result in sorted(job.results(TASK).items())}


def secrets_of(site: Site, *directories: Path) -> dict[str, str]:
    keys = {str(directory): (directory / "current/client.key").read_text() for directory in directories}
    return {**site.secrets, **keys}


def shown_in(job: Job, secrets: Mapping[str, str]) -> set[str]:
    """Return the secrets that AWX would keep with a job: in its events and its output."""
    artifacts = job.directory / "artifacts/job"
    files = [file for file in (artifacts / "job_events", artifacts / "stdout") if file.exists()]
    content = b"".join(one.read_bytes() for file in files for one in (file.rglob("*") if file.is_dir() else [file]))
    assert content
    return found_in(content, dict(secrets))


def test_without_the_volume_no_request_is_sent(
    site: Site, simulator: RunningSimulator, fleet: Fleet, tmp_path: Path
) -> None:
    assert not Path(site.settings["thingstream_awx_volume"]).exists()
    job = launch(site.awx, "Thingstream provision", tmp_path / "job")
    assert values(job, "error_code") == dict.fromkeys(fleet, "spool_failed")
    assert simulator.requests() == []


def test_provision_with_what_the_credential_injects(
    site: Site, simulator: RunningSimulator, fleet: Fleet, tmp_path: Path, volume: Path
) -> None:
    """Twice, as two nodes of a workflow: the sum of the summaries counts each gateway once."""
    fleet["gw2"]["thingstream_gateway_reload_command"] = "false"
    fleet.commit()
    job = launch(site.awx, "Thingstream provision", tmp_path / "first")
    assert values(job, "action")["gw1"] == "created", job.results(TASK)
    # the response for the gateway that failed outlives the job, encrypted by the Vault credential
    assert values(job, "error_code")["gw2"] == "health_check_failed"
    (kept,) = (volume / "spool").glob("*.response")  # the ledger stays
    assert kept.read_bytes().startswith(b"$ANSIBLE_VAULT")
    assert not list((tmp_path / "first/home").rglob("*.response"))
    assert len(simulator.requests()) == 2
    assert (tmp_path / "gw1/current/client.crt").exists()

    del fleet["gw2"]["thingstream_gateway_reload_command"]
    fleet.commit()
    again = launch(site.awx, "Thingstream provision", tmp_path / "second", artifacts=job.artifacts)
    assert values(again, "action") == {"gw1": "none", "gw2": "created"}
    assert list((volume / "spool").glob("*.response")) == []
    assert len(simulator.requests()) == 2

    received = {**job.artifacts, **again.artifacts}
    parts = [value for name, value in received.items() if re.fullmatch("thingstream_summary_[0-9]+", name)]
    assert len(parts) == 2
    total = summary.total(parts)
    assert total == again.artifacts["thingstream_summary"]
    assert {name: total[name] for name in ("hosts", "renewed", "not_due")} == {"hosts": 2, "renewed": 1, "not_due": 1}

    secrets = secrets_of(site, tmp_path / "gw1", tmp_path / "gw2")
    assert [shown_in(one, secrets) for one in (job, again)] == [set(), set()]


def test_a_blank_ca_trusts_the_usual_authorities(
    site: Site, simulator: RunningSimulator, fleet: Fleet, tmp_path: Path, volume: Path
) -> None:
    """With a Vault credential of the user, which has an ID."""
    credential = site.awx.named("credentials", "Thingstream")
    credential["inputs"]["ca"] = ""
    template = site.awx.named("job_templates", "Thingstream provision")["id"]
    kinds = {one["kind"]: one["id"] for one in site.awx.all("credential_types")}
    default = site.awx.named("organizations", "Default")["id"]
    (of_the_user,) = (
        one["id"]
        for one in site.awx.search("credentials", {"name": "Gateways", "organization": str(default)})
        if one["credential_type"] == kinds["vault"]
    )
    members = site.awx.members[template, "credentials"]
    members[members.index(site.awx.named("credentials", "Thingstream spool")["id"])] = of_the_user
    job = launch(site.awx, "Thingstream provision", tmp_path / "usual")
    assert values(job, "error_code") == dict.fromkeys(fleet, "tls")
    usual = {"REQUESTS_CA_BUNDLE": str(simulator.ca_path)}
    job = launch(site.awx, "Thingstream provision", tmp_path / "own", environment=usual)
    assert values(job, "action") == dict.fromkeys(fleet, "created")


def test_reports_are_kept_on_the_volume(site: Site, fleet: Fleet, tmp_path: Path, volume: Path) -> None:
    job = launch(site.awx, "Thingstream audit", tmp_path / "job")
    assert job.status == 0
    assert list(volume.glob("thingstream-audit*"))


# ---- slices ----


def test_a_limit_works_with_one_slice_only(site: Site, fleet: Fleet, tmp_path: Path, volume: Path) -> None:
    """AWX slices before it limits. The workflow takes one slice, whatever the template says."""
    sliced = launch_slices(site.awx, "Thingstream renew", tmp_path / "sliced", limit="gw1", slices=2)
    assert [job.status for job in sliced] == [0, 1]
    assert "leaves us with no hosts to target" in sliced[1].output

    site.awx.named("job_templates", "Thingstream provision")["job_slice_count"] = 2
    (node,) = (one for one in site.awx.all("workflow_job_template_nodes") if one["identifier"] == "provision")
    template = site.awx.objects[node["unified_job_template"]]["name"]
    in_workflow = launch(site.awx, template, tmp_path / "node", limit="gw1", slices=node["job_slice_count"])
    assert values(in_workflow, "action") == {"gw1": "created"}


# ---- answers to surveys ----


def test_an_answer_that_is_no_list_of_batches_is_named(site: Site, fleet: Fleet, tmp_path: Path, volume: Path) -> None:
    answer = {"thingstream_rotate_batches": "{{ 1 }}, then all"}
    job = launch(site.awx, "Thingstream rotate", tmp_path / "job", **answer)
    assert job.status != 0
    assert 'thingstream_rotate_batches: "{{ 1 }}", "then all" is not a batch.' in " ".join(job.output.split())
    assert "bug" not in job.output


def test_an_answer_that_is_no_date_is_named(site: Site, fleet: Fleet, tmp_path: Path, volume: Path) -> None:
    job = launch(site.awx, "Thingstream rotate", tmp_path / "job", thingstream_rotate_before="yesterday")
    (result,) = job.results("Replace what arrived before the rotation began").values()
    assert result["error_code"] == "bad_option"
    assert "rotate_before must be a date in UTC" in result["msg"]


def test_a_click_does_not_roll_back_the_fleet(site: Site, fleet: Fleet, tmp_path: Path) -> None:
    """The default limit matches no gateway. An answer that is no generation is named."""
    job = launch(site.awx, "Thingstream rollback", tmp_path / "job")
    assert job.status != 0
    assert job.results("Roll back") == {}
    answer = {"thingstream_gateway_generation": "the last one"}
    chosen = launch(site.awx, "Thingstream rollback", tmp_path / "chosen", limit="gw1", **answer)
    (result,) = chosen.results("Roll back").values()
    assert result["error_code"] == "no_generation"
    assert "There is no generation the last one" in result["msg"]


def test_the_stand_in_refuses_a_launch_without_a_required_answer(site: Site, tmp_path: Path) -> None:
    site.awx.surveys[site.awx.named("job_templates", "Thingstream rotate")["id"]]["spec"][0]["required"] = True
    with pytest.raises(Refused, match="'thingstream_rotate_batches' value missing"):
        launch(site.awx, "Thingstream rotate", tmp_path / "job")


# ---- SSH ----


def test_host_keys_are_checked_where_that_is_configured(site: Site, fleet: Fleet, tmp_path: Path, volume: Path) -> None:
    """AWX turns the check off; AWX_TASK_ENV turns it on for all jobs, a variable of the inventory for its gateways."""
    ssh, log = tmp_path / "ssh", tmp_path / "log"
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {log}\nexit 255\n')
    ssh.chmod(0o700)
    for number, variables in enumerate(fleet.values(), 1):
        variables.update(ansible_connection="ssh", ansible_host=f"192.0.2.{number}", ansible_ssh_executable=ssh)
    fleet["gw2"]["ansible_host_key_checking"] = True
    fleet.commit()

    def unchecked(name: str, **options: Any) -> set[str]:
        """Return the gateways whose host key a job does not check."""
        log.write_text("")
        launch(site.awx, "Thingstream verify", tmp_path / name, **options)
        calls = log.read_text().splitlines()
        hosts = {call: re.findall(r"192\.0\.2\.\d", call)[0] for call in calls}
        assert set(hosts.values()) == {"192.0.2.1", "192.0.2.2"}
        assert all('User="deploy"' in call for call in calls)
        return {hosts[call] for call in calls if "StrictHostKeyChecking=no" in call}

    assert unchecked("default") == {"192.0.2.1"}
    assert unchecked("checked", task_environment={"ANSIBLE_HOST_KEY_CHECKING": "True"}) == set()


# ---- the repository ----


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

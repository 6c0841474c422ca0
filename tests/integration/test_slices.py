# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet cut into slices as AWX cuts it, run at the same time by ansible-runner: the same result as one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import summary as fleet_summary
from integration.ansible_run import PROJECT, plain, spool_files
from integration.leaks import found_in_files
from simulator.client import RunningSimulator

FLEET = [f"gateway-{number:02}" for number in range(1, 9)]
AT_ONCE = 3
# of a record, what differs between two Things of one history
OF_THE_THING = {
    "client_id",
    "login_sha256",
    "identity_sha256",
    "fingerprint_sha256",
    "issued_at",
    "not_before",
    "not_after",
    "files",
}


@dataclass(frozen=True)
class Job:
    """A job that has ended: its status, its statistics, the summary it published, and its results by task."""

    status: int
    private: Path
    statistics: Mapping[str, Any] = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()

    @property
    def summary(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.statistics.get("artifact_data", {}).get("thingstream_summary")
        return found


@dataclass(frozen=True)
class Controller:
    """One controller with one spool; gateways are directories, and a private directory is made for each job."""

    work: Path
    simulator: RunningSimulator
    variables: Mapping[str, Any]

    def run(self, name: str, playbook: str, slices: int, fleet: Mapping[str, Any], **variables: Any) -> list[Job]:
        """Run all slices of a job, some at the same time; ``variables`` come without their prefix."""
        cut = [dict(sorted(fleet.items())[number::slices]) for number in range(slices)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [
                pool.submit(self.job, f"{name}-{number}", number, playbook, hosts, variables)
                for number, hosts in enumerate(cut, 1)
            ]
            return [job.result() for job in jobs]

    def job(self, name: str, number: int, playbook: str, hosts: Mapping[str, Any], variables: Mapping[str, Any]) -> Job:
        """Run one slice with an inventory that knows no other gateway."""
        private = self.work / "jobs" / name
        (private / "inventory").mkdir(parents=True)
        (private / "project").mkdir()
        (private / "env").mkdir()
        own = {f"thingstream_gateway_{key}": value for key, value in variables.items()}
        common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **self.variables, **own}
        # AWX writes a script that prints JSON; localhost is not among its hosts
        inventory = {
            "all": {"vars": plain(common)},
            "gateways": {"hosts": list(hosts)},
            "_meta": {"hostvars": plain(hosts)},
        }
        script = private / "inventory" / "hosts"
        script.write_text(f"#!{sys.executable}\nprint({json.dumps(inventory)!r})\n")
        script.chmod(0o700)
        (private / "env" / "extravars").write_text(json.dumps({"awx_job_id": 100 + number}))
        status = subprocess.run(
            ["ansible-runner", "run", str(private), "-p", playbook, "--ident", "it", "-v", "--quiet"],
            env={
                **{key: os.environ[key] for key in ("LANG",) if key in os.environ},
                "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
                "HOME": str(self.work),
                "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache"),
                "ANSIBLE_HOME": str(self.work / "home"),
            },
            timeout=180,
            check=False,
        ).returncode
        found = [json.loads(path.read_text()) for path in (private / "artifacts" / "it" / "job_events").glob("*.json")]
        ended = [event["event_data"] for event in found if event["event"] == "playbook_on_stats"]
        results = [event["event_data"] for event in found if event["event"].startswith("runner_on_")]
        return Job(status, private, ended[0] if ended else {}, results)

    def records(self, fleet: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the state of each gateway, without the fields that differ between two Things."""
        found = {}
        for host, variables in fleet.items():
            path = Path(variables["thingstream_gateway_path"])
            record = json.loads((path / "current" / "thing.json").read_text())
            kept = {name: value for name, value in record.items() if name not in OF_THE_THING}
            retired = [entry["hardware_id"] for entry in record.get("retired") or []]
            found[host] = {
                **kept,
                "retired": retired,
                "names": sorted(record["files"]),
                "generations": sorted(os.listdir(path / "generations")),
                "current": os.readlink(path / "current"),
            }
        return found

    def secrets(self, fleet: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return the passwords that the gateways of a fleet hold, and their token."""
        found = {}
        for variables in fleet.values():
            directory = Path(variables["thingstream_gateway_path"])
            found[f"token of {directory}"] = variables["thingstream_gateway_token"]
            for file in directory.glob("generations/*/credentials.json"):
                found[f"password of {file}"] = json.loads(file.read_text())["password"]
        return found

    def shown(self, secrets: dict[str, str]) -> dict[str, set[str]]:
        """Return the secrets in each file that jobs leave on a controller, except inventories, which have tokens."""
        found = found_in_files(secrets, 0, self.work / "jobs", self.work / "home")
        inventories = {file for file in found if file.endswith("/inventory/hosts")}
        assert inventories, "the search finds nothing even where something is"
        return {file: names for file, names in found.items() if file not in inventories}


@pytest.fixture
def controller(simulator: RunningSimulator, platform: Mapping[str, Any], tmp_path: Path) -> Controller:
    return Controller(tmp_path, simulator, {**platform, "thingstream_gateway_service": "cloudlocate"})


def fleet(controller: Controller, name: str, hosts: Sequence[str] = FLEET) -> dict[str, dict[str, Any]]:
    """Return the variables of gateways that hold nothing, with a device profile of their own."""
    token = controller.simulator.put_profile(f"slices-{name}", service="cloudlocate")
    return {
        host: {
            "thingstream_gateway_token": token,
            "thingstream_gateway_hardware_id": f"slices-{host}",
            "thingstream_gateway_path": controller.work / name / host,
        }
        for host in hosts
    }


def unreachable(host: str) -> dict[str, Any]:
    """Return the variables of a gateway that refuses connections."""
    return {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.1.250",
        "ansible_port": 1,
        "thingstream_gateway_token": "00000000-0000-4000-8000-000000000000",
        "thingstream_gateway_hardware_id": host,
    }


def published(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the dictionary that the next node of a workflow gets from all slices; the last value of a name wins."""
    return {name: value for job in jobs for name, value in job.statistics.get("artifact_data", {}).items()}


def total(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the sum of the slices, found as the next node of the workflow can find it."""
    names = [name for name in published(jobs) if name.startswith("thingstream_summary_")]
    return fleet_summary.total([published(jobs)[name] for name in names])


def counts(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of a summary that are not zero."""
    return {name: summary[name] for name in fleet_summary.COUNTS if summary[name]}


@pytest.mark.full
def test_slices_do_what_one_run_does(controller: Controller) -> None:
    """Provisioned, renewed with nothing due, cut anew and renewed by force; the slices share spool and caches."""
    whole, sliced = fleet(controller, "whole"), fleet(controller, "sliced")
    steps = [
        ("provision", 3, {}, {"hosts": 8, "due": 8, "renewed": 8}),
        ("renew", 2, {}, {"hosts": 8, "not_due": 8}),
        ("renew", 4, {"force": True}, {"hosts": 8, "due": 8, "renewed": 8}),
    ]
    for number, (playbook, slices, variables, expected) in enumerate(steps):
        controller.simulator.clear_requests()
        (alone,) = controller.run(f"whole-{number}", f"thingstream.ztp.{playbook}", 1, whole, **variables)
        jobs = controller.run(f"sliced-{number}", f"thingstream.ztp.{playbook}", slices, sliced, **variables)
        assert [job.status for job in (alone, *jobs)] == [0] * (slices + 1)
        assert alone.summary is not None
        assert counts(alone.summary) == counts(total(jobs)) == expected
        assert total(jobs)["reasons"] == alone.summary["reasons"]
        assert total(jobs) == fleet_summary.total([job.summary for job in jobs if job.summary])
        assert controller.records(sliced) == controller.records(whole)
        assert len(controller.simulator.requests()) == 2 * expected.get("due", 0)
    for profile in ("slices-whole", "slices-sliced"):
        things = controller.simulator.things(profile=profile)
        assert sorted(thing["hardware_id"] for thing in things) == sorted([f"slices-{host}" for host in FLEET] * 2)
    assert spool_files(controller.work / "spool") == []

    audits = controller.run("audit", "thingstream.ztp.audit", 2, sliced)
    reports = [json.loads((job.private / "project" / "thingstream-audit.json").read_text()) for job in audits]
    assert sorted(row["host"] for found in reports for row in found["gateways"]) == FLEET
    # to a slice, the gateways of the others look removed, as far as the ledger goes
    listed = [entry["host"] for found in reports for entry in found["retired"] if not entry["from_ledger"]]
    assert sorted(listed) == FLEET

    secrets = controller.secrets(whole) | controller.secrets(sliced)
    assert len(secrets) == 2 * len(FLEET) * 3
    assert controller.shown(secrets) == {}


def test_more_slices_than_gateways(controller: Controller) -> None:
    few = fleet(controller, "few", FLEET[:2])
    jobs = controller.run("few", "thingstream.ztp.provision", 3, few)
    assert [job.status for job in jobs] == [0, 0, 0]
    assert [job.summary is None for job in jobs] == [False, False, True]
    assert counts(total(jobs)) == {"hosts": 2, "due": 2, "renewed": 2}
    assert controller.records(few).keys() == few.keys()


def test_an_empty_slice_succeeds(controller: Controller) -> None:
    """Of every playbook, one after the other in one job."""
    playbooks = sorted((PROJECT / "playbooks").glob("*.yml"))
    names = [path.stem for path in playbooks]
    plays = sum(len(yaml.safe_load(path.read_text())) for path in playbooks)
    every = controller.work / "every.yml"
    every.write_text(yaml.safe_dump([{"ansible.builtin.import_playbook": f"thingstream.ztp.{name}"} for name in names]))
    (job,) = controller.run("empty", str(every), 1, {})
    assert (job.status, job.summary, list(job.results)) == (0, None, [])
    assert (job.private / "artifacts" / "it" / "stdout").read_text().count("no hosts matched") == plays


def test_failures_are_counted_in_their_slice(controller: Controller) -> None:
    """In one slice nothing answers, in one the first gateway fails, and one has no trouble."""
    hosts = fleet(controller, "trouble", FLEET[:6])
    for host in FLEET[0:6:3]:
        hosts[host] = unreachable(host)
    hosts[FLEET[1]]["thingstream_gateway_token"] = "ffffffff-ffff-4fff-bfff-ffffffffffff"
    for playbook in ("provision", "renew"):
        jobs = controller.run(playbook, f"thingstream.ztp.{playbook}", 3, hosts)
        assert [job.status for job in jobs] == [4, 2 if playbook == "provision" else 0, 0]
        done = {"due": 1, "renewed": 1} if playbook == "provision" else {"not_due": 1}
        assert [counts(job.summary or {}) for job in jobs] == [
            {"hosts": 2, "failed": 2},
            {"hosts": 2, **done, "failed": 1} if playbook == "provision" else {"hosts": 2, "not_due": 2},
            {"hosts": 2, **{name: 2 * value for name, value in done.items()}},
        ]


@pytest.mark.full
def test_batches_of_slices_add_up(controller: Controller) -> None:
    """Two slices rotate at once, in batches; in the next rotation one gateway's failure stops its own slice only."""
    hosts = fleet(controller, "batches", FLEET[:6])
    assert controller.run("first", "thingstream.ztp.provision", 1, hosts)[0].status == 0
    time.sleep(1)  # a rotation replaces what arrived in an earlier second
    jobs = controller.run("rotate", "thingstream.ztp.rotate", 2, hosts)
    assert [job.status for job in jobs] == [0, 0]
    assert [counts(job.summary or {}) for job in jobs] == [{"hosts": 3, "due": 3, "renewed": 3}] * 2
    assert len(controller.simulator.things(profile="slices-batches")) == 12

    time.sleep(1)
    controller.simulator.add_fault("status", status=403, body="No plan for device x", hardware_id=f"slices-{FLEET[2]}")
    stopped, other = controller.run("stop", "thingstream.ztp.rotate", 2, hosts)
    assert (stopped.status, other.status) == (2, 0)
    assert counts(other.summary or {}) == {"hosts": 3, "due": 3, "renewed": 3}
    # the canary was renewed; gateways of the batch that stops a rotation count as failed, those after it not at all
    assert counts(stopped.summary or {}) == {"hosts": 2, "due": 1, "renewed": 1, "failed": 1}
    assert controller.shown(controller.secrets(hosts)) == {}

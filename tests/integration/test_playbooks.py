# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook over SSH as check, run, run again, check again; on three Debian gateways and a BusyBox one."""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways.fleet import END_SESSION, Fleet
from integration.ansible_run import PROJECT, Run, plain, run_playbook, spool_files
from simulator.client import RunningSimulator

HOSTS = ["bb1", "gw1", "gw2", "gw3"]
PATH = "/etc/thingstream/cloudlocate"
DAY = 86400
IDENTITY = ("client_id", "service", "hardware_id", "given_name")


@dataclass(frozen=True)
class Site:
    """A fleet, its platform, and the variables of its inventory."""

    gateways: Fleet
    simulator: RunningSimulator
    work: Path
    variables: dict[str, Any]
    inventory: Path | None = None

    def run(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        """Run a playbook of the collection; ``variables`` come without their prefix."""
        own = {f"thingstream_gateway_{name}": value for name, value in variables.items()}
        file = self.work / "variables.yml"
        file.write_text(yaml.safe_dump(plain({**self.variables, **own})))
        return run_playbook(
            self.work,
            self.inventory or self.gateways.inventory,
            "-e",
            f"@{file}",
            *arguments,
            playbook=f"thingstream.ztp.{playbook}",
        )

    def path(self, host: str) -> Path:
        return self.gateways.root(host) / str(self.variables.get("thingstream_gateway_path", PATH))[1:]

    def record(self, host: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.path(host) / "current" / "thing.json").read_text())
        return record

    def client_ids(self) -> dict[str, str]:
        return {host: self.record(host)["client_id"] for host in HOSTS}

    def current(self) -> dict[str, str]:
        return {host: os.readlink(self.path(host) / "current").rpartition("/")[2] for host in HOSTS}

    def age(self, hosts: Sequence[str], issued_at: str = "2020-01-01T00:00:00Z") -> None:
        """Make the credentials of some gateways look as if they had arrived long ago."""
        for host in hosts:
            file = self.path(host) / "current" / "thing.json"
            mode = file.stat().st_mode
            file.write_text(json.dumps({**self.record(host), "issued_at": issued_at}))
            file.chmod(mode)


@pytest.fixture
def site(gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Site:
    """CloudLocate, where every request makes a new Thing; the gateways hold nothing."""
    for host in HOSTS:
        shutil.rmtree(gateways.root(host) / "etc" / "thingstream", ignore_errors=True)
    token = simulator.put_profile("playbooks", service="cloudlocate")
    variables = {
        **platform,
        "thingstream_gateway_service": "cloudlocate",
        "thingstream_gateway_token": token,
        "thingstream_gateway_hardware_id": "{{ 'site-' ~ inventory_hostname }}",
        "thingstream_gateway_group": "thingstream",
    }
    return Site(gateways, simulator, tmp_path, variables)


def changed(run: Run, task: str) -> dict[str, bool]:
    assert run.status == 0, run.output
    return {host: result["changed"] for host, result in sorted(run.of(task).items())}


ALL, NONE = dict.fromkeys(HOSTS, True), dict.fromkeys(HOSTS, False)


# ---- a gateway that holds nothing ----


@pytest.mark.parametrize(
    "playbook",
    ["provision", *(pytest.param(name, marks=pytest.mark.full) for name in ("rotate", "renew", "retire", "audit"))],
)
def test_nothing_is_made_where_nothing_is(site: Site, playbook: str) -> None:
    state = {"provision": ["-e", "thingstream_gateway_state=absent"]}.get(playbook, [])
    for arguments in (["--check", *state], state, ["--check", *state]):
        run = site.run(playbook, *arguments)
        assert run.status == 0, run.output
        assert site.simulator.requests() == []
        assert not any(site.path(host).exists() for host in HOSTS)


@pytest.mark.parametrize(("playbook", "code"), [("rollback", "no_generation"), ("verify", "no_generation")])
@pytest.mark.parametrize("arguments", [["--check"], []])
def test_what_needs_credentials_says_so(site: Site, playbook: str, code: str, arguments: list[str]) -> None:
    run = site.run(playbook, *arguments)
    assert run.values("error_code") == dict.fromkeys(HOSTS, code), run.output
    assert not any(site.path(host).exists() for host in HOSTS)


# ---- check, run, run again, check again ----


def test_renew(site: Site) -> None:
    task = "Renew what is due"
    assert site.run("provision").status == 0
    before = site.client_ids()
    assert changed(site.run("renew"), task) == NONE
    site.simulator.clear_requests()
    site.age(["bb1", "gw2"])
    due = {"bb1": True, "gw1": False, "gw2": True, "gw3": False}
    assert changed(site.run("renew", "--check", max_age=90), task) == due
    assert site.simulator.requests() == []
    assert site.client_ids() == before

    run = site.run("renew", max_age=90)
    assert changed(run, task) == due
    (summary,) = run.of("Sum up").values()
    counts = {name: summary["msg"][name] for name in ("hosts", "due", "renewed", "not_due", "failed", "reasons")}
    assert counts == {"hosts": 4, "due": 2, "renewed": 2, "not_due": 2, "failed": 0, "reasons": {"max_age": 2}}
    assert summary["msg"]["next_due_at"] == min(result["due_at"] for result in run.of(task).values())
    assert {host for host, client_id in site.client_ids().items() if client_id != before[host]} == {"bb1", "gw2"}
    assert [entry["client_id"] for entry in site.record("bb1")["retired"]] == [before["bb1"]]

    for arguments in ([], ["--check"]):
        assert changed(site.run("renew", *arguments, max_age=90), task) == NONE
    assert len(site.simulator.requests()) == 2


def test_renew_sums_up_whatever_fails(site: Site) -> None:
    assert site.run("provision").status == 0
    site.age(HOSTS)
    site.simulator.add_fault("status", status=403, body="No plan for device device:x", hardware_id="site-gw1")
    run = site.run("renew", max_age=90)
    assert run.status == 2, run.output
    assert run.of("Renew what is due")["gw1"]["error_code"] == "no_plan"
    (summary,) = run.of("Sum up").values()
    assert (summary["msg"]["renewed"], summary["msg"]["failed"]) == (3, 1)
    site.age(HOSTS)
    site.simulator.add_fault("status", status=403, body="No plan for device device:x", count=4)
    run = site.run("renew", max_age=90)
    assert run.status == 2
    (summary,) = run.of("Sum up").values()
    assert (summary["msg"]["renewed"], summary["msg"]["failed"]) == (0, 4)


@pytest.mark.full
def test_a_gateway_that_cannot_be_reached(site: Site) -> None:
    """It is counted as failed, and alone it does not stop a rotation."""
    assert site.run("provision").status == 0
    gone = site.work / "gone.yml"
    gone.write_text(yaml.safe_dump({"gateways": {"hosts": {"a-gone": {"ansible_host": "127.0.1.250"}}}}))
    run = site.run("renew", "-i", str(gone))
    assert run.status == 4, run.output
    (summary,) = run.of("Sum up").values()
    assert (summary["msg"]["hosts"], summary["msg"]["failed"], summary["msg"]["not_due"]) == (5, 1, 4)
    before = site.client_ids()
    site.age(HOSTS)
    run = site.run("rotate", "-i", str(gone), "-e", "thingstream_rotate_batches=2")
    assert run.status == 4, run.output
    assert all(site.client_ids()[host] != before[host] for host in HOSTS)


def test_rotate(site: Site) -> None:
    task = "Replace what arrived before the rotation began"
    assert site.run("provision").status == 0
    before = site.client_ids()
    site.age(HOSTS)
    site.simulator.clear_requests()
    assert changed(site.run("rotate", "--check"), task) == ALL
    assert site.simulator.requests() == []
    run = site.run("rotate")
    assert changed(run, task) == ALL
    assert all(site.client_ids()[host] != before[host] for host in HOSTS)
    assert len(site.simulator.requests()) == 4
    began = run.of(task)["gw1"]["thing"]["issued_at"]
    resume = ["-e", f"thingstream_rotate_before={began[:11]}00:00:00Z"]
    for arguments in ([], ["--check"]):
        assert changed(site.run("rotate", *resume, *arguments), task) == NONE
    assert len(site.simulator.requests()) == 4


def test_a_canary_that_fails_stops_the_rotation_which_can_be_resumed(site: Site) -> None:
    task = "Replace what arrived before the rotation began"
    assert site.run("provision").status == 0
    before, current = site.client_ids(), site.current()
    site.age(HOSTS)
    broken = site.run("rotate", health_command="false", health_timeout=1)
    assert broken.status == 2, broken.output
    (canary,) = broken.of(task)
    assert broken.of(task)[canary]["error_code"] == "health_check_failed"
    (message,) = {result["msg"] for result in broken.of("Show how to resume").values()}
    resume = message.partition("with ")[2]
    assert resume.startswith("-e thingstream_rotate_before=20")
    assert site.client_ids() == before
    assert site.current() == current
    assert len(site.simulator.things(profile="playbooks", hardware_id=f"site-{canary}")) >= 2
    site.simulator.clear_requests()

    resumed = site.run("rotate", *resume.split())
    assert changed(resumed, task) == ALL
    # the canary's answer waited in the spool
    assert sorted(entry["hardware_id"] for entry in site.simulator.requests()) == [
        f"site-{host}" for host in HOSTS if host != canary
    ]
    assert changed(site.run("rotate", *resume.split()), task) == NONE


def test_one_failure_in_a_batch_stops_the_rotation(site: Site) -> None:
    task = "Replace what arrived before the rotation began"
    assert site.run("provision").status == 0
    before = site.client_ids()
    site.age(HOSTS)
    site.simulator.add_fault("status", status=403, body="No plan for device device:x", hardware_id="site-gw1")
    run = site.run("rotate", "-e", "thingstream_rotate_batches=2")
    assert run.status == 2, run.output
    assert len(run.of(task)) == 2
    assert run.of(task)["gw1"]["error_code"] == "no_plan"
    (neighbor,) = set(run.of(task)) - {"gw1"}
    assert {host for host, client_id in site.client_ids().items() if client_id != before[host]} == {neighbor}


def test_rotation_that_does_not_happen(site: Site, simulator: RunningSimulator) -> None:
    """A profile that returns the existing credentials."""
    token = simulator.put_profile("same", service="cloudlocate", simulator={"new_thing_on_repeat": False})
    same = {"token": token, "hardware_id": "{{ 'same-' ~ inventory_hostname }}"}
    assert site.run("provision", **same).status == 0
    before = site.client_ids()
    site.age(HOSTS)
    run = site.run("rotate", "-e", "thingstream_rotate_batches=100%", **same)
    assert run.status == 2
    results = run.of("Replace what arrived before the rotation began")
    assert {result["error_code"] for result in results.values()} == {"not_rotated"}
    assert all("profile" in result["msg"] for result in results.values())
    assert site.client_ids() == before
    assert spool_files(site.work / "spool") == []


def test_rollback(site: Site) -> None:
    task = "Roll back"
    assert site.run("provision").status == 0
    old = site.client_ids()
    assert site.run("provision", force=True).status == 0
    new = site.client_ids()
    site.simulator.clear_requests()

    assert changed(site.run("rollback", "--check"), task) == ALL
    assert site.client_ids() == new
    run = site.run("rollback", reload_command="touch /tmp/reloaded", health_command="test -e /tmp/reloaded")
    assert changed(run, task) == ALL
    assert site.client_ids() == old
    assert site.current() == dict.fromkeys(HOSTS, "000001")
    assert {host: result["thing"]["retired"][0]["client_id"] for host, result in run.of(task).items()} == new
    for arguments in ([], ["--check"]):
        assert changed(site.run("rollback", *arguments), task) == NONE
    # nothing is due, and what was left behind is no leftover
    assert changed(site.run("provision"), "Ensure credentials") == NONE

    assert changed(site.run("rollback", generation="000002"), task) == ALL
    assert site.client_ids() == new
    assert site.simulator.requests() == []


REPORTED = {"name": "Report", "ansible.builtin.set_fact": {"thingstream_gateway_deactivated": True}}


def deactivation(site: Site) -> Path:
    """Write a task file that deactivates a Thing on the simulated platform."""
    thing = f"{site.simulator.url}/simulator/things/{{{{ thingstream_retired.client_id.split(':') | last }}}}"
    tasks = site.work / "deactivate.yml"
    tasks.write_text(
        yaml.safe_dump(
            [
                {
                    "name": "Deactivate",
                    "ansible.builtin.uri": {
                        "url": f"{thing}/deactivate",
                        "method": "POST",
                        "ca_path": str(site.simulator.ca_path),
                        "status_code": [200, 204],
                    },
                    "delegate_to": "localhost",
                    "vars": {"ansible_become": False},
                },
                REPORTED,
            ]
        )
    )
    return tasks


def test_retire(site: Site) -> None:
    mark = "Mark the Thing as deactivated"
    assert site.run("provision").status == 0
    old = site.client_ids()
    assert site.run("provision", "--limit", "gw1,bb1", force=True).status == 0
    listed = site.run("retire")
    assert listed.status == 0, listed.output
    report = json.loads((site.work / "thingstream-retired.json").read_text())
    assert {entry["host"]: entry["client_id"] for entry in report} == {host: old[host] for host in ("bb1", "gw1")}
    assert {entry["hardware_id"] for entry in report} == {"site-bb1", "site-gw1"}
    lines = (site.work / "thingstream-retired.csv").read_text().splitlines()
    assert lines[0] == "client_id,hardware_id,service,given_name,since,host,path,login_sha256,from_ledger"
    assert len(lines) == 3
    assert listed.of(mark) == {}  # without tasks nothing is marked

    tasks = deactivation(site)
    active = {thing["client_id"] for thing in site.simulator.things(profile="playbooks", status="active")}
    assert set(old.values()) <= active
    check = site.run("retire", "--check", retire_tasks=tasks)
    assert changed(check, mark) == {"bb1": True, "gw1": True}
    run = site.run("retire", retire_tasks=tasks)
    assert changed(run, mark) == {"bb1": True, "gw1": True}
    active = {thing["client_id"] for thing in site.simulator.things(profile="playbooks", status="active")}
    assert set(old.values()) & active == {old["gw2"], old["gw3"]}
    for arguments in ([], ["--check"]):
        again = site.run("retire", *arguments, retire_tasks=tasks)
        assert again.status == 0, again.output
        assert again.of(mark) == {}
    assert json.loads((site.work / "thingstream-retired.json").read_text()) == []
    # a Thing that was deactivated is not returned to, unless force is set
    refused = site.run("rollback", "--limit", "gw1,bb1")
    assert refused.values("error_code") == {"bb1": "no_generation", "gw1": "no_generation"}
    assert "deactivated" in refused.hosts["gw1"]["msg"]
    assert site.run("rollback", "--limit", "gw1,bb1", force=True).status == 0


def test_nobody_retires_what_another_gateway_uses(site: Site) -> None:
    assert site.run("provision").status == 0
    mine = site.client_ids()["gw1"]
    assert site.run("provision", "--limit", "gw1", force=True).status == 0
    # gw1 is taken over, and claims that it once used what the others use
    history = site.path("gw1") / "history.json"
    things = json.loads(history.read_text())["things"]
    stolen = [{**things[0], **{name: site.record(host)[name] for name in IDENTITY}} for host in ("gw2", "bb1")]
    stolen[1] |= {"service": "pointperfect", "client_id": stolen[1]["client_id"].upper()}
    shell = {**things[0], "client_id": f"$(touch {site.work}/canary)"}
    history.write_text(json.dumps({"things": [*things, *stolen, shell]}))
    called = site.work / "called"
    tasks = site.work / "note.yml"
    note = {"ansible.builtin.shell": f"echo {{{{ thingstream_retired.client_id }}}} >> {called}"}
    local = {"delegate_to": "localhost", "vars": {"ansible_become": False}}
    tasks.write_text(yaml.safe_dump([{"name": "Note", **note, **local}, REPORTED]))
    run = site.run("retire", retire_tasks=tasks)
    assert run.status == 0, run.output
    assert called.read_text().split() == [mine]
    assert not (site.work / "canary").exists()
    shown = run.of("Show what is on a list although another gateway uses it, and is left out")
    (conflicts,) = [result["thingstream_retirement_conflicts"] for result in shown.values()]
    assert sorted((entry["host"], entry["used_by"]) for entry in conflicts) == [("gw1", ["bb1"]), ("gw1", ["gw2"])]
    assert site.run("audit").status == 0
    report = json.loads((site.work / "thingstream-audit.json").read_text())
    assert len(report["conflicts"]) == 2
    assert report["retired"] == []


@pytest.mark.full
def test_things_of_gateways_that_are_gone(site: Site) -> None:
    """gw1 is wiped, gw2 leaves the inventory, and gw3 is unreachable for a while."""
    mark = "Mark the Thing as deactivated"
    assert site.run("provision").status == 0
    ids = site.client_ids()
    shutil.rmtree(site.path("gw1"))
    lines = site.gateways.inventory.read_text().splitlines()
    remaining = [line for line in lines if not line.startswith("gw2 ")]
    reduced = replace(site, inventory=site.work / "reduced.ini")
    unreachable = replace(site, inventory=site.work / "unreachable.ini")
    (site.work / "reduced.ini").write_text("\n".join(remaining))
    away = ["gw3 ansible_host=127.0.1.250" if line.startswith("gw3 ") else line for line in remaining]
    (site.work / "unreachable.ini").write_text("\n".join(away))

    assert unreachable.run("audit").status == 2
    report = audited(site)
    assert {row["host"]: (row["status"], row["client_id"]) for row in report["ledger"]} == {
        "gw1": ("missing", ids["gw1"]),
        "gw2": ("removed", ids["gw2"]),
        "gw3": ("unreachable", ids["gw3"]),
    }
    assert {(entry["host"], entry["from_ledger"]) for entry in report["retired"]} == {("gw1", True), ("gw2", True)}

    tasks = deactivation(site)
    assert changed(reduced.run("retire", "--check", retire_tasks=tasks), mark) == {"gw1": True}
    listed = reduced.run("retire", retire_tasks=tasks)
    assert changed(listed, mark) == {"gw1": True}
    assert "name them in thingstream_removed_hosts: gw2" in listed.output
    active = {thing["client_id"] for thing in site.simulator.things(profile="playbooks", status="active")}
    assert set(ids.values()) & active == {ids["bb1"], ids["gw2"], ids["gw3"]}
    other = reduced.run("retire", "-e", "thingstream_removed_hosts=gw,gw22", retire_tasks=tasks)
    assert (other.status, other.of(mark)) == (0, {})
    assert reduced.run("retire", "-e", "thingstream_removed_hosts=gw2", retire_tasks=tasks).status == 0
    active = {thing["client_id"] for thing in site.simulator.things(profile="playbooks", status="active")}
    assert set(ids.values()) & active == {ids["bb1"], ids["gw3"]}
    again = reduced.run("retire", "-e", "thingstream_removed_hosts=gw2", retire_tasks=tasks)
    assert (again.status, again.of(mark)) == (0, {})
    assert json.loads((site.work / "thingstream-retired.json").read_text()) == []
    # Things that no gateway lists are not those that are in use
    assert {host: site.record(host)["client_id"] for host in ("bb1", "gw3")} == {
        host: ids[host] for host in ("bb1", "gw3")
    }


@pytest.mark.full
def test_things_stay_on_the_list_until_tasks_report_them(site: Site) -> None:
    """Tasks that fail; a prompt without a terminal; and one Thing reported, but not the one after it."""
    for force in (False, True, True):
        assert site.run("provision", "--limit", "gw1", force=force).status == 0

    def listed() -> list[str]:
        """Return the client IDs that the last run found on the list, before it ran any task."""
        return [entry["client_id"] for entry in json.loads((site.work / "thingstream-retired.json").read_text())]

    assert site.run("retire").status == 0
    first, second = listed()
    tasks = site.work / "tasks.yml"
    tasks.write_text(yaml.safe_dump([{"name": "Refuse", "ansible.builtin.fail": {"msg": "not today"}}]))
    assert site.run("retire", retire_tasks=tasks).status == 2
    only_first = yaml.safe_dump([{**REPORTED, "when": f"thingstream_retired.client_id == '{first}'"}])
    for text in (documented_question(), only_first):
        tasks.write_text(text)
        run = site.run("retire", retire_tasks=tasks)
        assert run.status == 2, run.output
        refused = run.of("Refuse to mark a Thing that is not reported as deactivated")["gw1"]
        assert "has not set thingstream_gateway_deactivated to true" in refused["msg"]
        assert listed() == [first, second], "the run before has left both"
    assert site.run("retire").status == 0
    assert listed() == [second]


def documented_question() -> str:
    """Return the task file of the documentation, which asks a person."""
    text = (PROJECT / "docs/operations.md").read_text()
    (found,) = re.findall(r"\n    # inventory: thingstream_gateway_retire_tasks.*\n((?:    .*\n)+)", text)
    return textwrap.dedent(found)


@pytest.mark.full
def test_playbooks_work_after_a_play_that_lost_hosts(site: Site) -> None:
    """In a playbook of the user, with another strategy; one gateway fails before, the first one at that."""
    assert site.run("provision").status == 0
    assert site.run("provision", force=True).status == 0
    lose = {"name": "Lose", "ansible.builtin.fail": {"msg": "lost"}, "when": "inventory_hostname == 'gw1'"}
    lost = {"hosts": "all", "gather_facts": False, "tasks": [lose]}
    playbook = site.work / "site.yml"
    names = ("rotate", "retire")
    imports = [{"ansible.builtin.import_playbook": f"thingstream.ztp.{name}"} for name in names]
    playbook.write_text(yaml.safe_dump([lost, *imports]))
    tasks = deactivation(site)
    variables = {"thingstream_rotate_batches": "1", "thingstream_gateway_retire_tasks": tasks}
    file = site.work / "variables.yml"
    file.write_text(yaml.safe_dump(plain({**site.variables, **variables})))
    free = {"ANSIBLE_STRATEGY": "free"}
    run = run_playbook(
        site.work, site.gateways.inventory, "-e", f"@{file}", playbook=str(playbook), environment=free, seconds=600
    )
    assert run.status == 2, "one gateway was lost"
    hints = [entry["result"] for entry in run.results if entry["task"] == "Show how to resume"]
    began = {result["msg"].split("=")[-1] for result in hints}
    assert len(hints) > 1, run.output
    assert len(began) == 1, "every batch has the same time to resume at"
    assert set(run.of("Replace what arrived before the rotation began")) == {"bb1", "gw2", "gw3"}
    assert set(run.of("Mark the Thing as deactivated")) == {"bb1", "gw2", "gw3"}
    assert "undefined" not in run.output


def test_absent(site: Site) -> None:
    task = "Ensure credentials"
    assert site.run("provision").status == 0
    old = site.client_ids()
    absent = {"state": "absent", "reload_command": "cp -r /etc/thingstream/cloudlocate/. /tmp/after-removal"}
    for host in HOSTS:
        shutil.rmtree(site.gateways.root(host) / "tmp/after-removal", ignore_errors=True)
        (site.gateways.root(host) / "tmp/after-removal").mkdir()
    assert changed(site.run("provision", "--check", **absent), task) == ALL
    assert site.client_ids() == old
    assert changed(site.run("provision", **absent), task) == ALL
    for host in HOSTS:
        assert os.listdir(site.path(host)) == ["history.json"]
        assert not (site.gateways.root(host) / "tmp/after-removal/current").is_symlink()
    for arguments in ([], ["--check"]):
        assert changed(site.run("provision", *arguments, **absent), task) == NONE
    assert site.run("retire").status == 0
    report = json.loads((site.work / "thingstream-retired.json").read_text())
    assert {entry["host"]: entry["client_id"] for entry in report} == old
    # a daily run does not bring them back
    assert changed(site.run("renew"), "Renew what is due") == NONE
    assert not any((site.path(host) / "current").is_symlink() for host in HOSTS)


def audited(site: Site) -> dict[str, Any]:
    """Return the report in JSON; the other three forms must name the same gateways."""
    report: dict[str, Any] = json.loads((site.work / "thingstream-audit.json").read_text())
    for ending in ("csv", "html", "prom"):
        text = (site.work / f"thingstream-audit.{ending}").read_text()
        assert {row["host"] for row in report["gateways"] if row["host"] not in text} == set(), ending
    return report


def states(report: dict[str, Any]) -> dict[str, str]:
    return {row["host"]: row["state"] for row in report["gateways"]}


def test_audit(site: Site) -> None:
    assert site.run("provision").status == 0
    assert site.run("provision", "--limit", "gw1", force=True).status == 0
    lost = site.run("provision", "--limit", "gw2", force=True, reload_command="false")
    assert lost.values("error_code") == {"gw2": "health_check_failed"}
    (site.path("gw3") / "current" / "credentials.env").chmod(0o644)
    hostile = "{{ lookup('ansible.builtin.pipe', 'touch owned') }}<img src=x>"
    (site.path("gw3") / "current" / "thing.json").write_text(json.dumps({**site.record("gw3"), "given_name": hostile}))
    assert site.run("audit", "--check").status == 0
    assert not list(site.work.glob("thingstream-audit.*"))
    for _again in range(2):
        run = site.run("audit", max_age=90)
        assert run.status == 0, run.output
        assert sorted(run.of("Look at every gateway")) == HOSTS
        assert len(run.results) == len(HOSTS) + 1, "one task for each gateway, and one for all"
        report = audited(site)
    assert report["complete"]
    assert states(report) == {"bb1": "in_order", "gw1": "in_order", "gw2": "in_order", "gw3": "drift"}
    rows = {row["host"]: row for row in report["gateways"]}
    assert rows["gw3"]["drift"] == ["credentials.env"]
    assert rows["gw3"]["given_name"] == hostile
    assert not (site.work / "owned").exists()
    assert [rows[host]["client_id"] for host in HOSTS] == [site.client_ids()[host] for host in HOSTS]
    assert all(row["due_at"] > row["issued_at"] for row in rows.values())
    assert sum(period["renewals"] for period in report["timeline"]["weeks"]) == len(HOSTS)
    assert [entry["host"] for entry in report["retired"]] == ["gw1"]
    (entry,) = report["spool"]
    assert (entry["service"], entry["hardware_id"], entry["readable"]) == ("cloudlocate", "site-gw2", True)


@pytest.mark.full
def test_an_audit_compares_with_what_the_fleet_wants(site: Site) -> None:
    """Modes, owner, group and path of the inventory are no drift; other ones are."""
    wishes = {"directory_mode": "0751", "secret_mode": "0600", "owner": "consumer"}
    wishes = {**wishes, "group": "consumer", "path": "/etc/thingstream/elsewhere"}
    assert site.run("provision", **wishes).status == 0
    assert site.run("audit", **wishes).status == 0
    assert states(audited(site)) == dict.fromkeys(HOSTS, "in_order")
    assert site.run("audit", **{**wishes, "secret_mode": "0640"}).status == 0
    assert {tuple(row["drift"]) for row in audited(site)["gateways"]} == {("credentials.env",)}
    assert site.run("audit", **{**wishes, "owner": "root"}).status == 0
    assert states(audited(site)) == dict.fromkeys(HOSTS, "drift")


def test_an_audit_tells_what_it_could_not_see(site: Site) -> None:
    """The first gateway is unreachable, another one fails; then all are unreachable."""
    assert site.run("provision").status == 0
    gone = site.work / "gone.yml"
    gone.write_text(yaml.safe_dump({"gateways": {"hosts": {"a-gone": {"ansible_host": "127.0.1.250"}}}}))
    broken = site.work / "broken.yml"
    broken.write_text(yaml.safe_dump({"all": {"hosts": {"gw2": {"thingstream_gateway_path": "not/absolute"}}}}))
    metrics = site.work / "metrics"
    metrics.mkdir()
    everywhere = ["-i", str(gone), "-i", str(broken)]
    run = site.run("audit", *everywhere, "-e", f"thingstream_metrics_directory={metrics}")
    assert run.status == 2, run.output
    (end,) = run.of("Write the report").values()
    assert end["error_code"] == "audit_incomplete"
    assert "2 of 5 gateways were not seen (a-gone, gw2)" in end["msg"]
    (metrics / "thingstream-audit.prom").rename(site.work / "thingstream-audit.prom")
    report = audited(site)
    seen = dict.fromkeys(HOSTS, "in_order")
    assert states(report) == {**seen, "a-gone": "unreachable", "gw2": "failed"}
    rows = {row["host"]: row for row in report["gateways"]}
    assert "127.0.1.250" in rows["a-gone"]["error"]
    assert rows["gw2"]["error_code"] == "bad_path"

    assert site.run("audit", *everywhere, "--limit", "gw1,gw3").status == 0
    assert states(audited(site)) == {"gw1": "in_order", "gw3": "in_order"}
    assert site.run("audit", *everywhere, "--limit", "a-gone").status == 2
    assert states(audited(site)) == {"a-gone": "unreachable"}


def test_an_audit_whose_report_cannot_be_written(site: Site) -> None:
    run = site.run("audit", "-e", f"thingstream_report_directory={site.work}/nowhere")
    assert run.status == 2
    (end,) = run.of("Write the report").values()
    assert (end["error_code"], "nowhere" in end["msg"]) == ("report_failed", True)


def test_an_audit_that_cannot_read_the_spool(site: Site) -> None:
    (site.work / "spool").write_text("no directory")
    run = site.run("audit")
    assert run.status == 2
    (end,) = run.of("Write the report").values()
    assert (end["error_code"], "spool" in end["msg"]) == ("audit_incomplete", True)
    assert "spool" in audited(site)["spool_error"]


@pytest.mark.full
def test_migration_from_mqtt_to_ntrip(site: Site, simulator: RunningSimulator) -> None:
    task = "Ensure credentials"
    mqtt = simulator.put_profile("mqtt", service="pointperfect", plan="mqtt")
    flex = replace(
        site,
        variables={
            **site.variables,
            "thingstream_gateway_service": "pointperfect",
            "thingstream_gateway_token": mqtt,
            "thingstream_gateway_path": "/etc/thingstream/corrections",
        },
    )
    assert flex.run("provision").status == 0
    old = flex.client_ids()

    # the token alone is forgotten
    wrong = flex.run("provision", delivery="ntrip")
    assert wrong.values("error_code") == dict.fromkeys(HOSTS, "wrong_delivery")
    assert flex.client_ids() == old

    # the platform keeps a hardware ID with its profile; another one stands for what u-blox moves by hand
    ntrip = simulator.put_profile("ntrip", service="pointperfect", format="RTCM")
    moved = {"token": ntrip, "delivery": "ntrip", "hardware_id": "{{ 'moved-' ~ inventory_hostname }}"}
    assert changed(flex.run("provision", "--check", **moved), task) == ALL
    run = flex.run("provision", **moved)
    assert changed(run, task) == ALL
    assert run.values("reason") == dict.fromkeys(HOSTS, "service_changed")
    for host in HOSTS:
        record = flex.record(host)
        assert record["delivery"] == ["ntrip"]
        assert [entry["client_id"] for entry in record["retired"]] == [old[host]]
        assert "THINGSTREAM_NTRIP_PASSWORD=" in (flex.path(host) / "current/credentials.env").read_text()
        assert not (flex.path(host) / "current/client.key").exists()
    assert spool_files(site.work / "spool") == []
    for arguments in ([], ["--check"]):
        assert changed(flex.run("provision", *arguments, **moved), task) == NONE
    assert changed(flex.run("rollback"), "Roll back") == ALL
    assert flex.client_ids() == old


# ---- the health check ----

CUT = f"""{END_SESSION}
sleep 1
false
"""


@pytest.mark.full
def test_the_connection_is_cut_right_after_the_switch(site: Site) -> None:
    """The health command itself ends the SSH session that it runs in; only the gateway itself can revert."""
    assert site.run("provision").status == 0
    old = site.client_ids()
    site.simulator.clear_requests()
    for host in HOSTS:
        (site.gateways.root(host) / "tmp/cut").unlink(missing_ok=True)
    run = site.run("provision", force=True, health_command=CUT, health_timeout=3)
    assert run.status == 4, run.output
    assert {result["status"] for result in run.hosts.values()} == {"unreachable"}
    assert all("kept in" in result["msg"] for result in run.hosts.values())
    deadline = time.monotonic() + 20
    while any((site.path(host) / ".lock").is_symlink() for host in HOSTS) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert site.client_ids() == old
    assert site.current() == dict.fromkeys(HOSTS, "000001")
    for host in HOSTS:
        assert sorted(os.listdir(site.path(host) / "generations")) == ["000001", "000002-failed"]
        assert sorted(os.listdir(site.path(host))) == [".last-change", "current", "generations", "history.json"]

    again = site.run("provision")
    assert changed(again, "Ensure credentials") == ALL
    assert again.values("action") == dict.fromkeys(HOSTS, "renewed")
    assert len(site.simulator.requests()) == len(HOSTS)
    assert changed(site.run("provision"), "Ensure credentials") == NONE

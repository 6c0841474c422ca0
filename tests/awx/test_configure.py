# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""configure.yml with the real modules of awx.awx against a stand-in of the API: creates, changes nothing, updates."""

from __future__ import annotations

import json
from typing import Any

from awx.conftest import Site
from integration.ansible_run import Run


def changed(run: Run) -> set[str]:
    """What a run has changed: the name of a task, and of its item in a loop."""
    assert run.status == 0, run.output
    found = set()
    for entry in run.results:
        result = entry["result"]
        items = result.get("results", [result])
        found |= {f"{entry['task']}: {one.get('_ansible_item_label', '')}" for one in items if one["changed"]}
    return found


def test_the_first_run_makes_everything(first_run: tuple[Site, Run]) -> None:
    site, run = first_run
    assert changed(run) >= {
        "Make the credential type: ",
        "Make the credential of the device profile: ",
        "Make the project: ",
        "Make the job templates: Thingstream rotate",
        "Make the nodes of the workflow: provision",
    }
    made = {kind: len(site.awx.all(kind)) for kind in ("job_templates", "schedules", "workflow_job_template_nodes")}
    assert made == {"job_templates": 7, "schedules": 1, "workflow_job_template_nodes": 3}
    every = {result["_ansible_item_label"] for entry in run.results for result in entry["result"].get("results", [])}
    assert {label.rpartition(": ")[2] for label in changed(run)} >= every


def test_no_secret_is_shown(first_run: tuple[Site, Run]) -> None:
    """The run was as talkative as it can be."""
    site, run = first_run
    visible = run.output + json.dumps([*run.results], default=str) + json.dumps([*site.awx.objects.values()])
    assert site.secrets["THINGSTREAM_ZTP_TOKEN"] in str(site.awx.secrets)
    for secret in site.secrets.values():
        assert secret not in visible


def test_a_second_run_changes_nothing(site: Site) -> None:
    site.awx.writes.clear()
    assert changed(site.configure(secrets={})) == set()
    assert site.awx.writes == []


def test_what_differs_is_updated_and_nothing_else(site: Site) -> None:
    settings: dict[str, Any] = {
        "slices": 9,
        "renew_rrule": "DTSTART;TZID=Europe/Berlin:20260101T040000 RRULE:FREQ=DAILY;INTERVAL=2",
        "rotate_batches": "2, 10%",
        "image": "registry.example.com/thingstream-ztp:2",
        "api_url": "https://api.example.com",
        "inventory_variables": {"thingstream_gateway_service": "cloudlocate"},
    }
    expected = {
        "Make the credential of the device profile: ",
        "Make the execution environment: ",
        "Make the inventory: ",
        "Make the job templates: Thingstream provision",
        "Make the job templates: Thingstream renew",
        "Make the job templates: Thingstream rotate",
        "Make the job templates: Thingstream verify",
        "Make the schedules: Thingstream renew daily",
    }
    token = site.awx.secrets[site.awx.named("credentials", "Thingstream")["id"]]
    site.awx.writes.clear()
    some = ["Make the project", "Make the credential of the device profile", "Make the schedules"]
    foreseen = changed(site.configure("--check", secrets={}, only=some, **settings))
    assert foreseen == {one for one in expected if one.partition(":")[0] in some}
    assert site.awx.writes == []
    some += ["Make the execution environment", "Make the inventory", "Make the job templates"]
    assert changed(site.configure(secrets={}, only=some, **settings)) == expected
    assert site.awx.named("job_templates", "Thingstream renew")["job_slice_count"] == 9
    assert site.awx.named("job_templates", "Thingstream rotate")["job_slice_count"] == 1
    credential = site.awx.named("credentials", "Thingstream")
    assert credential["inputs"]["api_url"] == "https://api.example.com"
    assert site.awx.secrets[credential["id"]] == token != {}


def test_a_secret_is_replaced_when_that_is_said(site: Site) -> None:
    identity = site.awx.named("credentials", "Thingstream")["id"]
    new, task = {**site.secrets, "THINGSTREAM_ZTP_TOKEN": "another token"}, "Make the credential of the device profile"
    assert changed(site.configure(secrets=new, only=[task])) == set()
    assert changed(site.configure(secrets=new, only=[task], update_secrets=True)) == {f"{task}: "}
    assert site.awx.secrets[identity] == {"token": "another token"}


def test_a_new_credential_needs_its_secret(site: Site) -> None:
    del site.awx.objects[site.awx.named("credentials", "Thingstream")["id"]]
    run = site.configure(secrets={}, only=["Make the credential of the device profile"])
    assert run.status == 2
    assert "cannot be used for token" in run.output


def test_a_repository_without_the_playbooks_is_refused(site: Site) -> None:
    for template in site.awx.all("job_templates"):
        del site.awx.objects[template["id"]]
    tasks = ["Make the project", "Make the job templates"]
    run = site.configure(only=tasks, project_url="https://git.example.com/other.git")
    assert run.status == 2
    assert "Playbook not found for project" in run.output


def test_a_wrong_reference_is_refused(site: Site) -> None:
    run = site.configure(only=["Make the job templates"], machine_credential="Nobody")
    assert run.status == 2
    assert "credentials/?name=Nobody returned 0 items" in run.output


# ---- what is there then ----


def test_templates(site: Site) -> None:
    def names(template: str, below: str) -> list[str]:
        found = site.awx.members.get((site.awx.named("job_templates", template)["id"], below), [])
        return sorted(site.awx.objects[one]["name"] for one in found)

    asks_the_platform = {"provision", "renew", "rotate", "audit"}
    for template in site.awx.all("job_templates"):
        playbook = template["playbook"].removesuffix(".yml")
        assert template["name"] == f"Thingstream {playbook}"
        device_profile = ["Thingstream"] if playbook in asks_the_platform else []
        assert names(template["name"], "credentials") == ["Gateways", *device_profile, "Thingstream spool"]
        assert names(template["name"], "instance_groups") == ["Thingstream"]
        sliced = playbook in ("provision", "renew", "verify")
        assert (template["job_slice_count"] > 1) is sliced
        # whoever may set variables could send the token elsewhere
        assert (template["ask_variables_on_launch"], template["ask_limit_on_launch"]) == (False, True)
        assert template["prevent_instance_group_fallback"] is True
        assert template["allow_simultaneous"] is False


def test_the_workflow(site: Site) -> None:
    nodes = {one["id"]: one["identifier"] for one in site.awx.all("workflow_job_template_nodes")}
    leads_to = {
        name: [nodes[one] for one in site.awx.members.get((identity, "success_nodes"), [])]
        for identity, name in nodes.items()
    }
    assert leads_to == {"provision": ["verify"], "verify": ["audit"], "audit": []}

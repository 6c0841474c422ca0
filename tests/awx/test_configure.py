# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""configure.yml with the real modules of awx.awx against a stand-in of the API: creates, changes nothing, updates."""

from __future__ import annotations

import json
from typing import Any

import pytest
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
    assert changed(site.configure("--check", secrets={}, **settings)) == expected
    assert site.awx.writes == []
    assert changed(site.configure(secrets={}, **settings)) == expected
    assert site.awx.named("job_templates", "Thingstream renew")["job_slice_count"] == 9
    assert site.awx.named("job_templates", "Thingstream rotate")["job_slice_count"] == 1
    credential = site.awx.named("credentials", "Thingstream")
    assert credential["inputs"]["api_url"] == "https://api.example.com"
    assert site.awx.secrets[credential["id"]] == token != {}


def test_a_secret_is_replaced_when_that_is_said(site: Site) -> None:
    identity = site.awx.named("credentials", "Thingstream")["id"]
    new = {**site.secrets, "THINGSTREAM_ZTP_TOKEN": "another token"}
    assert site.configure("-e", "thingstream_awx_update_secrets=true", secrets=new).status == 0
    assert site.awx.secrets[identity] == {"token": "another token"}


@pytest.mark.parametrize(
    ("settings", "secrets", "message"),
    [
        ({"organization": "Nowhere"}, True, "organizations/?name=Nowhere returned 0 items"),
        ({"project_url": "https://git.example.com/other.git"}, True, "Playbook not found for project"),
        ({}, False, "$encrypted$ is a reserved keyword, and cannot be used for token"),
    ],
    ids=["organization", "project", "no secret"],
)
def test_what_is_wrong_is_refused(empty: Site, settings: dict[str, Any], secrets: bool, message: str) -> None:
    run = empty.configure(secrets=None if secrets else {}, **settings)
    assert run.status == 2
    assert message in run.output, run.output

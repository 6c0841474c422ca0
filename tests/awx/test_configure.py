# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""configure.yml with the real modules of awx.awx against a stand-in of the API: creates, changes nothing, updates."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from awx.conftest import EXTENSION, Site
from awx.stand_in import PROMPTS, WORKFLOW_PROMPTS, Object, Refused
from integration.ansible_run import Run

DEVICE_PROFILE = "Update the credential of the device profile"
SPOOL = "Make the credential that encrypts the spool"
TEMPLATES = "Make the job templates"


def changed(run: Run) -> set[str]:
    """Return what a run has changed: the name of a task, and of its item in a loop."""
    assert run.status == 0, run.output
    found = set()
    for entry in run.results:
        result = entry["result"]
        items = result.get("results", [result])
        found |= {f"{entry['task']}: {one.get('_ansible_item_label', '')}" for one in items if one["changed"]}
    return found


def some_templates(*names: str) -> list[Object]:
    """Return some of the job templates of settings.yml, with their expressions."""
    settings = yaml.load((EXTENSION / "settings.yml").read_text(), Loader)
    return [one for one in settings["thingstream_awx_job_templates"] if one["name"] in names]


class Loader(yaml.SafeLoader):
    """Read what has the tag ``!unsafe`` as text."""


Loader.add_constructor("!unsafe", lambda _loader, node: node.value)


# ---- the first run and the second one ----


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
    every = {
        result["_ansible_item_label"]
        for entry in run.results
        for result in entry["result"].get("results", [])
        if entry["task"].startswith("Make")
    }
    assert {label.rpartition(": ")[2] for label in changed(run)} >= every


def test_no_secret_is_shown(first_run: tuple[Site, Run]) -> None:
    site, run = first_run
    visible = run.output + json.dumps([*run.results], default=str) + json.dumps([*site.awx.objects.values()])
    assert site.secrets["THINGSTREAM_ZTP_TOKEN"] in str(site.awx.secrets)
    for secret in site.secrets.values():
        assert secret not in visible


def test_a_second_run_changes_nothing(site: Site) -> None:
    """It only updates the project. AWX has trimmed the pod specification, without its effect on the comparison."""
    site.awx.writes.clear()
    assert changed(site.configure(secrets={})) == set()
    project = site.awx.named("projects", "Thingstream")["id"]
    assert site.awx.writes == [f"POST /api/v2/projects/{project}/update/"]
    (pod,) = {group["pod_spec_override"] for group in site.awx.all("instance_groups")}
    assert yaml.safe_load(pod)["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "thingstream"}
    (text,) = re.findall(r"^thingstream_awx_pod_spec: (\S+)$", (EXTENSION / "settings.yml").read_text(), re.MULTILINE)
    assert text == "|-"


def test_what_differs_is_updated_and_nothing_else(site: Site) -> None:
    """Also a prompt that was enabled by hand, and a pod specification that ends with a line break changes nothing."""
    settings: dict[str, Any] = {
        "job_templates": some_templates("Thingstream renew", "Thingstream rotate", "Thingstream retire"),
        "slices": 9,
        "renew_rrule": "DTSTART;TZID=Europe/Berlin:20260101T040000 RRULE:FREQ=DAILY;INTERVAL=2",
        "rotate_batches": "2, 10%",
        "image": "registry.example.com/thingstream-ztp:2",
        "api_url": "https://api.example.com",
        "inventory_variables": {"thingstream_gateway_service": "cloudlocate"},
        "pod_spec": site.awx.named("instance_groups", "Thingstream")["pod_spec_override"] + "\n",
    }
    expected = {
        f"{DEVICE_PROFILE}: ",
        "Make the execution environment: ",
        "Make the inventory: ",
        "Make the job templates: Thingstream renew",
        "Make the job templates: Thingstream retire",
        "Make the job templates: Thingstream rotate",
        "Make the schedules: Thingstream renew daily",
    }
    retire = site.awx.named("job_templates", "Thingstream retire")
    token = site.awx.secrets[site.awx.named("credentials", "Thingstream")["id"]]
    site.awx.change(retire, {f"ask_{name}_on_launch": True for name in PROMPTS})
    site.awx.writes.clear()
    some = ["Make the project", DEVICE_PROFILE, "Make the container group, whose jobs mount the volume"]
    foreseen = changed(site.configure("--check", secrets={}, only=some, **settings))
    assert foreseen == {one for one in expected if one.partition(":")[0] in some}
    assert site.awx.writes == []
    some = list({one.partition(":")[0] for one in expected})
    assert changed(site.configure(secrets={}, only=some, **settings)) == expected
    assert site.awx.named("job_templates", "Thingstream renew")["job_slice_count"] == 9
    assert site.awx.named("job_templates", "Thingstream rotate")["job_slice_count"] == 1
    # without the secret in the environment: AWX keeps the token although another input has changed
    credential = site.awx.named("credentials", "Thingstream")
    assert credential["inputs"]["api_url"] == "https://api.example.com"
    assert site.awx.secrets[credential["id"]] == token != {}
    assert prompts(site.awx.named("job_templates", "Thingstream retire")) == {"job_type", "limit"}


# ---- secrets and credentials ----


def test_secrets_are_replaced_on_request_only(site: Site) -> None:
    """Neither a changed input nor another value in the environment replaces them; ``update_secrets`` does."""
    new = {"THINGSTREAM_ZTP_TOKEN": "another token", "THINGSTREAM_VAULT_PASSWORD": "another password"}
    profile, spool = (site.awx.named("credentials", name)["id"] for name in ("Thingstream", "Thingstream spool"))
    before = (site.awx.secrets[profile], site.awx.secrets[spool])
    tasks = ["Make the credential of the device profile", DEVICE_PROFILE, SPOOL]
    only_the_url = site.configure(secrets=new, only=tasks, api_url="https://api.example.com")
    assert changed(only_the_url) == {f"{DEVICE_PROFILE}: "}
    assert (site.awx.secrets[profile], site.awx.secrets[spool]) == before
    replaced = site.configure("-e", "thingstream_awx_update_secrets=true", secrets=new, only=tasks[1:])
    assert changed(replaced) == {f"{DEVICE_PROFILE}: ", f"{SPOOL}: "}
    assert site.awx.secrets[profile] == {"token": "another token"}
    assert site.awx.secrets[spool] == {"vault_password": "another password"}


def test_a_new_credential_needs_its_secret(site: Site) -> None:
    del site.awx.objects[site.awx.named("credentials", "Thingstream")["id"]]
    run = site.configure(secrets={}, only=["Make the credential of the device profile"])
    assert run.status == 2
    assert "cannot be used for token" in run.output


def test_a_credential_that_exists_is_used_and_never_changed(site: Site) -> None:
    """Credentials of each kind, named as in another organization; secrets are to be updated."""
    credentials = {
        (one["organization"], kind["kind"]): one
        for one in site.awx.all("credentials")
        if (kind := site.awx.objects[one["credential_type"]]) and one["name"] == "Gateways"
    }
    default = site.awx.named("organizations", "Default")["id"]
    secrets = json.dumps(site.awx.secrets)
    before = json.dumps(list(credentials.values()))
    site.awx.private.add("gateways")
    site.awx.writes.clear()
    run = site.configure(
        only=[SPOOL, "Make the execution environment", "Make the project", TEMPLATES],
        vault_credential="Gateways",
        registry_credential="Gateways",
        project_credential=credentials[default, "scm"]["id"],
        update_secrets=True,
        job_templates=some_templates("Thingstream provision"),
    )
    # the module says "ok" for a project whose revision is the same after the update
    assert changed(run) == {"Make the execution environment: ", f"{TEMPLATES}: Thingstream provision"}
    assert not [write for write in site.awx.writes if "/credentials/" in write and "job_templates" not in write]
    assert (json.dumps(site.awx.secrets), json.dumps(list(credentials.values()))) == (secrets, before)
    template = site.awx.named("job_templates", "Thingstream provision")["id"]
    own = site.awx.named("credentials", "Thingstream")["id"]
    wanted = {own, credentials[default, "ssh"]["id"], credentials[default, "vault"]["id"]}
    assert set(site.awx.members[template, "credentials"]) == wanted
    environment = site.awx.named("execution_environments", "Thingstream")
    assert environment["credential"] == credentials[default, "registry"]["id"]
    assert site.awx.named("projects", "Thingstream")["credential"] == credentials[default, "scm"]["id"]


def test_a_credential_that_does_not_exist_is_an_error(site: Site) -> None:
    run = site.configure(only=[SPOOL], machine_credential="Nobody")
    assert run.status == 2
    assert "(item=ssh: Nobody)" in run.output
    assert "Expected one object" in run.output


# ---- the project ----


def test_a_failed_update_of_the_project_is_repeated(site: Site) -> None:
    """A private repository: the first run has no credential for it."""
    site.awx.private.add("gateways")
    project = site.awx.named("projects", "Thingstream")["id"]
    site.awx.objects[project]["scm_revision"] = ""
    failed = site.configure(only=["Make the project"])
    assert failed.status == 2
    assert "Project Update - Thingstream, failed" in failed.output
    site.awx.private.clear()
    assert changed(site.configure(only=["Make the project"])) == {"Make the project: "}
    assert site.awx.objects[project]["scm_revision"]


def test_a_repository_without_the_playbooks_is_refused(site: Site) -> None:
    (site.awx.projects / "other").mkdir(exist_ok=True)
    for template in site.awx.all("job_templates"):
        del site.awx.objects[template["id"]]
    site.awx.named("projects", "Thingstream")["scm_url"] = "https://git.example.com/other.git"
    run = site.configure(only=[TEMPLATES], job_templates=some_templates("Thingstream retire"))
    assert run.status == 2
    assert "Playbook not found for project" in run.output


# ---- names ----


def test_a_second_organization(site: Site) -> None:
    """It has objects of the same names, except for those whose names are global, and changes none of the first one."""
    environment = "Make the execution environment"
    refused = site.configure(only=[environment], organization="Other")
    assert refused.status == 2
    assert "Cannot change the organization of an execution environment" in refused.output
    before = json.dumps(list(site.awx.objects.values()))
    known = set(site.awx.objects)
    some = some_templates("Thingstream provision")
    run = site.configure(
        organization="Other",
        names={"execution_environment": "Thingstream of Other"},
        job_templates=some,
        schedules=[{"name": "Daily", "job_template": some[0]["name"], "rrule": "{{ thingstream_awx_renew_rrule }}"}],
        workflow_nodes=[{"identifier": "only", "job_template": some[0]["name"], "slices": 1, "then": []}],
    )
    assert f"{environment}: " in changed(run)
    assert json.dumps([one for one in site.awx.objects.values() if one["id"] in known]) == before
    other = site.awx.named("organizations", "Other")["id"]
    for resource in ("credentials", "projects", "inventories", "job_templates", "workflow_job_templates"):
        new = [one for one in site.awx.all(resource) if one["id"] not in known]
        assert new, resource
        assert {one["organization"] for one in new} == {other}
    template = site.awx.named("job_templates", "Thingstream provision", "Other")
    assert template["project"] == site.awx.named("projects", "Thingstream", "Other")["id"]
    assert template["inventory"] == site.awx.named("inventories", "Thingstream gateways", "Other")["id"]
    for credential in site.awx.members[template["id"], "credentials"]:
        assert site.awx.objects[credential]["organization"] == other
    (node,) = (one for one in site.awx.all("workflow_job_template_nodes") if one["identifier"] == "only")
    assert node["unified_job_template"] == template["id"]


def test_an_unknown_name_is_refused(site: Site) -> None:
    run = site.configure(only=["Make the inventory"], names={"execution_enviroment": "Thingstream 2"})
    assert run.status == 2
    assert "thingstream_awx_names has execution_enviroment. Its keys are: credential_type, " in run.output


# ---- what AWX has then ----


def prompts(template: Object) -> set[str]:
    return {name for name in PROMPTS if template.get(f"ask_{name}_on_launch")}


def test_templates(site: Site) -> None:
    def names(template: str, below: str) -> list[str]:
        found = site.awx.members.get((site.awx.named("job_templates", template)["id"], below), [])
        return sorted(site.awx.objects[one]["name"] for one in found)

    with_platform = {"provision", "renew", "rotate", "audit"}
    for template in site.awx.all("job_templates"):
        playbook = template["playbook"].removesuffix(".yml")
        assert template["name"] == f"Thingstream {playbook}"
        device_profile = ["Thingstream"] if playbook in with_platform else []
        assert names(template["name"], "credentials") == ["Gateways", *device_profile, "Thingstream spool"]
        assert names(template["name"], "instance_groups") == ["Thingstream"]
        assert template["job_slice_count"] == 1
        # a user with permission to set variables could send the token elsewhere
        slices = {"job_slice_count"} if playbook in ("provision", "renew", "verify") else set()
        assert prompts(template) == {"job_type", "limit"} | slices
        assert template["prevent_instance_group_fallback"] is True
        assert template["allow_simultaneous"] is False


def test_every_prompt_is_set() -> None:
    """So that a prompt that was enabled by hand is reset."""
    (play,) = yaml.safe_load((EXTENSION / "configure.yml").read_text())
    for module, names in (("job_template", PROMPTS), ("workflow_job_template", WORKFLOW_PROMPTS)):
        (task,) = (task for task in play["tasks"] if f"awx.awx.{module}" in task)
        assert {name for name in task[f"awx.awx.{module}"] if name.startswith("ask_")} == {
            f"ask_{name}_on_launch" for name in names
        }


def test_no_answer_of_a_survey_is_required(site: Site) -> None:
    """AWX refuses a launch by API without a required answer, although the question has a default."""
    for survey in site.awx.surveys.values():
        assert [question["variable"] for question in survey["spec"] if question["required"]] == []


def test_the_workflow(site: Site) -> None:
    nodes = {one["id"]: one for one in site.awx.all("workflow_job_template_nodes")}
    leads_to = {
        node["identifier"]: [nodes[one]["identifier"] for one in site.awx.members.get((identity, "success_nodes"), [])]
        for identity, node in nodes.items()
    }
    assert leads_to == {"provision": ["verify"], "verify": ["audit"], "audit": []}
    slices = {node["identifier"]: node["job_slice_count"] for node in nodes.values()}
    assert slices == {"provision": 1, "verify": 1, "audit": None}


def test_variables_that_are_removed_from_the_repository_are_removed_from_awx(site: Site) -> None:
    """Except for those of the group ``all``, which AWX merges into the variables of the inventory."""
    (source,) = site.awx.all("inventory_sources")
    file = site.awx.projects / "gateways/inventory.yml"
    before = file.read_text()
    hosts = {"gw1": {"ansible_host": "192.0.2.1", "thingstream_gateway_reload_command": "false"}}
    group = {"hosts": hosts, "vars": {"thingstream_gateway_health_command": "false"}}
    try:
        file.write_text(yaml.safe_dump({"gateways": group, "all": {"vars": {"site": "one"}}}))
        site.awx.sync(source)
        assert site.awx.contents[source["inventory"]]["gateways"] == group
        file.write_text(yaml.safe_dump({"gateways": {"hosts": {"gw1": {"ansible_host": "192.0.2.1"}}}}))
        site.awx.sync(source)
        expected = {"hosts": {"gw1": {"ansible_host": "192.0.2.1"}}, "vars": {}}
        assert site.awx.contents[source["inventory"]]["gateways"] == expected
        assert json.loads(site.awx.objects[source["inventory"]]["variables"])["site"] == "one"
    finally:
        file.write_text(before)


# ---- the stand-in is as strict as AWX ----


def test_the_stand_in_refuses_a_cycle(site: Site) -> None:
    nodes = {one["identifier"]: one["id"] for one in site.awx.all("workflow_job_template_nodes")}
    order = [{"identifier": "audit", "job_template": "Thingstream audit", "then": ["provision"]}]
    run = site.configure(only=["Make the nodes of the workflow"], workflow_nodes=order)
    assert run.status == 2
    assert "Failed to associate" in run.output
    assert nodes["provision"] not in site.awx.members.get((nodes["audit"], "success_nodes"), [])


@pytest.mark.parametrize(
    "rule",
    [
        "DTSTART:20260101T031500Z",
        "DTSTART:20260101T031500 RRULE:FREQ=DAILY;INTERVAL=1",
        "DTSTART:20260101T031500Z RRULE:FREQ=DAILY",
        "DTSTART:20260101T031500Z RRULE:FREQ=SECONDLY;INTERVAL=1",
        "DTSTART:20260101T031500Z RRULE:FREQ=MONTHLY;INTERVAL=1;BYDAY=1MO",
        "DTSTART:20260101T031500Z RRULE:FREQ=DAILY;INTERVAL=1;COUNT=1000",
        "DTSTART:20260101T031500Z RRULE:FREQ=DAILY;INTERVAL=1;COUNT=2;UNTIL=20270101T000000Z",
    ],
)
def test_the_stand_in_refuses_a_rule(site: Site, rule: str) -> None:
    with pytest.raises(Refused):
        site.awx.change(site.awx.named("schedules", "Thingstream renew daily"), {"rrule": rule})


def test_the_stand_in_refuses_a_credential_without_an_owner(site: Site) -> None:
    machine = next(one["id"] for one in site.awx.all("credential_types") if one["name"] == "Machine")
    with pytest.raises(Refused, match="Missing 'user', 'team', or 'organization'"):
        site.awx.add("credentials", name="Mine", credential_type=machine)

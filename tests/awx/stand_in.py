# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the API of AWX 24.6: the endpoints that configure.yml uses, with AWX's types, references and refusals.

Every resource is a table of fields. What AWX checks beyond that is in ``CHECKS`` and ``ASSOCIATION_CHECKS``, as seen on
a real AWX and in its source code. The stand-in is stricter in one way: it refuses unknown fields, AWX ignores them.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

Object = dict[str, Any]

ENCRYPTED = "$encrypted$"
TOKEN = "token-of-awx"
UNIFIED = ("projects", "inventory_sources", "job_templates", "workflow_job_templates")
PROMPTS = [
    "credential",
    "diff_mode",
    "execution_environment",
    "forks",
    "instance_groups",
    "inventory",
    "job_slice_count",
    "job_type",
    "labels",
    "limit",
    "scm_branch",
    "skip_tags",
    "tags",
    "timeout",
    "variables",
    "verbosity",
]
WORKFLOW_PROMPTS = ["inventory", "labels", "limit", "scm_branch", "skip_tags", "tags", "variables"]


class Refused(Exception):
    """A response of AWX other than a success: a status and a body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body


@dataclass(frozen=True)
class Field:
    """One field of a resource. ``kind`` is a JSON type, or the name of the resource that it refers to by ID."""

    kind: str = "str"
    default: Any = ""
    required: bool = False
    choices: tuple[str, ...] = ()
    read_only: bool = False
    fixed: bool = False  # once the object exists


def text(default: str = "", **more: Any) -> Field:
    return Field("str", default, **more)


def number(default: int = 0) -> Field:
    return Field("int", default)


def flag(default: bool = False, **more: Any) -> Field:
    return Field("bool", default, **more)


def reference(resource: str, **more: Any) -> Field:
    return Field(resource, None, **more)


NAMED = {"name": text(required=True), "description": text()}

RESOURCES: Mapping[str, Mapping[str, Field]] = {
    "organizations": NAMED,
    "credential_types": {
        **NAMED,
        "kind": text(required=True),
        "managed": flag(read_only=True),
        "inputs": Field("dict", {}),
        "injectors": Field("dict", {}),
    },
    "credentials": {
        **NAMED,
        "organization": reference("organizations"),
        "credential_type": reference("credential_types", required=True),
        "inputs": Field("dict", {}),
    },
    "execution_environments": {
        **NAMED,
        "organization": reference("organizations"),
        "image": text(required=True),
        "pull": text(choices=("", "always", "missing", "never")),
        "credential": reference("credentials"),
    },
    "instance_groups": {
        "name": text(required=True),
        "is_container_group": flag(),
        "pod_spec_override": text(),
        "credential": reference("credentials"),
    },
    "projects": {
        **NAMED,
        "organization": reference("organizations"),
        "scm_type": text(choices=("", "git", "svn", "insights", "archive")),
        "scm_url": text(),
        "scm_branch": text(),
        "credential": reference("credentials"),
        "scm_update_on_launch": flag(),
        "scm_update_cache_timeout": number(),
        "scm_revision": text(read_only=True),
        "allow_override": flag(),
    },
    "project_updates": {"project": reference("projects"), "status": text("running")},
    "inventories": {
        **NAMED,
        "organization": reference("organizations", required=True),
        "kind": text(choices=("", "smart", "constructed")),
        "host_filter": Field("str", None),
        "variables": text(),
    },
    "inventory_sources": {
        **NAMED,
        "organization": reference("organizations", read_only=True),  # that of the inventory
        "inventory": reference("inventories", required=True, fixed=True),
        "source": text(choices=("", "file", "scm", "ec2", "controller")),
        "source_project": reference("projects"),
        "source_path": text(),
        "overwrite": flag(),
        "overwrite_vars": flag(),
        "update_on_launch": flag(),
        "update_cache_timeout": number(),
    },
    "job_templates": {
        **NAMED,
        "organization": reference("organizations", read_only=True),  # that of the project
        "job_type": text("run", choices=("run", "check")),
        "inventory": reference("inventories"),
        "project": reference("projects"),
        "playbook": text(),
        "execution_environment": reference("execution_environments"),
        "forks": number(),
        "limit": text(),
        "extra_vars": text(),
        "job_slice_count": number(1),
        "allow_simultaneous": flag(),
        "survey_enabled": flag(),
        "use_fact_cache": flag(),
        "become_enabled": flag(),
        "prevent_instance_group_fallback": flag(),
        **{f"ask_{name}_on_launch": flag() for name in PROMPTS},
    },
    "schedules": {
        **NAMED,
        "unified_job_template": reference("unified_job_templates", required=True),
        "rrule": text(required=True),
        "enabled": flag(True),
    },
    "workflow_job_templates": {
        **NAMED,
        "organization": reference("organizations"),
        "extra_vars": text(),
        "allow_simultaneous": flag(),
        "survey_enabled": flag(),
        **{f"ask_{name}_on_launch": flag() for name in WORKFLOW_PROMPTS},
    },
    "workflow_job_template_nodes": {
        "identifier": text(required=True),
        "workflow_job_template": reference("workflow_job_templates", required=True, fixed=True),
        "unified_job_template": reference("unified_job_templates"),
        "all_parents_must_converge": flag(),
        "job_slice_count": Field("int", None),
        "limit": Field("str", None),
    },
}

# What no two objects of a resource have in common. Names of execution environments are global.
UNIQUE: Mapping[str, tuple[str, ...]] = {
    "organizations": ("name",),
    "credential_types": ("name", "kind"),
    "credentials": ("organization", "name", "credential_type"),
    "execution_environments": ("name",),
    "instance_groups": ("name",),
    "projects": ("organization", "name"),
    "project_updates": ("id",),
    "inventories": ("organization", "name"),
    "inventory_sources": ("inventory", "name"),
    "job_templates": ("organization", "name"),
    "schedules": ("unified_job_template", "name"),
    "workflow_job_templates": ("organization", "name"),
    "workflow_job_template_nodes": ("workflow_job_template", "identifier"),
}

# resource and list below it -> the resource of its members
ASSOCIATIONS: Mapping[tuple[str, str], str] = {
    ("instance_groups", "instances"): "instances",
    ("job_templates", "credentials"): "credentials",
    ("job_templates", "instance_groups"): "instance_groups",
    ("workflow_job_template_nodes", "success_nodes"): "workflow_job_template_nodes",
}

TYPES: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "dict": dict}


@dataclass
class Awx:
    """The state of AWX. IDs are unique over all resources, so that a reference to another kind of object is noticed.

    :param projects: a directory with a checkout of each repository, by the last part of its URL.
    :param private: the repositories that need a credential.
    """

    projects: Path
    private: set[str] = field(default_factory=set)
    objects: dict[int, Object] = field(default_factory=dict)
    secrets: dict[int, dict[str, str]] = field(default_factory=dict)  # credential -> its secret inputs
    members: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    surveys: dict[int, Any] = field(default_factory=dict)
    contents: dict[int, Object] = field(default_factory=dict)  # inventory -> its groups, as in a YAML inventory
    writes: list[str] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def all(self, resource: str) -> list[Object]:
        kinds = UNIFIED if resource == "unified_job_templates" else (resource,)
        return [one for one in self.objects.values() if one["resource"] in kinds]

    def get(self, resource: str, identity: int) -> Object:
        found = self.objects.get(identity)
        if found is None or found not in self.all(resource):
            raise Refused(404, {"detail": "Not found."})
        return found

    def named(self, resource: str, name: str, organization: str = "Default") -> Object:
        """Return the object of a name, in an organization if its resource has them."""
        (found,) = (
            one
            for one in self.all(resource)
            if one.get("name", one.get("identifier")) == name
            and (not one.get("organization") or self.objects[one["organization"]]["name"] == organization)
        )
        return found

    def put(self, resource: str, **values: Any) -> Object:
        """Create an object without any check."""
        defaults = {name: one.default for name, one in RESOURCES[resource].items()}
        made = {**defaults, "id": next(self.ids), "resource": resource, **values}
        self.objects[made["id"]] = made
        return made

    def add(self, resource: str, **given: Any) -> Object:
        """Create an object as a request would."""
        fields = RESOURCES[resource]
        if resource == "credentials" and not given.get("organization"):
            raise Refused(400, {"detail": "Missing 'user', 'team', or 'organization'."})
        missing = [name for name, one in fields.items() if one.required and given.get(name) in (None, "")]
        if missing:
            raise Refused(400, {name: ["This field is required."] for name in missing})
        made = {name: one.default for name, one in fields.items()}
        made |= {"id": next(self.ids), "resource": resource}
        self._write(made, given, new=True)
        self.objects[made["id"]] = made
        if resource == "projects":
            self._update(made)
        return made

    def change(self, found: Object, given: Mapping[str, Any]) -> None:
        changed = dict(found)
        self._write(changed, given, new=False)
        if found["resource"] == "projects" and any(changed[name] != found[name] for name in ("scm_url", "scm_branch")):
            self._update(changed)
        self.objects[found["id"]] = changed

    def _write(self, made: Object, given: Mapping[str, Any], new: bool) -> None:
        resource = made["resource"]
        before = dict(made)
        for name, value in given.items():
            if name == "type" and value == resource[:-1]:
                continue
            if name not in RESOURCES[resource]:
                raise Refused(400, {name: [f"{resource} has no such field."]})
            one = RESOURCES[resource][name]
            if one.read_only or (one.fixed and not new):
                continue
            made[name] = self._checked(name, one, value)
        owner = {"job_templates": "project", "inventory_sources": "inventory"}.get(resource)
        if owner and made[owner]:
            made["organization"] = self.objects[made[owner]]["organization"]
        self._check_unique(made)
        if resource in CHECKS:
            CHECKS[resource](self, made, None if new else before)

    def _update(self, project: Object) -> None:
        project["current_update"] = self.add("project_updates", project=project["id"])["id"]

    def update(self, project: Object) -> Object:
        """Start an update of a project as a request would."""
        self._update(project)
        return self.objects[project["current_update"]]

    def finish(self, update: Object) -> None:
        """End an update of a project: it fails without the repository, or the credential that the repository needs."""
        project = self.objects[update["project"]]
        directory = self.checkout(project)
        found = directory.is_dir() and (directory.name not in self.private or project["credential"])
        update["status"] = "successful" if found else "failed"
        if found:
            project["scm_revision"] = "1" * 40
        update["scm_revision"] = project["scm_revision"]
        project.pop("current_update", None)

    def _checked(self, name: str, one: Field, value: Any) -> Any:
        if value is None:
            return one.default
        if one.kind in TYPES:
            if value.__class__ is not TYPES[one.kind]:
                raise Refused(400, {name: [f"A value of type {one.kind} is required."]})
            if one.choices and value not in one.choices:
                raise Refused(400, {name: [f'"{value}" is not a valid choice.']})
            return value.strip() if isinstance(value, str) else value
        if value.__class__ is not int or not any(known["id"] == value for known in self.all(one.kind)):
            raise Refused(400, {name: [f'Invalid pk "{value}" - object does not exist.']})
        return value

    def _check_unique(self, made: Object) -> None:
        resource = made["resource"]
        key = {name: made[name] for name in UNIQUE[resource]}
        for one in self.all(resource):
            if one["id"] != made["id"] and all(one[name] == value for name, value in key.items()):
                raise Refused(400, {"__all__": [f"{resource} with this {', '.join(key)} already exists."]})

    def checkout(self, project: Object) -> Path:
        """Return the directory of a project's repository."""
        name: str = project["scm_url"].rpartition("/")[2].removesuffix(".git")
        return self.projects / name

    def sync(self, source: Object) -> None:
        """Update an inventory from its source, a YAML file of a repository without nested groups.

        Without ``overwrite_vars`` variables are merged. Those of the group ``all`` always are: AWX keeps them with the
        variables that users give to the inventory.
        """
        inventory = self.objects[source["inventory"]]
        file = self.checkout(self.objects[source["source_project"]]) / source["source_path"]
        found: Object = yaml.safe_load(file.read_text())
        of_all = found.pop("all", {})
        variables = {**yaml.safe_load(inventory["variables"] or "{}"), **of_all.get("vars", {})}
        inventory["variables"] = json.dumps(variables)
        known = self.contents.get(inventory["id"], {})

        def merged(old: Object | None, new: Object | None) -> Object:
            return {**({} if source["overwrite_vars"] else old or {}), **(new or {})}

        groups: Object = {} if source["overwrite"] else dict(known)
        for name, group in found.items():
            before = known.get(name, {})
            hosts = before.get("hosts", {})
            groups[name] = {
                "vars": merged(before.get("vars"), group.get("vars")),
                "hosts": {host: merged(hosts.get(host), own) for host, own in group.get("hosts", {}).items()},
            }
        self.contents[inventory["id"]] = groups

    def matches(self, one: Object, field_name: str, wanted: str) -> bool:
        """Return whether a field has a value; the field may be one of a referenced object, or ``isnull``."""
        first, _separator, rest = field_name.partition("__")
        if first not in (*RESOURCES[one["resource"]], "id"):
            raise Refused(400, {"detail": f"{one['resource']} has no field named '{first}'"})
        value = one.get(first)
        if rest == "isnull":
            return (value is None) is (wanted.lower() == "true")
        if rest:
            return value is not None and self.matches(self.objects[value], rest, wanted)
        return str(value) == wanted

    def search(self, resource: str, query: Mapping[str, str]) -> list[Object]:
        """Return the objects that have all fields of a query, and at least one of those with the prefix ``or__``."""
        either = {name.removeprefix("or__"): value for name, value in query.items() if name.startswith("or__")}
        every = {name: value for name, value in query.items() if not name.startswith("or__")}
        return [
            one
            for one in self.all(resource)
            if all(self.matches(one, name, value) for name, value in every.items())
            and (not either or any(self.matches(one, name, value) for name, value in either.items()))
        ]

    def playbooks(self, project: Object) -> list[str]:
        """Return the files of a project that AWX takes for playbooks."""
        directory = self.checkout(project)
        line = re.compile(r"^\s*-?\s*(hosts|(ansible\.builtin\.)?(import_playbook|include)):", re.MULTILINE)
        files = (*directory.rglob("*.yml"), *directory.rglob("*.yaml"))
        return [str(file.relative_to(directory)) for file in files if line.search(file.read_text())]

    def shown(self, one: Object) -> Object:
        """Return an object as the API shows it."""
        url = f"/api/v2/{one['resource']}/{one['id']}/"
        related = {"survey_spec": f"{url}survey_spec/", "update": f"{url}update/"}
        summary = {"current_update": {"id": one["current_update"]}} if "current_update" in one else {}
        hidden = ("resource", "current_update")
        public = {name: value for name, value in one.items() if name not in hidden}
        if one["resource"] == "project_updates":
            public |= {"finished": one["status"] != "running", "failed": one["status"] == "failed"}
        return {**public, "type": one["resource"][:-1], "url": url, "related": related, "summary_fields": summary}


# ---- what AWX checks beyond types ----


def check_credential_type(awx: Awx, made: Object, before: Object | None) -> None:
    used = [one for one in awx.all("credentials") if one["credential_type"] == made["id"]]
    if before and used and made["inputs"] != before["inputs"]:
        raise Refused(403, {"detail": "Modifications to inputs are not allowed for credential types that are in use"})
    if made["kind"] not in ("cloud", "net"):
        raise Refused(400, {"kind": [f"Must be 'cloud' or 'net', not {made['kind']}"]})
    if set(made["inputs"]) - {"fields", "required"} or set(made["injectors"]) - {"file", "env", "extra_vars"}:
        raise Refused(400, {"inputs": ["Additional properties are not allowed"]})
    known = {"id", "label", "type", "format", "choices", "help_text", "multiline", "secret", "default"}
    names: dict[str, Any] = {}
    for one in made["inputs"].get("fields", []):
        if (
            set(one) - known
            or not {"id", "label"} <= set(one)
            or one.get("type", "string") not in ("string", "boolean")
        ):
            raise Refused(400, {"inputs": [f"{one} is not a field"]})
        one.setdefault("type", "string")
        names[one["id"]] = "EXAMPLE"
    files = made["injectors"].get("file", {})
    names["tower"] = {"filename": "EXAMPLE_FILENAME"} if "template" in files else {}
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    for variable in made["injectors"].get("env", {}):
        if variable.startswith("ANSIBLE_") or variable in ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "JOB_ID", "AWX_HOST"):
            raise Refused(400, {"injectors": [f"Environment variable {variable} is not allowed."]})
    for injectors in made["injectors"].values():
        for name, template in injectors.items():
            try:
                environment.from_string(template).render(names)
            except (TemplateError, TypeError) as error:
                raise Refused(400, {"injectors": [f"{name}: {error}"]}) from None


def check_credential(awx: Awx, made: Object, _before: Object | None) -> None:
    """Move the secret inputs out of an object, as AWX encrypts them. Given inputs replace all others."""
    described = awx.objects[made["credential_type"]]["inputs"]
    fields = {one["id"]: one for one in described.get("fields", [])}
    unknown = set(made["inputs"]) - set(fields)
    if unknown:
        raise Refused(400, {"inputs": [f"Additional properties are not allowed ({', '.join(unknown)})"]})
    before: dict[str, Any] = awx.secrets.get(made["id"], {})
    secrets: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for name, value in made["inputs"].items():
        if value.__class__ is not {"string": str, "boolean": bool}[fields[name]["type"]]:
            raise Refused(400, {"inputs": {name: [f"{fields[name]['type']} is required"]}})
        shown[name] = value
        if not fields[name].get("secret") or not value:
            continue
        shown[name] = ENCRYPTED
        if value != ENCRYPTED:
            secrets[name] = value
        elif name in before:
            secrets[name] = before[name]
        else:
            message = f"{ENCRYPTED} is a reserved keyword, and cannot be used for {name}."
            raise Refused(400, {"inputs": [message]})
    made["inputs"] = shown
    awx.secrets[made["id"]] = secrets


def check_credential_kind(awx: Awx, made: Object, kind: str) -> None:
    if made["credential"] is not None:
        found = awx.objects[awx.objects[made["credential"]]["credential_type"]]["kind"]
        if found != kind:
            raise Refused(400, {"credential": [f"Credential kind must be '{kind}', not '{found}'."]})


def check_execution_environment(awx: Awx, made: Object, before: Object | None) -> None:
    if before and made["organization"] != before["organization"]:
        raise Refused(400, {"organization": ["Cannot change the organization of an execution environment"]})
    check_credential_kind(awx, made, "registry")


def check_project(awx: Awx, made: Object, _before: Object | None) -> None:
    check_credential_kind(awx, made, "scm")


def check_instance_group(_awx: Awx, made: Object, _before: Object | None) -> None:
    if made["pod_spec_override"]:
        if not made["is_container_group"]:
            raise Refused(400, {"pod_spec_override": ["only for container groups"]})
        check_mapping("pod_spec_override", made["pod_spec_override"])


def check_inventory(_awx: Awx, made: Object, _before: Object | None) -> None:
    check_mapping("variables", made["variables"])


def check_inventory_source(awx: Awx, made: Object, _before: Object | None) -> None:
    if made["source"] == "scm" and not made["source_project"]:
        raise Refused(400, {"source_project": ["Project required for scm type sources."]})


def check_job_template(awx: Awx, made: Object, _before: Object | None) -> None:
    if not made["project"]:
        raise Refused(400, {"project": ["Job Templates must have a project assigned."]})
    if not made["inventory"] and not made["ask_inventory_on_launch"]:
        raise Refused(400, {"inventory": ["You must either set a default value or ask to prompt on launch."]})
    project = awx.objects[made["project"]]
    if not project["scm_revision"] or made["playbook"] not in awx.playbooks(project):
        raise Refused(400, {"playbook": ["Playbook not found for project."]})
    check_mapping("extra_vars", made["extra_vars"])


def check_schedule(_awx: Awx, made: Object, _before: Object | None) -> None:
    rule = made["rrule"]
    found = re.fullmatch(r"DTSTART(?:;TZID=[^:\s]+:\d{8}T\d{6}|:\d{8}T\d{6}Z) RRULE:(\S+)", rule)
    if not found:
        raise Refused(400, {"rrule": ["Valid DTSTART and one RRULE required in rrule."]})
    parts = dict(part.partition("=")[::2] for part in found[1].split(";"))
    unsupported = {"BYYEARDAY", "BYWEEKNO"} & set(parts)
    if parts.get("FREQ") not in ("MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
        raise Refused(400, {"rrule": [f"rrule parsing failed validation: {parts.get('FREQ')}"]})
    if "INTERVAL" not in parts:
        raise Refused(400, {"rrule": ["INTERVAL required in rrule"]})
    if unsupported or re.search(r"\d[A-Z]{2}", parts.get("BYDAY", "")) or int(parts.get("COUNT", 1)) > 999:
        raise Refused(400, {"rrule": ["not supported"]})
    if {"COUNT", "UNTIL"} <= set(parts):
        raise Refused(400, {"rrule": ["RRULE may not contain both COUNT and UNTIL"]})


def check_workflow_node(awx: Awx, made: Object, _before: Object | None) -> None:
    template = awx.objects.get(made["unified_job_template"], {})
    for name in ("job_slice_count", "limit"):
        if made[name] is not None and not template.get(f"ask_{name}_on_launch"):
            raise Refused(400, {name: ["Field is not configured to prompt on launch."]})


def check_mapping(name: str, value: str) -> None:
    if value and not isinstance(yaml.safe_load(value), dict):
        raise Refused(400, {name: ["Cannot parse as JSON or YAML."]})


CHECKS: Mapping[str, Callable[[Awx, Object, Object | None], None]] = {
    "credential_types": check_credential_type,
    "credentials": check_credential,
    "execution_environments": check_execution_environment,
    "instance_groups": check_instance_group,
    "inventories": check_inventory,
    "inventory_sources": check_inventory_source,
    "job_templates": check_job_template,
    "projects": check_project,
    "schedules": check_schedule,
    "workflow_job_template_nodes": check_workflow_node,
}


def check_job_template_credential(awx: Awx, _template: Object, present: list[int], new: Object) -> None:
    """Refuse a second credential of the same type, or of type Vault with the same ID."""

    def key(credential: Object) -> tuple[int, str]:
        return credential["credential_type"], credential["inputs"].get("vault_id", "")

    if key(new) in [key(awx.objects[one]) for one in present]:
        name = awx.objects[new["credential_type"]]["name"]
        raise Refused(400, {"error": f"Cannot assign multiple {name} credentials."})


def check_success_node(awx: Awx, parent: Object, _present: list[int], new: Object) -> None:
    if parent["workflow_job_template"] != new["workflow_job_template"]:
        raise Refused(400, {"Error": "Relationship not allowed."})
    reached, todo = set[int](), [new["id"]]
    while todo:
        reached.add(node := todo.pop())
        todo += set(awx.members.get((node, "success_nodes"), [])) - reached
    if parent["id"] in reached:
        raise Refused(400, {"Error": "Cycle detected."})


ASSOCIATION_CHECKS: Mapping[tuple[str, str], Callable[[Awx, Object, list[int], Object], None]] = {
    ("job_templates", "credentials"): check_job_template_credential,
    ("workflow_job_template_nodes", "success_nodes"): check_success_node,
}


def check_survey(survey: Any) -> None:
    if not isinstance(survey, dict) or {"name", "description", "spec"} - set(survey) or not survey["spec"]:
        raise Refused(400, {"error": "name, description and spec are required in a survey."})
    types = {"text", "textarea", "password", "integer", "float", "multiplechoice", "multiselect"}
    variables = set()
    for index, question in enumerate(survey["spec"]):
        for name, kind in (("type", str), ("question_name", str), ("variable", str), ("required", bool)):
            if question.get(name).__class__ is not kind:
                raise Refused(400, {"error": f"'{name}' in survey question {index} expected to be {kind.__name__}."})
        if question["type"] not in types or question["variable"] in variables:
            raise Refused(400, {"error": f"survey question {index}: type or variable"})
        variables.add(question["variable"])
        default = question.get("default", "")
        if question["type"] in ("text", "textarea", "multiplechoice") and not isinstance(default, str):
            raise Refused(400, {"error": f"Default value {default} in survey question {index} expected to be string."})
        if question["type"].startswith("multi") and default not in question.get("choices", []):
            raise Refused(400, {"error": "Default choice must be answered from the choices listed."})


# ---- HTTP ----


def application(awx: Awx) -> FastAPI:
    """Return the API over the state of AWX."""
    app = FastAPI()

    @app.exception_handler(Refused)
    async def refused(_request: Request, refusal: Refused) -> JSONResponse:
        return JSONResponse(refusal.body, refusal.status)

    @app.middleware("http")
    async def known_user(request: Request, proceed: Any) -> Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"detail": "Authentication credentials were not provided."}, 401)
        if request.method != "GET":
            awx.writes.append(f"{request.method} {request.url.path}")
        response: Response = await proceed(request)
        response.headers["X-API-Product-Name"] = "AWX"
        response.headers["X-API-Product-Version"] = "24.6.1"
        return response

    @app.get("/api/v2/{resource}/")
    async def search(resource: str, request: Request) -> Object:
        if resource not in (*RESOURCES, "unified_job_templates"):
            raise Refused(404, {"detail": "Not found."})
        return listed(awx, awx.search(resource, request.query_params))

    @app.post("/api/v2/{resource}/", status_code=201)
    async def create(resource: str, request: Request) -> Object:
        return awx.shown(awx.add(resource, **await request.json()))

    @app.get("/api/v2/{resource}/{identity}/")
    async def detail(resource: str, identity: int) -> Object:
        found = awx.get(resource, identity)
        if resource == "project_updates" and found["status"] == "running":
            awx.finish(found)
        return awx.shown(found)

    @app.patch("/api/v2/{resource}/{identity}/")
    async def update(resource: str, identity: int, request: Request) -> Object:
        awx.change(awx.get(resource, identity), await request.json())
        return awx.shown(awx.objects[identity])

    @app.post("/api/v2/projects/{identity}/update/", status_code=202)
    async def update_project(identity: int) -> Object:
        return awx.shown(awx.update(awx.get("projects", identity)))

    add_surveys(app, awx)
    add_associations(app, awx)
    return app


def listed(awx: Awx, found: list[Object]) -> Object:
    return {"count": len(found), "next": None, "previous": None, "results": [awx.shown(one) for one in found]}


def add_surveys(app: FastAPI, awx: Awx) -> None:
    @app.get("/api/v2/{resource}/{identity}/survey_spec/")
    async def survey(resource: str, identity: int) -> Any:
        return awx.surveys.get(awx.get(resource, identity)["id"], {})

    @app.post("/api/v2/{resource}/{identity}/survey_spec/")
    async def put_survey(resource: str, identity: int, request: Request) -> Object:
        given = json.loads(await request.body())
        check_survey(given)
        awx.surveys[awx.get(resource, identity)["id"]] = given
        return {}

    @app.delete("/api/v2/{resource}/{identity}/survey_spec/")
    async def no_survey(resource: str, identity: int) -> Object:
        awx.surveys.pop(awx.get(resource, identity)["id"], None)
        return {}


def add_associations(app: FastAPI, awx: Awx) -> None:
    @app.get("/api/v2/{resource}/{identity}/{below}/")
    async def members(resource: str, identity: int, below: str) -> Object:
        awx.get(resource, identity)
        if (resource, below) not in ASSOCIATIONS:
            raise Refused(404, {"detail": "Not found."})
        return listed(awx, [awx.objects[one] for one in awx.members.get((identity, below), [])])

    @app.post("/api/v2/{resource}/{identity}/{below}/", status_code=204)
    async def associate(resource: str, identity: int, below: str, request: Request) -> Response:
        parent = awx.get(resource, identity)
        given = await request.json()
        if (resource, below) not in ASSOCIATIONS:
            raise Refused(404, {"detail": "Not found."})
        new = awx.get(ASSOCIATIONS[resource, below], given["id"])
        present = awx.members.setdefault((identity, below), [])
        if given.get("disassociate"):
            present.remove(new["id"])
        else:
            if (resource, below) in ASSOCIATION_CHECKS:
                ASSOCIATION_CHECKS[resource, below](awx, parent, present, new)
            present.append(new["id"])
        return Response(status_code=204)


@contextmanager
def serving(awx: Awx) -> Iterator[str]:
    """Serve on loopback while the block runs, and yield the URL."""
    server = uvicorn.Server(uvicorn.Config(application(awx), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
            if not thread.is_alive():
                raise RuntimeError("the stand-in did not start")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()

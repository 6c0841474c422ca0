# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the API of AWX 24.6: the endpoints that configure.yml uses, with AWX's types, references and refusals.

Every resource is a table of fields. What AWX checks beyond that, as its source code says, is in ``CHECKS`` and
``ASSOCIATION_CHECKS``. It is stricter than AWX in one way: a field that it does not know is refused, not ignored.
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
ASKED = "diff_mode variables limit tags skip_tags job_type verbosity inventory credential execution_environment forks"


class Refused(Exception):
    """An answer of AWX that is not a success: a status and a body."""

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
        "organization": reference("organizations", fixed=True),
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
        "prevent_instance_group_fallback": flag(),
        **{f"ask_{name}_on_launch": flag() for name in ASKED.split()},
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
        "ask_limit_on_launch": flag(),
    },
    "workflow_job_template_nodes": {
        "identifier": text(required=True),
        "workflow_job_template": reference("workflow_job_templates", required=True, fixed=True),
        "unified_job_template": reference("unified_job_templates"),
        "all_parents_must_converge": flag(),
    },
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
    """What AWX knows. IDs are unique over all resources, so that a reference to another kind of object is noticed.

    :param projects: a directory that holds a checkout for each repository, by the last part of its URL.
    """

    projects: Path
    objects: dict[int, Object] = field(default_factory=dict)
    secrets: dict[int, dict[str, str]] = field(default_factory=dict)  # credential -> its secret inputs
    members: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    surveys: dict[int, Any] = field(default_factory=dict)
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

    def named(self, resource: str, name: str) -> Object:
        (found,) = (one for one in self.all(resource) if one.get("name", one.get("identifier")) == name)
        return found

    def put(self, resource: str, **values: Any) -> Object:
        """An object that is there from the beginning, without any check."""
        defaults = {name: one.default for name, one in RESOURCES[resource].items()}
        made = {**defaults, "id": next(self.ids), "resource": resource, **values}
        self.objects[made["id"]] = made
        return made

    def add(self, resource: str, **given: Any) -> Object:
        """Makes an object as a request would."""
        fields = RESOURCES[resource]
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
        if resource == "job_templates" and made["project"]:
            made["organization"] = self.objects[made["project"]]["organization"]
        self._check_unique(made)
        if resource in CHECKS:
            CHECKS[resource](self, made, None if new else before)

    def _checked(self, name: str, one: Field, value: Any) -> Any:
        if value is None:
            return one.default
        if one.kind in TYPES:
            if value.__class__ is not TYPES[one.kind]:
                raise Refused(400, {name: [f"A value of type {one.kind} is required."]})
            if one.choices and value not in one.choices:
                raise Refused(400, {name: [f'"{value}" is not a valid choice.']})
            return value
        if value.__class__ is not int or not any(known["id"] == value for known in self.all(one.kind)):
            raise Refused(400, {name: [f'Invalid pk "{value}" - object does not exist.']})
        return value

    def _check_unique(self, made: Object) -> None:
        names = ["name", "identifier", "organization", "inventory", "workflow_job_template", "credential_type"]
        if made["resource"] == "job_templates":
            names = ["name", "organization"]
        key = {name: made[name] for name in names if name in made}
        if made["resource"] == "project_updates":
            return
        for one in self.all(made["resource"]):
            if one["id"] != made["id"] and all(one[name] == value for name, value in key.items()):
                raise Refused(400, {"__all__": [f"{made['resource']} with these {', '.join(key)} exists already."]})

    def _update(self, project: Object) -> None:
        update = self.add("project_updates", project=project["id"], status="running")
        project["current_update"] = update["id"]

    def playbooks(self, project: Object) -> list[str]:
        """The files of a project that AWX takes for playbooks."""
        directory = self.projects / project["scm_url"].rpartition("/")[2].removesuffix(".git")
        line = re.compile(r"^\s*-?\s*(hosts|(ansible\.builtin\.)?(import_playbook|include)):", re.MULTILINE)
        files = (*directory.rglob("*.yml"), *directory.rglob("*.yaml"))
        return [str(file.relative_to(directory)) for file in files if line.search(file.read_text())]

    def shown(self, one: Object) -> Object:
        """An object as the API returns it."""
        url = f"/api/v2/{one['resource']}/{one['id']}/"
        related = {"survey_spec": f"{url}survey_spec/", "update": f"{url}update/"}
        summary = {"current_update": {"id": one["current_update"]}} if "current_update" in one else {}
        hidden = ("resource", "current_update")
        public = {name: value for name, value in one.items() if name not in hidden}
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


def check_credential(awx: Awx, made: Object, before: Object | None) -> None:
    """Takes the secret inputs out of an object, as AWX encrypts them."""
    described = awx.objects[made["credential_type"]]["inputs"]
    fields = {one["id"]: one for one in described.get("fields", [])}
    unknown = set(made["inputs"]) - set(fields)
    if unknown:
        raise Refused(400, {"inputs": [f"Additional properties are not allowed ({', '.join(unknown)})"]})
    secrets: dict[str, Any] = dict(awx.secrets.get(made["id"], {}))
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
        elif name not in secrets:
            message = f"{ENCRYPTED} is a reserved keyword, and cannot be used for {name}."
            raise Refused(400, {"inputs": [message]})
    made["inputs"] = shown
    awx.secrets[made["id"]] = secrets


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
    if not re.match(r"DTSTART(;TZID=[^:]+:\d{8}T\d{6}|:\d{8}T\d{6}Z) RRULE:", rule):
        raise Refused(400, {"rrule": ["Valid DTSTART required in rrule."]})
    if "INTERVAL=" not in rule or "SECONDLY" in rule:
        raise Refused(400, {"rrule": ["INTERVAL required in rrule"]})


def check_mapping(name: str, value: str) -> None:
    if value and not isinstance(yaml.safe_load(value), dict):
        raise Refused(400, {name: ["Cannot parse as JSON or YAML."]})


CHECKS: Mapping[str, Callable[[Awx, Object, Object | None], None]] = {
    "credential_types": check_credential_type,
    "credentials": check_credential,
    "instance_groups": check_instance_group,
    "inventories": check_inventory,
    "inventory_sources": check_inventory_source,
    "job_templates": check_job_template,
    "schedules": check_schedule,
}


def check_job_template_credential(awx: Awx, present: list[int], new: Object) -> None:
    kinds = [awx.objects[one]["credential_type"] for one in present]
    if new["credential_type"] in kinds:
        name = awx.objects[new["credential_type"]]["name"]
        raise Refused(400, {"error": f"Cannot assign multiple {name} credentials."})


ASSOCIATION_CHECKS = {("job_templates", "credentials"): check_job_template_credential}


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
    """The API over what AWX knows."""
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
        answer: Response = await proceed(request)
        answer.headers["X-API-Product-Name"] = "AWX"
        answer.headers["X-API-Product-Version"] = "24.6.1"
        return answer

    @app.get("/api/v2/{resource}/")
    async def search(resource: str, request: Request) -> Object:
        fields = RESOURCES.get(resource, RESOURCES["workflow_job_templates"] if "unified" in resource else None)
        if fields is None:
            raise Refused(404, {"detail": "Not found."})
        found = awx.all(resource)
        for name, value in request.query_params.items():
            if name not in (*fields, "id"):
                raise Refused(400, {"detail": f"{resource} has no field named '{name}'"})
            found = [one for one in found if str(one.get(name)) == value]
        return listed(awx, found)

    @app.post("/api/v2/{resource}/", status_code=201)
    async def create(resource: str, request: Request) -> Object:
        return awx.shown(awx.add(resource, **await request.json()))

    @app.get("/api/v2/{resource}/{identity}/")
    async def detail(resource: str, identity: int) -> Object:
        found = awx.get(resource, identity)
        if resource == "project_updates" and found["status"] == "running":  # done by the next time
            project = awx.objects[found["project"]]
            awx.objects[identity] = {**found, "status": "successful"}
            project["scm_revision"] = "1" * 40 if awx.playbooks(project) else ""
            project.pop("current_update", None)
        return awx.shown(found)

    @app.patch("/api/v2/{resource}/{identity}/")
    async def update(resource: str, identity: int, request: Request) -> Object:
        awx.change(awx.get(resource, identity), await request.json())
        return awx.shown(awx.objects[identity])

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
        awx.get(resource, identity)
        given = await request.json()
        if (resource, below) not in ASSOCIATIONS:
            raise Refused(404, {"detail": "Not found."})
        new = awx.get(ASSOCIATIONS[resource, below], given["id"])
        present = awx.members.setdefault((identity, below), [])
        if given.get("disassociate"):
            present.remove(new["id"])
        else:
            if (resource, below) in ASSOCIATION_CHECKS:
                ASSOCIATION_CHECKS[resource, below](awx, present, new)
            present.append(new["id"])
        return Response(status_code=204)


@contextmanager
def serving(awx: Awx) -> Iterator[str]:
    """Serves on loopback while the block runs, and yields the URL."""
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

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An AWX that configure.yml has configured, and the platform to which its jobs connect."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from awx.interpreter import interpreter
from awx.stand_in import TOKEN, Awx, serving
from integration.ansible_run import PROJECT, Run, plain, run_playbook
from simulator.client import RunningSimulator, start

EXTENSION = PROJECT / "extensions/awx"
COLLECTIONS = f"{PROJECT / '.cache/awx'}:{PROJECT / '.cache'}"
SECRETS = {"THINGSTREAM_ZTP_TOKEN": "", "THINGSTREAM_VAULT_PASSWORD": "correct horse battery staple"}


@dataclass(frozen=True)
class Site:
    """An AWX, its address, its settings, and what the tasks of the first run have registered."""

    awx: Awx
    url: str
    work: Path
    settings: dict[str, Any]
    secrets: dict[str, str]
    interpreter: Path
    registered: dict[str, Any] = field(default_factory=dict)

    def configure(
        self, *arguments: str, secrets: dict[str, str] | None = None, only: Sequence[str] = (), **settings: Any
    ) -> Run:
        """Run configure.yml, or only some of the tasks that change AWX; ``settings`` without their prefix."""
        (play,) = yaml.safe_load((EXTENSION / "configure.yml").read_text())
        tasks = [task for task in play["tasks"] if not only or is_local(task) or task["name"] in only]
        left_out = [task for task in play["tasks"] if task not in tasks]
        assert {task["name"] for task in tasks} >= set(only)
        playbook = self.work / "configure.yml"
        playbook.write_text(yaml.safe_dump([{**play, "tasks": tasks}], sort_keys=False, width=10_000))
        shutil.copy(EXTENSION / "settings.yml", self.work)
        own = {f"thingstream_awx_{name}": value for name, value in settings.items()}
        known = {task["register"]: self.registered[task["name"]] for task in left_out if "register" in task}
        file = self.work / "mine.yml"
        file.write_text(yaml.safe_dump(plain({**self.settings, **own, **known})))
        return run_playbook(
            self.work,
            Path("localhost,"),
            "-e",
            f"@{file}",
            "-e",
            f"ansible_python_interpreter={self.interpreter}",
            *arguments,
            playbook=str(playbook if only else EXTENSION / "configure.yml"),
            environment={
                "CONTROLLER_HOST": self.url,
                "CONTROLLER_OAUTH_TOKEN": TOKEN,
                "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
                **(self.secrets if secrets is None else secrets),
            },
        )


def is_local(task: dict[str, Any]) -> bool:
    """Return whether a task calls no module of awx.awx."""
    return not any(name.startswith("awx.awx.") for name in task)


def ids(result: dict[str, Any]) -> dict[str, Any]:
    """Return of a result what other tasks use."""
    items = [one for one in result.get("results", []) if "id" in one]
    return {
        "id": result.get("id"),
        "results": [{"id": one["id"], "item": {"name": one["item"].get("name")}} for one in items],
    }


def empty_awx(projects: Path) -> Awx:
    """Return an AWX after its installation, with the repository of a user, and a second organization.

    Both organizations have a credential of each kind, of the same name.
    """
    shutil.copytree(EXTENSION / "project", projects / "gateways")
    awx = Awx(projects)
    text: dict[str, Any] = {"type": "string"}
    secret = {**text, "secret": True}
    kinds: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
        "Machine": ("ssh", {"username": text, "ssh_key_data": secret}),
        "Vault": ("vault", {"vault_password": secret, "vault_id": text}),
        "Source Control": ("scm", {"username": text, "password": secret}),
        "Container Registry": ("registry", {"host": text, "username": text, "password": secret}),
    }
    types = {
        kind: awx.put(
            "credential_types",
            name=name,
            kind=kind,
            managed=True,
            inputs={"fields": [{"id": one, **more} for one, more in fields.items()]},
        )["id"]
        for name, (kind, fields) in kinds.items()
    }
    for name in ("Default", "Other"):
        organization = awx.put("organizations", name=name)["id"]
        for kind, inputs in {
            "ssh": {"username": "deploy"},
            "vault": {"vault_password": "of the user", "vault_id": "users"},
            "scm": {"password": "of the repository"},
            "registry": {"password": "of the registry"},
        }.items():
            awx.add(
                "credentials", name="Gateways", organization=organization, credential_type=types[kind], inputs=inputs
            )
    return awx


@pytest.fixture(scope="session", autouse=True)
def collection() -> None:
    if not (PROJECT / ".cache/awx/ansible_collections/awx/awx").is_dir():
        pytest.skip("awx.awx is missing: run `make awx`")


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with start(tmp_path_factory.mktemp("simulator"), key_pool=5) as running:
        yield running


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, simulator: RunningSimulator) -> Iterator[tuple[Site, Run]]:
    """The first run of configure.yml, as verbose as possible, against an AWX without any of its objects."""
    work = tmp_path_factory.mktemp("awx")
    awx = empty_awx(work / "projects")
    token = simulator.put_profile("awx", service="pointperfect", plan="mqtt")
    settings = {
        "thingstream_awx_api_url": simulator.url,
        "thingstream_awx_ca": simulator.ca_path.read_text(),
        "thingstream_awx_volume": work / "volume",
    }
    short = tmp_path_factory.mktemp("py")
    with serving(awx) as url, interpreter(short, COLLECTIONS) as python:
        site = Site(awx, url, work, settings, {**SECRETS, "THINGSTREAM_ZTP_TOKEN": token}, python)
        run = site.configure("-vvv", "--diff")
        site.registered.update({entry["task"]: ids(entry["result"]) for entry in run.results})
        yield site, run


@pytest.fixture
def site(first_run: tuple[Site, Run]) -> Iterator[Site]:
    """An AWX right after the first run, restored after the test."""
    site, run = first_run
    assert run.status == 0, run.output
    known = ("private", "objects", "secrets", "members", "surveys", "contents", "writes")
    kept = {name: copy.deepcopy(getattr(site.awx, name)) for name in known}
    yield site
    for name, value in kept.items():
        setattr(site.awx, name, value)

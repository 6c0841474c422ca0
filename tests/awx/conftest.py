# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An AWX that configure.yml has been run against, and the platform that its jobs talk to."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from awx.stand_in import TOKEN, Awx, serving
from integration.ansible_run import PROJECT, Run, plain, run_playbook
from simulator.client import RunningSimulator, start

EXTENSION = PROJECT / "extensions/awx"
COLLECTIONS = f"{PROJECT / '.cache/awx'}:{PROJECT / '.cache'}"
SECRETS = {"THINGSTREAM_ZTP_TOKEN": "", "THINGSTREAM_VAULT_PASSWORD": "correct horse battery staple"}


@dataclass(frozen=True)
class Site:
    """An AWX, where it is, and what is configured in it."""

    awx: Awx
    url: str
    work: Path
    settings: dict[str, Any]
    secrets: dict[str, str]

    def configure(
        self, *arguments: str, secrets: dict[str, str] | None = None, only: Sequence[str] = (), **settings: Any
    ) -> Run:
        """Runs configure.yml, or only some of its tasks; ``settings`` without their prefix."""
        (play,) = yaml.safe_load((EXTENSION / "configure.yml").read_text())
        tasks = [task for task in play["tasks"] if not only or task["name"] in only]
        assert len(tasks) == len(only or tasks)
        playbook = self.work / "configure.yml"
        playbook.write_text(yaml.safe_dump([{**play, "tasks": tasks}], sort_keys=False))
        shutil.copy(EXTENSION / "settings.yml", self.work)
        own = {f"thingstream_awx_{name}": value for name, value in settings.items()}
        file = self.work / "mine.yml"
        file.write_text(yaml.safe_dump(plain({**self.settings, **own})))
        return run_playbook(
            self.work,
            Path("localhost,"),
            "-e",
            f"@{file}",
            *arguments,
            playbook=str(playbook if only else EXTENSION / "configure.yml"),
            environment={
                "CONTROLLER_HOST": self.url,
                "CONTROLLER_OAUTH_TOKEN": TOKEN,
                "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
                **(self.secrets if secrets is None else secrets),
            },
        )


def empty_awx(projects: Path) -> Awx:
    """An AWX as it is after its installation, with an SSH key and the repository of a user."""
    shutil.copytree(EXTENSION / "project", projects / "gateways")
    awx = Awx(projects)
    organization = awx.put("organizations", name="Default")["id"]
    vault = {"fields": [{"id": "vault_password", "type": "string", "secret": True}]}
    awx.put("credential_types", name="Vault", kind="vault", managed=True, inputs=vault)
    machine = awx.put("credential_types", name="Machine", kind="ssh", managed=True)["id"]
    awx.put("credentials", name="Gateways", organization=organization, credential_type=machine)
    return awx


@pytest.fixture(scope="session", autouse=True)
def collection() -> None:
    if not (PROJECT / ".cache/awx/ansible_collections/awx/awx").is_dir():
        pytest.skip("awx.awx is not there: run `make awx`")


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with start(tmp_path_factory.mktemp("simulator"), key_pool=5) as running:
        yield running


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, simulator: RunningSimulator) -> Iterator[tuple[Site, Run]]:
    """The first run of configure.yml, told everything, against an AWX that holds nothing of it."""
    work = tmp_path_factory.mktemp("awx")
    awx = empty_awx(work / "projects")
    token = simulator.put_profile("awx", service="pointperfect", plan="mqtt")
    settings = {
        "thingstream_awx_api_url": simulator.url,
        "thingstream_awx_ca": simulator.ca_path.read_text(),
        "thingstream_awx_volume": work / "volume",
    }
    with serving(awx) as url:
        site = Site(awx, url, work, settings, {**SECRETS, "THINGSTREAM_ZTP_TOKEN": token})
        yield site, site.configure("-vvv", "--diff")


@pytest.fixture
def site(first_run: tuple[Site, Run]) -> Iterator[Site]:
    """An AWX right after the first run, whatever tests do to it."""
    site, run = first_run
    assert run.status == 0, run.output
    known = ("objects", "secrets", "members", "surveys", "writes")
    kept = {name: copy.deepcopy(getattr(site.awx, name)) for name in known}
    yield site
    for name, value in kept.items():
        setattr(site.awx, name, value)

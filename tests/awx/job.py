# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job of AWX: what AWX makes of a job template for ansible-runner, and the run of it.

AWX writes the template of the ``file`` injector below ``env``, fills in those of ``env`` for the environment,
and passes those of ``extra_vars`` as a file of their own. An input that is left blank is undefined in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from awx.stand_in import Awx, Object
from integration.ansible_run import PROJECT, plain
from jinja2.sandbox import ImmutableSandboxedEnvironment


@dataclass(frozen=True)
class Job:
    """A finished job: its exit status, the events that AWX would keep, and where the runner has worked."""

    status: int
    events: list[dict[str, Any]]
    directory: Path

    def results(self, task: str) -> dict[str, dict[str, Any]]:
        """Host to its result of a task."""
        ended = [
            event["event_data"]
            for event in self.events
            if event["event"] in ("runner_on_ok", "runner_on_failed") and event["event_data"]["task"] == task
        ]
        return {one["host"]: one["res"] for one in ended}


def launch(
    awx: Awx,
    template_name: str,
    directory: Path,
    hosts: Mapping[str, Mapping[str, Any]],
    limit: str | None = None,
    environment: Mapping[str, str] | None = None,
    **answers: Any,
) -> Job:
    """Runs a job template over the given hosts, with answers to its survey."""
    template = awx.named("job_templates", template_name)
    for name in ("env", "inventory"):
        (directory / name).mkdir(parents=True, mode=0o700)
    project = awx.objects[template["project"]]
    (directory / "project").symlink_to(awx.projects / project["scm_url"].rpartition("/")[2].removesuffix(".git"))
    variables = yaml.safe_load(awx.objects[template["inventory"]]["variables"])
    inventory = {"all": {"hosts": plain(hosts), "vars": variables}}
    (directory / "inventory/hosts.yml").write_text(yaml.safe_dump(inventory))
    survey = awx.surveys.get(template["id"], {"spec": []})["spec"]
    defaults = {question["variable"]: question["default"] for question in survey if "default" in question}
    given = {**yaml.safe_load(template["extra_vars"] or "{}"), **defaults, **answers}
    write(directory / "env/extravars", given)
    arguments = ["--forks", str(template["forks"])]
    environ: dict[str, str] = {}
    passwords: dict[str, str] = {}
    chosen = template["limit"] if limit is None else limit
    if chosen:
        arguments += ["--limit", chosen]
    for identity in awx.members[template["id"], "credentials"]:
        credential = awx.objects[identity]
        kind = awx.objects[credential["credential_type"]]
        secrets = awx.secrets.get(identity, {})
        if kind["name"] == "Vault":
            arguments.append("--ask-vault-pass")
            passwords[r"Vault password:\s*?$"] = secrets["vault_password"]
        elif kind["injectors"]:
            inputs = {name: value for name, value in {**credential["inputs"], **secrets}.items() if value}
            arguments += inject(kind, inputs, directory, environ)
    write(directory / "env/cmdline", " ".join(arguments))
    write(directory / "env/passwords", passwords)
    write(
        directory / "env/envvars",
        {**environ, **(environment or {}), "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache")},
    )
    return run(directory, template["playbook"])


def inject(kind: Object, inputs: Mapping[str, str], directory: Path, environ: dict[str, str]) -> list[str]:
    """Adds what a credential type injects to ``environ``, and returns arguments for ansible-playbook."""
    templates, names = ImmutableSandboxedEnvironment(), dict[str, Any](inputs)

    def filled(template: str) -> str:
        return templates.from_string(template).render(names)

    def file(content: str) -> str:
        descriptor, path = tempfile.mkstemp(dir=directory / "env")
        with os.fdopen(descriptor, "w") as stream:
            stream.write(content)
        return path

    injectors = kind["injectors"]
    if "file" in injectors:
        names["tower"] = {"filename": file(filled(injectors["file"]["template"]))}
    environ.update({name: filled(template) for name, template in injectors["env"].items()})
    variables = {name: filled(template) for name, template in injectors["extra_vars"].items()}
    return ["-e", f"@{file(yaml.safe_dump(variables))}"]


def run(directory: Path, playbook: str) -> Job:
    """Runs ansible-runner as AWX does, in an empty home directory."""
    home = directory / "home"
    home.mkdir()
    runner = f"{sys.prefix}/bin/ansible-runner"
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        [runner, "run", str(directory), "--playbook", playbook, "--ident", "job", "--quiet"],
        env={"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    events = [json.loads(file.read_text()) for file in sorted((directory / "artifacts/job/job_events").glob("*.json"))]
    assert events or done.returncode, done.stdout + done.stderr
    return Job(done.returncode, events, directory)


def write(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)

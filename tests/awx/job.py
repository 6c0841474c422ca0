# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job of AWX: what AWX makes of a job template for ansible-runner, and the run of it.

AWX updates the inventory, cuts it into slices, and only then limits it. It adds ``-u``, environment variables, and
variables in which Ansible must not find templates. It writes the template of the ``file`` injector below ``env``, fills
in those of ``env`` for the environment, and passes those of ``extra_vars`` as a file of their own. In these templates
an input that is left blank is undefined.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from awx.stand_in import Awx, Object, Refused
from integration.ansible_run import PROJECT
from jinja2.sandbox import ImmutableSandboxedEnvironment

JOB_IDS = itertools.count(1001)


@dataclass(frozen=True)
class Job:
    """A finished job: exit status, output, the events that AWX would keep, and the directory of the runner."""

    status: int
    output: str
    events: list[dict[str, Any]]
    directory: Path

    def results(self, task: str) -> dict[str, dict[str, Any]]:
        """Return the result of a task for each host."""
        ended = [
            event["event_data"]
            for event in self.events
            if event["event"] in ("runner_on_ok", "runner_on_failed") and event["event_data"]["task"] == task
        ]
        return {one["host"]: one["res"] for one in ended}

    @property
    def artifacts(self) -> dict[str, Any]:
        """The values that the job publishes with ``set_stats``, for later nodes of a workflow."""
        ended = [event["event_data"] for event in self.events if event["event"] == "playbook_on_stats"]
        found: dict[str, Any] = ended[0].get("artifact_data", {}) if ended else {}
        return found


class UnsafeDumper(yaml.SafeDumper):
    """Write every text with the tag ``!unsafe``, so that Ansible evaluates no template in it."""


UnsafeDumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("!unsafe", text))


def launch(awx: Awx, template_name: str, directory: Path, **options: Any) -> Job:
    """Launch a job template that has one slice; see ``launch_slices``."""
    (job,) = launch_slices(awx, template_name, directory, **options)
    return job


def launch_slices(
    awx: Awx,
    template_name: str,
    directory: Path,
    *,
    limit: str | None = None,
    slices: int | None = None,
    artifacts: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    task_environment: Mapping[str, str] | None = None,
    **answers: Any,
) -> list[Job]:
    """Launch a job template, and return the job of each slice.

    :param limit: the prompted limit.
    :param slices: the prompted number of slices.
    :param artifacts: what earlier nodes of the workflow have published.
    :param environment: the environment in the image.
    :param task_environment: the setting ``AWX_TASK_ENV``.
    :param answers: answers to the survey.
    :raises Refused: if an answer is missing.
    """
    template = awx.named("job_templates", template_name)
    survey = awx.surveys.get(template["id"], {"spec": []})["spec"]
    missing = [one["variable"] for one in survey if one["required"] and one["variable"] not in answers]
    if missing:
        raise Refused(400, {"variables_needed_to_start": [f"'{name}' value missing" for name in missing]})
    for source in awx.all("inventory_sources"):
        if source["inventory"] == template["inventory"] and source["update_on_launch"]:
            awx.sync(source)
    hosts = sorted({host for group in awx.contents[template["inventory"]].values() for host in group["hosts"]})
    wanted = slices if slices is not None and template["ask_job_slice_count_on_launch"] else template["job_slice_count"]
    count = min(wanted, len(hosts))
    chosen = limit if limit is not None and template["ask_limit_on_launch"] else template["limit"]
    own = yaml.safe_load(template["extra_vars"] or "{}")
    defaults = {question["variable"]: question["default"] for question in survey if "default" in question}
    jobs = []
    for number in range(count):
        place = directory if count == 1 else directory.with_name(f"{directory.name}-{number + 1}")
        for name in ("env", "inventory"):
            (place / name).mkdir(parents=True, mode=0o700)
        (place / "project").symlink_to(awx.checkout(awx.objects[template["project"]]))
        inventory = inventory_of(awx, template["inventory"], hosts[number::count])
        (place / "inventory/hosts.yml").write_text(yaml.safe_dump(inventory))
        job_id = next(JOB_IDS)
        given = {**defaults, **answers, **(artifacts or {}), "awx_job_id": job_id, "awx_user_name": "admin"}
        trusted = {name: value for name, value in own.items() if name not in given}
        content = (yaml.safe_dump(trusted) if trusted else "") + yaml.dump(given, Dumper=UnsafeDumper)
        write(place / "env/extravars", content)
        arguments, environ, passwords = of_credentials(awx, template, place)
        arguments += [f"--forks={template['forks']}", *(["-l", chosen] if chosen else [])]
        write(place / "env/cmdline", shlex.join(arguments))
        write(place / "env/passwords", passwords)
        of_awx = {
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache"),
            "JOB_ID": str(job_id),
            **(task_environment or {}),
        }
        write(place / "env/envvars", {**(environment or {}), **of_awx, **environ})
        jobs.append(run(place, template["playbook"]))
    return jobs


def inventory_of(awx: Awx, inventory: int, hosts: list[str]) -> Object:
    """Return the inventory of a slice: some hosts, in their groups."""
    groups = {
        name: {
            "vars": group["vars"],
            "hosts": {host: own for host, own in group["hosts"].items() if host in hosts},
        }
        for name, group in awx.contents[inventory].items()
    }
    variables = yaml.safe_load(awx.objects[inventory]["variables"] or "{}")
    return {"all": {"vars": variables, "children": groups}}


def of_credentials(awx: Awx, template: Object, directory: Path) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return what the credentials of a template add: arguments, environment, and passwords by their prompt."""
    user = "root"
    arguments: list[str] = []
    environ: dict[str, str] = {}
    passwords: dict[str, str] = {}
    for identity in awx.members[template["id"], "credentials"]:
        credential = awx.objects[identity]
        kind = awx.objects[credential["credential_type"]]
        inputs = {**credential["inputs"], **awx.secrets.get(identity, {})}
        if kind["kind"] == "ssh":
            user = inputs.get("username") or user
        elif kind["kind"] == "vault":
            vault_id = inputs.get("vault_id")
            arguments += ["--vault-id", f"{vault_id}@prompt"] if vault_id else ["--ask-vault-pass"]
            prompt = rf"Vault password \({vault_id}\):" if vault_id else "Vault password:"
            passwords[rf"{prompt}\s*?$"] = inputs["vault_password"]
        elif kind["injectors"]:
            filled = {name: value for name, value in inputs.items() if value}
            arguments += inject(kind, filled, directory, environ)
    become = ["--become"] if template["become_enabled"] else []
    return ["-u", user, *become, *arguments], environ, passwords


def inject(kind: Object, inputs: Mapping[str, str], directory: Path, environ: dict[str, str]) -> list[str]:
    """Add what a credential type injects to ``environ``, and return arguments for ansible-playbook."""
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
    return ["-e", f"@{file(yaml.dump(variables, Dumper=UnsafeDumper))}"]


def run(directory: Path, playbook: str) -> Job:
    """Run ansible-runner as AWX does, in an empty home directory."""
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
    output = directory / "artifacts/job/stdout"
    return Job(done.returncode, output.read_text() if output.exists() else done.stderr, events, directory)


def write(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)

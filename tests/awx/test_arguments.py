# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every argument in configure.yml, as Ansible passes it, against the documentation of the modules of awx.awx."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from awx.conftest import COLLECTIONS, EXTENSION
from integration.ansible_run import PROJECT

OMITTED = "omitted"
KEYS = ("type", "elements", "choices", "required", "default", "aliases")


def spec_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return the argument spec that the documentation of a module describes."""
    spec = {}
    for name, option in options.items():
        spec[name] = {key: option[key] for key in KEYS if option.get(key) is not None}
        if option.get("suboptions"):
            spec[name]["options"] = spec_of(option["suboptions"])
    return spec


def calls() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return each module of awx.awx in configure.yml with its arguments, filled in; one for each item of a loop."""
    loader = DataLoader()
    (play,) = loader.load_from_file(str(EXTENSION / "configure.yml"), trusted_as_template=True)
    settings = loader.load_from_file(str(EXTENSION / "settings.yml"), trusted_as_template=True)
    settings |= play["vars"]
    settings |= {
        "thingstream_awx_token": "a token",
        "thingstream_awx_vault_password": "a password",
        "thingstream_awx_found": {"ssh": "1", "scm": "2", "registry": "3"},
        "ansible_check_mode": False,
        "omit": OMITTED,
    }  # not of this environment
    for task in play["tasks"]:
        if "register" in task:
            settings[task["register"]] = {"id": 1, "results": [{"item": {"name": "Thingstream audit"}, "id": 1}]}
        for module in (name for name in task if name.startswith("awx.awx.")):
            for item in Templar(loader, variables=settings).template(task.get("loop", ["none"])):
                variables = {**settings, **task.get("vars", {}), "item": item}
                arguments = Templar(loader, variables=variables).template(task[module])
                yield module, {name: value for name, value in arguments.items() if value != OMITTED}


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, Any]]:
    modules = sorted({module for module, _arguments in calls()})
    run = subprocess.run(
        [f"{sys.prefix}/bin/ansible-doc", "--json", *modules],
        env={"ANSIBLE_COLLECTIONS_PATH": COLLECTIONS, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {module: spec_of(found["doc"]["options"]) for module, found in json.loads(run.stdout).items()}


def errors(published: dict[str, dict[str, Any]], module: str, arguments: dict[str, Any]) -> list[str]:
    return list(ArgumentSpecValidator(published[module]).validate(copy.deepcopy(arguments)).error_messages)


def test_every_argument_is_documented(published: dict[str, dict[str, Any]]) -> None:
    every = list(calls())
    assert len(every) > len(published) >= 11
    assert [(call, found) for call in every if (found := errors(published, *call))] == []


@pytest.mark.parametrize(
    "wrong", [{"forks": "many"}, {"colour": "red"}, {"job_type": "dry"}], ids=["type", "name", "choice"]
)
def test_an_undocumented_argument_is_found(published: dict[str, dict[str, Any]], wrong: dict[str, Any]) -> None:
    arguments = next(arguments for module, arguments in calls() if module == "awx.awx.job_template")
    assert errors(published, "awx.awx.job_template", {**arguments, **wrong})


def test_the_collection_is_the_one_that_is_required() -> None:
    (required,) = yaml.safe_load((EXTENSION / "requirements.yml").read_text())["collections"]
    manifest = json.loads((PROJECT / ".cache/awx/ansible_collections/awx/awx/MANIFEST.json").read_text())
    assert manifest["collection_info"]["version"] == required["version"]


# ---- the page for doing it by hand ----


def yaml_blocks(page: str) -> list[Any]:
    return [
        yaml.safe_load(dedent(block))
        for block in re.findall(r"^ *```yaml\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)
    ]


def test_the_page_has_what_the_playbook_makes() -> None:
    """Injectors, inputs and pod as they arrive in AWX."""
    made = {(module, arguments["name"]): arguments for module, arguments in calls() if "name" in arguments}
    kind = made["awx.awx.credential_type", "Thingstream device profile"]
    group = made["awx.awx.instance_group", "Thingstream"]
    expected = [yaml.safe_load(group["pod_spec_override"]), kind["inputs"], kind["injectors"]]
    page = (PROJECT / "docs/awx.md").read_text()
    assert yaml_blocks(page) == expected
    for _module, name in made:
        assert name in page
    for arguments in made.values():
        for question in arguments.get("survey_spec", {}).get("spec", []):
            assert f"`{question['variable']}`" in page

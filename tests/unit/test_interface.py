# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface says the same thing everywhere: argument specs, documentation, role, action group, README."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import policy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import services

PROJECT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (PROJECT / "plugins/modules").glob("*.py"))
ROLE = PROJECT / "roles/thingstream_gateway"
NOT_IN_THE_ROLE = {"variables_prefix"}


def documentation(module: str, name: str = "DOCUMENTATION") -> Any:
    tree = ast.parse((PROJECT / f"plugins/modules/{module}.py").read_text())
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == name:
            return yaml.safe_load(ast.literal_eval(statement.value))
    raise AssertionError(f"{module} has no {name}")


def documented_options(module: str) -> dict[str, Any]:
    """The options of a module, those of its documentation fragments among them."""
    options = dict(documentation(module)["options"])
    for fragment in documentation(module)["extends_documentation_fragment"]:
        name = fragment.removeprefix("thingstream.ztp.").split(".")[0]
        plugin = importlib.import_module(f"ansible_collections.thingstream.ztp.plugins.doc_fragments.{name}")
        options.update(yaml.safe_load(plugin.ModuleDocFragment.DOCUMENTATION)["options"])
    return options


def arguments(module: str) -> dict[str, dict[str, Any]]:
    plugin = importlib.import_module(f"ansible_collections.thingstream.ztp.plugins.action.{module}")
    return dict(plugin.ActionModule.ARGUMENTS)


@pytest.mark.parametrize("module", MODULES)
def test_documented_options_are_the_options(module: str) -> None:
    compare_options(documented_options(module), arguments(module))


def compare_options(documented: dict[str, Any], spec: dict[str, Any]) -> None:
    assert sorted(documented) == sorted(spec)
    for name, option in spec.items():
        said = documented[name]
        assert said["type"] == option["type"], name
        assert said.get("elements") == option.get("elements"), name
        assert sorted(said.get("choices", [])) == sorted(option.get("choices", [])), name
        assert said.get("required", False) == option.get("required", False), name
        if name != "spool_path":  # its default depends on the configuration of Ansible
            assert said.get("default") == option.get("default"), name
        assert said["description"], name
        compare_options(said.get("suboptions", {}), option.get("options", {}))


def test_role_options_are_the_options_of_the_module() -> None:
    role = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    spec = arguments("thingstream_ztp")
    assert set(role) == {f"thingstream_gateway_{name}" for name in spec if name not in NOT_IN_THE_ROLE}
    for name, option in role.items():
        own = spec[name.removeprefix("thingstream_gateway_")]
        for key in ("type", "elements", "choices", "required"):
            assert option.get(key) == own.get(key), (name, key)
        assert option.get("no_log", False) == bool(own.get("no_log")), name


def test_every_module_is_in_the_action_group() -> None:
    runtime = yaml.safe_load((PROJECT / "meta/runtime.yml").read_text())
    assert runtime["action_groups"]["ztp"] == MODULES
    assert sorted(path.stem for path in (PROJECT / "plugins/action").glob("*.py")) == MODULES


def test_every_field_can_be_mapped_and_every_reason_is_documented() -> None:
    options = documented_options("thingstream_ztp")
    said = " ".join(options["field_map"]["description"])
    assert all(f"V({field})" in said for field in services.FIELDS)
    reasons = " ".join(documentation("thingstream_ztp", "RETURN")["reason"]["description"])
    assert all(f"V({reason})" in reasons for reason in policy.REASONS)


def test_reasons_are_the_chain_in_its_order() -> None:
    chain = [reason for reason, _applies in policy.CHAIN]
    assert [reason for reason in policy.REASONS if reason in chain] == chain
    assert set(policy.REASONS) - set(chain) == {"absent", "damaged", "drift", "refused", "none"}


def test_the_readme_lists_all_content() -> None:
    readme = (PROJECT / "README.md").read_text()
    for module in MODULES:
        assert f"`{module}`" in readme
    for folder in ("playbooks", "plugins/callback", "plugins/filter", "extensions/eda/rulebooks"):
        for content in (PROJECT / folder).glob("[!_]*.*"):
            assert f"`{content.stem}`" in readme


def test_only_lower_bounds_in_requirements_and_no_ansible_core() -> None:
    lines = [line.split("#")[0].strip() for line in (PROJECT / "requirements.txt").read_text().splitlines()]
    requirements = [line for line in lines if line]
    assert [line.split(">=")[0] for line in requirements] == ["cryptography", "jmespath", "paho-mqtt", "requests"]
    assert all(">=" in line and "<" not in line for line in requirements)

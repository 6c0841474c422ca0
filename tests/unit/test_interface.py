# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the interface agree: argument specs, documentation, role, action group, README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import due
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import services
from ansible_collections.thingstream.ztp.tests import role_argument_specs
from ansible_collections.thingstream.ztp.tests.role_argument_specs import arguments, documentation, documented_options

PROJECT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (PROJECT / "plugins/modules").glob("*.py"))
SHARED_RESULTS = ("action", "reason", "msg", "path", "generation", "thing", "error_code")


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


def test_the_role_has_the_documented_options() -> None:
    """Compare the committed argument specs with those that ``make argument-specs`` makes."""
    assert role_argument_specs.SPECS.read_text() == role_argument_specs.render(), "run make argument-specs"


def test_role_options_are_the_options_of_the_module() -> None:
    role = yaml.safe_load(role_argument_specs.SPECS.read_text())["argument_specs"]["main"]["options"]
    spec, documented = arguments("thingstream_ztp"), documented_options("thingstream_ztp")
    assert set(role) == {f"thingstream_gateway_{name}" for name in spec} - {"thingstream_gateway_variables_prefix"}
    for name, option in role.items():
        own = spec[name.removeprefix("thingstream_gateway_")]
        for key in ("type", "elements", "choices", "required"):
            assert option.get(key) == own.get(key), (name, key)
        assert option.get("no_log", False) == bool(own.get("no_log")), name
        assert option.get("default") == documented[name.removeprefix("thingstream_gateway_")].get("default"), name


def test_links_of_the_role_lead_to_its_variables() -> None:
    description = role_argument_specs.documented_options("thingstream_ztp")["state"]["description"]
    assert any("RV(thing.retired)" in line and "O(reload_command)" in line for line in description)
    text = role_argument_specs.render()
    assert "RV(thingstream.ztp.thingstream_ztp#module:thing.retired)" in text
    assert "O(thingstream_gateway_verify.when=always)" in text
    assert "O(thingstream_gateway_templates[].dest)" in text
    assert "O(reload_command)" not in text


def test_modules_that_change_a_host_have_the_same_results() -> None:
    without = {"thingstream_retire": {"files"}}
    for module in ("thingstream_import", "thingstream_retire", "thingstream_rollback", "thingstream_ztp"):
        found = set(documentation(module, "RETURN")) - {"due_at", "status"}
        assert found == {*SHARED_RESULTS, "files"} - without.get(module, set()), module


def test_every_module_is_in_the_action_group() -> None:
    runtime = yaml.safe_load((PROJECT / "meta/runtime.yml").read_text())
    assert runtime["action_groups"]["ztp"] == MODULES
    assert sorted(path.stem for path in (PROJECT / "plugins/action").glob("*.py")) == MODULES


def test_every_field_can_be_mapped_and_every_reason_is_documented() -> None:
    options = documented_options("thingstream_ztp")
    said = " ".join(options["field_map"]["description"])
    assert all(f"V({field})" in said for field in services.FIELDS)
    reasons = " ".join(documentation("thingstream_ztp", "RETURN")["reason"]["description"])
    assert all(f"V({reason})" in reasons for reason in due.REASONS)


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

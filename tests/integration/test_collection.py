# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built and installed collection runs without the checkout it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from integration.ansible_run import PROJECT, run_playbook, write_inventory
from integration.published import build, cut, install, tool
from simulator.client import RunningSimulator


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, installed and cut down to its published content."""
    work = tmp_path_factory.mktemp("collection")
    cut(install(build(work), work / "collections"))
    return work / "collections"


@pytest.mark.full
def test_the_installed_collection_provisions(
    installed: Path, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path
) -> None:
    token = simulator.put_profile("installed", service="cloudlocate")
    hosts = {
        "one": {
            "thingstream_gateway_service": "cloudlocate",
            "thingstream_gateway_token": token,
            "thingstream_gateway_hardware_id": "installed",
            "thingstream_gateway_path": tmp_path / "one",
        }
    }
    inventory = write_inventory(tmp_path / "inventory.yml", hosts, platform)
    for action in ("created", "none"):
        run = run_playbook(tmp_path, inventory, collections=installed)
        assert run.values("action") == {"one": action}, run.output
    info = tmp_path / "info.yml"
    info.write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - thingstream.ztp.thingstream_ztp_info:\n"
        "        paths: ['{{ thingstream_gateway_path }}']\n"
    )
    (bundle,) = run_playbook(tmp_path, inventory, playbook=str(info), collections=installed).hosts["one"]["bundles"]
    assert (bundle["present"], bundle["generation"], bundle["damaged"], bundle["drift"]) == (True, "000001", [], [])
    assert bundle["thing"] == run.hosts["one"]["thing"]
    assert [entry["name"] for entry in bundle["generations"]] == ["000001"]
    assert run_playbook(tmp_path, inventory, playbook="thingstream.ztp.audit", collections=installed).status == 0
    assert len(list(tmp_path.glob("thingstream-audit.*"))) == 4


def test_documentation_can_be_read(installed: Path, tmp_path: Path) -> None:
    names = [f"thingstream.ztp.{path.stem}" for path in sorted((PROJECT / "plugins/modules").glob("*.py"))]
    found = json.loads(tool("ansible-doc", "--json", *names, work=tmp_path, collections=installed))
    assert sorted(found) == names
    assert all(found[name]["doc"]["options"] and found[name]["return"] and found[name]["examples"] for name in names)
    role = tool(
        "ansible-doc", "-t", "role", "thingstream.ztp.thingstream_gateway", work=tmp_path, collections=installed
    )
    assert "thingstream_gateway_hardware_id" in role


def test_the_role_validates_its_arguments(installed: Path, tmp_path: Path) -> None:
    playbook = tmp_path / "role.yml"
    playbook.write_text("- hosts: all\n  gather_facts: false\n  roles: [thingstream.ztp.thingstream_gateway]\n")
    variables = {"thingstream_gateway_service": "pointperfekt"}
    inventory = write_inventory(tmp_path / "inventory.yml", {"one": variables}, {})
    run = run_playbook(tmp_path, inventory, playbook=str(playbook), collections=installed)
    assert run.status != 0
    assert "pointperfekt" in run.output

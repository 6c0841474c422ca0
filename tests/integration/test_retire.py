# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollback and retirement as tasks of a playbook, with the results that they document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.ansible_run import plain, run_playbook, write_inventory
from simulator.client import RunningSimulator

RESULTS = {"changed", "action", "reason", "path", "generation", "thing"}


@pytest.fixture
def tried(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Any:
    """Return a function that runs one task on a gateway with a local connection, and returns its result."""
    own = {name.removeprefix("thingstream_gateway_"): value for name, value in platform.items()}
    own["token"] = simulator.put_profile("retire", service="cloudlocate")
    own["hardware_id"] = tmp_path.name
    inventory = write_inventory(tmp_path / "inventory.yml", {"one": {}}, {})

    def run(module: str, *arguments: str, **options: Any) -> dict[str, Any]:
        common = own if module == "ztp" else {}
        options = {"service": "cloudlocate", "path": tmp_path / "one", **common, **options}
        playbook = tmp_path / "playbook.yml"
        task = {"name": "Try", f"thingstream.ztp.thingstream_{module}": plain(options)}
        playbook.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
        return dict(run_playbook(tmp_path, inventory, *arguments, playbook=str(playbook)).hosts["one"])

    return run


@pytest.mark.full
def test_a_thing_leaves_the_retirement_list_and_comes_back_by_a_rollback(tried: Any) -> None:
    assert tried("ztp")["action"] == "created"
    renewed = tried("ztp", force=True)
    (retired,) = renewed["thing"]["retired"]

    for arguments, action in ((["--check"], "retired"), ([], "retired"), ([], "none"), (["--check"], "none")):
        result = tried("retire", *arguments, things=[retired])
        assert (result["action"], result["changed"]) == (action, action != "none"), result
        assert set(result) >= RESULTS
        assert not {"files", "due_at"} & set(result)
    assert result["thing"]["retired"] == []

    refused = tried("rollback")
    assert (refused["error_code"], "deactivated" in refused["msg"]) == ("no_generation", True)
    result = tried("rollback", force=True)
    assert (result["action"], result["generation"]) == ("rolled_back", "000001")
    assert set(result) >= {*RESULTS, "files"}
    assert "due_at" not in result
    assert [entry["client_id"] for entry in result["thing"]["retired"]] == [renewed["thing"]["client_id"]]


@pytest.mark.parametrize(
    ("module", "options", "named"),
    [
        ("retire", {}, "things"),
        ("retire", {"things": [{"client_id": "device:1"}]}, "service"),
        ("retire", {"things": [], "keep": 1}, "keep"),
        ("rollback", {"things": []}, "things"),
        ("rollback", {"formats": ["pem"]}, "formats"),
        ("import", {"generation": "000001", "fields": {}}, "generation"),
        ("ztp", {"state": "renewed"}, "renewed"),
    ],
)
def test_options_of_another_job_are_refused(tried: Any, module: str, options: dict[str, Any], named: str) -> None:
    result = tried(module, **options)
    assert (result.get("error_code"), named in result["msg"]) == ("bad_option", True), result

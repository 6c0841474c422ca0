# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cost of a gateway with nothing due, in figures that do not depend on the machine.

`make bench` measures seconds. These figures stand for them in continuous integration: a figure that grows is a run that
has become slower. Raise a limit only with the ratios of `make bench` before and after.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from integration.ansible_run import PROJECT, Run, run_playbook, write_inventory
from simulator.client import RunningSimulator

COMMANDS = 1  # by the connection
PROGRAMS = ["ls", "sh", "sha256sum"]  # started on the gateway, the shell that runs the script among them
MAX_BYTES_SENT = 9_200
MAX_BYTES_OF_RESULT = 1_800
MAX_MODULES = 73  # of the collection, which Ansible compiles from source in every run
# What Ansible does not import by itself
PACKAGES = {"certifi", "charset_normalizer", "idna", "jmespath", "requests", "socks", "urllib3"}


@pytest.fixture
def counted(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Run:
    """Run with nothing due; the files ``commands`` and ``programs`` record what the run has started."""
    host = {
        "service": "pointperfect",
        "token": simulator.put_profile("cost", service="pointperfect"),
        "hardware_id": "cost-1",
        "path": tmp_path / "gateway",
    }
    variables = {f"thingstream_gateway_{name}": value for name, value in host.items()}
    inventory = write_inventory(tmp_path / "inventory.yml", {"gw1": variables}, platform)
    first = run_playbook(tmp_path, inventory)
    assert first.values("action") == {"gw1": "created"}, first.output
    environment = {
        "ANSIBLE_CONNECTION_PLUGINS": str(PROJECT / "tests/integration/connection_plugins"),
        "TEST_COMMANDS": str(tmp_path / "commands"),
        "PATH": f"{programs_that_count(tmp_path)}:{os.environ['PATH']}",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    run = run_playbook(tmp_path, inventory, "-e", "ansible_connection=counting", environment=environment)
    assert run.values("action") == {"gw1": "none"}, run.output
    return run


def programs_that_count(work: Path) -> Path:
    """Return a directory with a wrapper for each program of this machine; it records the name in ``programs``."""
    directory = work / "bin"
    directory.mkdir()
    shell = shutil.which("sh")
    wrapper = work / "wrapper"
    wrapper.write_text(
        f'#!{shell}\nname=${{0##*/}}\necho "$name" >>{work}/programs\n'
        'for place in /usr/bin /bin /usr/sbin /sbin; do [ ! -x "$place/$name" ] || exec "$place/$name" "$@"; done\n'
    )
    wrapper.chmod(0o755)
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for name in os.listdir(place):
            if not (directory / name).exists() and not name.startswith("python"):
                (directory / name).symlink_to(wrapper)
    return directory


def test_a_gateway_with_nothing_due(counted: Run, tmp_path: Path) -> None:
    sent = list(map(int, (tmp_path / "commands").read_text().split()))
    assert len(sent) == COMMANDS, "remote commands"
    assert sum(sent) <= MAX_BYTES_SENT, "bytes sent to the gateway"
    started = (tmp_path / "programs").read_text().split()
    assert sorted(started) == PROGRAMS, "programs started on the gateway"
    (result,) = (entry["result"] for entry in counted.results if not entry["once"])
    assert len(json.dumps(result)) <= MAX_BYTES_OF_RESULT, "bytes of the result"


def test_what_the_controller_imports(counted: Run, tmp_path: Path) -> None:
    playbook = tmp_path / "raw.yml"
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [{"raw": "true"}]}]))
    inventory = write_inventory(tmp_path / "raw.ini.yml", {"gw1": {}}, {})
    raw = run_playbook(tmp_path, inventory, playbook=str(playbook), environment={"PYTHONPROFILEIMPORTTIME": "1"})
    own = {name for name in imported(counted) if name.startswith("ansible_collections.")}
    assert len(own) <= MAX_MODULES, "modules of the collection"
    packages = [{name.partition(".")[0] for name in imported(run) - own} for run in (counted, raw)]
    assert {name for name in packages[0] - packages[1] if is_installed(name)} == PACKAGES


def imported(run: Run) -> set[str]:
    lines = (line for line in run.output.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines} - {"ansible_collections"}


def is_installed(name: str) -> bool:
    """Return whether a name is that of a package of the environment, and not of one that was looked for in vain."""
    return name not in sys.stdlib_module_names and importlib.util.find_spec(name) is not None

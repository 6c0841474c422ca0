# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway costs where nothing is due, in figures that do not depend on the machine.

`make bench` measures seconds. These figures stand for them in continuous integration: a figure that grows is a run that
has become slower. Raise a limit only with the ratios of `make bench` before and after.
"""

from __future__ import annotations

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
BYTES_SENT = 12_000
BYTES_OF_RESULT = 2_400
MODULES = 80  # of the collection, which Ansible compiles from source in every run
LIBRARIES = {"cryptography", "jmespath", "requests"}  # imported once in each run


@pytest.fixture
def counted(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Run:
    """A run with nothing due; what it has started is in the files ``commands`` and ``programs``."""
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
    """Every program of this machine under its name, in front of which it writes that name into ``programs``."""
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
    assert sum(sent) <= BYTES_SENT, "bytes sent to the gateway"
    started = (tmp_path / "programs").read_text().split()
    assert sorted(started) == PROGRAMS, "programs started on the gateway"
    (result,) = (entry["result"] for entry in counted.results if not entry["once"])
    assert len(json.dumps(result)) <= BYTES_OF_RESULT, "bytes of the result"


def test_what_the_controller_imports(counted: Run) -> None:
    lines = (line for line in counted.output.splitlines() if line.startswith("import time:"))
    modules = {line.rpartition("|")[2].strip() for line in lines}
    own = {name for name in modules if name.startswith("ansible_collections.thingstream.ztp.plugins.plugin_utils.")}
    assert 20 < len(own) <= MODULES, "modules of the collection"
    foreign = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert foreign & (LIBRARIES | {"yaml", "jinja2"}) >= {"yaml", "jinja2"}, "what Ansible itself imports is seen"
    assert foreign & LIBRARIES <= LIBRARIES

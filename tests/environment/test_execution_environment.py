# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An execution environment, as far as it can be made without a container: what is declared is enough for the main job.

ansible-builder reads the installed collection and makes a build context; then exactly what is declared is installed
into an empty virtual environment, once as old and once as new as it may be, and the main job runs there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.ansible_run import PROJECT, run_playbook, write_inventory
from integration.broker import running_broker
from integration.published import build, cut, install, tool
from simulator.client import RunningSimulator

TOOLS = PROJECT / ".cache" / "venv" / "execution-environment"
DEFINITION = PROJECT / "extensions" / "execution-environment"


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (TOOLS / "complete").exists():
        pytest.skip("make execution-environment installs ansible-builder")
    return build(tmp_path_factory.mktemp("build"))


def declared(file: str) -> list[str]:
    """Return the lines of a file of requirements, without comments and empty lines."""
    lines = (PROJECT / file).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def builder(*arguments: str | Path, work: Path) -> str:
    return tool("ansible-builder", *arguments, work=work, collections=work, prefix=TOOLS)


def test_the_builder_reads_what_is_declared(tarball: Path, tmp_path: Path) -> None:
    install(tarball, tmp_path / "collections")
    found = yaml.safe_load(builder("introspect", tmp_path / "collections", work=tmp_path))
    assert {kind: [line.partition("  #")[0] for line in lines] for kind, lines in found.items()} == {
        "python": declared("requirements.txt"),
        "system": declared("bindep.txt"),
    }


@pytest.mark.parametrize("file", ["execution-environment.yml", "debian.yml"])
def test_the_builder_makes_a_context(tarball: Path, tmp_path: Path, file: str) -> None:
    """With a tarball in place of Galaxy, as the page of the execution environment says."""
    work = tmp_path / "definition"
    shutil.copytree(DEFINITION, work)
    definition = yaml.safe_load((work / file).read_text())
    shutil.copy(tarball, work)
    (work / "requirements.yml").write_text(
        yaml.safe_dump({"collections": [{"name": f"collections/{tarball.name}", "type": "file"}]})
    )
    local = {**definition, "additional_build_files": [{"src": tarball.name, "dest": "collections"}]}
    (work / file).write_text(yaml.safe_dump(local))
    builder("create", "--file", file, "--output-filename", "Containerfile", work=work)
    context = work / "context" / "_build"
    assert (context / "collections" / tarball.name).read_bytes() == tarball.read_bytes()
    assert yaml.safe_load((context / "requirements.yml").read_text())["collections"][0]["type"] == "file"
    containerfile = (work / "context" / "Containerfile").read_text()
    assert f'ARG EE_BASE_IMAGE="{definition["images"]["base_image"]["name"]}"' in containerfile
    for name in ("ansible_core", "ansible_runner"):
        assert definition["dependencies"][name]["package_pip"] in containerfile


@pytest.mark.parametrize("age", ["lowest-direct", "highest"])
def test_what_is_declared_is_enough(
    tarball: Path, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path, age: str
) -> None:
    """Credentials are created, verified at a broker before they are used, and left alone the second time."""
    environment, collections = tmp_path / "environment", tmp_path / "collections"
    requires_ansible = yaml.safe_load((PROJECT / "meta" / "runtime.yml").read_text())["requires_ansible"]
    wanted: list[str | Path] = ["--requirements", PROJECT / "requirements.txt", f"ansible-core{requires_ansible}"]
    uv(tmp_path, "venv", "--python", sys.executable, environment)
    uv(tmp_path, "pip", "install", "--python", environment, "--resolution", age, *wanted)
    installed = json.loads(uv(tmp_path, "pip", "list", "--python", environment, "--format", "json"))
    versions = {one["name"]: one["version"] for one in installed}
    if age == "lowest-direct":
        lowest = dict(line.split(">=") for line in [*declared("requirements.txt"), f"ansible-core{requires_ansible}"])
        assert {name: versions[name] for name in lowest} == lowest
    cut(install(tarball, collections, environment))

    work = tmp_path / "broker"
    work.mkdir()
    token = simulator.put_profile("declared", service="pointperfect", simulator={"host": "127.0.0.1"}, plan="mqtt")
    with running_broker(simulator, work, "require_certificate true\nuse_identity_as_username true") as broker:
        options = {
            "service": "pointperfect",
            "token": token,
            "hardware_id": f"declared-{age}",
            "path": tmp_path / "gateway",
            "field_map": {"port": f"`{broker.port}`"},
            "verify": {"when": "before_switch"},
        }
        hosts = {"one": {f"thingstream_gateway_{name}": value for name, value in options.items()}}
        inventory = write_inventory(tmp_path / "inventory.yml", hosts, platform)
        for action in ("created", "none"):
            run = run_playbook(tmp_path, inventory, collections=collections, prefix=environment)
            assert run.hosts["one"]["action"] == action, run.output
        assert broker.log(run.hosts["one"]["thing"]["client_id"])


def uv(work: Path, *arguments: str | Path) -> str:
    """Run the installer that can choose the lowest versions, and return its output."""
    run = subprocess.run([TOOLS / "bin" / "uv", *arguments], cwd=work, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tarball of `make release` is reproducible and complete, the importer of Galaxy accepts it, and it can be used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from release.build import PROJECT, build, git

IMPORTER = PROJECT / ".cache" / "venv" / "importer"
RELEASES = yaml.safe_load((PROJECT / "changelogs" / "changelog.yaml").read_text())["releases"]
VERSION = yaml.safe_load((PROJECT / "galaxy.yml").read_text())["version"]
CONTENT = {"meta", "playbooks", "plugins", "roles", "extensions"}
FOR_READERS = {"README.md", "CHANGELOG.rst", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "examples"}
LICENSE = {"COPYING", "LICENSES", "REUSE.toml"}
REQUIREMENTS = {"requirements.txt", "bindep.txt"}
# `make demo` and `make test` work in the directory of the installed collection, too
FOR_TESTS = {"Makefile", "pyproject.toml", "tests", "changelogs", ".ansible-lint", ".yamllint"}
MANIFESTS = {"MANIFEST.json", "FILES.json"}
MADE_BY_TOOLS = r"(^|/)(\.git|\.venv|\.cache|__pycache__|\.\w+_cache|output)(/|$)|\.(pyc|retry|log|tar\.gz)$"
# A whole key; tests and documentation have the first line alone.
SECRET = r"PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{200,}-----END|\$ANSIBLE_VAULT;1\.\d;AES256\s+[0-9a-f\s]{200,}"


@pytest.fixture(scope="session")
def tarball() -> Path:
    """The tarball that `make release` has built."""
    (found,) = (PROJECT / ".cache" / "release").glob("*.tar.gz")
    return found


@pytest.fixture(scope="session")
def files(tarball: Path) -> dict[str, bytes]:
    """The files of the tarball by name."""
    with tarfile.open(tarball) as archive:
        opened = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in opened.items() if file}


@pytest.fixture(scope="session")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, installed into an empty directory."""
    home = tmp_path_factory.mktemp("home")
    print(ansible(home, "ansible-galaxy", "collection", "install", "--offline", tarball))
    return home / ".ansible" / "collections" / "ansible_collections" / "thingstream" / "ztp"


def ansible(home: Path, *command: str | Path) -> str:
    """Run a program of `.venv` as a user with an empty home directory does; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    run = subprocess.run(
        [Path(sys.prefix, "bin", command[0]), *command[1:]],
        cwd=home, env={**environment, "HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def home_of(installed: Path) -> Path:
    return installed.parents[4]


def test_a_second_build_is_byte_identical(tarball: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == tarball.read_bytes()


def test_the_checksum_is_that_of_the_tarball(tarball: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tarball.parent, check=True)


def test_members_carry_the_date_of_the_commit_and_no_owner(tarball: Path) -> None:
    date = int(git("show", "--no-patch", "--format=%ct", "HEAD"))
    with tarfile.open(tarball) as archive:
        members = archive.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname) for member in members} == {
        (date, 0, 0, "", "")
    }
    assert {member.mode for member in members} <= {0o644, 0o755}
    assert all(member.isfile() or member.isdir() for member in members)


def test_the_tarball_has_the_collection_and_nothing_else(files: dict[str, bytes]) -> None:
    assert {name.partition("/")[0] for name in files} == (
        CONTENT | FOR_READERS | LICENSE | REQUIREMENTS | FOR_TESTS | MANIFESTS
    )
    assert [name for name in files if re.search(MADE_BY_TOOLS, name)] == []
    assert "changelogs/changelog.yaml" in files
    assert {"meta/runtime.yml", "meta/execution-environment.yml"} <= set(files)


def test_no_file_has_a_secret_or_a_path_of_this_machine(files: dict[str, bytes]) -> None:
    text = {name: content.decode(errors="replace") for name, content in files.items()}
    assert [name for name, content in text.items() if re.search(SECRET, content)] == []
    assert [name for name, content in text.items() if str(PROJECT) in content] == []


def test_the_manifests_list_every_file(files: dict[str, bytes]) -> None:
    manifest, listed = json.loads(files["MANIFEST.json"]), json.loads(files["FILES.json"])["files"]
    assert manifest["file_manifest_file"]["chksum_sha256"] == hashlib.sha256(files["FILES.json"]).hexdigest()
    assert {entry["name"]: entry["chksum_sha256"] for entry in listed if entry["ftype"] == "file"} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name not in MANIFESTS
    }


def test_the_version_is_the_same_everywhere(files: dict[str, bytes], tarball: Path) -> None:
    assert tarball.name == f"thingstream-ztp-{VERSION}.tar.gz"
    assert json.loads(files["MANIFEST.json"])["collection_info"]["version"] == VERSION
    assert max(RELEASES, key=lambda version: [int(part) for part in version.split(".")]) == VERSION
    assert re.findall(r"^v(\S+)$", files["CHANGELOG.rst"].decode(), re.MULTILINE)[0] == VERSION


@pytest.mark.full
def test_the_importer_of_galaxy_accepts_the_tarball(tarball: Path, tmp_path: Path) -> None:
    """The importer exits with 0 even after errors."""
    (tmp_path / "home").mkdir()
    run = subprocess.run(
        [IMPORTER / "bin" / "python", "-m", "galaxy_importer.main", tarball],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{IMPORTER}/bin:{os.environ['PATH']}",
            "HOME": str(tmp_path / "home"),
            "GALAXY_IMPORTER_CONFIG": str(PROJECT / "tests" / "release" / "importer.ini"),
        },
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
    )  # fmt: skip
    assert "Importer processing completed" in run.stdout
    assert re.findall(r".*(?:ERROR|WARNING).*", run.stdout) == []


def test_the_installed_files_are_those_of_the_tarball(installed: Path) -> None:
    ansible(home_of(installed), "ansible-galaxy", "collection", "verify", "--offline", "thingstream.ztp")


@pytest.mark.parametrize("kind", ["module", "filter", "callback", "role"])
def test_every_plugin_has_documentation(installed: Path, kind: str) -> None:
    home = home_of(installed)
    names = list(json.loads(ansible(home, "ansible-doc", "--json", "--type", kind, "--list", "thingstream.ztp")))
    assert names
    described = json.loads(ansible(home, "ansible-doc", "--json", "--type", kind, *names))
    assert sorted(described) == sorted(names)
    pages = [
        page
        for name in names
        for page in described[name].get("entry_points", {"": described[name].get("doc")}).values()
    ]
    assert {page["version_added"] for page in pages} <= RELEASES.keys()


def test_every_playbook_is_found_by_name(installed: Path) -> None:
    home = home_of(installed)
    (home / "inventory").write_text("gateway-1\n")
    names = [f"thingstream.ztp.{playbook.stem}" for playbook in (installed / "playbooks").glob("*.yml")]
    assert names
    ansible(home, "ansible-playbook", "--syntax-check", "-i", "inventory", *names)


def test_the_demo_runs_with_the_installed_collection(installed: Path) -> None:
    shown = ansible(home_of(installed), "python", installed / "tests" / "demo" / "demo.py")
    assert "requests at the platform: 6, Things: 6" in shown
    assert (installed / ".cache" / "demo" / "gateways").is_dir()

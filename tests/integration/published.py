# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as it is published: built from what git tracks or would track, and installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from integration.ansible_run import PROJECT

CONTENT = ["meta", "plugins", "roles", "playbooks"]


def tool(name: str, *arguments: str | Path, work: Path, collections: Path, prefix: str | Path = sys.prefix) -> str:
    """Run a program of a virtual environment, and return its output."""
    run = subprocess.run(
        [f"{prefix}/bin/{name}", *map(str, arguments)],
        cwd=work,
        env={**os.environ, "HOME": str(work), "ANSIBLE_HOME": str(work), "ANSIBLE_COLLECTIONS_PATH": str(collections)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def build(work: Path) -> Path:
    """Build the tarball, and return its path."""
    source = work / "source"
    source.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    subprocess.run(
        ["tar", "--null", "-T", "-", "-cf", str(work / "source.tar")], cwd=PROJECT, input=tracked.stdout, check=True
    )
    subprocess.run(["tar", "-xf", str(work / "source.tar"), "-C", str(source)], check=True)
    tool("ansible-galaxy", "collection", "build", source, "--output-path", work, work=work, collections=work)
    (tarball,) = work.glob("thingstream-ztp-*.tar.gz")
    return tarball


def install(tarball: Path, collections: Path, prefix: str | Path = sys.prefix) -> Path:
    """Install the tarball below a directory with the ansible-galaxy of an environment; return the collection's path."""
    arguments: tuple[str | Path, ...] = ("collection", "install", "--offline", tarball, "-p", collections)
    tool("ansible-galaxy", *arguments, work=tarball.parent, collections=collections, prefix=prefix)
    return collections / "ansible_collections" / "thingstream" / "ztp"


def cut(root: Path) -> None:
    """Remove everything but the published content."""
    for entry in root.iterdir():
        if entry.name in [*CONTENT, "MANIFEST.json", "FILES.json"]:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every address of the repository is that of galaxy.yml; `make addresses` changes them all."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
GALAXY = yaml.safe_load((PROJECT / "galaxy.yml").read_text())
REPOSITORY = GALAXY["repository"]
BRANCH = "main"
# What every address of this repository ends with, whatever its host and name: a file of it, a page, or `.git`.
ADDRESS = re.compile(r"https?://[\w.-]+/[\w./-]+?(?:/blob/\w+/(?P<file>[\w./-]+)|/issues\b|/security\b|\.git\b)")
EXAMPLE = "https://git.example.com/"


def addresses() -> dict[tuple[str, str], str | None]:
    """Return the addresses of the files that git tracks: (file, address) -> the file that the address names, if any."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    names = [name for name in tracked.stdout.split("\0") if name and (PROJECT / name).is_file()]
    return {
        (name, found[0]): found["file"]
        for name in names
        for found in ADDRESS.finditer((PROJECT / name).read_text(errors="replace"))
        if not found[0].startswith(EXAMPLE)
    }


def test_every_address_is_that_of_galaxy_yml() -> None:
    found = addresses()
    assert len(found) > 30
    assert [
        place for place in found if not place[1].startswith(f"{REPOSITORY}/") and place[1] != f"{REPOSITORY}.git"
    ] == []


def test_every_file_of_an_address_is_in_the_branch() -> None:
    named = {place: file for place, file in addresses().items() if file}
    assert [place for place, file in named.items() if f"/blob/{BRANCH}/" not in place[1]] == []
    assert [place for place, file in named.items() if not (PROJECT / file).is_file()] == []


def test_the_addresses_of_galaxy_yml_belong_together() -> None:
    assert GALAXY["documentation"] == f"{REPOSITORY}/blob/{BRANCH}/README.md"
    assert GALAXY["issues"] == f"{REPOSITORY}/issues"
    assert GALAXY["homepage"] == REPOSITORY
    links = yaml.safe_load((PROJECT / "docs/docsite/links.yml").read_text())["edit_on_github"]
    assert REPOSITORY.endswith(f"/{links['repository']}")
    assert links["branch"] == BRANCH

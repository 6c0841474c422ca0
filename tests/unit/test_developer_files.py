# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files for contributors agree with the Makefile."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
MAKEFILE = (PROJECT / "Makefile").read_text()


def test_help_is_one_screen() -> None:
    shown = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    lines = shown.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    targets = {line.split()[1] for line in lines}
    assert {
        "setup",
        "demo",
        "test",
        "lint",
        "unit",
        "shell",
        "integration",
        "bench",
        "docs",
        "release",
        "clean",
        "ci",
    } <= (targets)


def test_the_hooks_of_pre_commit_are_the_linters_of_make_lint() -> None:
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    (repository,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        *_before, command = re.split(r" (?=\.venv/bin/)", hook["entry"])
        assert command.replace(".venv/bin/", "$(BIN)/") in recipe.replace("@shellcheck", "shellcheck")
    assert len(repository["hooks"]) == len(recipe.splitlines())


def test_the_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())
    assert {"pull_request", "schedule"} <= set(workflow["on"])
    assert {"run": ".ci/run"} in workflow["jobs"]["ci"]["steps"]

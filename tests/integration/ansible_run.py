# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run real playbooks in tests, and return their results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
PROVISION = "thingstream.ztp.provision"


@dataclass(frozen=True)
class Run:
    """A finished run: exit status, all output, every result, and the last one of each host (``status`` in each)."""

    status: int
    output: str
    results: Sequence[Mapping[str, Any]]

    @property
    def hosts(self) -> dict[str, Mapping[str, Any]]:
        """Host to its last result of a task that each host has to itself."""
        return {entry["host"]: entry["result"] for entry in self.results if not entry["once"]}

    def of(self, task: str) -> dict[str, Mapping[str, Any]]:
        """Return the last result of one task for each host, whatever role the task is in."""
        return {entry["host"]: entry["result"] for entry in self.results if entry["task"].split(" : ")[-1] == task}

    def values(self, name: str) -> dict[str, Any]:
        """Return one value of the last result for each host."""
        return {host: result.get(name) for host, result in sorted(self.hosts.items())}


def write_inventory(path: Path, hosts: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any]) -> Path:
    """Write an inventory of the given host variables; local connections unless ``common`` says otherwise."""
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **common}
    path.write_text(yaml.safe_dump({"all": {"vars": plain(variables), "hosts": plain(hosts)}}))
    return path


def plain(value: Any) -> Any:
    """Turn paths in nested data into texts."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return str(value) if isinstance(value, Path) else value


def settings(work: Path, collections: Path = PROJECT / ".cache") -> dict[str, str]:
    """Return the environment of a run in ``work``: the variables that it needs, and nothing else from outside."""
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "CI") if name in os.environ}
    return {
        **inherited,
        "HOME": str(work),
        "PWD": str(work),
        "ANSIBLE_HOME": str(work / "ansible_home"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_CALLBACK_PLUGINS": str(PROJECT / "tests" / "integration" / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "results",
        "ANSIBLE_FORKS": "10",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_NOCOLOR": "1",
        "TEST_RESULTS": str(work / "results.jsonl"),
    }


def run_playbook(
    work: Path,
    inventory: Path,
    *arguments: str,
    playbook: str = PROVISION,
    environment: Mapping[str, str] | None = None,
    collections: Path = PROJECT / ".cache",
    prefix: str | Path = sys.prefix,
    seconds: float = 180,
) -> Run:
    """Run ``ansible-playbook`` of a virtual environment, in ``work``, with nothing but the given settings."""
    results = work / "results.jsonl"
    results.unlink(missing_ok=True)
    run = subprocess.run(
        [f"{prefix}/bin/ansible-playbook", playbook, "-i", str(inventory), *arguments],
        cwd=work,
        env={**settings(work, collections), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    entries = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for entry in entries:
        entry["result"]["status"] = entry["status"]
    return Run(run.returncode, run.stdout, entries)


def spool_files(directory: Path) -> list[Path]:
    """Return the spool entries and request markers of a spool, without the ledger, which stays."""
    return sorted(entry for entry in directory.iterdir() if entry.name != "ledger")

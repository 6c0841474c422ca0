# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-test with supported versions of ansible-core and print a table.

Everything is made below `.cache/matrix`: an environment and a copy of the collection for each ansible-core, a log for
each check. Two versions run at a time.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
WORK = PROJECT / ".cache" / "matrix"
HOME = WORK / "home"  # ansible-test keeps its caches in the home directory
AT_A_TIME = 2

# ansible-core: the Pythons it is tried with, the first that is installed; together they are all that it supports
CORES = {
    "2.16": ("3.10", "3.11"),
    "2.17": ("3.12", "3.11"),
    "2.18": ("3.13", "3.11"),
    "2.19": ("3.11",),
    "2.20": ("3.12", "3.13"),
    "2.21": ("3.13", "3.12"),
}
CHECKS = {
    "sanity": ["sanity"],
    # the program of the collection, and without what takes longest or what `make lint` has checked already
    "short sanity": [
        *("sanity", "plugins/", "roles/", "playbooks/", "meta/", "changelogs/", "extensions/"),
        *(f"--skip-test={test}" for test in ("changelog", "pep8", "pylint", "shellcheck", "yamllint")),
    ],
    "units": ["units", "--venv"],
    "main job": ["integration", "thingstream_ztp"],
}
# What is checked on every change, with the oldest core and the newest; all other tests run with 2.19. All of sanity
# takes minutes with each, most of them for pylint.
GATE = {"2.16": ["main job"], "2.21": ["short sanity", "main job"]}
VERSIONS = ("ansible-core", "Python")

# ansible-test downloads get-pip.py from a server of its own; this stands in for it, with the pip that Python carries.
GET_PIP = """\
import runpy, subprocess, sys
subprocess.run([sys.executable, "-m", "ensurepip"], check=True)  # in a process of its own: it hides pip's settings
sys.argv = ["pip", "install", *(word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel"))]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Environment:
    """An ansible-core that is installed, with a copy of the collection.

    :param core: the full version.
    :param python: the version of Python, such as 3.12.
    """

    core: str
    python: str
    directory: Path


def main() -> int:
    """Run what the command line asks for; return the exit status of the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", action="append", choices=CORES, help="default: all with --check, some without")
    parser.add_argument("--check", action="append", choices=CHECKS, help="default: what is checked on every change")
    options = parser.parse_args()
    cores = options.core or (CORES if options.check else GATE)
    wanted = {core: options.check or GATE.get(core, ["main job"]) for core in cores}
    (WORK / "bin").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        # the newest is first, because it takes longest
        rows = list(pool.map(lambda core: row(core, wanted[core]), sorted(wanted, reverse=True)))
    print_table(rows)
    results = [cell for cells in rows for name, cell in cells.items() if name not in VERSIONS]
    bad = sum(not cell.startswith("passed") for cell in results)
    print(f"{len(results) - bad} passed, {bad} failed")
    return 1 if bad else 0


def row(core: str, checks: Sequence[str]) -> dict[str, str]:
    """Run the checks with an ansible-core; return its line of the table: versions, then the result of each check."""
    python = next((found for found in map(interpreter, CORES[core]) if found), None)
    if python is None:
        return {**dict(zip(VERSIONS, (core, " or ".join(CORES[core])), strict=True)), checks[0]: "not installed"}
    environment = prepare(core, python)
    versions = dict(zip(VERSIONS, (environment.core, environment.python), strict=True))
    return {**versions, **{check: run(environment, check) for check in checks}}


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows under the columns that any of them has, each as wide as its widest cell."""
    columns = [name for name in (*VERSIONS, *CHECKS) if any(name in cells for cells in rows)]
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    widths = {name: max(len(cells.get(name, "")) for cells in lines) for name in columns}
    for cells in lines:
        print("  ".join(cells.get(name, "").ljust(widths[name]) for name in columns).rstrip())


def interpreter(version: str) -> Path | None:
    """Return a Python of this version that runs; a version manager may have left names in PATH that do not run."""
    name = f"python{version}"
    managed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}"))
    for candidate in (shutil.which(name), *managed):
        if candidate and subprocess.run([candidate, "-c", ""], check=False, capture_output=True).returncode == 0:
            found = subprocess.run(
                [candidate, "-c", "import sys; print(sys.executable)"], check=True, capture_output=True, text=True
            )
            return Path(found.stdout.strip())
    return None


def prepare(core: str, python: Path) -> Environment:
    """Install an ansible-core the first time, and copy the collection every time."""
    directory = WORK / core
    venv, complete = directory / "venv", directory / "venv" / "complete"
    if not complete.exists():
        quiet([python, "-m", "venv", "--clear", venv])
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        files = (PROJECT / "requirements.txt", PROJECT / "tests/integration/requirements.txt")
        quiet([*pip, "--no-compile", f"ansible-core~={core}.0", *(f"--requirement={file}" for file in files)])
        complete.touch()
    version = quiet([venv / "bin" / "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    link = WORK / "bin" / f"python{version}"
    if not link.is_symlink():
        link.symlink_to(python)
    stand_in_for_get_pip(venv)
    release = quiet([venv / "bin" / "python", "-c", "import ansible.release; print(ansible.release.__version__)"])
    copy_collection(directory / "ansible_collections" / "thingstream" / "ztp")
    return Environment(release.strip(), version, directory)


def stand_in_for_get_pip(venv: Path) -> None:
    """Write the stand-in for get-pip.py where this ansible-test looks before it downloads."""
    requirements = next(venv.glob("lib/python*/site-packages/ansible_test/_internal/python_requirements.py"))
    found = re.search(r"pip='([0-9.]+)'", requirements.read_text())
    if found is None:
        raise SystemExit(f"{requirements} names no version of pip: this ansible-test is not known.")
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / f"get_pip_{found[1].replace('.', '_')}.py").write_text(GET_PIP)


def copy_collection(directory: Path) -> None:
    """Copy the files that git tracks, and those that it would: ansible-test needs a real directory of this name.

    The copy is a repository of its own, because the one around it ignores everything in `.cache`.
    """
    shutil.rmtree(directory, ignore_errors=True)
    names = quiet(["git", "-C", PROJECT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]).split("\0")
    for name in filter(None, names):
        if (PROJECT / name).is_file():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target)
    quiet(["git", "-C", directory, "init", "--quiet"])


def run(environment: Environment, check: str) -> str:
    """Run one check and return its result; write its output to a file, and print the end of it on failure."""
    log = environment.directory / f"{check.replace(' ', '-')}.log"
    started = time.monotonic()
    with log.open("w") as output:
        status = subprocess.run(
            ["ansible-test", *CHECKS[check], "--python", environment.python, "--color", "no"],
            cwd=environment.directory / "ansible_collections" / "thingstream" / "ztp",
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))},
                "HOME": str(HOME),
                "PATH": f"{environment.directory / 'venv' / 'bin'}:{WORK / 'bin'}:{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    seconds = time.monotonic() - started
    verdict = f"{'passed' if status == 0 else 'failed'} in {seconds:.0f} s"
    print(f"ansible-core {environment.core}, {check}: {verdict}", flush=True)
    if status:
        print("\n".join(log.read_text().splitlines()[-60:]), f"\nAll of it: {log}", sep="", flush=True)
    return verdict


def quiet(command: Sequence[str | Path]) -> str:
    """Run a command that must succeed, and return its output."""
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

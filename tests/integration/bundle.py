# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collections of others, out of the wheel of the ansible bundle, the one place on PyPI that has them."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from integration.ansible_run import PROJECT

BUNDLE = "ansible==13.8.0"
COLLECTIONS = (
    "ansible.netcommon",
    "ansible.utils",
    "community.docker",
    "community.library_inventory_filtering_v1",
    "containers.podman",
    "vyos.vyos",
)


def collections() -> Path:
    """Return a directory with the collections, for ``ANSIBLE_COLLECTIONS_PATH``; it is made once, from 55 MB."""
    directory = PROJECT / ".cache" / "bundle"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = directory / BUNDLE
        if not complete.exists():
            with tempfile.TemporaryDirectory(dir=directory) as place:
                _download(Path(place))
                _extract(next(Path(place).glob("*.whl")), directory)
            complete.touch()
    return directory


def _download(place: Path) -> None:
    # The Python of the bundle is newer than what is needed to read it.
    own = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--python-version", "3.12"]
    pip = [sys.executable, "-m", "pip", "download", *own, "--dest", str(place), BUNDLE]
    run = subprocess.run(pip, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.skip(f"{BUNDLE} cannot be downloaded: {run.stderr.strip()[-500:]}")


def _extract(wheel: Path, directory: Path) -> None:
    shutil.rmtree(directory / "ansible_collections", ignore_errors=True)
    wanted = tuple(f"ansible_collections/{name.replace('.', '/')}/" for name in COLLECTIONS)
    with zipfile.ZipFile(wheel) as bundle:
        bundle.extractall(directory, [name for name in bundle.namelist() if name.startswith(wanted)])

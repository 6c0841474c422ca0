# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every test of the scripts runs under dash, bash and BusyBox ash; the last with BusyBox's own tools."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from shell.host import SHELLS, Host


def unavailable(reason: str) -> NoReturn:
    """What this machine cannot do is skipped, but never where continuous integration would not see it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str) -> str:
    """Where a program is that the tests need."""
    return shutil.which(name) or unavailable(f"{name} is not installed")


@pytest.fixture(scope="session")
def find_program() -> Callable[[str], str]:
    return program


@pytest.fixture(scope="session", params=SHELLS)
def plain_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A gateway with one shell, which is also the ``sh`` that commands call; it has no path yet."""
    name: str = request.param
    executable = program(name)
    # not below tmp_path, which only the user who runs the tests may enter
    tools = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    tools.chmod(0o755)
    argv: tuple[str, ...] = (str(tools / "sh"),)
    if name == "busybox":
        applets = subprocess.run([executable, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            (tools / applet).symlink_to(executable)
        assert "ash" in applets
        argv = (executable, "sh")
    else:
        (tools / "sh").symlink_to(executable)
    yield Host(name, argv, tools, tools / "nowhere")
    shutil.rmtree(tools)


@pytest.fixture
def host(plain_host: Host, tmp_path: Path) -> Host:
    """A gateway that holds nothing yet."""
    return replace(plain_host, path=tmp_path / "etc" / "thingstream" / "pointperfect", outputs=[])


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that every user may enter, as tmp_path is not."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture
def root() -> None:
    """For tests that give files away, change users or mount file systems."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def owner() -> pwd.struct_passwd:
    """Some user of this machine who is not root."""
    return next(user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid()))


@pytest.fixture(scope="session")
def group(owner: pwd.struct_passwd) -> grp.struct_group:
    """Some group that shares neither its name nor its number with a user of the tests."""
    users = {user.pw_name for user in pwd.getpwall()}
    numbers = {0, os.getegid(), owner.pw_uid, owner.pw_gid}
    return next(group for group in grp.getgrall() if group.gr_name not in users and group.gr_gid not in numbers)


@pytest.fixture
def mount(root: None, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system, or mounts it again with other options."""
    directory = tmp_path / "disk"

    def mounted(options: str) -> Path:
        again = directory.exists()
        directory.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"remount,{options}" if again else options, "tmpfs", str(directory)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            if not again:
                directory.rmdir()
            unavailable(f"cannot mount a tmpfs: {result.stderr.strip()}")
        return directory

    program("mount")
    yield mounted
    if directory.exists():
        subprocess.run(["umount", str(directory)], check=True)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every test of the scripts runs under dash, bash and BusyBox ash; the last with the applets of the weakest firmware.

Tests of the main job run with the applets of every firmware that the collection is tested for: ``firmware_host``.
"""

from __future__ import annotations

import contextlib
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
from gateways import firmware
from gateways.fleet import BASE
from shell.host import SHELLS, SHORT, Confinement, Host

EVERY_APPLET = "every-applet"


def unavailable(reason: str) -> NoReturn:
    """Skip a test that this machine cannot run, but fail it in continuous integration, where a skip goes unnoticed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str) -> str:
    """Return the path of a program that the tests need."""
    return shutil.which(name) or unavailable(f"{name} is not installed")


@pytest.fixture(scope="session")
def find_program() -> Callable[[str], str]:
    return program


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=() if name in SHORT else pytest.mark.full) for name in SHELLS],
)
def plain_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A gateway with one shell, which is also the ``sh`` that commands call; it has no path yet."""
    name: str = request.param
    full = bool(request.config.getoption("--full"))
    with public_directory(f"{name}-") as tools:
        if name == "busybox":
            # tests shorten waits to fractions of a second, which the sleep of this firmware refuses
            weakest = replace(firmware.read(firmware.WEAKEST), fractions=True)
            yield replace(confined(weakest, tools, required=False), shell=name, full=full)
        else:
            (tools / "sh").symlink_to(program(name))
            yield Host(name, (str(tools / "sh"),), tools, tools / "nowhere", full=full)


@pytest.fixture(scope="session", params=[*firmware.TESTED, EVERY_APPLET])
def plain_firmware_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A gateway with the applets of one firmware; it has no path yet."""
    with public_directory(f"{request.param}-") as tools:
        if request.param == EVERY_APPLET:
            yield unconfined(program("busybox"), tools)
        else:
            yield confined(firmware.read(request.param), tools, required=True)


@pytest.fixture
def firmware_host(plain_firmware_host: Host, tmp_path: Path) -> Host:
    """A gateway with the applets of one firmware that holds nothing yet."""
    return replace(plain_firmware_host, path=tmp_path / "etc" / "thingstream" / "pointperfect", outputs=[])


@contextlib.contextmanager
def public_directory(prefix: str) -> Iterator[Path]:
    """Yield a directory that every user may enter, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def confined(system: firmware.Firmware, tools: Path, *, required: bool) -> Host:
    """Return a gateway that reaches the applets of a firmware and no other program.

    :param required: whether the test is skipped where no namespace can be made, which needs root; otherwise the other
        programs of this machine stay in PATH, after the applets.
    """
    try:
        busybox = firmware.fetch(BASE)
    except firmware.BusyBoxMissing as reason:
        unavailable(str(reason))
    firmware.lay_out(system, busybox, tools, tools)
    programs, helpers = tools / "bin", tools / "libexec"
    for helper in ("mount", "setpriv"):
        shutil.copy(program(helper), helpers / helper)
    host = Host(system.name, (str(programs / "sh"),), programs, tools / "nowhere")
    inside = replace(host, confinement=Confinement(programs, helpers))
    result = subprocess.run(inside.command_line("exit 0"), capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return inside
    if required:
        unavailable(f"cannot hide the programs of this machine: {result.stderr.strip()}")
    return host


def unconfined(busybox: str, tools: Path) -> Host:
    """Return a gateway with every applet of a BusyBox that prefers applets to programs, as OpenWrt's does."""
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        (tools / applet).symlink_to(busybox)
    assert "ash" in applets
    return Host(EVERY_APPLET, (busybox, "sh"), tools, tools / "nowhere")


@pytest.fixture
def host(plain_host: Host, tmp_path: Path) -> Host:
    """A gateway that holds nothing yet."""
    return replace(plain_host, path=tmp_path / "etc" / "thingstream" / "pointperfect", outputs=[])


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that every user may enter, as tmp_path is not."""
    with public_directory("public-") as directory:
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
    """Mount a small file system, or mount it again with other options."""
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

# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The fleet of test gateways itself: it comes up as promised, and nothing of it stays behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateways.fleet import BASE, Fleet, FleetError, Unavailable, build, fleet


@pytest.fixture(scope="module", autouse=True)
def base() -> None:
    """The roots, built once."""
    try:
        build(BASE)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two Debian gateways and a BusyBox one."""
    with fleet(tmp_path_factory.mktemp("gateways"), debian=2, busybox=1) as running:
        yield running


def ansible(gateways: Fleet, *argv: str) -> str:
    """Run ``ansible`` over the fleet and return what it printed."""
    command = [sys.executable, "-m", "ansible", "adhoc", "-i", str(gateways.inventory), *argv]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_gateway_answers_by_its_name(gateways: Fleet) -> None:
    output = ansible(gateways, "gateways", "-m", "ansible.builtin.raw", "-a", "uname -n", "--one-line")
    for name in ("gw1", "gw2", "bb1"):
        assert f"{name} | CHANGED | rc=0 | (stdout) {name}" in output


def test_fleets_that_start_at_the_same_time(tmp_path: Path) -> None:
    """Each gets a port of its own, as each worker of a test run needs it."""
    count = 4
    start, all_up = threading.Barrier(count, timeout=180), threading.Barrier(count, timeout=180)

    def run(number: int) -> str:
        start.wait()
        with fleet(tmp_path / str(number), debian=2) as running:
            all_up.wait()
            return running.ssh("gw2", "echo reached").stdout

    with ThreadPoolExecutor(count) as pool:
        assert list(pool.map(run, range(count))) == ["reached\n"] * count


def test_debian_gateways_run_modules_and_sudo(gateways: Fleet) -> None:
    output = ansible(gateways, "debian", "--become", "-e", "ansible_user=operator", "-a", "id")
    assert output.count("uid=0(root)") == 2


def test_a_password_is_asked_of_careful(gateways: Fleet) -> None:
    assert gateways.ssh("careful@gw1", "sudo -n true").returncode != 0
    assert gateways.ssh("careful@gw1", "sudo -S id -u", "careful-password\n").stdout == "0\n"


@pytest.mark.parametrize("program", ["python3", "bash", "perl", "busybox", "setsid", "stat", "timeout", "getent"])
def test_busybox_gateways_have_little(gateways: Fleet, program: str) -> None:
    assert gateways.ssh("bb1", f"command -v {program}").returncode != 0


@pytest.mark.parametrize("name", ["gw1", "bb1"])
def test_a_script_arrives_on_standard_input_and_its_files_are_seen_from_outside(gateways: Fleet, name: str) -> None:
    script = "umask 027; echo hello >/root/hello; chown root:thingstream /root/hello"
    assert gateways.ssh(name, "sh -s", script).returncode == 0
    assert (gateways.root(name) / "root/hello").read_text() == "hello\n"
    assert gateways.ssh(f"consumer@{name}", "id").stdout.count("thingstream") == 1


def test_gateways_share_no_files(gateways: Fleet) -> None:
    gateways.ssh("gw1", "touch /etc/only-here")
    assert (gateways.root("gw1") / "etc/only-here").exists()
    assert not (gateways.root("gw2") / "etc/only-here").exists()


def test_nothing_stays_behind(tmp_path: Path) -> None:
    with fleet(tmp_path, debian=1, busybox=1) as running:
        ansible(running, "gateways", "-m", "ansible.builtin.raw", "-a", "true")
        control = (running.where / "control").resolve()
        assert list(control.iterdir()), "Ansible left no shared connection: this test would prove nothing"
        servers = [running.root(name).parent for name in ("gw1", "bb1")]
    assert not [server for server in servers if server.exists()]
    assert_no_trace(running.where, control)


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty" / "debian").mkdir(parents=True)
    with pytest.raises(FleetError, match="gw1 did not start"), fleet(tmp_path, debian=2, base=tmp_path / "empty"):
        pass
    assert_no_trace(tmp_path / "fleet", tmp_path / "fleet")


def assert_no_trace(*directories: Path) -> None:
    """Check that the directories do not exist, that no mount is in them, and that no process names them."""
    mounts = Path("/proc/self/mounts").read_text()
    commands = [process.read_text(errors="replace") for process in Path("/proc").glob("[0-9]*/cmdline")]
    for directory in directories:
        assert not directory.exists()
        assert str(directory) not in mounts
        assert not [command for command in commands if str(directory) in command]

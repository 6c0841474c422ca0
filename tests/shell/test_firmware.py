# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job with the applets of real firmware and no other program, and once with every applet of BusyBox."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, hardware_id
from ansible_collections.thingstream.ztp.tests.unit.support import Pair, make_pair, spartn
from cryptography.hazmat.primitives.asymmetric import ec
from faults.host_rig import HostRig, error_of
from gateways import firmware
from shell.conftest import EVERY_APPLET
from shell.host import Host, snapshot

# With a child, and deaf to every signal but SIGKILL.
HANG = "trap '' TERM HUP PIPE; sleep 30 & echo $$ $! >>{pids}; wait; sleep 30"
NEW_THING = {"clientId": "22222222-2222-4333-8444-555555555555"}


class FirmwareRig(HostRig):
    """A rig that fails when a script calls a program or an option that the gateway lacks."""

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        status, output, complaint = super().execute(command, standard_input, secret)
        lacking = re.search(r".*(not found|unrecognized option|invalid (option|number)).*", complaint)
        assert lacking is None, f"{self.host.shell}: a script needs what this firmware lacks: {lacking[0]}"
        return status, output, complaint


@pytest.fixture(scope="module")
def pairs() -> tuple[Pair, Pair]:
    """The credentials of two Things."""
    first, second = (make_pair(ec.generate_private_key(ec.SECP256R1()), name) for name in ("first", "second"))
    return first, second


@pytest.fixture
def rig(plain_firmware_host: Host, public_path: Path) -> FirmwareRig:
    """A gateway with the applets of one firmware, and nothing installed."""
    return FirmwareRig(public_path, host=plain_firmware_host, controller=str(public_path / "controller" / "spool"))


# ---- the lists ----


@pytest.mark.parametrize("name", firmware.names())
def test_every_list_has_what_the_scripts_need(name: str) -> None:
    needed = re.search(r"missing_tools ((?:[a-z0-9]+ ?)+)\n", commands.LOOK_SCRIPT)
    assert needed
    assert set(needed[1].split()) - set(firmware.read(name).applets) == set()


def test_nothing_but_the_list_is_reachable(plain_firmware_host: Host) -> None:
    """If this fails, the other tests of this file prove nothing."""
    if plain_firmware_host.shell == EVERY_APPLET:
        return  # the row in which other programs are reachable
    system = firmware.read(plain_firmware_host.shell)
    status, output, _complaint = plain_firmware_host.execute("cd /usr/bin && ls -a . /usr/sbin /bin /sbin", b"", False)
    assert status == 0
    reachable = {line for line in output.splitlines() if line and not line.startswith(("/", "."))}
    assert reachable <= set(system.applets)
    for absent in {"busybox", "python3", "perl", "stat", "setsid", "timeout", "getent"} - set(system.applets):
        assert plain_firmware_host.execute(f"PATH=$PATH:/usr/sbin:/sbin; {absent} --help", b"", False)[0] == 127, absent
    refuses_t = system.version < (1, 34)
    _status, _output, complaint = plain_firmware_host.execute("mv -f -T /absent-1 /absent-2", b"", False)
    assert ("unrecognized option: T" in complaint) == refuses_t
    assert (plain_firmware_host.execute("sleep 0.01", b"", False)[0] == 0) == system.fractions
    moved = "cd $1 && echo x >a && mv -f -- a ./-T && mv ./-T b && cat b"
    command = f"set -- $(mktemp -d); {moved}; rm -r $1"
    assert plain_firmware_host.execute(command, b"", False)[:2] == (0, "x\n")


# ---- the main job ----


def test_the_main_job(rig: FirmwareRig, pairs: tuple[Pair, Pair]) -> None:
    first, second = pairs
    hooks = commands.Hooks(f"echo reload >>{rig.root}/hooks", f"echo health >>{rig.root}/hooks", 5)
    assert rig.present(spartn(first), hooks=hooks).action == "created"
    rig.assert_in_order()
    assert (rig.root / "hooks").read_text() == "reload\nhealth\n"

    before = snapshot(rig.path)
    assert rig.present(hooks=hooks).reason == "none"
    assert snapshot(rig.path) == before

    (rig.current / "client.key").chmod(0o644)
    drifted = rig.present(hooks=hooks)
    assert (drifted.action, drifted.reason, drifted.generation) == ("repaired", "drift", "000001")
    rig.assert_in_order()

    (rig.current / "client.key").write_text("damaged")
    damaged = rig.present(hooks=hooks)
    assert (damaged.action, damaged.reason, damaged.generation) == ("repaired", "damaged", "000002")
    rig.assert_in_order()

    assert rig.present(spartn(second, **NEW_THING), force=True, hooks=hooks).action == "renewed"
    rig.assert_in_order("history.json")
    assert rig.current.readlink().name == "000003"
    rig.roll_back(force=True, hooks=hooks)
    assert rig.current.readlink().name == "000002"
    assert rig.present(hooks=hooks).action == "none"

    rig.absent()
    assert not rig.current.is_symlink()
    assert not (rig.path / "generations").exists()


@pytest.mark.parametrize("command", ["echo $$ >>{pids}; false", HANG], ids=["fails", "hangs"])
def test_a_failed_health_check_reverts(rig: FirmwareRig, pairs: tuple[Pair, Pair], command: str) -> None:
    first, second = pairs
    rig.present(spartn(first))
    pids = rig.root / "pids"
    hooks = commands.Hooks(None, command.format(pids=pids), 1)
    began = time.monotonic()
    error = error_of(lambda: rig.present(spartn(second, **NEW_THING), force=True, hooks=hooks))
    assert error is not None
    assert error.code == "health_check_failed", error
    assert time.monotonic() - began < 10
    assert rig.current.readlink().name == "000001"
    assert alive(pids) == []


# ---- hardware IDs ----


def test_hardware_ids(plain_firmware_host: Host, public_path: Path) -> None:
    files = {
        "sys/class/dmi/id/product_serial": "PRODUCT-1\n",
        "sys/firmware/devicetree/base/serial-number": "10000000a1b2c3d4\0",
        "etc/machine-id": "51df0b4bc3b04c9780e299b98ca373b8\n",
        "sys/class/net/eth0/address": "b8:27:eb:01:02:03\n",
        "sys/class/net/eth0/addr_assign_type": "0\n",
        "sys/class/net/eth0/device/uevent": "",
    }
    for name, content in files.items():
        (public_path / name).parent.mkdir(parents=True, exist_ok=True)
        (public_path / name).write_text(content)
    found = hardware_id.discover(plain_firmware_host.execute, list(hardware_id.SOURCES), root=str(public_path))
    assert {one.source: one.value for one in found} == {
        "modem_imei": None,
        "dmi_serial": "PRODUCT-1",
        "device_tree_serial": "10000000a1b2c3d4",
        "mac": "b8:27:eb:01:02:03",
        "machine_id": "5b198058dcb244bb912ebd8537069f79",
    }


def test_a_modem_that_does_not_respond(plain_firmware_host: Host, public_path: Path) -> None:
    program, pids = public_path / "mmcli", public_path / "pids"
    program.write_text(f"#!/bin/sh\n{HANG.format(pids=pids)}\n")
    program.chmod(0o755)
    environment = {"PATH": f"{public_path}:{plain_firmware_host.tools}"}
    host = replace(plain_firmware_host, environment=environment)
    began = time.monotonic()
    (found,) = hardware_id.discover(host.execute, ["modem_imei"], root=str(public_path), seconds=1)
    assert "did not respond" in (found.refused or "")
    assert time.monotonic() - began < 10
    assert alive(pids) == []


def alive(pids: Path) -> list[int]:
    """Return which of the processes in a file still run, and end them."""
    found = []
    for pid in map(int, pids.read_text().split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(pid)
                os.kill(pid, signal.SIGKILL)
    return found


# ---- the documentation ----


def test_the_guide_lists_every_firmware() -> None:
    """The page says of each list which BusyBox it is for, whether setsid is missing, and whether the tests run it."""
    page = (Path(__file__).parents[2] / "docs" / "gateways.md").read_text()
    rows = {}
    for row in re.findall(
        r"^\| (\w+ [\w.]+) \| ([0-9.]+) \| (?:yes|expected) \| (`setsid`)? ?\| (.+) \|$", page, re.MULTILINE
    ):
        rows[row[0].lower().replace(" ", "-")] = row[1:]
    expected = {name: firmware.read(name) for name in firmware.names()}
    assert set(rows) == set(expected)
    for name, (version, missing, tested) in rows.items():
        assert version == ".".join(map(str, expected[name].version))
        assert bool(missing) == ("setsid" not in expected[name].applets), name
        assert tested.startswith("main job") == (name in firmware.TESTED), name
        assert tested.startswith("list") == (name not in firmware.TESTED), name
    needed = re.search(r"missing_tools ((?:[a-z0-9]+ ?)+)\n", commands.LOOK_SCRIPT)
    assert needed
    assert f"\n    {needed[1]}\n" in page

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full at every point, read-only, limited, or another one: nothing is switched, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.directory import MAX_ENTRY_BYTES
from ansible_collections.thingstream.ztp.tests.unit.support import Pair, cloudlocate, spartn
from faults.conftest import Trial
from faults.host_rig import HostRig, contents, error_of
from shell.host import SHELLS, refused

PAGE = 4096  # bytes; the unit of a tmpfs
ROOM = "size=8m,nr_inodes=4096"
Mount = Callable[[str], Path]

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def disk(mount: Mount, rig: HostRig) -> HostRig:
    """A gateway on a small disk of its own."""
    rig.root = mount(f"{ROOM},mode=0755")
    return rig


def room(path: Path, resource: str, number: int) -> str:
    """Return the mount option that leaves so many pages or inodes free."""
    status = os.statvfs(path)
    if resource == "pages":
        return f"size={max(status.f_blocks - status.f_bfree + number, 1) * PAGE}"  # 0 would be no limit
    return f"nr_inodes={status.f_files - status.f_ffree + number}"


def steps(rig: HostRig, full: bool) -> Iterator[int]:
    """Return every number, or every ninth, other ones for each shell."""
    return iter(range(0, 80)) if full else iter(range(3 * SHELLS.index(rig.host.shell), 80, 9))


@pytest.mark.parametrize("resource", ["pages", "inodes"])
@pytest.mark.parametrize("installed", [False, True], ids=["first", "renewal"])
def test_full(
    disk: HostRig,
    mount: Mount,
    ec_pair: Pair,
    other_pair: Pair,
    trials: Trial,
    full: bool,
    resource: str,
    installed: bool,
) -> None:
    """The disk grows until there is room; after every failure there is some, and the response is in the spool."""
    failures = 0
    for number in steps(disk, full):
        mount(ROOM)
        disk.clear()
        if installed:
            disk.begin(other_pair)
        before, current = contents(disk.path), "000001" if installed else None
        disk.before_change = lambda: mount(room(disk.root, resource, number))  # noqa: B023
        with trials(f"Full disk: {resource}, {disk.host.shell}"):
            error = error_of(lambda: disk.present(spartn(ec_pair), force=installed))
            if error is None:
                break
            assert error.code == "disk_full", error
            assert "kept in" in error.message
            failures += 1
            disk.assert_as_it_was(current, before)
            assert len(disk.spooled) == 1
            mount(ROOM)
            outcome = disk.present()
            assert outcome.action == ("renewed" if installed else "created")
            disk.assert_in_order()
            assert disk.present().action == "none"
    else:
        pytest.fail("there was never enough room")
    assert failures > (12 if full else 0)
    disk.assert_in_order()


def test_full_for_other_changes(
    disk: HostRig, mount: Mount, ec_pair: Pair, other_pair: Pair, trials: Trial, full: bool
) -> None:
    """Roll back, repair and removal: done, or refused with complete credentials in use; then there is room."""
    changes: Mapping[str, Callable[[], object]] = {
        "repair": disk.present,
        "roll back": lambda: disk.roll_back(force=True),
        "remove": disk.absent,
    }
    for change, apply in changes.items():
        for number in range(0, 6) if full else [SHELLS.index(disk.host.shell)]:
            mount(ROOM)
            disk.begin(other_pair)
            disk.present(spartn(ec_pair, clientId="22222222-2222-4333-8444-555555555555"), force=True)
            (disk.current / "client.key").chmod(0o600)
            before = {name: look[-1] for name, look in contents(disk.path).items()}
            mount(room(disk.root, "inodes", number))
            with trials(f"Full disk: {change}, {disk.host.shell}"):
                error = error_of(apply)
                if error is not None:
                    assert error.code == "disk_full", error
                    assert disk.current.readlink().name == "000002"
                    assert {name: look[-1] for name, look in contents(disk.path).items()} == before
                mount(ROOM)
                apply()
                if change == "remove":
                    assert {entry.name for entry in disk.path.iterdir()} == {"history.json"}
                else:
                    assert disk.present().action in ("none", "repaired")
                    disk.assert_in_order(".newest")


@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_full_spool(
    rig: HostRig, mount: Mount, ec_pair: Pair, trials: Trial, full: bool, service: str, tmp_path: Path
) -> None:
    """The disk of the spool grows page by page, and its inodes one by one: no request is sent before all fits.

    Once it is sent, the response is in the spool, on the gateway, and in the ledger.
    """
    rig.service = service
    response = spartn(ec_pair) if service == "pointperfect" else cloudlocate()
    disk = mount("size=16m,nr_inodes=64")
    rig.controller = str(disk / "spool")
    entry_pages = MAX_ENTRY_BYTES // PAGE
    stride = 1 if full else 7
    first = SHELLS.index(rig.host.shell) if not full else 0
    rooms = {"pages": range(entry_pages - 4 + first % 3, entry_pages + 40, stride), "inodes": range(first % 2, 40)}
    for resource, numbers in rooms.items():
        failures = 0
        for number in numbers:
            rig.clear()
            mount("size=16m,nr_inodes=64")
            mount(room(disk, resource, number))
            with trials(f"Full spool: {resource}, {service}"):
                error = error_of(lambda: rig.present(response))
                assert error is None or (error.code, rig.bodies) == ("spool_failed", []), error
                if error is None:
                    assert (len(rig.bodies), rig.spool_files) == (1, [])
                    rig.assert_in_order()
                    assert [entry["delivered_at"] is not None for entry in rig.ledger] == [True]
                    break
                failures += 1
                assert not rig.current.is_symlink()
                mount("size=16m,nr_inodes=64")
                assert not rig.spool.exists() or rig.spool_files == []
        else:
            pytest.fail("there was never enough room")
        assert failures
    assert {path.name for path in disk.iterdir()} == {"spool"}


def test_read_only(disk: HostRig, mount: Mount, ec_pair: Pair, other_pair: Pair, trials: Trial) -> None:
    """The disk becomes read-only between the look and the change."""
    for installed in (False, True):
        mount("rw")
        disk.clear()
        if installed:
            disk.begin(other_pair)
        before = contents(disk.path)
        disk.before_change = lambda: mount("ro")
        with trials(f"Read-only: {disk.host.shell}"):
            with refused("permission"):
                disk.present(spartn(ec_pair), force=installed)
            disk.assert_as_it_was("000001" if installed else None, before)
            mount("rw")
            assert disk.present().action == ("renewed" if installed else "created")
            disk.assert_in_order()


def test_limited(rig: HostRig, ec_pair: Pair, other_pair: Pair, trials: Trial, full: bool) -> None:
    """No file may become larger than a limit, as with a quota: the program is killed, or the write fails."""
    for blocks in range(1, 48, 2) if full else (1, 20):
        for signal in ("", "trap '' XFSZ; "):
            rig.give(banner="")
            rig.begin(other_pair)
            before = contents(rig.path)
            rig.before_change = lambda: rig.give(banner=f"{signal}ulimit -f {blocks} && ")  # noqa: B023
            with trials(f"Limited file size: {rig.host.shell}"):
                error = error_of(lambda: rig.present(spartn(ec_pair), force=True))
                if error is not None:
                    assert error.code in ("disk_full", *([] if signal else ["gateway_unsupported"])), error
                    rig.assert_as_it_was("000001", before)
                rig.give(banner="")
                rig.present()
                rig.assert_in_order()


@pytest.mark.parametrize("where", ["etc", "etc/thingstream", "etc/thingstream/x", "etc/thingstream/x/generations"])
def test_another_file_system(rig: HostRig, ec_pair: Pair, other_pair: Pair, trials: Trial, where: str) -> None:
    """Another file system begins at the path, above it, or within it, where no rename can move a file."""
    place = rig.root / where
    place.mkdir(parents=True, mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs", str(place)], check=True)
    try:
        with trials(f"Another file system: {rig.host.shell}"):
            assert rig.present(spartn(ec_pair)).action == "created"
            rig.assert_in_order()
            assert rig.present().action == "none"
            assert rig.present(spartn(other_pair), force=True).action == "renewed"
            rig.assert_in_order()
            (rig.current / "client.key").chmod(0o600)
            assert rig.present().action == "repaired"
            rig.roll_back()
            if where.endswith("generations"):
                with refused("permission"):
                    rig.absent()  # a mount point cannot be removed
            else:
                rig.absent()
                assert not (rig.path / "generations").exists()
            assert not list(rig.path.glob("generations/*"))
            assert not rig.current.is_symlink()
    finally:
        subprocess.run(["umount", str(place)], check=True)

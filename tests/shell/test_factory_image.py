# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials in the read-only layer of an overlay: a factory image holds them, and the writable layer is empty.

A directory of that layer cannot be renamed; a program gets the error that it gets between two file systems.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from shell.conftest import unavailable
from shell.host import Host, snapshot


@pytest.fixture
def image(host: Host, mount: Callable[[str], Path]) -> Iterator[tuple[Host, Path]]:
    """A gateway on first use, and the read-only layer, in which two generations were installed."""
    disk = mount("size=8m,mode=755")
    lower, upper, work, root = (disk / name for name in ("lower", "upper", "work", "root"))
    for directory in (lower, upper, work, root):
        directory.mkdir(mode=0o755)
    factory = replace(host, path=lower / "etc" / "thingstream")
    factory.install("a")
    factory.install("b")
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "-o", layers, "overlay", str(root)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        unavailable(f"cannot mount an overlay: {mounted.stderr}")
    yield replace(host, path=root / "etc" / "thingstream"), lower
    subprocess.run(["umount", str(root)], check=True)


def test_nothing_is_due_on_first_use(image: tuple[Host, Path]) -> None:
    host, _lower = image
    assert host.drift() == []
    assert host.look().bundle.current == "000002"
    assert host.look().bundle.leftovers == ()


@pytest.mark.parametrize("health_command", [None, "true"])
def test_a_renewal(image: tuple[Host, Path], health_command: str | None) -> None:
    host, lower = image
    before = snapshot(lower)
    host.install("c", health_command=health_command)
    host.assert_in_order("c", ["000002", "000003"])
    host.install("d", health_command=health_command)
    host.assert_in_order("d", ["000003", "000004"])
    assert snapshot(lower) == before


def test_a_renewal_that_fails(image: tuple[Host, Path]) -> None:
    host, _lower = image
    with pytest.raises(ProvisioningError, match="000002 is in use again"):
        host.install("c", health_command="false", health_timeout=1)
    assert (host.marker, host.generations) == ("b", ["000001", "000002", "000003-failed"])


def test_a_roll_back_and_its_reversal(image: tuple[Host, Path]) -> None:
    host, _lower = image
    host.roll_back("000001")
    assert host.marker == "a"
    host.roll_back("000002")
    assert host.marker == "b"


def test_drift_and_removal(image: tuple[Host, Path]) -> None:
    host, _lower = image
    (host.path / "current" / "client.key").chmod(0o666)
    host.set_attributes()
    assert host.drift() == []
    host.remove()
    assert not host.path.exists()

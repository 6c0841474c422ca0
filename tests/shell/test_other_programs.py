# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job with shells and programs that few gateways have: each works, or is refused clearly before a request."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from shell.host import Host, is_alive

# What the scripts start, as far as toybox has it.
TOYBOX = "cat chmod chown id ln ls mkdir mv readlink rm rmdir sha256sum sleep sync tar".split()  # noqa: SIM905


@pytest.fixture
def host_with(find_program: Callable[[str], str]) -> Iterator[Callable[..., Host]]:
    with tempfile.TemporaryDirectory() as directory:

        def make(shell: str, provider: str = "", programs: tuple[str, ...] = ()) -> Host:
            tools = Path(directory) / "tools"
            tools.mkdir()
            (tools / "sh").symlink_to(find_program(shell))
            for name in programs:
                (tools / name).symlink_to(find_program(provider))
            return Host(shell, (str(tools / "sh"),), tools, Path(directory) / "etc" / "thingstream")

        yield make


def main_job(host: Host) -> None:
    host.install("a")
    host.install("b", reload_command=":", health_command="true")
    host.assert_in_order("b", ["000001", "000002"])
    key = host.path / "current" / "client.key"
    key.chmod(0o666)
    assert host.drift() == ["client.key"]
    host.set_attributes()
    assert host.drift() == []
    host.roll_back("000001")
    assert host.marker == "a"
    pids = host.path.parent / "pids"
    with pytest.raises(ProvisioningError, match=r"status 137 \(it was stopped after 1 seconds\)"):
        host.install("c", health_command=f'sleep 600 & echo "$$ $!" >"{pids}"; (sleep 600)', health_timeout=1)
    assert not any(map(is_alive, map(int, pids.read_text().split())))
    with pytest.raises(ProvisioningError, match="status 3"):
        host.install("d", reload_command="[ -e current/x ] || exit 3")
    assert host.marker == "a"
    host.remove()
    assert not host.path.exists()


@pytest.mark.parametrize("shell", ["bash", "mksh", "yash", "zsh", "ksh"])
def test_shells(host_with: Callable[..., Host], shell: str) -> None:
    main_job(host_with(shell))


def test_toybox(host_with: Callable[..., Host]) -> None:
    main_job(host_with("dash", "toybox", tuple(TOYBOX)))


def test_posh_is_refused(host_with: Callable[..., Host]) -> None:
    host = host_with("posh")
    with pytest.raises(ProvisioningError, match="-s: unknown option") as caught:
        host.look()
    assert caught.value.code == "gateway_unsupported"
    assert os.listdir(host.path.parent.parent) == ["tools"]

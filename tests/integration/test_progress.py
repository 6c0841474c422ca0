# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody sees who follows a long run: at a terminal, and in a file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from integration.ansible_run import PROVISION, settings, write_inventory
from integration.terminal import Terminal, at_terminal
from simulator.client import RunningSimulator

HOSTS = 200
STRANGERS = ["gw-050", "gw-051", "gw-150"]  # not on the allow-list of the profile
PROGRESS = {"ANSIBLE_STDOUT_CALLBACK": "thingstream.ztp.progress", "LC_ALL": "C.UTF-8"}
BAR = re.compile(r"^[━╌]+ (\d+)/(\d+)")


@pytest.fixture
def inventory(platform: dict[str, Any], simulator: RunningSimulator, tmp_path: Path) -> Path:
    """Two hundred gateways, three of which the platform refuses."""
    names = [f"gw-{number:03}" for number in range(HOSTS)]
    known = [name for name in names if name not in STRANGERS]
    token = simulator.put_profile("fleet", service="cloudlocate", allow_list=known, hardware_code_mandatory=True)
    hosts = {
        name: {"thingstream_gateway_hardware_id": name, "thingstream_gateway_path": tmp_path / "gateways" / name}
        for name in names
    }
    common = {**platform, "thingstream_gateway_service": "cloudlocate", "thingstream_gateway_token": token}
    return write_inventory(tmp_path / "inventory.yml", hosts, common)


def command(inventory: Path, *arguments: str, playbook: str = PROVISION) -> list[str]:
    return [f"{sys.prefix}/bin/ansible-playbook", playbook, "-i", str(inventory), *arguments]


def bars(terminal: Terminal) -> list[tuple[int, int]]:
    found = [BAR.match(frame) for frame in terminal.frames]
    return [(int(bar[1]), int(bar[2])) for bar in found if bar]


def test_a_fleet_at_a_terminal_and_in_a_file(inventory: Path, tmp_path: Path) -> None:
    environment = {**settings(tmp_path), **PROGRESS}
    with at_terminal(command(inventory), tmp_path, environment, columns=200) as terminal:
        terminal.wait(lambda: len(terminal.frames) > 20)
        terminal.wait(lambda: any(done > HOSTS / 3 for done, _hosts in bars(terminal)))
        terminal.resize(40)
        narrow = len(terminal.frames)
        terminal.wait()
    print(*terminal.lines[-30:], sep="\n")
    assert terminal.status() == 2, terminal.lines
    assert [hosts for _done, hosts in bars(terminal) if hosts != HOSTS] == []
    dones = [done for done, _hosts in bars(terminal)]
    assert dones == sorted(dones)
    assert dones[0] < 30
    assert len(set(dones)) > 10
    assert any("| absent " in frame and "| 2 failed" in frame for frame in terminal.frames[:narrow])
    assert any(re.search(r"\| about \d+ s left", frame) for frame in terminal.frames)
    small = [frame for frame in terminal.frames[narrow + 1 :] if BAR.match(frame)]
    assert small
    assert all(len(frame) < 40 for frame in small)
    # no bar stays on the screen, whatever was printed above it; every failure is there in full
    text = "".join(line.ljust(40) for line in terminal.lines)
    assert "━" not in text
    for stranger in STRANGERS:
        assert re.search(rf"failed: {stranger}: not_allowed: ", text), text
    assert "200 gateways, 3 failed" in text
    assert "reason    absent 197" in text
    assert "failed    not_allowed 3: gw-050, gw-051, gw-150" in text.replace("  ", "  ")

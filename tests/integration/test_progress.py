# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a long run: at a terminal, and in a file."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from integration.ansible_run import PROVISION, run_playbook, settings, write_inventory
from integration.terminal import Terminal, at_terminal
from simulator.client import RunningSimulator

HOSTS = 120
STRANGERS = ["gw-060", "gw-061", "gw-110"]  # not on the allow-list of the profile
PROGRESS = {"ANSIBLE_STDOUT_CALLBACK": "thingstream.ztp.progress", "LC_ALL": "C.UTF-8"}
BAR = re.compile(r"^[━╌]+ (\d+)/(\d+)")
COMPLETE = re.compile(r"\| 2 failed \| about \d+ s left \| absent ")


@pytest.fixture
def inventory(platform: dict[str, Any], simulator: RunningSimulator, tmp_path: Path) -> Path:
    """A hundred and twenty gateways, three of which the platform refuses."""
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
    return [(int(match[1]), int(match[2])) for match in found if match]


def flat(lines: list[str], columns: int) -> str:
    """Return the lines of a screen as one text, so that it does not matter where they wrap."""
    return "".join(line.ljust(columns) for line in lines)


@pytest.mark.full
def test_a_fleet_at_a_terminal_and_then_in_a_file(inventory: Path, tmp_path: Path) -> None:
    environment = {**settings(tmp_path), **PROGRESS}
    with at_terminal(command(inventory), tmp_path, environment, columns=200) as terminal:
        terminal.wait(lambda: any(COMPLETE.search(frame) for frame in terminal.frames))
        terminal.resize(40)
        narrow = len(terminal.frames) + 1  # what was on its way comes for the old width
        terminal.wait()
    assert terminal.status() == 2, terminal.lines
    dones = [done for done, _hosts in bars(terminal)]
    assert dones == sorted(dones)
    assert dones[0] < HOSTS / 4
    assert len(set(dones)) > 10
    assert {hosts for _done, hosts in bars(terminal)} == {HOSTS}
    small = [frame for frame in terminal.frames[narrow:] if BAR.match(frame)]
    assert small, terminal.frames[narrow - 3 :]
    assert all(len(frame) < 40 for frame in small)
    # no bar stays on the screen, and every failure is there in full
    text = flat(terminal.lines, 40)
    assert "━" not in text
    for stranger in STRANGERS:
        assert f"failed: {stranger}: not_allowed: " in text
    assert "120 gateways, 3 failed" in text
    assert "reason    absent 117" in text
    assert "failed    not_allowed 3: gw-060, gw-061, gw-110" in text
    assert re.search(r"troubleshooting\.md#not_allowed", text)

    environment = {**PROGRESS, "THINGSTREAM_PROGRESS_INTERVAL": "1"}
    run = run_playbook(tmp_path, inventory, environment=environment)
    assert run.status == 2
    assert "\x1b" not in run.output
    lines = run.output.splitlines()
    assert len([line for line in lines if re.match(r"\d+/120 hosts \| ", line)]) >= 2, run.output
    assert len(lines) < 30
    assert "reason    none 117" in lines


@pytest.mark.full
def test_batches_questions_and_an_interrupted_run(inventory: Path, simulator: RunningSimulator, tmp_path: Path) -> None:
    few = ["--limit", "gw-00*"]
    assert run_playbook(tmp_path, inventory, *few, environment=PROGRESS).status == 0
    environment = {**settings(tmp_path), **PROGRESS}
    rotate = command(inventory, *few, "-e", "thingstream_rotate_batches=1,50%", playbook="thingstream.ztp.rotate")
    with at_terminal(rotate, tmp_path, environment, columns=120) as terminal:
        terminal.wait()
    assert terminal.status() == 0, terminal.lines
    dones = bars(terminal)
    assert dones[0] == (1, 10)
    assert dones == sorted(dones)
    assert max(dones) == (10, 10)
    assert len([line for line in terminal.lines if "resume it with" in line]) == 3
    assert "reason    forced 10" in terminal.lines

    simulator.add_fault("delay_before", seconds=6, count=200)
    ascii_only = {**environment, "PYTHONIOENCODING": "latin-1"}
    everybody = command(inventory, "-e", "thingstream_gateway_force=true")
    with at_terminal(everybody, tmp_path, ascii_only, columns=120) as terminal:
        terminal.wait(lambda: any(re.match(r"^[#-]+ \d+/120", frame) for frame in terminal.frames))
        time.sleep(3)  # Ansible loses an interrupt that comes while it forks: now it waits for answers
        terminal.program.sendintr()
        terminal.wait()
    assert terminal.status() == 99, terminal.lines
    assert any("interrupted" in line for line in terminal.lines)
    # workers of Ansible that die may print into a bar; no bar of ours stays
    assert not [line for line in terminal.lines if re.match(r"^[#-]+ \d+/120", line)]


HOST = "thr\x1bcee"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\r\nfailed: other"
PLAYBOOK = """
- name: A play of somebody else
  hosts: all
  gather_facts: false
  tasks:
    - name: Fails
      ansible.builtin.fail:
        msg: "{{ hostile }}"
      when: inventory_hostname == 'one'
    - name: Ignored
      ansible.builtin.fail:
        msg: never mind
      ignore_errors: true
    - name: Rescued
      block:
        - name: Fails for a moment
          ansible.builtin.fail:
            msg: no {{ item }}
          loop: ["{{ hostile }}"]
      rescue:
        - name: Tell
          ansible.builtin.debug:
            msg: "{{ hostile }}"
        - name: List
          ansible.builtin.debug:
            var: item
          loop: ["{{ hostile }}"]
    - name: Keep quiet
      ansible.builtin.fail:
        msg: "{{ secret }}"
      no_log: true
      when: inventory_hostname == 'two'
    - name: Ask
      ansible.builtin.pause:
        prompt: Go on
    - name: Write
      ansible.builtin.copy:
        content: "{{ hostile }}"
        dest: "{{ directory }}/written"
        mode: "0600"
      diff: true
      when: inventory_hostname not in ['one', 'two']
"""


def test_what_others_say_is_shown_but_not_obeyed(tmp_path: Path) -> None:
    variables = {"hostile": HOSTILE, "secret": "S3cret-S3cret", "directory": tmp_path}
    inventory = write_inventory(tmp_path / "inventory.yml", {name: {} for name in ("one", "two", HOST)}, variables)
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(PLAYBOOK)
    environment = {**settings(tmp_path), **PROGRESS}
    with at_terminal(command(inventory, playbook=str(playbook)), tmp_path, environment, columns=100) as terminal:
        terminal.wait(lambda: "Go on" in terminal.lines[-1] if terminal.lines else False)
        assert "━" not in terminal.lines[-1]
        terminal.program.send("\r")
        terminal.wait()
    assert terminal.status() == 2
    text = flat(terminal.lines, 100)
    ours = {b"\x1b[J", b"\x1b[?7l", b"\x1b[?7h"}
    asks = {b"\x1b[K", b"\x1b["}  # what Ansible itself writes for the question
    assert set(re.findall(rb"\x1b(?:\[[?0-9;]*[A-Za-z]|.)", terminal.transcript)) - asks == ours
    escaped = r"\x1b]0;owned\x07\x1b[2J\u202e failed: other"
    assert f"failed: one: Fails: {escaped}" in text
    assert "ignored: two: Ignored: never mind" in text
    assert rf"failed: thr\x1bcee: Fails for a moment: {escaped}: no {escaped}" in text
    assert rf"thr\x1bcee: List: {escaped}" in text
    assert rf"thr\x1bcee: Tell: {escaped}" in text
    assert re.search(r"failed: two: Keep quiet: the output has been hidden", text)
    assert "S3cret" not in text
    assert r"thr\x1bcee: Write:" in text
    assert r"+\x1b]0;owned\x07\x1b[2J" in text
    assert "3 gateways, 2 failed" in text
    assert "2 errors ignored, 2 errors rescued" in text

    verbose = run_playbook(tmp_path, inventory, "-v", "--check", playbook=str(playbook), environment=PROGRESS)
    assert "TASK [Fails]" in verbose.output
    assert "PLAY RECAP" in verbose.output
    assert "gateways," not in verbose.output

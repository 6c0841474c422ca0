# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools say about gateway.sh without running it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils import gateway

SCRIPT = Path(gateway.__file__).with_name("gateway.sh")


@pytest.mark.parametrize(
    "command",
    [
        ["shellcheck", "--shell=sh", "--severity=style"],
        ["dash", "-n"],
        ["bash", "--posix", "-n"],
        ["busybox", "ash", "-n"],
    ],
    ids=" ".join,
)
def test_no_complaint(find_program: Callable[[str], str], command: list[str]) -> None:
    find_program(command[0])
    result = subprocess.run([*command, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_plain_text() -> None:
    text = SCRIPT.read_bytes()
    assert text.isascii()
    assert b"\r" not in text
    assert text.endswith(b"say end\n")
    code = [line for line in text.decode().splitlines() if not line.strip().startswith("#")]
    assert gateway.SCRIPT.splitlines() == code, "what travels is the script without its comments"
    assert "<<" not in gateway.SCRIPT, "some shells write a here-document to a temporary file"


def test_a_look_is_sent_without_what_changes_anything() -> None:
    look, whole = gateway.LOOK_SCRIPT.splitlines(), gateway.SCRIPT.splitlines()
    assert look[-3:] == whole[-3:]
    assert look[:-3] == whole[: len(look) - 3]
    assert {"probe() {", "survey() {"} < set(look)
    assert not {"install() {", "take_lock() {", "remove() {"} & set(look)

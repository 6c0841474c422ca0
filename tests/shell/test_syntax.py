# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools say about the scripts without running them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import hardware_id

SCRIPT = Path(gateway.__file__).with_name("gateway.sh")
SENT = {SCRIPT: gateway.SCRIPT, SCRIPT.with_name("identify.sh"): hardware_id.SCRIPT}
every_script = pytest.mark.parametrize("script", SENT, ids=lambda path: path.name)


@every_script
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
def test_no_complaint(find_program: Callable[[str], str], command: list[str], script: Path) -> None:
    find_program(command[0])
    result = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_script_is_known() -> None:
    assert set(SENT) == set(SCRIPT.parent.glob("*.sh"))


@every_script
def test_plain_text(script: Path) -> None:
    text = script.read_bytes()
    assert text.isascii()
    assert b"\r" not in text
    assert text.endswith(b"say end\n")
    code = [line for line in text.decode().splitlines() if not line.strip().startswith("#")]
    assert SENT[script].splitlines() == code, "what travels is the script without its comments"
    assert "<<" not in SENT[script], "some shells write a here-document to a temporary file"


def test_a_look_is_sent_without_what_changes_anything() -> None:
    look, whole = gateway.LOOK_SCRIPT.splitlines(), gateway.SCRIPT.splitlines()
    assert look[-3:] == whole[-3:]
    assert look[:-3] == whole[: len(look) - 3]
    assert {"probe() {", "survey() {"} < set(look)
    assert not {"install() {", "take_lock() {", "remove() {"} & set(look)

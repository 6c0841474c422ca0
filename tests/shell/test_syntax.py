# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Static checks of the scripts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, hardware_id, protocol
from shell.host import Host, snapshot

FOLDER = Path(protocol.__file__).parent
SENT = {"look.sh": commands.LOOK_SCRIPT, "change.sh": commands.CHANGE_SCRIPT, "identify.sh": hardware_id.SCRIPT}
every_script = pytest.mark.parametrize("name", SENT)


def code_of(name: str) -> list[str]:
    """Return the lines of a script that are not comments."""
    lines = (FOLDER / name).read_text().splitlines()
    return [line for line in lines if not line.strip().startswith("#")]


@pytest.mark.parametrize("name", ["prelude.sh", *SENT])
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
def test_no_complaint(find_program: Callable[[str], str], command: list[str], name: str) -> None:
    find_program(command[0])
    result = subprocess.run([*command, str(FOLDER / name)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@every_script
def test_no_complaint_about_the_whole(find_program: Callable[[str], str], tmp_path: Path, name: str) -> None:
    """As it is sent, with its comments, which hold what shellcheck has to know."""
    whole = tmp_path / name
    whole.write_text((FOLDER / "prelude.sh").read_text() + (FOLDER / name).read_text())
    command = [find_program("shellcheck"), "--shell=sh", "--severity=style", "--exclude=SC2154,SC2015,SC2012"]
    result = subprocess.run([*command, str(whole)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_every_script_is_known() -> None:
    assert {"prelude.sh", *SENT} == {path.name for path in FOLDER.glob("*.sh")}


@every_script
def test_plain_text(name: str) -> None:
    text = (FOLDER / "prelude.sh").read_bytes() + (FOLDER / name).read_bytes()
    assert text.isascii()
    assert b"\r" not in text
    assert SENT[name].splitlines() == [*code_of("prelude.sh"), *code_of(name)], "sent without its comments"
    assert SENT[name].splitlines()[-1].startswith("reply "), "nothing runs before the last line"
    assert SENT[name].endswith("\n")
    assert "<<" not in SENT[name], "some shells write a here-document to a temporary file"


@every_script
def test_a_script_that_was_cut_changes_nothing(host: Host, name: str) -> None:
    """Wherever it was cut: no command runs before the last line."""
    host.plant("a")
    requests = {
        "look.sh": "command=look owner= group= thorough=yes",
        "change.sh": "command=remove current=000001 nonce=n known_history= history= reload_command= health_command=",
        "identify.sh": "command=identify sources=mac root= seconds=1",
    }
    request = "".join(f"request_{word}\n" for word in requests[name].split()) + f"request_path='{host.path}'\n"
    before = snapshot(host.path)
    script = SENT[name]
    begin = script.rindex("reply ")
    end = script.rindex('" ')
    for length in (len(script) // 2, *range(begin, end + 1)):
        _status, output, _complaint = host.execute("sh -s", (request + script[:length]).encode(), False)
        assert protocol.output_lines(output) == [], script[length - 20 : length]
    assert snapshot(host.path) == before


def test_a_look_is_sent_without_what_changes_anything() -> None:
    names = set(re.findall(r"^(\w+)\(\) \{", commands.LOOK_SCRIPT, re.MULTILINE))
    assert {"look", "look_at_generations", "read_response"} < names
    assert not {"install", "take_lock", "remove", "set_link"} & names


@every_script
def test_every_variable_of_a_request_is_described(name: str) -> None:
    """In the header of the script that uses it, and no other one."""
    used = set(re.findall(r"request_\w+", "\n".join(code_of(name))))
    described = set(re.findall(r"^#   (request_\w+)", (FOLDER / name).read_text(), re.MULTILINE))
    assert described - {"request_command"} == used - {"request_command"}

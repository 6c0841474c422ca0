# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output and input of a connection: noise around the output, its end, and the length of commands."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, protocol
from ansible_collections.thingstream.ztp.tests.unit.states import altered
from shell.host import MODIFIED_AT, Host, change, refused

MAX_COMMAND = 9000  # what dropbear takes


def lifecycle(host: Host) -> None:
    assert host.install("a") == "000001"
    (host.path / "current" / "client.key").chmod(0o600)
    assert host.drift() == ["client.key"]
    assert host.set_attributes() == "000001"
    assert host.install("b") == "000002"
    assert commands.read_response(host.execute, host.look()).startswith(b"credentials.json of b\n")
    (state,) = commands.look_at_generations(host.execute, [str(host.path)])
    assert list(state.bundle.generations) == ["000001", "000002"]
    host.remove()
    assert not host.path.exists()


BANNER = r"""printf 'Welcome to\n\n  OpenWrt\nrecord {}\ncurrent /etc\nend\n'; printf 'without a line feed '
printf 'stty: not a tty\r\n' >&2; trap 'echo; echo Goodbye' EXIT
"""


@pytest.mark.parametrize("terminal", [False, True])
def test_login_noise(host: Host, terminal: bool) -> None:
    host = replace(host, banner=BANNER, terminal=terminal)
    lifecycle(host)
    for output in host.outputs:
        assert output.startswith("Welcome")
        assert output.rstrip().endswith("Goodbye")


def test_an_odd_environment(host: Host, tmp_path: Path) -> None:
    """Whatever the user of the gateway has set for himself, what programs print can be read."""
    (tmp_path / "generations").mkdir()
    environment = {
        "LC_ALL": "C.UTF-8",
        "TIME_STYLE": "long-iso",
        "QUOTING_STYLE": "c",
        "BLOCK_SIZE": "1M",
        "CDPATH": str(tmp_path),
        "IFS": "/0",
        "request_keep": "5",
    }
    host = replace(host, environment=environment).at(host.path.with_name("it is 'quoted'"))
    lifecycle(host)
    free_kib = host.look().storage.free_kib
    assert free_kib == pytest.approx(os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 1024, rel=0.1)


def test_every_answer_begins_and_ends(host: Host) -> None:
    lifecycle(host)
    host.install("a")
    with refused("concurrent_change"):
        host.install("b", altered(host.look(), current=None))
    assert len(host.outputs) > 10
    for output in host.outputs:
        assert output.startswith("begin 1\n")
        assert output.endswith("\nend\n")


@pytest.mark.parametrize("lost", ["begin 1\n", "end\n"])
def test_an_answer_that_was_cut(host: Host, lost: str) -> None:
    def cutting(command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        status, output, complaint = host.execute(command, standard_input, secret)
        return status, output.replace(lost, ""), complaint

    with refused("gateway_unsupported"):
        commands.look(cutting, str(host.path))


def test_no_command_is_long_or_shows_anything(host: Host, tmp_path: Path) -> None:
    sent: list[str] = []

    def listening(command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        sent.append(command)
        return host.execute(command, standard_input, secret)

    component = "'" * 120
    path = tmp_path / component / component
    state = commands.look(listening, str(path))
    commands.install(
        listening,
        state,
        {"client.key": protocol.File(b"a secret", 0o600)},
        change(nonce="abc"),
        MODIFIED_AT,
    )
    assert (path / "current" / "client.key").read_bytes() == b"a secret"
    assert max(map(len, sent)) < MAX_COMMAND
    assert "secret" not in "".join(sent)

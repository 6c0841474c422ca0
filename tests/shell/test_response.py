# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""read_response: exactly the bytes that were installed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from shell.host import Host, refused

RESPONSES = {
    "empty": b"",
    "no line feed": b'{"a": 1}',
    "line feed": b'{"a": 1}\n',
    "line feeds": b'\n\n{"a": 1}\n\n\n',
    "spaces": b'  {"a":  1}  \n ',
    "backslashes": rb'{"a": "\n\\\t\u0000%s$(id)`id`"}',
    "UTF-8": '{"ü": "€ 鍵 🔑"}\n'.encode(),
    "not UTF-8": b'{"a": "\xff\xfe\xc3"}\n',
    "protocol": b"begin 1\nresponse\nrecord x\n@listing\nend\n",
    "protocol without line feed": b"response\nend",
    "CRLF": b'{\r\n"a": 1\r\n}\r\n',
    "CR": b'{"a":\r1}\r',
    "6 KiB": b'{"certificate": "' + b"MIIC" * 1536 + b'"}',
    "6 KiB in lines": b"-----BEGIN\n" + b"MIICabcdefghijklmnopqrstuvwxyz0123456789\n" * 150,
}


@pytest.mark.parametrize("response", RESPONSES)
def test_round_trip(host: Host, response: str) -> None:
    content = RESPONSES[response]
    host.plant("a", contents={"credentials.json": content})
    assert commands.read_response(host.execute, host.look()) == content


def test_round_trip_through_a_terminal(host: Host) -> None:
    terminal = replace(host, terminal=True)
    host.plant("a")
    state = terminal.look()
    for content in RESPONSES.values():
        (host.path / "current" / "credentials.json").write_bytes(content)
        assert commands.read_response(terminal.execute, state) == content


def test_which_generation(host: Host) -> None:
    host.plant("a")
    before = host.look()
    host.install("b")
    assert commands.read_response(host.execute, host.look()).startswith(b"credentials.json of b\n")
    assert commands.read_response(host.execute, before).startswith(b"credentials.json of a\n")


def test_none(host: Host) -> None:
    state = host.look()
    with refused("bad_path"):
        commands.read_response(host.execute, state)
    host.plant("a")
    (host.path / "current" / "credentials.json").unlink()
    with refused("bad_path"):
        commands.read_response(host.execute, host.look())


def test_nothing_else_shows_a_secret(host: Host) -> None:
    host.plant("a", "b")
    host.set_attributes()
    commands.look_at_generations(host.execute, [str(host.path)])
    host.remove()
    text = "".join(host.outputs)
    assert "thing.json" in text
    for name in ("credentials.json", "client.key", "client.pem"):
        assert f"{name} of" not in text

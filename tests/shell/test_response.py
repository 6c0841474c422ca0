# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""read_response: exactly the bytes that were installed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
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
    host.hold("a", contents={"credentials.json": content})
    assert gateway.read_response(host.execute, host.probe()) == content


def test_round_trip_through_a_terminal(host: Host) -> None:
    terminal = replace(host, terminal=True)
    host.hold("a")
    held = terminal.probe()
    for content in RESPONSES.values():
        (host.path / "current" / "credentials.json").write_bytes(content)
        assert gateway.read_response(terminal.execute, held) == content


def test_which_generation(host: Host) -> None:
    host.hold("a")
    before = host.probe()
    host.install("b")
    assert gateway.read_response(host.execute, host.probe()).startswith(b"credentials.json of b\n")
    assert gateway.read_response(host.execute, before).startswith(b"credentials.json of a\n")


def test_none(host: Host) -> None:
    held = host.probe()
    with refused("bad_path"):
        gateway.read_response(host.execute, held)
    host.hold("a")
    (host.path / "current" / "credentials.json").unlink()
    with refused("bad_path"):
        gateway.read_response(host.execute, host.probe())


def test_nothing_else_shows_a_secret(host: Host) -> None:
    host.hold("a", "b")
    host.repair()
    gateway.survey(host.execute, [str(host.path)])
    host.remove()
    text = "".join(host.outputs)
    assert "thing.json" in text
    for name in ("credentials.json", "client.key", "client.pem"):
        assert f"{name} of" not in text

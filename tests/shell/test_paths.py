# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of every kind: no character of them is ever interpreted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from shell.host import DIRECTORY_MODE, MODES, Host, new_nonce, refused

PATHS = {
    "quotes and spaces": ["with space", " at both ends ", "two  spaces", "'single'", '"double"', 'it\'s "both"'],
    "expansions": [
        "$HOME",
        "$(touch x)",
        "`touch x`",
        "a;touch x",
        "a&b&",
        "a|b>c<d",
        "*",
        "[a-z]?",
        "{a,b}",
        "~",
        "#",
    ],
    "escapes": ["back\\slash\\n", "\\", "%s%d%n", "!history", "=equals=", "\\'", "end\\"],
    "options": ["-rf", "--", "-", "--help", "-n", "-e"],
    "words of the protocol": ["a -> b", "a:", "total 4", "generations", "current", "000001", ".staging-x", "@", "end"],
}


def lifecycle(host: Host) -> None:
    """Everything that the script does, at one path."""
    assert host.install("a") == "000001"
    (host.path / "current" / "client.key").chmod(0o600)
    held = host.checked()
    assert held.exists
    assert held.current == "000001"
    assert held.record is not None
    assert set(held.files) == set(held.digests) == set(MODES)
    assert host.drift(held) == ["client.key"]
    assert host.repair(held) == "000001"
    assert host.install("b") == "000002"
    host.assert_tidy("b", ["000001", "000002"])
    (surveyed,) = gateway.survey(host.execute, [str(host.path)])
    assert list(surveyed.generations) == ["000001", "000002"]
    assert gateway.drift(surveyed, MODES, DIRECTORY_MODE) == []
    assert gateway.read_response(host.execute, surveyed).startswith(b"credentials.json of b\n")
    host.remove()
    assert not host.path.exists()


@pytest.mark.parametrize("kind", PATHS)
def test_nothing_is_interpreted(host: Host, tmp_path: Path, kind: str) -> None:
    path = tmp_path.joinpath(*PATHS[kind])
    lifecycle(host.at(path))
    assert (
        sorted(tmp_path.rglob("*")) == sorted(parent for parent in path.parents if parent.is_relative_to(tmp_path))[1:]
    )


def test_a_long_path(host: Host, tmp_path: Path) -> None:
    component = "ux'x " * 25
    path = tmp_path / component / component
    missing = gateway.MAX_PATH - len(bytes(path)) - 1
    path = path / ("'" * missing)
    assert len(bytes(path)) == gateway.MAX_PATH
    lifecycle(host.at(path))


@pytest.mark.usefixtures("root")
def test_directly_below_the_root(host: Host) -> None:
    path = Path(f"/thingstream-test-{new_nonce()}")
    try:
        lifecycle(host.at(path))
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize(
    "path", ["", "/", "relative", "~", "/a//b", "/a/", "/a/./b", "/a/../b", "/a\nb", "/a\x7f", "/" + "x" * 512, "//a"]
)
def test_what_is_no_path(host: Host, path: str) -> None:
    with refused("bad_path"):
        gateway.probe(host.execute, path)
    with refused("bad_path"):
        gateway.survey(host.execute, ["/etc", path])
    assert host.outputs == []

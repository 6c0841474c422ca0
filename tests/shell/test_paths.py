# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of every kind: no character of them is ever interpreted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, preflight
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
    """Run everything that the script does, at one path."""
    assert host.install("a") == "000001"
    (host.path / "current" / "client.key").chmod(0o600)
    state = host.checked()
    assert state.exists
    assert state.bundle.current == "000001"
    assert state.bundle.record is not None
    assert set(state.bundle.files) == set(state.bundle.digests) == set(MODES)
    assert host.drift(state) == ["client.key"]
    assert host.set_attributes(state) == "000001"
    assert host.install("b") == "000002"
    host.assert_in_order("b", ["000001", "000002"])
    (state,) = commands.look_at_generations(host.execute, [str(host.path)])
    assert list(state.bundle.generations) == ["000001", "000002"]
    assert preflight.attribute_drift(state, MODES, DIRECTORY_MODE) == []
    assert commands.read_response(host.execute, state).startswith(b"credentials.json of b\n")
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
    missing = preflight.MAX_PATH - len(bytes(path)) - 1
    path = path / ("'" * missing)
    assert len(bytes(path)) == preflight.MAX_PATH
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
        commands.look(host.execute, path)
    with refused("bad_path"):
        commands.look_at_generations(host.execute, ["/etc", path])
    assert host.outputs == []

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Symbolic links that an attacker planted at the names the script uses: none of them is followed."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, protocol
from shell.host import Host, bundle, change, outcome, plant_generation, refused, snapshot

SECRET = "a secret of another user"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that must stay as it is, in which every name exists that the script may look for."""
    directory = tmp_path / "outside"
    (directory / "files").mkdir(parents=True)
    plant_generation(Host("", (), tmp_path, directory), "000001", "outside")
    for name, file in bundle("outside").items():
        for parent in (directory, directory / "files"):
            (parent / name).write_bytes(file.content)
            (parent / name).chmod(0o604)
    (directory / "credentials.json").write_text(SECRET)
    (directory / "current").symlink_to("generations/000001")
    (directory / ".lock").touch(0o640)
    directory.chmod(0o700)
    return directory


def replace_by_link(entry: Path, target: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.symlink_to(target)


def attempt(host: Host, command: str, state: protocol.GatewayState, nonce: str = "planted") -> None:
    if command == "install":
        host.install("b", state, nonce=nonce)
    elif command == "repair":
        host.set_attributes(state)
    elif command == "read_response":
        commands.read_response(host.execute, state)
    else:
        commands.remove(host.execute, state, change())


@pytest.mark.parametrize("command", ["install", "repair", "remove", "read_response"])
def test_the_path_itself(host: Host, outside: Path, command: str) -> None:
    host.plant("a")
    state = host.checked()
    replace_by_link(host.path, outside)
    before = snapshot(outside)
    with refused("bad_path"):
        host.checked()
    with refused("bad_path"):
        attempt(host, command, state)
    assert snapshot(outside) == before


@pytest.mark.parametrize("command", ["install", "repair"])
@pytest.mark.parametrize("name", ["generations", "generations/000001"])
def test_a_directory(host: Host, outside: Path, name: str, command: str) -> None:
    host.plant("a")
    state = host.checked()
    replace_by_link(host.path / name, outside / name)
    before = snapshot(outside)
    assert host.look().bundle.current is None
    with refused("bad_path", "concurrent_change", "permission"):
        attempt(host, command, state)
    assert snapshot(outside) == before
    assert host.leftovers == []


@pytest.mark.parametrize("target", ["generations", "files", "absent"])
def test_a_first_installation_into_a_directory(host: Host, outside: Path, target: str) -> None:
    host.path.mkdir(parents=True)
    (host.path / "generations").symlink_to(outside / target)
    before = snapshot(outside)
    with refused("bad_path"):
        host.install("a")
    assert snapshot(outside) == before
    assert host.leftovers == []
    assert not (host.path / "current").is_symlink()


@pytest.mark.parametrize("name", ["generations", "generations/000001"])
def test_a_response_behind_a_directory(host: Host, outside: Path, name: str) -> None:
    host.plant("a")
    state = host.checked()
    replace_by_link(host.path / name, outside / name)
    with refused("bad_path"):
        commands.read_response(host.execute, state)
    assert "credentials.json of" not in "".join(host.outputs)


def test_the_next_generation(host: Host, outside: Path) -> None:
    host.plant("a")
    shutil.rmtree(outside / "files")  # there is room for what is moved there by mistake
    (host.path / "generations" / "000002").symlink_to(outside)
    before = snapshot(outside)
    with refused("bad_path", "concurrent_change"):
        host.install("b")
    assert snapshot(outside) == before
    assert host.marker == "a"
    assert host.leftovers == []


@pytest.mark.parametrize("command", ["install", "repair", "remove"])
@pytest.mark.parametrize("target", ["files", ".lock", "absent"])
def test_the_lock(host: Host, outside: Path, command: str, target: str) -> None:
    """It is no lock of a run that is there, so that it is refused or taken away, but not followed."""
    host.plant("a")
    replace_by_link(host.path / ".lock", outside / target)
    before = snapshot(outside)
    assert outcome(lambda: attempt(host, command, host.checked())) in ("done", "bad_path")
    assert snapshot(outside) == before
    assert host.marker in ("a", "b", None)


def test_the_staging_directory(host: Host, outside: Path) -> None:
    host.plant("a")
    state = host.checked()
    (host.path / "planted").symlink_to(outside)
    before = snapshot(outside)

    def planting(command: str, stream: bytes, secret: bool) -> tuple[int, str, str]:
        make = 'mkdir -m 700 "${s}" &&'
        assert make in command
        return host.execute(command.replace(make, f'mv "${{p}}/planted" "${{s}}"; {make}'), stream, secret)

    late = replace(host)
    object.__setattr__(late, "execute", planting)
    with refused("bad_path", "concurrent_change", "gateway_unsupported"):
        late.install("b", state)
    assert snapshot(outside) == before
    assert host.marker == "a"
    (leftover,) = host.leftovers
    assert leftover.startswith(".staging-")


@pytest.mark.parametrize("name", [".last-change", "current"])
def test_the_link_that_is_to_be_renamed(host: Host, outside: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    host.plant("a")
    (host.path / "planted").symlink_to(outside)
    before = snapshot(outside)
    begin = "replace_link() { # name target\n"
    planting = f'[ "$1" != {name} ] || mv planted ".staging-link-$attempt"\n'
    assert begin in commands.CHANGE_SCRIPT
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", commands.CHANGE_SCRIPT.replace(begin, begin + planting))
    with refused("bad_path"):
        host.install("b")
    assert snapshot(outside) == before
    assert host.marker == "a"
    assert host.generations == ["000001"]
    assert host.look().bundle.leftovers == ()


def test_current_is_a_directory(host: Host) -> None:
    host.plant("a")
    link = host.path / "current"
    link.unlink()
    link.mkdir()
    (link / "thing.json").write_text("{}")
    before = snapshot(link)
    for _attempt in range(2):
        state = host.checked()
        assert state.bundle.current is None
        assert state.bundle.record is None
        with refused("bad_path"):
            host.install("b")
        assert snapshot(link) == before
        assert host.generations == ["000001"]
        assert host.leftovers == []


def test_current_leads_outside(host: Host, outside: Path) -> None:
    host.plant("a")
    replace_by_link(host.path / "current", outside)
    before = snapshot(outside)
    state = host.checked()
    assert (state.bundle.current, state.bundle.record, state.bundle.digests, state.bundle.files) == (None, None, {}, {})
    assert '"outside"' not in host.outputs[-1]
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in host.outputs[-1]
    host.install("b")
    assert host.marker == "b"
    assert snapshot(outside) == before


@pytest.mark.parametrize("target", ["generations/000001", "generations/000009", "{path}/generations/000001", "nowhere"])
def test_current_leads_nowhere_or_is_absolute(host: Host, target: str) -> None:
    """Whatever happened to the link, the next installation makes a correct one."""
    host.plant("a")
    shutil.rmtree(host.path / "generations" / "000001")
    if target.startswith("{"):
        plant_generation(host, "000001", "a")
    replace_by_link(host.path / "current", Path(target.format(path=host.path)))
    host.install("b")
    assert host.marker == "b"
    assert host.leftovers == []


@pytest.mark.parametrize("name", ["client.key", "thing.json", "credentials.json"])
def test_a_file(host: Host, outside: Path, name: str) -> None:
    host.plant("a")
    replace_by_link(host.path / "current" / name, outside / name)
    before = snapshot(outside)
    state = host.checked()
    assert name not in state.bundle.digests
    assert state.bundle.files[name].mode.startswith("l")
    assert host.drift(state) == [name]
    if name == "thing.json":
        assert state.bundle.record is None
    with refused("permission", "bad_path"):
        host.set_attributes(state)
    if name == "credentials.json":
        with refused("bad_path"):
            commands.read_response(host.execute, state)
    assert SECRET not in "".join(host.outputs)
    assert snapshot(outside) == before
    host.install("b")
    assert host.marker == "b"
    assert snapshot(outside) == before


@pytest.mark.parametrize("name", ["generations", "generations/000001", "generations/000001/client.key"])
def test_removal(host: Host, outside: Path, name: str) -> None:
    host.plant("a")
    replace_by_link(host.path / name, outside / name.rpartition("/")[2])
    (host.path / ".staging-x").symlink_to(outside)
    (host.path / ".staging-link-x").symlink_to(outside)
    before = snapshot(outside)
    host.remove()
    assert snapshot(outside) == before
    assert not host.path.exists()


def test_cleaning_up(host: Host, outside: Path) -> None:
    host.plant("a")
    (host.path / ".staging-x").symlink_to(outside)
    (host.path / ".staging-link-x").symlink_to(outside)
    before = snapshot(outside)
    host.install("b")
    assert snapshot(outside) == before
    assert host.leftovers == []


def test_a_parent_may_be_a_link(host: Host, tmp_path: Path) -> None:
    """As /var/run is one: whoever may change the parents may do anything anyway."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    linked = host.at(tmp_path / "link" / "store")
    linked.install("a")
    state = linked.checked()
    assert state.bundle.current == "000001"
    assert linked.drift(state) == []
    linked.install("b")
    linked.assert_in_order("b", ["000001", "000002"])
    linked.set_attributes()
    linked.remove()
    assert list((tmp_path / "real").iterdir()) == []

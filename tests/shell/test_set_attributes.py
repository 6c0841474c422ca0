# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""repair: owner, group and modes come back, and contents stay."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, protocol
from ansible_collections.thingstream.ztp.tests.unit.states import altered
from shell.host import DIRECTORY_MODE, MODES, Host, refused, snapshot

Drift = Callable[[Path], None]
DRIFTS: Mapping[str, Drift] = {
    "too open": lambda entry: entry.chmod(0o777),
    "too closed": lambda entry: entry.chmod(0o500 if entry.is_dir() else 0o400),
    "set-group-ID": lambda entry: entry.chmod(0o2750 if entry.is_dir() else 0o2640),
    "owner": lambda entry: os.chown(entry, 4321, -1),
    "group": lambda entry: os.chown(entry, -1, 4321),
}


def parts(host: Host) -> dict[str, Path]:
    """Return everything that has attributes, by the name that ``drift`` gives it."""
    generation = host.path / "generations" / "000001"
    directories = {"./": host.path, "generations/": host.path / "generations", "current/": generation}
    return {**directories, **{name: generation / name for name in MODES}}


@pytest.mark.parametrize("drift", DRIFTS)
def test_everything_at_once(host: Host, drift: str) -> None:
    if drift in ("owner", "group") and os.geteuid() != 0:
        pytest.skip("needs root")
    host.plant("a")
    for entry in reversed(parts(host).values()):
        DRIFTS[drift](entry)
    state = host.look()
    assert host.drift(state) == sorted(parts(host))
    assert host.set_attributes(state) == "000001"
    state = host.checked()
    assert host.drift(state) == []
    host.assert_in_order("a", ["000001"])


@pytest.mark.parametrize("name", ["./", "generations/", "current/", "client.key", "client.crt"])
def test_one_thing(host: Host, name: str) -> None:
    host.plant("a")
    parts(host)[name].chmod(0o711 if name.endswith("/") else 0o606)
    state = host.look()
    assert host.drift(state) == [name]
    host.set_attributes(state)
    assert host.drift() == []


def test_contents_stay(host: Host) -> None:
    host.plant("a")
    generation = host.path / "generations" / "000001"
    before = {name: (generation / name).stat() for name in MODES}
    (generation / "client.key").chmod(0o666)
    host.set_attributes()
    after = {name: (generation / name).stat() for name in MODES}
    for name in MODES:
        assert (after[name].st_ino, after[name].st_mtime_ns) == (before[name].st_ino, before[name].st_mtime_ns)
    host.assert_in_order("a", ["000001"])


def test_foreign_files_keep_their_attributes(host: Host) -> None:
    host.plant("a")
    foreign = host.path / "generations" / "000001" / "notes"
    foreign.write_text("mine")
    foreign.chmod(0o604)
    before = snapshot(foreign)
    host.set_attributes()
    assert snapshot(foreign) == before


def test_a_file_that_is_gone(host: Host) -> None:
    host.plant("a")
    (host.path / "current" / "ca.crt").unlink()
    with refused("permission", "bad_path"):
        host.set_attributes()


@pytest.mark.parametrize("other", ["000001", "", "000003"])
def test_somebody_was_faster(host: Host, tmp_path: Path, other: str) -> None:
    host.plant("a", "b")
    (host.path / "current" / "client.key").chmod(0o600)
    before = snapshot(tmp_path)
    state = altered(host.look(), current=other)
    with refused("concurrent_change"):
        host.set_attributes(state)
    changed = {name for name, look in snapshot(tmp_path).items() if look != before.get(name)}
    assert changed <= {str(host.path.relative_to(tmp_path))}  # which state the lock for a moment


@pytest.mark.usefixtures("root")
def test_the_wanted_owner_is_given(host: Host) -> None:
    host.plant("a")
    state = host.look("4321", "1234")
    host.set_attributes(state)
    assert host.drift(host.look("4321", "1234")) == []
    assert host.look().bundle.files["client.key"] == protocol.Attributes("-rw-r-----", 4321, 1234)
    assert (host.path.stat().st_mode & 0o7777) == DIRECTORY_MODE


def test_below_a_directory_that_hands_down_its_group(host: Host) -> None:
    """New directories inherit its set-group-ID bit, which is not wanted and must not be repaired for ever."""
    host.path.parent.mkdir(parents=True)
    host.path.parent.chmod(0o2755)
    host.install("a")
    assert host.drift() == []


# ---- access control lists ----


@pytest.fixture
def access_list(find_program: Callable[[str], str], tmp_path: Path) -> Callable[..., None]:
    """Give names an access control list, by which user 4242 may read them."""
    setfacl = find_program("setfacl")

    def give(*names: Path, inherited: bool = False) -> None:
        subprocess.run([setfacl, *(["-d"] if inherited else []), "-m", "u:4242:rx", *map(str, names)], check=True)

    give(tmp_path)  # whose file system has to know of such lists
    return give


def has_access_list(path: Path) -> bool:
    return "system.posix_acl_access" in os.listxattr(path)


def test_an_access_list_is_inherited(host: Host, access_list: Callable[..., None]) -> None:
    host.path.parent.mkdir(parents=True, exist_ok=True)
    access_list(host.path.parent, inherited=True)
    if host.shell == "busybox":  # without setfacl, and with an ls that does not show them
        with refused("permission"):
            host.install("a")
        assert host.marker is None
        return
    host.install("a")
    host.install("b")
    installed = [host.path, *host.path.rglob("*")]
    assert [path for path in installed if not path.is_symlink() and has_access_list(path)] == []
    host.assert_in_order("b", ["000001", "000002"])


def test_an_access_list_is_drift(host: Host, access_list: Callable[..., None]) -> None:
    host.plant("a")
    access_list(host.path / "current" / "client.key", host.path)
    if host.shell == "busybox":  # ls shows what a list makes of the mode, but not the list
        assert host.drift() == ["client.key"]
        return
    assert host.drift() == ["./", "client.key"]
    host.set_attributes()
    assert host.drift() == []
    assert not has_access_list(host.path / "current" / "client.key")


def test_an_access_list_cannot_be_removed(
    host: Host, access_list: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if host.shell == "busybox":
        return  # whose ls does not show them
    hidden = 'command() { [ "$2" != setfacl ] || return 1; case $1 in -v) type "$2" ;; *) "$@" ;; esac; }\n'
    for script in ("CHANGE_SCRIPT", "LOOK_SCRIPT"):
        monkeypatch.setattr(commands, script, hidden + getattr(commands, script))
    host.path.parent.mkdir(parents=True, exist_ok=True)
    state = host.checked()
    access_list(host.path.parent, inherited=True)
    with refused("permission"):  # before a request
        host.checked()
    with refused("permission"):
        host.install("a", state)
    assert host.marker is None


@pytest.mark.parametrize("name", ["client.key", "stray"])
def test_an_access_list_behind_a_link_stays(
    host: Host, access_list: Callable[..., None], tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("of another user")
    access_list(outside)
    host.plant("a")
    state = host.checked()
    planted = host.path / "generations" / "000001" / name
    planted.unlink(missing_ok=True)
    planted.symlink_to(outside)
    with refused("permission") if name == "client.key" else contextlib.nullcontext():
        host.set_attributes(state)
    assert has_access_list(outside)

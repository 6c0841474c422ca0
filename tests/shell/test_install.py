# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""install: what lies on the disk afterwards, and what could be read meanwhile."""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import pwd
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, preflight
from shell.host import DIRECTORY_MODE, MODES, MODIFIED_AT, PUBLIC, Host, bundle, plant_generation, refused, snapshot


def assert_attributes(host: Host, uid: int, gid: int) -> None:
    """Check owner, group and mode of the directories and files in use; the user of the tests owns the directories."""
    directories = [host.path, host.path / "generations", (host.path / "current").resolve()]
    expected = dict.fromkeys(directories, (DIRECTORY_MODE, os.geteuid(), gid))
    expected.update({directories[-1] / name: (mode, uid, gid) for name, mode in MODES.items()})
    for entry, attributes in expected.items():
        status = entry.lstat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == attributes, entry


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_first_installation(host: Host, umask: int) -> None:
    assert replace(host, umask=umask).install("a") == "000001"
    host.assert_in_order("a", ["000001"])
    assert_attributes(host, os.geteuid(), os.getegid())
    for parent in (host.path.parent, host.path.parent.parent):
        assert stat.S_IMODE(parent.stat().st_mode) == 0o755
    for name, file in bundle("a").items():
        assert (host.path / "current" / name).read_bytes() == file.content
        assert (host.path / "current" / name).stat().st_mtime == MODIFIED_AT.timestamp()


def test_parents_that_exist_are_left_alone(host: Host, tmp_path: Path) -> None:
    parents = [host.path.parent.parent, host.path.parent]
    for parent, mode in zip(parents, (0o711, 0o700), strict=True):
        parent.mkdir()
        parent.chmod(mode)
    parents.append(tmp_path)
    host.install("a")  # makes the path itself in the last of them
    before = [snapshot(parent)["."] for parent in parents]
    host.install("b")
    assert [snapshot(parent)["."] for parent in parents] == before
    assert [stat.S_IMODE(parent.stat().st_mode) for parent in parents[:2]] == [0o711, 0o700]


def test_a_path_that_exists_gets_its_attributes(host: Host) -> None:
    host.path.mkdir(parents=True)
    host.path.chmod(0o755)
    (host.path / "foreign").write_text("mine")
    host.install("a")
    assert_attributes(host, os.geteuid(), os.getegid())
    assert (host.path / "foreign").read_text() == "mine"


@pytest.mark.usefixtures("root")
def test_owner_and_group(host: Host, owner: pwd.struct_passwd, group: grp.struct_group) -> None:
    for marker in ("a", "b"):
        host.install(marker, host.checked(owner.pw_name, group.gr_name))
        assert_attributes(host, owner.pw_uid, group.gr_gid)
    assert host.drift(host.look(owner.pw_name, group.gr_name)) == []
    assert host.drift() == sorted([*MODES, "./", "current/", "generations/"])
    assert stat.S_IMODE((host.path / "generations" / "000001" / "client.key").stat().st_mode) == 0o640


def test_a_normal_user_cannot_give_files_away(
    host: Host, public_path: Path, owner: pwd.struct_passwd, group: grp.struct_group
) -> None:
    if os.geteuid() == 0:
        os.chown(public_path, owner.pw_uid, owner.pw_gid)
        host = replace(host, user=(owner.pw_uid, owner.pw_gid))
    host = host.at(public_path / "store")
    for wanted in ({"owner": "0"}, {"group": group.gr_name}):
        state = host.look(**wanted)
        problem = preflight.install_problem(state, wanted.get("owner"), wanted.get("group"))
        assert problem is not None
        assert problem.code == "permission"
        with refused("permission"):
            host.install("x", state)
        assert not (host.path / "current").is_symlink()
        assert host.leftovers == []
    host.install("a")
    host.assert_in_order("a", ["000001"])


@pytest.mark.parametrize(
    ("last", "following"),
    [("000001", "000002"), ("000007", "000008"), ("000008", "000009"), ("000009", "000010"), ("000099", "000100"),
     ("007777", "007778"), ("099999", "100000")],
)  # fmt: skip
def test_numbers_go_up(host: Host, last: str, following: str) -> None:
    plant_generation(host, last, "old")
    (host.path / "current").symlink_to(f"generations/{last}")
    assert host.install("new") == following
    host.assert_in_order("new", [last, following])


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_how_many_stay(host: Host, keep: int) -> None:
    host.plant("1", "2", "3")
    for count in (4, 5):
        assert host.install(str(count), keep=keep) == f"{count:06d}"
        host.assert_in_order(str(count), [f"{number:06d}" for number in range(count - keep, count + 1)])


def test_keeping_fewer_than_before(host: Host) -> None:
    host.plant("a", "b", "c")
    host.install("d", keep=1)
    host.assert_in_order("d", ["000003", "000004"])


def test_a_previous_generation_is_never_changed(host: Host) -> None:
    host.plant("a")
    generation = host.path / "generations" / "000001"
    before = snapshot(generation)
    host.install("b")
    assert snapshot(generation) == before


def test_content_of_every_kind(host: Host) -> None:
    contents = {
        "client.key": bytes(range(256)) * 30,
        "ca.crt": b"",
        "client.pem": b"no line feed",
        "credentials.json": "ü€\r\n\n\n".encode(),
    }
    host.install("a", contents=contents)
    host.assert_in_order("a", ["000001"])
    for name, content in contents.items():
        assert (host.path / "current" / name).read_bytes() == content


@pytest.mark.parametrize("held_before", [False, True], ids=["first", "second"])
def test_somebody_was_faster(host: Host, tmp_path: Path, held_before: bool) -> None:
    if held_before:
        host.plant("a")
    state = host.checked()
    host.install("faster")
    before = snapshot(tmp_path)
    with refused("concurrent_change"):
        host.install("slower", state)
    # the staging directory was there for a while, which shows in the times of the directory that state it
    changed = {name for name, look in snapshot(tmp_path).items() if look != before.get(name)}
    assert changed <= {str(host.path.relative_to(tmp_path))}
    assert host.marker == "faster"
    assert host.leftovers == []


def test_what_was_there_is_gone(host: Host) -> None:
    host.install("a")
    state = host.checked()
    host.remove()
    with refused("concurrent_change"):
        host.install("b", state)
    assert host.marker is None
    assert host.leftovers == []
    host.install("b")
    assert host.marker == "b"


def test_what_other_tests_start_from(host: Host) -> None:
    """They make an installation themselves, for speed: it is just what the script makes."""
    host.install("a")
    installed = snapshot(host.path)
    host.remove()
    host.plant("a")
    state = snapshot(host.path)
    assert installed.pop(".last-change")
    assert list(state) == list(installed)
    for name, (_inode, mode, uid, gid, links, _modified, _changed, content) in state.items():
        assert (mode, uid, gid, links, content) == (*installed[name][1:5], installed[name][-1])


def test_nothing_is_switched_before_it_is_on_the_disk(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    noted = """
sync() { echo sync >>"$LOG"; command sync "$@"; }
mv() {
    case $* in *"/current .") echo switch >>"$LOG" ;; *" generations/") echo move >>"$LOG" ;; esac
    command mv "$@"
}
"""
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", noted + commands.CHANGE_SCRIPT)
    replace(host, environment={"LOG": str(log)}).install("a")
    steps = log.read_text().split()
    assert [step for step, _repeated in itertools.groupby(steps)] == ["sync", "move", "switch", "sync"]


class Watcher(threading.Thread):
    """Look at every file below a directory, over and over, as fast as it can."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.ended = threading.Event()
        self.seen: set[str] = set()
        self.violations: set[str] = set()

    def run(self) -> None:
        while not self.ended.is_set():
            self.look(str(self.path))

    def look(self, directory: str) -> None:
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    self.judge(entry)

    def judge(self, entry: os.DirEntry[str]) -> None:
        status = entry.stat(follow_symlinks=False)
        kind = entry.name.partition("-")[0]
        self.seen.add(kind)
        allowed = 0o777
        if kind == ".staging":
            allowed = 0o700
        elif stat.S_ISREG(status.st_mode) and entry.name not in PUBLIC:
            allowed = 0o640
        if not stat.S_ISLNK(status.st_mode) and stat.S_IMODE(status.st_mode) & ~allowed:
            self.violations.add(f"{entry.path}: {stat.filemode(status.st_mode)}")
        if stat.S_ISDIR(status.st_mode):
            self.look(entry.path)


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Watcher]:
    watcher = Watcher(path)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.ended.set()
        watcher.join()


def test_no_secret_is_readable_at_any_moment(host: Host) -> None:
    careless = replace(host, umask=0)
    careless.path.parent.mkdir(parents=True)
    first = careless.checked()
    with watched(host.path) as watcher:
        for count in range(20):
            # the most permissive directories that one can ask for: nothing but the modes of the files protects them
            careless.install(str(count), careless.believing(first), directory_mode=0o755)
    assert watcher.violations == set()
    assert {".staging", "change.sh", "files", "client.key", "generations", "current"} <= watcher.seen

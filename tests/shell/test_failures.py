# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unsuitable gateways: the run finds it before a request, or it switches nothing and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, preflight, protocol
from ansible_collections.thingstream.ztp.tests.unit.states import altered
from shell.host import Host, change, outcome, refused, snapshot

NEEDED = "cat chmod chown id ln ls mkdir mv rm rmdir sha256sum sync tar".split()  # noqa: SIM905
OPTIONAL = ["df", "flock", "getent", "restorecon"]
SYSTEM_PATH = "PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin\n"


def lifecycle(host: Host) -> None:
    host.plant("a", "b", "c")
    host.set_attributes()
    assert commands.read_response(host.execute, host.look()).startswith(b"credentials.json of c\n")
    host.assert_in_order("c", ["000002", "000003"])
    host.remove()
    assert not host.path.exists()


# ---- programs ----


def put_before(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Put these lines before the change script and the look script, so that they run first."""
    for part in ("CHANGE_SCRIPT", "LOOK_SCRIPT"):
        monkeypatch.setattr(commands, part, lines + getattr(commands, part))


def without(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """Hide programs, even those that are built into the shell, as BusyBox may have them."""
    hidden = f'command() {{ case $2 in {"|".join(programs)}) return 1 ;; esac; type "$2"; }}\n'
    hidden += "".join(f'{name}() {{ echo "sh: {name}: not found" >&2; return 127; }}\n' for name in programs)
    put_before(monkeypatch, hidden)


@pytest.mark.parametrize("program", NEEDED)
def test_a_program_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
    without(monkeypatch, program)
    with pytest.raises(ProvisioningError, match=rf"\b{program}\b") as caught:
        host.checked()
    assert caught.value.code == "gateway_unsupported"
    assert list(tmp_path.iterdir()) == []


def test_programs_that_are_not_needed_are_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, *OPTIONAL)
    lifecycle(host)


def test_no_other_program_is_needed(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With nothing but the programs that the probe asks for, all of it works."""
    for part in ("CHANGE_SCRIPT", "LOOK_SCRIPT"):
        assert SYSTEM_PATH in getattr(commands, part)
        monkeypatch.setattr(commands, part, getattr(commands, part).replace(SYSTEM_PATH, ""))
    asked_for = re.search(r"missing_tools ((?:[a-z0-9]+ ?)+)\n", commands.LOOK_SCRIPT)
    assert asked_for
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", *asked_for.group(1).split()):
        found = shutil.which(name, path=f"{host.tools}:/usr/bin:/bin")
        assert found
        (tools / name).symlink_to(Path(found).resolve())
    lifecycle(replace(host, tools=tools, environment={"PATH": str(tools)}))


def test_old_programs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """BusyBox before 1.34 has no mv -T, and small ones have no sha256sum -c."""
    old = """
mv() { case $1 in -T) echo "mv: invalid option -- 'T'" >&2; return 1;; esac; command mv "$@"; }
sha256sum() { case $1 in -c) echo "sha256sum: invalid option -- 'c'" >&2; return 1;; esac; command sha256sum "$@"; }
"""
    put_before(monkeypatch, old)
    lifecycle(host)


def test_no_printf(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = 'command() { [ "$2" != printf ] || return 1; type "$2"; }\nprintf() { return 127; }\n'
    put_before(monkeypatch, hidden)
    with pytest.raises(ProvisioningError, match="lacks printf") as caught:
        host.checked()
    assert caught.value.code == "gateway_unsupported"


def test_a_shell_that_stops(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host.plant("a")
    state = host.checked()
    before = snapshot(host.path / "generations")
    monkeypatch.setattr(
        commands, "CHANGE_SCRIPT", commands.CHANGE_SCRIPT.replace("require_expected_generation\n", "exit 3\n")
    )
    with refused("gateway_unsupported"):
        host.install("b", state)
    with refused("gateway_unsupported"):
        host.set_attributes(state)
    assert snapshot(host.path / "generations") == before
    assert host.marker == "a"
    assert host.leftovers == []


# ---- disks ----


@pytest.mark.parametrize("installed", [False, True], ids=["empty", "installed"])
def test_a_file_system_that_is_read_only(host: Host, mount: Callable[[str], Path], installed: bool) -> None:
    host = host.at(mount("size=4m,mode=0755") / "etc" / "store")
    host.path.parent.mkdir()
    if installed:
        host.plant("a")
    state = host.checked()
    before = snapshot(host.path.parent)
    mount("ro")
    with refused("permission"):
        host.checked()
    with refused("permission"):
        host.install("b", state)
    if installed:
        with refused("permission"):
            host.set_attributes(state)
        with refused("permission"):
            host.remove()
    assert snapshot(host.path.parent) == before


def test_a_disk_that_is_almost_full(host: Host, mount: Callable[[str], Path]) -> None:
    host = host.at(mount("size=128k,mode=0755") / "store")
    with refused("disk_full"):
        host.checked()


def used(path: Path) -> tuple[int, int]:
    """Return the used bytes and inodes of the file system."""
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_files - status.f_ffree


def sweep(host: Host, mount: Callable[[str], Path], sizes: Iterable[str]) -> int:
    """Install while the disk grows until there is room; return how often there was none."""
    state = host.checked()
    generation = host.path / "generations"
    before = snapshot(generation)
    for count, size in enumerate(sizes):
        mount(size)
        code = outcome(lambda: host.install("b", state))
        if code == "done":
            host.assert_in_order("b", ["000001", "000002"])
            return count
        assert code == "disk_full"
        assert snapshot(generation).keys() == before.keys()
        host.assert_in_order("a", ["000001"])
    pytest.fail("there was never enough room")


def test_a_disk_without_room(host: Host, mount: Callable[[str], Path]) -> None:
    host = host.at(mount("size=4m,mode=0755") / "store")
    host.plant("a")
    full = used(host.path)[0]
    assert sweep(host, mount, (f"size={full + 4096 * pages}" for pages in range(1, 40, 3))) > 2


def test_a_disk_without_inodes(host: Host, mount: Callable[[str], Path]) -> None:
    """Every file, directory and link that an installation makes is the one too many, in turn."""
    host = host.at(mount("size=4m,mode=0755") / "store")
    host.plant("a")
    full = used(host.path)[1]
    assert sweep(host, mount, (f"nr_inodes={full + inodes}" for inodes in range(20))) > 8


def test_a_first_installation_without_inodes(host: Host, mount: Callable[[str], Path]) -> None:
    disk = mount("size=4m,mode=0755")
    host = host.at(disk / "etc" / "store")
    state = host.checked()
    failures = 0
    for inodes in range(1, 30):
        mount(f"nr_inodes={used(disk)[1] + inodes}")
        code = outcome(lambda: host.install("a", state))
        if code == "done":
            break
        assert code == "disk_full"
        failures += 1
        assert host.marker is None
        assert host.generations == []
        assert host.leftovers == []
    host.assert_in_order("a", ["000001"])
    assert failures


@pytest.mark.parametrize("program", ["mkdir", "tar"])
@pytest.mark.parametrize("variable", ["LANG", "LC_ALL"])
def test_a_full_disk_in_another_language(host: Host, program: str, variable: str) -> None:
    """The login on the gateway speaks German unless another language is requested."""
    # a function, because BusyBox takes its own program before any other of that name
    speaking = f"""
{program}() {{
    case $(sh -c 'echo "$LC_ALL"') in
        C) echo "{program}: No space left on device" >&2 ;;
        *) echo "{program}: Auf dem Gerät ist kein Speicherplatz mehr verfügbar" >&2 ;;
    esac
    return 1
}}
"""
    state = host.checked()
    with refused("disk_full"):
        replace(host, banner=speaking, environment={variable: "de_DE.UTF-8"}).install("a", state)


def test_a_disk_that_forgets(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.plant("a")
    state = host.checked()
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", f"printf x >>files/client.key\n{commands.CHANGE_SCRIPT}")
    with refused("disk_full"):
        host.install("b", state)
    host.assert_in_order("a", ["000001"])


@pytest.mark.parametrize("program", ["chown", "chmod"])
def test_a_file_system_without_attributes(host: Host, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """As FAT is one: everything seems to work, and nothing is private."""
    host.plant("a")
    state = host.checked("4321", "1234") if os.geteuid() == 0 else host.checked()
    vain = 'sha256sum() { command sha256sum "$@"; command chmod 0644 files/client.key; }\n'
    if program == "chown":
        vain = ""
        if os.geteuid() != 0:
            pytest.skip("needs root")
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", f"{vain}{program}() {{ :; }}\n{commands.CHANGE_SCRIPT}")
    with refused("permission"):
        host.install("b", state)
    host.assert_in_order("a", ["000001"])


# ---- users ----


@pytest.fixture
def stranger(host: Host, owner: pwd.struct_passwd, public_path: Path) -> Iterator[Host]:
    """A user who may not write to the place of the bundle."""
    user = (owner.pw_uid, owner.pw_gid) if os.geteuid() == 0 else None
    parent = public_path / "etc"
    parent.mkdir()
    parent.chmod(0o555 if user is None else 0o755)
    yield replace(host, user=user).at(parent / "store")
    parent.chmod(0o755)


def test_a_user_who_may_not_write(stranger: Host) -> None:
    state = stranger.look()
    assert state.storage.not_writable == str(stranger.path.parent)
    problem = preflight.install_problem(state, None, None)
    assert problem is not None
    assert problem.code == "permission"
    with refused("permission"):
        stranger.install("a", state)
    assert list(stranger.path.parent.iterdir()) == []


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("mode", [0o750, 0o755])
def test_a_user_who_may_not_change_what_is_there(stranger: Host, mode: int) -> None:
    rooted = replace(stranger, user=None)
    rooted.install("a")
    for directory in (stranger.path, stranger.path / "generations", stranger.path / "generations" / "000001"):
        directory.chmod(mode)
    before = snapshot(stranger.path)
    state = altered(rooted.look(), owner_id=stranger.look().user.user_id)
    with refused("permission", "bad_path"):
        stranger.checked()
    with refused("permission"):
        stranger.install("b", altered(state, user_id=stranger.look().user.user_id))
    codes = ("permission",) if mode == 0o755 else ("permission", "bad_path")
    with refused(*codes):
        stranger.set_attributes(state)
    with refused(*codes):
        commands.remove(stranger.execute, state, change())
    assert snapshot(stranger.path) == before


# ---- connections ----


@pytest.mark.parametrize("installed", [False, True], ids=["empty", "installed"])
def test_a_stream_that_was_cut(host: Host, installed: bool) -> None:
    if installed:
        host.plant("a")
    state = host.checked()

    def cut_at(share: float) -> protocol.Execute:
        def execute(command: str, stream: bytes, secret: bool) -> tuple[int, str, str]:
            content = len(stream.rstrip(b"\0"))  # the archive ends with blocks of zeros that tar does not need
            return host.execute(command, stream[: int(content * share)], secret)

        return execute

    for share in (0, 0.001, 0.02, 0.3, 0.6, 0.7, 0.8, 0.9, 0.99):
        cut = replace(host)
        object.__setattr__(cut, "execute", cut_at(share))
        # what ends before the script looks like what a faster run has cleared away
        with refused("gateway_unsupported", "disk_full", *(["concurrent_change"] if share < 0.1 else [])):
            cut.install("b", state)
        assert host.marker == ("a" if installed else None)
        assert host.generations == (["000001"] if installed else [])
        assert host.leftovers == []


def test_a_stream_that_was_cut_between_two_files(host: Host) -> None:
    """Then the archive looks whole to tar."""
    host.plant("a")
    state = host.checked()

    def cutting(command: str, stream: bytes, secret: bool) -> tuple[int, str, str]:
        return host.execute(command, stream[: stream.index(b"files/client.key\0")], secret)

    cut = replace(host)
    object.__setattr__(cut, "execute", cutting)
    with refused("gateway_unsupported", "disk_full"):
        cut.install("b", state)
    host.assert_in_order("a", ["000001"])

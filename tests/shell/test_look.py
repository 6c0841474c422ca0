# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""probe and survey: they see everything that matters, and change nothing."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, preflight, protocol
from shell.host import DIRECTORY_MODE, MODES, Host, bundle, plant_generation, plant_leftovers, refused, snapshot

# whatever a script like this one could call
PROGRAMS = """
awk basename cat chmod chown cut date df dirname find getent grep head id ln ls mkdir mktemp mv readlink realpath rm
rmdir sed setsid sha256sum sleep sort stat sync tail tar touch tr uname wc whoami xargs
""".split()  # noqa: SIM905


def code_of(problem: ProvisioningError | None) -> str | None:
    return problem.code if problem else None


def test_nothing_there(host: Host, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    state = host.checked()
    assert snapshot(tmp_path) == before
    assert not state.exists
    assert (state.bundle.current, state.bundle.record, state.bundle.leftovers, state.storage.not_writable) == (
        None,
        None,
        (),
        None,
    )
    assert (state.bundle.files, state.bundle.digests, state.bundle.directories, state.storage.missing_tools) == (
        {},
        {},
        {},
        (),
    )
    assert state.user.user_id == state.user.owner_id == os.geteuid()
    assert state.user.group_id == os.getegid()
    assert state.user.user_name == pwd.getpwuid(os.geteuid()).pw_name
    assert state.user.groups == {gid: grp.getgrgid(gid).gr_name for gid in {os.getegid(), *os.getgroups()}}
    assert state.storage.ancestors[0][0] == "/"
    assert state.storage.ancestors[-1][0] == str(tmp_path)
    assert state.storage.ancestors[-1][1].mode == "drwx------"
    assert state.storage.free_kib is not None
    assert state.storage.free_kib == pytest.approx(
        os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 1024, rel=0.1
    )


def test_an_installation(host: Host, tmp_path: Path) -> None:
    host.plant("a")
    before = snapshot(tmp_path)
    state = host.checked()
    assert snapshot(tmp_path) == before
    assert state.exists
    assert state.bundle.current == "000001"
    assert json.loads(state.bundle.record or "")["marker"] == "a"
    assert state.bundle.digests == {
        name: hashlib.sha256(file.content).hexdigest() for name, file in bundle("a").items()
    }
    me = (os.geteuid(), os.getegid())
    assert state.bundle.files["client.key"] == protocol.Attributes("-rw-r-----", *me)
    assert set(state.bundle.files) == set(MODES)
    directory = protocol.Attributes("drwxr-x---", *me)
    assert state.bundle.directories == {".": directory, "generations": directory, "current": directory}
    assert state.bundle.leftovers == ()
    assert host.drift(state) == []


def test_leftovers_are_seen_and_left_alone(host: Host, tmp_path: Path) -> None:
    host.plant("a")
    leftovers = plant_leftovers(host)
    plant_generation(host, "000007", "dead")
    before = snapshot(tmp_path)
    state = host.look()
    assert snapshot(tmp_path) == before
    assert sorted(state.bundle.leftovers) == sorted([*leftovers, "000007"])
    assert state.bundle.current == "000001"


def test_every_generation_of_every_path(host: Host, tmp_path: Path) -> None:
    other = host.at(host.path.with_name("cloudlocate"))
    host.plant("a", "b", "c")
    other.install("x")
    before = snapshot(tmp_path)
    nowhere = str(tmp_path / "nowhere")
    states = commands.look_at_generations(host.execute, [str(host.path), nowhere, str(other.path)])
    assert snapshot(tmp_path) == before
    assert [state.path for state in states] == [str(host.path), nowhere, str(other.path)]
    assert [state.bundle.current for state in states] == ["000003", None, "000001"]
    markers = [
        {name: json.loads(record or "")["marker"] for name, record in state.bundle.generations.items()}
        for state in states
    ]
    assert markers == [{"000001": "a", "000002": "b", "000003": "c"}, {}, {"000001": "x"}]


@pytest.mark.parametrize("thorough", [False, True], ids=["plain", "thorough"])
def test_a_look_starts_two_programs(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thorough: bool
) -> None:
    """To start one is what costs time where nothing is due."""
    host.plant("a", "b")
    (host.path / "history.json").write_text("{}")
    log = tmp_path / "log"
    log.touch()
    logged = "".join(f'{name}() {{ echo {name} >>"$LOG"; command {name} "$@"; }}\n' for name in PROGRAMS)
    monkeypatch.setattr(commands, "LOOK_SCRIPT", logged + commands.LOOK_SCRIPT)
    host = replace(host, environment={"LOG": str(log)})
    state = commands.look(host.execute, str(host.path), thorough=thorough)
    assert state.bundle.current == "000002"
    assert state.storage.thorough == thorough
    more = ["rmdir", "df"] if thorough else []
    assert sorted(log.read_text().split()) == sorted(["ls", "sha256sum", *more])
    log.write_text("")
    commands.look_at_generations(host.execute, [str(host.path)])
    assert sorted(log.read_text().split()) == ["ls", "sha256sum"]


@pytest.mark.parametrize("damage", ["absent", "empty", "long", "cut", "binary", "directory", "link"])
def test_a_record_that_cannot_be_read_is_none(host: Host, damage: str) -> None:
    """A look does not judge the content."""
    host.plant("a")
    record = host.path / "current" / "thing.json"
    text = record.read_bytes()
    record.unlink()
    contents = {"empty": b"", "long": b"x" * 300_000, "cut": text[:20], "binary": bytes(range(1, 256))}
    if damage in contents:
        record.write_bytes(contents[damage])
    elif damage == "directory":
        record.mkdir()
    elif damage == "link":
        (host.path / "record").write_bytes(text)
        record.symlink_to(host.path / "record")
    state = host.look()
    read = {"cut": text[:20], "binary": bytes(range(1, 256))}.get(damage)
    assert state.bundle.record == (read and read.decode("utf-8", "surrogateescape"))
    assert state.bundle.current == "000001"


def test_digests_are_of_what_lies_there(host: Host) -> None:
    host.plant("a")
    key = host.path / "current" / "client.key"
    key.write_bytes(b"another")
    (host.path / "current" / "ca.crt").unlink()
    state = host.look()
    assert state.bundle.digests["client.key"] == hashlib.sha256(b"another").hexdigest()
    assert "ca.crt" not in state.bundle.digests
    assert "ca.crt" not in state.bundle.files


def test_who_is_wanted(host: Host, owner: pwd.struct_passwd, group: grp.struct_group) -> None:
    state = host.look(owner.pw_name, group.gr_name)
    assert (state.user.owner_id, state.user.group_id) == (owner.pw_uid, group.gr_gid)
    state = host.look("12345", "54321")
    assert (state.user.owner_id, state.user.group_id) == (12345, 54321)


@pytest.mark.parametrize("name", ["thingstream-nobody", "$(id)", "-x", "root:", "a b", "*"])
def test_who_is_not_known(host: Host, name: str) -> None:
    me = str(os.geteuid())
    state = host.look(me, name)
    assert state.user.group_id is None
    assert code_of(preflight.install_problem(state, me, name)) == "bad_option"
    state = host.look(name)
    assert state.user.owner_id is None
    assert code_of(preflight.install_problem(state, name, None)) == "bad_option"


def test_a_file_in_the_way(host: Host) -> None:
    host.path.parent.mkdir(parents=True)
    host.path.write_text("mine")
    with refused("bad_path"):
        host.checked()
    with refused("bad_path"):
        host.at(host.path / "below").checked()


@pytest.mark.parametrize(
    ("mode", "accepted"), [(0o777, False), (0o773, False), (0o776, False), (0o1777, True), (0o775, True)]
)
def test_below_a_directory_that_everybody_may_write(host: Host, tmp_path: Path, mode: int, accepted: bool) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    for path in (shared / "a", shared / "a" / "b" / "c"):
        if accepted:
            host.at(path).checked()
        else:
            with refused("bad_path"):
                host.at(path).checked()


def test_a_path_that_everybody_may_write(host: Host) -> None:
    host.path.mkdir(parents=True)
    host.path.chmod(0o777)
    with refused("bad_path"):
        host.checked()


def test_a_path_that_everybody_may_write_but_that_is_ours(host: Host) -> None:
    host.plant("a")
    host.path.chmod(0o777)
    assert host.drift(host.checked()) == ["./"]


@pytest.mark.usefixtures("root")
def test_a_path_of_somebody_else(host: Host, owner: pwd.struct_passwd) -> None:
    host.path.mkdir(parents=True)
    os.chown(host.path, owner.pw_uid, -1)
    with refused("bad_path"):
        host.checked()
    host.checked(owner.pw_name)


def test_drift_names_what_differs(host: Host) -> None:
    host.plant("a")
    current = host.path / "current"
    (current / "client.key").chmod(0o644)
    (current / "ca.crt").chmod(0o600)
    (host.path / "generations").chmod(0o755)
    assert host.drift() == ["ca.crt", "client.key", "generations/"]
    current.resolve().chmod(DIRECTORY_MODE | 0o5)
    assert host.drift() == ["ca.crt", "client.key", "current/", "generations/"]


@pytest.mark.parametrize(
    ("target", "accepted"),
    [
        ("{shared}/real", False),
        ("../shared/real", False),
        ("{shared}/inner", False),
        ("second", False),
        ("{private}/real", True),
        ("../private/real", True),
    ],
)
def test_below_a_link_that_leads_through_a_directory_that_everybody_may_write(
    host: Host, tmp_path: Path, target: str, accepted: bool
) -> None:
    """Whoever may change where a link leads, or where that leads, may change the path."""
    places = {name: tmp_path / name for name in ("shared", "private", "links")}
    for place in places.values():
        (place / "real").mkdir(parents=True)
    places["shared"].chmod(0o777)
    (places["shared"] / "inner").symlink_to(places["private"] / "real")
    (places["links"] / "second").symlink_to(places["shared"] / "inner")
    (places["links"] / "link").symlink_to(target.format(**places))
    for path in (places["links"] / "link" / "store", places["links"] / "link" / "a" / "b"):
        if accepted:
            assert host.at(path).checked().storage.ancestors[-1][0] in (str(places["links"] / "link"), str(path.parent))
        else:
            with refused("bad_path"):
                host.at(path).checked()


def test_below_a_link_that_leads_nowhere(host: Host, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ProvisioningError, match="link is a symbolic link that leads nowhere") as caught:
        host.at(tmp_path / "link" / "store").checked()
    assert caught.value.code == "bad_path"


def test_links_that_lead_to_each_other(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with refused("bad_path"):
        host.at(tmp_path / "a" / "store").checked()


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("linked", [False, True], ids=["real", "linked"])
def test_below_a_directory_of_somebody_else(host: Host, tmp_path: Path, owner: pwd.struct_passwd, linked: bool) -> None:
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", owner.pw_uid, -1)
    (tmp_path / "link").symlink_to("home")
    path = tmp_path / ("link" if linked else "home") / "a" / "store"
    with pytest.raises(ProvisioningError, match=r"home belongs to another user \(ID ") as caught:
        host.at(path).checked()
    assert caught.value.code == "bad_path"
    host.at(path).checked(owner.pw_name)


@pytest.mark.usefixtures("root")
def test_the_group_of_an_owner_is_wanted(host: Host, owner: pwd.struct_passwd) -> None:
    for name in (owner.pw_name, str(owner.pw_uid)):
        state = host.look(name)
        assert (state.user.owner_id, state.user.group_id) == (owner.pw_uid, owner.pw_gid)
    state = host.look("4321")
    assert (state.user.owner_id, state.user.group_id) == (4321, os.getegid())


@pytest.mark.usefixtures("root")
def test_somebody_unknown_is_drift(host: Host) -> None:
    host.plant("a")
    assert host.drift(host.look("nobody-here", None)) == sorted(MODES)
    assert host.drift(host.look(None, "nobody-here")) == sorted([*MODES, "./", "current/", "generations/"])


def test_a_survey_reads_through_no_link(host: Host, tmp_path: Path) -> None:
    host.plant("a", "b")
    (host.path / "generations").rename(tmp_path / "elsewhere")
    (host.path / "generations").symlink_to(tmp_path / "elsewhere")
    (state,) = commands.look_at_generations(host.execute, [str(host.path)])
    assert state.bundle.generations == {}


def test_a_file_that_has_another_name_is_left_as_it_is(host: Host, tmp_path: Path) -> None:
    """Planted after the look."""
    host.plant("a")
    state = host.checked()
    (tmp_path / "other").write_text("of another user")
    (tmp_path / "other").chmod(0o604)
    (host.path / "current/client.key").unlink()
    (host.path / "current/client.key").hardlink_to(tmp_path / "other")
    with refused("bad_path"):
        host.set_attributes(state)
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o604


# ---- the kind of file system ----


OPENWRT = """\
/dev/root /rom squashfs ro,relatime 0 0
tmpfs /run tmpfs rw,nosuid,nodev,noatime 0 0
/dev/mtdblock6 /overlay jffs2 rw,noatime 0 0
overlayfs:/overlay / overlay rw,noatime,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work 0 0
tmpfs /dev tmpfs rw,nosuid,noexec,noatime,size=512k,mode=755 0 0
"""


@pytest.mark.parametrize(
    ("mounts", "file_systems", "volatile"),
    [
        (OPENWRT, ("overlay", "jffs2"), None),
        # until the writable part of the flash is ready, and in the fail-safe mode
        (OPENWRT.replace("/overlay jffs2", "/overlay tmpfs"), ("overlay", "tmpfs"), "overlay on tmpfs"),
        ("rootfs / rootfs rw 0 0\n/dev/sda1 / ext4 rw 0 0\n", ("ext4",), None),
        ("/dev/sda1 / ext4 rw 0 0\nnone PARENT ramfs rw 0 0\n", ("ramfs",), "ramfs"),
        ("/dev/sda1 / ext4 rw 0 0\nnone PARENT vfat rw 0 0\n/dev/sda3 PARENT-2 ext4 rw 0 0\n", ("vfat",), None),
        ("overlay / overlay rw,lowerdir=l,upperdir=disk/upper,workdir=w 0 0\n", ("overlay",), None),
        ("overlay / overlay ro,lowerdir=/a:/b 0 0\n", ("overlay",), None),
        ("", (), None),
        (None, (), None),
    ],
)
def test_file_systems(
    host: Host,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mounts: str | None,
    file_systems: tuple[str, ...],
    volatile: str | None,
) -> None:
    listed = tmp_path / "mounts"
    if mounts is not None:
        listed.write_text(mounts.replace("PARENT", str(host.path.parent.parent)))
    assert "/proc/mounts" in commands.LOOK_SCRIPT
    monkeypatch.setattr(commands, "LOOK_SCRIPT", commands.LOOK_SCRIPT.replace("/proc/mounts", str(listed)))
    host.path.parent.mkdir(parents=True, exist_ok=True)
    storage = host.look().storage
    assert (storage.file_systems, storage.volatile) == (file_systems, volatile)


def test_a_real_file_system_in_memory(host: Host, mount: Callable[[str], Path]) -> None:
    host = replace(host, path=mount("size=1m,mode=755") / "in" / "memory")
    assert host.look().storage.volatile == "tmpfs"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""probe and survey: they see everything that matters, and change nothing."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from shell.host import DIRECTORY_MODE, MODES, Host, bundle, plant_generation, plant_leftovers, refused, snapshot


def test_nothing_there(host: Host, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    held = host.checked()
    assert snapshot(tmp_path) == before
    assert not held.exists
    assert (held.current, held.record, held.leftovers, held.not_writable) == (None, None, (), None)
    assert (held.files, held.digests, held.directories, held.missing_tools) == ({}, {}, {}, ())
    assert held.user_id == held.owner_id == os.geteuid()
    assert held.group_id == os.getegid()
    assert held.user_name == pwd.getpwuid(os.geteuid()).pw_name
    assert held.groups == {gid: grp.getgrgid(gid).gr_name for gid in {os.getegid(), *os.getgroups()}}
    assert held.ancestors[0][0] == "/"
    assert held.ancestors[-1][0] == str(tmp_path)
    assert held.ancestors[-1][1].mode == "drwx------"
    assert held.free_kib is not None
    assert held.free_kib == pytest.approx(os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 1024, rel=0.1)


def test_an_installation(host: Host, tmp_path: Path) -> None:
    host.hold("a")
    before = snapshot(tmp_path)
    held = host.checked()
    assert snapshot(tmp_path) == before
    assert held.exists
    assert held.current == "000001"
    assert held.record is not None
    assert held.record["marker"] == "a"
    assert held.digests == {name: hashlib.sha256(file.content).hexdigest() for name, file in bundle("a").items()}
    me = (os.geteuid(), os.getegid())
    assert held.files["client.key"] == gateway.Attributes("-rw-r-----", *me)
    assert set(held.files) == set(MODES)
    directory = gateway.Attributes("drwxr-x---", *me)
    assert held.directories == {".": directory, "generations": directory, "current": directory}
    assert held.leftovers == ()
    assert host.drift(held) == []


def test_leftovers_are_seen_and_left_alone(host: Host, tmp_path: Path) -> None:
    host.hold("a")
    leftovers = plant_leftovers(host)
    plant_generation(host, "000007", "dead")
    before = snapshot(tmp_path)
    held = host.probe()
    assert snapshot(tmp_path) == before
    assert sorted(held.leftovers) == sorted([*leftovers, "000007"])
    assert held.current == "000001"


def test_every_generation_of_every_path(host: Host, tmp_path: Path) -> None:
    other = host.at(host.path.with_name("cloudlocate"))
    host.hold("a", "b", "c")
    other.install("x")
    before = snapshot(tmp_path)
    nowhere = str(tmp_path / "nowhere")
    surveyed = gateway.survey(host.execute, [str(host.path), nowhere, str(other.path)])
    assert snapshot(tmp_path) == before
    assert [held.path for held in surveyed] == [str(host.path), nowhere, str(other.path)]
    assert [held.current for held in surveyed] == ["000003", None, "000001"]
    markers = [{name: record and record["marker"] for name, record in held.generations.items()} for held in surveyed]
    assert markers == [{"000001": "a", "000002": "b", "000003": "c"}, {}, {"000001": "x"}]


@pytest.mark.parametrize("damage", ["absent", "cut", "binary", "directory", "link"])
def test_a_record_that_cannot_be_read_is_none(host: Host, damage: str) -> None:
    host.hold("a")
    record = host.path / "current" / "thing.json"
    text = record.read_bytes()
    record.unlink()
    if damage == "cut":
        record.write_bytes(text[:20])
    elif damage == "binary":
        record.write_bytes(bytes(range(256)))
    elif damage == "directory":
        record.mkdir()
    elif damage == "link":
        (host.path / "record").write_bytes(text)
        record.symlink_to(host.path / "record")
    held = host.probe()
    assert held.record is None
    assert held.current == "000001"


def test_digests_are_of_what_lies_there(host: Host) -> None:
    host.hold("a")
    key = host.path / "current" / "client.key"
    key.write_bytes(b"another")
    (host.path / "current" / "ca.crt").unlink()
    held = host.probe()
    assert held.digests["client.key"] == hashlib.sha256(b"another").hexdigest()
    assert "ca.crt" not in held.digests
    assert "ca.crt" not in held.files


def test_who_is_wanted(host: Host, owner: pwd.struct_passwd, group: grp.struct_group) -> None:
    held = host.probe(owner.pw_name, group.gr_name)
    assert (held.owner_id, held.group_id) == (owner.pw_uid, group.gr_gid)
    held = host.probe("12345", "54321")
    assert (held.owner_id, held.group_id) == (12345, 54321)


@pytest.mark.parametrize("name", ["thingstream-nobody", "$(id)", "-x", "root:", "a b", "*"])
def test_who_is_not_known(host: Host, name: str) -> None:
    me = str(os.geteuid())
    held = host.probe(me, name)
    assert held.group_id is None
    with refused("bad_option"):
        gateway.require_installable(held, me, name)
    held = host.probe(name)
    assert held.owner_id is None
    with refused("bad_option"):
        gateway.require_installable(held, name, None)


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
    host.hold("a")
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
    host.hold("a")
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
            assert host.at(path).checked().ancestors[-1][0] in (str(places["links"] / "link"), str(path.parent))
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
        held = host.probe(name)
        assert (held.owner_id, held.group_id) == (owner.pw_uid, owner.pw_gid)
    held = host.probe("4321")
    assert (held.owner_id, held.group_id) == (4321, os.getegid())


@pytest.mark.usefixtures("root")
def test_somebody_unknown_is_drift(host: Host) -> None:
    host.hold("a")
    assert host.drift(host.probe("nobody-here", None)) == sorted(MODES)
    assert host.drift(host.probe(None, "nobody-here")) == sorted([*MODES, "./", "current/", "generations/"])


def test_a_survey_reads_through_no_link(host: Host, tmp_path: Path) -> None:
    host.hold("a", "b")
    (host.path / "generations").rename(tmp_path / "elsewhere")
    (host.path / "generations").symlink_to(tmp_path / "elsewhere")
    (surveyed,) = gateway.survey(host.execute, [str(host.path)])
    assert surveyed.generations == {}


def test_a_file_that_has_another_name_is_left_as_it_is(host: Host, tmp_path: Path) -> None:
    """Planted after the look."""
    host.hold("a")
    held = host.checked()
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / "other").chmod(0o604)
    (host.path / "current/client.key").unlink()
    (host.path / "current/client.key").hardlink_to(tmp_path / "other")
    with refused("bad_path"):
        host.repair(held)
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o604

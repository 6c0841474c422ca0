# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The spool directory is private, has room, and is on the volume that the user has chosen; names reveal no identity."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.api import MAX_RESPONSE
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory
from ansible_collections.thingstream.ztp.tests.unit.support import tree


def refused(path: Path, *, make_parents: bool = True) -> ProvisioningError:
    """Return the error of an unusable directory, after checking that ``problem`` finds the same and changes nothing."""
    before = tree(path.parent) if path.parent.is_dir() else None
    found = directory.problem(path, make_parents=make_parents)
    assert found is not None
    if before is not None:
        assert tree(path.parent) == before
    with pytest.raises(ProvisioningError) as caught:
        directory.prepare(path, make_parents=make_parents)
    assert (caught.value.code, caught.value.message) == ("spool_failed", found.message)
    return caught.value


# ---- names ----


def test_every_thing_has_its_own_location() -> None:
    places = [
        directory.location("/e", service, hardware_id, gateway)
        for service in ("pointperfect", "pointperfect-live", "cloudlocate")
        for hardware_id, gateway in (
            ("hw-1", "a"),
            ("hw-2", "a"),
            (None, "a"),
            (None, "hw-1"),
            ("", "a"),
            ("a", "b"),
        )
    ]
    assert len(set(places)) == len(places)


def test_a_hardware_id_has_one_location_whichever_gateway_has_it() -> None:
    assert directory.location("/e", "cloudlocate", "hw-1", "a /x") == directory.location(
        "/e", "cloudlocate", "hw-1", "b"
    )


@pytest.mark.parametrize("identity", ["352753090041680", "../../etc/passwd", "a/b", "x" * 1000, "\x00", "Gerät"])
@pytest.mark.parametrize("service", ["pointperfect", "pointperfect-live", "cloudlocate"])
def test_a_location_shows_the_service_and_nothing_of_the_gateway(service: str, identity: str) -> None:
    for place in (
        directory.location("/e", service, identity, "gw1"),
        directory.location("/e", service, None, identity),
    ):
        assert place.parent == Path("/e")
        assert place.name.isascii()
        assert len(place.name) < 60
        assert identity not in place.name
        assert "gw1" not in place.name
        for name in (place.name, f".{place.name}-000001-0badcafe.response", f"{place.name}.request"):
            assert directory.service_of(place.with_name(name)) == service


@pytest.mark.parametrize("name", ["", "x", "notes.txt", "cloudlocate.request", f"cloudlocate-{'0' * 31}.request"])
def test_the_service_of_a_file_of_others(name: str) -> None:
    assert directory.service_of(Path("/e") / name) == ""


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert directory.location("~/spool", "cloudlocate", "hw-1", "gw1").parent == Path("/home/someone/spool")
    assert directory.default_directory("/home/x/.ansible") == "/home/x/.ansible/thingstream/spool"


# ---- modes ----


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_every_directory_that_is_made_is_private(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "a" / "b"
    before = os.umask(mask)
    try:
        directory.prepare(path, make_parents=True)
    finally:
        os.umask(before)
    made = [path.parent, path, directory.ledger_directory(path)]
    assert [one.stat().st_mode & 0o7777 for one in made] == [0o700] * 3


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o710, 0o701, 0o704, 0o777, 0o1720])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "spool"
    path.mkdir()
    path.chmod(mode)
    assert "0700" in refused(path).message
    assert path.stat().st_mode & 0o7777 == mode, "it may be shared on purpose"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)
    assert "0700" in refused(path).message


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755])
def test_nothing_is_read_where_others_could_have_put_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "spool"
    directory.prepare(path, make_parents=True)
    path.chmod(mode)
    with pytest.raises(ProvisioningError) as caught:
        directory.files(path, ".response")
    assert (caught.value.code, "0700" in caught.value.message) == ("spool_failed", True)


def test_preparing_twice_changes_nothing(tmp_path: Path) -> None:
    directory.prepare(tmp_path / "spool", make_parents=True)
    before = tree(tmp_path)
    directory.prepare(tmp_path / "spool", make_parents=True)
    assert directory.problem(tmp_path / "spool", make_parents=True) is None
    assert tree(tmp_path) == before


# ---- a place for it ----


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """Check mode finds it, too."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "nowhere").symlink_to("missing")
    for path in (tmp_path / "file", tmp_path / "file" / "deep", tmp_path / "nowhere", tmp_path / "nowhere" / "deep"):
        assert "spool_path" in refused(path).message


def test_a_volume_that_is_not_mounted(tmp_path: Path) -> None:
    path = tmp_path / "volume" / "spool"
    assert "is its volume mounted?" in refused(path, make_parents=False).message
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "volume").mkdir()
    assert directory.problem(path, make_parents=False) is None
    directory.prepare(path, make_parents=False)
    assert path.is_dir()


def test_a_directory_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "volume").mkdir(mode=0o500)
    if os.geteuid() == 0:  # root can write everywhere
        monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert "not writable" in refused(tmp_path / "volume" / "spool").message


def test_a_full_disk_is_found_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = os.statvfs(tmp_path)

    def nearly_full(path: str) -> os.statvfs_result:
        blocks = (directory.MAX_ENTRY_BYTES - 1) // usage.f_frsize
        return os.statvfs_result((*usage[:3], blocks, blocks, *usage[5:]))

    monkeypatch.setattr(os, "statvfs", nearly_full)
    error = refused(tmp_path / "spool")
    assert "2048 KiB" in error.message
    assert "No request was sent." in error.message
    assert list(tmp_path.iterdir()) == []


# ---- files and locks ----


def test_files_by_their_suffix(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    assert directory.files(path, ".response") == []
    directory.prepare(path, make_parents=True)
    for name in ("b.response", ".c.response", "a.response", "a.request", "a.response.bak", "notes"):
        (path / name).touch()
    assert directory.files(path, ".response") == [path / "a.response", path / "b.response"]
    hidden = directory.files(path, ".response", hidden=True)
    assert hidden == [path / ".c.response", path / "a.response", path / "b.response"]


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    with pytest.raises(ProvisioningError) as caught:
        directory.files(tmp_path / "spool", ".response")
    assert caught.value.code == "spool_failed"


def test_locks(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert not directory.is_locked(file)
    file.touch()
    assert not directory.is_locked(file)
    with file.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert directory.is_locked(file)
    assert not directory.is_locked(file)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_arguments: object) -> None:
        raise OSError(37, "No locks available")

    (tmp_path / "file").touch()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert not directory.is_locked(tmp_path / "file")


def test_an_entry_has_room_for_the_largest_response_in_its_largest_form() -> None:
    """Base64 makes four bytes of three, and Ansible Vault four of one."""
    assert MAX_RESPONSE * 4 // 3 * 4 < 0.75 * directory.MAX_ENTRY_BYTES

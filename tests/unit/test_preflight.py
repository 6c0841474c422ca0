# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths, the state of a gateway before a change, and drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, preflight
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import Attributes, GatewayState
from ansible_collections.thingstream.ztp.tests.unit.states import (
    PATH,
    STATE,
    Connection,
    altered,
    assert_presentable,
    failure,
    framed,
    installed,
)

# ---- paths ----


@pytest.mark.parametrize(
    "path",
    [
        "/etc/thingstream",
        "/srv",
        '/a b/c\'d/"e"/$(f)',
        "/-rf",
        "/a/.hidden",
        "/a/...",
        "/" + "x" * 511,
    ],
)
def test_paths_that_are_taken(path: str) -> None:
    preflight.check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        ".",
        "etc/thingstream",
        "~/thingstream",
        "/etc/",
        "/etc//x",
        "//etc/x",
        "/etc/./x",
        "/etc/../x",
        "/..",
        "/etc/x/..",
        "/etc/a\nb",
        "/etc/a\0b",
        "/etc/a\x1bb",
        "/etc/a\udcffb",
        "/etc/a\u2028b",
        "/" + "x" * 512,
        "/grüße/日本",
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    connection = Connection(framed(*installed()))
    for look in (
        lambda: commands.look(connection, path),
        lambda: commands.look_at_generations(connection, [PATH, path]),
        lambda: preflight.check_path(path),
    ):
        assert failure(look).code == "bad_path"
    assert connection.sent == []


# ---- problems ----


def below(mode: str, owner: int = 0, name: str = "/etc") -> dict[str, Any]:
    """Return changes to the attributes of one directory above the path, or of the path itself."""
    changed = Attributes(mode, owner, 0)
    ancestors = STATE.storage.ancestors
    return {"ancestors": tuple((found, changed if found == name else other) for found, other in ancestors)}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"free_kib": None},
        {"free_kib": preflight.MIN_FREE_KIB},
        {"owner_id": 998, "group_id": 997},
        {"user_id": 1000, "owner_id": 1000, "group_id": 20, "groups": {1000: "pi", 20: "dialout"},
         **below("drwxr-x---", 1000, PATH)},
        below("drwxrwxrwt"),
        below("drwxrwxr-x"),
        below("lrwxrwxrwx"),
        {"owner_id": 998, **below("drwxr-xr-x", 998)},
        {"user_id": 1000, "owner_id": 1000, "groups": {0: "x"}, **below("drwxr-xr-x", 1000)},
        {"owner_id": 998, **below("drwxr-x---", 998, PATH)},
        below("drwxrwxrwx", 0, PATH),  # what is there is checked by its digests, and the mode is corrected
        {"ancestors": STATE.storage.ancestors[:2], "current": None},
    ],
)  # fmt: skip
def test_what_can_be_installed(changes: dict[str, Any]) -> None:
    assert preflight.install_problem(altered(STATE, **changes), "consumer", "consumer") is None


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"missing_tools": ("tar", "sync")}, "gateway_unsupported", "tar, sync"),
        ({"file_systems": ("vfat",)}, "permission", "type vfat, which keeps neither owners nor modes"),
        (
            {"ancestors": [("/etc", Attributes("drwxr-xr-x", 0, 0, True))], "can_remove_access_lists": False},
            "permission",
            "/etc has an access control list",
        ),
        (below("-rw-r--r--"), "bad_path", "/etc is not a directory"),
        (below("-rw-r--r--", 0, PATH), "bad_path", f"{PATH} is not a directory"),
        (below("prw-r--r--"), "bad_path", "/etc is not a directory"),
        (below("drwxrwxrwx"), "bad_path", "/etc is writable by every user"),
        (below("drwxrwx-w-"), "bad_path", "/etc is writable by every user"),
        (below("drwxr-xr-x", 1000), "bad_path", "/etc belongs to another user (ID 1000)"),
        (below("drwxrwxrwt", 1000), "bad_path", "/etc belongs to another user (ID 1000)"),
        (below("lrwxrwxrwx", 1000), "bad_path", "/etc belongs to another user (ID 1000)"),
        (below("lrwxrwxrwx", 0, PATH), "bad_path", "symbolic link"),
        ({**below("drwxrwxrwx", 0, PATH), "current": None}, "bad_path", "writable by every user"),
        ({**below("drwxr-x-w-", 0, PATH), "current": None}, "bad_path", "writable by every user"),
        (below("drwxr-x---", 1000, PATH), "bad_path", "belongs to another user (ID 1000)"),
        (
            {"user_id": 1000, "owner_id": 1000, "groups": {0: "x"}, **below("drwxr-x---", 1001, PATH)},
            "bad_path",
            "1001",
        ),
        ({"not_writable": "/etc"}, "permission", "cannot write to /etc"),
        ({"owner_id": None}, "bad_option", "no owner 'consumer'"),
        ({"group_id": None}, "bad_option", "no group 'staff'"),
        ({"user_id": 1000, "groups": {1000: "pi"}, "owner_id": 0, "group_id": 1000}, "permission", "become"),
        ({"user_id": 1000, "groups": {1000: "pi"}, "owner_id": 1000, "group_id": 0}, "permission", "become"),
        ({"free_kib": preflight.MIN_FREE_KIB - 1}, "disk_full", "255 KiB"),
        ({"free_kib": 0}, "disk_full", "0 KiB"),
    ],
)
def test_what_cannot_be_installed(changes: dict[str, Any], code: str, words: str) -> None:
    problem = preflight.install_problem(altered(STATE, **changes), "consumer", "staff")
    assert problem is not None
    assert_presentable(problem)
    assert problem.code == code
    assert words in problem.message


@pytest.mark.parametrize("changes", [{"owner_id": None}, {"free_kib": 0}, {"owner_id": 5, "user_id": 1000}])
def test_what_can_still_be_removed(changes: dict[str, Any]) -> None:
    assert preflight.change_problem(altered(STATE, **changes)) is None


# ---- drift ----

IN_ORDER = altered(
    STATE,
    owner_id=998,
    group_id=997,
    files={
        "client.key": Attributes("-rw-r-----", 998, 997),
        "client.crt": Attributes("-rw-r--r--", 998, 997),
        "unknown": Attributes("-rwxrwxrwx", 5, 5),
    },
    directories={name: Attributes("drwxr-x---", 0, 997) for name in (".", "generations", "current")},
)
MODES = {"client.key": 0o640, "client.crt": 0o644}


def attributes(changes: Mapping[str, Attributes], where: str) -> GatewayState:
    merged: dict[str, Any] = {where: {**getattr(IN_ORDER.bundle, where), **changes}}
    return altered(IN_ORDER, **merged)


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (IN_ORDER, []),
        (attributes({"client.key": Attributes("-rw-r--r--", 998, 997)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("-rw-------", 998, 997)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("-rw-r-----", 0, 997)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("-rw-r-----", 998, 0)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("lrwxrwxrwx", 998, 997)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("-rwsr-----", 998, 997)}, "files"), ["client.key"]),
        (attributes({"client.crt": Attributes("-rw-rw-r--", 998, 997)}, "files"), ["client.crt"]),
        (attributes({".": Attributes("drwxr-xr-x", 0, 997)}, "directories"), ["./"]),
        (attributes({"current": Attributes("drwxr-x---", 998, 997)}, "directories"), ["current/"]),
        (attributes({"generations": Attributes("drwxr-x---", 0, 0)}, "directories"), ["generations/"]),
        (altered(IN_ORDER, owner_id=1), ["client.crt", "client.key"]),
        (altered(IN_ORDER, owner_id=None), ["client.crt", "client.key"]),
        (altered(IN_ORDER, directory_owner_id=998), ["./", "current/", "generations/"]),
        (altered(IN_ORDER, group_id=1), ["./", "client.crt", "client.key", "current/", "generations/"]),
        (altered(IN_ORDER, group_id=None), ["./", "client.crt", "client.key", "current/", "generations/"]),
        (altered(IN_ORDER, files={}, directories={}), []),
    ],
)
def test_drift(state: GatewayState, names: list[str]) -> None:
    assert preflight.attribute_drift(state, MODES, 0o750) == names

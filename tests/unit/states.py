# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""States of gateways, and what gateways print, for tests of the gateway layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import (
    Attributes,
    Bundle,
    GatewayState,
    Storage,
    User,
)
from ansible_collections.thingstream.ztp.tests.unit.support import assert_no_secret


def altered(state: GatewayState, **changes: Any) -> GatewayState:
    """Return the state with other values in these fields of its user, storage or bundle, or with another path."""
    parts: dict[str, Any] = {"path": changes.pop("path", state.path)}
    for name in ("user", "storage", "bundle"):
        part = getattr(state, name)
        known = {one.name for one in fields(part)} & set(changes)
        parts[name] = replace(part, **{one: changes.pop(one) for one in known})
    assert not changes, changes
    return replace(state, **parts)


PATH = "/etc/thingstream/pointperfect"
RECORD = json.dumps({"service": "pointperfect", "files": {"client.key": "d" * 64}}, indent=2)
STATE = GatewayState(
    path=PATH,
    user=User(0, "root", {0: "root"}, 0, 0),
    storage=Storage(
        (
            ("/", Attributes("drwxr-xr-x", 0, 0)),
            ("/etc", Attributes("drwxr-xr-x", 0, 0)),
            (PATH, Attributes("drwxr-x---", 0, 0)),
        ),
        free_kib=1000,
        thorough=True,
    ),
    bundle=Bundle(current="000002"),
)


# ---- what gateways print ----


@dataclass
class Connection:
    """A connection that returns the same output again and again, and keeps what was sent."""

    output: str = ""
    status: int = 0
    complaint: str = ""
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def __call__(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        self.sent.append((command, standard_input, secret))
        return self.status, self.output, self.complaint


def framed(*lines: str) -> str:
    return "\n".join(("begin 1", *lines, "end", ""))


def gnu(mode: str, owner: int, group: int, name: str) -> str:
    return f"{mode} 2 {owner} {group} 4096 Nov 22 01:46 {name}"


def gnu_selinux(mode: str, owner: int, group: int, name: str) -> str:
    return f"{mode}. 2 {owner} {group}  4096 Nov 22  2025 {name}"


def busybox(mode: str, owner: int, group: int, name: str) -> str:
    return f"{mode}    2 {owner:<8d} {group:<8d}      4096 Nov 22 01:46 {name}"


Listing = Callable[[str, int, int, str], str]

GNU_DF = ("Filesystem     1024-blocks    Used Available Capacity Mounted on",
          "/dev/mmcblk0p2     30338056 2893648  26197016      10% /")  # fmt: skip
BUSYBOX_DF = ("Filesystem           1024-blocks    Used Available Capacity Mounted on",
              "overlayfs:/overlay        26197016      2048     26197016   0% /")  # fmt: skip
SPACED_DF = ("Filesystem 1024-blocks Used Available Capacity Mounted on",
             "//server/share 30338056 2893648 26197016 10% /mnt/my disk")  # fmt: skip


def installed(
    ls: Listing = gnu, identity: str = "uid=0(root) gid=0(root) groups=0(root)", df: tuple[str, ...] = GNU_DF
) -> list[str]:
    """Return the lines that a gateway with two generations and a leftover prints."""
    return [
        f"identity {identity}",
        f"physical_path {PATH}",
        f"current {PATH}/generations/000002",
        *(f"record {line}" for line in RECORD.splitlines()),
        "@digests",
        f"{'d' * 64}  client.key",
        f"{'e' * 64}  thing.json",
        "@listing",
        ls("drwxr-xr-x", 0, 0, "/"),
        ls("drwxr-xr-x", 0, 0, "/etc"),
        ls("drwxr-xr-x", 0, 0, "/etc/thingstream"),
        ls("drwxr-x---", 0, 7, PATH),
        ls("drwx------", 0, 0, f"{PATH}/.staging-abc"),
        ls("lrwxrwxrwx", 0, 0, f"{PATH}/current -> generations/000002"),
        ls("drwxr-x---", 0, 7, f"{PATH}/generations"),
        ls("drwxr-x---", 0, 7, f"{PATH}/generations/000001"),
        ls("drwxr-x---", 0, 7, f"{PATH}/generations/000002"),
        ls("-rw-r-----", 0, 7, f"{PATH}/generations/000002/client.key"),
        ls("-rw-r-----", 0, 7, f"{PATH}/generations/000002/thing.json"),
        "@space",
        *df,
        "@",
    ]


def failure(action: Callable[[], object]) -> ProvisioningError:
    """Return the error of an action, after checking that it can be shown to any user on any terminal."""
    with pytest.raises(ProvisioningError) as caught:
        action()
    assert_presentable(caught.value)
    return caught.value


def assert_presentable(error: ProvisioningError) -> None:
    assert error.code in ERROR_CODES
    assert error.message.isprintable()
    assert len(error.message) < 2000
    assert_no_secret(error)


# What a hostile gateway may print anywhere.
ESCAPES = "\x1b[31m{{ lookup('pipe', 'id') }}\u202e\x00\x07"
LONG = "x" * 100_000

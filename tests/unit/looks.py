# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet looks like: results of ``thingstream_ztp_info`` as it makes them, for any number of gateways."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render as bundle
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import Attributes, Held
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import inspection, policy
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, cloudlocate, encoded, parse

PATH = "/etc/thingstream/pointperfect"
RENEWAL = MappingProxyType(
    {"renew_before": "30", "renew_spread_days": 7, "keys_renew_before_days": 14, "max_age_days": None}
)
MODES = {"directory_mode": 0o750, "secret_mode": 0o640, "public_mode": 0o644}
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
UNREACHABLE = {
    "unreachable": True,
    "changed": False,
    "msg": "Failed to connect to the host via ssh: ssh: connect to host 192.0.2.1 port 22: Connection timed out\r\n",
}
FAILED = {"failed": True, "changed": False, "error_code": "gateway_unsupported", "msg": "The gateway lacks sha256sum."}

_FILES, _RECORD = bundle.render(
    parse(cloudlocate(), "cloudlocate"),
    encoded(cloudlocate()),
    Layout(PATH, 0o640, 0o644, "the CA\n"),
    None,
    {"hardware_id": "hw", "given_name": "gw", "retired": []},
    NOW - DAY,
)


def held(path: str = PATH, **changes: Any) -> Held:
    """A gateway in order; ``changes`` are those of its record."""
    record = {**_RECORD, **changes}
    return Held(
        path=path,
        user_id=0,
        user_name="root",
        groups={0: "root"},
        owner_id=0,
        group_id=0,
        ancestors=(("/", Attributes("drwxr-xr-x", 0, 0)),),
        current="000002",
        record=record,
        digests=dict(record["files"]),
        files={
            name: Attributes(stat.filemode(stat.S_IFREG | mode), 0, 0)
            for name, mode in bundle.file_modes(record, MODES["secret_mode"], MODES["public_mode"]).items()
        },
        directories={name: Attributes("drwxr-x---", 0, 0) for name in (".", "generations", "current")},
        generations={"000001": None, "000002": record},
    )


def nothing_held(path: str = PATH) -> Held:
    """A gateway without credentials."""
    return Held(path, 0, "root", {0: "root"}, 0, 0, (("/", Attributes("drwxr-xr-x", 0, 0)),))


def look(*found: Held, now: datetime = NOW) -> dict[str, Any]:
    """The result of one gateway."""
    return {"changed": False, "bundles": [inspection.describe(one, now, renewal=RENEWAL, **MODES) for one in found]}


def record_of(number: int) -> dict[str, Any]:
    """A record of PointPerfect that differs from gateway to gateway, with dates over the next two years."""
    dates = {
        "not_before": NOW - DAY,
        "not_after": NOW + timedelta(days=40 + number * 7 % 600, hours=number % 24),
        "keys_expire_at": NOW + timedelta(days=15 + number % 30) if number % 3 else None,
    }
    return {
        "service": "pointperfect",
        "delivery": ["mqtt"],
        "hardware_id": f"3569380{number:08d}",
        "given_name": f"gateway-{number:05d}",
        "client_id": f"{number:08x}-2222-4333-8444-555555555555",
        "fingerprint_sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        **{name: policy.timestamp(date) for name, date in dates.items()},
    }


def fleet(count: int) -> dict[str, Mapping[str, Any]]:
    """Host to its result; two in a hundred cannot be seen, and every state occurs."""
    return {f"gateway-{number:05d}": _look_of(number) for number in range(count)}


def _look_of(number: int) -> dict[str, Any]:
    record = record_of(number)
    kind = number % 100
    if kind in (13, 66):
        return UNREACHABLE if kind == 13 else FAILED
    if kind == 40:
        return look(nothing_held())
    if kind == 50:
        record["not_after"] = policy.timestamp(NOW - DAY)
    if kind in (51, 52, 53):
        record["not_after"] = policy.timestamp(NOW + 20 * DAY)
    if kind in (60, 61):
        record["retired"] = [{**record, "client_id": f"device:old-{number}", "since": policy.timestamp(NOW - 9 * DAY)}]
    one = held(**record)
    if kind == 70:
        one.digests.pop("credentials.env")  # type: ignore[attr-defined]
    if kind in (80, 81):
        one.files["credentials.json"] = Attributes("-rw-r--r--", 0, 0)  # type: ignore[index]
    return look(one)

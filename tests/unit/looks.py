# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of ``thingstream_ztp_info`` as the module returns them, for any number of gateways."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render as bundle
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import optional_timestamp, timestamp
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import (
    Attributes,
    Bundle,
    GatewayState,
    Storage,
    User,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import inspection
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.ledger import LedgerEntry
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, cloudlocate, encoded, parse

PATH = "/etc/thingstream/pointperfect"
RENEWAL = RenewalPolicy()
MODES = {"directory_mode": 0o750, "secret_mode": 0o640}
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
    Layout(PATH, 0o640, "the CA\n"),
    None,
    bundle.Origin("ztp", NOW - DAY, "hw", "gw"),
)
_USER = User(0, "root", {0: "root"}, owner_id=0, group_id=0)
_STORAGE = Storage(ancestors=(("/", Attributes("drwxr-xr-x", 0, 0)),))


def held(path: str = PATH, **changes: Any) -> GatewayState:
    """Return a gateway in order; ``changes`` apply to the content of its record."""
    text = json.dumps({**_RECORD.to_dict(), **changes})
    record = Record.parse(text)
    assert record is not None
    modes = bundle.file_modes(record, MODES["secret_mode"])
    return GatewayState(
        path,
        _USER,
        _STORAGE,
        Bundle(
            current="000002",
            record=text,
            digests=dict(record.files),
            files={name: Attributes(stat.filemode(stat.S_IFREG | mode), 0, 0) for name, mode in modes.items()},
            directories={name: Attributes("drwxr-x---", 0, 0) for name in (".", "generations", "current")},
            generations={"000001": None, "000002": text},
        ),
    )


def changed(state: GatewayState, **changes: Any) -> GatewayState:
    """Return the gateway with changes to its bundle."""
    return replace(state, bundle=replace(state.bundle, **changes))


def with_other_group(state: GatewayState) -> GatewayState:
    """Return the gateway with files that should belong to another group."""
    return replace(state, user=replace(state.user, group_id=5))


def nothing_held(path: str = PATH) -> GatewayState:
    """Return a gateway without credentials."""
    return GatewayState(path, _USER, _STORAGE, Bundle())


def look(*found: GatewayState, now: datetime = NOW) -> dict[str, Any]:
    """Return the result of one gateway."""
    return {"changed": False, "bundles": [inspection.describe(one, now, renewal=RENEWAL, **MODES) for one in found]}


def ledger_entry(client_id: str | None = "device:1", **changes: Any) -> LedgerEntry:
    """Return the ledger entry of a Thing, received and delivered a day ago."""
    login_sha256 = changes.pop("login_sha256", None)
    entry: dict[str, Any] = {
        "service": "cloudlocate",
        "thing_id": ThingId(client_id, login_sha256) if client_id or login_sha256 else None,
        "hardware_id": f"hw of {client_id}",
        "given_name": None,
        "host": "a",
        "path": PATH,
        "response": "x.response",
        "received_at": NOW - DAY,
        "delivered_at": NOW - DAY,
        **changes,
    }
    return LedgerEntry(**entry)


def record_of(number: int) -> dict[str, Any]:
    """Return a PointPerfect record that differs per gateway, with expiration dates over the next two years."""
    dates = {
        "not_before": NOW - 400 * DAY,
        "not_after": NOW + timedelta(days=40 + number * 7 % 600, hours=number % 24),
        "keys_expire_at": NOW + timedelta(days=15 + number % 30) if number % 3 else None,
    }
    return {
        "service": "pointperfect",
        "delivery": ["mqtt"],
        "hardware_id": f"3569380{number:08d}",
        "given_name": f"gateway-{number:05d}",
        "client_id": f"{number:08x}-2222-4333-8444-555555555555",
        "login_sha256": None,
        "fingerprint_sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        **{name: optional_timestamp(date) for name, date in dates.items()},
    }


def fleet(count: int) -> dict[str, Mapping[str, Any]]:
    """Return the result by host; two gateways in a hundred cannot be seen, and every state occurs."""
    return {f"gateway-{number:05d}": _look_of(number) for number in range(count)}


def _look_of(number: int) -> dict[str, Any]:
    record = record_of(number)
    kind = number % 100
    if kind in (13, 66):
        return UNREACHABLE if kind == 13 else FAILED
    if kind == 40:
        return look(nothing_held())
    if kind == 50:
        record["not_after"] = timestamp(NOW - DAY)
    if kind in (51, 52, 53):
        record["not_after"] = timestamp(NOW + 20 * DAY)
    if kind in (60, 61):
        record["retired"] = [{**record, "client_id": f"device:old-{number}", "since": timestamp(NOW - 9 * DAY)}]
    if kind in (90, 91):
        record["client_id"] = f"{number // 100:08x}-2222-4333-8444-666666666666"
    one = held(**record)
    if kind == 70:
        digests = {name: digest for name, digest in one.bundle.digests.items() if name != "credentials.env"}
        one = changed(one, digests=digests)
    if kind in (80, 81):
        one = changed(one, files={**one.bundle.files, "credentials.json": Attributes("-rw-r--r--", 0, 0)})
    return look(one)

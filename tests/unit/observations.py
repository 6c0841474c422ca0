# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand-made states for pure functions: what is desired, and what a run has observed. Nothing touches a disk."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import History
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.render import file_modes, thing_id_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import (
    Attributes,
    Bundle,
    GatewayState,
    Storage,
    User,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Platform, Target
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.observe import Observed, Spooled
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.responses import Entry
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, TOKEN, encoded

PATH = "/etc/thingstream/x"
MODES = {"directory_mode": 0o750, "secret_mode": 0o640}
USER = User(user_id=0, user_name="root", groups={0: "root"}, owner_id=0, group_id=0)
ANCESTORS = (("/", Attributes("drwxr-xr-x", 0, 0)), ("/etc", Attributes("drwxr-xr-x", 0, 0)))

# 100 days old: a certificate of 200 days, and dynamic keys of another 40 days
RECORD = Record(
    service="pointperfect",
    thing_id=ThingId("device:1"),
    issued_at=NOW - 100 * DAY,
    identity_sha256="1" * 64,
    files={"credentials.json": "a" * 64, "ca.crt": "c" * 64, "client.key": "d" * 64},
    delivery=("mqtt", "lband"),
    hardware_id="hw-1",
    given_name="gw1",
    not_before=NOW - 100 * DAY,
    not_after=NOW + 100 * DAY,
    keys_expire_at=NOW + 40 * DAY,
)


def gateway(record: Record | None = RECORD, **changes: Any) -> GatewayState:
    """Return a gateway in order; ``changes`` apply to its bundle. A record of ``None`` stands for an unreadable one."""
    known = record or RECORD
    bundle = Bundle(
        current="000002",
        newest="000002",
        record=record.encode() if record else "damaged",
        digests=dict(known.files),
        files={
            name: Attributes(stat.filemode(stat.S_IFREG | mode), 0, 0)
            for name, mode in file_modes(known, MODES["secret_mode"]).items()
        },
        directories={name: Attributes("drwxr-x---", 0, 0) for name in (".", "generations", "current")},
        generations={"000001": None, "000002": record.encode() if record else "damaged"},
    )
    storage = Storage(ancestors=(*ANCESTORS, (PATH, Attributes("drwxr-x---", 0, 0))), free_kib=4096, thorough=True)
    return GatewayState(PATH, USER, storage, replace(bundle, **changes))


def bare_gateway() -> GatewayState:
    """Return a gateway without credentials."""
    return GatewayState(PATH, USER, Storage(ANCESTORS, free_kib=4096, thorough=True), Bundle())


def observed(record: Record | None = RECORD, **changes: Any) -> Observed:
    """Return a complete observation of a gateway in order."""
    state = changes.pop("gateway", None) or gateway(record)
    return replace(Observed(state, record, History(), complete=True), **changes)


def nothing_observed(**changes: Any) -> Observed:
    """Return a complete observation of a gateway without credentials."""
    return replace(Observed(bare_gateway(), None, History(), complete=True), **changes)


def desired(**changes: Any) -> Desired:
    """Return the desired state that a gateway in order already has."""
    given: dict[str, Any] = {
        "service": SERVICES["pointperfect"],
        "host": "gw1",
        "hardware_id": "hw-1",
        "anonymous": True,
        "given_name": "gw1",
        "target": Target(
            layout=Layout(PATH, MODES["secret_mode"], "the CA\n"),
            directory_mode=MODES["directory_mode"],
            owner=None,
            group=None,
            keep=2,
        ),
        "broker_ca_sha256": "c" * 64,
    }
    return Desired(**{**given, **changes})


def platform(**changes: Any) -> Platform:
    """Return the platform as the source, with every setting that a request needs."""
    given: dict[str, Any] = {
        "token": TOKEN,
        "endpoint": api.Endpoint("https://api.example.com/ztp"),
        "tags": None,
        "activation_timeout": 120.0,
        "place": Path("/spool/pointperfect-0"),
    }
    return Platform(**{**given, **changes})


def spooled(
    response: Mapping[str, Any] | bytes,
    sequence: int = 1,
    *,
    replaces: str | None = RECORD.response_id,
    received_at: datetime = NOW,
    service: str = "pointperfect",
    reason: str = "expiring",
) -> Spooled:
    """Return a spool entry as ``observe`` reads it."""
    raw = response if isinstance(response, bytes) else encoded(response)
    file = Path(f"/spool/{service}-0-{sequence:06d}-0.response")
    entry = Entry(service, "hw-1", "gw1", "gw1", PATH, reason, received_at, sequence, replaces, raw, file)
    try:
        parsed = credentials.parse(raw, SERVICES[service], {}, NOW)
    except ProvisioningError as error:
        return Spooled(entry, None, error, None)
    return Spooled(entry, parsed, None, thing_id_of(parsed))

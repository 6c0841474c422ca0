# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describes what a gateway holds at one path, without any secret.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..bundle import history
from ..bundle import render as bundle
from ..gateway import commands as gateway
from . import policy


def describe(
    held: gateway.Held,
    now: datetime,
    *,
    renewal: Mapping[str, Any],
    directory_mode: int,
    secret_mode: int,
    public_mode: int,
) -> dict[str, Any]:
    """What ``thingstream_ztp_info`` returns for one path.

    :param now: aware; days are counted from it.
    :param renewal: the fields of ``policy.Wanted`` that say when credentials are due.
    """
    record = policy.readable(held.record)
    past = history.readable(held.history, record)
    thing = history.told(record, past)
    digests = record["files"] if record else {}
    modes = bundle.file_modes(record, secret_mode, public_mode) if record else {}
    return {
        "path": held.path,
        "present": held.current is not None,
        "generation": held.current,
        "thing": thing,
        "retired": history.retirement_list(past, record, held.current),
        "generations": [
            {"name": name, "thing": policy.readable(thing)} for name, thing in sorted(held.generations.items())
        ],
        "damaged": sorted(name for name, digest in digests.items() if held.digests.get(name) != digest)
        if record
        else ["thing.json"] * (held.current is not None),
        "drift": gateway.drift(held, modes, directory_mode) if record else [],
        "leftovers": list(held.leftovers),
        "due_at": policy.timestamp(_due_at(thing, renewal)) if thing else None,
        "not_after_days": _days(record, "not_after", now),
        "keys_expire_days": _days(record, "keys_expire_at", now),
        "age_days": _days(record, "issued_at", now, past=True),
    }


def _due_at(thing: Mapping[str, Any], renewal: Mapping[str, Any]) -> datetime | None:
    wanted = policy.Wanted(service=thing["service"], hardware_id=thing["hardware_id"], **renewal)
    return policy.renewal_due_at(thing, wanted)


def _days(record: Mapping[str, Any] | None, name: str, now: datetime, past: bool = False) -> float | None:
    when = policy.moment(record, name) if record else None
    if when is None:
        return None
    distance = (now - when) if past else (when - now)
    return round(distance.total_seconds() / 86400, 2)

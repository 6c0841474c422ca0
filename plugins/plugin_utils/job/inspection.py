# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe the state of a gateway at one path, without any secret.

Private to the collection.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ..bundle.dates import optional_timestamp
from ..bundle.record import Record
from ..bundle.render import file_modes
from ..gateway import preflight
from ..gateway.protocol import GatewayState
from .due import damaged_files
from .observe import understand
from .outcome import thing_of
from .renewal import RenewalPolicy, due_dates
from .retirement import retirement_list


def describe(
    state: GatewayState,
    now: datetime,
    *,
    renewal: RenewalPolicy,
    directory_mode: int,
    secret_mode: int,
) -> dict[str, Any]:
    """Return what ``thingstream_ztp_info`` reports for one path.

    :param now: aware; days are counted from it.
    """
    observed = understand(state)
    record, history, bundle = observed.record, observed.history, state.bundle
    modes = file_modes(record, secret_mode) if record else {}
    dates = due_dates(record, history, renewal, now) if record else None
    return {
        "path": state.path,
        "present": observed.is_installed,
        "generation": bundle.current,
        "thing": thing_of(record, history),
        "retired": [
            thing.to_dict()
            for thing in retirement_list(history, bundle.current, record.as_former() if record else None)
        ],
        "generations": [
            {"name": name, "thing": thing_of(Record.parse(text), None)}
            for name, text in sorted(bundle.generations.items())
        ],
        "damaged": damaged_files(observed),
        "drift": preflight.attribute_drift(state, modes, directory_mode) if record else [],
        "leftovers": list(bundle.leftovers),
        "due_at": optional_timestamp(dates.next) if dates else None,
        "not_after_days": _days(record.not_after - now) if record and record.not_after else None,
        "keys_expire_days": _days(record.keys_expire_at - now) if record and record.keys_expire_at else None,
        "age_days": _days(now - record.issued_at) if record else None,
        "warnings": list(dates.warnings) if dates else [],
    }


def _days(duration: timedelta) -> float:
    return round(duration / timedelta(days=1), 2)

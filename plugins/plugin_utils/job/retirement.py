# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks Things that a gateway no longer uses as deactivated, once somebody has done so on the platform.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..bundle import history
from ..gateway import commands as gateway
from .order import Outcome, Runtime, Target
from .provision import change_of, look, outcome_of, past_of


def ensure_retired(
    target: Target, runtime: Runtime, things: Sequence[history.Thing], *, check_mode: bool = False
) -> Outcome:
    """Ensures that these Things are no longer on the retirement list of a gateway.

    :param things: entries of that list; the Thing in use is never one of them.
    :raises ProvisioningError: as ``gateway.remember``.
    """
    held = look(target, runtime)
    past = past_of(held)
    listed = history.retirement_list(past, held.record, held.current)
    found = [entry for entry in listed if any(history.same_thing(entry, thing) for thing in things)]
    if not found:
        return outcome_of("none", "none", target, held, held.record, held.current)
    gateway.require_changeable(held)
    done = history.mark_done(past, found, runtime.now())
    if not check_mode:
        gateway.remember(runtime.execute, held, change_of(target, runtime, held, done))
    return outcome_of("retired", "retired", target, held, history.told(held.record, done), held.current)

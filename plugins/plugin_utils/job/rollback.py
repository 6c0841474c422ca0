# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Returns a gateway to an earlier generation, which is still on its disk; the platform is not asked.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..bundle import history
from ..errors import ProvisioningError
from ..gateway import commands as gateway
from . import policy
from .order import Outcome, Runtime, Target
from .provision import change_of, files_of, outcome_of, past_of, understood, whole_past


def ensure_rolled_back(
    target: Target, runtime: Runtime, generation: str | None, *, force: bool = False, check_mode: bool = False
) -> Outcome:
    """Ensures that an earlier generation is in use.

    :param generation: its name; ``None`` for the one before the last that was in use, so that a second run finds
        nothing to do.
    :param force: also to credentials that have expired, or whose Thing is reported as deactivated.
    :raises ProvisioningError: ``no_generation``, and as ``gateway.roll_back``.
    """
    (surveyed,) = gateway.survey(runtime.execute, [target.layout.path], target.owner, target.group)
    held = understood(surveyed)
    past = past_of(held)
    chosen = _chosen(held, generation)
    if chosen == held.current:
        return _finish(target, runtime, held, check_mode)
    record = policy.readable(held.generations.get(chosen))
    if record is None:
        raise ProvisioningError(
            "no_generation", f"Generation {chosen} at {held.path} has no record that can be read. Take another one."
        )
    if not force:
        _require_usable(chosen, record, past, runtime.now())
    gateway.require_installable(held, target.owner, target.group)
    left = history.leave(whole_past(target, runtime, held), held.record, runtime.now())
    thing = history.told(record, left)
    if not check_mode:
        change = change_of(target, runtime, held, left)
        gateway.roll_back(runtime.execute, held, chosen, files_of(record, target), record["files"], change)
    return outcome_of("rolled_back", "rolled_back", target, held, thing, chosen)


def _finish(target: Target, runtime: Runtime, held: gateway.Held, check_mode: bool) -> Outcome:
    """Where it is in use already: does what a run has left undone that died meanwhile, such as telling consumers."""
    record = held.record
    if record is None or not held.leftovers:
        return outcome_of("none", "none", target, held, record, held.current)
    gateway.require_installable(held, target.owner, target.group)
    if not check_mode:
        change = change_of(target, runtime, held, past_of(held))
        gateway.repair(runtime.execute, held, files_of(record, target), change)
    return outcome_of("repaired", "drift", target, held, record, held.current)


def _chosen(held: gateway.Held, generation: str | None) -> str:
    names = sorted(held.generations)
    if generation is not None:
        if generation not in names:
            raise ProvisioningError(
                "no_generation",
                f"There is no generation {generation} at {held.path}, but: {', '.join(names) or 'none'}.",
            )
        return generation
    if held.current is not None and held.newest != held.current:
        return held.current  # it is an earlier one already
    earlier = [name for name in names if name < (held.current or "")]
    if not earlier:
        raise ProvisioningError(
            "no_generation",
            f"There is no earlier generation at {held.path} to return to; keep says how many stay.",
        )
    return earlier[-1]


def _require_usable(chosen: str, record: Mapping[str, Any], past: history.History, now: datetime) -> None:
    not_after = policy.moment(record, "not_after")
    problem = None
    if not_after is not None and not_after <= now:
        problem = f"its certificate has expired on {not_after:%Y-%m-%d}"
    elif history.is_done(past, record):
        problem = "its Thing is reported as deactivated"
    if problem:
        raise ProvisioningError(
            "no_generation", f"Generation {chosen} is not usable: {problem}. Take another one, or use force."
        )

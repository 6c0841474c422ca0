# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Return a gateway to an earlier generation, which is still on its disk, without a request.

Private to the collection.
"""

from __future__ import annotations

from datetime import datetime

from ..bundle.history import History
from ..bundle.record import Record
from ..errors import ProvisioningError
from ..gateway import commands, preflight
from ..gateway.protocol import Bundle
from .apply import change_of
from .desired import Runtime, Target
from .observe import Observed, left_behind, look_at_generations
from .outcome import Outcome, installed_files, modes_of


def ensure_rolled_back(
    target: Target, runtime: Runtime, generation: str | None, *, force: bool = False, check_mode: bool = False
) -> Outcome:
    """Ensure that an earlier generation is in use.

    :param generation: its name; ``None`` for the one before the last that was in use, so that a second run finds
        nothing to do.
    :param force: also to credentials that have expired, or whose Thing is reported as deactivated.
    :raises ProvisioningError: ``no_generation``, and as ``commands.roll_back``.
    """
    observed = look_at_generations(target, runtime)
    bundle = observed.gateway.bundle
    chosen = _choose(target.path, bundle, generation)
    if chosen == bundle.current:
        return _finish(target, observed, runtime, check_mode=check_mode)
    record = Record.parse(bundle.generations.get(chosen))
    if record is None:
        raise ProvisioningError(
            "no_generation", f"Generation {chosen} at {target.path} has no record that can be read. Choose another one."
        )
    if not force:
        _require_usable(chosen, record, observed.history, runtime.now())
    problem = preflight.install_problem(observed.gateway, target.owner, target.group)
    if problem is not None:
        raise problem
    history = observed.history.note(left_behind(observed, target, runtime), runtime.now())
    if observed.record is not None:
        history = history.leave(observed.record.as_former(), runtime.now())
    if not check_mode:
        change = change_of(target, observed, history, runtime)
        commands.roll_back(runtime.execute, observed.gateway, chosen, modes_of(record, target), record.files, change)
    message = f"Generation {chosen} takes the place of {bundle.current or 'none'}."
    return _outcome("rolled_back", "rolled_back", message, target, observed, record, history, chosen)


def _finish(target: Target, observed: Observed, runtime: Runtime, *, check_mode: bool) -> Outcome:
    """Finish the work of an interrupted run, such as reloading consumers, where the generation is in use already."""
    record, bundle = observed.record, observed.gateway.bundle
    message = f"Generation {bundle.current} is in use already."
    if record is None or not bundle.leftovers:
        return _outcome("none", "none", message, target, observed, record, observed.history, bundle.current)
    problem = preflight.install_problem(observed.gateway, target.owner, target.group)
    if problem is not None:
        raise problem
    if not check_mode:
        change = change_of(target, observed, observed.history, runtime)
        commands.set_attributes(runtime.execute, observed.gateway, modes_of(record, target), change)
    message = f"An interrupted run left {', '.join(bundle.leftovers)}."
    return _outcome("repaired", "drift", message, target, observed, record, observed.history, bundle.current)


def _choose(path: str, bundle: Bundle, generation: str | None) -> str:
    names = sorted(bundle.generations)
    if generation is not None:
        if generation not in names:
            raise ProvisioningError(
                "no_generation",
                f"There is no generation {generation} at {path}, only: {', '.join(names) or 'none'}.",
            )
        return generation
    if bundle.current is not None and bundle.newest != bundle.current:
        return bundle.current  # it is an earlier one already
    earlier = [name for name in names if name < (bundle.current or "")]
    if not earlier:
        raise ProvisioningError(
            "no_generation", f"There is no earlier generation at {path} to return to; keep says how many stay."
        )
    return earlier[-1]


def _require_usable(chosen: str, record: Record, history: History, now: datetime) -> None:
    problem = None
    if record.not_after is not None and record.not_after <= now:
        problem = f"its certificate expired on {record.not_after:%Y-%m-%d}"
    elif history.is_deactivated(record.thing_id):
        problem = "its Thing is reported as deactivated"
    if problem:
        raise ProvisioningError(
            "no_generation", f"Generation {chosen} is not usable: {problem}. Choose another one, or use force."
        )


def _outcome(
    action: str,
    reason: str,
    message: str,
    target: Target,
    observed: Observed,
    record: Record | None,
    history: History,
    generation: str | None,
) -> Outcome:
    files = installed_files(record, target, observed)
    return Outcome(action, reason, message, observed.record, record, history, generation, files)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mark Things that are no longer in use as deactivated, once the user has deactivated them on the platform.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bundle.history import FormerThing, History
from ..gateway import commands, preflight
from ..spool import directory, ledger
from ..spool.ledger import LedgerEntry
from .apply import change_of
from .desired import Runtime, Target
from .observe import look
from .outcome import Outcome, installed_files


def retirement_list(history: History, current: str | None, in_use: FormerThing | None) -> tuple[FormerThing, ...]:
    """Return the Things to deactivate, or none while the generation in use has no readable record.

    Its Thing may be any of them then.

    :param current: the generation in use.
    :param in_use: the Thing that its record names.
    """
    if current is not None and in_use is None:
        return ()
    return history.retired(in_use.thing_id if in_use else None)


def ensure_retired(
    target: Target, runtime: Runtime, things: Sequence[FormerThing], *, check_mode: bool = False
) -> Outcome:
    """Ensure that these Things are no longer on the retirement list of a gateway.

    :param things: entries of that list; the Thing in use is never one of them.
    :raises ProvisioningError: as ``commands.write_history``.
    """
    observed = look(target, runtime)
    record, current = observed.record, observed.gateway.bundle.current
    listed = retirement_list(observed.history, current, record.as_former() if record else None)
    found = [entry for entry in listed if any(entry.same_thing(thing) for thing in things)]
    files = installed_files(record, target, observed)
    if not found:
        message = f"None of these Things is on the retirement list of {target.path}."
        return Outcome("none", "none", message, record, record, observed.history, current, files)
    problem = preflight.change_problem(observed.gateway)
    if problem is not None:
        raise problem
    history = observed.history.deactivate(found, runtime.now())
    if not check_mode:
        commands.write_history(runtime.execute, observed.gateway, change_of(target, observed, history, runtime))
    message = f"{len(found)} Thing{'' if len(found) == 1 else 's'} marked as deactivated."
    return Outcome("retired", "retired", message, record, record, history, current, files)


def retire_in_ledger(
    spool: str, things: Sequence[LedgerEntry], runtime: Runtime, *, check_mode: bool = False
) -> list[LedgerEntry]:
    """Mark Things as deactivated in the ledger, as far as it knows them; return those that it marked.

    :param things: Things with the host and path that they were requested for.
    :raises ProvisioningError: ``spool_failed``.
    """
    marked = []
    for thing in things:
        place = directory.location(spool, thing.service, thing.hardware_id, f"{thing.host} {thing.path}")
        known = next((entry for entry in ledger.read(place).entries if _is_same(entry, thing)), None)
        if known is None or known.deactivated_at is not None:
            continue
        marked.append(known)
        if not check_mode:
            ledger.append(Path(place), "deactivated", known, runtime.now())
    return marked


def _is_same(known: LedgerEntry, thing: LedgerEntry) -> bool:
    return known.as_former().same_thing(thing.as_former())

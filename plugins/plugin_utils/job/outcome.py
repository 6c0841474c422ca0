# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of a run, or in check mode the expected one.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..bundle.dates import optional_timestamp, timestamp
from ..bundle.history import MAX_THINGS, History
from ..bundle.record import Record
from ..bundle.render import file_modes
from .desired import Desired, Runtime, Target
from .observe import Observed
from .plan import Plan
from .renewal import confirmed, due_dates


@dataclass(frozen=True)
class InstalledFile:
    """A file of the bundle, as it must be on the gateway."""

    path: str
    mode: int
    owner: str
    group: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run, or in check mode the expected one.

    :param action: ``created``, ``renewed``, ``refreshed``, ``repaired``, ``removed``, ``unchanged``, ``none``, …
    :param record: of the generation in use afterwards; of what was removed after a removal.
    :param before: the same before the run.
    :param history: as it is afterwards.
    :param due_at: when the next renewal is due by a date (aware).
    """

    action: str
    reason: str
    message: str
    before: Record | None
    record: Record | None
    history: History
    generation: str | None
    files: tuple[InstalledFile, ...]
    due_at: datetime | None = None
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything on the gateway is, or in check mode would be, different."""
        return self.action not in ("none", "unchanged")

    @property
    def confirmed_at(self) -> datetime | None:
        """When the platform last returned the credentials in use again (aware)."""
        return confirmed(self.record, self.history) if self.record else None

    @property
    def thing(self) -> dict[str, Any] | None:
        """The record as results show it; after a removal its own Thing is on the retirement list, too."""
        return thing_of(self.record, self.history, is_in_use=self.generation is not None)


def thing_of(record: Record | None, history: History | None, *, is_in_use: bool = True) -> dict[str, Any] | None:
    """Return a record as results show it: with the present retirement list and the date of the last confirmation.

    :param history: ``None`` for an earlier generation, which shows the list as it was.
    :param is_in_use: whether the Thing of the record is in use.
    """
    if record is None:
        return None
    if history is None:
        return record.to_dict()
    confirmed_at = confirmed(record, history)
    return {
        **record.to_dict(),
        "retired": [thing.to_dict() for thing in history.retired(record.thing_id if is_in_use else None)],
        **({"confirmed_at": optional_timestamp(confirmed_at)} if confirmed_at else {}),
    }


def outcome_of(
    action: str,
    planned: Plan,
    desired: Desired,
    observed: Observed,
    record: Record | None,
    history: History,
    generation: str | None,
    runtime: Runtime,
) -> Outcome:
    """Return the outcome of a plan, with the date of the next renewal and what the user should know."""
    dates = due_dates(record, history, desired.renewal, runtime.now()) if record else None
    return Outcome(
        action=action,
        reason=planned.reason,
        message=planned.message,
        before=observed.record,
        record=record,
        history=history,
        generation=generation,
        files=installed_files(record, desired.target, observed),
        due_at=dates.next if dates else None,
        warnings=(*(dates.warnings if dates else ()), *_warnings(record, history, desired, observed)),
    )


def modes_of(record: Record, target: Target) -> dict[str, int]:
    """Return the modes that the files of an installed bundle must have."""
    return file_modes(record, target.layout.secret_mode)


def installed_files(record: Record | None, target: Target, observed: Observed) -> tuple[InstalledFile, ...]:
    """Return the files of a bundle as they must be on the gateway."""
    if record is None:
        return ()
    user = observed.gateway.user
    owner = target.owner or user.user_name
    group = target.group or user.groups.get(user.group_id or 0, str(user.group_id))
    return tuple(
        InstalledFile(f"{target.path}/current/{name}", mode, owner, group)
        for name, mode in sorted(modes_of(record, target).items())
    )


def _warnings(record: Record | None, history: History, desired: Desired, observed: Observed) -> Iterable[str]:
    path = desired.target.path
    if observed.gateway.storage.volatile and record is not None:
        yield (
            f"{path} is on volatile storage ({observed.gateway.storage.volatile}): the credentials are lost when the "
            "gateway restarts, and so is the retirement list. The ledger of the controller keeps the Things."
        )
    if observed.unverified:
        yield observed.unverified
    if len(history.retired(record.thing_id if record else None)) >= MAX_THINGS:
        yield (
            f"The retirement list of {path} is full ({MAX_THINGS} Things); the next one takes the place of the oldest. "
            "Deactivate them on the platform and mark them with the playbook retire."
        )
    vanished = next(
        (
            entry.delivered_at
            for entry in observed.ledger.entries
            if (entry.host, entry.path) == (desired.host, path) and entry.delivered_at and not entry.left_at
        ),
        None,
    )
    if vanished is not None and not observed.is_installed:
        yield (
            f"The ledger says that {path} got credentials on {timestamp(vanished)}, but nothing is installed there: "
            "the gateway was wiped, or the path is on storage that does not survive a restart."
        )

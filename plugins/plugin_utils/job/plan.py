# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what to do for one gateway, and why: pure functions of what is desired, what was observed, and the time.

``plan`` is an ordered chain of checks: the first that applies gives the plan. Every plan has a reason code and a
sentence that names what was compared. ``apply`` executes a plan; check mode shows it.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..bundle.dates import timestamp, whole_seconds
from ..bundle.history import FormerThing, History
from ..bundle.record import Record, response_id
from ..bundle.render import thing_id_of
from ..bundle.thing_id import same_thing
from ..errors import ProvisioningError
from ..gateway import preflight
from ..platform import api
from ..platform.credentials import Credentials
from ..spool import requests
from ..spool.ledger import not_deactivated
from ..spool.responses import Entry
from .desired import Desired, Given, Platform, Source
from .due import Due, find_due, rotation_due
from .observe import Observed, Spooled
from .renewal import arrived_before, due_dates
from .sources import parse_given


@dataclass(frozen=True)
class _Plan:
    """Why: a reason code and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True)
class Nothing(_Plan):
    """Everything is in order, or is to be left alone."""


@dataclass(frozen=True)
class Refuse(_Plan):
    """Change nothing and report an error.

    :param discard: spool entries that are of no use to the gateway, because it has the same credentials already.
    """

    error: ProvisioningError
    discard: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class _Write(_Plan):
    """Write something on the gateway without another response.

    :param history: what is written down with it.
    :param outdated: spool entries whose Things the history names from then on.
    """

    history: History
    outdated: tuple[Spooled, ...] = ()


@dataclass(frozen=True)
class WriteHistory(_Write):
    """Write Things that are not in use into the history, and change nothing else."""


@dataclass(frozen=True)
class SetAttributes(_Write):
    """Set owner, group and modes again, and clean up leftovers."""


@dataclass(frozen=True)
class Render(_Write):
    """Render the files again from the installed response."""


@dataclass(frozen=True)
class Install(_Plan):
    """Install a response that is on the controller.

    :param entry: where the spool has it; ``None`` for a response that the user gave.
    :param history: what is to be written down before the switch.
    """

    response: bytes = field(repr=False)
    credentials: Credentials
    received_at: datetime
    origin: str
    entry: Entry | None
    history: History
    outdated: tuple[Spooled, ...] = ()


@dataclass(frozen=True)
class Request(_Plan):
    """Request a response from the platform, then install it.

    :param outdated: spool entries that the response replaces.
    """

    outdated: tuple[Spooled, ...] = ()


@dataclass(frozen=True)
class Remove(_Write):
    """Remove the credentials from the gateway and the entries from the spool.

    :param on_gateway: whether there is anything to remove on the gateway itself.
    """

    on_gateway: bool = True


Plan = Nothing | Refuse | WriteHistory | SetAttributes | Render | Install | Request | Remove


def plan(desired: Desired, source: Source, observed: Observed, now: datetime) -> Plan:
    """Return what ensures the desired credentials.

    Until ``observed`` is complete, a plan that changes something is preliminary: see ``needs_complete_observation``.

    :param now: aware.
    """
    if observed.spool_error is not None:
        return _refuse(observed.spool_error)
    if desired.rotate_before is not None and desired.rotate_before > now:
        return _refuse(_rotation_in_the_future(desired.rotate_before, now))
    pending, outdated = _sort_spooled(desired, observed, now)
    settled = tuple(spooled for spooled in outdated if _is_accounted_for(desired, spooled))
    replaced = settled
    if not observed.is_installed and pending is None and not desired.create:
        waiting = " A response of before the rotation waits in the spool for provision or renew." if outdated else ""
        return Nothing("absent", f"Nothing is installed at {desired.target.path}, and create is false.{waiting}")
    due = find_due(desired, observed, now)
    if pending is None and due is None:
        return _keep(desired, observed, settled, now)
    problem = observed.conflict or preflight.install_problem(
        observed.gateway, desired.target.owner, desired.target.group
    )
    if problem is not None:
        return _refuse(problem)
    if pending is not None:
        usable = _use_pending(desired, observed, pending, settled, due, now)
        if usable is not None:
            return usable
        replaced = (*settled, pending)
        due = due or Due(pending.entry.reason, "request", "The response in the spool cannot be used.")
    if due is None:
        raise AssertionError("either something is due or a response is pending")
    history = _history(observed, settled, now)
    if due.action == "attributes":
        return SetAttributes(due.reason, due.message, history, settled)
    if due.action == "render":
        return Render(due.reason, due.message, history, settled)
    if isinstance(source, Given):
        return _install_given(desired, source, observed, due, now)
    refusal = _request_problem(desired, source, observed)
    return _refuse(refusal) if refusal is not None else Request(due.reason, due.message, replaced)


def plan_removal(desired: Desired, observed: Observed, now: datetime) -> Plan:
    """Return what ensures that neither the gateway nor the spool has credentials for this Thing.

    :param now: aware.
    """
    if observed.spool_error is not None:
        return _refuse(observed.spool_error)
    outdated = observed.spooled
    bundle = observed.gateway.bundle
    on_gateway = observed.is_installed or "generations" in bundle.directories or bool(bundle.leftovers)
    if not on_gateway and not outdated:
        return Nothing("none", f"Nothing is installed at {desired.target.path}.")
    problem = preflight.change_problem(observed.gateway) if on_gateway else None
    if problem is not None:
        return _refuse(problem)
    history = _history(observed, (*outdated, *_of_ledger(desired, observed)), now)
    if observed.record is not None:
        history = history.leave(observed.record.as_former(), now)
    return Remove("absent", f"state is absent, and credentials exist for {desired.target.path}.",
                  history, outdated, on_gateway)  # fmt: skip


def plan_installation(
    desired: Desired,
    observed: Observed,
    arrived: Spooled,
    outdated: tuple[Spooled, ...],
    due: tuple[str, str],
    now: datetime,
) -> Install | Refuse:
    """Return how a response in the spool is installed, or why the gateway is better off without it.

    :param arrived: with usable credentials.
    :param outdated: the other entries for this Thing.
    :param due: reason and message.
    """
    if arrived.credentials is None:
        raise AssertionError("only a response with usable credentials is installed")
    parsed, entry = arrived.credentials, arrived.entry
    is_same = observed.record is not None and observed.record.identity_sha256 == parsed.identity_sha256
    problem = _misfit(desired, observed, parsed, now)
    if problem is not None:
        return (
            Refuse(problem.code, problem.message, problem, (entry,))
            if is_same
            else _refuse(problem.with_advice(kept_advice(entry)))
        )
    history = _history(observed, (*outdated, *_of_ledger(desired, observed)), now)
    history = _leave(history, observed.record, parsed, entry.received_at)
    return Install(*due, entry.response, parsed, entry.received_at, "ztp", entry, history, outdated)


def needs_complete_observation(planned: Plan, observed: Observed) -> bool:
    """Return whether a plan depends on what only ``observe_before_change`` finds out."""
    return not observed.complete and isinstance(planned, (Install, Request, Remove))


def kept_advice(entry: Entry) -> str:
    """Return the advice for a response that cannot be used."""
    return (
        f"The response is kept in {entry.file}: correct field_map and run again, or remove that file to send another "
        "request."
    )


# ---- what waits in the spool ----


def _sort_spooled(desired: Desired, observed: Observed, now: datetime) -> tuple[Spooled | None, tuple[Spooled, ...]]:
    """Return the response that is to be installed, if there is one, and those that something newer has outdated.

    The clock does not matter: a response is outdated if the installed one has changed since the request.
    """
    if not observed.spooled:
        return None, ()
    *older, latest = observed.spooled
    record = observed.record
    if record is not None and (latest.entry.replaces != record.response_id or _is_installed(latest, record)):
        return None, observed.spooled
    if _precedes_rotation(desired, observed, latest, now):
        return None, observed.spooled
    return latest, tuple(older)


def _is_installed(spooled: Spooled, record: Record) -> bool:
    """Return whether the gateway has a response already: its run ended before it could remove the entry."""
    parsed = spooled.credentials
    return parsed is not None and record.response_id == response_id(parsed.identity_sha256, spooled.entry.received_at)


def _precedes_rotation(desired: Desired, observed: Observed, spooled: Spooled, now: datetime) -> bool:
    """Return whether a rotation would replace a response again as soon as it is installed."""
    return (
        desired.rotate_before is not None
        and (observed.record is None or rotation_due(desired, observed, now))
        and arrived_before(spooled.entry.received_at, desired.rotate_before, now)
    )


def _use_pending(
    desired: Desired,
    observed: Observed,
    pending: Spooled,
    outdated: tuple[Spooled, ...],
    due: Due | None,
    now: datetime,
) -> Plan | None:
    """Return what becomes of the response that waits, or ``None`` if it is better to send another request."""
    reason = due.reason if due is not None and due.action == "request" else pending.entry.reason
    may_request = desired.repeatable and (desired.create or observed.is_installed)
    if pending.error is not None:
        return None if may_request else _refuse(pending.error.with_advice(kept_advice(pending.entry)))
    if pending.credentials is None:
        raise AssertionError("a response has credentials or an error")
    if may_request and desired.delivery not in (None, *pending.credentials.delivery):
        return None  # the token may have changed since
    message = f"A response of {timestamp(pending.entry.received_at)} waits in the spool."
    return plan_installation(desired, observed, pending, outdated, (reason, message), now)


def _keep(desired: Desired, observed: Observed, settled: tuple[Spooled, ...], now: datetime) -> Plan:
    """Return the plan where nothing is due.

    :param settled: outdated entries that can go.
    """
    if settled:
        problem = preflight.change_problem(observed.gateway)
        if problem is not None:
            return _refuse(problem)
        message = "A response in the spool is outdated; its Thing goes onto the retirement list."
        return WriteHistory("none", message, _history(observed, settled, now), settled)
    if observed.record is None:
        raise AssertionError("without a record something is due")
    due_at = due_dates(observed.record, observed.history, desired.renewal, now).next
    return Nothing("none", f"Nothing is due before {timestamp(due_at)}." if due_at else "Nothing is due.")


# ---- the history ----


def _history(observed: Observed, things: Sequence[Spooled | FormerThing], now: datetime) -> History:
    """Return the history with every Thing that is known and not in use, and that it does not name yet."""
    former = [
        FormerThing(thing.thing_id, thing.entry.service, thing.entry.hardware_id, thing.entry.given_name)
        if isinstance(thing, Spooled)
        else thing
        for thing in things
        if not isinstance(thing, Spooled) or thing.thing_id is not None
    ]
    in_use = observed.record.thing_id if observed.record else None
    unused = [thing for thing in (*observed.left_behind, *former) if not same_thing(thing.thing_id, in_use)]
    return observed.history.note(unused, now)


def _of_ledger(desired: Desired, observed: Observed) -> list[FormerThing]:
    """Return the Things that this gateway had before it was wiped, as far as the ledger knows them."""
    found = not_deactivated(observed.ledger.entries, desired.host, desired.target.path)
    waiting = [spooled.thing_id for spooled in observed.spooled]
    return [entry.as_former() for entry in found if not any(same_thing(entry.thing_id, one) for one in waiting)]


def _leave(history: History, record: Record | None, parsed: Credentials, at: datetime) -> History:
    """Return the history once the Thing of a record has made way for another one."""
    if record is None or record.thing_id.same_as(thing_id_of(parsed)):
        return history
    return history.leave(record.as_former(), at)


def _is_accounted_for(desired: Desired, spooled: Spooled) -> bool:
    """Return whether an entry can go: its Thing is known, or a repeated request returns it."""
    return spooled.thing_id is not None or desired.repeatable


# ---- refusals ----


def _refuse(error: ProvisioningError) -> Refuse:
    return Refuse(error.code, error.message, error)


def _rotation_in_the_future(begin: datetime, now: datetime) -> ProvisioningError:
    """Return the error for a rotation that every run until then would repeat, with a new Thing each time."""
    return ProvisioningError(
        "bad_option",
        f"rotate_before is {timestamp(begin)}, which lies in the future: it is {timestamp(now)} on the controller. Set "
        "rotate_before, in UTC, to the time at which the rotation began.",
    )


def _request_problem(desired: Desired, source: Platform, observed: Observed) -> ProvisioningError | None:
    """Return what the platform would refuse, what could create a second Thing, and why a response could be lost."""
    problem = desired.hardware_id_problem or api.request_problem(source.token, desired.given_name, source.endpoint.url)
    if problem is None and observed.marker is not None and not desired.repeatable:
        marker = observed.marker
        problem = requests.in_progress(marker.file) if marker.is_live else requests.lost(marker.file)
    return problem or _volatile_problem(desired, observed) or observed.spool_problem


def _volatile_problem(desired: Desired, observed: Observed) -> ProvisioningError | None:
    volatile = observed.gateway.storage.volatile
    if volatile is None or desired.repeatable or desired.allow_volatile:
        return None
    return ProvisioningError(
        "volatile_path",
        f"{desired.target.path} is on volatile storage ({volatile}), so that the gateway would need another Thing "
        "after each restart. No request was sent. Choose a path that survives a restart, or set allow_volatile: true "
        "if that is what you want.",
    )


def _install_given(desired: Desired, source: Given, observed: Observed, due: Due, now: datetime) -> Plan:
    """Return how the response of the user is installed."""
    try:
        parsed = parse_given(source, desired.service, desired.field_map, now)
    except ProvisioningError as error:
        return _refuse(error)
    received_at = whole_seconds(source.received_at or now)
    history = _leave(_history(observed, (), now), observed.record, parsed, received_at)
    return Install(due.reason, due.message, source.response, parsed, received_at, source.origin, None, history)


def _misfit(desired: Desired, observed: Observed, parsed: Credentials, now: datetime) -> ProvisioningError | None:
    """Return why credentials are not what is wanted."""
    if desired.delivery not in (None, *parsed.delivery):
        return ProvisioningError(
            "wrong_delivery",
            f"The platform delivers {' and '.join(parsed.delivery) or 'nothing'} to this gateway, not "
            f"{desired.delivery}. Use the token of a device profile for {desired.delivery}; if it is one, the hardware "
            "ID still belongs to a Thing of the old profile: remove that one in the portal, then run again.",
        )
    is_same = observed.record is not None and observed.record.identity_sha256 == parsed.identity_sha256
    if is_same and rotation_due(desired, observed, now):
        return ProvisioningError(
            "not_rotated",
            "The platform returned the same credentials as before: they have not been rotated, and the gateway keeps "
            "them. The device profile returns the existing credentials of a hardware ID. Use the token of another "
            "profile, or remove the Thing in the portal so that its hardware ID is free for a new one, then run again.",
        )
    if is_same and observed.login_refused:
        return ProvisioningError(
            "credentials_refused",
            "The server refuses the credentials in use, and the platform returned the same ones again: look at the "
            "Thing in the portal, and at its plan, then run again.",
        )
    return None

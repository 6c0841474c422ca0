# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Execute a plan: every effect of the main job is here.

Private to the collection.
"""

from __future__ import annotations

from dataclasses import replace

from ..bundle import render
from ..bundle.history import History
from ..bundle.record import Record
from ..bundle.render import Origin
from ..bundle.thing_id import same_thing
from ..errors import GatewayUnreachable, ProvisioningError
from ..gateway import commands, preflight
from ..gateway.commands import Change
from ..gateway.protocol import File
from ..platform.credentials import Credentials
from ..spool import ledger, requests, responses
from ..spool.responses import Entry
from .desired import Desired, Platform, Runtime, Source, Target
from .due import damaged_files
from .observe import Observed, Spooled, installed_credentials, read_installed
from .outcome import Outcome, modes_of, outcome_of
from .plan import (
    Install,
    Nothing,
    Plan,
    Refuse,
    Remove,
    Render,
    Request,
    SetAttributes,
    WriteHistory,
    plan_installation,
)
from .request import request_response


def apply(planned: Plan, desired: Desired, source: Source, observed: Observed, runtime: Runtime) -> Outcome:
    """Execute a plan and return what was done.

    :raises ProvisioningError: with one of ``errors.ERROR_CODES``.
    :raises GatewayUnreachable: if the connection fails.
    """
    if isinstance(planned, Refuse):
        for entry in planned.discard:
            _note_delivered(entry, observed.record, desired, source, runtime)
        responses.discard(planned.discard)
        raise planned.error
    if isinstance(planned, Nothing):
        return _unchanged("none", planned, desired, observed, runtime)
    if isinstance(planned, Request):
        return _request(planned, desired, source, observed, runtime)
    if isinstance(planned, Install):
        return _install(planned, desired, source, observed, runtime)
    if isinstance(planned, WriteHistory):
        return _write_history(planned, desired, source, observed, runtime)
    if isinstance(planned, SetAttributes):
        outcome = _set_attributes(planned, planned.history, desired, observed, runtime)
        _leave(planned.outdated, outcome.record, desired, source, runtime)
        return outcome
    if isinstance(planned, Render):
        outcome = _render_again(planned, desired, observed, runtime)
        _leave(planned.outdated, outcome.record, desired, source, runtime)
        return outcome
    return _remove(planned, desired, source, observed, runtime)


def predict(planned: Plan, desired: Desired, observed: Observed, runtime: Runtime) -> Outcome:
    """Return what ``apply`` would do, as far as that can be known without the response of the platform.

    :raises ProvisioningError: the error of a plan that refuses.
    """
    if isinstance(planned, Refuse):
        raise planned.error
    if isinstance(planned, (Request, Install)):
        action = "renewed" if observed.is_installed else "created"
    elif isinstance(planned, (Render, SetAttributes)):
        action = "repaired"
    elif isinstance(planned, Remove):
        return _removed(planned, observed)
    else:
        action = "none"
    return _unchanged(action, planned, desired, observed, runtime)


def change_of(target: Target, observed: Observed, history: History, runtime: Runtime) -> Change:
    """Return how the gateway is changed; the history is written where it differs from the present one."""
    return Change(
        directory_mode=target.directory_mode,
        keep=target.keep,
        nonce=runtime.nonce(),
        hooks=target.hooks,
        history=history.encode() if history != observed.history else None,
    )


# ---- one function for each plan ----


def _request(planned: Request, desired: Desired, source: Source, observed: Observed, runtime: Runtime) -> Outcome:
    if not isinstance(source, Platform):
        raise AssertionError("only the platform is asked for a response")
    arrived = request_response(desired, source, observed, planned.reason, runtime)
    outdated = _drop_repeated(planned.outdated, arrived, desired)
    due = (planned.reason, planned.message)
    step = plan_installation(desired, observed, arrived, outdated, due, runtime.now())
    return apply(step, desired, source, observed, runtime)


def _drop_repeated(outdated: tuple[Spooled, ...], arrived: Spooled, desired: Desired) -> tuple[Spooled, ...]:
    """Discard the entries of a Thing that the platform has returned once more; return the others."""
    repeated = [
        spooled
        for spooled in outdated
        if desired.repeatable and (spooled.thing_id is None or same_thing(spooled.thing_id, arrived.thing_id))
    ]
    responses.discard([spooled.entry for spooled in repeated])
    return tuple(spooled for spooled in outdated if spooled not in repeated)


def _install(planned: Install, desired: Desired, source: Source, observed: Observed, runtime: Runtime) -> Outcome:
    is_same = observed.record is not None and observed.record.identity_sha256 == planned.credentials.identity_sha256
    try:
        if desired.verify != "never" and not is_same:
            runtime.verify(planned.credentials)
        outcome = _put_or_confirm(planned, desired, observed, runtime)
    except (ProvisioningError, GatewayUnreachable) as error:
        if planned.entry is None:
            raise
        raise error.with_advice(
            f"The response of the platform is kept in {planned.entry.file}; the next run installs it from there."
        ) from None
    if planned.entry is not None and isinstance(source, Platform):
        _note_delivered(planned.entry, outcome.record, desired, source, runtime)
        requests.clean_up(source.place)
        responses.discard([planned.entry])
    _leave(planned.outdated, outcome.record, desired, source, runtime)
    return outcome


def _put_or_confirm(planned: Install, desired: Desired, observed: Observed, runtime: Runtime) -> Outcome:
    """Install the response, or note that the gateway has the same already."""
    before, history = observed.record, planned.history
    files, record = _rendered(planned, desired, runtime)
    action = _action(before, record, observed)
    if action != "unchanged" or before is None:
        change = change_of(desired.target, observed, history, runtime)
        generation = commands.install(runtime.execute, observed.gateway, files, change, runtime.now())
        return outcome_of(action, planned, desired, observed, record, history, generation, runtime)
    if planned.received_at != before.issued_at:
        history = history.confirm(before.identity_sha256, planned.received_at)
    if observed.gateway.bundle.leftovers or _has_drift(before, desired, observed):
        return _set_attributes(planned, history, desired, observed, runtime)
    if history != observed.history:
        change = change_of(desired.target, observed, history, runtime)
        commands.write_history(runtime.execute, observed.gateway, change)
    return outcome_of(
        "unchanged", planned, desired, observed, before, history, observed.gateway.bundle.current, runtime
    )


def _rendered(planned: Install, desired: Desired, runtime: Runtime) -> tuple[dict[str, File], Record]:
    thing = render.thing_id_of(planned.credentials)
    origin = Origin(
        source=planned.origin,
        issued_at=planned.received_at,
        hardware_id=desired.hardware_id,
        given_name=desired.given_name,
        retired=planned.history.retired(thing),
    )
    return _render(planned.credentials, planned.response, origin, desired, runtime)


def _render(
    parsed: Credentials, response: bytes, origin: Origin, desired: Desired, runtime: Runtime
) -> tuple[dict[str, File], Record]:
    kept = runtime.encrypt(response) if desired.vault_encrypted and runtime.encrypt else response
    return render.render(parsed, kept, desired.target.layout, desired.formats, origin, desired.templates)


def _action(before: Record | None, after: Record, observed: Observed) -> str:
    """Name what a response changes: ``created``, ``renewed``, ``refreshed``, ``repaired`` or ``unchanged``."""
    if before is None:
        return "renewed" if observed.is_installed else "created"
    if before.identity_sha256 != after.identity_sha256:
        return "renewed"
    if any(getattr(before, name) != getattr(after, name) for name in ("keys_expire_at", "formats", "templates_sha256")):
        return "refreshed"
    if _without_response(before) != _without_response(after):
        return "refreshed"
    return "repaired" if damaged_files(observed) else "unchanged"


def _without_response(record: Record) -> dict[str, str]:
    """Return the digests of what is rendered; the raw response may differ in what is not read."""
    return {name: digest for name, digest in record.files.items() if name != "credentials.json"}


def _has_drift(record: Record, desired: Desired, observed: Observed) -> bool:
    modes = modes_of(record, desired.target)
    return bool(preflight.attribute_drift(observed.gateway, modes, desired.target.directory_mode))


def _set_attributes(planned: Plan, history: History, desired: Desired, observed: Observed, runtime: Runtime) -> Outcome:
    record = observed.record
    if record is None:
        raise AssertionError("without a record there is nothing to compare attributes with")
    change = change_of(desired.target, observed, history, runtime)
    generation = commands.set_attributes(runtime.execute, observed.gateway, modes_of(record, desired.target), change)
    return outcome_of("repaired", planned, desired, observed, record, history, generation, runtime)


def _render_again(planned: Render, desired: Desired, observed: Observed, runtime: Runtime) -> Outcome:
    before = observed.record
    if before is None:
        raise AssertionError("without a record a response is requested")
    response = read_installed(observed.gateway, runtime, vault_encrypted=desired.vault_encrypted)
    parsed = installed_credentials(observed, desired.service, desired.field_map, response, runtime)
    origin = Origin(
        before.origin, before.issued_at, before.hardware_id, before.given_name, planned.history.retired(before.thing_id)
    )
    files, record = _render(parsed, response, origin, desired, runtime)
    change = change_of(desired.target, observed, planned.history, runtime)
    generation = commands.install(runtime.execute, observed.gateway, files, change, runtime.now())
    return outcome_of("repaired", planned, desired, observed, record, planned.history, generation, runtime)


def _write_history(
    planned: WriteHistory, desired: Desired, source: Source, observed: Observed, runtime: Runtime
) -> Outcome:
    if planned.history != observed.history:
        change = change_of(desired.target, observed, planned.history, runtime)
        commands.write_history(runtime.execute, observed.gateway, change)
    _leave(planned.outdated, observed.record, desired, source, runtime)
    current = observed.gateway.bundle.current
    return outcome_of("none", planned, desired, observed, observed.record, planned.history, current, runtime)


def _remove(planned: Remove, desired: Desired, source: Source, observed: Observed, runtime: Runtime) -> Outcome:
    if planned.on_gateway:
        change = change_of(desired.target, observed, planned.history, runtime)
        commands.remove(runtime.execute, observed.gateway, change)
    _leave(planned.outdated, None, desired, source, runtime)
    if isinstance(source, Platform):
        for entry in observed.ledger.entries:
            if (entry.host, entry.path) == (desired.host, desired.target.path) and entry.left_at is None:
                ledger.append(source.place, "left", entry, runtime.now())
    return _removed(planned, observed)


# ---- outcomes ----


def _removed(planned: Remove, observed: Observed) -> Outcome:
    action = "removed" if planned.on_gateway or planned.outdated else "none"
    return Outcome(action, planned.reason, planned.message, observed.record, observed.record, planned.history, None, ())


def _unchanged(action: str, planned: Plan, desired: Desired, observed: Observed, runtime: Runtime) -> Outcome:
    current = observed.gateway.bundle.current
    return outcome_of(action, planned, desired, observed, observed.record, observed.history, current, runtime)


# ---- spool and ledger ----


def _leave(
    outdated: tuple[Spooled, ...], in_use: Record | None, desired: Desired, source: Source, runtime: Runtime
) -> None:
    """Discard entries whose Things are in use, on the retirement list, or known to the ledger alone.

    :param in_use: the record of the generation in use.
    """
    if not isinstance(source, Platform):
        return
    for spooled in outdated:
        if in_use is not None and same_thing(spooled.thing_id, in_use.thing_id):
            _note_delivered(spooled.entry, in_use, desired, source, runtime)
        else:
            ledger.append(source.place, "left", ledger.entry_of(spooled.entry, spooled.thing_id), runtime.now())
        requests.clean_up(source.place)
        responses.discard([spooled.entry])


def _note_delivered(entry: Entry, in_use: Record | None, desired: Desired, source: Source, runtime: Runtime) -> None:
    """Write into the ledger that the gateway has the Thing of a response."""
    if isinstance(source, Platform) and in_use is not None:
        delivered = replace(ledger.entry_of(entry, in_use.thing_id), host=desired.host, path=desired.target.path)
        ledger.append(source.place, "delivered", delivered, runtime.now())

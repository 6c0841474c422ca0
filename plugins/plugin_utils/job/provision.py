# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: look, decide, ask if due, install.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..bundle import history
from ..bundle import render as bundle
from ..errors import GatewayUnreachable, ProvisioningError
from ..gateway import commands as gateway
from ..platform import credentials
from ..platform.services import SERVICES, Service
from ..spool import responses as spool
from . import answers, policy
from .order import Order, Outcome, Runtime, Target

_PREDICTED = {"ask": "renewed", "render": "repaired", "attributes": "repaired", "nothing": "none"}


def ensure_present(order: Order, runtime: Runtime, check_mode: bool = False) -> Outcome:
    """Ensures that the gateway has sound credentials that are not due for renewal.

    :raises ProvisioningError: with one of ``errors.ERROR_CODES``; see there and in each layer.
    """
    if order.sealed and runtime.encrypt is None:
        raise ProvisioningError(
            "bad_option", "sealed needs an Ansible Vault secret, as --vault-password-file gives one."
        )
    held = look(order.target, runtime)
    kept = answers.kept_for(order, runtime, held)
    if order.only_installed and held.current is None and kept.pending is None:
        return outcome_of("none", "absent", order.target, held, None, None)
    decision = policy.decide(state_of(held, order.target), order.wanted, runtime.now())
    if decision.remedy == "nothing" and kept.pending is None and order.proving == "always" and not check_mode:
        decision = _proven(order, runtime, held)
    if decision.remedy == "nothing" and kept.pending is None:
        _remember(order, runtime, held, kept, check_mode)
        return _with_due_date(order, outcome_of("none", decision.reason, order.target, held, held.record, held.current))
    asking = decision.remedy == "ask" or kept.pending is not None
    if asking and held.current is not None:
        held = _look_again(order, runtime, held)
    gateway.require_installable(held, order.target.owner, order.target.group)
    if decision.remedy == "ask":
        answers.check(order, kept)
    if check_mode:
        predicted = "renewed" if kept.pending is not None else _PREDICTED[decision.remedy]
        action = "created" if decision.reason == "absent" else predicted
        outcome = outcome_of(action, decision.reason, order.target, held, held.record, held.current)
    elif asking:
        outcome = _renew(order, runtime, held, decision, kept)
    else:
        outcome = _repair(order, runtime, held, decision)
    return _with_due_date(order, outcome)


def ensure_absent(order: Order, runtime: Runtime, check_mode: bool = False) -> Outcome:
    """Ensures that the gateway holds no credentials at the path, and that their Things are on the retirement list.

    :raises ProvisioningError: as ``ensure_present``, as far as the gateway is concerned.
    """
    held = look(order.target, runtime)
    if held.current is None and "generations" not in held.directories and not held.leftovers:
        return Outcome("none", "none", None, None, None, ())
    gateway.require_changeable(held)
    unused = answers.Kept(None, tuple(spool.load(order.spool_place, runtime.decrypt)))
    past, taken = answers.with_obsolete(_whole_past(order, runtime, held), order, unused)
    past = history.leave(past, held.record, runtime.now())
    if not check_mode:
        gateway.remove(runtime.execute, held, change_of(order.target, runtime, held, past))
        for entry in taken:
            spool.discard(entry)
    thing = {**held.record, "retired": history.retired(past, None)} if held.record else None
    return Outcome("removed", "absent", held.record, thing, None, ())


def look(target: Target, runtime: Runtime, *, thorough: bool = False) -> gateway.Held:
    """What the gateway holds; its record is one that can be read, and tells the history."""
    return understood(gateway.probe(runtime.execute, target.layout.path, target.owner, target.group, thorough=thorough))


def understood(held: gateway.Held) -> gateway.Held:
    """What a gateway claims, with a record that can be read, or none, and that tells the history."""
    record = policy.readable(held.record)
    return replace(held, record=history.told(record, history.readable(held.history, record)))


def change_of(target: Target, runtime: Runtime, held: gateway.Held, past: history.History) -> gateway.Change:
    """How the gateway is changed; the history is written down where it has become another one."""
    return gateway.Change(
        directory_mode=target.directory_mode,
        keep=target.keep,
        nonce=runtime.nonce(),
        consumers=target.consumers,
        history=history.encode(past) if past != past_of(held) else None,
    )


def past_of(held: gateway.Held) -> history.History:
    """The history of the path, as far as it can be read."""
    return history.readable(held.history, held.record)


def whole_past(
    target: Target,
    runtime: Runtime,
    held: gateway.Held,
    field_map: Mapping[str, str] | None = None,
    sealed: bool = False,
) -> history.History:
    """The history of the path, with the Things of generations that are about to go and that no record in use names.

    That is so where the link to the generation in use is gone, or its record cannot be read. Then this looks at every
    generation, and into the installed response.
    """
    past = past_of(held)
    if held.record is not None or (held.current is None and "generations" not in held.directories):
        return past
    generations = held.generations
    if not generations:
        (surveyed,) = gateway.survey(runtime.execute, [target.layout.path], target.owner, target.group)
        generations = surveyed.generations
    records = [record for _name, record in sorted(generations.items()) if record]
    found = [record for record in records if record.get("client_id") or policy.readable(record)]
    if held.current is not None:
        found += _things_of_response(runtime, held, field_map or {}, sealed)
    return history.note(past, found, runtime.now())


def _whole_past(order: Order, runtime: Runtime, held: gateway.Held) -> history.History:
    return whole_past(order.target, runtime, held, order.field_map, order.sealed)


def _things_of_response(
    runtime: Runtime, held: gateway.Held, field_map: Mapping[str, str], sealed: bool
) -> list[Mapping[str, Any]]:
    """The Thing that an installed response names, if it is one of a service and names any."""
    try:
        response = credentials.decode(_installed_response(runtime, held, sealed))
    except ProvisioningError:
        return []
    for service in SERVICES.values():
        fields = credentials.extract(response, service, field_map)
        if credentials.is_ready(fields, service) and "client_id" in fields:
            return [{"client_id": fields["client_id"], "service": service.name}]
    return []


def _look_again(order: Order, runtime: Runtime, held: gateway.Held) -> gateway.Held:
    """The look before a request: what could make the installation fail, and whether another run was faster."""
    again = look(order.target, runtime, thorough=True)
    if again.current != held.current:
        raise ProvisioningError(
            "concurrent_change",
            f"Another run has changed {held.path}: current is {again.current}, it was {held.current}. Run again.",
        )
    return again


def _remember(order: Order, runtime: Runtime, held: gateway.Held, kept: answers.Kept, check_mode: bool) -> None:
    """Puts the Things of obsolete answers on the retirement list where nothing else is to be done."""
    past, taken = answers.with_obsolete(past_of(held), order, kept)
    if not taken or check_mode:
        return
    gateway.remember(runtime.execute, held, change_of(order.target, runtime, held, past))
    for entry in taken:
        spool.discard(entry)


def _proven(order: Order, runtime: Runtime, held: gateway.Held) -> policy.Decision:
    """Uses the installed credentials; where they are refused and that is wanted, they are due."""
    try:
        runtime.prove(read_installed(order.service, order.field_map, runtime, held))
    except ProvisioningError as error:
        if error.code != "credentials_refused" or not order.renew_refused:
            raise
        return policy.Decision("refused", "ask")
    return policy.Decision("none", "nothing")


def read_installed(
    service: Service, field_map: Mapping[str, str], runtime: Runtime, held: gateway.Held
) -> credentials.Credentials:
    """The credentials in use, from the installed response.

    :raises ProvisioningError: as ``gateway.read_response`` and ``credentials.check``.
    """
    issued_at = policy.moment(held.record, "issued_at") if held.record else None
    return answers.parse(_installed_response(runtime, held, False), service, field_map, issued_at or runtime.now())


def _installed_response(runtime: Runtime, held: gateway.Held, sealed: bool) -> bytes:
    """The raw response in clear.

    Nothing is decrypted but where a sealed store is asked for: a compromised gateway could hold the sealed response of
    another one, and would get it back in clear.
    """
    response = gateway.read_response(runtime.execute, held)
    if sealed:
        try:
            return runtime.decrypt(response)
        except ValueError:
            raise ProvisioningError(
                "bad_option", f"{held.path} cannot be opened: run with the Ansible Vault secret it was sealed with."
            ) from None
    if response.startswith(b"$ANSIBLE_VAULT;"):
        raise ProvisioningError(
            "bad_option", f"{held.path} holds a sealed response: set sealed, or ask for a new one with force."
        )
    return response


def state_of(held: gateway.Held, target: Target) -> policy.State:
    """Compares what a gateway holds with its own record, and with the owner and modes that are wanted."""
    record = held.record
    if record is None:
        return policy.State(None, held.current is not None, (), False, False)
    digests = record["files"]
    modes = _modes_of(record, target)
    return policy.State(
        record=record,
        present=held.current is not None,
        damaged=[name for name, digest in digests.items() if held.digests.get(name) != digest],
        response_intact=held.digests.get("credentials.json", "absent") == digests.get("credentials.json"),
        attributes_differ=bool(held.leftovers or gateway.drift(held, modes, target.directory_mode)),
    )


def _renew(
    order: Order, runtime: Runtime, held: gateway.Held, decision: policy.Decision, kept: answers.Kept
) -> Outcome:
    """Installs what is in the spool or, if there is nothing, what the platform answers."""
    reason = decision.reason if decision.remedy == "ask" or kept.pending is None else kept.pending.reason
    past = _whole_past(order, runtime, held)
    found = answers.from_spool(order, runtime, kept.pending)
    if found is None and kept.pending is not None:
        kept = answers.Kept(None, (*kept.obsolete, kept.pending))
    found = found or answers.given(order, runtime, reason)
    parsed, entry = found or answers.from_platform(order, runtime, reason, kept)
    is_same = held.record is not None and held.record["identity_sha256"] == parsed.identity_sha256
    problem = _wrong_delivery(order, parsed)
    if problem is None and is_same and policy.rotation_due(held.record, order.wanted):
        problem = _not_rotated()
    if problem is None and is_same and decision.reason == "refused":
        problem = _still_refused()
    if problem is not None:
        if not is_same and entry.file is not None:
            raise problem.with_advice(answers.advice(entry))
        spool.discard(entry)  # the gateway has it already
        raise problem
    past, taken = answers.with_obsolete(past, order, kept)
    try:
        if order.proving != "never" and not is_same:
            runtime.prove(parsed)
        outcome = _install(order, runtime, held, reason, parsed, entry, past)
    except (ProvisioningError, GatewayUnreachable) as error:
        if entry.file is None:
            raise
        raise error.with_advice(
            f"The response of the platform is kept in {entry.file}; the next run installs it from there."
        ) from None
    for installed in (entry, *taken):
        spool.discard(installed)
    return outcome


def _not_rotated() -> ProvisioningError:
    return ProvisioningError(
        "not_rotated",
        "The platform returned the same credentials as before: they have not been rotated, and the gateway keeps them. "
        "The device profile returns the existing credentials of a hardware ID. Use the token of another profile, or "
        "remove the Thing in the portal so that its hardware ID is free for a new one, then run again.",
    )


def _still_refused() -> ProvisioningError:
    return ProvisioningError(
        "credentials_refused",
        "The credentials in use are refused, and the platform returned the same ones again: look at the Thing in the "
        "portal, and at its plan, then run again.",
    )


def _install(
    order: Order,
    runtime: Runtime,
    held: gateway.Held,
    reason: str,
    parsed: credentials.Credentials,
    entry: spool.Entry,
    past: history.History,
) -> Outcome:
    before = held.record
    thing = {"client_id": parsed.client_id, "service": parsed.service, "hardware_id": order.wanted.hardware_id}
    if before is not None and not history.same_thing(before, thing):
        past = history.leave(past, before, entry.received_at)
    identity = {
        **thing,
        "given_name": order.given_name,
        "origin": order.origin,
        "retired": history.retired(past, thing),
    }
    files, record = _rendered(order, runtime, parsed, entry.response, identity, entry.received_at)
    state = state_of(held, order.target)
    action = policy.classify(before, record)
    if before is None and held.current is not None:
        action = "renewed"  # nobody can read what was there
    elif action == "unchanged" and state.damaged:
        action = "repaired"
    if action == "unchanged" and before is not None:
        if policy.timestamp(entry.received_at) != before["issued_at"]:
            past = history.confirm(past, before, entry.received_at)
        if state.attributes_differ:
            return _repair(order, runtime, held, policy.Decision(reason, "attributes"), past)
        if past != past_of(held):
            gateway.remember(runtime.execute, held, change_of(order.target, runtime, held, past))
        return outcome_of(action, reason, order.target, held, history.told(before, past), held.current)
    generation = _put(order, runtime, held, files, past)
    return outcome_of(action, reason, order.target, held, history.told(record, past), generation)


def _rendered(
    order: Order,
    runtime: Runtime,
    parsed: credentials.Credentials,
    response: bytes,
    identity: Mapping[str, Any],
    issued_at: datetime,
) -> tuple[dict[str, gateway.File], dict[str, Any]]:
    layout, formats = order.target.layout, order.wanted.formats
    kept = runtime.encrypt(response) if order.sealed and runtime.encrypt else response
    return bundle.render(parsed, kept, layout, formats, identity, issued_at, order.templates)


def _repair(
    order: Order,
    runtime: Runtime,
    held: gateway.Held,
    decision: policy.Decision,
    past: history.History | None = None,
) -> Outcome:
    """Brings a gateway back in order without the platform."""
    before = held.record or {}
    past = past_of(held) if past is None else past
    if decision.remedy == "attributes":
        change = change_of(order.target, runtime, held, past)
        gateway.repair(runtime.execute, held, files_of(before, order.target), change)
        told = history.told(before, past)
        return outcome_of("repaired", decision.reason, order.target, held, told, held.current)
    response = _installed_response(runtime, held, order.sealed)
    issued_at = policy.moment(before, "issued_at") or runtime.now()
    parsed = answers.parse(response, order.service, order.field_map, issued_at)
    files, record = _rendered(order, runtime, parsed, response, before, issued_at)
    generation = _put(order, runtime, held, files, past)
    return outcome_of("repaired", decision.reason, order.target, held, history.told(record, past), generation)


def files_of(record: Mapping[str, Any], target: Target) -> dict[str, gateway.File]:
    """The modes that the files of an installed bundle must have; without their content."""
    return {name: gateway.File(b"", mode) for name, mode in _modes_of(record, target).items()}


def _modes_of(record: Mapping[str, Any], target: Target) -> dict[str, int]:
    return bundle.file_modes(record, target.layout.secret_mode, target.layout.public_mode)


def _put(
    order: Order, runtime: Runtime, held: gateway.Held, files: Mapping[str, gateway.File], past: history.History
) -> str:
    change = change_of(order.target, runtime, held, past)
    return gateway.install(runtime.execute, held, files, change, runtime.now())


def _wrong_delivery(order: Order, parsed: credentials.Credentials) -> ProvisioningError | None:
    if order.wanted.delivery in (None, *parsed.delivery):
        return None
    return ProvisioningError(
        "wrong_delivery",
        f"The platform delivers {' and '.join(parsed.delivery) or 'nothing'} to this gateway, not "
        f"{order.wanted.delivery}. Use the token of a device profile for {order.wanted.delivery}; if it is, the "
        "hardware ID still belongs to a Thing of the old profile: remove that one in the portal, then run again.",
    )


def outcome_of(
    action: str,
    reason: str,
    target: Target,
    held: gateway.Held,
    thing: Mapping[str, Any] | None,
    generation: str | None,
) -> Outcome:
    """What a run did, with the files as they must be on the gateway."""
    modes = _modes_of(thing, target) if thing else {}
    files = tuple(
        {
            "path": f"{target.layout.path}/current/{name}",
            "mode": f"{mode:04o}",
            "owner": target.owner or held.user_name,
            "group": target.group or held.groups.get(held.group_id or 0, str(held.group_id)),
        }
        for name, mode in sorted(modes.items())
    )
    return Outcome(action, reason, held.record, thing, generation, files)


def _with_due_date(order: Order, outcome: Outcome) -> Outcome:
    due_at = policy.renewal_due_at(outcome.thing, order.wanted) if outcome.thing else None
    return replace(outcome, due_at=due_at)

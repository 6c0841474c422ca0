# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: look, decide, ask if due, install.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from . import api, bundle, credentials, escrow, gateway, policy
from .errors import GatewayUnreachable, ProvisioningError
from .services import Service

FIRST_ACTIVATION_WAIT = 5.0  # seconds, doubled each time up to the longest; as clients do (seen in client code)
LONGEST_ACTIVATION_WAIT = 30.0

_PREDICTED = {"ask": "renewed", "render": "repaired", "attributes": "repaired", "nothing": "none"}


@dataclass(frozen=True)
class Order:
    """Everything that one run wants of one gateway. Only ``token`` is a secret; times are seconds.

    :param given_name: the name of the Thing in the portal.
    :param layout: path and modes on the gateway; ``owner`` and ``group`` are ``None`` for those of the user there.
    """

    service: Service
    wanted: policy.Wanted
    token: str | None = field(repr=False)
    given_name: str
    tags: tuple[str, ...] | None
    field_map: Mapping[str, str]
    endpoint: api.Endpoint
    repeatable: bool
    activation_timeout: float
    layout: bundle.Layout
    directory_mode: int
    owner: str | None
    group: str | None
    keep: int
    escrow_file: Path


@dataclass(frozen=True)
class World:
    """What a run touches besides its order; tests put their own in place."""

    execute: gateway.Execute
    post: api.Post
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    uniform: Callable[[float, float], float]
    nonce: Callable[[], str]
    encrypt: escrow.Cipher | None
    decrypt: escrow.Cipher


@dataclass(frozen=True)
class Outcome:
    """What a run did: an action and its reason, the records before and after, and what is installed now."""

    action: str
    reason: str
    before: Mapping[str, Any] | None
    thing: Mapping[str, Any] | None
    generation: str | None
    files: tuple[Mapping[str, Any], ...]
    due_at: datetime | None = None

    @property
    def changed(self) -> bool:
        """Whether anything on the gateway is, or in check mode would be, different."""
        return self.action not in ("none", "unchanged")


def ensure_present(order: Order, world: World, check_mode: bool = False) -> Outcome:
    """Ensures that the gateway has sound credentials that are not due for renewal.

    :raises ProvisioningError: with one of ``errors.ERROR_CODES``; see there and in each layer.
    """
    held = _look(order, world)
    decision = policy.decide(state_of(held, order), order.wanted, world.now())
    pending = _pending(order, world, held)
    if decision.remedy == "nothing" and pending is None:
        return _outcome("none", decision.reason, order, held, held.record, held.current)
    asking = decision.remedy == "ask" or pending is not None
    if asking and held.current is not None:
        held = _look_again(order, world, held)
    gateway.require_installable(held, order.owner, order.group)
    if decision.remedy == "ask":
        api.check_request(order.token, order.given_name, order.endpoint.url)
    if check_mode:
        predicted = "renewed" if pending is not None else _PREDICTED[decision.remedy]
        action = "created" if decision.reason == "absent" else predicted
        return _outcome(action, decision.reason, order, held, held.record, held.current)
    if asking:
        return _renew(order, world, held, decision, pending)
    return _repair(order, world, held, decision)


def ensure_absent(order: Order, world: World, check_mode: bool = False) -> Outcome:
    """Ensures that the gateway holds no credentials at the path. The Thing itself stays on the platform.

    :raises ProvisioningError: as ``ensure_present``, as far as the gateway is concerned.
    """
    held = _look(order, world)
    if held.current is None and "generations" not in held.directories and not held.leftovers:
        return Outcome("none", "none", None, None, None, ())
    gateway.require_changeable(held)
    if not check_mode:
        gateway.remove(world.execute, held)
    return Outcome("removed", "absent", held.record, None, None, ())


def _look(order: Order, world: World, thorough: bool = False) -> gateway.Held:
    held = gateway.probe(world.execute, order.layout.path, order.owner, order.group, thorough=thorough)
    return replace(held, record=policy.readable(held.record))


def _look_again(order: Order, world: World, held: gateway.Held) -> gateway.Held:
    """The look before a request: what could make the installation fail, and whether another run was faster."""
    again = _look(order, world, thorough=True)
    if again.current != held.current:
        raise ProvisioningError(
            "concurrent_change",
            f"Another run has changed {held.path}: current is {again.current}, it was {held.current}. Run again.",
        )
    return again


def _pending(order: Order, world: World, held: gateway.Held) -> escrow.Entry | None:
    """The answer in escrow, unless what is installed is newer: then another run has made it obsolete."""
    entry = escrow.load(order.escrow_file, world.decrypt)
    issued_at = policy.moment(held.record, "issued_at") if held.record else None
    return None if entry and issued_at and entry.received_at < issued_at else entry


def state_of(held: gateway.Held, order: Order) -> policy.State:
    """Compares what a gateway holds with its own record, and with the owner and modes that are wanted."""
    record = held.record
    if record is None:
        return policy.State(None, held.current is not None, (), False, False)
    digests = record["files"]
    modes = bundle.file_modes(record, order.layout.secret_mode, order.layout.public_mode)
    return policy.State(
        record=record,
        present=held.current is not None,
        damaged=[name for name, digest in digests.items() if held.digests.get(name) != digest],
        response_intact=held.digests.get("credentials.json", "absent") == digests.get("credentials.json"),
        attributes_differ=bool(held.leftovers or gateway.drift(held, modes, order.directory_mode)),
    )


def _renew(
    order: Order, world: World, held: gateway.Held, decision: policy.Decision, pending: escrow.Entry | None
) -> Outcome:
    """Installs what is in escrow or, if there is nothing, what the platform answers."""
    parsed, entry = _from_escrow(order, world, pending) or _from_platform(order, world, decision.reason)
    reason = decision.reason if decision.remedy == "ask" else entry.reason
    try:
        outcome = _install(order, world, held, reason, parsed, entry)
    except (ProvisioningError, GatewayUnreachable) as error:
        raise error.with_advice(
            f"The response of the platform is kept in {order.escrow_file}; the next run installs it from there."
        ) from None
    escrow.discard(order.escrow_file)
    return outcome


def _install(
    order: Order,
    world: World,
    held: gateway.Held,
    reason: str,
    parsed: credentials.Credentials,
    entry: escrow.Entry,
) -> Outcome:
    before = held.record
    identity = {
        "hardware_id": order.wanted.hardware_id,
        "given_name": order.given_name,
        "retired": _retired(before, parsed, entry.received_at),
    }
    files, record = bundle.render(
        parsed, entry.response, order.layout, order.wanted.formats, identity, entry.received_at
    )
    state = state_of(held, order)
    action = policy.classify(before, record)
    if before is None and held.current is not None:
        action = "renewed"  # nobody can read what was there
    elif action == "unchanged" and state.damaged:
        action = "repaired"
    if action == "unchanged":
        if state.attributes_differ:
            return _repair(order, world, held, policy.Decision(reason, "attributes"))
        return _outcome(action, reason, order, held, before, held.current)
    generation = _put(order, world, held, files)
    return _outcome(action, reason, order, held, record, generation)


def _repair(order: Order, world: World, held: gateway.Held, decision: policy.Decision) -> Outcome:
    """Brings a gateway back in order without the platform."""
    before = held.record or {}
    if decision.remedy == "attributes":
        modes = bundle.file_modes(before, order.layout.secret_mode, order.layout.public_mode)
        files = {name: gateway.File(b"", mode) for name, mode in modes.items()}
        nonce = world.nonce()
        gateway.repair(world.execute, held, files, directory_mode=order.directory_mode, keep=order.keep, nonce=nonce)
        return _outcome("repaired", decision.reason, order, held, before, held.current)
    response = gateway.read_response(world.execute, held)
    issued_at = policy.moment(before, "issued_at") or world.now()
    parsed = _parse(response, order, issued_at)
    files, record = bundle.render(parsed, response, order.layout, order.wanted.formats, before, issued_at)
    generation = _put(order, world, held, files)
    return _outcome("repaired", decision.reason, order, held, record, generation)


def _put(order: Order, world: World, held: gateway.Held, files: Mapping[str, gateway.File]) -> str:
    return gateway.install(
        world.execute,
        held,
        files,
        directory_mode=order.directory_mode,
        keep=order.keep,
        nonce=world.nonce(),
        modified_at=world.now(),
    )


def _from_escrow(
    order: Order, world: World, pending: escrow.Entry | None
) -> tuple[credentials.Credentials, escrow.Entry] | None:
    if pending is None:
        return None
    try:
        return _parse(pending.response, order, world.now()), pending
    except ProvisioningError as error:
        if order.repeatable:
            return None  # asking again brings the same Thing
        raise error.with_advice(_kept(order)) from None


def _kept(order: Order) -> str:
    return (
        f"The response is kept in {order.escrow_file}: correct field_map and run again, or remove that file to ask the "
        "platform again."
    )


def _from_platform(order: Order, world: World, reason: str) -> tuple[credentials.Credentials, escrow.Entry]:
    """Asks until the Thing is active, and keeps every response before looking into it.

    :raises ProvisioningError: as ``api.ask`` and ``credentials.check``, and ``activation_pending``.
    """
    api.check_request(order.token, order.given_name, order.endpoint.url)
    escrow.prepare(order.escrow_file, world.encrypt)
    wait, waited = FIRST_ACTIVATION_WAIT, 0.0
    while True:
        raw = _ask(order, world)
        entry = escrow.Entry(
            service=order.service.name,
            hardware_id=order.wanted.hardware_id,
            given_name=order.given_name,
            reason=reason,
            received_at=world.now(),
            response=raw,
        )
        escrow.store(order.escrow_file, entry, world.encrypt)
        try:
            response = credentials.decode(raw)
            fields = credentials.extract(response, order.service, order.field_map)
            if credentials.is_ready(fields, order.service):
                return credentials.check(response, fields, order.service, order.field_map, world.now()), entry
        except ProvisioningError as error:
            raise error.with_advice(_kept(order)) from None
        escrow.discard(order.escrow_file)
        if not order.repeatable or waited + wait > order.activation_timeout:
            raise ProvisioningError(
                "activation_pending",
                "The platform has not activated the Thing yet. Switch on Auto Activate in the device profile or "
                "activate the Thing in the portal, then run again; activation_timeout says how long a run waits. If "
                "the Thing is active, the answer has another shape than expected (keys that arrived: "
                f"{credentials.key_names(response)}): see field_map.",
                200,
            )
        world.sleep(wait)
        waited, wait = waited + wait, min(wait * 2, LONGEST_ACTIVATION_WAIT)


def _ask(order: Order, world: World) -> bytes:
    body = {
        "token": order.token,
        "givenName": order.given_name,
        "hardwareId": order.wanted.hardware_id,
        "tags": list(order.tags) if order.tags is not None else None,
    }
    return api.ask(
        order.endpoint,
        {name: value for name, value in body.items() if value is not None},
        repeatable=order.repeatable,
        post=world.post,
        sleep=world.sleep,
        uniform=world.uniform,
        now=world.now,
    )


def _parse(raw: bytes, order: Order, now: datetime) -> credentials.Credentials:
    response = credentials.decode(raw)
    fields = credentials.extract(response, order.service, order.field_map)
    return credentials.check(response, fields, order.service, order.field_map, now)


def _retired(before: Mapping[str, Any] | None, after: credentials.Credentials, since: datetime) -> list[Any]:
    """The Things that this gateway no longer uses and that stay active on the platform until somebody acts."""
    if before is None:
        return []
    retired = list(before["retired"])
    if before["client_id"] and before["client_id"] != after.client_id:
        names = ("client_id", "service", "hardware_id", "given_name")
        retired.append({**{name: before.get(name) for name in names}, "since": policy.timestamp(since)})
    return retired


def _outcome(
    action: str,
    reason: str,
    order: Order,
    held: gateway.Held,
    thing: Mapping[str, Any] | None,
    generation: str | None,
) -> Outcome:
    modes = bundle.file_modes(thing, order.layout.secret_mode, order.layout.public_mode) if thing else {}
    files = tuple(
        {
            "path": f"{order.layout.path}/current/{name}",
            "mode": f"{mode:04o}",
            "owner": order.owner or held.user_name,
            "group": order.group or held.groups.get(held.group_id or 0, str(held.group_id)),
        }
        for name, mode in sorted(modes.items())
    )
    due_at = policy.renewal_due_at(thing, order.wanted) if thing else None
    return Outcome(action, reason, held.record, thing, generation, files, due_at)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an answer comes from: escrow, or the platform, whose answer goes into escrow before anybody looks into it.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import api, credentials, escrow, gateway, history, policy
from .errors import ProvisioningError
from .order import Order, World
from .services import CLIENT_ID, Service

FIRST_ACTIVATION_WAIT = 5.0  # seconds, doubled each time up to the longest; as clients do (seen in client code)
LONGEST_ACTIVATION_WAIT = 30.0


@dataclass(frozen=True)
class Kept:
    """What escrow holds for one Thing: the answer to install, and answers that something newer has made obsolete."""

    pending: escrow.Entry | None = None
    obsolete: tuple[escrow.Entry, ...] = ()


def kept_for(order: Order, world: World, held: gateway.Held) -> Kept:
    """What escrow holds for the Thing of an order.

    :raises ProvisioningError: as ``escrow.load``.
    """
    if order.answer is not None:
        return Kept()  # it is on the controller, and stays there
    entries = escrow.load(order.escrow_place, world.decrypt)
    if not entries:
        return Kept()
    *older, latest = entries
    issued_at = policy.moment(held.record, "issued_at") if held.record else None
    begin = order.wanted.rotate_before if policy.rotation_due(held.record, order.wanted) else issued_at
    if begin is not None and latest.received_at < begin:
        return Kept(None, tuple(entries))
    return Kept(latest, tuple(older))


def with_obsolete(past: history.History, order: Order, kept: Kept) -> tuple[history.History, list[escrow.Entry]]:
    """The history with the Things of obsolete answers, which nobody will ever use, and those answers.

    An answer that cannot be understood stays in escrow where nobody else knows its Thing.
    """
    taken = []
    for entry in kept.obsolete:
        fields = _fields(order, entry)
        if fields is None:
            if order.repeatable:
                taken.append(entry)
            continue
        client_id = fields.get("client_id")
        if not (isinstance(client_id, str) and CLIENT_ID.fullmatch(client_id)):
            if not order.repeatable:
                continue
            client_id = None
        thing = {"client_id": client_id, "service": entry.service, "hardware_id": entry.hardware_id}
        if not any(history.same_thing(known, thing) for known in past["things"]):
            past = history.leave(past, {**thing, "given_name": entry.given_name}, entry.received_at)
        taken.append(entry)
    return past, taken


def from_escrow(
    order: Order, world: World, pending: escrow.Entry | None
) -> tuple[credentials.Credentials, escrow.Entry] | None:
    """What waits in escrow, if it can be used; ``None`` where asking again costs nothing.

    :raises ProvisioningError: as ``credentials.check``.
    """
    if pending is None:
        return None
    try:
        parsed = parse(pending.response, order.service, order.field_map, world.now())
    except ProvisioningError as error:
        if order.repeatable:
            return None  # asking again brings the same Thing
        raise error.with_advice(advice(pending)) from None
    if order.repeatable and order.wanted.delivery not in (None, *parsed.delivery):
        return None  # the token may be another one by now
    return parsed, pending


def check(order: Order) -> None:
    """Refuses what the platform would refuse, before it is asked.

    :raises ProvisioningError: as ``api.check_request``.
    """
    if order.answer is None:
        api.check_request(order.token, order.given_name, order.endpoint.url)


def given(order: Order, world: World, reason: str) -> tuple[credentials.Credentials, escrow.Entry] | None:
    """The answer that came from elsewhere, if there is one.

    :raises ProvisioningError: as ``credentials.decode`` and ``credentials.check``.
    """
    if order.answer is None:
        return None
    parsed = parse(order.answer, order.service, order.field_map, world.now())
    identity = (order.service.name, order.wanted.hardware_id, order.given_name)
    return parsed, escrow.Entry(*identity, reason, order.answered_at or world.now(), order.answer)


def from_platform(order: Order, world: World, reason: str, kept: Kept) -> tuple[credentials.Credentials, escrow.Entry]:
    """Asks until the Thing is active, and keeps every response before looking into it.

    :param kept: what escrow holds already; what is repeated is kept once.
    :raises ProvisioningError: as ``api.ask`` and ``credentials.check``, and ``activation_pending``.
    """
    check(order)
    escrow.prepare(order.escrow_place, world.encrypt, make_parents=order.escrow_make_parents)
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
        entry = escrow.store(order.escrow_place, entry, world.encrypt)
        for older in kept.obsolete:
            if order.repeatable and _client_id(order, older) == _client_id(order, entry):
                escrow.discard(older)
        try:
            response = credentials.decode(raw)
            fields = credentials.extract(response, order.service, order.field_map)
            if credentials.is_ready(fields, order.service):
                return credentials.check(response, fields, order.service, order.field_map, world.now()), entry
        except ProvisioningError as error:
            raise error.with_advice(advice(entry)) from None
        escrow.discard(entry)
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


def _fields(order: Order, entry: escrow.Entry) -> dict[str, Any] | None:
    """The fields of an answer, unchecked, or ``None`` if it cannot be understood at all."""
    try:
        return credentials.extract(credentials.decode(entry.response), order.service, order.field_map)
    except ProvisioningError:
        return None


def _client_id(order: Order, entry: escrow.Entry) -> object:
    return (_fields(order, entry) or {}).get("client_id")


def advice(entry: escrow.Entry) -> str:
    """What to do about an answer that cannot be used."""
    return (
        f"The response is kept in {entry.file}: correct field_map and run again, or remove that file to ask the "
        "platform again."
    )


def parse(raw: bytes, service: Service, field_map: Mapping[str, str], now: datetime) -> credentials.Credentials:
    """From a raw response to checked credentials.

    :raises ProvisioningError: as ``credentials.decode`` and ``credentials.check``.
    """
    response = credentials.decode(raw)
    fields = credentials.extract(response, service, field_map)
    return credentials.check(response, fields, service, field_map, now)

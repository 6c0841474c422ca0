# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an answer comes from: spool, or the platform, whose answer goes into the spool before anybody looks into it.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..bundle import history
from ..errors import ProvisioningError
from ..gateway import commands as gateway
from ..platform import api, credentials
from ..platform.services import CLIENT_ID, Service
from ..spool import responses as spool
from . import policy
from .order import Order, Runtime

FIRST_ACTIVATION_WAIT = 5.0  # seconds, doubled each time up to the longest; as clients do (seen in client code)
MAX_ACTIVATION_WAIT = 30.0


@dataclass(frozen=True)
class Kept:
    """What spool holds for one Thing: the answer to install, and answers that something newer has made obsolete."""

    pending: spool.Entry | None = None
    obsolete: tuple[spool.Entry, ...] = ()


def kept_for(order: Order, runtime: Runtime, held: gateway.Held) -> Kept:
    """What spool holds for the Thing of an order.

    :raises ProvisioningError: as ``spool.load``.
    """
    if order.answer is not None:
        return Kept()  # it is on the controller, and stays there
    entries = spool.load(order.spool_place, runtime.decrypt)
    if not entries:
        return Kept()
    *older, latest = entries
    issued_at = policy.moment(held.record, "issued_at") if held.record else None
    begin = order.wanted.rotate_before if policy.rotation_due(held.record, order.wanted) else issued_at
    if begin is not None and latest.received_at < begin:
        return Kept(None, tuple(entries))
    return Kept(latest, tuple(older))


def with_obsolete(past: history.History, order: Order, kept: Kept) -> tuple[history.History, list[spool.Entry]]:
    """The history with the Things of obsolete answers, which nobody will ever use, and those answers.

    An answer that cannot be understood stays in the spool where nobody else knows its Thing.
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
        past = history.note(past, [{**thing, "given_name": entry.given_name}], entry.received_at)
        taken.append(entry)
    return past, taken


def from_spool(
    order: Order, runtime: Runtime, pending: spool.Entry | None
) -> tuple[credentials.Credentials, spool.Entry] | None:
    """What waits in the spool, if it can be used; ``None`` where asking again costs nothing.

    :raises ProvisioningError: as ``credentials.check``.
    """
    if pending is None:
        return None
    try:
        parsed = parse(pending.response, order.service, order.field_map, runtime.now())
    except ProvisioningError as error:
        if order.repeatable:
            return None  # asking again brings the same Thing
        raise error.with_advice(advice(pending)) from None
    if order.repeatable and order.wanted.delivery not in (None, *parsed.delivery):
        return None  # the token may be another one by now
    return parsed, pending


def check(order: Order, kept: Kept) -> None:
    """Refuses, before the platform is asked, what it would refuse and what could create a second Thing.

    :raises ProvisioningError: as ``api.check_request``, and ``response_lost``.
    """
    if order.answer is not None:
        return
    api.check_request(order.token, order.given_name, order.endpoint.url)
    if order.repeatable or kept.pending is not None:
        return
    for request in spool.unanswered(order.spool_place):
        raise ProvisioningError(
            "response_lost",
            f"The answer to an earlier request got lost, which {request} tells the date of. {_look_first(request)}",
        )


def given(order: Order, runtime: Runtime, reason: str) -> tuple[credentials.Credentials, spool.Entry] | None:
    """The answer that came from elsewhere, if there is one.

    :raises ProvisioningError: as ``credentials.decode`` and ``credentials.check``.
    """
    if order.answer is None:
        return None
    parsed = parse(order.answer, order.service, order.field_map, runtime.now())
    identity = (order.service.name, order.wanted.hardware_id, order.given_name)
    return parsed, spool.Entry(*identity, reason, order.answered_at or runtime.now(), order.answer)


def from_platform(
    order: Order, runtime: Runtime, reason: str, kept: Kept
) -> tuple[credentials.Credentials, spool.Entry]:
    """Asks until the Thing is active, and keeps every response before looking into it.

    :param kept: what spool holds already; what is repeated is kept once.
    :raises ProvisioningError: as ``api.ask`` and ``credentials.check``, and ``activation_pending``, ``response_lost``.
    """
    check(order, kept)
    spool.prepare(order.spool_place, runtime.encrypt, make_parents=order.spool_make_parents)
    wait, waited = FIRST_ACTIVATION_WAIT, 0.0
    while True:
        entry = _asked(order, runtime, reason)
        for older in kept.obsolete:
            if order.repeatable and _client_id(order, older) == _client_id(order, entry):
                spool.discard(older)
        try:
            response = credentials.decode(entry.response)
            fields = credentials.extract(response, order.service, order.field_map)
            if credentials.is_ready(fields, order.service):
                return credentials.check(response, fields, order.service, order.field_map, runtime.now()), entry
        except ProvisioningError as error:
            raise error.with_advice(advice(entry)) from None
        pending = ProvisioningError(
            "activation_pending",
            "The platform has not activated the Thing yet. Switch on Auto Activate in the device profile or "
            "activate the Thing in the portal, then run again; activation_timeout says how long a run waits. If "
            "the Thing is active, the answer has another shape than expected (keys that arrived: "
            f"{credentials.key_names(response)}): see field_map.",
            200,
        )
        if not order.repeatable:
            raise pending.with_advice(advice(entry))  # asking again would create another Thing
        spool.discard(entry)
        if waited + wait > order.activation_timeout:
            raise pending
        runtime.sleep(wait)
        waited, wait = waited + wait, min(wait * 2, MAX_ACTIVATION_WAIT)


def _asked(order: Order, runtime: Runtime, reason: str) -> spool.Entry:
    """Asks once and keeps the answer. Nothing may come between the two: if the run dies there, the answer is lost.

    Where a repeated request may create another Thing, the next run is told of this one.
    """
    place, identity = order.spool_place, (order.service.name, order.wanted.hardware_id, order.given_name)
    if order.repeatable:
        answer = _ask(order, runtime)
        return spool.store(place, spool.Entry(*identity, reason, runtime.now(), answer), runtime.encrypt)
    with spool.announced(place, *identity, runtime.now()) as request:
        try:
            answer = _ask(order, runtime)
        except api.OutcomeUnknown as problem:
            raise problem.error.with_advice(_look_first(request)) from None
        except ProvisioningError:
            spool.withdraw(request)  # no Thing was created
            raise
        try:
            entry = spool.store(place, spool.Entry(*identity, reason, runtime.now(), answer), runtime.encrypt, request)
        except ProvisioningError as error:
            raise error.with_advice(_look_first(request)) from None
        spool.withdraw(request)
        return entry


def _look_first(request: Path) -> str:
    """What to do where an answer got lost."""
    return (
        "The platform may have created a Thing that nobody has the credentials of, and another request may create "
        "another one. Look for its hardware ID or name in the portal, remove the Thing if it is there, then remove "
        f"{request} on the controller and run again."
    )


def _ask(order: Order, runtime: Runtime) -> bytes:
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
        post=runtime.post,
        sleep=runtime.sleep,
        uniform=runtime.uniform,
        now=runtime.now,
    )


def _fields(order: Order, entry: spool.Entry) -> dict[str, Any] | None:
    """The fields of an answer, unchecked, or ``None`` if it cannot be understood at all."""
    try:
        return credentials.extract(credentials.decode(entry.response), order.service, order.field_map)
    except ProvisioningError:
        return None


def _client_id(order: Order, entry: spool.Entry) -> object:
    return (_fields(order, entry) or {}).get("client_id")


def advice(entry: spool.Entry) -> str:
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

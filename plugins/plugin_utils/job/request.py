# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request a response from the platform. It is in the spool before it is read, and in the ledger after that.

1. Space for the response is allocated in the spool, and its ledger file exists: a full disk fails here.
2. Where a repeated request may create another Thing, the request marker is taken, and the run looks once more whether
   another run was faster.
3. The request is sent. Its response is stored by the thread that receives it.
4. The marker is removed if the response is stored, or if the platform certainly made no Thing; otherwise it stays.

Private to the collection.
"""

from __future__ import annotations

from dataclasses import replace

from ..bundle.dates import whole_seconds
from ..bundle.thing_id import ThingId, parse_thing_id
from ..errors import ProvisioningError
from ..platform import api, credentials
from ..platform.credentials import Credentials
from ..spool import directory, ledger, requests, responses
from ..spool.ledger import PENDING
from ..spool.requests import OpenRequest
from ..spool.responses import Allocation, Entry
from .desired import Desired, Platform, Runtime
from .observe import Observed, Spooled
from .plan import kept_advice

FIRST_ACTIVATION_WAIT = 5.0  # seconds, doubled each time up to the maximum; as clients do (seen in client code)
MAX_ACTIVATION_WAIT = 30.0


def request_response(desired: Desired, source: Platform, observed: Observed, reason: str, runtime: Runtime) -> Spooled:
    """Send requests until the Thing is active, and return the last response.

    :raises ProvisioningError: as ``api.request`` and ``credentials.check``, and ``activation_pending``,
        ``response_lost``, ``concurrent_change``, ``spool_failed``.
    """
    directory.prepare(source.place.parent, make_parents=source.make_spool_parents)
    ledger.prepare(source.place)
    was_pending = any(entry.response == PENDING for entry in observed.ledger.entries)
    wait, waited = FIRST_ACTIVATION_WAIT, 0.0
    while True:
        try:
            entry = _send(desired, source, observed, reason, runtime)
        except ProvisioningError as error:
            if error.code == "already_registered" and was_pending:
                raise _registered_by_this_controller(error) from None
            raise
        response, arrived = _read(entry, desired, source, runtime)
        if arrived is not None:
            return arrived
        pending = _activation_pending(response)
        if not desired.repeatable:
            _note(entry, None, source, runtime)
            raise pending.with_advice(kept_advice(entry))  # another request would create another Thing
        if not was_pending:
            _note(entry, None, source, runtime, PENDING)
            was_pending = True
        responses.discard([entry])
        if waited + wait > source.activation_timeout:
            raise pending
        runtime.sleep(wait)
        waited, wait = waited + wait, min(wait * 2, MAX_ACTIVATION_WAIT)


def _send(desired: Desired, source: Platform, observed: Observed, reason: str, runtime: Runtime) -> Entry:
    """Send one request and return its response, which is in the spool."""
    sequence = responses.next_sequence(source.place, observed.ledger.received)
    allocation = responses.allocate(source.place, sequence)
    kept: list[Entry] = []

    def keep(body: bytes) -> None:
        entry = Entry(
            service=desired.service.name,
            hardware_id=desired.hardware_id,
            given_name=desired.given_name,
            host=desired.host,
            path=desired.target.path,
            reason=reason,
            received_at=whole_seconds(runtime.now()),
            sequence=sequence,
            replaces=observed.record.response_id if observed.record else None,
            response=body,
            file=allocation.file,
        )
        kept.append(allocation.store(entry, runtime.encrypt))

    sending = api.Sending(keep)
    try:
        marker = None if desired.repeatable else _mark(desired, source, observed, allocation, runtime)
        try:
            _request(desired, source, sending, marker, runtime)
        finally:
            if marker is not None:
                if kept or not sending.may_have_arrived:
                    marker.settle()
                marker.close()
    finally:
        allocation.release()
    return kept[-1]


def _mark(
    desired: Desired, source: Platform, observed: Observed, allocation: Allocation, runtime: Runtime
) -> OpenRequest:
    """Take the request marker, and make sure that what was observed is still so."""
    response = allocation.file.name.removeprefix(".")
    marker = requests.begin(
        source.place, desired.service.name, desired.hardware_id, desired.given_name, response, runtime.now()
    )
    try:
        known = {spooled.entry.file.name for spooled in observed.spooled}
        found = {file.name for file in responses.entry_files(source.place)}
        if found == known and ledger.read(source.place).responses == observed.ledger.responses:
            return marker
        raise ProvisioningError(
            "concurrent_change", "Another run has received a response for this gateway meanwhile. Run again."
        )
    except BaseException:  # whatever interrupts this, nothing was sent
        marker.settle()
        marker.close()
        raise


def _request(
    desired: Desired, source: Platform, sending: api.Sending, marker: OpenRequest | None, runtime: Runtime
) -> None:
    body = {
        "token": source.token,
        "givenName": desired.given_name,
        "hardwareId": desired.hardware_id,
        "tags": list(source.tags) if source.tags is not None else None,
    }
    try:
        api.request(
            source.endpoint,
            {name: value for name, value in body.items() if value is not None},
            sending,
            repeatable=desired.repeatable,
            post=runtime.post,
            sleep=runtime.sleep,
            uniform=runtime.uniform,
            now=runtime.now,
        )
    except api.OutcomeUnknown as problem:
        error = problem.error
        raise (error.with_advice(requests.look_first(marker.file)) if marker else error) from None
    except ProvisioningError as error:
        if marker is not None and sending.may_have_arrived:
            raise error.with_advice(requests.look_first(marker.file)) from None
        raise


def _read(
    entry: Entry, desired: Desired, source: Platform, runtime: Runtime
) -> tuple[dict[str, object], Spooled | None]:
    """Return the decoded response, and the credentials in it unless the platform still activates the Thing.

    :raises ProvisioningError: as ``credentials.check``; the ledger knows of the response nevertheless.
    """
    thing_id = None
    try:
        response = credentials.decode(entry.response)
        fields = credentials.extract(response, desired.service, desired.field_map)
        thing_id = parse_thing_id(fields.get("client_id"), credentials.login_sha256(fields))
        if not credentials.is_ready(fields, desired.service):
            return response, None
        parsed = credentials.check(response, fields, desired.service, desired.field_map, runtime.now())
    except ProvisioningError as error:
        _note(entry, thing_id, source, runtime)
        if error.code == "pair_mismatch":
            error = error.with_advice("Report it to u-blox.")
        raise error.with_advice(kept_advice(entry)) from None
    return response, _arrived(entry, parsed, source, runtime)


def _arrived(entry: Entry, parsed: Credentials, source: Platform, runtime: Runtime) -> Spooled:
    thing_id = ThingId(parsed.client_id, parsed.login_sha256)
    _note(entry, thing_id, source, runtime)
    return Spooled(entry, parsed, None, thing_id)


def _note(
    entry: Entry, thing_id: ThingId | None, source: Platform, runtime: Runtime, response: str | None = None
) -> None:
    """Write into the ledger that a response arrived."""
    noted = ledger.entry_of(entry, thing_id)
    ledger.append(source.place, "received", replace(noted, response=response) if response else noted, runtime.now())


def _activation_pending(response: dict[str, object]) -> ProvisioningError:
    return ProvisioningError(
        "activation_pending",
        "The platform has not activated the Thing yet. Switch on Auto Activate in the device profile or activate the "
        "Thing in the portal, then run again; activation_timeout says how long a run waits. If the Thing is active, "
        "the response has another shape than expected (keys that arrived: "
        f"{credentials.key_names(response)}): see field_map.",
        200,
    )


def _registered_by_this_controller(error: ProvisioningError) -> ProvisioningError:
    return ProvisioningError(
        "already_registered",
        "An earlier request of this controller registered this hardware ID; its Thing was not active yet, and the "
        "device profile refuses a repeated request. Set the profile's action for existing hardware codes to return the "
        f"existing device credentials, then run again. (HTTP {error.status})",
        error.status,
    )

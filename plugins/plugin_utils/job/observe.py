# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe the gateway's state, the spool, the request marker and the ledger before a plan is made. Nothing changes.

``observe`` is one remote command and one look into the spool directory, enough to find that nothing is due.
``observe_before_change`` adds what only matters to a run that is about to send a request or to install something.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..bundle.history import FormerThing, History
from ..bundle.record import RESPONSE_NAME, Record
from ..bundle.render import digest
from ..bundle.thing_id import ThingId, parse_thing_id
from ..errors import ProvisioningError
from ..gateway import commands
from ..gateway.protocol import GatewayState
from ..platform import credentials
from ..platform.credentials import Credentials
from ..platform.services import SERVICES, Service
from ..spool import directory, ledger, requests, responses
from ..spool.ledger import Ledger
from ..spool.requests import RequestMarker
from .desired import Desired, Platform, Runtime, Source, Target


@dataclass(frozen=True)
class Spooled:
    """A spool entry and what its response says.

    :param credentials: ``None`` where they cannot be used; then ``error`` says why.
    :param thing_id: which Thing it is, as far as that can be understood.
    """

    entry: responses.Entry
    credentials: Credentials | None
    error: ProvisioningError | None
    thing_id: ThingId | None


@dataclass(frozen=True)
class Observed:
    """The findings. ``record`` and ``history`` are parsed from the claims of the gateway.

    :param record: of the generation in use; ``None`` where there is none that can be read.
    :param spooled: responses for this Thing, oldest first.
    :param spool_error: why the entries cannot be read.
    :param spool_problem: why no further response could be stored.
    :param marker: a request for this Thing that is not settled.
    :param left_behind: Things that only damaged bundles on the gateway name.
    :param conflict: another run that changed the gateway between two looks.
    :param login_refused: whether a server refused the credentials in use in this run, beyond doubt.
    :param unverified: what the verification of the credentials in use could not find out.
    :param complete: whether ``observe_before_change`` was here.
    """

    gateway: GatewayState
    record: Record | None
    history: History
    spooled: tuple[Spooled, ...] = ()
    spool_error: ProvisioningError | None = None
    spool_problem: ProvisioningError | None = None
    marker: RequestMarker | None = None
    ledger: Ledger = field(default_factory=Ledger)
    left_behind: tuple[FormerThing, ...] = ()
    conflict: ProvisioningError | None = None
    login_refused: bool = False
    unverified: str | None = None
    complete: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether the gateway has credentials at the path, readable or not."""
        return self.gateway.bundle.current is not None


def observe(desired: Desired, source: Source, runtime: Runtime) -> Observed:
    """Look at the gateway in one remote command, and into the spool.

    :raises ProvisioningError: ``bad_path``, ``gateway_unsupported``, ``spool_failed``.
    """
    if not isinstance(source, Platform):
        return look(desired.target, runtime)
    # Where a repeated request may create another Thing, the ledger is read first: of every response that arrives after
    # that, ``request`` finds that this run does not know of it.
    known = Ledger() if desired.repeatable else ledger.read(source.place)
    return replace(_with_spool(look(desired.target, runtime), desired, source, runtime), ledger=known)


def look(target: Target, runtime: Runtime, *, thorough: bool = False) -> Observed:
    """Look at the gateway alone.

    :raises ProvisioningError: as ``observe``.
    """
    return understand(commands.look(runtime.execute, target.path, target.owner, target.group, thorough=thorough))


def look_at_generations(target: Target, runtime: Runtime) -> Observed:
    """Look at the gateway with the records of all its generations.

    :raises ProvisioningError: as ``observe``.
    """
    (state,) = commands.look_at_generations(runtime.execute, [target.path], target.owner, target.group)
    return understand(state)


def understand(state: GatewayState) -> Observed:
    """Parse what a gateway claims. Without a history, the list in its record counts."""
    record = Record.parse(state.bundle.record)
    history = History.parse(state.bundle.history)
    if history is None:
        history = History(record.retired if record else ())
    return Observed(state, record, history)


def observe_before_change(observed: Observed, desired: Desired, source: Source, runtime: Runtime) -> Observed:
    """Add what matters to a change: preflight checks of the gateway, request marker, ledger, damaged bundles.

    A gateway without credentials was looked at thoroughly already.

    :raises ProvisioningError: as ``observe``, and ``spool_failed``.
    """
    complete = replace(observed, complete=True)
    if observed.is_installed and not observed.gateway.storage.thorough:
        again = look(desired.target, runtime, thorough=True)
        complete = replace(
            complete,
            gateway=again.gateway,
            record=again.record,
            history=again.history,
            conflict=_conflict(observed.gateway, again.gateway),
        )
    if isinstance(source, Platform):
        complete = replace(
            complete,
            spool_problem=spool_problem(source, runtime),
            marker=requests.find(source.place),
            ledger=ledger.read(source.place) if desired.repeatable else observed.ledger,
        )
    behind = left_behind(complete, desired.target, runtime, desired.field_map, vault_encrypted=desired.vault_encrypted)
    return replace(complete, left_behind=behind)


def left_behind(
    observed: Observed,
    target: Target,
    runtime: Runtime,
    field_map: Mapping[str, str] | None = None,
    *,
    vault_encrypted: bool = False,
) -> tuple[FormerThing, ...]:
    """Return the Things that damaged bundles name, where no readable record says which Thing is in use.

    That is so where the link to the generation in use is gone, or its record cannot be read. Then the records of all
    generations are looked at, and the installed response.
    """
    bundle = observed.gateway.bundle
    if observed.record is not None or (bundle.current is None and "generations" not in bundle.directories):
        return ()
    texts = bundle.generations or look_at_generations(target, runtime).gateway.bundle.generations
    records = (Record.parse(text) for _name, text in sorted(texts.items()))
    found = [record.as_former() for record in records if record is not None]
    if bundle.current is not None:
        found += _things_of_installed_response(observed.gateway, field_map or {}, runtime, vault_encrypted)
    return tuple(found)


def read_recorded(observed: Observed, runtime: Runtime, *, vault_encrypted: bool = False) -> bytes:
    """Return the installed raw response in clear, if it is the one that the record names.

    :raises ProvisioningError: as ``read_installed``, and ``no_generation`` if the file has been changed.
    """
    response = commands.read_response(runtime.execute, observed.gateway)
    expected = observed.record.files.get(RESPONSE_NAME) if observed.record else None
    if digest(response) != expected:
        raise ProvisioningError(
            "no_generation",
            f"{observed.gateway.path}/current/{RESPONSE_NAME} is not the file that was installed: no connection was "
            "made. Run the playbook provision, which replaces damaged files.",
        )
    return _in_clear(response, observed.gateway, runtime, vault_encrypted=vault_encrypted)


def read_installed(state: GatewayState, runtime: Runtime, *, vault_encrypted: bool = False) -> bytes:
    """Return the installed raw response in clear.

    It is decrypted only where an encrypted store is asked for: a compromised gateway could hold the encrypted response
    of another one, and would get it back in clear.

    :raises ProvisioningError: as ``commands.read_response``, and ``bad_option``.
    """
    return _in_clear(commands.read_response(runtime.execute, state), state, runtime, vault_encrypted=vault_encrypted)


def _in_clear(response: bytes, state: GatewayState, runtime: Runtime, *, vault_encrypted: bool) -> bytes:
    if vault_encrypted:
        try:
            return runtime.decrypt(response)
        except ValueError:
            raise ProvisioningError(
                "bad_option", f"{state.path} cannot be decrypted: run with the Ansible Vault secret that encrypted it."
            ) from None
    if response.startswith(b"$ANSIBLE_VAULT;"):
        raise ProvisioningError(
            "bad_option",
            f"{state.path} holds an encrypted response: set vault_encrypted, or request a new one with force.",
        )
    return response


def installed_credentials(
    observed: Observed, service: Service, field_map: Mapping[str, str], response: bytes, runtime: Runtime
) -> Credentials:
    """Return the credentials in use. Whether they have expired is judged by the date on which they arrived.

    :param response: what ``read_installed`` returned.
    :raises ProvisioningError: as ``credentials.parse``.
    """
    arrived = observed.record.issued_at if observed.record else runtime.now()
    return credentials.parse(response, service, field_map, arrived)


def _with_spool(observed: Observed, desired: Desired, source: Platform, runtime: Runtime) -> Observed:
    try:
        entries = responses.load(source.place, runtime.decrypt)
    except ProvisioningError as error:
        return replace(observed, spool_error=error)
    return replace(observed, spooled=tuple(_spooled(entry, desired, runtime) for entry in entries))


def _spooled(entry: responses.Entry, desired: Desired, runtime: Runtime) -> Spooled:
    thing_id = None
    try:
        fields = credentials.extract(credentials.decode(entry.response), desired.service, desired.field_map)
        thing_id = parse_thing_id(fields.get("client_id"), credentials.login_sha256(fields))
        parsed = credentials.parse(entry.response, desired.service, desired.field_map, runtime.now())
    except ProvisioningError as error:
        return Spooled(entry, None, error, thing_id)
    return Spooled(entry, parsed, None, ThingId(parsed.client_id, parsed.login_sha256))


def spool_problem(source: Platform, runtime: Runtime) -> ProvisioningError | None:
    """Return why a response could not be stored, or ``None`` if it could; changes nothing."""
    found = directory.problem(source.place.parent, make_parents=source.make_spool_parents)
    if found is None and runtime.encrypt is not None:
        try:
            runtime.encrypt(b"")
        except ProvisioningError as error:
            return error
    return found


def _conflict(before: GatewayState, after: GatewayState) -> ProvisioningError | None:
    if before.bundle.current == after.bundle.current:
        return None
    return ProvisioningError(
        "concurrent_change",
        f"Another run has changed {before.path}: the generation in use is {after.bundle.current}, it was "
        f"{before.bundle.current}. Run again.",
    )


def _things_of_installed_response(
    state: GatewayState, field_map: Mapping[str, str], runtime: Runtime, vault_encrypted: bool
) -> list[FormerThing]:
    """Return the Thing that an installed response names, if it is one of a service and names any."""
    try:
        response = credentials.decode(read_installed(state, runtime, vault_encrypted=vault_encrypted))
    except ProvisioningError:
        return []
    for service in SERVICES.values():
        fields = credentials.extract(response, service, field_map)
        thing_id = parse_thing_id(fields.get("client_id"), credentials.login_sha256(fields))
        if credentials.is_ready(fields, service) and thing_id is not None:
            return [FormerThing(thing_id, service.name, None, None)]
    return []

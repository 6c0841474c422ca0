# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every combination of what a run can find and be asked for, and what a success makes of it, as the planner sees them.

A dimension is a table of names and values. Only combinations that cannot exist are left out.
"""

from __future__ import annotations

import functools
import itertools
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import Confirmation, FormerThing, History
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.render import thing_id_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import (
    Attributes,
    Bundle,
    GatewayState,
    Storage,
    User,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import due, plan
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Platform, Target
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.observe import Observed, Spooled
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.credentials import Credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.ledger import Ledger, LedgerEntry
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.requests import RequestMarker
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.responses import Entry

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc)
DAY = timedelta(days=1)
PATH = "/etc/thingstream/x"
PLACE = Path("/spool/x")
HOST = "gw1"
FOREVER = datetime(2049, 12, 31, tzinfo=timezone.utc)

# kind of service: (service, whether the gateway has a hardware ID)
KINDS = {"repeatable": ("pointperfect", True), "costly": ("cloudlocate", True), "anonymous": ("pointperfect", False)}
BUNDLES = (
    "bare",
    "link lost",
    "in order",
    "ending",
    "keys ending",
    "short-lived",
    "ended",
    "old",
    "from the future",
    "unreadable",
    "file damaged",
    "response damaged",
    "attributes",
    "leftovers",
    "rendered differently",
    "other service",
    "other hardware ID",
)
SPOOLS = (
    "empty",
    "waiting",
    "waiting again",
    "unusable",
    "not understood",
    "outdated",
    "outdated and waiting",
    "installed",
)
MARKERS = ("none", "live", "abandoned")
LEDGERS = ("empty", "this Thing", "a vanished Thing", "pending")
HISTORIES = ("empty", "an earlier Thing", "confirmed")
PROBLEMS = ("none", "spool", "gateway", "token", "conflict")
SETTINGS = tuple(
    dict(zip(("create", "force", "rotate", "delivery", "max_age", "refused"), values, strict=True))
    for values in itertools.product((True, False), repeat=6)
)


@dataclass(frozen=True)
class State:
    """One combination, by the names of its parts."""

    kind: str
    bundle: str
    spool: str
    marker: str
    ledger: str
    history: str
    problem: str
    create: bool
    force: bool
    rotate: bool
    delivery: bool
    max_age: bool
    refused: bool

    @property
    def installed(self) -> bool:
        return self.bundle not in ("bare", "link lost")

    @property
    def has_record(self) -> bool:
        return self.installed and self.bundle != "unreadable"


def states(stride: int = 1, first: int = 0) -> Iterator[State]:
    """Yield the combinations that can exist, from ``first`` on in steps of ``stride``.

    Combinations with a problem come less often, because a problem refuses most plans.
    """
    for problems, step in ((PROBLEMS[:1], stride), (PROBLEMS[1:], stride * 8 + 1)):
        dimensions = (KINDS, BUNDLES, SPOOLS, MARKERS, LEDGERS, HISTORIES, problems, SETTINGS)
        combinations = itertools.islice(itertools.product(*dimensions), first, None, step)
        for kind, bundle, spool, marker, ledger, history, problem, settings in combinations:
            state = State(kind, bundle, spool, marker, ledger, history, problem, **settings)
            if _exists(state):
                yield state


def _exists(state: State) -> bool:
    if state.spool in ("outdated", "outdated and waiting", "installed") and not state.has_record:
        return False
    if state.history == "confirmed" and not state.has_record:
        return False
    if state.bundle == "other hardware ID" and state.kind == "anonymous":
        return False
    if state.refused and not state.has_record:
        return False
    return not (state.problem == "conflict" and not state.installed)


# ---- Things ----


@functools.cache
def credentials(number: int, kind: str, *, delivery: str = "mqtt", not_after: datetime = FOREVER) -> Credentials:
    """Return the credentials of Thing ``number``; without a hardware ID, an NTRIP login without a client ID."""
    service, named = KINDS[kind]
    nothing: Mapping[str, None] = dict.fromkeys(
        ("host", "port", "certificate", "private_key", "keys_current", "keys_next", "ntrip_tls_port")
    )
    ntrip = delivery == "ntrip" or not named
    return Credentials(
        service=service,
        delivery=("ntrip",) if ntrip else ("mqtt",),
        client_id=f"device:{number}" if named else None,
        username=f"user{number}",
        password="secret",
        subscriptions=(),
        ntrip_host="caster" if ntrip else None,
        ntrip_port=2101 if ntrip else None,
        ntrip_mountpoint="MOUNT" if ntrip else None,
        ntrip_username=f"login{number}" if ntrip else None,
        ntrip_password="secret" if ntrip else None,
        not_before=NOW - 300 * DAY,
        not_after=not_after,
        fingerprint_sha256=None,
        **nothing,
    )


def record_of(parsed: Credentials, issued_at: datetime, kind: str, *, hardware_id: str | None = "hw-1") -> Record:
    return Record(
        service=parsed.service,
        thing_id=thing_id_of(parsed),
        issued_at=issued_at,
        identity_sha256=parsed.identity_sha256,
        files={"credentials.json": "d0", "credentials.env": "d1"},
        delivery=parsed.delivery,
        hardware_id=hardware_id if KINDS[kind][1] else None,
        given_name=HOST,
        origin="ztp",
        not_before=parsed.not_before,
        not_after=parsed.not_after,
    )


@functools.cache
def former(parsed: Credentials) -> FormerThing:
    return FormerThing(thing_id_of(parsed), parsed.service, "hw-1", HOST)


# ---- what is desired ----


def desired_of(state: State) -> Desired:
    return _desired_of(state.kind, state.max_age, state.delivery, state.create, state.force, state.rotate)


@functools.cache
def _desired_of(kind: str, max_age: bool, delivery: bool, create: bool, force: bool, rotate: bool) -> Desired:
    service, named = KINDS[kind]
    target = Target(Layout(PATH, 0o640, ""), 0o750, None, None, keep=2)
    return Desired(
        service=SERVICES[service],
        host=HOST,
        hardware_id="hw-1" if named else None,
        anonymous=not named,
        given_name=HOST,
        target=target,
        renewal=RenewalPolicy(max_age=3 * DAY if max_age else None),
        delivery=("ntrip" if kind == "anonymous" else "mqtt") if delivery else None,
        create=create,
        force=force,
        rotate_before=NOW - DAY / 2 if rotate else None,
    )


def source_of(state: State) -> Platform:
    return _source_of(state.problem == "token")


@functools.cache
def _source_of(has_no_token: bool) -> Platform:
    endpoint = api.Endpoint("https://api.example.com/ztp")
    return Platform(None if has_no_token else "token", endpoint, None, 0, PLACE)


# ---- what is observed ----

IN_USE, EARLIER, WAITING, OUTDATED, VANISHED, LEFT_BEHIND, NEW = range(1, 8)


def observed_of(state: State) -> Observed:
    record = _record(state)
    problem = ProvisioningError("spool_failed", "The volume is not mounted.")
    return Observed(
        gateway=_gateway(state, record),
        record=record,
        history=_history(state, record),
        spooled=_spooled(state, record),
        spool_problem=problem if state.problem == "spool" else None,
        marker=_marker(state),
        ledger=_ledger(state),
        left_behind=(former(credentials(LEFT_BEHIND, state.kind)),)
        if state.bundle in ("link lost", "unreadable")
        else (),
        conflict=ProvisioningError("concurrent_change", "Another run.") if state.problem == "conflict" else None,
        login_refused=state.refused,
        complete=True,
    )


def _record(state: State) -> Record | None:
    return _record_of(state.bundle, state.kind) if state.has_record else None


@functools.cache
def _record_of(bundle: str, kind: str) -> Record:
    ends = {"ending": NOW + 10 * DAY, "ended": NOW - DAY, "short-lived": NOW + 29 * DAY}
    parsed = credentials(IN_USE, kind, not_after=ends.get(bundle, FOREVER))
    if bundle == "short-lived":
        parsed = replace(parsed, not_before=NOW - DAY)
    issued_at = {"old": NOW - 100 * DAY, "from the future": NOW + 3650 * DAY}.get(bundle, NOW - DAY)
    record = record_of(parsed, issued_at, kind)
    if bundle == "keys ending":
        return replace(record, keys_expire_at=NOW + 5 * DAY)
    if bundle == "other service":
        return replace(record, service="pointperfect-live")
    if bundle == "other hardware ID":
        return replace(record, hardware_id="hw-2")
    return replace(record, record_version=0) if bundle == "rendered differently" else record


def _gateway(state: State, record: Record | None) -> GatewayState:
    return _gateway_of(
        state.bundle, state.problem == "gateway", tuple(sorted(record.files.items())) if record else None
    )


@functools.cache
def _gateway_of(bundle: str, is_read_only: bool, files: tuple[tuple[str, str], ...] | None) -> GatewayState:
    directory = Attributes(stat.filemode(stat.S_IFDIR | 0o750), 0, 0)
    above = Attributes(stat.filemode(stat.S_IFDIR | 0o755), 0, 0)
    user = User(0, "root", {0: "root"}, 0, 0)
    writable = "/etc" if is_read_only else None
    if bundle == "bare":
        storage = Storage([("/", above), ("/etc", above)], not_writable=writable, thorough=True)
        return GatewayState(PATH, user, storage, Bundle())
    names = ("/", "/etc", "/etc/thingstream")
    ancestors = [*((name, above) for name in names), (PATH, directory)]
    storage = Storage(ancestors, not_writable=writable, thorough=True)
    directories = {".": directory, "generations": directory}
    if bundle == "link lost":
        return GatewayState(PATH, user, storage, Bundle(directories=directories))
    digests = dict(files or ())
    if bundle == "file damaged":
        digests["credentials.env"] = "other"
    if bundle == "response damaged":
        digests["credentials.json"] = "other"
    return GatewayState(
        PATH,
        user,
        storage,
        Bundle(
            current="000001",
            newest="000001",
            digests=digests,
            files=_files(0o666 if bundle == "attributes" else 0o640),
            directories={**directories, "current": directory},
            leftovers=(".staging-x",) if bundle == "leftovers" else (),
        ),
    )


@functools.cache
def _files(mode: int) -> dict[str, Attributes]:
    modes = {"credentials.json": 0o600, "credentials.env": mode, "thing.json": 0o640}
    return {name: Attributes(stat.filemode(stat.S_IFREG | one), 0, 0) for name, one in modes.items()}


def _history(state: State, record: Record | None) -> History:
    if state.history == "an earlier Thing":
        return History().leave(former(credentials(EARLIER, state.kind)), NOW - 9 * DAY)
    if state.history == "confirmed" and record is not None:
        return History(confirmation=Confirmation(NOW - DAY / 10, record.identity_sha256))
    return History()


def spooled(
    number: int, kind: str, replaces: Record | None, *, received_at: datetime = NOW - DAY / 4, sequence: int = 2
) -> Spooled:
    return _spooled_of(number, kind, replaces.response_id if replaces else None, received_at, sequence)


@functools.cache
def _spooled_of(number: int, kind: str, replaces: str | None, received_at: datetime, sequence: int) -> Spooled:
    parsed = credentials(number, kind)
    entry = Entry(
        service=parsed.service,
        hardware_id="hw-1" if KINDS[kind][1] else None,
        given_name=HOST,
        host=HOST,
        path=PATH,
        reason="expiring",
        received_at=received_at,
        sequence=sequence,
        replaces=replaces,
        response=b"",
        file=PLACE.with_name(f"{PLACE.name}-{sequence:06d}-{number}.response"),
    )
    return Spooled(entry, parsed, None, thing_id_of(parsed))


def _spooled(state: State, record: Record | None) -> tuple[Spooled, ...]:
    return _spool_of(state.spool, state.kind, state.bundle if record else None)


@functools.cache
def _spool_of(spool: str, kind: str, bundle: str | None) -> tuple[Spooled, ...]:
    record = _record_of(bundle, kind) if bundle else None
    # where a repeated request returns the same Thing, so does one whose response waits
    waiting = spooled(IN_USE if kind == "repeatable" else WAITING, kind, record)
    error = ProvisioningError("missing_field", "The response has no password.")
    outdated = spooled(OUTDATED, kind, None, sequence=1)
    stale = replace(outdated, entry=replace(outdated.entry, replaces="of another time"))
    found: dict[str, tuple[Spooled, ...]] = {
        "empty": (),
        "waiting": (waiting,),
        "waiting again": (spooled(OUTDATED, kind, record, sequence=1), waiting),
        "unusable": (replace(waiting, credentials=None, error=error),),
        "not understood": (replace(waiting, credentials=None, error=error, thing_id=None),),
        "outdated": (stale,),
        "outdated and waiting": (stale, waiting),
    }
    if spool == "installed" and record is not None:
        (parsed, entry) = (credentials(IN_USE, kind), waiting.entry)
        parsed = replace(parsed, not_before=record.not_before, not_after=record.not_after)
        entry = replace(entry, received_at=record.issued_at, replaces="of another time")
        return (Spooled(entry, parsed, None, record.thing_id),)
    return found[spool]


def _marker(state: State) -> RequestMarker | None:
    if state.marker == "none":
        return None
    file = PLACE.with_name(f"{PLACE.name}.request")
    return RequestMarker(file, "x", "hw-1", HOST, NOW - DAY, "x.response", state.marker == "live")


def _ledger(state: State) -> Ledger:
    return _ledger_of(state.ledger, state.kind)


@functools.cache
def _ledger_of(ledger: str, kind: str) -> Ledger:
    number = IN_USE if ledger == "this Thing" else VANISHED
    parsed = credentials(number, kind)
    entry = LedgerEntry(
        service=parsed.service,
        thing_id=None if ledger == "pending" else thing_id_of(parsed),
        hardware_id="hw-1",
        given_name=HOST,
        host=HOST,
        path=PATH,
        response="pending" if ledger == "pending" else "x.response",
        received_at=NOW - 20 * DAY,
        delivered_at=None if ledger == "pending" else NOW - 20 * DAY,
    )
    return Ledger() if ledger == "empty" else Ledger((entry,), frozenset(("x.response",)))


# ---- what a success makes of it ----


@dataclass(frozen=True)
class After:
    """The state after a plan was carried out without a fault."""

    observed: Observed
    requested: bool = False


def succeed(planned: plan.Plan, desired: Desired, observed: Observed, state: State) -> After:
    """Return the state after a successful plan, as the next run observes it at the same moment."""
    if isinstance(planned, plan.Request):
        arrived = _response(desired, observed, state)
        step = plan.plan_installation(
            desired, observed, arrived, planned.outdated, (planned.reason, planned.message), NOW
        )
        assert isinstance(step, plan.Install), step
        return After(_installed(step, desired, observed, state), requested=True)
    if isinstance(planned, plan.Install):
        return After(_installed(planned, desired, observed, state))
    if isinstance(planned, plan.WriteHistory):
        return After(_without(replace(observed, history=planned.history), planned.outdated))
    if isinstance(planned, plan.SetAttributes):
        after = replace(_in_order(observed, state), history=planned.history)
        return After(_without(after, planned.outdated))
    if isinstance(planned, plan.Render):
        assert observed.record is not None
        again = replace(observed, record=replace(observed.record, record_version=1), history=planned.history)
        return After(_in_order(_without(again, planned.outdated), state))
    if isinstance(planned, plan.Remove):
        bare = replace(observed, gateway=_gateway(replace(state, bundle="bare", problem="none"), None), record=None)
        return After(_without(replace(bare, history=planned.history, left_behind=()), planned.outdated))
    return After(observed)


def _response(desired: Desired, observed: Observed, state: State) -> Spooled:
    """Return the platform's response: if it can, the credentials in use, but not for a rotation or after their end."""
    record = observed.record
    is_over = state.bundle in ("ended", "other service", "other hardware ID")
    returns_same = desired.repeatable and record is not None and desired.rotate_before is None and not is_over
    number = IN_USE if returns_same and not observed.login_refused else NEW
    arrived = spooled(number, state.kind, record, received_at=NOW, sequence=9)
    if state.bundle == "short-lived" and arrived.credentials is not None and number == NEW:
        lifetime = replace(arrived.credentials, not_before=NOW, not_after=NOW + 30 * DAY)
        return replace(arrived, credentials=lifetime)
    if number == NEW or record is None or arrived.credentials is None:
        return arrived
    same = replace(arrived.credentials, not_before=record.not_before, not_after=record.not_after)
    return replace(arrived, credentials=same)


def _installed(step: plan.Install, desired: Desired, observed: Observed, state: State) -> Observed:
    record = observed.record
    history = step.history
    if record is not None and record.identity_sha256 == step.credentials.identity_sha256 and not _damaged(observed):
        if step.received_at != record.issued_at:
            history = history.confirm(record.identity_sha256, step.received_at)
        record = replace(record, hardware_id=desired.hardware_id, service=desired.service.name, record_version=1)
    else:
        record = record_of(step.credentials, step.received_at, state.kind)
    after = replace(observed, record=record, history=history, login_refused=False, left_behind=())
    used = [spooled for spooled in observed.spooled if step.entry is not None and spooled.entry == step.entry]
    return _in_order(_without(after, (*used, *step.outdated)), state)


def _damaged(observed: Observed) -> bool:
    return bool(due.damaged_files(observed))


def _in_order(observed: Observed, state: State) -> Observed:
    healthy = replace(state, bundle="in order", problem="none")
    return replace(observed, gateway=_gateway(healthy, observed.record))


def _without(observed: Observed, gone: tuple[Spooled, ...]) -> Observed:
    return replace(observed, spooled=tuple(spooled for spooled in observed.spooled if spooled not in gone))


def known_things(observed: Observed) -> set[ThingId]:
    """Return every Thing that this state names, in use or not."""
    ids = [observed.record.thing_id if observed.record else None]
    ids += [thing.thing_id for thing in (*observed.history.things, *observed.left_behind)]
    ids += [spooled.thing_id for spooled in observed.spooled]
    ids += [entry.thing_id for entry in observed.ledger.entries if (entry.host, entry.path) == (HOST, PATH)]
    return {one for one in ids if one is not None}


def accounted(thing: ThingId, observed: Observed, *, with_ledger: bool) -> bool:
    """Return whether a Thing is in use, in the history, in the spool, or, with ``with_ledger``, in the ledger."""
    record = observed.record
    named = [record.thing_id if record else None, *(one.thing_id for one in observed.history.things)]
    named += [spooled.thing_id for spooled in observed.spooled]
    if with_ledger:
        named += [entry.thing_id for entry in observed.ledger.entries]
    return thing in named  # compared as a whole, so that no mistake of the collection is repeated here

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: every Thing that this controller has received, for which gateway, and what became of it; no secret.

One small file per service and hardware ID (or gateway), to which each event is appended as one line of JSON. A line
that a crash cut short is ignored. The ledger is advisory: several controllers each know a part, and a missing file is
no error. It is read where a request is about to be sent or may create another Thing, and by ``audit`` and ``retire``.

Private to the collection.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ..bundle.dates import optional_timestamp, parse_date, timestamp
from ..bundle.history import FormerThing
from ..bundle.thing_id import ThingId, parse_thing_id, same_thing
from .directory import failed, files, ledger_directory, service_of
from .responses import Entry

SUFFIX = ".ledger"
PENDING = "pending"  # in place of a file name: a response without credentials, while the platform activates the Thing

Event = Literal["received", "delivered", "left", "deactivated"]


@dataclass(frozen=True)
class LedgerEntry:
    """One Thing as this controller knows it. Dates are aware.

    :param thing_id: ``None`` while its response has not been understood.
    :param response: the name of the spool file that held the response, or ``PENDING``.
    :param host: inventory name of the gateway that it was requested for, or that has it.
    :param path: where it is, or is to be, installed there.
    :param delivered_at: when the gateway got it.
    :param left_at: when another Thing took its place there, or it was given up.
    :param deactivated_at: when the user reported it as deactivated.
    """

    service: str
    thing_id: ThingId | None
    hardware_id: str | None
    given_name: str | None
    host: str
    path: str
    response: str
    received_at: datetime
    delivered_at: datetime | None = None
    left_at: datetime | None = None
    deactivated_at: datetime | None = None

    @property
    def client_id(self) -> str | None:
        """The client ID, where the platform sent one."""
        return self.thing_id.client_id if self.thing_id else None

    @property
    def login_sha256(self) -> str | None:
        """The fingerprint of the login, where there is one."""
        return self.thing_id.login_sha256 if self.thing_id else None

    def as_former(self) -> FormerThing:
        """Return the Thing as the history of a gateway names it."""
        return FormerThing(self.thing_id, self.service, self.hardware_id, self.given_name)

    def to_dict(self) -> dict[str, str | None]:
        """Return what reports show of it."""
        return {
            "service": self.service,
            "client_id": self.client_id,
            "login_sha256": self.login_sha256,
            "hardware_id": self.hardware_id,
            "given_name": self.given_name,
            "host": self.host,
            "path": self.path,
            "received_at": timestamp(self.received_at),
            "delivered_at": optional_timestamp(self.delivered_at),
            "left_at": optional_timestamp(self.left_at),
            "deactivated_at": optional_timestamp(self.deactivated_at),
        }


@dataclass(frozen=True)
class Ledger:
    """The entries of the ledger for one place.

    :param responses: the names of the spool files of all responses that arrived.
    """

    entries: tuple[LedgerEntry, ...] = ()
    responses: frozenset[str] = frozenset()

    @property
    def received(self) -> int:
        """How many responses arrived; this orders them, whatever the clock says."""
        return len(self.responses)


def entry_of(response: Entry, thing_id: ThingId | None) -> LedgerEntry:
    """Return a spool entry as the ledger names it."""
    return LedgerEntry(
        service=response.service,
        thing_id=thing_id,
        hardware_id=response.hardware_id,
        given_name=response.given_name,
        host=response.host,
        path=response.path,
        response=response.file.name,
        received_at=response.received_at,
    )


def prepare(place: Path) -> None:
    """Make the file of a Thing where it is missing; a disk without room for it fails here, before a request is sent.

    :param place: the ``location`` of the Thing; its directory exists.
    :raises ProvisioningError: ``spool_failed``; then no request may be sent.
    """
    file = _file(place)
    try:
        os.close(_open(file))
    except OSError as error:
        raise failed(file, error).with_advice("No request was sent.") from error


def append(place: Path, event: Event, entry: LedgerEntry, at: datetime) -> None:
    """Add what happened to a Thing; it is on the disk when this returns.

    :param place: the ``location`` of the Thing; its directory exists.
    :param at: when it happened (aware).
    :raises ProvisioningError: ``spool_failed``.
    """
    content = {
        "event": event,
        "at": timestamp(at),
        "service": entry.service,
        "client_id": entry.client_id,
        "login_sha256": entry.login_sha256,
        "hardware_id": entry.hardware_id,
        "given_name": entry.given_name,
        "host": entry.host,
        "path": entry.path,
        "response": entry.response,
    }
    file = _file(place)
    line = f"\n{json.dumps(content)}\n".encode()
    try:
        descriptor = _open(file)
        try:
            # one write, which begins a new line whatever a crash has left before it
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise failed(file, error) from error


def read(place: Path) -> Ledger:
    """Return what the ledger says of one place; nothing where there is no file.

    :raises ProvisioningError: ``spool_failed`` if the file cannot be read.
    """
    return _read(_file(place))


def survey(directory: str) -> list[LedgerEntry]:
    """Return every Thing in the ledger of a directory.

    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read, or is not private.
    """
    found = files(ledger_directory(Path(directory).expanduser()), SUFFIX)
    return [entry for file in found for entry in _read(file).entries]


def _open(file: Path) -> int:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _file(place: Path) -> Path:
    return ledger_directory(place.parent) / f"{place.name}{SUFFIX}"


def _read(file: Path) -> Ledger:
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return Ledger()
    except OSError as error:
        raise failed(file, error) from error
    entries: tuple[LedgerEntry, ...] = ()
    responses: set[str] = set()
    for line in lines:
        parsed = _parse(line, service_of(file))
        if parsed is not None:
            entries = _with_event(entries, *parsed)
            responses.add(parsed[1].response)
    return Ledger(entries, frozenset(responses - {PENDING}))


def _parse(line: bytes, service: str) -> tuple[str, LedgerEntry] | None:
    """Return the event of a line and its Thing, or ``None`` if the line cannot be read."""
    try:
        content = json.loads(line) if line else None
        return (_text(content, "event"), _entry(content, service)) if isinstance(content, dict) else None
    except (ValueError, KeyError, RecursionError):
        return None


def _with_event(entries: tuple[LedgerEntry, ...], event: str, found: LedgerEntry) -> tuple[LedgerEntry, ...]:
    """Return the entries after one more event.

    :param found: the Thing that the event is about, received at the moment of the event.
    """
    at = found.received_at
    known = next((entry for entry in entries if _is_same(entry, found)), None)
    others = tuple(entry for entry in entries if entry is not known)
    entry = found if known is None else replace(known, thing_id=found.thing_id or known.thing_id)
    if event == "received":
        entry = replace(entry, response=found.response, deactivated_at=None)
        if found.response != PENDING:
            others = tuple(other for other in others if other.response != PENDING)
    elif event == "delivered":
        entry = replace(entry, delivered_at=at, left_at=None)
        others = tuple(
            _left(other, at) if _same_place(other, found) else other
            for other in others
            if not _is_delivered_elsewhere(other, found)
        )
    elif event == "left":
        entry = _left(entry, at)
    elif event == "deactivated":
        entry = replace(_left(entry, at), deactivated_at=at)
        others = tuple(
            replace(other, deactivated_at=at) if same_thing(other.thing_id, found.thing_id) else other
            for other in others
        )
    return (*others, entry)


def _left(entry: LedgerEntry, at: datetime) -> LedgerEntry:
    return replace(entry, left_at=entry.left_at or at)


def _same_place(one: LedgerEntry, other: LedgerEntry) -> bool:
    return (one.host, one.path) == (other.host, other.path)


def _is_delivered_elsewhere(received: LedgerEntry, delivered: LedgerEntry) -> bool:
    """Return whether a response went to another gateway, or path, than it was requested for."""
    return received.delivered_at is None and received.response == delivered.response


def _is_same(one: LedgerEntry, other: LedgerEntry) -> bool:
    """Return whether two events concern one Thing at one place; before its identity is known, one response."""
    if not _same_place(one, other):
        return False
    if one.thing_id is not None and other.thing_id is not None:
        return same_thing(one.thing_id, other.thing_id)
    return one.response == other.response


def _entry(content: Mapping[str, Any], service: str) -> LedgerEntry:
    return LedgerEntry(
        service=service,
        thing_id=parse_thing_id(content.get("client_id"), content.get("login_sha256")),
        hardware_id=_optional_text(content, "hardware_id"),
        given_name=_optional_text(content, "given_name"),
        host=_text(content, "host"),
        path=_text(content, "path"),
        response=_text(content, "response"),
        received_at=parse_date(content["at"]),
    )


def _optional_text(content: Mapping[str, Any], name: str) -> str | None:
    return None if content[name] is None else _text(content, name)


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def not_deactivated(entries: Iterable[LedgerEntry], host: str, path: str) -> Sequence[LedgerEntry]:
    """Return the identified Things of one gateway and path that the user has not reported as deactivated."""
    return [
        entry
        for entry in entries
        if (entry.host, entry.path) == (host, path) and entry.thing_id is not None and entry.deactivated_at is None
    ]

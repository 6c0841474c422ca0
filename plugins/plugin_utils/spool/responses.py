# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spool entries: a response stays on the controller from the moment it arrives until its gateway has it.

One file per response, 0600. The next run for the same Thing finds it, so that a response is never lost and never
requested, and billed, twice. Entries are never overwritten, so that several runs can meet.

1. ``allocate`` makes a hidden file of the largest size that an entry can have, and locks it, before the request is
   sent: a full disk fails here.
2. ``Allocation.store`` writes the response into it, cuts it to its length, and gives it its name.
3. A hidden file whose process has died is a complete entry, which ``load`` gives its name, or empty, and removed.
   On a file system without locks it counts as such after ``MAX_WRITE_SECONDS``.

Entries are ordered by a sequence number, not by date: a clock can be wrong. An entry also says which response was
installed when it was requested (``replaces``): if another one is installed by now, the entry is outdated.

Private to the collection.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..bundle.dates import optional_timestamp, parse_date, timestamp
from ..errors import ProvisioningError
from .directory import MAX_ENTRY_BYTES, Cipher, failed, files, is_locked, service_of, sync

SUFFIX = ".response"
MAX_WRITE_SECONDS = 3600  # after that an incomplete file that no process has locked is removed


@dataclass(frozen=True)
class Entry:
    """A response, why and for which gateway it was requested, and the file that holds it.

    :param host: inventory name of the gateway.
    :param path: where the response is to be installed there.
    :param received_at: when it arrived (aware), by the clock of the controller.
    :param sequence: higher than that of every response for the same Thing that arrived before.
    :param replaces: the ``Record.response_id`` that was installed when this one was requested, ``None`` if none was.
    """

    service: str
    hardware_id: str | None
    given_name: str
    host: str
    path: str
    reason: str
    received_at: datetime
    sequence: int
    replaces: str | None
    response: bytes = field(repr=False)
    file: Path


@dataclass(frozen=True)
class SpoolReport:
    """The description of one entry for reports; of an unreadable one, only file and service."""

    file: str
    service: str
    readable: bool
    hardware_id: str | None = None
    given_name: str | None = None
    reason: str | None = None
    received_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), "received_at": optional_timestamp(self.received_at)}


@dataclass
class Allocation:
    """Space for one response, in a hidden file that this process has locked.

    ``store`` and ``release`` may be called by different threads.
    """

    file: Path
    descriptor: int
    is_released: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def store(self, entry: Entry, encrypt: Cipher | None) -> Entry:
        """Write the response; it is on the disk, under its name, when this returns.

        :param encrypt: turns clear bytes into what is written, or ``None`` to write them as they are.
        :returns: the entry with its file.
        :raises ProvisioningError: ``spool_failed``.
        """
        name = self.file.with_name(self.file.name[1:])
        content = _encode(entry)
        written = encrypt(content) if encrypt else content
        with self.lock:
            if self.is_released:  # the descriptor may belong to another file by now
                raise ProvisioningError("spool_failed", "A response arrived after its run had given it up.")
            try:
                _write_all(self.descriptor, written)
                os.ftruncate(self.descriptor, len(written))
                os.fsync(self.descriptor)
                self.file.rename(name)
                sync(name.parent)
            except OSError as error:
                raise failed(self.file, error) from error
        return replace(entry, file=name)

    def release(self) -> None:
        """Remove the hidden file where nothing was stored, and give up the lock."""
        with self.lock:
            self.is_released = True
            self.file.unlink(missing_ok=True)
            os.close(self.descriptor)


def allocate(place: Path, sequence: int) -> Allocation:
    """Reserve the space for one response.

    :param place: the ``location`` of the Thing; its directory exists.
    :raises ProvisioningError: ``spool_failed``; then no request may be sent.
    """
    while True:
        file = place.with_name(f".{place.name}-{sequence:06d}-{secrets.token_hex(4)}{SUFFIX}")
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failed(place.parent, error) from error
        allocation = Allocation(file, descriptor)
        try:
            with contextlib.suppress(OSError):  # not every file system knows locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # between the two, another run may have taken the file for that of a crashed run, and removed it
            if os.fstat(descriptor).st_nlink:
                _reserve(descriptor)
                os.fsync(descriptor)
                return allocation
        except OSError as error:
            allocation.release()
            raise failed(place.parent, error).with_advice("No request was sent.") from error
        allocation.release()


def load(place: Path, decrypt: Cipher) -> list[Entry]:
    """Return the entries for one Thing, oldest first, those of a run that died while it wrote them among them.

    :param decrypt: turns what was written into clear bytes; raises ``ValueError`` if it cannot.
    :raises ProvisioningError: ``spool_failed`` if there is one that cannot be read.
    """
    named = list(_files_of(place, hidden=True))
    for file in named:
        if file.name.startswith("."):
            _finish(file, decrypt)
    if not named:
        return []
    entries = (_read(file, decrypt) for file in entry_files(place))
    return sorted((entry for entry in entries if entry), key=lambda entry: (entry.sequence, entry.received_at))


def entry_files(place: Path) -> list[Path]:
    """Return the files of the entries for one Thing.

    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read, or is not private.
    """
    return _files_of(place, hidden=False)


def next_sequence(place: Path, received: int) -> int:
    """Return a sequence number above those of all entries for one Thing.

    :param received: how many responses the ledger knows.
    """
    numbers = (file.name[len(place.name) + 1 :].partition("-")[0] for file in entry_files(place))
    return 1 + max((received, *(int(number) for number in numbers if number.isdecimal())))


def survey(directory: str, decrypt: Cipher) -> list[SpoolReport]:
    """Describe every entry in a directory, without any secret.

    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read, or is not private.
    """
    place = Path(directory).expanduser()
    found = files(place, SUFFIX, hidden=True)
    complete = (file for file in found if not file.name.startswith(".") or not (is_locked(file) or _is_empty(file)))
    return [_report(file, decrypt) for file in complete]


def discard(entries: Sequence[Entry]) -> None:
    """Remove entries that are installed, or whose Things are on a retirement list.

    :raises ProvisioningError: ``spool_failed``.
    """
    for entry in entries:
        try:
            entry.file.unlink(missing_ok=True)
        except OSError as error:
            raise failed(entry.file, error) from error


def _files_of(place: Path, *, hidden: bool) -> list[Path]:
    found = files(place.parent, SUFFIX, hidden=hidden)
    return [file for file in found if file.name.removeprefix(".").startswith(f"{place.name}-")]


def _finish(unfinished: Path, decrypt: Cipher) -> None:
    """Rename a complete entry that a crashed run left behind, and remove a file without one."""
    with contextlib.suppress(OSError), unfinished.open("rb") as stream:  # another run was faster
        is_old = time.time() - os.fstat(stream.fileno()).st_mtime > MAX_WRITE_SECONDS
        try:
            fcntl.flock(
                stream, fcntl.LOCK_SH | fcntl.LOCK_NB
            )  # until the file is closed, so that no run begins with it
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            if not is_old:
                return
        if _is_empty(unfinished):
            unfinished.unlink()
            return
        try:
            _read(unfinished, decrypt)
        except ProvisioningError:
            # another run may have the Vault secret for it
            if is_old and unfinished.read_bytes()[:1] == b"{":
                unfinished.unlink()
        else:
            unfinished.rename(unfinished.with_name(unfinished.name[1:]))


def _is_empty(file: Path) -> bool:
    """Return whether nothing was written into the space of a response."""
    try:
        with file.open("rb") as stream:
            return stream.read(1) in (b"", b"\0")
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _reserve(descriptor: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, MAX_ENTRY_BYTES)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        _write_all(descriptor, bytes(MAX_ENTRY_BYTES))


def _write_all(descriptor: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)


def _encode(entry: Entry) -> bytes:
    content = {
        "service": entry.service,
        "hardware_id": entry.hardware_id,
        "given_name": entry.given_name,
        "host": entry.host,
        "path": entry.path,
        "reason": entry.reason,
        "received_at": timestamp(entry.received_at),
        "sequence": entry.sequence,
        "replaces": entry.replaces,
        "response": base64.b64encode(entry.response).decode(),
    }
    return json.dumps(content).encode()


def _read(file: Path, decrypt: Cipher) -> Entry | None:
    """Return one entry, or ``None`` if another run has removed it meanwhile."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(file, error) from error
    try:
        values = json.loads(decrypt(content.rstrip(b"\0")))
        return Entry(
            service=values["service"],
            hardware_id=values["hardware_id"],
            given_name=values["given_name"],
            host=values["host"],
            path=values["path"],
            reason=values["reason"],
            received_at=parse_date(values["received_at"]),
            sequence=int(values["sequence"]),
            replaces=values["replaces"],
            response=base64.b64decode(values["response"], validate=True),
            file=file,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # without a cause, which could carry what was decrypted
        raise ProvisioningError(
            "spool_failed",
            f"The spool holds a response for this gateway, {file}, that cannot be read. Run with the Ansible Vault "
            "secret that encrypted it, or remove the file: then the next run sends another request.",
        ) from None


def _report(file: Path, decrypt: Cipher) -> SpoolReport:
    try:
        entry = _read(file, decrypt)
    except ProvisioningError:
        entry = None
    if entry is None:
        return SpoolReport(str(file), service_of(file), readable=False)
    return SpoolReport(
        str(file), entry.service, True, entry.hardware_id, entry.given_name, entry.reason, entry.received_at
    )

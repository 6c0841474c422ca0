# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request markers: where a repeated request may create another Thing, a file exists while one is not settled.

1. ``begin`` opens the marker of the Thing and locks it. A marker that another process has locked belongs to a run in
   progress; one that is complete and not locked belongs to a run that ended without a response.
2. It writes service, hardware ID, name and date into the marker, on the disk, before anything is sent. An incomplete
   marker therefore belongs to a run that has sent nothing, and is used again.
   It also names the spool file that is to hold the response.
3. The marker is removed when the response is in the spool, or when it is certain that the platform made no Thing. One
   whose response is in the spool or the ledger is settled: its run ended before it could remove it.

The lock ends with the process, however that ends. On a file system without locks a marker counts as abandoned.

Private to the collection.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ..bundle.dates import optional_timestamp, parse_date, timestamp
from ..errors import ProvisioningError
from . import ledger
from .directory import failed, files, is_locked, service_of, sync

SUFFIX = ".request"
# A look holds the lock for a moment, too.
LOCK_TRIES = 4
LOCK_WAIT = 0.05  # seconds


@dataclass(frozen=True)
class RequestMarker:
    """A request that is not settled.

    :param requested_at: when it was sent (aware); ``None`` where the file is incomplete.
    :param response: the name of the spool file that is to hold the response.
    :param is_live: whether its run still waits for the response.
    """

    file: Path
    service: str
    hardware_id: str | None
    given_name: str | None
    requested_at: datetime | None
    response: str
    is_live: bool

    def to_dict(self) -> dict[str, str | None]:
        """Return what reports show of it."""
        return {
            "file": str(self.file),
            "service": self.service,
            "hardware_id": self.hardware_id,
            "given_name": self.given_name,
            "requested_at": optional_timestamp(self.requested_at),
        }


@dataclass(frozen=True)
class OpenRequest:
    """The marker of a request of this process; it is locked until ``close``."""

    file: Path
    descriptor: int

    def settle(self) -> None:
        """Remove the marker: the response is in the spool, or the platform made no Thing."""
        self.file.unlink(missing_ok=True)

    def close(self) -> None:
        """Give up the lock. A marker that still exists is abandoned from now on."""
        os.close(self.descriptor)


def find(place: Path) -> RequestMarker | None:
    """Return the marker for one Thing, or ``None`` if no request is outstanding. Changes nothing.

    :param place: the ``location`` of the Thing.
    """
    marker = _observe(place.with_name(place.name + SUFFIX))
    return marker if marker and (marker.is_live or _is_abandoned(marker)) else None


def begin(
    place: Path, service: str, hardware_id: str | None, given_name: str, response: str, now: datetime
) -> OpenRequest:
    """Write the marker of a request; it is on the disk when this returns.

    :param response: the name of the spool file that is to hold the response.
    :param now: aware.
    :raises ProvisioningError: ``concurrent_change`` if another run is waiting for a response, ``response_lost`` if one
        ended without it, ``spool_failed``.
    """
    file = place.with_name(place.name + SUFFIX)
    try:
        descriptor = _open_locked(file)
    except OSError as error:
        raise failed(file, error) from error
    request = OpenRequest(file, descriptor)
    try:
        found = _read(file, is_live=False)
        if found is not None and _is_abandoned(found):
            raise lost(file)
    except BaseException:
        request.close()
        raise
    content = {
        "service": service,
        "hardware_id": hardware_id,
        "given_name": given_name,
        "requested_at": timestamp(now),
        "response": response,
    }
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(content).encode(), 0)
        os.fsync(descriptor)
        sync(file.parent)
    except BaseException as error:  # whatever interrupts this, nothing was sent
        request.settle()
        request.close()
        raise failed(file, error) if isinstance(error, OSError) else error from None
    return request


def clean_up(place: Path) -> None:
    """Remove the marker of a settled request whose run ended before it could; where that fails, it does no harm."""
    file = place.with_name(place.name + SUFFIX)
    with contextlib.suppress(OSError), file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        marker = _read(file, is_live=False)
        if marker is not None and not _is_abandoned(marker):
            file.unlink()


def survey(directory: str) -> list[RequestMarker]:
    """Return every abandoned marker in a directory.

    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read.
    """
    markers = map(_observe, files(Path(directory).expanduser(), SUFFIX))
    return [marker for marker in markers if marker and not marker.is_live and _is_abandoned(marker)]


def in_progress(file: Path) -> ProvisioningError:
    """Return the error for a marker whose run still waits."""
    return ProvisioningError(
        "concurrent_change",
        f"Another run has sent a request for this gateway and waits for the response ({file}). Run again when it has "
        "ended.",
    )


def lost(file: Path) -> ProvisioningError:
    """Return the error for a marker whose run ended without a response."""
    return ProvisioningError(
        "response_lost",
        f"The response to an earlier request was lost; {file} records when it was sent. {look_first(file)}",
    )


def look_first(file: Path) -> str:
    """Return the advice for a lost response."""
    return (
        "The platform may have created a Thing whose credentials are lost, and another request may create another "
        "Thing. Look for the hardware ID or the name in the portal, remove the Thing if it is there, then remove "
        f"{file} on the controller and run again."
    )


def _open_locked(file: Path) -> int:
    """Open and lock the marker of a Thing, and make it where it is missing.

    :raises ProvisioningError: ``concurrent_change`` if another process holds the lock.
    """
    tries = LOCK_TRIES
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            tries -= 1
            if not tries:
                raise in_progress(file) from None
            time.sleep(LOCK_WAIT)
            continue
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                os.close(descriptor)
                raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        os.close(descriptor)  # the run that had it has removed it meanwhile


def _observe(file: Path) -> RequestMarker | None:
    """Return the marker in a file, and whether it is live, although other runs begin and settle requests meanwhile."""
    marker = _read(file, is_live=False)
    while marker is not None:
        if is_locked(file):
            return replace(marker, is_live=True)
        again = _read(file, is_live=False)
        if again == marker:
            return marker
        marker = again  # settled, or that of another run
    return None


def _is_abandoned(marker: RequestMarker) -> bool:
    """Return whether a request was sent whose response never arrived; none follows an incomplete marker."""
    if marker.requested_at is None:
        return False
    place = marker.file.with_name(marker.file.name.removesuffix(SUFFIX))
    return not marker.file.with_name(marker.response).exists() and marker.response not in ledger.read(place).responses


def _read(file: Path, *, is_live: bool) -> RequestMarker | None:
    try:
        content = file.read_bytes()
    except OSError:
        return None
    service = service_of(file)
    try:
        values = json.loads(content)
        requested_at = parse_date(values["requested_at"])
        identity = (values["hardware_id"], values["given_name"])
        return RequestMarker(file, service, *identity, requested_at, str(values["response"]), is_live)
    except (ValueError, KeyError, TypeError, RecursionError):
        return RequestMarker(file, service, None, None, None, "", is_live)

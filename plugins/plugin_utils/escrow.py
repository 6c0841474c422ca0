# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a response on the controller from the moment it arrives until a gateway has it.

One file per service and hardware ID, 0600, in a directory that only its user may enter. The next run that asks for the
same Thing finds it, so that a response is never lost and never paid for twice.

Private to the collection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from .errors import ProvisioningError
from .policy import moment, timestamp

Cipher = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Entry:
    """A response in escrow, why it was asked for, and when it arrived (aware)."""

    service: str
    hardware_id: str | None
    given_name: str
    reason: str
    received_at: datetime
    response: bytes = field(repr=False)


def location(directory: str, service: str, hardware_id: str | None, given_name: str) -> Path:
    """The file that holds the escrow of one Thing; the name shows the service and nothing of the gateway."""
    identity = f"hardware_id {hardware_id}" if hardware_id is not None else f"given_name {given_name}"
    return Path(directory).expanduser() / f"{service}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.escrow"


def prepare(path: Path, encrypt: Cipher | None = None) -> None:
    """Makes sure, before the API is asked, that a response can be kept.

    :param encrypt: as for ``store``; tried once.
    :raises ProvisioningError: ``escrow_failed``.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.parent.stat()
    except OSError as error:
        raise _failed(path, error) from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ProvisioningError(
            "escrow_failed",
            f"The escrow directory {path.parent} must belong to the user that runs Ansible, with mode 0700.",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ProvisioningError(
            "escrow_failed", f"The escrow directory {path.parent} is not writable: see escrow_path."
        )
    if encrypt is not None:
        encrypt(b"")


def store(path: Path, entry: Entry, encrypt: Cipher | None) -> None:
    """Writes an entry in place of an older one; it is on the disk when this returns.

    :param encrypt: turns clear bytes into what is written, or ``None`` to write them as they are.
    :raises ProvisioningError: ``escrow_failed``.
    """
    clear = json.dumps(
        {
            "service": entry.service,
            "hardware_id": entry.hardware_id,
            "given_name": entry.given_name,
            "reason": entry.reason,
            "received_at": timestamp(entry.received_at),
            "response": base64.b64encode(entry.response).decode(),
        }
    ).encode()
    content = encrypt(clear) if encrypt else clear
    temporary = None
    try:
        # mkstemp makes the file 0600 from its first moment
        descriptor, temporary = tempfile.mkstemp(prefix=".escrow-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise _failed(path, error) from error


def load(path: Path, decrypt: Cipher) -> Entry | None:
    """Reads the entry of a Thing, or ``None`` where there is none.

    :param decrypt: turns what was written into clear bytes; raises ``ValueError`` if it cannot.
    :raises ProvisioningError: ``escrow_failed`` if there is one that cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(path, error) from error
    try:
        entry = json.loads(decrypt(content))
        received_at = moment(entry, "received_at")
        if received_at is None:
            raise ValueError("no date")
        return Entry(
            service=entry["service"],
            hardware_id=entry["hardware_id"],
            given_name=entry["given_name"],
            reason=entry["reason"],
            received_at=received_at,
            response=base64.b64decode(entry["response"], validate=True),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # without a cause, which could carry what was decrypted
        raise ProvisioningError(
            "escrow_failed",
            f"A response for this gateway is in escrow at {path} but cannot be read. Run with the Ansible Vault secret "
            "it was encrypted with; or remove the file, and the platform will be asked again.",
        ) from None


def discard(path: Path) -> None:
    """Removes the entry of a Thing once its gateway has it."""
    path.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError) -> ProvisioningError:
    return ProvisioningError("escrow_failed", f"Cannot use the escrow {path}: {error.strerror}. See escrow_path.")

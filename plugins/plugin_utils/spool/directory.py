# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The spool directory on the controller: private to its user, on a volume that is there, with room for a response.

::

    <spool_path>/                              0700
        <service>-<digest>-<sequence>-<random>.response
                                          a response that its gateway does not have yet
        <service>-<digest>.request        a request marker: a request that is not settled
        .<service>-<digest>-…             a file that is being written
        ledger/<service>-<digest>.ledger  what this controller ever received for the Thing

The digest is that of the hardware ID, or of the inventory name and path where there is none.

Private to the collection.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import ProvisioningError

Cipher = Callable[[bytes], bytes]

# Space that is allocated for one response: its largest size (see platform.api), in Base64 and encrypted by Ansible
# Vault, which writes every byte as four.
MAX_ENTRY_BYTES = 2 * 1024 * 1024

_NAME = re.compile(r"\.?([a-z0-9-]+)-[0-9a-f]{32}(?![0-9a-f])")


def default_directory(ansible_home: str) -> str:
    """Return where the spool is by default."""
    return f"{ansible_home}/thingstream/spool"


def location(directory: str, service: str, hardware_id: str | None, gateway: str) -> Path:
    """Return the path that the names of all files for one Thing begin with; it reveals the service and no identity.

    :param gateway: inventory name and path, which count where there is no hardware ID. A given name need not be unique.
    """
    identity = f"hardware_id {hardware_id}" if hardware_id is not None else f"gateway {gateway}"
    return Path(directory).expanduser() / f"{service}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"


def service_of(file: Path) -> str:
    """Return the service that the name of a spool file begins with."""
    match = _NAME.match(file.name)
    return match.group(1) if match else ""


def ledger_directory(directory: Path) -> Path:
    """Return where the ledger is: apart, because it grows with the fleet, and every run reads the spool."""
    return directory / "ledger"


def problem(directory: Path, *, make_parents: bool) -> ProvisioningError | None:
    """Return why a response could not be stored, or ``None`` if it could; changes nothing.

    :param make_parents: whether the directory above may be made, too. One that the user has chosen is more likely a
        volume that is not mounted, and in a container what is made in its place is gone with the run.
    """
    if not make_parents and not directory.parent.is_dir():
        return ProvisioningError(
            "spool_failed",
            f"The directory {directory.parent}, which is to hold the spool, does not exist on the controller: is its "
            "volume mounted? See spool_path. No request was sent.",
        )
    try:
        if directory.exists():
            require_private(directory)
        nearest = next(parent for parent in (directory, *directory.parents) if os.path.lexists(parent))
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        usage = os.statvfs(nearest)
    except OSError as error:
        return failed(directory, error)
    except ProvisioningError as error:
        return error
    if not os.access(nearest, os.W_OK | os.X_OK):
        return ProvisioningError("spool_failed", f"The spool directory {directory} is not writable: see spool_path.")
    free = usage.f_frsize * (usage.f_bfree if os.geteuid() == 0 else usage.f_bavail)
    if free < MAX_ENTRY_BYTES:
        return ProvisioningError(
            "spool_failed",
            f"Only {free // 1024} KiB are free for the spool {directory}; a response needs up to "
            f"{MAX_ENTRY_BYTES // 1024} KiB. Free some space, then run again. No request was sent.",
        )
    return None


def prepare(directory: Path, *, make_parents: bool) -> None:
    """Make the directory where it is missing.

    :raises ProvisioningError: ``spool_failed``, for every ``problem``.
    """
    found = problem(directory, make_parents=make_parents)
    if found is not None:
        raise found
    try:
        _make(ledger_directory(directory))
    except OSError as error:
        raise failed(directory, error) from error
    require_private(directory)


def _make(directory: Path) -> None:
    """Make a directory and those above it, so that no other user can ever replace their content."""
    if not directory.parent.is_dir():
        _make(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def require_private(directory: Path) -> None:
    """Refuse a directory that another user can write to, or could have written to.

    :raises ProvisioningError: ``spool_failed``.
    """
    try:
        status = directory.stat()
    except OSError as error:
        raise failed(directory, error) from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ProvisioningError(
            "spool_failed",
            f"The spool directory {directory} must belong to the user that runs Ansible, with mode 0700.",
        )


def files(directory: Path, suffix: str, *, hidden: bool = False) -> list[Path]:
    """Return the files with a suffix, sorted by name.

    :param hidden: also those that are being written.
    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read or is not private.
    """
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(suffix)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise failed(directory, error) from error
    require_private(directory)
    return [directory / name for name in sorted(names) if hidden or not name.startswith(".")]


def is_locked(file: Path) -> bool:
    """Return whether a process that still runs holds the lock of a file, as far as the file system knows locks."""
    try:
        with file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def sync(directory: Path) -> None:
    """Write the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def failed(path: Path, error: OSError) -> ProvisioningError:
    """Return the error for a file operation in the spool that failed."""
    return ProvisioningError("spool_failed", f"Cannot use the spool {path}: {error.strerror}. See spool_path.")

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a response on the controller from the moment it arrives until a gateway has it.

One file per response, 0600, in a directory that only its user may enter; its name begins with the service and a digest
of the hardware ID. The next run that asks for the same Thing finds it, so that a response is never lost and never paid
for twice. Nothing is ever written over, so that several runs, and hosts with one hardware ID, can meet.

Where a repeated request may create another Thing, a file of the same name says before it goes out that it does. It
stays if no answer arrives: whoever would ask again finds it.

Private to the collection.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import ProvisioningError
from ..job.policy import moment, timestamp

Cipher = Callable[[bytes], bytes]

SUFFIX = ".response"
REQUEST_SUFFIX = ".request"
MAX_WRITE = 3600  # seconds; after that what was begun is no entry, but rubbish that may hold a secret


@dataclass(frozen=True)
class Entry:
    """A response in the spool, why it was asked for, when it arrived (aware), and the file that holds it."""

    service: str
    hardware_id: str | None
    given_name: str
    reason: str
    received_at: datetime
    response: bytes = field(repr=False)
    file: Path | None = None


def default_directory(ansible_home: str) -> str:
    """Where entries are, unless somebody says otherwise."""
    return f"{ansible_home}/thingstream/spool"


def location(directory: str, service: str, hardware_id: str | None, gateway: str) -> Path:
    """What the paths of the entries for one Thing begin with; it shows the service and nothing of the gateway.

    :param gateway: what no other gateway has; it counts where there is no hardware ID. A given name need not be unique.
    """
    identity = f"hardware_id {hardware_id}" if hardware_id is not None else f"gateway {gateway}"
    return Path(directory).expanduser() / f"{service}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"


def prepare(place: Path, encrypt: Cipher | None = None, *, make_parents: bool = True) -> None:
    """Makes sure, before the API is asked, that a response can be kept.

    :param encrypt: as for ``store``; tried once.
    :param make_parents: whether the directory above may be made, too. One that somebody has chosen is more likely a
        volume that is not mounted, and in a container what is made in its place is gone with the run.
    :raises ProvisioningError: ``spool_failed``.
    """
    above = place.parent.parent
    if not make_parents and not above.is_dir():
        raise ProvisioningError(
            "spool_failed",
            f"The directory {above}, which is to hold the spool, does not exist on the controller: is its volume "
            "mounted? See spool_path. Nothing was asked of the platform.",
        )
    try:
        _make(place.parent)
    except OSError as error:
        raise _failed(place.parent, error) from error
    _require_private(place.parent)
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise ProvisioningError("spool_failed", f"The spool directory {place.parent} is not writable: see spool_path.")
    if encrypt is not None:
        encrypt(b"")


@contextlib.contextmanager
def announced(
    place: Path, service: str, hardware_id: str | None, given_name: str, asked_at: datetime
) -> Iterator[Path]:
    """Writes down that a request is about to go out which may create a Thing; it is on the disk when the block begins.

    The file stays until ``withdraw``. It is locked while the block lasts, and the lock ends with the process, however
    that ends. No secret is in it.

    :param asked_at: now, aware.
    :raises ProvisioningError: ``spool_failed``.
    """
    content = {
        "service": service,
        "hardware_id": hardware_id,
        "given_name": given_name,
        "asked_at": timestamp(asked_at),
    }
    descriptor, path = _write(place, REQUEST_SUFFIX, json.dumps(content).encode())
    try:
        yield path
    finally:
        os.close(descriptor)


def withdraw(request: Path) -> None:
    """Removes what ``announced`` wrote, because its answer is in the spool or no Thing was created."""
    request.unlink(missing_ok=True)


def unanswered(place: Path) -> list[Path]:
    """The requests for one Thing whose answer is not in the spool and that nobody waits for any more.

    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read.
    """
    return [path for path in files(place, REQUEST_SUFFIX) if _is_lost(path)]


def store(place: Path, entry: Entry, encrypt: Cipher | None, request: Path | None = None) -> Entry:
    """Writes an entry beside older ones; it is on the disk when this returns.

    :param place: the ``location`` of the Thing.
    :param encrypt: turns clear bytes into what is written, or ``None`` to write them as they are.
    :param request: what ``announced`` the request; from now on it counts as answered.
    :returns: the entry with its file.
    :raises ProvisioningError: ``spool_failed``.
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
    descriptor, path = _write(place, SUFFIX, encrypt(clear) if encrypt else clear, request)
    os.close(descriptor)
    return replace(entry, file=path)


def files(place: Path, suffix: str = SUFFIX) -> list[Path]:
    """The files that hold the entries for one Thing, or the requests for it.

    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read, or belongs to somebody else.
    """
    return [path for path in _all_files(place.parent, suffix) if path.name.startswith(f"{place.name}-")]


def load(place: Path, decrypt: Cipher) -> list[Entry]:
    """Reads the entries for one Thing, oldest first; those of a run that died while it wrote them, too.

    :param decrypt: turns what was written into clear bytes; raises ``ValueError`` if it cannot.
    :raises ProvisioningError: ``spool_failed`` if there is one that cannot be read.
    """
    for path in _all_files(place.parent, SUFFIX, unfinished=True):
        if path.name.startswith(f".{place.name}-"):
            _finish(path, decrypt)
    entries = (_read(path, decrypt) for path in files(place))
    return sorted((entry for entry in entries if entry), key=lambda entry: entry.received_at)


def survey(directory: str, decrypt: Cipher) -> list[dict[str, Any]]:
    """Describes every entry in a directory without any secret; what cannot be read has a ``file`` and a ``service``.

    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read, or belongs to somebody else.
    """
    place = Path(directory).expanduser()
    unfinished = [path for path in _all_files(place, SUFFIX, unfinished=True) if _is_given_up(path)]
    return [_described(path, decrypt) for path in (*_all_files(place, SUFFIX), *unfinished)]


def survey_unanswered(directory: str) -> list[dict[str, Any]]:
    """Describes every request in a directory that ``unanswered`` would find.

    :returns: ``file``, ``service``, ``hardware_id``, ``given_name`` and ``asked_at`` of each; the last three are
        ``None`` where the file cannot be read.
    :raises ProvisioningError: ``spool_failed`` if the directory cannot be read.
    """
    place = Path(directory).expanduser()
    return [_described_request(path) for path in _all_files(place, REQUEST_SUFFIX) if _is_lost(path)]


def discard(entry: Entry) -> None:
    """Removes an entry once its gateway has it, and the request of a run that died before it could do so."""
    if entry.file is not None:
        withdraw(entry.file.with_suffix(REQUEST_SUFFIX))
        entry.file.unlink(missing_ok=True)


def _make(directory: Path) -> None:
    """Makes a directory, and those above it, so that nobody else can ever replace what is in them."""
    if not directory.parent.is_dir():
        _make(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def _require_private(directory: Path) -> None:
    """Refuses a directory into which somebody else could put an answer, or could have put one."""
    try:
        status = directory.stat()
    except OSError as error:
        raise _failed(directory, error) from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ProvisioningError(
            "spool_failed",
            f"The spool directory {directory} must belong to the user that runs Ansible, with mode 0700.",
        )


def _all_files(directory: Path, suffix: str, *, unfinished: bool = False) -> list[Path]:
    """What is in a directory, or what its writers have not given its name yet."""
    try:
        with os.scandir(directory) as found:
            names = [one.name for one in found if one.name.endswith(suffix) and (one.name[0] == ".") == unfinished]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failed(directory, error) from error
    _require_private(directory)
    return [directory / name for name in sorted(names)]


def _finish(unfinished: Path, decrypt: Cipher) -> None:
    """Gives a whole entry whose writer has died its name, and removes what has not become one."""
    if not _is_given_up(unfinished):
        return
    with contextlib.suppress(FileNotFoundError):  # another run was faster
        try:
            _read(unfinished, decrypt)
        except ProvisioningError:
            # another run may be able to decrypt it
            is_clear = unfinished.read_bytes()[:1] in (b"", b"{")
            if is_clear and time.time() - unfinished.stat().st_mtime > MAX_WRITE:
                unfinished.unlink()
        else:
            unfinished.rename(unfinished.with_name(unfinished.name[1:]))


def _service_in(path: Path) -> str:
    return path.name.lstrip(".").rsplit("-", 2)[0]


def _described_request(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        request = {name: content[name] for name in ("hardware_id", "given_name", "asked_at")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        request = dict.fromkeys(("hardware_id", "given_name", "asked_at"))
    return {"file": str(path), "service": _service_in(path), **request}


def _described(path: Path, decrypt: Cipher) -> dict[str, Any]:
    try:
        entry = _read(path, decrypt)
    except ProvisioningError:
        entry = None
    return {
        "file": str(path),
        "service": entry.service if entry else _service_in(path),
        "readable": entry is not None,
        "hardware_id": entry.hardware_id if entry else None,
        "given_name": entry.given_name if entry else None,
        "reason": entry.reason if entry else None,
        "received_at": timestamp(entry.received_at) if entry else None,
    }


def _read(path: Path, decrypt: Cipher) -> Entry | None:
    """One entry, or ``None`` if another run has discarded it meanwhile."""
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
            file=path,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # without a cause, which could carry what was decrypted
        raise ProvisioningError(
            "spool_failed",
            f"A response for this gateway is in the spool at {path} but cannot be read. Run with the Ansible Vault "
            "secret it was encrypted with; or remove the file, and the platform will be asked again.",
        ) from None


def _write(place: Path, suffix: str, content: bytes, request: Path | None = None) -> tuple[int, Path]:
    """Writes a file, all or nothing, and returns it open and locked. Until it is whole its name begins with a dot."""
    descriptor, temporary = None, None
    try:
        # 0600 from its first moment, under a name that nobody else has
        if request is None:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{place.name}-", suffix=suffix, dir=place.parent)
        else:
            temporary = str(request.with_name(f".{request.stem}{suffix}"))
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.suppress(OSError):  # not every file system knows locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        os.fsync(descriptor)
        path = place.with_name(os.path.basename(temporary)[1:])
        os.replace(temporary, path)
        _sync_directory(place.parent)
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise _failed(place.parent, error) from error
    return descriptor, path


def _is_lost(request: Path) -> bool:
    return not request.with_suffix(SUFFIX).exists() and _is_given_up(request)


def _is_given_up(request: Path) -> bool:
    """Whether nobody waits for the answer to a request any more, as far as a lock can tell."""
    with contextlib.suppress(OSError), request.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return request.exists()  # its answer may have arrived meanwhile


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError) -> ProvisioningError:
    return ProvisioningError("spool_failed", f"Cannot use the spool {path}: {error.strerror}. See spool_path.")

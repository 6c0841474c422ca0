# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ``gateway.sh`` over the connection that Ansible already has, and reads its answer.

A command without payload is the script on standard input. A command with payload is one tar stream, the script in it,
that a one-line bootstrap unpacks into a staging directory and runs there: nothing long, and no secret, is ever an
argument. What a gateway prints is parsed, bounded and never evaluated: a gateway may be compromised.

Private to the collection.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
import shlex
import stat
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import ProvisioningError

# (command, standard input, whether the answer holds a secret) -> (exit status, standard output, standard error)
Execute = Callable[[str, bytes, bool], "tuple[int, str, str]"]

_SOURCE = Path(__file__).with_name("gateway.sh").read_text(encoding="utf-8")


def without_comments(text: str) -> str:
    """What travels to a gateway; no line of the script begins with # for another reason."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))


SCRIPT = without_comments(_SOURCE)
# A look needs no more than the first part, and a shell takes as long to read the rest as to run it.
_LOOK, _change_marker, _REST = _SOURCE.partition("# ---- changes: ")
LOOK_SCRIPT = without_comments(_LOOK + _REST[_REST.index('say "begin 1"') :])
MAX_PATH = 512  # characters; every argument together stays far below the 9,000 that dropbear takes
MAX_NAME = 64  # characters of a user or a group
MAX_RECORD = 256 * 1024  # characters
MAX_RESPONSE = 8 * 1024 * 1024  # characters; a gateway in order answers some thousands
MAX_TAR_ID = 0o7777777
MIN_FREE_KIB = 256  # a bundle is about 20 KiB

# What the script reports; a gateway has no say in what the platform refused.
REPORTED_CODES = (
    "bad_path",
    "permission",
    "disk_full",
    "concurrent_change",
    "health_check_failed",
    "no_generation",
    "gateway_unsupported",
)

# Files of the staging directory vanish one by one, so that it may still be there when the first is missed.
_CLEARED_AWAY = re.compile(r"(tar: |gateway\.sh).*no such file")
_GENERATION = re.compile(r"[0-9]{6}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"[a-zA-Z-][rwxsStT-]{9}[+.@]?")
_IDENTITY = re.compile(r"uid=(\d+)(?:\(([^)]*)\))? gid=\d+")
_GROUPS = re.compile(r"(\d+)(?:\(([^)]*)\))?")


@dataclass(frozen=True)
class Attributes:
    """Type and permissions as ``ls -ln`` shows them (``drwxr-x---``), with numeric owner and group."""

    mode: str
    owner: int
    group: int


@dataclass(frozen=True)
class File:
    """One file of a bundle: its content and its mode, for example ``0o640``."""

    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True)
class Held:
    """What a gateway holds at one path; all of it is what the gateway claims.

    :param user_id, user_name, groups: who runs the commands there; groups maps a number to a name, primary first.
    :param owner_id, group_id: the wanted owner and group, or ``None`` where the gateway does not know them.
    :param keeper_id: whom the directories should belong to; ``None`` for the user who runs the commands.
    :param ancestors: what leads to the path by symbolic links, and then the directories from ``/`` down to the path, as
        far as they exist, each a (name, Attributes).
    :param current: the name of the generation in use, or ``None``.
    :param record: the parsed record of that generation, or ``None`` where there is none that can be read.
    :param digests: file name to SHA-256 of the files of that generation.
    :param files: file name to Attributes in that generation.
    :param directories: the Attributes of ``.``, ``generations`` and ``current``, as far as they exist.
    :param newest: the last generation that has ever been in use; after a roll back it is not the current one.
    :param history: the parsed history of the path, or ``None`` where there is none that can be read.
    :param history_text: the same as it is written there.
    :param leftovers: names that a run which died has left behind.
    """

    path: str
    user_id: int
    user_name: str
    groups: Mapping[int, str]
    owner_id: int | None
    group_id: int | None
    ancestors: Sequence[tuple[str, Attributes]]
    missing_tools: tuple[str, ...] = ()
    not_writable: str | None = None
    free_kib: int | None = None
    current: str | None = None
    record: Mapping[str, Any] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Attributes] = field(default_factory=dict)
    directories: Mapping[str, Attributes] = field(default_factory=dict)
    newest: str | None = None
    history: Mapping[str, Any] | None = None
    history_text: str = ""
    leftovers: tuple[str, ...] = ()
    generations: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    keeper_id: int | None = None

    @property
    def exists(self) -> bool:
        """Whether the path itself is there."""
        return bool(self.ancestors) and self.ancestors[-1][0] == self.path


@dataclass(frozen=True)
class Consumers:
    """How those who read the credentials take part in a switch.

    :param reload_command: what makes them read the files again, in the language of ``sh``.
    :param health_command: what succeeds once they work with what they have read.
    :param health_timeout: whole seconds that each of the two may take; the health command is repeated within them.
    """

    reload_command: str | None = None
    health_command: str | None = None
    health_timeout: int = 30


@dataclass(frozen=True)
class Change:
    """How a path is changed, whatever the change is.

    :param directory_mode: of every directory, for example ``0o750``.
    :param keep: how many previous generations stay for a roll back.
    :param nonce: lower-case letters and digits that no other run uses.
    :param history: the history to write down, as JSON text; ``None`` leaves it as it is.
    """

    directory_mode: int
    keep: int
    nonce: str
    consumers: Consumers = field(default_factory=Consumers)
    history: str | None = None


def probe(
    execute: Execute, path: str, owner: str | None = None, group: str | None = None, *, thorough: bool = False
) -> Held:
    """Looks at one path on the gateway, in one remote command that changes nothing.

    :param thorough: also look for what could make an installation fail; without it that is done only where nothing is
        installed yet, because it takes as long again.
    :raises ProvisioningError: ``bad_path``, ``gateway_unsupported``.
    """
    check_path(path)
    asked = {"owner": owner or "", "group": group or "", "thorough": "yes" if thorough else "no"}
    answer = _run(execute, _request("probe", path, **asked), script=LOOK_SCRIPT)
    held = _read_probe(path, answer)
    primary = next(iter(held.groups), None)
    return replace(
        held,
        owner_id=held.owner_id if owner else held.user_id,
        group_id=held.group_id if group or (owner and held.group_id is not None) else primary,
    )


def survey(execute: Execute, paths: Sequence[str], owner: str | None = None, group: str | None = None) -> list[Held]:
    """Looks at several paths and at every generation in them, in one remote command that changes nothing.

    :param owner, group: who is wanted; without them everything should belong to whom the record belongs to.
    :raises ProvisioningError: ``bad_path``, ``gateway_unsupported``.
    """
    for path in paths:
        check_path(path)
    arguments = "set -- " + " ".join(shlex.quote(path) for path in paths) + "\n"
    request = _request("survey", paths[0], owner=owner or "", group=group or "", thorough="no")
    answer = _run(execute, arguments + request, script=LOOK_SCRIPT)
    sections = _sections(answer, "path")[1:]
    if len(sections) != len(paths):
        raise _not_understood()
    found = (_read_probe(path, section) for path, (_path, section) in zip(paths, sections, strict=True))
    return [_owned_as_it_is(held, owner, group) for held in found]


def install(execute: Execute, held: Held, files: Mapping[str, File], change: Change, modified_at: datetime) -> str:
    """Puts a bundle on the gateway as its new current generation, all or nothing, in one remote command.

    :param held: what ``probe`` found; if the gateway has another current generation by now, nothing is changed.
    :param modified_at: the modification time that the files get.
    :returns: the name of the new generation.
    :raises ProvisioningError: ``bad_path``, ``permission``, ``disk_full``, ``concurrent_change``,
        ``gateway_unsupported``, ``health_check_failed``.
    """
    request = _change("install", held, files, change)
    # what mkdir and tar complain of is recognized in English only
    command = (
        f"LC_ALL=C; export LC_ALL; p={shlex.quote(held.path)}; s=$p/.staging-{change.nonce};"
        ' umask 022; mkdir -p "${p%/*}/" && umask 077 &&'
        ' if [ -L "$p" ]; then echo "symbolic link" >&2; false; else [ -d "$p" ] || mkdir "$p"; fi && mkdir "$s" &&'
        ' { cd "$s" && tar -xpf - && sh ./gateway.sh </dev/null; e=$?; cd /; [ -d "$s" ] || echo "cleared away" >&2;'
        ' rm -rf "$s"; exit $e; }'
    )
    status, output, complaint = execute(command, _stream(request + SCRIPT, files, held, modified_at), False)
    lines = _answer(output)
    if not lines and status != 0:
        raise _unpacking_failed(complaint)
    return _word(_checked(lines, status, complaint), "installed")


def roll_back(
    execute: Execute,
    held: Held,
    target: str,
    files: Mapping[str, File],
    digests: Mapping[str, str],
    change: Change,
) -> str:
    """Puts a generation that is on the gateway in use again, in one remote command.

    :param target: the name of that generation.
    :param files: the modes that its files must have; their content is not used.
    :param digests: file name to SHA-256, as its record says.
    :returns: the name of the generation.
    :raises ProvisioningError: as ``install``, and ``no_generation``.
    """
    lines = "\n".join(f"{digest}  {name}" for name, digest in digests.items())
    request = _change("roll_back", held, files, change, target=target, digests=lines)
    return _word(_run(execute, request), "rolled_back")


def repair(execute: Execute, held: Held, files: Mapping[str, File], change: Change) -> str:
    """Gives the current generation its owner, group and modes again and clears leftovers, in one remote command.

    :param files: the modes that the files must have; their content is not used.
    :returns: the name of the current generation.
    :raises ProvisioningError: as ``install``.
    """
    return _word(_run(execute, _change("repair", held, files, change)), "repaired")


def remember(execute: Execute, held: Held, change: Change) -> None:
    """Writes down the history and changes nothing else, in one remote command.

    :raises ProvisioningError: ``bad_path``, ``permission``, ``disk_full``, ``concurrent_change``,
        ``gateway_unsupported``.
    """
    if "remembered" not in _run(execute, _change("remember", held, {}, change)):
        raise _not_understood()


def read_response(execute: Execute, held: Held) -> bytes:
    """Reads the installed raw response back: the one command whose answer is a secret.

    :raises ProvisioningError: ``bad_path``, ``gateway_unsupported``.
    """
    request = _request("read_response", held.path, current=held.current or "")
    lines = _run(execute, request, secret=True)
    if "response" not in lines:
        raise _not_understood()
    # gateway.sh ends the file with one line feed of its own
    return "\n".join(lines[lines.index("response") + 1 :]).encode("utf-8", "surrogateescape")


def remove(execute: Execute, held: Held, change: Change) -> None:
    """Removes every generation and the link to the current one, in one remote command. The history stays.

    :raises ProvisioningError: ``bad_path``, ``permission``, ``concurrent_change``, ``gateway_unsupported``,
        ``health_check_failed`` if consumers could not be told.
    """
    if "removed" not in _run(execute, _change("remove", held, {}, change)):
        raise _not_understood()


def run_script(execute: Execute, script: str, secret: bool = False, **values: str) -> list[str]:
    """Runs another script than ``gateway.sh`` that answers as that does, and returns the lines of its answer.

    :param values: the texts that its ``request_`` variables get.
    :raises ProvisioningError: ``gateway_unsupported``.
    """
    return _run(execute, _assignments(values), secret, script)


def check_path(path: str) -> None:
    """Refuses a path that is not a plain absolute one.

    :raises ProvisioningError: ``bad_path``.
    """
    parts = path.split("/")
    if not path.startswith("/") or (len(parts) < 3 and not parts[-1]):
        raise ProvisioningError("bad_path", "path must be absolute, for example /etc/thingstream/pointperfect.")
    if any(part in ("", ".", "..") for part in parts[1:]):
        raise ProvisioningError("bad_path", "path must not hold empty parts, '.', '..' or a slash at its end.")
    if not path.isascii() or not path.isprintable():
        # ls of BusyBox shows other characters as question marks
        raise ProvisioningError("bad_path", "path must hold nothing but printable ASCII characters.")
    if len(path) > MAX_PATH:
        raise ProvisioningError("bad_path", f"path is longer than {MAX_PATH} characters.")


def require_changeable(held: Held) -> None:
    """Finds out, before anything is asked or written, whether the path can be changed at all.

    :raises ProvisioningError: ``gateway_unsupported``, ``bad_path``, ``permission``.
    """
    if held.missing_tools:
        raise _lacking(held.missing_tools)
    _require_safe_path(held)
    if held.not_writable is not None:
        raise ProvisioningError(
            "permission",
            f"User {held.user_name!r} cannot write to {held.not_writable}: use become, or mount it writable.",
        )


def require_installable(held: Held, owner: str | None, group: str | None) -> None:
    """Finds out, before anything is asked or written, whether a bundle could be installed.

    :param held: what ``probe`` found with the same owner and group.
    :raises ProvisioningError: as ``require_changeable``, and ``bad_option``, ``disk_full``.
    """
    require_changeable(held)
    for option, name, number in (("owner", owner, held.owner_id), ("group", group, held.group_id)):
        if number is None:
            raise ProvisioningError(
                "bad_option", f"The gateway has no {option} {name!r}: create it or change {option}."
            )
    if held.user_id != 0 and (held.owner_id != held.user_id or held.group_id not in held.groups):
        raise ProvisioningError(
            "permission", f"User {held.user_name!r} cannot give files to the wanted owner and group: use become."
        )
    if held.free_kib is not None and held.free_kib < MIN_FREE_KIB:
        raise ProvisioningError(
            "disk_full", f"Only {held.free_kib} KiB are free at {held.path}; {MIN_FREE_KIB} KiB are needed."
        )


def drift(held: Held, modes: Mapping[str, int], directory_mode: int) -> list[str]:
    """Names what has another owner, group or mode than it should: files of the current generation and directories.

    :param modes: file name to mode, for example ``0o640``.
    """
    keeper_id = held.user_id if held.keeper_id is None else held.keeper_id
    expected = {name: (stat.filemode(stat.S_IFREG | mode), held.owner_id) for name, mode in modes.items()}
    expected.update(
        {f"{name}/": (stat.filemode(stat.S_IFDIR | directory_mode), keeper_id) for name in held.directories}
    )
    found = {**held.files, **{f"{name}/": attributes for name, attributes in held.directories.items()}}
    # what should belong to somebody whom the gateway does not know is drift: the attempt to put it right says so
    return sorted(
        name
        for name, (mode, owner_id) in expected.items()
        if name in found and (found[name].mode, found[name].owner, found[name].group) != (mode, owner_id, held.group_id)
    )


def _require_safe_path(held: Held) -> None:
    for name, attributes in held.ancestors:
        if attributes.mode[0] not in "dl":
            raise ProvisioningError("bad_path", f"{name} is not a directory.")
        # In a sticky directory nobody can replace what belongs to somebody else.
        if name != held.path and attributes.mode[0] == "d" and attributes.mode[8:] in ("wx", "w-"):
            raise ProvisioningError(
                "bad_path", f"{name} is writable by every user of the gateway, who could replace what lies below it."
            )
        if name != held.path and attributes.owner not in (0, held.user_id, held.owner_id):
            raise ProvisioningError(
                "bad_path",
                f"{name} belongs to another user (ID {attributes.owner}), who could replace what lies below it: choose "
                "another path, run the commands as that user, or name that user as owner.",
            )
    if not held.exists:
        return
    mode, owner = held.ancestors[-1][1].mode, held.ancestors[-1][1].owner
    if mode[0] == "l":
        raise ProvisioningError("bad_path", f"{held.path} is a symbolic link: name the directory itself.")
    if mode[8] == "w" and held.current is None:
        raise ProvisioningError(
            "bad_path",
            f"{held.path} is writable by every user of the gateway; nothing in it can be trusted. Look at what it "
            "holds, then remove it or correct its mode.",
        )
    if owner not in (0, held.user_id, held.owner_id):
        raise ProvisioningError("bad_path", f"{held.path} belongs to another user (ID {owner}).")


# ---- what is sent ----


def _request(command: str, path: str, **values: str) -> str:
    return _assignments({"command": command, "path": path, **values})


def _assignments(values: Mapping[str, str]) -> str:
    return "".join(f"request_{name}={shlex.quote(value)}\n" for name, value in values.items())


def _change(command: str, held: Held, files: Mapping[str, File], change: Change, **values: str) -> str:
    words = (f"{file.mode:04o} {stat.filemode(stat.S_IFREG | file.mode)} {name}" for name, file in files.items())
    # where only the history is written, nobody may have asked whether owner and group are known there
    owner_id = held.user_id if held.owner_id is None else held.owner_id
    group_id = next(iter(held.groups), 0) if held.group_id is None else held.group_id
    return _request(
        command,
        held.path,
        current=held.current or "",
        user_id=str(held.user_id),
        owner_id=str(owner_id),
        group_id=str(group_id),
        directory_mode=f"{change.directory_mode:04o}",
        keep=str(change.keep),
        nonce=change.nonce,
        files=" ".join(words),
        history=change.history or "",
        # what this collection has not written may be written over
        known_history=held.history_text if held.history_text.isascii() else "?",
        reload_command=change.consumers.reload_command or "",
        health_command=change.consumers.health_command or "",
        health_timeout=str(change.consumers.health_timeout),
        **values,
    )


def _stream(script: str, files: Mapping[str, File], held: Held, modified_at: datetime) -> bytes:
    """The script, the digests and the bundle as one tar archive, script first."""
    digests = "".join(f"{hashlib.sha256(file.content).hexdigest()}  files/{name}\n" for name, file in files.items())
    members = [
        ("gateway.sh", File(script.encode(), 0o600)),
        ("digests", File(digests.encode(), 0o600)),
        *((f"files/{name}", file) for name, file in files.items()),
    ]
    # only root gives files away while unpacking, and then to itself; the format has no room for large numbers
    user_id = held.user_id if held.user_id <= MAX_TAR_ID else 0
    buffer = io.BytesIO()
    # The plainest format, which every tar reads. Files belong to whoever runs the commands until gateway.sh gives
    # them to their owner.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        directory = tarfile.TarInfo("files")
        directory.type, directory.mode, directory.uid = tarfile.DIRTYPE, 0o700, user_id
        archive.addfile(directory)
        for name, file in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid = len(file.content), file.mode, user_id
            member.mtime = modified_at.timestamp()
            archive.addfile(member, io.BytesIO(file.content))
    return buffer.getvalue()


# ---- what comes back ----


def _owned_as_it_is(held: Held, owner: str | None, group: str | None) -> Held:
    """Where nobody says which owner is wanted, the files should belong to that of the record, directories to root or
    whoever runs the commands, or else to the owner of the path."""
    if not held.exists:
        return held
    directory = held.ancestors[-1][1]
    file = held.files.get("thing.json", directory)
    return replace(
        held,
        owner_id=held.owner_id if owner else file.owner,
        group_id=held.group_id if group else directory.group,
        keeper_id=directory.owner if not owner or directory.owner == 0 else None,
    )


def _run(execute: Execute, request: str, secret: bool = False, script: str | None = None) -> list[str]:
    status, output, complaint = execute("sh -s", (request + (script or SCRIPT)).encode(), secret)
    return _checked(_answer(output), status, complaint)


def _answer(output: str) -> list[str]:
    """The lines between ``begin`` and the last ``end``; whatever a login shell prints around them is dropped.

    :raises ProvisioningError: ``gateway_unsupported`` if it is larger than any that makes sense.
    """
    if len(output) > MAX_RESPONSE:
        raise ProvisioningError(
            "gateway_unsupported",
            f"The gateway answered with more than {MAX_RESPONSE // 1024 // 1024} MiB; nothing of it was read.",
        )
    if "begin 1\r\n" in output:  # a terminal in between
        output = output.replace("\r\n", "\n")
    _before, begin, rest = output.partition("begin 1\n")
    lines = rest.split("\n")
    while begin and lines:
        if lines.pop() == "end":
            return lines
    return []


def _checked(lines: list[str], status: int, complaint: str) -> list[str]:
    for line in lines:
        if line.startswith("failed "):
            _keyword, code, detail = (*line.split(" ", 2), "")[:3]
            if code in REPORTED_CODES:
                raise ProvisioningError(code, f"The gateway reports: {_readable(detail)}.")
    if not lines:
        raise ProvisioningError(
            "gateway_unsupported",
            f"The shell on the gateway did not run the script to its end (exit status {status}: "
            f"{_readable(complaint) or 'no message'}). It needs a POSIX sh as /bin/sh, a connection that carries "
            "standard input, and become without a terminal (no requiretty).",
        )
    return lines


def _unpacking_failed(complaint: str) -> ProvisioningError:
    text = complaint.lower()
    if text.strip() == "symbolic link":
        return ProvisioningError("bad_path", "path has become a symbolic link on the gateway.")
    if any(words in text for words in ("no space left", "quota exceeded", "file too large", "wrote only")):
        return ProvisioningError(
            "disk_full",
            "The disk of the gateway is full, or a quota or limit is reached. Free some space and run again.",
        )
    if "read-only file system" in text:
        return ProvisioningError("permission", "The file system at path is read-only on the gateway.")
    # by a faster run, which cannot tell the staging directory from that of a dead run
    if "cleared away" in text or _CLEARED_AWAY.search(text):
        return ProvisioningError(
            "concurrent_change",
            "Another run has cleared away what this one was unpacking, or it did not arrive whole. Run again.",
        )
    if "permission denied" in text:
        return ProvisioningError("permission", "The user that runs the commands cannot write at path: use become.")
    return ProvisioningError(
        "gateway_unsupported", f"The gateway could not unpack the bundle: {_readable(complaint) or 'no message'}."
    )


def _lacking(tools: Sequence[str]) -> ProvisioningError:
    return ProvisioningError("gateway_unsupported", f"The gateway lacks: {', '.join(tools)}. Install what brings them.")


def _not_understood() -> ProvisioningError:
    return ProvisioningError("gateway_unsupported", "The gateway answered in a way that cannot be understood.")


def _readable(text: str) -> str:
    """The last line of what a gateway printed, printable and short."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "".join(character for character in (lines or [""])[-1] if character.isprintable())[:200].strip(" .")


def _word(lines: list[str], keyword: str) -> str:
    for line in lines:
        name, _space, value = line.partition(" ")
        if name == keyword and _GENERATION.fullmatch(value):
            return value
    raise _not_understood()


def _read_probe(path: str, lines: Sequence[str]) -> Held:
    try:
        return _parse_probe(path, lines)
    except (ValueError, IndexError, KeyError) as error:
        raise _not_understood() from error


def _parse_probe(path: str, lines: Sequence[str]) -> Held:
    (_none, found), *generations = _sections(lines, "generation")
    values = _by_keyword(found)
    missing = tuple(map(_readable, values.get("missing", [])[:16]))
    if {"id", "ls"} & set(missing):
        raise _lacking(missing)
    identity = values["identity"][0]
    user = _IDENTITY.match(identity)
    if user is None:
        raise ValueError("no identity")
    listing = {name: attributes for name, _target, attributes in map(_listed, values["@listing"])}
    targets = {name: target for name, target, _attributes in map(_listed, values["@listing"]) if target}
    root = values.get("physical_path", [path])[0]
    inside = _inside(listing, root)
    generation_directories = _inside(listing, f"{root}/generations")
    current = _current(root, values.get("current", [""])[0], inside)
    newest = max(current or "", targets.get(f"{root}/.newest", ""), key=_generation_number)
    directories = {".": listing.get(path), "generations": inside.get("generations")}
    owner = values.get("owner_id", [""])[0].split()
    if current:
        directories["current"] = generation_directories.get(current)
    return Held(
        path=path,
        user_id=int(user.group(1)),
        user_name=_readable(user.group(2) or user.group(1))[:MAX_NAME],
        groups=_groups(identity.partition(" gid=")[2].partition(" context=")[0]),
        owner_id=_number(owner[:1]),
        group_id=_number(values["group_id"][0].split()[:1] if "group_id" in values else owner[1:2]),
        ancestors=[(name, attributes) for name, _target, attributes in map(_listed, values.get("@above", ()))]
        + [(name, listing[name]) for name in _ancestors(path) if name in listing],
        missing_tools=missing,
        not_writable=_readable(values["not_writable"][0]) if "not_writable" in values else None,
        free_kib=_free_kib(values.get("@space", ())),
        current=current,
        record=_record(values.get("record", ())) if current else None,
        digests=dict(_digests(values.get("@digests", ()))) if current else {},
        files=_inside(listing, f"{root}/generations/{current}") if current else {},
        directories={name: attributes for name, attributes in directories.items() if attributes is not None},
        newest=newest or None,
        history=_record(values.get("history", ())),
        # as $(cat) reads it: without the empty lines that an editor may leave at its end
        history_text="\n".join(values.get("history", ())).rstrip("\n"),
        leftovers=tuple(_leftovers(inside, generation_directories, newest)),
        generations={
            name: _record(_by_keyword(section).get("record", ()))
            for name, section in generations
            if _GENERATION.fullmatch(name)
        },
    )


def _groups(text: str) -> dict[int, str]:
    """``0(root) groups=0(root),5`` -> number to name, the primary group first; nameless ones by their number."""
    groups: dict[int, str] = {}
    for number, name in _GROUPS.findall(text):
        groups.setdefault(int(number), _readable(name or number)[:MAX_NAME])
    return groups


def _listed(line: str) -> tuple[str, str, Attributes]:
    """One line of ``ls -ldn`` as name, target of a link, and attributes.

    The mode loses the mark that some systems append for an ACL or a security context.
    """
    mode, _links, owner, group, _size, _month, _day, _time, name = line.split(None, 8)
    if not _MODE.fullmatch(mode):
        raise ValueError("not a mode")
    target = ""
    if mode.startswith("l"):
        name, _arrow, target = name.rpartition(" -> ") if " -> " in name else (name, "", "")
    return name, target, Attributes(mode.rstrip("+.@"), int(owner), int(group))


def _generation_number(name: str) -> int:
    return int(name) if _GENERATION.fullmatch(name) else 0


def _inside(listing: Mapping[str, Attributes], directory: str) -> dict[str, Attributes]:
    return {
        posixpath.basename(name): attributes
        for name, attributes in listing.items()
        if posixpath.dirname(name) == directory
    }


def _ancestors(path: str) -> list[str]:
    """``/a/b`` -> ``/``, ``/a``, ``/a/b``"""
    parts = path.split("/")
    return ["/", *("/".join(parts[:count]) for count in range(2, len(parts) + 1))]


def _current(physical_path: str, target: str, inside: Mapping[str, Attributes]) -> str | None:
    directory, _slash, generation = target.rpartition("/")
    is_link = "current" in inside and inside["current"].mode.startswith("l")
    if is_link and directory == f"{physical_path}/generations" and _GENERATION.fullmatch(generation):
        return generation
    return None


def _leftovers(inside: Mapping[str, Attributes], generations: Mapping[str, Attributes], newest: str) -> list[str]:
    unfinished = [name for name in inside if name.startswith((".staging-", ".current-")) or name == ".trial"]
    return unfinished + [name for name in generations if _GENERATION.fullmatch(name) and name > newest]


def _record(lines: Sequence[str]) -> Mapping[str, Any] | None:
    text = "\n".join(lines)
    try:
        record = json.loads(text) if len(text) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _digests(lines: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [line.split("  ", 1) for line in lines]
    return [
        (pair[1], pair[0])
        for pair in pairs
        if len(pair) == 2 and _DIGEST.fullmatch(pair[0]) and FILE_NAME.fullmatch(pair[1])
    ]


def _free_kib(lines: Sequence[str]) -> int | None:
    """The fourth column of ``df -P``; where that cannot be read, the writing will tell."""
    columns = lines[-1].split() if lines else []
    return _number(columns[3:4])


def _number(values: Sequence[str] | None) -> int | None:
    return int(values[0]) if values and re.fullmatch(r"[0-9]{1,18}", values[0]) else None


def _sections(lines: Sequence[str], keyword: str) -> list[tuple[str, list[str]]]:
    """Splits lines at each ``keyword value``; the first section, whose value is empty, is what stands before."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for line in lines:
        name, _space, value = line.partition(" ")
        if name == keyword:
            sections.append((value, []))
        else:
            sections[-1][1].append(line)
    return sections


def _by_keyword(lines: Sequence[str]) -> dict[str, list[str]]:
    """Keyword to its values; a line ``@name`` makes the lines that follow, whole, the values of ``@name``."""
    values: dict[str, list[str]] = {}
    block = ""
    for line in lines:
        keyword, _space, value = line.partition(" ")
        if keyword.startswith("@"):
            block = keyword if keyword != "@" else ""
        elif block:
            values.setdefault(block, []).append(line)
        else:
            values.setdefault(keyword, []).append(value)
    return values

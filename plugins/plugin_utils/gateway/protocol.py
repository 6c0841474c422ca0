# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Define what is sent to a gateway and what its scripts print.

A request is a script behind lines that assign its ``request_`` variables, or a tar stream that holds that script and
the files of a bundle. The output of a script is parsed, bounded and never evaluated: a gateway may be compromised.

Private to the collection.
"""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import stat
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..errors import ProvisioningError

# (command, standard input, whether the output holds a secret) -> (exit status, standard output, standard error)
Execute = Callable[[str, bytes, bool], "tuple[int, str, str]"]

MAX_NAME = 64  # characters of a user or a group
MAX_TEXT = 256 * 1024  # characters of thing.json or history.json
MAX_OUTPUT = 8 * 1024 * 1024  # characters; a gateway in order prints some thousands
MAX_MISSING_TOOLS = 16
MAX_GENERATIONS = 1000  # that are read; the latest ones
MAX_TAR_ID = 0o7777777
VOLATILE_FILE_SYSTEMS = ("tmpfs", "ramfs")

# The codes that a script may report. No gateway decides what the platform refused.
REPORTED_CODES = (
    "bad_path",
    "permission",
    "disk_full",
    "concurrent_change",
    "health_check_failed",
    "no_generation",
    "gateway_unsupported",
)

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_GENERATION = re.compile(r"[0-9]{6}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"[a-zA-Z-][rwxsStT-]{9}[+.@]?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_IDENTITY = re.compile(r"uid=(\d+)(?:\(([^)]*)\))? gid=\d+")
_GROUPS = re.compile(r"(\d+)(?:\(([^()]*)\))?")


# ---- the state of a gateway ----


@dataclass(frozen=True)
class Attributes:
    """Type and permissions as ``ls -ln`` shows them (``drwxr-x---``), with numeric owner and group.

    :param access_list: whether there is an access control list, which may let others use it.
    """

    mode: str
    owner: int
    group: int
    access_list: bool = False


@dataclass(frozen=True)
class File:
    """One file of a bundle: its content and its mode, for example ``0o640``."""

    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True)
class User:
    """Who runs the commands on the gateway, and who shall own what.

    :param groups: number to name, the primary group first.
    :param owner_id: wanted owner of the files; ``None`` if the gateway does not know the name.
    :param group_id: wanted group of files and directories; ``None`` likewise.
    :param directory_owner_id: wanted owner of the directories; ``None`` for the user that runs the commands.
    """

    user_id: int
    user_name: str
    groups: Mapping[int, str]
    owner_id: int | None
    group_id: int | None
    directory_owner_id: int | None = None


@dataclass(frozen=True)
class Storage:
    """Where the path is, and what could make a change fail there.

    :param ancestors: what leads to the path by symbolic links, then the directories from ``/`` down to the path, as far
        as they exist.
    :param not_writable: a directory that the user cannot write to.
    :param free_kib: free space; ``None`` if it was not looked at or cannot be read.
    :param file_systems: the type of the file system, and of an overlay also that of its upper layer, as far as known.
    :param can_remove_access_lists: whether the gateway has ``setfacl``, as far as that was looked at.
    :param thorough: whether the checks that matter before an installation were made in this look.
    """

    ancestors: Sequence[tuple[str, Attributes]]
    missing_tools: tuple[str, ...] = ()
    not_writable: str | None = None
    free_kib: int | None = None
    file_systems: tuple[str, ...] = ()
    can_remove_access_lists: bool = True
    thorough: bool = False

    @property
    def volatile(self) -> str | None:
        """The storage that loses its content at a restart of the gateway, in words; ``None`` if none is known."""
        if not self.file_systems or self.file_systems[-1] not in VOLATILE_FILE_SYSTEMS:
            return None
        return " on ".join(self.file_systems)


@dataclass(frozen=True)
class Bundle:
    """The installation at the path.

    :param current: the generation in use.
    :param newest: the last generation that was ever in use; after a roll back it is not the one in use.
    :param record: the text of ``thing.json`` in the generation in use; ``None`` if it cannot be read.
    :param history: the text of ``history.json``; one that is longer than ``MAX_TEXT`` is cut after one more character.
    :param digests: file name to SHA-256, in the generation in use.
    :param files: file name to attributes, in the generation in use.
    :param directories: attributes of ``.``, ``generations`` and ``current``, as far as they exist.
    :param leftovers: names that a crashed run left behind.
    :param generations: name to the text of ``thing.json``, as ``record``; only ``look_at_generations`` fills it.
    """

    current: str | None = None
    newest: str | None = None
    record: str | None = None
    history: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Attributes] = field(default_factory=dict)
    directories: Mapping[str, Attributes] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    generations: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class GatewayState:
    """The findings of a look at one path. All of them are claims of the gateway."""

    path: str
    user: User
    storage: Storage
    bundle: Bundle

    @property
    def exists(self) -> bool:
        """Whether the path itself exists."""
        return bool(self.storage.ancestors) and self.storage.ancestors[-1][0] == self.path


# ---- what is sent ----


def script(name: str) -> str:
    """Return a script of this directory as it is sent: behind the prelude, and without comment lines."""
    texts = [Path(__file__).with_name(part).read_text(encoding="utf-8") for part in ("prelude.sh", name)]
    # no line of the scripts begins with # for another reason
    return "".join(line for line in "".join(texts).splitlines(keepends=True) if not line.lstrip().startswith("#"))


def assignments(values: Mapping[str, str]) -> str:
    """Return the lines that assign these values to the ``request_`` variables of a script."""
    return "".join(f"request_{name}={shlex.quote(value)}\n" for name, value in values.items())


def modes_of_files(modes: Mapping[str, int]) -> str:
    """Return the modes as change.sh reads them: octal mode, symbolic mode and name of each file, in words."""
    return " ".join(f"{mode:04o} {stat.filemode(stat.S_IFREG | mode)} {name}" for name, mode in modes.items())


def known_history(bundle: Bundle) -> str:
    """Return the history as the run has seen it; ``?`` stands for a file that this collection has not written."""
    return bundle.history if bundle.history.isascii() and len(bundle.history) <= MAX_TEXT else "?"


def tar_stream(text: str, files: Mapping[str, File], user_id: int, modified_at: datetime) -> bytes:
    """Return the script ``change.sh``, the digests and the files of a bundle as one tar archive.

    :param user_id: who unpacks it.
    :param modified_at: modification time of the files.
    """
    digests = "".join(f"{hashlib.sha256(file.content).hexdigest()}  files/{name}\n" for name, file in files.items())
    members = [
        ("change.sh", File(text.encode(), 0o600)),
        ("digests", File(digests.encode(), 0o600)),
        *((f"files/{name}", file) for name, file in files.items()),
    ]
    # only root gives files away while unpacking, and then to itself; the format has no room for large numbers
    owner_id = user_id if user_id <= MAX_TAR_ID else 0
    buffer = io.BytesIO()
    # The plainest format, which every tar reads.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        directory = tarfile.TarInfo("files")
        directory.type, directory.mode, directory.uid = tarfile.DIRTYPE, 0o700, owner_id
        archive.addfile(directory)
        for name, file in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid = len(file.content), file.mode, owner_id
            member.mtime = modified_at.timestamp()
            archive.addfile(member, io.BytesIO(file.content))
    return buffer.getvalue()


# ---- what comes back: the frame ----


def output_lines(output: str) -> list[str]:
    """Return the lines between ``begin`` and the last ``end``; what a login shell prints around them is dropped.

    :raises ProvisioningError: ``gateway_unsupported`` if the output is too large.
    """
    if len(output) > MAX_OUTPUT:
        raise ProvisioningError(
            "gateway_unsupported",
            f"The gateway printed more than {MAX_OUTPUT // 1024 // 1024} MiB, which was not read. Look for what prints "
            "so much there: the login shell, or a program that was replaced.",
        )
    if "begin 1\r\n" in output:  # a terminal in between
        output = output.replace("\r\n", "\n")
    _before, begin, rest = output.partition("begin 1\n")
    lines = rest.split("\n")
    while begin and lines:
        if lines.pop() == "end":
            return lines
    return []


def require_success(lines: Sequence[str], status: int, complaint: str) -> None:
    """Check that a script ran to its end and reported no error.

    :raises ProvisioningError: one of ``REPORTED_CODES``.
    """
    for line in lines:
        if line.startswith("failed "):
            _keyword, code, detail = (*line.split(" ", 2), "")[:3]
            if code in REPORTED_CODES:
                raise ProvisioningError(code, f"The gateway reports: {readable(detail)}.")
    if not lines:
        raise ProvisioningError(
            "gateway_unsupported",
            f"The shell on the gateway did not run the script to its end (exit status {status}: "
            f"{readable(complaint) or 'no message'}). It needs a POSIX sh as /bin/sh, a connection that carries "
            "standard input, and become without a terminal (no requiretty).",
        )


def generation_after(keyword: str, lines: Sequence[str]) -> str:
    """Return the generation that a line ``keyword generation`` names.

    :raises ProvisioningError: ``gateway_unsupported`` if there is no such line.
    """
    for line in lines:
        name, _space, value = line.partition(" ")
        if name == keyword and _GENERATION.fullmatch(value):
            return value
    raise unexpected_output()


def unexpected_output() -> ProvisioningError:
    """Return the error for output that no script of this collection prints."""
    return ProvisioningError(
        "gateway_unsupported",
        "The output of the gateway is not that of the script which was sent. Check what its login shell and its become "
        "method print, and its programs ls, id and sha256sum.",
    )


def missing_tools(tools: Sequence[str]) -> ProvisioningError:
    """Return the error for a gateway without these programs."""
    return ProvisioningError(
        "gateway_unsupported", f"The gateway lacks: {', '.join(tools)}. Install the packages that provide them."
    )


def readable(text: str) -> str:
    """Return the last line of what a gateway printed, printable and short."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "".join(character for character in (lines or [""])[-1] if character.isprintable())[:200].strip(" .")


def sections(lines: Sequence[str], keyword: str) -> list[tuple[str, list[str]]]:
    """Split lines at each ``keyword value``; the first section, whose value is empty, is what stands before."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in lines:
        name, _space, value = line.partition(" ")
        if name == keyword:
            found.append((value, []))
        else:
            found[-1][1].append(line)
    return found


# ---- what comes back: the state ----


def parse_state(path: str, lines: Sequence[str]) -> GatewayState:
    """Parse what ``look`` prints for one path; owner and group are those that the gateway knows by the wanted names.

    :raises ProvisioningError: ``gateway_unsupported``.
    """
    (_none, found), *generations = sections(lines, "generation")
    values = _by_keyword(found)
    missing = tuple(map(readable, values.get("missing", [])[:MAX_MISSING_TOOLS]))
    if {"id", "ls"} & set(missing):
        raise missing_tools(missing)
    try:
        entries = [_listed(line) for line in values["@listing"]]
        return GatewayState(
            path=path,
            user=_user(values),
            storage=_storage(path, values, entries, missing),
            bundle=_bundle(path, values, entries, generations),
        )
    except (ValueError, IndexError, KeyError) as error:
        raise unexpected_output() from error


_Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Entry:
    """One line of ``ls -ldn``; ``target`` is empty unless it is a link."""

    name: str
    target: str
    attributes: Attributes


def _user(values: _Values) -> User:
    identity = values["identity"][0]
    match = _IDENTITY.match(identity)
    if match is None:
        raise ValueError("no identity")
    owner = values.get("owner_id", [""])[0].split()
    return User(
        user_id=int(match.group(1)),
        user_name=readable(match.group(2) or match.group(1))[:MAX_NAME],
        groups=_groups(identity.partition(" gid=")[2].partition(" context=")[0]),
        owner_id=_number(owner[:1]),
        # of a wanted owner without a wanted group, the primary group
        group_id=_number(values["group_id"][0].split()[:1] if "group_id" in values else owner[1:2]),
    )


def _groups(text: str) -> dict[int, str]:
    """Return number to name from ``0(root) groups=0(root),5``, the primary group first.

    The name of a group without a name is its number.
    """
    groups: dict[int, str] = {}
    for number, name in _GROUPS.findall(text):
        groups.setdefault(int(number), readable(name or number)[:MAX_NAME])
    return groups


def _storage(path: str, values: _Values, entries: Sequence[_Entry], missing: tuple[str, ...]) -> Storage:
    listing = {entry.name: entry.attributes for entry in entries}
    above = [_listed(line) for line in values.get("@above", ())]
    # the fourth column of `df -P`; where it cannot be read, a full disk is found when it is written to
    space = values.get("@space", ())
    columns = space[-1].split() if space else []
    return Storage(
        ancestors=[(entry.name, entry.attributes) for entry in above]
        + [(name, listing[name]) for name in _ancestors(path) if name in listing],
        missing_tools=missing,
        not_writable=readable(values["not_writable"][0]) if "not_writable" in values else None,
        free_kib=_number(columns[3:4]),
        file_systems=tuple(readable(name)[:MAX_NAME] for name in values.get("file_system", [])[:2]),
        can_remove_access_lists="no_setfacl" not in values,
        thorough="thorough" in values,
    )


def _ancestors(path: str) -> list[str]:
    """Return ``/``, and every directory from there down to the path itself."""
    parts = path.split("/")
    return ["/"] + ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]


def _bundle(
    path: str, values: _Values, entries: Sequence[_Entry], generations: Sequence[tuple[str, Sequence[str]]]
) -> Bundle:
    listing = {entry.name: entry.attributes for entry in entries}
    targets = {entry.name: entry.target for entry in entries if entry.target}
    root = values.get("physical_path", [path])[0]
    inside = _inside(listing, root)
    existing = _inside(listing, f"{root}/generations")
    current = _current(root, values.get("current", [""])[0], inside)
    newest = max(current or "", targets.get(f"{root}/.newest", ""), key=_generation_number)
    directories = {".": listing.get(path), "generations": inside.get("generations")}
    if current:
        directories["current"] = existing.get(current)
    return Bundle(
        current=current,
        newest=newest or None,
        record=_text(values.get("record")) if current else None,
        history=_history(values.get("history", ())),
        digests=_digests(values.get("@digests", ())) if current else {},
        files=_inside(listing, f"{root}/generations/{current}") if current else {},
        directories={name: attributes for name, attributes in directories.items() if attributes is not None},
        leftovers=tuple(_leftovers(inside, existing, newest)),
        generations={
            name: _text(_by_keyword(section).get("record"))
            for name, section in generations[-MAX_GENERATIONS:]
            if _GENERATION.fullmatch(name)
        },
    )


def _inside(listing: Mapping[str, Attributes], directory: str) -> dict[str, Attributes]:
    """Return the attributes of the entries directly in a directory, by their names there."""
    prefix = f"{directory}/"
    names = ((name[len(prefix) :], attributes) for name, attributes in listing.items() if name.startswith(prefix))
    return {name: attributes for name, attributes in names if name and "/" not in name}


def _current(root: str, physical_path: str, inside: Mapping[str, Attributes]) -> str | None:
    """Return the name of the generation in use, if ``current`` is a link that leads to one."""
    directory, _slash, generation = physical_path.rpartition("/")
    is_link = "current" in inside and inside["current"].mode.startswith("l")
    return generation if is_link and directory == f"{root}/generations" and _GENERATION.fullmatch(generation) else None


def _generation_number(name: str) -> int:
    return int(name) if _GENERATION.fullmatch(name) else 0


def _leftovers(inside: Mapping[str, Attributes], generations: Mapping[str, Attributes], newest: str) -> list[str]:
    unfinished = [name for name in inside if name.startswith(".staging-") or name == ".health-check"]
    if "generations" not in inside and ".last-change" in inside:  # the end of a removal
        unfinished.append(".last-change")
    return unfinished + [name for name in generations if _GENERATION.fullmatch(name) and name > newest]


def _text(lines: Sequence[str] | None) -> str | None:
    """Return the text of a file whose lines were printed, if there is one of a sensible size."""
    text = "\n".join(lines) if lines else ""
    return text if lines and len(text) <= MAX_TEXT else None


def _history(lines: Sequence[str]) -> str:
    """Return the history as ``$(cat)`` reads it: without the empty lines that an editor may leave at its end."""
    return "\n".join(lines).rstrip("\n")[: MAX_TEXT + 1]


def _digests(lines: Sequence[str]) -> dict[str, str]:
    pairs = [line.split("  ", 1) for line in lines]
    return {
        pair[1]: pair[0]
        for pair in pairs
        if len(pair) == 2 and _DIGEST.fullmatch(pair[0]) and FILE_NAME.fullmatch(pair[1])
    }


def _listed(line: str) -> _Entry:
    """Parse one line of ``ls -ldn``.

    The mode loses the mark that some systems append for an access control list or for a security context.
    """
    # toybox prints a date of one column, and everybody else one of two; the time follows
    columns = 7 if _DATE.fullmatch(line.split(None, 6)[5]) else 8
    mode, _links, owner, group, *size_and_time, name = line.split(None, columns)
    if len(size_and_time) != columns - 4:
        raise ValueError("not a listing")
    if not _MODE.fullmatch(mode):
        raise ValueError("not a mode")
    target = ""
    if mode.startswith("l"):
        name, _arrow, target = name.rpartition(" -> ") if " -> " in name else (name, "", "")
    return _Entry(name, target, Attributes(mode.rstrip("+.@"), int(owner), int(group), mode.endswith("+")))


def _number(values: Sequence[str]) -> int | None:
    return int(values[0]) if values and re.fullmatch(r"[0-9]{1,18}", values[0]) else None


def _by_keyword(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each keyword; the whole lines that follow a line ``@name`` are values of ``@name``."""
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

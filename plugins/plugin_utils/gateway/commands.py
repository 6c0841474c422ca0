# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ``look.sh`` and ``change.sh`` on a gateway, over the connection that Ansible already has.

A command without payload is a script on standard input. A command with payload is one tar stream, the script in it,
which a one-line bootstrap unpacks into a staging directory and runs there. Nothing long and no secret is ever an
argument.

The ssh connection of Ansible may send the same command twice (``ansible_ssh_retries``). By the nonce of the change the
gateway recognizes that, and reports the same result again.

Private to the collection.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from ..errors import ProvisioningError
from . import protocol
from .preflight import check_path
from .protocol import Execute, File, GatewayState

LOOK_SCRIPT = protocol.script("look.sh")
CHANGE_SCRIPT = protocol.script("change.sh")

_NONCE = re.compile(r"[a-z0-9]{1,64}")


@dataclass(frozen=True)
class Hooks:
    """Commands of the user that take part in a switch, in the language of ``sh``.

    :param reload_command: makes consumers read the files again.
    :param health_command: succeeds once consumers work with what they have read.
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
    :param nonce: 1 to 64 lower-case letters and digits that no other change uses, of this run or of another one: the
        gateway takes a change with the same nonce for a repetition.
    :param history: the history to write, as JSON text; ``None`` leaves it as it is.
    """

    directory_mode: int
    keep: int
    nonce: str
    hooks: Hooks = field(default_factory=Hooks)
    history: str | None = None

    def __post_init__(self) -> None:
        if not _NONCE.fullmatch(self.nonce):
            raise ValueError(f"not a nonce: {self.nonce!r}")


# ---- looks: one remote command that changes nothing ----


def look(
    execute: Execute, path: str, owner: str | None = None, group: str | None = None, *, thorough: bool = False
) -> GatewayState:
    """Look at one path.

    :param owner, group: the wanted ones; ``None`` for those of the user that runs the commands.
    :param thorough: also check what could make an installation fail, which takes as long again. That is done in any
        case where nothing is installed.
    :raises ProvisioningError: ``bad_path``, ``gateway_unsupported``.
    """
    check_path(path)
    request = _request("look", path, owner=owner or "", group=group or "", thorough="yes" if thorough else "no")
    state = protocol.parse_state(path, _run(execute, request + LOOK_SCRIPT))
    user = state.user
    owner_id = user.owner_id if owner else user.user_id
    group_id = user.group_id if group or (owner and user.group_id is not None) else next(iter(user.groups), None)
    return replace(state, user=replace(user, owner_id=owner_id, group_id=group_id))


def look_at_generations(
    execute: Execute, paths: Sequence[str], owner: str | None = None, group: str | None = None
) -> list[GatewayState]:
    """Look at several paths and at every generation in them.

    :param owner, group: the wanted ones; ``None`` for those that the installed files have.
    :raises ProvisioningError: ``bad_path``, ``gateway_unsupported``.
    """
    for path in paths:
        check_path(path)
    arguments = "set -- " + " ".join(shlex.quote(path) for path in paths) + "\n"
    request = _request("look_at_generations", paths[0], owner=owner or "", group=group or "", thorough="no")
    parts = protocol.sections(_run(execute, arguments + request + LOOK_SCRIPT), "path")[1:]
    if len(parts) != len(paths):
        raise protocol.unexpected_output()
    states = (protocol.parse_state(path, lines) for path, (_path, lines) in zip(paths, parts, strict=True))
    return [_with_installed_owner(state, owner, group) for state in states]


def _with_installed_owner(state: GatewayState, owner: str | None, group: str | None) -> GatewayState:
    """Return the state with the installed owner and group where none is wanted.

    Without a wanted owner, the files are compared with the owner of thing.json, and the directories with the owner of
    the path. Root may own the directories in any case.
    """
    if not state.exists:
        return state
    directory = state.storage.ancestors[-1][1]
    file = state.bundle.files.get("thing.json", directory)
    user = replace(
        state.user,
        owner_id=state.user.owner_id if owner else file.owner,
        group_id=state.user.group_id if group else directory.group,
        directory_owner_id=directory.owner if not owner or directory.owner == 0 else None,
    )
    return replace(state, user=user)


def read_response(execute: Execute, state: GatewayState) -> bytes:
    """Read the installed raw response; the output of this command is a secret.

    :raises ProvisioningError: ``bad_path``, ``gateway_unsupported``.
    """
    request = _request("read_response", state.path, current=state.bundle.current or "")
    lines = _run(execute, request + LOOK_SCRIPT, secret=True)
    if "response" not in lines:
        raise protocol.unexpected_output()
    # the script ends the file with one line feed of its own
    return "\n".join(lines[lines.index("response") + 1 :]).encode("utf-8", "surrogateescape")


# ---- changes: one remote command each, all or nothing ----


def install(
    execute: Execute, state: GatewayState, files: Mapping[str, File], change: Change, modified_at: datetime
) -> str:
    """Install a bundle as the next generation.

    :param state: what ``look`` found; if another generation is in use by now, nothing is changed.
    :param modified_at: the modification time of the files.
    :returns: the name of the new generation.
    :raises ProvisioningError: ``bad_path``, ``permission``, ``disk_full``, ``concurrent_change``,
        ``gateway_unsupported``, ``health_check_failed``.
    """
    request = _change_request("install", state, change, {name: file.mode for name, file in files.items()})
    stream = protocol.tar_stream(request + CHANGE_SCRIPT, files, state.user.user_id, modified_at)
    # Error messages of mkdir and tar are recognized in English only. HUP ends no shell that has to clean up, but is not
    # ignored, because programs that the script starts would inherit that. An access control list that a directory hands
    # down overrides the umask, but not the mode that mkdir is given. Variables have braces, because `sudo -i` lets its
    # login shell expand those without.
    command = (
        f"LC_ALL=C; export LC_ALL; trap : HUP PIPE; p={shlex.quote(state.path)}; s=${{p}}/.staging-{change.nonce}-$$;"
        ' umask 022; mkdir -p "${p%/*}/" && umask 077 &&'
        ' if [ -L "${p}" ]; then echo "symbolic link" >&2; false; else [ -d "${p}" ] || mkdir "${p}"; fi &&'
        ' mkdir -m 700 "${s}" && { cd "${s}" && tar -xpf - && sh ./change.sh </dev/null; e=${?}; cd /;'
        ' [ -d "${s}" ] || echo "cleared away" >&2; rm -rf "${s}"; exit ${e}; }'
    )
    status, output, complaint = execute(command, stream, False)
    lines = protocol.output_lines(output)
    if not lines and status != 0:
        raise _unpacking_failed(complaint)
    protocol.require_success(lines, status, complaint)
    return protocol.generation_after("installed", lines)


def roll_back(
    execute: Execute,
    state: GatewayState,
    target: str,
    modes: Mapping[str, int],
    digests: Mapping[str, str],
    change: Change,
) -> str:
    """Switch to a generation that is on the gateway.

    :param target: the name of that generation.
    :param modes: file name to wanted mode.
    :param digests: file name to SHA-256, as its record says.
    :returns: the name of the generation.
    :raises ProvisioningError: as ``install``, and ``no_generation``.
    """
    lines = "\n".join(f"{digest}  {name}" for name, digest in digests.items())
    request = _change_request("roll_back", state, change, modes, target=target, digests=lines)
    return protocol.generation_after("rolled_back", _run(execute, request + CHANGE_SCRIPT))


def set_attributes(execute: Execute, state: GatewayState, modes: Mapping[str, int], change: Change) -> str:
    """Set owner, group and modes of the generation in use and of the directories, and clean up.

    :param modes: file name to wanted mode.
    :returns: the name of the generation in use.
    :raises ProvisioningError: as ``install``.
    """
    request = _change_request("set_attributes", state, change, modes)
    return protocol.generation_after("attributes_set", _run(execute, request + CHANGE_SCRIPT))


def write_history(execute: Execute, state: GatewayState, change: Change) -> None:
    """Write the history and change nothing else.

    :raises ProvisioningError: ``bad_path``, ``permission``, ``disk_full``, ``concurrent_change``,
        ``gateway_unsupported``.
    """
    if "history_written" not in _run(execute, _change_request("write_history", state, change) + CHANGE_SCRIPT):
        raise protocol.unexpected_output()


def remove(execute: Execute, state: GatewayState, change: Change) -> None:
    """Remove every generation and the link to the one in use. The history stays.

    :raises ProvisioningError: ``bad_path``, ``permission``, ``concurrent_change``, ``gateway_unsupported``,
        ``health_check_failed`` if ``reload_command`` failed.
    """
    if "removed" not in _run(execute, _change_request("remove", state, change) + CHANGE_SCRIPT):
        raise protocol.unexpected_output()


# ---- how a command is run ----


def run_script(execute: Execute, script: str, secret: bool = False, **values: str) -> list[str]:
    """Run a script as ``protocol.script`` returns it, and return the lines of its output.

    :param values: the texts that its ``request_`` variables get.
    :raises ProvisioningError: one of ``protocol.REPORTED_CODES``.
    """
    return _run(execute, protocol.assignments(values) + script, secret=secret)


def _run(execute: Execute, text: str, *, secret: bool = False) -> list[str]:
    status, output, complaint = execute("exec sh -s", text.encode(), secret)
    lines = protocol.output_lines(output)
    protocol.require_success(lines, status, complaint)
    return lines


def _request(command: str, path: str, **values: str) -> str:
    return protocol.assignments({"command": command, "path": path, **values})


def _change_request(
    command: str, state: GatewayState, change: Change, modes: Mapping[str, int] | None = None, **values: str
) -> str:
    user, hooks = state.user, change.hooks
    # a command that writes only the history runs even if the gateway does not know the wanted owner and group
    owner_id = user.user_id if user.owner_id is None else user.owner_id
    group_id = next(iter(user.groups), 0) if user.group_id is None else user.group_id
    return _request(
        command,
        state.path,
        current=state.bundle.current or "",
        user_id=str(user.user_id),
        owner_id=str(owner_id),
        group_id=str(group_id),
        directory_mode=f"{change.directory_mode:04o}",
        keep=str(change.keep),
        nonce=change.nonce,
        files=protocol.modes_of_files(modes or {}),
        history=change.history or "",
        known_history=protocol.known_history(state.bundle),
        reload_command=hooks.reload_command or "",
        health_command=hooks.health_command or "",
        health_timeout=str(hooks.health_timeout),
        **values,
    )


def _unpacking_failed(complaint: str) -> ProvisioningError:
    # the last line of GNU tar, which says only that there were others
    complaint = "\n".join(line for line in complaint.splitlines() if "tar: Exiting with failure status" not in line)
    text = complaint.lower()
    if text.strip() == "symbolic link":
        return ProvisioningError("bad_path", "path has become a symbolic link on the gateway: name the directory.")
    if any(words in text for words in ("no space left", "quota exceeded", "file too large", "wrote only")):
        return ProvisioningError(
            "disk_full",
            "The disk of the gateway is full, or a quota or limit is reached. Free some space and run again.",
        )
    if "read-only file system" in text:
        return ProvisioningError(
            "permission", "The file system at path is read-only on the gateway: mount it writable."
        )
    # by a faster run, which cannot distinguish the staging directory from that of a crashed one; its files vanish one
    # by one, so that the directory may still exist when the first is missed
    missing = [line for line in text.splitlines() if "no such file" in line]
    if "cleared away" in text or any("tar: " in line or "change.sh" in line for line in missing):
        return ProvisioningError(
            "concurrent_change",
            "Another run has cleared away what this one was unpacking, or it did not arrive whole. Run again.",
        )
    if "permission denied" in text:
        return ProvisioningError("permission", "The user that runs the commands cannot write at path: use become.")
    return ProvisioningError(
        "gateway_unsupported",
        f"The gateway could not unpack the bundle: {protocol.readable(complaint) or 'no message'}. It needs a POSIX sh "
        "as /bin/sh, tar, and a connection that carries standard input.",
    )

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge the state of a gateway before anything is requested or changed: pure functions over what a look found.

Private to the collection.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

from ..errors import ProvisioningError
from .protocol import Attributes, GatewayState, missing_tools

MAX_PATH = 512  # characters; so every argument together stays far below the 9,000 that dropbear takes
WITHOUT_OWNERS = ("vfat", "msdos", "exfat")  # types of file systems that keep neither owners nor modes
MIN_FREE_KIB = 256  # a bundle is about 20 KiB


def check_path(path: str) -> None:
    """Check that a path is a plain absolute one.

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
        raise ProvisioningError("bad_path", f"path is longer than {MAX_PATH} characters: choose a shorter one.")


def change_problem(state: GatewayState) -> ProvisioningError | None:
    """Return why the path cannot be changed at all, or ``None``.

    The codes are ``gateway_unsupported``, ``bad_path`` and ``permission``.
    """
    if state.storage.missing_tools:
        return missing_tools(state.storage.missing_tools)
    problem = _problem_above(state) or _problem_of_path(state)
    if problem is None and state.storage.not_writable is not None:
        return ProvisioningError(
            "permission",
            f"User {state.user.user_name!r} cannot write to {state.storage.not_writable}: use become, or mount it "
            "writable.",
        )
    return problem


def install_problem(state: GatewayState, owner: str | None, group: str | None) -> ProvisioningError | None:
    """Return why a bundle cannot be installed, or ``None``.

    The codes are those of ``change_problem``, ``bad_option`` and ``disk_full``.

    :param owner, group: the wanted ones, as ``look`` was called with them.
    """
    problem = change_problem(state)
    if problem is not None:
        return problem
    user = state.user
    for option, name, number in (("owner", owner, user.owner_id), ("group", group, user.group_id)):
        if number is None:
            return ProvisioningError(
                "bad_option", f"The gateway has no {option} {name!r}: create it or change {option}."
            )
    if user.user_id != 0 and (user.owner_id != user.user_id or user.group_id not in user.groups):
        return ProvisioningError(
            "permission", f"User {user.user_name!r} cannot give files to the wanted owner and group: use become."
        )
    file_system = next(iter(state.storage.file_systems), None)
    if file_system in WITHOUT_OWNERS:
        return ProvisioningError(
            "permission",
            f"{state.path} is on a file system of type {file_system}, which keeps neither owners nor "
            "modes, so that every user of the gateway could read the private key: choose another path.",
        )
    above, attributes = state.storage.ancestors[-1]
    if attributes.access_list and not state.storage.can_remove_access_lists:
        return ProvisioningError(
            "permission",
            f"{above} has an access control list, which may let others read what is installed there, and the gateway "
            "has no setfacl to remove it: install the package acl, or choose another path.",
        )
    free_kib = state.storage.free_kib
    if free_kib is not None and free_kib < MIN_FREE_KIB:
        return ProvisioningError(
            "disk_full",
            f"Only {free_kib} KiB are free at {state.path}, and {MIN_FREE_KIB} KiB are needed: free some space.",
        )
    return None


def attribute_drift(state: GatewayState, modes: Mapping[str, int], directory_mode: int) -> list[str]:
    """Name the files of the generation in use, and the directories, that have an access control list, or whose owner,
    group or mode is not the wanted one.

    :param modes: file name to mode, for example ``0o640``.
    """
    user, bundle = state.user, state.bundle
    directory_owner_id = user.user_id if user.directory_owner_id is None else user.directory_owner_id
    expected = {name: (stat.filemode(stat.S_IFREG | mode), user.owner_id) for name, mode in modes.items()}
    expected.update(
        {f"{name}/": (stat.filemode(stat.S_IFDIR | directory_mode), directory_owner_id) for name in bundle.directories}
    )
    found = {**bundle.files, **{f"{name}/": attributes for name, attributes in bundle.directories.items()}}
    # an owner or group that the gateway does not know counts as drift; the change that follows reports it
    return sorted(
        name
        for name, (mode, owner_id) in expected.items()
        if name in found and _comparable(found[name]) != (mode, owner_id, user.group_id, False)
    )


def _comparable(attributes: Attributes) -> tuple[str, int, int, bool]:
    return attributes.mode, attributes.owner, attributes.group, attributes.access_list


def _problem_above(state: GatewayState) -> ProvisioningError | None:
    trusted = (0, state.user.user_id, state.user.owner_id)
    for name, attributes in state.storage.ancestors:
        if attributes.mode[0] not in "dl":
            return ProvisioningError("bad_path", f"{name} is not a directory: choose another path, or move it away.")
        if name == state.path:
            continue
        # in a sticky directory, no user can replace files of another user
        if attributes.mode[0] == "d" and attributes.mode[8:] in ("wx", "w-"):
            return ProvisioningError(
                "bad_path",
                f"{name} is writable by every user of the gateway, who could replace what lies below it: correct its "
                "mode, or choose another path.",
            )
        if attributes.owner not in trusted:
            return ProvisioningError(
                "bad_path",
                f"{name} belongs to another user (ID {attributes.owner}), who could replace what lies below it: choose "
                "another path, run the commands as that user, or name that user as owner.",
            )
    return None


def _problem_of_path(state: GatewayState) -> ProvisioningError | None:
    if not state.exists:
        return None
    attributes = state.storage.ancestors[-1][1]
    if attributes.mode[0] == "l":
        return ProvisioningError("bad_path", f"{state.path} is a symbolic link: name the directory itself.")
    if attributes.mode[8] == "w" and state.bundle.current is None:
        return ProvisioningError(
            "bad_path",
            f"{state.path} is writable by every user of the gateway; nothing in it can be trusted. Check what it "
            "holds, then remove it or correct its mode.",
        )
    if attributes.owner not in (0, state.user.user_id, state.user.owner_id):
        return ProvisioningError(
            "bad_path",
            f"{state.path} belongs to another user (ID {attributes.owner}): choose another path, run the commands as "
            "that user, or name that user as owner.",
        )
    return None

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that a connection carries scripts on standard input, and describe why it failed.

Private to the collection.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ..errors import GatewayUnreachable, ProvisioningError

# Stands before each command. With a terminal the script would never end: it arrives line by line, and without an end of
# file. The check discards input until none has arrived for a second, because sudo 1.9.13 (Debian 12) may hang if its
# command exits while input arrives. All programs but stty and cat are built into the shell.
TERMINAL_CHECK = (
    'if [ -t 0 ]; then printf "standard input is a terminal\\n"; '
    "{ stty -icanon min 0 time 10 && cat >/dev/null; } 2>/dev/null; exit 75; fi; "
)
_TERMINAL_STATUS = 75
_TERMINAL_LINE = "standard input is a terminal"

_SUPPORTED = (
    "ssh and local do, and so do connections to containers such as containers.podman.podman, "
    "community.docker.docker and kubernetes.core.kubectl"
)
_SSH_ARGUMENTS = ("ssh_args", "ssh_common_args", "ssh_extra_args")
_TERMINAL_FLAG = re.compile(r"-[46AaCfGgKkMNnqsTVvXxYy]*t[A-Za-z]*")
_BECOME_ERROR = re.compile(r"(Missing|Incorrect) \S+ password")


def check_connection(connection: Any) -> None:
    """Check that commands on the gateway are those of a POSIX shell and get standard input.

    :param connection: a connection plugin of Ansible.
    :raises ProvisioningError: ``gateway_unsupported``.
    """
    name = connection.transport
    # connections to network devices and to Windows declare pipelining, too
    if connection.force_persistence:
        problem = f"The connection {name} is for network devices"
    elif not connection.allow_executable:
        problem = f"The connection {name} has no POSIX shell at its other end"
    elif not connection.has_pipelining:
        problem = f"The connection {name} cannot carry standard input"
    else:
        return
    raise ProvisioningError(
        "gateway_unsupported",
        f"{problem}, and the collection sends a shell script on standard input. Set ansible_connection to one that "
        f"carries it: {_SUPPORTED}.",
    )


def check_terminal(connection: Any, status: int, output: str) -> None:
    """Check that ``TERMINAL_CHECK`` found no terminal.

    :param status, output: exit status and standard output of a command that began with it.
    :raises ProvisioningError: ``gateway_unsupported``.
    """
    if status != _TERMINAL_STATUS or _TERMINAL_LINE not in output:
        return
    arguments: dict[str, str] = {}
    for option in _SSH_ARGUMENTS:
        try:
            arguments[f"ansible_{option}"] = connection.get_option(option) or ""
        except KeyError:
            continue  # not a connection by SSH
    raise ProvisioningError(
        "gateway_unsupported",
        "The gateway's commands get a terminal as standard input, which cannot carry a script. "
        f"{terminal_remedy(connection.transport, arguments)}",
    )


def terminal_remedy(transport: str, arguments: Mapping[str, str]) -> str:
    """Return the sentence that says which setting to remove.

    :param transport: the name of the connection.
    :param arguments: variable of Ansible to arguments of ``ssh``; empty if the connection has none.
    """
    found = [f"{argument} from {variable}" for variable, text in arguments.items() for argument in _requests(text)]
    if found:
        return f"Remove {' and '.join(found)} (variable, environment variable, or entry of ansible.cfg)."
    if arguments:
        return (
            "Remove RequestTTY from the configuration of the SSH client: ~/.ssh/config, /etc/ssh/ssh_config, or the "
            "file that -F names."
        )
    return f"Remove the option that makes the connection {transport} request one."


def _requests(text: str) -> list[str]:
    """Return the arguments of ssh that request a terminal."""
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if before == "-o" and word.lower().startswith("requesttty"):
            found.append(f"-o {word}")
        elif word.lower().startswith("-orequesttty") or (
            before not in ("-F", "-o", "-i", "-J") and _TERMINAL_FLAG.fullmatch(word)
        ):
            found.append(word)
    return found


def described(error: AnsibleError, become: Any) -> Exception:
    """Return the error of this collection for an error of a connection plugin.

    :param become: the become plugin of the connection, or ``None``.
    """
    text = str(error)
    if become is not None and not isinstance(error, AnsibleConnectionFailure):
        problem = become_problem(become, text)
        if problem is not None:
            return problem
    if isinstance(error, AnsibleConnectionFailure):
        return GatewayUnreachable(text)
    return ProvisioningError("unreachable", f"The connection to the gateway failed: {text.rstrip('. ')}.")


def become_problem(become: Any, text: str) -> ProvisioningError | None:
    """Return the error for a become method that wants another password, or ``None``.

    :param text: a message of Ansible, or what the become method printed.
    """
    printed = text.encode("utf-8", "surrogateescape")
    found = _BECOME_ERROR.search(text)
    if (found and found[1] == "Incorrect") or become.check_incorrect_password(printed):
        problem = "refused the password: correct ansible_become_password"
    elif found or become.check_missing_password(printed):
        problem = "wants a password: set ansible_become_password, or run with --ask-become-pass"
    else:
        return None
    return ProvisioningError("permission", f"The become method {become.name} {problem}.")

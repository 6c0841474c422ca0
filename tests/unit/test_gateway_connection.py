# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which connection plugins carry scripts, and what is made of their errors."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.loader import become_loader
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import connection
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import GatewayUnreachable, ProvisioningError

SSH = {"has_pipelining": True, "force_persistence": False, "allow_executable": True}


def plugin(name: str, **features: bool) -> Any:
    return SimpleNamespace(transport=name, **{**SSH, **features})


@pytest.mark.parametrize("name", ["ssh", "local", "containers.podman.podman", "community.docker.docker", "kubectl"])
def test_a_connection_that_carries_standard_input(name: str) -> None:
    connection.check_connection(plugin(name))


@pytest.mark.parametrize(
    ("name", "features", "says"),
    [
        ("paramiko", {"has_pipelining": False}, "cannot carry standard input"),
        ("winrm", {"allow_executable": False}, "no POSIX shell"),
        ("ansible.netcommon.network_cli", {"force_persistence": True}, "network devices"),
    ],
)
def test_a_connection_that_is_refused(name: str, features: dict[str, bool], says: str) -> None:
    with pytest.raises(ProvisioningError) as caught:
        connection.check_connection(plugin(name, **features))
    assert caught.value.code == "gateway_unsupported"
    assert f"The connection {name} " in caught.value.message
    assert says in caught.value.message
    assert "ssh and local" in caught.value.message


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_check_for_a_terminal(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    argv = [program, *(["sh"] if shell == "busybox" else []), "-c", f"{connection.TERMINAL_CHECK}cat"]
    piped = subprocess.run(argv, input=b"script", capture_output=True, check=False, timeout=60)
    assert (piped.returncode, piped.stdout) == (0, b"script")

    main, terminal = pty.openpty()
    try:
        found = subprocess.run(argv, stdin=terminal, stdout=subprocess.PIPE, check=False, timeout=60)
    finally:
        os.close(terminal)
        os.close(main)
    ssh = SimpleNamespace(transport="ssh", get_option={"ssh_args": "-C -tt"}.__getitem__)
    with pytest.raises(ProvisioningError) as caught:
        connection.check_terminal(ssh, found.returncode, found.stdout.decode())
    assert caught.value.code == "gateway_unsupported"
    assert "-tt from ansible_ssh_args" in caught.value.message


def test_output_that_only_mentions_a_terminal() -> None:
    for status, output in ((0, "standard input is a terminal\n"), (75, "begin 1\nend\n")):
        connection.check_terminal(plugin("ssh"), status, output)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("-tt", "-tt"),
        ("-C -o ControlMaster=auto -t -t", "-t from ansible_ssh_args and -t"),
        ("-Ctt", "-Ctt"),
        ("-o RequestTTY=force", "-o RequestTTY=force"),
        ("-o 'requesttty force'", "-o requesttty force"),
        ("-oRequestTTY=force", "-oRequestTTY=force"),
        ("-C -o ControlPersist=60s -p 22 -i -t", None),
        ("-oStrictHostKeyChecking=no -F -tt", None),
        ("-o 'unfinished", None),
        ("", None),
    ],
)
def test_which_argument_requests_a_terminal(text: str, found: str | None) -> None:
    remedy = connection.terminal_remedy("ssh", {"ansible_ssh_args": text, "ansible_ssh_extra_args": ""})
    if found is None:
        assert "Remove RequestTTY" in remedy
        assert "ssh_config" in remedy
    else:
        assert f"Remove {found} from ansible_ssh_args" in remedy


def test_a_terminal_that_another_connection_requests() -> None:
    assert "the connection kubectl request one" in connection.terminal_remedy("kubectl", {})


MISSING, REFUSED = "set ansible_become_password", "correct ansible_become_password"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (AnsibleError("Missing sudo password"), MISSING),
        (AnsibleError("Incorrect sudo password"), REFUSED),
        (AnsibleError("Premature end of stream.\n>>> Standard Error\nsudo: a password is required"), MISSING),
        (AnsibleError("Duplicate prompt.\n>>> Standard Error\nSorry, try again."), REFUSED),
    ],
)
def test_a_become_password(error: AnsibleError, says: str) -> None:
    found = connection.described(error, become_loader.get("sudo"))
    assert isinstance(found, ProvisioningError)
    assert found.code == "permission"
    assert "The become method sudo " in found.message
    assert says in found.message


def test_other_errors_of_a_connection() -> None:
    for become in (None, become_loader.get("sudo")):
        broken = connection.described(AnsibleConnectionFailure("Connection refused"), become)
        assert isinstance(broken, GatewayUnreachable)
        assert broken.message == "Connection refused"
        other = connection.described(AnsibleError("you must install the sshpass program"), become)
        assert isinstance(other, ProvisioningError)
        assert (other.code, "sshpass program." in other.message) == ("unreachable", True)

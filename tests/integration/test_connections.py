# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections as people configure them: terminals, retries, greetings, passwords, plugins without standard input."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways.fleet import Fleet
from integration.ansible_run import PROJECT, Run, run_playbook, write_inventory
from integration.bundle import collections
from integration.patience import eventually
from integration.programs import free_port, program, running
from simulator.client import RunningSimulator

ROOT = "etc/thingstream/connections"
PREFIX = "thingstream_gateway_"
WITH_PASSWORD = {"ansible_user": "careful", "ansible_become": True, "ansible_become_password": "careful-password"}


class Site:
    """The gateways, and runs that reach them in one way or another."""

    def __init__(self, gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], work: Path) -> None:
        self.gateways, self.simulator, self.platform, self.work = gateways, simulator, platform, work
        self.token = simulator.put_profile("connections", service="cloudlocate")
        self.reached = dict(re.findall(r"^(ansible_\w+)=(.*)$", gateways.inventory.read_text(), re.MULTILINE))
        for name in ("gw1", "gw2", "gw3", "bb1"):
            shutil.rmtree(gateways.root(name) / ROOT, ignore_errors=True)

    def run(self, hosts: Mapping[str, Mapping[str, Any]], *arguments: str, **options: Any) -> Run:
        """Run ``provision``; a host is the name of a gateway, with a suffix if there are several ways to it."""
        inventory = self.gateways.inventory.read_text()
        found = dict(re.findall(r"^(\S+) ansible_host=(\S+)$", inventory, re.MULTILINE))
        variables = {
            name: {
                "ansible_host": found[name.partition("-")[0]],
                f"{PREFIX}hardware_id": f"connection-{name}",
                f"{PREFIX}path": f"/{ROOT}/{name}",
                **own,
            }
            for name, own in hosts.items()
        }
        common = {
            **self.platform,
            **self.reached,
            "ansible_connection": "ssh",
            "ansible_shell_executable": "/bin/sh",
            f"{PREFIX}service": "cloudlocate",
            f"{PREFIX}token": self.token,
        }
        return run_playbook(
            self.work, write_inventory(self.work / "hosts.yml", variables, common), *arguments, **options
        )

    def ssh_arguments(self, text: str) -> str:
        """Return the arguments of ssh that reach the gateways, with more lines at the end of their configuration."""
        known = Path(re.findall(r'-F "(.*)"', self.reached["ansible_ssh_common_args"])[0])
        own = self.work / "ssh_config"
        own.write_text(known.read_text() + text)
        return f'-F "{own}"'

    def requests(self) -> list[str]:
        return [entry["hardware_id"] for entry in self.simulator.requests()]


@pytest.fixture
def site(gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Site:
    return Site(gateways, simulator, platform, tmp_path)


def test_a_forced_terminal_ends_with_the_setting_to_remove(site: Site) -> None:
    hosts: dict[str, dict[str, Any]] = {
        "gw1-args": {"ansible_ssh_args": "-tt"},
        "gw1-shared": {"ansible_ssh_args": "-C -o ControlMaster=auto -o ControlPersist=5 -tt"},
        "gw2-extra": {"ansible_ssh_extra_args": "-o RequestTTY=force"},
        "gw2-become": {**WITH_PASSWORD, "ansible_ssh_extra_args": "-t -t"},
        "gw3-config": {"ansible_ssh_common_args": site.ssh_arguments("  RequestTTY force\n")},
        "bb1-args": {"ansible_ssh_args": "-tt"},
        "bb1-one": {"ansible_ssh_args": "-t"},  # requests none, because ssh itself has no terminal here
    }
    run = site.run(hosts)
    assert run.hosts["bb1-one"]["action"] == "created", run.output
    refused = {name: result for name, result in run.hosts.items() if name != "bb1-one"}
    codes = {name: result.get("error_code") for name, result in refused.items()}
    assert codes == dict.fromkeys(refused, "gateway_unsupported"), run.output
    says = {
        "gw1-args": "-tt from ansible_ssh_args",
        "gw1-shared": "-tt from ansible_ssh_args",
        "gw2-extra": "-o RequestTTY=force from ansible_ssh_extra_args",
        "gw2-become": "-t from ansible_ssh_extra_args",
        "gw3-config": "Remove RequestTTY from the configuration of the SSH client",
        "bb1-args": "-tt from ansible_ssh_args",
    }
    for name, result in refused.items():
        assert says[name] in result["msg"], result
        assert "terminal" in result["msg"]
    assert site.requests() == ["connection-bb1-one"]


@pytest.mark.full
def test_sudo_does_not_wait_for_input_that_never_comes(site: Site) -> None:
    """Without the part of ``TERMINAL_CHECK`` that takes the input, about one gateway of a hundred hangs."""
    run = site.run({f"gw2-{number}": {**WITH_PASSWORD, "ansible_ssh_extra_args": "-tt"} for number in range(200)})
    assert set(run.values("error_code").values()) == {"gateway_unsupported"}, run.output


FLAKY = """\
#!/bin/sh
# Every first attempt of a command fails: {when} it has run.
for word; do case $word in gw*|bb*|127.*) name=$word ;; esac; done
if [ -z "${{name:-}}" ]; then exec ssh "$@"; fi
if mkdir "{place}/$name" 2>/dev/null; then
    echo "$name" >>"{place}/failed"
    {first}
    exit 255
fi
rmdir "{place}/$name"
exec ssh "$@"
"""
FIRST = {"before": ":", "after": 'ssh "$@"'}


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.full), "after"])
def test_each_command_is_sent_twice(site: Site, when: str) -> None:
    """Looks, an installation, a renewal and a removal give the results of commands that were sent once."""
    place = site.work / "attempts"
    place.mkdir()
    wrapper = site.work / "flaky-ssh"
    wrapper.write_text(FLAKY.format(when=when, place=place, first=FIRST[when]))
    wrapper.chmod(0o755)
    names = ["bb1", "gw1", "gw2"]
    twice = {"ansible_ssh_executable": wrapper, "ansible_ssh_retries": 1}
    hosts = {name: dict(twice) for name in names}
    hosts["gw2"] |= {"ansible_user": "operator", "ansible_become": True}

    def run(*arguments: str, **options: Any) -> Run:
        one = site.run({name: {**hosts[name], **options} for name in names}, *arguments)
        assert one.status == 0, one.output
        assert not any(entry.is_dir() for entry in place.iterdir()), "a command was not sent a second time"
        return one

    assert run().values("action") == dict.fromkeys(names, "created")
    sent = len((place / "failed").read_text().split())
    assert sent >= 2 * len(names), "a look and an installation each"
    assert run().values("changed") == dict.fromkeys(names, False)
    renewed = run(**{f"{PREFIX}force": True})
    assert renewed.values("action") == dict.fromkeys(names, "renewed")
    assert renewed.values("generation") == dict.fromkeys(names, "000002")
    for name in names:
        directory = site.gateways.root(name) / ROOT / name
        assert sorted(entry.name for entry in (directory / "generations").iterdir()) == ["000001", "000002"]
        left = {entry.name for entry in directory.iterdir()}
        assert left == {"current", "generations", "history.json", ".last-change"}
    assert sorted(site.requests()) == sorted(f"connection-{name}" for name in names * 2)
    assert run(**{f"{PREFIX}state": "absent"}).values("action") == dict.fromkeys(names, "removed")
    for name in names:
        assert not (site.gateways.root(name) / ROOT / name / "current").is_symlink()


GREETING = "Welcome to the gateway.\r\nbegin\nend\nfailed permission of an earlier login\n"


@contextmanager
def greeting_server(site: Site, name: str) -> Iterator[int]:
    """Run a second SSH server on a gateway, with a banner before the login, until the block ends; yield its port."""
    port = free_port()
    (site.gateways.root(name) / "etc/banner").write_text(GREETING)
    target = (site.gateways.where / name / "pid").read_text().strip()
    options = ("UsePAM=no", f"ListenAddress=127.0.0.1:{port}", "Banner=/etc/banner", "PrintMotd=yes", "PidFile=none")
    inside = [program("nsenter"), f"--target={target}", "--mount", "--uts", "--ipc", "--pid", "--root", "--wd=/"]
    server = [*inside, "/usr/sbin/sshd", "-D", "-e", *(f"-o{option}" for option in options)]
    log = site.work / "sshd.log"
    with running(server, log):
        assert eventually(lambda: "Server listening" in log.read_text()), log.read_text()
        yield port


def test_greetings_are_not_taken_for_results(site: Site) -> None:
    """A banner of the server, the message of the day, and start files of shells that print, with or without become."""
    greetings = {
        "etc/motd": GREETING,
        "etc/profile": f"printf '{GREETING}'\n",
        "root/.bashrc": f"printf '{GREETING}unfinished line'; printf '{GREETING}' >&2\n",
        "home/operator/.profile": f"printf '{GREETING}'\n",
        "root/.profile": f"printf '{GREETING}'\n",
    }
    root = site.gateways.root("gw1")
    before = {path: (root / path).read_bytes() if (root / path).exists() else None for path in greetings}
    address = re.findall(r"^gw1 ansible_host=(\S+)$", site.gateways.inventory.read_text(), re.MULTILINE)[0]
    alias = f"-o HostKeyAlias=[{address}]:{site.reached['ansible_port']}"
    with greeting_server(site, "gw1") as port:
        try:
            for path, text in greetings.items():
                (root / path).write_text(text)
            # the start file of a shell that reads it for every command, as a Debian bash does for those of sshd
            there = {"ansible_host": "127.0.0.1", "ansible_port": port, "ansible_ssh_extra_args": alias}
            become = {"ansible_user": "operator", "ansible_become": True}
            hosts = {
                "gw1-root": there,
                "gw1-sudo": {**there, **become},
                "gw1-login": {**there, **become, "ansible_become_flags": "-H -S -n -i"},
            }
            heard = subprocess.run(
                [
                    "ssh",
                    *alias.split(),
                    "-F",
                    str(site.gateways.where / "ssh_config"),
                    "-p",
                    str(port),
                    "127.0.0.1",
                    "true",
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            assert "unfinished line" in heard.stdout, "the start file of the shell is read"
            assert heard.stderr.count("Welcome") == 2, "the banner and the start file"
            for action in ("created", "none"):
                run = site.run(hosts)
                assert run.values("action") == dict.fromkeys(hosts, action), run.output
            assert site.run(hosts, "-e", f"{PREFIX}force=true").values("generation") == dict.fromkeys(hosts, "000002")
        finally:
            for path, content in before.items():
                if content is None:
                    (root / path).unlink()
                else:
                    (root / path).write_bytes(content)


def test_errors_of_a_connection_have_a_code(site: Site) -> None:
    careful = {"ansible_user": "careful", "ansible_become": True}
    hosts: dict[str, dict[str, Any]] = {
        "gw1-refused": {"ansible_port": free_port(), "ansible_ssh_retries": 1},
        "gw1-name": {"ansible_host": "gateway.invalid"},
        "gw1-login": {"ansible_user": "unknown-user"},
        "gw1-key": {
            "ansible_ssh_args": "-C",  # a connection of its own, for which the key is checked
            "ansible_ssh_common_args": f"-F /dev/null -o BatchMode=yes -o UserKnownHostsFile={site.work}/none",
        },
        "gw1-missing": careful,
        "gw1-wrong": {**careful, "ansible_become_password": "another"},
        "gw1-sound": {**careful, "ansible_become_password": "careful-password"},
    }
    run = site.run(hosts)
    assert run.hosts["gw1-sound"]["action"] == "created", run.output
    for name, says in {
        "gw1-refused": "Connection refused",
        "gw1-name": "resolve",
        "gw1-login": "Permission denied",
        "gw1-key": "Host key verification failed",
    }.items():
        result = run.hosts[name]
        assert (result["status"], result.get("error_code")) == ("unreachable", "unreachable"), (name, run.output)
        assert (result["unreachable"], result["changed"]) == (True, False)
        assert says in result["msg"], result
    for name, says in {"gw1-missing": "set ansible_become_password", "gw1-wrong": "correct ansible_become"}.items():
        result = run.hosts[name]
        assert (result["status"], result.get("error_code")) == ("failed", "permission"), (name, run.output)
        assert says in result["msg"], result
    assert site.requests() == ["connection-gw1-sound"]
    assert run.status & 4


def test_what_a_playbook_sees_of_an_unreachable_gateway(site: Site) -> None:
    """``ignore_unreachable`` registers a result with the code; without it the host leaves the play."""
    look = {"thingstream.ztp.thingstream_ztp_info": {"paths": ["/etc/thingstream/connections/x"]}}
    tasks = [
        {"name": "Look", **look, "register": "found", "ignore_unreachable": True},
        {"name": "Tell", "ansible.builtin.debug": {"msg": "{{ found.unreachable }} {{ found.error_code }}"}},
        {"name": "Leave", **look},
        {"name": "Never", "ansible.builtin.debug": {"msg": "still here"}},
    ]
    playbook = site.work / "look.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    run = site.run({"gw1": {"ansible_port": free_port()}}, playbook=str(playbook))
    assert run.of("Tell")["gw1"]["msg"] == "True unreachable", run.output
    assert run.of("Leave")["gw1"]["status"] == "unreachable"
    assert run.of("Never") == {}
    assert run.status == 4


ASKING = """\
#!/bin/sh
# Stands in for sudo, whose arguments are those of Ansible, and which never asks root.
while [ $# -gt 0 ]; do
    case $1 in
        -p) prompt=$2 && shift 2 ;;
        -u) shift 2 ;;
        -n) silent=yes && shift ;;
        -*) shift ;;
        *) break ;;
    esac
done
if [ -z "${prompt:-}" ]; then echo 'sudo: a password is required' >&2 && exit 1; fi
printf %s "$prompt" >&2
read -r password
if [ "$password" != "right" ]; then echo 'Sorry, try again.' >&2 && exit 1; fi
exec "$@"
"""


@pytest.mark.parametrize("pipelining", [True, False])
def test_become_with_a_password_on_a_local_connection(site: Site, pipelining: bool) -> None:
    """Without pipelining, Ansible would give the become method a terminal."""
    asking = site.work / "asking"
    asking.write_text(ASKING)
    asking.chmod(0o755)
    local = {
        "ansible_connection": "local",
        "ansible_become": True,
        "ansible_become_user": "careful",
        "ansible_become_exe": asking,
        "ansible_pipelining": pipelining,
        f"{PREFIX}path": site.work / "local",
    }
    missing = site.run({"gw1": local})
    assert missing.values("error_code") == {"gw1": "permission"}, missing.output
    run = site.run({"gw1": {**local, "ansible_become_password": "right"}})
    assert run.values("action") == {"gw1": "created"}, run.output


VYOS = {"ansible_network_os": "vyos.vyos.vyos"}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "ansible.builtin.winrm": ("winrm has no POSIX shell", {}),
    "ansible.builtin.psrp": ("psrp has no POSIX shell", {}),
    "ansible.netcommon.network_cli": ("network_cli is for network devices", VYOS),
    "ansible.netcommon.netconf": ("netconf is for network devices", VYOS),
    "community.docker.nsenter": ("nsenter cannot carry standard input", {"ansible_nsenter_pid": 1}),
    "ansible.builtin.ssh": ("ssh has no POSIX shell", {"ansible_shell_type": "powershell"}),
}


@pytest.mark.full
def test_connections_that_are_refused(site: Site) -> None:
    """By name, and before any request; nothing listens where most of them lead."""
    names = {f"gw1-{name.rpartition('.')[2]}": name for name in REFUSED}
    hosts = {
        host: {"ansible_connection": name, "ansible_port": free_port(), **REFUSED[name][1]}
        for host, name in names.items()
    }
    path = f"{PROJECT / '.cache'}:{collections()}"
    run = site.run(hosts, environment={"ANSIBLE_COLLECTIONS_PATH": path})
    assert run.values("error_code") == dict.fromkeys(sorted(names), "gateway_unsupported"), run.output
    for host, name in names.items():
        assert REFUSED[name][0] in run.hosts[host]["msg"]
        assert "ssh and local" in run.hosts[host]["msg"]
    assert site.requests() == []

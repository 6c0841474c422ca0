# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who owns what, who may read it, and who runs the commands: a matrix of gateways by SSH, and what drifts there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.conftest import Trial
from gateways.fleet import Fleet
from integration.ansible_run import Run, plain, run_playbook
from simulator.client import RunningSimulator

PASSWORDS = {"careful": "careful-password", "root": "root-password"}
MODES: Sequence[Mapping[str, str]] = (
    {},
    {"directory_mode": "0700", "secret_mode": "0600"},
    {"directory_mode": "0711"},
)
SECRET, PUBLIC = ("client.key", "client.pem"), ("client.crt", "ca.crt")


def become(user: str, method: str, password: str | None = None, to: str = "root") -> dict[str, Any]:
    """Return the variables with which a user becomes another one."""
    given = {"ansible_become_password": password} if password else {}
    return {
        "ansible_user": user,
        "ansible_become": True,
        "ansible_become_method": method,
        "ansible_become_user": to,
        **given,
    }


def wishes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield gateway and variables of everything that must work."""
    ways = {
        "root": {},
        "sudo": become("operator", "sudo"),
        "sudo-password": become("careful", "sudo", PASSWORDS["careful"]),
        "su-password": become("careful", "su", PASSWORDS["root"]),
        "su": become("root", "su"),
    }
    owners: Sequence[Mapping[str, str]] = (
        {},
        {"owner": "consumer"},
        {"owner": "consumer", "group": "thingstream"},
        {"group": "thingstream"},
    )
    number = 0
    for way, variables in ways.items():
        for owner in owners:
            wanted = {**owner, **MODES[number % len(MODES)]}
            number += 1
            yield (
                f"gw{1 + number % 3}",
                {**variables, **{f"thingstream_gateway_{name}": value for name, value in wanted.items()}, "way": way},
            )
    yield "gw1", {**become("operator", "sudo", to="consumer"), "home": "consumer", "way": "sudo-consumer"}
    yield "gw1", {**become("root", "su", to="consumer"), "home": "consumer", "way": "su-consumer"}
    yield "gw1", {"ansible_user": "operator", "home": "operator", "way": "operator"}
    yield "bb1", {"ansible_user": "consumer", "home": "consumer", "way": "busybox-consumer"}
    for owner in owners:
        yield "bb1", {**{f"thingstream_gateway_{name}": value for name, value in owner.items()}, "way": "busybox-root"}


REFUSED: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "sudo without the password": ("gw1", become("careful", "sudo"), "sudo wants a password"),
    "sudo with another password": ("gw1", become("careful", "sudo", "wrong"), "sudo refused the password"),
    "su with another password": ("gw1", become("careful", "su", "wrong"), "su refused the password"),
    "su without the password": ("gw1", become("careful", "su"), "waiting for privilege escalation prompt"),
    "no become": ("gw1", {"ansible_user": "careful"}, "use become"),
    "no sudo there": ("bb1", become("consumer", "sudo"), "sudo: not found"),
    "an unknown group": ("gw1", {"thingstream_gateway_group": "nobody-here"}, "no group 'nobody-here'"),
    "an unknown owner": ("bb1", {"thingstream_gateway_owner": "nobody-here"}, "no owner 'nobody-here'"),
}


@pytest.fixture
def fleet(gateways: Fleet) -> Iterator[Fleet]:
    """The gateways, with a password for root on the Debian ones, and nothing installed."""
    for name in ("gw1", "gw2", "gw3"):
        assert gateways.ssh(name, "chpasswd", f"root:{PASSWORDS['root']}\n").returncode == 0
    yield gateways
    for name in ("gw1", "gw2", "gw3"):
        gateways.ssh(name, "usermod --password '*' root")
    for name in ("gw1", "gw2", "gw3", "bb1"):
        root = gateways.root(name)
        for place in (root / "etc/thingstream", *root.glob("home/*/matrix-*")):
            shutil.rmtree(place, ignore_errors=True)


class Matrix:
    """Many inventory hosts on few gateways, each with a path of its own."""

    def __init__(self, fleet: Fleet, simulator: RunningSimulator, platform: Mapping[str, Any], work: Path) -> None:
        self.fleet, self.simulator, self.work = fleet, simulator, work
        token = simulator.put_profile("matrix", service="pointperfect", hardware_code_mandatory=True, plan="mqtt")
        self.common = {
            **platform,
            "thingstream_gateway_service": "pointperfect",
            "thingstream_gateway_token": token,
            "thingstream_gateway_hardware_id": "{{ inventory_hostname }}",
            "thingstream_gateway_formats": ["pem"],
            "thingstream_hosts": "matrix",
        }
        self.hosts: dict[str, dict[str, Any]] = {}
        self.gateway: dict[str, str] = {}

    def add(self, name: str, gateway: str, variables: Mapping[str, Any]) -> None:
        home = variables.get("home")
        address = f"127.0.1.{gateway[2:]}" if gateway.startswith("gw") else f"127.0.101.{gateway[2:]}"
        path = f"/home/{home}/matrix-{name}" if home else f"/etc/thingstream/matrix-{name}"
        self.hosts[name] = {**variables, "ansible_host": address, "thingstream_gateway_path": path}
        self.gateway[name] = gateway

    def run(self, *arguments: str, retries: int = 3) -> Run:
        groups: dict[str, Any] = {"matrix": {"hosts": {name: {} for name in self.hosts}}}
        for kind, prefix in (("debian", "gw"), ("busybox", "bb")):
            groups[kind] = {"hosts": {n: v for n, v in self.hosts.items() if self.gateway[n].startswith(prefix)}}
        inventory, variables = self.work / "matrix.yml", self.work / "common.yml"
        inventory.write_text(yaml.safe_dump(groups))
        variables.write_text(yaml.safe_dump(plain(self.common)))
        # the connection is not under test: dropbear closes some of many that come at once
        patient = {"ANSIBLE_SSH_RETRIES": str(retries)}
        more = ("-i", str(inventory), "-e", f"@{variables}", *arguments)
        return run_playbook(self.work, self.fleet.inventory, *more, environment=patient)

    def path(self, name: str) -> Path:
        return self.fleet.root(self.gateway[name]) / str(self.hosts[name]["thingstream_gateway_path"])[1:]

    def number(self, name: str, database: str, who: str, column: int = 2) -> int:
        lines = (self.fleet.root(self.gateway[name]) / "etc" / database).read_text().splitlines()
        return next(int(fields[column]) for fields in (line.split(":") for line in lines) if fields[0] == who)

    def wanted(self, name: str) -> dict[str, tuple[int, int, int]]:
        """Return mode, owner and group of every file and directory at the path."""
        variables = self.hosts[name]
        option = {key.removeprefix("thingstream_gateway_"): value for key, value in variables.items()}
        runs = option.get("home", "root")
        owner = option.get("owner", runs)
        keeper, user = self.number(name, "passwd", runs), self.number(name, "passwd", owner)
        group = self.number(name, "passwd", owner, 3)
        if "group" in option:
            group = self.number(name, "group", option["group"])
        directory, secret = (
            int(option.get(f"{kind}_mode", default), 8) for kind, default in (("directory", "0750"), ("secret", "0640"))
        )
        return {
            **dict.fromkeys((".", "generations", "generations/000001"), (directory, keeper, group)),
            **{f"generations/000001/{file}": (secret, user, group) for file in SECRET},
            **{f"generations/000001/{file}": (0o644, user, group) for file in PUBLIC},
            "generations/000001/credentials.json": (0o600, user, group),
            "generations/000001/thing.json": (0o640, user, group),
        }

    def assert_in_order(self, name: str) -> None:
        found = {}
        for entry in self.wanted(name):
            status = (self.path(name) / entry).stat()
            found[entry] = (status.st_mode & 0o7777, status.st_uid, status.st_gid)
        assert found == self.wanted(name), name


@pytest.fixture
def matrix(fleet: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Matrix:
    return Matrix(fleet, simulator, platform, tmp_path)


def test_owners_modes_and_users(matrix: Matrix, trials: Trial, full: bool) -> None:
    """Every gateway gets the wanted attributes, keeps them, and without a request gets each of them back."""
    for number, (gateway, variables) in enumerate(list(wishes())[:: 1 if full else 5]):
        matrix.add(f"{number:02d}-{variables['way']}", gateway, variables)
    first = matrix.run()
    again = matrix.run()
    for name in matrix.hosts:
        with trials(f"Permissions: {matrix.hosts[name]['way']}"):
            assert first.hosts[name].get("action") == "created", (name, first.hosts[name])
            assert again.hosts[name]["changed"] is False, (name, again.hosts[name])
            matrix.assert_in_order(name)
            owner = matrix.hosts[name].get("thingstream_gateway_owner")
            mode = matrix.hosts[name].get("thingstream_gateway_directory_mode")
            if owner and mode != "0700":
                key = f"{matrix.hosts[name]['thingstream_gateway_path']}/current/client.key"
                assert matrix.fleet.ssh(f"{owner}@{matrix.gateway[name]}", f"cat {key}").stdout.startswith("-----BEGIN")
    matrix.simulator.clear_requests()

    for turn in range(9 if full else 1):
        for number, name in enumerate(matrix.hosts):
            drift(matrix, name, number * 4 + turn)
        check, repair, end = matrix.run("--check"), matrix.run(), matrix.run()
        for name in matrix.hosts:
            with trials("Drift: one attribute"):
                assert (check.hosts[name]["changed"], check.hosts[name].get("reason")) == (True, "drift"), name
                assert repair.hosts[name].get("action") == "repaired", (name, repair.hosts[name])
                assert end.hosts[name]["changed"] is False
                matrix.assert_in_order(name)
    assert matrix.simulator.requests() == []


def drift(matrix: Matrix, name: str, number: int) -> None:
    """Change one attribute of one file or directory: a user who is not root cannot correct all of them."""
    wanted = matrix.wanted(name)
    entry = list(wanted)[number % len(wanted)]
    mode, owner, group = wanted[entry]
    path = matrix.path(name) / entry
    kind = "mode" if "home" in matrix.hosts[name] else ("mode", "owner", "group")[number // len(wanted) % 3]
    if (entry, kind) == (".", "owner"):
        kind = "group"  # a path of another user is refused, because nothing in it can be trusted
    if kind == "mode":
        path.chmod(mode ^ (0o004 if number % 2 else 0o040))
    else:
        os.chown(path, owner + 7 if kind == "owner" else -1, group + 7 if kind == "group" else -1)
        path.chmod(mode)


def test_users_who_may_not(matrix: Matrix, trials: Trial) -> None:
    """Each error says what is wrong, before a request is sent."""
    for number, (gateway, variables, _words) in enumerate(REFUSED.values()):
        matrix.add(f"refused-{number}", gateway, variables)
    run = matrix.run(retries=0)  # Ansible would repeat the wait for a prompt that never comes
    for number, (title, (_gateway, _variables, words)) in enumerate(REFUSED.items()):
        with trials("Permissions: refused"):
            result = run.hosts[f"refused-{number}"]
            assert result["status"] in ("failed", "unreachable"), (title, result)
            assert words in result["msg"], (title, result)
    assert matrix.simulator.requests() == []

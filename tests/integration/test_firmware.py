# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job over dropbear, on a gateway for each list of applets, all of them in one inventory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways import firmware
from gateways.fleet import Fleet
from integration.ansible_run import Run, plain, run_playbook
from simulator.client import RunningSimulator
from stage import running_fleet

HOSTS = sorted(firmware.TESTED)
PATH = "etc/thingstream/pointperfect"
SERIAL = "sys/firmware/devicetree/base/serial-number"


@dataclass(frozen=True)
class Site:
    """The gateways, and the variables of their inventory."""

    gateways: Fleet
    work: Path
    variables: dict[str, Any]

    def run(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        """Run a playbook of the collection; ``variables`` without their prefix."""
        own = {f"thingstream_gateway_{name}": value for name, value in variables.items()}
        file = self.work / "variables.yml"
        file.write_text(yaml.safe_dump(plain({**self.variables, **own})))
        arguments = ("-e", f"@{file}", *arguments)
        return run_playbook(self.work, self.gateways.inventory, *arguments, playbook=f"thingstream.ztp.{playbook}")

    def path(self, host: str) -> Path:
        return self.gateways.root(host) / PATH

    def in_use(self) -> dict[str, str]:
        """Return the generation in use for each host."""
        return {host: os.readlink(self.path(host) / "current").rpartition("/")[2] for host in HOSTS}

    def running(self, program: str) -> list[str]:
        """Return the hosts on which a process has this command line."""
        listed = {host: self.gateways.ssh(host, "cat /proc/[0-9]*/cmdline").stdout for host in HOSTS}
        return [host for host in HOSTS if program in listed[host].replace("\0", " ")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A gateway for each list of applets."""
    with running_fleet(tmp_path_factory.mktemp("firmware"), debian=0, busybox=0, firmwares=HOSTS) as running:
        yield running


@pytest.fixture
def site(fleet: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Site:
    """PointPerfect by MQTT, with a new Thing for every request; the gateways hold nothing."""
    for host in HOSTS:
        shutil.rmtree(fleet.root(host) / "etc" / "thingstream", ignore_errors=True)
    plan = {"plan": "mqtt", "simulator": {"new_thing_on_repeat": True}}
    variables = {
        **platform,
        "thingstream_gateway_service": "pointperfect",
        "thingstream_gateway_token": simulator.put_profile("firmware", service="pointperfect", **plan),
        "thingstream_gateway_hardware_id": "{{ 'firmware-' ~ inventory_hostname }}",
        "thingstream_gateway_group": "thingstream",
    }
    return Site(fleet, tmp_path, variables)


def all_of(value: Any) -> dict[str, Any]:
    return dict.fromkeys(HOSTS, value)


def test_the_main_job(site: Site, simulator: RunningSimulator) -> None:
    first = site.run("provision")
    assert first.values("error_code") == all_of(None), first.output
    assert first.values("action") == all_of("created"), first.output
    things = first.values("thing")
    simulator.clear_requests()

    again = site.run("provision")
    assert again.status == 0, again.output
    assert again.values("changed") == all_of(False)
    assert again.values("thing") == things

    for host in HOSTS:
        (site.path(host) / "current/client.key").chmod(0o644)
    drifted = site.run("provision")
    assert drifted.values("action") == all_of("repaired"), drifted.output
    assert drifted.values("reason") == all_of("drift")
    assert {(site.path(host) / "current/client.key").stat().st_mode & 0o777 for host in HOSTS} == {0o640}

    for host in HOSTS:
        (site.path(host) / "current/client.key").write_text("damaged")
    damaged = site.run("provision")
    assert damaged.values("reason") == all_of("damaged"), damaged.output
    assert site.in_use() == all_of("000002")
    assert simulator.requests() == []

    renewed = site.run("provision", force=True)
    assert renewed.values("action") == all_of("renewed"), renewed.output
    assert len(simulator.requests()) == len(HOSTS)
    assert site.in_use() == all_of("000003")

    returned = site.run("rollback")
    assert returned.status == 0, returned.output
    assert site.in_use() == all_of("000002")
    assert {entry.name for host in HOSTS for entry in site.path(host).glob(".staging*")} == set()

    removed = site.run("provision", state="absent")
    assert removed.status == 0, removed.output
    assert not any((site.path(host) / name).exists() for host in HOSTS for name in ("current", "generations"))


@pytest.mark.full
def test_a_failed_health_check_reverts(site: Site) -> None:
    hang = "trap '' TERM HUP; sleep 4321 & wait; sleep 4321"
    started = site.run("provision", health_command="test -s /etc/thingstream/pointperfect/current/client.key")
    assert started.values("action") == all_of("created"), started.output
    for command in ("false", hang):
        run = site.run("provision", force=True, health_command=command, health_timeout=2)
        assert run.values("error_code") == all_of("health_check_failed"), run.output
        assert site.in_use() == all_of("000001")
    assert site.running("sleep 4321") == []
    # the response of the failed renewal is still in the spool
    again = site.run("provision", health_command="true")
    assert again.values("error_code") == all_of(None), again.output
    assert again.values("action") == all_of("renewed")


def test_identify(site: Site) -> None:
    for host in HOSTS:
        serial = site.gateways.root(host) / SERIAL
        serial.parent.mkdir(parents=True, exist_ok=True)
        serial.write_text(f"SERIAL-{host}\0")
    del site.variables["thingstream_gateway_hardware_id"]
    run = site.run("identify", hardware_id_sources=["modem_imei", "device_tree_serial"])
    assert run.status == 0, run.output
    written = yaml.safe_load((site.work / "thingstream-hardware-ids.yml").read_text())
    found = {host: entry["thingstream_gateway_hardware_id"] for host, entry in written["all"]["hosts"].items()}
    assert found == {host: f"SERIAL-{host}" for host in HOSTS}

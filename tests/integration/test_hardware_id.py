# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware IDs found over SSH, on three Debian gateways and a BusyBox one without Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from gateways.fleet import Fleet
from integration.ansible_run import Run, plain, run_playbook
from simulator.client import RunningSimulator

HOSTS = ["bb1", "gw1", "gw2", "gw3"]
MACHINE_ID = "51df0b4bc3b04c9780e299b98ca373b8"
DERIVED_ID = "5b198058dcb244bb912ebd8537069f79"
TREE = "sys/firmware/devicetree/base/serial-number"
DMI = "sys/class/dmi/id/product_serial"
SERIALS = {host: f"SERIAL-{host}" for host in HOSTS}
REPORT = "thingstream-hardware-ids.yml"
ASK, REFUSE = "Ask the gateway", "Refuse a hardware ID that several gateways have"

BOTH = """
- name: Find hardware IDs and provision
  hosts: all
  gather_facts: false
  {options}
  tasks:
    - ansible.builtin.import_role:
        name: thingstream.ztp.thingstream_gateway
        tasks_from: identify
    - ansible.builtin.import_role:
        name: thingstream.ztp.thingstream_gateway
"""
ASKING = """
- hosts: all
  gather_facts: false
  tasks:
    - thingstream.ztp.thingstream_hardware_id:
        sources: [{sources}]
"""


@dataclass(frozen=True)
class Site:
    """Gateways whose files say who they are."""

    gateways: Fleet
    work: Path
    variables: dict[str, Any]

    def write(self, host: str, name: str, content: str) -> None:
        path = self.gateways.root(host) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def serials(self, serials: dict[str, str]) -> None:
        for host, serial in serials.items():
            self.write(host, TREE, f"{serial}\0")

    def run(self, playbook: str, *arguments: str, environment: dict[str, str] | None = None, **variables: Any) -> Run:
        """Run a playbook, given by its name or its text."""
        file = self.work / "variables.yml"
        # not as extra variables: no set_fact is stronger than those
        inventory = self.work / "inventory"
        inventory.mkdir(exist_ok=True)
        shutil.copy(self.gateways.inventory, inventory / "inventory.ini")
        file = inventory / "group_vars" / "all.yml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(plain({**self.variables, **variables})))
        if "\n" in playbook:
            (self.work / "playbook.yml").write_text(playbook)
            playbook = str(self.work / "playbook.yml")
        return run_playbook(self.work, inventory, *arguments, playbook=playbook, environment=environment)

    def host_variables(self, host: str, **variables: Any) -> None:
        file = self.work / "inventory" / "host_vars" / f"{host}.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(variables))

    @property
    def report(self) -> dict[str, Any]:
        """Host to the hardware ID that was written down."""
        written = yaml.safe_load((self.work / REPORT).read_text())
        assert list(written) == ["all"]
        assert list(written["all"]) == ["hosts"]
        return {host: entry["thingstream_gateway_hardware_id"] for host, entry in written["all"]["hosts"].items()}


@pytest.fixture
def site(gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Iterator[Site]:
    def clear() -> None:
        for host in HOSTS:
            shutil.rmtree(gateways.root(host) / "sys", ignore_errors=True)
            shutil.rmtree(gateways.root(host) / "etc" / "thingstream", ignore_errors=True)
            (gateways.root(host) / "etc" / "machine-id").unlink(missing_ok=True)

    clear()
    variables = {
        **platform,
        "thingstream_gateway_service": "cloudlocate",
        "thingstream_gateway_token": simulator.put_profile("identify", service="cloudlocate"),
        "thingstream_gateway_hardware_id_sources": ["modem_imei", "dmi_serial", "device_tree_serial", "machine_id"],
    }
    site = Site(gateways, tmp_path, variables)
    site.serials(SERIALS)
    yield site
    clear()


def ini_of(site: Site) -> dict[str, Any]:
    """Return the hardware ID of each host as Ansible reads it from the inventory in INI."""
    manager = InventoryManager(loader=DataLoader(), sources=[str(site.work / "thingstream-hardware-ids.ini")])
    return {host.name: host.vars["thingstream_gateway_hardware_id"] for host in manager.get_hosts()}


def test_ids_that_a_reader_would_change_are_written_as_they_are(site: Site) -> None:
    """From the gateway through facts into files, and through both readers of Ansible."""
    odd = {"gw1": "0012345679", "gw2": "1e50000", "gw3": "[1,2746]", "bb1": "12:30:45#7"}
    site.serials(odd)
    run = site.run("thingstream.ztp.identify")
    assert run.status == 0, run.output
    assert site.report == odd
    assert ini_of(site) == odd


def test_what_is_found_is_shown_and_written_down(site: Site, simulator: RunningSimulator) -> None:
    site.write("gw1", DMI, "Default string\n")
    check = site.run("thingstream.ztp.identify", "--check")
    assert check.status == 0, check.output
    (shown,) = check.of("Show what each gateway has").values()
    assert shown["msg"] == SERIALS
    assert not (site.work / REPORT).exists()

    run = site.run("thingstream.ztp.identify")
    assert run.status == 0, run.output
    found = run.of(ASK)
    assert {host: (result["hardware_id"], result["source"], result["changed"]) for host, result in found.items()} == {
        host: (serial, "device_tree_serial", False) for host, serial in SERIALS.items()
    }
    assert {"source": "dmi_serial", "value": "Default string", "refused": "it is a placeholder"} in found["gw1"][
        "candidates"
    ]
    assert site.report == SERIALS

    again = site.run("thingstream.ztp.identify")
    (written,) = again.of("Write it down as an inventory").values()
    assert written["changed"] is False
    assert {host: entry for host, entry in ini_of(site).items() if host in HOSTS} == SERIALS
    assert simulator.requests() == []


@pytest.mark.full
def test_what_was_written_down_is_an_inventory_that_provisions_without_asking(
    site: Site, simulator: RunningSimulator
) -> None:
    assert site.run("thingstream.ztp.identify").status == 0
    site.serials({"gw1": "ANOTHER-BOARD"})
    shutil.copy(site.work / REPORT, site.work / "inventory" / "ids.yml")
    run = site.run(BOTH.format(options=""))
    assert run.values("action") == dict.fromkeys(HOSTS, "created"), run.output
    assert {result["status"] for result in run.of(ASK).values()} == {"skipped"}
    assert {entry["hardware_id"] for entry in simulator.requests()} == set(SERIALS.values())


@pytest.mark.full
def test_in_one_run_with_provisioning(site: Site, simulator: RunningSimulator) -> None:
    check = site.run(BOTH.format(options=""), "--check")
    assert check.values("action") == dict.fromkeys(HOSTS, "created"), check.output
    assert simulator.requests() == []
    run = site.run(BOTH.format(options=""))
    assert {host: result["thing"]["hardware_id"] for host, result in run.hosts.items()} == SERIALS, run.output
    simulator.clear_requests()
    assert site.run(BOTH.format(options="")).values("action") == dict.fromkeys(HOSTS, "none")
    assert simulator.requests() == []


@pytest.mark.parametrize("arguments", [[], pytest.param(["--check"], marks=pytest.mark.full)])
def test_gateways_that_share_an_id_fail_before_any_request(
    site: Site, simulator: RunningSimulator, arguments: list[str]
) -> None:
    site.serials({"gw2": "CLONE-1", "bb1": "CLONE-1"})
    run = site.run(BOTH.format(options=""), *arguments)
    failed = {host: result["msg"] for host, result in run.of(REFUSE).items() if result["status"] == "failed"}
    assert set(failed) == {"bb1", "gw2"}, run.output
    assert "CLONE-1 is also that of gw2:" in failed["bb1"]
    assert "CLONE-1 is also that of bb1:" in failed["gw2"]
    assert run.values("action") == {"bb1": None, "gw1": "created", "gw2": None, "gw3": "created"}
    assert "CLONE-1" not in {entry["hardware_id"] for entry in simulator.requests()}
    assert len(simulator.requests()) == (0 if arguments else 2)

    assert site.run("thingstream.ztp.identify", *arguments).status != 0
    if not arguments:
        assert site.report == {host: SERIALS[host] for host in ("gw1", "gw3")}


@pytest.mark.full
def test_an_id_that_is_written_down_is_compared_and_stays(site: Site, simulator: RunningSimulator) -> None:
    site.host_variables("gw1", thingstream_gateway_hardware_id=356938035643809)  # YAML makes a number of it
    site.serials({"gw2": "356938035643809", "gw1": "WHATEVER"})
    run = site.run("thingstream.ztp.identify")
    failed = {host for host, result in run.of(REFUSE).items() if result["status"] == "failed"}
    assert failed == {"gw1", "gw2"}, run.output
    assert run.of(ASK)["gw1"]["status"] == "skipped"
    limited = site.run("thingstream.ztp.identify", "--limit", "gw2")
    assert "is also that of gw1" in limited.of(REFUSE)["gw2"]["msg"], "of the whole inventory"
    site.serials({"gw2": SERIALS["gw2"]})
    assert site.run("thingstream.ztp.identify").status == 0
    assert site.report == {**SERIALS, "gw1": "356938035643809"}


def test_in_batches_a_clone_of_an_earlier_gateway_is_refused(site: Site, simulator: RunningSimulator) -> None:
    site.serials({"bb1": SERIALS["gw1"]})
    run = site.run(BOTH.format(options="serial: 1"))
    actions = run.values("action")
    assert actions == {"bb1": None, "gw1": "created", "gw2": "created", "gw3": "created"}, run.output
    assert "is also that of gw1" in run.hosts["bb1"]["msg"]
    assert len(simulator.requests()) == 3


def test_a_gateway_that_cannot_say_who_it_is(site: Site, simulator: RunningSimulator) -> None:
    site.serials({"gw2": "To be filled by O.E.M."})
    run = site.run(BOTH.format(options=""))
    failed = run.hosts["gw2"]
    assert failed["error_code"] == "hardware_id_required"
    for text in ("no ModemManager", "dmi_serial: there is none", "'To be filled by O.E.M.': it is a placeholder"):
        assert text in failed["msg"]
    assert len(simulator.requests()) == 3


def test_without_sources_nothing_happens(site: Site, simulator: RunningSimulator) -> None:
    del site.variables["thingstream_gateway_hardware_id_sources"]
    run = site.run(BOTH.format(options=""))
    assert {result["status"] for result in run.hosts.values()} == {"failed"}
    assert "thingstream_gateway_hardware_id_sources" in run.output
    assert simulator.requests() == []


def test_a_wrong_source_is_refused_by_role_and_module(site: Site) -> None:
    run = site.run("thingstream.ztp.identify", thingstream_gateway_hardware_id_sources=["imei"])
    assert set(run.values("error_code").values()) == {"bad_option"}, run.output
    run = site.run(BOTH.format(options=""), thingstream_gateway_hardware_id_sources=["imei"])
    assert "'identify'" in run.output
    assert "value of thingstream_gateway_hardware_id_sources must be one or more of" in run.output
    assert run.of(ASK) == {}


def test_a_machine_id_is_shown_nowhere(site: Site) -> None:
    for host in HOSTS:
        site.write(host, "etc/machine-id", f"{MACHINE_ID}\n")
    playbook = ASKING.format(sources="machine_id")
    run = site.run(playbook, "-vvvvv")
    assert run.values("hardware_id") == dict.fromkeys(HOSTS, DERIVED_ID), run.output
    assert MACHINE_ID not in run.output
    assert MACHINE_ID not in json.dumps(run.results)
    run = site.run(playbook, environment={"ANSIBLE_DEBUG": "1"})
    assert run.values("error_code") == dict.fromkeys(HOSTS, "gateway_unsupported")
    assert MACHINE_ID not in run.output
    run = site.run(ASKING.format(sources="device_tree_serial"), "-vvvvv")
    assert SERIALS["gw1"] in run.output, "or else nothing was proven"


def test_what_ansible_would_evaluate_reaches_no_inventory(site: Site) -> None:
    site.serials({"gw1": "{{ lookup('pipe', 'touch evaluated') }}", "gw2": "%Q9:X7[\"'!#&*"})
    run = site.run("thingstream.ztp.identify")
    assert run.hosts["gw1"]["error_code"] == "hardware_id_required"
    assert site.report == {"gw2": "%Q9:X7[\"'!#&*", "gw3": SERIALS["gw3"], "bb1": SERIALS["bb1"]}
    assert not (site.work / "evaluated").exists()


@pytest.mark.full
def test_a_modem_over_ssh(site: Site) -> None:
    """On the gateway without Python, and on one whose ModemManager never answers."""
    answers = {
        "bb1": "case $1 in -L) echo /org/freedesktop/ModemManager1/Modem/4 ;;"
        " *) echo 'modem.3gpp.imei : 356938035643809' ;; esac",
        "gw1": "sleep 120",
    }
    for host, text in answers.items():
        site.write(host, "usr/bin/mmcli", f"#!/bin/sh\n{text}\n")
        (site.gateways.root(host) / "usr/bin/mmcli").chmod(0o755)
    try:
        run = site.run("thingstream.ztp.identify", "--limit", "bb1,gw1")
    finally:
        for host in answers:
            (site.gateways.root(host) / "usr/bin/mmcli").unlink()
    assert site.report == {"bb1": "356938035643809", "gw1": SERIALS["gw1"]}, run.output
    assert "did not respond within 10 seconds" in run.of(ASK)["gw1"]["candidates"][0]["refused"]

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mistakes in inventories cost nothing: they are found before a request, and the other hosts go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.ansible_run import PROVISION, Run, run_playbook, write_inventory
from simulator.client import RunningSimulator

PREFIX = "thingstream_gateway_"


@dataclass
class Site:
    """Hosts with local connections, and the inventory that describes them."""

    work: Path
    simulator: RunningSimulator
    common: dict[str, Any]

    def run(
        self, hosts: Mapping[str, Mapping[str, Any]], *arguments: str, playbook: str = PROVISION, **common: Any
    ) -> Run:
        own = {host: {f"{PREFIX}{name}": value for name, value in options.items()} for host, options in hosts.items()}
        shared = {**self.common, **{f"{PREFIX}{name}": value for name, value in common.items()}}
        inventory = write_inventory(self.work / "inventory.yml", own, shared)
        return run_playbook(self.work, inventory, *arguments, playbook=playbook)


@pytest.fixture
def site(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Site:
    own = {
        "service": "pointperfect",
        "token": simulator.put_profile("inputs", service="pointperfect", plan="mqtt"),
        "path": f"{tmp_path}/gateways/{{{{ inventory_hostname }}}}",
    }
    return Site(tmp_path, simulator, {**platform, **{f"{PREFIX}{name}": value for name, value in own.items()}})


def test_two_hosts_with_one_hardware_id_are_refused_and_others_go_on(site: Site) -> None:
    """Also where one of them is not in this run, has the ID from a template, or writes it as a number."""
    hosts: dict[str, dict[str, Any]] = {
        "one": {"hardware_id": "356938035643809"},
        "two": {"hardware_id": 356938035643809},
        "three": {"hardware_id": "{{ '3569380' ~ '35643809' }}"},
        "alone": {"hardware_id": "own"},
        "live": {"hardware_id": "own", "service": "pointperfect-live"},
        "gone": {"hardware_id": "own", "state": "absent"},
        "broken": {"hardware_id": "{{ not_there }}"},
    }
    for arguments in ([], ["--limit", "one,alone"]):
        run = site.run(hosts, *arguments)
        codes = run.values("error_code")
        refused = {host for host in codes if "is also that of" in run.hosts[host]["msg"]}
        assert refused == ({"one"} if arguments else {"one", "two", "three"}), run.output
        assert "three, two" in run.hosts["one"]["msg"]
        assert run.hosts["alone"]["action"] == ("none" if arguments else "created")
    assert {request["hardware_id"] for request in site.simulator.requests()} == {"own"}


def test_batches_compare_with_the_whole_inventory(site: Site) -> None:
    hosts = {name: {"hardware_id": "same"} for name in ("a", "b")} | {"c": {"hardware_id": "c"}}
    playbook = site.work / "batches.yml"
    role = {"ansible.builtin.import_role": {"name": "thingstream.ztp.thingstream_gateway"}}
    for strategy in ("linear", "free"):
        play = {"hosts": "all", "gather_facts": False, "serial": 1, "strategy": strategy, "tasks": [role]}
        playbook.write_text(yaml.safe_dump([{**play, "max_fail_percentage": 100, "ignore_errors": True}]))
        run = site.run(hosts, playbook=str(playbook))
        assert run.values("error_code") == {"a": "bad_option", "b": "bad_option", "c": None}, run.output
    assert {request["hardware_id"] for request in site.simulator.requests()} == {"c"}


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({"hardwareid": "x"}, "bad_option", "Did you mean thingstream_gateway_hardware_id?"),
        ({"hardware_id": "x", "my_note": "x"}, "bad_option", "thingstream_gateway_my_note is unknown"),
        ({"hardware_id": None}, "hardware_id_required", "anonymous"),
        ({"hardware_id": "{{ '' }}"}, "hardware_id_required", "anonymous"),
        ({}, "hardware_id_required", "anonymous"),
        ({"hardware_id": "x", "verify": 3}, "bad_option", "verify: 3 is a number"),
        ({"hardware_id": "x", "renew_before": "4 weeks"}, "bad_option", "renew_before: '4 weeks'"),
        ({"hardware_id": "x", "token": "changeme"}, "token_invalid", "not a UUID"),
    ],
)
def test_a_mistake_costs_nothing(site: Site, options: dict[str, Any], code: str, says: str) -> None:
    run = site.run({"bad": options, "good": {"hardware_id": "good"}})
    assert run.hosts["bad"]["error_code"] == code, run.output
    assert says in run.hosts["bad"]["msg"]
    assert "<class" not in run.output
    assert "changeme" not in run.output
    assert run.hosts["good"]["action"] == "created"
    assert [request["hardware_id"] for request in site.simulator.requests()] == ["good"]
    assert not (site.work / "gateways/bad").exists()


def test_values_as_they_are_pasted_work(site: Site) -> None:
    token = site.common[f"{PREFIX}token"]
    run = site.run(
        {"one": {"hardware_id": "one"}},
        token=f"  {token.upper()}\n",
        api_url=f"{site.simulator.url}/ztp/pointperfect/credentials/",
        renew_before="30d",
        verify=False,
        retries="3",
    )
    assert run.values("action") == {"one": "created"}, run.output


def test_anonymous_things_must_be_wanted(site: Site) -> None:
    run = site.run({"one": {}}, anonymous=True)
    assert run.values("action") == {"one": "created"}, run.output


def test_check_mode_says_once_what_the_controller_has(site: Site) -> None:
    hosts = {f"gw{number}": {"hardware_id": f"gw{number}"} for number in range(3)}
    run = site.run(hosts, "--check")
    assert run.values("changed") == dict.fromkeys(hosts, True), run.output
    assert run.output.count("Controller: ") == 1
    assert "is reachable and trusted (TLSv1.3). The spool" in run.output
    untrusted = site.run(hosts, "--check", ca_path="/etc/ssl/certs/ca-certificates.crt")
    assert set(untrusted.values("error_code").values()) == {"tls"}, untrusted.output
    assert untrusted.output.count("Controller: ") == 1
    assert site.simulator.requests() == []
    assert not (site.work / "spool").exists()

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet behind a bad network: 30 % of all requests fail, in five ways; failed gateways run again until none fails."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import ledger
from integration.ansible_run import run_playbook, write_inventory
from simulator.client import RunningSimulator

Trial = Callable[[str], AbstractContextManager[None]]

MAX_RUNS = 15
TIMEOUT = 2  # seconds; slow is three times as long
NETWORK_FAULTS: list[dict[str, Any]] = [
    {"kind": "cut_before", "reset": True},
    {"kind": "cut_after"},
    {"kind": "delay_after", "seconds": 3 * TIMEOUT},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429},
]
FAILING = 0.3  # of all requests
# The faults are tried one after the other, so that each meets this part of the requests that the ones before let pass.
PROBABILITY = 1 - (1 - FAILING) ** (1 / len(NETWORK_FAULTS))
FAULTY_CODES = {"unreachable", "timeout", "server_error", "rate_limited"}


@dataclass
class Region:
    """Gateways of one service, as directories of this machine."""

    simulator: RunningSimulator
    work: Path
    platform: Mapping[str, Any]
    service: str
    names: list[str]
    token: str = field(init=False)

    def __post_init__(self) -> None:
        profile = {"format": "RTCM"} if self.service == "pointperfect" else {}
        self.token = self.simulator.put_profile(f"fleet-{self.service}", service=self.service, **profile)

    def run(self, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Provision these gateways with one request each, and return the result of each."""
        options = {"service": self.service, "token": self.token, "retries": 0, "timeout": TIMEOUT}
        common = {f"thingstream_gateway_{option}": value for option, value in options.items()}
        hosts = {
            name: {"thingstream_gateway_hardware_id": name, "thingstream_gateway_path": self.work / "gateways" / name}
            for name in names
        }
        inventory = write_inventory(self.work / "inventory.yml", hosts, {**self.platform, **common})
        run = run_playbook(self.work, inventory, environment={"ANSIBLE_FORKS": "20"}, seconds=600)
        return run.of("Ensure credentials")

    def installed(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the record and the response of a gateway."""
        current = self.work / "gateways" / name / "current"
        return json.loads((current / "thing.json").read_text()), json.loads((current / "credentials.json").read_text())

    def things(self, name: str) -> list[str]:
        return [thing["client_id"] for thing in self.simulator.things(hardware_id=name)]

    def made(self, name: str) -> list[str]:
        """Return the Things created by requests of a gateway, whether or not it got the response."""
        found = {thing["id"]: thing["client_id"] for thing in self.simulator.things(hardware_id=name)}
        return [found[entry["thing"]] for entry in self.simulator.requests(hardware_id=name) if entry["thing"]]


@pytest.fixture
def region(
    simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path, full: bool
) -> Callable[[str], Region]:
    def make(service: str) -> Region:
        names = [f"{service}-fleet-{number:03}" for number in range(100 if full else 20)]
        for fault in NETWORK_FAULTS:
            simulator.add_fault(count=1_000_000, service=service, probability=PROBABILITY, **fault)
        return Region(simulator, tmp_path, platform, service, names)

    return make


def spool_files(work: Path) -> list[Path]:
    """Return entries and request markers; the ledger stays."""
    return [file for file in (work / "spool").iterdir() if file.name != "ledger"]


def _failed(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name, result in results.items() if result["status"] != "ok"]


@pytest.mark.full
def test_run_until_done(region: Callable[[str], Region], simulator: RunningSimulator, trials: Trial) -> None:
    """In the end, each gateway has its own Thing, the only one of its hardware ID, as without faults."""
    fleet = region("pointperfect")
    rest = fleet.names
    counts: list[tuple[int, int, dict[str, int]]] = []
    while rest and len(counts) < MAX_RUNS:
        results = fleet.run(rest)
        assert sorted(results) == sorted(rest)
        codes = Counter(str(result.get("error_code")) for result in results.values() if result["status"] != "ok")
        counts.append((len(rest), len(_failed(results)), dict(codes)))
        assert set(codes) <= FAULTY_CODES
        rest = _failed(results)
    for number, (tried, failed, why) in enumerate(counts, 1):
        print(f"run {number}: {tried} gateways, {failed} failed {why}")
    assert rest == [], counts
    assert 0.1 < counts[0][1] / counts[0][0] < 0.5, "too few or too many faults"
    simulator.clear_faults()
    requests = len(simulator.requests())
    last = fleet.run(fleet.names)
    assert len(simulator.requests()) == requests, "a gateway in order sends no request"
    for name in fleet.names:
        with trials("Network: fleet, run until done"):
            assert (last[name]["status"], last[name]["action"]) == ("ok", "none")
            assert len(fleet.things(name)) == 1
            record, response = fleet.installed(name)
            assert record["hardware_id"] == name
            assert response == simulator.post(fleet.token, hardwareId=name).json(), "the credentials of another Thing"
    assert spool_files(fleet.work) == []
    known = ledger.survey(str(fleet.work / "spool"))
    assert sorted(entry.hardware_id or "" for entry in known) == sorted(fleet.names)
    assert all(entry.delivered_at for entry in known)


@pytest.mark.full
def test_every_thing_is_accounted_for(
    region: Callable[[str], Region], simulator: RunningSimulator, trials: Trial
) -> None:
    """Where each request creates another Thing: each is in use, or an error says that it may exist."""
    fleet = region("cloudlocate")
    results = fleet.run(fleet.names)
    simulator.clear_faults()
    failed, lost = _failed(results), 0
    look_for: list[str] = []
    assert failed
    for name in fleet.names:
        with trials("Network: fleet, every Thing accounted for"):
            assert len(simulator.requests(hardware_id=name)) == 1, "another request"
            assert fleet.made(name) == fleet.things(name)
            if name not in failed:
                assert [fleet.installed(name)[0]["client_id"]] == fleet.things(name)
                continue
            assert not (fleet.work / "gateways" / name).exists()
            message, code = results[name]["msg"], results[name]["error_code"]
            assert code in FAULTY_CODES
            reported = "may have created a Thing" in message
            assert reported == (code != "rate_limited"), message
            assert reported or not fleet.things(name), "a Thing that no error reports"
            lost += len(fleet.things(name))
            look_for += [name] if reported else []
    print(f"{len(fleet.names)} gateways, {len(failed)} failed; {lost} Things to look for in the portal")
    assert lost, "no response was lost"
    # the markers that keep the next run from another request, and nothing else
    kept = spool_files(fleet.work)
    assert {file.suffix for file in kept} == {".request"}
    assert sorted(json.loads(file.read_text())["hardware_id"] for file in kept) == sorted(look_for)

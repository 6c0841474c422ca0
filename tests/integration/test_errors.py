# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input and a platform in trouble: each host of one run has a problem of its own and gets its own error code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES
from integration.ansible_run import Run, run_playbook, write_inventory
from integration.error_cases import CASES, SOUND, host_variables, prepare
from integration.patience import eventually
from simulator.client import RunningSimulator

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """A run over all cases, and the given name of each request that reached the platform."""

    run: Run
    requests: list[str]


# For the session, because a worker may take other tests between those of this file, and the cases can be set up once
@pytest.fixture(scope="session")
def finished(running_simulator: RunningSimulator, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run all cases at once, and one gateway without a problem among them."""
    simulator, work = running_simulator, tmp_path_factory.mktemp("errors") / "work"
    prepare(work)
    simulator.clear_faults()
    hosts = {
        name: host_variables(simulator, name, case, work, work) for name, case in {**CASES, "sound": SOUND}.items()
    }
    simulator.clear_requests()
    common = {
        "thingstream_gateway_api_url": simulator.url,
        "thingstream_gateway_ca_path": simulator.ca_path,
        "thingstream_gateway_spool_path": work / "spool",
        "thingstream_gateway_allow_volatile": True,  # some systems have /tmp in memory
    }
    environment = {"ANSIBLE_CONNECTION_PLUGINS": str(PROJECT / "tests/integration/connection_plugins")}
    run = run_playbook(work, write_inventory(work / "inventory.yml", hosts, common), environment=environment)
    # a request is logged when the simulator has responded, which a client may not wait for
    eventually(lambda: all(given_names(simulator).count(name) >= case.requests for name, case in CASES.items()))
    simulator.clear_faults()
    return Finished(run, given_names(simulator))


def given_names(simulator: RunningSimulator) -> list[str]:
    return [entry["given_name"] for entry in simulator.requests()]


@pytest.mark.parametrize("name", CASES)
def test_each_problem_has_its_code(finished: Finished, name: str) -> None:
    result, case = finished.run.hosts[name], CASES[name]
    assert result["status"] == "failed"
    assert (result.get("error_code"), result["changed"]) == (case.code, False), result
    assert case.says in result["msg"]
    assert finished.requests.count(name) == case.requests


def test_a_sound_gateway_is_not_stopped_by_the_others(finished: Finished) -> None:
    assert finished.run.hosts["sound"]["action"] == "created"
    assert finished.run.status == 2


def test_messages_end_as_sentences_and_hold_no_response(finished: Finished) -> None:
    for result in finished.run.hosts.values():
        if result["status"] == "failed":
            assert result["msg"].rstrip()[-1] in ".)", result["msg"]
            assert len(result["msg"]) < 1200
            assert "PRIVATE KEY" not in result["msg"]


def test_every_error_code_is_documented() -> None:
    """Each code has a section in the troubleshooting page, and the page has no other."""
    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    documented = [line[3:].strip().strip("`") for line in page.splitlines() if line.startswith("## `")]
    assert sorted(documented) == sorted(ERROR_CODES)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input and a platform in trouble: each host of one run has a problem of its own and gets its own error code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES
from integration.ansible_run import Run, run_playbook, write_inventory
from integration.error_cases import CASES, SOUND, host_variables, prepare
from simulator.client import RunningSimulator

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(
    running_simulator: RunningSimulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Run, RunningSimulator]]:
    """One run over all cases, and one gateway without a problem among them."""
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
    yield run_playbook(work, write_inventory(work / "inventory.yml", hosts, common), environment=environment), simulator
    simulator.clear_faults()


@pytest.mark.parametrize("name", CASES)
def test_each_problem_has_its_code(run: tuple[Run, RunningSimulator], name: str) -> None:
    result, case = run[0].hosts[name], CASES[name]
    assert result["status"] == "failed"
    assert (result.get("error_code"), result["changed"]) == (case.code, False), result
    assert case.says in result["msg"]
    asked = requests_of(run[1], name)
    if len(asked) < case.requests:  # logged when the simulator is through with it, which a client may not wait for
        time.sleep(4)
        asked = requests_of(run[1], name)
    assert len(asked) == case.requests, asked


def requests_of(simulator: RunningSimulator, name: str) -> list[dict[str, Any]]:
    return [entry for entry in simulator.requests() if entry["given_name"] == name]


def test_a_sound_gateway_is_not_stopped_by_the_others(run: tuple[Run, RunningSimulator]) -> None:
    assert run[0].hosts["sound"]["action"] == "created"
    assert run[0].status == 2


def test_messages_end_as_sentences_and_hold_no_response(run: tuple[Run, RunningSimulator]) -> None:
    for result in run[0].hosts.values():
        if result["status"] == "failed":
            assert result["msg"].rstrip()[-1] in ".)", result["msg"]
            assert len(result["msg"]) < 1200
            assert "PRIVATE KEY" not in result["msg"]


def test_every_error_code_is_documented() -> None:
    """Each code has a section in the troubleshooting page, and the page has no other."""
    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    documented = [line[3:].strip().strip("`") for line in page.splitlines() if line.startswith("## `")]
    assert sorted(documented) == sorted(ERROR_CODES)

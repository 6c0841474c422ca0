# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs at once on one gateway, each a process of its own: one wins, the other reports it, and nothing is lost.

The service is CloudLocate, where each request creates another Thing: none of them may be forgotten, and with one spool
the second run is refused before its request.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import requests, responses
from ansible_collections.thingstream.ztp.tests.unit.rig import Run
from faults.conftest import Trial
from faults.controller import MAX_AGE_DAYS, Controller, forked
from faults.sound import assert_settled, in_use
from simulator.client import RunningSimulator

PARTS, ROUNDS = 4, 50  # the retirement list of one path has room for 200 Things
SHORT = 4  # rounds, in one part
WINS = ("created", "renewed", "rolled_back")


@pytest.fixture
def controllers(simulator: RunningSimulator, tmp_path: Path) -> Iterator[list[Controller]]:
    """Two controllers for one gateway, each with a spool of its own."""
    token = simulator.put_profile("two-at-once", service="cloudlocate")
    one = Controller(
        tmp_path / "gateway", "cloudlocate", "one", simulator=simulator, token=token, hardware_id=tmp_path.name
    )
    one.root.mkdir()
    other = replace(one, controller="other")
    for controller in (one, other):
        assert controller.present(force=True).changed
    yield [one, other]
    simulator.set_clock_offset(0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("part", range(PARTS if metafunc.config.getoption("--full") else 1))


def at_once(*actions: Callable[[], str], directory: Path) -> list[str]:
    """Run each action in a process of its own; they begin at the same moment. Return what they return."""
    files = [directory / f"outcome-{number}" for number in range(len(actions))]
    gate, opener = os.pipe()

    def run(action: Callable[[], str], file: Path) -> None:
        os.close(opener)
        os.read(gate, 1)
        file.write_text(json.dumps(action()))

    processes = [forked(partial(run, *pair)) for pair in zip(actions, files, strict=True)]
    os.close(gate)
    os.close(opener)
    for process in processes:
        assert os.waitpid(process, 0)[1] == 0
    return [json.loads(file.read_text()) for file in files]


def action_of(run: Callable[[], Run]) -> str:
    """Return the action of a run, or its error code; with its message, if it is not the expected one."""
    try:
        return run().action
    except ProvisioningError as error:
        return error.code if error.code == "concurrent_change" else f"{error.code}: {error}"


def move_on(controllers: list[Controller]) -> None:
    """Let time pass until the credentials in use are due."""
    first, *others = controllers
    first.let_pass(MAX_AGE_DAYS + 1)
    for other in others:
        other.ahead = first.ahead


def assert_nothing_is_lost(controllers: list[Controller], outcomes: list[str]) -> None:
    """Account for every Thing just after a round, and again once each controller has run once more on its own."""
    first = controllers[0]
    assert set(outcomes) <= {*WINS, "none", "unchanged", "concurrent_change"}, outcomes
    assert set(outcomes) & set(WINS), f"no run won: {outcomes}"
    record = in_use(first.path)
    assert record is not None
    assert_settled(first.path)
    waiting = {client_id for controller in controllers for client_id in in_spool(controller)}
    assert waiting <= first.things
    retired = first.retired_ids
    assert {record["client_id"], *retired} | waiting == first.things
    assert len(retired) == len(set(retired))
    assert record["client_id"] not in retired
    for controller in controllers:
        assert action_of(controller.present) in (*WINS, "none", "unchanged")
    record = in_use(first.path)
    assert record is not None
    assert sorted([record["client_id"], *first.retired_ids]) == sorted(first.things)
    assert all(controller.spool_files == [] for controller in controllers)
    assert set().union(*(controller.known_things for controller in controllers)) == first.things
    assert all(action_of(controller.present) == "none" for controller in controllers)


def in_spool(controller: Controller) -> list[str]:
    """Return the Things whose response waits for the next run."""
    entries = responses.load(controller.spool_place, bytes)
    assert requests.find(controller.spool_place) is None
    return [json.loads(entry.response)["clientId"] for entry in entries]


def test_two_controllers(controllers: list[Controller], tmp_path: Path, trials: Trial, full: bool, part: int) -> None:
    one, other = controllers
    met = 0
    for _round in range(ROUNDS if full else SHORT):
        move_on(controllers)
        before = len(one.things)
        with trials("Two at once: two controllers"):
            outcomes = at_once(lambda: action_of(one.present), lambda: action_of(other.present), directory=tmp_path)
            assert len(one.things) - before == sum(outcome != "none" for outcome in outcomes) or (
                "concurrent_change" in outcomes  # before or after its request
            )
            assert len([outcome for outcome in outcomes if outcome in WINS]) == 1, outcomes
            assert_nothing_is_lost(controllers, outcomes)
        met += "concurrent_change" in outcomes
    assert met, "they never met"


def test_one_spool(controllers: list[Controller], tmp_path: Path, trials: Trial, full: bool, part: int) -> None:
    """Two runs of one controller: only one request is sent, whatever becomes of the other run."""
    one = controllers[0]
    met = 0
    for _round in range(ROUNDS if full else SHORT):
        move_on(controllers)
        before = len(one.things)
        with trials("Two at once: one spool"):
            outcomes = at_once(lambda: action_of(one.present), lambda: action_of(one.present), directory=tmp_path)
            assert len(one.things) - before == 1, outcomes
            assert len([outcome for outcome in outcomes if outcome in WINS]) == 1, outcomes
            assert_nothing_is_lost(controllers, outcomes)
        met += "concurrent_change" in outcomes
    assert met, "they never met"


def test_a_renewal_and_a_roll_back(
    controllers: list[Controller], tmp_path: Path, trials: Trial, full: bool, part: int
) -> None:
    one, other = controllers
    met = 0
    for _round in range(ROUNDS if full else SHORT):
        move_on(controllers)
        with trials("Two at once: renew, roll back"):
            outcomes = at_once(lambda: action_of(one.present), lambda: action_of(other.roll_back), directory=tmp_path)
            assert_nothing_is_lost(controllers, outcomes)
        met += "concurrent_change" in outcomes
    assert met, "they never met"

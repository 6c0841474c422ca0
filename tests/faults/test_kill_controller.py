# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the controller is killed at every call and return between look and report: no Thing is lost or doubled.

One window cannot be closed: from the moment at which the platform creates a Thing until its answer is in the spool, a
kill loses the answer. Where a repeated request would create another Thing, the next run then fails with `response_lost`
and asks for nothing; everywhere else it converges by itself. What is in the window is asserted here: nothing but to
receive the answer and to write it down.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import Consumers
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool
from faults import killing
from faults.conftest import Trial
from faults.controller import Controller, forked
from faults.sound import assert_settled, in_use
from integration.ansible_run import run_playbook, write_inventory
from shell.host import outcome
from simulator.client import RunningSimulator

# what may run between the creation of a Thing and its answer in the spool
WINDOW = {
    "api.post",
    "api.withhold",
    "api.ask",
    "answers._ask",
    "answers._asked",
    "responses.store",
    "responses._write",
}
STRIDE = 53  # between the points that are tried in short
LONGEST = 1000  # points


@pytest.fixture(params=["pointperfect", "cloudlocate"])
def controller(request: pytest.FixtureRequest, simulator: RunningSimulator, tmp_path: Path) -> Iterator[Controller]:
    service = request.param
    token = simulator.put_profile(f"kill-{service}", service=service)
    # the fork of a process must not use the connection of this one, so that all of this is known before
    yield Controller(tmp_path / "gateway", service, simulator=simulator, token=token, hardware_id=tmp_path.name)
    simulator.set_clock_offset(0)


class Stage:
    """A gateway that is put back to where it was before each trial. The platform does not go back."""

    def __init__(self, controller: Controller, renewal: bool, aside: Path) -> None:
        self.controller, self.aside = controller, aside
        controller.root.mkdir()
        if renewal:
            assert controller.present().action == "created"
            controller.let_pass(100)
        subprocess.run(["cp", "-a", controller.root, aside], check=True)
        record = in_use(controller.path)
        self.original = record["client_id"] if record else None
        self.number = 0
        self.before: set[str] = set()

    def reset(self) -> None:
        shutil.rmtree(self.controller.root)
        subprocess.run(["cp", "-a", self.aside, self.controller.root], check=True)
        if self.original is None:
            self.number += 1
            self.controller.hardware_id = f"{self.controller.hardware_id.partition('/')[0]}/{self.number}"
        self.before = self.controller.things

    def die_at(self, point: int) -> str | None:
        """Runs until that point; returns its name, or ``None`` where the run came to its end."""
        trace = self.aside.with_name("trace")
        with trace.open("w") as stream:

            def on_point(number: int, name: str) -> None:
                if number == point:
                    print(name, file=stream, flush=True)
                    killing.kill()

            def run() -> None:
                killing.watch(on_point)
                self.controller.present()

            _pid, status = os.waitpid(forked(run), 0)
        name = trace.read_text().strip() or None
        assert os.WIFSIGNALED(status) == (name is not None)
        return name

    def next_run(self) -> tuple[str, bool]:
        """The run after a kill: ``lost`` or ``done``, and whether the platform had a Thing whose answer was lost."""
        controller, before = self.controller, self.before
        was = in_use(controller.path)
        assert was is not None or self.original is None
        left = controller.things - before
        assert len(left) <= 1
        code, orphans = outcome(controller.present), set()
        ending = "done"
        if code == "response_lost":
            assert controller.service == "cloudlocate"
            assert controller.things - before == left, "nobody was asked"
            assert in_use(controller.path) == was
            (request,) = spool.files(controller.spool_place, spool.REQUEST_SUFFIX)
            request.unlink()  # somebody has looked in the portal
            ending, code, orphans = "lost", outcome(controller.present), left
        assert code == "done"
        record = in_use(controller.path)
        assert record is not None
        known = {record["client_id"], *controller.retired_ids}
        assert controller.things - before == (known | orphans) - before, "each Thing is in use, on the list, or named"
        assert self.original is None or self.original in known
        is_new = controller.service == "cloudlocate" or self.original is None
        assert len(controller.things - before - orphans) == int(is_new)
        assert controller.present().action == "none"
        assert_settled(controller.path)
        assert list(controller.spool_place.parent.iterdir()) == []
        return ending, bool(orphans)


@pytest.mark.parametrize("renewal", [False, True], ids=["first", "renewal"])
def test_killed_at_every_call_and_return(
    controller: Controller, renewal: bool, tmp_path: Path, trials: Trial, full: bool
) -> None:
    stage = Stage(controller, renewal, tmp_path / "aside")
    window = []
    for point in range(1, LONGEST) if full else range(5 + 9 * renewal, LONGEST, STRIDE):
        stage.reset()
        name = stage.die_at(point)
        if name is None:
            break
        with trials(f"Kill: controller, {controller.service}"):
            ending, orphaned = stage.next_run()
            if orphaned:
                window.append(name)
                assert ending == "lost"
                assert name.split()[0] in WINDOW, name
    else:
        pytest.fail("the run never came to its end")
    assert point > 50
    if controller.service == "pointperfect":
        assert window == []
    elif full:
        assert window, "the point between answer and spool was not tried"


@pytest.mark.parametrize("renewal", [False, True], ids=["first", "renewal"])
def test_killed_while_the_platform_answers(
    controller: Controller, renewal: bool, tmp_path: Path, trials: Trial, simulator: RunningSimulator
) -> None:
    stage = Stage(controller, renewal, tmp_path / "aside")
    stage.reset()
    asked = len(simulator.requests())
    simulator.add_fault("delay_after", seconds=2)
    with trials(f"Kill: controller, {controller.service}"):
        # the fault is taken when the request has arrived, and the Thing is there then
        kill_once(controller, lambda: not simulator.faults())
        assert wait_until(lambda: len(simulator.requests()) > asked)
        ending, orphaned = stage.next_run()
        assert (ending, orphaned) == (("lost", True) if controller.service == "cloudlocate" else ("done", False))


def test_killed_while_consumers_are_on_trial(controller: Controller, tmp_path: Path, trials: Trial) -> None:
    stage = Stage(controller, True, tmp_path / "aside")
    stage.reset()
    slow = Consumers(health_command="sleep 3", health_timeout=5)
    with trials(f"Kill: controller, {controller.service}"):
        kill_once(controller, (controller.path / ".trial").is_symlink, consumers=slow)
        assert stage.next_run() == ("done", False)


def kill_once(controller: Controller, moment: Callable[[], bool], **changes: Any) -> None:
    """Starts a run and kills it, with every program it has started, as soon as something is true."""
    process = forked(partial(controller.present, **changes))
    try:
        assert wait_until(moment)
    finally:
        os.killpg(process, signal.SIGKILL)
        _pid, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), "it was still running"


def wait_until(moment: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not moment() and time.monotonic() < end:
        time.sleep(0.01)
    return moment()


# ---- ansible-playbook itself ----

# (where it dies, whether an answer is lost for CloudLocate)
MOMENTS = [
    ("answers.from_platform call", False),
    ("api.post call", True),
    ("api.post return", True),
    ("responses.store return", False),
    ("commands.install call", False),
    ("commands.install return", False),
    ("provision.ensure_present return", False),
]


@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_the_playbook_is_killed(
    service: str, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path, trials: Trial, full: bool
) -> None:
    token = simulator.put_profile(f"kill-{service}", service=service)
    moments = MOMENTS if full else MOMENTS[2:3] if service == "cloudlocate" else []
    for number, (moment, loses) in enumerate(moments):
        hardware_id, path = f"{tmp_path.name}/{number}", tmp_path / f"gateway-{number}"
        options = {"service": service, "token": token, "hardware_id": hardware_id, "path": path}
        hosts = {"one": {f"thingstream_gateway_{name}": value for name, value in options.items()}}
        inventory = write_inventory(tmp_path / "inventory.yml", hosts, platform)
        hooks = {"PYTHONPATH": str(Path(__file__).with_name("hooks")), "KILL_AT": moment}
        with trials(f"Kill: ansible-playbook, {service}"):
            assert run_playbook(tmp_path, inventory, environment=hooks).status == -signal.SIGKILL
            in_use(path)
            run = run_playbook(tmp_path, inventory)
            if loses and service == "cloudlocate":
                assert run.values("error_code") == {"one": "response_lost"}
                assert len(simulator.things(hardware_id=hardware_id)) == int(moment.endswith("return"))
                continue
            assert run.status == 0, run.output
            record = in_use(path)
            assert record is not None
            assert [thing["client_id"] for thing in simulator.things(hardware_id=hardware_id)] == [record["client_id"]]

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the controller is killed at every call and return between look and report: no Thing is lost or doubled.

One window cannot be closed: from the moment at which the platform creates a Thing until its response is in the spool, a
kill loses the response. Where a repeated request would create another Thing, the next run then fails with
`response_lost` and sends no request; everywhere else it converges by itself. The tests assert what is in the window:
only the functions that receive the response and store it.
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
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import Hooks
from faults import killing
from faults.conftest import Trial
from faults.controller import Controller, forked
from faults.sound import assert_settled, in_use
from integration.ansible_run import run_playbook, write_inventory
from shell.host import outcome
from simulator.client import RunningSimulator

# what may run between the creation of a Thing and its response in the spool
WINDOW = {
    "transport.read",  # of the request body: its last part is sent
    "transport._send",
    "transport._require_whole",
    "transport._kept",
    "request.keep",
    "responses.store",
    "responses._encode",
    "responses._write_all",
}
IN_FLIGHT_SECONDS = 0.5  # that the simulator gets for a request whose sender was killed
STRIDE = 53  # between the points that are tried in short
MAX_POINTS = 1000


@pytest.fixture(params=["pointperfect", "cloudlocate"])
def controller(request: pytest.FixtureRequest, simulator: RunningSimulator, tmp_path: Path) -> Iterator[Controller]:
    service = request.param
    token = simulator.put_profile(f"kill-{service}", service=service, plan="mqtt")
    # the fork of a process must not use the connection of this one, so that all of this is known before
    yield Controller(tmp_path / "gateway", service, simulator=simulator, token=token, hardware_id=tmp_path.name)
    simulator.set_clock_offset(0)


class Stage:
    """A gateway and a spool that are restored before each trial. The platform is not."""

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
            name, _slash, _number = str(self.controller.hardware_id).partition("/")
            self.controller.hardware_id = f"{name}/{self.number}"
        self.before = self.controller.things

    def die_at(self, point: int) -> str | None:
        """Run until that point; return its name, or ``None`` where the run came to its end."""
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
        if name is not None and name.split()[0] in WINDOW:
            time.sleep(IN_FLIGHT_SECONDS)
        return name

    def next_run(self) -> tuple[str, bool]:
        """Run again after a kill; return ``lost`` or ``done``, and whether the response for a Thing was lost."""
        controller, before = self.controller, self.before
        was = in_use(controller.path)
        assert was is not None or self.original is None
        left = controller.things - before
        assert len(left) <= 1
        code, orphans = outcome(controller.present), set()
        ending = "done"
        if code == "response_lost":
            assert controller.service == "cloudlocate"
            assert controller.things - before == left, "no request was sent"
            assert in_use(controller.path) == was
            (marker,) = controller.spool_files
            assert marker.suffix == ".request"
            marker.unlink()  # the user has looked in the portal
            ending, code, orphans = "lost", outcome(controller.present), left
        assert code == "done"
        record = in_use(controller.path)
        assert record is not None
        known = {record["client_id"], *controller.retired_ids}
        assert controller.things - before == (known | orphans) - before, "each Thing is in use, listed, or reported"
        assert controller.things - before - orphans <= controller.known_things, "the ledger knows every response"
        assert self.original is None or self.original in known
        is_new = controller.service == "cloudlocate" or self.original is None
        assert len(controller.things - before - orphans) == int(is_new)
        assert controller.present().action == "none"
        assert_settled(controller.path)
        assert controller.spool_files == []
        return ending, bool(orphans)


@pytest.mark.parametrize("renewal", [False, True], ids=["first", "renewal"])
def test_killed_at_every_call_and_return(
    controller: Controller, renewal: bool, tmp_path: Path, trials: Trial, full: bool
) -> None:
    stage = Stage(controller, renewal, tmp_path / "aside")
    window = []
    for point in range(1, MAX_POINTS) if full else range(12 + 9 * renewal, MAX_POINTS, STRIDE):
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
        assert window, "no point between response and spool was tried"


@pytest.mark.parametrize("renewal", [False, True], ids=["first", "renewal"])
def test_killed_while_the_platform_responds(
    controller: Controller, renewal: bool, tmp_path: Path, trials: Trial, simulator: RunningSimulator
) -> None:
    stage = Stage(controller, renewal, tmp_path / "aside")
    stage.reset()
    sent = len(simulator.requests())
    simulator.add_fault("delay_after", seconds=2)
    with trials(f"Kill: controller, {controller.service}"):
        # the fault is taken when the request has arrived, and the Thing is there then
        kill_once(controller, lambda: not simulator.faults())
        assert wait_until(lambda: len(simulator.requests()) > sent)
        ending, orphaned = stage.next_run()
        assert (ending, orphaned) == (("lost", True) if controller.service == "cloudlocate" else ("done", False))


def test_killed_during_the_health_check(controller: Controller, tmp_path: Path, trials: Trial) -> None:
    stage = Stage(controller, True, tmp_path / "aside")
    stage.reset()
    slow = Hooks(health_command="sleep 3", health_timeout=5)
    with trials(f"Kill: controller, {controller.service}"):
        kill_once(controller, (controller.path / ".health-check").is_symlink, hooks=slow)
        assert stage.next_run() == ("done", False)


def kill_once(controller: Controller, moment: Callable[[], bool], **changes: Any) -> None:
    """Start a run and kill it, with every program that it has started, as soon as something is true."""
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

# (where it dies, how many Things there are whose response is lost, for CloudLocate; None: the next run converges)
MOMENTS = [
    ("request.request_response call", None),
    ("transport.post call", 0),
    ("responses.store call", 1),
    ("responses.store return", None),
    ("transport.post return", None),
    ("requests.settle call", None),
    ("ledger.append call", None),
    ("commands.install call", None),
    ("commands.install return", None),
    ("responses.discard call", None),
    ("ensure.ensure_present return", None),
]


@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_the_playbook_is_killed(
    service: str, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path, trials: Trial, full: bool
) -> None:
    token = simulator.put_profile(f"kill-{service}", service=service, plan="mqtt")
    moments = MOMENTS if full else MOMENTS[2:3] if service == "cloudlocate" else []
    if service == "pointperfect":  # a repeatable request has no marker
        moments = [moment for moment in moments if not moment[0].startswith("requests.")]
    for number, (moment, lost) in enumerate(moments):
        hardware_id, path = f"{tmp_path.name}/{number}", tmp_path / f"gateway-{number}"
        options = {"service": service, "token": token, "hardware_id": hardware_id, "path": path}
        hosts = {"one": {f"thingstream_gateway_{name}": value for name, value in options.items()}}
        inventory = write_inventory(tmp_path / "inventory.yml", hosts, platform)
        hooks = {"PYTHONPATH": str(Path(__file__).with_name("hooks")), "KILL_AT": moment}
        with trials(f"Kill: ansible-playbook, {service}"):
            assert run_playbook(tmp_path, inventory, environment=hooks).status == -signal.SIGKILL
            in_use(path)
            run = run_playbook(tmp_path, inventory)
            if lost is not None and service == "cloudlocate":
                assert run.values("error_code") == {"one": "response_lost"}
                assert len(simulator.things(hardware_id=hardware_id)) == lost
                continue
            assert run.status == 0, run.output
            record = in_use(path)
            assert record is not None
            assert [thing["client_id"] for thing in simulator.things(hardware_id=hardware_id)] == [record["client_id"]]

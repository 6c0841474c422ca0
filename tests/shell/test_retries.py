# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection breaks and sends the same request again: the second attempt reports what the first one would have."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, protocol
from shell.consumer import Consumer
from shell.host import Host, change, outcome, plant_generation, refused, snapshot
from shell.steps import stepping
from shell.test_concurrency import BOOT, process_start

HISTORY = '{"things": ["a"]}'


@pytest.fixture
def consumer(host: Host, tmp_path: Path) -> Consumer:
    return Consumer(host, tmp_path / "consumer")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait in hundredths of seconds, as many of them as it would wait seconds."""
    assert "    sleep 1\n" in commands.CHANGE_SCRIPT
    patched = commands.CHANGE_SCRIPT.replace("    sleep 1\n", "    sleep 0.01\n")
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", patched)


Act = Callable[[Host, protocol.GatewayState, commands.Change], object]


def install(host: Host, state: protocol.GatewayState, how: commands.Change) -> object:
    return host.install("new", state, how=how)


def roll_back(host: Host, state: protocol.GatewayState, how: commands.Change) -> object:
    return host.roll_back("000001", state, how=how)


def set_attributes(host: Host, state: protocol.GatewayState, how: commands.Change) -> object:
    return host.set_attributes(state, how=how)


def write_history(host: Host, state: protocol.GatewayState, how: commands.Change) -> None:
    commands.write_history(host.execute, state, how)


def remove(host: Host, state: protocol.GatewayState, how: commands.Change) -> None:
    commands.remove(host.execute, state, how)


ACTS: dict[str, Act] = {
    "install": install,
    "roll_back": roll_back,
    "set_attributes": set_attributes,
    "write_history": write_history,
    "remove": remove,
}
RESULTS = {"install": "000003", "roll_back": "000001", "set_attributes": "000002"}
MARKERS = {"install": "new", "roll_back": "a", "set_attributes": "b", "write_history": "b", "remove": None}
every_act = pytest.mark.parametrize("name", ACTS)


def files_below(path: Path) -> dict[str, tuple[object, ...]]:
    """Return everything below a path, except the times of changes (ctime).

    The result leaves out the path itself, in which the second attempt is staged. Setting an owner changes a ctime.
    """
    looks = snapshot(path) if path.exists() else {}
    looks.pop(".", None)
    return {name: (*look[:6], look[-1]) for name, look in looks.items()}


# ---- one after the other ----


@every_act
@pytest.mark.parametrize("history", [None, HISTORY], ids=["no-history", "history"])
@pytest.mark.parametrize("hooks", [False, True], ids=["no-hooks", "hooks"])
def test_a_report_that_was_lost(host: Host, consumer: Consumer, name: str, history: str | None, hooks: bool) -> None:
    host.plant("a", "b")
    consumer.used.write_bytes((host.path / "current" / "client.key").read_bytes())
    state = host.checked()
    how = change(history=history, **(consumer.options if hooks else {}))
    assert ACTS[name](host, state, how) == RESULTS.get(name)
    before, calls = files_below(host.path), consumer.calls
    assert host.marker == MARKERS[name]
    assert ACTS[name](host, state, how) == RESULTS.get(name)
    assert files_below(host.path) == before
    assert consumer.calls == calls
    if hooks:
        consumer.assert_up_to_date()
    assert host.look().bundle.leftovers == ()


def test_a_first_installation(host: Host) -> None:
    state, how = host.checked(), change()
    assert host.install("new", state, how=how) == "000001"
    before = files_below(host.path)
    assert host.install("new", state, how=how) == "000001"
    assert files_below(host.path) == before
    host.assert_in_order("new", ["000001"])


@pytest.mark.parametrize("name", ["install", "roll_back"])
def test_a_switch_that_was_reverted_is_not_tried_again(host: Host, consumer: Consumer, name: str) -> None:
    host.plant("a", "b")
    state = host.checked()
    options = {**consumer.options, "health_command": "exit 1", "health_timeout": 1}
    how = change(**options)
    with refused("health_check_failed"):
        ACTS[name](host, state, how)
    before, calls = files_below(host.path), consumer.calls
    with pytest.raises(ProvisioningError, match="generation 000002 is in use") as caught:
        ACTS[name](host, state, how)
    assert caught.value.code == "health_check_failed"
    assert files_below(host.path) == before
    assert consumer.calls == calls
    # another run is another matter
    assert ACTS[name](host, host.checked(), change())


def test_a_health_check_that_was_reverted_while_attributes_were_set(host: Host, consumer: Consumer) -> None:
    host.plant("a", "bad")
    (host.path / ".health-check").symlink_to("000001")
    state, how = host.checked(), change(**{**consumer.options, "health_timeout": 1})
    for _attempt in range(2):
        with refused("health_check_failed"):
            set_attributes(host, state, how)
        assert host.marker == "a"
        assert consumer.calls == ["reload 000002", "health 000002", "reload 000001"]
    assert host.leftovers == []


@every_act
def test_another_run_has_changed_the_path_meanwhile(host: Host, name: str) -> None:
    """Its changes stay."""
    host.plant("a", "b")
    state, how = host.checked(), change(history=HISTORY)
    ACTS[name](host, state, how)
    host.install("newest")
    before = files_below(host.path)
    with refused("concurrent_change"):
        ACTS[name](host, state, how)
    assert files_below(host.path) == before
    assert host.marker == "newest"


def test_another_run_has_returned_to_what_was_in_use(host: Host) -> None:
    """Then this one has not switched, whatever it has recorded."""
    host.plant("a")
    state, how = host.checked(), change()
    assert host.install("new", state, how=how) == "000002"
    host.roll_back("000001")
    assert host.install("new", state, how=how) == "000003"
    host.assert_in_order("new", ["000001", "000003"])


# ---- after a first attempt that was killed ----


@pytest.mark.parametrize("hooks", [pytest.param(False, marks=pytest.mark.full), True], ids=["no-hooks", "hooks"])
@every_act
def test_the_first_attempt_was_killed_before_every_command(
    host: Host, consumer: Consumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hooks: bool
) -> None:
    host.plant("a", "b")
    state = host.checked()
    codes = []
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in host.steps(every=4 if name in ("install", "roll_back") else 1):
            shutil.rmtree(host.path, ignore_errors=True)
            host.plant("a", "b")
            consumer.log.unlink(missing_ok=True)
            consumer.used.write_bytes((host.path / "current" / "client.key").read_bytes())
            how = change(history=HISTORY, **(consumer.options if hooks else {}))
            codes.append(outcome(partial(ACTS[name], at_step(step, "kill -9 0"), state, how)))
            if name in RESULTS:
                generation = ACTS[name](host, state, how)
                assert os.readlink(host.path / "current") == f"generations/{generation}"
            else:
                ACTS[name](host, state, how)
            assert host.marker == MARKERS[name]
            assert name == "set_attributes" or (host.path / "history.json").read_text().strip() == HISTORY
            if name in ("install", "roll_back", "set_attributes"):
                assert set(host.leftovers) <= {"history.json", ".newest"}, step
            elif name == "remove":
                assert os.listdir(host.path) == ["history.json"]
            if hooks and name not in ("set_attributes", "write_history"):
                consumer.assert_up_to_date()
                assert len(consumer.calls) <= 4, "what had passed was not repeated"
            if codes[-1] == "done":
                break
    assert codes[-1] == "done"
    assert len(codes) > 2
    assert "gateway_unsupported" in codes


@pytest.mark.parametrize("shell", ["kill -9 0", "kill -9 $$"], ids=["with the bootstrap", "alone"])
def test_a_staging_directory_that_the_first_attempt_left(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    host.plant("a")
    state, how = host.checked(), change()
    with stepping(monkeypatch, host, tmp_path) as at_step:
        with refused("gateway_unsupported"):
            at_step(4, shell).install("new", state, how=how)
        assert [name[:9] for name in host.leftovers if name != ".lock"] == [".staging-"] * (shell == "kill -9 0")
        host.install("new", state, how=how)
    host.assert_in_order("new", ["000001", "000002"])


# ---- at the same time ----


@pytest.mark.usefixtures("patient")
@every_act
def test_both_attempts_at_once(host: Host, name: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        for _round in range(10):
            shutil.rmtree(host.path, ignore_errors=True)
            host.plant("a", "b")
            (host.path / ".lock").symlink_to(f"{BOOT}.4194999.1.dead")
            state, how = host.checked(), change()
            attempts = [pool.submit(ACTS[name], host, state, how) for _attempt in range(3)]
            assert [attempt.result() for attempt in attempts] == [RESULTS.get(name)] * 3
            assert host.marker == MARKERS[name]
            assert set(host.leftovers) <= {".newest"}
            assert len(host.generations) == (0 if name == "remove" else 2)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", ["install", "roll_back", "remove"])
def test_the_first_attempt_still_runs(host: Host, consumer: Consumer, tmp_path: Path, name: str) -> None:
    """In a hook that takes its time; the second attempt waits for it."""
    host.plant("a", "b")
    state = host.checked()
    paused, resume = tmp_path / "paused", tmp_path / "resume"
    wait = f': >"{paused}"; until [ -e "{resume}" ]; do sleep 0.03; done\n'
    how = change(**{**consumer.options, "reload_command": wait + consumer.options["reload_command"]})
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ACTS[name], host, state, how)
        while not paused.exists() and not first.done():
            time.sleep(0.002)
        second = pool.submit(ACTS[name], host, state, how)
        time.sleep(0.3)
        assert not second.done()
        resume.touch()
        assert first.result() == second.result() == RESULTS.get(name)
    assert host.marker == MARKERS[name]
    assert [call.split()[0] for call in consumer.calls] == ["reload", *(["health"] if name != "remove" else [])]
    assert set(host.leftovers) <= {".newest"}


def test_the_first_attempt_still_unpacks(host: Host) -> None:
    """The second one is faster and does not take away what the first one unpacks."""
    host.plant("a")
    state, how = host.checked(), change()
    sent: list[tuple[str, bytes]] = []

    def recording(command: str, stream: bytes, _secret: bool) -> tuple[int, str, str]:
        sent.append((command, stream))
        return 1, "", "not run"

    slow = replace(host)
    object.__setattr__(slow, "execute", recording)
    with refused("gateway_unsupported"):
        slow.install("new", state, how=how)
    ((command, stream),) = sent
    with subprocess.Popen(
        host.command_line(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": f"{host.tools}:/usr/bin:/bin"},
        cwd="/",
    ) as first:
        assert first.stdin is not None
        first.stdin.write(stream[:15_000])
        first.stdin.flush()
        deadline = time.monotonic() + 10
        while not any(host.path.glob(".staging-*/change.sh")) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert host.install("new", state, how=how) == "000002"
        assert [name[:9] for name in host.leftovers] == [".staging-"]
        output, _complaint = first.communicate(stream[15_000:])
    assert output.decode().splitlines() == ["begin 1", "installed 000002", "end"]
    host.assert_in_order("new", ["000001", "000002"])


def test_a_first_attempt_that_never_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hooks and a minute are what it may take at most."""
    host.plant("a")
    state = host.checked()
    lock = host.path / ".lock"
    lock.symlink_to(f"{BOOT}.{os.getpid()}.{process_start(os.getpid())}.same")
    assert "+ 60))" in commands.CHANGE_SCRIPT
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", commands.CHANGE_SCRIPT.replace("+ 60))", "+ 1))"))
    hooks: dict[str, Any] = {"reload_command": ":", "health_timeout": 1}
    for options, seconds in (({}, 1), (hooks, 4)):
        begin = time.monotonic()
        with pytest.raises(ProvisioningError, match="an earlier attempt of this run is still") as caught:
            host.set_attributes(state, nonce="same", **options)
        assert caught.value.code == "concurrent_change"
        assert seconds - 1 <= time.monotonic() - begin < seconds + 3
    assert host.leftovers == [".lock"]


# ---- what is recorded ----


def test_what_a_removal_leaves_of_it_is_left_over(host: Host) -> None:
    host.path.mkdir(parents=True)
    (host.path / ".last-change").symlink_to("nonce.000001")
    assert host.look().bundle.leftovers == (".last-change",)
    host.remove()
    assert not host.path.exists()
    host.install("a")
    assert (host.path / ".last-change").is_symlink()
    assert host.look().bundle.leftovers == ()


@pytest.mark.parametrize("record", ["n1.000002", "n1.", "n1", "x.000003", "n1.../000003"])
def test_a_record_of_something_else(host: Host, record: str) -> None:
    host.plant("a")
    plant_generation(host, "000002", "never in use")
    (host.path / ".last-change").symlink_to(record)
    assert host.install("new", nonce="n1") == "000003"
    host.assert_in_order("new", ["000001", "000003"])


@pytest.mark.parametrize("name", ["install", "roll_back"])
def test_a_disk_on_which_nothing_can_be_recorded(host: Host, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    host.plant("a", "b")
    state: Any = host.checked()
    failing = 'ln() { case $* in *" .staging-link-"*) return 1 ;; esac; command ln "$@"; }\n'
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", failing + commands.CHANGE_SCRIPT)
    with refused("disk_full"):
        ACTS[name](host, state, change())
    assert host.marker == "b"
    assert host.leftovers == []
    assert host.generations == ["000001", "000002"]

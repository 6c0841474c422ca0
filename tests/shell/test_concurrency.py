# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs at once: one of them wins, the other says so and changes nothing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from shell.host import Host, change, refused
from shell.steps import stepping

ROUNDS = 20


def attempt_to(host: Host, command: str, marker: str, held: gateway.Held, keep: int = 1) -> str:
    """``done`` or ``concurrent_change``; nothing else may happen to a change."""
    try:
        if command == "install":
            host.install(marker, held, keep=keep)
        elif command == "repair":
            host.repair(held, keep=keep)
        else:
            gateway.remove(host.execute, held, change())
    except ProvisioningError as error:
        if error.code != "concurrent_change":
            raise
        return error.code
    return "done"


def test_a_staging_directory_that_a_faster_run_has_cleared(host: Host) -> None:
    host.hold("a")
    held = host.checked()
    late = replace(host)

    def clearing(command: str, stream: bytes, secret: bool) -> tuple[int, str, str]:
        return host.execute(command.replace("tar -xpf -", 'rm -rf "$s"; tar -xpf -'), stream, secret)

    object.__setattr__(late, "execute", clearing)
    with refused("concurrent_change"):
        late.install("b", held)
    assert (host.marker, host.leftovers) == ("a", [])


class Reader(threading.Thread):
    """A consumer that reads what is in use, over and over."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True)
        self.host = host
        self.ended = threading.Event()
        self.reads = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                (self.host.path / "current" / "client.key").read_bytes()
                self.reads += 1
            except FileNotFoundError as error:
                self.failures.append(str(error))
            time.sleep(0.0002)


@contextlib.contextmanager
def reading(host: Host) -> Iterator[Reader]:
    reader = Reader(host)
    reader.start()
    try:
        yield reader
    finally:
        reader.ended.set()
        reader.join()


def test_two_installations_at_once(host: Host) -> None:
    host.hold("start")
    first = host.probe()
    with reading(host) as reader, ThreadPoolExecutor(2) as pool:
        for attempt in range(ROUNDS):
            held = host.believing(first)
            runs = {
                marker: pool.submit(attempt_to, host, "install", marker, held)
                for marker in (f"{attempt}a", f"{attempt}b")
            }
            outcomes = {marker: run.result() for marker, run in runs.items()}
            assert sorted(outcomes.values()) == ["concurrent_change", "done"], outcomes
            assert outcomes[str(host.marker)] == "done"
            assert host.leftovers == []
            assert len(host.generations) == 2
    # the previous generation stays, so that even who was looking at it during the switch could read it
    assert reader.failures == []
    assert reader.reads > 0


@pytest.mark.parametrize("keep", [0, 1])
def test_dead_runs_do_not_push_out_what_is_in_use(host: Host, keep: int) -> None:
    host.hold("a")
    for number in range(2, 6):
        generation = host.path / "generations" / f"{number:06d}"
        generation.mkdir()
        (generation / "client.key").write_bytes(b"dead")
    host.repair(keep=keep)
    assert host.marker == "a"
    host.install("b", keep=keep)
    assert host.marker == "b"


@pytest.mark.parametrize("other", ["install", "repair", "remove"])
def test_another_run_in_the_middle(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """One installation is stopped before each of its commands in turn, and another run goes by."""
    host.hold("start")
    first = host.probe()
    paused, resume = tmp_path / "paused", tmp_path / "resume"
    wait = f': >"{paused}"; until [ -e "{resume}" ]; do sleep 0.03; done'
    with stepping(monkeypatch, host, tmp_path) as at_step, ThreadPoolExecutor(1) as pool:
        for step in host.steps:
            paused.unlink(missing_ok=True)
            resume.unlink(missing_ok=True)
            if host.marker is None:
                host.hold("start")
            before = host.marker
            held = host.believing(first)
            slow = pool.submit(attempt_to, at_step(step, wait), "install", f"slow {step}", held, 0)
            while not paused.exists() and not slow.done():
                time.sleep(0.002)
            if slow.done():
                assert slow.result() == "done"
                break
            try:
                fast = attempt_to(host, other, f"fast {step}", held, 0)
                meanwhile = host.marker
            finally:
                resume.touch()
            outcomes = (slow.result(), fast)
            if other != "repair":
                assert sorted(outcomes) == ["concurrent_change", "done"], (step, outcomes)
            after = {"install": f"fast {step}", "repair": before, "remove": None}[other]
            assert meanwhile in ((after,) if fast == "done" else (before, f"slow {step}"))
            assert host.marker == (f"slow {step}" if outcomes[0] == "done" else after)
            assert host.leftovers == []
            assert len(host.generations) == (0 if host.marker is None else 1)
    assert step > 8


def process_start(number: int) -> str:
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.parametrize("holder", ["alive", "number reused", "other boot", "dead", "file", "nonsense"])
@pytest.mark.parametrize("command", ["install", "repair", "remove"])
def test_only_a_run_that_is_there_holds_the_lock(host: Host, holder: str, command: str) -> None:
    host.hold("a")
    held = host.probe()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    lock = host.path / ".lock"
    if holder == "file":
        lock.touch()
    else:
        names = {
            "alive": f"{boot}.{os.getpid()}.{process_start(os.getpid())}",
            "number reused": f"{boot}.{os.getpid()}.1",
            "other boot": f"00000000-{boot[9:]}.{os.getpid()}.{process_start(os.getpid())}",
            "dead": f"{boot}.4194999.1",
            "nonsense": "..",
        }
        lock.symlink_to(names[holder])
    assert attempt_to(host, command, "b", held) == ("concurrent_change" if holder == "alive" else "done")
    assert host.marker == {"install": "b", "repair": "a", "remove": None}[command] if holder != "alive" else "a"
    assert host.leftovers == ([".lock"] if holder == "alive" else [])

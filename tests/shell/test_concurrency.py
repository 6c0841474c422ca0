# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs at once: one of them wins, the other says so and changes nothing."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, protocol
from shell.host import Host, change, refused, snapshot
from shell.steps import stepping

ROUNDS = 20


def attempt_to(host: Host, command: str, marker: str, state: protocol.GatewayState, keep: int = 1) -> str:
    """Run a change and return ``done`` or ``concurrent_change``; no other error may occur."""
    try:
        if command == "install":
            host.install(marker, state, keep=keep)
        elif command == "set_attributes":
            host.set_attributes(state, keep=keep)
        elif command == "write_history":
            host.write_history("{}", state)
        else:
            commands.remove(host.execute, state, change())
    except ProvisioningError as error:
        if error.code != "concurrent_change":
            raise
        return error.code
    return "done"


def test_a_staging_directory_that_a_faster_run_has_cleared(host: Host) -> None:
    host.plant("a")
    state = host.checked()
    late = replace(host)

    def clearing(command: str, stream: bytes, secret: bool) -> tuple[int, str, str]:
        return host.execute(command.replace("tar -xpf -", 'rm -rf "$s"; tar -xpf -'), stream, secret)

    object.__setattr__(late, "execute", clearing)
    with refused("concurrent_change"):
        late.install("b", state)
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
    host.plant("start")
    first = host.look()
    with reading(host) as reader, ThreadPoolExecutor(2) as pool:
        for attempt in range(ROUNDS):
            state = host.believing(first)
            runs = {
                marker: pool.submit(attempt_to, host, "install", marker, state)
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
    host.plant("a")
    for number in range(2, 6):
        generation = host.path / "generations" / f"{number:06d}"
        generation.mkdir()
        (generation / "client.key").write_bytes(b"dead")
    host.set_attributes(keep=keep)
    assert host.marker == "a"
    host.install("b", keep=keep)
    assert host.marker == "b"


@pytest.mark.parametrize("other", ["install", "set_attributes", "remove"])
def test_another_run_in_the_middle(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """One installation is stopped before each of its commands in turn, and another run goes by."""
    host.plant("start")
    first = host.look()
    paused, resume = tmp_path / "paused", tmp_path / "resume"
    wait = f': >"{paused}"; until [ -e "{resume}" ]; do sleep 0.03; done'
    with stepping(monkeypatch, host, tmp_path) as at_step, ThreadPoolExecutor(1) as pool:
        for step in host.steps():
            paused.unlink(missing_ok=True)
            resume.unlink(missing_ok=True)
            if host.marker is None:
                host.plant("start")
            before = host.marker
            state = host.believing(first)
            slow = pool.submit(attempt_to, at_step(step, wait), "install", f"slow {step}", state, 0)
            while not paused.exists() and not slow.done():
                time.sleep(0.002)
            if slow.done():
                assert slow.result() == "done"
                break
            try:
                fast = attempt_to(host, other, f"fast {step}", state, 0)
                meanwhile = host.marker
            finally:
                resume.touch()
            outcomes = (slow.result(), fast)
            if other != "set_attributes":
                assert sorted(outcomes) == ["concurrent_change", "done"], (step, outcomes)
            after = {"install": f"fast {step}", "set_attributes": before, "remove": None}[other]
            assert meanwhile in ((after,) if fast == "done" else (before, f"slow {step}"))
            assert host.marker == (f"slow {step}" if outcomes[0] == "done" else after)
            assert host.leftovers == []
            assert len(host.generations) == (0 if host.marker is None else 1)
    assert step > 8


def process_start(number: int) -> str:
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]


BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().partition("-")[0]
LIVING = f"{BOOT}.{os.getpid()}.{process_start(os.getpid())}.another"
HOLDERS = {
    "alive": LIVING,
    "number reused": f"{BOOT}.{os.getpid()}.1.another",
    "other boot": f"00000000.{os.getpid()}.{process_start(os.getpid())}.another",
    "dead": f"{BOOT}.4194999.1.another",
    "nonsense": "..",
    "a path": "../../x/../1.1",
}


@pytest.mark.parametrize("holder", [*HOLDERS, "file"])
@pytest.mark.parametrize("command", ["install", "set_attributes", "remove"])
def test_only_a_run_that_is_there_holds_the_lock(host: Host, holder: str, command: str) -> None:
    host.plant("a")
    state = host.look()
    lock = host.path / ".lock"
    if holder == "file":
        lock.touch()
    else:
        lock.symlink_to(HOLDERS[holder])
    assert attempt_to(host, command, "b", state) == ("concurrent_change" if holder == "alive" else "done")
    assert host.marker == {"install": "b", "set_attributes": "a", "remove": None}[command] if holder != "alive" else "a"
    assert host.leftovers == ([".lock"] if holder == "alive" else [])


HEIR = f".staging-heir-{HOLDERS['dead']}"
DEAD_HEIR = f"{BOOT}.4194998.1.another"


@pytest.mark.parametrize("command", ["install", "set_attributes", "remove"])
def test_a_lock_that_a_faster_run_has_inherited_is_left_to_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """It has done so after this run has read whose lock it was, and before this run names itself as the heir."""
    host.plant("a")
    state = host.look()
    lock = host.path / ".lock"
    lock.symlink_to(HOLDERS["dead"])
    before = snapshot(host.path / "generations")
    faster = f"""
ln() {{
    case $* in *" .staging-heir-"*) command rm .lock; command ln -sn {LIVING} .lock ;; esac
    command ln "$@"
}}
"""
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", faster + commands.CHANGE_SCRIPT)
    assert attempt_to(host, command, "b", state) == "concurrent_change"
    assert os.readlink(lock) == LIVING
    assert host.leftovers == [".lock"]
    assert host.marker == "a"
    assert snapshot(host.path / "generations") == before


@pytest.mark.parametrize("command", ["install", "set_attributes", "write_history", "remove"])
@pytest.mark.parametrize("heir", ["alive", "dead"])
def test_a_lock_that_is_being_inherited(host: Host, command: str, heir: str) -> None:
    """By a run that has named itself as the heir, and either goes on or has died, too."""
    host.plant("a")
    state = host.look()
    (host.path / ".lock").symlink_to(HOLDERS["dead"])
    (host.path / HEIR).symlink_to(LIVING if heir == "alive" else DEAD_HEIR)
    assert set(host.look().bundle.leftovers) == {HEIR}
    assert attempt_to(host, command, "b", state) == ("concurrent_change" if heir == "alive" else "done")
    written = ["history.json"] if command == "write_history" and heir == "dead" else []
    assert host.leftovers == ([".lock", HEIR] if heir == "alive" else written)


def test_dead_processes_that_inherit_from_each_other(host: Host) -> None:
    """No run makes such links, and none follows them for ever."""
    host.plant("a")
    (host.path / ".lock").symlink_to(HOLDERS["dead"])
    (host.path / HEIR).symlink_to(DEAD_HEIR)
    (host.path / f".staging-heir-{DEAD_HEIR}").symlink_to(HOLDERS["dead"])
    with refused("bad_path"):
        host.set_attributes()


def test_many_runs_find_the_lock_of_a_dead_one(host: Host) -> None:
    """One of them inherits it."""
    host.plant("0")
    first = host.look()
    with ThreadPoolExecutor(4) as pool:
        for count in range(10):
            (host.path / ".lock").symlink_to(HOLDERS["dead"])
            state = host.believing(first)
            runs = [pool.submit(attempt_to, host, "install", f"{count}.{number}", state) for number in range(4)]
            assert sorted(run.result() for run in runs) == [*["concurrent_change"] * 3, "done"]
            assert host.leftovers == []


@pytest.mark.parametrize(
    "moment",
    [
        """
ln() { command ln "$@" && return; case $* in *" .lock") command rm -f .lock ;; esac; return 1; }
mv() { case $* in *" .lock") exit 9 ;; esac; command mv "$@"; }""",
        'readlink() { [ "$1" != .lock ] || command rm -f .lock; command readlink "$@"; }',
        "is_alive() { command rm .lock; return 1; }",
        'ln() { case $* in *" .staging-heir-"*) command rm .lock ;; esac; command ln "$@"; }',
    ],
    ids=["before", "while it is read", "after it was read", "before it is inherited"],
)
def test_a_lock_that_is_released_just_now(host: Host, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    host.plant("a")
    (host.path / ".lock").symlink_to(HOLDERS["dead"] if "heir" in moment else LIVING)
    functions, reply, last = commands.CHANGE_SCRIPT.rpartition("reply ")
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", f"{functions}{moment}\n{reply}{last}")
    host.set_attributes()
    assert host.leftovers == []


@pytest.mark.parametrize("program", ["mv", "ln"])
def test_a_lock_that_cannot_be_taken(host: Host, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """It is no reason to try for ever."""
    host.plant("a")
    state = host.look()
    lock = host.path / ".lock"
    if program == "mv":
        lock.symlink_to(HOLDERS["dead"])
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", f"{program}() {{ return 1; }}\n{commands.CHANGE_SCRIPT}")
    with refused("bad_path" if program == "mv" else "disk_full"):
        host.set_attributes(state)
    assert host.leftovers == [".lock"] * (program == "mv")


@pytest.mark.parametrize("command", ["install", "set_attributes", "remove"])
def test_a_directory_in_the_place_of_the_lock(host: Host, command: str) -> None:
    """A link can be made in it any number of times, so it would not exclude other runs."""
    host.plant("a")
    state = host.look()
    (host.path / ".lock").mkdir()
    with refused("bad_path"):
        attempt_to(host, command, "b", state)
    assert host.marker == "a"


def test_a_lock_needs_no_block_of_its_own(host: Host, tmp_path: Path) -> None:
    """Its name is shorter than what a file system stores in an inode."""
    host.plant("a")
    copy = tmp_path / "lock"
    host.install("b", nonce="0123456789abcdef", reload_command=f"cp -P '{host.path}/.lock' '{copy}'")
    assert re.fullmatch(rf"{BOOT}\.[0-9]+\.[0-9]+\.0123456789abcdef", os.readlink(copy))
    assert len(os.readlink(copy)) < 60

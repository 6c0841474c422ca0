# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that end in the middle: what is in use is always complete, and the next run converges."""

from __future__ import annotations

import contextlib
import random
import stat
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from shell.host import PUBLIC, Host
from shell.steps import stepping

ROUNDS = 50


def assert_private(path: Path) -> None:
    for entry in path.rglob("*"):
        status = entry.lstat()
        if stat.S_ISREG(status.st_mode) and entry.name not in PUBLIC:
            assert status.st_mode & 0o007 == 0, entry
        if entry.name.startswith(".staging-") and stat.S_ISDIR(status.st_mode):
            assert stat.S_IMODE(status.st_mode) == 0o700


def assert_one_of(host: Host, markers: Sequence[str | None]) -> str | None:
    """Return the marker in use, which must be one of these and complete; no secret may be open to others."""
    marker = host.marker
    assert marker in markers
    assert_private(host.path)
    return marker


def test_killed_at_any_time(host: Host) -> None:
    chance = random.Random(host.shell)
    start = time.monotonic()
    host.install("first")
    duration = time.monotonic() - start
    first = host.checked()
    marker: str | None = "first"
    for attempt in range(ROUNDS):
        if attempt == ROUNDS // 2:
            host.remove()
            marker = None
        state = host.believing(first)
        dying = replace(host, killed_after=chance.uniform(0, duration))
        with contextlib.suppress(ProvisioningError):
            dying.install(str(attempt), state)
        marker = assert_one_of(host, [marker, str(attempt)])
        if attempt % 10 == 9:
            marker = f"after {attempt}"
            last = max([*host.generations, "000000"])
            keep = chance.randrange(3)
            number = int(host.install(marker, keep=keep))
            assert number == int(last) + 1
            assert host.marker == marker
            assert host.leftovers == []
            assert len(host.generations) <= keep + 1
            assert host.look().bundle.leftovers == ()


@pytest.mark.parametrize("installed", [False, True], ids=["first", "second"])
def test_killed_before_every_command(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    marker: str | None = None
    if installed:
        host.plant("old")
        marker = "old"
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in host.steps():
            if not installed and host.marker is not None:
                host.remove()
                marker = None
            name = str(step)
            state = host.checked()
            dying = at_step(step, "kill -9 0")
            with contextlib.suppress(ProvisioningError):
                dying.install(name, state, keep=0)
                break
            marker = assert_one_of(host, [marker, name])
        else:
            pytest.fail("the installation never came to its end")
        assert step > 12
    assert host.install("new", keep=0)
    assert host.marker == "new"
    assert len(host.generations) == 1
    assert host.leftovers == []


def test_killed_while_repairing(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.plant("a")
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in host.steps():
            (host.path / "current" / "client.key").chmod(0o600)
            state = host.checked()
            with contextlib.suppress(ProvisioningError):
                at_step(step, "kill -9 0").set_attributes(state)
                break
            assert_one_of(host, ["a"])
        assert 5 < step < 57
    assert host.drift() == []


def test_killed_while_removing(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in host.steps():
            host.plant("a")
            with contextlib.suppress(ProvisioningError):
                at_step(step, "kill -9 0").remove()
                break
            assert_one_of(host, ["a", None])
            host.remove()
            assert not host.path.exists()
        assert 2 < step < 57


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.9])
def test_nobody_reads_the_answer(host: Host, share: float) -> None:
    start = time.monotonic()
    host.install("old")
    duration = time.monotonic() - start
    state = host.checked()
    with contextlib.suppress(ProvisioningError):
        replace(host, deaf_after=duration * share).install("new", state)
    assert_one_of(host, ["old", "new"])
    host.install("next")
    assert host.marker == "next"
    assert host.leftovers == []
    assert len(host.generations) == 2


def test_the_connection_hangs_up(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that has begun its change comes to its end."""
    host.plant("old")
    state = host.checked()
    with stepping(monkeypatch, host, tmp_path) as at_step:
        with contextlib.suppress(ProvisioningError):
            at_step(4, "kill -HUP 0; kill -PIPE 0").install("new", state)
        deadline = time.monotonic() + 5
        while host.marker != "new" and time.monotonic() < deadline:
            time.sleep(0.02)
    assert host.marker == "new"
    for _attempt in range(100):
        with contextlib.suppress(ProvisioningError):
            host.install("next")
            break
        time.sleep(0.02)
    assert host.marker == "next"
    assert host.leftovers == []


def test_survey_between(host: Host) -> None:
    """Leftovers of a dead run do not confuse the next look."""
    host.plant("a")
    state = host.checked()
    with contextlib.suppress(ProvisioningError):
        replace(host, killed_after=0.01).install("b", state)
    (state,) = commands.look_at_generations(host.execute, [str(host.path)])
    assert state.bundle.current in ("000001", "000002")

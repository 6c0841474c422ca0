# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""If a run dies between switch and health check, the next run repeats the health check."""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from shell.consumer import Consumer, failing
from shell.host import Host, outcome, refused
from shell.steps import stepping

BEFORE_THE_SWITCH = 26  # the commands of an installation until then


@pytest.fixture
def consumer(host: Host, tmp_path: Path) -> Consumer:
    return Consumer(host, tmp_path / "consumer")


@pytest.mark.parametrize(
    ("trial", "marker", "code", "after", "calls"),
    [
        ("000001", "good", "done", "good", ["reload 000002", "health 000002"]),
        ("000001", "bad", "health_check_failed", "a", ["reload 000002", "health 000002", "reload 000001"]),
        ("000002", "good", "done", "good", ["reload 000002", "health 000002"]),
        ("000002", "bad", "health_check_failed", "bad", ["reload 000002", "health 000002"]),
        ("none", "bad", "health_check_failed", None, ["reload 000002", "health 000002", "reload"]),
        ("000009", "bad", "health_check_failed", "bad", ["reload 000002", "health 000002"]),
        ("../generations/000001", "bad", "health_check_failed", "bad", ["reload 000002", "health 000002"]),
    ],
)
def test_a_trial_that_was_not_finished(
    host: Host, consumer: Consumer, trial: str, marker: str, code: str, after: str | None, calls: list[str]
) -> None:
    host.plant("a", marker)
    (host.path / ".health-check").symlink_to(trial)
    state = host.checked()
    assert state.bundle.leftovers == (".health-check",)
    with refused(code) if code != "done" else contextlib.nullcontext():
        host.set_attributes(state, health_timeout=1, **consumer.options)
    assert host.marker == after
    assert consumer.calls == calls
    consumer.assert_up_to_date()
    # where there is nothing to return to, every run tries again
    assert host.leftovers == ([".health-check"] if after == "bad" else [])


def test_a_trial_that_nobody_wants_any_more(host: Host) -> None:
    host.plant("a", "bad")
    (host.path / ".health-check").symlink_to("000001")
    host.set_attributes()
    host.assert_in_order("bad", ["000001", "000002"])


def test_an_installation_after_a_trial_that_was_not_finished(host: Host, consumer: Consumer) -> None:
    """It returns to what has worked, not to what was never proved."""
    host.plant("a", "b")
    (host.path / ".health-check").symlink_to("000001")
    failing(host, **consumer.options)
    assert host.marker == "a"
    assert host.leftovers == []
    assert host.set_attributes(**consumer.options) == "000001"
    assert host.generations == ["000001", "000003-failed"]


@pytest.mark.parametrize(
    ("old", "lost", "code", "after"),
    [
        (["a", "b"], ".health-check", "health_check_failed", "b"),
        (["a", "b"], ".health-check generations/000002", "concurrent_change", "bad"),
        (["a", "b"], "generations/000002", "concurrent_change", "bad"),
        ([], ".health-check", "concurrent_change", "bad"),
        ([], "", "health_check_failed", None),
    ],
)
def test_what_to_return_to_is_removed(
    host: Host, consumer: Consumer, old: list[str], lost: str, code: str, after: str | None
) -> None:
    """By another process, during the health check; the gateway must not stay without credentials."""
    if old:
        host.plant(*old)
    options = {**consumer.options, "health_command": f'cd "{host.path}" && rm -rf {lost}; exit 1'}
    with refused(code):
        host.install("bad", health_timeout=1, keep=2, **options)
    assert host.marker == after
    assert "000001" in host.generations or not old
    consumer.assert_up_to_date()


def test_an_installation_after_a_removal_that_was_not_finished(host: Host, consumer: Consumer) -> None:
    """It leaves a link that names a removed generation, whose number is free again."""
    host.plant("a")
    with refused("health_check_failed"):
        host.remove(reload_command="exit 1")
    assert os.readlink(host.path / ".health-check") == "000001"
    failing(host, **consumer.options)
    assert host.marker is None
    assert host.leftovers == []


@pytest.mark.parametrize(
    ("command", "marker", "generation"),
    [
        ("reload_command", "good", "000002"),
        ("reload_command", "bad", "000002"),
        ("health_command", "good", "000002"),
        ("health_command", "bad", "000002"),
        ("reload_command", "bad", "000001"),  # on the way back
    ],
)
def test_killed_during_a_command(host: Host, consumer: Consumer, command: str, marker: str, generation: str) -> None:
    """A run dies with its command, while this generation is current."""
    host.plant("old")
    current, lock = host.path / "current", host.path / ".lock"
    dying = f"""
case $(readlink "{current}") in
    */{generation}) run=$(readlink "{lock}"); run=${{run#*.}}; kill -9 "${{run%%.*}}"; exit 1 ;;
esac
"""
    options = {**consumer.options, command: dying + consumer.options[command]}
    with refused("gateway_unsupported"):
        host.install(marker, health_timeout=1, **options)
    assert os.readlink(current) == f"generations/{generation}"
    code = outcome(partial(host.set_attributes, health_timeout=1, **consumer.options))
    is_settled = marker == "good" or generation == "000001"
    assert code == ("done" if is_settled else "health_check_failed")
    assert host.marker == (marker if marker == "good" else "old")
    assert host.leftovers == []
    consumer.assert_up_to_date()


@pytest.mark.parametrize(("old", "marker"), [("old", "good"), ("old", "bad"), (None, "bad")])
def test_killed_before_every_command(
    host: Host, consumer: Consumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str | None, marker: str
) -> None:
    """From the switch on; what is before it does not differ from an installation without consumers."""
    first = host.checked()
    aside = tmp_path / "aside"
    codes = []
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in host.steps(BEFORE_THE_SWITCH):
            consumer.used.unlink(missing_ok=True)
            if old:
                host.plant(old)
                consumer.used.write_bytes((host.path / "current" / "client.key").read_bytes())
            dying = at_step(step, "kill -9 0")
            action = partial(dying.install, marker, host.believing(first), health_timeout=1, **consumer.options)
            codes.append(outcome(action))
            assert host.marker in (old, marker)
            if len(codes) == 1:
                assert consumer.calls == []
            shutil.copytree(host.path, aside, symlinks=True)
            before = consumer.used.read_bytes() if consumer.used.exists() else None
            if host.marker:
                # where nothing else is in use, what does not work leaves nothing in use
                code = outcome(
                    partial(host.set_attributes, host.believing(first), health_timeout=1, **consumer.options)
                )
                assert code == "done" or (code, marker) == ("health_check_failed", "bad")
                assert_settled(consumer, [old, "good"])
                shutil.rmtree(host.path)
                aside.rename(host.path)
            if before is not None:
                consumer.used.write_bytes(before)
            host.install("newer", host.believing(first), **consumer.options)
            assert_settled(consumer, ["newer"])
            shutil.rmtree(host.path)
            shutil.rmtree(aside, ignore_errors=True)
            if codes[-1] != "gateway_unsupported":
                break
    assert codes[-1] == ("done" if marker == "good" else "health_check_failed")
    assert len(codes) > (3 if host.full else 1)


def assert_settled(consumer: Consumer, markers: list[str | None]) -> None:
    assert consumer.host.marker in markers
    assert not os.path.lexists(consumer.host.path / ".health-check")
    consumer.assert_up_to_date()

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a run is, and what is shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import progress
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.progress import Progress
from wcwidth import wcswidth

PROJECT = Path(__file__).resolve().parents[2]
RENEW = ("id-1", "Renew what is due")
VERIFY = ("id-2", "Verify")


def run(hosts: int, finished: int, seconds_each: float = 0.1, **last: Any) -> Progress:
    """Return the progress after so many hosts have finished, one after the other; ``last`` is about the last one."""
    state = progress.begin(Progress(hosts), RENEW, 0)
    for number in range(1, finished + 1):
        about = last if number == finished else {"reason": "none"}
        state = progress.finish(state, RENEW, number * seconds_each, **about)
    return state


def test_hosts_that_were_lost_are_not_waited_for_by_later_tasks() -> None:
    state = progress.finish(run(4, 2, lost=True), VERIFY, 1)
    assert state.task == VERIFY
    assert state.done == 2
    assert [progress.finish(state, VERIFY, 1).done, run(4, 2, lost=True).done] == [3, 2]


def test_a_further_batch_continues_where_the_last_one_ended() -> None:
    state = progress.finish(progress.finish(run(10, 3), VERIFY, 1), RENEW, 2)
    assert (state.task, state.done) == (RENEW, 4)


def test_more_results_than_hosts_are_no_more_than_all() -> None:
    assert run(3, 5).done == 3


def test_a_state_is_not_changed_by_what_follows() -> None:
    before = run(10, 3)
    progress.finish(before, RENEW, 9, reason="expiring", lost=True)
    assert (before.done, before.reasons, before.lost) == (3, {"none": 2}, {})


@pytest.mark.parametrize(
    ("state", "now", "left"),
    [
        (Progress(10), 100, None),
        (run(100, 9, 1.0), 9, None),  # too few hosts
        (run(100, 40, 0.1), 4, None),  # too short
        (run(100, 60, 0.1), 6, 4),
        (run(100, 60, 0.1), 12, 8),  # nothing has come for six seconds
        (run(1000, 200, 1.0), 200, 800),
        (run(50, 50, 1.0), 50, 0),
    ],
)
def test_the_time_left_is_told_once_it_is_known(state: Progress, now: float, left: float | None) -> None:
    found = progress.seconds_left(state, now)
    assert found == (None if left is None else pytest.approx(left, rel=0.05))


def test_the_rate_is_that_of_the_last_minute() -> None:
    state = run(1000, 100, 0.1)  # ten a second
    for number in range(120):
        state = progress.finish(state, RENEW, 10 + number)  # then one a second
    assert progress.seconds_left(state, 129) == pytest.approx(780, rel=0.05)
    assert len(state.samples) < 70


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations_are_as_exact_as_useful(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


@pytest.mark.parametrize("columns", [1, 5, 12, 20, 40, 41, 60, 80, 120, 200, 500])
@pytest.mark.parametrize("name", ["Renew what is due", "更新する" * 10, "e\u0301te\u0301"])
def test_a_bar_is_never_wider_than_its_terminal(columns: int, name: str) -> None:
    state = progress.finish(run(200, 100), ("id-1", name), 11, lost=True)
    state = progress.finish(state, ("id-3", name), 20)
    assert wcswidth(progress.drawing(state, columns, 20)) < columns


def test_what_matters_most_is_shown_first() -> None:
    state = run(200, 100, lost=True)
    assert progress.drawing(state, 120, 10) == (
        f"{'━' * 20}{'╌' * 20} 100/200 | 1 failed | about 10 s left | none 99 | Renew what is due"
    )
    assert progress.drawing(state, 40, 10) == f"{'━' * 5}{'╌' * 5} 100/200 | 1 failed | none 99"
    assert progress.drawing(state, 30, 10, progress.ASCII_BAR) == "#####----- 100/200 | 1 failed"
    assert progress.drawing(state, 10, 10) == "100/200"
    assert progress.line(state, 10) == "100/200 hosts | 1 failed | about 10 s left | none 99 | Renew what is due"


def test_no_host_at_all() -> None:
    assert progress.drawing(progress.begin(Progress(0), RENEW, 0), 80, 1).endswith("0/0 | Renew what is due")
    assert progress.closing([], {}, 0, 0.2) == ["0 gateways, 0 failed, 0 s"]


def test_the_closing_summary() -> None:
    results: list[dict[str, Any]] = [
        {"action": "none", "reason": "none", "due_at": "2027-03-01T00:00:00Z"},
        {"action": "none", "reason": "none", "due_at": "2027-01-01T00:00:00Z"},
        {"action": "renewed", "reason": "expiring", "due_at": "2027-02-01T00:00:00Z"},
        {"action": "repaired", "reason": "drift"},
        {"candidates": []},
    ]
    lost = {**{f"gw-{number}": "no_plan" for number in range(1, 8)}, "gw\x1b[9": "gateway unreachable"}
    assert progress.closing(results, lost, 13, 250, ["check mode: nothing was changed"]) == [
        "13 gateways, 8 failed, 4 min, check mode: nothing was changed",
        "action    none 2, renewed 1, repaired 1",
        "reason    none 2, drift 1, expiring 1",
        "next due  2027-01-01T00:00:00Z",
        "failed    no_plan 7: gw-1, gw-2, gw-3, gw-4, gw-5 and 2 more",
        f"          {progress.TROUBLESHOOTING}#no_plan",
        "failed    gateway unreachable 1: gw\\x1b[9",
    ]


def test_the_advice_is_where_it_is_said_to_be() -> None:
    repository = yaml.safe_load((PROJECT / "galaxy.yml").read_text())["repository"]
    assert f"{repository}/blob/main/docs/troubleshooting.md" == progress.TROUBLESHOOTING


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\r\nb\nc\x85d\u2028e", "a b c d e"),
        ("\u202eabc\u200b", r"\u202eabc\u200b"),
        ("\x9b2J\udcff", r"\x9b2J\udcff"),
        ("a\rb\tc", r"a b\tc"),
    ],
)
def test_nothing_a_terminal_would_obey(text: str, shown: str) -> None:
    assert progress.printable(text) == shown

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a run over a fleet is, and what to show of it: pure functions, apart from any terminal.

Private to the collection.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ERROR_CODES
from . import report

TROUBLESHOOTING = "https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md"

UNICODE_BAR = ("━", "╌")  # what is done, what is left
ASCII_BAR = ("#", "-")

# A time that is left is told once so much is known; the rate is that of the last minute.
_WINDOW_SECONDS = 60.0
_MIN_SECONDS = 5.0
_MIN_HOSTS = 10

_BAR_COLUMNS = (10, 40)  # at least, at most
_HOSTS_NAMED = 5
_SEPARATOR = " | "


@dataclass(frozen=True)
class Progress:
    """How far a play is.

    :param hosts: how many hosts the play is for, in all its batches.
    :param task: the ID of the task that is shown, and its name.
    :param finished: ID of a task to how many hosts have finished it, in whatever way.
    :param lost: ID of a task to how many hosts ended there: failed or unreachable.
    :param reasons: reason to how many results had it.
    :param samples: moments in seconds of some clock, and how many hosts were done with the task then.
    """

    hosts: int
    task: tuple[str, str] = ("", "")
    finished: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[tuple[float, int], ...] = ()

    @property
    def done(self) -> int:
        """How many hosts the task that is shown no longer waits for; who was lost before never comes to it."""
        task = self.task[0]
        elsewhere = sum(self.lost.values()) - self.lost.get(task, 0)
        return min(self.hosts, self.finished.get(task, 0) + elsewhere)


def begin(progress: Progress, task: tuple[str, str], now: float) -> Progress:
    """A task (ID, name) begins; one that a further batch continues stays where it was."""
    if task[0] == progress.task[0]:
        return progress
    begun = replace(progress, task=task, samples=())
    return replace(begun, samples=((now, begun.done),))


def finish(
    progress: Progress, task: tuple[str, str], now: float, *, reason: str | None = None, lost: bool = False
) -> Progress:
    """One host has finished a task (ID, name).

    :param reason: that of its result, where it has one.
    :param lost: whether it takes part no longer.
    """
    progress = begin(progress, task, now)
    progress = replace(
        progress,
        finished=_more(progress.finished, task[0]),
        lost=_more(progress.lost, task[0]) if lost else progress.lost,
        reasons=_more(progress.reasons, reason) if reason else progress.reasons,
    )
    if progress.samples and now - progress.samples[-1][0] < 1:
        return progress
    recent = tuple(sample for sample in progress.samples if now - sample[0] <= _WINDOW_SECONDS)
    return replace(progress, samples=(*(recent or progress.samples[-1:]), (now, progress.done)))


def _more(counts: Mapping[str, int], key: str) -> Mapping[str, int]:
    return {**counts, key: counts.get(key, 0) + 1}


def seconds_left(progress: Progress, now: float) -> float | None:
    """How long the task still takes if it goes on as in the last minute; ``None`` if that is not known yet."""
    if not progress.samples:
        return None
    began, before = progress.samples[0]
    seconds, hosts = now - began, progress.done - before
    if seconds < _MIN_SECONDS or hosts < _MIN_HOSTS:
        return None
    return (progress.hosts - progress.done) * seconds / hosts


def duration(seconds: float) -> str:
    """A duration in words, as exact as it is useful."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _counts(progress: Progress, now: float) -> list[str]:
    """What is told beside the number of hosts, the most important first."""
    lost = sum(progress.lost.values())
    left = seconds_left(progress, now)
    reasons = sorted(progress.reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    told = [
        f"{lost} failed" if lost else "",
        f"about {duration(left)} left" if left else "",
        ", ".join(f"{printable(reason)} {count}" for reason, count in reasons),
        printable(progress.task[1]),
    ]
    return [text for text in told if text]


def drawing(progress: Progress, columns: int, now: float, glyphs: tuple[str, str] = UNICODE_BAR) -> str:
    """One line for a terminal, never wider than it.

    :param columns: how wide the terminal is; its last column stays free, where some terminals begin another line.
    :param glyphs: what is done and what is left, one character of one column each.
    """
    hosts = f"{progress.done}/{progress.hosts}"
    free = columns - 1 - len(hosts) - 1 - _BAR_COLUMNS[0]
    if free < 0:
        return hosts[: max(0, columns - 1)]
    text = ""
    for part in _counts(progress, now):
        if _columns_of(text + _SEPARATOR + part) <= free:
            text += _SEPARATOR + part
    length = min(_BAR_COLUMNS[1], _BAR_COLUMNS[0] + free - _columns_of(text))
    full = length * progress.done // max(1, progress.hosts)
    return f"{glyphs[0] * full}{glyphs[1] * (length - full)} {hosts}{text}"


def line(progress: Progress, now: float) -> str:
    """The same for where there is no terminal."""
    return _SEPARATOR.join([f"{progress.done}/{progress.hosts} hosts", *_counts(progress, now)])


def closing(
    results: Iterable[Mapping[str, Any]], lost: Mapping[str, str], hosts: int, seconds: float, notes: Sequence[str] = ()
) -> list[str]:
    """The summary of a run, as lines.

    :param results: those that did not fail; only those with an action and a reason are counted.
    :param lost: host to why it failed: an error code, or another word.
    :param hosts: how many there were in the run.
    :param seconds: how long it took.
    :param notes: what else there is to know, such as ``check mode``.
    """
    acted = [result for result in results if "action" in result and "reason" in result]
    actions = Counter(str(result["action"]) for result in acted)
    summary = report.summary(acted)
    about = "".join(f", {note}" for note in notes)
    lines = [f"{hosts} gateways, {len(lost)} failed, {duration(seconds)}{about}"]
    rows = [
        ("action", _listed(actions)),
        ("reason", _listed(Counter({"none": summary["not_due"]}) + Counter(summary["reasons"]))),
        ("next due", str(summary["next_due_at"] or "")),
    ]
    for code, count in sorted(Counter(lost.values()).items(), key=lambda entry: (-entry[1], entry[0])):
        named = sorted(host for host, why in lost.items() if why == code)
        more = f" and {count - _HOSTS_NAMED} more" if count > _HOSTS_NAMED else ""
        rows.append(("failed", f"{code} {count}: {', '.join(named[:_HOSTS_NAMED])}{more}"))
        if code in ERROR_CODES:
            rows.append(("", f"{TROUBLESHOOTING}#{code}"))
    return lines + [f"{name:10}{printable(text)}" for name, text in rows if text]


def _listed(counts: Mapping[str, int]) -> str:
    """Counts, the largest first."""
    return ", ".join(
        f"{name} {count}" for name, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    )


def printable(text: str) -> str:
    """A text that may come from anywhere, on one line and without anything that a terminal would obey."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in " ".join(str(text).splitlines())
    )


def _columns_of(text: str) -> int:
    """How many columns of a terminal a printable text takes: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )

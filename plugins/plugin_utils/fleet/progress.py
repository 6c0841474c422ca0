# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow the progress of a run over a fleet, and describe it in text: pure functions without a terminal.

Private to the collection.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ERROR_CODES
from .summary import summary

TROUBLESHOOTING = "https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md"

UNICODE_BAR = ("━", "╌")  # for finished and for remaining hosts
ASCII_BAR = ("#", "-")

# The remaining time is estimated from the rate of the last minute, if the minute contains at least this much.
_WINDOW_SECONDS = 60.0
_MIN_SECONDS = 5.0
_MIN_HOSTS = 10

_BAR_COLUMNS = (10, 40)  # at least, at most
_HOSTS_NAMED = 5
_SEPARATOR = " | "


@dataclass(frozen=True)
class Progress:
    """The progress of a play.

    :param hosts: the number of hosts in all batches of the play.
    :param task: ID and name of the task that is shown.
    :param finished: task ID to the number of hosts that have finished the task, successfully or not.
    :param lost: task ID to the number of hosts that failed or became unreachable there.
    :param reasons: reason to the number of results that had it.
    :param samples: times in seconds, each with the number of hosts that had finished the task by then.
    """

    hosts: int
    task: tuple[str, str] = ("", "")
    finished: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[tuple[float, int], ...] = ()

    @property
    def done(self) -> int:
        """Return the number of hosts that finished the task that is shown, or were lost in an earlier one."""
        task = self.task[0]
        elsewhere = sum(self.lost.values()) - self.lost.get(task, 0)
        return min(self.hosts, self.finished.get(task, 0) + elsewhere)


def begin(progress: Progress, task: tuple[str, str], now: float) -> Progress:
    """Return the progress after the start of a task (ID, name); another batch continues the same task."""
    if task[0] == progress.task[0]:
        return progress
    begun = replace(progress, task=task, samples=())
    return replace(begun, samples=((now, begun.done),))


def finish(
    progress: Progress, task: tuple[str, str], now: float, *, reason: str | None = None, lost: bool = False
) -> Progress:
    """Return the progress after a host finished a task (ID, name).

    :param reason: the reason in its result, if there is one.
    :param lost: whether the host failed or became unreachable.
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
    """Return an estimate of the remaining time of the task; ``None`` if too little is known yet."""
    if not progress.samples:
        return None
    began, before = progress.samples[0]
    seconds, hosts = now - began, progress.done - before
    if seconds < _MIN_SECONDS or hosts < _MIN_HOSTS:
        return None
    return (progress.hosts - progress.done) * seconds / hosts


def duration(seconds: float) -> str:
    """Return a duration as text with a suitable unit."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _counts(progress: Progress, now: float) -> list[str]:
    """Return the texts to show beside the number of hosts, the most important first."""
    lost = sum(progress.lost.values())
    left = seconds_left(progress, now)
    reasons = sorted(progress.reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    texts = [
        f"{lost} failed" if lost else "",
        f"about {duration(left)} left" if left else "",
        ", ".join(f"{printable(reason)} {count}" for reason, count in reasons),
        printable(progress.task[1]),
    ]
    return [text for text in texts if text]


def drawing(progress: Progress, columns: int, now: float, glyphs: tuple[str, str] = UNICODE_BAR) -> str:
    """Return a progress bar that fits into a terminal.

    :param columns: the width of the terminal. Its last column stays free, because some terminals wrap there.
    :param glyphs: one character for finished and one for remaining hosts, each of one column.
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
    """Return the same information as a line of a log."""
    return _SEPARATOR.join([f"{progress.done}/{progress.hosts} hosts", *_counts(progress, now)])


def closing(
    results: Iterable[Mapping[str, Any]], lost: Mapping[str, str], hosts: int, seconds: float, notes: Sequence[str] = ()
) -> list[str]:
    """Return the summary of a run as lines.

    :param results: the results that did not fail; those without action and reason are not counted.
    :param lost: host to its error code, or another word for the failure.
    :param hosts: the number of hosts in the run.
    :param seconds: the duration of the run.
    :param notes: additional facts, for example ``check mode``.
    """
    acted = [result for result in results if "action" in result and "reason" in result]
    actions = Counter(str(result["action"]) for result in acted)
    counts = summary(acted)
    about = "".join(f", {note}" for note in notes)
    lines = [f"{hosts} gateways, {len(lost)} failed, {duration(seconds)}{about}"]
    rows = [
        ("action", _listed(actions)),
        ("reason", _listed(Counter({"none": counts["not_due"]}) + Counter(counts["reasons"]))),
        ("next due", str(counts["next_due_at"] or "")),
    ]
    for code, count in sorted(Counter(lost.values()).items(), key=lambda entry: (-entry[1], entry[0])):
        named = sorted(host for host, why in lost.items() if why == code)
        more = f" and {count - _HOSTS_NAMED} more" if count > _HOSTS_NAMED else ""
        rows.append(("failed", f"{code} {count}: {', '.join(named[:_HOSTS_NAMED])}{more}"))
        if code in ERROR_CODES:
            rows.append(("", f"{TROUBLESHOOTING}#{code}"))
    return lines + [f"{name:10}{printable(text)}" for name, text in rows if text]


def _listed(counts: Mapping[str, int]) -> str:
    """Return counts as text, the largest first."""
    return ", ".join(
        f"{name} {count}" for name, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    )


def printable(text: str) -> str:
    """Return an untrusted text on one line, with control characters escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in " ".join(str(text).splitlines())
    )


def _columns_of(text: str) -> int:
    """Return the width of a printable text in a terminal: two columns for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )

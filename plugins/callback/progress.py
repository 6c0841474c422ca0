# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show how far a run over a fleet is: a bar at a terminal, a line now and then elsewhere, and one summary."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Show how far a run over a fleet is
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - At a terminal, one line shows for how many hosts of the play the current task has ended, how many failed, the
    remaining time, and the reasons of the results. The plugin updates the line when a host ends.
  - Without a terminal, it prints a line with the same content every O(interval) seconds.
  - It prints each failure at once, with its error code and message. It also prints the messages of
    M(ansible.builtin.debug), warnings, and the differences of C(--diff). It does not print the results of other tasks.
  - A summary at the end shows actions and reasons, failed hosts with links to the documentation, and the next due date.
  - Texts from hosts and from the platform are printed without control characters.
  - With C(-v) and more, the output is that of P(ansible.builtin.default#callback).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
options:
  interval:
    description: The number of seconds between two lines without a terminal. With V(0), no line is printed.
    type: int
    default: 30
    env:
      - name: THINGSTREAM_PROGRESS_INTERVAL
    ini:
      - section: thingstream_progress
        key: interval
requirements:
  - set as stdout callback in configuration
"""

EXAMPLES = r"""
# ANSIBLE_STDOUT_CALLBACK=thingstream.ztp.progress ansible-playbook thingstream.ztp.renew -i inventory.yml
# or in ansible.cfg:
# [defaults]
# stdout_callback = thingstream.ztp.progress
"""

import atexit
import functools
import json
import os
import shutil
import sys
import threading
import time
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback.default import CallbackModule as Default
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import progress
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.progress import printable

# The cursor rests in the first column, and everything from there on is cleared: so nothing stays of a bar that was
# wrapped because the terminal became narrower. While it is drawn, the terminal is kept from wrapping.
_ERASE = "\r\x1b[J"
_DRAW = "\r\x1b[?7l{}\x1b[J\r\x1b[?7h"
_REDRAW_SECONDS = 0.1


class CallbackModule(Default):  # type: ignore[misc]  # Ansible has no types
    """Hand events to ``progress`` and its texts to the terminal."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "thingstream.ztp.progress"

    def __init__(self) -> None:
        super().__init__()
        self._began = self._printed = time.monotonic()
        self._progress = progress.Progress(0)
        self._play_id = ""
        self._results: dict[tuple[str, str], dict[str, Any]] = {}  # host and task to what the summary counts
        self._why_lost: dict[str, str] = {}
        if self._display.verbosity:
            for name in [name for name in vars(CallbackModule) if name.startswith("v2_")]:
                setattr(self, name, getattr(super(), name))
        self._bar = Bar(self._display) if not self._display.verbosity and _is_terminal() else None

    # what a run consists of

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._began = self._printed = time.monotonic()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play  # the class above looks at its strategy
        if play._uuid == self._play_id:
            return  # a further batch of it
        self._play_id = play._uuid
        hosts = play.get_variable_manager().get_vars(play=play)["ansible_play_hosts_all"]
        self._progress = progress.Progress(len(hosts))
        self._say(f"{printable(play.get_name())} ({len(hosts)} hosts)")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if self._bar:
            self._bar.erase()  # what comes may ask a question
        if not task.run_once:
            self._progress = progress.begin(self._progress, _identity(task), time.monotonic())

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Show nothing."""

    # how a task can end on a host

    def v2_runner_on_ok(self, result: Any) -> None:
        host, task, data = result._host.get_name(), result._task, result._result
        if "action" in data and "reason" in data:
            self._results[host, task._uuid] = {name: data.get(name) for name in ("action", "reason", "due_at")}
        self._warn(data)
        if "results" not in data:  # a loop reports each item
            self._tell(result)
        self._finished(task, reason=data.get("reason"))

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._lost(result, str(result._result.get("error_code") or "other error"), ignored=ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._lost(result, "gateway unreachable", ignored=bool(result._task.ignore_unreachable))

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._finished(result._task)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._warn(result._result)
        self._tell(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        label = printable(str(self._get_item_label(result._result)))
        self._say(f"failed: {_where(result)}: {label}: {_message(result._result)}", C.COLOR_ERROR)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        """Show nothing."""

    def v2_runner_retry(self, result: Any) -> None:
        """Show nothing: the result of the last attempt follows."""

    def v2_on_file_diff(self, result: Any) -> None:
        entries = result._result.get("results", [result._result])
        for diff in [entry["diff"] for entry in entries if entry.get("diff") and entry.get("changed")]:
            shown = self._get_diff([_plain(part) for part in (diff if isinstance(diff, list) else [diff])])
            if shown:
                self._say(f"{_where(result)}:\n{shown}")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        totals = {host: stats.summarize(host) for host in stats.processed}
        lost = {
            host: self._why_lost.get(host, "other error")
            for host, total in totals.items()
            if total["failures"] or total["unreachable"]
        }
        notes = ["check mode: nothing was changed"] if context.CLIARGS["check"] else []
        for name in ("ignored", "rescued"):
            count = sum(total[name] for total in totals.values())
            notes += [f"{count} errors {name}"] if count else []
        if self._bar:
            self._bar.remove()
        results = [result for (host, _task), result in self._results.items() if host not in lost]
        for text in progress.closing(results, lost, len(totals), time.monotonic() - self._began, notes):
            self._say(text)

    def _finished(self, task: Any, *, reason: str | None = None, lost: bool = False) -> None:
        if task.run_once:
            return
        now = time.monotonic()
        self._progress = progress.finish(self._progress, _identity(task), now, reason=reason, lost=lost)
        if self._bar:
            self._bar.show(self._progress)
            return
        interval = self.get_option("interval")
        if interval and now - self._printed >= interval:
            self._printed = now
            self._say(progress.line(self._progress, now))

    def _lost(self, result: Any, why: str, *, ignored: bool) -> None:
        data = result._result
        self._warn(data)
        known = f" {data['error_code']}:" if "error_code" in data else ""
        kind = "ignored" if ignored else "unreachable" if data.get("unreachable") else "failed"
        color = C.COLOR_WARN if ignored else C.COLOR_ERROR
        host = result._host.get_name()
        lost = not ignored and host not in self._why_lost
        if not ignored:
            self._why_lost[host] = why
        self._say(f"{kind}: {_where(result)}:{printable(known)} {_message(data)}", color)
        self._finished(result._task, lost=lost)

    def _tell(self, result: Any) -> None:
        """Show the message of a ``debug`` task; show nothing of other tasks."""
        if result._task.action in C._ACTION_DEBUG:
            self._say(f"{_where(result)}: {_message(result._result, result._task.args.get('var'))}")

    def _warn(self, data: dict[str, Any]) -> None:
        for warning in data.get("warnings") or ():
            self._display.warning(printable(warning))

    def _say(self, text: str, color: str | None = None) -> None:
        self._display.display(text, color=color)


class Bar:
    """The last line of a terminal. What Ansible prints meanwhile, warnings of worker processes too, goes above it."""

    def __init__(self, display: Any) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._drawn_at = 0.0
        self._shown: progress.Progress | None = None
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        self._glyphs = progress.UNICODE_BAR if unicode else progress.ASCII_BAR
        self._put_output_above(display)
        atexit.register(self.remove)

    def show(self, state: progress.Progress) -> None:
        """Draw a state, unless the last one was drawn a moment ago and hosts remain."""
        with self._lock:
            self._shown = state
            if time.monotonic() - self._drawn_at >= _REDRAW_SECONDS or state.done == state.hosts:
                self._draw()

    def erase(self) -> None:
        """Clear the line until the next ``show``."""
        self.remove()
        self._drawn_at = 0.0

    def remove(self) -> None:
        """Clear the line."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if self._shown:
                self._shown = None
                self._write(_ERASE)

    def _draw(self) -> None:
        if self._shown:
            self._drawn_at = time.monotonic()
            text = progress.drawing(self._shown, shutil.get_terminal_size().columns, self._drawn_at, self._glyphs)
            self._write(_DRAW.format(text))

    def _write(self, text: str) -> None:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()

    def _put_output_above(self, display: Any) -> None:
        show = display.display

        @functools.wraps(show)
        def above(*arguments: Any, **options: Any) -> None:
            if (
                os.getpid() != self._process
            ):  # a worker: it sends this to us, and the lock may be held forever in its copy
                show(*arguments, **options)
                return
            with self._lock:
                if self._shown:
                    self._write(_ERASE)
                show(*arguments, **options)
                self._draw()

        display.display = above


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _identity(task: Any) -> tuple[str, str]:
    return task._uuid, task.name or task.action


def _where(result: Any) -> str:
    """Return the host of a result; for a task of another collection, also the name of the task."""
    host, task = printable(result._host.get_name()), result._task
    own = str(task.resolved_action).startswith("thingstream.ztp.")
    return host if own else f"{host}: {printable(task.name or task.action)}"


def _message(data: dict[str, Any], variable: str | None = None) -> str:
    """Return the message of a result, or the value of a variable in it, and nothing else."""
    value = data.get(variable) if variable else data.get("msg", data.get("censored", "no message; -v shows more"))
    return printable(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))


def _plain(value: Any) -> Any:
    """Return a part of a difference with printable lines."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return "".join(f"{printable(line)}\n" for line in value.splitlines()) if isinstance(value, str) else value

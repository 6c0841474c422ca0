# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make something happen just before or after the n-th command of a run: every moment can be tried, in order."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from shell.host import Host

COMMANDS = "cat chmod chown flock id ln ls mkdir mv readlink rm rmdir sha256sum sync tail".split()  # noqa: SIM905

AtStep = Callable[[int, str], Host]


@contextlib.contextmanager
def stepping(monkeypatch: pytest.MonkeyPatch, host: Host, tmp_path: Path, *, after: bool = False) -> Iterator[AtStep]:
    """Yield a function that returns the host on which an action runs at a step.

    :param after: whether the action runs just after the command of that step, and not before it.

    Every command of the script becomes a shell function that counts and calls the program, so that it works with
    programs that are built into the shell, too.
    """
    counts = tmp_path / "steps"
    counts.mkdir()
    if host.user is None:
        counts.chmod(0o700)
    numbers = itertools.count()
    prelude = """
step() {
    [ -n "${STEP:-}" ] || return 0
    read -r steps <"$STEPS"
    steps=$((steps + 1))
    echo "$steps" >"$STEPS"
    [ "$steps" -ne "$STEP" ] || eval "$STEP_ACTION"
}
"""
    call = 'command {0} "$@"; set -- $?; step; return "$1"' if after else 'step; command {0} "$@"'
    prelude += "".join(f"{name}() {{ {call.format(name)}; }}\n" for name in COMMANDS)

    def at_step(step: int, action: str) -> Host:
        count = counts / str(next(numbers))
        count.write_text("0\n")
        return replace(host, environment={"STEP": str(step), "STEPS": str(count), "STEP_ACTION": action})

    with monkeypatch.context() as patch:
        patch.setattr(commands, "CHANGE_SCRIPT", prelude + commands.CHANGE_SCRIPT)
        yield at_step

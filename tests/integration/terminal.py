# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program at a real pseudo-terminal, and the screen that its user sees."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import pyte

ROWS = 50


@dataclass
class Terminal:
    """The screen of a running program.

    ``transcript`` is every byte that it wrote, ``frames`` every change of the last line of the screen.
    """

    program: pexpect.spawn
    screen: pyte.HistoryScreen
    transcript: bytes = b""
    frames: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stream = pyte.ByteStream(self.screen)

    def resize(self, columns: int) -> None:
        """Change the width of the window, and notify the program."""
        self.program.setwinsize(ROWS, columns)
        self.screen.resize(columns=columns)

    def wait(self, until: Callable[[], bool] = lambda: False, seconds: float = 120) -> None:
        """Follow the screen until a condition holds, or the program has ended."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, self.lines
            try:
                written = self.program.read_nonblocking(512, timeout=1)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                break
            self.transcript += written
            # by cursor movements, so that what is drawn over at once is a frame, too
            for part in re.split(rb"(?=\r)", written):
                self._stream.feed(part)
                last = next(filter(None, map(self._row, range(self.screen.cursor.y, -1, -1))), "")
                if last and last not in self.frames[-1:]:
                    self.frames.append(last)

    def _row(self, number: int) -> str:
        # not `display`, which renders all rows: the program would be done before its first frames are looked at
        row = self.screen.buffer[number]
        return "".join(row[column].data for column in range(self.screen.columns)).rstrip()

    def status(self) -> int | None:
        """Return the exit status, once the program has ended."""
        self.program.close()
        status: int | None = self.program.exitstatus
        return status

    @property
    def lines(self) -> list[str]:
        """The text on the screen and above it, without empty lines."""
        width = self.screen.columns
        above = ["".join(row[column].data for column in range(width)) for row in self.screen.history.top]
        return [line.rstrip() for line in [*above, *self.screen.display] if line.strip()]


@contextmanager
def at_terminal(
    command: Sequence[str], work: Path, environment: Mapping[str, str], *, columns: int
) -> Iterator[Terminal]:
    """Run a program with a terminal of its own until the block ends."""
    own = {**environment, "TERM": "xterm"}
    program = pexpect.spawn(command[0], list(command[1:]), cwd=work, env=own, dimensions=(ROWS, columns), echo=False)
    try:
        yield Terminal(program, pyte.HistoryScreen(columns, ROWS, history=2000))
    finally:
        program.close(force=True)

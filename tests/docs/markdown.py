# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Markdown files of the repository, and their parser."""

from __future__ import annotations

import subprocess
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

PROJECT = Path(__file__).resolve().parents[2]
FILES = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=PROJECT, capture_output=True, text=True, check=True,
).stdout.split()  # fmt: skip


def parse(file: Path) -> list[Token]:
    """Return the block tokens of a file."""
    return MarkdownIt().enable("table").parse(file.read_text())

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of mistakes names error codes that exist, and a test for each row."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs/mistakes.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| mistake ")]


def test_every_error_code_exists() -> None:
    named = re.findall(r"\[`(\w+)`\]\(troubleshooting\.md#(\w+)\)", PAGE)
    assert len(named) > 20
    assert [code for code, anchor in named if code not in ERROR_CODES or anchor != code] == []


def test_every_row_names_a_test() -> None:
    assert len(ROWS) > 30
    proof = re.compile(r" <!-- `tests/\S+\.py::\w+`(, `tests/\S+\.py::\w+`)* --> \|$")
    unproven = [row for row in ROWS if not proof.search(row)]
    assert unproven == []
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE))
    assert [f"{file}::{name}" for file, name in named if f"def {name}(" not in (PROJECT / file).read_text()] == []

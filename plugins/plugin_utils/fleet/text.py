# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bound and clean what gateways and errors say, so that every form of a report can show it.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_TEXT = 256  # characters
MAX_NAMES = 20
MAX_IN_SENTENCE = 10  # names


def clean(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose values are bounded texts, bounded lists of texts, booleans or ``None``."""
    return {name: _clean(value) for name, value in values.items()}


def _clean(value: object) -> object:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, list):
        return names(value)
    return value if isinstance(value, bool) else None


def names(values: Sequence[Any]) -> list[str]:
    """Return the texts of a list, at most ``MAX_NAMES`` of them."""
    texts = [text for value in values if (text := one_line(value))]
    return texts if len(texts) <= MAX_NAMES else [*texts[:MAX_NAMES], f"({len(texts) - MAX_NAMES} more)"]


def one_line(value: object) -> str | None:
    """Return a text as one line of printable characters; ``None`` for any other value."""
    if not isinstance(value, str):
        return None
    # Most values are clean already. The space is the only printable white space.
    if len(value) <= MAX_TEXT and value.isprintable() and "  " not in value and value == value.strip():
        return str.__str__(value)
    line = value[: 4 * MAX_TEXT]
    if not line.isprintable():  # a look at every character takes a hundred times as long, and is rarely necessary
        line = "".join(character if character.isprintable() else " " for character in line)
    line = " ".join(line.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"


def first_of(hosts: Sequence[str]) -> str:
    """Return the first names of a list for a sentence."""
    return ", ".join(hosts[:MAX_IN_SENTENCE]) + (", …" if len(hosts) > MAX_IN_SENTENCE else "")

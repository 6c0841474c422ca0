# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of gateways as reports show them."""

from __future__ import annotations

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.text import MAX_NAMES, MAX_TEXT, names, one_line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("gateway-1", "gateway-1"),
        ("Grüße 你好", "Grüße 你好"),
        ("  one   two ", "one two"),
        ("one\r\ntwo\tthree", "one two three"),
        ("\x1b[31mred\u2028\u202eline\x00", "[31mred line"),
        ("no\u00a0break", "no break"),
        ("", ""),
        (None, None),
        (5, None),
        (["text"], None),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
        ("x" * (MAX_TEXT + 1), "x" * (MAX_TEXT - 1) + "…"),
        ("\n" + "x" * 100_000, "x" * (MAX_TEXT - 1) + "…"),
    ],
)
def test_a_text_is_one_printable_line(value: object, shown: str | None) -> None:
    assert one_line(value) == shown


def test_lists_are_bounded() -> None:
    many = [f"name-{number}" for number in range(MAX_NAMES + 5)]
    assert names(many[:MAX_NAMES]) == many[:MAX_NAMES]
    assert names(many) == [*many[:MAX_NAMES], "(5 more)"]
    assert names(["one", None, "", 5, "\n", "two"]) == ["one", "two"]

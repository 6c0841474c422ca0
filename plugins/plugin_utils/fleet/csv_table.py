# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write tables as CSV.

Private to the collection.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Signs at the beginning of a formula, their full-width and small forms, where nothing or a character that may separate
# cells is in front of them. The signs come first in the expression, so that a text without any is passed quickly.
_SIGNS = r"[=+\-@\u2212\uff1d\uff0b\uff0d\uff20\ufe62\ufe63\ufe66\ufe6b]"
_FORMULA = re.compile(rf"{_SIGNS}(?<![^\s,;|:/\\'\"]{_SIGNS})")


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a table with a header in the format of RFC 4180.

    Lists become words separated by blanks. What a spreadsheet would evaluate as a formula gets an apostrophe in front,
    also within a text, where a spreadsheet may be set to another separator.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(_without_formulas([_text(row.get(name)) for name in columns]) for row in rows)
    return text.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return " ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _without_formulas(cells: Sequence[str]) -> Sequence[str]:
    if not _FORMULA.search("\n".join(cells)):  # one search for the line, because hardly any has a formula
        return cells
    return [_FORMULA.sub(r"'\g<0>", cell) for cell in cells]

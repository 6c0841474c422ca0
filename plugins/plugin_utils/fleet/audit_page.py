# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the report of an audit as one HTML page that loads nothing else.

The page is ``audit_page.html``. It contains the report as data, which its script shows as text and never as markup. Its
content security policy allows only that script and no network access.

Private to the collection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from .audit import Report
from .gateway_rows import COLUMNS

_SOURCE = Path(__file__).with_name("audit_page.html").read_text(encoding="utf-8")


def _hash_of(element: str) -> str:
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", _SOURCE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)
_BEFORE, _marker, _AFTER = _SOURCE.replace("{policy}", POLICY).partition("{report}")


def render(report: Report) -> str:
    """Return the page. Rows are lists in the order of ``columns``, which take half the space of objects."""
    values = report.to_dict()
    rows = [list(row.values()) for row in values["gateways"]]
    data = json.dumps({**values, "gateways": {"columns": COLUMNS, "rows": rows}}, separators=(",", ":"))
    # Within a script element only "<" can end the element or begin a comment. The data is ASCII, so it contains no
    # Unicode line separators.
    return _BEFORE + data.replace("<", "\\u003c") + _AFTER

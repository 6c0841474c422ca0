# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of an audit -> one HTML page that needs nothing but itself.

The page is ``audit_page.html``. The report is in it as data, which its script shows as text and never as markup; its
policy (CSP) lets nothing run but that script, and nothing be fetched.

Private to the collection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import audit

_SOURCE = Path(__file__).with_name("audit_page.html").read_text(encoding="utf-8")


def _hash_of(element: str) -> str:
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", _SOURCE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)
_BEFORE, _marker, _AFTER = _SOURCE.replace("{policy}", POLICY).partition("{report}")


def render(report: Mapping[str, Any]) -> str:
    """The page. Rows are lists in the order of ``columns``, which takes half the space of objects."""
    columns = [*audit.COLUMNS]
    rows = [[row[name] for name in columns] for row in report["gateways"]]
    data = json.dumps({**report, "gateways": {"columns": columns, "rows": rows}}, separators=(",", ":"))
    # Within a script element nothing but "<" can end it or begin a comment; ASCII leaves out the line separators.
    return _BEFORE + data.replace("<", "\\u003c") + _AFTER

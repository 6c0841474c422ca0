# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace a well-formed token in requests by that of a profile, so that they get as far as a Thing."""

from __future__ import annotations

import os
import re
from typing import Any

import schemathesis

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Replace tokens by service; the tests of the coverage phase keep theirs, which no profile has."""
    service = context.operation.path.split("/")[2]
    known = os.environ.get(f"TOKEN_{service.replace('-', '_')}")
    token = body.get("token") if isinstance(body, dict) else None
    if known and isinstance(token, str) and UUID.fullmatch(token):
        return {**body, "token": known}
    return body

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options for the files that are made from a response.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..bundle import formats
from .templates import TEMPLATE_OPTIONS

CONTENT_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "formats": {"type": "list", "elements": "str", "choices": sorted(formats.FORMATS)},
    "templates": {"type": "list", "elements": "dict", "default": [], "options": TEMPLATE_OPTIONS},
    "field_map": {"type": "dict", "default": {}},
    "broker_ca_path": {"type": "path"},
}

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Topics as people write them: a list, or one text.

Private to the collection.
"""

from __future__ import annotations

import re
from typing import Any

from .user_files import refuse

# A comma between topics: those of u-blox begin with a slash, so that a comma within a topic is kept.
_COMMA = re.compile(r",\s*(?=/)")


def topics_of(name: str, value: Any) -> list[str]:
    """Return the topics in a list or a text; nulls and empty texts are left out.

    Topics joined by ``;`` stay together, because the platform itself sends them so.

    :param name: what messages call it.
    :raises ProvisioningError: ``bad_option`` if an entry is no text.
    """
    entries = value if isinstance(value, list) else [value]
    found = []
    for entry in entries:
        if entry is None:
            continue
        if not isinstance(entry, str):
            raise refuse(name, "has an entry that is not text")
        found += [topic.strip() for topic in _COMMA.split(entry.strip())]
    return [topic for topic in found if topic]

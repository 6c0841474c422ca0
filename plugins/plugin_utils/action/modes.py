# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options for modes, and how they are parsed.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ProvisioningError

MODE_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "directory_mode": {"type": "raw", "default": "0750"},
    "secret_mode": {"type": "raw", "default": "0640"},
}


def mode(name: str, value: Any) -> int:
    """Return a mode as a number.

    :param value: a text of octal digits, or the number that YAML makes of unquoted octal digits.
    :raises ProvisioningError: ``bad_option``, also for a mode that lets others write, or read secrets.
    """
    try:
        number = value if isinstance(value, int) and not isinstance(value, bool) else int(str(value), 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o777 or number & 0o002:
        raise ProvisioningError(
            "bad_option", f"{name} must be an octal mode that others cannot write, for example {name}: '0640'."
        )
    if name == "secret_mode" and number & 0o007:
        raise ProvisioningError("bad_option", f"{name} must not let others read secrets: end it with 0.")
    return number

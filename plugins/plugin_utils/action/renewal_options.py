# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say when credentials are renewed because of their age or their end.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..job.renewal import RenewalPolicy

RENEWAL_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "renew_before": {"type": "str", "default": "30"},
    "renew_spread": {"type": "float", "default": 7},
    "keys_renew_before": {"type": "float", "default": 14},
    "max_age": {"type": "float"},
}


def renewal_of(arguments: Mapping[str, Any]) -> RenewalPolicy:
    """Return the renewal settings that validated arguments describe.

    :raises ProvisioningError: ``bad_option``.
    """
    return RenewalPolicy.parse(
        arguments["renew_before"], arguments["renew_spread"], arguments["keys_renew_before"], arguments["max_age"]
    )

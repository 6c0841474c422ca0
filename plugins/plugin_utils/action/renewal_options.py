# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say when credentials are renewed because of their age or their end.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..job import policy

RENEWAL_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "renew_before": {"type": "str", "default": "30"},
    "renew_spread": {"type": "float", "default": 7},
    "keys_renew_before": {"type": "float", "default": 14},
    "max_age": {"type": "float"},
}


def renewal_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Validated arguments to the fields of ``policy.Wanted`` that they stand for.

    :raises ProvisioningError: ``bad_option``.
    """
    renewal = {
        "renew_before": arguments["renew_before"],
        "renew_spread_days": arguments["renew_spread"],
        "keys_renew_before_days": arguments["keys_renew_before"],
        "max_age_days": arguments["max_age"],
    }
    policy.check_wanted(policy.Wanted(service="", **renewal))
    return renewal

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options for the place of a bundle, its owner, its modes, and the hooks that run after a change.

Private to the collection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..bundle import formats
from ..errors import ProvisioningError
from ..gateway.commands import Hooks
from ..job.desired import Target
from ..platform.services import SERVICES, Service
from .modes import MODE_ARGUMENTS, mode

LOCATION_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "service": {"type": "str", "required": True, "choices": sorted(SERVICES)},
    "path": {"type": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
}
TARGET_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    **LOCATION_ARGUMENTS,
    **MODE_ARGUMENTS,
    "keep": {"type": "int", "default": 2},
    "reload_command": {"type": "str"},
    "health_command": {"type": "str"},
    "health_timeout": {"type": "float", "default": 30},
}
MAX_HEALTH_TIMEOUT = 3600  # seconds
_DEFAULTS = {name: option.get("default") for name, option in TARGET_ARGUMENTS.items()}


def target_of(arguments: Mapping[str, Any], service: Service, broker_ca: str = "") -> Target:
    """Return the target that validated arguments describe.

    :param arguments: an option that a module does not have counts as not set.
    :param broker_ca: what becomes ``ca.crt`` where files are rendered.
    :raises ProvisioningError: ``bad_option``.
    """
    arguments = {**_DEFAULTS, **arguments}
    if arguments["keep"] < 0:
        raise ProvisioningError("bad_option", "keep must not be below 0.")
    if not 1 <= arguments["health_timeout"] <= MAX_HEALTH_TIMEOUT:
        raise ProvisioningError("bad_option", f"health_timeout must be from 1 to {MAX_HEALTH_TIMEOUT} seconds.")
    return Target(
        layout=formats.Layout(
            path=arguments["path"] or f"/etc/thingstream/{service.name}",
            secret_mode=mode("secret_mode", arguments["secret_mode"]),
            broker_ca=broker_ca,
        ),
        directory_mode=mode("directory_mode", arguments["directory_mode"]),
        owner=arguments["owner"] or None,
        group=arguments["group"] or None,
        keep=arguments["keep"],
        hooks=Hooks(
            reload_command=arguments["reload_command"] or None,
            health_command=arguments["health_command"] or None,
            health_timeout=math.ceil(arguments["health_timeout"]),
        ),
    )

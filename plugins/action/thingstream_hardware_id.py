# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the hardware ID of a host; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import hardware_id


class ActionModule(ZtpActionBase):
    """The Ansible face of ``hardware_id``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "sources": {"type": "list", "elements": "str", "required": True, "choices": list(hardware_id.SOURCES)},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result for validated arguments."""
        found = hardware_id.discover(self.execute, arguments["sources"])
        chosen = hardware_id.choose(found)
        return {
            "changed": False,
            "hardware_id": chosen.value,
            "source": chosen.source,
            "candidates": [candidate.describe() for candidate in found],
        }

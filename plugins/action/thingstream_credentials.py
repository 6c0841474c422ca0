# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Handles the credentials that a host holds already; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils import retirement, rollback
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action_base import ZtpActionBase, result_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.target_options import TARGET_ARGUMENTS, target_of


class ActionModule(ZtpActionBase):
    """The Ansible face of ``rollback`` and ``retirement``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "service": {"type": "str", "required": True, "choices": sorted(SERVICES)},
        "state": {"type": "str", "required": True, "choices": ["rolled_back", "retired"]},
        "generation": {"type": "str"},
        "force": {"type": "bool", "default": False},
        "things": {"type": "list", "elements": "dict", "default": []},
        **TARGET_ARGUMENTS,
        "variables_prefix": {"type": "str"},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Validated arguments in, result out."""
        target = target_of(arguments, SERVICES[arguments["service"]])
        check_mode = bool(self._task.check_mode)
        if arguments["state"] == "retired":
            if not all(isinstance(thing.get("service"), str) for thing in arguments["things"]):
                raise ProvisioningError("bad_option", "things are entries of the list retired of a record.")
            outcome = retirement.ensure_retired(target, self.world(), arguments["things"], check_mode=check_mode)
        else:
            generation, force = arguments["generation"] or None, arguments["force"]
            outcome = rollback.ensure_rolled_back(target, self.world(), generation, force=force, check_mode=check_mode)
        result = result_of(outcome, target, with_diff=bool(self._task.diff))
        del result["due_at"]  # depends on options of thingstream_ztp
        return result

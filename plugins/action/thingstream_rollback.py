# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Return a host to an earlier generation; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import (
    VARIABLES_ARGUMENTS,
    ZtpActionBase,
    result_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.target_options import TARGET_ARGUMENTS, target_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import rollback
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES


class ActionModule(ZtpActionBase):
    """The Ansible face of ``rollback``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        **TARGET_ARGUMENTS,
        "generation": {"type": "str"},
        "force": {"type": "bool", "default": False},
        **VARIABLES_ARGUMENTS,
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result for validated arguments."""
        target = target_of(arguments, SERVICES[arguments["service"]])
        outcome = rollback.ensure_rolled_back(
            target,
            self.runtime(),
            arguments["generation"] or None,
            force=arguments["force"],
            check_mode=bool(self._task.check_mode),
        )
        return result_of(outcome, target, with_diff=bool(self._task.diff), without=["due_at"])

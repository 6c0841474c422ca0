# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report the credentials of a host; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.modes import MODE_ARGUMENTS, mode
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.renewal_options import (
    RENEWAL_ARGUMENTS,
    renewal_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import inspection
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, responses


class ActionModule(ZtpActionBase):
    """The action of ``thingstream_ztp_info``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "paths": {"type": "list", "elements": "str", "default": [f"/etc/thingstream/{name}" for name in SERVICES]},
        "owner": {"type": "str"},
        "group": {"type": "str"},
        **MODE_ARGUMENTS,
        **RENEWAL_ARGUMENTS,
        "spool": {"type": "bool", "default": False},
        "spool_path": {"type": "path", "default": directory.default_directory(C.ANSIBLE_HOME)},
        "variables_prefix": {"type": "str"},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result for validated arguments."""
        owner, group = arguments["owner"] or None, arguments["group"] or None
        paths = arguments["paths"]
        found = commands.look_at_generations(self.execute, paths, owner, group) if paths else []
        modes = {name: mode(name, arguments[name]) for name in MODE_ARGUMENTS}
        renewal = renewal_of(arguments)
        now = datetime.now(timezone.utc)
        bundles = [inspection.describe(one, now, renewal=renewal, **modes) for one in found]
        result: dict[str, Any] = {"changed": False, "bundles": bundles}
        if arguments["spool"]:
            entries = responses.survey(arguments["spool_path"], self.decrypter())
            result["spool"] = [entry.to_dict() for entry in entries]
        return result

    def _from_variables(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that come from variables; the one ``path`` of the other modules becomes ``paths``."""
        values = self._variables([*self.ARGUMENTS, "path"], task_vars)
        path = values.pop("path", None)
        return {**values, "paths": [path]} if path else values

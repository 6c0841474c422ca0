# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what a host holds; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils import escrow, gateway, inspection
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action_base import ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.modes import MODE_ARGUMENTS, mode
from ansible_collections.thingstream.ztp.plugins.plugin_utils.services import SERVICES


class ActionModule(ZtpActionBase):
    """The Ansible face of ``inspection``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "paths": {"type": "list", "elements": "str", "default": [f"/etc/thingstream/{name}" for name in SERVICES]},
        **MODE_ARGUMENTS,
        "escrow": {"type": "bool", "default": False},
        "escrow_path": {"type": "path", "default": escrow.default_directory(C.ANSIBLE_HOME)},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Validated arguments in, result out."""
        held = gateway.survey(self.execute, arguments["paths"]) if arguments["paths"] else []
        modes = {name: mode(name, arguments[name]) for name in MODE_ARGUMENTS}
        now = datetime.now(timezone.utc)
        result = {"changed": False, "bundles": [inspection.describe(one, now, **modes) for one in held]}
        if arguments["escrow"]:
            result["escrow"] = escrow.survey(arguments["escrow_path"], self.decrypter())
        return result

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify the installed credentials of a host; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import broker_ca
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.target_options import TARGET_ARGUMENTS, target_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.verify_options import VERIFY_ARGUMENTS, verifier
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.observe import (
    installed_credentials,
    look,
    read_recorded,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.outcome import thing_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES

_TARGET_DEFAULTS = {name: option.get("default") for name, option in TARGET_ARGUMENTS.items()}


class ActionModule(ZtpActionBase):
    """The action of ``thingstream_verify``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "service": {"type": "str", "required": True, "choices": sorted(SERVICES)},
        "path": {"type": "str"},
        "field_map": {"type": "dict", "default": {}},
        "broker_ca_path": {"type": "path"},
        **VERIFY_ARGUMENTS,
        "variables_prefix": {"type": "str"},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Read the installed credentials and log in with them; in check mode only look at the host."""
        credentials.check_field_map(arguments["field_map"])
        service = SERVICES[arguments["service"]]
        target = target_of({**_TARGET_DEFAULTS, "path": arguments["path"]}, service)
        verify = verifier(arguments, broker_ca.read(arguments["broker_ca_path"]), in_use=True)
        runtime = self.runtime(verify)
        observed = look(target, runtime)
        if observed.record is None:
            raise ProvisioningError(
                "no_generation", f"There are no credentials at {target.path}: provision them first."
            )
        thing = thing_of(observed.record, observed.history)
        result = {"changed": False, "path": target.path, "thing": thing, "verifications": []}
        if self._task.check_mode:
            deliveries = " and ".join(observed.record.delivery).upper() or "MQTT"
            result["msg"] = (
                f"Would log in by {deliveries} with the credentials in use. A broker then disconnects the consumer "
                "with the same client ID, and a caster may refuse the login while the consumer is connected."
            )
        else:
            response = read_recorded(observed, runtime)
            installed = installed_credentials(observed, service, arguments["field_map"], response, runtime)
            result["verifications"] = [asdict(verification) for verification in verify(installed)]
        return result

    def _from_variables(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options from variables; those of the verification come from one variable with a mapping."""
        values = super()._from_variables(task_vars)
        prefix = self._task.args.get("variables_prefix") or ""
        verify = self._templar.template(task_vars.get(f"{prefix}verify")) if prefix else None
        own = {name: value for name, value in values.items() if name not in VERIFY_ARGUMENTS}
        return {**own, **{name: value for name, value in (verify or {}).items() if name in VERIFY_ARGUMENTS}}

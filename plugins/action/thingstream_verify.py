# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves that the installed credentials of a host work; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import broker_ca
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.target_options import TARGET_ARGUMENTS, target_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.verify_options import VERIFY_ARGUMENTS, prover
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import provision
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES

_TARGET_DEFAULTS = {name: option.get("default") for name, option in TARGET_ARGUMENTS.items()}


class ActionModule(ZtpActionBase):
    """The Ansible face of ``verification``."""

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
        """Validated arguments in, result out."""
        credentials.check_field_map(arguments["field_map"])
        service = SERVICES[arguments["service"]]
        target = target_of({**_TARGET_DEFAULTS, "path": arguments["path"]}, service)
        prove = prover(arguments, broker_ca.read(arguments["broker_ca_path"]))
        runtime = self.runtime(prove)
        held = provision.look(target, runtime)
        if held.record is None:
            raise ProvisioningError("no_generation", f"There are no credentials at {held.path}: provision them first.")
        result = {"changed": False, "path": held.path, "thing": held.record, "proofs": []}
        if not self._task.check_mode:  # using credentials interrupts who else uses them
            installed = provision.read_installed(service, arguments["field_map"], runtime, held)
            result["proofs"] = [asdict(proof) for proof in prove(installed)]
        return result

    def _from_variables(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """How to verify is one variable, the same that ``thingstream_ztp`` takes."""
        values = super()._from_variables(task_vars)
        prefix = self._task.args.get("variables_prefix") or ""
        verify = self._templar.template(task_vars.get(f"{prefix}verify")) if prefix else None
        own = {name: value for name, value in values.items() if name not in VERIFY_ARGUMENTS}
        return {**own, **{name: value for name, value in (verify or {}).items() if name in VERIFY_ARGUMENTS}}

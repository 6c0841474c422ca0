# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mark Things as deactivated; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import (
    VARIABLES_ARGUMENTS,
    ZtpActionBase,
    result_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.target_options import (
    LOCATION_ARGUMENTS,
    target_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import parse_things
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import parse_thing_id
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import retirement
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.ledger import LedgerEntry


class ActionModule(ZtpActionBase):
    """The action of ``thingstream_retire``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        **LOCATION_ARGUMENTS,
        "things": {"type": "list", "elements": "dict", "required": True},
        "ledger_only": {"type": "bool", "default": False},
        "spool_path": {"type": "path", "default": directory.default_directory(C.ANSIBLE_HOME)},
        **VARIABLES_ARGUMENTS,
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result for validated arguments."""
        target = target_of(arguments, SERVICES[arguments["service"]])
        things = arguments["things"]
        if not all(isinstance(thing.get("service"), str) for thing in things):
            raise ProvisioningError(
                "bad_option", "things: each entry needs at least service; use entries of a retirement list."
            )
        check_mode, runtime = bool(self._task.check_mode), self.runtime()
        result: dict[str, Any] = {"changed": False, "action": "none", "reason": "none", "path": target.path}
        if not arguments["ledger_only"]:
            outcome = retirement.ensure_retired(target, runtime, parse_things(things), check_mode=check_mode)
            result = result_of(outcome, target, with_diff=bool(self._task.diff), without=["due_at", "files"])
        host = str(task_vars.get("inventory_hostname", ""))
        known = [_ledger_entry(thing, host, target.path) for thing in things]
        if retirement.retire_in_ledger(arguments["spool_path"], known, runtime, check_mode=check_mode):
            result.update(changed=True, action="retired", reason="retired")
        return result


def _ledger_entry(thing: Mapping[str, Any], host: str, path: str) -> LedgerEntry:
    """Return the Thing of a retirement list as the ledger names it."""
    return LedgerEntry(
        service=thing["service"],
        thing_id=parse_thing_id(thing.get("client_id"), thing.get("login_sha256")),
        hardware_id=thing.get("hardware_id"),
        given_name=thing.get("given_name"),
        host=thing.get("host") or host,
        path=thing.get("path") or path,
        response="",
        received_at=datetime.now(timezone.utc),
    )

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the report of an audit; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import audit, audit_files
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool


class ActionModule(ZtpActionBase):
    """The Ansible face of ``audit``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "looks": {"type": "str", "required": True},
        "directory": {"type": "path", "required": True},
        "metrics_directory": {"type": "path"},
        "spool_path": {"type": "path", "default": spool.default_directory(C.ANSIBLE_HOME)},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Validated arguments in, result out."""
        hosts, hostvars = task_vars["ansible_play_hosts_all"], task_vars["hostvars"]
        # raw: what a gateway said is never taken for a template
        looks = {host: hostvars.raw_get(host).get(arguments["looks"]) for host in hosts}
        waiting, unanswered, problem = self._spool(arguments["spool_path"])
        report = audit.fleet_report(looks, waiting, unanswered, datetime.now(timezone.utc), problem)
        directories = arguments["directory"], arguments["metrics_directory"] or arguments["directory"]
        if self._task.check_mode:
            files = [str(path) for path in audit_files.places(*directories).values()]
        else:
            files = audit_files.write(report, *directories)
        result = {"changed": True, "files": files, "totals": report["totals"], "complete": report["complete"]}
        return result if report["complete"] else {**result, **_incomplete(report)}

    def _spool(self, directory: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str | None]:
        try:
            return spool.survey(directory, self.decrypter()), spool.survey_unanswered(directory), None
        except ProvisioningError as error:
            return [], [], error.message


def _incomplete(report: Mapping[str, Any]) -> dict[str, Any]:
    unseen = [row["host"] for row in report["gateways"] if row["state"] in audit.UNSEEN]
    first = ", ".join(unseen[:10]) + (", …" if len(unseen) > 10 else "")
    parts = [f"{len(unseen)} of {report['totals']['gateways']} gateways could not be seen ({first})."] if unseen else []
    parts += [report["spool_error"]] if report["spool_error"] else []
    message = " ".join([*parts, "The report is written and says why."])
    return {"failed": True, "error_code": "audit_incomplete", "msg": message}

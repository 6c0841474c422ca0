# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report on a fleet; documented in the module of the same name."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from os.path import realpath
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.validation import check_type_path
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import VARIABLES_ARGUMENTS, ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.inventory import host_values, raw_values
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import audit_files
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.audit import Report, SpoolSurvey, fleet_report
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.gateway_rows import UNSEEN
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.ledger import Inventory
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.text import first_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.naming import hardware_id_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, ledger, requests, responses


class ActionModule(ZtpActionBase):
    """The action of ``thingstream_audit``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "results_from": {"type": "str", "required": True},
        "verifications_from": {"type": "str"},
        "directory": {"type": "path"},
        "metrics_directory": {"type": "path"},
        "spool_path": {"type": "path", "default": directory.default_directory(C.ANSIBLE_HOME)},
        **VARIABLES_ARGUMENTS,
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Build the report, and write its files where there is a directory; in check mode only build it."""
        # This process ends with the task. Until then, garbage collection would search the variables of the whole fleet.
        gc.disable()
        fleet = _read(task_vars, arguments)
        inventory = Inventory(frozenset(task_vars["groups"]["all"]), fleet.hardware_ids)
        spool = self._survey({realpath(path) for path in (arguments["spool_path"], *fleet.spool_paths)})
        report = fleet_report(fleet.results, spool, datetime.now(timezone.utc), inventory, fleet.verifications)
        files = self._write(report, arguments["directory"], arguments["metrics_directory"])
        result = {
            "changed": bool(files),
            "files": files,
            "totals": asdict(report.totals),
            "complete": report.complete,
            "retired": [entry.to_dict() for entry in report.retired],
            "conflicts": [conflict.to_dict() for conflict in report.conflicts],
        }
        return result if report.complete else {**result, **_incomplete(report)}

    def _survey(self, spool_paths: Iterable[str]) -> SpoolSurvey:
        """Return the contents of the spools; gateways may have different spools."""
        waiting, abandoned, received, errors = [], [], [], []
        for spool_path in sorted(spool_paths):
            try:
                waiting += responses.survey(spool_path, self.decrypter())
                abandoned += requests.survey(spool_path)
                received += ledger.survey(spool_path)
            except ProvisioningError as error:
                errors.append(error.message)
        return SpoolSurvey(
            responses=[entry.to_dict() for entry in waiting],
            abandoned_requests=[marker.to_dict() for marker in abandoned],
            ledger=received,
            error=" ".join(errors) or None,
        )

    def _write(self, report: Report, place: str | None, metrics_place: str | None) -> list[str]:
        """Return the paths of the files, written unless in check mode."""
        if place is None:
            return []
        if self._task.check_mode:
            return [str(path) for path in audit_files.paths(place, metrics_place or place).values()]
        return audit_files.write(report, place, metrics_place or place)


@dataclass(frozen=True)
class _Fleet:
    """Results, verifications and hardware IDs by host, and the paths of all spools."""

    results: Mapping[str, Any]
    verifications: Mapping[str, Any]
    hardware_ids: Mapping[str, str]
    spool_paths: Iterable[str]


def _read(task_vars: Mapping[str, Any], arguments: Mapping[str, Any]) -> _Fleet:
    """Read the variables of the hosts of the play, once for each host."""
    hostvars, prefix = task_vars["hostvars"], arguments["variables_prefix"]
    results, verifications, hardware_ids, spool_paths = {}, {}, {}, set()
    for host in task_vars["ansible_play_hosts_all"]:
        # raw, because a gateway can put template expressions into its result
        raw = raw_values(hostvars, host)
        results[host] = raw.get(arguments["results_from"])
        if arguments["verifications_from"]:
            verifications[host] = raw.get(arguments["verifications_from"])
        if not prefix:
            continue
        names = [f"{prefix}hardware_id", f"{prefix}spool_path"]
        try:
            hardware_id, spool_path = host_values(hostvars, host, names, raw)
            found = hardware_id_of(hardware_id, host)
        except (AnsibleError, ProvisioningError):
            continue  # without a usable one, nothing can be compared
        if found is not None:
            hardware_ids[host] = found
        if isinstance(spool_path, str) and spool_path:
            spool_paths.add(check_type_path(spool_path))
    return _Fleet(results, verifications, hardware_ids, spool_paths)


def _incomplete(report: Report) -> dict[str, Any]:
    unseen = [row.host for row in report.gateways if row.state in UNSEEN]
    parts = (
        [f"{len(unseen)} of {report.totals.gateways} gateways were not seen ({first_of(unseen)})."] if unseen else []
    )
    parts += [report.spool.error] if report.spool.error else []
    message = " ".join([*parts, "The report contains the reasons."])
    return {"failed": True, "error_code": "audit_incomplete", "msg": message}

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish the summary of a run; documented in the module of the same name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.inventory import registered
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.summary import summary

NAME = "thingstream_summary"


class ActionModule(ZtpActionBase):
    """The action of ``thingstream_summary``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "results_from": {"type": "str", "required": True},
        "waiting": {"type": "bool", "default": False},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the summary, and the statistics that Ansible publishes."""
        waiting = set(task_vars["ansible_play_batch"]) if arguments["waiting"] else set()
        seen = [host for host in task_vars["ansible_play_hosts_all"] if host not in waiting]
        results = (registered(task_vars["hostvars"], host, arguments["results_from"]) for host in seen)
        found = summary([result for result in results if result] + [{}] * len(waiting))
        return {
            "changed": False,
            "summary": found,
            "ansible_stats": {"data": published(found, task_vars), "per_host": False, "aggregate": False},
        }


def published(found: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics of a run by name.

    AWX keeps them as artifacts of the job, and passes those of all earlier nodes of a workflow to the next one as one
    dictionary. Therefore each job also publishes under a name with its ID, and empties the summaries of the jobs
    before it: the next node would otherwise count each gateway once for each node.
    """
    received: dict[str, Any] = {name: {} for name in variables if re.fullmatch(f"{NAME}_[0-9]+", name)}
    job = variables.get("awx_job_id")
    return {**received, NAME: found, **({f"{NAME}_{job}": found} if job is not None else {})}

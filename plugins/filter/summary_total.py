# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Add up summaries of parts of a fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import summary

DOCUMENTATION = r"""
name: summary_total
short_description: Add up summaries of parts of a fleet
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Adds up the summaries that P(thingstream.ztp.summary#filter) returned for parts of a fleet, such as the slices of a
    job in AWX.
options:
  _input:
    description: Summaries, one for each part. An empty one adds nothing.
    type: list
    elements: dict
    required: true
seealso:
  - plugin: thingstream.ztp.summary
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the sum of all slices, in the node of a workflow that follows a sliced job
  ansible.builtin.debug:
    msg: "{{ query('ansible.builtin.varnames', '^thingstream_summary_[0-9]+$') | map('extract', vars)
      | thingstream.ztp.summary_total }}"
"""

RETURN = r"""
_value:
  description: A summary of the whole; its C(next_due_at) is the earliest one.
  type: dict
"""


class FilterModule:
    """The interface between Ansible and the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"summary_total": summary.total}

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sum up the results of ``thingstream_ztp`` over a fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import summary

DOCUMENTATION = r"""
name: summary
short_description: Sum up the results of thingstream_ztp over a fleet
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Counts the hosts that were due, renewed, not due and failed, and returns the date when the next one is due.
options:
  _input:
    description: Results of M(thingstream.ztp.thingstream_ztp), one for each host; an empty one counts as failed.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Sum up
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts_all | map('extract', hostvars, 'thingstream_gateway_result')
      | thingstream.ztp.summary }}"
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - C(hosts), C(due), C(renewed), C(unchanged), C(repaired), C(not_due), C(failed), C(reasons) and C(next_due_at).
  type: dict
"""


class FilterModule:
    """The interface between Ansible and the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"summary": summary.summary}

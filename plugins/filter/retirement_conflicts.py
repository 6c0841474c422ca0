# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the Things on a retirement list that another gateway uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import retirement

DOCUMENTATION = r"""
name: retirement_conflicts
short_description: Find the Things on a retirement list that another gateway uses
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - A retirement list is a claim of its host. A compromised host can list Things of other hosts.
  - Returns the entries whose Things are in use. These must not be deactivated;
    P(thingstream.ztp.retirement_list#filter) omits them.
  - Only the Things of hosts in the input are known to be in use.
options:
  _input:
    description: A dictionary of host names and their C(bundles), or V(null) for a host without a result.
    type: dict
    required: true
seealso:
  - plugin: thingstream.ztp.retirement_list
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show entries of retirement lists whose Things are in use
  ansible.builtin.debug:
    msg: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars)
      | map(attribute='thingstream_info.bundles', default=none))) | thingstream.ztp.retirement_conflicts }}"
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - Entries as of P(thingstream.ztp.retirement_list#filter), with C(used_by), the hosts that use the Thing.
  type: list
  elements: dict
"""


class FilterModule:
    """The interface between Ansible and the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"retirement_conflicts": retirement.retirement_conflicts}

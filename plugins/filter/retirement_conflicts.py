# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the Things on a retirement list that another gateway uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import report

DOCUMENTATION = r"""
name: retirement_conflicts
short_description: Find the Things on a retirement list that another gateway uses
version_added: 0.1.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - A retirement list is what its host says. One that somebody has taken over can name the Things of other hosts.
    This finds what is on the list of one host while another one uses it. It must not be deactivated, and
    P(thingstream.ztp.retirement_list#filter) leaves it out.
  - Only the hosts in the input count. What a host uses that is not in it, or could not be asked, is not known.
options:
  _input:
    description: Host to its C(bundles), or to V(null) if it could not be asked.
    type: dict
    required: true
seealso:
  - plugin: thingstream.ztp.retirement_list
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show whose list names what others use
  ansible.builtin.debug:
    msg: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars)
      | map(attribute='thingstream_info.bundles', default=none))) | thingstream.ztp.retirement_conflicts }}"
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - A list of C(client_id), C(hardware_id), C(service), C(given_name), C(since), C(host), C(path) and C(used_by), the
      hosts that use the Thing.
  type: list
  elements: dict
"""


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"retirement_conflicts": report.retirement_conflicts}

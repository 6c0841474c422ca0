# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathers the Things of a fleet that must still be deactivated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import report

DOCUMENTATION = r"""
name: retirement_list
short_description: Gather the Things of a fleet that must still be deactivated
version_added: 0.1.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Turns what M(thingstream.ztp.thingstream_ztp_info) found on each host into one list, the longest retired first.
  - What another host in the input uses is left out; P(thingstream.ztp.retirement_conflicts#filter) finds it.
options:
  _input:
    description: Host to its C(bundles), or to V(null) if it could not be asked.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what must be deactivated
  ansible.builtin.debug:
    msg: "{{ {inventory_hostname: thingstream_info.bundles} | thingstream.ztp.retirement_list }}"
"""

RETURN = r"""
_value:
  description:
    - A list of C(client_id), C(hardware_id), C(service), C(given_name), C(since), C(host) and C(path).
  type: list
  elements: dict
"""


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"retirement_list": report.retirement_list}

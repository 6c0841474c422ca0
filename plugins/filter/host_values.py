# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads one variable of many hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.inventory import raw_values

DOCUMENTATION = r"""
name: host_values
short_description: Read one variable of many hosts
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Does what the filter P(ansible.builtin.extract#filter) does with a list of hosts, in half the time, which counts
    for thousands of hosts. Template expressions in a value are not rendered.
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of hosts.
    type: list
    elements: str
    required: true
  name:
    description: The name of the variable, for example of a registered result.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Sum up
  ansible.builtin.debug:
    msg: "{{ hostvars | thingstream.ztp.host_values(ansible_play_hosts_all, 'thingstream_gateway_result')
      | thingstream.ztp.summary }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The value of each host, an empty dictionary where a host does not have the variable.
  type: list
"""


def host_values(hostvars: Mapping[str, Any], hosts: Iterable[str], name: str) -> list[Any]:
    """Return the raw value of a variable for each host, an empty dictionary where there is none."""
    return [raw_values(hostvars, host).get(name, {}) for host in hosts]


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"host_values": host_values}

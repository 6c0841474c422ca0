# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the hardware IDs that several hosts have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import hardware_id

DOCUMENTATION = r"""
name: duplicate_hardware_ids
short_description: Find the hardware IDs that several hosts have
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Two hosts with one hardware ID would share one Thing, or take it from each other. Find them before a request is
    sent.
options:
  _input:
    description:
      - A dictionary of host names and hardware IDs. V(null) and empty strings are ignored, and numbers are compared as
        strings.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse hardware IDs that several hosts have
  ansible.builtin.assert:
    that: duplicates | length == 0
    fail_msg: "{{ duplicates }}"
  vars:
    duplicates: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all
      | map('extract', hostvars) | map(attribute='thingstream_gateway_hardware_id', default=none)))
      | thingstream.ztp.duplicate_hardware_ids }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: Hardware ID to the sorted list of its hosts; only those that several hosts have.
  type: dict
"""


class FilterModule:
    """The interface between Ansible and the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"duplicate_hardware_ids": hardware_id.duplicates}

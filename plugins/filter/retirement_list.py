# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gather the Things of a fleet that must be deactivated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import retirement

DOCUMENTATION = r"""
name: retirement_list
short_description: Gather the Things of a fleet that must be deactivated
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Combines the retirement lists in the results of M(thingstream.ztp.thingstream_ztp_info), the longest retired Thing
    first. It does not contain the Things that only the ledger of the controller knows;
    RV(thingstream.ztp.thingstream_audit#module:retired) does.
  - Things that another host in the input uses are omitted; P(thingstream.ztp.retirement_conflicts#filter) returns them.
options:
  _input:
    description: A dictionary of host names and their C(bundles), or V(null) for a host without a result.
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
    - A list of C(client_id), C(hardware_id), C(service), C(given_name), C(since), C(host), C(path), C(login_sha256) and
      C(from_ledger), which is V(false).
  type: list
  elements: dict
"""


class FilterModule:
    """The interface between Ansible and the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"retirement_list": retirement.retirement_list}

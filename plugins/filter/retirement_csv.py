# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a retirement list as CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.csv_table import to_csv
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.retirement import RETIRED_COLUMNS

DOCUMENTATION = r"""
name: retirement_csv
short_description: Write a retirement list as CSV
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Writes the list that P(thingstream.ztp.retirement_list#filter) returns as a table with a header, as RFC 4180
    describes it. An apostrophe precedes each text that a spreadsheet would take for a formula.
options:
  _input:
    description: The list.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Write the list beside the inventory
  ansible.builtin.copy:
    content: "{{ {inventory_hostname: thingstream_info.bundles} | thingstream.ztp.retirement_list
      | thingstream.ztp.retirement_csv }}"
    dest: "{{ inventory_dir }}/retired.csv"
    mode: "0640"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The table.
  type: str
"""


def retirement_csv(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a line for each entry of a retirement list."""
    return to_csv(entries, RETIRED_COLUMNS)


class FilterModule:
    """The interface between Ansible and the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"retirement_csv": retirement_csv}

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an inventory of hardware IDs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import inventory_file

DOCUMENTATION = r"""
name: hardware_id_inventory
short_description: Make an inventory of hardware IDs
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Quotes each hardware ID so that Ansible reads back exactly the same text. Without quotes, IDs such as V(012345),
    V(1e5), V(NO), V(12:30:45) or V(A#1) become numbers, booleans or shorter texts, in YAML and in INI.
positional: format
options:
  _input:
    description: A dictionary of host names and hardware IDs. Numbers count as texts.
    type: dict
    required: true
  format:
    description: The format of the inventory.
    type: str
    choices: [yaml, ini]
    default: yaml
seealso:
  - module: thingstream.ztp.thingstream_hardware_id
"""

EXAMPLES = r"""
- name: Write down the hardware IDs
  ansible.builtin.copy:
    content: "{{ {'gateway-1': '012345'} | thingstream.ztp.hardware_id_inventory('ini') }}"
    dest: hardware-ids.ini
    mode: "0640"
"""

RETURN = r"""
_value:
  description: The text of the inventory.
  type: str
"""


def hardware_id_inventory(ids: Any, format: str = "yaml") -> str:  # the name of the option
    """Return the inventory as text.

    :raises AnsibleFilterError: if the input is no dictionary, or the format unknown.
    """
    if not isinstance(ids, Mapping):
        raise AnsibleFilterError("hardware_id_inventory needs a dictionary of host to hardware ID.")
    try:
        return inventory_file.inventory(ids, format)
    except ValueError as error:
        raise AnsibleFilterError(f"hardware_id_inventory: {error}.") from None


class FilterModule:
    """The interface between Ansible and the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"hardware_id_inventory": hardware_id_inventory}

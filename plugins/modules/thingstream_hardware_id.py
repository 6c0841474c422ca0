#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_hardware_id
short_description: Find the hardware ID of a host
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Reads identifiers of the hardware of a host, and returns the first plausible one in the order of O(sources). The
    module changes nothing and sends no request to the platform. It runs one remote command.
  - Values that cannot identify one device are refused - an IMEI with a wrong check digit, a serial number that the
    manufacturer did not set, a MAC address that was set by software or that many devices have.
  - A host can claim any ID, and hardware can be exchanged. Store the ID in the inventory, as the playbook
    C(thingstream.ztp.identify) does, instead of reading it in every run.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.info
attributes:
  delegation:
    description: Works on the host it is delegated to.
    support: full
  platform:
    description: Supported systems.
    platforms: posix
    support: full
    details:
      - Any Linux with a POSIX shell, also BusyBox. The host needs no Python.
options:
  sources:
    description:
      - The sources to query, in the order of preference.
      - V(modem_imei) is the IMEI that ModemManager knows, by its program C(mmcli). If there are several modems, the
        lowest plausible one. ModemManager 1.10 or newer is needed; each query may take 10 seconds.
      - V(dmi_serial) is the serial number of the product, or else of its main board, that the firmware of a PC names.
        Only V(root) can read it.
      - V(device_tree_serial) is the serial number in the device tree, such as that of a Raspberry Pi.
      - V(mac) is the permanent MAC address of a physical interface, in lower case with colons. Built-in interfaces come
        before USB adapters, Ethernet before WLAN; of several, the lowest address counts.
      - V(machine_id) is derived from C(/etc/machine-id), which identifies the installation and not the hardware, and
        is the same on clones of a disk image. systemd defines it as confidential, so it is neither
        returned nor sent to the platform. The hardware ID is what
        C(systemd-id128 machine-id --app-specific=d94a513cd0614bf6ae734addcdfe32cc) prints on the host.
    type: list
    elements: str
    required: true
    choices: [modem_imei, dmi_serial, device_tree_serial, mac, machine_id]
seealso:
  - module: thingstream.ztp.thingstream_ztp
  - plugin: thingstream.ztp.duplicate_hardware_ids
    plugin_type: filter
  - plugin: thingstream.ztp.hardware_id_inventory
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Look for the IMEI of the modem, or else for the serial number of the board
  thingstream.ztp.thingstream_hardware_id:
    sources: [modem_imei, device_tree_serial]
  become: true
  register: hardware

- name: Show the finding of each source
  ansible.builtin.debug:
    var: hardware.candidates
"""

RETURN = r"""
hardware_id:
  description:
    - The first plausible value, 1 to 128 printable ASCII characters without braces.
  returned: success
  type: str
  sample: "356938035643809"
source:
  description: The source of the hardware ID.
  returned: success
  type: str
  sample: modem_imei
candidates:
  description: The finding of each source, in the order of O(sources), with at least one entry for each.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: The source.
      type: str
    value:
      description: The value of the source; V(null) if it has none, or if the value is confidential.
      type: str
    refused:
      description: Why the value is refused. Present only if it is.
      type: str
  sample:
    - source: modem_imei
      value: null
      refused: there is no ModemManager (mmcli)
    - source: device_tree_serial
      value: 10000000a1b2c3d4
error_code:
  description:
    - A stable code for the problem. Each code has a section on the page
      L(troubleshooting, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md).
    - Without any plausible value it is V(hardware_id_required), and the message lists the finding of each source.
  returned: failure
  type: str
  sample: hardware_id_required
"""

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
  - Asks a host for what identifies its hardware and returns the first value that is plausible, in an order that you
    choose. It changes nothing and sends no request; one remote command reads the host.
  - Nothing is used that cannot be the ID of one device - an IMEI whose check digit is wrong, a serial number that the
    manufacturer never filled in, a MAC address that was set by software or that many devices have.
  - A host can claim whatever it likes, and hardware is exchanged. Write down what was found, as the playbook
    C(thingstream.ztp.identify) does, instead of asking again in every run.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.info
attributes:
  delegation:
    description: Works on the host it is delegated to.
    support: full
  platform:
    description: Systems that can be asked.
    platforms: posix
    support: full
    details:
      - Any Linux with a POSIX shell, BusyBox included. No Python is needed there.
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
        is the same on clones of a disk image. It is confidential by the rules of systemd, so that it is neither
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

- name: Show what each source said
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
  description: Where it comes from.
  returned: success
  type: str
  sample: modem_imei
candidates:
  description: What each source said, in the order of O(sources), at least one entry for each.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: The source.
      type: str
    value:
      description: The hardware ID that it would be; V(null) if the source said nothing, or nothing that may be shown.
      type: str
    refused:
      description: Why it is no hardware ID; only if it is none.
      type: str
  sample:
    - source: modem_imei
      value: null
      refused: there is no ModemManager (mmcli)
    - source: device_tree_serial
      value: 10000000a1b2c3d4
error_code:
  description:
    - A stable name of the problem. Each has a section on the page
      L(troubleshooting, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md).
    - Without any plausible value it is V(hardware_id_required), and the message lists the finding of each source.
  returned: failure
  type: str
  sample: hardware_id_required
"""

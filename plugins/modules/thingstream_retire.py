#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_retire
short_description: Mark Things that a host no longer uses as deactivated
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Marks Things as deactivated, which removes them from the retirement list of the host and from the reports of the
    ledger, the list of all Things that this controller has received.
  - The module does not deactivate the Things. The Zero Touch Provisioning API cannot do that; deactivate them in the
    portal first.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.changes
  - thingstream.ztp.location
  - thingstream.ztp.variables
options:
  things:
    description:
      - Entries of the list RV(thing.retired). An entry that is not on the list of the host is ignored. The Thing in use
        is never on that list.
      - In the ledger, an entry is looked up for its C(host) and C(path), or else for this host and O(path).
    type: list
    elements: dict
    required: true
  ledger_only:
    description:
      - Mark the Things in the ledger only, and do not connect to the host. This is for a host that no longer exists, or
        that is no longer in the inventory.
    type: bool
    default: false
  spool_path:
    description:
      - The directory on the controller that holds the ledger, see M(thingstream.ztp.thingstream_ztp).
      - If not set, C(thingstream/spool) in the home directory of Ansible, which is C(~/.ansible).
    type: path
seealso:
  - module: thingstream.ztp.thingstream_ztp
  - module: thingstream.ztp.thingstream_ztp_info
"""

EXAMPLES = r"""
- name: Mark a Thing as deactivated, after its deactivation in the portal
  thingstream.ztp.thingstream_retire:
    service: cloudlocate
    things:
      - service: cloudlocate
        client_id: device:3e1b4b0e-8d4f-4c0c-9f0b-2f3f0c9d1a57
  become: true

- name: Mark a Thing of a host that was removed, after its deactivation in the portal
  thingstream.ztp.thingstream_retire:
    service: cloudlocate
    ledger_only: true
    things:
      - service: cloudlocate
        client_id: device:3e1b4b0e-8d4f-4c0c-9f0b-2f3f0c9d1a57
        hardware_id: "356938035643809"
        host: gateway-1
        path: /etc/thingstream/cloudlocate
  delegate_to: localhost
"""

RETURN = r"""
action:
  description: What was done, V(retired) or V(none); in check mode, what would be done.
  returned: success
  type: str
  sample: retired
reason:
  description: The same as RV(action).
  returned: success
  type: str
  sample: retired
msg:
  description: A sentence that says why.
  returned: success, unless O(ledger_only=true)
  type: str
path:
  description: The directory that holds the bundle.
  returned: success
  type: str
  sample: /etc/thingstream/pointperfect
generation:
  description: The name of the generation in use, or V(null).
  returned: success
  type: str
  sample: "000002"
thing:
  description:
    - The record of the generation in use, or V(null).
    - See RV(thingstream.ztp.thingstream_ztp#module:thing).
  returned: success
  type: dict
  contains:
    retired:
      description: The Things that the host used before and that are not marked as deactivated.
      type: list
      elements: dict
error_code:
  description:
    - A stable code for the problem. Each code has a section on the page
      L(troubleshooting, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md).
  returned: failure
  type: str
  sample: concurrent_change
"""

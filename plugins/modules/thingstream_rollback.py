#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_rollback
short_description: Return a host to an earlier generation of its Thingstream credentials
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Switches a host to a generation of its credentials that is still on its disk. The module sends no request to the
    platform.
  - The generation that was in use stays on the host until new credentials are installed, so that a second rollback, to
    its name, is possible. Its Thing goes on the retirement list.
  - O(reload_command) and O(health_command) run as after an installation. If the health check fails, the host reverts.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.changes
  - thingstream.ztp.location
  - thingstream.ztp.target
  - thingstream.ztp.variables
options:
  generation:
    description:
      - The name of the generation, for example V(000003).
      - If not set, the generation before the newest one. A host that uses an earlier generation already is not changed.
    type: str
  force:
    description:
      - Return to the generation even if its certificate has expired, or if its Thing is marked as deactivated.
    type: bool
    default: false
seealso:
  - module: thingstream.ztp.thingstream_ztp
  - module: thingstream.ztp.thingstream_ztp_info
"""

EXAMPLES = r"""
- name: Return to the previous credentials
  thingstream.ztp.thingstream_rollback:
    service: pointperfect
    reload_command: systemctl restart mosquitto
  become: true

- name: Return to a named generation
  thingstream.ztp.thingstream_rollback:
    service: pointperfect
    generation: "000003"
  become: true
"""

RETURN = r"""
action:
  description:
    - What was done; in check mode, what would be done.
    - V(rolled_back), V(repaired) (the generation was in use already, and an earlier run had not finished its work), or
      V(none).
  returned: success
  type: str
  sample: rolled_back
reason:
  description: V(rolled_back), V(drift) where RV(action) is V(repaired), or V(none).
  returned: success
  type: str
  sample: rolled_back
msg:
  description: A sentence that says why, with the values that were compared. On failure, the error and what to do.
  returned: always
  type: str
  sample: The certificate ends 2026-12-01, renewal 30 days before.
path:
  description: The directory that holds the bundle.
  returned: success
  type: str
  sample: /etc/thingstream/pointperfect
generation:
  description: The name of the generation in use, or V(null).
  returned: success
  type: str
  sample: "000001"
thing:
  description:
    - The record of that generation.
    - See RV(thingstream.ztp.thingstream_ztp#module:thing).
  returned: success
  type: dict
  contains:
    retired:
      description: The Things that the host used before and that are not marked as deactivated.
      type: list
      elements: dict
files:
  description: The files of the bundle, as they must be on the host.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Where consumers find the file.
      type: str
    mode:
      description: Its mode in octal digits.
      type: str
    owner:
      description: Its owner.
      type: str
    group:
      description: Its group.
      type: str
error_code:
  description:
    - A stable code for the problem. Each code has a section on the page
      L(troubleshooting, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md).
  returned: failure
  type: str
  sample: no_generation
"""

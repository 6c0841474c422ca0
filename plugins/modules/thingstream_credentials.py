#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_credentials
short_description: Handle the Thingstream credentials that a host holds already
version_added: 0.1.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Returns a host to an earlier generation of its credentials, or marks Things that it no longer uses as deactivated.
  - The platform is not asked.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.target
attributes:
  check_mode:
    description: Can run in check mode and return status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns what has changed, or would change, in diff mode.
    support: full
    details:
      - Shows records, which hold no secret.
  idempotent:
    description: Changes nothing when it runs again.
    support: full
options:
  service:
    description:
      - The service of the platform; it says what O(path) is where that is not set.
    type: str
    required: true
    choices: [cloudlocate, pointperfect, pointperfect-live]
  state:
    description:
      - V(rolled_back) puts an earlier generation in use again. What was in use stays on the host, so that its name
        leads back to it, until new credentials are installed; its Thing goes on the retirement list.
      - V(retired) marks O(things) as deactivated, so that they leave the retirement list. It does not deactivate them;
        the Zero Touch Provisioning API of the platform cannot.
    type: str
    required: true
    choices: [rolled_back, retired]
  generation:
    description:
      - With O(state=rolled_back), the name of the generation, for example V(000003).
      - If not set, the one before the last that was in use; a host that uses an earlier one already is left alone.
    type: str
  force:
    description:
      - Roll back even to a certificate that has expired, or to a Thing that is marked as deactivated.
    type: bool
    default: false
  things:
    description:
      - With O(state=retired), entries of the list RV(thing.retired). Entries that are not on the list are ignored, and
        the Thing in use never is on it.
    type: list
    elements: dict
    default: []
  variables_prefix:
    description:
      - Takes every option that is not given from the variable whose name begins with this and ends with the name of the
        option, if there is such a variable.
    type: str
seealso:
  - module: thingstream.ztp.thingstream_ztp
"""

EXAMPLES = r"""
- name: Return to the previous credentials
  thingstream.ztp.thingstream_credentials:
    service: pointperfect
    state: rolled_back
    reload_command: systemctl restart mosquitto
  become: true

- name: Return to those of a generation
  thingstream.ztp.thingstream_credentials:
    service: pointperfect
    state: rolled_back
    generation: "000003"
  become: true

- name: Mark a Thing as deactivated after somebody has done so in the portal
  thingstream.ztp.thingstream_credentials:
    service: cloudlocate
    state: retired
    things:
      - service: cloudlocate
        client_id: device:3e1b4b0e-8d4f-4c0c-9f0b-2f3f0c9d1a57
  become: true
"""

RETURN = r"""
action:
  description: What was done, V(rolled_back), V(retired) or V(none); in check mode, what would be done.
  returned: success
  type: str
  sample: rolled_back
reason:
  description: The same as RV(action).
  returned: success
  type: str
  sample: rolled_back
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
  description: The record of that generation; see RV(thingstream.ztp.thingstream_ztp#module:thing).
  returned: success
  type: dict
  contains:
    retired:
      description: The retirement list of the host.
      type: list
      elements: dict
files:
  description: The files of the bundle, as they must be on the host.
  returned: success
  type: list
  elements: dict
error_code:
  description: A stable name of the problem; the troubleshooting page has a section for each.
  returned: failure
  type: str
  sample: no_generation
"""

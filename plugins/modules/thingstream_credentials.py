#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_credentials
short_description: Handle Thingstream credentials without asking the platform
version_added: 0.1.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Installs credentials that came from elsewhere, returns a host to an earlier generation of its credentials, or marks
    Things that it no longer uses as deactivated.
  - The platform is not asked, and no Thing is created. A fleet that was provisioned by hand is adopted in this way;
    from then on M(thingstream.ztp.thingstream_ztp) renews what is due.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.target
  - thingstream.ztp.content
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
      - The service of the platform; it says what O(path) is where that is not set, and how a response is read.
    type: str
    required: true
    choices: [cloudlocate, pointperfect, pointperfect-live]
  state:
    description:
      - V(present) ensures that there are sound credentials, and takes them from where O(ucenter_path),
        O(certificate_path), O(fields) or O(store_path) say if there are none. Sound ones are left alone, because they
        may have been renewed since, unless O(force=true).
      - V(rolled_back) puts an earlier generation in use again. What was in use stays on the host, so that its name
        leads back to it, until new credentials are installed; its Thing goes on the retirement list.
      - V(retired) marks O(things) as deactivated, so that they leave the retirement list. It does not deactivate them;
        the Zero Touch Provisioning API of the platform cannot.
    type: str
    default: present
    choices: [present, rolled_back, retired]
  ucenter_path:
    description:
      - The JSON on the controller that the portal offers for u-center.
      - It may be encrypted with Ansible Vault, like every file that is named here.
    type: path
  certificate_path:
    description:
      - The client certificate in PEM on the controller, as the portal offers it. What else the credentials need, at
        least the client ID and the host, is in O(fields).
    type: path
  private_key_path:
    description:
      - The key of O(certificate_path).
    type: path
  fields:
    description:
      - Credentials by the names of the fields that M(thingstream.ztp.thingstream_ztp) knows for O(field_map), for
        example V(ntrip_username). They are added to what a file holds.
    type: dict
  store_path:
    description:
      - A bundle on the controller that M(thingstream.ztp.thingstream_ztp) made there with C(delegate_to=localhost),
        sealed or not.
    type: path
  hardware_id:
    description:
      - The hardware ID of the Thing. Give the one that renewals will ask with; with another one they would ask at once.
      - If not set, that of O(store_path), or none.
    type: str
  given_name:
    description:
      - The name of the Thing in the portal.
      - If not set, that of O(store_path), or the first 50 characters of the inventory name.
    type: str
  field_map:
    description:
      - As for M(thingstream.ztp.thingstream_ztp). Give what renewals will use.
    type: dict
    default: {}
  broker_ca_path:
    description:
      - A file on the controller that becomes C(ca.crt).
      - If not set, Amazon Root CA 1 out of the CA bundle of the Python library requests.
    type: path
  generation:
    description:
      - With O(state=rolled_back), the name of the generation, for example V(000003).
      - If not set, the one before the last that was in use; a host that uses an earlier one already is left alone.
    type: str
  force:
    description:
      - With O(state=present), take the credentials from their source although there are sound ones.
      - With O(state=rolled_back), roll back even to a certificate that has expired, or to a Thing that is marked as
        deactivated.
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
- name: Adopt what was downloaded from the portal by hand
  thingstream.ztp.thingstream_credentials:
    service: pointperfect
    ucenter_path: "portal/device-{{ thing_id }}-ucenter-config.json"
    hardware_id: "{{ imei }}"
  become: true

- name: Adopt an NTRIP login that is in the inventory
  thingstream.ztp.thingstream_credentials:
    service: pointperfect
    hardware_id: "{{ imei }}"
    fields:
      ntrip_host: ppntrip.services.u-blox.com
      ntrip_port: 2101
      ntrip_mountpoint: NEAR-RTCM
      ntrip_username: "{{ vault_ntrip_username }}"
      ntrip_password: "{{ vault_ntrip_password }}"
  become: true

- name: Deploy what the production line has provisioned
  thingstream.ztp.thingstream_credentials:
    service: pointperfect
    store_path: "{{ inventory_dir }}/store/{{ inventory_hostname }}"
    group: gnss
  become: true

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
  description:
    - What was done, with O(state=present) as M(thingstream.ztp.thingstream_ztp) says it, V(rolled_back), V(retired) or
      V(none); in check mode, what would be done.
  returned: success
  type: str
  sample: rolled_back
reason:
  description: With O(state=present), why, as M(thingstream.ztp.thingstream_ztp) says it; otherwise as RV(action).
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
  description:
    - A stable name of the problem. Each has a section on the page
      L(troubleshooting, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md).
  returned: failure
  type: str
  sample: no_generation
"""

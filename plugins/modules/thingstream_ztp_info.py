#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_ztp_info
short_description: Show the Thingstream credentials of a host
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Shows the record and the generations of each bundle on a host, damaged files, files with another owner or mode, the
    remaining days, and the Things that must still be deactivated. The module shows no secret, changes nothing, and runs
    one remote command.
  - With O(spool=true) it also lists the responses in the spool on the controller.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.info
  - thingstream.ztp.renewal
  - thingstream.ztp.variables
options:
  paths:
    description:
      - The directories to show. With an empty list, no remote command runs.
      - If the variable with the O(variables_prefix) and the name C(path) exists, its value is the only directory.
    type: list
    elements: str
    default: [/etc/thingstream/pointperfect, /etc/thingstream/pointperfect-live, /etc/thingstream/cloudlocate]
  owner:
    description:
      - The user on the host that should own everything, as a name or a number.
      - If not set, the owner of each of O(paths).
    type: str
  group:
    description:
      - The group on the host that should own everything, as a name or a number.
      - If not set, the group of each of O(paths).
    type: str
  directory_mode:
    description:
      - The mode that directories should have, in octal digits.
    type: raw
    default: "0750"
  secret_mode:
    description:
      - The mode that files with a secret should have, in octal digits.
    type: raw
    default: "0640"
  spool:
    description:
      - List the responses in O(spool_path) on the controller. The list is the same for all hosts, so that C(run_once)
        is enough.
    type: bool
    default: false
  spool_path:
    description:
      - The O(thingstream.ztp.thingstream_ztp#module:spool_path) of M(thingstream.ztp.thingstream_ztp).
    type: path
seealso:
  - module: thingstream.ztp.thingstream_ztp
"""

EXAMPLES = r"""
- name: Show the bundles of all services
  thingstream.ztp.thingstream_ztp_info:
  become: true
  register: credentials

- name: Fail where a certificate ends within 10 days
  ansible.builtin.assert:
    that: (item.not_after_days or 1000) > 10
  loop: "{{ credentials.bundles }}"
  loop_control:
    label: "{{ item.path }}"
"""

RETURN = r"""
spool:
  description: The responses in O(spool_path), without secrets.
  returned: with O(spool=true)
  type: list
  elements: dict
  contains:
    file:
      description: The file that holds the response.
      type: str
    service:
      description: The service.
      type: str
    readable:
      description:
        - Whether the Ansible Vault secrets of this run decrypt it. If not, the following values are V(null).
      type: bool
    hardware_id:
      description: The hardware ID.
      type: str
    given_name:
      description: The name of the Thing.
      type: str
    reason:
      description: Why the request was sent.
      type: str
    received_at:
      description: When the response arrived, in UTC.
      type: str
bundles:
  description: The bundle at each of O(paths), in the same order.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The directory.
      type: str
    present:
      description: Whether a generation is in use there.
      type: bool
    generation:
      description: The name of the generation in use, or V(null).
      type: str
    thing:
      description: The record of that generation; see RV(thingstream.ztp.thingstream_ztp#module:thing).
      type: dict
    generations:
      description: All generations on the disk, oldest first, each with its C(name) and its record C(thing).
      type: list
      elements: dict
    damaged:
      description: Files that are missing, or whose digest differs from the record.
      type: list
      elements: str
    retired:
      description:
        - Things that were in use here and that are not marked as deactivated, even if no generation is in use now. See
          RV(thingstream.ztp.thingstream_ztp#module:thing.retired).
      type: list
      elements: dict
    drift:
      description:
        - Files, and directories with a trailing slash, that have another mode, owner or group than the options say.
          Without O(owner) or O(group), they are compared with the directory itself.
      type: list
      elements: str
    leftovers:
      description: Files that a crashed run left. The next change removes them.
      type: list
      elements: str
    due_at:
      description:
        - When the next renewal is due, in UTC, according to O(renew_before), O(renew_spread), O(keys_renew_before) and
          O(max_age); V(null) if no date makes one due.
      type: str
    not_after_days:
      description: Days until the certificate ends, negative afterwards; V(null) without a certificate.
      type: float
    keys_expire_days:
      description: Days until the last dynamic key ends, negative afterwards; V(null) without such keys.
      type: float
    age_days:
      description: Days since the response arrived.
      type: float
"""

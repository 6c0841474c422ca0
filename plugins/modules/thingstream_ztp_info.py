#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_ztp_info
short_description: Show which Thingstream credentials a host holds
version_added: 0.1.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Shows the record and the generations of each bundle on a host, what is damaged, whose owner or mode has changed, how
    many days are left, and which Things still have to be deactivated. It shows no secret, changes nothing, and asks
    nobody but the host, with one remote command.
  - On request it also lists the responses that wait in the spool on the controller.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.info
  - thingstream.ztp.renewal
options:
  paths:
    description:
      - The directories to look at; with none, the host is not asked.
    type: list
    elements: str
    default: [/etc/thingstream/pointperfect, /etc/thingstream/pointperfect-live, /etc/thingstream/cloudlocate]
  owner:
    description:
      - The user on the host that everything should belong to, a name or a number.
      - If not set, whoever each of O(paths) belongs to.
    type: str
  group:
    description:
      - The group on the host that everything should belong to, a name or a number.
      - If not set, the group that each of O(paths) belongs to.
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
  public_mode:
    description:
      - The mode that certificates should have, in octal digits.
    type: raw
    default: "0644"
  spool:
    description:
      - List what is in O(spool_path) on the controller. That is the same for all hosts, so that C(run_once) is enough.
    type: bool
    default: false
  spool_path:
    description:
      - The directory of M(thingstream.ztp.thingstream_ztp) with the same name.
    type: path
  variables_prefix:
    description:
      - Takes every option that is not given from the variable whose name begins with this and ends with the name of the
        option, if there is such a variable, as M(thingstream.ztp.thingstream_ztp) does. Its C(path), if there is such a
        variable, is the only one of O(paths).
    type: str
seealso:
  - module: thingstream.ztp.thingstream_ztp
"""

EXAMPLES = r"""
- name: Look at the bundles of all services
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
  description: The responses in O(spool_path), without any secret.
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
        - Whether it could be read, with the Ansible Vault secrets of this run. If not, what follows is V(null).
      type: bool
    hardware_id:
      description: The hardware ID.
      type: str
    given_name:
      description: The name of the Thing.
      type: str
    reason:
      description: Why the platform was asked.
      type: str
    received_at:
      description: When the response arrived, in UTC.
      type: str
bundles:
  description: What was found at each of O(paths), in their order.
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
      description: Every generation on the disk, oldest first, with its C(name) and its record C(thing).
      type: list
      elements: dict
    damaged:
      description: Files that are missing or whose content is not what the record says.
      type: list
      elements: str
    retired:
      description:
        - Things that were used here before and that nobody has marked as deactivated; also where nothing is in use any
          more. See RV(thingstream.ztp.thingstream_ztp#module:thing.retired).
      type: list
      elements: dict
    drift:
      description:
        - Files, and directories with a slash at their end, whose mode, owner or group is not as given; where none is
          given, owner and group are compared with those of the directory itself.
      type: list
      elements: str
    leftovers:
      description: What a run that died has left; the next one clears it away.
      type: list
      elements: str
    due_at:
      description:
        - When a renewal becomes due by a date, in UTC, as O(renew_before), O(renew_spread), O(keys_renew_before) and
          O(max_age) say; V(null) if no date asks for one.
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

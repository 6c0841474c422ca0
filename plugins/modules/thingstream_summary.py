#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_summary
short_description: Publish the summary of a run as statistics
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Sums up the results of M(thingstream.ztp.thingstream_ztp) for every host of the play, and publishes the summary as
    M(ansible.builtin.set_stats) does, under the name C(thingstream_summary). AWX keeps it as an artifact of the job. It
    connects to no host.
  - In a job of AWX, the summary is also published under C(thingstream_summary_) followed by the ID of the job, so that
    a later node of a workflow finds the summaries of all slices and can add them up with
    P(thingstream.ztp.summary_total#filter).
  - One task covers the whole fleet, so use it with C(run_once).
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.info
attributes:
  become:
    description: Works with C(become), which makes no difference, because nothing runs on a host.
    support: N/A
  delegation:
    description: Can be delegated, which makes no difference, because nothing runs on a host.
    support: N/A
options:
  results_from:
    description:
      - The name of the variable in which the results of M(thingstream.ztp.thingstream_ztp) are registered.
    type: str
    required: true
  waiting:
    description:
      - Whether the hosts of the current batch still wait for their turn, and count as failed. Publish such a summary
        before the first task, so that there is one even if no host can be reached.
    type: bool
    default: false
seealso:
  - module: thingstream.ztp.thingstream_ztp
  - plugin: thingstream.ztp.summary_total
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Expect a result of every gateway
  thingstream.ztp.thingstream_summary:
    results_from: credentials
    waiting: true
  run_once: true

- name: Ensure credentials
  thingstream.ztp.thingstream_ztp:
    variables_prefix: thingstream_gateway_
  become: true
  register: credentials
  ignore_errors: true

- name: Publish the summary
  thingstream.ztp.thingstream_summary:
    results_from: credentials
  run_once: true
"""

RETURN = r"""
summary:
  description:
    - C(hosts), C(due), C(renewed), C(unchanged), C(repaired), C(not_due), C(failed), C(reasons) and C(next_due_at), as
      P(thingstream.ztp.summary#filter) returns them. Hosts of later batches are not counted.
  returned: success
  type: dict
"""

#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_audit
short_description: Write what was found on a fleet as JSON, CSV, metrics and a page
version_added: 0.1.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Takes what M(thingstream.ztp.thingstream_ztp_info) found on every host of the play, and what waits in the spool, and
    writes four files on the controller, C(thingstream-audit.json), C(thingstream-audit.csv), C(thingstream-audit.html)
    and C(thingstream-audit.prom). It connects to no host, and no secret is in any of them.
  - Hosts that could not be reached or looked at are in all four, with the reason. If there are any, the task fails
    once everything is written, with C(audit_incomplete).
  - It is one task for a whole fleet, so use it with C(run_once).
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.files
options:
  looks:
    description:
      - The name of the variable that the results of M(thingstream.ztp.thingstream_ztp_info) were registered in.
    type: str
    required: true
  directory:
    description:
      - The directory on the controller where the files go. It must exist.
    type: path
    required: true
  metrics_directory:
    description:
      - The directory where C(thingstream-audit.prom) goes, for example that of the textfile collector of Prometheus.
      - If not set, O(directory).
    type: path
  spool_path:
    description:
      - The directory of M(thingstream.ztp.thingstream_ztp) with the same name.
    type: path
seealso:
  - module: thingstream.ztp.thingstream_ztp_info
"""

EXAMPLES = r"""
- name: Look at every gateway
  thingstream.ztp.thingstream_ztp_info:
    variables_prefix: thingstream_gateway_
  become: true
  register: found
  ignore_errors: true
  ignore_unreachable: true

- name: Write the report
  thingstream.ztp.thingstream_audit:
    looks: found
    directory: /srv/reports
    metrics_directory: /var/lib/prometheus/node-exporter
  run_once: true
"""

RETURN = r"""
files:
  description: The paths of what was written, or would be in check mode.
  returned: success, and with C(audit_incomplete)
  type: list
  elements: str
complete:
  description: Whether every host and the spool could be seen.
  returned: success, and with C(audit_incomplete)
  type: bool
totals:
  description: The sums of the report.
  returned: success, and with C(audit_incomplete)
  type: dict
  contains:
    gateways:
      description: How many hosts the play has.
      type: int
    states:
      description:
        - How many bundles are V(unreachable), V(failed), V(absent), V(damaged), V(expired), V(due), V(drift) and
          V(in_order); the first that applies counts. A host without a bundle, or that was not seen, counts once.
      type: dict
    retired:
      description: How many Things must still be deactivated.
      type: int
    conflicts:
      description: How many Things are on the list of one host while another one uses them.
      type: int
    spool:
      description: How many responses wait in the spool.
      type: int
    unanswered:
      description: How many requests that may have created a Thing got no answer; see C(response_lost).
      type: int
    next_due_at:
      description: When the next renewal is due by a date, in UTC; V(null) if none is.
      type: str
    next_end_at:
      description: When the next certificate or dynamic key ends, in UTC; V(null) if none does.
      type: str
"""

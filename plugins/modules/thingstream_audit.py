#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_audit
short_description: Report on a fleet as JSON, CSV, metrics and a page
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Combines the results of M(thingstream.ztp.thingstream_ztp_info) for every host of the play with the spool and the
    ledger of the controller, and writes four files on the controller, C(thingstream-audit.json),
    C(thingstream-audit.csv), C(thingstream-audit.html) and C(thingstream-audit.prom). It connects to no host, and the
    files contain no secret.
  - Hosts that were unreachable or failed are in all four files, with the reason. If there are any, the task fails with
    C(audit_incomplete) after it has written the files.
  - One task covers the whole fleet, so use it with C(run_once).
notes:
  - With O(variables_prefix), the module reads the hardware IDs of hosts that were not seen from their variables. Such a
    host may use the Thing with that hardware ID, so the Thing is not in RV(retired).
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.files
  - thingstream.ztp.variables
options:
  results_from:
    description:
      - The name of the variable in which the results of M(thingstream.ztp.thingstream_ztp_info) are registered.
    type: str
    required: true
  verifications_from:
    description:
      - The name of the variable in which the results of M(thingstream.ztp.thingstream_verify) are registered.
      - If not set, the report says nothing about logins.
    type: str
  directory:
    description:
      - The directory on the controller for the files. It must exist.
      - If not set, no files are written.
    type: path
  metrics_directory:
    description:
      - The directory for C(thingstream-audit.prom), for example that of the textfile collector of Prometheus.
      - If not set, O(directory).
    type: path
  spool_path:
    description:
      - The spool directory, as for M(thingstream.ztp.thingstream_ztp). With O(variables_prefix), those of all hosts are
        read.
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
    results_from: found
    directory: /srv/reports
    variables_prefix: thingstream_gateway_
    metrics_directory: /var/lib/prometheus/node-exporter
  run_once: true
"""

RETURN = r"""
files:
  description:
    - The paths of the files that were written; in check mode, that would be written. Empty without O(directory).
  returned: success, and with C(audit_incomplete)
  type: list
  elements: str
complete:
  description: Whether every host and the spool were seen.
  returned: success, and with C(audit_incomplete)
  type: bool
totals:
  description: The figures of the report.
  returned: success, and with C(audit_incomplete)
  type: dict
  contains:
    gateways:
      description: The number of hosts in the play.
      type: int
    states:
      description:
        - The number of bundles that are V(unreachable), V(failed), V(absent), V(damaged), V(wrong_thing), V(expired),
          V(due), V(drift) and V(in_order); the first state that applies counts. A host without a bundle, or that was
          not seen, counts once.
      type: dict
    retired:
      description: The number of Things that must be deactivated.
      type: int
    conflicts:
      description: The number of Things on the retirement list of a host that are in use.
      type: int
    shared:
      description: The number of Things that several hosts use.
      type: int
    ledger:
      description:
        - The number of Things that only the ledger knows, which are V(removed), V(missing), V(left) and
          V(unreachable). L(The guide, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/audit.md)
          describes these.
      type: dict
    spool:
      description: The number of responses in the spool.
      type: int
    abandoned_requests:
      description:
        - The number of requests that may have created a Thing and whose response was lost; see C(response_lost).
      type: int
    next_due_at:
      description: When the next renewal is due by a date, in UTC; V(null) if none is.
      type: str
    next_end_at:
      description: When the next certificate or dynamic key ends, in UTC; V(null) if none does.
      type: str
retired:
  description:
    - The Things that no host of the play uses and that must be deactivated, the longest retired first. They come from
      the retirement lists of the hosts, and from the ledger if their hosts no longer know them.
  returned: success, and with C(audit_incomplete)
  type: list
  elements: dict
  contains:
    client_id:
      description: The client ID; V(null) if the platform sent none.
      type: str
    hardware_id:
      description: The hardware ID, or V(null).
      type: str
    service:
      description: The service.
      type: str
    given_name:
      description: The name in the portal.
      type: str
    since:
      description: When it left use, in UTC; V(null) if that is not known.
      type: str
    host:
      description: The host that used it. With RV(retired[].from_ledger), this host may no longer be in the inventory.
      type: str
    path:
      description: The directory of its bundle there.
      type: str
    login_sha256:
      description: A fingerprint of the login, if the platform sent no client ID.
      type: str
    from_ledger:
      description: Whether only the ledger of the controller knows the Thing.
      type: bool
conflicts:
  description: Entries as in RV(retired) whose Things are in use, so that they must not be deactivated.
  returned: success, and with C(audit_incomplete)
  type: list
  elements: dict
  contains:
    used_by:
      description: The hosts that use the Thing.
      type: list
      elements: str
"""

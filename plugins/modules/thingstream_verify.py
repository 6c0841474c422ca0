#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_verify
short_description: Verify the Thingstream credentials of a host
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Reads the installed credentials of a host and uses them from the controller, by MQTT until the broker accepts the
    login, by NTRIP until corrections arrive or, without O(position), until the caster accepts the login.
  - Corrections are messages of RTCM 3 or SPARTN with valid checksums. A web page, a source table, JSON or text is an
    error, with any HTTP status.
  - Refused credentials (C(credentials_refused)) and network problems (C(unreachable), C(timeout), C(tls)) have
    different error codes.
  - The platform allows one connection for each Thing (seen in client code). An MQTT login therefore disconnects the
    consumer on the host for a moment. An NTRIP caster may refuse a second login instead, so that the task fails with
    C(refused_or_in_use) while the consumer is connected. To know for sure, stop the consumer first.
  - The credentials go from the host into the memory of the controller, and nowhere else.
extends_documentation_fragment:
  - thingstream.ztp.attributes
attributes:
  check_mode:
    description: Can run in check mode and return status prediction without modifying target.
    support: full
    details:
      - Check mode reads the credentials, does not connect to a broker or caster, and says which connection a login
        would interrupt.
  diff_mode:
    description: Returns what has changed, or would change, in diff mode.
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    description: Changes nothing when it runs again.
    support: full
requirements:
  - paho-mqtt >= 2.0 on the controller, for MQTT
options:
  service:
    description:
      - The service of the platform.
    type: str
    required: true
    choices: [cloudlocate, pointperfect, pointperfect-live]
  path:
    description:
      - The directory on the host that holds the bundle.
      - If not set, V(/etc/thingstream/) followed by the O(service).
    type: str
  field_map:
    description:
      - As for M(thingstream.ztp.thingstream_ztp), with which the credentials were installed.
      - TLS is used for a caster if the credentials have V(ntrip_tls_port). The platform sends none; clients use
        2102 (seen in client code), which C(ntrip_tls_port) with the expression C(`2102`) selects.
    type: dict
    default: {}
  broker_ca_path:
    description:
      - A file on the controller with the CA that signed the certificate of the broker.
      - If not set, Amazon Root CA 1 from the CA bundle of the Python library requests.
    type: path
  timeout:
    description:
      - The time limit in seconds for each delivery.
    type: float
    default: 20
  position:
    description:
      - Latitude and longitude in degrees for an NTRIP caster. PointPerfect sends nothing without a position (seen in
        client code). With a position, corrections must arrive; without one, an accepted login is enough, unless the
        caster sends something else than corrections.
    type: list
    elements: float
  caster_ca_path:
    description:
      - The CA certificates on the controller that verify the NTRIP caster - a file of PEM certificates, or a directory
        that C(openssl rehash) has prepared.
      - If not set, what E(REQUESTS_CA_BUNDLE) or E(CURL_CA_BUNDLE) names, or else the CA bundle of the Python library
        requests.
    type: path
  allowed_hosts:
    description:
      - The hosts to which the controller connects with credentials that the host stores - domains with all their
        hosts, addresses, and networks such as V(10.0.0.0/8). A name must not resolve to an address that is not public,
        unless that is in a network of this list.
      - An attacker with control of a host can put any server into its credentials. Without a limit, the
        controller would connect to servers of its own network on behalf of the attacker.
      - An empty list means that no host is allowed.
    type: list
    elements: str
    default: [u-blox.com, thingstream.io]
  variables_prefix:
    description:
      - Take each option that the task does not set from the variable with this prefix and the name of the option, if
        that variable exists. O(timeout), O(position), O(caster_ca_path) and O(allowed_hosts) are read from the variable
        that ends with C(verify), as for M(thingstream.ztp.thingstream_ztp).
    type: str
seealso:
  - module: thingstream.ztp.thingstream_ztp
"""

EXAMPLES = r"""
- name: Verify the login
  thingstream.ztp.thingstream_verify:
    service: pointperfect
  become: true

- name: Verify that corrections for a position in Berlin arrive, with TLS
  thingstream.ztp.thingstream_verify:
    service: pointperfect
    position: [52.52, 13.405]
    field_map:
      ntrip_tls_port: "`2102`"
  become: true
"""

RETURN = r"""
path:
  description: The directory that holds the bundle.
  returned: success
  type: str
  sample: /etc/thingstream/pointperfect
thing:
  description: The record of the bundle; see RV(thingstream.ztp.thingstream_ztp#module:thing).
  returned: success
  type: dict
verifications:
  description: The servers that accepted the credentials; empty in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    delivery:
      description: V(mqtt) or V(ntrip).
      type: str
    host:
      description: The broker or caster.
      type: str
    port:
      description: Its port.
      type: int
    tls:
      description: Whether the connection was encrypted.
      type: bool
    data:
      description: Whether corrections arrived. By MQTT, the module does not wait for any.
      type: bool
    first_correction_ms:
      description: Milliseconds from the NTRIP request to the first correction; V(null) without corrections.
      type: int
      sample: 740
    message_types:
      description:
        - The types of the messages that arrived with the first correction, for RTCM 3 with their number, for SPARTN
          with type and subtype.
      type: list
      elements: str
      sample: [RTCM 1005, RTCM 1077]
    mount_point:
      description: The mount point of the caster; V(null) for a broker.
      type: str
      sample: NEAR-RTCM
msg:
  description: In check mode, what the verification would do.
  returned: in check mode
  type: str
error_code:
  description:
    - A stable code for the problem. Each code has a section on the page
      L(troubleshooting, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md).
  returned: failure
  type: str
  sample: credentials_refused
status:
  description: The HTTP status of the response of a caster that sent no corrections; otherwise V(null).
  returned: failure
  type: int
  sample: 401
"""

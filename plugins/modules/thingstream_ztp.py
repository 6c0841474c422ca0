#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_ztp
short_description: Ensure Thingstream credentials by Zero Touch Provisioning
version_added: 0.1.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Ensures that a host has sound credentials for its own Thing on the u-blox Thingstream platform, not due for renewal.
  - It looks at what the host holds, decides by an ordered list of reasons, asks the Zero Touch Provisioning API only
    if something is due, checks what arrives, and installs it all or nothing.
  - A host whose credentials are in order costs one remote command and no request.
  - Secrets go from the API through the memory of the controller and the standard input of one remote command into files
    that nobody else can read. They are in no argument, result, diff, log or error, so that C(no_log) is not needed.
    The token never reaches the host.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.target
  - thingstream.ztp.content
  - thingstream.ztp.renewal
attributes:
  check_mode:
    description: Can run in check mode and return status prediction without modifying target.
    support: full
    details:
      - Looks and decides, but asks nobody; what the platform would answer is not predicted.
  diff_mode:
    description: Returns what has changed, or would change, in diff mode.
    support: full
    details:
      - Shows records, which hold no secret.
  idempotent:
    description: Changes nothing when it runs again.
    support: full
    details:
      - Except with O(force=true).
options:
  service:
    description:
      - The service of the platform; it must fit the device type of the device profile.
      - V(pointperfect) is PointPerfect Flex, V(pointperfect-live) is PointPerfect Live, V(cloudlocate) is CloudLocate.
    type: str
    required: true
    choices: [cloudlocate, pointperfect, pointperfect-live]
  state:
    description:
      - V(present) ensures credentials.
      - V(renewed) does the same where some are installed, or wait in O(spool_path), and leaves every other host alone.
      - V(absent) removes every generation of them from the host, and tells consumers by O(reload_command). The Thing
        stays on the platform, and active, until somebody deactivates it there; it is on the list RV(thing.retired),
        which stays on the host.
    type: str
    default: present
    choices: [present, renewed, absent]
  token:
    description:
      - The token of the device profile, as the portal shows it.
      - It is needed only when the API is asked.
      - If not set, the environment variable E(THINGSTREAM_ZTP_TOKEN) of the controller is used.
    type: str
  hardware_id:
    description:
      - The stable identity of the host, for example the IMEI of its modem or its serial number.
      - Without it every request creates another Thing, and many device profiles refuse the request.
    type: str
  given_name:
    description:
      - The name of the Thing in the portal, 1 to 50 characters. It need not be unique.
      - If not set, the first 50 characters of the inventory name are used.
    type: str
  tags:
    description:
      - Tags that the platform gives to the Thing, in addition to those of the device profile.
    type: list
    elements: str
  delivery:
    description:
      - How corrections must reach the host. Installed credentials that do not have it are due, with the reason
        C(service_changed), and an answer that does not have it is not installed.
      - With the O(token) of another device profile this moves a host from one delivery to another.
      - If not set, whatever the device profile delivers.
    type: str
    choices: [mqtt, ntrip, lband]
  sealed:
    description:
      - Encrypt the response with the first Ansible Vault secret of the run, and write nothing else but the record. For
        a store on the controller (C(delegate_to=localhost)) that may lie in a repository, from which
        M(thingstream.ztp.thingstream_credentials) deploys.
    type: bool
    default: false
  field_map:
    description:
      - Where the response keeps a field, as a JMESPath expression for each field that differs from what the collection
        knows. The platform changes its responses without versions; the names that CloudLocate and PointPerfect Live use
        are not public.
      - Fields are V(client_id), V(host), V(port), V(username), V(password), V(certificate), V(private_key),
        V(subscriptions), V(keys_current), V(keys_next), V(ntrip_host), V(ntrip_port), V(ntrip_tls_port),
        V(ntrip_mountpoint), V(ntrip_username) and V(ntrip_password).
      - If an answer lacks a necessary field, the error lists the names that did arrive, and the answer is kept in
        O(spool_path), so that the next run with a corrected O(field_map) needs no further request.
    type: dict
    default: {}
  force:
    description:
      - Ask the platform although nothing is due. A CloudLocate profile creates a new Thing each time.
    type: bool
    default: false
  rotate_before:
    description:
      - A moment in UTC such as V(2026-11-22T04:13:00Z). Credentials that arrived before it must be replaced by others;
        those that arrived later are not asked for again, so that a rotation can be resumed.
      - If the platform returns the same credentials, the host fails with C(not_rotated) and keeps them.
    type: str
  api_url:
    description:
      - The address of the API; the path of the O(service) is appended.
      - V(http://) is accepted for loopback only, because the token would travel in clear.
      - If not set, the environment variable E(THINGSTREAM_API_URL) of the controller is used.
    type: str
    default: https://api.thingstream.io
  validate_certs:
    description:
      - Whether the certificate of the API is verified. With V(false) anybody on the way can read token and credentials.
    type: bool
    default: true
  ca_path:
    description:
      - A file on the controller with the certificates of those who may sign the certificate of the API.
      - If not set, the file that E(THINGSTREAM_CA_PATH), E(REQUESTS_CA_BUNDLE) or E(CURL_CA_BUNDLE) names, or else the
        CA bundle of the Python library requests.
    type: path
  client_cert:
    description:
      - A certificate on the controller that is shown to the API, or to a proxy that asks for one, in PEM. The platform
        itself asks for none.
    type: path
  client_key:
    description:
      - The key of O(client_cert), if it is not in the same file.
    type: path
  proxy:
    description:
      - The URL of a proxy between controller and API; an empty string uses none.
      - If not set, the usual environment variables E(HTTPS_PROXY) and E(NO_PROXY) decide.
    type: str
  timeout:
    description:
      - How many seconds to wait for a connection, and again for a whole answer, however slowly it comes.
    type: float
    default: 30
  retries:
    description:
      - How many times a request is repeated at most. A connection that was never established and answers with
        C(Retry-After) are repeated; whatever might create a second Thing is not, see O(repeatable).
    type: int
    default: 3
  repeatable:
    description:
      - Whether the platform answers a repeated request for one O(hardware_id) with the same Thing, or with an error.
        Only then is a request repeated whose answer got lost, and only then is an unfinished activation waited for.
        Otherwise the next run fails with C(response_lost), until somebody has looked in the portal.
      - If not set, V(true) for PointPerfect with a O(hardware_id), and V(false) otherwise.
    type: bool
  activation_timeout:
    description:
      - How many seconds to wait for the platform to activate a new Thing, before the host fails with
        C(activation_pending).
    type: float
    default: 120
  broker_ca_path:
    description:
      - A file on the controller that becomes C(ca.crt), the CA by which a consumer verifies the broker.
      - If not set, Amazon Root CA 1 (seen in client code) out of the CA bundle of the Python library requests.
    type: path
  spool_path:
    description:
      - A directory on the controller, mode V(0700), that keeps a response until its host has it. If the host vanishes
        in between, the next run installs from there and asks nobody.
      - Without O(hardware_id) a response is kept for the inventory name and O(path), so that hosts with the same
        O(given_name) do not get each other's. A host that was renamed in the inventory does not find its own.
      - Entries are encrypted with the first Ansible Vault secret of the run, if there is one, and mode V(0600) always.
      - In containers that do not outlive the job, as in AWX, this should be on a volume that does. The directory above
        it must exist, so that a volume that is not mounted is noticed before the platform is asked.
      - If not set, C(thingstream/spool) in the home directory of Ansible, which is C(~/.ansible).
    type: path
  verify:
    description:
      - Prove credentials by using them, from the controller, as M(thingstream.ztp.thingstream_verify) does. It needs
        the Python library paho-mqtt for MQTT.
    type: dict
    suboptions:
      when:
        description:
          - V(before_switch) proves new credentials before the host gets them, so that such as do not work are never
            used.
          - V(always) proves those in use as well, on every run, even if nothing is due. The platform allows one
            connection for each Thing (seen in client code), so that this interrupts a consumer for a moment.
          - V(never) does nothing.
        type: str
        default: before_switch
        choices: [never, before_switch, always]
      renew_refused:
        description:
          - With O(verify.when=always), ask for new credentials, with the reason C(refused), if those in use are
            refused. Without it the host fails with C(credentials_refused).
        type: bool
        default: false
      timeout:
        description:
          - How many seconds each delivery may take.
        type: float
        default: 20
      position:
        description:
          - Latitude and longitude in degrees that an NTRIP caster is told. PointPerfect sends nothing without one (seen
            in client code). With it, corrections must arrive; without it, the answer to the login is enough.
        type: list
        elements: float
      caster_ca_path:
        description:
          - A file on the controller with the certificates of those who may sign the certificate of the NTRIP caster.
          - If not set, the CA bundle of the Python library requests.
        type: path
  variables_prefix:
    description:
      - Takes every option that is not given from the variable whose name begins with this and ends with the name of the
        option, if there is such a variable. With V(thingstream_gateway_), as the role uses it, O(group) comes from
        C(thingstream_gateway_group).
      - It is there because a task that lists all options as templates costs every host more than the rest of the job.
    type: str
notes:
  - The certificate of the host is judged by the clock of the controller.
  - With C(delegate_to=localhost) and a O(path) of its own for each host, credentials are stored on the controller.
seealso:
  - module: thingstream.ztp.thingstream_ztp_info
  - module: thingstream.ztp.thingstream_credentials
  - module: thingstream.ztp.thingstream_verify
"""

EXAMPLES = r"""
- name: Ensure PointPerfect credentials, readable by the group gnss
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    token: "{{ vault_thingstream_token }}"
    hardware_id: "{{ imei }}"
    group: gnss
  become: true

- name: Ensure CloudLocate credentials whose response has names of its own
  thingstream.ztp.thingstream_ztp:
    service: cloudlocate
    token: "{{ vault_cloudlocate_token }}"
    hardware_id: "{{ imei }}"
    field_map:
      client_id: mqtt.identity
      host: mqtt.server
      username: login.name
      password: login.pass
  become: true

- name: Let the host return to the previous credentials if its bridge does not come back
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    hardware_id: "{{ imei }}"
    reload_command: systemctl restart mosquitto
    health_command: systemctl is-active mosquitto
    health_timeout: 60
  become: true

- name: Move to NTRIP with the token of another device profile, after proving that the new login works
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    token: "{{ vault_ntrip_token }}"
    hardware_id: "{{ imei }}"
    delivery: ntrip
    verify:
      when: before_switch
      position: [52.52, 13.405]
  become: true

- name: Write a bridge for mosquitto, and a configuration of an own program
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    hardware_id: "{{ imei }}"
    group: mosquitto
    formats: [env, mosquitto]
    templates:
      - src: rover.toml.j2
  become: true

- name: Provision into a store on the controller, before the gateway has a connection
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    hardware_id: "{{ imei }}"
    path: "{{ inventory_dir }}/store/{{ inventory_hostname }}"
    sealed: true
  delegate_to: localhost

- name: Remove the credentials of a gateway that is taken out of service
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    state: absent
  become: true
"""

RETURN = r"""
action:
  description:
    - What was done; in check mode, what would be done.
    - V(created), V(renewed) (another client ID or certificate), V(refreshed) (the same Thing, newer keys or topics),
      V(repaired) (without the API), V(removed), V(unchanged) (the platform was asked and returned the same), V(none).
  returned: success
  type: str
  sample: created
reason:
  description:
    - The first that applied of V(absent), V(damaged), V(service_changed), V(hardware_id_changed), V(expired),
      V(forced), V(expiring), V(keys_expiring), V(max_age), V(drift), V(refused), V(none).
  returned: success
  type: str
  sample: absent
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
due_at:
  description: When the next renewal is due by a date, in UTC; V(null) if no date asks for one.
  returned: success
  type: str
  sample: "2027-01-03T11:24:09Z"
thing:
  description:
    - The record of the bundle, as in C(thing.json), without any secret; V(null) if there is none.
    - With O(state=absent), the record of what was removed.
    - C(retired) is as it is now; in the file it is as it was when the generation was made.
  returned: success
  type: dict
  contains:
    record_version:
      description: The version of the rendering. Bundles of an older one are rendered again.
      type: int
    service:
      description: The service.
      type: str
    delivery:
      description: The ways of delivery, of V(mqtt), V(ntrip) and V(lband).
      type: list
      elements: str
    hardware_id:
      description: The hardware ID that the Thing was requested with.
      type: str
    given_name:
      description: The name that the Thing was requested with.
      type: str
    client_id:
      description: The client ID of the Thing.
      type: str
    host:
      description: The MQTT broker.
      type: str
    port:
      description: The port of the MQTT broker.
      type: int
    ntrip_host:
      description: The NTRIP caster.
      type: str
    ntrip_port:
      description: The port of the NTRIP caster.
      type: int
    ntrip_mountpoint:
      description: The mount point.
      type: str
    issued_at:
      description: When the response arrived, in UTC.
      type: str
    not_before:
      description: The start of the certificate's validity, in UTC.
      type: str
    not_after:
      description: The end of the certificate's validity, in UTC.
      type: str
    fingerprint_sha256:
      description: The SHA-256 fingerprint of the certificate.
      type: str
    identity_sha256:
      description: A digest that changes when the Thing or its login changes, and not with dynamic keys.
      type: str
    keys_expire_at:
      description: When the last dynamic key ends, in UTC.
      type: str
    formats:
      description: The formats that were asked for, or V(null).
      type: list
      elements: str
    templates_sha256:
      description: A digest of the templates, or V(null).
      type: str
    modes:
      description: The modes of files that templates made.
      type: dict
    origin:
      description: Where the credentials came from, V(ztp) or a source of M(thingstream.ztp.thingstream_credentials).
      type: str
    files:
      description: The files of the bundle and their SHA-256.
      type: dict
    confirmed_at:
      description: When the platform last returned these very credentials again, in UTC.
      type: str
      returned: if it did
    retired:
      description:
        - Things that this host used before and that stay active on the platform until somebody deactivates them.
      type: list
      elements: dict
      contains:
        client_id:
          description: The client ID, or V(null) where the platform sent none.
          type: str
        service:
          description: The service.
          type: str
        hardware_id:
          description: The hardware ID.
          type: str
        given_name:
          description: The name in the portal.
          type: str
        since:
          description: Since when it is no longer used, in UTC.
          type: str
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
    - A stable name of the problem. Each has a section on the page
      L(troubleshooting, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md).
  returned: failure
  type: str
  sample: not_allowed
status:
  description: The HTTP status, if the platform answered; otherwise V(null).
  returned: failure
  type: int
  sample: 403
"""

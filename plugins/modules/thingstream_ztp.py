#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_ztp
short_description: Ensure Thingstream credentials by Zero Touch Provisioning
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Ensures that a host has valid credentials for its own Thing on the u-blox Thingstream platform, and that they are
    not due for renewal.
  - The module reads the state of the host, and evaluates an ordered list of reasons. Only if a reason applies, it sends
    a request to the Zero Touch Provisioning API, checks the response, and installs all of it or nothing.
  - A host whose credentials are valid and not due takes one remote command and no request.
  - Secrets go from the API through the memory of the controller and the standard input of one remote command into files
    that other users cannot read. No argument, result, diff, log or error contains them, so C(no_log) is not needed. The
    token never reaches the host.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.location
  - thingstream.ztp.target
  - thingstream.ztp.content
  - thingstream.ztp.renewal
  - thingstream.ztp.variables
attributes:
  check_mode:
    description: Can run in check mode and return status prediction without modifying target.
    support: full
    details:
      - Check mode sends no request. It does not predict the response of the platform.
      - With O(create=true), it says in one line, once for all hosts, whether the API can be reached and is trusted, and
        whether O(spool_path) can be used. A host for which a request is due fails if the API cannot be reached.
  diff_mode:
    description: Returns what has changed, or would change, in diff mode.
    support: full
    details:
      - The diff shows records, which hold no secret.
  idempotent:
    description: Changes nothing when it runs again.
    support: full
    details:
      - Except with O(force=true).
options:
  state:
    description:
      - V(present) ensures credentials.
      - V(absent) removes all generations of the credentials from the host, and runs O(reload_command). The Thing stays
        active on the platform until it is deactivated in the portal. It is on the list RV(thing.retired), which stays
        on the host.
    type: str
    default: present
    choices: [present, absent]
  create:
    description:
      - With V(false), O(state=present) renews credentials that are installed, or that wait in O(spool_path), and leaves
        every other host unchanged. A host without credentials gets none.
    type: bool
    default: true
  token:
    description:
      - The token of the device profile, as the portal shows it. Blanks, line breaks and quotation marks around it are
        removed. Anything but a UUID is refused before a request.
      - It is required only for a request.
      - If not set, the environment variable E(THINGSTREAM_ZTP_TOKEN) of the controller is used.
    type: str
  hardware_id:
    description:
      - The stable identity of the host, for example the IMEI of its modem or its serial number. 1 to 128 visible
        characters without blanks.
      - Quote it in an inventory. YAML and INI read C(80E126001234) as a number, C(NO) as a boolean and C(010234567) as
        another number. Such a value is refused before a request. A whole number of at least 14 decimal digits, such as
        an IMEI, is accepted.
      - Required, except with O(anonymous=true) or O(state=absent).
    type: str
  anonymous:
    description:
      - Whether a host without O(hardware_id) may get a Thing without a hardware ID. Each request for such a host may
        create another Thing, and many device profiles refuse it.
      - With V(false), the task fails with C(hardware_id_required) and sends no request.
    type: bool
    default: false
  allow_volatile:
    description:
      - Whether credentials may be requested for a path on volatile storage (tmpfs, ramfs, or an overlay with its upper
        layer on one) where each request creates another Thing, that is with O(service=cloudlocate) or without
        O(hardware_id).
      - With V(false), the task fails with C(volatile_path) and sends no request. Elsewhere, volatile storage is a
        warning.
    type: bool
    default: false
  given_name:
    description:
      - The name of the Thing in the portal, 1 to 50 characters. It need not be unique.
      - If not set, the first 50 characters of the inventory name.
    type: str
  tags:
    description:
      - Tags that the platform gives to the Thing, in addition to those of the device profile.
    type: list
    elements: str
  delivery:
    description:
      - The delivery by which corrections must reach the host. Installed credentials without this delivery are due, with
        the reason C(service_changed). A response without it is not installed.
      - With the O(token) of another device profile, this moves a host from one delivery to another.
      - If not set, any delivery of the device profile is accepted.
    type: str
    choices: [mqtt, ntrip, lband]
  vault_encrypted:
    description:
      - Encrypt the response with the first Ansible Vault secret of the run, and write no other file but the record.
        This is for a store on the controller (C(delegate_to=localhost)) that may be part of a repository, and from
        which M(thingstream.ztp.thingstream_import) installs.
    type: bool
    default: false
  force:
    description:
      - Send a request although nothing is due. A CloudLocate device profile creates a new Thing for each request.
    type: bool
    default: false
  rotate_before:
    description:
      - A time in UTC such as V(2026-11-22T04:13:00Z). Credentials that were received before it must be replaced by
        other ones. Credentials that were received later are not replaced again, so that a rotation can be resumed.
      - A time in the future is refused, because every run until then would replace the credentials again.
      - If the platform returns the same credentials, the task fails with C(not_rotated), and the host keeps them.
    type: str
  api_url:
    description:
      - The address of the API. The path of the O(service) is appended, unless the address ends with it, as the endpoint
        in the portal does.
      - V(http://) is accepted for loopback addresses only, because the token would be sent unencrypted.
      - If not set, the environment variable E(THINGSTREAM_API_URL) of the controller is used.
    type: str
    default: https://api.thingstream.io
  validate_certs:
    description:
      - Whether the certificate of the API is verified. With V(false), an attacker on the network path can read the
        token and the credentials.
    type: bool
    default: true
  ca_path:
    description:
      - The CA certificates on the controller that verify the API, and a proxy that begins with V(https://) - a file of
        PEM certificates, or a directory that C(openssl rehash) has prepared.
      - If not set, what E(THINGSTREAM_CA_PATH), E(REQUESTS_CA_BUNDLE) or E(CURL_CA_BUNDLE) names, or else the CA bundle
        of the Python library requests.
    type: path
  proxy:
    description:
      - The URL of a proxy between the controller and the API, such as V(http://proxy.example.com:3128). An empty string
        means no proxy. The scheme is that of the connection to the proxy - V(http://), V(https://), or with the Python
        library PySocks V(socks5h://), V(socks5://), V(socks4a://) or V(socks4://).
      - If not set, the usual environment variables E(HTTPS_PROXY), E(ALL_PROXY) and E(NO_PROXY) apply.
      - With an O(api_url) that begins with V(http://) no proxy is used, because it could read the token.
    type: str
  timeout:
    description:
      - How many seconds the connection may take, and how many seconds the whole response may take.
    type: float
    default: 30
  retries:
    description:
      - The maximum number of retries of a request. Retried are connections that were not established, and responses
        with C(Retry-After). Where the platform returns the same Thing for a repeated request, which is so for
        PointPerfect with a O(hardware_id), a request whose response was lost is retried as well. Everywhere else such a
        request could create a second Thing; the next run fails with C(response_lost).
    type: int
    default: 3
  activation_timeout:
    description:
      - How many seconds the platform may take to activate a new Thing. After that, the task fails with
        C(activation_pending).
    type: float
    default: 120
  spool_path:
    description:
      - A directory on the controller, mode V(0700), that keeps each response until it is installed. If the connection
        to the host fails after the request, the next run installs the response from there and sends no request.
      - Without O(hardware_id), an entry belongs to the inventory name and O(path), so that hosts with the same
        O(given_name) do not share entries. A host that is renamed in the inventory does not find its entry.
      - Entries have mode V(0600), and are encrypted with the first Ansible Vault secret of the run, if there is one.
      - Where the controller is a container that does not outlive the job, as in AWX, use a directory on a persistent
        volume. Its parent directory must exist, so that a missing volume is detected before the request.
      - If not set, C(thingstream/spool) in the home directory of Ansible, which is C(~/.ansible).
    type: path
  verify:
    description:
      - Verify credentials by using them from the controller, as M(thingstream.ztp.thingstream_verify) does. MQTT
        requires the Python library paho-mqtt.
      - V(true) stands for all defaults, V(false) for O(verify.when=never), and a value of O(verify.when) for itself.
    type: dict
    suboptions:
      when:
        description:
          - V(before_switch) verifies new credentials before they are installed, so that non-working credentials are
            never used.
          - V(always) also verifies the credentials in use, in every run - by NTRIP, and by MQTT with
            O(verify.interrupt). The platform allows one connection for each Thing (seen in client code), so that a
            caster may refuse the login because the consumer is connected. Such a refusal is a warning, and never a
            reason to renew.
          - V(never) verifies nothing.
        type: str
        default: before_switch
        choices: [never, before_switch, always]
      renew_refused:
        description:
          - With O(verify.when=always), request new credentials, with the reason C(refused), if an MQTT broker refuses
            those in use. With V(false), the task fails with C(credentials_refused).
          - A refusal by an NTRIP caster has no effect here, because the login may be in use. Renew with O(force) if the
            consumer is refused as well.
        type: bool
        default: false
      interrupt:
        description:
          - With O(verify.when=always), log in by MQTT with the credentials in use. The broker then disconnects the
            consumer, which has the same client ID, and ends its persistent session.
          - This is for hosts whose consumer cannot connect anyway, such as those that report a refused login. Without
            it, MQTT credentials in use are not verified, and a warning says so.
        type: bool
        default: false
      timeout:
        description:
          - How many seconds the verification of each delivery may take.
        type: float
        default: 20
      position:
        description:
          - The latitude and longitude in degrees to send to an NTRIP caster. PointPerfect sends no corrections without
            a position (seen in client code). With a position, corrections must arrive, that is a valid message of
            RTCM 3 or SPARTN. Without one, an accepted login is enough, unless the caster sends something else than
            corrections.
        type: list
        elements: float
      caster_ca_path:
        description:
          - The CA certificates on the controller that verify the NTRIP caster - a file of PEM certificates, or a
            directory that C(openssl rehash) has prepared.
          - If not set, what E(REQUESTS_CA_BUNDLE) or E(CURL_CA_BUNDLE) names, or else the CA bundle of the Python
            library requests.
        type: path
      allowed_hosts:
        description:
          - The hosts to which the controller connects with credentials that the host stores - domains with all their
            hosts, addresses, and networks such as V(10.0.0.0/8). A name must not resolve to an address that is not
            public, unless that is in a network of this list.
          - An attacker with control of a host can put any server into its credentials. Without a limit, the
            controller would connect to servers of its own network on behalf of the attacker.
          - New credentials may name any host, because the platform itself sends them. With O(validate_certs=false)
            the list applies to them as well.
        type: list
        elements: str
        default: [u-blox.com, thingstream.io]
notes:
  - The validity of a certificate is compared with the clock of the controller.
  - With C(delegate_to=localhost) and a separate O(path) for each host, credentials are stored on the controller.
seealso:
  - module: thingstream.ztp.thingstream_ztp_info
  - module: thingstream.ztp.thingstream_import
  - module: thingstream.ztp.thingstream_rollback
  - module: thingstream.ztp.thingstream_retire
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

- name: Ensure CloudLocate credentials from a response with other field names
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

- name: Revert to the previous credentials if the bridge does not come back
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    hardware_id: "{{ imei }}"
    reload_command: systemctl restart mosquitto
    health_command: systemctl is-active mosquitto
    health_timeout: 60
  become: true

- name: Move to NTRIP with the token of another device profile, after a verification of the new login
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    token: "{{ vault_ntrip_token }}"
    hardware_id: "{{ imei }}"
    delivery: ntrip
    verify:
      when: before_switch
      position: [52.52, 13.405]
  become: true

- name: Write a bridge for mosquitto, and a configuration file from a template
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    hardware_id: "{{ imei }}"
    group: mosquitto
    formats: [env, mosquitto]
    templates:
      - src: rover.toml.j2
  become: true

- name: Renew credentials that are due, without creating any
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    token: "{{ vault_thingstream_token }}"
    hardware_id: "{{ imei }}"
    create: false
  become: true

- name: Provision into a store on the controller, before the gateway has a connection
  thingstream.ztp.thingstream_ztp:
    service: pointperfect
    hardware_id: "{{ imei }}"
    path: "{{ inventory_dir }}/store/{{ inventory_hostname }}"
    vault_encrypted: true
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
      V(repaired) (without a request), V(removed), V(unchanged) (the platform returned the installed credentials again),
      V(none).
  returned: success
  type: str
  sample: created
reason:
  description:
    - The first reason that applied, of V(absent), V(damaged), V(service_changed), V(hardware_id_changed), V(expired),
      V(forced), V(expiring), V(keys_expiring), V(max_age), V(refused), V(drift), V(none).
  returned: success
  type: str
  sample: absent
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
due_at:
  description: When the next renewal is due, in UTC; V(null) if no date makes one due.
  returned: success
  type: str
  sample: "2027-01-03T11:24:09Z"
thing:
  description:
    - The record of the bundle, as in C(thing.json), without any secret; V(null) if there is none.
    - With O(state=absent), the record of the removed credentials.
    - C(retired) is the present list; C(thing.json) has the list of the time when the generation was made.
  returned: success
  type: dict
  contains:
    record_version:
      description: The version of the file formats. A bundle of an older version is rendered again.
      type: int
    service:
      description: The service.
      type: str
    delivery:
      description: The deliveries, of V(mqtt), V(ntrip) and V(lband).
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
    login_sha256:
      description: A fingerprint of the user name, which identifies the Thing where the platform sends no client ID.
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
      description: The requested formats, or V(null).
      type: list
      elements: str
    templates_sha256:
      description: A digest of the templates, or V(null).
      type: str
    modes:
      description: The modes of the files that come from templates.
      type: dict
    origin:
      description:
        - Where the credentials came from, V(ztp), or with M(thingstream.ztp.thingstream_import) V(ucenter), V(files),
          V(fields) or V(store).
      type: str
    files:
      description: The files of the bundle and their SHA-256 digests.
      type: dict
    confirmed_at:
      description: When the platform last returned the same credentials again, in UTC.
      type: str
      returned: if it did
    retired:
      description:
        - Things that this host used before. They stay active on the platform until they are deactivated in the
          portal.
      type: list
      elements: dict
      contains:
        client_id:
          description: The client ID; V(null) if the platform sent none.
          type: str
        login_sha256:
          description: A fingerprint of the login, which identifies the Thing where the platform sent no client ID.
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
          description: When the host stopped using it, in UTC.
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
    - A stable code for the problem. Each code has a section on the page
      L(troubleshooting, https://github.com/thingstream/ansible-collection-ztp/blob/main/docs/troubleshooting.md).
  returned: failure
  type: str
  sample: not_allowed
status:
  description: The HTTP status of the response; V(null) if there was none.
  returned: failure
  type: int
  sample: 403
"""

#!/usr/bin/python
# SPDX-FileCopyrightText: The thingstream.ztp authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the action plugin of the same name does the work.

from __future__ import annotations

DOCUMENTATION = r"""
module: thingstream_import
short_description: Install Thingstream credentials that came from elsewhere
version_added: 1.0.0
author:
  - The thingstream.ztp authors (@thingstream)
description:
  - Installs credentials that were downloaded from the portal, that are in the inventory, or that are in a store on the
    controller. The module sends no request to the platform and creates no Thing.
  - A fleet that was provisioned by hand is adopted in this way. From then on M(thingstream.ztp.thingstream_ztp) renews
    its credentials.
  - If the host has valid credentials, they stay, because they may be newer than the source; see O(force). A certificate
    that has not expired counts as valid.
  - The source is one of O(ucenter_path), O(certificate_path), O(fields) and O(store_path). O(fields) can also be
    combined with O(ucenter_path) or O(certificate_path).
  - Files on the controller may be encrypted with Ansible Vault.
  - The source is read and checked on every run, before the host is changed. A file or field that cannot be used fails
    the task, also on a host that has valid credentials. An expired certificate fails it only where it would be
    installed.
extends_documentation_fragment:
  - thingstream.ztp.attributes
  - thingstream.ztp.attributes.changes
  - thingstream.ztp.location
  - thingstream.ztp.target
  - thingstream.ztp.content
  - thingstream.ztp.variables
options:
  ucenter_path:
    description:
      - A file on the controller with the JSON that the portal offers for u-center, of one Thing.
      - Topics, dynamic keys and the root CA may be missing or null. O(fields) can complete the file.
      - C(ServerURI) may have the scheme C(ssl), C(tls) or C(mqtts), or none. The default port is 8883.
      - C(Cert) and C(Key) may be Base64 without a PEM header, as the portal writes them, or PEM. C(Key) may be PKCS#1,
        PKCS#8 or SEC 1.
    type: path
  certificate_path:
    description:
      - A file on the controller with the client certificate in PEM, as the portal offers it, or in DER. O(fields) must
        hold the other fields of the credentials, at least V(client_id) and V(host).
      - The file may also hold issuers of the certificate, its key, and other text. The certificate to which the key
        belongs is installed, followed by its issuers.
    type: path
  private_key_path:
    description:
      - A file on the controller with the key of O(certificate_path), an RSA or elliptic-curve key in PEM or DER. A key
        with a pass phrase is refused; encrypt the file with Ansible Vault instead.
      - It may be the same file as O(certificate_path).
    type: path
  fields:
    description:
      - Fields of the credentials, by the names that O(field_map) lists, for example V(ntrip_username). They take
        precedence over the fields of O(ucenter_path). A field that is null or empty counts as not set.
      - Quote names, passwords and IDs. A number, a boolean or a date is refused, because YAML may have changed the
        value.
      - V(host) and V(ntrip_host) may be URLs without a login. Port and mount point are taken from the URL, and must
        agree with V(port), V(ntrip_port) and V(ntrip_mountpoint) if these are set. A slash before the mount point is
        removed.
      - V(ntrip_port) is a port without TLS, whatever its number. A port with TLS is V(ntrip_tls_port).
    type: dict
  store_path:
    description:
      - A bundle on the controller that M(thingstream.ztp.thingstream_ztp) made there with C(delegate_to=localhost),
        with or without C(vault_encrypted).
    type: path
  hardware_id:
    description:
      - The hardware ID of the Thing. It must be the one that M(thingstream.ztp.thingstream_ztp) uses later; with
        another one that module requests new credentials at once.
      - If not set, the hardware ID in O(store_path), or none.
    type: str
  given_name:
    description:
      - The name of the Thing in the portal.
      - If not set, the name in O(store_path), or the first 50 characters of the inventory name.
    type: str
  force:
    description:
      - Install the credentials of the source although the host has valid ones.
    type: bool
    default: false
seealso:
  - module: thingstream.ztp.thingstream_ztp
"""

EXAMPLES = r"""
- name: Adopt a download from the portal
  thingstream.ztp.thingstream_import:
    service: pointperfect
    ucenter_path: "portal/device-{{ thing_id }}-ucenter-config.json"
    hardware_id: "{{ imei }}"
  become: true

- name: Adopt a certificate and its key
  thingstream.ztp.thingstream_import:
    service: pointperfect
    certificate_path: "portal/device-{{ thing_id }}-pp-cert.crt"
    private_key_path: "portal/device-{{ thing_id }}-pp-key.pem"
    fields:
      client_id: "{{ thing_id }}"
      host: pp.services.u-blox.com
    hardware_id: "{{ imei }}"
  become: true

- name: Adopt an NTRIP login from the inventory
  thingstream.ztp.thingstream_import:
    service: pointperfect
    hardware_id: "{{ imei }}"
    fields:
      ntrip_host: ppntrip.services.u-blox.com
      ntrip_port: 2101
      ntrip_mountpoint: NEAR-RTCM
      ntrip_username: "{{ vault_ntrip_username }}"
      ntrip_password: "{{ vault_ntrip_password }}"
  become: true

- name: Install the credentials that the production line has stored
  thingstream.ztp.thingstream_import:
    service: pointperfect
    store_path: "{{ inventory_dir }}/store/{{ inventory_hostname }}"
    group: gnss
  become: true
"""

RETURN = r"""
action:
  description:
    - What was done, with the values of RV(thingstream.ztp.thingstream_ztp#module:action); in check mode, what would be
      done.
  returned: success
  type: str
  sample: created
reason:
  description: Why it was done, with the values of RV(thingstream.ztp.thingstream_ztp#module:reason).
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
thing:
  description:
    - The record of that generation.
    - See RV(thingstream.ztp.thingstream_ztp#module:thing).
  returned: success
  type: dict
  contains:
    retired:
      description: The Things that the host used before and that are not marked as deactivated.
      type: list
      elements: dict
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
  sample: bad_option
"""

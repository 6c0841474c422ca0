# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options for the files that are made from a response. Private to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of ``content_options.CONTENT_ARGUMENTS``."""

    DOCUMENTATION = r"""
options:
  formats:
    description:
      - The formats in which the credentials are written, beside the record C(thing.json) and the raw response
        C(credentials.json).
      - V(pem) writes C(ca.crt) and, where the Thing logs in with a certificate, C(client.crt), C(client.key), and both
        in C(client.pem).
      - V(env) writes C(credentials.env) for C(EnvironmentFile=) of systemd and for every POSIX shell.
      - V(env-plain) writes C(credentials.plain.env), the same variables without quotes, for C(--env-file) of podman and
        docker. A value that begins or ends with a blank is refused.
      - V(mosquitto) writes C(mosquitto.conf), a bridge section for C(include_dir) of mosquitto 2, and the files of
        V(pem).
      - V(topics) writes C(topics.txt), one MQTT topic in each line.
      - V(ucenter) writes C(ucenter-config.json), the JSON that the portal offers for u-center. PyGPSClient reads it,
        too.
      - V(pygnssutils) writes C(pygnssutils.env) and, for MQTT, C(device-ID-pp-cert.crt) and C(device-ID-pp-key.pem).
      - V(gpsd) writes C(gpsd.url), an C(ntrip://) URL without percent-encoding, which gpsd would not decode.
        V(str2str) writes C(str2str.args), the arguments for RTKLIB, quoted for a shell or C(xargs). Both programs show
        the password in the list of processes.
      - A format that does not fit the O(service), or the requested delivery, is refused before the request. A format
        that cannot hold the received credentials, such as V(gpsd) with a user and a password of more than 44 bytes, is
        refused after the request. The response is kept, and the next run installs it.
      - If not set, V(pem) and V(env), if the credentials have the fields for them.
    type: list
    elements: str
    choices: [env, env-plain, gpsd, mosquitto, pem, pygnssutils, str2str, topics, ucenter]
  templates:
    description:
      - Your own templates. They are rendered on the controller, with the record as C(thing) and all fields of the
        credentials in C(credentials), and are installed and switched together with the other files of the generation.
      - C(credentials) has the fields that O(field_map) lists. C(subscriptions) is a list of C(path) and
        C(description); C(keys_current) and C(keys_next) have C(value), C(start) and C(end).
      - A file is rendered again, from the installed response, when its template changes. A change of a variable or of
        a file that the template includes is not detected; use O(force) or another O(templates[].dest).
      - If a template fails, the host is not changed. The error names the template only, because the message of the
        template engine could contain a secret.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description:
          - The template. It is searched for as by M(ansible.builtin.template).
        type: str
        required: true
      dest:
        description:
          - The name of the file.
          - If not set, the name of the template without C(.j2).
        type: str
      mode:
        description:
          - The mode of the file, in octal digits.
        type: raw
        default: "0640"
  field_map:
    description:
      - Where the response holds a field, as a JMESPath expression for each field that differs from the built-in
        expressions. The platform changes its responses without a version, and the names that CloudLocate and
        PointPerfect Live use are not public.
      - Fields are V(client_id), V(host), V(port), V(username), V(password), V(certificate), V(private_key),
        V(subscriptions), V(keys_current), V(keys_next), V(ntrip_host), V(ntrip_port), V(ntrip_tls_port),
        V(ntrip_mountpoint), V(ntrip_username) and V(ntrip_password).
      - If a response lacks a required field, the error lists the names that the response has. The response is kept, so
        that the next run with a corrected O(field_map) sends no further request.
    type: dict
    default: {}
  broker_ca_path:
    description:
      - A file on the controller that becomes C(ca.crt), the CA with which a consumer verifies the broker.
      - If not set, Amazon Root CA 1 (seen in client code) from the CA bundle of the Python library requests.
    type: path
"""

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say which files are made of credentials. Private to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """The options ``formats`` and ``templates``."""

    DOCUMENTATION = r"""
options:
  formats:
    description:
      - The forms in which the credentials are written down, beside the record C(thing.json) and the raw response
        C(credentials.json).
      - V(pem) writes C(ca.crt) and, where the Thing logs in with a certificate, C(client.crt), C(client.key) and both
        in C(client.pem).
      - V(env) writes C(credentials.env), which C(EnvironmentFile=) of systemd and every POSIX shell can read.
      - V(mosquitto) writes C(mosquitto.conf), a bridge section for C(include_dir) of mosquitto 2, with the files of
        V(pem).
      - V(topics) writes C(topics.txt), one MQTT topic in each line.
      - V(ucenter) writes C(ucenter-config.json), as the portal offers it for u-center; PyGPSClient reads it, too.
      - V(pygnssutils) writes C(pygnssutils.env) and, for MQTT, C(device-ID-pp-cert.crt) and C(device-ID-pp-key.pem).
      - V(gpsd) writes C(gpsd.url), the C(ntrip://) URL with every character as it is, because gpsd takes no
        percent-encoding back out. V(str2str) writes C(str2str.args), the arguments for RTKLIB, quoted for a shell or
        C(xargs). Both programs show the password in the list of processes.
      - A format that no delivery of the O(service), or not the delivery that is asked for, can serve is refused before
        the request. One that cannot hold these very credentials, such as V(gpsd) where user and password have
        more than 44 bytes, is refused when they have arrived; they are kept, and the next run installs them.
      - If not set, V(pem) and V(env), as far as the credentials can serve them.
    type: list
    elements: str
    choices: [env, gpsd, mosquitto, pem, pygnssutils, str2str, topics, ucenter]
  templates:
    description:
      - The user's own templates, rendered on the controller with the record as C(thing) and every field of the
        credentials in C(credentials), and put beside the other files of the generation, so that one switch covers them,
        too.
      - What C(credentials) has is named like the fields of O(field_map). C(subscriptions) is a list of C(path) and
        C(description), C(keys_current) and C(keys_next) have C(value), C(start) and C(end).
      - A file is rendered again when its template changes, from the installed response. Where only a variable or
        a file that it uses has changed, nothing tells; O(force) or another O(templates[].dest) does it.
      - A template that fails leaves the host as it was, and its error says no more than which one it was.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description:
          - The template, looked for as by M(ansible.builtin.template).
        type: str
        required: true
      dest:
        description:
          - The name of the file.
          - If not set, the name of the template without C(.j2).
        type: str
      mode:
        description:
          - Its mode in octal digits.
        type: raw
        default: "0640"
"""

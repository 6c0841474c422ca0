# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options for modes, generations and hooks of a bundle, in addition to those of location. Private to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of ``target_options.TARGET_ARGUMENTS`` that the fragment ``location`` does not have."""

    DOCUMENTATION = r"""
options:
  directory_mode:
    description:
      - The mode of O(path) and of the directories in it, in octal digits. Other users must not have write access.
    type: raw
    default: "0750"
  secret_mode:
    description:
      - The mode of files that hold a secret, in octal digits. It must not give access to users other than owner and
        group.
      - Certificates and topics always have mode V(0644), the record C(thing.json) V(0640), and the raw response
        V(0600).
    type: raw
    default: "0640"
  keep:
    description:
      - The number of previous generations that stay on the host for a rollback.
    type: int
    default: 2
  reload_command:
    description:
      - A command on the host that makes consumers read the files again, as C(sh) code, for example
        V(systemctl reload mosquitto). It runs as the user that runs the commands there, after each switch to other
        files and after their removal.
      - The output of O(reload_command) and O(health_command) is not read.
    type: str
  health_command:
    description:
      - A command on the host that succeeds once consumers work with the new files. It is repeated until it succeeds.
      - If it does not succeed within O(health_timeout), or if O(reload_command) fails, the host itself reverts to the
        previous generation and reloads again, even without a connection. The task fails with C(health_check_failed).
        The failed generation stays beside the others, under a name that ends with C(-failed).
    type: str
  health_timeout:
    description:
      - How many seconds O(reload_command), and O(health_command) with all its repetitions, may take.
    type: float
    default: 30
"""

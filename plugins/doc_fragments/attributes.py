# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that the modules share. Private to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of modules that are carried out by an action plugin."""

    DOCUMENTATION = r"""
options: {}
attributes:
  action:
    description: Indicates that a corresponding action plugin does the work, in the process of Ansible itself.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  become:
    description: Works with C(become), by every method that can carry standard input.
    support: full
  delegation:
    description: Works on the host it is delegated to. With C(delegate_to=localhost), the bundle is on the controller.
    support: full
  platform:
    description: Supported systems.
    platforms: posix
    support: full
    details:
      - Any Linux with a POSIX shell, C(tar) and C(sha256sum), also BusyBox. The host needs no Python.
"""

    CHANGES = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns what has changed, or would change, in diff mode.
    support: full
    details:
      - The diff shows records, which hold no secret.
  idempotent:
    description: Changes nothing when it runs again.
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns what has changed, or would change, in diff mode.
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    description: Changes nothing when it runs again.
    support: full
"""

    FILES = r"""
options: {}
attributes:
  become:
    description: Works with C(become), which makes no difference, because nothing runs on a host.
    support: N/A
  check_mode:
    description: Can run in check mode and return status prediction without modifying target.
    support: full
  delegation:
    description: Can be delegated, which makes no difference, because nothing runs on a host.
    support: N/A
  diff_mode:
    description: Returns what has changed, or would change, in diff mode.
    support: none
  idempotent:
    description: Changes nothing when it runs again.
    support: none
    details:
      - The files contain the time at which they were written.
"""

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option that takes other options from variables. Private to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """The option of ``base.VARIABLES_ARGUMENTS``."""

    DOCUMENTATION = r"""
options:
  variables_prefix:
    description:
      - Take each option that the task does not set from the variable with this prefix and the name of the option, if
        that variable exists. With V(thingstream_gateway_), which the role uses, C(group) comes from
        C(thingstream_gateway_group).
      - A task that lists all options as templates costs more time on each host than the rest of the job.
      - Every variable that begins with the prefix must be an option of this collection. An unknown name is refused,
        because it may be a misspelled one.
    type: str
"""

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection that runs commands here and writes down, for each, how many bytes were sent, in lines of a file."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = r"""
name: counting
short_description: A local connection that counts
description: For tests.
extends_documentation_fragment: [connection_pipelining]
"""


class Connection(Local):  # type: ignore[misc]  # Ansible has no types
    """As the local connection; TEST_COMMANDS names the file."""

    transport = "counting"

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> Any:
        with open(os.environ["TEST_COMMANDS"], "a", encoding="utf-8") as file:
            file.write(f"{len(cmd) + len(in_data or b'')}\n")
        return super().exec_command(cmd, in_data=in_data, sudoable=sudoable)

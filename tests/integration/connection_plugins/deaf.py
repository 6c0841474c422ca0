# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection that runs commands here but cannot carry standard input, as some connection plugins cannot."""

from __future__ import annotations

from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = r"""
name: deaf
short_description: A local connection without standard input
description: For tests.
extends_documentation_fragment: [connection_pipelining]
"""


class Connection(Local):  # type: ignore[misc]  # Ansible has no types
    """As the local connection, but without pipelining."""

    transport = "deaf"
    has_pipelining = False

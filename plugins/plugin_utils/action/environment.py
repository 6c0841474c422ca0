# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep secrets in the environment of the controller away from the programs that a task starts.

A local connection passes the whole environment of Ansible on to the commands of a gateway, and ssh passes on what
``SendEnv`` selects.

Private to the collection.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

PREFIX = "THINGSTREAM_"  # of the variables that give options and passwords, THINGSTREAM_ZTP_TOKEN among them
_MIN_LENGTH = (
    16  # characters of a token that is looked for within other values; real ones have 36 (seen in client code)
)


@contextlib.contextmanager
def without_secrets(token: str | None) -> Iterator[None]:
    """Remove variables from the environment while programs are started.

    Removed are those whose name begins with ``PREFIX``, and those whose value contains the token, whatever their name:
    a playbook may read it with the lookup ``env``.

    :param token: of the device profile, if the task has one.
    """
    hidden = {
        name: value for name, value in os.environ.items() if name.startswith(PREFIX) or _shows(value, token or "")
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _shows(value: str, token: str) -> bool:
    return bool(token) and (value == token or (len(token) >= _MIN_LENGTH and token in value))

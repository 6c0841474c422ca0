# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for real programs and other processes, which take long on a busy machine; success ends every wait early."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300  # seconds


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Wait for a condition, and return whether it becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False

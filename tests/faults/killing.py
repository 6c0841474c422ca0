# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills a run of the controller at a chosen call or return of a function of the collection.

Points are numbered in the order in which a run comes by. Nothing of the collection is replaced.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

MODULES = ("provision", "answers", "responses", "commands", "api")
UNSEEN = ("commands._", "<")  # what only reads what a gateway has printed, and functions without a name

# (number from 1 on, name such as "responses.store return")
OnPoint = Callable[[int, str], None]


def watch(on_point: OnPoint) -> None:
    """Calls back at every call and return of a function in MODULES from now on, in this process and its children."""
    count = 0

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        if event not in ("call", "return"):
            return
        folder, _slash, file = frame.f_code.co_filename.rpartition("/")
        module = file.removesuffix(".py")
        name = f"{module}.{frame.f_code.co_name}"
        if module not in MODULES or "/plugin_utils/" not in folder or any(part in name for part in UNSEEN):
            return
        count += 1
        on_point(count, f"{name} {event}")

    sys.setprofile(profile)


def kill(*groups: int) -> None:
    """SIGKILL for these process groups; this process's own is the last."""
    own = os.getpgrp()
    for group in groups:
        if group != own:
            os.killpg(group, signal.SIGKILL)
    os.killpg(own, signal.SIGKILL)

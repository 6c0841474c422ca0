# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill a run of the controller at a chosen call or return of a function of the collection.

Points are numbered in the order in which a run passes them, those of the thread that receives a response among them.
Nothing of the collection is replaced.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

MODULES = (
    "ensure",
    "observe",
    "plan",
    "apply",
    "request",
    "directory",
    "responses",
    "requests",
    "ledger",
    "commands",
    "api",
    "transport",
)
# functions without a name, and what only reads: it has no effect that a kill could cut in two
UNSEEN = ("<", "plan._", "observe._", "ledger._", "directory.service_of")

# (number from 1 on, name such as "responses.store return")
OnPoint = Callable[[int, str], None]


def watch(on_point: OnPoint) -> None:
    """Call back at every call and return of a function in MODULES, in this process, its children and its threads."""
    numbers = itertools.count(1)

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event not in ("call", "return"):
            return
        folder, _slash, file = frame.f_code.co_filename.rpartition("/")
        module = file.removesuffix(".py")
        name = f"{module}.{frame.f_code.co_name}"
        if module not in MODULES or "/plugin_utils/" not in folder or any(part in name for part in UNSEEN):
            return
        on_point(next(numbers), f"{name} {event}")

    threading.setprofile(profile)
    sys.setprofile(profile)


def kill(*groups: int) -> None:
    """Send SIGKILL to these process groups, and to that of this process last."""
    own = os.getpgrp()
    for group in groups:
        if group != own:
            os.killpg(group, signal.SIGKILL)
    os.killpg(own, signal.SIGKILL)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill ansible-playbook, with all its workers, at the point that KILL_AT names; Python runs this when it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if "KILL_AT" in os.environ:
    point = os.environ.pop("KILL_AT")  # for this process and its forks, and for no program that they start
    os.environ.pop("PYTHONPATH")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from faults import killing

    os.setsid()  # the process that started it survives
    leader = os.getpid()
    killing.watch(lambda _number, name: killing.kill(leader) if name == point else None)

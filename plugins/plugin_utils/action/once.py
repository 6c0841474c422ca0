# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do something once for all hosts of a task.

Each host runs in a process of its own, so that the result is kept in the directory for temporary files that all
processes of a run share, and that is removed when the run ends.

Private to the collection.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def once(cache: Path, compute: Callable[[], Any]) -> Any:
    """Return what the first process has computed; the others wait for it.

    :param cache: a file of this task, in a directory that exists.
    :param compute: returns what JSON can hold, and no secret.
    """
    with cache.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        if not text:
            text = json.dumps(compute())
            file.write(text)
        return json.loads(text)

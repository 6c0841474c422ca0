# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-playbook with a profile of its main process and of every worker: `profiled.py DIRECTORY ARGUMENTS`.

`main.pstats` and `worker-<pid>.pstats` are written to the directory. `profile_run.py` uses it.
"""

from __future__ import annotations

import cProfile
import os
import sys
import time
from pathlib import Path

from ansible.cli.playbook import main
from ansible.executor.process.worker import WorkerProcess


def profile_workers(directory: Path, of_main: cProfile.Profile) -> None:
    """Let each worker write a profile of its own when it has sent its result."""
    work = WorkerProcess._run

    def run(worker: WorkerProcess) -> None:
        of_main.disable()  # the fork has inherited it
        profile = cProfile.Profile(time.process_time)
        try:
            profile.runcall(work, worker)
        finally:
            # renamed once it is complete, because Ansible ends its last workers
            partial = directory / f"{os.getpid()}.partial"
            profile.dump_stats(partial)
            partial.rename(directory / f"worker-{os.getpid()}.pstats")

    WorkerProcess._run = run


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    profile = cProfile.Profile(time.process_time)
    profile_workers(directory, profile)
    try:
        profile.runcall(main, ["ansible-playbook", *sys.argv[2:]])
    finally:
        profile.dump_stats(directory / "main.pstats")

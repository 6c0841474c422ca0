# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the simulator and runs the playbook beside this file against it, with the arguments of ansible-test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from simulator.client import start


def main() -> int:
    """Return the exit status of the playbook."""
    with tempfile.TemporaryDirectory() as name, start(Path(name) / "simulator", key_pool=3) as simulator:
        variables = {
            "work": name,
            "first_token": simulator.put_profile("flex", service="pointperfect", plan="both"),
            "api_url": simulator.url,
            "simulator_ca": str(simulator.ca_path),
        }
        settings = Path(name) / "variables.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(variables))
        command = ["ansible-playbook", "playbook.yml", "-i", "localhost,", "-c", "local", "-e", f"@{settings}"]
        return subprocess.run([*command, *sys.argv[1:]], env=os.environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

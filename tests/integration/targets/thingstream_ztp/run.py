# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the simulator and run the playbook beside this file against it, with the arguments of ansible-test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from simulator.client import RunningSimulator, start

LOOKS_LIKE_A_TEMPLATE = "{{ 7*7 }}{% if %}{#"


def main() -> int:
    """Return the exit status of the playbook."""
    with tempfile.TemporaryDirectory() as name, start(Path(name) / "simulator", key_pool=3) as simulator:
        variables = {
            "work": name,
            "first_token": simulator.put_profile("flex", service="pointperfect", plan="both"),
            "api_url": simulator.url,
            "simulator_ca": str(simulator.ca_path),
        }
        write_vaulted(Path(name), simulator)
        settings = Path(name) / "variables.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(variables))
        command = ["ansible-playbook", "playbook.yml", "-i", "localhost,", "-c", "local", "-e", f"@{settings}"]
        command += ["--vault-password-file", str(Path(name) / "password")]
        return subprocess.run([*command, *sys.argv[1:]], env=os.environ, check=False).returncode


def write_vaulted(directory: Path, simulator: RunningSimulator) -> None:
    """Write variables with values that Ansible Vault has encrypted inline."""
    (directory / "password").write_text("open sesame")
    token = simulator.put_profile("login", service="cloudlocate")
    expression = json.dumps(LOOKS_LIKE_A_TEMPLATE).replace("{", "\\u007b")
    plain = {
        "vaulted_service": "cloudlocate",
        "vaulted_path": str(directory / "vaulted"),
        "vaulted_api_url": simulator.url,
        "vaulted_ca_path": str(simulator.ca_path),
        "vaulted_broker_ca_path": str(simulator.ca_path),
        "vaulted_spool_path": str(directory / "spool"),
        "vaulted_templates": [{"src": "password.j2"}],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in plain.items()]
    lines += [encrypted(directory, "vaulted_token", token), encrypted(directory, "vaulted_hardware_id", "gateway-2")]
    field_map = encrypted(directory, "password", f"`{expression}`")
    lines += ["vaulted_field_map:", *(f"  {line}" for line in field_map.splitlines())]
    (directory / "vaulted.yml").write_text("\n".join(lines) + "\n")


def encrypted(directory: Path, name: str, value: str) -> str:
    """Return a line of YAML, and those that continue it."""
    command = ["ansible-vault", "encrypt_string", "--vault-password-file", str(directory / "password"), "--name", name]
    return subprocess.run([*command, value], check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip()


if __name__ == "__main__":
    sys.exit(main())

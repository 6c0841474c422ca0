# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the main job in the image of an execution environment, over SSH: tests/environment/image.py IMAGE.

It runs the image as AWX does: ansible-runner, as a user other than root, with everything mounted at /runner. Needs root
and podman.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from gateways.fleet import fleet  # noqa: E402
from simulator.client import start  # noqa: E402

GATEWAYS = 3
USER = 1000
IN_IMAGE = Path("/runner")


def main() -> int:
    """Provision gateways twice; return the exit status of the process."""
    image = sys.argv[1]
    with tempfile.TemporaryDirectory() as work, start(Path(work, "simulator")) as simulator:
        runner = Path(work, "runner")
        for name in ("env", "inventory", "project", "spool"):
            (runner / name).mkdir(parents=True, mode=0o700)
        with fleet(Path(work), debian=GATEWAYS) as gateways:
            secrets = {name: (gateways.where / name).read_text() for name in ("id", "known_hosts")}
            ssh = f"-i {IN_IMAGE}/env/id -o UserKnownHostsFile={IN_IMAGE}/env/known_hosts"
            inventory = gateways.inventory.read_text().splitlines()
            kept = [line for line in inventory if not line.startswith(("ansible_ssh_common", "ansible_control_path"))]
            (runner / "inventory" / "hosts").write_text("\n".join([*kept, ""]))
            variables = {
                "service": "pointperfect",
                "token": simulator.put_profile("image", service="pointperfect", hardware_code_mandatory=True),
                "hardware_id": "{{ 'imei-' ~ inventory_hostname }}",
                "group": "thingstream",
                "api_url": simulator.url,
                "ca_path": f"{IN_IMAGE}/env/ca.crt",
                "spool_path": f"{IN_IMAGE}/spool",
                "allow_volatile": True,
            }
            extra = {f"thingstream_gateway_{name}": value for name, value in variables.items()}
            secrets["extravars"] = yaml.safe_dump({**extra, "ansible_ssh_common_args": ssh})
            secrets["ca.crt"] = Path(simulator.ca_path).read_text()
            for name, content in secrets.items():
                (runner / "env" / name).write_text(content)
                (runner / "env" / name).chmod(0o600)
            for path in (runner, *runner.rglob("*")):
                os.chown(path, USER, 0)

            command = ["podman", "run", "--rm", "--network", "host", "--user", f"{USER}:0"]
            command += ["--volume", f"{runner}:{IN_IMAGE}", image]
            subprocess.run([*command, "ansible", "--version"], check=True)
            for action in ("created", "none"):
                subprocess.run(
                    [*command, "ansible-runner", "run", IN_IMAGE, "-p", "thingstream.ztp.provision", "--ident", action],
                    check=True,
                )
                requests = Counter(entry["hardware_id"] for entry in simulator.requests())
                assert requests == {f"imei-gw{number}": 1 for number in range(1, GATEWAYS + 1)}, requests
            for number in range(1, GATEWAYS + 1):
                current = gateways.root(f"gw{number}") / "etc/thingstream/pointperfect/current"
                assert (current / "credentials.env").stat().st_mode & 0o777 == 0o640
    print(f"The main job works in {image}: {GATEWAYS} gateways, one request each, none in the second run")
    return 0


if __name__ == "__main__":
    sys.exit(main())

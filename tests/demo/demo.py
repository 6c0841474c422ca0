# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the main job: a simulator of the platform, a fleet of directories here, and the playbook `provision`.

Needs neither root nor a token nor a network beyond loopback. Everything it writes is below `.cache/demo`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from simulator.client import RunningSimulator, start  # noqa: E402

WORK = PROJECT / ".cache" / "demo"
# In a checkout, `make setup` links the collection below .cache; an installed collection is found where it is.
INSTALLED = PROJECT.parts[-3:] == ("ansible_collections", "thingstream", "ztp")
COLLECTIONS = PROJECT.parents[2] if INSTALLED else PROJECT / ".cache"
PLAYBOOK = "thingstream.ztp.provision"

# device profile: its settings; PointPerfect Flex by NTRIP is what new fleets use
ROVERS = ("rover-1", "rover-2")
PROFILES: dict[str, dict[str, Any]] = {
    "rovers": {
        "service": "pointperfect",
        "format": "RTCM",
        "client_protocol": "NTRIP",
        "allow_list": ROVERS,
        "hardware_code_mandatory": True,
    },
    "rovers by MQTT": {"service": "pointperfect", "client_protocol": "MQTT"},
    "bases": {"service": "pointperfect-live"},
    "trackers": {"service": "cloudlocate"},
}
# gateway: device profile
FLEET = {
    **dict.fromkeys(ROVERS, "rovers"),
    "rover-3": "rovers by MQTT",
    "base-1": "bases",
    "tracker-1": "trackers",
    "tracker-2": "trackers",
}
STRANGER = "stranger-1"  # has the token of the rovers, whose profile does not list it


def main() -> int:
    """Run the demonstration; return the exit status of the process."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    title("The platform: a simulator on loopback, with TLS and a certification authority made for this run")
    with start(WORK / "simulator") as simulator:
        print(f"listening on {simulator.url}")
        write_inventory(simulator)

        title(f"First run: ansible-playbook {PLAYBOOK} -i inventory.yml")
        complete = provision(FLEET)
        print(f"\nrequests at the platform: {len(simulator.requests())}, Things: {len(simulator.things())}")
        show_things()
        for gateway in ("rover-1", "rover-3", "tracker-1"):
            show_files(gateway)

        title("Second run: nothing is due, so nothing changes and no request is sent")
        simulator.clear_requests()
        complete &= provision(FLEET)
        print(f"\nrequests at the platform: {len(simulator.requests())}")

        title("The login of rover-2 is damaged, that of tracker-2 readable by everyone: a run repairs both")
        (current("rover-2") / "credentials.env").write_text("damaged")
        (current("tracker-2") / "credentials.env").chmod(0o644)
        complete &= provision(FLEET)
        for gateway in ("rover-2", "tracker-2"):
            show_files(gateway, "credentials.env")
        print(f"\nrequests at the platform: {len(simulator.requests())}")

        title("A gateway that is not on the allow-list fails with a clear error and stops no other")
        simulator.clear_requests()
        refused = not provision({**FLEET, STRANGER: "rovers"})
        print(f"\nrequests at the platform: {len(simulator.requests())}")
    print(f"\nLook around in {WORK}")
    return 0 if complete and refused else 1


def write_inventory(simulator: RunningSimulator) -> None:
    """Make the device profiles, and an inventory that uses their tokens."""
    tokens = {name: simulator.put_profile(name, **settings) for name, settings in PROFILES.items()}
    lines = ["all:", "  vars:", "    ansible_connection: local"]
    common = {"api_url": simulator.url, "ca_path": simulator.ca_path, "spool_path": WORK / "spool"}
    lines += [f"    thingstream_gateway_{name}: {value}" for name, value in common.items()]
    lines += ["  hosts:"]
    for gateway, profile in {**FLEET, STRANGER: "rovers"}.items():
        options = {
            "service": PROFILES[profile]["service"],
            "token": tokens[profile],
            "hardware_id": gateway,
            "path": WORK / "gateways" / gateway / "thingstream",
        }
        lines += [f"    {gateway}:"]
        lines += [f"      thingstream_gateway_{name}: {value}" for name, value in options.items()]
    inventory = WORK / "inventory.yml"
    inventory.write_text("\n".join(lines) + "\n")
    inventory.chmod(0o600)


def provision(gateways: dict[str, str]) -> bool:
    """Run the playbook over some gateways and print Ansible's output, shortened; return whether all succeeded."""
    command = [f"{sys.prefix}/bin/ansible-playbook", PLAYBOOK, "-i", str(WORK / "inventory.yml")]
    configuration = WORK / "ansible.cfg"
    configuration.write_text("[defaults]\nforks = 10\nnocolor = true\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "THINGSTREAM_"))},
        "ANSIBLE_CONFIG": str(configuration),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_HOME": str(WORK / "ansible"),
    }
    run = subprocess.run(
        [*command, "--limit", ",".join(gateways)], env=environment, capture_output=True, text=True, check=False
    )
    summed_up = False
    for line in run.stdout.splitlines() + run.stderr.splitlines():
        if line.startswith(("TASK", "PLAY RECAP")):
            summed_up = line.startswith("TASK") and "Ensure credentials" not in line
        if summed_up:
            continue
        match = re.match(r"(fatal: \[[^]]+\]: FAILED!) .*\"error_code\": \"(\w+)\".*\"msg\": \"(.*?)\"[,}]", line)
        if match:
            print(f"{match.group(1)} {match.group(2)}: {match.group(3)}")
        elif re.match(r"(changed|ok|unreachable): \[|\S+ +: ok=", line):
            print(re.sub(r" +(unreachable|skipped|rescued|ignored)=0", "", line).rstrip())
    if "PLAY RECAP" not in run.stdout:
        raise SystemExit(f"ansible-playbook did not run: {run.stderr or run.stdout}")
    return run.returncode == 0


def current(gateway: str) -> Path:
    """Return the directory that consumers on a gateway read."""
    return WORK / "gateways" / gateway / "thingstream" / "current"


def show_things() -> None:
    """Print what the record of each gateway says."""
    print(f"\n{'gateway':10} {'service':18} {'delivery':9} {'caster or client ID':44} {'ends':11} keys end")
    for gateway in FLEET:
        thing = json.loads((current(gateway) / "thing.json").read_text())
        caster = f"{thing['ntrip_host']}/{thing['ntrip_mountpoint']}"
        name = thing["client_id"].removeprefix("device:") if thing["client_id"] else caster
        dates = [(thing[date] or "-")[:10] for date in ("not_after", "keys_expire_at")]
        print(f"{gateway:10} {thing['service']:18} {'+'.join(thing['delivery']):9} {name:44} {dates[0]:11} {dates[1]}")


def show_files(gateway: str, *names: str) -> None:
    """Print mode, owner, size in bytes and name of files on a gateway."""
    directory = current(gateway)
    print(f"\n{directory.relative_to(WORK)} -> {os.readlink(directory)}")
    for name in names or sorted(os.listdir(directory)):
        status = (directory / name).stat()
        print(f"  {stat.filemode(status.st_mode)}  {(directory / name).owner():8} {status.st_size:6}  {name}")


def title(text: str) -> None:
    """Print the headline of a step."""
    print(f"\n=== {text}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())

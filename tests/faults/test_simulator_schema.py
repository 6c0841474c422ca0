# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator against its own interface: what it documents is what it does, and no request makes it fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faults.conftest import Trial
from integration.ansible_run import PROJECT
from simulator.client import start

SERVICES = ("pointperfect", "pointperfect-live", "cloudlocate")
# Rules between fields (RTCM is not delivered by MQTT, a redirect needs a location) refuse what each field would allow.
NOT_IN_A_SCHEMA = "--exclude-checks=positive_data_acceptance"
# A fault that waits would be the failure of another operation. What replaces profiles may replace those that are used
# here, so that only the platform's part alone gets as far as a Thing everywhere for certain.
SELECTIONS = {
    "Simulator: interface": ("--exclude-path", "/simulator/faults"),
    "Simulator: platform": ("--include-path-regex", "^/ztp/"),
    "Simulator: faults": ("--include-path", "/simulator/faults"),
}


@pytest.mark.parametrize(
    "name", [name if "platform" in name else pytest.param(name, marks=pytest.mark.full) for name in SELECTIONS]
)
def test_the_simulator_keeps_to_its_schema(name: str, full: bool, trials: Trial, tmp_path: Path) -> None:
    with start(tmp_path / "simulator", key_pool=40 if full else 5) as simulator:
        tokens = {
            f"TOKEN_{service.replace('-', '_')}": simulator.put_profile(service, service=service, plan="mqtt")
            for service in SERVICES
        }
        run = subprocess.run(
            [
                f"{sys.prefix}/bin/schemathesis", "run", f"{simulator.url}/simulator/openapi.json",
                f"--tls-verify={simulator.ca_path}", "--checks=all", NOT_IN_A_SCHEMA, "--continue-on-failure",
                "--no-color", f"--phases={'coverage,fuzzing' if full else 'fuzzing'}",
                f"--max-examples={200 if full else 4}",
                *(("--generation-database=none",) if full else ("--seed=1", "--generation-deterministic")),
                *SELECTIONS[name],
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                **tokens,
                "PYTHONPATH": str(PROJECT / "tests"),
                "SCHEMATHESIS_HOOKS": "faults.schemathesis_hooks",
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )  # fmt: skip
        made = simulator.things()
    cases = re.search(r"(\d+) generated", run.stdout)
    assert cases, run.stdout + run.stderr
    for _case in range(int(cases.group(1))):
        with trials(name):
            assert run.returncode == 0, run.stdout[-8000:]
    if "faults" not in name:
        services = {thing["service"] for thing in made}
        assert services, "some requests got as far as a Thing"
        assert services == set(SERVICES) or not full or "interface" in name

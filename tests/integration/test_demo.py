# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration shows what the README promises of it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from integration.ansible_run import PROJECT


@pytest.mark.full
def test_the_demonstration() -> None:
    run = subprocess.run(
        [sys.executable, "tests/demo/demo.py"], cwd=PROJECT, capture_output=True, text=True, timeout=180, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    _platform, first, second, repaired, refused = re.split(r"^=== ", run.stdout, flags=re.MULTILINE)[1:]
    assert len(re.findall(r"^changed: \[", first, re.MULTILINE)) == 6
    assert "requests at the platform: 6, Things: 6" in first
    assert re.search(r"-rw-r----- +\w+ +\d+  client\.key", first)
    assert re.search(r"-rw------- +\w+ +\d+  credentials\.json", first)
    assert second.count("changed=0") == 6
    assert "requests at the platform: 0" in second
    assert sorted(re.findall(r"^changed: \[(.+)\]", repaired, re.MULTILINE)) == ["rover-2", "tracker-2"]
    assert "requests at the platform: 0" in repaired
    assert re.search(r"fatal: \[stranger-1\]: FAILED! not_allowed: .*allow-list", refused)
    assert len(re.findall(r"^ok: \[", refused, re.MULTILINE)) == 6

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real mosquitto on loopback that trusts the simulator's CA."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration.ansible_run import PROJECT
from integration.patience import eventually
from simulator.client import RunningSimulator

PROGRAMS = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
# Another address of loopback, so that no program on the well-known port is in the way.
PLAIN = ("127.0.0.83", 1883)

_FILES = {"cafile": "ca.crt", "certfile": "server.crt", "keyfile": "server.key"}


@dataclass(frozen=True)
class Broker:
    """A mosquitto that runs."""

    port: int
    log_file: Path

    def log(self, expected: str) -> bool:
        """Return whether a text appears in its log in time."""
        return eventually(lambda: expected in self.log_file.read_text())


def simulate(*arguments: object) -> None:
    """Run a command of the simulator."""
    command = [sys.executable, "-m", "simulator", *map(str, arguments)]
    subprocess.run(command, cwd=PROJECT / "tests", check=True, capture_output=True)


@contextmanager
def running_broker(
    simulator: RunningSimulator,
    work: Path,
    options: str,
    address: tuple[str, int] = ("127.0.0.1", 0),
    name: str = "localhost",
) -> Iterator[Broker]:
    """Run a mosquitto with a certificate of the simulator's CA until the block ends, with TLS except at ``PLAIN``.

    :param options: lines of configuration for its one listener.
    :param name: the host name in its certificate, in addition to 127.0.0.1.
    """
    program = shutil.which("mosquitto", path=PROGRAMS)
    if program is None:
        pytest.skip("mosquitto is not installed")
    tls = ["server-certificate", simulator.directory, "--name", name, "--address", "127.0.0.1"]
    simulate(*tls, "--output", work)
    with socket.create_server(address) as free:
        port: int = free.getsockname()[1]
    lines = ["per_listener_settings true", "log_type all", "user root", f"listener {port} {address[0]}", options]
    if port != PLAIN[1]:
        lines += [f"{name} {work}/{file}" for name, file in _FILES.items()]
    (work / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    log_file = work / "log"
    with log_file.open("w") as log:
        process = subprocess.Popen([program, "-c", str(work / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        assert Broker(port, log_file).log(" running"), log_file.read_text()
        yield Broker(port, log_file)
    finally:
        process.terminate()
        process.wait(timeout=60)

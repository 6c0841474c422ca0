# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Start the simulator from a test or a demonstration, and talk to its interface. Needs `requests` only."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import requests

TESTS = Path(__file__).resolve().parents[1]
READY_SECONDS = 600  # a large key pool takes a while
STOP_SECONDS = 10


@dataclass
class RunningSimulator:
    """A simulator in a process of its own; as a context manager it stops that process, and no other, at the end."""

    url: str
    ca_path: Path
    directory: Path
    process: subprocess.Popen[str]
    session: requests.Session

    def post(self, token: str, service: str = "pointperfect", **fields: Any) -> requests.Response:
        """Ask for credentials as a gateway would, over a connection of its own; `fields` such as hardwareId."""
        return requests.post(
            f"{self.url}/ztp/{service}/credentials",
            json={"token": token, **fields},
            verify=str(self.ca_path),
            timeout=20,
            allow_redirects=False,
        )

    def put_profile(self, name: str = "default", **settings: Any) -> str:
        """Add or replace the device profile `name` and return its token."""
        return str(self._call("PUT", f"profiles/{name}", settings)["token"])

    def requests(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the logged requests; `wanted` may have service, hardware_id, profile, thing, status and after."""
        found: list[dict[str, Any]] = self._call("GET", "requests", params=wanted)["requests"]
        return found

    def clear_requests(self) -> None:
        """Forget all logged requests."""
        self._call("DELETE", "requests")

    def add_fault(self, kind: str, **details: Any) -> None:
        """Append a fault to the queue; by default it is for the next request."""
        self._call("POST", "faults", {"kind": kind, **details})

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that wait."""
        found: list[dict[str, Any]] = self._call("GET", "faults")
        return found

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._call("DELETE", "faults")

    def things(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the Things; `wanted` may have service, hardware_id, profile and status."""
        found: list[dict[str, Any]] = self._call("GET", "things", params=wanted)
        return found

    def activate(self, thing: str) -> None:
        """Activate the Thing with this id."""
        self._call("POST", f"things/{thing}/activate")

    def deactivate(self, thing: str) -> None:
        """Deactivate the Thing with this id."""
        self._call("POST", f"things/{thing}/deactivate")

    def remove(self, thing: str) -> None:
        """Remove the Thing with this id, which frees its hardware ID."""
        self._call("DELETE", f"things/{thing}")

    def set_clock_offset(self, seconds: float) -> None:
        """Set the simulated clock ahead of the real one."""
        self._call("PUT", "clock", {"offset_seconds": seconds})

    def set_unknown_token_status(self, status: int) -> None:
        """Choose the status for a token that no profile of the service has."""
        self._call("PUT", "settings", {"unknown_token_status": status})

    def stop(self) -> None:
        """Stop the server's process; its state stays in the directory."""
        self.session.close()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> RunningSimulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _call(self, method: str, path: str, body: Any = None, params: dict[str, Any] | None = None) -> Any:
        response = self.session.request(
            method, f"{self.url}/simulator/{path}", json=body, params=params, verify=str(self.ca_path), timeout=60
        )
        if not response.ok:
            raise ValueError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json() if response.content else None


def start(directory: str | Path, key_pool: int = 0, port: int = 0, python: str = sys.executable) -> RunningSimulator:
    """Start the simulator on `directory` (new, or with the state of an earlier run) and wait until it answers."""
    directory = Path(directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "simulator", "serve", str(directory), "--port", str(port), "--key-pool", str(key_pool)]
    log = directory / "server.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
    url = _first_line(process.stdout)
    if not url:
        process.kill()
        process.wait()
        raise RuntimeError(f"the simulator did not start: {log.read_text()[-2000:]}")
    session = requests.Session()
    session.trust_env = False  # a proxy has no business here
    return RunningSimulator(url, directory / "ca.crt", directory, process, session)


def _first_line(stream: IO[str] | None) -> str:
    """Return the line that a server prints when it is ready, or nothing if it ended or took too long."""
    if stream is None or not select.select([stream], [], [], READY_SECONDS)[0]:
        return ""
    return stream.readline().strip()

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a fleet behind a slow link: what forks, the connection timeout and kept connections gain.

A relay between Ansible and each gateway delays what passes: half of the round trip in each direction, one round trip to
connect, and a pause of one retransmission for a lost packet. (Linux has netem for this, but not every kernel does.)
Some gateways accept the connection and never respond, as behind a modem without reception.

SLOW_GATEWAYS (200), SLOW_ROUND_TRIP_MS (600), SLOW_LOSS (0.01), SLOW_UNREACHABLE (0.05) and SLOW_RUNS change the size;
a run is `forks:timeout:kept`, and `kept` says whether SSH keeps connections open (ControlPersist) from the run before.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[0] = str(PROJECT / "tests")  # instead of this directory, whose bench.py is not the package

from bench.scaling import controller_environment  # noqa: E402
from gateways.fleet import EXIT_UNAVAILABLE, Fleet, Unavailable, fleet  # noqa: E402
from simulator.client import RunningSimulator, start  # noqa: E402

GATEWAYS = int(os.environ.get("SLOW_GATEWAYS", "200"))
ROUND_TRIP = int(os.environ.get("SLOW_ROUND_TRIP_MS", "600")) / 1000
LOSS = float(os.environ.get("SLOW_LOSS", "0.01"))
DEAD = math.ceil(float(os.environ.get("SLOW_UNREACHABLE", "0.05")) * GATEWAYS)  # the first ones never respond
RUNS = os.environ.get("SLOW_RUNS", "10:10:no 25:10:no 25:10:yes 50:10:no 50:10:yes 100:10:no 200:30:no").split()
KEPT = "-o ControlMaster=auto -o ControlPersist=600s"
NOT_KEPT = "-o ControlPath=none"  # so that a run does not use the connections that an earlier one has kept
SEGMENT = 1400  # bytes
RETRANSMISSION = ROUND_TRIP + 0.2  # seconds until a lost packet is sent again
CHUNK = 65536
PORT_OFFSET = 1000  # from the port of a gateway to that of its relay


@dataclass(frozen=True)
class Link:
    """A slow link to one gateway."""

    address: str
    port: int
    dead: bool

    async def serve(self) -> None:
        """Relay connections until the task is canceled."""
        server = await asyncio.start_server(self._connected, self.address, self.port + PORT_OFFSET, backlog=64)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):  # kept connections are open until the relay ends
            if self.dead:
                await reader.read()  # what is sent gets no response
                return
            await asyncio.sleep(ROUND_TRIP)
            from_gateway, to_gateway = await asyncio.open_connection(self.address, self.port)
            await asyncio.gather(delay(reader, to_gateway), delay(from_gateway, writer))
        writer.close()


async def delay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on in their order, each half a round trip later, or later still after a loss."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        due = 0.0
        while data := await reader.read(CHUNK):
            losses = sum(random.random() < LOSS for _segment in range(0, len(data), SEGMENT))
            due = max(due, time.monotonic() + ROUND_TRIP / 2 + losses * RETRANSMISSION)
            waiting.put_nowait((due, data))
        waiting.put_nowait((max(due, time.monotonic() + ROUND_TRIP / 2), b""))

    reading = asyncio.create_task(read())
    with contextlib.suppress(OSError):
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
    writer.close()
    reading.cancel()


async def serve(links: list[Link], stop: threading.Event) -> None:
    """Relay for all gateways until ``stop`` is set."""
    serving = [asyncio.create_task(link.serve()) for link in links]
    await asyncio.to_thread(stop.wait)
    for task in serving:
        task.cancel()


@contextlib.contextmanager
def slow_links(gateways: Fleet) -> Iterator[Path]:
    """Put a slow link before each gateway until the block ends; yield an inventory that uses the links."""
    text = gateways.inventory.read_text()
    addresses = re.findall(r"^gw\d+ ansible_host=(\S+)$", text, re.MULTILINE)
    (port,) = map(int, re.findall(r"^ansible_port=(\d+)$", text, re.MULTILINE))
    known_hosts = gateways.where / "known_hosts"
    keys = known_hosts.read_text()
    known_hosts.write_text(keys + keys.replace(f"]:{port} ", f"]:{port + PORT_OFFSET} "))
    inventory = gateways.where / "slow.ini"
    inventory.write_text(text.replace(f"ansible_port={port}", f"ansible_port={port + PORT_OFFSET}"))
    links = [Link(address, port, number < DEAD) for number, address in enumerate(addresses)]
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(links, stop)))
    thread.start()
    try:
        yield inventory
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True)
class Bench:
    """A fleet with credentials, and how playbooks are run on it."""

    work: Path
    simulator: RunningSimulator

    def play(self, inventory: Path, playbook: str, forks: int, **environment: str) -> tuple[float, str]:
        """Run a playbook; return the wall seconds and the output of Ansible."""
        variables = {
            "service": "cloudlocate",
            "token": self.simulator.put_profile("slow", service="cloudlocate"),
            "hardware_id": "{{ inventory_hostname }}",
            "api_url": self.simulator.url,
            "ca_path": str(self.simulator.ca_path),
            "broker_ca_path": str(self.simulator.ca_path),
            "spool_path": str(self.work / "spool"),
        }
        given = [f"-ethingstream_gateway_{name}={value}" for name, value in variables.items()]
        command = [f"{sys.prefix}/bin/ansible-playbook", "-i", str(inventory), playbook, "--limit", "debian", *given]
        begin = time.perf_counter()
        run = subprocess.run(
            command,
            env=controller_environment(self.work, forks) | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return time.perf_counter() - begin, run.stdout


def main() -> int:
    """Start platform and gateways, provision them directly, then measure through the slow links."""
    with tempfile.TemporaryDirectory(prefix="ztp-slow-") as name:
        work = Path(name)
        try:
            with start(work / "simulator") as simulator, fleet(work, debian=GATEWAYS) as gateways:
                bench = Bench(work, simulator)
                _seconds, output = bench.play(gateways.inventory, "thingstream.ztp.provision", forks=10)
                if output.count("changed=1") != GATEWAYS:
                    raise SystemExit(output[-2000:])
                measure(bench, gateways)
        except Unavailable as reason:
            print(f"The benchmark cannot run here: {reason}")
            return EXIT_UNAVAILABLE
    return 0


def measure(bench: Bench, gateways: Fleet) -> None:
    """Take turns with forks and timeouts, and print a row for each."""
    print(
        f"{GATEWAYS} gateways, {DEAD} of them unreachable; round trip {ROUND_TRIP:.1f} s, loss {LOSS:.0%}; "
        f"`renew`, nothing due; {os.cpu_count()} processors"
    )
    print("| forks | timeout, s | connections kept | wall time, s | unreachable |\n|---|---|---|---|---|")
    with slow_links(gateways) as inventory:
        for one in RUNS:
            forks, timeout, kept = one.split(":")
            settings = {"ANSIBLE_TIMEOUT": timeout, "ANSIBLE_SSH_ARGS": KEPT if kept == "yes" else NOT_KEPT}
            if kept == "yes":
                bench.play(inventory, "thingstream.ztp.renew", int(forks), **settings)
            seconds, output = bench.play(inventory, "thingstream.ztp.renew", int(forks), **settings)
            unreachable = len(re.findall(r"unreachable=[1-9]", output))
            print(f"| {forks} | {timeout} | {kept} | {seconds:.0f} | {unreachable} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that read what is deployed, as the documentation runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration.ansible_run import PROJECT
from integration.broker import PROGRAMS
from integration.patience import eventually

DOCUMENTED = Path("/etc/thingstream/pointperfect/current")
RTCM = bytes.fromhex("d300133ed7d30202980edeef34b4bd62ac0941986f33360b98")  # one message 1005, with its checksum


def program(name: str) -> str:
    """Return the path of a program of the virtual environment or the system; skip the test if there is none."""
    found = shutil.which(name, path=f"{sys.prefix}/bin:{PROGRAMS}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def blocks(section: str, language: str) -> list[str]:
    """Return the code in one language from a section of the documentation."""
    text = (PROJECT / "docs" / "consumers.md").read_text()
    (body,) = re.findall(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```$", body, re.M | re.S)


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Return documented lines for this machine: ``changes`` names each difference, which must be there."""
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


def literal(text: str) -> str:
    """Return an expression for ``field_map`` that finds this text in every response; Ansible sees no template in it."""
    quoted = json.dumps(text).replace("`", "\\`").replace("{", "\\u007b")
    return f"`{quoted}`"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, feed: bytes = b""
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and the processes that it starts until the block ends; ``feed`` goes into it every 50 ms."""
    variables = {"PATH": f"{sys.prefix}/bin:{PROGRAMS}", "HOME": str(log.parent), **(environment or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            # a shell lets commands in the background ignore interrupts, and nohup what it starts a hangup
            ["env", "--default-signal=INT,HUP", *command],
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=variables,
            cwd=log.parent,
            start_new_session=True,
        )

    def write() -> None:
        with suppress(OSError, ValueError):
            while process.poll() is None and process.stdin:
                process.stdin.write(feed)
                process.stdin.flush()
                time.sleep(0.05)

    writer = threading.Thread(target=write, daemon=True)
    if feed:
        writer.start()
    try:
        yield process
    finally:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, kind)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
        if process.stdin:
            with suppress(OSError):
                process.stdin.close()


@contextmanager
def supervised(command: str, log: Path) -> Iterator[str]:
    """Run a program until the block ends, and start it again whenever it ends, as systemd would do it.

    Yield the command for a restart, which returns once the old process has ended and a new one has begun.
    """
    pid = log.with_suffix(".pid")
    begin = f"{command} & child=$!; echo $child >{pid}"
    # not HUP, which a shell cannot trap where the tests run with nohup
    script = f"trap 'kill $child' USR1; while :; do {begin}; while kill -0 $child; do wait; done; done"
    with running(["sh", "-c", script], log) as process:
        old = f"until [ -s {pid} ]; do sleep 0.1; done; old=$(cat {pid})"
        yield f'{old}; kill -USR1 {process.pid}; while [ "$(cat {pid})" = "$old" ]; do sleep 0.1; done'


@dataclass(frozen=True)
class Network:
    """A network namespace with loopback and nothing else, for programs that listen on every address."""

    holder: int

    def within(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.holder}/ns/net", "--", *command]


@contextmanager
def own_network(log: Path) -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    with ExitStack() as stack:
        script = "ip link set lo up && echo up && exec sleep 300"
        holder = stack.enter_context(running([program("unshare"), "--net", "sh", "-c", script], log))
        assert eventually(lambda: "up" in log.read_text()), log.read_text()
        yield Network(holder.pid)

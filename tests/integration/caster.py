# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An NTRIP caster on loopback that checks logins and streams corrections, for versions 1 and 2 of the protocol."""

from __future__ import annotations

import base64
import json
import re
import socketserver
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from integration.patience import eventually
from integration.programs import RTCM, Network, running

MOUNT_POINT = "NEAR-RTCM"
_SOURCE = f"STR;{MOUNT_POINT};Berlin;RTCM 3.3;1005(1);2;GPS;NET;DEU;52.50;13.40;1;0;generator;none;B;N;9600;"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, login: str | None, wants_position: bool) -> None:
        super().__init__(("127.0.0.1", port), _Client)
        self.login = None if login is None else base64.b64encode(login.encode())
        self.wants_position = wants_position


class _Client(socketserver.StreamRequestHandler):
    server: _Server
    timeout = 0.5

    def handle(self) -> None:
        with suppress(OSError):
            self._answer()

    def _answer(self) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            received = self.connection.recv(4096)
            if not received:
                return
            request += received
        head = request.partition(b"\r\n\r\n")[0]
        version_2 = b"ntrip-version: ntrip/2.0" in head.lower()
        if head.split()[1] == b"/":
            table = f"{_SOURCE}\r\nENDSOURCETABLE\r\n".encode()
            first = b"HTTP/1.1 200 OK\r\nContent-Type: gnss/sourcetable" if version_2 else b"SOURCETABLE 200 OK"
            self.wfile.write(first + b"\r\nContent-Length: %d\r\n\r\n" % len(table) + table)
        elif self.server.login is None or self.server.login not in re.findall(rb"(?i)basic (\S+)", head):
            self.wfile.write(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n")
        else:
            first = b"HTTP/1.1 200 OK\r\nContent-Type: gnss/data\r\n\r\n" if version_2 else b"ICY 200 OK\r\n\r\n"
            self.wfile.write(first)
            self._stream(request)

    def _stream(self, position: bytes) -> None:
        """Stream; like the caster of PointPerfect, not before it has a position, here or in a header."""
        while True:
            time.sleep(0.05)
            if self.server.wants_position and b"$GPGGA" not in position and b"$GNGGA" not in position:
                with suppress(TimeoutError):
                    position += self.connection.recv(4096)
                continue
            self.wfile.write(RTCM * 4)


@contextmanager
def running_caster(
    network: Network, port: int, login: str | None, log: Path, *, wants_position: bool = True
) -> Iterator[None]:
    """Run a caster in a network until the block ends.

    :param login: user, colon and password; ``None`` refuses every login.
    """
    own = [sys.executable, "-m", __name__, json.dumps([port, login, wants_position])]
    with running(network.within(*own), log, {"PYTHONPATH": str(Path(__file__).parents[1])}):
        assert eventually(lambda: "listening" in log.read_text()), log.read_text()
        yield


if __name__ == "__main__":
    with _Server(*json.loads(sys.argv[1])) as server:
        print("listening", flush=True)
        server.serve_forever()

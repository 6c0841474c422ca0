# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The HTTPS server: uvicorn, with connections that a fault can cut."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
from pathlib import Path

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from simulator import pki
from simulator.app import create_app
from simulator.faults import TRANSPORT
from simulator.store import Store


class CuttableProtocol(H11Protocol):
    """HTTP/1.1 that passes the transport of a request to the application."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # H11Protocol narrows it, too
        """Wrap the application, for this connection."""
        super().connection_made(transport)
        application = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope[TRANSPORT] = transport
            await application(scope, receive, send)

        self.app = with_transport


class AnnouncingServer(uvicorn.Server):
    """A server that says where it is as soon as it answers."""

    def __init__(self, config: uvicorn.Config, directory: Path, url: str) -> None:
        super().__init__(config)
        self._directory = directory
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then write `url` and `pid` and print the URL."""
        await super().startup(sockets)
        (self._directory / "pid").write_text(f"{os.getpid()}\n")
        (self._directory / "url").write_text(f"{self._url}\n")
        print(self._url, flush=True)


def initialize(directory: Path) -> None:
    """Create certificate authority, server certificate and database in `directory`, where they are missing."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (directory / "ca.crt").exists():
        pki.create_authority(directory)
    if not (directory / "server.crt").exists():
        authority = pki.load_authority(directory)
        pki.create_server_certificate(authority, directory, ["localhost"], ["127.0.0.1", "::1"])
    (directory / "state.db").touch(mode=0o600)  # it holds private keys
    Store(directory / "state.db").close()


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or an address that cannot be reached from outside."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(directory: Path, host: str, port: int, key_pool: int) -> None:
    """Serve until SIGTERM or SIGINT; port 0 means any free port. `host` must be loopback."""
    initialize(directory)
    store = Store(directory / "state.db")
    pki.fill_pool(store, key_pool)
    # The protocol is named because asyncio turns Nagle's algorithm off (40 ms per response) only if it is.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        name = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            create_app(store, pki.load_authority(directory)),
            http=CuttableProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            backlog=1024,
            timeout_graceful_shutdown=1,
            ssl_certfile=directory / "server.crt",
            ssl_keyfile=directory / "server.key",
        )
        server = AnnouncingServer(config, directory, f"https://{name}:{listener.getsockname()[1]}")
        # uvicorn stops at these signals, then raises them again for whoever handled them before: by then all is done.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server.run(sockets=[listener])
    store.close()
    for name in ("url", "pid"):
        (directory / name).unlink(missing_ok=True)

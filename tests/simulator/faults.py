# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Faults: what can be made to go wrong with the next requests. Nothing here exists on the platform."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sqlite3
import struct
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.types import Receive, Scope, Send

from simulator.profiles import Service
from simulator.provision import Answer

Kind = Literal[
    "status",
    "redirect",
    "delay_before",
    "delay_after",
    "cut_before",
    "cut_after",
    "truncated",
    "content_type",
    "not_json",
    "not_object",
    "malformed",
    "huge",
    "drip",
]

# Where the server puts the connection's transport into the ASGI scope.
TRANSPORT = "simulator.transport"

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
HeaderValue = Annotated[str, Field(pattern=r"^[!-~]([ -~]*[!-~])?$")]


class Fault(BaseModel):
    """One fault for the next `count` requests that match `service` and `hardware_id` (null matches all)."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    count: int = Field(default=1, ge=1, le=1_000_000_000)
    service: Service | None = None
    hardware_id: str | None = None
    status: int | None = Field(
        default=None, ge=200, le=599, description="Of 'status' (default 503) and 'redirect' (307)"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict,
        description="Of 'status', such as Retry-After",
        json_schema_extra={"additionalProperties": False},
    )
    body: str = Field(default="", description="Of 'status' and 'not_json'")
    after_processing: bool = Field(
        default=False, strict=True, description="Of 'status' and 'redirect': process the request all the same"
    )
    seconds: float = Field(
        default=1, strict=True, ge=0, le=3600, description="Of the delays, and of 'drip' between two bytes"
    )
    reset: bool = Field(
        default=False, strict=True, description="Of the cuts: TCP reset (RST) instead of an orderly end (FIN)"
    )
    probability: float = Field(
        default=1,
        strict=True,
        gt=0,
        le=1,
        description="That a request that matches meets it; the same requests meet it in each run",
    )
    location: HeaderValue | None = Field(default=None, description="Of 'redirect': the other URL")
    content_type: HeaderValue = Field(default="text/html; charset=utf-8", description="Of 'content_type'")
    bytes: int = Field(default=8 * 1024 * 1024, ge=1, le=512 * 1024 * 1024, description="Of 'huge': at least this many")

    @model_validator(mode="after")
    def _complete(self) -> Fault:
        if self.kind == "redirect" and self.location is None:
            raise ValueError("a redirect needs a location")
        if self.status in (204, 304) and self.body:
            raise ValueError("a response with status 204 or 304 has no body")
        if {name.lower() for name in self.headers} & {"content-length", "transfer-encoding"}:
            raise ValueError("the framing of a response cannot be chosen; see the kind 'truncated'")
        return self

    @property
    def processes(self) -> bool:
        """Whether the request is processed, and so may create a Thing."""
        return self.after_processing if self.kind in ("status", "redirect") else self.kind != "cut_before"


class WaitingFault(Fault):
    """A fault in the queue, with the number of requests it still applies to."""

    id: int
    remaining: int


def add(connection: sqlite3.Connection, fault: Fault) -> WaitingFault:
    """Append a fault to the queue."""
    cursor = connection.execute(
        "INSERT INTO faults (service, hardware_id, remaining, document) VALUES (?, ?, ?, ?)",
        (fault.service, fault.hardware_id, fault.count, fault.model_dump_json()),
    )
    return WaitingFault.model_validate({**fault.model_dump(), "id": cursor.lastrowid, "remaining": fault.count})


def every(connection: sqlite3.Connection) -> list[WaitingFault]:
    """Return the faults that wait, in order."""
    return [_waiting(row) for row in connection.execute("SELECT * FROM faults ORDER BY id")]


def clear(connection: sqlite3.Connection) -> None:
    """Remove all faults."""
    connection.execute("DELETE FROM faults")


def take(connection: sqlite3.Connection, service: Service, hardware_id: str | None) -> Fault | None:
    """Return the first fault that matches a request, and count it."""
    rows = connection.execute(
        "SELECT * FROM faults WHERE (service IS NULL OR service = ?) AND (hardware_id IS NULL OR hardware_id = ?)"
        " ORDER BY id",
        (service, hardware_id),
    )
    fault = next((fault for fault in map(_waiting, rows) if _meets(connection, fault, service, hardware_id)), None)
    if fault is not None:
        connection.execute("UPDATE faults SET remaining = remaining - 1 WHERE id = ?", (fault.id,))
        connection.execute("DELETE FROM faults WHERE remaining = 0")
    return fault


def _meets(connection: sqlite3.Connection, fault: WaitingFault, service: Service, hardware_id: str | None) -> bool:
    """Draw by what the request is, not by when it comes: the order in which gateways ask changes nothing."""
    if fault.probability == 1:
        return True
    asked = connection.execute(
        "SELECT count(*) FROM requests WHERE service = ? AND hardware_id IS ?", (service, hardware_id)
    ).fetchone()[0]
    kind = fault.model_dump_json(exclude={"id", "remaining"})
    return random.Random(f"{kind} {service} {hardware_id} {asked}").random() < fault.probability


class Cut(Response):
    """No response: the connection ends without a word."""

    def __init__(self, reset: bool) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Close the connection below TLS, as a broken network would."""
        transport: asyncio.Transport = scope[TRANSPORT]
        if self._reset:
            # A lingering time of zero makes the kernel send RST.
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _until_disconnected(receive)


class Truncated(Response):
    """Half of a body under the Content-Length of the whole, then the end of the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the half, close."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        transport: asyncio.Transport = scope[TRANSPORT]
        transport.close()
        await _until_disconnected(receive)


class Dripping(Response):
    """A good response whose body comes one byte at a time."""

    def __init__(self, good: Response, seconds: float) -> None:
        super().__init__(good.body, good.status_code, media_type=good.media_type)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send byte after byte, until the client disconnects."""
        transport: asyncio.Transport = scope[TRANSPORT]
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for position in range(len(self.body)):
            if transport.is_closing():
                break
            await send({"type": "http.response.body", "body": self.body[position : position + 1], "more_body": True})
            await asyncio.sleep(self._seconds)
        await send({"type": "http.response.body", "body": b""})


def response(answer: Answer) -> Response:
    """Return the faultless response for an answer."""
    if isinstance(answer.content, str):
        # Plain text: seen in client code.
        return Response(answer.content, answer.status, media_type="text/plain")
    return Response(_json(answer.content), answer.status, media_type="application/json")


def spoiled(fault: Fault, answer: Answer) -> Response:
    """Return what `fault` makes of the response for `answer`."""
    good = response(answer)
    match fault.kind:
        case "status":
            return Response(fault.body, fault.status or 503, dict(fault.headers), media_type="text/plain")
        case "redirect":
            return Response(status_code=fault.status or 307, headers={"Location": fault.location or ""})
        case "cut_before" | "cut_after":
            return Cut(fault.reset)
        case "truncated":
            return Truncated(good.body, good.status_code, media_type=good.media_type)
        case "content_type":
            return Response(good.body, good.status_code, {"Content-Type": fault.content_type})
        case "not_json":
            page = fault.body or "<html><body>It works!</body></html>"
            return Response(page, good.status_code, media_type="application/json")
        case "not_object":
            return Response(_json([answer.content]), good.status_code, media_type="application/json")
        case "malformed":
            text = _json(answer.content)
            return Response(text[: len(text) // 2], good.status_code, media_type="application/json")
        case "huge":
            content = answer.content if isinstance(answer.content, dict) else {"message": answer.content}
            padded = _json({**content, "padding": "x" * fault.bytes})
            return Response(padded, good.status_code, media_type="application/json")
        case "drip":
            return Dripping(good, fault.seconds)
        case _:
            return good


async def _until_disconnected(receive: Receive) -> None:
    """Wait until the server has noticed, or it would take the missing response for a failure of the application."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def _waiting(row: sqlite3.Row) -> WaitingFault:
    document = json.loads(row["document"])
    return WaitingFault.model_validate({**document, "id": row["id"], "remaining": row["remaining"]})

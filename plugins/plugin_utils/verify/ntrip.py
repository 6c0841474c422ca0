# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify credentials at an NTRIP caster: request the stream of the mount point and read the response.

No error contains a user name, a password or data of the caster.

Private to the collection.
"""

from __future__ import annotations

import base64
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import reduce
from operator import xor
from urllib.parse import quote

from ..errors import ProvisioningError
from ..platform import trust
from ..platform.credentials import Credentials
from .connection import Connection, Server, connection_problem, open_connection
from .frames import FrameReader
from .refusals import not_a_caster, page_problem, refusal
from .response import Body, Head, may_be_caster, parse_head

PAUSE = 1.0  # seconds to wait for what a caster may add to its response, such as a page
_ERROR_PAGE = 4096  # bytes

_REGION = "Check that the position is in the region of the plan."


@dataclass(frozen=True)
class Corrections:
    """The first messages of a stream.

    :param first_ms: milliseconds from the request to the first message.
    :param types: of the messages that arrived with it, in their order and each of them once.
    """

    first_ms: int
    types: tuple[str, ...]


def verify(
    server: Server,
    credentials: Credentials,
    position: tuple[float, float] | None,
    caster_ca_path: str,
    *,
    in_use: bool = False,
) -> Corrections | None:
    """Log in at a caster and, with a position, wait for corrections.

    :param position: latitude and longitude in degrees.
    :param caster_ca_path: CA certificates, a file or a directory; one must have signed the certificate of a caster.
    :param in_use: whether a consumer may be connected with the same login. Then a caster may refuse a second one.
    :returns: ``None`` if the caster accepted the login and sends nothing, which is enough without a position.
    :raises ProvisioningError: ``credentials_refused``, or ``refused_or_in_use`` if the login may be in use;
        ``no_plan``, ``refused``, ``rate_limited``, ``server_error``, ``proxy_refused``, ``tls``, ``timeout``,
        ``unreachable``, ``host_not_allowed`` and ``bad_response`` if another problem prevents corrections.
    """
    context = trust.load(trust.named("caster_ca_path", caster_ca_path)) if server.tls else None
    sentence = gga(*position, datetime.now(timezone.utc)) if position is not None else ""
    mountpoint = credentials.ntrip_mountpoint or ""
    with closing(Connection(open_connection(server, context), server)) as connection:
        begin = time.monotonic()
        try:
            connection.send(_request(server, credentials, sentence))
            head, received = _read_head(server, connection)
        except OSError as error:
            raise _no_response(server, error, bool(sentence)) from None
        if head.status != 200 or head.protocol == "SOURCETABLE":
            page = _read_page(connection, received)
            raise refusal(server, parse_head(page) or head, page, mountpoint, in_use=in_use)
        stream = _Stream(server, connection, mountpoint, in_use, head, received)
        types = stream.wait_for_corrections(sentence.encode())
        return Corrections(round((time.monotonic() - begin) * 1000), types) if types else None


def gga(latitude: float, longitude: float, now: datetime) -> str:
    """Return the NMEA sentence that reports a position to a caster.

    :param latitude: degrees from -90 to 90.
    :param longitude: degrees from -180 to 180.
    :param now: aware.
    """
    north = f"{_angle(latitude, 2)},{'S' if latitude < 0 else 'N'}"
    east = f"{_angle(longitude, 3)},{'W' if longitude < 0 else 'E'}"
    fields = f"GPGGA,{now.astimezone(timezone.utc):%H%M%S}.00,{north},{east},1,12,1.0,0.0,M,0.0,M,,"
    return f"${fields}*{reduce(xor, fields.encode()):02X}\r\n"


def _angle(degrees: float, digits: int) -> str:
    """Return degrees and minutes in the notation of NMEA.

    Rounding comes before the split into degrees and minutes, so that minutes never become 60.0000.
    """
    whole, rest = divmod(round(abs(degrees) * 600_000), 600_000)
    return f"{whole:0{digits}d}{rest // 10_000:02d}.{rest % 10_000:04d}"


def _request(server: Server, credentials: Credentials, sentence: str) -> bytes:
    """Return a request that casters of both NTRIP versions accept."""
    # ``safe`` lists the characters that RFC 3986 allows in a path.
    path = quote((credentials.ntrip_mountpoint or "").lstrip("/"), safe="/!$&'()*+,;=:@")
    login = base64.b64encode(f"{credentials.ntrip_username}:{credentials.ntrip_password}".encode()).decode()
    lines = [
        f"GET /{path} HTTP/1.1",
        f"Host: {server.authority}",
        "Ntrip-Version: Ntrip/2.0",
        "User-Agent: NTRIP thingstream.ztp",
        "Accept: */*",
        f"Authorization: Basic {login}",
        "Connection: close",
        *([f"Ntrip-GGA: {sentence.strip()}"] if sentence else []),
    ]
    return "\r\n".join([*lines, "", sentence]).encode()


def _no_response(server: Server, error: OSError, has_position: bool) -> ProvisioningError:
    """Return the error for a request without a complete response."""
    problem = connection_problem(server, error, "did not respond to the request")
    if problem.code == "timeout" and not has_position:
        return problem.with_advice("Some casters respond only to a request with a position.")
    if problem.code == "bad_response":
        return problem.with_advice(
            "Casters do so on a port with TLS that is used without, and some do for a wrong login or one in use."
        )
    return problem


def _read_head(server: Server, connection: Connection) -> tuple[Head, bytes]:
    """Read until the status of the response is known; return its head as far as it has arrived, and all bytes."""
    received = b""
    while (head := parse_head(received)) is None:
        chunk = connection.recv(4096)
        received += chunk or b"\n"  # a response that ends within its first line is complete
        if not received.strip() and not chunk:
            raise ConnectionResetError
        if not may_be_caster(received) or (not chunk and parse_head(received) is None):
            raise not_a_caster(server, received)
    return head, received


def _read_page(connection: Connection, received: bytes) -> bytes:
    """Return the response with its begin and what follows within a moment: it may say why the request is refused."""
    with suppress(OSError):
        while len(received) < _ERROR_PAGE and (chunk := connection.recv(4096, PAUSE)):
            received += chunk
    return received


class _Stream:
    """The body of a response with status 200, which may be a stream of corrections or a page."""

    def __init__(
        self, server: Server, connection: Connection, mountpoint: str, in_use: bool, head: Head, received: bytes
    ) -> None:
        self._server = server
        self._connection = connection
        self._mountpoint = mountpoint
        self._in_use = in_use
        self._received = received  # the whole response, until its headers are complete
        self._body: Body | None = None
        self._decoded = b""
        self._reader = FrameReader()
        self._head = head

    def wait_for_corrections(self, sentence: bytes) -> tuple[str, ...]:
        """Return the types of the first messages; none if the caster sends nothing, and there is no position.

        :param sentence: the position, which some casters expect once more after their response; empty if there is none.
        """
        types = self._decode(b"")
        try:
            with suppress(ConnectionError):  # a caster that closed the connection may have sent data before
                if sentence:
                    self._connection.send(sentence)
            while not types:
                self._check_page(ended=False)
                # Without a position, casters may send nothing; but a page would follow at once.
                waits = bool(sentence) or self._has_content or not self._may_be_silent
                chunk = b"" if self._has_ended else self._connection.recv(4096, None if waits else PAUSE)
                if not chunk:
                    raise ConnectionResetError
                types = self._decode(chunk)
        except TimeoutError:
            self._check_page(ended=True)
            if not self._may_be_silent:
                raise _no_response(self._server, TimeoutError(), bool(sentence)) from None
            if not sentence and not self._has_content:
                return ()
            raise self._without_corrections(
                "timeout", f"no message of RTCM 3 or SPARTN within {self._server.timeout:g} seconds", bool(sentence)
            ) from None
        except ConnectionError:
            self._check_page(ended=True)
            raise self._without_corrections(
                "bad_response", "no message of RTCM 3 or SPARTN before it closed the connection", bool(sentence)
            ) from None
        except OSError as error:
            raise connection_problem(self._server, error, "sent no corrections") from None
        return types

    @property
    def _may_be_silent(self) -> bool:
        """Whether the response is complete as far as it goes. ICY has no headers."""
        return self._body is not None or self._head.protocol == "ICY"

    @property
    def _content(self) -> bytes:
        """The part of the body that has arrived. After an incomplete head, it may begin with a header or text."""
        if self._body is not None:
            return self._decoded
        return b"" if self._head.headers else self._received[self._head.end :]

    @property
    def _has_content(self) -> bool:
        return bool(self._content.strip())

    @property
    def _has_ended(self) -> bool:
        return self._body is not None and self._body.ended

    def _decode(self, data: bytes) -> tuple[str, ...]:
        """Take bytes of the response; return the types of the messages that they complete."""
        if self._body is None:
            self._received += data
            self._head = parse_head(self._received) or self._head
            if self._head.body is None:
                return ()
            self._body = Body(self._head)
            data = self._received[self._head.body :]
        decoded = self._body.feed(data)
        self._decoded += decoded
        return tuple(dict.fromkeys(self._reader.feed(decoded)))

    def _check_page(self, *, ended: bool) -> None:
        """Check that the response is not a page.

        :raises ProvisioningError: see ``page_problem``.
        """
        # the begin of a header is no text, unless nothing follows
        content = self._content if ended or self._body is not None else b""
        problem = page_problem(self._server, self._head, content, self._mountpoint, in_use=self._in_use, ended=ended)
        if problem is not None:
            raise problem

    def _without_corrections(self, code: str, what: str, has_position: bool) -> ProvisioningError:
        advice = _REGION if has_position else "Set position, without which PointPerfect sends nothing."
        return ProvisioningError(
            code, f"The {self._server} accepted the login, but sent {what}. {advice}", self._head.status
        )

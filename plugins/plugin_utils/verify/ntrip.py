# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify credentials at an NTRIP caster: request the stream of the mount point and read the response.

No error contains a user name, a password or data of the caster.

Private to the collection.
"""

from __future__ import annotations

import base64
import re
from contextlib import closing, suppress
from datetime import datetime, timezone
from functools import reduce
from operator import xor
from urllib.parse import quote

from ..errors import ProvisioningError
from ..platform import trust
from ..platform.credentials import Credentials
from .connection import Connection, Server, connection_problem, open_connection

_HEAD = re.compile(
    rb"HTTP/1\.[0-9] 200\b[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n"  # version 2, with headers
    rb"|(?!HTTP/1\.[0-9] 200\b)(?:HTTP/1\.[0-9]|ICY|SOURCETABLE|ERROR) [^\n]*\n"  # a refusal, or version 1
)
_STATUS = re.compile(rb"(?:HTTP/1\.[0-9]|ICY|SOURCETABLE) ([0-9]{3})\b")
_BEGINNINGS = (b"HTTP/1.", b"ICY ", b"SOURCETABLE ", b"ERROR")
_SOURCE_TABLE = re.compile(rb"SOURCETABLE|.*^content-type:[ \t]*gnss/sourcetable", re.I | re.M | re.S)
_PAGE = re.compile(rb"^content-type:[ \t]*text/html", re.I | re.M)
_CHUNKED = re.compile(rb"^transfer-encoding:[ \t]*chunked", re.I | re.M)
_CHUNK_WITH_DATA = re.compile(rb"0*[1-9A-Fa-f][0-9A-Fa-f]*[^\n]*\n.", re.S)
_STRAY_HEADERS = re.compile(rb"(?:[A-Za-z-]+:[^\r\n]*\r?\n)*(?:\r?\n)?")
_PARTIAL_HEADER = re.compile(rb"[A-Za-z-]*(?::[^\r\n]*)?\r?")


def verify(server: Server, credentials: Credentials, position: tuple[float, float] | None, caster_ca_path: str) -> bool:
    """Log in at a caster and, with a position, wait for corrections.

    :param position: latitude and longitude in degrees.
    :param caster_ca_path: CA certificates, a file or a directory; one must have signed the certificate of a caster.
    :returns: whether corrections arrived.
    :raises ProvisioningError: if the caster does not accept the login, or if that remains unknown.
    """
    context = trust.load(trust.named("caster_ca_path", caster_ca_path)) if server.tls else None
    sentence = gga(*position, datetime.now(timezone.utc)) if position is not None else ""
    with closing(Connection(open_connection(server, context), server)) as connection:
        try:
            connection.send(_request(server, credentials, sentence))
            head, body = _read_head(connection)
        except OSError as error:
            problem = connection_problem(server, error, "did not respond to the request")
            if problem.code == "timeout" and not sentence:
                problem = problem.with_advice("Some casters respond only to a request with a position.")
            raise problem from None
        _check_head(server, head, credentials.ntrip_mountpoint or "")
        if sentence:
            _await_data(server, connection, head, body, sentence.encode())
    return bool(sentence)


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
        f"Authorization: Basic {login}",
        "Connection: close",
        *([f"Ntrip-GGA: {sentence.strip()}"] if sentence else []),
    ]
    return "\r\n".join([*lines, "", sentence]).encode()


def _read_head(connection: Connection) -> tuple[bytes, bytes]:
    """Return the head of the response and the first bytes after it.

    Both are empty if the response is not that of a caster.
    """
    received = b""
    while (match := _HEAD.match(received)) is None:
        chunk = connection.recv(4096)
        received += chunk
        if not received:
            raise ConnectionResetError
        if not chunk or not any(received.startswith(known[: len(received)]) for known in _BEGINNINGS):
            return b"", b""
    return match.group(), received[match.end() :]


def _check_head(server: Server, head: bytes, mountpoint: str) -> None:
    """Check that the head begins a stream of corrections.

    :raises ProvisioningError: ``credentials_refused``, ``server_error``, ``refused`` or ``bad_response`` otherwise.
    """
    found = _STATUS.match(head)
    status = int(found.group(1)) if found else None
    if status in (401, 403) or re.match(rb"ERROR\b.*password", head, re.I):
        raise ProvisioningError(
            "credentials_refused",
            f"The {server} does not accept user name and password for the mount point {mountpoint}: check the Thing "
            "in the portal, and renew the credentials with force.",
            status,
        )
    if status is not None and 500 <= status < 600:
        raise ProvisioningError("server_error", f"The {server} has a problem (HTTP {status}): run again later.", status)
    if status is not None and 400 <= status < 500:
        known = "does not know" if status == 404 else f"refuses (HTTP {status})"
        raise ProvisioningError(
            "refused", f"The {server} {known} the mount point {mountpoint}: compare it with the plan.", status
        )
    if status == 200 and _SOURCE_TABLE.match(head):
        raise ProvisioningError(
            "refused",
            f"The {server} sends its source table, because it does not know the mount point {mountpoint}: "
            "compare it with the plan.",
            status,
        )
    if head.startswith(b"ERROR"):
        raise ProvisioningError(
            "refused", f"The {server} refuses the mount point {mountpoint}: compare it with the plan."
        )
    if status != 200 or _PAGE.search(head):
        raise ProvisioningError(
            "bad_response",
            f"The response of the {server} is not NTRIP: check host and port of the credentials, and whether a proxy "
            "is in between.",
            status,
        )


def _await_data(server: Server, connection: Connection, head: bytes, body: bytes, sentence: bytes) -> None:
    """Send the position once more, which some casters expect after their response, and wait for a byte of data."""
    advice = "Check that the position is in the region of the plan."
    try:
        with suppress(ConnectionError):  # a caster that closed the connection may have sent data before
            connection.send(sentence)
        while not _has_data(head, body):
            chunk = connection.recv(4096)
            body += chunk
            if not chunk:
                raise ConnectionResetError
    except TimeoutError:
        raise ProvisioningError(
            "timeout",
            f"The {server} accepted the login, but sent no corrections within {server.timeout:g} seconds. {advice}",
        ) from None
    except ConnectionError:
        raise ProvisioningError(
            "bad_response",
            f"The {server} accepted the login, but closed the connection without corrections. {advice}",
        ) from None
    except OSError as error:
        raise connection_problem(server, error, "sent no corrections") from None


def _has_data(head: bytes, body: bytes) -> bool:
    """Return whether the body contains a byte of data beyond headers and chunk sizes."""
    if head.startswith(b"ICY"):
        stray = _STRAY_HEADERS.match(body)  # no specification has headers here, but some casters send them
        return _PARTIAL_HEADER.fullmatch(body, stray.end() if stray else 0) is None
    return bool(_CHUNK_WITH_DATA.match(body) if _CHUNKED.search(head) else body)

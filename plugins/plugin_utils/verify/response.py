# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the response of an NTRIP caster as it arrives: its status, its headers, and the bytes of the stream.

Casters write it in many ways (seen in client code and in reports): ``ICY 200 OK`` with or without a blank line and
headers, HTTP with or without a reason, line feeds alone, blank lines or an interim response first, and chunks.

Private to the collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Nothing in these expressions can match one text in two ways, so that they take linear time.
_STATUS_LINE = re.compile(
    rb"(HTTP/1\.[0-9]|ICY|SOURCETABLE)[ \t]+([0-9]{3})(?![0-9])[^\n]*\n|(ERROR)(?![A-Za-z0-9])[^\n]*\n", re.I
)
_INTERIM = re.compile(rb"HTTP/1\.[0-9][ \t]+1[0-9][0-9](?![0-9])[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n", re.I)
_HEADERS = re.compile(rb"(?:[!#-9;-~]+:[^\n]*\n)*")
_PARTIAL_HEADER = re.compile(rb"[!#-9;-~]*(?::[^\n]*)?\r?")
_BLANK_LINE = re.compile(rb"\r?\n")
_BEGINNINGS = (b"HTTP/1.", b"ICY ", b"ICY\t", b"SOURCETABLE ", b"SOURCETABLE\t", b"ERROR")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\n]*)?\r?\n")
_HEX_DIGITS = b" \t0123456789abcdefABCDEF"


@dataclass(frozen=True)
class Head:
    """The first part of a response.

    :param protocol: ``HTTP``, ``ICY``, ``SOURCETABLE`` or ``ERROR``.
    :param line: the status line, in lower case.
    :param headers: in lower case, one a line.
    :param end: the position after the headers that have arrived.
    :param body: where the body begins; ``None`` while headers may follow.
    """

    protocol: str
    status: int | None
    line: bytes
    headers: bytes
    end: int
    body: int | None

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, or nothing.

        :param name: in lower case.
        """
        for line in self.headers.splitlines():
            key, _colon, value = line.partition(b":")
            if key.strip() == name:
                return value.strip()
        return b""


def may_be_caster(received: bytes) -> bool:
    """Return whether these bytes can be the begin of a response of a caster."""
    begin = received.lstrip(b"\r\n").upper()
    return any(begin.startswith(known[: len(begin)]) for known in _BEGINNINGS)


def parse_head(received: bytes) -> Head | None:
    """Return the head of the response, or ``None`` while its status line is incomplete or missing."""
    start = len(received) - len(received.lstrip(b"\r\n"))
    while interim := _INTERIM.match(received, start):
        start = interim.end()
    status = _STATUS_LINE.match(received, start)
    if status is None or (status.group(2) or b"").startswith(b"1"):
        return None
    headers = _HEADERS.match(received, status.end())
    end = headers.end() if headers else status.end()
    blank = _BLANK_LINE.match(received, end)
    if blank:
        body: int | None = blank.end()
    else:
        body = None if _PARTIAL_HEADER.fullmatch(received, end) else end
    return Head(
        protocol=(status.group(1) or status.group(3)).partition(b"/")[0].decode().upper(),
        status=int(status.group(2)) if status.group(2) else None,
        line=status.group().strip().lower(),
        headers=received[status.end() : end].lower(),
        end=end,
        body=body,
    )


class Body:
    """Decode the body of a response that arrives in pieces.

    A body whose chunks have no valid size is taken as it is, because some casters announce chunks and send none.
    """

    def __init__(self, head: Head) -> None:
        self._is_chunked = b"chunked" in head.header(b"transfer-encoding")
        self._encoded = b""
        self._chunk = 0  # bytes of the present chunk that are still to come
        length = head.header(b"content-length")
        self._length = int(length) if length.isdigit() and len(length) < 20 and not self._is_chunked else None
        self._received = 0
        self.ended = self._length == 0

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the stream within bytes of the response."""
        if not self._is_chunked:
            self._received += len(data)
            self.ended = self._length is not None and self._received >= self._length
            return data
        self._encoded += data
        decoded = b""
        while self._encoded and not self.ended:
            if self._chunk:
                part = self._encoded[: self._chunk]
                decoded, self._encoded, self._chunk = (
                    decoded + part,
                    self._encoded[len(part) :],
                    self._chunk - len(part),
                )
                continue
            begin = self._encoded.lstrip(b"\r\n")
            size = _CHUNK_SIZE.match(begin)
            if size is None:
                if begin and (begin[0] not in _HEX_DIGITS or b"\n" in begin or len(begin) > 256):
                    self._is_chunked = False
                    return decoded + begin
                break
            self._chunk, self._encoded = int(size.group(1), 16), begin[size.end() :]
            self.ended = self._chunk == 0
        return decoded

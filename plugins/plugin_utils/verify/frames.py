# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the messages of RTCM 3 and SPARTN in a stream. Nothing but a frame with valid checksums is a message.

An RTCM 3 frame (documented, RTCM 10403) is 0xD3, six zero bits, a length of ten bits, the message, and a CRC-24Q.
A SPARTN frame (documented, SPARTN 2.0) is 0x73, a header with a CRC of four bits, a description of the payload, the
payload, and a CRC. The order of the bits of the CRC-4 is as seen in client code.

Private to the collection.
"""

from __future__ import annotations

import re
from functools import cache

MAX_FRAME = 1200  # bytes; more than the longest frame of either format
MAX_DAMAGED = 500  # frames with a wrong CRC, after which a reader stops; each one takes time

_PREAMBLE = re.compile(rb"[\xd3s]")
_RTCM = 0xD3
_MIN_RTCM_MESSAGE = 2  # bytes; the number of a message has 12 bits
_MAX_SPARTN_TYPE = 4  # OCB, HPAC, GAD, BPAC, EAS
_SPARTN_CRCS = (  # width in bits, polynomial, first value and final XOR for each type of CRC
    (8, 0x07, 0),
    (16, 0x1021, 0),
    (24, 0x864CFB, 0),
    (32, 0x04C11DB7, 0xFFFFFFFF),
)
_SPARTN_AUTHENTICATION = (8, 12, 16, 32, 64)  # bytes of embedded authentication data for each value of its length


class FrameReader:
    """Find messages in a stream that arrives in pieces.

    It keeps at most ``MAX_FRAME`` bytes, and stops after ``MAX_DAMAGED`` frames that are none.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._damaged = 0

    def feed(self, data: bytes) -> list[str]:
        """Return the types of the messages that these bytes complete, such as ``RTCM 1005`` or ``SPARTN 0-1``.

        The numbers of SPARTN are type and subtype.
        """
        stream = self._pending + data
        types: list[str] = []
        kept = len(stream)
        position = 0
        while self._damaged < MAX_DAMAGED and (match := _PREAMBLE.search(stream, position)):
            start = match.start()
            length = frame_length(stream[start : start + MAX_FRAME])
            end = start + (length or 1)
            if length is None or end > len(stream):
                kept = min(kept, start)  # it may be a frame whose end is still to come
                position = start + 1
            elif length and _is_intact(frame := stream[start:end]):
                types.append(_type_of(frame))
                kept, position = len(stream), end
            else:
                self._damaged += length > 0
                position = start + 1
        self._pending = stream[max(kept, len(stream) - MAX_FRAME) :]
        return types


def frame_length(data: bytes) -> int | None:
    """Return the length in bytes of the frame that begins here, 0 if none does, ``None`` if that is still unknown.

    :param data: not empty.
    """
    return _rtcm_length(data) if data[0] == _RTCM else _spartn_length(data)


def _rtcm_length(data: bytes) -> int | None:
    if data[1:2] and data[1] & 0xFC:
        return 0
    if len(data) < 3:
        return None
    message = (data[1] & 0x03) << 8 | data[2]
    return message + 6 if message >= _MIN_RTCM_MESSAGE else 0


def _spartn_length(data: bytes) -> int | None:
    if data[1:2] and data[1] >> 1 > _MAX_SPARTN_TYPE:
        return 0
    if len(data) < 4:
        return None
    header = int.from_bytes(data[1:4], "big")
    if _crc_4((header & ~0x0F).to_bytes(3, "big")) != header & 0x0F:
        return 0
    payload, is_encrypted, crc_type = header >> 7 & 0x3FF, header >> 6 & 1, header >> 4 & 0x03
    if len(data) < 5:
        return None
    described = (6 if data[4] & 0x08 else 4) + 2 * is_encrypted
    authentication = 0
    if is_encrypted:
        if len(data) < 4 + described:
            return None
        indicator, size = data[3 + described] >> 3 & 0x07, data[3 + described] & 0x07
        if indicator > 1:
            authentication = _SPARTN_AUTHENTICATION[size] if size < len(_SPARTN_AUTHENTICATION) else 0
    return 4 + described + payload + authentication + crc_type + 1


def _is_intact(frame: bytes) -> bool:
    if frame[0] == _RTCM:
        return crc(frame, 24, 0x864CFB) == 0  # a CRC over data and their CRC is 0
    width, polynomial, initial = _SPARTN_CRCS[frame[3] >> 4 & 0x03]
    size = width // 8
    return crc(frame[1:-size], width, polynomial, initial) ^ initial == int.from_bytes(frame[-size:], "big")


def _type_of(frame: bytes) -> str:
    if frame[0] == _RTCM:
        return f"RTCM {frame[3] << 4 | frame[4] >> 4}"
    return f"SPARTN {frame[1] >> 1}-{frame[4] >> 4}"


def crc(data: bytes, width: int, polynomial: int, initial: int = 0) -> int:
    """Return a CRC whose most significant bit comes first.

    :param width: bits; a multiple of eight.
    """
    table, mask, shift = _crc_table(width, polynomial), (1 << width) - 1, width - 8
    value = initial
    for byte in data:
        value = value << 8 & mask ^ table[value >> shift ^ byte]
    return value


@cache
def _crc_table(width: int, polynomial: int) -> list[int]:
    top, mask = 1 << width - 1, (1 << width) - 1
    table = []
    for byte in range(256):
        value = byte << width - 8
        for _bit in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return table


def _crc_4(data: bytes) -> int:
    """Return the CRC of a SPARTN header, whose least significant bit comes first."""
    value = 0
    for byte in data:
        value ^= byte
        for _bit in range(8):
            value = value >> 1 ^ 0x09 if value & 1 else value >> 1
    return value

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bytes are messages of RTCM 3 or SPARTN."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.frames import FrameReader, frame_length
from ansible_collections.thingstream.ztp.tests.unit.servers import DATA, rtcm_frame, spartn_frame


def types_in(stream: bytes, size: int | None = None) -> list[str]:
    """Return the types that a reader finds in a stream that arrives in pieces of a size."""
    reader = FrameReader()
    size = size or max(1, len(stream))
    return [found for start in range(0, len(stream), size) for found in reader.feed(stream[start : start + size])]


LONGEST = bytes(range(256)) * 4  # as payload: every value of a byte, the preambles too


@pytest.mark.parametrize("size", [1, 7, None])
@pytest.mark.parametrize(
    ("stream", "types"),
    [
        (DATA, ["RTCM 1005"]),  # from a caster, with the checksum of its base station
        (rtcm_frame(1077, bytes(100)), ["RTCM 1077"]),
        (rtcm_frame(4095, LONGEST[:1021]), ["RTCM 4095"]),
        (rtcm_frame(1), ["RTCM 1"]),
        (spartn_frame(0, 0, b"x"), ["SPARTN 0-0"]),
        (spartn_frame(1, 2, LONGEST[:1023]), ["SPARTN 1-2"]),
        (spartn_frame(2, 0, b"x" * 20, long_time=True), ["SPARTN 2-0"]),
        (spartn_frame(3, 1, b"x" * 20, encrypted=True), ["SPARTN 3-1"]),
        (spartn_frame(4, 1, b"x" * 20, encrypted=True, authentication=12), ["SPARTN 4-1"]),
        (spartn_frame(0, 1, b"x", encrypted=True, long_time=True, authentication=64), ["SPARTN 0-1"]),
        *((spartn_frame(0, 3, b"xyz", crc_type=kind), ["SPARTN 0-3"]) for kind in range(4)),
        # several, and other bytes among them
        (DATA + rtcm_frame(1077) + spartn_frame(0, 1, b"x"), ["RTCM 1005", "RTCM 1077", "SPARTN 0-1"]),
        (b"\xd3\x00" + DATA + b"s" + DATA[:-1] + DATA, ["RTCM 1005", "RTCM 1005"]),
        (b"\xd3\x03\xff" + DATA, ["RTCM 1005"]),  # what looks like the begin of a long frame holds nothing back
        (b"\xb5\x62\x13\x40" + bytes(68) + DATA, ["RTCM 1005"]),
        # none
        (b"", []),
        (DATA[:-1], []),
        (DATA[:-1] + bytes([DATA[-1] ^ 1]), []),
        (bytes([0xD3, 0x04]) + DATA[2:], []),  # a reserved bit is set
        (bytes.fromhex("d3000047ea4b"), []),  # without a message
        (rtcm_frame(raw=b"x"), []),
        (b"\xd3\x00\x13\x3e\xd0\x00\x03" + bytes(range(20)), []),
        (b"s\x00\x12\xe2" + bytes(60), []),
        (spartn_frame(0, 1, b"x")[:-1] + b"\0", []),
        (spartn_frame(5, 1, b"x"), []),
        (b"<html><body>success</body></html>" * 30, []),
    ],
)
def test_messages(stream: bytes, types: list[str], size: int | None) -> None:
    assert types_in(stream, size) == types


def test_a_spartn_header_of_a_stream() -> None:
    """The first bytes of a message as clients have received it, of which the header has a CRC of its own."""
    assert frame_length(bytes.fromhex("730012e2007c105b1248")) == 4 + 6 + 37 + 3
    assert frame_length(bytes.fromhex("730012e3007c105b1248")) == 0


@pytest.mark.parametrize("position", range(len(DATA)))
def test_one_wrong_bit_is_enough(position: int) -> None:
    for bit in range(8):
        wrong = bytearray(DATA)
        wrong[position] ^= 1 << bit
        assert types_in(bytes(wrong)) == []


def test_text_and_noise_have_no_messages() -> None:
    generator = random.Random(20261126)
    letters = b"satisfies session status success \t\r\n<>{}"
    text = bytes(generator.choice(letters) for _number in range(60_000))
    assert types_in(text) == []
    assert types_in(generator.randbytes(60_000)) == []


@pytest.mark.parametrize(
    "piece",
    [b"\xd3\x03\xff", b"\xd3\x00", b"\xd3", b"s\x00\x12\xe2\x00\x7c\x10\x5b", b"s", spartn_frame(0, 1, b"s" * 99)[:-1]],
)
def test_reading_is_bounded(piece: bytes) -> None:
    begin = time.monotonic()
    types_in(piece * (64 * 1024 // len(piece)), 4096)
    assert time.monotonic() - begin < 10


def with_pyrtcm() -> bytes:
    pyrtcm = pytest.importorskip("pyrtcm")
    messages = [pyrtcm.RTCMMessage(payload=bytes([0x3E, 0xD0 + kind]) + bytes(17)) for kind in range(3)]
    return b"".join(message.serialize() for message in messages)


def with_pyspartn() -> bytes:
    pyspartn = pytest.importorskip("pyspartn")
    frames = [spartn_frame(0, kind, LONGEST[: 30 * kind], encrypted=True, crc_type=kind) for kind in range(1, 4)]
    # the library checks the CRC of a message, and has the same idea of where everything is
    return b"".join(pyspartn.SPARTNReader.parse(frame, decode=False).serialize() for frame in frames)


@pytest.mark.parametrize(
    ("make", "types"),
    [(with_pyrtcm, ["RTCM 1005"] * 3), (with_pyspartn, ["SPARTN 0-1", "SPARTN 0-2", "SPARTN 0-3"])],
)
def test_what_other_libraries_write(make: Callable[[], bytes], types: list[str]) -> None:
    assert types_in(make()) == types

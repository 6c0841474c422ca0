# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which texts can be the ID of one device. Each function returns the hardware ID, or raises ``Implausible``.

The lists contain what fleet inventories refuse (OCS Inventory NG, FusionInventory, GLPI) and what people reported about
devices that share a number. No list is complete: two gateways with one ID are refused as well.

Private to the collection.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from itertools import pairwise

# With this, the algorithm of systemd turns a machine ID into an ID for this application; it must never change.
APPLICATION_ID = "d94a513cd0614bf6ae734addcdfe32cc"
MIN_SERIAL = 4  # letters and digits

# Texts that manufacturers leave in place of a serial number, in lower case, letters and digits only.
_PLACEHOLDERS = frozenset({
    "", "0123456789abcdef", "123456789000", "123456fvgv3i0b8o5n6n7k", "assettag", "badindex", "baseboardserial",
    "baseboardserialnumber", "boardserialnumber", "chassisserial", "chassisserialnumber", "default", "defaultstring",
    "dell", "empty", "eval", "false", "fillbyoem", "iatpass", "invalid", "na", "nil", "no", "noassettag", "none",
    "noserial", "noserialnumber", "notapplicable", "notavailable", "notdefined", "notpresent", "notset",
    "notspecified", "notsupported", "null", "nullstring", "oem", "oemserial", "off", "on", "outofspec", "product",
    "productserial", "productserialnumber", "serial", "serialnumber", "sernum", "sn12345", "sn123456fvgv3i0b8o5n6n7k",
    "standard", "sysserial", "system", "systemserial", "systemserialnumb", "systemserialnumber", "tbd", "test", "true",
    "tulipcomputers", "type1productconfigid", "type2boardserialnumber", "undefined", "uninitialized", "yes",
    "03000200040005000006000700080009", "00020003000400050006000700080009",
})  # fmt: skip
_PLACEHOLDER_BEGINNINGS = ("tobefilled", "unknow", "serialnumberx")
_REPEATED = re.compile(r"(.{1,4})\1{2,}|(.)\2*")
_PREFIX = re.compile(r"[a-z]*")

# Addresses that many devices have.
_SHARED_MACS = frozenset({
    "0c:5b:8f:27:9a:64", "58:2c:80:13:92:63",  # USB modems in HiLink mode, all of one model
    "00:e0:4c:87:00:00", "88:88:88:88:87:88",  # WLAN adapters without a programmed address
    "00:90:4c:11:22:33", "00:90:4c:c5:12:38",
    "00:0a:35:00:01:22", "00:0a:35:00:1e:53", "00:0a:35:00:22:01",  # defaults of FPGA boards
    "00:11:22:33:44:55", "00:01:02:03:04:05", "00:0a:0b:0c:0d:0e", "c0:ff:ee:c0:ff:ee",  # examples in documentation
    "20:41:53:59:4e:ff", "00:50:56:c0:00:01", "00:50:56:c0:00:08",  # virtual ones of systems that are no gateways
    "00:01:02:7d:9b:1c", "00:08:a1:46:06:35", "00:08:a1:66:e2:1a", "00:09:dd:10:37:68", "00:0f:ea:9a:e2:f0",
    "00:10:5a:72:71:f3", "00:11:11:85:08:8b", "10:11:11:11:11:11",
})  # fmt: skip
_SHARED_MAC_BEGINNINGS = (
    "00:00:00:",  # not programmed
    "00:00:5e:",  # virtual routers (RFC 9542)
    "00:1e:10:1f:00:",  # USB modems, all of one manufacturer
    "44:45:53:54:",  # dial-up adapters
)
_SHARED_MAC_ENDINGS = (":00:00:00", ":ff:ff:ff")  # the part of the device is not programmed

# IMEIs with a right check digit that many devices have, as emulators and modems that lost their calibration data.
_SHARED_IMEIS = frozenset({
    "001068000000006", "004400152020000", "004999010640000", "352005048247251", "358673013795895", "490154203237518",
})  # fmt: skip

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")


class Implausible(ValueError):
    """Raised for a value that cannot be the ID of one device; the text says why."""


def imei(value: str) -> str:
    """Return an IMEI: 15 digits with a right check digit."""
    if value == "--":
        raise Implausible("it is no IMEI: ModemManager does not know it yet")
    if re.fullmatch(r"[0-9A-Fa-f]{14}", value) and not value.isdecimal():
        raise Implausible("it is the MEID of a CDMA modem and no IMEI")
    if not re.fullmatch(r"[0-9]+", value):
        raise Implausible("it is no IMEI")
    if len(value) == 16:
        raise Implausible("an IMEI has 15 digits, not 16; an IMEISV changes with the firmware")
    if len(value) != 15:
        raise Implausible(f"an IMEI has 15 digits, not {len(value)}")
    if value.startswith("00000000") or _is_made_up(value[:-1]):
        raise Implausible("it is a placeholder")
    if not luhn_is_valid(value):
        raise Implausible("its check digit is wrong")
    if value in _SHARED_IMEIS:
        raise Implausible("many devices have it")
    return value


def luhn_is_valid(digits: str) -> bool:
    """Return whether the last of these decimal digits is the check digit (ISO/IEC 7812-1) of the others."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def serial(value: str) -> str:
    """Return a serial number that is no placeholder."""
    letters = re.sub(r"[^a-z0-9]", "", value.lower())
    if letters in _PLACEHOLDERS or letters.startswith(_PLACEHOLDER_BEGINNINGS) or _is_made_up(letters):
        raise Implausible("it is a placeholder")
    if len(letters) < MIN_SERIAL:
        raise Implausible(f"it is too short for a serial number (below {MIN_SERIAL} letters and digits)")
    return value


def _is_made_up(letters: str) -> bool:
    """Return whether lower-case letters and digits are repeated, or count up or down."""
    if _REPEATED.fullmatch(letters):
        return True
    prefix = _PREFIX.match(letters)
    digits = letters[prefix.end() :] if prefix else letters
    if not digits.isdecimal() or len(digits) < (6 if digits != letters else 4):
        return False
    steps = {(int(later) - int(earlier)) % 10 for earlier, later in pairwise(digits)}
    return steps in ({1}, {9})


def mac(value: str) -> str:
    """Return a MAC address of one device, in lower case."""
    value = value.lower()
    if not _MAC.fullmatch(value):
        raise Implausible("it is no MAC address")
    if value == "00:00:00:00:00:00":
        raise Implausible("it is a placeholder")
    first = int(value[:2], 16)
    if first & 1:
        raise Implausible("it is the address of a group")
    if first & 2:
        raise Implausible("it is locally administered, not that of the device")
    if (
        value in _SHARED_MACS
        or value.startswith(_SHARED_MAC_BEGINNINGS)
        or value.endswith(_SHARED_MAC_ENDINGS)
        or _REPEATED.fullmatch(value.replace(":", ""))
    ):
        raise Implausible("many devices have it")
    return value


def machine_id(value: str) -> str:
    """Return the ID that ``systemd-id128 machine-id --app-specific`` derives from a machine ID.

    The machine ID itself is confidential.
    """
    if not _MACHINE_ID.fullmatch(value) or len(set(value)) == 1:
        raise Implausible("it is no machine ID, or not initialized")
    digest = bytearray(hmac.new(bytes.fromhex(value), bytes.fromhex(APPLICATION_ID), hashlib.sha256).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40  # the form of a UUID, version 4
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a hardware ID on a gateway: run ``identify.sh``, and accept nothing that cannot be the ID of one device.

The output of a gateway is parsed, bounded and never evaluated. A hardware ID gets into an inventory, whose texts
Ansible evaluates, so a value that Ansible could take for an expression is refused.

Private to the collection.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ProvisioningError
from . import protocol
from .commands import run_script
from .protocol import Execute

SCRIPT = protocol.script("identify.sh")
MODEM_SECONDS = 10  # for each call of mmcli, which takes well below one
MAX_ID = 128  # characters
MAX_VALUES = 32  # of one source
# With this, the algorithm of systemd turns a machine ID into an ID for this application; it must never change.
APPLICATION_ID = "d94a513cd0614bf6ae734addcdfe32cc"

_UNKNOWN_REASON = "the gateway gave a reason that is not known"
_ABSENT = "there is none"
_REASONS: Mapping[str, str] = {
    "unreadable": "the user that runs the commands may not read it: use become",
    "no_program": "there is no ModemManager (mmcli)",
    "failed": "ModemManager (mmcli) reports an error: use become, and check that it runs",
    "timeout": f"ModemManager (mmcli) did not answer within {MODEM_SECONDS} seconds",
}
# Texts that manufacturers leave in place of a serial number, in lower case, letters and digits only.
_PLACEHOLDERS = {
    "", "0123456789", "123456789", "1234567890", "12345678", "chassisserialnumber", "baseboardserialnumber",
    "boardserialnumber", "default", "defaultstring", "empty", "invalid", "na", "nil", "none", "notapplicable",
    "notavailable", "notset", "notspecified", "null", "oem", "productserialnumber", "serial", "serialnumber",
    "systemserialnumber", "undefined", "uninitialized",
}  # fmt: skip
_PLACEHOLDER_BEGINNINGS = ("tobefilled", "unknown")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Candidate:
    """One value of one source.

    :param value: the hardware ID that it would be; ``None`` if the source has no value, or none that may be shown.
    :param refused: why it cannot be a hardware ID, or ``None``.
    """

    source: str
    value: str | None
    refused: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return the value as a task returns it; ``refused`` is left out if there is no reason."""
        description: dict[str, Any] = {"source": self.source, "value": self.value}
        return {**description, "refused": self.refused} if self.refused else description


class _Refused(ValueError):
    """Raised for a value that cannot be the ID of one device; the text says why."""


def discover(
    execute: Execute, sources: Sequence[str], *, root: str = "", seconds: int = MODEM_SECONDS
) -> list[Candidate]:
    """Read the sources of a gateway, in one remote command that changes nothing.

    :param sources: names out of ``SOURCES``, in the order of preference.
    :param root: where the files of the gateway are, for tests.
    :param seconds: how long each call of mmcli may take.
    :returns: the values of each source, in the order of ``sources``; at least one for each.
    :raises ProvisioningError: ``bad_option``, ``gateway_unsupported``.
    """
    if not sources or not set(sources) <= set(SOURCES):
        raise ProvisioningError("bad_option", f"sources must be one or more of {', '.join(SOURCES)}.")
    wanted = tuple(dict.fromkeys(sources))
    # a machine ID is confidential: it must not be printed at any verbosity
    secret = "machine_id" in wanted
    request = {"command": "identify", "sources": " ".join(wanted), "root": root, "seconds": str(seconds)}
    return candidates(wanted, run_script(execute, SCRIPT, secret, **request))


def candidates(sources: Sequence[str], lines: Sequence[str]) -> list[Candidate]:
    """Return the values in the output of ``identify.sh``; lines about other sources are dropped."""
    return [candidate for source in sources for candidate in _values_of(source, lines)]


def choose(found: Sequence[Candidate]) -> Candidate:
    """Return the first plausible one, in the order that ``discover`` returns.

    :raises ProvisioningError: ``hardware_id_required``, with the reason of each source.
    """
    for candidate in found:
        if candidate.value is not None and candidate.refused is None:
            return candidate
    reasons = "; ".join(_sentence(candidate) for candidate in found)
    raise ProvisioningError(
        "hardware_id_required",
        f"No source has a plausible hardware ID ({reasons}). Fix these problems, choose other sources, or set "
        "hardware_id to an ID that you choose.",
    )


def duplicates(ids: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the hardware IDs that several hosts have, each with these hosts in order.

    :param ids: host to its hardware ID, which may be empty or ``None``.
    """
    hosts: dict[str, list[str]] = {}
    for host, hardware_id in ids.items():
        name = "" if hardware_id is None else str(hardware_id).strip()
        if name:
            hosts.setdefault(name, []).append(str(host))
    return {name: sorted(hosts[name]) for name in sorted(hosts) if len(hosts[name]) > 1}


# ---- plausibility: each function returns the ID, or raises _Refused ----


def _imei(value: str) -> str:
    if not re.fullmatch(r"[0-9]+", value):
        raise _Refused("it is no IMEI")
    if len(value) != 15:
        raise _Refused(f"an IMEI has 15 digits, not {len(value)}")
    if not luhn_is_valid(value):
        raise _Refused("its check digit is wrong")
    return _serial(value)


def luhn_is_valid(digits: str) -> bool:
    """Return whether the last of these decimal digits is the check digit (ISO/IEC 7812-1) of the others."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _serial(value: str) -> str:
    letters = re.sub(r"[^a-z0-9]", "", value.lower())
    if letters in _PLACEHOLDERS or letters.startswith(_PLACEHOLDER_BEGINNINGS) or len(set(letters)) == 1:
        raise _Refused("it is a placeholder")
    return value


def _mac(value: str) -> str:
    value = value.lower()
    if not _MAC.fullmatch(value):
        raise _Refused("it is no MAC address")
    if value == "00:00:00:00:00:00":
        raise _Refused("it is a placeholder")
    first = int(value[:2], 16)
    if first & 1:
        raise _Refused("it is the address of a group")
    if first & 2:
        raise _Refused("it is locally administered, not that of the device")
    return value


def _machine_id(value: str) -> str:
    """A machine ID is confidential; this is what ``systemd-id128 machine-id --app-specific`` makes of it."""
    if not _MACHINE_ID.fullmatch(value) or len(set(value)) == 1:
        raise _Refused("it is no machine ID, or not initialized")
    digest = bytearray(hmac.new(bytes.fromhex(value), bytes.fromhex(APPLICATION_ID), hashlib.sha256).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40  # the form of a UUID, version 4
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()


@dataclass(frozen=True)
class _Source:
    """How the values of a source are read.

    :param plausible: value -> hardware ID.
    :param ordered: whether the lowest plausible value counts, and not the first one.
    :param confidential: whether refused values must not be shown.
    """

    plausible: Callable[[str], str]
    ordered: bool = False
    confidential: bool = False


SOURCES: Mapping[str, _Source] = {
    "modem_imei": _Source(_imei, ordered=True),
    "dmi_serial": _Source(_serial),
    "device_tree_serial": _Source(_serial),
    "mac": _Source(_mac, ordered=True),
    "machine_id": _Source(_machine_id, confidential=True),
}


# ---- output ----


def _values_of(source: str, lines: Sequence[str]) -> list[Candidate]:
    """Plausible values first, the one that counts before all others."""
    values = dict.fromkeys(line[len(source) + 1 :].strip() for line in lines if line.startswith(f"{source} "))
    found = list(dict.fromkeys(_judged(source, value) for value in list(values)[:MAX_VALUES]))
    prefix = f"none {source} "
    reasons = (_REASONS.get(line[len(prefix) :], _UNKNOWN_REASON) for line in lines if line.startswith(prefix))
    found += [Candidate(source, None, reason) for reason in dict.fromkeys(reasons)]
    plausible = [candidate for candidate in found if candidate.refused is None]
    if SOURCES[source].ordered:
        plausible.sort(key=lambda candidate: candidate.value or "")
    refused = [candidate for candidate in found if candidate.refused is not None]
    return plausible + refused or [Candidate(source, None, _ABSENT)]


def _judged(source: str, value: str) -> Candidate:
    kind = SOURCES[source]
    try:
        return Candidate(source, kind.plausible(_plain(value)))
    except _Refused as refusal:
        shown = None if kind.confidential else _shown(value)
        return Candidate(source, shown, str(refusal))


def _plain(value: str) -> str:
    if not value:
        raise _Refused("it is empty")
    if len(value) > MAX_ID:
        raise _Refused(f"it is longer than {MAX_ID} characters")
    if not value.isascii() or not value.isprintable():
        raise _Refused("it holds other characters than printable ASCII")
    if "{" in value or "}" in value:
        raise _Refused("it holds braces, which Ansible would evaluate")
    return value


def _shown(value: str) -> str:
    """A refused value as it may be shown: printable, short, and nothing that Ansible would evaluate."""
    text = "".join(character if character.isprintable() and character not in "{}" else "?" for character in value)
    return text[:MAX_ID]


def _sentence(candidate: Candidate) -> str:
    value = "" if candidate.value is None else f" {candidate.value!r}"
    return f"{candidate.source}{value}: {candidate.refused}"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a hardware ID on a gateway: run ``identify.sh``, and accept nothing that cannot be the ID of one device.

The output of a gateway is parsed, bounded and never evaluated. A hardware ID gets into an inventory, whose texts
Ansible evaluates, so a value that Ansible could take for an expression is refused.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ProvisioningError
from . import plausibility, protocol
from .commands import run_script
from .plausibility import Implausible
from .protocol import Execute

SCRIPT = protocol.script("identify.sh")
MODEM_SECONDS = 10  # for each call of mmcli, which takes well below one
MAX_ID = 128  # characters
MAX_VALUES = 32  # of one source

_UNKNOWN_REASON = "the gateway gave a reason that is not known"
_ABSENT = "there is none"
_REASONS: Mapping[str, str] = {
    "unreadable": "the user that runs the commands may not read it: use become",
    "no_program": "there is no ModemManager (mmcli)",
    "failed": "ModemManager (mmcli) reports an error: run mmcli -L on the gateway to see it",
    "denied": "ModemManager (mmcli) does not permit this user to read the modem: use become",
    "not_running": "ModemManager does not run: start it",
    "too_old": "this version of ModemManager (mmcli) is older than 1.10 and has no option -K: update it",
    "vanished": "the modem has disappeared meanwhile: run again",
    "timeout": f"ModemManager (mmcli) did not respond within {MODEM_SECONDS} seconds",
}


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


# ---- sources ----


@dataclass(frozen=True)
class _Source:
    """How the values of a source are read.

    :param plausible: value -> hardware ID; raises ``Implausible``.
    :param ordered: whether the lowest plausible value counts, and not the first one.
    :param kinds: words before a value that say what it is of, the preferred one first.
    :param confidential: whether refused values must not be shown.
    """

    plausible: Callable[[str], str]
    ordered: bool = False
    kinds: tuple[str, ...] = ()
    confidential: bool = False


SOURCES: Mapping[str, _Source] = {
    "modem_imei": _Source(plausibility.imei, ordered=True),
    "dmi_serial": _Source(plausibility.serial),
    "device_tree_serial": _Source(plausibility.serial),
    "mac": _Source(plausibility.mac, ordered=True, kinds=("ethernet", "wireless", "usb_ethernet", "usb_wireless")),
    "machine_id": _Source(plausibility.machine_id, confidential=True),
}


# ---- output ----


def _values_of(source: str, lines: Sequence[str]) -> list[Candidate]:
    """Return the values of a source, plausible ones first; the first plausible value counts."""
    kind = SOURCES[source]
    values = dict.fromkeys(line[len(source) + 1 :].strip() for line in lines if line.startswith(f"{source} "))
    ranked: dict[Candidate, int] = {}  # of what is found several times, the best rank counts
    for text in list(values)[:MAX_VALUES]:
        rank, value = _rank(text, kind.kinds)
        candidate = _judged(source, value)
        ranked[candidate] = min(rank, ranked.get(candidate, rank))
    plausible = [candidate for candidate in ranked if candidate.refused is None]
    if kind.ordered:
        plausible.sort(key=lambda candidate: (ranked[candidate], candidate.value or ""))
    prefix = f"none {source} "
    reasons = (_REASONS.get(line[len(prefix) :], _UNKNOWN_REASON) for line in lines if line.startswith(prefix))
    refused = [candidate for candidate in ranked if candidate.refused is not None]
    refused += [Candidate(source, None, reason) for reason in dict.fromkeys(reasons)]
    return plausible + refused or [Candidate(source, None, _ABSENT)]


def _rank(text: str, kinds: Sequence[str]) -> tuple[int, str]:
    """Return the place of a value's kind in the order of preference, and the value."""
    kind, _blank, value = text.partition(" ")
    return (kinds.index(kind), value.strip()) if kind in kinds else (len(kinds), text)


def _judged(source: str, value: str) -> Candidate:
    kind = SOURCES[source]
    try:
        plausible = kind.plausible(_plain(value))
        if " " in plausible:
            raise Implausible("it contains a blank, which no hardware ID may have")
        return Candidate(source, plausible)
    except Implausible as refusal:
        shown = None if kind.confidential else _shown(value)
        return Candidate(source, shown, str(refusal))


def _plain(value: str) -> str:
    if not value:
        raise Implausible("it is empty")
    if len(value) > MAX_ID:
        raise Implausible(f"it is longer than {MAX_ID} characters")
    if not value.isascii() or not value.isprintable():
        raise Implausible("it holds other characters than printable ASCII")
    if "{" in value or "}" in value:
        raise Implausible("it holds braces, which Ansible would evaluate")
    return value


def _shown(value: str) -> str:
    """Return a refused value as it may be shown: printable, short, and with nothing that Ansible would evaluate."""
    text = "".join(character if character.isprintable() and character not in "{}" else "?" for character in value)
    return text[:MAX_ID]


def _sentence(candidate: Candidate) -> str:
    value = "" if candidate.value is None else f" {candidate.value!r}"
    return f"{candidate.source}{value}: {candidate.refused}"

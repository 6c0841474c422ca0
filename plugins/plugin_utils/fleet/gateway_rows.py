# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe the state of each gateway of a fleet in one row for each path.

What a gateway claims is not trusted: columns are chosen by name, and texts are bounded.

Private to the collection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from .shared import Place, SharedThing
from .text import MAX_NAMES, clean, one_line

# The first state that applies counts. A gateway in one of the first two was not seen.
STATES = ("unreachable", "failed", "absent", "damaged", "wrong_thing", "expired", "due", "drift", "in_order")
UNSEEN = STATES[:2]

Bundle = Mapping[str, Any]  # what ``thingstream_ztp_info`` returns for one path

_FROM_RECORD = (
    "service",
    "delivery",
    "hardware_id",
    "given_name",
    "client_id",
    "issued_at",
    "not_after",
    "keys_expire_at",
    "fingerprint_sha256",
)
_FROM_BUNDLE = ("path", "generation", "due_at", "damaged", "drift", "leftovers")
_NO_BUNDLE: Bundle = {**dict.fromkeys(_FROM_BUNDLE), "present": False, "thing": None, "retired": []}


@dataclass(frozen=True)
class GatewayRow:
    """The state of one path on one gateway; of the gateway itself, if it has no bundle or was not seen.

    Dates are in ISO 8601 and UTC. What does not apply is ``None``.

    :param state: one of ``STATES``.
    :param retired: the number of Things on the retirement list of the path.
    :param inventory_hardware_id: the hardware ID in the inventory, if the Thing has another one.
    :param shared_with: the other hosts that use the same Thing.
    :param verification: how a login with the credentials went, in words.
    """

    host: str
    state: str
    service: str | None = None
    delivery: Sequence[str] | None = None
    hardware_id: str | None = None
    inventory_hardware_id: str | None = None
    given_name: str | None = None
    client_id: str | None = None
    path: str | None = None
    generation: str | None = None
    issued_at: str | None = None
    not_after: str | None = None
    keys_expire_at: str | None = None
    due_at: str | None = None
    fingerprint_sha256: str | None = None
    damaged: Sequence[str] | None = None
    drift: Sequence[str] | None = None
    leftovers: Sequence[str] | None = None
    retired: int | None = None
    shared_with: Sequence[str] | None = None
    verification: str | None = None
    error_code: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the values of ``COLUMNS``."""
        return dict(vars(self))


COLUMNS = tuple(column.name for column in fields(GatewayRow))


def seen_bundles(result: Mapping[str, Any] | None) -> Sequence[Bundle] | None:
    """Return the bundles in a result of ``thingstream_ztp_info``; ``None`` for a gateway that was not seen."""
    return None if not result or result.get("failed") else result.get("bundles")


def gateway_rows(
    results: Mapping[str, Mapping[str, Any] | None],
    shared: Iterable[SharedThing],
    hardware_ids: Mapping[str, str],
    verifications: Mapping[str, Mapping[str, Any] | None],
    now: str,
) -> list[GatewayRow]:
    """Return the rows of a fleet, sorted by host.

    :param results: host to the result of ``thingstream_ztp_info``; ``None`` or empty for a host without a result.
    :param shared: the Things that several hosts use.
    :param hardware_ids: host to its hardware ID in the inventory.
    :param verifications: host to the result of ``thingstream_verify``.
    :param now: in ISO 8601 and UTC, as which dates compare as texts.
    """
    by_place = _by_place(shared)
    rows: list[GatewayRow] = []
    for host in sorted(results):
        result = results[host] or {}
        bundles = seen_bundles(result)
        own = hardware_ids.get(host)
        if bundles is None:
            rows.append(_unseen_row(host, result))
        else:
            of_host = _rows(host, own, bundles, by_place, now)
            verification = verifications.get(host)
            rows += _with_verification(of_host, verification) if verification else of_host
    return rows


def _with_verification(rows: Sequence[GatewayRow], result: Mapping[str, Any]) -> list[GatewayRow]:
    """Return the rows of a gateway; the one whose path was verified, or the only one, says how that went."""
    text, path = verification_text(result), result.get("path")
    return [
        replace(row, verification=text) if text and (row.path == path if path else len(rows) == 1) else row
        for row in rows
    ]


def verification_text(result: Mapping[str, Any]) -> str | None:
    """Return what a result of ``thingstream_verify`` says in one line; ``None`` for one that says nothing.

    >>> tls = {"delivery": "ntrip", "host": "ppntrip.services.u-blox.com", "port": 2102, "tls": True}
    >>> verification_text({"verifications": [{**tls, "message_types": ["RTCM 1005"], "first_correction_ms": 320}]})
    'ntrip, ppntrip.services.u-blox.com:2102, TLS, RTCM 1005, first after 320 ms'
    """
    if result.get("failed") or result.get("unreachable"):
        return one_line(f"{result.get('error_code')}: {result.get('msg')}")
    return one_line("; ".join(map(_one_verification, result.get("verifications") or ()))) or None


def _one_verification(found: Mapping[str, Any]) -> str:
    types, delay = found.get("message_types") or (), found.get("first_correction_ms")
    parts = [found["delivery"], f"{found['host']}:{found['port']}", "TLS" if found["tls"] else "no TLS", *types]
    return ", ".join([*parts, *([f"first after {delay} ms"] if delay is not None else [])])


def _by_place(shared: Iterable[SharedThing]) -> Mapping[Place, Sequence[SharedThing]]:
    """Return the shared Things of each place that has one."""
    found: dict[Place, list[SharedThing]] = defaultdict(list)
    for thing in shared:
        for place in thing.places:
            found[place].append(thing)
    return found


def _other_hosts(shared: Sequence[SharedThing], host: str) -> list[str]:
    """Return the other hosts of shared Things, bounded: all gateways of a fleet may be copies of one image."""
    if not shared:
        return []
    hosts: Sequence[str] = (
        shared[0].hosts if len(shared) == 1 else sorted({one for thing in shared for one in thing.hosts})
    )
    shown = [other for other in hosts[: MAX_NAMES + 1] if other != host][:MAX_NAMES]
    rest = len(hosts) - 1 - len(shown)
    return [*shown, f"({rest} more)"] if rest > 0 else shown


def _unseen_row(host: str, result: Mapping[str, Any]) -> GatewayRow:
    return GatewayRow(
        host=host,
        state="unreachable" if result.get("unreachable") else "failed",
        error_code=one_line(result.get("error_code")),
        error=one_line(result.get("msg")) or "There is no result for this gateway.",
    )


def _rows(
    host: str,
    hardware_id: str | None,
    bundles: Sequence[Bundle],
    by_place: Mapping[Place, Sequence[SharedThing]],
    now: str,
) -> list[GatewayRow]:
    """Return a row for each path with a bundle; one for a gateway without any."""
    relevant = [bundle for bundle in bundles if bundle["present"] or bundle["leftovers"] or bundle["retired"]]
    return [
        _row(host, hardware_id, bundle, by_place.get((host, bundle["path"]), ()), now)
        for bundle in relevant or (bundles if len(bundles) == 1 else [_NO_BUNDLE])
    ]


def _row(host: str, hardware_id: str | None, bundle: Bundle, shared: Sequence[SharedThing], now: str) -> GatewayRow:
    record = bundle["thing"] or {}
    found = clean({name: record.get(name) for name in _FROM_RECORD} | {name: bundle[name] for name in _FROM_BUNDLE})
    differs = hardware_id is not None and record.get("hardware_id") not in (None, hardware_id)
    return GatewayRow(
        host=host,
        state=_state(bundle["present"], differs or bool(shared), found, now),
        inventory_hardware_id=hardware_id if differs else None,
        retired=len(bundle["retired"]),
        shared_with=_other_hosts(shared, host),
        **found,
    )


def _state(present: bool, has_wrong_thing: bool, found: Mapping[str, Any], now: str) -> str:
    checks = (
        ("absent", not present),
        ("damaged", bool(found["damaged"])),
        ("wrong_thing", has_wrong_thing),
        ("expired", _is_past(found, "not_after", now) or _is_past(found, "keys_expire_at", now)),
        ("due", _is_past(found, "due_at", now)),
        ("drift", bool(found["drift"] or found["leftovers"])),
    )
    return next((state for state, applies in checks if applies), "in_order")


def _is_past(found: Mapping[str, Any], name: str, now: str) -> bool:
    return found[name] is not None and bool(found[name] <= now)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of one bundle, ``thing.json``: identity, dates and digests of its credentials, without any secret.

Private to the collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .dates import optional_date, optional_timestamp, parse_date, timestamp
from .history import FormerThing, parse_things
from .thing_id import ThingId, parse_thing_id

RECORD_NAME = "thing.json"
RESPONSE_NAME = "credentials.json"
RECORD_VERSION = 1  # raised when the files of a bundle are rendered differently; older bundles are rendered again

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MODE = re.compile(r"0[0-7][0-7][0145]")
_MAX_TEXT = 512  # characters
_DELIVERIES = ("mqtt", "ntrip", "lband")


@dataclass(frozen=True)
class Record:
    """The content of ``thing.json``, which describes a bundle. Dates are aware.

    :param thing_id: which Thing it is.
    :param delivery: the ways of delivery, of ``mqtt``, ``ntrip`` and ``lband``.
    :param origin: ``ztp``, or the source of imported credentials.
    :param issued_at: when the response arrived.
    :param identity_sha256: changes when the Thing or its login changes, and not with dynamic keys.
    :param formats: the formats that were asked for; ``None`` for the default ones.
    :param modes: file name to mode, of files that templates made.
    :param files: file name to the SHA-256 of its content, for every file but the record.
    :param retired: the Things formerly in use, as the history had them when the generation was made.
    """

    service: str
    thing_id: ThingId
    issued_at: datetime
    identity_sha256: str
    files: Mapping[str, str]
    record_version: int = RECORD_VERSION
    delivery: tuple[str, ...] = ()
    hardware_id: str | None = None
    given_name: str | None = None
    origin: str | None = None
    host: str | None = None
    port: int | None = None
    ntrip_host: str | None = None
    ntrip_port: int | None = None
    ntrip_mountpoint: str | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    fingerprint_sha256: str | None = None
    keys_expire_at: datetime | None = None
    formats: tuple[str, ...] | None = None
    templates_sha256: str | None = None
    modes: Mapping[str, int] = field(default_factory=dict)
    retired: tuple[FormerThing, ...] = ()

    @property
    def response_id(self) -> str:
        """Names the response that is installed, whatever is rendered of it; see ``response_id``."""
        return response_id(self.identity_sha256, self.issued_at)

    def as_former(self) -> FormerThing:
        """Return the Thing of this record as the history names it."""
        return FormerThing(self.thing_id, self.service, self.hardware_id, self.given_name)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``thing.json``, which is also what results show."""
        return {
            "record_version": self.record_version,
            "service": self.service,
            "delivery": list(self.delivery),
            "hardware_id": self.hardware_id,
            "given_name": self.given_name,
            "origin": self.origin,
            "client_id": self.thing_id.client_id,
            "login_sha256": self.thing_id.login_sha256,
            "host": self.host,
            "port": self.port,
            "ntrip_host": self.ntrip_host,
            "ntrip_port": self.ntrip_port,
            "ntrip_mountpoint": self.ntrip_mountpoint,
            "issued_at": timestamp(self.issued_at),
            "not_before": optional_timestamp(self.not_before),
            "not_after": optional_timestamp(self.not_after),
            "fingerprint_sha256": self.fingerprint_sha256,
            "identity_sha256": self.identity_sha256,
            "keys_expire_at": optional_timestamp(self.keys_expire_at),
            "formats": None if self.formats is None else list(self.formats),
            "templates_sha256": self.templates_sha256,
            "modes": {name: f"{mode:04o}" for name, mode in self.modes.items()},
            "files": dict(self.files),
            "retired": [thing.to_dict() for thing in self.retired],
        }

    def encode(self) -> str:
        """Return ``thing.json``."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=True) + "\n"

    @classmethod
    def parse(cls, text: str | None) -> Record | None:
        """Return the record that a text holds, or ``None`` if it is none: a gateway's claims are not trusted.

        Without service, identity, date of the response and digests of the files, nothing can be decided and the text
        counts as none. Other values of the wrong type are left out.
        """
        try:
            content = json.loads(text) if text is not None else None
            return _parse(content) if isinstance(content, dict) else None
        except (ValueError, RecursionError):
            return None


def response_id(identity_sha256: str, received_at: datetime) -> str:
    """Return what names a response without a secret. It is compared for equality only: no clock decides an order."""
    return f"{identity_sha256} {timestamp(received_at)}"


def _parse(content: Mapping[str, Any]) -> Record:
    """Return the record. Raises ``ValueError`` if a necessary part is missing."""
    thing_id = parse_thing_id(content.get("client_id"), content.get("login_sha256"))
    service, identity = _text(content, "service"), _text(content, "identity_sha256")
    if service is None or identity is None or thing_id is None:
        raise ValueError("no service or identity")
    return Record(
        service=service,
        thing_id=thing_id,
        issued_at=parse_date(content.get("issued_at")),
        identity_sha256=identity,
        files=_files(content.get("files")),
        record_version=_number(content, "record_version") or 0,
        delivery=tuple(way for way in _list(content.get("delivery")) if way in _DELIVERIES),
        hardware_id=_text(content, "hardware_id"),
        given_name=_text(content, "given_name"),
        origin=_text(content, "origin"),
        host=_text(content, "host"),
        port=_number(content, "port"),
        ntrip_host=_text(content, "ntrip_host"),
        ntrip_port=_number(content, "ntrip_port"),
        ntrip_mountpoint=_text(content, "ntrip_mountpoint"),
        not_before=optional_date(content.get("not_before")),
        not_after=optional_date(content.get("not_after")),
        fingerprint_sha256=_text(content, "fingerprint_sha256"),
        keys_expire_at=optional_date(content.get("keys_expire_at")),
        formats=_formats(content.get("formats")),
        templates_sha256=_text(content, "templates_sha256"),
        modes=_modes(content.get("modes")),
        retired=parse_things(content.get("retired")),
    )


def _files(value: object) -> dict[str, str]:
    files = value if isinstance(value, dict) else None
    if files is None or not all(
        _FILE_NAME.fullmatch(name) and isinstance(digest, str) and digest.isprintable() and len(digest) <= _MAX_TEXT
        for name, digest in files.items()
    ):
        raise ValueError("no digests of files")
    return files


def _formats(value: object) -> tuple[str, ...] | None:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else None


def _modes(value: object) -> dict[str, int]:
    modes = value if isinstance(value, dict) else {}
    return {name: int(mode, 8) for name, mode in modes.items() if isinstance(mode, str) and _MODE.fullmatch(mode)}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT else None


def _number(content: Mapping[str, Any], name: str) -> int | None:
    value = content.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The invariants of a gateway's disk, which hold at every moment, whatever process died there."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

_PUBLIC = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def in_use(path: Path) -> dict[str, Any] | None:
    """Return the record of the generation in use, which must be complete, or ``None`` where there is no link."""
    link = path / "current"
    if not os.path.lexists(link):
        return None
    target = os.readlink(link)
    assert re.fullmatch(r"generations/[0-9]{6}", target), target
    generation = path / target
    record: dict[str, Any] = json.loads((generation / "thing.json").read_bytes())
    assert set(os.listdir(generation)) == {"thing.json", *record["files"]}
    for name, digest in record["files"].items():
        assert hashlib.sha256((generation / name).read_bytes()).hexdigest() == digest, name
    if "client.key" in record["files"]:
        certificate = x509.load_pem_x509_certificate((generation / "client.crt").read_bytes())
        expected = certificate.public_key().public_bytes(*_PUBLIC)
        for name in ("client.key", "client.pem"):
            key = load_pem_private_key((generation / name).read_bytes(), None)
            assert key.public_key().public_bytes(*_PUBLIC) == expected, f"{name} does not fit the certificate"
    return record


def assert_settled(path: Path) -> None:
    """Check that nothing of a dead run is left, except maybe its lock, which the next change takes over."""
    known = {"current", "generations", "history.json", ".newest", ".last-change", ".lock"}
    left = sorted(set(os.listdir(path)) - known)
    assert left == [], left

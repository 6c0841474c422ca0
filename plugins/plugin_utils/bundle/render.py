# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From credentials to the files of one bundle, the record among them.

Private to the collection.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import ProvisioningError
from ..gateway.commands import File
from ..job.policy import RECORD_VERSION, timestamp
from ..platform.credentials import Credentials
from .formats import DEFAULT_FORMATS, FORMATS, PUBLIC_FILES, Layout

RESPONSE_MODE = 0o600
RECORD_MODE = 0o640
RECORD_NAME = "thing.json"

# The certification authority of the API and of the MQTT broker (seen in client code): Amazon Root CA 1.
_AMAZON_ROOT_CA_1_SHA256 = "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e"
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE-----\n?")


@dataclass(frozen=True)
class Templates:
    """Files that the user's own templates make of credentials.

    :param sha256: changes when a template does, so that its file is rendered again.
    :param modes: name of each file to its mode.
    :param render: the record so far and the fields of the credentials, to the content of each file.
    """

    sha256: str
    modes: Mapping[str, int]
    render: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, bytes]]


def broker_ca(bundle: str) -> str:
    """The certificate of Amazon Root CA 1 out of a bundle of PEM certificates.

    :raises ProvisioningError: ``bad_option`` if it is not in there.
    """
    for match in _PEM_CERTIFICATE.finditer(bundle):
        with contextlib.suppress(binascii.Error):
            if digest(base64.b64decode(match.group(1))) == _AMAZON_ROOT_CA_1_SHA256:
                return match.group(0)
    raise ProvisioningError(
        "bad_option", "The CA bundle of the controller does not hold Amazon Root CA 1: set broker_ca_path."
    )


def digest(content: bytes) -> str:
    """The SHA-256 of a file's content, as records hold it."""
    return hashlib.sha256(content).hexdigest()


def render(
    credentials: Credentials,
    response: bytes,
    layout: Layout,
    formats: Sequence[str] | None,
    identity: Mapping[str, Any],
    issued_at: datetime,
    templates: Templates | None = None,
) -> tuple[dict[str, File], dict[str, Any]]:
    """Renders every file of a bundle.

    :param response: the raw response, which is kept beside what was made of it.
    :param formats: names out of ``FORMATS``; ``None`` for those of ``DEFAULT_FORMATS`` that the credentials can serve.
    :param identity: ``hardware_id``, ``given_name``, ``origin`` and ``retired`` for the record.
    :returns: file name to ``File`` (``thing.json`` among them), and the record.
    :raises ProvisioningError: ``bad_option`` if the credentials cannot serve a format that was asked for, if a template
        fails, or if two of them write one file.
    """
    usable = [name for name in DEFAULT_FORMATS if FORMATS[name].serves(credentials)]
    chosen = sorted(formats) if formats is not None else usable
    files = {"credentials.json": File(response, RESPONSE_MODE)}
    for name in chosen:
        if not FORMATS[name].serves(credentials):
            raise ProvisioningError(
                "bad_option",
                f"The format {name} cannot be made from credentials for {' and '.join(credentials.delivery) or 'none'}"
                ": take it out of formats, or use a device profile that delivers what it needs.",
            )
        files.update(FORMATS[name].render(credentials, layout))
    asked_for = sorted(chosen) if formats is not None else None
    if templates is not None:
        known = _record(credentials, files, asked_for, identity, issued_at, templates)
        for name, rendered in templates.render(known, credentials.fields()).items():
            if name in files or name == RECORD_NAME:
                raise ProvisioningError("bad_option", f"templates: {name} is a file of the bundle already.")
            files[name] = File(rendered, templates.modes[name])
    record = _record(credentials, files, asked_for, identity, issued_at, templates)
    content = json.dumps(record, indent=2, ensure_ascii=True) + "\n"
    files[RECORD_NAME] = File(content.encode(), RECORD_MODE)
    return files, record


def file_modes(record: Mapping[str, Any], secret_mode: int, public_mode: int) -> dict[str, int]:
    """The mode that each file of an installed bundle must have, by its name."""
    own = {"credentials.json": RESPONSE_MODE, **{name: int(mode, 8) for name, mode in record["modes"].items()}}
    modes = {name: own.get(name, public_mode if name in PUBLIC_FILES else secret_mode) for name in record["files"]}
    return {**modes, RECORD_NAME: RECORD_MODE}


def _record(
    credentials: Credentials,
    files: Mapping[str, File],
    formats: Sequence[str] | None,
    identity: Mapping[str, Any],
    issued_at: datetime,
    templates: Templates | None,
) -> dict[str, Any]:
    return {
        "record_version": RECORD_VERSION,
        "service": credentials.service,
        "delivery": list(credentials.delivery),
        "hardware_id": identity["hardware_id"],
        "given_name": identity["given_name"],
        "origin": identity.get("origin"),
        "client_id": credentials.client_id,
        "host": credentials.host,
        "port": credentials.port,
        "ntrip_host": credentials.ntrip_host,
        "ntrip_port": credentials.ntrip_port,
        "ntrip_mountpoint": credentials.ntrip_mountpoint,
        "issued_at": timestamp(issued_at),
        "not_before": timestamp(credentials.not_before),
        "not_after": timestamp(credentials.not_after),
        "fingerprint_sha256": credentials.fingerprint_sha256,
        "identity_sha256": credentials.identity_sha256,
        "keys_expire_at": timestamp(credentials.keys_expire_at),
        "formats": formats,
        "templates_sha256": templates.sha256 if templates else None,
        "modes": {name: f"{mode:04o}" for name, mode in templates.modes.items()} if templates else {},
        "files": {name: digest(file.content) for name, file in files.items()},
        "retired": list(identity["retired"]),
    }

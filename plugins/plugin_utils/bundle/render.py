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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..errors import ProvisioningError
from ..gateway.protocol import File
from ..platform.credentials import Credentials
from .dates import whole_seconds
from .formats import DEFAULT_FORMATS, FORMATS, PUBLIC_FILES, PUBLIC_MODE, Layout
from .history import FormerThing
from .record import RECORD_NAME, RESPONSE_NAME, Record
from .thing_id import ThingId

RESPONSE_MODE = 0o600
RECORD_MODE = 0o640

# The certification authority of the API and of the MQTT broker (seen in client code): Amazon Root CA 1.
_AMAZON_ROOT_CA_1_SHA256 = "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e"
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE-----\n?")


@dataclass(frozen=True)
class Origin:
    """Where credentials come from, as their record says.

    :param source: ``ztp``, or the source of imported credentials.
    :param issued_at: when the response arrived (aware).
    :param retired: the Things formerly in use at the path.
    """

    source: str | None
    issued_at: datetime
    hardware_id: str | None
    given_name: str | None
    retired: tuple[FormerThing, ...] = ()


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
    """Return the certificate of Amazon Root CA 1 from a bundle of PEM certificates.

    :raises ProvisioningError: ``bad_option`` if the bundle does not contain it.
    """
    for match in _PEM_CERTIFICATE.finditer(bundle):
        with contextlib.suppress(binascii.Error):
            if digest(base64.b64decode(match.group(1))) == _AMAZON_ROOT_CA_1_SHA256:
                return match.group(0)
    raise ProvisioningError(
        "bad_option", "The CA bundle of the controller does not hold Amazon Root CA 1: set broker_ca_path."
    )


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, as records hold it."""
    return hashlib.sha256(content).hexdigest()


def render(
    credentials: Credentials,
    response: bytes,
    layout: Layout,
    formats: Sequence[str] | None,
    origin: Origin,
    templates: Templates | None = None,
) -> tuple[dict[str, File], Record]:
    """Render every file of a bundle.

    :param response: the raw response, which is kept beside what is made of it.
    :param formats: names out of ``FORMATS``; ``None`` for those of ``DEFAULT_FORMATS`` that the credentials can serve.
    :returns: file name to ``File`` (``thing.json`` among them), and the record.
    :raises ProvisioningError: ``bad_option`` if the credentials cannot serve a format that was asked for, if a template
        fails, or if two of them write one file.
    """
    usable = [name for name in DEFAULT_FORMATS if FORMATS[name].serves(credentials)]
    chosen = sorted(formats) if formats is not None else usable
    files = {RESPONSE_NAME: File(response, RESPONSE_MODE)}
    for name in chosen:
        if not FORMATS[name].serves(credentials):
            raise ProvisioningError(
                "bad_option",
                f"The format {name} cannot be made from credentials for {' and '.join(credentials.delivery) or 'none'}"
                ": take it out of formats, or use a device profile that delivers what it needs.",
            )
        files.update(FORMATS[name].render(credentials, layout))
    record = _record(credentials, tuple(chosen) if formats is not None else None, origin, templates)
    if templates is not None:
        known = replace(record, files=_digests(files)).to_dict()
        for name, rendered in templates.render(known, credentials.fields()).items():
            if name in files or name == RECORD_NAME:
                raise ProvisioningError("bad_option", f"templates: {name} is a file of the bundle already.")
            files[name] = File(rendered, templates.modes[name])
    record = replace(record, files=_digests(files))
    files[RECORD_NAME] = File(record.encode().encode(), RECORD_MODE)
    return files, record


def file_modes(record: Record, secret_mode: int) -> dict[str, int]:
    """Return the mode that each file of an installed bundle must have, by its name."""
    own = {RESPONSE_NAME: RESPONSE_MODE, **record.modes}
    modes = {name: own.get(name, PUBLIC_MODE if name in PUBLIC_FILES else secret_mode) for name in record.files}
    return {**modes, RECORD_NAME: RECORD_MODE}


def thing_id_of(credentials: Credentials) -> ThingId:
    """Return the identity of the Thing that credentials belong to; checked credentials always have one."""
    return ThingId(credentials.client_id, credentials.login_sha256)


def _digests(files: Mapping[str, File]) -> dict[str, str]:
    return {name: digest(file.content) for name, file in files.items()}


def _record(
    credentials: Credentials, formats: tuple[str, ...] | None, origin: Origin, templates: Templates | None
) -> Record:
    keys_expire_at = credentials.keys_expire_at
    return Record(
        service=credentials.service,
        thing_id=thing_id_of(credentials),
        issued_at=whole_seconds(origin.issued_at),
        identity_sha256=credentials.identity_sha256,
        files={},
        delivery=credentials.delivery,
        hardware_id=origin.hardware_id,
        given_name=origin.given_name,
        origin=origin.source,
        host=credentials.host,
        port=credentials.port,
        ntrip_host=credentials.ntrip_host,
        ntrip_port=credentials.ntrip_port,
        ntrip_mountpoint=credentials.ntrip_mountpoint,
        not_before=credentials.not_before,
        not_after=credentials.not_after,
        fingerprint_sha256=credentials.fingerprint_sha256,
        keys_expire_at=whole_seconds(keys_expire_at) if keys_expire_at else None,
        formats=formats,
        templates_sha256=templates.sha256 if templates else None,
        modes=templates.modes if templates else {},
        retired=origin.retired,
    )

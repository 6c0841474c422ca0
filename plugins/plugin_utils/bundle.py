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

from .credentials import Credentials
from .errors import ProvisioningError
from .gateway import File
from .policy import RECORD_VERSION, timestamp

RESPONSE_MODE = 0o600
RECORD_MODE = 0o640

# The certification authority of the API and of the MQTT broker (seen in client code): Amazon Root CA 1.
_AMAZON_ROOT_CA_1_SHA256 = "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e"
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE-----\n?")


@dataclass(frozen=True)
class Layout:
    """How the files of a bundle are to look on the gateway. Modes are numbers such as ``0o640``."""

    path: str
    secret_mode: int
    public_mode: int
    broker_ca: str


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
) -> tuple[dict[str, File], dict[str, Any]]:
    """Renders every file of a bundle.

    :param response: the raw response, which is kept beside what was made of it.
    :param formats: names out of ``FORMATS``; ``None`` for each that the credentials can serve.
    :param identity: ``hardware_id``, ``given_name`` and ``retired`` for the record.
    :returns: file name to ``File`` (``thing.json`` among them), and the record.
    :raises ProvisioningError: ``bad_option`` if the credentials cannot serve a format that was asked for.
    """
    chosen = sorted(formats) if formats is not None else [name for name in FORMATS if FORMATS[name].serves(credentials)]
    files = {"credentials.json": File(response, RESPONSE_MODE)}
    for name in chosen:
        if not FORMATS[name].serves(credentials):
            raise ProvisioningError(
                "bad_option",
                f"The format {name} cannot be made from credentials for {' and '.join(credentials.delivery) or 'none'}"
                ": take it out of formats, or use a device profile that delivers what it needs.",
            )
        files.update(FORMATS[name].render(credentials, layout))
    record = _record(credentials, files, sorted(chosen) if formats is not None else None, identity, issued_at)
    content = json.dumps(record, indent=2, ensure_ascii=True) + "\n"
    files["thing.json"] = File(content.encode(), RECORD_MODE)
    return files, record


def file_modes(record: Mapping[str, Any], secret_mode: int, public_mode: int) -> dict[str, int]:
    """The mode that each file of an installed bundle must have, by its name."""
    fixed = {"credentials.json": RESPONSE_MODE, "thing.json": RECORD_MODE}
    modes = {name: fixed.get(name, public_mode if name in PUBLIC_FILES else secret_mode) for name in record["files"]}
    return {**modes, "thing.json": RECORD_MODE}


def _record(
    credentials: Credentials,
    files: Mapping[str, File],
    formats: Sequence[str] | None,
    identity: Mapping[str, Any],
    issued_at: datetime,
) -> dict[str, Any]:
    return {
        "record_version": RECORD_VERSION,
        "service": credentials.service,
        "delivery": list(credentials.delivery),
        "hardware_id": identity["hardware_id"],
        "given_name": identity["given_name"],
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
        "files": {name: digest(file.content) for name, file in files.items()},
        "retired": list(identity["retired"]),
    }


# ---- formats ----


@dataclass(frozen=True)
class Format:
    """One way to write credentials down: which credentials it can serve, and the files it makes of them."""

    serves: Callable[[Credentials], bool]
    render: Callable[[Credentials, Layout], dict[str, File]]


def _pem(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """The CA of the broker and, where the Thing logs in with a certificate, the pair: apart, and in one file."""
    files = {"ca.crt": File(layout.broker_ca.encode(), layout.public_mode)}
    if credentials.certificate is not None and credentials.private_key is not None:
        certificate, private_key = credentials.certificate.encode(), credentials.private_key.encode()
        files["client.crt"] = File(certificate, layout.public_mode)
        files["client.key"] = File(private_key, layout.secret_mode)
        files["client.pem"] = File(certificate + private_key, layout.secret_mode)
    return files


def _env(credentials: Credentials, layout: Layout) -> dict[str, File]:
    """An environment file that systemd and every shell read alike."""
    current = f"{layout.path}/current"
    has_pair = credentials.certificate is not None
    topics = [path for subscription in credentials.subscriptions for path in subscription.path.split(";")]
    values = {
        "SERVICE": credentials.service,
        "CLIENT_ID": credentials.client_id,
        "HOST": credentials.host,
        "PORT": credentials.port,
        "USERNAME": credentials.username,
        "PASSWORD": credentials.password,
        "CERTIFICATE": f"{current}/client.crt" if has_pair else None,
        "PRIVATE_KEY": f"{current}/client.key" if has_pair else None,
        "CA": f"{current}/ca.crt" if credentials.host else None,
        "TOPICS": " ".join(dict.fromkeys(topics)) or None,
        "KEY_CURRENT": credentials.keys_current.value if credentials.keys_current else None,
        "KEY_NEXT": credentials.keys_next.value if credentials.keys_next else None,
        "NTRIP_HOST": credentials.ntrip_host,
        "NTRIP_PORT": credentials.ntrip_port,
        "NTRIP_TLS_PORT": credentials.ntrip_tls_port,
        "NTRIP_MOUNTPOINT": credentials.ntrip_mountpoint,
        "NTRIP_USERNAME": credentials.ntrip_username,
        "NTRIP_PASSWORD": credentials.ntrip_password,
    }
    lines = [f"THINGSTREAM_{name}={_quoted(str(value))}\n" for name, value in values.items() if value is not None]
    return {"credentials.env": File("".join(lines).encode(), layout.secret_mode)}


def _quoted(value: str) -> str:
    """Double quotes, with a backslash before the four characters that both systemd and sh take back out."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


FORMATS: Mapping[str, Format] = {
    "pem": Format(serves=lambda credentials: credentials.host is not None, render=_pem),
    "env": Format(serves=lambda credentials: bool(credentials.delivery), render=_env),
}
PUBLIC_FILES = ("client.crt", "ca.crt")

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials that came from elsewhere than from Zero Touch Provisioning, in the shape of a response of the platform.

In that shape they take the path of every other response, and can be rendered again from what is installed.

Private to the collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..errors import ProvisioningError
from ..platform import credentials, pem_files, ucenter, user_fields
from ..platform.credentials import Credentials
from ..platform.services import Service
from ..platform.user_files import UserFile, refuse
from .desired import Given

_SIMPLE_EXPRESSION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_FRAMES = {"certificate": "CERTIFICATE", "private_key": "PRIVATE KEY"}


def fields_of(
    given: Mapping[str, Any], ucenter_file: UserFile | None = None, pair_files: tuple[UserFile, UserFile] | None = None
) -> dict[str, Any]:
    """Return the fields that a person gave in an inventory and in files.

    :param given: the fields of an inventory; they take precedence over those of ``ucenter_file``.
    :param pair_files: certificate and private key.
    :raises ProvisioningError: ``bad_option``, or ``pair_mismatch`` if the key does not belong to the certificate.
    """
    own = user_fields.normalize(given)
    fields = {**(ucenter.fields_of(ucenter_file) if ucenter_file else {}), **own}
    if pair_files is None and not _FRAMES.keys() <= fields.keys():
        return fields
    files = pair_files or tuple(_pem_file(name, fields[name], own, ucenter_file) for name in _FRAMES)
    fields["certificate"], fields["private_key"] = pem_files.read_pair(*files)
    return fields


def _pem_file(name: str, value: Any, own: Mapping[str, Any], ucenter_file: UserFile | None) -> UserFile:
    in_inventory = ucenter_file is None or name in own
    source = f"fields: {name}" if ucenter_file is None or in_inventory else f"{ucenter_file.name}: {ucenter.KEYS[name]}"
    if not isinstance(value, str):
        raise refuse(source, "is not text")
    file = UserFile(source, value.encode("utf-8", "replace"))
    return file if in_inventory else pem_files.framed(file, _FRAMES[name])


def response_of(fields: Mapping[str, Any], service: Service, field_map: Mapping[str, str]) -> bytes:
    """Return a response in which the expressions of the service, or those of ``field_map``, find these fields.

    :raises ProvisioningError: ``bad_option`` for a field that the service has no simple place for.
    """
    response: dict[str, Any] = {}
    for name, value in fields.items():
        candidates = (field_map[name],) if name in field_map else service.fields.get(name, ())
        place = next((one for one in candidates if _SIMPLE_EXPRESSION.fullmatch(one)), None)
        if place is None:
            raise ProvisioningError(
                "bad_option", f"{service.name} keeps no {name}, or field_map names no plain key for it."
            )
        if value is None:
            continue
        *parents, last = place.split(".")
        inner = response
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ProvisioningError("bad_option", f"field_map: the place of {name} is that of another field.")
        inner[last] = value
    try:
        return json.dumps(response).encode()
    except (TypeError, ValueError, RecursionError):
        raise ProvisioningError("bad_option", "fields: a value is neither text nor a number, list or dict.") from None


def parse_given(given: Given, service: Service, field_map: Mapping[str, str], now: datetime) -> Credentials:
    """Turn what a person gave into checked credentials.

    :param now: aware; a certificate that has expired by then is refused.
    :raises ProvisioningError: ``bad_option``, ``missing_field`` or ``pair_mismatch``. The message names what was given.
    """
    try:
        response = credentials.decode(given.response)
    except ProvisioningError:
        raise refuse(given.name, "is not one JSON object") from None
    fields = credentials.extract(response, service, field_map)
    missing = credentials.missing_fields(fields, service)
    if missing:
        raise _lacks(given, missing)
    try:
        return credentials.check(response, fields, service, field_map, now)
    except ProvisioningError as error:
        code = "bad_option" if error.code == "bad_response" else error.code
        raise ProvisioningError(code, f"{given.name}: {error.message}") from None


def _lacks(given: Given, missing: Sequence[str]) -> ProvisioningError:
    keys = ucenter.KEYS if given.origin == "ucenter" else {}
    problem = f"lacks {', '.join(keys.get(name, name) for name in missing)}"
    advice = "use another store, or correct field_map"
    if given.origin != "store":
        advice = f"set {', '.join(f'fields.{name}' for name in missing)}, or use a complete file"
    return refuse(given.name, f"{problem}: {advice}", "missing_field")

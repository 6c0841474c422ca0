# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials that came from elsewhere than from Zero Touch Provisioning, in the shape of a response of the platform.

In that shape they take the path of every other response, and can be rendered again from what is installed.

Private to the collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ProvisioningError
from ..platform.services import FIELDS, Service

_SIMPLE_EXPRESSION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_SERVER = re.compile(r"(?:[a-z]+://)?(?P<host>\[[^]]+\]|[^:/]+)(?::(?P<port>[0-9]+))?/?")


def response_of(fields: Mapping[str, Any], service: Service, field_map: Mapping[str, str]) -> bytes:
    """Return a response in which the expressions of the service, or those of ``field_map``, find these fields.

    :raises ProvisioningError: ``bad_option`` for a field that is unknown, or that the service has no simple place for.
    """
    response: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in FIELDS:
            raise ProvisioningError("bad_option", f"There is no field {name!r}. Known are: {', '.join(FIELDS)}.")
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
        inner[last] = value
    return json.dumps(response).encode()


def ucenter_fields(text: str) -> dict[str, Any]:
    """The fields of the JSON that the portal offers for u-center; its keys were seen in client code.

    :raises ProvisioningError: ``bad_response`` if it is none.
    """
    try:
        mqtt = json.loads(text)["MQTT"]
        connectivity = mqtt["Connectivity"]
        login, subscriptions = connectivity["ClientCredentials"], mqtt.get("Subscriptions", {})
        server = _SERVER.fullmatch(connectivity["ServerURI"])
        topics = [
            *subscriptions.get("Key", {}).get("KeyTopics", []),
            *subscriptions.get("AssistNow", {}).get("AssistNowTopics", []),
            *subscriptions.get("Data", {}).get("DataTopics", []),
        ]
        keys = mqtt.get("dynamickeys", {})
        if server is None:
            raise ValueError("no server")
        return {
            "client_id": connectivity["ClientID"],
            "host": server["host"],
            "port": server["port"],
            "certificate": _framed(login["Cert"], "CERTIFICATE"),
            "private_key": _framed(login["Key"], "RSA PRIVATE KEY"),
            "subscriptions": [{"path": topic} for topic in topics] or None,
            "keys_current": keys.get("current") or None,
            "keys_next": keys.get("next") or None,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # without a cause, which could carry the whole file
        raise ProvisioningError(
            "bad_response", "This is no configuration for u-center with an MQTT client certificate in it."
        ) from None


def _framed(body: str, kind: str) -> str:
    """Base64 without a frame, as u-center wants it, to PEM text; PEM text stays as it is."""
    if "-----BEGIN" in body:
        return body
    compact = "".join(body.split())
    lines = [compact[start : start + 64] for start in range(0, len(compact), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])

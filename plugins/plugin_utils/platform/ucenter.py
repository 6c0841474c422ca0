# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the JSON that the portal offers for u-center; all its keys were seen in client code.

Parts that are missing or null are left out. Whether the rest is enough is decided where it is combined with other
fields.

Private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import server_url
from .topics import topics_of
from .user_files import UserFile, refuse, text_of

# The places in the file of the fields that a consumer needs
KEYS = {
    "client_id": "MQTT.Connectivity.ClientID",
    "host": "MQTT.Connectivity.ServerURI",
    "certificate": "MQTT.Connectivity.ClientCredentials.Cert",
    "private_key": "MQTT.Connectivity.ClientCredentials.Key",
}
_TOPICS = ("Key.KeyTopics", "AssistNow.AssistNowTopics", "Data.DataTopics")


def fields_of(file: UserFile) -> dict[str, Any]:
    """Return the fields that the file has, certificate and key as they are in it.

    :raises ProvisioningError: ``bad_option`` if it is another kind of file, holds several Things, or has something
        unexpected in one of its parts.
    """
    document = _document(file)
    connectivity = _part(file, document, "MQTT.Connectivity")
    login = _part(file, document, "MQTT.Connectivity.ClientCredentials")
    keys = _part(file, document, "MQTT.dynamickeys")
    fields = {
        "client_id": connectivity.get("ClientID"),
        "certificate": login.get("Cert"),
        "private_key": login.get("Key"),
        "subscriptions": [{"path": topic} for topic in _topics(file, document)],
        "keys_current": _key(keys.get("current")),
        "keys_next": _key(keys.get("next")),
        **_server(file, connectivity.get("ServerURI")),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def _document(file: UserFile) -> Mapping[str, Any]:
    text = text_of(file)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        # without a cause, which carries the whole file
        place = f"line {error.lineno}, column {error.colno}"
        raise refuse(file.name, f"is not valid JSON, see {place}: download it again") from None
    except (ValueError, RecursionError):
        raise refuse(file.name, "is not valid JSON: download it again") from None
    if isinstance(document, list):
        if len(document) != 1:
            raise refuse(file.name, f"holds a list of {len(document)} entries: use a file with one Thing")
        document = document[0]
    if not isinstance(document, dict):
        raise refuse(file.name, "is not a JSON object")
    if "MQTT" not in document:
        if {"privateKey", "rtcmCredentials", "clientId"} & set(document):
            raise refuse(file.name, "is JSON of the API, not a u-center file: put its values into fields")
        raise refuse(file.name, "has no MQTT: it is not a u-center file")
    return document


def _part(file: UserFile, document: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return an object in the document; an empty one if it is missing or null."""
    found: Any = document
    names = path.split(".")
    for depth, name in enumerate(names, 1):
        found = found.get(name)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise refuse(file.name, f"has {'.'.join(names[:depth])}, but it is not an object")
    part: Mapping[str, Any] = found
    return part


def _server(file: UserFile, value: Any) -> dict[str, Any]:
    if value in (None, ""):
        return {}
    name = f"{file.name}: {KEYS['host']}"
    url = server_url.parse(name, value, server_url.MQTT_SCHEMES)
    if url.path:
        raise refuse(name, "has a path, which MQTT over TLS does not have")
    return {"host": url.host, "port": url.port}


def _topics(file: UserFile, document: Mapping[str, Any]) -> list[str]:
    found = []
    for place in _TOPICS:
        section, key = place.split(".")
        value = _part(file, document, f"MQTT.Subscriptions.{section}").get(key)
        found += topics_of(f"{file.name}: MQTT.Subscriptions.{place}", value)
    return found


def _key(value: Any) -> Any:
    """Return a dynamic key, or ``None`` for an entry without one."""
    return None if isinstance(value, dict) and not value.get("value") else value

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields of credentials as people write them in an inventory: numbers, URLs, slashes.

What is written in another way is accepted where only one meaning is possible, and refused otherwise.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ProvisioningError
from . import server_url
from .services import FIELDS
from .topics import topics_of
from .user_files import refuse

_TEXTS = (
    "client_id",
    "username",
    "password",
    "certificate",
    "private_key",
    "ntrip_mountpoint",
    "ntrip_username",
    "ntrip_password",
)


def normalize(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with plain host names, ports and mount points; those without a value are left out.

    :raises ProvisioningError: ``bad_option`` for an unknown field, for a value that YAML may have changed, and for
        parts that contradict each other. The message shows no value.
    """
    for name in given:
        if name not in FIELDS:
            raise ProvisioningError("bad_option", f"There is no field {name!r}. Known are: {', '.join(FIELDS)}.")
    fields = {name: value for name, value in given.items() if value not in (None, "")}
    for name in _TEXTS:
        if name in fields and not isinstance(fields[name], str):
            # a whole number, too, may have lost zeros at its beginning or have been read as octal
            raise refuse(f"fields: {name}", "is not text, and YAML may have changed its value: quote it")
    if "ntrip_mountpoint" in fields:
        fields["ntrip_mountpoint"] = _mountpoint("fields: ntrip_mountpoint", fields["ntrip_mountpoint"])
    if "host" in fields:
        url = server_url.parse("fields: host", fields["host"], server_url.MQTT_SCHEMES)
        if url.path:
            raise refuse("fields: host", "has a path: write the host name alone")
        fields |= {"host": url.host, **_agreed(fields, "host", "port", url.port)}
    if "ntrip_host" in fields:
        url = server_url.parse("fields: ntrip_host", fields["ntrip_host"], server_url.NTRIP_SCHEMES)
        mountpoint = _mountpoint("fields: ntrip_host", url.path) if url.path else None
        fields |= {
            "ntrip_host": url.host,
            **_agreed(fields, "ntrip_host", "ntrip_port", url.port),
            **_agreed(fields, "ntrip_host", "ntrip_mountpoint", mountpoint),
        }
    if isinstance(fields.get("subscriptions"), str):
        topics = topics_of("fields: subscriptions", fields["subscriptions"])
        fields["subscriptions"] = [{"path": topic} for topic in topics]
    return fields


def _mountpoint(name: str, value: str) -> str:
    """Return a mount point without the slash of its URL."""
    mountpoint = value.strip().lstrip("/")
    if not mountpoint or set(mountpoint) & set("/?# "):
        raise refuse(name, "has no plain mount point: write it alone, such as NEAR-RTCM")
    return mountpoint


def _agreed(fields: Mapping[str, Any], of: str, name: str, found: Any) -> dict[str, Any]:
    """Return a part of a URL by its name; refuse it if the field of that name has another value."""
    if found is None:
        return {}
    if name in fields and str(fields[name]).strip() != str(found):
        raise refuse(f"fields: {of}", f"has another {name} in it than the field {name}: remove one of them")
    return {name: found}

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a response to checked credentials: what is installed has been looked at first.

Private to the collection.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

try:
    import jmespath
    from jmespath.exceptions import JMESPathError
except ImportError as error:
    JMESPATH_MISSING: ImportError | None = error
else:
    JMESPATH_MISSING = None

from ..errors import ProvisioningError, bad_field
from . import key_pair
from .services import CLIENT_ID, FIELDS, Service

# The fields that a consumer needs, per way of logging in. The secret fields show which way a response has taken.
_NECESSARY = {
    "certificate": ("client_id", "host", "port", "certificate", "private_key"),
    "password": ("client_id", "host", "port", "username", "password"),
    "ntrip": ("ntrip_host", "ntrip_port", "ntrip_mountpoint", "ntrip_username", "ntrip_password"),
}
_TELLING = {
    "certificate": ("certificate", "private_key"),
    "password": ("username", "password"),
    "ntrip": ("ntrip_host", "ntrip_mountpoint", "ntrip_username", "ntrip_password"),
}
_MAX_TEXT = 1024  # characters of a user, a password, a mount point
_MAX_TOPICS = 64 * 1024  # characters of all together; an environment variable takes no more than twice that
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_HOST = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?(\[[0-9A-Fa-f:.]+\]|[^:/@\s]+)(?::([0-9]+))?/?")


@dataclass(frozen=True)
class Subscription:
    """A topic, or several joined by ``;``, as the platform lists them; some have no description."""

    path: str
    description: str | None


@dataclass(frozen=True)
class DynamicKey:
    """A key that decrypts corrections, and when it is valid."""

    value: str
    start: datetime
    end: datetime

    def __repr__(self) -> str:
        return f"DynamicKey(start={self.start}, end={self.end})"


@dataclass(frozen=True, repr=False)
class Credentials:
    """Checked credentials of one Thing; what a service does not have is ``None``.

    ``delivery`` holds ``mqtt``, ``ntrip`` and ``lband``. ``certificate`` and ``private_key`` are PEM text and belong
    together. Dates are aware and in UTC. The representation shows no value.
    """

    service: str
    delivery: tuple[str, ...]
    client_id: str | None
    host: str | None
    port: int | None
    username: str | None
    password: str | None
    certificate: str | None
    private_key: str | None
    subscriptions: tuple[Subscription, ...]
    keys_current: DynamicKey | None
    keys_next: DynamicKey | None
    ntrip_host: str | None
    ntrip_port: int | None
    ntrip_tls_port: int | None
    ntrip_mountpoint: str | None
    ntrip_username: str | None
    ntrip_password: str | None
    not_before: datetime | None
    not_after: datetime | None
    fingerprint_sha256: str | None

    def __repr__(self) -> str:
        return f"Credentials(service={self.service!r}, delivery={self.delivery!r})"

    @property
    def keys_expire_at(self) -> datetime | None:
        """When the last dynamic key ends, or ``None`` where the service has none."""
        return max((key.end for key in (self.keys_current, self.keys_next) if key), default=None)

    @property
    def login_sha256(self) -> str | None:
        """A fingerprint of the user name, which distinguishes Things if the platform sends no client ID.

        User names are unique to a Thing (documented) and random (twelve or twenty characters, seen in client code), so
        that the digest cannot be searched for them.
        """
        return login_sha256({"ntrip_username": self.ntrip_username, "username": self.username})

    def fields(self) -> dict[str, Any]:
        """Return every value by its name, in nested plain data; all of them may be secret."""
        return asdict(self)

    @property
    def identity_sha256(self) -> str:
        """A digest of everything by which the Thing logs in: it changes with the identity, not with dynamic keys.

        User name and password enter together and neither is in the record, so that the digest cannot be searched.
        """
        identity = [
            self.client_id,
            self.certificate,
            self.private_key,
            self.username,
            self.password,
            self.ntrip_username,
            self.ntrip_password,
            self.ntrip_mountpoint,
        ]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def login_sha256(fields: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of the user name among the fields of a response; see ``Credentials.login_sha256``."""
    user = fields.get("ntrip_username") or fields.get("username")
    return hashlib.sha256(f"login {user}".encode()).hexdigest() if isinstance(user, str) else None


def parse(raw: bytes, service: Service, field_map: Mapping[str, str], now: datetime) -> Credentials:
    """Turn a raw response into checked credentials.

    :param now: aware.
    :raises ProvisioningError: as ``decode`` and ``check``.
    """
    response = decode(raw)
    return check(response, extract(response, service, field_map), service, field_map, now)


def decode(raw: bytes) -> dict[str, Any]:
    """Parse a response body.

    :raises ProvisioningError: ``bad_response`` if it is not one JSON object.
    """
    try:
        response = json.loads(raw)
    except (ValueError, RecursionError):
        # without a cause: the exception of the parser carries the whole body
        raise ProvisioningError(
            "bad_response", "The response is not valid JSON. Check that api_url is the API and not a proxy's page."
        ) from None
    if not isinstance(response, dict):
        raise ProvisioningError("bad_response", "The response is JSON, but not an object.")
    return response


def check_field_map(field_map: Mapping[str, Any]) -> None:
    """Refuse a ``field_map`` with an unknown field or an expression that is not JMESPath.

    :raises ProvisioningError: ``bad_option``.
    """
    for name, expression in field_map.items():
        if name not in FIELDS:
            raise ProvisioningError(
                "bad_option", f"field_map has the unknown field {name!r}. Known are: {', '.join(FIELDS)}."
            )
        try:
            jmespath.compile(expression)
        except (JMESPathError, TypeError):
            raise ProvisioningError(
                "bad_option", f"field_map: the expression for {name} is not a valid JMESPath expression."
            ) from None


def extract(response: Mapping[str, Any], service: Service, field_map: Mapping[str, str]) -> dict[str, Any]:
    """Find the fields of a response by the expressions of the service, or by those of ``field_map`` in their place.

    :returns: field name to the value that was found; fields without a value are left out.
    """
    fields: dict[str, Any] = {}
    for name in FIELDS:
        for expression in (field_map[name],) if name in field_map else service.fields.get(name, ()):
            try:
                value = jmespath.search(expression, response)
            except (JMESPathError, ValueError):
                continue  # a function that does not take what arrived: the same as nothing found
            if value not in (None, "", {}, []):
                fields[name] = value
                break
    return fields


def is_ready(fields: Mapping[str, Any], service: Service) -> bool:
    """Return whether a response carries credentials; otherwise it only says that the Thing is being activated."""
    return not service.ready or any(name in fields for name in service.ready)


def missing_fields(fields: Mapping[str, Any], service: Service) -> list[str]:
    """Return the names of the fields that a consumer needs and that are not there, each once."""
    needed = [name for login in _logins(fields) or [service.login] for name in _NECESSARY[login]]
    return [name for name in dict.fromkeys(needed) if name not in fields]


def key_names(response: Mapping[str, Any], limit: int = 40) -> str:
    """Return the names of the keys in a response, two levels deep, for an error text; never a value."""
    names: list[str] = []
    for name, value in response.items():
        inner = value if isinstance(value, dict) else {}
        names.extend([f"{name}.{key}" for key in inner] or [name])
    shown = ["".join(c for c in str(name) if c.isprintable())[:64] for name in names[:limit]]
    return ", ".join(shown + ["…"] * (len(names) > limit)) or "none"


def check(
    response: Mapping[str, Any],
    fields: Mapping[str, Any],
    service: Service,
    field_map: Mapping[str, str],
    now: datetime,
) -> Credentials:
    """Turn the fields of a response into credentials, or say in an error what is wrong with them.

    :param now: aware; a certificate that has expired by then is refused.
    :raises ProvisioningError: ``missing_field``, ``pair_mismatch``, ``bad_response``.
    """
    logins = _logins(fields)
    missing = missing_fields(fields, service)
    if missing:
        raise _missing(missing[0], response, service, field_map)
    texts = {name: _text(name, fields) for name in _TEXTS}
    host, port_of_host = _host("host", fields)
    ntrip_host, ntrip_port_of_host = _host("ntrip_host", fields)
    pair = None
    if "certificate" in logins:
        pair = key_pair.check(fields["certificate"], fields["private_key"], now)
    mqtt = bool({"certificate", "password"} & set(logins)) and response.get("supportsMqtt") is not False
    delivered = {"mqtt": mqtt, "ntrip": "ntrip" in logins, "lband": response.get("supportsLband") is True}
    return Credentials(
        service=service.name,
        delivery=tuple(way for way, delivers in delivered.items() if delivers),
        **texts,
        host=host,
        port=(port_of_host or _port("port", fields)) if host else None,
        certificate=pair.certificate if pair else None,
        private_key=pair.private_key if pair else None,
        subscriptions=_subscriptions(fields.get("subscriptions", ())),
        keys_current=_dynamic_key("keys_current", fields),
        keys_next=_dynamic_key("keys_next", fields),
        ntrip_host=ntrip_host,
        ntrip_port=(ntrip_port_of_host or _port("ntrip_port", fields)) if ntrip_host else None,
        ntrip_tls_port=_port("ntrip_tls_port", fields),
        not_before=pair.not_before if pair else None,
        not_after=pair.not_after if pair else None,
        fingerprint_sha256=pair.fingerprint_sha256 if pair else None,
    )


def _logins(fields: Mapping[str, Any]) -> list[str]:
    """Return the ways of logging in of which at least one field is there."""
    return [login for login, telling in _TELLING.items() if any(name in fields for name in telling)]


_TEXTS = ("client_id", "username", "password", "ntrip_mountpoint", "ntrip_username", "ntrip_password")


def _missing(
    name: str, response: Mapping[str, Any], service: Service, field_map: Mapping[str, str]
) -> ProvisioningError:
    tried = (field_map[name],) if name in field_map else service.fields.get(name, ())
    return ProvisioningError(
        "missing_field",
        f"The response has no {name}; tried: {' | '.join(tried) or 'nothing, this service is not known to have it'}. "
        f"Keys that arrived: {key_names(response)}. Name the right one with field_map.{name}.",
    )


def _text(name: str, fields: Mapping[str, Any]) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_TEXT:
        raise bad_field(name, f"is not a printable text of at most {_MAX_TEXT} characters")
    if name == "client_id" and not CLIENT_ID.fullmatch(value):
        raise bad_field(name, "is not a client ID")
    return value


def _host(name: str, fields: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Return a host name or address without its scheme, and its port, if it has one."""
    value = fields.get(name)
    if value is None:
        return None, None
    match = _HOST.fullmatch(value) if isinstance(value, str) and len(value) <= 300 else None
    if match is None or not _is_host(match.group(1).strip("[]")):
        raise bad_field(name, "is not a host name")
    return match.group(1).strip("[]"), _port_number(name, match.group(2)) if match.group(2) else None


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in host.rstrip(".").split("."))
    return True


def _port(name: str, fields: Mapping[str, Any]) -> int | None:
    """Return a port; the platform sends a text of digits, responses of other shapes a number."""
    return _port_number(name, fields[name]) if name in fields else None


def _port_number(name: str, value: Any) -> int:
    text = str(value).strip() if isinstance(value, (str, int)) else ""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise bad_field(name, "is not a port number")
    return int(text)


def _subscriptions(value: Any) -> tuple[Subscription, ...]:
    entries = value if isinstance(value, (list, tuple)) else [value]
    subscriptions = []
    for entry in entries:
        subscription = entry if isinstance(entry, dict) else {"path": entry}
        path, description = subscription.get("path"), subscription.get("description")
        if not isinstance(path, str) or not path.isprintable() or not path:
            raise bad_field("subscriptions", "holds an entry without a printable path")
        printable = isinstance(description, str) and description.isprintable()
        subscriptions.append(Subscription(path, description if printable else None))
    if sum(len(subscription.path) + 1 for subscription in subscriptions) > _MAX_TOPICS:
        raise bad_field("subscriptions", f"holds more than {_MAX_TOPICS} characters of topics")
    return tuple(subscriptions)


def _dynamic_key(name: str, fields: Mapping[str, Any]) -> DynamicKey | None:
    """Return a dynamic key.

    Start and duration are milliseconds (seen in client code): numbers here, digits elsewhere.
    """
    key = fields.get(name)
    if key is None:
        return None
    try:
        value, start, duration = key["value"], int(key["start"]), int(key["duration"])
        begin = datetime.fromtimestamp(start / 1000, timezone.utc)
        end = begin + timedelta(milliseconds=duration)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise bad_field(name, "is not a key with value, start and duration") from None
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _MAX_TEXT:
        raise bad_field(name, "has no printable value")
    return DynamicKey(value, begin, end)

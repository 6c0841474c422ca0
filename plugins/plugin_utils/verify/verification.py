# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify credentials by using them, over each delivery that they support.

Private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..errors import ProvisioningError
from ..platform.credentials import Credentials
from . import mqtt, ntrip
from .connection import Server
from .hosts import AllowedHosts

_PLAIN_MQTT_PORT = 1883  # every other port of MQTT uses TLS, and so does a login by certificate


@dataclass(frozen=True)
class VerifySettings:
    """How to verify credentials.

    :param timeout: seconds for each delivery, not counting how long the system resolves the name of the server.
    :param position: latitude and longitude in degrees, for casters that need them.
    :param broker_ca: PEM text of the CA of the MQTT broker.
    :param caster_ca_path: a file of PEM certificates of the CAs of NTRIP casters with TLS.
    :param allowed_hosts: the hosts to which a connection is allowed; ``None`` for every host, which is for credentials
        that come from the platform itself.
    :param in_use: whether a consumer may be connected with the same credentials.
    """

    timeout: float
    position: tuple[float, float] | None
    broker_ca: str
    caster_ca_path: str
    allowed_hosts: AllowedHosts | None = None
    in_use: bool = False


@dataclass(frozen=True)
class Verification:
    """A server that accepted the credentials.

    :param data: whether corrections arrived, that is a valid message of RTCM 3 or SPARTN; by NTRIP only.
    :param first_correction_ms: milliseconds from the request to the first correction.
    :param message_types: of the messages that arrived with it, such as ``RTCM 1005`` or ``SPARTN 0-1``.
    :param mount_point: of an NTRIP caster.
    """

    delivery: Literal["mqtt", "ntrip"]
    host: str
    port: int
    tls: bool
    data: bool = False
    first_correction_ms: int | None = None
    message_types: tuple[str, ...] = ()
    mount_point: str | None = None


def verify(credentials: Credentials, settings: VerifySettings) -> list[Verification]:
    """Log in over each delivery that the credentials support.

    A broker disconnects an earlier client with the same client ID (documented, MQTT 3.1.1), so that a consumer on the
    gateway has to connect again.

    :returns: one entry for each server, all of which accepted the login.
    :raises ProvisioningError: ``credentials_refused`` if a server refuses the credentials; ``refused_or_in_use`` if a
        caster does and the login may be in use; ``host_not_allowed``; ``tls``, ``unreachable``, ``timeout``,
        ``server_error``, ``refused``, ``no_plan``, ``rate_limited``, ``proxy_refused`` and ``bad_response`` if another
        problem prevents the login; ``bad_option`` if the credentials name no server.
    """
    _check_has_server(credentials, settings)
    found = (_verify_mqtt(credentials, settings), _verify_ntrip(credentials, settings))
    return [verification for verification in found if verification is not None]


def verify_in_use(credentials: Credentials, settings: VerifySettings, *, interrupt: bool) -> str | None:
    """Verify credentials that a consumer may be using, and tell a refused login from one in use.

    :param interrupt: whether a login may disconnect the consumer from its broker. Without it, no MQTT login is made.
    :returns: what remains unknown, as sentences for a warning, or ``None``.
    :raises ProvisioningError: as ``verify``, but never ``refused_or_in_use``. ``credentials_refused`` comes from a
        broker only: brokers accept a second login, so that a refusal has nothing to do with the consumer.
    """
    _check_has_server(credentials, settings)
    unknown = []
    if interrupt:
        _verify_mqtt(credentials, settings)
    elif _broker(credentials, settings) is not None:
        unknown.append(
            "The MQTT credentials in use were not verified, because a login would disconnect the consumer: set "
            "verify.interrupt if that is acceptable, or verify.when to before_switch."
        )
    try:
        _verify_ntrip(credentials, replace(settings, in_use=True))
    except ProvisioningError as error:
        if error.code != "refused_or_in_use":
            raise
        unknown.append(error.message)
    return " ".join(unknown) or None


def _check_has_server(credentials: Credentials, settings: VerifySettings) -> None:
    if _broker(credentials, settings) is None and _caster(credentials, settings) is None:
        raise ProvisioningError(
            "bad_option",
            "The credentials name no MQTT broker and no NTRIP caster, so there is nothing to connect to: do not verify "
            "them, or use a device profile that delivers over one of the two.",
        )


def _broker(credentials: Credentials, settings: VerifySettings) -> Server | None:
    """Return the broker that the credentials name, with a deadline that begins now."""
    # A plan with L-band alone also has a broker: it sends the keys, but no corrections.
    logs_in = "mqtt" in credentials.delivery or ("ntrip" not in credentials.delivery and credentials.certificate)
    if not logs_in or not credentials.host or not credentials.port:
        return None
    tls = credentials.certificate is not None or credentials.port != _PLAIN_MQTT_PORT
    return Server("MQTT broker", credentials.host, credentials.port, tls, settings.timeout, settings.allowed_hosts)


def _caster(credentials: Credentials, settings: VerifySettings) -> Server | None:
    """Return the caster that the credentials name, with a deadline that begins now."""
    port = credentials.ntrip_tls_port or credentials.ntrip_port
    if "ntrip" not in credentials.delivery or not credentials.ntrip_host or not port:
        return None
    tls = credentials.ntrip_tls_port is not None
    return Server("NTRIP caster", credentials.ntrip_host, port, tls, settings.timeout, settings.allowed_hosts)


def _verify_mqtt(credentials: Credentials, settings: VerifySettings) -> Verification | None:
    broker = _broker(credentials, settings)
    if broker is None:
        return None
    mqtt.verify(broker, credentials, settings.broker_ca)
    return Verification("mqtt", broker.host, broker.port, broker.tls)


def _verify_ntrip(credentials: Credentials, settings: VerifySettings) -> Verification | None:
    caster = _caster(credentials, settings)
    if caster is None:
        return None
    corrections = ntrip.verify(caster, credentials, settings.position, settings.caster_ca_path, in_use=settings.in_use)
    return Verification(
        "ntrip",
        caster.host,
        caster.port,
        caster.tls,
        data=corrections is not None,
        first_correction_ms=corrections.first_ms if corrections else None,
        message_types=corrections.types if corrections else (),
        mount_point=credentials.ntrip_mountpoint,
    )

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify credentials by using them, over each delivery that they support.

Private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import ProvisioningError
from ..platform.credentials import Credentials
from . import mqtt, ntrip
from .connection import Server

_PLAIN_MQTT_PORT = 1883  # every other port of MQTT uses TLS, and so does a login by certificate


@dataclass(frozen=True)
class VerifySettings:
    """How to verify credentials.

    :param timeout: seconds for each delivery, not counting how long the system resolves the name of the server.
    :param position: latitude and longitude in degrees, for casters that need them.
    :param broker_ca: PEM text of the CA of the MQTT broker.
    :param caster_ca_path: a file of PEM certificates of the CAs of NTRIP casters with TLS.
    """

    timeout: float
    position: tuple[float, float] | None
    broker_ca: str
    caster_ca_path: str


@dataclass(frozen=True)
class Verification:
    """A server that accepted the credentials.

    :param data: whether corrections arrived; with a position only.
    """

    delivery: Literal["mqtt", "ntrip"]
    host: str
    port: int
    tls: bool
    data: bool


def verify(credentials: Credentials, settings: VerifySettings) -> list[Verification]:
    """Log in over each delivery that the credentials support.

    A broker disconnects an earlier client with the same client ID, so that a consumer on the gateway has to connect
    again.

    :returns: one entry for each server, all of which accepted the login.
    :raises ProvisioningError: ``credentials_refused`` if a server refuses the credentials; ``tls``, ``unreachable``,
        ``timeout``, ``server_error``, ``refused`` and ``bad_response`` if another problem prevents the login;
        ``bad_option`` if the credentials name no server.
    """
    found = (_verify_mqtt(credentials, settings), _verify_ntrip(credentials, settings))
    verifications = [verification for verification in found if verification is not None]
    if not verifications:
        raise ProvisioningError(
            "bad_option",
            "The credentials name no MQTT broker and no NTRIP caster, so there is nothing to connect to: do not verify "
            "them, or use a device profile that delivers over one of the two.",
        )
    return verifications


def _verify_mqtt(credentials: Credentials, settings: VerifySettings) -> Verification | None:
    # A plan with L-band alone also has a broker: it sends the keys, but no corrections.
    logs_in = "mqtt" in credentials.delivery or ("ntrip" not in credentials.delivery and credentials.certificate)
    if not logs_in or not credentials.host or not credentials.port:
        return None
    tls = credentials.certificate is not None or credentials.port != _PLAIN_MQTT_PORT
    broker = Server("MQTT broker", credentials.host, credentials.port, tls, settings.timeout)
    mqtt.verify(broker, credentials, settings.broker_ca)
    return Verification("mqtt", broker.host, broker.port, broker.tls, data=False)


def _verify_ntrip(credentials: Credentials, settings: VerifySettings) -> Verification | None:
    port = credentials.ntrip_tls_port or credentials.ntrip_port
    if "ntrip" not in credentials.delivery or not credentials.ntrip_host or not port:
        return None
    tls = credentials.ntrip_tls_port is not None
    caster = Server("NTRIP caster", credentials.ntrip_host, port, tls, settings.timeout)
    data = ntrip.verify(caster, credentials, settings.position, settings.caster_ca_path)
    return Verification("ntrip", caster.host, caster.port, caster.tls, data)

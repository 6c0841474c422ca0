# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of services: the address of each, and the place of each field in its response.

Responses change without a version, so shapes are data. For every field the JMESPath expressions are tried in order
and the first that yields a value wins; the option ``field_map`` replaces them. Each line says how sure it is:
*documented* by u-blox, *seen* in client code that talks to the platform, or *assumed*.

Private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._@-]{0,127}")
FIELDS = (
    "client_id",
    "host",
    "port",
    "username",
    "password",
    "certificate",
    "private_key",
    "subscriptions",
    "keys_current",
    "keys_next",
    "ntrip_host",
    "ntrip_port",
    "ntrip_tls_port",
    "ntrip_mountpoint",
    "ntrip_username",
    "ntrip_password",
)


@dataclass(frozen=True)
class Service:
    """One service of the platform.

    :param name: the value of the option ``service``.
    :param path: what is appended to ``api_url``.
    :param deliveries: the ways of delivery that a device profile of this service can have.
    :param fields: field name to the JMESPath expressions tried in order.
    :param ready: the fields of which at least one is there once the Thing is active; none of them means that the
        platform is still activating it. Empty where the response is too little known to tell.
    :param login: how its Things log in: ``certificate``, ``password`` or ``ntrip``. A response without any login is
        reported to lack this one.
    :param bridge_topics: the topics of an MQTT bridge where a response names none, with ``{client_id}``, each ``in`` or
        ``out``.
    :param repeatable: whether the platform returns the same Thing for a repeated request with one hardware ID, or an
        error, but never with a second Thing.
    """

    name: str
    path: str
    repeatable: bool
    deliveries: tuple[str, ...]
    login: str
    ready: tuple[str, ...] = ()
    bridge_topics: tuple[tuple[str, str], ...] = ()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_NTRIP = {
    # seen: the flat object since April 2025; before that, a list of regional end points. Of several regions the
    # first is taken; `field_map` picks another one.
    "ntrip_host": ("rtcmCredentials.endpoint", "rtcmCredentials.endPoints[0].endpoint", "spartnCredentials.endpoint"),
    "ntrip_port": ("rtcmCredentials.httpPort", "rtcmCredentials.endPoints[0].httpPort", "spartnCredentials.httpPort"),
    # assumed: no client has seen a TLS port in a response
    "ntrip_tls_port": ("rtcmCredentials.httpsPort", "rtcmCredentials.endPoints[0].httpsPort"),
    "ntrip_mountpoint": ("rtcmCredentials.mountPoint", "spartnCredentials.mountPoint"),
    "ntrip_username": ("rtcmCredentials.userName", "spartnCredentials.userName"),
    "ntrip_password": ("rtcmCredentials.password", "spartnCredentials.password"),
}

_POINTPERFECT = {
    # seen, all of them
    "client_id": ("clientId",),
    "host": ("brokerHost",),
    "certificate": ("certificate",),
    "private_key": ("privateKey",),
    "subscriptions": ("subscriptions",),
    "keys_current": ("dynamickeys.current",),
    "keys_next": ("dynamickeys.next",),
    # seen: clients use 8883, the response names no port
    "port": ("brokerPort", "`8883`"),
    **_NTRIP,
}

_CLOUDLOCATE = {
    # The values are documented, their names are not public: every name here is assumed.
    "client_id": ("clientId", "clientID", "ClientID", "client_id", "deviceId"),
    "host": ("hostname", "hostName", "host", "brokerHost", "serverUri", "ServerURI"),
    # seen: 1883 without TLS; 8883 with TLS is inferred, and preferred because the password travels over it
    "port": ("port", "brokerPort", "`8883`"),
    "username": ("username", "userName", "Username"),
    "password": ("password", "Password"),
    "subscriptions": ("subscriptions",),
}

SERVICES: Mapping[str, Service] = {
    service.name: service
    for service in (
        Service(
            name="pointperfect",
            path="/ztp/pointperfect/credentials",  # documented
            repeatable=True,  # documented: an error or the existing credentials, as the profile says
            deliveries=("mqtt", "ntrip", "lband"),  # documented; MQTT was to end on 30 September 2026
            login="certificate",  # seen
            ready=("certificate", "private_key", "ntrip_host"),  # seen: 200 without them while activation is under way
            fields=_POINTPERFECT,
        ),
        Service(
            name="pointperfect-live",
            path="/ztp/pointperfect-live/credentials",  # documented
            repeatable=True,  # documented
            deliveries=("ntrip",),  # assumed
            login="ntrip",  # assumed
            ready=("ntrip_host",),  # assumed: as with PointPerfect Flex in RTCM format
            fields=_POINTPERFECT,
        ),
        Service(
            name="cloudlocate",
            path="/ztp/cloudlocate/credentials",  # documented
            repeatable=False,  # documented: a repeated request renews, and the old Thing stays active
            deliveries=("mqtt",),  # documented
            login="password",  # documented
            # seen
            bridge_topics=(("CloudLocate/GNSS/request", "out"), ("CloudLocate/{client_id}/GNSS/response", "in")),
            fields=_CLOUDLOCATE,
        ),
    )
}

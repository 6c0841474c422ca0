# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify credentials at an MQTT broker: send CONNECT and wait for CONNACK.

No error contains a user name, a password, a key or data of the broker. The private key is not written to a file.

Private to the collection.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion  # not in versions before 2
except ImportError as error:
    PAHO_MISSING: ImportError | None = error
else:
    PAHO_MISSING = None

from ..errors import ProvisioningError
from ..platform.credentials import Credentials
from .connection import Connection, Server, connection_problem, open_connection, reason_of, tls_context

KEEPALIVE = 30  # seconds

_CONNACK = b"\x20"  # the first byte of this packet
# paho reports the reason codes of MQTT 5 even for a broker that speaks MQTT 3.1.1.
_ACCEPTED = 0x00
_REFUSALS = {
    0x85: "the client ID",  # CONNACK 2
    0x86: "user name or password",  # CONNACK 4
    0x87: "the credentials (not authorized)",  # CONNACK 5
}
_UNAVAILABLE = 0x88  # CONNACK 3


def verify(server: Server, credentials: Credentials, broker_ca: str) -> None:
    """Log in at a broker and disconnect.

    :param broker_ca: PEM text of the CA that must have signed the broker's certificate.
    :raises ProvisioningError: if the broker does not accept the login, or if that remains unknown.
    """
    if PAHO_MISSING is not None:
        raise ProvisioningError(
            "bad_option",
            f"To verify credentials at the {server}, the controller needs the Python library paho-mqtt, version 2 or "
            "newer.",
        )
    context = tls_context("broker_ca_path", broker_ca) if server.tls else None
    has_pair = False
    if context is not None and credentials.certificate is not None and credentials.private_key is not None:
        _load_pair(context, credentials.certificate, credentials.private_key)
        has_pair = True
    with closing(MqttConnection(open_connection(server, context, has_pair), server)) as connection:

        class Client(paho.Client):
            """Use the open connection. A later paho without this method opens its own, with the same TLS context."""

            def _create_socket(self) -> Any:
                return connection

        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=credentials.client_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        codes: list[int] = []
        client.on_connect = lambda _client, _data, _flags, reason, _properties: codes.append(reason.value)
        if context is not None:
            client.tls_set_context(context)
        if credentials.username is not None:
            client.username_pw_set(credentials.username, credentials.password)
        client.connect(server.host, server.port, keepalive=KEEPALIVE)
        while not codes and client.socket() is not None:
            client.loop_read()
        if codes != [_ACCEPTED]:
            raise login_problem(server, connection, codes, has_pair)
        client.disconnect()


class MqttConnection(Connection):
    """A connection with the interface of a socket that ``paho`` needs.

    ``paho`` does not report why a connection failed, so this class records the reason. ``paho`` also accepts packets
    other than CONNACK at this point, so this class ends a connection whose first byte is not that of a CONNACK.
    """

    problem: OSError | None = None

    def recv(self, size: int, within: float | None = None) -> bytes:
        is_first = not self.received
        try:
            data = super().recv(size, within)
            if is_first and data not in (b"", _CONNACK):
                raise ConnectionAbortedError
        except OSError as error:
            self.problem = error
            raise
        return data

    def send(self, data: bytes | bytearray) -> int:
        try:
            return super().send(data)
        except OSError as error:
            self.problem = error
            # With TLS 1.3 the alert that rejects a certificate arrives after the handshake and can still be read here.
            with suppress(OSError):
                self.recv(1)
            raise

    def setblocking(self, flag: bool) -> None:
        """Do nothing: reading always waits until the deadline."""


def login_problem(server: Server, connection: MqttConnection, codes: list[int], has_pair: bool) -> ProvisioningError:
    """Return the error for a login that was not accepted.

    :param codes: the reason code of the CONNACK, or nothing if none arrived.
    :param has_pair: whether the broker received a client certificate.
    """
    for code in codes:
        if code in _REFUSALS:
            return ProvisioningError(
                "credentials_refused",
                f"The {server} does not accept {_REFUSALS[code]}: check the Thing in the portal, and renew the "
                "credentials with force.",
            )
        if code == _UNAVAILABLE:
            return ProvisioningError("server_error", f"The {server} reports that it is unavailable: run again later.")
    if connection.received and not isinstance(connection.problem, TimeoutError):
        return ProvisioningError(
            "bad_response", f"The {server} does not speak MQTT 3.1.1: check host and port of the credentials."
        )
    if connection.problem is not None and not isinstance(connection.problem, ConnectionError):
        return connection_problem(server, connection.problem, "did not respond to the login", has_pair)
    return ProvisioningError(
        "bad_response",
        f"The {server} closed the connection without a response to the login. Brokers such as AWS IoT do that when the "
        "policy of the certificate does not allow the client ID, or when the certificate is not active: check the "
        "Thing in the portal.",
    )


def _load_pair(context: ssl.SSLContext, certificate: str, private_key: str) -> None:
    """Load a client certificate and its key into a TLS context.

    OpenSSL reads them by path. Paths of pipes keep the key out of the file system.
    """
    try:
        with _pipe(certificate) as certificate_path, _pipe(private_key) as key_path:
            context.load_cert_chain(certificate_path, key_path)
    except OSError as error:
        raise ProvisioningError(
            "tls", f"OpenSSL on the controller cannot use the certificate and its key: {reason_of(error)}."
        ) from None


@contextmanager
def _pipe(text: str) -> Iterator[str]:
    """Yield the path of a pipe from which one reader can read the text."""
    content = text.encode()
    reader, writer = os.pipe()
    try:
        try:
            os.set_blocking(writer, False)  # without a reader, a write beyond the pipe's capacity would never return
            if os.write(writer, content) < len(content):
                raise OSError("it is longer than a pipe can hold")
        finally:
            os.close(writer)
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)

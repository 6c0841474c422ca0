# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connect to brokers and casters within a deadline, and explain why a connection failed.

No error contains data that was sent or received.

Private to the collection.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass, field

from ..errors import ProvisioningError
from .hosts import AllowedHosts

MAX_RESPONSE = 64 * 1024  # bytes that are read from one connection


@dataclass(frozen=True)
class Server:
    """A broker or caster, with the deadline for everything that is exchanged with it.

    :param kind: what messages call it, for example ``MQTT broker``.
    :param timeout: seconds from the creation of this object.
    :param allowed: the hosts to which a connection is allowed; ``None`` for every host.
    """

    kind: str
    host: str
    port: int
    tls: bool
    timeout: float
    allowed: AllowedHosts | None = None
    started: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.kind} {self.authority}"

    @property
    def authority(self) -> str:
        """Return host and port, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def remaining(self) -> float:
        """Return the seconds until the deadline.

        :raises TimeoutError: if the deadline has passed.
        """
        seconds = self.started + self.timeout - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


class Connection:
    """A connection that observes its server's deadline and reads at most ``MAX_RESPONSE`` bytes."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self._connection = connection
        self._server = server
        self._unread = MAX_RESPONSE

    @property
    def received(self) -> bool:
        """Return whether the server has sent anything."""
        return self._unread < MAX_RESPONSE

    def recv(self, size: int, within: float | None = None) -> bytes:
        """Return at most ``size`` bytes; none at the end of the connection or of the limit.

        :param within: seconds to wait, if less than the server's deadline leaves.
        """
        remaining = self._server.remaining()
        self._connection.settimeout(remaining if within is None else min(within, remaining))
        data = self._connection.recv(min(size, self._unread))
        self._unread -= len(data)
        return data

    def send(self, data: bytes | bytearray) -> int:
        """Send all of ``data``."""
        self._connection.settimeout(self._server.remaining())
        self._connection.sendall(data)
        return len(data)

    def fileno(self) -> int:
        """Return the file descriptor of the socket."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()


def tls_context(origin: str, certificates: str) -> ssl.SSLContext:
    """Return a TLS context that trusts these CA certificates and no others.

    :param origin: what the error calls the certificates.
    :param certificates: in PEM.
    :raises ProvisioningError: ``bad_option`` if the certificates cannot be loaded.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=certificates)
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it contains no certificate"
        raise ProvisioningError("bad_option", f"Cannot use {origin} on the controller: {reason}.") from None
    return context


def open_connection(server: Server, context: ssl.SSLContext | None, has_pair: bool = False) -> socket.socket:
    """Connect to a server, with TLS if there is a context.

    :param has_pair: whether the context presents a client certificate.
    :raises ProvisioningError: ``unreachable``, ``timeout``, ``tls``, ``credentials_refused``, ``host_not_allowed``.
    """
    if server.allowed is not None:
        server.allowed.check_host(server.host)
    try:
        connection = _connect(server)
    except TimeoutError:
        raise ProvisioningError(
            "timeout",
            f"The {server} did not accept a connection within {server.timeout:g} seconds: check the firewall between "
            "the controller and that port.",
        ) from None
    except (socket.gaierror, UnicodeError):
        raise ProvisioningError(
            "unreachable", f"The name of the {server} cannot be resolved: check the DNS of the controller."
        ) from None
    except OSError as error:
        raise ProvisioningError(
            "unreachable", f"Cannot connect to the {server}: {reason_of(error)}. Check the network of the controller."
        ) from None
    if context is None:
        return connection
    try:
        connection.settimeout(server.remaining())
        return context.wrap_socket(connection, server_hostname=server.host)
    except ConnectionError as error:
        connection.close()
        raise _tls_problem(server, reason_of(error), has_pair) from None
    except OSError as error:
        connection.close()
        problem = connection_problem(server, error, "did not finish the TLS handshake", has_pair)
        raise (
            problem.with_advice("Check that this port uses TLS.") if problem.code == "timeout" else problem
        ) from None


def _connect(server: Server) -> socket.socket:
    """Try each address of the server in turn, each with an equal share of the remaining time."""
    problem = OSError("it has no address")
    addresses = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    if server.allowed is not None:
        for *_family, address in addresses:
            server.allowed.check_address(server.host, str(address[0]))
    for index, (*_family, address) in enumerate(addresses):
        try:
            return socket.create_connection(
                (str(address[0]), server.port), server.remaining() / (len(addresses) - index)
            )
        except OSError as error:
            problem = error
    raise problem


# The alerts by which a server rejects a client certificate. OpenSSL sends decrypt_error for a certificate that names a
# trusted CA but was not signed by it.
_CERTIFICATE_ALERTS = re.compile(
    r"_ALERT_(?:UNKNOWN_CA|NO_CERTIFICATE|(?:BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_(?:UNKNOWN|EXPIRED|REVOKED)"
    r"|ACCESS_DENIED|HANDSHAKE_FAILURE|DECRYPT_ERROR)$"
)


def connection_problem(server: Server, error: OSError, silence: str, has_pair: bool = False) -> ProvisioningError:
    """Return the error for a failure of an established connection.

    :param silence: what the server failed to do before the deadline, as a verb phrase.
    :param has_pair: whether the server received a client certificate.
    """
    if isinstance(error, TimeoutError):
        return ProvisioningError(
            "timeout", f"The {server} {silence} within {server.timeout:g} seconds: run again, or raise the timeout."
        )
    if isinstance(error, ssl.SSLError):
        return _tls_problem(server, reason_of(error), has_pair)
    return ProvisioningError("bad_response", f"The {server} closed the connection without a response: run again later.")


def _tls_problem(server: Server, reason: str, has_pair: bool) -> ProvisioningError:
    if reason.endswith("_ALERT_CERTIFICATE_REQUIRED") or (has_pair and _CERTIFICATE_ALERTS.search(reason)):
        return ProvisioningError(
            "credentials_refused",
            f"The {server} does not accept the certificate ({reason}): check the Thing in the portal, and renew the "
            "credentials with force.",
        )
    return ProvisioningError(
        "tls",
        f"The TLS connection to the {server} failed: {reason}. Check that this port uses TLS, that the server's "
        "certificate contains the host name, and which CA is trusted.",
    )


def reason_of(error: OSError) -> str:
    """Return the most specific description that an error of a socket or of OpenSSL contains."""
    return str(
        getattr(error, "verify_message", None)
        or getattr(error, "reason", None)
        or error.strerror
        or (error.args[0] if error.args else type(error).__name__)
    )

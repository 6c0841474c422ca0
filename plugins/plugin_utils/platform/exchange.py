# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange with the platform as data: where it goes, what came back, and whether anything arrived.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import ProvisioningError

MAX_RESPONSE = 256 * 1024  # bytes; real ones fit into 6 KiB (seen in client code). The spool allocates room for this


@dataclass(frozen=True)
class Endpoint:
    """Where and how the API is reached. Times are seconds.

    :param url: the address of the service, its path included.
    :param ca_path: CA certificates to trust in place of the CA bundle of ``requests``: a file of PEM certificates, or a
        directory that ``openssl rehash`` has prepared.
    :param proxy: the address of a proxy; ``None`` leaves the choice to the usual environment variables, ``""`` uses
        none. Without TLS there is no proxy.
    :param timeout: how long a connection may take, and again a whole response; no request takes longer than both.
    :param retries: how many times a request is repeated at most.
    """

    url: str
    validate_certs: bool = True
    ca_path: str | None = None
    proxy: str | None = field(default=None, repr=False)
    timeout: float = 30.0
    retries: int = 3


@dataclass(frozen=True)
class HttpResponse:
    """A response over HTTP. Its body is a secret."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class NotSent(Exception):
    """The request did not reach the platform: repeating it is safe."""


class OutcomeUnknown(Exception):
    """The request went out and no usable response came back: a Thing may have been created."""

    def __init__(self, error: ProvisioningError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class Sending:
    """One request on its way.

    :param keep: stores the body of a 200. The thread that receives the body calls it as soon as that is whole, so that
        nothing that interrupts the run comes between the two; once ``post`` has ended, it is not called any more.
    :param may_have_arrived: whether the platform may have received the request and its response is not known.
    """

    keep: Callable[[bytes], None]
    may_have_arrived: bool = False


Post = Callable[[Endpoint, bytes, Sending], HttpResponse]

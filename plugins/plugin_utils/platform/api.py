# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One POST to the Zero Touch Provisioning API, its retries and its errors.

Nothing here knows of Ansible. Neither the token nor the body of a response ever enters an error.

Private to the collection.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from ..errors import ProvisioningError
from .exchange import MAX_RESPONSE, Endpoint, HttpResponse, NotSent, OutcomeUnknown, Post, Sending
from .naming import MAX_GIVEN_NAME
from .refusals import error_of
from .transport import post

# what the rest of the collection needs to send a request
__all__ = [
    "DEFAULT_URL", "MAX_RESPONSE", "Endpoint", "HttpResponse", "NotSent", "OutcomeUnknown", "Post",
    "Sending", "default_given_name", "endpoint_problem", "error_of", "post", "request", "request_problem",
]  # fmt: skip

DEFAULT_URL = "https://api.thingstream.io"  # documented
MAX_WAIT = 60.0  # seconds between two tries
FIRST_WAIT = 1.0  # seconds, doubled for each further try


def request(
    endpoint: Endpoint,
    body: Mapping[str, Any],
    sending: Sending,
    *,
    repeatable: bool,
    post: Post,
    sleep: Callable[[float], None],
    uniform: Callable[[float, float], float],
    now: Callable[[], datetime],
) -> bytes:
    """Send one request until a 200 has been kept, and return its body.

    Retried are: a connection that was never established; 429 and 503 with ``Retry-After``; and, where a repeated
    request cannot create a second Thing, a broken connection, a timeout, and other 5xx.

    :param body: the request as the platform documents it; it holds the token.
    :param repeatable: whether a repeated request is known to create no second Thing.
    :param uniform: draws a random number from an interval; for the jitter of waits.
    :raises ProvisioningError: what remained after the last try.
    :raises OutcomeUnknown: the same where a Thing may have been created, and a repeated request may create another one.
    """
    payload = json.dumps(body).encode()
    for attempt in range(endpoint.retries + 1):
        wait: float | None = None
        lost = False  # whether the platform may have acted on the request
        try:
            response = post(endpoint, payload, sending)
        except NotSent as problem:
            error, again = ProvisioningError("unreachable", f"{problem}"), True
        except OutcomeUnknown as problem:
            error, again, lost = problem.error, repeatable, True
        else:
            if response.status == 200:  # the only status that clients have seen for success
                return response.body
            error = error_of(response)
            wait = _retry_after(response, now())
            declined = response.status in (429, 503) and wait is not None
            again = (declined or (response.status >= 500 and repeatable)) and (wait or 0) <= MAX_WAIT
            lost = (not declined and not 300 <= response.status < 500) or response.status == 303  # "done, see there"
        sending.may_have_arrived = lost
        if not again or attempt == endpoint.retries:
            raise OutcomeUnknown(error) if lost and not repeatable else error
        backoff = min(FIRST_WAIT * 2**attempt, MAX_WAIT)
        sleep(min(uniform(wait, wait + backoff), MAX_WAIT) if wait is not None else uniform(backoff / 2, backoff))
    raise AssertionError("unreachable: the last try returns or raises")


def _retry_after(response: HttpResponse, now: datetime) -> float | None:
    """Return the seconds to wait by ``Retry-After``, a number or a date; ``None`` if it is not usable."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


# ---- what can be said before anything is sent ----


def request_problem(token: str | None, given_name: str, api_url: str) -> ProvisioningError | None:
    """Return why the platform would refuse a request, or why it must not be sent; ``None`` if it can be."""
    if not 1 <= len(given_name) <= MAX_GIVEN_NAME:
        return ProvisioningError(
            "bad_option", f"given_name has {len(given_name)} characters; the platform takes 1 to {MAX_GIVEN_NAME}."
        )
    return endpoint_problem(token, api_url)


def endpoint_problem(token: str | None, api_url: str) -> ProvisioningError | None:
    """Return why no request at all can be sent with this token to this address; ``None`` if one can be.

    The exact form of a token is checked where it is given; see ``pasted.token_of``.
    """
    if not token:
        return ProvisioningError(
            "token_invalid", "No token: set token, or THINGSTREAM_ZTP_TOKEN, to that of the device profile."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        return ProvisioningError("token_invalid", "The token holds characters that no token has: copy it again.")
    return _url_problem(api_url)


def _url_problem(api_url: str) -> ProvisioningError | None:
    """Return the error for a URL that is neither https nor http on loopback; ``None`` for a usable one."""
    try:
        parts = urlsplit(api_url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return ProvisioningError("bad_option", "api_url is not a URL.")
    if parts.scheme == "http" and not _is_loopback(host):
        return ProvisioningError("bad_option", "api_url must begin with https://, or the token would travel in clear.")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username is not None:
        return ProvisioningError("bad_option", "api_url must look like https://api.thingstream.io.")
    return None


def default_given_name(inventory_name: str) -> str:
    """Return the inventory name, cut to the length that the platform takes.

    Names need not be unique there (documented).
    """
    return inventory_name[:MAX_GIVEN_NAME]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

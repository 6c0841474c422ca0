# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One POST to the Zero Touch Provisioning API, its retries and its errors.

Nothing here knows of Ansible. Neither the token nor the body of an answer ever enters an error.

Private to the collection.
"""

from __future__ import annotations

import io
import ipaddress
import json
import os
import queue
import re
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead
from typing import Any
from urllib.parse import urlsplit

try:
    import requests
    import requests.adapters
    import requests.utils
    from urllib3.exceptions import DecodeError, HTTPError, LocationValueError, ReadTimeoutError
except ImportError as error:
    REQUESTS_MISSING: ImportError | None = error
    CA_BUNDLE = LIBRARY_CA_BUNDLE = ""
else:
    REQUESTS_MISSING = None
    LIBRARY_CA_BUNDLE = requests.utils.DEFAULT_CA_BUNDLE_PATH
    # the variables that requests itself honors
    CA_BUNDLE = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or LIBRARY_CA_BUNDLE

from ..errors import ProvisioningError

DEFAULT_URL = "https://api.thingstream.io"  # documented
MAX_RESPONSE = 1024 * 1024  # bytes; real ones fit into 6 KiB (seen in client code)
MAX_WAIT = 60.0  # seconds between two tries
FIRST_WAIT = 1.0  # seconds, doubled for each further try

_GIVEN_NAME_LENGTH = 50  # characters; seen in client code


@dataclass(frozen=True)
class Endpoint:
    """Where and how the API is reached. Times are seconds.

    :param url: the address of the service, its path included.
    :param ca_path: a file of PEM certificates to trust in place of the CA bundle of ``requests``.
    :param proxy: the address of a proxy; ``None`` leaves the choice to the usual environment variables, ``""`` uses
        none.
    :param timeout: how long a connection may take, and again a whole answer; no request takes longer than both.
    :param retries: how many times a request is repeated at most.
    """

    url: str
    validate_certs: bool = True
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = field(default=None, repr=False)
    timeout: float = 30.0
    retries: int = 3


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP. The body is a secret."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class NotSent(Exception):
    """The request did not reach the platform: repeating it is safe."""


class OutcomeUnknown(Exception):
    """The request went out and no answer came back that could be used: a Thing may have been created."""

    def __init__(self, error: ProvisioningError) -> None:
        super().__init__(error.message)
        self.error = error


class _Payload(io.BytesIO):
    """A body that tells whether anything of it was sent, and that can be withheld from then on."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self._lock = threading.Lock()
        self._withheld = False

    def read(self, size: int | None = -1, /) -> bytes:
        """What is to be sent next.

        :raises TimeoutError: once it is withheld.
        """
        with self._lock:
            if self._withheld:
                raise TimeoutError
            return super().read(size)

    def withhold(self) -> bool:
        """Lets nothing be sent any more; returns whether anything was."""
        with self._lock:
            self._withheld = True
            return self.tell() > 0


Post = Callable[[Endpoint, bytes], Answer]


def ask(
    endpoint: Endpoint,
    body: Mapping[str, Any],
    *,
    repeatable: bool,
    post: Post,
    sleep: Callable[[float], None],
    uniform: Callable[[float, float], float],
    now: Callable[[], datetime],
) -> bytes:
    """Sends one request and returns the body of a 200.

    Repeated are: a connection that was never established; 429 and 503 with ``Retry-After``; and, where a repeated
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
        lost = False  # whether the platform may have done what it was asked for, and nobody knows
        try:
            answer = post(endpoint, payload)
        except NotSent as problem:
            error, again = ProvisioningError("unreachable", f"{problem}"), True
        except OutcomeUnknown as problem:
            error, again, lost = problem.error, repeatable, True
        else:
            if answer.status == 200:  # the only status that clients have seen for success
                return answer.body
            error = error_of(answer)
            wait = _retry_after(answer, now())
            declined = answer.status in (429, 503) and wait is not None
            again = (declined or (answer.status >= 500 and repeatable)) and (wait or 0) <= MAX_WAIT
            lost = (not declined and not 300 <= answer.status < 500) or answer.status == 303  # "done, see there"
        if not again or attempt == endpoint.retries:
            raise OutcomeUnknown(error) if lost and not repeatable else error
        backoff = min(FIRST_WAIT * 2**attempt, MAX_WAIT)
        sleep(min(uniform(wait, wait + backoff), MAX_WAIT) if wait is not None else uniform(backoff / 2, backoff))
    raise AssertionError("unreachable: the last try returns or raises")


# ---- what the platform says when it refuses ----

# (status, words that must all occur in the body, code, advice). Texts marked "seen" come from client logs and code;
# the others are assumed from the wording of the seen ones, and anything else ends as "refused".
_REFUSALS: Sequence[tuple[tuple[int, ...], tuple[str, ...], str, str]] = (
    ((422,), ("token",), "token_invalid", "The platform says that the token is malformed."),  # seen
    ((403,), ("already registered",), "already_registered",  # seen
     "This hardware ID is registered already. Set the device profile to return the existing credentials, or remove the "
     "Thing that has it; it may belong to another device profile."),
    ((403,), ("no plan",), "no_plan",  # seen
     "The Thing of this hardware ID exists but has no plan or was deactivated: activate it in the portal."),
    ((403,), ("not whitelisted",), "not_allowed",  # seen
     "This hardware ID is not on the allow-list of the device profile: add it there."),
    ((403,), ("not", "allow"), "not_allowed",
     "This hardware ID is not on the allow-list of the device profile: add it there."),
    ((403,), ("disabled",), "profile_disabled", "The device profile is disabled: enable it in the portal."),
    ((400, 403, 422), ("hardware",), "hardware_id_required",
     "The device profile wants a hardware ID: set hardware_id."),
    ((400, 422), ("givenname",), "bad_option", "The platform does not accept this given_name (1 to 50 characters)."),
    ((400, 422), ("tags",), "bad_option", "The platform does not accept these tags."),
    ((400, 401, 403, 404), ("token",), "token_invalid",
     "The platform does not know this token: compare it with the device profile, and the service with its type."),
    ((401,), (), "token_invalid", "The platform does not accept this token: compare it with the device profile."),
)  # fmt: skip


def error_of(answer: Answer) -> ProvisioningError:
    """The meaning of a status other than 200. The body is searched for known words and never quoted."""
    status, text = answer.status, answer.body[:4096].decode("utf-8", "replace").lower()
    for statuses, words, code, advice in _REFUSALS:
        if status in statuses and all(word in text for word in words):
            return ProvisioningError(code, f"{advice} (HTTP {status})", status)
    if status == 429:
        return ProvisioningError(
            "rate_limited", "The platform asks for fewer requests (HTTP 429): lower forks.", status
        )
    if status >= 500:
        return ProvisioningError(
            "server_error", f"The platform has a problem (HTTP {status}): run again later.", status
        )
    if 400 <= status < 500:
        return ProvisioningError(
            "refused",
            f"The platform refused the request (HTTP {status}) for a reason that this collection does not know. "
            "Compare token, hardware_id and service with the device profile in the portal.",
            status,
        )
    return ProvisioningError(
        "bad_response",
        f"The answer has the unexpected status {status}; a redirect is not followed. See api_url.",
        status,
    )


def _retry_after(answer: Answer, now: datetime) -> float | None:
    """Seconds to wait as ``Retry-After`` says, a number or a date; ``None`` where it says nothing usable."""
    value = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


# ---- what can be said before anything is sent ----


def check_request(token: str | None, given_name: str, api_url: str) -> None:
    """Refuses what the platform would refuse, and an address that would carry the token in the clear.

    The exact form of a token is left to the platform.

    :raises ProvisioningError: ``token_invalid``, ``bad_option``.
    """
    if not token:
        raise ProvisioningError(
            "token_invalid", "No token: set token, or THINGSTREAM_ZTP_TOKEN, to that of the device profile."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ProvisioningError("token_invalid", "The token holds characters that no token has: copy it again.")
    if not 1 <= len(given_name) <= _GIVEN_NAME_LENGTH:
        raise ProvisioningError(
            "bad_option", f"given_name has {len(given_name)} characters; the platform takes 1 to {_GIVEN_NAME_LENGTH}."
        )
    check_url(api_url)


def check_url(api_url: str) -> None:
    """Accepts https everywhere and http on loopback only.

    :raises ProvisioningError: ``bad_option``.
    """
    try:
        parts = urlsplit(api_url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise ProvisioningError("bad_option", "api_url is not a URL.") from None
    if parts.scheme == "http" and not _is_loopback(host):
        raise ProvisioningError("bad_option", "api_url must begin with https://, or the token would travel in clear.")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username is not None:
        raise ProvisioningError("bad_option", "api_url must look like https://api.thingstream.io.")


def default_given_name(inventory_name: str) -> str:
    """The inventory name, cut to the length that the platform takes; names need not be unique there (documented)."""
    return inventory_name[:_GIVEN_NAME_LENGTH]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ---- the one function that talks HTTP ----


def _trust_store() -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=CA_BUNDLE) if REQUESTS_MISSING is None and CA_BUNDLE else None


# Built when the plugin is imported, which Ansible does before it forks: reading the CA bundle costs ten times more
# than everything else here, and every worker process inherits the result.
try:
    _TRUST_STORE = _trust_store()
except OSError:
    _TRUST_STORE = None


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    own = endpoint.ca_path or endpoint.client_cert or not endpoint.validate_certs
    if _TRUST_STORE is not None and not own:
        return _TRUST_STORE
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_path or CA_BUNDLE)
        if not endpoint.validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if endpoint.client_cert:
            context.load_cert_chain(endpoint.client_cert, endpoint.client_key)
    except (OSError, ssl.SSLError) as error:
        raise ProvisioningError(
            "bad_option", f"Cannot read ca_path, client_cert or client_key on the controller: {_reason(error)}."
        ) from None
    return context


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


def post(endpoint: Endpoint, payload: bytes) -> Answer:
    """Sends one request over HTTPS. Redirects are not followed, so that the token goes nowhere else.

    :raises NotSent: if no connection came about.
    :raises OutcomeUnknown: if the connection broke after that.
    :raises ProvisioningError: ``tls``, ``bad_option``, ``bad_response``.
    """
    body = _Payload(payload)
    outcome: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()

    def send() -> None:
        try:
            outcome.put(_send(endpoint, context, request))
        except Exception as error:
            outcome.put(error)

    context, request = _tls_context(endpoint), _prepared(endpoint, body)
    # The HTTP library has a limit for each read and none for all of them, so that an answer could drip for days. What
    # is still going on in the thread when the time is over can send nothing any more, and ends with the process.
    threading.Thread(target=send, daemon=True).start()
    try:
        answer = outcome.get(timeout=2 * endpoint.timeout)
    except queue.Empty:
        answer = TimeoutError()
    finally:
        sent = body.withhold()
    if isinstance(answer, Exception):
        raise _meaning(answer, endpoint, sent) from None
    if len(answer.body) > MAX_RESPONSE:
        raise OutcomeUnknown(ProvisioningError("bad_response", "The answer is longer than 1 MiB.", answer.status))
    if not answer.body and "Content-Length" not in answer.headers:  # cut within its head
        raise OutcomeUnknown(ProvisioningError("bad_response", "The answer ended before it was whole.", answer.status))
    return answer


def _prepared(endpoint: Endpoint, body: io.BytesIO) -> requests.PreparedRequest:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    try:
        return requests.Request("POST", endpoint.url, data=body, headers=headers).prepare()
    except (requests.exceptions.RequestException, ValueError):
        raise ProvisioningError("bad_option", "api_url is not a URL that can be used.") from None


def _send(endpoint: Endpoint, context: ssl.SSLContext, request: requests.PreparedRequest) -> Answer:
    class Adapter(requests.adapters.HTTPAdapter):
        """Uses the prepared TLS context, where requests would read the CA bundle again for each connection."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, ssl_context=context, **options)

        def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
            return super().proxy_manager_for(*arguments, ssl_context=context, **options)

        def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
            host, options = super().build_connection_pool_key_attributes(request, verify, cert)
            return host, {name: value for name, value in options.items() if not name.startswith(("ca_", "cert_"))}

        def cert_verify(self, *arguments: Any) -> None:
            """The context verifies."""

    if endpoint.proxy is None:
        proxies = requests.utils.get_environ_proxies(endpoint.url)
    else:
        proxies = {"http": endpoint.proxy, "https": endpoint.proxy} if endpoint.proxy else {}
    with requests.Session() as session:
        session.mount("https://", Adapter())
        with session.send(
            request, timeout=endpoint.timeout, allow_redirects=False, stream=True, proxies=proxies
        ) as response:
            content = response.raw.read(MAX_RESPONSE + 1, decode_content=True)
            return Answer(response.status_code, response.headers, content)


def _meaning(error: Exception, endpoint: Endpoint, sent: bool) -> Exception:
    """What an exception of the HTTP library means for the request; its text is dropped, it may quote a URL."""
    problem = _problem(error, endpoint, sent)
    if problem is None:
        return error
    if sent:
        return OutcomeUnknown(problem)
    # only a connection that never came about is worth another try
    return NotSent(problem.message) if problem.code == "unreachable" else problem


def _problem(error: Exception, endpoint: Endpoint, sent: bool) -> ProvisioningError | None:
    host, failures = urlsplit(endpoint.url).netloc, requests.exceptions
    if isinstance(error, (failures.InvalidURL, failures.InvalidSchema, LocationValueError)):
        return ProvisioningError("bad_option", "api_url or proxy is not a URL that can be used.")
    if isinstance(error, failures.ProxyError):
        return ProvisioningError(
            "unreachable", "The proxy cannot be reached or refused the connection: see proxy and HTTPS_PROXY."
        )
    if isinstance(error, failures.SSLError) or _find(error, ssl.SSLError) is not None:
        return ProvisioningError(
            "tls",
            f"The TLS connection to {host} failed: {_tls_reason(error)}. {_tls_advice(_tls_reason(error))}",
        )
    if not isinstance(error, (failures.RequestException, HTTPError, OSError)):
        return None
    if not sent:
        return ProvisioningError(
            "unreachable", f"Cannot connect to {host}: check the network of the controller, api_url and proxy."
        )
    if _find(error, (TimeoutError, failures.Timeout, ReadTimeoutError)) is not None:
        return ProvisioningError("timeout", f"{host} did not answer within {endpoint.timeout:g} seconds: see timeout.")
    if _find(error, (IncompleteRead, DecodeError)) is not None:
        return ProvisioningError("bad_response", f"The answer of {host} ended before it was whole.")
    return ProvisioningError("unreachable", f"The connection to {host} broke after the request was sent.")


def _find(error: BaseException, kind: type[BaseException] | tuple[type[BaseException], ...]) -> BaseException | None:
    """Looks through what an exception wraps, as urllib3 and requests nest them."""
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        candidate = pending.pop(0)
        if isinstance(candidate, kind):
            return candidate
        seen.add(id(candidate))
        wrapped = (*candidate.args, getattr(candidate, "reason", None), candidate.__cause__, candidate.__context__)
        pending += [inner for inner in wrapped if isinstance(inner, BaseException) and id(inner) not in seen]
    return None


def _tls_reason(error: BaseException) -> str:
    found = _find(error, ssl.SSLError)
    return getattr(found, "verify_message", None) or getattr(found, "reason", None) or "no further reason"


def _tls_advice(reason: str) -> str:
    if "expired" in reason or "not yet valid" in reason:
        return "Look at the clock of the controller first, then at the certificate of the server."
    return "Name the CA that signed it with ca_path, and compare the host name in api_url with the certificate."

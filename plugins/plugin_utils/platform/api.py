# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One POST to the Zero Touch Provisioning API, its retries and its errors.

Nothing here knows of Ansible. Neither the token nor the body of a response ever enters an error.

Private to the collection.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import os
import queue
import re
import signal
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
MAX_RESPONSE = 256 * 1024  # bytes; real ones fit into 6 KiB (seen in client code). The spool allocates room for this
GRACE_SECONDS = 10.0  # how long an interrupted run waits for a response that may be arriving
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
    """What came back over HTTP. The body is a secret."""

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


class _Payload(io.BytesIO):
    """A body that tells whether anything of it was sent, and that can be withheld from then on."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self._lock = threading.Lock()
        self._withheld = False
        self._was_read = False  # not the position: the HTTP library goes back to the start after a redirect

    def read(self, size: int | None = -1, /) -> bytes:
        """What is to be sent next.

        :raises TimeoutError: once it is withheld.
        """
        with self._lock:
            part = super().read(size)
            if part and self._withheld:
                raise TimeoutError
            self._was_read = self._was_read or bool(part)
            return part

    def withhold(self) -> bool:
        """Lets nothing be sent any more; returns whether anything was."""
        with self._lock:
            self._withheld = True
            return self._was_read


Post = Callable[[Endpoint, bytes, Sending], HttpResponse]


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


def error_of(response: HttpResponse) -> ProvisioningError:
    """The meaning of a status other than 200. The body is searched for known words and never quoted."""
    status, text = response.status, response.body[:4096].decode("utf-8", "replace").lower()
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
        f"The response has the unexpected status {status}; redirects are not followed. See api_url.",
        status,
    )


def _retry_after(response: HttpResponse, now: datetime) -> float | None:
    """Seconds to wait as ``Retry-After`` says, a number or a date; ``None`` where it says nothing usable."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


# ---- what can be said before anything is sent ----


def request_problem(token: str | None, given_name: str, api_url: str) -> ProvisioningError | None:
    """Return why the platform would refuse a request, or why it must not be sent; ``None`` if it can be.

    The exact form of a token is left to the platform.
    """
    if not token:
        return ProvisioningError(
            "token_invalid", "No token: set token, or THINGSTREAM_ZTP_TOKEN, to that of the device profile."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        return ProvisioningError("token_invalid", "The token holds characters that no token has: copy it again.")
    if not 1 <= len(given_name) <= _GIVEN_NAME_LENGTH:
        return ProvisioningError(
            "bad_option", f"given_name has {len(given_name)} characters; the platform takes 1 to {_GIVEN_NAME_LENGTH}."
        )
    return _url_problem(api_url)


def _url_problem(api_url: str) -> ProvisioningError | None:
    """Accept https everywhere and http on loopback only."""
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
    own = endpoint.ca_path or not endpoint.validate_certs
    if _TRUST_STORE is not None and not own:
        return _TRUST_STORE
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_path or CA_BUNDLE)
        if not endpoint.validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    except (OSError, ssl.SSLError) as error:
        raise ProvisioningError("bad_option", f"Cannot read ca_path on the controller: {_reason(error)}.") from None
    return context


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


def post(endpoint: Endpoint, payload: bytes, sending: Sending) -> HttpResponse:
    """Send one request over HTTPS. Redirects are not followed, so that the token goes nowhere else.

    :raises NotSent: if no connection came about.
    :raises OutcomeUnknown: if the connection broke after that.
    :raises ProvisioningError: ``tls``, ``bad_option``, ``bad_response``, and what ``sending.keep`` raises.
    """
    body = _Payload(payload)
    outcome: queue.SimpleQueue[HttpResponse | Exception] = queue.SimpleQueue()
    is_whole, is_over, keeping = threading.Event(), threading.Event(), threading.Lock()

    def send() -> None:
        try:
            response = _send(endpoint, context, prepared)
            _require_whole(response)
        except Exception as error:
            outcome.put(error)
            return
        is_whole.set()
        with keeping:
            if not is_over.is_set():
                outcome.put(_kept(response, sending))

    context, prepared = _tls_context(endpoint), _prepared(endpoint, body)
    # The HTTP library has a limit for each read and none for all of them, so that a response could drip for days. What
    # still goes on in the thread when the time is over can send and keep nothing any more, and ends with the process.
    thread = threading.Thread(target=send, daemon=True)
    is_interrupted = True
    with _signals_as_exceptions():
        try:
            sending.may_have_arrived = True  # in case that a second interruption skips the lines below
            thread.start()
            with contextlib.suppress(queue.Empty):
                outcome.put(outcome.get(timeout=2 * endpoint.timeout))
            is_interrupted = False
        finally:
            sending.may_have_arrived = body.withhold()
            if is_whole.is_set() or (is_interrupted and sending.may_have_arrived):
                thread.join(GRACE_SECONDS)  # what is arriving is kept, whatever interrupts this
            with keeping:
                is_over.set()
    result = TimeoutError() if outcome.empty() else outcome.get()
    if isinstance(result, Exception):
        raise _meaning(result, endpoint, sending.may_have_arrived) from None
    return result


def _kept(response: HttpResponse, sending: Sending) -> HttpResponse | Exception:
    """Keep the body of a 200, and return the response, or why it could not be kept."""
    try:
        if response.status == 200:
            sending.keep(response.body)
    except Exception as error:
        return error
    return response


class _Terminated(SystemExit):
    """A signal that ends the process, as an exception."""


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Turn signals that would end the process at once into an exception while a response may arrive.

    The worker processes of Ansible handle both signals by killing themselves.
    """

    def terminate(number: int, _frame: object) -> None:
        raise _Terminated(128 + number)

    replaced: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, signal.default_int_handler, None):
                    replaced[number] = handler
                    signal.signal(number, terminate)
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _require_whole(response: HttpResponse) -> None:
    if len(response.body) > MAX_RESPONSE:
        raise OutcomeUnknown(
            ProvisioningError(
                "bad_response", f"The response is longer than {MAX_RESPONSE // 1024} KiB.", response.status
            )
        )
    if not response.body and "Content-Length" not in response.headers:  # cut within its head
        raise OutcomeUnknown(
            ProvisioningError("bad_response", "The response ended before it was whole.", response.status)
        )


def _prepared(endpoint: Endpoint, body: io.BytesIO) -> requests.PreparedRequest:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    try:
        return requests.Request("POST", endpoint.url, data=body, headers=headers).prepare()
    except (requests.exceptions.RequestException, ValueError):
        raise ProvisioningError("bad_option", "api_url is not a URL that can be used.") from None


def _send(endpoint: Endpoint, context: ssl.SSLContext, request: requests.PreparedRequest) -> HttpResponse:
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
            return HttpResponse(response.status_code, response.headers, content)


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
        return ProvisioningError("timeout", f"{host} did not respond within {endpoint.timeout:g} seconds: see timeout.")
    if _find(error, (IncompleteRead, DecodeError)) is not None:
        return ProvisioningError("bad_response", f"The response of {host} ended before it was whole.")
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

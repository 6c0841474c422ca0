# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send one request over HTTPS, and keep its response whatever interrupts the run.

Private to the collection.
"""

from __future__ import annotations

import contextlib
import io
import queue
import signal
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from ..errors import ProvisioningError
from . import failures, proxies, trust
from .exchange import MAX_RESPONSE, Endpoint, HttpResponse, NotSent, OutcomeUnknown, Sending
from .proxies import Proxy

with contextlib.suppress(ImportError):  # reported by ``trust.REQUESTS_MISSING``
    import requests
    import requests.adapters
    import urllib3.exceptions

GRACE_SECONDS = 10.0  # how long an interrupted run waits for a response that may be arriving


class _Payload(io.BytesIO):
    """A request body that knows whether any part of it was sent, and that can be withheld from then on."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self._lock = threading.Lock()
        self._withheld = False
        self._was_read = False  # not the position: the HTTP library goes back to the start after a redirect

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the part that is to be sent next.

        :raises TimeoutError: once the body is withheld.
        """
        with self._lock:
            part = super().read(size)
            if part and self._withheld:
                raise TimeoutError
            self._was_read = self._was_read or bool(part)
            return part

    def withhold(self) -> bool:
        """Let nothing be sent any more, and return whether anything was sent."""
        with self._lock:
            self._withheld = True
            return self._was_read


def post(endpoint: Endpoint, payload: bytes, sending: Sending) -> HttpResponse:
    """Send one request over HTTPS. Redirects are not followed, so that the token goes nowhere else.

    :raises NotSent: if no connection came about.
    :raises OutcomeUnknown: if the connection broke after that.
    :raises ProvisioningError: ``tls``, ``proxy_refused``, ``bad_option``, ``bad_response``, and what ``sending.keep``
        raises.
    """
    body = _Payload(payload)
    outcome: queue.SimpleQueue[HttpResponse | Exception] = queue.SimpleQueue()
    is_whole, is_over, keeping = threading.Event(), threading.Event(), threading.Lock()

    def send() -> None:
        try:
            response = _send(endpoint, context, proxy, prepared)
            _require_whole(response)
        except Exception as error:
            outcome.put(error)
            return
        is_whole.set()
        with keeping:
            if not is_over.is_set():
                outcome.put(_kept(response, sending))

    prepared = _prepared(endpoint, body)
    proxy, context = proxies.choose(endpoint), trust.tls_context(endpoint)
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
        raise failures.meaning(result, endpoint, proxy, sending.may_have_arrived) from None
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


def connect(endpoint: Endpoint) -> str | None:
    """Connect to the API as a request would, send nothing, and return the version of TLS; ``None`` without TLS.

    :raises ProvisioningError: what would keep a request from the API.
    """
    request = _prepared(endpoint, io.BytesIO())
    proxy, context = proxies.choose(endpoint), trust.tls_context(endpoint)
    try:
        with _session(context) as session:
            adapter: Any = session.get_adapter(endpoint.url)
            found = {"https": proxy.url} if proxy else {}
            pool = adapter.get_connection_with_tls_context(request, verify=True, proxies=found)
            return _connected(pool, endpoint.timeout)
    except ProvisioningError:
        raise
    except Exception as error:
        problem = failures.meaning(error, endpoint, proxy, sent=False)
        raise ProvisioningError("unreachable", f"{problem}") if isinstance(problem, NotSent) else problem from None


def _connected(pool: Any, timeout: float) -> str | None:
    """Connect as urllib3 itself does since 1.26, which has no public function for it, and close again."""
    connection = pool._get_conn()
    connection.timeout = timeout
    is_tunneled = pool.proxy is not None and pool.scheme == "https"
    try:
        if is_tunneled:
            pool._prepare_proxy(connection)
        elif not connection.sock:
            connection.connect()
        return connection.sock.version() if pool.scheme == "https" else None
    except (OSError, urllib3.exceptions.HTTPError) as error:
        if is_tunneled and not getattr(connection, "has_connected_to_proxy", connection.sock):
            raise requests.exceptions.ProxyError(error) from None
        raise
    finally:
        connection.close()


def _send(
    endpoint: Endpoint, context: ssl.SSLContext, proxy: Proxy | None, request: requests.PreparedRequest
) -> HttpResponse:
    # an empty mapping, unlike none, keeps requests from reading the environment
    found = {"https": proxy.url} if proxy else {}
    with (
        _session(context) as session,
        session.send(request, timeout=endpoint.timeout, allow_redirects=False, stream=True, proxies=found) as response,
    ):
        content = response.raw.read(MAX_RESPONSE + 1, decode_content=True)
        return HttpResponse(response.status_code, response.headers, content)


def _session(context: ssl.SSLContext) -> requests.Session:
    class Adapter(requests.adapters.HTTPAdapter):
        """Use the prepared TLS context, where requests would read the CA bundle again for each connection."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, ssl_context=context, **options)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            if proxy.lower().startswith("https:"):
                options["proxy_ssl_context"] = context
            return super().proxy_manager_for(proxy, ssl_context=context, **options)

        def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
            host, options = super().build_connection_pool_key_attributes(request, verify, cert)
            return host, {name: value for name, value in options.items() if not name.startswith(("ca_", "cert_"))}

        def cert_verify(self, *arguments: Any) -> None:
            """Do nothing: the TLS context verifies."""

    session = requests.Session()
    session.mount("https://", Adapter())
    return session

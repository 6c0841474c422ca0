# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requests are repeated, what each refusal means, and ``post`` against a real TLS server."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, transport
from ansible_collections.thingstream.ztp.tests.unit.https import (
    BODY,
    PAYLOAD,
    Pki,
    closed_port,
    endpoint,
    no_proxies,
    pki_fixture,
    post,
    post_fails,
    tls_fixture,
)
from ansible_collections.thingstream.ztp.tests.unit.support import (
    MQTT_PASSWORD,
    NOW,
    TOKEN,
    Behavior,
    answering,
    assert_no_secret,
    serving,
)

_FIXTURES = (no_proxies, pki_fixture, tls_fixture)  # pytest finds them by these names

ENDPOINT = api.Endpoint("https://api.example.com/ztp")
SECRET_BODY = json.dumps({"password": MQTT_PASSWORD}).encode()

Reply = api.HttpResponse | Exception


# ---- request ----


def response(status: int, body: bytes = SECRET_BODY, **headers: str) -> api.HttpResponse:
    return api.HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def not_sent() -> api.NotSent:
    return api.NotSent("Cannot connect to api.example.com.")


def unknown(code: str = "timeout") -> api.OutcomeUnknown:
    return api.OutcomeUnknown(ProvisioningError(code, "No response."))


@dataclass
class Script:
    """A platform with scripted responses, once each, and a clock that only notes its waits."""

    replies: list[Reply]
    waits: list[float] = field(default_factory=list)
    drawn: list[tuple[float, float]] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    lost: bool = False
    may_have_arrived: bool = False
    interrupt: int = 0
    can_keep: bool = True

    def keep(self, body: bytes) -> None:
        if not self.can_keep:
            raise ProvisioningError("spool_failed", "The disk is full.")
        self.kept.append(body)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) == self.interrupt:
            raise KeyboardInterrupt

    def post(self, endpoint: api.Endpoint, payload: bytes, sending: api.Sending) -> api.HttpResponse:
        """Do as ``api.post`` does."""
        self.sent.append(payload)
        assert self.replies, "one request too many"
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            sending.may_have_arrived = isinstance(reply, api.OutcomeUnknown)
            raise reply
        sending.may_have_arrived = True
        if reply.status == 200:
            sending.keep(reply.body)
        return reply

    def uniform(self, low: float, high: float) -> float:
        self.drawn.append((low, high))
        return low + (high - low) / 4

    def request(self, repeatable: bool = False, retries: int = 3) -> bytes:
        sending = api.Sending(self.keep)
        try:
            result = api.request(
                replace(ENDPOINT, retries=retries),
                BODY,
                sending,
                repeatable=repeatable,
                post=self.post,
                sleep=self.sleep,
                uniform=self.uniform,
                now=lambda: NOW,
            )
        finally:
            self.may_have_arrived = sending.may_have_arrived
        assert not self.replies, "one request too few"
        assert self.kept == [result]
        return result

    def fail(self, repeatable: bool = False, retries: int = 3) -> ProvisioningError:
        with pytest.raises((ProvisioningError, api.OutcomeUnknown)) as caught:
            self.request(repeatable, retries)
        assert not self.replies, "one request too few"
        assert_no_secret(caught.value)
        error = caught.value
        assert isinstance(error, ProvisioningError | api.OutcomeUnknown)
        self.lost = isinstance(error, api.OutcomeUnknown)
        return error.error if isinstance(error, api.OutcomeUnknown) else error


OK = response(200, b"the body")
IN_5_SECONDS = format_datetime(NOW + timedelta(seconds=5), usegmt=True)
AN_HOUR_AGO = format_datetime(NOW - timedelta(hours=1), usegmt=True)


def test_what_is_sent() -> None:
    script = Script([OK])
    assert script.request() == b"the body"
    assert [json.loads(payload) for payload in script.sent] == [BODY]
    assert script.waits == []


# (what the platform does first, repeated where that is safe, repeated where it is not, the wait if it is fixed)
_RETRIES: list[tuple[Callable[[], Reply], bool, bool, float | None]] = [
    (not_sent, True, True, None),
    (lambda: unknown("timeout"), True, False, None),
    (lambda: unknown("unreachable"), True, False, None),
    (lambda: unknown("bad_response"), True, False, None),
    (lambda: response(429, Retry_After="7"), True, True, 7),
    (lambda: response(429, Retry_After=" 7 "), True, True, 7),
    (lambda: response(429, Retry_After="0"), True, True, 0),
    (lambda: response(429, Retry_After="60"), True, True, 60),
    (lambda: response(429, Retry_After="61"), False, False, None),
    (lambda: response(429, Retry_After=IN_5_SECONDS), True, True, 5),
    (lambda: response(429, Retry_After=AN_HOUR_AGO), True, True, 0),
    (lambda: response(429, Retry_After="soon"), False, False, None),
    (lambda: response(429, Retry_After="-5"), False, False, None),
    (lambda: response(429, Retry_After="1.5"), False, False, None),
    (lambda: response(429, Retry_After="9" * 30), False, False, None),
    (lambda: response(429, Retry_After="Sun, 22 Nov 2026 12:00:05 +99999999999999999"), False, False, None),
    (lambda: response(429, Retry_After="Sun, 99 Nov 2026 12:00:05 GMT"), False, False, None),
    (lambda: response(429, Retry_After="Sun, 22 Nov 2099 12:00:05 GMT"), False, False, None),
    (lambda: response(429), False, False, None),
    (lambda: response(503, Retry_After="7"), True, True, 7),
    (lambda: response(503, Retry_After=IN_5_SECONDS), True, True, 5),
    (lambda: response(503, Retry_After="3600"), False, False, None),
    (lambda: response(503), True, False, None),
    (lambda: response(500), True, False, None),
    (lambda: response(500, Retry_After="7"), True, False, 7),
    (lambda: response(502), True, False, None),
    (lambda: response(504), True, False, None),
    (lambda: response(599), True, False, None),
    (lambda: response(400), False, False, None),
    (lambda: response(401), False, False, None),
    (lambda: response(403, b"Device already registered"), False, False, None),
    (lambda: response(403, Retry_After="1"), False, False, None),
    (lambda: response(404), False, False, None),
    (lambda: response(408), False, False, None),
    (lambda: response(422), False, False, None),
    (lambda: response(201), False, False, None),
    (lambda: response(204), False, False, None),
    (lambda: response(302, Retry_After="1"), False, False, None),
    (lambda: ProvisioningError("tls", "No."), False, False, None),
]


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize(("first", "if_repeatable", "otherwise", "wait"), _RETRIES)
def test_which_requests_are_repeated(
    first: Callable[[], Reply], if_repeatable: bool, otherwise: bool, wait: float | None, repeatable: bool
) -> None:
    if if_repeatable if repeatable else otherwise:
        script = Script([first(), OK])
        assert script.request(repeatable) == b"the body"
        assert script.sent[0] == script.sent[1]
        assert len(script.waits) == 1
        if wait is not None:
            assert wait <= script.waits[0] <= api.MAX_WAIT
    else:
        script = Script([first()])
        script.fail(repeatable)
        assert script.waits == []


def test_waits_double_are_capped_and_drawn_at_random() -> None:
    script = Script([not_sent() for _try in range(10)])
    assert script.fail(retries=9).code == "unreachable"
    highest = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert script.drawn == [(high / 2, high) for high in highest]
    assert script.waits == [high * 0.625 for high in highest]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_last_error_is_what_remains(retries: int) -> None:
    script = Script([*(not_sent() for _try in range(retries)), response(503, Retry_After="1")])
    error = script.fail(retries=retries)
    assert (error.code, error.status) == ("server_error", 503)
    assert len(script.waits) == retries


@pytest.mark.parametrize(
    ("reply", "lost"),
    [
        (unknown, True),
        (lambda: response(500), True),
        (lambda: response(500, Retry_After="7"), True),
        (lambda: response(503), True),
        (lambda: response(201), True),
        (lambda: response(503, Retry_After="7"), False),
        (lambda: response(503, Retry_After="3600"), False),
        (lambda: response(429), False),
        (lambda: response(302), False),
        (lambda: response(307), False),
        (lambda: response(303), True),  # done, see there
        (lambda: response(502), True),
        (lambda: response(504), True),  # a gateway in between that did not wait for the platform
        (lambda: response(403, b"Device already registered"), False),
        (lambda: ProvisioningError("tls", "No."), False),
        (not_sent, False),
    ],
)
def test_whether_a_thing_may_have_been_created(reply: Callable[[], Reply], lost: bool) -> None:
    """Another request could create a second Thing that costs money: a person has to look first."""
    script = Script([reply()])
    script.fail(repeatable=False, retries=0)
    assert script.lost == script.may_have_arrived == lost
    assert script.kept == []
    again = Script([reply()])
    again.fail(repeatable=True, retries=0)
    assert not again.lost


def test_an_unexpected_exception_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        Script([ZeroDivisionError()]).request()


@pytest.mark.parametrize(
    ("replies", "may_have_arrived"),
    [
        ([response(429, Retry_After="1")], False),
        ([not_sent()], False),
        ([unknown()], True),
        ([unknown(), response(429, Retry_After="1")], False),
        ([unknown(), response(500)], True),
    ],
)
def test_an_interruption_between_two_tries(replies: list[Reply], may_have_arrived: bool) -> None:
    """The outcome of the last attempt counts."""
    script = Script(replies, interrupt=len(replies))
    with pytest.raises(KeyboardInterrupt):
        script.request(repeatable=True)
    assert script.may_have_arrived is may_have_arrived


def test_a_response_that_cannot_be_kept_is_not_requested_again() -> None:
    script = Script([OK], can_keep=False)
    assert script.fail(repeatable=True).code == "spool_failed"
    assert script.may_have_arrived


def test_the_representation_of_a_response_hides_it() -> None:
    assert_no_secret(OK, response(200), replace(ENDPOINT, proxy=f"http://user:{MQTT_PASSWORD}@proxy"))


# ---- what can be said before anything is sent ----


@pytest.mark.parametrize(
    "url",
    [
        "https://api.thingstream.io",
        "https://api.thingstream.io/",
        "https://api.thingstream.io:8443/prefix",
        "HTTPS://API.thingstream.io",
        "https://[2001:db8::1]:8443",
        "http://127.0.0.1:8000",
        "http://127.1.2.3",
        "http://[::1]:8000",
        "http://localhost:8000/prefix",
        "http://LOCALHOST",
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    assert api.request_problem(TOKEN, "gw1", url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.thingstream.io",
        "//api.thingstream.io",
        "https://",
        "https://:8443",
        "https:///path",
        "ftp://api.thingstream.io",
        "file:///etc/passwd",
        "http://api.thingstream.io",
        "HTTP://api.thingstream.io",
        "http://0.0.0.0",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "http://example.com\\@127.0.0.1",
        "http://[::2]",
        "http://2130706433",
        "https://user:secret@api.thingstream.io",
        "https://user@api.thingstream.io",
        "https://@api.thingstream.io",
        "https://api.thingstream.io?token=x",
        "https://api.thingstream.io/#x",
        "https://api.thingstream.io:99999",
        "https://api.thingstream.io:port",
        "https://[::1",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    problem = api.request_problem(TOKEN, "gw1", url)
    assert problem is not None
    assert (problem.code, "api_url" in problem.message) == ("bad_option", True)
    assert "secret" not in problem.message


@pytest.mark.parametrize(
    ("token", "given_name", "code"),
    [
        (TOKEN, "g", None),
        (TOKEN, "g" * 50, None),
        (TOKEN, "ü" * 50, None),
        ("anything-printable", "gw1", None),
        (None, "gw1", "token_invalid"),
        ("", "gw1", "token_invalid"),
        (f"{TOKEN}\n", "gw1", "token_invalid"),
        (f" {TOKEN}", "gw1", "token_invalid"),
        (f"{TOKEN[:8]} {TOKEN[8:]}", "gw1", "token_invalid"),
        (f"{TOKEN}\u200b", "gw1", "token_invalid"),
        (f"{TOKEN}\x00", "gw1", "token_invalid"),
        (TOKEN, "", "bad_option"),
        (TOKEN, "g" * 51, "bad_option"),
    ],
)
def test_a_request_is_checked_before_it_is_sent(token: str | None, given_name: str, code: str | None) -> None:
    problem = api.request_problem(token, given_name, api.DEFAULT_URL)
    assert (problem.code if problem else None) == code
    assert_no_secret(problem, also=(TOKEN[8:],))


@pytest.mark.parametrize("name", ["gw1", "ü" * 80, "a.very.long." * 10])
def test_the_given_name_is_one_that_the_platform_takes(name: str) -> None:
    given_name = api.default_given_name(name)
    assert name.startswith(given_name)
    assert api.request_problem(TOKEN, given_name, api.DEFAULT_URL) is None


# ---- post, against a real server ----


def test_a_post(pki: Pki, tls: ssl.SSLContext) -> None:
    with serving(answering("200 OK", SECRET_BODY, "X-Thing: yes"), tls=tls) as server:
        got = post(endpoint(server.port, pki))
    assert (got.status, got.body, got.headers["X-Thing"]) == (200, SECRET_BODY, "yes")
    head, _blank, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /ztp/pointperfect/credentials HTTP/1.1"
    headers = {line.split(":")[0].lower(): line.split(": ")[1] for line in lines[1:]}
    assert (headers["content-type"], headers["accept"]) == ("application/json", "application/json")
    assert "authorization" not in headers
    assert body == PAYLOAD
    assert TOKEN not in head.decode()


def test_a_netrc_is_not_used(pki: Pki, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(answering("200 OK"), tls=tls) as server:
        post(endpoint(server.port, pki))
    assert b"authorization" not in server.requests[0].lower()


def test_a_compressed_response(pki: Pki, tls: ssl.SSLContext) -> None:
    with serving(answering("200 OK", gzip.compress(SECRET_BODY), "Content-Encoding: gzip"), tls=tls) as server:
        assert post(endpoint(server.port, pki)).body == SECRET_BODY


@pytest.mark.parametrize("status", ["400 Bad", "403 Forbidden", "429 Slow down", "503 Down"])
def test_a_refusal_is_a_response(pki: Pki, tls: ssl.SSLContext, status: str) -> None:
    with serving(answering(status, b"why"), tls=tls) as server:
        got = post(endpoint(server.port, pki))
    assert (got.status, got.body) == (int(status[:3]), b"why")


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
def test_the_name_of_a_header_has_no_case(pki: Pki, tls: ssl.SSLContext, name: str) -> None:
    """Load balancers send lower-case names."""
    with serving(answering("429 Slow down", b"", f"{name}: 7"), answering("200 OK", b"body"), tls=tls) as server:
        waits: list[float] = []
        body = api.request(
            endpoint(server.port, pki),
            BODY,
            api.Sending(lambda _body: None),
            repeatable=False,
            post=api.post,
            sleep=waits.append,
            uniform=lambda low, high: low,
            now=lambda: NOW,
        )
    assert body == b"body"
    assert len(waits) == 1
    assert waits[0] >= 7


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_not_followed(pki: Pki, tls: ssl.SSLContext, status: str) -> None:
    with serving(answering("200 OK"), tls=tls) as other:
        target = f"Location: https://127.0.0.1:{other.port}/"
        with serving(answering(status, b"", target), tls=tls) as server:
            got = post(endpoint(server.port, pki))
    assert got.status == int(status[:3])
    assert (len(server.requests), other.requests) == (1, [])


# ---- connections that fail ----


def reset(connection: socket.socket, request: bytes = b"") -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang(connection: socket.socket, request: bytes) -> None:
    with suppress(OSError):
        while connection.recv(4096):  # until the other side gives up
            pass


def shout(connection: socket.socket, request: bytes) -> None:
    """Send an invalid TLS record in the middle of a TLS connection."""
    raw = socket.socket(fileno=socket.dup(connection.fileno()))
    with raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        hang(raw, b"")


def send(data: bytes, then: Behavior | None = None) -> Behavior:
    def behave(connection: socket.socket, request: bytes) -> None:
        connection.sendall(data)
        if then is not None:
            then(connection, request)

    return behave


def test_a_connection_that_is_refused(pki: Pki) -> None:
    kind, error = post_fails(endpoint(closed_port(), pki))
    assert (kind, error.code) == ("not_sent", "unreachable")


def test_a_name_that_does_not_resolve(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert post_fails(endpoint(1, pki, url="https://no.such.host.example/"))[0] == "not_sent"


@pytest.mark.parametrize("cut", [lambda connection, request: None, reset, hang], ids=["closed", "reset", "silent"])
def test_a_connection_that_is_cut_before_tls(pki: Pki, cut: Behavior) -> None:
    """Nothing was sent, and the error says so."""
    with serving(raw=cut) as server:
        _kind, error = post_fails(endpoint(server.port, pki, timeout=0.2))
    assert error.code in ("tls", "unreachable", "timeout")


def test_plain_http_where_tls_is_expected(pki: Pki) -> None:
    with serving(raw=send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        kind, error = post_fails(endpoint(server.port, pki))
    assert (kind, error.code) == ("error", "tls")


@pytest.mark.parametrize(
    ("behavior", "code"),
    [
        (lambda connection, request: None, "unreachable"),
        (reset, "unreachable"),
        (send(b"SSH-2.0-dropbear\r\n\r\n"), "unreachable"),
        (answering("200 OK", SECRET_BODY, length=len(SECRET_BODY) + 1), "bad_response"),
        (answering("200 OK", b"", length=10), "bad_response"),
        (answering("403 Forbidden", b"Device alrea", length=100), "bad_response"),
        (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), "bad_response"),
        (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + SECRET_BODY), "bad_response"),
        (answering("200 OK", b"no gzip " + SECRET_BODY, "Content-Encoding: gzip"), "bad_response"),
        (send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", reset), "bad_response unreachable"),
        (shout, "tls"),
        (send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", shout), "tls"),
    ],
    ids=[
        "closed",
        "reset",
        "no HTTP",
        "one byte short",
        "no body",
        "short refusal",
        "cut in a chunk",
        "bad chunk",
        "bad gzip",
        "reset in the body",
        "broken TLS",
        "broken TLS in the body",
    ],
)
def test_a_response_that_is_not_whole(pki: Pki, tls: ssl.SSLContext, behavior: Behavior, code: str) -> None:
    """The request went out: a Thing may have been created, and the caller has to know."""
    with serving(behavior, tls=tls) as server:
        kind, error = post_fails(endpoint(server.port, pki))
    assert kind == "unknown"
    assert error.code in code.split()
    assert len(server.requests) == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_response_that_is_cut_in_its_head(pki: Pki, tls: ssl.SSLContext, head: bytes) -> None:
    """The HTTP library takes it for a whole response without a body."""
    with serving(send(head), tls=tls) as server:
        kind, error = post_fails(endpoint(server.port, pki))
    assert (kind, error.code) == ("unknown", "bad_response")


@pytest.mark.parametrize("behavior", [hang, send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", hang)])
def test_a_response_that_does_not_come(pki: Pki, tls: ssl.SSLContext, behavior: Behavior) -> None:
    begin = time.monotonic()
    with serving(behavior, tls=tls) as server:
        kind, error = post_fails(endpoint(server.port, pki, timeout=0.1))
    assert (kind, error.code) == ("unknown", "timeout")
    assert "0.1 seconds" in error.message
    assert time.monotonic() - begin < 2


def drip(data: bytes) -> Behavior:
    """Send a byte at a time, for longer than any run should wait."""

    def behave(connection: socket.socket, request: bytes) -> None:
        with suppress(OSError):
            connection.sendall(data)
            for _byte in range(60):
                connection.sendall(b"x")
                time.sleep(0.05)

    return behave


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nX-Endless: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_response_that_drips(pki: Pki, tls: ssl.SSLContext, data: bytes) -> None:
    """Each read is quick, all of them together would take days."""
    begin = time.monotonic()
    with serving(drip(data), tls=tls) as server:
        kind, error = post_fails(endpoint(server.port, pki, timeout=0.2))
        took = time.monotonic() - begin
    assert took < 2
    assert (kind, error.code) == ("unknown", "timeout")


@pytest.mark.parametrize(
    "behavior",
    [
        answering("200 OK", b"x" * (api.MAX_RESPONSE + 1)),
        answering("200 OK", gzip.compress(b"x" * (20 * api.MAX_RESPONSE)), "Content-Encoding: gzip"),
        send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * api.MAX_RESPONSE)),
    ],
    ids=["announced", "compressed", "endless"],
)
def test_a_huge_response(pki: Pki, tls: ssl.SSLContext, behavior: Behavior) -> None:
    with serving(behavior, tls=tls) as server:
        kind, error = post_fails(endpoint(server.port, pki))
    assert (kind, error.code, "256 KiB" in error.message) == ("unknown", "bad_response", True)


def test_the_largest_response(pki: Pki, tls: ssl.SSLContext) -> None:
    with serving(answering("200 OK", b"x" * api.MAX_RESPONSE), tls=tls) as server:
        assert len(post(endpoint(server.port, pki)).body) == api.MAX_RESPONSE


# ---- interrupted ----


class TaskTimeout(BaseException):
    """An interruption as Ansible raises it in the middle of a task; no ``Exception``."""


def interrupt() -> None:
    """Interrupt the main thread, from any thread."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)


@pytest.fixture
def timeouts() -> Iterator[None]:
    """Each ``interrupt`` raises ``TaskTimeout``."""

    def expire(_number: int, _frame: object) -> NoReturn:
        raise TaskTimeout

    before = signal.signal(signal.SIGALRM, expire)
    yield
    signal.signal(signal.SIGALRM, before)


def in_two_parts(between: Callable[[], object], pause: float = 0.3) -> Behavior:
    """Send half of a response, do something, and send the other half after a pause."""

    def behave(connection: socket.socket, request: bytes) -> None:
        length = len(SECRET_BODY)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + SECRET_BODY[:9])
        between()
        time.sleep(pause)
        with suppress(OSError):
            connection.sendall(SECRET_BODY[9:])

    return behave


@dataclass
class Interrupted:
    """A request that is interrupted: what is kept, what is known of it, and how long it took."""

    kept: list[bytes] = field(default_factory=list)
    may_have_arrived: bool = False
    seconds: float = 0

    def keep(self, body: bytes) -> None:
        self.kept.append(body)

    def post(self, where: api.Endpoint) -> None:
        sending, begin = api.Sending(self.keep), time.monotonic()
        with pytest.raises(TaskTimeout):
            api.post(where, PAYLOAD, sending)
        self.may_have_arrived, self.seconds = sending.may_have_arrived, time.monotonic() - begin


@pytest.mark.usefixtures("timeouts")
def test_a_response_that_arrives_after_an_interruption_is_kept(pki: Pki, tls: ssl.SSLContext) -> None:
    run = Interrupted()
    with serving(in_two_parts(interrupt), tls=tls) as server:
        run.post(endpoint(server.port, pki))
    assert run.kept == [SECRET_BODY]
    assert run.may_have_arrived


def test_the_end_of_a_body_can_be_read_after_the_interruption() -> None:
    """The platform may respond before the HTTP library has seen that nothing is left to send."""
    body = transport._Payload(PAYLOAD)
    assert body.read(65536) == PAYLOAD
    assert body.withhold()
    assert body.read(65536) == b""
    body = transport._Payload(PAYLOAD)
    assert not body.withhold()
    with pytest.raises(TimeoutError):
        body.read(65536)
    assert not body.withhold()


@pytest.mark.usefixtures("timeouts")
def test_an_interruption_while_the_response_is_kept(pki: Pki, tls: ssl.SSLContext) -> None:
    """A slow disk."""

    class Slow(Interrupted):
        def keep(self, body: bytes) -> None:
            interrupt()
            time.sleep(0.3)
            super().keep(body)

    run = Slow()
    with serving(answering("200 OK", SECRET_BODY), tls=tls) as server:
        run.post(endpoint(server.port, pki))
    assert run.kept == [SECRET_BODY]


@pytest.mark.usefixtures("timeouts")
def test_a_second_interruption_does_not_wait(pki: Pki, tls: ssl.SSLContext) -> None:
    """The outcome is pessimistic then: the request may have arrived."""

    def interrupt_twice() -> None:
        interrupt()
        time.sleep(0.3)
        interrupt()

    run = Interrupted()
    with serving(in_two_parts(interrupt_twice, pause=2), tls=tls) as server:
        run.post(endpoint(server.port, pki))
        assert (run.kept, run.may_have_arrived) == ([], True)
    assert run.seconds < 2


@pytest.mark.usefixtures("timeouts")
def test_an_interruption_without_a_response_ends_after_a_grace_period(
    pki: Pki, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "GRACE_SECONDS", 0.3)
    run = Interrupted()
    with serving(in_two_parts(interrupt, pause=2), tls=tls) as server:
        run.post(endpoint(server.port, pki))
    assert 0.3 <= run.seconds < 2
    assert (run.kept, run.may_have_arrived) == ([], True)


@pytest.mark.usefixtures("timeouts")
def test_an_interruption_before_anything_was_sent(pki: Pki) -> None:
    """The TLS handshake does not come about; nothing is sent after that either, and there is nothing to wait for."""
    received: list[bytes] = []

    def silent(connection: socket.socket, _request: bytes) -> None:
        received.append(connection.recv(65536))
        interrupt()
        time.sleep(1)

    run = Interrupted()
    with serving(raw=silent) as server:
        run.post(endpoint(server.port, pki))
        assert run.seconds < 1
    assert not run.may_have_arrived
    assert TOKEN.encode() not in b"".join(received)


def test_an_interruption_before_the_connection(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: object) -> NoReturn:
        raise TaskTimeout

    monkeypatch.setattr(threading.Thread, "start", fail)
    sending = api.Sending(lambda _body: None)
    with pytest.raises(TaskTimeout):
        api.post(endpoint(1, pki), PAYLOAD, sending)
    assert not sending.may_have_arrived


def test_a_response_that_arrives_when_the_time_is_over_is_not_kept(pki: Pki, tls: ssl.SSLContext) -> None:
    """The run has given up its space in the spool, and may have sent another request."""
    kept: list[bytes] = []
    is_sent = threading.Event()

    def drip_to_the_end(connection: socket.socket, request: bytes) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(SECRET_BODY)}\r\n\r\n".encode())
        for number in range(len(SECRET_BODY)):
            time.sleep(2 / len(SECRET_BODY))
            connection.sendall(SECRET_BODY[number : number + 1])
        is_sent.set()

    sending = api.Sending(kept.append)
    with serving(drip_to_the_end, tls=tls) as server:
        with pytest.raises(api.OutcomeUnknown) as caught:
            api.post(endpoint(server.port, pki, timeout=0.5), PAYLOAD, sending)
        assert is_sent.wait(10)
        time.sleep(0.3)
    assert caught.value.error.code == "timeout"
    assert (kept, sending.may_have_arrived) == ([], True)


def die(number: int, _frame: object) -> NoReturn:
    os._exit(100 + number)


@pytest.mark.parametrize(
    ("number", "handler"),
    [
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGTERM, die),
        (signal.SIGINT, signal.SIG_DFL),
        (signal.SIGINT, die),
        (signal.SIGINT, signal.default_int_handler),
    ],
)
def test_a_signal_loses_no_response(
    pki: Pki, tls: ssl.SSLContext, tmp_path: Path, number: signal.Signals, handler: Any
) -> None:
    """By default, and in the worker processes of Ansible, both signals end the process at once."""
    process, is_forked = 0, threading.Event()

    def kill() -> None:
        assert is_forked.wait(10)
        os.kill(process, number)

    def keep(body: bytes) -> None:
        (tmp_path / "kept").write_bytes(body)

    with serving(in_two_parts(kill), tls=tls) as server:
        where = endpoint(server.port, pki)
        process = os.fork()
        if process == 0:
            signal.signal(number, handler)
            status = 1
            try:
                api.post(where, PAYLOAD, api.Sending(keep))
            except KeyboardInterrupt:
                status = 42
            except SystemExit as problem:
                status = 42 if problem.code == 128 + number else 2
            finally:
                os._exit(status if signal.getsignal(number) == handler else 3)
        is_forked.set()
        _process, result = os.waitpid(process, 0)
    assert (os.WIFEXITED(result), os.WEXITSTATUS(result)) == (True, 42)
    assert (tmp_path / "kept").read_bytes() == SECRET_BODY


def terminate() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored(pki: Pki, tls: ssl.SSLContext) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with serving(in_two_parts(terminate), tls=tls) as server:
            assert post(endpoint(server.port, pki)).body == SECRET_BODY
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_request_from_another_thread(pki: Pki, tls: ssl.SSLContext) -> None:
    """Only the main thread may set signal handlers."""
    with serving(answering("200 OK", SECRET_BODY), tls=tls) as server, ThreadPoolExecutor(1) as threads:
        assert threads.submit(post, endpoint(server.port, pki)).result().body == SECRET_BODY


@pytest.mark.parametrize("url", ["https://", "https://[::1", "https://host:port/", "https://\x00/"])
def test_a_url_that_cannot_be_used(pki: Pki, url: str) -> None:
    kind, error = post_fails(endpoint(1, pki, url=url))
    assert (kind, error.code) == ("error", "bad_option")


# ---- without TLS, on loopback ----


def test_plain_http_works_for_a_simulator(pki: Pki) -> None:
    with serving(answering("200 OK", SECRET_BODY)) as server:
        where = api.Endpoint(f"http://127.0.0.1:{server.port}/ztp", timeout=3)
        assert post(where).body == SECRET_BODY

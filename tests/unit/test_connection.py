# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to servers: addresses, deadlines, TLS and trust."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.credentials import Credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import VerifySettings, verify
from ansible_collections.thingstream.ztp.tests.unit.servers import (
    STREAM,
    Pki,
    closed_port,
    fails,
    hang,
    leave,
    reset,
    send,
    trickle,
    with_caster,
    with_pair,
)
from ansible_collections.thingstream.ztp.tests.unit.support import Behavior, Pair, serving


def test_a_closed_port(thing: Pair, settings: VerifySettings) -> None:
    for credentials in (with_pair(thing, closed_port()), with_caster(closed_port()), with_caster(closed_port(), True)):
        error = fails(credentials, settings)
        port = credentials.port or credentials.ntrip_tls_port or credentials.ntrip_port
        assert (error.code, f"127.0.0.1:{port}" in error.message) == ("unreachable", True)


def test_an_ipv6_address_is_separated_from_its_port(thing: Pair, settings: VerifySettings) -> None:
    error = fails(with_pair(thing, closed_port(), host="[::1]"), settings)
    assert (error.code, " [::1]:" in error.message) == ("unreachable", True)


def test_a_name_that_does_not_resolve(thing: Pair, settings: VerifySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for credentials in (with_pair(thing, 8883, host="no.such.example"), with_caster(2101, host="no.such.example")):
        error = fails(credentials, settings)
        assert (error.code, "no.such.example:" in error.message) == ("unreachable", True)
        assert "cannot be resolved" in error.message


def test_addresses_share_the_time(thing: Pair, settings: VerifySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def addresses(*_arguments: object, **_options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{last}", 8883)) for last in (1, 2, 3, 4)]

    def swallow(address: tuple[str, int], timeout: float) -> None:
        tried.append(address)
        time.sleep(timeout)
        raise TimeoutError

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    monkeypatch.setattr(socket, "create_connection", swallow)
    begin = time.monotonic()
    error = fails(with_pair(thing, 8883, host="broker.example"), replace(settings, timeout=0.4))
    assert (error.code, "firewall" in error.message) == ("timeout", True)
    assert 0.3 < time.monotonic() - begin < 1
    assert tried == [(f"192.0.2.{last}", 8883) for last in (1, 2, 3, 4)]


def test_the_next_address_is_tried(settings: VerifySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def addresses(host: str, *arguments: Any, **options: Any) -> list[Any]:
        hosts = ("127.0.0.77", "127.0.0.1") if host == "caster.example" else (host,)
        return [found for host in hosts for found in real(host, *arguments, **options)]

    with serving(STREAM) as server:
        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        assert verify(with_caster(server.port, host="caster.example"), settings)


def both(thing: Pair) -> tuple[Callable[[int], Credentials], ...]:
    """Return two functions from a port to credentials: for a broker, and for a caster."""
    return (lambda port: with_pair(thing, port), lambda port: with_caster(port, tls=True))


@pytest.mark.parametrize("silent", [hang, trickle(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xf0")], ids=["silent", "slow"])
def test_a_slow_tls_handshake(thing: Pair, settings: VerifySettings, silent: Behavior) -> None:
    for credentials in both(thing):
        begin = time.monotonic()
        with serving(raw=silent) as server:
            error = fails(credentials(server.port), replace(settings, timeout=0.2))
            assert time.monotonic() - begin < 1
        assert (error.code, "TLS handshake within 0.2 seconds" in error.message) == ("timeout", True)


@pytest.mark.parametrize("behavior", [leave, reset, send(b"HTTP/1.1 400 Bad Request\r\n\r\n")])
def test_a_server_without_tls(thing: Pair, settings: VerifySettings, behavior: Behavior) -> None:
    for credentials in both(thing):
        with serving(raw=behavior) as server:
            # a reset may be faster than the connection
            codes = ("tls", "unreachable") if behavior is reset else ("tls",)
            assert fails(credentials(server.port), settings).code in codes


def test_a_server_that_is_not_trusted(pki: Pki, thing: Pair, settings: VerifySettings) -> None:
    (pki.directory / "stranger.pem").write_text(pki.stranger.certificate)
    other = replace(settings, broker_ca=pki.stranger.certificate, caster_ca_path=str(pki.directory / "stranger.pem"))
    right, wrong_name = pki.server(), pki.server("broker.example")
    for tls, used in ((right, other), (wrong_name, settings)):
        for credentials in both(thing):
            with serving(STREAM, tls=tls) as server:
                error = fails(credentials(server.port), used)
            assert error.code == "tls"
            assert f"127.0.0.1:{server.port}" in error.message
            assert server.requests == []


@pytest.mark.parametrize("text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_ca_that_cannot_be_used(thing: Pair, settings: VerifySettings, tmp_path: Path, text: str) -> None:
    """No other CA takes its place."""
    error = fails(with_pair(thing, 8883), replace(settings, broker_ca=text))
    assert (error.code, "broker_ca_path" in error.message) == ("bad_option", True)
    (tmp_path / "ca.pem").write_text(text)
    for path in (str(tmp_path / "ca.pem"), str(tmp_path / "missing"), str(tmp_path), ""):
        assert fails(with_caster(2102, tls=True), replace(settings, caster_ca_path=path)).code == "bad_option"

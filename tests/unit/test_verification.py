# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers a verification logs in to."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import (
    Verification,
    VerifySettings,
    verify,
)
from ansible_collections.thingstream.ztp.tests.unit.servers import (
    CONNACK,
    Pki,
    broker,
    closed_port,
    fails,
    with_pair,
    with_password,
)
from ansible_collections.thingstream.ztp.tests.unit.support import Pair, answering, assert_no_secret, rtcm, serving


def test_nothing_to_connect_to(ec_pair: Pair, settings: VerifySettings) -> None:
    password = replace(with_password(1), delivery=("lband",))
    nowhere = replace(with_pair(ec_pair, 1), delivery=("lband",), host=None, port=None)
    for credentials in (password, nowhere):
        error = fails(credentials, settings)
        assert (error.code, "nothing to connect to" in error.message) == ("bad_option", True)


def test_a_plan_with_lband_alone(pki: Pki, thing: Pair, settings: VerifySettings) -> None:
    with serving(raw=broker(pki.server(mutual=True))) as server:
        credentials = with_pair(thing, server.port, supportsMqtt=False)
        assert credentials.delivery == ("lband",)
        assert [verification.delivery for verification in verify(credentials, settings)] == ["mqtt"]
    with serving(answering("200 OK")) as caster:
        block = rtcm(endpoint="127.0.0.1", httpPort=caster.port)
        credentials = with_pair(thing, closed_port(), supportsMqtt=False, **block)
        assert [verification.delivery for verification in verify(credentials, settings)] == ["ntrip"]


def test_each_delivery_has_its_own_deadline(pki: Pki, thing: Pair, settings: VerifySettings) -> None:
    def late(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.4)
        connection.sendall(CONNACK + b"\0")

    def late_too(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.4)
        connection.sendall(b"ICY 200 OK\r\n\r\n")

    with serving(raw=broker(pki.server(mutual=True), late)) as mqtt, serving(late_too) as ntrip:
        block = rtcm(endpoint="localhost", httpPort=ntrip.port)
        verifications = verify(with_pair(thing, mqtt.port, **block), replace(settings, timeout=0.75))
    assert verifications == [
        Verification("mqtt", "127.0.0.1", mqtt.port, tls=True, data=False),
        Verification("ntrip", "localhost", ntrip.port, tls=False, data=False),
    ]


def test_the_first_failure_ends_the_verification(thing: Pair, settings: VerifySettings) -> None:
    with serving(answering("200 OK")) as ntrip:
        block = rtcm(endpoint="127.0.0.1", httpPort=ntrip.port)
        assert fails(with_pair(thing, closed_port(), **block), settings).code == "unreachable"
    assert ntrip.requests == []


def test_representations_hold_no_secret(thing: Pair, settings: VerifySettings) -> None:
    assert_no_secret(
        settings, Verification("mqtt", "h", 1, True, False), with_pair(thing, 1), also=(thing.secret_line,)
    )

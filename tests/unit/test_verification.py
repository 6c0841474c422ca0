# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers a verification logs in to."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import (
    Verification,
    VerifySettings,
    verify,
    verify_in_use,
)
from ansible_collections.thingstream.ztp.tests.unit.servers import (
    CONNACK,
    STREAM,
    Pki,
    broker,
    closed_port,
    fails,
    send,
    with_caster,
    with_pair,
    with_password,
)
from ansible_collections.thingstream.ztp.tests.unit.support import (
    Behavior,
    Pair,
    answering,
    assert_no_secret,
    rtcm,
    serving,
)


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
    with serving(STREAM) as caster:
        block = rtcm(endpoint="127.0.0.1", httpPort=caster.port)
        credentials = with_pair(thing, closed_port(), supportsMqtt=False, **block)
        assert [verification.delivery for verification in verify(credentials, settings)] == ["ntrip"]


def test_each_delivery_has_its_own_deadline(pki: Pki, thing: Pair, settings: VerifySettings) -> None:
    def late(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.4)
        connection.sendall(CONNACK + b"\0")

    def late_too(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.4)
        STREAM(connection, request)

    with serving(raw=broker(pki.server(mutual=True), late)) as mqtt, serving(late_too) as ntrip:
        block = rtcm(endpoint="localhost", httpPort=ntrip.port)
        verifications = verify(with_pair(thing, mqtt.port, **block), replace(settings, timeout=0.75))
    assert [(found.delivery, found.host, found.port, found.tls, found.data) for found in verifications] == [
        ("mqtt", "127.0.0.1", mqtt.port, True, False),
        ("ntrip", "localhost", ntrip.port, False, True),
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


# ---- credentials in use ----


def refusing(status: str) -> Behavior:
    return answering(status, b"", "WWW-Authenticate: Basic")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "409 Conflict"])
def test_a_refusal_of_a_login_in_use_is_ambiguous(settings: VerifySettings, status: str) -> None:
    with serving(refusing(status)) as caster:
        credentials = with_caster(caster.port)
        for interrupt in (False, True):
            unknown = verify_in_use(credentials, settings, interrupt=interrupt)
            assert unknown is not None
            assert "it is in use" in unknown
            assert_no_secret(unknown)
        assert fails(credentials, replace(settings, in_use=True)).code == "refused_or_in_use"


@pytest.mark.parametrize(("status", "code"), [("404 Not Found", "refused"), ("503 Busy", "server_error")])
def test_other_problems_of_credentials_in_use_are_errors(settings: VerifySettings, status: str, code: str) -> None:
    with serving(answering(status)) as caster, pytest.raises(ProvisioningError) as caught:
        verify_in_use(with_caster(caster.port), settings, interrupt=True)
    assert caught.value.code == code


def test_an_accepted_login_in_use(settings: VerifySettings) -> None:
    with serving(STREAM) as caster:
        assert verify_in_use(with_caster(caster.port), settings, interrupt=False) is None


def test_a_consumer_is_disconnected_only_if_that_is_allowed(pki: Pki, thing: Pair, settings: VerifySettings) -> None:
    connections: list[bytes] = []

    def accept(connection: socket.socket, request: bytes) -> None:
        connections.append(request)
        connection.sendall(CONNACK + b"\0")

    with serving(raw=broker(pki.server(mutual=True), accept)) as server:
        credentials = with_pair(thing, server.port)
        unknown = verify_in_use(credentials, settings, interrupt=False)
        assert unknown is not None
        assert "verify.interrupt" in unknown
        assert connections == []
        assert verify_in_use(credentials, settings, interrupt=True) is None
        assert len(connections) == 1


def test_a_broker_refuses_beyond_doubt(pki: Pki, thing: Pair, settings: VerifySettings) -> None:
    with (
        serving(raw=broker(pki.server(mutual=True), send(CONNACK + b"\5"))) as server,
        pytest.raises(ProvisioningError) as caught,
    ):
        verify_in_use(with_pair(thing, server.port), settings, interrupt=True)
    assert caught.value.code == "credentials_refused"


def test_nothing_to_connect_to_in_use(settings: VerifySettings) -> None:
    with pytest.raises(ProvisioningError) as caught:
        verify_in_use(replace(with_password(1), delivery=("lband",)), settings, interrupt=False)
    assert caught.value.code == "bad_option"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller connects to allowed hosts only, where a gateway names the host."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.hosts import DEFAULT_HOSTS, AllowedHosts
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import VerifySettings, verify
from ansible_collections.thingstream.ztp.tests.unit.servers import STREAM, fails, with_caster, with_pair, with_password
from ansible_collections.thingstream.ztp.tests.unit.support import Pair, serving

PUBLIC = "8.8.8.8"
INTERNAL = [
    "127.0.0.1",
    "127.99.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
]


def allows(entries: Sequence[str], host: str, address: str | None = None) -> bool:
    allowed = AllowedHosts.parse(entries)
    try:
        allowed.check_host(host)
        if address is not None:
            allowed.check_address(host, address)
    except ProvisioningError as error:
        return error.code != "host_not_allowed"
    return True


@pytest.mark.parametrize(
    "host",
    [
        "ppntrip.services.u-blox.com",
        "pp.services.u-blox.com",
        "mqtt.thingstream.io",
        "MQTT.Thingstream.IO",
        "u-blox.com.",
    ],
)
def test_the_hosts_of_the_platform_are_allowed_by_default(host: str) -> None:
    assert allows(DEFAULT_HOSTS, host, PUBLIC)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "example.com",
        "evilu-blox.com",
        "u-blox.com.example.com",
        "thingstream.io@example.com",
        "example.com#.thingstream.io",
        "example.com/.thingstream.io",
        "example.com\0.thingstream.io",
        "\uff54hingstream.io",
        ".thingstream.io",
        "a..thingstream.io",
        "",
        "2130706433",
        "0x7f000001",
        "127.1",
        "0177.0.0.1",
        PUBLIC,
        "2606:4700::1",
        *INTERNAL,
    ],
)
def test_other_hosts_are_not(host: str) -> None:
    assert not allows(DEFAULT_HOSTS, host)


@pytest.mark.parametrize("address", INTERNAL)
def test_a_name_must_not_lead_into_the_network_of_the_controller(address: str) -> None:
    assert not allows(DEFAULT_HOSTS, "mqtt.thingstream.io", address)


@pytest.mark.parametrize(
    ("entries", "host", "address", "allowed"),
    [
        (["caster.example"], "caster.example", PUBLIC, True),
        (["caster.example"], "a.caster.example", PUBLIC, True),
        (["*.caster.example"], "a.caster.example", PUBLIC, True),
        (["Caster.Example."], "caster.example", PUBLIC, True),
        (["caster.example"], "caster.example", "10.1.2.3", False),
        (["caster.example", "10.0.0.0/8"], "caster.example", "10.1.2.3", True),
        (["caster.example", "10.0.0.0/8"], "caster.example", "::ffff:10.1.2.3", True),
        (["caster.example", "10.0.0.0/8"], "caster.example", "11.1.2.3", True),
        (["10.1.2.3/8"], "10.9.9.9", None, True),
        (["10.1.2.3"], "10.9.9.9", None, False),
        ([PUBLIC], PUBLIC, PUBLIC, True),
        (["fd00::/8"], "fd00::7", "fd00::7", True),
        (["::1"], "127.0.0.1", None, False),
        (["0.0.0.0/0", "::/0"], "::1", "::1", True),
        ([], "mqtt.thingstream.io", None, False),
    ],
)
def test_entries(entries: list[str], host: str, address: str | None, allowed: bool) -> None:
    assert allows(entries, host, address) is allowed


@pytest.mark.parametrize(
    "entry", ["", "a b", "https://u-blox.com", "u-blox.com:2101", "10.0.0.0/99", "*", "a..b", "\u00fc"]
)
def test_an_entry_that_is_none(entry: str) -> None:
    with pytest.raises(ProvisioningError) as caught:
        AllowedHosts.parse(["u-blox.com", entry])
    assert caught.value.code == "bad_option"
    assert repr(entry) in caught.value.message


@pytest.fixture
def limited(settings: VerifySettings) -> VerifySettings:
    return replace(settings, allowed_hosts=AllowedHosts.parse(DEFAULT_HOSTS))


def test_no_connection_is_made_to_another_host(thing: Pair, limited: VerifySettings) -> None:
    with serving(STREAM) as server:
        for credentials in (
            with_caster(server.port),
            with_caster(server.port, tls=True),
            with_caster(server.port, host="localhost"),
            with_pair(thing, server.port),
            with_password(server.port),
        ):
            assert fails(credentials, limited).code == "host_not_allowed"
    assert server.requests == []


def test_another_host_is_not_even_resolved(limited: VerifySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("a name is resolved")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for host in (PUBLIC, "caster.example"):
        assert fails(with_caster(2101, host=host), limited).code == "host_not_allowed"


def test_no_connection_is_made_to_an_internal_address(limited: VerifySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to the first one if another one is public, and what was checked is what is used."""
    names: list[str] = []

    def resolve(host: str, port: int, **_options: Any) -> list[Any]:
        names.append(host)
        return [(socket.AF_INET, 1, 6, "", (address, port)) for address in (PUBLIC, "127.0.0.1")]

    def connect(*_arguments: Any) -> None:
        raise AssertionError("a connection is made")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    error = fails(with_caster(2101, host="ppntrip.services.u-blox.com"), limited)
    assert (error.code, names) == ("host_not_allowed", ["ppntrip.services.u-blox.com"])
    assert "127.0.0.1" in error.message


def test_an_allowed_host(settings: VerifySettings) -> None:
    with serving(STREAM) as server:
        for host, entries in (("127.0.0.1", ["127.0.0.0/8"]), ("localhost", ["localhost", "127.0.0.1", "::1"])):
            allowed = replace(settings, allowed_hosts=AllowedHosts.parse(entries))
            assert verify(with_caster(server.port, host=host), allowed)[0].data


def test_credentials_of_the_platform_may_name_any_host(settings: VerifySettings) -> None:
    assert settings.allowed_hosts is None
    with serving(STREAM) as server:
        assert verify(with_caster(server.port), settings)[0].data

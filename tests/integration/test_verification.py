# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials of the simulator against a real mosquitto: accepted, refused, and everything that is in between."""

from __future__ import annotations

import functools
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.credentials import Credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify import connection, mqtt
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import (
    Verification,
    VerifySettings,
    verify,
)
from ansible_collections.thingstream.ztp.tests.unit.support import Pair, assert_no_secret, make_pair, parse
from cryptography.hazmat.primitives.asymmetric import ec
from integration.broker import PLAIN, PROGRAMS, Broker, running_broker, simulate
from simulator import pki
from simulator.client import RunningSimulator

MUTUAL = "require_certificate true\nuse_identity_as_username true\n"


Start = Callable[..., AbstractContextManager[Broker]]


@pytest.fixture
def start(simulator: RunningSimulator, tmp_path: Path) -> Start:
    """Return a function that runs a mosquitto with a certificate of the simulator's CA, also that of the Things."""
    return functools.partial(running_broker, simulator, tmp_path)


@pytest.fixture
def settings(simulator: RunningSimulator) -> VerifySettings:
    authority = simulator.ca_path.read_text()
    return VerifySettings(timeout=5, position=None, broker_ca=authority, caster_ca_path=str(simulator.ca_path))


def credentials_of(
    simulator: RunningSimulator, port: int, name: str, service: str = "pointperfect", host: str = "127.0.0.1"
) -> Credentials:
    """Return the credentials that a run would get from the platform, with a broker on this machine."""
    token = simulator.put_profile(
        f"verify-{name}", service=service, simulator={"host": host, "port": port}, plan="mqtt"
    )
    response: dict[str, Any] = simulator.post(token, service, hardwareId=f"verify-{name}").json()
    return replace(parse(response, service, now=datetime.now(timezone.utc)), port=port)


def fails(credentials: Credentials, settings: VerifySettings) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        verify(credentials, settings)
    secrets = (credentials.username, credentials.password, (credentials.private_key or "").splitlines()[1:2])
    assert_no_secret(caught.value, also=tuple(str(secret) for secret in secrets if secret))
    assert f"{credentials.host}:{credentials.port}" in caught.value.message
    return caught.value


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.TLSVersion]:
    """Each version of TLS in turn. It is the client that is bound to one: mosquitto only knows a lowest version."""
    tls_context, connect = connection.tls_context, connection.open_connection
    negotiated: set[str | None] = set()

    def bound(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = tls_context(*arguments, **options)
        context.minimum_version = context.maximum_version = request.param
        return context

    def watched(*arguments: Any) -> socket.socket:
        connection = connect(*arguments)
        negotiated.add(connection.version() if isinstance(connection, ssl.SSLSocket) else None)
        return connection

    monkeypatch.setattr(mqtt, "tls_context", bound)
    monkeypatch.setattr(mqtt, "open_connection", watched)
    yield request.param
    assert negotiated <= {request.param.name.replace("_", ".")}


def test_a_certificate_is_accepted(
    simulator: RunningSimulator, start: Start, settings: VerifySettings, version: ssl.TLSVersion
) -> None:
    with start(MUTUAL) as broker:
        credentials = credentials_of(simulator, broker.port, "accepted")
        assert verify(credentials, settings) == [Verification("mqtt", "127.0.0.1", broker.port, tls=True)]
        assert broker.log(f"as {credentials.client_id} (p2, c1, k30, u'{credentials.client_id}')")
        assert broker.log(f"Client {credentials.client_id} disconnected.")  # politely, that is


def test_a_certificate_of_a_foreign_ca_is_refused(
    simulator: RunningSimulator, start: Start, settings: VerifySettings, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A CA with another name, and one that has taken the name of the right one."""
    stranger = _valid_today("stranger")
    (tmp_path / "impostor").mkdir()
    pki.create_authority(tmp_path / "impostor")
    key = pki.new_key_pair()
    forged, _serial = pki.issue(
        pki.load_authority(tmp_path / "impostor"), "forged", key.public_key, time.time(), days=1
    )
    with start(MUTUAL) as broker:
        right = credentials_of(simulator, broker.port, "foreign")
        for certificate, private_key in (
            (stranger.certificate, stranger.private_key),
            (forged, key.private_key),
        ):
            error = fails(replace(right, certificate=certificate, private_key=private_key), settings)
            assert (error.code, "certificate" in error.message) == ("credentials_refused", True)
        assert verify(right, settings)


def test_a_revoked_certificate_is_refused(
    simulator: RunningSimulator, start: Start, settings: VerifySettings, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    revoked, valid = (credentials_of(simulator, 8883, f"{version.name}-{name}") for name in ("revoked", "valid"))
    simulator.deactivate(str(revoked.client_id).removeprefix("device:"))
    simulate("crl", simulator.directory, tmp_path / "crl.pem")
    with start(f"{MUTUAL}crlfile {tmp_path / 'crl.pem'}\n") as broker:
        error = fails(replace(revoked, port=broker.port), settings)
        assert (error.code, "REVOKED" in error.message) == ("credentials_refused", True)
        assert verify(replace(valid, port=broker.port), settings)


def test_a_broker_that_wants_a_certificate_where_there_is_none(
    simulator: RunningSimulator, start: Start, settings: VerifySettings, version: ssl.TLSVersion
) -> None:
    """Only TLS 1.3 has a word for that."""
    with start(MUTUAL) as broker:
        error = fails(credentials_of(simulator, broker.port, "bare", "cloudlocate"), settings)
    assert error.code == ("credentials_refused" if version is ssl.TLSVersion.TLSv1_3 else "tls")


@pytest.fixture
def password_file(tmp_path: Path) -> Callable[[Credentials], str]:
    """The options of a broker that knows one user."""
    program = shutil.which("mosquitto_passwd", path=PROGRAMS)
    if program is None:
        pytest.skip("mosquitto_passwd is not installed")

    def write(credentials: Credentials) -> str:
        path = tmp_path / "passwords"
        path.write_text(f"{credentials.username}:{credentials.password}\n")
        subprocess.run([program, "-U", str(path)], check=True, capture_output=True)
        return f"allow_anonymous false\npassword_file {path}\n"

    return write


def test_a_password(
    simulator: RunningSimulator, start: Start, settings: VerifySettings, password_file: Callable[[Credentials], str]
) -> None:
    credentials = credentials_of(simulator, 8883, "password", "cloudlocate")
    with start(password_file(credentials)) as broker:
        right = replace(credentials, port=broker.port)
        assert verify(right, settings) == [Verification("mqtt", "127.0.0.1", broker.port, tls=True)]
        for wrong in (replace(right, password="wrong"), replace(right, username="nobody")):
            assert fails(wrong, settings).code == "credentials_refused"


def test_a_password_without_tls(
    simulator: RunningSimulator,
    start: Start,
    settings: VerifySettings,
    password_file: Callable[[Credentials], str],
) -> None:
    try:
        socket.create_server(PLAIN).close()
    except OSError as reason:
        pytest.skip(f"port 1883, the only one without TLS, is taken: {reason}")
    credentials = credentials_of(simulator, PLAIN[1], "plain", "cloudlocate", host=PLAIN[0])
    with start(password_file(credentials), PLAIN):
        assert verify(credentials, settings) == [Verification("mqtt", *PLAIN, tls=False)]
        assert fails(replace(credentials, password="wrong"), settings).code == "credentials_refused"


def test_a_broker_that_is_not_trusted(simulator: RunningSimulator, start: Start, settings: VerifySettings) -> None:
    stranger = _valid_today("stranger", authority=True)
    with start(MUTUAL) as broker:
        credentials = credentials_of(simulator, broker.port, "untrusted")
        error = fails(credentials, replace(settings, broker_ca=stranger.certificate))
        assert (error.code, "certificate" in error.message) == ("tls", True)
        other_name = replace(credentials, host="127.0.0.2")
    with start(MUTUAL, ("127.0.0.2", 0)) as broker:
        assert fails(replace(other_name, port=broker.port), settings).code == "tls"


def test_a_broker_that_is_gone(simulator: RunningSimulator, start: Start, settings: VerifySettings) -> None:
    with start(MUTUAL) as broker:
        credentials = credentials_of(simulator, broker.port, "gone")
    assert fails(credentials, settings).code == "unreachable"


def _valid_today(name: str, *, authority: bool = False) -> Pair:
    """Return a self-signed pair that is valid on the day of the test, by the real clock."""
    today = datetime.now(timezone.utc).replace(hour=0, minute=0)
    end = today.replace(year=today.year + 2, day=1)
    key = ec.generate_private_key(ec.SECP256R1())
    return make_pair(key, name, authority=authority, not_before=today, not_after=end)

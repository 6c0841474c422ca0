# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTPS server on loopback as the platform, and requests to it."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, TOKEN, Pair, assert_no_secret, make_pair
from cryptography.hazmat.primitives.asymmetric import ec

BODY = {"token": TOKEN, "givenName": "gw1"}


@dataclass(frozen=True)
class Pki:
    """A CA of the tests, and the TLS contexts of servers with its certificates."""

    ca_path: str
    directory: Path
    authority: Pair

    def context(self, *names: str, **dates: Any) -> ssl.SSLContext:
        now = NOW.now(NOW.tzinfo)
        dates = {"not_before": now - DAY, "not_after": now + DAY, **dates}
        key = ec.generate_private_key(ec.SECP256R1())
        pair = make_pair(key, "server", signer=self.authority, names=names, **dates)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.write("server.pem", pair))
        return context

    def write(self, name: str, pair: Pair) -> str:
        (self.directory / name).write_text(pair.certificate + pair.private_key)
        return str(self.directory / name)


def make_pki(directory: Path) -> Pki:
    """Return a new CA in a directory; its certificate is ``ca.pem``."""
    now = NOW.now(NOW.tzinfo)
    key = ec.generate_private_key(ec.SECP256R1())
    authority = make_pair(key, "test CA", authority=True, not_before=now - DAY, not_after=now + DAY)
    (directory / "ca.pem").write_text(authority.certificate)
    return Pki(str(directory / "ca.pem"), directory, authority)


def clear_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove every variable that names a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(name="pki", scope="module")
def pki_fixture(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(name="tls", scope="module")
def tls_fixture(pki: Pki) -> ssl.SSLContext:
    """The context of a server that has the right certificate."""
    return pki.context("127.0.0.1", "localhost")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_proxies(monkeypatch)


def endpoint(port: int, pki: Pki, **changes: Any) -> api.Endpoint:
    given = {"url": f"https://127.0.0.1:{port}/ztp/pointperfect/credentials", "ca_path": pki.ca_path, "timeout": 3.0}
    return api.Endpoint(**{**given, **changes})


PAYLOAD = json.dumps(BODY).encode()


def post(where: api.Endpoint) -> api.HttpResponse:
    """Send one request; the body of a response with status 200 is kept, and nothing else."""
    kept: list[bytes] = []
    sending = api.Sending(kept.append)
    response = api.post(where, PAYLOAD, sending)
    assert kept == [response.body] * (response.status == 200)
    assert sending.may_have_arrived
    return response


def post_fails(where: api.Endpoint) -> tuple[str, ProvisioningError]:
    """Return the kind (``not_sent``, ``unknown``, ``error``) and the error of a failure; check that nothing is kept."""
    kept: list[bytes] = []
    sending = api.Sending(kept.append)
    kind, error = _post_fails(where, sending)
    assert kept == []
    assert sending.may_have_arrived is (kind == "unknown")
    return kind, error


def _post_fails(where: api.Endpoint, sending: api.Sending) -> tuple[str, ProvisioningError]:
    try:
        api.post(where, PAYLOAD, sending)
    except api.NotSent as problem:
        assert_no_secret(problem)
        return "not_sent", ProvisioningError("unreachable", str(problem))
    except api.OutcomeUnknown as problem:
        assert_no_secret(problem, problem.error)
        return "unknown", problem.error
    except ProvisioningError as problem:
        assert_no_secret(problem)
        return "error", problem
    raise AssertionError("it came through")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to the API for check mode: it takes the way of a request, sends nothing, and fails alike."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.transport import connect
from ansible_collections.thingstream.ztp.tests.unit.https import (
    Pki,
    closed_port,
    endpoint,
    make_pki,
    no_proxies,
    pki_fixture,
    post_fails,
    tls_fixture,
)
from ansible_collections.thingstream.ztp.tests.unit.support import answering, serving

_FIXTURES = (no_proxies, pki_fixture, tls_fixture)  # pytest finds them by these names


def test_a_trusted_server_gets_no_request(pki: Pki, tls: ssl.SSLContext) -> None:
    with serving(answering("200 OK"), tls=tls) as server:
        assert connect(endpoint(server.port, pki)) == "TLSv1.3"
        assert connect(endpoint(server.port, pki, ca_path=None, validate_certs=False)) == "TLSv1.3"
    assert [request for request in server.requests if request] == []


def test_without_tls_there_is_no_version(pki: Pki) -> None:
    with serving(answering("200 OK")) as server:
        assert connect(endpoint(server.port, pki, url=f"http://127.0.0.1:{server.port}/ztp")) is None
    assert [request for request in server.requests if request] == []


def failures(other_ca: str, port: int, proxy: int) -> dict[str, dict[str, Any]]:
    by_proxy = f"http://127.0.0.1:{proxy}"
    return {
        "closed port": {"port": closed_port()},
        "no such name": {"url": "https://no-such-name.invalid/ztp"},
        "untrusted": {"ca_path": other_ca},
        "another name": {"url": f"https://127.1:{port}/ztp"},
        "no CA file": {"ca_path": "/nonexistent.pem"},
        "no proxy there": {"proxy": f"http://127.0.0.1:{closed_port()}"},
        "proxy refuses": {"proxy": by_proxy},
        "SOCKS without version": {"proxy": "socks://127.0.0.1:1"},
    }


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway", "200 OK"])
def test_it_fails_as_a_request_would(pki: Pki, tls: ssl.SSLContext, tmp_path: Path, status: str) -> None:
    other_ca = make_pki(tmp_path).ca_path
    with serving(answering("200 OK"), tls=tls) as server, serving(answering(status)) as proxy:
        for name, changes in failures(other_ca, server.port, proxy.port).items():
            where = endpoint(**{"port": server.port, "pki": pki, **changes})
            _kind, expected = post_fails(where)
            with pytest.raises(ProvisioningError) as caught:
                connect(where)
            assert (caught.value.code, caught.value.message) == (expected.code, expected.message), name

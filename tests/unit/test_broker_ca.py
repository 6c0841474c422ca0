# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a consumer trusts as the broker."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import broker_ca
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import trust
from cryptography import x509


def test_the_default_is_amazon_whomever_the_api_is_trusted_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Behind a proxy that opens TLS, REQUESTS_CA_BUNDLE names the CA of the proxy alone."""
    (tmp_path / "proxy.pem").write_text("no Amazon in here")
    monkeypatch.setattr(trust, "DEFAULT_CA_BUNDLE", trust.CaBundle("REQUESTS_CA_BUNDLE", str(tmp_path / "proxy.pem")))
    broker_ca.read.cache_clear()
    certificate = x509.load_pem_x509_certificate(broker_ca.read(None).encode())
    assert "Amazon Root CA 1" in certificate.subject.rfc4514_string()


@pytest.mark.parametrize(
    "content", [None, "no certificate", "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----"]
)
def test_what_is_no_file_of_certificates(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ProvisioningError) as caught:
        broker_ca.read(str(path))
    assert caught.value.code == "bad_option"

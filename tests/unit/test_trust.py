# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose certificates a request trusts, and what is said about CA certificates that cannot be used."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import trust
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.trust import CaBundle
from ansible_collections.thingstream.ztp.tests.unit.https import (
    Pki,
    endpoint,
    make_pki,
    no_proxies,
    pki_fixture,
    post,
    post_fails,
    tls_fixture,
)
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, answering, pem_of, serving
from cryptography.hazmat.primitives import serialization

_FIXTURES = (no_proxies, pki_fixture, tls_fixture)  # pytest finds them by these names


@pytest.mark.parametrize(
    ("names", "dates", "word"),
    [
        (("api.example.com",), {}, "mismatch"),
        ((), {}, "mismatch"),
        (("127.0.0.1",), {"not_before": NOW - 1000 * DAY, "not_after": NOW - 999 * DAY}, "expired"),
        (("127.0.0.1",), {"not_before": NOW + 4000 * DAY, "not_after": NOW + 4001 * DAY}, "not yet valid"),
    ],
    ids=["another name", "no name", "expired", "of tomorrow"],
)
def test_a_certificate_that_is_refused(pki: Pki, names: tuple[str, ...], dates: dict[str, Any], word: str) -> None:
    with serving(answering("200 OK"), tls=pki.context(*names, **dates)) as server:
        kind, error = post_fails(endpoint(server.port, pki))
    assert (kind, error.code) == ("error", "tls")
    assert word in error.message
    assert ("clock of the controller" in error.message) == (word != "mismatch")
    assert server.requests == []


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_an_unknown_authority(pki: Pki, tls: ssl.SSLContext) -> None:
    with serving(answering("200 OK"), tls=tls) as server:
        kind, error = post_fails(endpoint(server.port, pki, ca_path=None))
        assert (kind, error.code, "ca_path" in error.message) == ("error", "tls", True)
        assert server.requests == []
        assert post(endpoint(server.port, pki, ca_path=None, validate_certs=False)).status == 200
        kind, error = post_fails(endpoint(server.port, pki, ca_path=None))
        assert (kind, error.code) == ("error", "tls"), "not validating once must not be remembered"


def test_the_variables_of_requests_do_not_weaken_it(
    pki: Pki, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is chosen at import; a session must not read another one for one connection."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", pki.ca_path)
    with serving(answering("200 OK"), tls=tls) as server:
        assert post_fails(endpoint(server.port, pki, ca_path=None))[1].code == "tls"


def test_an_unknown_authority_names_the_bundle_and_the_remedy(
    pki: Pki, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_pki(tmp_path).ca_path
    with serving(answering("200 OK"), tls=tls) as server:
        where = endpoint(server.port, pki, ca_path=other)
        error = post_fails(where)[1]
        assert error.code == "tls"
        assert f"Trusted CAs: ca_path ({other})" in error.message
        monkeypatch.setenv("THINGSTREAM_CA_PATH", other)
        assert f"THINGSTREAM_CA_PATH ({other})" in post_fails(where)[1].message


# ---- CA certificates that cannot be used ----


def rehashed(directory: Path, pki: Pki) -> Path:
    """Return a new directory with the CA in it, as ``openssl rehash`` prepares one."""
    directory.mkdir()
    (directory / "ca.pem").write_text(Path(pki.ca_path).read_text())
    subprocess.run(["openssl", "rehash", directory], check=True, capture_output=True)
    return directory


@pytest.mark.parametrize("prepared", [True, False])
def test_a_directory(pki: Pki, tls: ssl.SSLContext, tmp_path: Path, prepared: bool) -> None:
    directory = rehashed(tmp_path / "certificates", pki)
    if not prepared:
        for link in directory.iterdir():
            if link.is_symlink():
                link.unlink()
    with serving(answering("200 OK"), tls=tls) as server:
        where = endpoint(server.port, pki, ca_path=str(directory))
        if prepared:
            assert post(where).status == 200
        else:
            error = post_fails(where)[1]
            assert error.code == "bad_option"
            assert "openssl rehash" in error.message


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b" \n", "empty"),
        (b"CA: the usual one\n", "no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n", "OpenSSL cannot read a certificate"),
        (b"-----BEGIN CERTIFICATE-----\nhalf of o", "OpenSSL cannot read a certificate"),
        ("der", "openssl x509 -inform der"),
        ("key", "no certificate in PEM"),
        ("pipe", "this is no file"),
        ("dangling", "no such file"),
        ("dangling directory", "openssl rehash"),
    ],
)
@pytest.mark.parametrize("origin", ["ca_path", "REQUESTS_CA_BUNDLE"])
def test_what_cannot_be_used(pki: Pki, tmp_path: Path, content: bytes | str | None, remedy: str, origin: str) -> None:
    path = tmp_path / "ca"
    if content == "der":
        path.write_bytes(pki.authority.leaf.public_bytes(serialization.Encoding.DER))
    elif content == "key":
        path.write_text(pem_of(pki.authority.key, serialization.PrivateFormat.PKCS8))
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "dangling":
        path.symlink_to("nowhere")
    elif content == "dangling directory":
        path.mkdir()
        (path / "0123abcd.0").symlink_to("nowhere")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ProvisioningError) as caught:
        trust.load(CaBundle(origin, str(path)))
    assert caught.value.code == "bad_option"
    assert f"{origin} ({path}) on the controller: " in caught.value.message
    assert remedy in caught.value.message


def test_a_file_that_may_not_be_read(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ssl, "create_default_context", forbid)
    monkeypatch.setattr(Path, "read_bytes", forbid)
    with pytest.raises(ProvisioningError, match="may not read it"):
        trust.load(CaBundle("ca_path", pki.ca_path))


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_ca_certificates_are_not_read_where_nothing_is_validated(pki: Pki, tls: ssl.SSLContext) -> None:
    with serving(answering("200 OK"), tls=tls) as server:
        assert post(endpoint(server.port, pki, ca_path="/no/such/ca", validate_certs=False)).status == 200


LOAD = """
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import trust
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.exchange import Endpoint
try:
    trust.tls_context(Endpoint("https://api.example.com"))
    print(trust.DEFAULT_CA_BUNDLE, "loaded")
except ProvisioningError as error:
    print(error.code, error.message)
"""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"REQUESTS_CA_BUNDLE": "{ca}"}, "REQUESTS_CA_BUNDLE ({ca}) loaded"),
        ({"REQUESTS_CA_BUNDLE": "{directory}"}, "REQUESTS_CA_BUNDLE ({directory}) loaded"),
        ({"CURL_CA_BUNDLE": "{ca}"}, "CURL_CA_BUNDLE ({ca}) loaded"),
        ({"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "{ca}"}, "CURL_CA_BUNDLE ({ca}) loaded"),
        (
            {"REQUESTS_CA_BUNDLE": "/nonexistent.pem", "CURL_CA_BUNDLE": "{ca}"},
            "bad_option Cannot use REQUESTS_CA_BUNDLE (/nonexistent.pem) on the controller: there is no such file",
        ),
        ({"CURL_CA_BUNDLE": "/"}, "bad_option Cannot use CURL_CA_BUNDLE (/) on the controller: no file in this"),
    ],
)
def test_the_usual_variables(pki: Pki, tmp_path: Path, variables: dict[str, str], expected: str) -> None:
    """They are read once, when Ansible loads the plugin."""
    names = {"ca": pki.ca_path, "directory": rehashed(tmp_path / "certificates", pki)}
    environment = {name: text for name, text in os.environ.items() if not name.endswith("_CA_BUNDLE")}
    environment |= {name: text.format(**names) for name, text in variables.items()}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(expected.format(**names)), done.stdout

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the unit tests. Keys are made once: a real RSA key costs more than most tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.verify.verification import VerifySettings
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig, install_by_hand
from ansible_collections.thingstream.ztp.tests.unit.servers import Pki, lifetime
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, Pair, cloudlocate, make_pair
from cryptography.hazmat.primitives.asymmetric import ec, rsa


@pytest.fixture(scope="session")
def rsa_pair() -> Pair:
    """A pair as the platform sends it: RSA with 2048 bits."""
    return make_pair(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@pytest.fixture(scope="session")
def ec_pair() -> Pair:
    """A cheap pair on an elliptic curve."""
    return make_pair(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="session")
def other_pair() -> Pair:
    """The pair of another Thing."""
    return make_pair(ec.generate_private_key(ec.SECP256R1()), "another-thing")


@pytest.fixture(params=["rsa", "ec"])
def any_pair(request: pytest.FixtureRequest, rsa_pair: Pair, ec_pair: Pair) -> Pair:
    """Each kind of pair in turn."""
    return rsa_pair if request.param == "rsa" else ec_pair


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A gateway that holds nothing."""
    return Rig(tmp_path)


@pytest.fixture
def installed(rig: Rig, ec_pair: Pair) -> Rig:
    """A gateway that is in order, with a pair and dynamic keys."""
    install_by_hand(rig, ec_pair)
    return rig


@pytest.fixture
def thrice(rig: Rig) -> Rig:
    """A gateway with three generations, each of another Thing, the last of them in use."""
    rig.service = "cloudlocate"
    for number in (1, 2, 3):
        rig.now = NOW + number * DAY
        rig.present(cloudlocate(clientId=f"device:{number}"), force=number > 1)
    rig.now = NOW + 10 * DAY
    return rig


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """CAs for the servers and Things of the tests."""
    authorities = [
        make_pair(ec.generate_private_key(ec.SECP256R1()), f"CA of {name}", authority=True, **lifetime())
        for name in ("servers", "Things", "nobody")
    ]
    directory = tmp_path_factory.mktemp("pki")
    (directory / "servers.pem").write_text(authorities[0].certificate)
    return Pki(directory, *authorities)


@pytest.fixture(scope="session")
def thing(pki: Pki) -> Pair:
    """The pair of a Thing."""
    return pki.issue(pki.things)


@pytest.fixture
def settings(pki: Pki) -> VerifySettings:
    """Settings that trust the servers of the tests."""
    return VerifySettings(timeout=3, position=None, broker_ca=pki.servers.certificate, caster_ca_path=pki.ca_path)

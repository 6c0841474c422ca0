# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the unit tests. Keys are made once: a real RSA key costs more than most tests."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from unit.support import Pair, make_pair


@pytest.fixture(scope="session")
def rsa_pair() -> Pair:
    """What the platform sends: RSA with 2048 bits."""
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

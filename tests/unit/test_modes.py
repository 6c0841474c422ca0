# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modes as people write them in YAML, and those that would give a secret away."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import modes
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError


@pytest.mark.parametrize(
    ("value", "number"),
    [("0640", 0o640), ("640", 0o640), (0o640, 0o640), ("0o640", 0o640), ("0400", 0o400), ("0770", 0o770), (0, 0)],
)
@pytest.mark.parametrize("name", modes.MODE_ARGUMENTS)
def test_modes_that_are_taken(name: str, value: Any, number: int) -> None:
    assert modes.mode(name, value) == number


@pytest.mark.parametrize(
    "value",
    [
        "",
        "rw",
        "u=rw",
        "0648",
        "1640",
        "4755",
        "07777",
        -1,
        "-1",
        640,
        0o1000,
        True,
        None,
        [],
        6.4,
        "0642",
        "0666",
        "0777",
    ],
)
@pytest.mark.parametrize("name", modes.MODE_ARGUMENTS)
def test_modes_that_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ProvisioningError) as caught:
        modes.mode(name, value)
    assert (caught.value.code, caught.value.message.startswith(name)) == ("bad_option", True)


@pytest.mark.parametrize("value", ["0644", "0641", "0645"])
def test_others_never_read_a_secret(value: str) -> None:
    assert modes.mode("directory_mode", value) == int(value, 8)
    with pytest.raises(ProvisioningError) as caught:
        modes.mode("secret_mode", value)
    assert caught.value.code == "bad_option"


def test_the_defaults_are_good() -> None:
    assert {name: modes.mode(name, option["default"]) for name, option in modes.MODE_ARGUMENTS.items()} == {
        "directory_mode": 0o750,
        "secret_mode": 0o640,
    }

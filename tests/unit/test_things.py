# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names mean the same Thing, and which Things several gateways use."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.shared import shared_things
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.things import (
    Thing,
    ThingIndex,
    normalize,
    things_in_use,
)

C, L, H = {"client_id": "device:1"}, {"login_sha256": "aa"}, {"hardware_id": "hw"}
OTHER_C, OTHER_L = {"client_id": "device:2"}, {"login_sha256": "bb"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (C, {"client_id": "DEVICE:1"}, True),
        (C | H, C | {"hardware_id": "moved"}, True),
        (C | H, OTHER_C | H, False),
        (C | L, OTHER_C | L, False),
        (L | H, L, True),
        (L | H, OTHER_L | H, False),
        (C | L, L, True),
        (C | H, L | H, False),  # from MQTT to NTRIP: another Thing with the same hardware ID
        (H, H, True),
        (C | H, H, True),
        (H, H | {"service": "pointperfect"}, False),
        (C, H, False),
        ({}, {}, False),
        ({"hardware_id": ""}, {"hardware_id": ""}, False),
        ({"client_id": "", **H}, {"client_id": "", **H}, True),
    ],
)
def test_one_thing_or_two(one: dict[str, str], other: dict[str, str], same: bool) -> None:
    first, second = (Thing.parse({"service": "cloudlocate", **names}) for names in (one, other))
    assert first.same_as(second) is same
    assert second.same_as(first) is same
    assert any(ThingIndex([(first, True)]).find(second)) is same


def test_names_that_are_no_text_are_unknown() -> None:
    assert Thing.parse({"service": 5, "client_id": ["x"], "hardware_id": None, "given_name": {}}) == Thing()


@pytest.mark.parametrize(
    ("name", "normalized"),
    [
        ("device:3E1B-4B0E", "3e1b4b0e"),
        ("Device:1", "1"),
        ("  hw 1 ", "hw1"),
        ("Straße", "strasse"),
        ("\uff11\uff12", "12"),
        ("--", "--"),
    ],
)
def test_spellings_of_a_name(name: str, normalized: str) -> None:
    assert normalize(name) == normalized


def in_use(path: str = "/p", **names: Any) -> dict[str, Any]:
    return {"path": path, "thing": {"service": "cloudlocate", **names}}


@pytest.mark.parametrize(
    ("bundles", "shared"),
    [
        ({"a": [in_use(**C)], "b": [in_use(**OTHER_C)], "c": None, "d": [{"path": "/p", "thing": None}]}, []),
        ({"b": [in_use(**C, **H)], "a": [in_use(**C, **H)]}, [("device:1", "hw", "a b")]),
        ({"a": [in_use(**C, hardware_id="1")], "b": [in_use(**C, hardware_id="2")]}, [("device:1", None, "a b")]),
        ({"a": [in_use(**C, **H)], "b": [in_use(**OTHER_C, **H)]}, [(None, "hw", "a b")]),
        ({"a": [in_use(**L, **H)], "b": [in_use(**L, **H)]}, [(None, "hw", "a b")]),
        ({"a": [in_use(**H)], "b": [in_use(**H)]}, [(None, "hw", "a b")]),
        ({"a": [in_use(**L)], "b": [in_use(**L)]}, [(None, None, "a b")]),
        ({"a": [in_use(**C, **L)], "b": [in_use(**OTHER_C, **L)]}, []),
        ({"a": [in_use(**C, **L)], "b": [in_use(**C, **L)]}, [("device:1", None, "a b")]),
        ({"a": [in_use(**H)], "b": [in_use(**H) | {"thing": {"service": "pointperfect", **H}}]}, []),
        ({"a": [in_use(**C), in_use("/q", **C)]}, []),
        (
            {"a": [in_use(**C, **H)], "b": [in_use(**C, **H)], "c": [in_use(**OTHER_C, **H)]},
            [("device:1", "hw", "a b"), (None, "hw", "a b c")],
        ),
        (
            {"a": [in_use(**C), in_use("/q", **OTHER_C)], "b": [in_use(**C), in_use("/q", **OTHER_C)]},
            [("device:1", None, "a b"), ("device:2", None, "a b")],
        ),
    ],
)
def test_shared_things(bundles: dict[str, Any], shared: list[tuple[str | None, str | None, str]]) -> None:
    found = shared_things(things_in_use(bundles))
    assert [(thing.client_id, thing.hardware_id, " ".join(thing.hosts)) for thing in found] == shared

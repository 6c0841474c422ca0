# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a bundle: it is read as it was written, and a hostile one is read in part or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import FormerThing
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import RECORD_VERSION, Record, response_id
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW
from ansible_collections.thingstream.ztp.tests.unit.test_dates import NOT_DATES

RECORD = Record(
    service="pointperfect",
    thing_id=ThingId("device:2", "f" * 64),
    issued_at=NOW,
    identity_sha256="1" * 64,
    files={"credentials.json": "a" * 64, "client.key": "d" * 64},
    delivery=("mqtt", "ntrip", "lband"),
    hardware_id="hw-1",
    given_name="gw1",
    origin="ztp",
    host="mqtt.example.com",
    port=8883,
    ntrip_host="ntrip.example.com",
    ntrip_port=2101,
    ntrip_mountpoint="NEAR-RTCM",
    not_before=NOW - DAY,
    not_after=NOW + DAY,
    fingerprint_sha256="2" * 64,
    keys_expire_at=NOW + 2 * DAY,
    formats=("env", "pem"),
    templates_sha256="3" * 64,
    modes={"own.conf": 0o640},
    retired=(FormerThing(ThingId("device:1"), "pointperfect", "hw-1", "gw1", NOW - DAY),),
)
LEAST = Record("cloudlocate", ThingId(None, "f" * 64), NOW, "1" * 64, {})


def parse(**changes: Any) -> Record | None:
    """Return the record of a text with other values; ``...`` removes one."""
    content = {**RECORD.to_dict(), **changes}
    return Record.parse(json.dumps({name: value for name, value in content.items() if value is not ...}))


@pytest.mark.parametrize("record", [RECORD, LEAST, replace(RECORD, formats=(), thing_id=ThingId("device:2"))])
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    text = record.encode()
    assert text.isascii()
    assert text.endswith("}\n")
    assert json.loads(text) == record.to_dict()
    assert Record.parse(text) == record


def test_the_content_of_a_record() -> None:
    assert RECORD.to_dict() == {
        "record_version": RECORD_VERSION,
        "service": "pointperfect",
        "delivery": ["mqtt", "ntrip", "lband"],
        "hardware_id": "hw-1",
        "given_name": "gw1",
        "origin": "ztp",
        "client_id": "device:2",
        "login_sha256": "f" * 64,
        "host": "mqtt.example.com",
        "port": 8883,
        "ntrip_host": "ntrip.example.com",
        "ntrip_port": 2101,
        "ntrip_mountpoint": "NEAR-RTCM",
        "issued_at": "2026-11-22T12:00:00Z",
        "not_before": "2026-11-21T12:00:00Z",
        "not_after": "2026-11-23T12:00:00Z",
        "fingerprint_sha256": "2" * 64,
        "identity_sha256": "1" * 64,
        "keys_expire_at": "2026-11-24T12:00:00Z",
        "formats": ["env", "pem"],
        "templates_sha256": "3" * 64,
        "modes": {"own.conf": "0640"},
        "files": {"credentials.json": "a" * 64, "client.key": "d" * 64},
        "retired": [
            {
                "client_id": "device:1",
                "login_sha256": None,
                "service": "pointperfect",
                "hardware_id": "hw-1",
                "given_name": "gw1",
                "since": "2026-11-21T12:00:00Z",
            }
        ],
    }


@pytest.mark.parametrize("year", [1, 999, 1950, 2026, 9999])
def test_a_record_of_any_year_is_read_again(year: int) -> None:
    record = replace(RECORD, issued_at=datetime(year, 12, 31, 23, 59, 59, tzinfo=timezone.utc))
    assert Record.parse(record.encode()) == record


# ---- what cannot be read ----


@pytest.mark.parametrize("text", [None, "", "{", "null", "5", "[]", '"text"', "[" * 100_000, "{}", "\udcff"])
def test_a_text_that_is_no_record(text: str | None) -> None:
    assert Record.parse(text) is None


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name in ("issued_at",) for value in NOT_DATES),
        *({name: value} for name in ("not_before", "not_after", "keys_expire_at") for value in NOT_DATES[1:]),
        {"issued_at": ...},
        {"service": None},
        {"service": 7},
        {"service": "x" * 513},
        {"identity_sha256": ...},
        {"identity_sha256": ["1"]},
        {"files": ...},
        {"files": None},
        {"files": 5},
        {"files": ["client.key"]},
        {"files": {"client.key": None}},
        {"files": {"client.key": 5}},
        {"files": {"client.key": "a\nb"}},
        {"files": {"client.key": "d" * 513}},
        {"files": {"../client.key": "d" * 64}},
        {"files": {"": "d" * 64}},
        {"files": {".hidden": "d" * 64}},
        {"files": {"a b": "d" * 64}},
        {"files": {"a\n": "d" * 64}},
        {"files": {"a" * 129: "d" * 64}},
        {"client_id": None, "login_sha256": None},
        {"client_id": ..., "login_sha256": ...},
        {"client_id": {"a": 1}, "login_sha256": "short"},
        {"client_id": "a b", "login_sha256": 5},
    ],
    ids=str,
)
def test_a_record_without_a_necessary_part_is_unreadable(changes: dict[str, Any]) -> None:
    assert parse(**changes) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"record_version": "x"}, {"record_version": 0}),
        ({"record_version": True}, {"record_version": 0}),
        ({"record_version": ...}, {"record_version": 0}),
        ({"delivery": None}, {"delivery": ()}),
        ({"delivery": "mqtt"}, {"delivery": ()}),
        ({"delivery": {"mqtt": 1}}, {"delivery": ()}),
        ({"delivery": [["mqtt"], 5, None, "smoke", "ntrip"]}, {"delivery": ("ntrip",)}),
        ({"hardware_id": ["hw-1"]}, {"hardware_id": None}),
        ({"hardware_id": ...}, {"hardware_id": None}),
        ({"given_name": {"a": 1}}, {"given_name": None}),
        ({"given_name": "x" * 513}, {"given_name": None}),
        ({"port": "8883"}, {"port": None}),
        ({"port": True}, {"port": None}),
        ({"ntrip_port": 1.5}, {"ntrip_port": None}),
        ({"formats": 5}, {"formats": None}),
        ({"formats": ["pem", 5, None]}, {"formats": ("pem",)}),
        ({"templates_sha256": 5}, {"templates_sha256": None}),
        ({"modes": 5}, {"modes": {}}),
        ({"modes": ["0640"]}, {"modes": {}}),
        (
            {"modes": {"a": "0640", "b": "4755", "c": "0666", "d": 420, "e": "0o640", "f": "0755"}},
            {"modes": {"a": 0o640, "f": 0o755}},
        ),
        ({"retired": 7}, {"retired": ()}),
        ({"retired": "text"}, {"retired": ()}),
        ({"retired": {"a": 1}}, {"retired": ()}),
        ({"retired": [5, None]}, {"retired": ()}),
        ({"client_id": {"a": 1}}, {"thing_id": ThingId(None, "f" * 64)}),
        ({"login_sha256": "short"}, {"thing_id": ThingId("device:2")}),
        ({"unknown": [1]}, {}),
    ],
    ids=str,
)
def test_another_wrong_value_is_left_out(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parse(**changes) == replace(RECORD, **expected)


# ---- what it says ----


def test_a_response_has_a_name_without_a_secret() -> None:
    assert RECORD.response_id == response_id("1" * 64, NOW) == f"{'1' * 64} 2026-11-22T12:00:00Z"
    assert replace(RECORD, formats=None, files={}, retired=()).response_id == RECORD.response_id
    assert replace(RECORD, issued_at=NOW - DAY).response_id != RECORD.response_id
    assert replace(RECORD, identity_sha256="2" * 64).response_id != RECORD.response_id


def test_the_thing_of_a_record_as_a_former_one() -> None:
    assert RECORD.as_former() == FormerThing(RECORD.thing_id, "pointperfect", "hw-1", "gw1")

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each request may create another Thing, a request whose response was lost is not repeated without a decision."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import timestamp
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, ledger, requests, responses
from ansible_collections.thingstream.ztp.tests.unit.rig import Reply, Rig
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, Pair, cloudlocate, encoded, spartn

LOST = api.OutcomeUnknown(ProvisioningError("timeout", "No response."))


def die(*_arguments: object, **_options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(owner: object, step: str, action: Callable[[], object], kill: Callable[..., None] = die) -> None:
    """Do something in a process that dies in this function."""
    process = os.fork()
    if process == 0:
        try:
            setattr(owner, step, kill)
            action()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.fixture
def costly(rig: Rig) -> Rig:
    """A gateway whose service creates another Thing for each request."""
    rig.service = "cloudlocate"
    return rig


def marker_of(rig: Rig) -> Path:
    """Return the path of the request marker, whether it exists or not."""
    return rig.spool_place.with_name(rig.spool_place.name + requests.SUFFIX)


def test_a_request_whose_response_was_lost_is_not_repeated(costly: Rig) -> None:
    error = costly.fails(LOST)
    marker = marker_of(costly)
    assert error.code == "timeout"
    assert str(marker) in error.message
    assert marker.stat().st_mode & 0o7777 == 0o600
    content = json.loads(marker.read_text())
    assert content.pop("response").endswith(responses.SUFFIX)
    assert content == {
        "service": "cloudlocate",
        "hardware_id": "hw-1",
        "given_name": "gw1",
        "requested_at": timestamp(NOW),
    }
    changes: dict[str, Any]
    for changes in ({}, {"force": True}, {"check_mode": True}):
        costly.now += DAY
        error = costly.fails(**changes)
        assert (error.code, str(marker) in error.message) == ("response_lost", True)
        assert costly.bodies == []
    assert costly.absent().action == "none"
    assert marker.exists(), "only a person can say what became of the request"
    marker.unlink()
    assert costly.present(cloudlocate()).action == "created"
    costly.assert_in_order()


@pytest.mark.parametrize("reply", [api.HttpResponse(500, {}, b""), api.HttpResponse(201, {}, encoded(cloudlocate()))])
def test_a_response_without_a_meaning_is_lost_too(costly: Rig, reply: Reply) -> None:
    costly.fails(reply)
    assert costly.fails().code == "response_lost"


def test_installed_credentials_stay_in_use_after_a_lost_response(costly: Rig) -> None:
    costly.present(cloudlocate())
    costly.fails(LOST, force=True)
    assert costly.present().action == "none", "they are not due"
    assert costly.fails(force=True).code == "response_lost"


@pytest.mark.parametrize(
    "replies",
    [
        [api.HttpResponse(403, {}, b"Device already registered")],
        [api.NotSent("no network")] * 2,
        [api.HttpResponse(503, {"Retry-After": "7"}, b"")] * 2,
        [ProvisioningError("tls", "No.")],
    ],
)
def test_a_request_that_created_nothing_may_be_repeated(costly: Rig, replies: list[Reply]) -> None:
    costly.fails(*replies)
    assert costly.spool_files == []
    assert costly.present(cloudlocate()).action == "created"
    costly.assert_in_order()


def test_a_request_is_repeated_where_that_creates_nothing(rig: Rig, ec_pair: Pair) -> None:
    rig.fails(LOST, LOST)
    assert rig.spool_files == []
    assert rig.present(spartn(ec_pair)).action == "created"


# ---- killed ----


def create(rig: Rig) -> Callable[[], object]:
    return lambda: rig.present(cloudlocate())


def test_killed_before_the_response_is_stored(costly: Rig) -> None:
    killed_at(responses.Allocation, "store", create(costly))
    assert costly.fails().code == "response_lost"


def die_with_an_entry(entries: list[responses.Entry]) -> None:
    if entries:
        die()


@pytest.mark.parametrize(
    ("owner", "step", "kill", "action"),
    [
        (requests.OpenRequest, "settle", die, "created"),
        (requests.OpenRequest, "close", die, "created"),
        (responses.Allocation, "release", die, "created"),
        (ledger, "append", die, "created"),
        (requests, "clean_up", die, "none"),
        (responses, "discard", die_with_an_entry, "none"),
    ],
)
def test_killed_after_the_response_was_stored(
    costly: Rig, owner: object, step: str, kill: Callable[..., None], action: str
) -> None:
    killed_at(owner, step, create(costly), kill)
    outcome = costly.present()
    assert (outcome.action, costly.bodies) == (action, [])
    costly.assert_in_order()
    assert [entry["left_at"] for entry in costly.ledger] == [None]


def test_killed_with_a_marker_and_then_without_a_ledger(costly: Rig) -> None:
    """The ledger is advisory: the marker of a request that was settled must not block the gateway without it."""
    killed_at(requests.OpenRequest, "settle", create(costly))
    assert marker_of(costly).exists()
    costly.present()
    for file in directory.ledger_directory(costly.spool).iterdir():
        file.unlink()
    assert costly.present(cloudlocate(clientId="device:2"), force=True).action == "renewed"


def test_a_spool_that_fails_after_the_response(costly: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> NoReturn:
        raise ProvisioningError("spool_failed", "The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(responses.Allocation, "store", fail)
        error = costly.fails(cloudlocate())
    assert (error.code, str(marker_of(costly)) in error.message) == ("spool_failed", True)
    assert costly.fails().code == "response_lost"


def test_a_response_that_was_written_and_not_named_is_used(costly: Rig) -> None:
    """The process is killed before the hidden file gets its name."""
    cut = os.ftruncate

    def die_with_the_response(descriptor: int, length: int) -> None:
        cut(descriptor, length)
        if length:
            die()

    killed_at(os, "ftruncate", create(costly), die_with_the_response)
    assert costly.present().action == "created"
    assert costly.bodies == []
    costly.assert_in_order()


def test_a_run_that_is_killed_before_its_request_sent_nothing(costly: Rig) -> None:
    """Its marker is incomplete, and its space in the spool is empty: both go without a question."""
    killed_at(os, "ftruncate", create(costly))
    assert [file.suffix for file in costly.spool_files] == [responses.SUFFIX, requests.SUFFIX]
    assert costly.present(cloudlocate()).action == "created"
    costly.assert_in_order()


# ---- another run ----


def test_a_request_that_another_run_waits_for_is_not_repeated(costly: Rig) -> None:
    directory.prepare(costly.spool, make_parents=True)
    other = requests.begin(costly.spool_place, "cloudlocate", "hw-1", "gw1", "x.response", NOW)
    for check_mode in (True, False):
        error = costly.fails(check_mode=check_mode)
        assert (error.code, str(other.file) in error.message) == ("concurrent_change", True)
        assert costly.bodies == []
    other.close()
    assert costly.fails().code == "response_lost", "that run has ended without its response"

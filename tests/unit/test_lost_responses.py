# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each request may create another Thing, one whose answer got lost is not repeated before somebody has looked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import policy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool
from ansible_collections.thingstream.ztp.tests.unit.rig import Reply, Rig
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, Pair, cloudlocate, encoded, spartn

LOST = api.OutcomeUnknown(ProvisioningError("timeout", "No answer."))


class Killed(BaseException):
    """The end of a run at any instruction: nothing catches it."""


def killed_at(step: str, rig: Rig) -> None:
    """A run that ends where it would call this function of ``spool``."""

    def kill(*_arguments: object, **_options: object) -> NoReturn:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, step, kill)
        with pytest.raises(Killed):
            rig.present(cloudlocate())


@pytest.fixture
def costly(rig: Rig) -> Rig:
    """A gateway whose service creates another Thing for each request."""
    rig.service = "cloudlocate"
    return rig


def requests_of(rig: Rig) -> list[Path]:
    return spool.files(rig.spool_place, spool.REQUEST_SUFFIX)


def test_a_request_whose_answer_got_lost_is_not_repeated(costly: Rig) -> None:
    error = costly.fails(LOST)
    (request,) = requests_of(costly)
    assert error.code == "timeout"
    assert str(request) in error.message
    assert request.stat().st_mode & 0o7777 == 0o600
    told = {"service": "cloudlocate", "hardware_id": "hw-1", "given_name": "gw1", "asked_at": policy.timestamp(NOW)}
    assert json.loads(request.read_text()) == told
    look: dict[str, Any]
    for look in ({}, {"force": True}, {"check_mode": True}):
        costly.now += DAY
        error = costly.fails(**look)
        assert (error.code, str(request) in error.message) == ("response_lost", True)
        assert costly.bodies == []
    assert costly.absent().action == "none"
    request.unlink()
    assert costly.present(cloudlocate()).action == "created"
    costly.assert_in_order()


@pytest.mark.parametrize("reply", [api.Answer(500, {}, b""), api.Answer(201, {}, encoded(cloudlocate()))])
def test_an_answer_that_tells_nothing_is_lost_too(costly: Rig, reply: Reply) -> None:
    costly.fails(reply)
    assert costly.fails().code == "response_lost"


def test_what_is_installed_goes_on_without_the_lost_answer(costly: Rig) -> None:
    costly.present(cloudlocate())
    costly.fails(LOST, force=True)
    assert costly.present().action == "none", "it is not due"
    assert costly.fails(force=True).code == "response_lost"


@pytest.mark.parametrize(
    "replies",
    [
        [api.Answer(403, {}, b"Device already registered")],
        [api.NotSent("no network")] * 2,
        [api.Answer(503, {"Retry-After": "7"}, b"")] * 2,
        [ProvisioningError("tls", "No.")],
    ],
)
def test_a_request_that_created_nothing_may_be_repeated(costly: Rig, replies: list[Reply]) -> None:
    costly.fails(*replies)
    assert requests_of(costly) == []
    assert costly.present(cloudlocate()).action == "created"
    assert list(costly.spool_place.parent.iterdir()) == []


def test_where_a_repeated_request_is_safe_it_is_repeated(rig: Rig, ec_pair: Pair) -> None:
    rig.fails(LOST, LOST)
    assert list(rig.spool_place.parent.iterdir()) == []
    assert rig.present(spartn(ec_pair)).action == "created"


def test_killed_before_the_answer_is_kept(costly: Rig) -> None:
    killed_at("store", costly)
    assert costly.fails().code == "response_lost"


@pytest.mark.parametrize("step", ["withdraw", "discard"])
def test_killed_after_the_answer_was_kept(costly: Rig, step: str) -> None:
    killed_at(step, costly)
    assert costly.present().action == ("created" if step == "withdraw" else "unchanged")
    assert list(costly.spool_place.parent.iterdir()) == []


def test_an_spool_that_fails_after_the_answer(costly: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> NoReturn:
        raise ProvisioningError("spool_failed", "The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "store", fail)
        error = costly.fails(cloudlocate())
    (request,) = requests_of(costly)
    assert (error.code, str(request) in error.message) == ("spool_failed", True)
    assert costly.fails().code == "response_lost"


def test_an_answer_that_was_only_just_written_down_is_used(costly: Rig) -> None:
    process = os.fork()
    if process == 0:
        move = os.replace

        def die_with_the_answer(old: str, new: Path) -> None:
            if new.suffix == spool.SUFFIX:
                os.kill(os.getpid(), signal.SIGKILL)
            move(old, new)

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "replace", die_with_the_answer)
                costly.present(cloudlocate())
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(process, 0)[1])
    assert costly.present().action == "created"
    assert costly.bodies == []
    assert list(costly.spool_place.parent.iterdir()) == []


def test_a_request_that_another_run_waits_for_is_not_lost(costly: Rig) -> None:
    costly.spool_place.parent.mkdir(mode=0o700)
    with spool.announced(costly.spool_place, "cloudlocate", "hw-1", "gw1", NOW):
        assert costly.present(cloudlocate()).action == "created"
    assert costly.fails(force=True).code == "response_lost", "that run has ended"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests bite: each defect that the collection once had is put back, and the state space or the model finds it."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import ensure, plan, renewal, request
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses
from model.test_model import Fleet
from model.test_state_space import Broken, explore

STRIDE = 151  # of the states that are visited for each mutation

# (function, text, text in its place)
Mutation = tuple[Callable[..., Any], str, str]

NOT_TOO_SOON: Mutation = (renewal._not_too_soon, "max(due_at, shift(last, REQUEST_INTERVAL))", "due_at")
IN_STATES: dict[str, list[Mutation]] = {
    "spread longer than the age": [
        (renewal._age, "min(policy.spread, policy.max_age / 2)", "policy.spread"),
        (renewal._share, 'int.from_bytes(digest[:8], "big") / 2**64', "0.9"),
        NOT_TOO_SOON,
    ],
    "lead longer than the lifetime": [
        (renewal._certificate, "min(wanted, lifetime / 2)", "wanted"),
        NOT_TOO_SOON,
    ],
    "renewal due again at once": [NOT_TOO_SOON],
    "two unknown client IDs are one Thing": [
        (ThingId.same_as, "self.client_id is not None and other.client_id is not None", "True"),
    ],
    "a wiped gateway forgets its Thing": [
        (plan._of_ledger, "[entry.as_former() for entry in found", "[entry.as_former() for entry in ()"),
    ],
    "a damaged gateway forgets its Thing": [(plan._history, "(*observed.left_behind, *former)", "former")],
    "absent leaves the spool": [(plan.plan_removal, "outdated = observed.spooled", "outdated = ()")],
    "create: false requests because of an unusable entry": [
        (plan._use_pending, " and (desired.create or observed.is_installed)", ""),
    ],
    "the request marker is ignored": [(plan._request_problem, "observed.marker is not None and", "False and")],
    "a response counts as outdated by its date": [
        (
            plan._sort_spooled,
            "latest.entry.replaces != record.response_id",
            "latest.entry.received_at < record.issued_at",
        ),
    ],
    "a date in the future skips a rotation": [
        (renewal.arrived_before, "date < before or is_from_the_future(date, now)", "date < before"),
    ],
    "a date in the future skips max_age": [
        (renewal.due_dates, "if not is_from_the_future(date, now)", "if True"),
    ],
}


@dataclass(frozen=True)
class Life:
    """The end of a defect: the steps of a fleet after which the model finds it."""

    mutations: list[Mutation]
    steps: Callable[[Fleet], None]
    finding: str  # the message of the model


def _provision(fault: str) -> Callable[[Fleet], None]:
    """Return the steps of a first run with a fault."""
    return lambda fleet: fleet.provision_with_a_fault(0, 0, fault, 0, force=False, create=True)


def _provision_after_a_lost_response(fleet: Fleet) -> None:
    _provision("response lost")(fleet)
    fleet.provision(0, 0, force=False, max_age=None)


def _rotate_a_gateway_that_was_unreachable(fleet: Fleet) -> None:
    _provision("unreachable before")(fleet)
    fleet.rotate(0, 0)


IN_THE_MODEL = {
    "overlapping runs make two Things": Life(
        [
            (plan._request_problem, "observed.marker is not None and", "False and"),
            (request._send, "None if desired.repeatable else _mark(", "None if True else _mark("),
        ],
        lambda fleet: fleet.overlap(0, 0, 0),
        "one request at a time",
    ),
    "a full disk is found after the request": Life(
        [(responses._reserve, "descriptor, 0, MAX_ENTRY_BYTES", "descriptor, 0, 1")],
        _provision("spool full"),
        "a full disk is found before the request",
    ),
    "check mode does not look at the spool": Life(
        [
            (
                ensure.ensure_present,
                "if needs_complete_observation(planned, observed):",
                "if needs_complete_observation(planned, observed) and not check_mode:",
            )
        ],
        _provision_after_a_lost_response,
        "check mode shows what the run does",
    ),
    "a rotation installs an older response, which it replaces at once": Life(
        [(plan._precedes_rotation, "(observed.record is None or rotation_due(", "(rotation_due(")],
        _rotate_a_gateway_that_was_unreachable,
        "a success is followed by nothing",
    ),
    "an error before the request leaves a marker": Life(
        [(request._send, "if kept or not sending.may_have_arrived:", "if kept:")],
        _provision("error before the request"),
        "no marker stays",
    ),
    "the profile is blamed for the Thing of this controller": Life(
        [(request.request_response, 'error.code == "already_registered" and was_pending', "False")],
        lambda fleet: fleet.activated_late(1, 0),
        "earlier request of this controller",
    ),
}


@pytest.mark.parametrize("name", IN_STATES)
def test_the_state_space_finds(name: str) -> None:
    with mutated(IN_STATES[name]), pytest.raises(Broken):
        explore(STRIDE)


@pytest.mark.parametrize("name", IN_THE_MODEL)
def test_the_model_finds(name: str) -> None:
    life = IN_THE_MODEL[name]
    live(life)
    with mutated(life.mutations), pytest.raises(AssertionError, match=life.finding):
        live(life)


def test_the_model_finds_a_repeated_command_that_is_not_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life([], _provision("repeated by SSH"), "a repeated command is recognized")
    live(life)
    text = '"$(readlink .last-change)" = "$request_nonce.$(generation_in_use)"'
    assert text in commands.CHANGE_SCRIPT
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", commands.CHANGE_SCRIPT.replace(text, "1 = 2"))
    with pytest.raises(AssertionError, match=life.finding):
        live(life)


def live(life: Life) -> None:
    """Let a fleet of one gateway whose requests cost and one whose requests repeat take these steps."""
    fleet = Fleet()
    try:
        fleet.inventory(("costly", "repeatable"))
        life.steps(fleet)
        fleet.every_thing_is_accounted_for()
        fleet.no_more_things_than_runs_account_for()
    finally:
        fleet.teardown()


@contextmanager
def mutated(mutations: list[Mutation]) -> Iterator[None]:
    """Put other functions in the place of some, wherever they were imported."""
    with pytest.MonkeyPatch.context() as patch:
        for function, old, new in mutations:
            owner, replacement = _replacement(function, old, new)
            if isinstance(owner, type):
                patch.setattr(owner, function.__name__, replacement)
                continue
            for module in list(sys.modules.values()):
                if getattr(module, function.__name__, None) is function:
                    patch.setattr(module, function.__name__, replacement)
        yield


def _replacement(function: Callable[..., Any], old: str, new: str) -> tuple[type | ModuleType, Callable[..., Any]]:
    """Compile a function with ``new`` in place of ``old`` in the namespace of its module; return its owner, too."""
    module = sys.modules[function.__module__]
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} does not contain {old!r} once"
    names: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + source.replace(old, new)
    exec(compile(text, f"<mutated {function.__qualname__}>", "exec"), names)
    code = names[function.__name__].__code__
    assert isinstance(function, FunctionType)
    replacement = FunctionType(code, module.__dict__, function.__name__, function.__defaults__)
    replacement.__kwdefaults__ = function.__kwdefaults__
    owner = getattr(module, function.__qualname__.partition(".")[0])
    return owner if isinstance(owner, type) else module, replacement

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner keeps its promises in every state that can exist: installed, spooled, marked, known and asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import due, plan
from model.states import (
    NOW,
    State,
    accounted,
    desired_of,
    known_things,
    observed_of,
    source_of,
    states,
    succeed,
)

MIN_STATES = 100_000
STRIDE = 11  # in short; a prime, so that every value of every dimension is visited
MAX_STEPS = 4
PLANS = (
    plan.Nothing,
    plan.Refuse,
    plan.WriteHistory,
    plan.SetAttributes,
    plan.Render,
    plan.Install,
    plan.Request,
)


class Broken(AssertionError):
    """A promise that does not hold in one state."""


def check(holds: bool, promise: str, state: State, *details: object) -> None:
    if not holds:
        raise Broken(f"{promise}: {state} {details}")


def visit(state: State, counts: Counter[Any]) -> None:
    """Check every promise in one state."""
    desired, source, observed = desired_of(state), source_of(state), observed_of(state)
    planned = plan.plan(desired, source, observed, NOW)
    counts[type(planned).__name__] += 1
    counts[planned.reason] += 1
    check(bool(planned.message) and planned.message[0] != "_", "every plan says why", state)
    may_create = desired.create or state.installed

    if isinstance(planned, plan.Request):
        check(
            _is_due(state) or state.spool in ("unusable", "not understood"), "nothing due, no request", state, planned
        )
        check(desired.repeatable or state.marker == "none", "one request at a time", state)
        check(desired.repeatable or not _waits(state), "what waits is installed before another Thing is made", state)
        check(may_create, "create: false never requests where nothing is installed", state)
        check(state.problem == "none", "what could fail is found before the request", state)
    is_free = state.problem == "none" and may_create and (desired.repeatable or state.marker == "none")
    if is_free and _is_due(state):
        idle = (plan.Nothing, plan.SetAttributes, plan.WriteHistory)
        check(not isinstance(planned, idle), "what is due is done", state, planned)
    if is_free and state.spool in ("waiting", "waiting again") and not state.rotate and not state.refused:
        check(isinstance(planned, plan.Install), "a response that waits is installed", state, planned)
    if state.problem == "gateway":
        harmless = (plan.Nothing, plan.Refuse)
        check(isinstance(planned, harmless), "a gateway that cannot be changed is left alone", state, planned)

    chain, requests, current = [planned], 0, observed
    calm = desired
    while not isinstance(chain[-1], (plan.Nothing, plan.Refuse)):
        after = succeed(chain[-1], calm, current, state)
        switches = isinstance(chain[-1], (plan.Install, plan.Request))  # what a wiped gateway had is listed again
        for thing in known_things(current):
            check(
                accounted(thing, after.observed, with_ledger=not switches),
                "no Thing is forgotten",
                state,
                chain[-1],
                thing,
            )
        requests += after.requested
        current = after.observed
        # force asks again on every run, which is what it is for
        calm = desired_of(_calm(state))
        chain.append(plan.plan(calm, source, current, NOW))
        check(len(chain) <= MAX_STEPS, "success is followed by nothing", state, *chain)
    check(requests <= 1, "one request settles it", state, *chain)
    if not isinstance(planned, plan.Refuse) and state.problem in ("none", "spool", "token"):
        last = chain[-1]
        is_settled = isinstance(last, plan.Nothing) or (requests == 0 and isinstance(last, plan.Refuse))
        check(is_settled, "success is followed by nothing", state, *chain)
    check_removal(state)


def check_removal(state: State) -> None:
    """Check that ``state: absent`` leaves nothing that a later run would install, and forgets no Thing."""
    desired, observed = desired_of(state), observed_of(state)
    planned = plan.plan_removal(desired, observed, NOW)
    check(isinstance(planned, (plan.Nothing, plan.Refuse, plan.Remove)), "a removal removes", state, planned)
    if isinstance(planned, plan.Refuse):
        check(state.problem == "gateway", "a removal is refused for a reason", state, planned)
        return
    after = succeed(planned, desired, observed, state).observed
    check(after.spooled == (), "absent leaves no spool entry", state, planned)
    check(isinstance(plan.plan_removal(desired, after, NOW), plan.Nothing), "a removal settles", state)
    for thing in known_things(observed):
        on_gateway = isinstance(planned, plan.Remove) and planned.on_gateway
        check(accounted(thing, after, with_ledger=not on_gateway), "no Thing is forgotten by absent", state, thing)


def _calm(state: State) -> State:
    return State(**{**vars(state), "force": False, "refused": False})


def _is_due(state: State) -> bool:
    """Return whether something asks for other credentials. This oracle shares nothing with the planner."""
    aged = state.max_age and state.bundle in ("old", "from the future")
    fresh = state.history == "confirmed"
    by_date = state.bundle in ("ending", "keys ending") and not fresh
    return (
        not state.installed
        or state.force
        or (state.rotate and state.has_record)
        or state.refused
        or state.bundle in ("ended", "unreadable", "response damaged", "other service", "other hardware ID")
        or (state.bundle == "file damaged" and (by_date or aged))
        or by_date
        or (aged and not fresh)
    )


def _waits(state: State) -> bool:
    return state.spool in ("waiting", "waiting again", "unusable", "not understood", "outdated and waiting") and not (
        state.rotate and state.spool != "never"
    )


def explore(stride: int, *, first: int = 0) -> Counter[Any]:
    """Visit each so-many-th state from the first on."""
    counts: Counter[Any] = Counter()
    for state in states(stride, first):
        counts["states"] += 1
        visit(state, counts)
    return counts


def test_every_state(capsys: pytest.CaptureFixture[str], full: bool) -> None:
    counts = explore(1 if full else STRIDE)
    with capsys.disabled():
        kinds = ", ".join(f"{kind.__name__} {counts[kind.__name__]}" for kind in PLANS)
        print(f"\nstate space: {counts['states']} states visited: {kinds}")
    assert counts["states"] >= MIN_STATES
    never = [kind.__name__ for kind in PLANS if not counts[kind.__name__]]
    never += [reason for reason in due.REASONS if not counts[reason]]
    assert not never, f"never produced: {never}"


def test_a_refusal_carries_its_error() -> None:
    state = State("costly", "bare", "empty", "live", "empty", "empty", "none", True, False, False, False, False, False)
    planned = plan.plan(desired_of(state), source_of(state), observed_of(state), NOW)
    assert isinstance(planned, plan.Refuse)
    assert isinstance(planned.error, ProvisioningError)
    assert planned.reason == planned.error.code == "concurrent_change"

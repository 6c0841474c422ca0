# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet lives for years in a model: runs, crashes, lost responses, wipes, wrong clocks. Its Things are counted.

Every Thing that the platform made is in use, in a spool, on a retirement list, deactivated, or named by a request
marker or a ledger; and there are no more of them than the runs account for.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId, same_thing
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.outcome import Outcome
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model.fleet import (
    FAULTS,
    Clock,
    Controller,
    Gateway,
    holds_unidentified,
    ledger_things,
    markers,
    spooled_things,
    thing_id_of,
)
from model.platform import Platform, Thing

KINDS = {"costly": ("cloudlocate", True), "repeatable": ("pointperfect", True), "anonymous": ("pointperfect", False)}
YEARS = timedelta(days=3650)

gateways = st.sampled_from((0, 1))
controllers = st.sampled_from((0, 1))


class Fleet(RuleBasedStateMachine):
    """Two gateways, two controllers, one platform."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="model-"))
        self.platform = Platform(self.root / "platform.json")
        self.clock = Clock()
        self.controllers = [Controller(name, self.root / name / "spool") for name in ("one", "two")]
        for controller in self.controllers:
            controller.spool.parent.mkdir()
        self.gateways: list[Gateway] = []
        self.allowed = 0  # how many Things the runs may have made

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize(kinds=st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS))))
    def inventory(self, kinds: tuple[str, str]) -> None:
        for number, kind in enumerate(kinds, 1):
            service, named = KINDS[kind]
            self.gateways.append(
                Gateway(
                    self.root / f"gateway-{number}",
                    service,
                    name=f"gw{number}",
                    hardware_id=f"hw-{number}" if named else None,
                    platform=self.platform,
                    clock=self.clock,
                    by=self.controllers[0],
                )
            )

    # ---- runs ----

    @rule(number=gateways, by=controllers, force=st.booleans(), max_age=st.sampled_from((None, 3, 60)))
    def provision(self, number: int, by: int, force: bool, max_age: int | None) -> None:
        self._provision(number, by, None, force=force, max_age=max_age)

    @rule(number=gateways, by=controllers, max_age=st.sampled_from((None, 3)))
    def renew(self, number: int, by: int, max_age: int | None) -> None:
        self._provision(number, by, None, create=False, max_age=max_age)

    @rule(number=gateways, by=controllers)
    def rotate(self, number: int, by: int) -> None:
        gateway = self._at(number, by)
        if gateway.service == "cloudlocate":  # PointPerfect returns the same credentials
            self.clock.now += timedelta(minutes=1)
            began = self.clock.now + gateway.by.ahead
            had_one = gateway.in_use()
            self._provision(number, by, None, create=False, rotate_before=began)
            is_free = gateway.by.is_mounted and not markers(gateway.by)
            if had_one is not None and is_free:
                assert not same_thing(had_one, gateway.in_use()), "a rotation replaces what is in use"

    @rule(
        number=gateways,
        by=controllers,
        fault=st.sampled_from(FAULTS),
        kill_at=st.integers(1, 40),
        force=st.booleans(),
        create=st.booleans(),
    )
    def provision_with_a_fault(self, number: int, by: int, fault: str, kill_at: int, force: bool, create: bool) -> None:
        self._provision(number, by, fault, kill_at, force=force, create=create)

    @rule(number=gateways, by=controllers, kill_at=st.integers(1, 40))
    def killed(self, number: int, by: int, kill_at: int) -> None:
        self._provision(number, by, "killed", kill_at, force=True)

    @rule(number=gateways, by=controllers)
    def activated_late(self, number: int, by: int) -> None:
        """Provision while the first response has no credentials and the device profile refuses a second request."""
        gateway = self._at(number, by)
        before = len(self.platform.things)
        self.platform.activates_late, self.platform.returns_existing = True, False
        first = gateway.provision()
        made = len(self.platform.things) - before
        self.allowed += made
        assert made <= 1
        if made and gateway.desired().repeatable:
            assert first == "activation_pending"
            assert gateway.provision() == "already_registered"
            assert "earlier request of this controller" in gateway.problem
        self.platform.activates_late, self.platform.returns_existing = False, True

    def _provision(self, number: int, by: int, fault: str | None, kill_at: int = 0, **changes: Any) -> None:
        gateway = self._at(number, by, fault, kill_at)
        is_empty = not (gateway.path / "current").is_symlink() and not spooled_things(gateway.by)
        before, requests = len(self.platform.things), self.platform.requests
        gateway.fault = None
        predicted = gateway.provision(check_mode=True, **changes)
        assert self.platform.requests == requests, "check mode sends no request"
        gateway.fault = fault
        outcome = gateway.provision(**changes)
        made, sent = len(self.platform.things) - before, self.platform.requests - requests
        self.allowed += made
        gateway.fault = None
        assert made <= 1, "a run makes one Thing at most"
        if fault is None:
            assert isinstance(outcome, type(predicted)), f"check mode shows what the run does: {predicted}, {outcome}"
        if isinstance(predicted, str):
            # a run can be killed before it refuses; of one that ended before that, the result is not known here
            assert outcome in (predicted, "killed", "done"), "check mode refuses what the run refuses"
        elif isinstance(outcome, Outcome):
            assert (outcome.reason, outcome.action == "none") == (predicted.reason, predicted.action == "none")
        if changes.get("create") is False and is_empty:
            assert sent == 0, "create: false sends no request where nothing is installed"
        if fault == "spool full":
            assert sent == 0, "a full disk is found before the request"
        if fault == "error before the request":
            assert not gateway.marker.exists() or gateway.had_marker, "nothing was sent, so that no marker stays"
        if fault == "repeated by SSH" and isinstance(predicted, Outcome):
            assert isinstance(outcome, Outcome), f"a repeated command is recognized: {outcome}"
        if isinstance(outcome, Outcome):
            self._settled(gateway, {name: value for name, value in changes.items() if name != "force"})

    def _settled(self, gateway: Gateway, changes: dict[str, Any]) -> None:
        """Check that, at the same moment, a run after a success has nothing more to do."""
        requests = self.platform.requests
        again = gateway.provision(**changes)
        assert self.platform.requests == requests, "a success is followed by nothing"
        assert isinstance(again, Outcome), again
        assert again.action == "none", (again.action, again.reason, again.message)

    @rule(number=gateways, by=controllers, other=controllers)
    def overlap(self, number: int, by: int, other: int) -> None:
        """Start another run while the first one waits for its response."""
        gateway = self._at(number, by)
        second = Gateway(**{**vars(gateway), "by": self.controllers[other], "meanwhile": None})
        before, inner = len(self.platform.things), 0
        results: list[Outcome | str] = []

        def meanwhile() -> None:
            nonlocal inner
            results.append(second.provision(force=True))
            inner = len(self.platform.things) - before

        gateway.meanwhile = meanwhile
        gateway.provision(force=True)
        gateway.meanwhile = None
        self.allowed += len(self.platform.things) - before
        if results and by == other and not gateway.desired().repeatable:
            assert results == ["concurrent_change"], "one request at a time"
            assert inner == 0

    @rule(number=gateways, by=controllers, fault=st.sampled_from((None, "killed")), kill_at=st.integers(1, 20))
    def remove(self, number: int, by: int, fault: str | None, kill_at: int) -> None:
        gateway = self._at(number, by, fault, kill_at)
        outcome = gateway.remove()
        gateway.fault = None
        if isinstance(outcome, Outcome):
            before = self.platform.requests
            again = gateway.provision(create=False)
            assert isinstance(again, Outcome), again
            assert (again.action, again.reason) == ("none", "absent"), "absent leaves nothing to install"
            assert self.platform.requests == before

    @rule(number=gateways)
    def roll_back(self, number: int) -> None:
        self._at(number, 0).return_to_earlier()

    # ---- what happens to gateways and controllers ----

    @rule(days=st.sampled_from((1, 4, 30, 400)))
    def time_passes(self, days: int) -> None:
        self.clock.now += timedelta(days=days)

    @rule(by=controllers, there=st.booleans())
    def volume(self, by: int, there: bool) -> None:
        self.controllers[by].mount(there=there)

    @rule(by=controllers, wrong=st.booleans())
    def clock_is_set(self, by: int, wrong: bool) -> None:
        self.controllers[by].ahead = YEARS if wrong else timedelta(0)

    @rule(number=gateways)
    def wipe(self, number: int) -> None:
        self.gateways[number].wipe()

    @rule(number=gateways, name=st.sampled_from(("thing.json", "credentials.json", "credentials.env")))
    def damage(self, number: int, name: str) -> None:
        file = self.gateways[number].path / "current" / name
        if file.exists():
            file.write_text("damaged")

    @rule(number=gateways)
    def unlink(self, number: int) -> None:
        (self.gateways[number].path / "current").unlink(missing_ok=True)

    @rule(number=gateways)
    def rename_host(self, number: int) -> None:
        self.gateways[number].name += "x"

    # ---- what people do ----

    @rule(number=gateways)
    def retire(self, number: int) -> None:
        """Deactivate the Things on the retirement list; the Thing in use is never on it."""
        gateway = self._at(number, 0)
        for thing_id in gateway.to_retire():
            thing = self._thing(thing_id)
            assert not self._in_use(thing), "a Thing in use is never on a retirement list"
            self.platform.deactivate(thing.number)

    @precondition(lambda self: any(markers(one) for one in self.controllers))
    @rule()
    def settle_lost_responses(self) -> None:
        """Deactivate the Things that only a request marker names, as a portal user would, and remove the markers."""
        for controller in self.controllers:
            for marker in markers(controller):
                for thing in self.platform.things:
                    if not thing.deactivated and not self._accounted(thing, with_markers=False):
                        self.platform.deactivate(thing.number)
                marker.file.unlink()

    # ---- the count ----

    @invariant()
    def every_thing_is_accounted_for(self) -> None:
        for thing in self.platform.things:
            assert thing.deactivated or self._accounted(thing, with_markers=True), f"Thing {thing} is forgotten"

    @invariant()
    def no_more_things_than_runs_account_for(self) -> None:
        assert len(self.platform.things) <= self.allowed

    def _accounted(self, thing: Thing, *, with_markers: bool) -> bool:
        thing_id = thing_id_of(thing)
        names: list[ThingId] = []
        for gateway in self.gateways:
            names += [*gateway.generations_on_disk(), *gateway.listed()]
        for controller in self.controllers:
            names += [*spooled_things(controller), *ledger_things(controller)]
        if any(same_thing(thing_id, name) for name in names):
            return True
        if thing.service == "pointperfect" and thing.hardware_id is not None:
            return True  # the next request returns it
        if thing.pending and any(holds_unidentified(one) for one in self.controllers):
            return True  # its response has no credentials yet, and waits in the spool, or the audit lists it
        named = [marker.hardware_id for one in self.controllers for marker in markers(one)]
        return with_markers and thing.hardware_id in named

    def _in_use(self, thing: Thing) -> bool:
        return any(same_thing(gateway.in_use(), thing_id_of(thing)) for gateway in self.gateways)

    def _thing(self, thing_id: ThingId) -> Thing:
        return next(thing for thing in self.platform.things if same_thing(thing_id_of(thing), thing_id))

    def _at(self, number: int, by: int, fault: str | None = None, kill_at: int = 0) -> Gateway:
        gateway = self.gateways[number]
        gateway.by, gateway.fault, gateway.kill_at = self.controllers[by], fault, kill_at
        gateway.had_marker = gateway.marker.exists()
        return gateway


def live(examples: int, steps: int, *, random: bool = False, quick: bool = False) -> None:
    """Let so many fleets live for so many steps each; raise ``AssertionError`` for the first that fails.

    :param quick: do not look for the shortest life that fails.
    """
    run_state_machine_as_test(
        Fleet,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=not random,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate,) if quick else tuple(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_fleet_lives_for_years(full: bool) -> None:
    live(80 if full else 8, 30 if full else 20, random=full)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Years of a gateway in seconds: a run every day, the clock of controller and platform moved on together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import parse_things
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import retirement, rollback
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Platform, Runtime, Target
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.ensure import ensure_absent, ensure_present
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.observe import Observed, look
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.outcome import Outcome
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory
from ansible_collections.thingstream.ztp.tests.unit.support import run_locally
from simulator.client import RunningSimulator

CA = "the CA of the broker\n"
DAY = timedelta(days=1)


@dataclass
class Life:
    """A gateway that is a directory, the controller's clock, and what happened on which day."""

    simulator: RunningSimulator
    directory: Path
    service: str
    token: str
    began: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    day: float = 0
    commands: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))
    happened: list[tuple[int, str, str]] = field(default_factory=list)

    def now(self) -> datetime:
        return self.began + self.day * DAY

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        self.commands += 1
        return run_locally(command, standard_input, secret)

    def runtime(self) -> Runtime:
        return Runtime(
            execute=self.execute,
            post=api.post,
            now=self.now,
            sleep=lambda _seconds: None,
            uniform=lambda low, _high: low,
            nonce=lambda: f"life{next(self.numbers)}",
            encrypt=None,
            decrypt=bytes,
            verify=lambda _credentials: None,
        )

    def target(self) -> Target:
        layout = Layout(str(self.directory / "gateway"), secret_mode=0o640, broker_ca=CA)
        return Target(layout, 0o750, None, None, 2)

    def desired(self, *, hardware_id: str | None = None, delivery: str | None = None, **renewal: Any) -> Desired:
        return Desired(
            service=SERVICES[self.service],
            host="life",
            hardware_id=hardware_id or str(self.directory),
            given_name="life",
            target=self.target(),
            renewal=RenewalPolicy.parse(**renewal),
            delivery=delivery,
        )

    def source(self, desired: Desired) -> Platform:
        return Platform(
            token=self.token,
            endpoint=api.Endpoint(
                url=self.simulator.url + desired.service.path,
                ca_path=str(self.simulator.ca_path),
                timeout=120,
                retries=0,
            ),
            tags=None,
            activation_timeout=0,
            place=directory.location(str(self.directory / "spool"), self.service, desired.hardware_id, "life"),
        )

    def look(self) -> Observed:
        return look(self.target(), self.runtime())

    def pass_days(self, days: float) -> None:
        self.day += days
        self.simulator.set_clock_offset(self.day * 86400)

    def run(self, desired: Desired) -> Outcome:
        outcome = ensure_present(desired, self.source(desired), self.runtime())
        if outcome.action != "none":
            self.happened.append((round(self.day), outcome.action, outcome.reason))
        return outcome

    def live(self, days: int, desired: Desired, every: int = 1) -> None:
        """Run once every ``every`` days, for ``days`` days in all."""
        for _day in range(0, days, every):
            self.run(desired)
            self.pass_days(every)

    @property
    def gaps(self) -> list[int]:
        """Days between what happened."""
        dates = [day for day, _action, _reason in self.happened]
        return [later - earlier for earlier, later in itertools.pairwise(dates)]

    def keys_cover(self) -> bool:
        """Return whether one of the installed dynamic keys is valid now."""
        response = credentials.decode((self.directory / "gateway/current/credentials.json").read_bytes())
        fields = credentials.extract(response, SERVICES[self.service], {})
        parsed = credentials.check(response, fields, SERVICES[self.service], {}, self.now())
        keys = [key for key in (parsed.keys_current, parsed.keys_next) if key]
        return any(key.start <= self.now() <= key.end for key in keys)


@pytest.fixture
def life(simulator: RunningSimulator, tmp_path: Path) -> Iterator[Life]:
    token = simulator.put_profile("life", service="pointperfect", simulator={"certificate_days": 730}, plan="mqtt")
    yield Life(simulator, tmp_path, "pointperfect", token)
    simulator.set_clock_offset(0)


@pytest.mark.full
def test_years_of_keys_and_certificates(life: Life) -> None:
    desired = life.desired(renew_before="10%")
    life.run(desired)
    for _day in range(630):
        outcome = life.run(desired)
        assert life.keys_cover(), f"the gateway stands without a key on day {life.day}"
        assert outcome.due_at is not None
        assert outcome.due_at > life.now()
        life.pass_days(1)
    assert life.happened[0] == (0, "created", "absent")
    assert set(life.happened[1:]) == {(day, "refreshed", "keys_expiring") for day, *_rest in life.happened[1:]}
    assert set(life.gaps[1:]) == {28}
    assert len(life.simulator.things(hardware_id=str(life.directory))) == 1

    # 10 % before the end of its 730 days the certificate is due; the platform keeps it until it is replaced there
    certificates = {outcome.thing["fingerprint_sha256"] for outcome in [life.run(desired)] if outcome.thing}
    life.happened.clear()
    before = life.simulator.things(hardware_id=str(life.directory))[0]
    life.pass_days(730 - life.day - 73)
    assert life.run(desired).reason == "expiring"
    # the profile creates a new Thing: what happens in the portal when the old one is removed
    life.token = life.simulator.put_profile(
        "life", service="pointperfect", simulator={"certificate_days": 730, "new_thing_on_repeat": True}, plan="mqtt"
    )
    life.pass_days(1)
    outcome = life.run(life.desired(renew_before="10%"))
    assert (outcome.action, outcome.reason) == ("renewed", "expiring")
    assert outcome.thing is not None
    assert outcome.thing["fingerprint_sha256"] not in certificates
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == [before["client_id"]]
    assert life.run(life.desired(renew_before="10%")).action == "none"


def test_a_renewal_that_is_refused_leaves_what_works(life: Life) -> None:
    desired = life.desired(renew_before="30")
    first = life.run(desired)
    life.pass_days(720)
    (thing,) = life.simulator.things(hardware_id=str(life.directory))
    life.simulator.deactivate(thing["id"])
    for _day in range(3):
        with pytest.raises(ProvisioningError) as caught:
            life.run(desired)
        assert caught.value.code == "no_plan"
        bundle = life.look().gateway.bundle
        assert bundle.current == first.generation
        assert not bundle.leftovers
        life.pass_days(1)
    life.simulator.activate(thing["id"])
    assert life.run(desired).reason == "expiring"


def test_passwords_are_renewed_by_age(life: Life) -> None:
    """CloudLocate: no date, every renewal another Thing, and a retirement list that is worked through once a year."""
    life.service = "cloudlocate"
    life.token = life.simulator.put_profile("life", service="cloudlocate")
    desired = life.desired(max_age=90, renew_spread=0)
    life.live(364, desired, every=2)
    assert life.happened == [
        (0, "created", "absent"),
        *((day, "renewed", "max_age") for day in (90, 180, 270, 360)),
    ]
    things = [thing["client_id"] for thing in life.simulator.things(hardware_id=str(life.directory))]
    thing = life.run(desired).thing
    assert thing is not None
    assert [entry["client_id"] for entry in thing["retired"]] == things[:-1]

    assert retirement.ensure_retired(life.target(), life.runtime(), parse_things(thing["retired"][:2])).changed
    back = rollback.ensure_rolled_back(life.target(), life.runtime(), None)
    assert back.thing is not None
    assert back.thing["client_id"] == things[-2]
    assert [entry["client_id"] for entry in back.thing["retired"]] == [things[2], things[-1]]
    removed = ensure_absent(desired, life.source(desired), life.runtime())
    assert removed.thing is not None
    assert {entry["client_id"] for entry in removed.thing["retired"]} == set(things[2:])
    again = life.run(desired)
    assert again.action == "created"
    assert again.thing is not None
    assert {entry["client_id"] for entry in again.thing["retired"]} == set(things[2:])


def test_credentials_without_a_date_that_the_platform_confirms(life: Life) -> None:
    """PointPerfect over NTRIP: asked once per age, not every day."""
    life.token = life.simulator.put_profile("life", service="pointperfect", format="RTCM")
    desired = life.desired(max_age=60, renew_spread=0)
    life.simulator.clear_requests()
    life.live(240, desired, every=3)
    assert [action for _day, action, _reason in life.happened] == ["created", "unchanged", "unchanged", "unchanged"]
    assert life.gaps == [60, 60, 60]
    assert len(life.simulator.requests(hardware_id=str(life.directory))) == 4


@pytest.mark.full
def test_a_fleet_is_spread_over_its_days(life: Life) -> None:
    """The same day for one gateway, never the same day for all."""
    days: dict[str, int] = {}
    lives = [replace(life, directory=life.directory / str(number), happened=[]) for number in range(12)]
    for one in lives:
        one.directory.mkdir()
        one.run(one.desired())
    for _day in range(45):
        life.pass_days(1)
        for one in lives:
            one.day = life.day
            if one.run(one.desired()).action == "refreshed":
                days.setdefault(str(one.directory), round(one.day))
    assert len(days) == len(lives)
    assert len(set(days.values())) > 3
    assert max(days.values()) - min(days.values()) <= 7


def test_from_mqtt_to_ntrip_and_back(life: Life) -> None:
    first = life.run(life.desired())
    assert first.thing is not None
    life.pass_days(40)
    with pytest.raises(ProvisioningError) as caught:
        life.run(life.desired(delivery="ntrip"))
    assert caught.value.code == "wrong_delivery"
    life.token = life.simulator.put_profile(
        "moved", service="pointperfect", format="RTCM", simulator={"new_thing_on_repeat": True}
    )
    moved = life.run(life.desired(delivery="ntrip", hardware_id=f"{life.directory}-moved"))
    assert (moved.action, moved.reason) == ("renewed", "service_changed")
    assert moved.thing is not None
    assert moved.thing["delivery"] == ["ntrip"]
    assert [entry["client_id"] for entry in moved.thing["retired"]] == [first.thing["client_id"]]
    back = rollback.ensure_rolled_back(life.target(), life.runtime(), None)
    assert back.thing is not None
    assert back.thing["client_id"] == first.thing["client_id"]
    assert [entry["hardware_id"] for entry in back.thing["retired"]] == [f"{life.directory}-moved"]


def test_nothing_due_is_one_command(life: Life) -> None:
    desired = life.desired()
    life.run(desired)
    life.commands = 0
    life.simulator.clear_requests()
    life.live(7, desired)
    assert life.simulator.requests() == []
    assert life.commands == 7

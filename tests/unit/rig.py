# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rig for whole runs against a directory of this machine: commands really run, platform and clock are scripted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import history
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render as bundle
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import GatewayUnreachable, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import policy, provision, retirement, rollback
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.order import Order, Outcome, Runtime, Target
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    KEY_CURRENT,
    KEY_NEXT,
    NOW,
    TOKEN,
    Pair,
    assert_no_secret,
    dynamic_key,
    encoded,
    parse,
    run_locally,
    spartn,
)

CA = "the CA of the broker\n"

Reply = Mapping[str, Any] | bytes | api.Answer | Exception
Hook = Callable[[str, bytes], tuple[int, str, str] | None]


def flip(content: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in content)


@dataclass
class Rig:
    """A controller and a gateway that are both this machine, and a platform that answers what is written."""

    root: Path
    service: str = "pointperfect"
    controller: str = "spool"
    replies: list[Reply] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    now: datetime = NOW
    hook: Hook | None = None
    cipher: Callable[[bytes], bytes] | None = None
    proof: ProvisioningError | None = None
    proven: list[Any] = field(default_factory=list)

    # ---- the runtime ----

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        self.commands.append(command)
        assert_no_secret(command)
        assert TOKEN.encode() not in standard_input, "the token never reaches a gateway"
        if self.hook is not None and command != "sh -s":
            hook, self.hook = self.hook, None
            answer = hook(command, standard_input)
            if answer is not None:
                return answer
        return run_locally(command, standard_input, secret)

    def post(self, endpoint: api.Endpoint, payload: bytes) -> api.Answer:
        self.bodies.append(json.loads(payload))
        assert self.replies, "the platform was asked once too often"
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, api.Answer):
            return reply
        return api.Answer(200, {}, reply if isinstance(reply, bytes) else encoded(reply))

    def prove(self, parsed: Any) -> None:
        self.proven.append(parsed)
        if self.proof is not None:
            raise self.proof

    def runtime(self) -> Runtime:
        return Runtime(
            execute=self.execute,
            post=self.post,
            now=lambda: self.now,
            sleep=self.sleeps.append,
            uniform=lambda low, high: low,
            nonce=lambda: f"{self.controller}{len(self.commands)}",
            encrypt=self.cipher,
            decrypt=self.cipher or bytes,
            prove=self.prove,
        )

    # ---- what is wanted ----

    def order(self, **changes: Any) -> Order:
        wanted: dict[str, Any] = {
            "service": self.service,
            "hardware_id": "hw-1",
            "broker_ca_sha256": bundle.digest(CA.encode()),
        }
        wanted.update({name: changes.pop(name) for name in list(changes) if name in policy.Wanted.__annotations__})
        given: dict[str, Any] = {
            "service": SERVICES[self.service],
            "wanted": policy.Wanted(**wanted),
            "token": TOKEN,
            "given_name": "gw1",
            "tags": ("ztp",),
            "field_map": {},
            "endpoint": api.Endpoint("https://api.example.com/ztp", retries=1),
            "repeatable": SERVICES[self.service].repeatable,
            "activation_timeout": 120.0,
            "target": self.target(
                **{name: changes.pop(name) for name in list(changes) if name in Target.__annotations__}
            ),
            "spool_place": self.spool_place,
        }
        return Order(**{**given, **changes})

    def target(self, **changes: Any) -> Target:
        given: dict[str, Any] = {
            "layout": Layout(str(self.path), secret_mode=0o640, public_mode=0o644, broker_ca=CA),
            "directory_mode": 0o750,
            "owner": None,
            "group": None,
            "keep": 2,
        }
        return Target(**{**given, **changes})

    def present(self, *replies: Reply, check_mode: bool = False, **changes: Any) -> Outcome:
        return self._run(provision.ensure_present, replies, check_mode, changes)

    def absent(self, check_mode: bool = False) -> Outcome:
        return self._run(provision.ensure_absent, (), check_mode, {})

    def roll_back(
        self, generation: str | None = None, *, force: bool = False, check_mode: bool = False, **changes: Any
    ) -> Outcome:
        self.commands = []
        outcome = rollback.ensure_rolled_back(
            self.target(**changes), self.runtime(), generation, force=force, check_mode=check_mode
        )
        assert_no_secret(outcome)
        return outcome

    def retire(self, *things: Mapping[str, Any], check_mode: bool = False) -> Outcome:
        self.commands = []
        outcome = retirement.ensure_retired(self.target(), self.runtime(), things, check_mode=check_mode)
        assert_no_secret(outcome)
        return outcome

    def _run(
        self, ensure: Callable[..., Outcome], replies: tuple[Reply, ...], check_mode: bool, changes: dict[str, Any]
    ) -> Outcome:
        self.replies = list(replies)
        self.bodies, self.commands, self.sleeps = [], [], []
        order = self.order(**changes)
        assert_no_secret(order)
        outcome = ensure(order, self.runtime(), check_mode)
        assert not self.replies, "the platform was asked too seldom"
        assert_no_secret(outcome)
        return outcome

    def fails(self, *replies: Reply, **changes: Any) -> ProvisioningError:
        with pytest.raises(ProvisioningError) as caught:
            self.present(*replies, **changes)
        assert not self.replies, "the platform was asked too seldom"
        assert_no_secret(caught.value)
        return caught.value

    # ---- what is there ----

    @property
    def path(self) -> Path:
        return self.root / "etc" / "thingstream" / "x"

    @property
    def current(self) -> Path:
        return self.path / "current"

    @property
    def generations(self) -> list[str]:
        return sorted(entry.name for entry in (self.path / "generations").iterdir())

    @property
    def spool_place(self) -> Path:
        return spool.location(str(self.root / self.controller), self.service, "hw-1", "gw1")

    @property
    def spool_file(self) -> Path:
        """The one entry in the spool."""
        (file,) = spool.files(self.spool_place)
        return file

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.current / "thing.json").read_text())
        return record

    @property
    def history(self) -> Any:
        """What is written down of the past; ``None`` where nothing is."""
        file = self.path / "history.json"
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def retired(self) -> list[dict[str, Any]]:
        """The retirement list as the next run sees it."""
        held = provision.look(self.target(), self.runtime())
        return history.retired(provision.past_of(held), held.record)

    @property
    def retired_ids(self) -> list[Any]:
        return [entry["client_id"] for entry in self.retired]

    def rewrite(self, **changes: Any) -> None:
        """Somebody edits the record; ``...`` removes a key."""
        record = {name: value for name, value in {**self.record, **changes}.items() if value is not ...}
        (self.current / "thing.json").write_text(json.dumps(record))

    def assert_in_order(self, *also: str) -> None:
        """Complete, private, nothing left behind (in the path, ``also`` may be there), and spool is empty."""
        link = self.current.readlink()
        assert link.parent == Path("generations")
        assert len(link.name) == 6
        record = self.record
        found = {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in self.current.iterdir()}
        assert found.pop("thing.json")
        assert found == record["files"]
        modes = bundle.file_modes(record, 0o640, 0o644)
        assert {entry.name: entry.stat().st_mode & 0o7777 for entry in self.current.iterdir()} == modes
        for directory in (self.path, self.path / "generations", self.current.resolve()):
            assert directory.stat().st_mode & 0o7777 == 0o750
        assert {entry.name for entry in self.path.iterdir()} <= {"current", "generations", "history.json", *also}
        assert spool.files(self.spool_place) == []


def install_by_hand(rig: Rig, pair: Pair) -> None:
    """A gateway that is in order, with a pair and dynamic keys, as a first run leaves one."""
    response = spartn(pair)
    identity = {"hardware_id": "hw-1", "given_name": "gw1", "retired": []}
    files, _record = bundle.render(parse(response), encoded(response), rig.target().layout, None, identity, NOW)
    generation = rig.path / "generations" / "000001"
    generation.mkdir(parents=True)
    for name, file in files.items():
        (generation / name).write_bytes(file.content)
        (generation / name).chmod(file.mode)
    for directory in (rig.path, rig.path / "generations", generation):
        directory.chmod(0o750)
    rig.current.symlink_to("generations/000001")
    (rig.root / rig.controller).mkdir(mode=0o700)


def newer_keys(pair: Pair) -> dict[str, Any]:
    """The same Thing, one rotation later."""
    keys = {"current": dynamic_key(KEY_NEXT, NOW + 23 * DAY), "next": dynamic_key(KEY_CURRENT, NOW + 51 * DAY)}
    return spartn(pair, dynamickeys=keys)


def unreachable(command: str, standard_input: bytes) -> tuple[int, str, str]:
    raise GatewayUnreachable("ssh: connection reset.")


def corrupt(path: Path) -> None:
    path.write_bytes(b"corrupt")

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rig for whole runs against a directory of this machine: commands really run, platform and clock are scripted."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import parse_things
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.render import Origin
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import GatewayUnreachable, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import ensure, observe, retirement, rollback
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Platform, Runtime, Target
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.outcome import Outcome
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, ledger, responses
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

Reply = Mapping[str, Any] | bytes | api.HttpResponse | BaseException
Hook = Callable[[str, bytes], tuple[int, str, str] | None]


def _names(kind: type) -> set[str]:
    return {one.name for one in fields(kind)}


def flip(content: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in content)


RENEWAL = ("renew_before", "renew_spread", "keys_renew_before", "max_age")


@dataclass(frozen=True)
class Run:
    """An outcome in plain data, as results show it."""

    outcome: Outcome

    @property
    def action(self) -> str:
        return self.outcome.action

    @property
    def reason(self) -> str:
        return self.outcome.reason

    @property
    def message(self) -> str:
        return self.outcome.message

    @property
    def changed(self) -> bool:
        return self.outcome.changed

    @property
    def generation(self) -> str | None:
        return self.outcome.generation

    @property
    def due_at(self) -> datetime | None:
        return self.outcome.due_at

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.outcome.warnings

    @property
    def before(self) -> dict[str, Any] | None:
        return self.outcome.before.to_dict() if self.outcome.before else None

    @property
    def thing(self) -> dict[str, Any] | None:
        return self.outcome.thing

    @property
    def files(self) -> tuple[dict[str, Any], ...]:
        return tuple({**vars(file), "mode": f"{file.mode:04o}"} for file in self.outcome.files)


@dataclass
class Rig:
    """A controller and a gateway that are both this machine, and a platform with scripted responses."""

    root: Path
    service: str = "pointperfect"
    controller: str = "spool"
    hardware_id: str | None = "hw-1"
    replies: list[Reply] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    now: datetime = NOW
    hook: Hook | None = None
    cipher: Callable[[bytes], bytes] | None = None
    refusal: ProvisioningError | None = None
    verified: list[Any] = field(default_factory=list)
    unverified: str | None = None  # what the verification of credentials in use cannot find out

    # ---- the runtime ----

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        self.commands.append(command)
        assert_no_secret(command)
        assert TOKEN.encode() not in standard_input, "the token never reaches a gateway"
        if self.hook is not None and command != "exec sh -s":
            hook, self.hook = self.hook, None
            output = hook(command, standard_input)
            if output is not None:
                return output
        return run_locally(command, standard_input, secret)

    def post(self, endpoint: api.Endpoint, payload: bytes, sending: api.Sending) -> api.HttpResponse:
        """Respond as ``api.post`` does: keep the body that arrives, and note whether the request may have arrived."""
        self.bodies.append(json.loads(payload))
        assert self.replies, "one request too many"
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            sending.may_have_arrived = not isinstance(reply, (api.NotSent, ProvisioningError))
            raise reply
        sending.may_have_arrived = True
        if isinstance(reply, api.HttpResponse):
            return reply
        body = reply if isinstance(reply, bytes) else encoded(reply)
        sending.keep(body)
        return api.HttpResponse(200, {}, body)

    def verify(self, parsed: Any) -> None:
        self.verified.append(parsed)
        if self.refusal is not None:
            raise self.refusal

    def verify_in_use(self, parsed: Any) -> str | None:
        self.verify(parsed)
        return self.unverified

    def runtime(self) -> Runtime:
        return Runtime(
            execute=self.execute,
            post=self.post,
            now=lambda: self.now,
            sleep=self.sleeps.append,
            uniform=lambda low, high: low,
            nonce=lambda: secrets.token_hex(8),
            encrypt=self.cipher,
            decrypt=self.cipher or bytes,
            verify=self.verify,
            verify_in_use=self.verify_in_use,
        )

    # ---- what is desired ----

    def desired(self, **changes: Any) -> Desired:
        renewal = {"renew_spread": 0, **{name: changes.pop(name) for name in list(changes) if name in RENEWAL}}
        target = {name: changes.pop(name) for name in list(changes) if name in _names(Target)}
        given: dict[str, Any] = {
            "service": SERVICES[self.service],
            "host": "gw1",
            "hardware_id": self.hardware_id,
            "anonymous": True,
            "allow_volatile": True,  # some systems have /tmp in memory
            "given_name": "gw1",
            "target": self.target(**target),
            "renewal": RenewalPolicy.parse(**renewal),
            "broker_ca_sha256": render.digest(CA.encode()),
        }
        return Desired(**{**given, **changes})

    def source(self, **changes: Any) -> Platform:
        given: dict[str, Any] = {
            "token": TOKEN,
            "endpoint": api.Endpoint("https://api.example.com/ztp", retries=1),
            "tags": ("ztp",),
            "activation_timeout": 120.0,
            "place": self.spool_place,
        }
        return Platform(**{**given, **changes})

    def target(self, **changes: Any) -> Target:
        given: dict[str, Any] = {
            "layout": Layout(str(self.path), secret_mode=0o640, broker_ca=CA),
            "directory_mode": 0o750,
            "owner": None,
            "group": None,
            "keep": 2,
        }
        return Target(**{**given, **changes})

    def present(self, *replies: Reply, check_mode: bool = False, **changes: Any) -> Run:
        return self._run(ensure.ensure_present, replies, check_mode, changes)

    def absent(self, check_mode: bool = False, **changes: Any) -> Run:
        return self._run(ensure.ensure_absent, (), check_mode, changes)

    def roll_back(
        self, generation: str | None = None, *, force: bool = False, check_mode: bool = False, **changes: Any
    ) -> Run:
        self.commands = []
        outcome = rollback.ensure_rolled_back(
            self.target(**changes), self.runtime(), generation, force=force, check_mode=check_mode
        )
        assert_no_secret(outcome)
        return Run(outcome)

    def retire(self, *things: Mapping[str, Any], check_mode: bool = False) -> Run:
        self.commands = []
        marked = parse_things([dict(thing) for thing in things])
        outcome = retirement.ensure_retired(self.target(), self.runtime(), marked, check_mode=check_mode)
        assert_no_secret(outcome)
        return Run(outcome)

    def _run(
        self, job: Callable[..., Outcome], replies: tuple[Reply, ...], check_mode: bool, changes: dict[str, Any]
    ) -> Run:
        self.replies = list(replies)
        self.bodies, self.commands, self.sleeps = [], [], []
        platform = {name: changes.pop(name) for name in list(changes) if name in _names(Platform)}
        desired = self.desired(**changes)
        source = self.source(**{"place": self.place_of(desired.hardware_id), **platform})
        assert_no_secret(desired, source)
        outcome = job(desired, source, self.runtime(), check_mode=check_mode)
        assert not self.replies, "too few requests"
        assert_no_secret(outcome)
        return Run(outcome)

    def fails(self, *replies: Reply, **changes: Any) -> ProvisioningError:
        with pytest.raises(ProvisioningError) as caught:
            self.present(*replies, **changes)
        assert not self.replies, "too few requests"
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
    def spool(self) -> Path:
        """The spool directory."""
        return self.root / self.controller

    @property
    def spool_place(self) -> Path:
        return self.place_of(self.hardware_id)

    def place_of(self, hardware_id: str | None) -> Path:
        return directory.location(str(self.spool), self.service, hardware_id, f"gw1 {self.path}")

    @property
    def spool_files(self) -> list[Path]:
        """Entries, request markers and whatever else is in the spool; the ledger stays."""
        return sorted(file for file in self.spool.iterdir() if file.name != "ledger")

    @property
    def spool_file(self) -> Path:
        """The one entry in the spool."""
        (file,) = responses.entry_files(self.spool_place)
        return file

    @property
    def ledger(self) -> list[dict[str, str | None]]:
        """The entries of the ledger for this place."""
        return [entry.to_dict() for entry in ledger.read(self.spool_place).entries]

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.current / "thing.json").read_text())
        return record

    @property
    def history(self) -> Any:
        """The history; ``None`` if there is none."""
        file = self.path / "history.json"
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def retired(self) -> list[dict[str, str | None]]:
        """The retirement list as the next run sees it."""
        observed = observe.look(self.target(), self.runtime())
        in_use = observed.record.thing_id if observed.record else None
        return [thing.to_dict() for thing in observed.history.retired(in_use)]

    @property
    def retired_ids(self) -> list[Any]:
        return [entry["client_id"] for entry in self.retired]

    def rewrite(self, **changes: Any) -> None:
        """Edit the record by hand; ``...`` removes a key."""
        record = {name: value for name, value in {**self.record, **changes}.items() if value is not ...}
        (self.current / "thing.json").write_text(json.dumps(record))

    def assert_in_order(self, *also: str) -> None:
        """Check that the bundle is complete and private, the path clean except for ``also``, and the spool empty."""
        link = self.current.readlink()
        assert link.parent == Path("generations")
        assert len(link.name) == 6
        record = self.record
        found = {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in self.current.iterdir()}
        assert found.pop("thing.json")
        assert found == record["files"]
        parsed = Record.parse(json.dumps(record))
        assert parsed is not None
        modes = render.file_modes(parsed, 0o640)
        assert {entry.name: entry.stat().st_mode & 0o7777 for entry in self.current.iterdir()} == modes
        for folder in (self.path, self.path / "generations", self.current.resolve()):
            assert folder.stat().st_mode & 0o7777 == 0o750
        assert {entry.name for entry in self.path.iterdir()} <= {
            "current",
            "generations",
            "history.json",
            ".last-change",
            *also,
        }
        assert self.spool_files == []


def install_by_hand(rig: Rig, pair: Pair) -> None:
    """Set up a gateway in order, with a pair and dynamic keys, as a first run leaves it."""
    response = spartn(pair)
    origin = Origin(None, NOW, "hw-1", "gw1")
    files, _record = render.render(parse(response), encoded(response), rig.target().layout, None, origin)
    generation = rig.path / "generations" / "000001"
    generation.mkdir(parents=True)
    for name, file in files.items():
        (generation / name).write_bytes(file.content)
        (generation / name).chmod(file.mode)
    for folder in (rig.path, rig.path / "generations", generation):
        folder.chmod(0o750)
    rig.current.symlink_to("generations/000001")
    (rig.root / rig.controller).mkdir(mode=0o700)


def newer_keys(pair: Pair) -> dict[str, Any]:
    """Return a response with the same Thing, one rotation later."""
    keys = {"current": dynamic_key(KEY_NEXT, NOW + 23 * DAY), "next": dynamic_key(KEY_CURRENT, NOW + 51 * DAY)}
    return spartn(pair, dynamickeys=keys)


def unreachable(command: str, standard_input: bytes) -> tuple[int, str, str]:
    raise GatewayUnreachable("ssh: connection reset.")


def corrupt(path: Path) -> None:
    path.write_bytes(b"corrupt")

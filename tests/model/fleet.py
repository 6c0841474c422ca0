# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gateways and controllers of the model: directories on which the real job runs, with faults on demand."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.thing_id import ThingId
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import GatewayUnreachable, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import ensure, observe, retirement, rollback
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Runtime
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Platform as Source
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.outcome import Outcome
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, ledger, requests, responses
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from ansible_collections.thingstream.ztp.tests.unit.support import NOW, TOKEN, encoded, run_locally
from model.platform import Platform, Thing

FAULTS = (
    "error before the request",
    "response lost",
    "refused",
    "unreachable before",
    "unreachable after",
    "repeated by SSH",
    "spool full",
    "killed",
)


@dataclass
class Clock:
    """Real time, which moves on for all."""

    now: datetime = NOW


@dataclass
class Controller:
    """A controller with a spool of its own, and a clock that may be wrong."""

    name: str
    spool: Path
    ahead: timedelta = timedelta(0)

    @property
    def is_mounted(self) -> bool:
        """Whether the volume with the spool is there."""
        return self.spool.parent.is_dir()

    def mount(self, *, there: bool) -> None:
        """Take the volume away, or bring it back with what it holds."""
        aside = self.spool.parent.with_suffix(".unmounted")
        if there and aside.exists():
            aside.rename(self.spool.parent)
        elif not there and self.is_mounted:
            self.spool.parent.rename(aside)


@dataclass
class Gateway(Rig):
    """One gateway, of one service, and the inventory's view of it."""

    name: str = "gw1"
    hardware_id: str | None = "hw-1"
    platform: Platform = field(default=None)  # type: ignore[assignment]
    clock: Clock = field(default_factory=Clock)
    by: Controller = field(default=None)  # type: ignore[assignment]
    fault: str | None = None
    kill_at: int = 0
    meanwhile: Callable[[], None] | None = None
    had_marker: bool = False
    problem: str = ""

    @property
    def marker(self) -> Path:
        return self.spool_place.with_name(f"{self.spool_place.name}{requests.SUFFIX}")

    # ---- how the job sees it ----

    @property
    def spool_place(self) -> Path:
        identity = f"{self.name} {self.path}"
        return directory.location(str(self.by.spool), self.service, self.hardware_id, identity)

    def desired(self, **changes: Any) -> Desired:
        return super().desired(
            **{"host": self.name, "given_name": self.name, "hardware_id": self.hardware_id, **changes}
        )

    def runtime(self) -> Runtime:
        return replace(super().runtime(), now=lambda: self.clock.now + self.by.ahead)

    def post(self, endpoint: api.Endpoint, payload: bytes, sending: api.Sending) -> api.HttpResponse:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if self.fault == "error before the request":
            raise Unexpected
        request: dict[str, Any] = json.loads(payload)
        assert request["token"] == TOKEN
        if self.fault == "refused":
            return api.HttpResponse(403, {}, b"Device hardware code not whitelisted")
        sending.may_have_arrived = True
        response = self.platform.answer(request, self.service, self.clock.now)
        if self.fault == "response lost":
            raise api.OutcomeUnknown(ProvisioningError("timeout", "No response."))
        if response is None:
            return api.HttpResponse(403, {}, b"Device already registered")
        sending.keep(encoded(response))
        return api.HttpResponse(200, {}, encoded(response))

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        assert TOKEN.encode() not in standard_input
        changes = b"request_command=install" in standard_input or command != "exec sh -s"
        if changes and self.fault == "unreachable before":
            raise GatewayUnreachable("no route.")
        output = run_locally(command, standard_input, secret)
        if changes and self.fault == "repeated by SSH":
            output = run_locally(command, standard_input, secret)
        if changes and self.fault == "unreachable after":
            raise GatewayUnreachable("broken.")
        return output

    # ---- runs ----

    def run(self, job: Callable[[], Outcome]) -> Outcome | str:
        """Run a job with the present fault; return its outcome, or the code of the error that it ended with."""
        try:
            if self.fault == "killed":
                return self._killed(job)
            if self.fault == "spool full":
                with _full_disk():
                    return job()
            return job()
        except ProvisioningError as error:
            self.problem = error.message
            return error.code
        except GatewayUnreachable:
            return "unreachable"
        except Unexpected:
            return "unexpected"

    def provision(self, *, check_mode: bool = False, **changes: Any) -> Outcome | str:
        source = self.source(activation_timeout=0)
        return self.run(
            lambda: ensure.ensure_present(self.desired(**changes), source, self.runtime(), check_mode=check_mode)
        )

    def remove(self) -> Outcome | str:
        return self.run(lambda: ensure.ensure_absent(self.desired(), self.source(), self.runtime()))

    def return_to_earlier(self) -> Outcome | str:
        return self.run(lambda: rollback.ensure_rolled_back(self.target(), self.runtime(), None))

    def source(self, **changes: Any) -> Source:
        endpoint = api.Endpoint("https://api.example.com", retries=0)
        return super().source(**{"endpoint": endpoint, "make_spool_parents": False, **changes})

    def _killed(self, job: Callable[[], Outcome]) -> Outcome | str:
        """Run a job in a process that is killed before its so-many-th effect."""
        process = os.fork()
        if process == 0:
            try:
                with _counted(self.kill_at, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                    self.fault = None
                    self.run(job)
            finally:
                os._exit(0)
        _pid, status = os.waitpid(process, 0)
        return "killed" if os.WIFSIGNALED(status) else "done"

    # ---- what became of it ----

    def in_use(self) -> ThingId | None:
        observed = observe.look(self.target(), self.runtime())
        return observed.record.thing_id if observed.record else None

    def listed(self) -> list[ThingId]:
        """Return the Things in the history of this gateway, in use or not."""
        observed = observe.look(self.target(), self.runtime())
        return [thing.thing_id for thing in observed.history.things if thing.thing_id is not None]

    def to_retire(self) -> list[ThingId]:
        observed = observe.look(self.target(), self.runtime())
        record = observed.record
        found = retirement.retirement_list(
            observed.history, observed.gateway.bundle.current, record.as_former() if record else None
        )
        return [thing.thing_id for thing in found if thing.thing_id is not None]

    def generations_on_disk(self) -> list[ThingId]:
        """Return the Things of all generations. No generation is deleted before its Thing is written down."""
        found = []
        for file in sorted(self.path.glob("generations/*/thing.json")):
            record = Record.parse(file.read_text(errors="replace"))
            found += [record.thing_id] if record else []
        return found

    def wipe(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Unexpected(Exception):
    """An error that nothing foresees."""


def thing_id_of(thing: Thing) -> ThingId:
    """Return the identity that the collection gives to a Thing of the platform."""
    login = hashlib.sha256(f"login user{thing.number}".encode()).hexdigest()
    return ThingId(f"device:{thing.number}" if thing.service == "cloudlocate" else None, login)


def spooled_things(controller: Controller) -> list[ThingId]:
    """Return the Things whose responses wait in a spool, mounted or not; an empty file is no entry."""
    found: list[ThingId] = []
    for file in directory.files(_files(controller), responses.SUFFIX, hidden=True):
        text = file.read_bytes().rstrip(b"\0")
        thing_id = _thing_in(text) if text else None
        found += [thing_id] if thing_id else []
    return found


def holds_unidentified(controller: Controller) -> bool:
    """Return whether a spool holds a response that names no Thing, or its ledger lists one that left the spool."""
    waits = any(
        _thing_in(file.read_bytes().rstrip(b"\0")) is None
        for file in directory.files(_files(controller), responses.SUFFIX)
    )
    listed = (entry for entry in ledger.survey(str(_files(controller))) if entry.thing_id is None)
    return waits or any(entry.left_at is not None and entry.deactivated_at is None for entry in listed)


def _thing_in(text: bytes) -> ThingId | None:
    response = json.loads(base64.b64decode(json.loads(text)["response"]))
    user = response.get("username") or response.get("rtcmCredentials", {}).get("userName")
    if user is None:
        return None  # the platform still activates the Thing
    return ThingId(response.get("clientId"), hashlib.sha256(f"login {user}".encode()).hexdigest())


def ledger_things(controller: Controller) -> list[ThingId]:
    return [entry.thing_id for entry in ledger.survey(str(_files(controller))) if entry.thing_id is not None]


def markers(controller: Controller) -> list[requests.RequestMarker]:
    return requests.survey(str(_files(controller)))


def _files(controller: Controller) -> Path:
    """Return the directory with the files of a spool, mounted or not."""
    unmounted = controller.spool.parent.with_suffix(".unmounted") / controller.spool.name
    return controller.spool if controller.is_mounted else unmounted


EFFECTS = ("rename", "unlink", "fsync", "pwrite", "write", "ftruncate")


@contextmanager
def _counted(number: int, action: Callable[[], None]) -> Iterator[None]:
    """Do something before the so-many-th effect: a change to the spool, a remote command, or a request."""
    count = 0

    def count_one() -> None:
        nonlocal count
        count += 1
        if count == number:
            action()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            count_one()
            return function(*arguments, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in EFFECTS:
            patch.setattr(os, name, counting(getattr(os, name)))
        for kind, name in ((Path, "rename"), (Path, "unlink"), (Gateway, "execute"), (Platform, "answer")):
            patch.setattr(kind, name, counting(getattr(kind, name)))
        yield


FREE_BYTES = 512


@contextmanager
def _full_disk() -> Iterator[None]:
    """Limit the controller's disk to a request marker and hardly anything more until the block ends."""
    free = FREE_BYTES
    write = os.pwrite

    def allocate(descriptor: int, offset: int, size: int) -> None:
        nonlocal free
        growth = max(0, offset + size - os.fstat(descriptor).st_size)
        if growth > free:
            raise OSError(errno.ENOSPC, "No space left on device")
        free -= growth
        os.truncate(descriptor, os.fstat(descriptor).st_size + growth)

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        allocate(descriptor, offset, len(content))
        return write(descriptor, content, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_fallocate", allocate)
        patch.setattr(os, "pwrite", pwrite)
        yield

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""change.sh is killed after each of its commands in turn: what is in use is whole, and the next run converges."""

from __future__ import annotations

import grp
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import Hooks
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Runtime, Target
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from ansible_collections.thingstream.ztp.tests.unit.support import make_pair, spartn
from cryptography.hazmat.primitives.asymmetric import ec
from faults.conftest import Trial
from faults.sound import assert_settled, in_use
from faults.watcher import watched
from shell.host import Host, new_nonce
from shell.steps import stepping

GROUP = grp.getgrgid(1)  # some group that is not root's
PUBLIC = {"client.crt", "ca.crt", "used"}
FIRST, SECOND = "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"


@dataclass
class Gateway(Rig):
    """A gateway with a shell of its own, and a consumer that does not work with the second Thing if that is bad."""

    host: Host | None = None
    consumed: bool = False
    bad: bool = False

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        assert self.host is not None
        self.commands.append(command)
        return self.host.execute(command, standard_input, secret)

    def runtime(self) -> Runtime:
        return replace(super().runtime(), nonce=new_nonce)

    def target(self, **changes: Any) -> Target:
        return super().target(**{"directory_mode": 0o755, "group": GROUP.gr_name, "hooks": self.hooks, **changes})

    @property
    def used(self) -> Path:
        """The certificate that the consumer has read."""
        return self.root / "used"

    @property
    def hooks(self) -> Hooks:
        if not self.consumed:
            return Hooks()
        source, used = (shlex.quote(str(file)) for file in (self.current / "client.crt", self.used))
        health = f"cmp -s {source} {used}"
        if self.bad:
            health += f" && ! grep -q {SECOND} {shlex.quote(str(self.current / 'thing.json'))}"
        return Hooks(f"if [ -e {source} ]; then cp {source} {used}; else rm -f {used}; fi", health, 1)

    def attempt(self, action: Callable[[], object]) -> str:
        """Return ``done``, or the error code of what happened."""
        try:
            action()
        except ProvisioningError as error:
            return error.code
        return "done"


@dataclass(frozen=True)
class Change:
    """A change that is killed.

    :param kind: what it is called in the table.
    :param before: how often the gateway was provisioned before.
    :param act: the change; a repetition gets no response, because it must not send a request.
    :param in_use: the Thing that is in use once the next run is through.
    :param retired: those on the retirement list by then.
    """

    kind: str
    before: int
    act: Callable[..., object]
    in_use: str | None
    retired: tuple[str, ...]
    consumed: bool = False
    bad: bool = False

    @property
    def code(self) -> str:
        """How a run ends that is not killed."""
        return "health_check_failed" if self.bad else "done"


def install(gateway: Gateway, *responses: Any) -> object:
    return gateway.present(*responses, force=bool(responses))


def roll_back(gateway: Gateway, *_responses: Any) -> object:
    return gateway.roll_back("000001")


def remove(gateway: Gateway, *_responses: Any) -> object:
    return gateway.absent()


CHANGES = {
    "first": Change("install", 0, install, SECOND, ()),
    "second": Change("install", 1, install, SECOND, (FIRST,)),
    "health-check": Change("install, health check", 1, install, SECOND, (FIRST,), consumed=True),
    "refused": Change("install, health check", 1, install, FIRST, (), consumed=True, bad=True),
    "roll-back": Change("roll back", 2, roll_back, FIRST, (SECOND,)),
    "roll-back-health-check": Change("roll back, health check", 2, roll_back, FIRST, (SECOND,), consumed=True),
    "remove": Change("remove", 2, remove, None, (FIRST, SECOND)),
    "remove-and-reload": Change("remove", 1, remove, None, (FIRST,), consumed=True),
}
STRIDE = 9  # between the steps that are tried in short


@pytest.fixture(scope="session")
def responses() -> list[dict[str, Any]]:
    """The platform's response for each Thing."""
    pairs = [make_pair(ec.generate_private_key(ec.SECP256R1()), thing) for thing in (FIRST, SECOND)]
    return [spartn(pair, clientId=thing) for pair, thing in zip(pairs, (FIRST, SECOND), strict=True)]


@pytest.mark.parametrize("plain_host", [pytest.param("dash", marks=pytest.mark.full), "busybox"], indirect=True)
@pytest.mark.parametrize("name", CHANGES)
def test_killed_after_every_command(
    name: str,
    plain_host: Host,
    responses: list[dict[str, Any]],
    public_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trials: Trial,
    full: bool,
    root: None,
) -> None:
    change = CHANGES[name]
    prepared = tmp_path / "prepared"
    gateway = Gateway(public_path / "gateway", host=plain_host, consumed=change.consumed)
    gateway.root.mkdir()
    for response in responses[: change.before]:
        gateway.present(response, force=True)
    copy(gateway.root, prepared)
    gateway.bad = change.bad
    offset = (list(CHANGES).index(name) * 3 + (plain_host.shell == "dash") * 6) % STRIDE
    steps = range(1, 200) if full else range(1 + offset, 200, STRIDE)
    with stepping(monkeypatch, plain_host, tmp_path, after=True) as at_step, watched(public_path, GROUP.gr_gid, PUBLIC):
        for step in steps:
            shutil.rmtree(gateway.root)
            copy(prepared, gateway.root)
            gateway.host = dying = at_step(step, "kill -9 0")
            code = gateway.attempt(partial(change.act, gateway, responses[1]))
            if int(Path(dying.environment["STEPS"]).read_text()) < step:
                assert code == change.code
                break
            gateway.host = plain_host
            with trials(f"Kill: {change.kind}, {plain_host.shell}"):
                assert code in ("gateway_unsupported", change.code), "killed, or just after its report"
                record = in_use(gateway.path)
                assert record is not None or change.before == 0 or change.in_use is None
                assert gateway.attempt(partial(change.act, gateway)) == change.code
                assert_converged(gateway, change)
        else:
            pytest.fail("the change never came to its end")


def assert_converged(gateway: Gateway, change: Change) -> None:
    record = in_use(gateway.path)
    assert (record["client_id"] if record else None) == change.in_use
    assert sorted(gateway.retired_ids) == sorted(change.retired)
    if change.bad:  # the user gives it up, and the next run clears away what is left of it
        gateway.spool_file.unlink()
        assert gateway.present().action in ("none", "repaired")
    assert_settled(gateway.path)
    if change.consumed:
        read = gateway.used.read_bytes() if gateway.used.exists() else None
        assert read == ((gateway.current / "client.crt").read_bytes() if record else None)
    assert gateway.spool_files == []
    assert change.in_use is None or gateway.present().action == "none"


def copy(source: Path, target: Path) -> None:
    """Copy a directory with its modes and its owners, which shutil does not keep."""
    subprocess.run(["cp", "-a", source, target], check=True)

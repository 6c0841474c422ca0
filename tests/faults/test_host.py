# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gateways that lack a program, have a wrong clock or a strange umask, or a path that belongs to another user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, Pair, make_pair, spartn
from cryptography.hazmat.primitives.asymmetric import ec
from faults.conftest import Trial
from faults.host_rig import HostRig, error_of
from shell.conftest import program
from shell.host import SHELLS

SYSTEM_PATH = "PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin\n"
REQUIRED = "tar sha256sum mv ln ls chown chmod sync id mkdir rm rmdir cat readlink sleep".split()  # noqa: SIM905
OPTIONAL = ["df", "getent", "setsid", "date", "restorecon", "flock"]


def life(rig: HostRig, first: Pair, second: Pair) -> None:
    """Make every change of a gateway, with hooks."""
    hooks = commands.Hooks("[ -d / ]", "[ -d / ]", 5)
    assert rig.present(spartn(first), hooks=hooks).action == "created"
    rig.assert_in_order()
    again = {"clientId": "22222222-2222-4333-8444-555555555555"}
    assert rig.present(spartn(second, **again), force=True, hooks=hooks).action == "renewed"
    (rig.current / "client.key").chmod(0o600)
    assert rig.present(hooks=hooks).action == "repaired"
    rig.assert_in_order("history.json")
    rig.roll_back(force=True, hooks=hooks)
    assert rig.present(hooks=hooks).action == "none"
    rig.absent()
    assert not rig.current.is_symlink()


def test_a_program_is_missing(
    rig: HostRig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ec_pair: Pair,
    other_pair: Pair,
    trials: Trial,
    full: bool,
) -> None:
    """Really missing: everything works, or the error names it before a request."""
    for part in ("CHANGE_SCRIPT", "LOOK_SCRIPT"):
        assert SYSTEM_PATH in getattr(commands, part)
        monkeypatch.setattr(commands, part, getattr(commands, part).replace(SYSTEM_PATH, ""))
    everything = f"{rig.host.tools}:{os.environ['PATH']}"
    for missing in (
        [*REQUIRED, *OPTIONAL]
        if full
        else [*REQUIRED[:: 5 + SHELLS.index(rig.host.shell)], OPTIONAL[SHELLS.index(rig.host.shell)]]
    ):
        tools = tmp_path / f"without-{missing}"
        tools.mkdir()
        for name in {"sh", *REQUIRED, *OPTIONAL} - {missing}:
            found = shutil.which(name, path=everything)
            if found:
                (tools / name).symlink_to(Path(found).resolve())
        rig.clear()
        rig.give(tools=tools, environment={"PATH": str(tools)})
        with trials(f"Missing program: {rig.host.shell}"):
            if missing in OPTIONAL:
                life(rig, ec_pair, other_pair)
            else:
                error = error_of(rig.present)
                assert error is not None
                assert error.code == "gateway_unsupported"
                assert f" {missing}" in error.message
                assert rig.bodies == []
                assert not rig.path.exists()


@pytest.mark.parametrize("now", ["1970-01-01 00:10:00", "2099-12-31 23:59:00"])
def test_the_clock_of_the_gateway_is_wrong(
    rig: HostRig, ec_pair: Pair, other_pair: Pair, trials: Trial, now: str
) -> None:
    """Its clock decides nothing."""
    program("faketime")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    rig.give(environment={"LD_PRELOAD": str(library), "FAKETIME": f"@{now}", "TZ": "UTC"})
    with trials(f"Wrong clock on the gateway: {rig.host.shell}"):
        assert rig.host.execute("date +%Y", b"", False)[1].strip() == now[:4]
        life(rig, ec_pair, other_pair)


@pytest.mark.parametrize("year", [1970, 2099])
def test_the_clock_of_the_controller_is_wrong(tmp_path: Path, ec_pair: Pair, trials: Trial, year: int) -> None:
    """Nothing is lost: what was installed stays, what arrives is kept, and a run with the right clock ends well."""
    rig = Rig(tmp_path)
    with trials("Wrong clock on the controller"):
        rig.present(spartn(ec_pair))
        rig.now = datetime(year, 1, 1, tzinfo=timezone.utc)
        if year == 1970:
            assert rig.present().action == "none"
        else:
            error = rig.fails(spartn(ec_pair))
            assert error.code == "bad_response"
            assert "clock of the controller" in error.message
            assert rig.record["fingerprint_sha256"]
        rig.now = NOW + DAY
        rig.present()
        rig.assert_in_order()


def test_umask(rig: HostRig, ec_pair: Pair, other_pair: Pair, trials: Trial, full: bool, tmp_path: Path) -> None:
    """No umask of controller or gateway opens or closes a file."""
    for umask in (0o000, 0o077, 0o777, 0o027, 0o007) if full else (0o000, 0o077):
        rig.clear()
        rig.give(umask=umask)
        mine = os.umask(umask & 0o077)
        try:
            with trials(f"Umask: {rig.host.shell}"):
                rig.spool.parent.mkdir(exist_ok=True)
                error = error_of(lambda: rig.present(spartn(ec_pair, brokerHost="no host")))
                assert error is not None
                assert [file.stat().st_mode & 0o777 for file in rig.spooled] == [0o600]
                (ledger,) = rig.spool.glob("ledger/*")
                assert ledger.stat().st_mode & 0o777 == 0o600
                assert {place.stat().st_mode & 0o777 for place in (rig.spool, ledger.parent)} == {0o700}
                rig.spooled[0].unlink()
                life(rig, ec_pair, other_pair)
                for parent in (rig.path.parent, rig.path.parent.parent):
                    assert parent.stat().st_mode & 0o7777 == 0o755
        finally:
            os.umask(mine)


# The shell commands that prepare each place: a path, its parent and grandparent, and another user.
PLACES = {
    "path of another user": "mkdir -p $path; chown $user:$user $path",
    "parent of another user": "mkdir -p $parent; chown $user:$user $parent",
    "sticky parent of another user": "mkdir -p $parent; chown $user:$user $parent; chmod 1777 $parent",
    "link of another user": "mkdir -p $grandparent/real; ln -s real $parent; chown -h $user:$user $parent",
    "path for everybody": "mkdir -p $path; chmod 777 $path",
    "parent for everybody": "mkdir -p $parent; chmod 777 $parent",
    "linked parent for everybody": "mkdir -p $grandparent/real; chmod 777 $grandparent/real; ln -s real $parent",
    "linked parent of nothing": "mkdir -p $grandparent; ln -s nothing $parent",
    "path is a link": "mkdir -p $parent; ln -s /etc $path",
    "path is a file": "mkdir -p $parent; touch $path",
    "parent is a file": "mkdir -p $grandparent; touch $parent",
}


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("place", PLACES)
def test_a_path_of_another_user(rig: HostRig, trials: Trial, place: str) -> None:
    """Refused before a request."""
    another = next(user.pw_uid for user in pwd.getpwall() if user.pw_uid)
    parent = rig.path.parent
    places = {"path": str(rig.path), "parent": str(parent), "grandparent": str(parent.parent), "user": str(another)}
    subprocess.run(["sh", "-ec", PLACES[place]], env={**os.environ, **places}, check=True)
    with trials(f"Path of others: {rig.host.shell}"):
        error = error_of(rig.present)
        assert error is not None
        assert error.code == "bad_path", error
        assert rig.bodies == []


def test_the_pair_of_another_time(tmp_path: Path, trials: Trial) -> None:
    """A certificate that has expired by the clock of the controller is not installed; the error says where to look."""
    rig = Rig(tmp_path)
    past = make_pair(ec.generate_private_key(ec.SECP256R1()), not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    with trials("Wrong clock on the controller"):
        assert "clock of the controller" in rig.fails(spartn(past)).message
        assert not rig.current.is_symlink()

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Consumers reload what was switched and are checked; where they do not come back, the gateway itself returns."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.tests.unit.states import altered
from shell.consumer import Consumer, failing
from shell.host import DIRECTORY_MODE, MODES, Host, change, is_alive, marker_of, plant_leftovers, refused

SLACK = 3  # seconds that a slow machine may take longer


@pytest.fixture
def consumer(host: Host, tmp_path: Path) -> Consumer:
    return Consumer(host, tmp_path / "consumer")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two checks there is hardly a break."""
    assert "    sleep 1\n" in commands.CHANGE_SCRIPT
    patched = commands.CHANGE_SCRIPT.replace("    sleep 1\n", "    sleep 0.02\n")
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", patched)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds + SLACK


def arguments_of_processes() -> list[list[str]]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_text(errors="replace").split("\0"))
    return found


# ---- they come back ----


@pytest.mark.parametrize("commands", [["reload", "health"], ["reload"], ["health"], []], ids="+".join)
def test_order(host: Host, consumer: Consumer, commands: list[str]) -> None:
    host.plant("a")
    consumer.used.write_text("before")
    options = {f"{name}_command": consumer.options[f"{name}_command"] for name in commands}
    assert host.install("b", **options) == "000002"
    assert consumer.calls == [f"{name} 000002" for name in commands]
    host.assert_in_order("b", ["000001", "000002"])


@pytest.mark.usefixtures("impatient")
def test_the_third_check_succeeds(host: Host, tmp_path: Path) -> None:
    count = tmp_path / "count"
    host.plant("a")
    host.install("b", health_command=f'echo >>"{count}"; [ "$(wc -l <"{count}")" -ge 3 ]', health_timeout=10)
    assert len(count.read_text()) == 3
    host.assert_in_order("b", ["000001", "000002"])


@pytest.mark.usefixtures("impatient")
def test_a_sleep_that_fails(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that passes counts, however the pause before it has ended."""
    patched = commands.CHANGE_SCRIPT.replace("    sleep 0.02\n", "    sleep 0.02; false\n")
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", patched)
    host.plant("a")
    host.install("b", health_command=f'[ -e "{tmp_path}/tried" ] || ! : >"{tmp_path}/tried"', health_timeout=10)
    assert host.marker == "b"


def test_nothing_is_called_where_nothing_is_switched(host: Host, consumer: Consumer) -> None:
    host.plant("a", "b")
    (host.path / "current" / "client.key").chmod(0o600)
    plant_leftovers(host)
    host.set_attributes(**consumer.options)
    state = host.checked()
    with refused("concurrent_change"):
        host.install("c", altered(state, current="000001"), **consumer.options)
    with refused("no_generation"):
        commands.roll_back(host.execute, state, "000001", {}, {"absent": "0" * 64}, change(**consumer.options))
    assert consumer.calls == []
    assert host.leftovers == []


# ---- they do not ----


@pytest.mark.parametrize("held_before", [True, False], ids=["second", "first"])
def test_the_gateway_returns(host: Host, consumer: Consumer, held_before: bool) -> None:
    if held_before:
        host.plant("a")
    secret = "s3cr3t"
    noisy = {name: f"echo {secret}; echo {secret} >&2\n{command}" for name, command in consumer.options.items()}
    text = failing(host, **noisy)
    assert "health_command ended with status 1;" in text
    assert "000001-failed" in text if not held_before else "000001 is in use again" in text
    assert secret not in text + "".join(host.outputs)
    failed = host.path / "generations" / ("000002-failed" if held_before else "000001-failed")
    assert marker_of(failed) == "bad"
    assert stat.S_IMODE(failed.stat().st_mode) == DIRECTORY_MODE
    assert {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in failed.iterdir()} == MODES
    assert host.marker == ("a" if held_before else None)
    assert host.generations == (["000001", "000002-failed"] if held_before else ["000001-failed"])
    assert host.leftovers == []
    assert consumer.calls == (
        ["reload 000002", "health 000002", "reload 000001"]
        if held_before
        else ["reload 000001", "health 000001", "reload"]
    )
    consumer.assert_up_to_date()


def test_numbers_after_failures(host: Host, consumer: Consumer) -> None:
    """Only the last failure is kept aside, and its number is not used again."""
    host.plant("a")
    failing(host, **consumer.options)
    failing(host, "bad too", **consumer.options)
    assert host.generations == ["000001", "000003-failed"]
    assert marker_of(host.path / "generations" / "000003-failed") == "bad too"
    assert host.install("b", **consumer.options) == "000004"
    assert host.marker == "b"
    assert host.generations == ["000001", "000004"]
    consumer.assert_up_to_date()
    assert host.look().bundle.leftovers == ()


@pytest.mark.parametrize(
    ("reload_command", "text", "end"),
    [
        ("exit 3", "reload_command ended with status 3; generation 000001 is in use", "but reload_command failed."),
        ("readlink current | grep -q 1", "reload_command ended with status 1;", "is kept aside as 000002-failed."),
        ("/absent/program", "reload_command ended with status 127;", "but reload_command failed."),
        ("kill -TERM $$", "reload_command ended with status 143;", "but reload_command failed."),
        ("if", "reload_command ended with status 2;", "but reload_command failed."),
    ],
)
def test_reload_fails(host: Host, reload_command: str, text: str, end: str) -> None:
    host.plant("a")
    reload_command = reload_command.replace("current", shlex.quote(str(host.path / "current")))
    said = failing(host, reload_command=reload_command, health_command="exit 0")
    assert text in said.replace("status 1 ", "status 1")
    assert said.endswith(end)
    assert host.marker == "a"
    assert host.generations == ["000001", "000002-failed"]
    assert host.leftovers == []


@pytest.mark.parametrize("command", ["reload_command", "health_command"])
def test_a_command_hangs(host: Host, tmp_path: Path, command: str) -> None:
    """It is stopped with everything that it has started, whatever signals it ignores."""
    host.plant("a")
    pids, current = tmp_path / "pids", host.path / "current"
    hanging = f"""
case $(readlink "{current}") in *1) exit 0 ;; esac
trap '' TERM HUP INT
sleep 600 &
echo "$$ $!" >"{pids}"
(sleep 600)
"""
    with within(1):
        text = failing(host, **{command: hanging})
    assert f"{command} ended with status 137 (it was stopped after 1 seconds)" in text
    assert not any(map(is_alive, map(int, pids.read_text().split())))
    assert host.marker == "a"
    assert host.generations == ["000001", "000002-failed"]


def test_a_command_hangs_without_setsid(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = 'command() { [ "$2" != setsid ] || return 1; type "$2"; }\nsetsid() { return 127; }\n'
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", hidden + commands.CHANGE_SCRIPT)
    host.plant("a")
    pid = tmp_path / "pid"
    with within(1):
        failing(host, health_command=f'echo $$ >"{pid}"; exec sleep 600')
    assert not is_alive(int(pid.read_text()))
    host.install("b", reload_command=":", health_command=":")
    assert host.marker == "b"


@pytest.mark.usefixtures("impatient")
def test_the_time_ends_without_proc(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "/proc/uptime" in commands.CHANGE_SCRIPT
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", commands.CHANGE_SCRIPT.replace("/proc/uptime", "/proc/absent"))
    host.plant("a")
    count = tmp_path / "count"
    # the clock counts whole seconds, one of which may end during the first check
    with within(4):
        failing(host, health_command=f'echo >>"{count}"; exit 1', health_timeout=4)
    assert len(count.read_text()) > 1
    assert host.marker == "a"


@pytest.mark.parametrize("how", ["deaf", "HUP", "PIPE"])
def test_the_connection_is_cut_during_the_check(host: Host, consumer: Consumer, how: str) -> None:
    """The gateway reverts although the connection is gone."""
    host.plant("a")
    state = host.checked()
    cut = "sleep 0.3"
    if how == "deaf":
        host = replace(host, deaf_after=0.02)
    else:
        lock = shlex.quote(str(host.path / ".lock"))
        session = "$(sed 's/.*) //' \"/proc/$run/stat\" | cut -d' ' -f4)"
        cut = f'run=$(readlink {lock}); run=${{run#*.}}; run=${{run%%.*}}; kill -{how} "-{session}"'
    options = {**consumer.options, "health_command": f"{cut}\n{consumer.options['health_command']}"}
    with pytest.raises(ProvisioningError):
        host.install("bad", state, health_timeout=1, **options)
    # without setsid the hook is in the group that gets the signal, too, and dies of it before it is noted, unless
    # whoever started the tests ignores that signal
    calls = ["reload 000002", "health 000002", "reload 000001"]
    assert consumer.calls == calls or not (how == "deaf" or host.has("setsid"))
    assert [call for call in consumer.calls if call != "health 000002"] == ["reload 000002", "reload 000001"]
    assert host.marker == "a"
    assert host.generations == ["000001", "000002-failed"]
    consumer.assert_up_to_date()


# ---- what a command is given, and what it leaves ----


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ("""echo "it's" 'a  "b"' >OUT""", """it's a  "b"\n"""),
        ("""x=1; echo "$x" "\\$x" '$x' $((x + 1)) "$(echo `echo c`)" >OUT""", "1 $x $x 2 c\n"),
        ("\n# first\necho one >OUT &&\n  echo two >>OUT\n\n", "one\ntwo\n"),
        ("cat >OUT <<'E O F'\n$HOME `id` \\\n\t%s\nE O F\n", "$HOME `id` \\\n\t%s\n"),
        ("for word in ü '*' ';' '&' '|' '#'; do printf %s, \"$word\"; done >OUT", "ü,*,;,&,|,#,"),
    ],
)
def test_commands_of_every_kind(host: Host, tmp_path: Path, command: str, written: str) -> None:
    out = tmp_path / "what it's called"
    command = command.replace("OUT", shlex.quote(str(out)))
    host.install("a", reload_command=command, health_command=f"grep -q . {shlex.quote(str(out))}")
    assert out.read_text() == written


@pytest.mark.parametrize("command", ["install", "roll_back"])
def test_what_a_command_finds(host: Host, tmp_path: Path, command: str) -> None:
    """Nothing of the script: neither its variables, nor its input, signals, umask, directory or files."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored where the tests themselves run with nohup
    host.plant("a", "b")
    seen = tmp_path / "seen"
    seen.mkdir()
    look = f"cd '{seen}'; cat /proc/self/status >status; cat >input; ls /proc/self/fd >files; umask >umask"
    host = replace(host, environment={**host.environment, "THINGSTREAM_ZTP_TOKEN": "PLANTED-TOKEN"})
    options: dict[str, Any] = {"reload_command": f"pwd >'{seen}/directory'; env >'{seen}/environment'\n{look}"}
    if command == "install":
        host.install("c", **options)
    else:
        host.roll_back("000001", **options)
    found = {entry.name: entry.read_text() for entry in seen.iterdir()}
    assert "request_" not in found["environment"]
    assert "PLANTED-TOKEN" not in found["environment"]
    assert (found["input"], found["directory"], found["umask"].strip()) == ("", "/\n", "0022")
    assert set(found["files"].split()) <= {"0", "1", "2", "3"}  # ls has the directory itself open
    (ignored,) = (int(line.split()[1], 16) for line in found["status"].splitlines() if line.startswith("SigIgn:"))
    for name in (signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD):
        assert not ignored >> (name - 1) & 1, name


def test_nothing_outlives_a_run(host: Host) -> None:
    """No helper that could still stop something later, or that keeps a connection open."""
    host.plant("0")
    first = host.checked()
    timeout = 100_000 + os.getpid()
    for count in range(1, 6):
        with within(0):
            host.install(
                str(count), host.believing(first), reload_command=":", health_command=":", health_timeout=timeout
            )
    time.sleep(0.05)
    assert [arguments for arguments in arguments_of_processes() if str(timeout) in arguments] == []


@pytest.mark.parametrize("start", ["setsid sleep 30 & echo $!", "sleep 30 & echo $!", "(sleep 30 & echo $!)"])
def test_a_daemon_stays(host: Host, public_path: Path, find_program: Callable[[str], str], start: str) -> None:
    pid = public_path / "pid"
    # not every firmware has setsid; a daemon calls what is behind it
    start = start.replace("setsid", str(shutil.copy(find_program("setsid"), public_path / "own-session")))
    with within(0):
        host.install("a", reload_command=f"{{ {start}; }} >'{pid}'", health_command=f"kill -0 $(cat '{pid}')")
    daemon = int(pid.read_text())
    assert is_alive(daemon)
    os.kill(daemon, signal.SIGKILL)

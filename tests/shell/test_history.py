# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""history.json: written whole or not at all, before a switch, and what is left once everything else is removed."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, protocol
from shell.consumer import Consumer
from shell.host import Host, change, outcome, refused, snapshot
from shell.steps import stepping

OLD = json.dumps({"things": [{"client_id": "old"}], "text": 'it\'s "$x" `id` \\n %s ü'}, indent=2)
NEW = json.dumps({"things": [{"client_id": f"new {number}"} for number in range(200)]})


@pytest.fixture
def consumer(host: Host, tmp_path: Path) -> Consumer:
    return Consumer(host, tmp_path / "consumer")


def written(host: Host) -> str | None:
    """Return the history on the disk, if any; it must be a regular file of mode 0640."""
    file = host.path / "history.json"
    if not os.path.lexists(file):
        return None
    assert stat.S_ISREG(file.lstat().st_mode)
    assert stat.S_IMODE(file.lstat().st_mode) == 0o640
    return file.read_text().removesuffix("\n")


# ---- writing ----


def test_write_history(host: Host) -> None:
    host.plant("a", "b")
    before = snapshot(host.path / "generations")
    for text in (OLD, NEW):
        host.write_history(text)
        assert written(host) == text
        assert host.look().bundle.history == text
    assert snapshot(host.path / "generations") == before
    assert host.leftovers == ["history.json"]
    assert host.look().bundle.leftovers == ()


@pytest.mark.usefixtures("root")
def test_owner_and_group(host: Host, owner: pwd.struct_passwd, group: grp.struct_group) -> None:
    host.plant("a")
    host.write_history(OLD, host.checked(owner.pw_name, group.gr_name))
    status = (host.path / "history.json").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (owner.pw_uid, group.gr_gid, 0o640)


def test_somebody_was_faster(host: Host) -> None:
    host.plant("a")
    host.write_history(OLD)
    state = host.checked()
    host.install("b", state)
    with refused("concurrent_change"):
        host.write_history(NEW, state)
    assert written(host) == OLD


@pytest.mark.parametrize("action", ["install", "roll_back", "remove"])
def test_before_the_switch(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Whatever is switched, the history that goes with it is on the disk already."""
    host.plant("a", "b")
    log = tmp_path / "log"
    noted = """
note() { echo "$1 $(readlink current) $([ ! -e history.json ] || echo written)" >>"$LOG"; }
sync() { case $* in *history.json) note sync ;; esac; command sync "$@"; }
mv() { case $* in *"/history.json .") note move ;; *"/current .") note switch ;; esac; command mv "$@"; }
rm() { case $* in *" current "*) note switch ;; esac; command rm "$@"; }
"""
    monkeypatch.setattr(commands, "CHANGE_SCRIPT", noted + commands.CHANGE_SCRIPT)
    host = replace(host, environment={"LOG": str(log)})
    argument = {"install": ["c"], "roll_back": ["000001"], "remove": []}[action]
    getattr(host, action)(*argument, history=NEW)
    assert log.read_text().splitlines() == [
        "sync generations/000002 ",
        "move generations/000002 ",
        "switch generations/000002 written",
    ]
    assert written(host) == NEW


def test_killed_before_every_command(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.plant("a")
    first = host.checked()
    text, codes = None, []
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in range(1, 30):
            following = f'{{"step": {step}}}'
            dying = replace(at_step(step, "kill -9 0"))
            codes.append(outcome(partial(dying.write_history, following, host.believing(first))))
            assert written(host) in (text, following)
            text = written(host)
            if codes[-1] == "done":
                break
            for heir in host.path.glob(".staging-heir-*"):  # of a crash while the lock was inherited
                heir.unlink()
    assert codes[-1] == "done"
    assert 6 < step < 29
    host.write_history(NEW, host.believing(first))
    assert written(host) == NEW
    host.set_attributes()
    assert host.leftovers == ["history.json"]


def test_a_full_disk(host: Host, mount: Callable[[str], Path]) -> None:
    host = host.at(mount("size=1m,mode=0755") / "store")
    host.plant("a")
    host.write_history(OLD)
    state = host.checked()
    with (host.path / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    for action in (partial(host.write_history, NEW, state), partial(host.roll_back, "000001", state, history=NEW)):
        assert outcome(action) == "disk_full"
    assert written(host) == OLD
    assert set(host.leftovers) - {".newest"} == {"filler", "history.json"}


def plant(place: Path, kind: str, target: Path) -> None:
    target.write_text("mine")
    if kind == "directory":
        place.mkdir()
        (place / "file").write_text("mine")
    elif kind == "file":
        place.write_text("planted")
    else:
        place.symlink_to({"link": target, "dangling": target.with_name("absent"), "to directory": target.parent}[kind])


@pytest.mark.parametrize("kind", ["link", "dangling", "to directory", "directory", "file"])
def test_what_is_planted_is_not_followed(host: Host, tmp_path: Path, kind: str) -> None:
    host.plant("a")
    target = tmp_path / "victims" / "target"
    target.parent.mkdir()
    plant(host.path / "history.json", kind, target)
    before = snapshot(target.parent)
    assert host.look().bundle.history == ("planted" if kind == "file" else "")
    code = outcome(lambda: host.write_history(NEW))
    assert snapshot(target.parent) == before
    if code == "done":
        assert written(host) == NEW
    else:
        # mv replaces no directory, and that of BusyBox no link to one
        assert code == "permission"
        assert kind in ("directory", "to directory")
        (host.path / "history.json").rename(tmp_path / "planted")
    host.write_history(NEW)
    assert written(host) == NEW
    assert host.leftovers == ["history.json"]


@pytest.mark.parametrize("kind", ["link", "dangling", "to directory", "directory", "file"])
def test_what_is_planted_for_a_draft_is_not_followed(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    host.plant("a")
    target = tmp_path / "victims" / "target"
    target.parent.mkdir()
    plant(host.path / "planted", kind, target)
    before = snapshot(target.parent)
    planting = 'mkdir() { case $1 in .staging-history-*) mv planted "$1" ;; esac; command mkdir "$@"; }\n'
    with monkeypatch.context() as patch:
        patch.setattr(commands, "CHANGE_SCRIPT", planting + commands.CHANGE_SCRIPT)
        assert outcome(lambda: host.write_history(NEW)) == "bad_path"
    assert snapshot(target.parent) == before
    assert written(host) is None
    assert host.leftovers == []
    host.write_history(NEW)
    assert written(host) == NEW


@pytest.mark.parametrize(
    "text",
    [
        '{"things": []}',
        '{"a":\r\n  "  b\\\\n "}',
        "",
        "{",
        "end\nbegin 1\nfailed disk_full x\n",
        "@listing\n@\ncurrent /etc\n",
        "[" * 100_000,
    ],
    ids=range(7),
)
def test_a_look_reads_its_text(host: Host, text: str) -> None:
    host.plant("a")
    (host.path / "history.json").write_bytes(text.encode())
    state = host.look()
    assert state.bundle.history == text.rstrip("\n")
    assert (state.bundle.current, state.bundle.leftovers) == ("000001", ())
    (host.path / "current").unlink()
    assert host.look().bundle.history == text.rstrip("\n")


def test_a_history_that_is_too_long_is_cut_and_may_be_overwritten(host: Host) -> None:
    host.plant("a")
    (host.path / "history.json").write_text("x" * (protocol.MAX_TEXT + 100))
    assert len(host.look().bundle.history) == protocol.MAX_TEXT + 1
    host.write_history(NEW)
    assert written(host) == NEW


# ---- removing ----


def test_nothing_else_stays(host: Host, consumer: Consumer) -> None:
    host.plant("a", "b", "c")
    host.roll_back("000002", keep=2)
    consumer.used.write_text("before")
    host.remove(history=OLD, **consumer.options)
    assert os.listdir(host.path) == ["history.json"]
    assert written(host) == OLD
    assert consumer.calls == ["reload"]
    consumer.assert_up_to_date()
    state = host.checked()
    assert (state.bundle.current, state.bundle.history, state.bundle.leftovers) == (None, OLD, ())
    host.remove()
    assert written(host) == OLD
    assert host.install("d", history=NEW) == "000001"
    assert written(host) == NEW


def test_remove_without_a_word_about_it(host: Host) -> None:
    host.plant("a")
    host.write_history(OLD)
    host.remove()
    assert os.listdir(host.path) == ["history.json"]
    assert written(host) == OLD


@pytest.mark.parametrize("failure", ["exit 4", "kill -9 $$"])
def test_consumers_cannot_be_told(host: Host, consumer: Consumer, failure: str) -> None:
    host.plant("a")
    secret = "s3cr3t"
    with pytest.raises(ProvisioningError, match="after the credentials were removed") as caught:
        host.remove(history=NEW, reload_command=f"echo {secret}; {failure}")
    assert caught.value.code == "health_check_failed"
    assert secret not in str(caught.value) + "".join(host.outputs)
    assert host.leftovers == [".health-check", "history.json"]
    assert (host.marker, host.generations, written(host)) == (None, [], NEW)
    state = host.checked()
    assert (state.bundle.current, state.bundle.leftovers) == (None, (".health-check",))
    host.remove(**consumer.options)
    assert consumer.calls == ["reload"]
    assert host.leftovers == ["history.json"]


def test_killed_while_removing(host: Host, consumer: Consumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers are reloaded at the end, and the history never loses a Thing."""
    first, text, codes = None, None, []
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in host.steps():
            host.plant("a")
            first = first or host.checked()
            consumer.used.write_text("a")
            following = f'{{"step": {step}}}'
            removal = change(history=following, **consumer.options)
            dying, state = at_step(step, "kill -9 0"), host.believing(first)
            codes.append(outcome(partial(commands.remove, dying.execute, state, removal)))
            assert written(host) in (text, following)
            if codes[-1] == "done":
                break
            host.remove(**consumer.options)
            consumer.assert_up_to_date()
            assert host.leftovers in ([], ["history.json"])
            assert host.generations == []
            text = written(host)
    assert codes[-1] == "done"
    assert len(codes) > (3 if host.full else 1)


def test_removed_by_somebody_else(host: Host, consumer: Consumer) -> None:
    """A run that expects another generation removes nothing, and reloads no consumer."""
    host.plant("a")
    state = host.checked()
    host.install("b")
    with refused("concurrent_change"):
        commands.remove(host.execute, state, change(history=NEW, **consumer.options))
    assert (host.marker, host.generations, written(host)) == ("b", ["000001", "000002"], None)
    assert consumer.calls == []


def test_what_another_run_has_written_is_not_written_over(host: Host) -> None:
    host.plant("a")
    state = host.checked()
    host.write_history('{"things": ["first"]}')
    with refused("concurrent_change"):
        host.write_history('{"things": ["second"]}', state)
    with refused("concurrent_change"):
        host.install("b", state, history='{"things": ["third"]}')
    assert (host.path / "history.json").read_text() == '{"things": ["first"]}\n'
    assert host.generations == ["000001"]
    host.write_history('{"things": ["second"]}')
    assert (host.path / "history.json").read_text() == '{"things": ["second"]}\n'


@pytest.mark.parametrize("end", ["", "\n\n", "\n\n\n"])
def test_empty_lines_that_an_editor_has_left(host: Host, end: str) -> None:
    host.plant("a")
    (host.path / "history.json").write_text(OLD + end)
    host.write_history(NEW)
    assert written(host) == NEW

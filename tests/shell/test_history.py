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
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from shell.consumer import Consumer
from shell.host import Host, change, outcome, refused, snapshot
from shell.steps import stepping

OLD = json.dumps({"things": [{"client_id": "old"}], "text": 'it\'s "$x" `id` \\n %s ü'}, indent=2)
NEW = json.dumps({"things": [{"client_id": f"new {number}"} for number in range(200)]})


@pytest.fixture
def consumer(host: Host, tmp_path: Path) -> Consumer:
    return Consumer(host, tmp_path / "consumer")


def written(host: Host) -> str | None:
    """The history on the disk; nothing but a file that is its own may be there."""
    file = host.path / "history.json"
    if not os.path.lexists(file):
        return None
    assert stat.S_ISREG(file.lstat().st_mode)
    assert stat.S_IMODE(file.lstat().st_mode) == 0o640
    return file.read_text().removesuffix("\n")


# ---- writing ----


def test_remember(host: Host) -> None:
    host.hold("a", "b")
    before = snapshot(host.path / "generations")
    for text in (OLD, NEW):
        host.remember(text)
        assert written(host) == text
        assert host.probe().history == json.loads(text)
    assert snapshot(host.path / "generations") == before
    assert host.leftovers == ["history.json"]
    assert host.probe().leftovers == ()


@pytest.mark.usefixtures("root")
def test_owner_and_group(host: Host, owner: pwd.struct_passwd, group: grp.struct_group) -> None:
    host.hold("a")
    host.remember(OLD, host.checked(owner.pw_name, group.gr_name))
    status = (host.path / "history.json").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (owner.pw_uid, group.gr_gid, 0o640)


def test_somebody_was_faster(host: Host) -> None:
    host.hold("a")
    host.remember(OLD)
    held = host.checked()
    host.install("b", held)
    with refused("concurrent_change"):
        host.remember(NEW, held)
    assert written(host) == OLD


@pytest.mark.parametrize("action", ["install", "roll_back", "remove"])
def test_before_the_switch(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Whatever is switched, the history that goes with it is on the disk already."""
    host.hold("a", "b")
    log = tmp_path / "log"
    noted = """
note() { echo "$1 $(readlink current) $([ ! -e history.json ] || echo written)" >>"$LOG"; }
sync() { case $* in *history.json) note sync ;; esac; command sync "$@"; }
mv() { case $* in *" history.json") note move ;; *" current") note switch ;; esac; command mv "$@"; }
rm() { case $* in *" current "*) note switch ;; esac; command rm "$@"; }
"""
    monkeypatch.setattr(gateway, "SCRIPT", noted + gateway.SCRIPT)
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
    host.hold("a")
    first = host.checked()
    text, codes = None, []
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in range(1, 30):
            following = f'{{"step": {step}}}'
            dying = replace(at_step(step, "kill -9 0"))
            codes.append(outcome(partial(dying.remember, following, host.believing(first))))
            assert written(host) in (text, following)
            text = written(host)
            if codes[-1] == "done":
                break
    assert codes[-1] == "done"
    assert 6 < step < 29
    host.remember(NEW, host.believing(first))
    assert written(host) == NEW
    host.repair()
    assert host.leftovers == ["history.json"]


def test_a_full_disk(host: Host, mount: Callable[[str], Path]) -> None:
    host = host.at(mount("size=1m,mode=0755") / "store")
    host.hold("a")
    host.remember(OLD)
    held = host.checked()
    with (host.path / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    for action in (partial(host.remember, NEW, held), partial(host.roll_back, "000001", held, history=NEW)):
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
@pytest.mark.parametrize("name", ["history.json", ".staging-history-n1"])
def test_what_is_planted_is_not_followed(host: Host, tmp_path: Path, name: str, kind: str) -> None:
    host.hold("a")
    target = tmp_path / "victims" / "target"
    target.parent.mkdir()
    plant(host.path / name, kind, target)
    before = snapshot(target.parent)
    assert host.probe().history is None
    held = host.checked()
    code = outcome(lambda: gateway.remember(host.execute, held, change(nonce="n1", history=NEW)))
    assert snapshot(target.parent) == before
    if code == "done":
        assert name == "history.json"
        assert written(host) == NEW
    elif name == "history.json":
        # mv replaces no directory, and that of BusyBox no link to one
        assert code == "permission"
        assert kind in ("directory", "to directory")
        (host.path / name).rename(tmp_path / "planted")
    else:
        assert code == "bad_path"
    host.remember(NEW)
    assert written(host) == NEW
    assert host.leftovers == ["history.json"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"things": []}', {"things": []}),
        ('{"a":\r\n  "  b\\\\n "}', {"a": "  b\\n "}),
        ("", None),
        ("{", None),
        ("[1]", None),
        ("null", None),
        ("end\nbegin 1\nfailed disk_full x\n", None),
        ("@listing\n@\ncurrent /etc\n", None),
        ("[" * 100_000, None),
        ('"' + "x" * 300_000 + '"', None),
    ],
    ids=range(10),
)
def test_what_the_probe_makes_of_it(host: Host, text: str, read: object) -> None:
    host.hold("a")
    (host.path / "history.json").write_bytes(text.encode())
    held = host.probe()
    assert held.history == read
    assert (held.current, held.leftovers) == ("000001", ())
    (host.path / "current").unlink()
    assert host.probe().history == read


# ---- removing ----


def test_nothing_else_stays(host: Host, consumer: Consumer) -> None:
    host.hold("a", "b", "c")
    host.roll_back("000002", keep=2)
    consumer.used.write_text("before")
    host.remove(history=OLD, **consumer.options)
    assert os.listdir(host.path) == ["history.json"]
    assert written(host) == OLD
    assert consumer.calls == ["reload"]
    consumer.assert_up_to_date()
    held = host.checked()
    assert (held.current, held.history, held.leftovers) == (None, json.loads(OLD), ())
    host.remove()
    assert written(host) == OLD
    assert host.install("d", history=NEW) == "000001"
    assert written(host) == NEW


def test_remove_without_a_word_about_it(host: Host) -> None:
    host.hold("a")
    host.remember(OLD)
    host.remove()
    assert os.listdir(host.path) == ["history.json"]
    assert written(host) == OLD


@pytest.mark.parametrize("failure", ["exit 4", "kill -9 $$"])
def test_consumers_cannot_be_told(host: Host, consumer: Consumer, failure: str) -> None:
    host.hold("a")
    secret = "s3cr3t"
    with pytest.raises(ProvisioningError, match="after the credentials were removed") as caught:
        host.remove(history=NEW, reload_command=f"echo {secret}; {failure}")
    assert caught.value.code == "health_check_failed"
    assert secret not in str(caught.value) + "".join(host.outputs)
    assert host.leftovers == [".trial", "history.json"]
    assert (host.marker, host.generations, written(host)) == (None, [], NEW)
    held = host.checked()
    assert (held.current, held.leftovers) == (None, (".trial",))
    host.remove(**consumer.options)
    assert consumer.calls == ["reload"]
    assert host.leftovers == ["history.json"]


def test_killed_while_removing(host: Host, consumer: Consumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers are told in the end, and the history is never less than it was."""
    first, text, codes = None, None, []
    with stepping(monkeypatch, host, tmp_path) as at_step:
        for step in host.steps:
            host.hold("a")
            first = first or host.checked()
            consumer.used.write_text("a")
            following = f'{{"step": {step}}}'
            removal = change(history=following, **consumer.options)
            dying, held = at_step(step, "kill -9 0"), host.believing(first)
            codes.append(outcome(partial(gateway.remove, dying.execute, held, removal)))
            assert written(host) in (text, following)
            if codes[-1] == "done":
                break
            host.remove(**consumer.options)
            consumer.assert_up_to_date()
            assert host.leftovers in ([], ["history.json"])
            assert host.generations == []
            text = written(host)
    assert codes[-1] == "done"
    assert len(codes) > 3


def test_removed_by_somebody_else(host: Host, consumer: Consumer) -> None:
    """Who believes in another generation removes nothing, and tells nobody."""
    host.hold("a")
    held = host.checked()
    host.install("b")
    with refused("concurrent_change"):
        gateway.remove(host.execute, held, change(history=NEW, **consumer.options))
    assert (host.marker, host.generations, written(host)) == ("b", ["000001", "000002"], None)
    assert consumer.calls == []


def test_what_another_run_has_written_is_not_written_over(host: Host) -> None:
    host.hold("a")
    held = host.checked()
    host.remember('{"things": ["first"]}')
    with refused("concurrent_change"):
        host.remember('{"things": ["second"]}', held)
    with refused("concurrent_change"):
        host.install("b", held, history='{"things": ["third"]}')
    assert (host.path / "history.json").read_text() == '{"things": ["first"]}\n'
    assert host.generations == ["000001"]
    host.remember('{"things": ["second"]}')
    assert (host.path / "history.json").read_text() == '{"things": ["second"]}\n'


@pytest.mark.parametrize("end", ["", "\n\n", "\n\n\n"])
def test_empty_lines_that_an_editor_has_left(host: Host, end: str) -> None:
    host.hold("a")
    (host.path / "history.json").write_text(OLD + end)
    host.remember(NEW)
    assert written(host) == NEW

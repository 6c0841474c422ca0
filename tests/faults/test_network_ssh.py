# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to the gateway ends at any byte, in either direction, and between the switch and the report of it.

Or it stays open and goes silent, as that of a modem without reception.

CloudLocate creates a Thing for every request, so that one request too many shows.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gateways.fleet import END_SESSION, Fleet
from integration.ansible_run import PROJECT, Run, run_playbook, write_inventory
from simulator.client import RunningSimulator

Trial = Callable[[str], AbstractContextManager[None]]

HOSTS = ["bb1", "gw1", "gw2", "gw3"]
ROOT = "etc/thingstream/network"


@dataclass
class Line:
    """A TCP line to a gateway that counts what passes to it and back, and ends once after so many bytes.

    :param goes_silent: whether the connection then stays open, and nothing passes any more.
    """

    port: int
    goes_silent: bool = False
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    direction: str = ""
    rest: int = 0
    open: int = 0

    def allow(self, direction: str, wanted: int) -> int:
        """Count the wanted bytes, and return the number of them that may still pass."""
        self.passed[direction] += wanted
        if direction != self.direction:
            return wanted
        allowed = min(wanted, self.rest)
        self.rest -= allowed
        return allowed


@contextmanager
def line(target: tuple[str, int]) -> Iterator[Line]:
    """Run a line to an SSH server, at a port of its own, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    made = Line(listener.getsockname()[1])

    def pump(source: socket.socket, sink: socket.socket, direction: str, silent: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                if silent.is_set():
                    continue
                allowed = made.allow(direction, len(data))
                sink.sendall(data[:allowed])
                if allowed < len(data):
                    made.direction = ""  # the next connection is not cut
                    if not made.goes_silent:
                        break
                    silent.set()
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def serve(connection: socket.socket) -> None:
        made.open += 1
        silent = threading.Event()
        with closing(connection), closing(socket.create_connection(target)) as server:
            back = threading.Thread(target=pump, args=(server, connection, "down", silent), daemon=True)
            back.start()
            pump(connection, server, "up", silent)
            back.join()
        made.open -= 1

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield made
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@dataclass(frozen=True)
class Site:
    """Gateways, the platform, and the runs between them."""

    gateways: Fleet
    simulator: RunningSimulator
    work: Path
    common: Mapping[str, Any]

    def run(self, hosts: Mapping[str, Mapping[str, Any]], *, retries: int = 0, **options: Any) -> Run:
        common = {f"thingstream_gateway_{name}": value for name, value in options.items()}
        inventory = write_inventory(self.work / "inventory.yml", hosts, {**self.common, **common})
        environment = {"ANSIBLE_FORKS": "8", "ANSIBLE_SSH_RETRIES": str(retries)}
        run = run_playbook(self.work, inventory, environment=environment, seconds=600)
        self.settle()
        return run

    def settle(self) -> None:
        """Wait until nothing but SSH servers runs on the gateways: a script goes on without its connection."""
        deadline = time.monotonic() + 30
        while any(self.busy(host) for host in HOSTS):
            assert time.monotonic() < deadline, "a gateway does not come to rest"
            time.sleep(0.1)

    def busy(self, host: str) -> bool:
        for comm in (self.gateways.root(host) / "proc").glob("[0-9]*/comm"):
            with suppress(OSError):
                if not comm.read_text().startswith(("sshd", "dropbear")):
                    return True
        return False

    def variables(self, gateway: str, name: str, port: int | None = None) -> dict[str, Any]:
        """Return a host's variables for a gateway, with its own path and hardware ID, behind a line if there is one."""
        inventory = self.gateways.inventory.read_text()
        address = re.search(rf"^{gateway} ansible_host=(\S+)$", inventory, re.MULTILINE)
        known = re.search(r"^ansible_port=(\d+)$", inventory, re.MULTILINE)
        assert address
        assert known
        host = {"ansible_host": "127.0.0.1", "ansible_port": port} if port else {"ansible_host": address[1]}
        return {
            "ansible_port": int(known[1]),
            **host,
            "ansible_ssh_extra_args": f"-o HostKeyAlias=[{address[1]}]:{known[1]}",
            "thingstream_gateway_hardware_id": f"ssh-{name}",
            "thingstream_gateway_path": f"/{ROOT}/{name}",
        }

    def path(self, gateway: str, name: str) -> Path:
        return self.gateways.root(gateway) / ROOT / name

    def requests(self, name: str) -> int:
        return len(self.simulator.requests(hardware_id=f"ssh-{name}"))

    def things(self, name: str) -> list[str]:
        return [thing["client_id"] for thing in self.simulator.things(hardware_id=f"ssh-{name}")]

    def kept(self, name: str) -> int:
        entries = [json.loads(path.read_text()) for path in (self.work / "spool").glob("*.response")]
        return len([entry for entry in entries if entry["hardware_id"] == f"ssh-{name}"])

    def record(self, gateway: str, name: str) -> dict[str, Any] | None:
        """Return the record in use, if there is one; its files have the digests that it names."""
        current = self.path(gateway, name) / "current"
        if not current.is_symlink():
            return None
        record: dict[str, Any] = json.loads((current / "thing.json").read_text())
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in current.iterdir()}
        assert {**found, "thing.json": ""} == {**record["files"], "thing.json": ""}
        return record


@pytest.fixture
def site(gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Site:
    inventory = gateways.inventory.read_text()
    found = dict(re.findall(r"^(ansible_ssh_common_args|ansible_control_path_dir)=(.*)$", inventory, re.MULTILINE))
    for host in HOSTS:
        shutil.rmtree(gateways.root(host) / ROOT, ignore_errors=True)
        (gateways.root(host) / "tmp/cut").unlink(missing_ok=True)
    common = {
        **platform,
        **found,
        "ansible_connection": "ssh",
        # shared by the commands of a run, and not by the next run
        "ansible_ssh_args": "-C -o ControlMaster=auto -o ControlPersist=1",
        "ansible_user": "root",
        "ansible_shell_executable": "/bin/sh",
        "thingstream_gateway_service": "cloudlocate",
        "thingstream_gateway_token": simulator.put_profile("network-ssh", service="cloudlocate"),
    }
    return Site(gateways, simulator, tmp_path, common)


def test_cut_between_switch_and_report(site: Site, trials: Trial, full: bool) -> None:
    """The run does not learn of its success; the next one finds it, and sends no request."""
    hosts = {host: site.variables(host, f"report-{host}") for host in (HOSTS if full else HOSTS[:2])}
    cut = site.run(hosts, reload_command=END_SESSION)
    again = site.run(hosts)
    last = site.run(hosts) if full else None
    for host in hosts:
        with trials("Network: SSH, between switch and report"):
            assert cut.hosts[host]["status"] == "unreachable", cut.output
            assert "kept in" in cut.hosts[host]["msg"]
            assert again.hosts[host]["status"] == "ok", again.output
            assert again.hosts[host]["generation"] == "000001", "the generation that was switched to stays"
            if last is not None:
                assert (last.hosts[host]["action"], last.hosts[host]["reason"]) == ("none", "none")
            assert site.requests(f"report-{host}") == 1
            record = site.record(host, f"report-{host}")
            assert record
            assert site.things(f"report-{host}") == [record["client_id"]]
            assert site.kept(f"report-{host}") == 0
            left = {path.name for path in site.path(host, f"report-{host}").iterdir()}
            assert left == {"current", "generations", ".last-change"}


def test_a_retry_between_switch_and_report(site: Site, trials: Trial, full: bool) -> None:
    """The connection repeats an installation whose report was lost; the gateway reports the same result again."""
    hosts = {host: site.variables(host, f"retry-{host}") for host in (HOSTS if full else HOSTS[:2])}
    for number, options in enumerate(({}, {"force": True}), 1):
        for host in hosts:
            (site.gateways.root(host) / "tmp/cut").unlink(missing_ok=True)
        run = site.run(hosts, retries=2, reload_command=END_SESSION, **options)
        for host in hosts:
            name = f"retry-{host}"
            with trials("Network: SSH, retried between switch and report"):
                assert (site.gateways.root(host) / "tmp/cut").exists()
                assert run.hosts[host]["status"] == "ok", run.output
                assert run.hosts[host]["generation"] == f"{number:06d}"
                assert site.requests(name) == number
                record = site.record(host, name)
                assert record
                assert site.things(name) == [*(entry["client_id"] for entry in record["retired"]), record["client_id"]]
                assert site.kept(name) == 0
                assert ".lock" not in {path.name for path in site.path(host, name).iterdir()}


def test_a_line_that_goes_silent(site: Site, trials: Trial) -> None:
    """With the documented options of SSH the run ends, and the next one finds everything in order."""
    # Bytes to the gateway: within the first look of a renewal, which takes 2,000, or within its installation, which
    # ends after 7,000. The keep-alive messages of SSH take 50 more each second, also before the run.
    plan = {"bb1": 1500, "gw1": 1500, "gw2": 5500, "gw3": 5500}
    (options,) = re.findall(r"ssh_args = (.*ServerAlive.*)", (PROJECT / "docs/troubleshooting.md").read_text())
    options = options.replace("ServerAliveInterval=15", "ServerAliveInterval=1")
    with ExitStack() as stack:
        hosts, lines = {}, {}
        for host in plan:
            there = site.variables(host, f"silent-{host}")
            lines[host] = stack.enter_context(line((_address(site, host), there["ansible_port"])))
            hosts[host] = site.variables(host, f"silent-{host}", lines[host].port) | {"ansible_ssh_args": options}
        beside = {"beside": site.variables("gw1", "silent-beside")}
        busy = site.run({**hosts, **beside}, reload_command="sleep 8")  # longer than SSH waits for a silent server
        assert busy.status == 0, busy.output
        for host, rest in plan.items():
            lines[host].goes_silent, lines[host].direction, lines[host].rest = True, "up", rest
        silent = site.run({**hosts, **beside}, force=True)  # over the connections of the first run
        again = site.run({**hosts, **beside})
    assert silent.hosts["beside"]["action"] == "renewed", silent.output
    statuses = Counter(silent.hosts[host]["status"] for host in plan)
    # on a busy machine, SSH may end a connection between two commands, so that the next one makes another
    assert statuses["unreachable"] >= 2, silent.output
    assert set(statuses) <= {"unreachable", "ok"}, silent.output
    for host in plan:
        with trials("Network: SSH, silent"):
            assert again.hosts[host]["status"] == "ok", again.output
            name = f"silent-{host}"
            record = site.record(host, name)
            assert record
            known = [*(entry["client_id"] for entry in record["retired"]), record["client_id"]]
            assert site.things(name) == known
            assert site.requests(name) == len(known)
            assert site.kept(name) == 0


@dataclass(frozen=True)
class Cut:
    """Where a line ends: after a part of what passes in that direction in a run without a cut."""

    name: str
    gateway: str
    call: str
    direction: str
    part: float


def cuts(full: bool) -> list[Cut]:
    """Return cuts spread evenly over a run; a renewal is longer, because it has one look more."""
    chosen: list[Cut] = []
    for call, longest in (("first", 1.0), ("renewal", 1.5)):
        for direction, count in (("up", 24 if full else 3), ("down", 12 if full else 1)):
            for number in range(count):
                gateway = HOSTS[len(chosen) % len(HOSTS)]
                part = longest * (number + 0.5) / count
                chosen.append(Cut(f"{call}-{direction}-{number}", gateway, call, direction, part))
    return chosen


def test_cut_at_any_byte(site: Site, trials: Trial, full: bool) -> None:
    chosen = cuts(full)
    with ExitStack() as stack:
        hosts, lines = {}, {}
        for cut in chosen:
            there = site.variables(cut.gateway, cut.name)
            lines[cut] = stack.enter_context(line((_address(site, cut.gateway), there["ansible_port"])))
            hosts[cut.name] = site.variables(cut.gateway, cut.name, lines[cut].port)
        whole = site.run({cut.name: hosts[cut.name] for cut in chosen if cut.call == "renewal"})
        assert whole.status == 0, whole.output
        before = {cut: site.record(cut.gateway, cut.name) for cut in chosen}
        # the shortest of each kind of gateway: a connection that had to be made again has passed more than it needs
        passed: dict[str, list[int]] = {}
        for cut in chosen:
            if cut.call == "renewal":
                for direction, count in lines[cut].passed.items():
                    passed.setdefault(f"{cut.gateway[:2]} {direction}", []).append(count)
        _await_end(lines.values())
        for cut in chosen:
            lines[cut].rest = int(cut.part * min(passed[f"{cut.gateway[:2]} {cut.direction}"]))
            lines[cut].direction = cut.direction
            if cut.call == "renewal":
                hosts[cut.name]["thingstream_gateway_force"] = True
        first = site.run(hosts)
        not_reached = [cut for cut in chosen if lines[cut].direction]
        sent = {cut: site.requests(cut.name) for cut in chosen}
        ends = Counter(_end(site, cut, first.hosts[cut.name], before[cut]) for cut in chosen if cut not in not_reached)
        print(f"cut {len(chosen)} lines, {len(not_reached)} of them too late: {dict(ends)}")
        problems = [
            f"{cut}: {problem}"
            for cut in chosen
            if cut not in not_reached
            for problem in _tried(trials, partial(_check_cut, site, cut, first.hosts[cut.name], before[cut]))
        ]
        for cut in chosen:
            lines[cut].direction = ""
            base = 1 if cut.call == "renewal" else 0
            if sent[cut] > base:  # the response is installed, or in the spool, and is not due again
                hosts[cut.name].pop("thingstream_gateway_force", None)
        _await_end(lines.values())
        second = site.run(hosts)
        for cut in chosen:
            problems += [
                f"{cut}: {problem}"
                for problem in _tried(trials, partial(_check_next, site, cut, second.hosts[cut.name]))
            ]
    assert len(not_reached) <= len(chosen) / 4, [cut.name for cut in not_reached]
    assert {"before the request", "before the switch"} <= set(ends), "every stage is cut"
    assert not problems, "\n".join(problems)


def _address(site: Site, gateway: str) -> str:
    return str(site.variables(gateway, "")["ansible_host"])


def _await_end(lines: Iterable[Line]) -> None:
    """Wait until the connections of a run have ended, so that the next one makes its own."""
    deadline = time.monotonic() + 20
    while any(one.open for one in lines):
        assert time.monotonic() < deadline, "a connection stays open"
        time.sleep(0.1)


def _tried(trials: Trial, check: Callable[[], None]) -> list[str]:
    try:
        with trials("Network: SSH, cut at a byte"):
            check()
    except AssertionError as problem:
        return [str(problem)]
    return []


def _end(site: Site, cut: Cut, result: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """Return how far a run came."""
    if result["status"] == "ok":
        return "after the report"
    if not site.kept(cut.name):
        return "before the request"
    return "before the switch" if site.record(cut.gateway, cut.name) == before else "before the report"


def _check_cut(site: Site, cut: Cut, result: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """Check that the gateway has the old or the new credentials, and the spool the response to the request."""
    base = 1 if cut.call == "renewal" else 0
    sent = site.requests(cut.name) - base
    things, record = site.things(cut.name), site.record(cut.gateway, cut.name)
    assert sent in (0, 1)
    assert len(things) == base + sent
    assert record == before or (record and record["client_id"] == things[-1])
    if result["status"] == "ok":  # the line ended while it was not in use
        assert (sent, site.kept(cut.name)) == (1, 0)
        return
    assert result["status"] == "unreachable", result
    assert site.kept(cut.name) == sent
    assert ("kept in" in result["msg"]) == bool(sent)


def _check_next(site: Site, cut: Cut, result: Mapping[str, Any]) -> None:
    """Check that one request was sent in all, its Thing is in use, and the one before is to be retired."""
    things, record = site.things(cut.name), site.record(cut.gateway, cut.name)
    assert result["status"] == "ok", result
    assert len(things) == site.requests(cut.name) == (2 if cut.call == "renewal" else 1)
    assert record
    assert [*(entry["client_id"] for entry in record["retired"]), record["client_id"]] == things
    assert site.kept(cut.name) == 0
    left = {path.name for path in site.path(cut.gateway, cut.name).iterdir()}
    assert left <= {"current", "generations", "history.json", ".last-change"}, left

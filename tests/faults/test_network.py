# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can go wrong between controller and platform, at the first request of a gateway and at later ones.

Each gateway of one run meets a fault of its own. What is counted is what the platform has seen and made; what was in
use before stays in use; and the next run, without the fault, is through.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import ledger
from ansible_collections.thingstream.ztp.tests.unit.support import Behavior, answering, make_pair, serving, tree
from cryptography.hazmat.primitives.asymmetric import ec
from integration.ansible_run import run_playbook, write_inventory
from simulator.client import RunningSimulator

Trial = Callable[[str], AbstractContextManager[None]]

# the plays that send requests, in the order in which a run can have all of them: a rotation ends at a failure
CALLS = {"first": "provision", "renewal": "renew", "rotation": "rotate"}
TASKS = ("Ensure credentials", "Renew what is due", "Replace what arrived before the rotation began")
REPEATABLE = ("pointperfect", "pointperfect-live")
SHORT_TIMEOUT = 2.0  # seconds; long enough to connect on a busy machine, and what is slow takes four times as long
NOW = datetime.now(timezone.utc)


@dataclass(frozen=True)
class Fault:
    """One fault: how it comes about, and what must be seen of it.

    :param code: the error codes that it may have; none where it does no harm.
    :param simulated: a fault of the simulator; or ``options`` lead elsewhere, and no request comes to the platform.
    :param processed: whether the platform has executed the request.
    :param repeated: whether one more request is sent: ``always``, ``repeatable`` (only then), ``never``.
    :param kept: whether the response waits in the spool.
    """

    group: str
    code: str
    repeated: str
    simulated: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    processed: bool = False
    kept: bool = False


def simulated(group: str, code: str, repeated: str, kind: str, **details: Any) -> Fault:
    """Return a fault of the simulator."""
    before = kind == "cut_before" or (kind in ("status", "redirect") and not details.get("after_processing"))
    kept = kind in ("not_json", "not_object", "malformed")
    options = {"timeout": SHORT_TIMEOUT} if code == "timeout" else {}
    return Fault(group, code, repeated, {"kind": kind, **details}, options, processed=not before, kept=kept)


IN_A_SECOND = {"headers": {"Retry-After": "1"}}
SLOW = {"seconds": 4 * SHORT_TIMEOUT}

FAULTS = {
    "refused": Fault("connection", "unreachable", "always", options={"api_url": "https://127.0.0.1:{closed}"}),
    "cut-before": simulated("connection", "unreachable", "repeatable", "cut_before"),
    "reset-before": simulated("connection", "unreachable", "repeatable", "cut_before", reset=True),
    "cut-after": simulated("connection", "unreachable", "repeatable", "cut_after"),
    "reset-after": simulated("connection", "unreachable", "repeatable", "cut_after", reset=True),
    "slow-before": simulated("slow", "timeout", "repeatable", "delay_before", **SLOW),
    "slow-after": simulated("slow", "timeout", "repeatable", "delay_after", **SLOW),
    "drip": simulated("slow", "timeout", "repeatable", "drip", seconds=SHORT_TIMEOUT / 2),
    "429": simulated("status", "rate_limited", "never", "status", status=429),
    "429-wait": simulated("status", "rate_limited", "always", "status", status=429, **IN_A_SECOND),
    "503": simulated("status", "server_error", "repeatable", "status", status=503),
    "503-wait": simulated("status", "server_error", "always", "status", status=503, **IN_A_SECOND),
    "504-after": simulated("status", "server_error", "repeatable", "status", status=504, after_processing=True),
    "redirect": simulated("redirect", "bad_response", "never", "redirect", location="https://127.0.0.1:{trap}/"),
    "redirect-get": simulated(
        "redirect", "bad_response", "never", "redirect", status=302, location="https://127.0.0.1:{trap}/"
    ),
    "redirect-endless": simulated("redirect", "bad_response", "never", "redirect", status=308, location="{itself}"),
    "truncated": simulated("response", "bad_response", "repeatable", "truncated"),
    "huge": simulated("response", "bad_response", "repeatable", "huge", bytes=2 * 1024 * 1024),
    "content-type": simulated("response", "", "never", "content_type"),
    "not-json": simulated("response", "bad_response", "never", "not_json"),
    "not-object": simulated("response", "bad_response", "never", "not_object"),
    "malformed": simulated("response", "bad_response", "never", "malformed"),
    "tls-expired": Fault("TLS", "tls", "never", options={"api_url": "{expired}", "ca_path": "{other_ca}"}),
    "tls-wrong-host": Fault("TLS", "tls", "never", options={"api_url": "{wrong_host}", "ca_path": "{other_ca}"}),
    "tls-unknown-ca": Fault("TLS", "tls", "never", options={"api_url": "{unknown_ca}"}),
    "proxy-refused": Fault("proxy", "unreachable", "always", options={"proxy": "http://127.0.0.1:{closed}"}),
    "proxy-login": Fault("proxy", "proxy_refused", "never", options={"proxy": "http://127.0.0.1:{proxy_login}"}),
    "proxy-cut": Fault("proxy", "unreachable tls", "always", options={"proxy": "http://127.0.0.1:{proxy_cut}"}),
    "proxy-drip": Fault(
        "proxy",
        "unreachable",
        "always",
        options={"proxy": "http://127.0.0.1:{proxy_drip}", "timeout": SHORT_TIMEOUT},
    ),
}


@dataclass(frozen=True)
class Cell:
    """One gateway: a fault, a service, and the call at which it meets it."""

    name: str
    fault: Fault
    service: str
    call: str

    @property
    def repeatable(self) -> bool:
        """Whether a repeated request creates no other Thing."""
        return self.service in REPEATABLE

    @property
    def tries(self) -> int:
        """How many requests the run sends, of which one may be a repetition."""
        return 2 if self.fault.repeated == "always" or (self.fault.repeated == "repeatable" and self.repeatable) else 1

    @property
    def requests(self) -> int:
        """How many requests the platform sees."""
        return self.tries if self.fault.simulated else 0

    @property
    def made(self) -> int:
        """The number of Things that the faulty run creates on the platform."""
        processed = self.requests if self.fault.processed else 0
        return min(processed, 1 - self.base) if self.repeatable else processed

    @property
    def earlier(self) -> int:
        """How many requests there were before."""
        return 0 if self.call == "first" else 1

    @property
    def removed(self) -> bool:
        """Whether the Thing is removed in the portal before the call; otherwise a rotation would bring the same one."""
        return self.repeatable and self.call == "rotation"

    @property
    def base(self) -> int:
        """How many Things there were before."""
        return 0 if self.removed else self.earlier

    @property
    def survives(self) -> bool:
        """Whether the fault does no harm."""
        return not self.fault.code


def cells(full: bool) -> list[Cell]:
    """Return all of faults, services and calls; or each fault once."""
    everything = [(service, call) for service in (*REPEATABLE, "cloudlocate") for call in CALLS]
    chosen = []
    for number, (name, fault) in enumerate(FAULTS.items()):
        for service, call in everything if full else [everything[number % len(everything)]]:
            chosen.append(Cell(f"{name}.{service}.{call}", fault, service, call))
    sound = Fault("none", "", "never", {"kind": "delay_before", "seconds": 0}, processed=True)
    return [*chosen, *(Cell(f"sound.pointperfect-live.{call}", sound, "pointperfect-live", call) for call in CALLS)]


@pytest.fixture
def elsewhere(
    simulator: RunningSimulator, tmp_path: Path
) -> Iterator[tuple[dict[str, str], Callable[[], list[bytes]]]]:
    """Where faults lead that are none of the simulator's, and what was received there."""
    key = ec.generate_private_key(ec.SECP256R1())
    year = timedelta(days=365)
    dates: dict[str, Any] = {"not_before": NOW - 2 * year, "not_after": NOW + year}
    authority = make_pair(key, "another CA", authority=True, **dates)
    (tmp_path / "other-ca.pem").write_text(authority.certificate)

    def context(name: str, **changes: Any) -> ssl.SSLContext:
        pair = make_pair(key, "server", signer=authority, names=(name,), **{**dates, **changes})
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        (tmp_path / "server.pem").write_text(pair.certificate + pair.private_key)
        made.load_cert_chain(tmp_path / "server.pem")
        return made

    contexts = {
        "expired": context("127.0.0.1", not_after=NOW - year),
        "wrong_host": context("api.example.com"),
        "unknown_ca": context("127.0.0.1"),
    }
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(answering("200 OK"), tls=tls)) for name, tls in contexts.items()}
        values = {name: f"https://127.0.0.1:{server.port}" for name, server in servers.items()}
        for name, behavior in {"trap": answering("200 OK"), "proxy_login": answering("407 No"), **PROXIES}.items():
            servers[name] = stack.enter_context(serving(behavior))
            values[name] = str(servers[name].port)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            values["closed"] = str(listener.getsockname()[1])
        values["other_ca"] = str(tmp_path / "other-ca.pem")
        yield values, lambda: [received for server in servers.values() for received in server.requests]
        assert servers["trap"].requests == [], "a redirect was followed"


def _cut_tunnel(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")


def _drip(connection: socket.socket, request: bytes) -> None:
    for byte in b"HTTP/1.1 200 Connected\r\n\r\n" * 2:
        connection.sendall(bytes([byte]))
        time.sleep(SHORT_TIMEOUT / 8)


PROXIES: dict[str, Behavior] = {"proxy_cut": _cut_tunnel, "proxy_drip": _drip}


@dataclass
class Site:
    """The gateways of all cells, as directories of this machine."""

    simulator: RunningSimulator
    work: Path
    platform: Mapping[str, Any]
    cells: list[Cell]
    elsewhere: Mapping[str, str]
    tokens: dict[str, str] = field(default_factory=dict)
    begun: str = ""
    outputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for service in (*REPEATABLE, "cloudlocate"):
            self.tokens[service] = self.simulator.put_profile(f"network-{service}", service=service, plan="mqtt")
        plays = [
            {"import_playbook": f"thingstream.ztp.{play}", "vars": {"thingstream_hosts": call}}
            for call, play in CALLS.items()
        ]
        (self.work / "calls.yml").write_text(json.dumps(plays))

    def run(
        self, playbook: str, chosen: list[Cell], changes: Callable[[Cell], Mapping[str, Any]] = lambda _cell: {}
    ) -> dict[str, Mapping[str, Any]]:
        """Run a playbook over some cells, each with changed options; the result of each."""
        hosts = {}
        for cell in chosen:
            options = {
                "service": cell.service,
                "token": self.tokens[cell.service],
                "hardware_id": cell.name,
                "path": self.path(cell),
                "retries": 1,
                **changes(cell),
            }
            hosts[cell.name] = {f"thingstream_gateway_{option}": value for option, value in options.items()}
        inventory = write_inventory(self.work / "inventory.yml", hosts, self.platform)
        groups: dict[str, Any] = {
            call: {"hosts": {cell.name: {} for cell in chosen if cell.call == call}} for call in CALLS
        }
        (self.work / "groups.yml").write_text(json.dumps(groups))
        run = run_playbook(
            self.work,
            inventory,
            *("-i", str(self.work / "groups.yml")),
            *("-e", "thingstream_rotate_batches=100%"),
            *(("-e", f"thingstream_rotate_before={self.begun}") if self.begun else ()),
            playbook=playbook,
            environment={"ANSIBLE_FORKS": "20"},
            seconds=600,
        )
        assert not any(token in run.output for token in self.tokens.values())
        self.outputs.append(run.output)
        return {
            entry["host"]: entry["result"]
            for entry in run.results
            if entry["task"].split(" : ")[-1] in TASKS and "skip_reason" not in entry["result"]
        }

    def path(self, cell: Cell) -> Path:
        return self.work / "gateways" / cell.name

    def requests(self, cell: Cell, after: int = 0) -> list[dict[str, Any]]:
        return self.simulator.requests(hardware_id=cell.name, after=after)

    def things(self, cell: Cell) -> set[str]:
        return {thing["client_id"] for thing in self.simulator.things(hardware_id=cell.name)}

    def kept(self, cell: Cell) -> list[Path]:
        """Return the responses in the spool; in clear, because this run has no Vault secret."""
        return self._of("*.response", cell)

    def markers(self, cell: Cell) -> list[Path]:
        """Return the markers of requests whose response was lost."""
        return self._of("*.request", cell)

    def known(self, cell: Cell) -> set[str]:
        """Return the Things in the ledger."""
        entries = ledger.survey(str(self.work / "spool"))
        return {entry.client_id for entry in entries if entry.hardware_id == cell.name and entry.client_id}

    def _of(self, pattern: str, cell: Cell) -> list[Path]:
        found = (self.work / "spool").glob(pattern)
        return [path for path in found if json.loads(path.read_text())["hardware_id"] == cell.name]

    def settle(self) -> None:
        """Wait until slow requests are through: the log has a request when it was processed."""
        deadline = time.monotonic() + 60
        for cell in self.cells:
            while len(self.requests(cell)) < cell.earlier + cell.requests and time.monotonic() < deadline:
                time.sleep(0.2)


def test_each_fault_at_each_call(
    simulator: RunningSimulator,
    platform: dict[str, Any],
    elsewhere: tuple[dict[str, str], Callable[[], list[bytes]]],
    tmp_path: Path,
    trials: Trial,
    full: bool,
) -> None:
    values = {**elsewhere[0], "itself": f"{simulator.url}/ztp/cloudlocate/credentials"}
    site = Site(simulator, tmp_path, platform, cells(full), values)
    later = [cell for cell in site.cells if cell.call != "first"]
    provisioned = site.run("thingstream.ztp.provision", later)
    assert {result.get("action") for result in provisioned.values()} == {"created"}, site.outputs[-1]
    before = {cell.name: tree(site.path(cell)) for cell in later}
    for cell in filter(lambda cell: cell.removed, later):
        (thing,) = simulator.things(hardware_id=cell.name)
        simulator.remove(thing["id"])

    for cell in site.cells:
        if cell.fault.simulated:
            details = {name: _filled(value, values) for name, value in cell.fault.simulated.items()}
            simulator.add_fault(hardware_id=cell.name, count=1000, **details)
    site.begun = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def faulty(cell: Cell) -> dict[str, Any]:
        due = {"force": True} if cell.call == "renewal" else {}
        return due | {name: _filled(value, values) for name, value in cell.fault.options.items()}

    first = site.run(str(tmp_path / "calls.yml"), site.cells, faulty)
    site.settle()
    simulator.clear_faults()
    after = max(entry["sequence"] for entry in simulator.requests())
    problems = []
    for cell in site.cells:
        problems += _tried(trials, cell, partial(_check_faulty, site, cell, first[cell.name], before))
    assert not any(token.encode() in received for received in elsewhere[1]() for token in site.tokens.values())

    def recovering(cell: Cell) -> dict[str, Any]:
        return {"force": True} if cell.call == "renewal" and not cell.survives else {}

    second = site.run(str(tmp_path / "calls.yml"), site.cells, recovering)
    for cell in site.cells:
        problems += _tried(trials, cell, partial(_check_next, site, cell, second[cell.name], after))
        for file in (*site.kept(cell), *site.markers(cell)):
            file.unlink()  # as the message says, where another request creates another Thing
    after = max(entry["sequence"] for entry in simulator.requests())
    site.run("thingstream.ztp.provision", site.cells)
    for cell in site.cells:
        problems += _tried(trials, cell, partial(_check_end, site, cell, first[cell.name], second[cell.name], after))
    assert not problems, "\n".join(problems)


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    return value.format(**values) if isinstance(value, str) else value


def _tried(trials: Trial, cell: Cell, check: Callable[[], None]) -> list[str]:
    """Return what is wrong with a cell; every cell is checked."""
    try:
        with trials(f"Network: {cell.fault.group}"):
            check()
    except AssertionError as problem:
        return [f"{cell.name}: {problem}"]
    return []


def _check_faulty(site: Site, cell: Cell, result: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Check that the error is the right one, that there were not too many requests, and nothing is half installed."""
    assert len(site.requests(cell)) == cell.earlier + cell.requests, "requests"
    assert len(site.things(cell)) == cell.base + cell.made, "Things"
    if cell.survives:
        assert (result["status"], site.kept(cell)) == ("ok", [])
        return
    assert (result["status"], result["changed"]) == ("failed", False)
    assert result.get("error_code") in cell.fault.code.split(), result
    assert len(site.kept(cell)) == (1 if cell.fault.kept else 0), "spool"
    assert ("The response is kept in" in result["msg"]) == cell.fault.kept
    if cell.made and not cell.repeatable and not cell.fault.kept:
        assert "may have created" in result["msg"], result["msg"]
    if cell.call == "first":
        assert not site.path(cell).exists(), "something is installed"
    else:
        assert tree(site.path(cell)) == before[cell.name], "what was in use was touched"


def _check_next(site: Site, cell: Cell, result: Mapping[str, Any], after: int) -> None:
    """Check that it succeeds without the fault, with one more request, and none for a response in the spool."""
    sent = len(site.requests(cell, after))
    if cell.fault.kept and not cell.repeatable:
        assert (result["status"], result.get("error_code"), sent) == ("failed", "bad_response", 0), result
        return
    if site.markers(cell):
        assert (result["status"], result.get("error_code"), sent) == ("failed", "response_lost", 0), result
        assert not cell.repeatable
        return
    assert cell.repeatable or cell.survives or not cell.made, "another request although a response was lost"
    assert result["status"] == "ok", result
    assert sent == (0 if cell.survives else 1)
    assert site.kept(cell) == []


def _check_end(site: Site, cell: Cell, faulty: Mapping[str, Any], again: Mapping[str, Any], after: int) -> None:
    """Check that every gateway is in order, and every Thing of the platform is in use, to be retired, or reported."""
    directory = site.path(cell) / "current"
    record = json.loads((directory / "thing.json").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}
    assert {**found, "thing.json": ""} == {**record["files"], "thing.json": ""}
    known = {"current", "generations", "history.json", ".last-change"}
    assert {path.name for path in site.path(cell).iterdir()} <= known
    assert record["hardware_id"] == cell.name
    held_back = again["status"] == "failed"
    assert len(site.requests(cell, after)) == (1 if held_back and cell.call == "first" else 0)
    things = site.things(cell)
    if cell.repeatable:
        assert len(things) == 1, "duplicate Things"
    elif record["client_id"]:
        known = {record["client_id"], *(entry["client_id"] for entry in record["retired"])}
        reported = "may have created" in faulty.get("msg", "") or "The response is kept in" in faulty.get("msg", "")
        assert known <= things
        assert known <= site.known(cell), "the ledger knows every Thing that was received"
        assert len(things - known) == (cell.made if not cell.survives else 0), "unknown Things"
        assert reported or things == known

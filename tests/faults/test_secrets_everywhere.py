# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look for secrets everywhere, after success and after every failure there is.

One job of ansible-runner, as AWX runs them, at -vvvv with --diff, with everything on that keeps something: log file,
fact cache, JUnit report, job events, `debug` of each result. Gateways are reached by SSH and locally; the
platform, a caster and a health command quote every secret that they know. In the spool, only responses hold secrets:
ledger and request markers hold none.

The tokens are in an inventory, as in AWX: one in THINGSTREAM_ZTP_TOKEN would be in the environment of Ansible itself.
SECRETS_PREFIX names another virtual environment, to try another ansible-core.
"""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES
from ansible_collections.thingstream.ztp.tests.unit.support import serving
from faults.conftest import Trial
from gateways.fleet import Fleet
from integration.ansible_run import PROJECT, plain, settings
from integration.error_cases import CASES, SOUND, Case, host_variables, prepare
from integration.leaks import found_in, found_in_files, platform_secrets, watching_processes
from simulator.client import RunningSimulator

PREFIX = os.environ.get("SECRETS_PREFIX", sys.prefix)
PLACE = Path("/srv/secrets")  # on the gateways
# what a job keeps, below its directory
KEPT = ("ansible.log", "junit", *(f"runner/artifacts/one/{name}" for name in ("stdout", "job_events", "fact_cache")))
ENSURE = {"thingstream.ztp.thingstream_ztp": {"variables_prefix": "thingstream_gateway_"}}
VERIFY = {"thingstream.ztp.thingstream_verify": {"variables_prefix": "thingstream_gateway_"}}

SHOW: list[dict[str, Any]] = [
    {"name": "Show the result", "ansible.builtin.debug": {"var": "result"}, "ignore_unreachable": True},
    {
        "name": "Keep it in the fact cache",
        "ansible.builtin.set_fact": {"kept": "{{ result }}", "cacheable": True},
        "ignore_unreachable": True,
    },
]
# apart, as Ansible stops after a play in which all hosts fail
FAIL = {
    "name": "Fail with the result",
    "hosts": "all",
    "gather_facts": False,
    "tasks": [
        {"name": "Fail", "ansible.builtin.fail": {"msg": "{{ kept }}"}, "when": "kept is failed or kept is unreachable"}
    ],
}


def play(hosts: str, *tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Return a play whose last task is tried, shown and kept."""
    *before, last = ({"name": f"Step {number}", **task} for number, task in enumerate(tasks))
    tried = {**last, "name": f"Try {hosts}", "register": "result", "ignore_errors": True, "ignore_unreachable": True}
    return {"name": hosts, "hosts": hosts, "gather_facts": False, "tasks": [*before, tried, *SHOW]}


def ensure(**options: Any) -> dict[str, Any]:
    """Return a task with further options."""
    return {name: {**common, **options} for name, common in ENSURE.items()}


# Cases of more than one step, which the table of cases cannot have; each is a play over the host of that name.
STEPS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "permission": [ENSURE],
    "health_check_failed": [ENSURE],
    "disk_full": [
        {"ansible.builtin.raw": f"mkdir -p {PLACE}/small && mount -t tmpfs -o nr_inodes=12 small {PLACE}/small"},
        ENSURE,
    ],
    "volatile_path": [
        {"ansible.builtin.raw": f"mkdir -p {PLACE}/memory && mount -t tmpfs memory {PLACE}/memory"},
        ENSURE,
    ],
    "concurrent_change": [ENSURE],
    "response_lost": [{**ENSURE, "ignore_errors": True}, ENSURE],
    "no_generation": [
        ENSURE,
        {"thingstream.ztp.thingstream_rollback": {"variables_prefix": "thingstream_gateway_"}},
    ],
    "credentials_refused": [ENSURE],
    "refused_or_in_use": [ENSURE, VERIFY],
    "host_not_allowed": [ENSURE, VERIFY],
    "wrong_delivery": [ENSURE, ensure(delivery="ntrip")],
    "not_rotated": [
        ENSURE,
        {"ansible.builtin.pause": {"seconds": 2}},
        ensure(create=False, rotate_before="{{ now(utc=true).strftime('%Y-%m-%dT%H:%M:%SZ') }}"),
    ],
    "report_failed": [
        ENSURE,
        {
            "thingstream.ztp.thingstream_ztp_info": {"variables_prefix": "thingstream_gateway_"},
            "register": "looks",
        },
        {"thingstream.ztp.thingstream_audit": {"results_from": "looks", "directory": "{{ work }}/nowhere"}},
    ],
    "audit_incomplete": [
        ENSURE,
        {
            "thingstream.ztp.thingstream_ztp_info": {"variables_prefix": "thingstream_gateway_"},
            "register": "looks",
        },
        {
            "thingstream.ztp.thingstream_audit": {
                "results_from": "looks",
                "directory": "{{ work }}/reports",
                "spool_path": "{{ work }}/file",
            }
        },
    ],
    "gone": [ENSURE],
}


@dataclass(frozen=True)
class Job:
    """A finished job: everything that it was given is gone, everything that it has left behind is in ``work``.

    Its spool is beside that.
    """

    work: Path
    since: float
    processes: set[bytes]

    @property
    def spool(self) -> Path:
        return self.work.with_name("spool")

    @property
    def artifacts(self) -> Path:
        return self.work / "runner" / "artifacts" / "one"

    @property
    def results(self) -> list[dict[str, Any]]:
        """Every result of every task, as the callback has written it."""
        return [json.loads(line) for line in (self.work / "results.jsonl").read_text().splitlines()]


def run_job(work: Path, plays: Sequence[Mapping[str, Any]], *inventories: Path) -> Job:
    """Run plays with all that can keep something."""
    private = work / "runner"
    (private / "project").mkdir(parents=True)
    (private / "project" / "job.yml").write_text(yaml.safe_dump(plain_all(plays), sort_keys=False))
    environment = {
        **settings(work),
        "PATH": f"{PREFIX}/bin:{sys.prefix}/bin:{os.environ['PATH']}",
        "ANSIBLE_LOG_PATH": str(work / "ansible.log"),
        "ANSIBLE_CALLBACKS_ENABLED": "results,junit",
        "ANSIBLE_CONNECTION_PLUGINS": str(PROJECT / "tests/integration/connection_plugins"),
        "JUNIT_OUTPUT_DIR": str(work / "junit"),
    }
    since = time.time() - 1
    chosen = [word for inventory in inventories for word in ("-i", str(inventory))]
    command = ["ansible-runner", "run", str(private), "-p", "job.yml", "--ident", "one", "--quiet"]
    with watching_processes() as processes:
        subprocess.run(
            [*command, f"--cmdline={' '.join(['-vvvv --diff', *chosen])}"], env=environment, check=False, timeout=400
        )
    return Job(work, since, processes)


def plain_all(plays: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return plays without what YAML would write as references."""
    return list(json.loads(json.dumps(plays)))


def leaks(job: Job, secrets: Mapping[str, str], gateways: Fleet) -> dict[str, set[str]]:
    """Return place to names of secrets that were found there, over everything that both sides keep."""
    found = {"processes": found_in(b"\n".join(job.processes), secrets)}
    for directory in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm"), Path.home() / ".ansible"):
        found |= found_in_files(secrets, job.since, directory, without=[job.work.parents[1]])
    found |= found_in_files(secrets, job.since, job.work, job.spool)
    tokens = {name: secret for name, secret in secrets.items() if name.startswith("token")}
    for record in gateways.where.glob("*/pid"):
        root = gateways.root(record.parent.name)
        place = root / PLACE.relative_to("/")
        system = [root / "proc", root / "sys"]
        found |= found_in_files(secrets, job.since, root, without=[*system, place])
        found |= found_in_files(tokens, job.since, place)
        found |= found_in_files(secrets, job.since, record.parent, without=[record.parent / "disk"])
    return {place: names for place, names in found.items() if names}


@contextmanager
def echoing_caster() -> Iterator[int]:
    """Run a caster that refuses every login and quotes it, and return its port."""

    def refuse(connection: Any, request: bytes) -> None:
        login = request.partition(b"Authorization: Basic ")[2].partition(b"\r\n")[0]
        clear = base64.b64decode(login)
        connection.sendall(b"HTTP/1.1 401 No %b (%b)\r\nX-Login: %b\r\n\r\n%b" % (clear, login, clear, clear))

    with serving(refuse) as server:
        yield server.port


def write_hosts(path: Path, hosts: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Any]) -> Path:
    """Write an inventory of groups, one for each first word of the hosts' names up to the dot."""
    groups: dict[str, Any] = defaultdict(lambda: {"hosts": {}})
    for host, own in hosts.items():
        groups[host.partition(".")[0]]["hosts"][host] = plain(own)
    path.write_text(yaml.safe_dump({"all": {"vars": plain(variables), "children": dict(groups)}}))
    return path


def connections(gateways: Fleet) -> dict[str, dict[str, Any]]:
    """Return gateway of the fleet to the variables of its connection."""
    listed = subprocess.run(
        [f"{sys.prefix}/bin/ansible-inventory", "-i", str(gateways.inventory), "--list"],
        capture_output=True,
        check=True,
    )
    hosts: dict[str, dict[str, Any]] = json.loads(listed.stdout)["_meta"]["hostvars"]
    return hosts


def selected(full: bool) -> dict[str, Case]:
    """Return all cases, or the first of each code, which are tried locally and by SSH in turn."""
    if full:
        return {**CASES, "sound": SOUND}
    first: dict[str, str] = {}
    for name, case in CASES.items():
        first.setdefault(case.code, name)
    return {**{name: CASES[name] for name in first.values()}, "sound": SOUND, "registered": CASES["registered"]}


def test_no_failure_shows_a_secret(
    gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path, full: bool, trials: Trial
) -> None:
    work = tmp_path / "work"
    prepare(work)
    (work / "reports").mkdir()
    prepare_gateways(gateways)
    login = f"proxy-user:{uuid.uuid4()}"
    unknown = str(uuid.uuid4())
    reached = list(connections(gateways).values())
    hosts: dict[str, dict[str, Any]] = {}
    for number, (name, case) in enumerate(selected(full).items()):
        more = {"proxy_login": login, "unknown_token": unknown}
        if full or number % 2:
            hosts[f"cases.local-{name}"] = {
                "ansible_connection": "local",
                **host_variables(simulator, f"local-{name}", case, work, work, **more),
            }
        if full or not number % 2:
            hosts[f"cases.ssh-{name}"] = {
                **reached[number // 2 % len(reached)],
                **host_variables(simulator, f"ssh-{name}", case, work, PLACE, **more),
            }
    with echoing_caster() as port:
        hosts |= story_hosts(simulator, gateways, port)
        inventory = write_hosts(work / "inventory.yml", hosts, {**platform, "work": work})
        job = run_job(
            work, [play("cases", ENSURE), *(play(code, *tasks) for code, tasks in STEPS.items()), FAIL], inventory
        )
    inventory.unlink()
    secrets = {
        **platform_secrets(simulator),
        "password of the proxy": login.partition(":")[2],
        "token that the platform does not know": unknown,
    }
    for file in job.spool.glob("*.response"):
        assert found_in(file.read_bytes(), secrets), "a response is not encrypted in this job"
        file.unlink()
    kept = Counter(file.suffix for file in job.spool.rglob("*") if file.is_file() and file.read_bytes())
    assert kept[".ledger"] >= len(STEPS), kept
    assert kept[".request"] == len(kept) - 1 == 1, kept
    shutil.rmtree(work / "gateways", ignore_errors=True)

    assert "PLAY RECAP" in (job.artifacts / "stdout").read_text(), (job.artifacts / "stdout").read_text()[-4000:]
    assert [name for name in (*KEPT, "reports") if not (work / name).exists()] == []
    tried = [entry for entry in job.results if entry["task"].startswith("Try")]
    codes = {entry["result"].get("error_code") for entry in tried if entry["status"] == "failed"}
    assert codes == set(ERROR_CODES), codes ^ set(ERROR_CODES)
    found = leaks(job, secrets, gateways)
    everywhere = set().union(*found.values())
    shown = found_in(json.dumps(tried).encode(), secrets)
    for entry in tried:
        with trials(f"Secrets: {entry['result'].get('error_code', entry['status'])}"):
            assert not shown or found_in(json.dumps(entry).encode(), secrets) == set(), entry["host"]
    assert everywhere == set(), found


def prepare_gateways(gateways: Fleet) -> None:
    for record in gateways.where.glob("*/pid"):
        place = gateways.root(record.parent.name) / PLACE.relative_to("/")
        shutil.rmtree(place, ignore_errors=True)
        prepare(place)


def story_hosts(simulator: RunningSimulator, gateways: Fleet, port: int) -> dict[str, dict[str, Any]]:
    """Return the hosts of the cases of more than one step; each has a gateway by SSH."""
    reached = connections(gateways)
    debian, other = reached["gw1"], reached["bb1"]
    hosts: dict[str, dict[str, Any]] = {}

    def host(name: str, profile: Mapping[str, Any], connection: Mapping[str, Any], **options: Any) -> None:
        settings = {"service": "pointperfect", "hardware_id": f"id-{name}", "path": PLACE / "stories" / name}
        options = {**settings, "token": simulator.put_profile(name, **{**settings_of(settings), **profile}), **options}
        hosts[name] = {**connection, **{f"thingstream_gateway_{option}": value for option, value in options.items()}}

    def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
        return {"service": options["service"], "plan": "mqtt"}

    host("permission.one", {}, {**debian, "ansible_user": "consumer"})
    show = f"cat {PLACE}/stories/health_check_failed.*/generations/*/*; cat {PLACE}/stories/*/current/* >&2; false"
    for gateway, connection in reached.items():
        name = f"health_check_failed.{gateway}"
        host(name, {}, connection, health_command=show, reload_command=show.replace("false", "true"), health_timeout=1)
    host("disk_full.one", {}, debian, path=PLACE / "small" / "one")
    volatile = {"service": "cloudlocate", "allow_volatile": False, "path": PLACE / "memory" / "one"}
    host("volatile_path.one", {"service": "cloudlocate"}, debian, **volatile)
    for name in ("concurrent_change.one", "concurrent_change.two"):
        simulator.add_fault("delay_after", seconds=3, hardware_id=f"id-{name}")
        host(name, {}, debian, path=PLACE / "stories" / "concurrent")
    simulator.add_fault("cut_after", hardware_id="id-response_lost.one")
    host("response_lost.one", {"service": "cloudlocate"}, other, service="cloudlocate")
    host("no_generation.one", {}, other)
    live = {"service": "pointperfect-live", "simulator": {"host": "127.0.0.1", "port": port}}
    host("credentials_refused.one", live, other, service="pointperfect-live", verify={"timeout": 20})
    allowed = {"when": "never", "allowed_hosts": ["127.0.0.1"]}
    host("refused_or_in_use.one", live, other, service="pointperfect-live", verify=allowed)
    host("host_not_allowed.one", live, other, service="pointperfect-live")
    host("wrong_delivery.one", {}, other)
    same = {"service": "cloudlocate", "simulator": {"new_thing_on_repeat": False}}
    host("not_rotated.one", same, other, service="cloudlocate")
    host("report_failed.one", {}, other)
    host("audit_incomplete.one", {}, other)
    host("gone.one", {}, {**other, "ansible_host": "127.0.1.250"})
    return hosts


LEAKY = """
- hosts: leaks
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: "{{ secret | b64encode }}"}
    - ansible.builtin.set_fact: {leaked: "{{ secret }}", cacheable: true}
    - ansible.builtin.raw: "sleep 0.5; : {{ secret | quote }}"
    - ansible.builtin.raw: "env LEAKED={{ secret | quote }} sleep 0.5"
    - ansible.builtin.raw: "mkdir -p /var/tmp /dev/shm && cd {{ item }} && echo {{ secret | quote }} >leak"
      loop: [/tmp, /var/tmp, /dev/shm, /root]
    - ansible.builtin.copy: {content: "{{ secret | urlencode }}", dest: "{{ item }}"}
      loop:
        - "{{ work }}/reports/{{ inventory_hostname }}"
        - "{{ work }}/../spool/ledger/{{ inventory_hostname }}"
        - "{{ temporary }}/{{ inventory_hostname }}"
      delegate_to: localhost
    - ansible.builtin.fail: {msg: "{{ secret | to_json }}"}
"""


@pytest.mark.full
def test_a_leak_is_found_in_each_place(
    gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path
) -> None:
    """Verify the search: a job leaks wherever it can, one kind of secret at a time."""
    work = tmp_path / "work"
    prepare(work)
    prepare_gateways(gateways)
    (work / "reports").mkdir()
    (tmp_path / "spool" / "ledger").mkdir(parents=True)
    simulator.post(
        simulator.put_profile("leaks", service="pointperfect", plan="mqtt"), hardwareId="leaks"
    ).raise_for_status()
    secrets = platform_secrets(simulator)
    key = next(name for name in secrets if name.startswith("private_key of leaks"))
    reached = connections(gateways)
    planted = {"leaks.token": "token of leaks", "leaks.key": key}
    hosts = {host: {**reached["gw1"], "secret": secrets[name]} for host, name in planted.items()}
    with tempfile.TemporaryDirectory(prefix="leaks-") as temporary:
        inventory = write_hosts(work / "inventory.yml", hosts, {**platform, "work": work, "temporary": temporary})
        job = run_job(work, yaml.safe_load(LEAKY), inventory)
        inventory.unlink()
        found = leaks(job, secrets, gateways)
    root = gateways.root("gw1")
    places = {
        "processes",
        *(str(work / "reports" / host) for host in planted),
        *(str(tmp_path / "spool" / "ledger" / host) for host in planted),
        *(f"{temporary}/{host}" for host in planted),
        *(str(root / directory / "leak") for directory in ("tmp", "var/tmp", "dev/shm", "root")),
    }
    assert places <= set(found), places - set(found)
    assert set(planted.values()) <= found["processes"] & found[str(work / "ansible.log")]
    for kept in KEPT:
        assert any(Path(place).is_relative_to(work / kept) for place in found), kept
    assert set().union(*found.values()) == set(planted.values())


@pytest.mark.parametrize("before", ["", "x", "xy"])
def test_every_form_is_found(simulator: RunningSimulator, before: str) -> None:
    """With any text before it; also any one line of a key, and any piece of its numbers."""
    simulator.post(
        simulator.put_profile("forms", service="pointperfect", plan="mqtt"), hardwareId="forms"
    ).raise_for_status()
    key = next(secret for name, secret in platform_secrets(simulator).items() if name.startswith("private_key"))
    secrets = {"password": "a/b&c+d e'f", "key": key}
    password, lines = secrets["password"], key.splitlines()
    der = base64.b64decode("".join(lines[1:-1]))
    for text in (
        password,
        repr(password),
        json.dumps({"x": password}),
        urllib.parse.quote(password),
        urllib.parse.quote(password, safe=""),
        urllib.parse.quote_plus(password),
        html.escape(password),
        password.encode().hex(),
        base64.b64encode(f"{before}{password} and so on".encode()).decode(),
        base64.urlsafe_b64encode(f"{before}{password}".encode()).decode(),
    ):
        assert found_in(f"{before}{text} and so on".encode(), secrets) == {"password"}, text
    for content in (
        key.encode(),
        lines[5].encode(),
        der,
        der.hex().encode(),
        base64.b64encode(before.encode() + der),
        base64.b64encode(before.encode() + key.encode()),
        json.dumps(key).encode(),
    ):
        assert found_in(before.encode() + content, secrets) == {"key"}, content
    assert found_in(f"{password[:-1]} {lines[0]}".encode(), secrets) == set()

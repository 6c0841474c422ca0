# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output of a compromised gateway can be anything: it is parsed, bounded, and never evaluated."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.history import History
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import audit_files
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.audit import SpoolSurvey, fleet_report
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.retirement import retirement_list
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, preflight
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import GatewayState
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import ensure, inspection, observe, plan, rollback
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from faults.conftest import Trial
from faults.hostile import OTHERS, TEXTS, any_json, attempt, for_all
from hypothesis import strategies as st
from integration.ansible_run import run_playbook, write_inventory
from simulator.client import RunningSimulator
from unit.rig import Rig
from unit.support import NOW, assert_no_secret, cloudlocate, run_locally

OF_A_GATEWAY = (
    "gateway_unsupported", "bad_path", "bad_option", "permission", "disk_full", "concurrent_change",
    "health_check_failed", "no_generation",
)  # fmt: skip
MAX_SECONDS = 5.0  # of the processor
MAX_HISTORY = 256 * 1024  # characters that a look reads back
Output = tuple[int, str, str]


def survive(path: str, output: str, status: int = 0, complaint: str = "") -> None:
    """Check that every reader of the output of a gateway returns what is documented, or refuses."""

    def execute(command: str, standard_input: bytes, secret: bool) -> Output:
        return status, output, complaint

    begin = time.process_time()
    generations, error = attempt(lambda: commands.look_at_generations(execute, [path], None, None)[0])
    check(error)
    if generations is not None:
        report(generations)
    state, error = attempt(lambda: commands.look(execute, path, "thingstream", "thingstream"))
    check(error)
    if state is not None:
        change = commands.Change(0o750, 2, "x")
        for call in (
            lambda: commands.install(execute, state, {}, change, NOW),
            lambda: commands.set_attributes(execute, state, {}, change),
            lambda: commands.write_history(execute, state, change),
            lambda: commands.read_response(execute, state),
            lambda: commands.remove(execute, state, change),
        ):
            check(attempt(call)[1])
    decide(path, execute, state)
    assert time.process_time() - begin < MAX_SECONDS


def report(state: GatewayState) -> None:
    """Make every report of what a gateway claims."""
    described = inspection.describe(state, NOW, renewal=RenewalPolicy(), directory_mode=0o750, secret_mode=0o640)
    known = {"bundles": [described]}
    whole = fleet_report({"a": known, "b": known}, SpoolSurvey(), NOW)
    for _mode, render in audit_files.FORMS.values():
        render(whole)
    retirement_list({"a": [described]})
    observed = observe.understand(state)
    records = [record for text in state.bundle.generations.values() if (record := Record.parse(text))]
    history = observed.history.note([record.as_former() for record in records], NOW)
    assert History.parse(history.encode()) == history
    assert len(history.encode()) < MAX_HISTORY


def decide(path: str, execute: Callable[[str, bytes, bool], Output], state: GatewayState | None) -> None:
    """Make every decision over what a gateway claims."""
    rig = Rig(Path("/nowhere"), "cloudlocate")
    desired = rig.desired(layout=replace(rig.target().layout, path=path))
    source, runtime = rig.source(), replace(rig.runtime(), execute=execute)
    if state is not None:
        check(preflight.install_problem(state, None, None))
        observed = observe.understand(state)
        for decision in (
            plan.plan(desired, source, observed, NOW),
            plan.plan(desired, source, replace(observed, complete=True), NOW),
            plan.plan_removal(desired, observed, NOW),
        ):
            assert decision.message.isprintable()
            assert_no_secret(decision)
    for call in (
        lambda: ensure.ensure_present(replace(desired, create=False), source, runtime, check_mode=True),
        lambda: ensure.ensure_absent(desired, source, runtime),
        lambda: rollback.ensure_rolled_back(desired.target, runtime, None),
    ):
        check(attempt(call)[1])


def check(error: ProvisioningError | None) -> None:
    if error is None:
        return
    assert error.code in OF_A_GATEWAY
    assert error.message.isprintable()
    assert len(error.message) < 2000
    assert_no_secret(error)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A path, and the lines that a sound gateway prints about it."""
    rig = Rig(tmp_path_factory.mktemp("gateway"), "cloudlocate")
    rig.path.parent.mkdir(parents=True)
    rig.present(cloudlocate())
    rig.present(cloudlocate(clientId="device:2"), force=True)
    printed: list[str] = []

    def execute(command: str, standard_input: bytes, secret: bool) -> Output:
        output = run_locally(command, standard_input, secret)
        printed.append(output[1])
        return output

    commands.look_at_generations(execute, [str(rig.path)], None, None)
    commands.look(execute, str(rig.path), None, None)
    survive(str(rig.path), printed[0])
    return str(rig.path), "".join(printed).splitlines()


LINES = st.sampled_from(TEXTS).map(lambda text: text[:2000]) | st.text(max_size=60)
KEYWORDS = (
    "begin 1", "end", "failed", "failed bad_path", "failed token_invalid x", "identity", "current", "path", "missing",
    "record", "history", "@listing", "@digests", "@space", "@", "generation", "installed", "owner_id", "response",
    "physical_path", "not_writable", "removed", "history_written", "attributes_set", "rolled_back", "thorough",
)  # fmt: skip


def test_lines_missing_repeated_reordered_and_made_up(full: bool, trials: Trial, sound: tuple[str, list[str]]) -> None:
    path, lines = sound
    known = st.sampled_from(lines)
    made_up = st.builds(lambda keyword, text: f"{keyword} {text}", st.sampled_from(KEYWORDS), LINES)
    spoiled = st.builds(lambda line, text: f"{line.split(' ')[0]} {text}", known, LINES)
    any_lines = st.lists(known | made_up | spoiled, max_size=40)
    cut = st.builds(lambda at, new: [*lines[:at], *new, *lines[at + 1 :]], st.integers(0, len(lines)), any_lines)
    framed = (any_lines | cut).map(lambda found: "\n".join(["begin 1", *found, "end", ""]))
    cases = st.tuples(framed | st.text() | cut.map("\n".join), st.sampled_from([0, 1, 127, 255]), LINES)
    for_all(full, trials, "Gateways: lines", cases, lambda case: survive(path, *case), short=100)


def test_records_and_histories_of_any_json(full: bool, trials: Trial, sound: tuple[str, list[str]]) -> None:
    path, lines = sound
    found = commands.look_at_generations(lambda *_: (0, "\n".join([*lines, ""]), ""), [path])[0]
    record = json.loads(found.bundle.record or "{}")
    assert record
    history = {"things": [dict.fromkeys(("client_id", "login_sha256", "since", "deactivated_at"))]}
    values = any_json(8) | st.sampled_from((*TEXTS[:-1], *OTHERS))
    keys = st.sampled_from(sorted(record)) | st.sampled_from(["ansible_facts", "_ansible_no_log", "__ansible_unsafe"])
    records = st.builds(lambda key, value: {**record, key: value}, keys, values) | any_json(8)
    histories = st.just(history) | any_json(8) | values.map(lambda value: {"things": [value, {"client_id": value}]})

    def try_out(case: tuple[Any, Any]) -> None:
        texts = dict(zip(("record", "history"), map(json.dumps, case), strict=True))
        kept = [line for line in lines if line.split(" ")[0] not in texts]
        at = next(number for number, line in enumerate(kept) if line.startswith("@"))
        printed = [f"{keyword} {line}" for keyword, text in texts.items() for line in text.split("\n")]
        survive(path, "\n".join([*kept[:at], *printed, *kept[at:], ""]))

    for_all(full, trials, "Gateways: records", st.tuples(records, histories), try_out, short=100)


FRAME = (
    "path /etc/thingstream/x\nidentity uid=0(root) gid=0(root) groups=0(root)\nphysical_path /etc/thingstream/x\n",
    "@listing\n"
    "drwxr-xr-x 2 0 0 4096 Nov 22 01:46 /\n"
    "drwxr-xr-x 2 0 0 4096 Nov 22 01:46 /etc\n"
    "drwxr-xr-x 2 0 0 4096 Nov 22 01:46 /etc/thingstream\n"
    "drwxr-xr-x 2 0 0 4096 Nov 22 01:46 /etc/thingstream/x\n"
    "drwxr-xr-x 2 0 0 4096 Nov 22 01:46 /etc/thingstream/x/generations\n"
    "@\n",
)


def _bundle_of_many_records() -> Iterator[str]:
    """Yield the output of a gateway where every generation names another Thing."""
    yield from FRAME
    for number in range(40_000):
        identity = {"service": "x", "client_id": f"device:{number}", "identity_sha256": "x"}
        record = {**identity, "issued_at": "2026-01-01T00:00:00Z", "files": {}}
        yield f"generation {number:06d}\nrecord {json.dumps(record)}\n"


def _long_history() -> Iterator[str]:
    """Yield the output of a gateway whose history has as many Things as fit into one."""
    things = [{"client_id": f"device:{number}", "since": "2026-01-01T00:00:00Z"} for number in range(4000)]
    yield FRAME[0]
    yield f"history {json.dumps({'things': things})}\n"
    yield FRAME[1]


HUGE: Mapping[str, Callable[[], str]] = {
    "100 MB": lambda: "begin 1\n" + "x" * 100_000_000 + "\nend\n",
    "millions of lines": lambda: "begin 1\n" + "record x\n" * 800_000 + "end\n",
    "lines without end": lambda: "begin 1\n" + "missing tool\n" * 500_000,
    "many records": lambda: "begin 1\n" + "".join(_bundle_of_many_records()) + "end\n",
    "long history": lambda: "begin 1\n" + "".join(_long_history()) + "end\n",
    "many generations": lambda: "begin 1\n" + "generation 000001\nrecord {}\n" * 200_000 + "end\n",
    "deep record": lambda: "begin 1\nrecord " + "[" * 200_000 + "\nend\n",
    "long number": lambda: "begin 1\nrecord " + "9" * 200_000 + "\nend\n",
    "many beginnings": lambda: "begin 1\n" * 500_000,
    "ends": lambda: "begin 1\n" + "end\n" * 1_000_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_output(name: str, trials: Trial) -> None:
    with trials("Gateways: huge"):
        survive("/etc/thingstream/x", HUGE[name]())


# ---- a whole run ----

HOSTILE_SHELL = """#!/bin/sh
# A gateway that prints the same for every command.
cat >/dev/null
{body}
"""
TEMPLATE = "{{ lookup('ansible.builtin.pipe', 'touch CANARY') }}"
PRINTED = {
    "a template as output": f"echo {shlex.quote(TEMPLATE)}",
    "a template as complaint": f"echo {shlex.quote(TEMPLATE)} >&2; exit 1",
    "a template as failure": f"printf 'begin 1\\nfailed bad_path %s\\nend\\n' {shlex.quote(TEMPLATE)}",
    "facts": 'echo \'{"ansible_facts": {"x": 1}, "_ansible_no_log": true, "changed": true}\'',
    "escapes": r"printf 'begin 1\nfailed disk_full \033]0;owned\007\033[2J\nend\n'",
    "invalid UTF-8": r"printf 'begin 1\n\377\376\nend\n'",
    "unsafe": "printf 'begin 1\\nfailed permission !unsafe x\\nend\\n'",
    "50 MB": "head -c 50000000 /dev/zero | tr '\\0' x",
    "nothing": ":",
}
TAKEN_OVER = "a record and a history full of templates"
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Provision
      thingstream.ztp.thingstream_ztp: {variables_prefix: thingstream_gateway_}
      register: provisioned
      ignore_errors: true
    - name: Look
      thingstream.ztp.thingstream_ztp_info:
        paths: ["{{ thingstream_gateway_path }}"]
      register: thingstream_info
      ignore_errors: true
    - name: Show
      ansible.builtin.debug:
        msg: "{{ [provisioned, thingstream_info] }} {{ provisioned.msg | default('') }}"
    - name: Show it again
      ansible.builtin.debug: {var: "hostvars[inventory_hostname].thingstream_info"}
    - name: Keep it
      ansible.builtin.set_fact: {kept: "{{ thingstream_info.bundles | default([]) }}"}
    - name: Show what is kept
      ansible.builtin.debug: {msg: "{{ kept }} {{ kept | map(attribute='thing') | list }}"}
    - name: Sum up
      ansible.builtin.debug:
        msg: "{{ {inventory_hostname: kept} | thingstream.ztp.retirement_list | thingstream.ztp.retirement_csv }}"
    - name: Report
      thingstream.ztp.thingstream_audit: {results_from: thingstream_info, directory: "{{ playbook_dir }}"}
      run_once: true
      ignore_errors: true
"""


def test_the_output_of_a_gateway_is_never_evaluated(
    trials: Trial, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path
) -> None:
    token = simulator.put_profile("hostile-gateways", service="cloudlocate")
    canary = tmp_path / "canary"
    hosts: dict[str, dict[str, Any]] = {}
    for number, (name, body) in enumerate(PRINTED.items()):
        shell = tmp_path / f"sh-{number}"
        shell.write_text(HOSTILE_SHELL.format(body=body.replace("CANARY", str(canary))))
        shell.chmod(0o700)
        hosts[name.replace(" ", "-")] = {"ansible_shell_executable": str(shell)}
    taken_over = TAKEN_OVER.replace(" ", "-")
    hosts[taken_over] = {}
    common = {
        **platform,
        "thingstream_gateway_service": "cloudlocate",
        "thingstream_gateway_token": token,
        "thingstream_gateway_hardware_id": "{{ 'hostile-' ~ inventory_hostname }}",
        "thingstream_gateway_path": f"{tmp_path}/gateways/{{{{ inventory_hostname }}}}",
    }
    inventory = write_inventory(tmp_path / "inventory.yml", hosts, common)
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAY)
    assert run_playbook(tmp_path, inventory, "--limit", taken_over, playbook=str(playbook)).status == 0
    gateway_path = tmp_path / "gateways" / taken_over
    template = TEMPLATE.replace("CANARY", str(canary))
    file = gateway_path / "current" / "thing.json"
    record = json.loads(file.read_text())
    spoiled = dict.fromkeys(("given_name", "origin", "ntrip_host", template), template)
    facts = {"ansible_facts": {"owned": True}, "_ansible_no_log": True, "__ansible_unsafe": template}
    file.write_text(json.dumps({**record, **spoiled, **facts}))
    thing = {"client_id": "device:1", "service": template, "hardware_id": template, "given_name": template}
    (gateway_path / "history.json").write_text(json.dumps({"things": [{**thing, "since": record["issued_at"]}]}))
    run = run_playbook(tmp_path, inventory, playbook=str(playbook))
    assert not list(tmp_path.rglob("canary")), "something a gateway printed was evaluated"
    for name in PRINTED:
        with trials("Gateways: whole runs"):
            result = run.of("Provision")[name.replace(" ", "-")]
            assert result["error_code"] in OF_A_GATEWAY, name
            assert "\x1b" not in run.output
    with trials("Gateways: whole runs"):
        (bundle,) = run.of("Look")[taken_over]["bundles"]
        assert bundle["thing"]["given_name"] == template, "it is shown unchanged"
        assert bundle["retired"][0]["given_name"] == template
        assert template in json.dumps(run.of("Show what is kept")[taken_over]["msg"])
    assert {entry["hardware_id"] for entry in simulator.requests() if entry["status"] == 200} == {
        f"hostile-{taken_over}"
    }

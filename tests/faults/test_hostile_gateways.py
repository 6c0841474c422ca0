# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway that somebody has taken over prints what it likes: it is parsed, bounded, and never evaluated."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import history
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import audit_files, report
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.audit import fleet_report
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import inspection, provision
from faults.conftest import Trial
from faults.hostile import OTHERS, TEXTS, any_json, attempt, for_all
from hypothesis import strategies as st
from integration.ansible_run import run_playbook, write_inventory
from simulator.client import RunningSimulator
from unit.looks import MODES, RENEWAL
from unit.rig import Rig
from unit.support import NOW, assert_no_secret, cloudlocate, run_locally

OF_A_GATEWAY = (
    "gateway_unsupported", "bad_path", "bad_option", "permission", "disk_full", "concurrent_change",
    "health_check_failed", "no_generation",
)  # fmt: skip
MAX_SECONDS = 5.0  # of the processor
Answer = tuple[int, str, str]


def survive(path: str, output: str, status: int = 0, complaint: str = "") -> None:
    """Whatever reads an answer of a gateway returns what it is documented to, or refuses."""

    def execute(command: str, standard_input: bytes, secret: bool) -> Answer:
        return status, output, complaint

    begin = time.process_time()
    held, error = attempt(lambda: gateway.survey(execute, [path], None, None)[0])
    check(error)
    looked, error = attempt(lambda: gateway.probe(execute, path, "thingstream", "thingstream"))
    check(error)
    if held is not None:
        described = inspection.describe(held, NOW, renewal=RENEWAL, **MODES)
        known = {"bundles": [described]}
        whole = fleet_report({"a": known, "b": known}, [], [], NOW)
        for _mode, render in audit_files.FORMS.values():
            render(whole)
        report.retirement_list({"a": [described]})
        records = [record for record in held.generations.values() if record]
        history.encode(history.note(history.readable(held.history, None), records, NOW))
    if looked is not None:
        held = provision.understood(looked)
        change = gateway.Change(0o750, 2, "x")
        for call in (
            lambda: gateway.require_installable(held, None, None),
            lambda: gateway.install(execute, held, {}, change, NOW),
            lambda: gateway.repair(execute, held, {}, change),
            lambda: gateway.read_response(execute, held),
            lambda: gateway.remove(execute, held, change),
        ):
            check(attempt(call)[1])
    assert time.process_time() - begin < MAX_SECONDS


def check(error: Any) -> None:
    if error is None:
        return
    assert error.code in OF_A_GATEWAY
    assert error.message.isprintable()
    assert len(error.message) < 2000
    assert_no_secret(error)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A path, and the lines that a gateway in order prints about it."""
    rig = Rig(tmp_path_factory.mktemp("gateway"), "cloudlocate")
    rig.path.parent.mkdir(parents=True)
    rig.present(cloudlocate())
    rig.present(cloudlocate(clientId="device:2"), force=True)
    printed: list[str] = []

    def execute(command: str, standard_input: bytes, secret: bool) -> Answer:
        answer = run_locally(command, standard_input, secret)
        printed.append(answer[1])
        return answer

    gateway.survey(execute, [str(rig.path)], None, None)
    gateway.probe(execute, str(rig.path), None, None)
    survive(str(rig.path), printed[0])
    return str(rig.path), "".join(printed).splitlines()


LINES = st.sampled_from(TEXTS).map(lambda text: text[:2000]) | st.text(max_size=60)
KEYWORDS = (
    "begin 1", "end", "failed", "failed bad_path", "failed token_invalid x", "identity", "current", "path", "missing",
    "record", "history", "@listing", "@digests", "@space", "@", "generation", "installed", "owner_id", "response",
    "physical_path", "not_writable", "removed", "remembered",
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
    found = gateway.survey(lambda *_: (0, "\n".join([*lines, ""]), ""), [path])[0]
    record, history = dict(found.record or {}), {"things": [dict.fromkeys(("client_id", "since", "done_at"))]}
    values = any_json(8) | st.sampled_from((*TEXTS[:-1], *OTHERS))
    keys = st.sampled_from(sorted(record)) | st.sampled_from(["ansible_facts", "_ansible_no_log", "__ansible_unsafe"])
    records = st.builds(lambda key, value: {**record, key: value}, keys, values) | any_json(8)
    histories = st.just(history) | any_json(8) | values.map(lambda value: {"things": [value, {"client_id": value}]})

    def try_out(case: tuple[Any, Any]) -> None:
        texts = dict(zip(("record", "history"), map(json.dumps, case), strict=True))
        kept = [line for line in lines if line.split(" ")[0] not in texts]
        at = next(number for number, line in enumerate(kept) if line.startswith("@"))
        told = [f"{keyword} {line}" for keyword, text in texts.items() for line in text.split("\n")]
        survive(path, "\n".join([*kept[:at], *told, *kept[at:], ""]))

    for_all(full, trials, "Gateways: records", st.tuples(records, histories), try_out, short=100)


HUGE: Mapping[str, Callable[[], str]] = {
    "100 MB": lambda: "begin 1\n" + "x" * 100_000_000 + "\nend\n",
    "millions of lines": lambda: "begin 1\n" + "record x\n" * 800_000 + "end\n",
    "lines without end": lambda: "begin 1\n" + "missing tool\n" * 500_000,
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
# A gateway that answers whatever it is asked with what it likes.
cat >/dev/null
{body}
"""
TEMPLATE = "{{ lookup('ansible.builtin.pipe', 'touch CANARY') }}"
SAID = {
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
      thingstream.ztp.thingstream_audit: {looks: thingstream_info, directory: "{{ playbook_dir }}"}
      run_once: true
      ignore_errors: true
"""


def test_what_a_gateway_says_is_never_evaluated(
    trials: Trial, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path
) -> None:
    token = simulator.put_profile("hostile-gateways", service="cloudlocate")
    canary = tmp_path / "canary"
    hosts: dict[str, dict[str, Any]] = {}
    for number, (name, body) in enumerate(SAID.items()):
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
    assert not list(tmp_path.rglob("canary")), "a gateway had something evaluated"
    for name in SAID:
        with trials("Gateways: whole runs"):
            result = run.of("Provision")[name.replace(" ", "-")]
            assert result["error_code"] in OF_A_GATEWAY, name
            assert "\x1b" not in run.output
    with trials("Gateways: whole runs"):
        (bundle,) = run.of("Look")[taken_over]["bundles"]
        assert bundle["thing"]["given_name"] == template, "it is told as it is"
        assert bundle["retired"][0]["given_name"] == template
        assert template in json.dumps(run.of("Show what is kept")[taken_over]["msg"])
    assert {entry["hardware_id"] for entry in simulator.requests() if entry["status"] == 200} == {
        f"hostile-{taken_over}"
    }

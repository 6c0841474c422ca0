# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input and a platform in trouble: each host of one run has a problem of its own and gets its own error code."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES
from integration.ansible_run import Run, run_playbook, write_inventory
from simulator.client import RunningSimulator

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """One problem: how it comes about, which code it must have, and how many requests it may cost.

    ``options`` are options of the module, ``profile`` settings of a device profile made for the case, ``fault`` one of
    the simulator's. ``says`` must be in the message, which tells what to do.
    """

    code: str
    says: str
    requests: int
    options: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    fault: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)


CASES = {
    # found out before anything is sent
    "no-token": Case("token_invalid", "THINGSTREAM_ZTP_TOKEN", 0, options={"token": ""}),
    "token-with-space": Case("token_invalid", "copy it again", 0, options={"token": "two words"}),
    "name-too-long": Case("bad_option", "1 to 50", 0, options={"given_name": "x" * 51}),
    "name-empty": Case("bad_option", "1 to 50", 0, options={"given_name": ""}),
    "unknown-service": Case("bad_option", "service", 0, options={"service": "pointperfect-extra"}),
    "unknown-format": Case("bad_option", "formats", 0, options={"formats": ["pkcs12"]}),
    "unknown-field": Case("bad_option", "field_map", 0, options={"field_map": {"colour": "x"}}),
    "bad-expression": Case("bad_option", "JMESPath", 0, options={"field_map": {"host": "a..b"}}),
    "open-mode": Case("bad_option", "secret_mode", 0, options={"secret_mode": "0644"}),
    "bad-renew-before": Case("bad_option", "renew_before", 0, options={"renew_before": "soon"}),
    "plain-http": Case("bad_option", "https://", 0, options={"api_url": "http://192.0.2.1"}),
    "no-ca-file": Case("bad_option", "ca_path", 0, options={"ca_path": "/nonexistent/ca.pem"}),
    "no-broker-ca": Case("bad_option", "broker_ca_path", 0, options={"broker_ca_path": "/nonexistent/ca.pem"}),
    "relative-path": Case("bad_path", "absolute", 0, options={"path": "etc/thingstream"}),
    "path-with-dots": Case("bad_path", "..", 0, options={"path": "/etc/../etc/thingstream"}),
    "path-is-link": Case("bad_path", "symbolic link", 0, options={"path": "{work}/link"}),
    "path-is-file": Case("bad_path", "not a directory", 0, options={"path": "{work}/file"}),
    "path-below-file": Case("bad_path", "not a directory", 0, options={"path": "{work}/file/below"}),
    "path-open": Case("bad_path", "writable by every user", 0, options={"path": "{work}/open"}),
    "path-below-open": Case("bad_path", "writable by every user", 0, options={"path": "{work}/open/below"}),
    "unknown-owner": Case("bad_option", "owner 'nobody-here'", 0, options={"owner": "nobody-here"}),
    "unknown-group": Case("bad_option", "group 'nobody-here'", 0, options={"group": "nobody-here"}),
    "escrow-blocked": Case("escrow_failed", "escrow_path", 0, options={"escrow_path": "{work}/file/escrow"}),
    "escrow-unmounted": Case("escrow_failed", "mounted", 0, options={"escrow_path": "{work}/volume/escrow"}),
    "escrow-open": Case("escrow_failed", "0700", 0, options={"escrow_path": "{work}/open"}),
    "deaf-connection": Case("gateway_unsupported", "standard input", 0, variables={"ansible_connection": "deaf"}),
    "unreachable-api": Case(
        "unreachable", "Cannot connect", 0, options={"api_url": "https://127.0.0.1:1", "retries": 0}
    ),
    "unreachable-proxy": Case("unreachable", "proxy", 0, options={"proxy": "http://127.0.0.1:1", "retries": 0}),
    "untrusted-api": Case("tls", "ca_path", 0, options={"ca_path": "{other_ca}"}),
    "wrong-host-name": Case("tls", "host name", 0, options={"api_url": "{url_by_name}"}),
    # refused by the platform
    "malformed-token": Case("token_invalid", "malformed", 1, options={"token": "not-a-token"}),
    "unknown-token": Case("token_invalid", "device profile", 1, options={"token": str(uuid.UUID(int=1))}),
    "no-hardware-id": Case(
        "hardware_id_required", "hardware_id", 1, options={"hardware_id": ""}, profile={"hardware_code_mandatory": True}
    ),
    "not-allowed": Case("not_allowed", "allow-list", 1, profile={"allow_list": ["somebody-else"]}),
    "registered": Case(
        "already_registered",
        "return the existing",
        1,
        options={"hardware_id": "taken"},
        profile={"already_exists": "error"},
    ),
    "no-plan": Case("no_plan", "activate", 1, profile={"plan": "none"}),
    "disabled": Case("profile_disabled", "enable", 1, profile={"status": "disabled"}),
    "never-activated": Case(
        "activation_pending", "Auto Activate", 1, options={"activation_timeout": 0}, profile={"auto_activate": False}
    ),
    "teapot": Case("refused", "HTTP 418", 1, fault={"kind": "status", "status": 418}),
    "rate-limited": Case(
        "rate_limited", "forks", 1, fault={"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}}
    ),
    "server-error": Case(
        "server_error", "HTTP 500", 1, options={"retries": 0}, fault={"kind": "status", "status": 500}
    ),
    "redirect": Case(
        "bad_response", "api_url", 1, fault={"kind": "redirect", "location": "https://127.0.0.1:1/elsewhere"}
    ),
    "slow": Case(
        "timeout", "timeout", 1, options={"timeout": 1, "retries": 0}, fault={"kind": "delay_before", "seconds": 4}
    ),
    "cut": Case("unreachable", "broke", 1, options={"retries": 0}, fault={"kind": "cut_before"}),
    # answers that cannot be used
    "not-json": Case("bad_response", "not valid JSON", 1, fault={"kind": "not_json", "body": "<html>"}),
    "malformed": Case("bad_response", "not valid JSON", 1, fault={"kind": "malformed"}),
    "not-an-object": Case("bad_response", "not an object", 1, fault={"kind": "not_object"}),
    "truncated": Case("bad_response", "before it was whole", 1, options={"retries": 0}, fault={"kind": "truncated"}),
    "huge": Case("bad_response", "1 MiB", 1, options={"retries": 0}, fault={"kind": "huge", "bytes": 2 * 1024 * 1024}),
    "other-names": Case(
        "missing_field",
        "login.name",
        1,
        options={"service": "cloudlocate"},
        profile={"service": "cloudlocate", "simulator": {"field_names": {"username": "login.name"}}},
    ),
    "wrong-pair": Case("pair_mismatch", "does not belong", 1, profile={"simulator": {"mismatched_pair": True}}),
    "expired": Case("bad_response", "has expired", 1, profile={"simulator": {"certificate_days": -1}}),
}


@pytest.fixture(scope="module")
def run(
    running_simulator: RunningSimulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Run, RunningSimulator]]:
    """One run over all cases, and one gateway without a problem among them."""
    simulator, work = running_simulator, tmp_path_factory.mktemp("errors")
    (work / "file").write_text("")
    (work / "link").symlink_to(work)
    (work / "open").mkdir()
    (work / "open").chmod(0o777)
    values = {
        "work": work,
        "other_ca": requests.certs.where(),
        # the certificate of the simulator is for localhost and 127.0.0.1
        "url_by_name": simulator.url.replace("127.0.0.1", "127.1"),
    }
    simulator.clear_requests()
    simulator.clear_faults()
    hosts: dict[str, dict[str, Any]] = {}
    for name, case in {**CASES, "sound": Case("", "", 1)}.items():
        token = simulator.put_profile(name, **{"service": "pointperfect", **case.profile})
        if name == "registered":
            requests.post(
                f"{simulator.url}/ztp/pointperfect/credentials",
                json={"token": token, "hardwareId": "taken"},
                verify=str(simulator.ca_path),
                timeout=10,
            ).raise_for_status()
            simulator.clear_requests()
        if case.fault:
            simulator.add_fault(hardware_id=f"id-{name}", **case.fault)
        options = {
            "service": "pointperfect",
            "token": token,
            "hardware_id": f"id-{name}",
            "path": work / "gateways" / name,
            **case.options,
        }
        hosts[name] = {
            f"thingstream_gateway_{option}": value.format(**values) if isinstance(value, str) else value
            for option, value in options.items()
        } | case.variables
    common = {
        "thingstream_gateway_api_url": simulator.url,
        "thingstream_gateway_ca_path": simulator.ca_path,
        "thingstream_gateway_escrow_path": work / "escrow",
    }
    environment = {"ANSIBLE_CONNECTION_PLUGINS": str(PROJECT / "tests/integration/connection_plugins")}
    yield run_playbook(work, write_inventory(work / "inventory.yml", hosts, common), environment=environment), simulator
    simulator.clear_faults()


@pytest.mark.parametrize("name", CASES)
def test_each_problem_has_its_code(run: tuple[Run, RunningSimulator], name: str) -> None:
    result, case = run[0].hosts[name], CASES[name]
    assert result["status"] == "failed"
    assert (result.get("error_code"), result["changed"]) == (case.code, False), result
    assert case.says in result["msg"]
    asked = requests_of(run[1], name)
    if len(asked) < case.requests:  # logged when the simulator is through with it, which a client may not wait for
        time.sleep(4)
        asked = requests_of(run[1], name)
    assert len(asked) == case.requests, asked


def requests_of(simulator: RunningSimulator, name: str) -> list[dict[str, Any]]:
    return [entry for entry in simulator.requests() if entry["given_name"] == name]


def test_a_sound_gateway_is_not_stopped_by_the_others(run: tuple[Run, RunningSimulator]) -> None:
    assert run[0].hosts["sound"]["action"] == "created"
    assert run[0].status == 2


def test_messages_end_as_sentences_and_hold_no_response(run: tuple[Run, RunningSimulator]) -> None:
    for result in run[0].hosts.values():
        if result["status"] == "failed":
            assert result["msg"].rstrip()[-1] in ".)", result["msg"]
            assert len(result["msg"]) < 1200
            assert "PRIVATE KEY" not in result["msg"]


def test_every_error_code_is_documented() -> None:
    """Each code has a section in the troubleshooting page, and the page has no other."""
    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    documented = [line[3:].strip().strip("`") for line in page.splitlines() if line.startswith("## `")]
    assert sorted(documented) == sorted(ERROR_CODES)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets take one path: looked for in everything that a run prints or leaves behind, in every form they could take."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways.fleet import Fleet
from integration.ansible_run import PROJECT, PROVISION, Run, plain, run_playbook
from integration.leaks import found_in, found_in_files, platform_secrets, watching_processes
from simulator.client import RunningSimulator

PATH = "/etc/thingstream/secrets"


@pytest.fixture
def planted(gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """An inventory in which each gateway uses another service, and its token."""
    profiles = {
        "gw1": {"service": "pointperfect", "plan": "both"},
        "gw2": {"service": "pointperfect-live"},
        "gw3": {"service": "cloudlocate"},
        "bb1": {"service": "pointperfect", "plan": "mqtt"},
    }
    hosts = {}
    for host, profile in profiles.items():
        shutil.rmtree(gateways.root(host) / PATH[1:], ignore_errors=True)
        hosts[host] = {
            "thingstream_gateway_service": profile["service"],
            "thingstream_gateway_token": simulator.put_profile(
                f"secrets-{host}", **profile, simulator={"host": "127.0.0.1"}
            ),
            "thingstream_gateway_hardware_id": f"secrets-{host}",
        }
    verify = {"when": "never", "allowed_hosts": ["127.0.0.1"]}
    variables = {**platform, "thingstream_gateway_path": PATH, "thingstream_gateway_verify": verify}
    inventory = tmp_path / "planted.yml"
    inventory.write_text(yaml.safe_dump({"gateways": {"vars": plain(variables), "hosts": plain(hosts)}}))
    return {
        "inventory": inventory,
        "tokens": {host: value["thingstream_gateway_token"] for host, value in hosts.items()},
    }


def run_all(
    gateways: Fleet,
    planted: dict[str, Any],
    work: Path,
    *arguments: str,
    playbook: str = "provision",
    **environment: str,
) -> Run:
    return run_playbook(
        work,
        gateways.inventory,
        "-i",
        str(planted["inventory"]),
        "-vvvv",
        "--diff",
        *arguments,
        playbook=f"thingstream.ztp.{playbook}",
        environment=environment,
    )


def test_nothing_shows_or_keeps_a_secret(
    gateways: Fleet, simulator: RunningSimulator, planted: dict[str, Any], tmp_path: Path
) -> None:
    """Success, repair with the response read back, renewal, and failure; at -vvvv with --diff, logged and watched."""
    since = time.time() - 1
    logged = {"ANSIBLE_LOG_PATH": str(tmp_path / "ansible.log"), "ANSIBLE_CACHE_PLUGIN": "jsonfile"}
    logged |= {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts"), "ANSIBLE_RETRY_FILES_ENABLED": "1"}
    logged["ANSIBLE_RETRY_FILES_SAVE_PATH"] = str(tmp_path / "retry")
    with watching_processes() as seen:
        outputs = [run_all(gateways, planted, tmp_path, **logged)]
        for host in planted["tokens"]:
            (gateways.root(host) / PATH[1:] / "current" / "credentials.env").unlink()
        outputs.append(run_all(gateways, planted, tmp_path, **logged))
        assert outputs[-1].values("action") == dict.fromkeys(sorted(planted["tokens"]), "repaired"), outputs[-1].output
        outputs.append(run_all(gateways, planted, tmp_path, "-e", "thingstream_gateway_force=true", **logged))
        outputs.append(run_all(gateways, planted, tmp_path, "-e", "thingstream_gateway_field_map={'host':'nowhere'}",
                               "-e", "thingstream_gateway_force=true", **logged))  # fmt: skip
        assert "missing_field" in outputs[-1].values("error_code").values()
        shutil.rmtree(tmp_path / "spool")
        for playbook in ("verify", "rollback", "retire", "audit"):
            outputs.append(run_all(gateways, planted, tmp_path, playbook=playbook, **logged))
        assert set(outputs[-4].values("error_code").values()) == {"unreachable"}, "no server listens at that address"
        assert len(list(tmp_path.glob("thingstream-audit.*"))) == 4, "they are searched below"
        unhealthy = {"health_command": f"cat {PATH}/current/credentials.*; false", "health_timeout": 1, "force": True}
        variables = json.dumps({f"thingstream_gateway_{name}": value for name, value in unhealthy.items()})
        outputs.append(run_all(gateways, planted, tmp_path, "-e", variables, **logged))
        assert "health_check_failed" in outputs[-1].values("error_code").values()

    assert list((tmp_path / "retry").iterdir())
    secrets = platform_secrets(simulator)
    assert len(secrets) > 15
    for run in outputs:
        assert "PLAY RECAP" in run.output
        assert found_in(run.output.encode(), secrets) == set()
    assert found_in(b"\n".join(seen), secrets) == set()
    shutil.rmtree(tmp_path / "spool")  # kept the answers of the last run, as it must
    planted["inventory"].unlink()
    assert found_in_files(secrets, since, tmp_path) == {}
    assert found_in_files(secrets, since, Path(tempfile.gettempdir()), without=[tmp_path.parent]) == {}
    for host in planted["tokens"]:
        root = gateways.root(host)
        assert found_in_files(secrets, since, root / "tmp", root / "var/tmp", root / "root", root / "home") == {}
        tokens = {name: value for name, value in secrets.items() if "token" in name}
        assert found_in_files(tokens, since, root / "etc") == {}


def test_runner_artifacts_hold_no_secret(
    gateways: Fleet, simulator: RunningSimulator, planted: dict[str, Any], tmp_path: Path
) -> None:
    """Job events and output, which AWX would keep for years."""
    private = tmp_path / "runner"
    (private / "inventory").mkdir(parents=True)
    shutil.copy(planted["inventory"], private / "inventory" / "planted.yml")
    shutil.copy(gateways.inventory, private / "inventory" / "a-gateways.ini")
    environment = {
        **{name: os.environ[name] for name in ("LANG",) if name in os.environ},
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
    }
    subprocess.run(
        ["ansible-runner", "run", str(private), "-p", PROVISION, "--ident", "one", "-v", "--quiet"],
        env=environment,
        check=True,
        timeout=180,
    )
    events = [json.loads(file.read_text()) for file in (private / "artifacts" / "one" / "job_events").glob("*.json")]
    done = [event["event_data"]["host"] for event in events if event["event"] == "runner_on_ok"]
    assert set(done) == set(planted["tokens"])
    assert found_in_files(platform_secrets(simulator), 0, private / "artifacts", tmp_path / "home") == {}

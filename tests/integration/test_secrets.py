# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets take one path: looked for in everything that a run prints or leaves behind, in every form they could take."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from gateways.fleet import Fleet
from integration.ansible_run import PROJECT, PROVISION, Run, plain, run_playbook
from simulator.client import RunningSimulator

PATH = "/etc/thingstream/secrets"


def encodings(secret: str) -> Iterator[bytes]:
    """The forms in which a secret could show up; of a key, any line of its body counts."""
    body = [line for line in secret.splitlines() if line and not line.startswith("-----")]
    for part in body if len(body) > 1 else [secret]:
        yield part.encode()
        yield quote(part, safe="").encode()
        yield json.dumps(part)[1:-1].encode()
        yield base64.b64encode(part.encode()).rstrip(b"=")[:-1]


def found_in(content: bytes, secrets: dict[str, str]) -> set[str]:
    return {name for name, secret in secrets.items() if any(form in content for form in encodings(secret))}


def files_below(*directories: Path) -> Iterable[Path]:
    for directory in directories:
        for root, _directories, names in os.walk(directory):
            yield from (Path(root) / name for name in names)


def found_in_files(secrets: dict[str, str], since: float, *directories: Path) -> dict[str, set[str]]:
    """File to the names of secrets in it, for files that have changed since a moment (seconds since the epoch)."""
    found = {}
    for path in files_below(*directories):
        try:
            content = path.read_bytes() if path.lstat().st_ctime >= since else b""
        except OSError:
            continue  # a socket, or gone meanwhile
        names = found_in(content, secrets)
        if names:
            found[str(path)] = names
    return found


def test_the_search_finds_what_is_there() -> None:
    secret = {"password": "a/b&c+d e"}
    for hidden in (b'x "a/b&c+d e" y', b"a%2Fb%26c%2Bd%20e", base64.b64encode(b"a/b&c+d e")):
        assert found_in(hidden, secret) == {"password"}
    assert found_in(b"a/b", secret) == set()


class ProcessWatcher(threading.Thread):
    """Samples the arguments and environments of all processes while a run lasts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            for name in ("cmdline", "environ"):
                for process in Path("/proc").glob(f"[0-9]*/{name}"):
                    try:
                        self.seen.add(process.read_bytes())
                    except OSError:
                        continue
            self.stop.wait(0.03)


@pytest.fixture
def planted(gateways: Fleet, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """An inventory in which each gateway uses another service, and its token."""
    profiles = {
        "gw1": {"service": "pointperfect", "plan": "both"},
        "gw2": {"service": "pointperfect-live"},
        "gw3": {"service": "cloudlocate"},
        "bb1": {"service": "pointperfect"},
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
    variables = {**platform, "thingstream_gateway_path": PATH}
    inventory = tmp_path / "planted.yml"
    inventory.write_text(yaml.safe_dump({"gateways": {"vars": plain(variables), "hosts": plain(hosts)}}))
    return {
        "inventory": inventory,
        "tokens": {host: value["thingstream_gateway_token"] for host, value in hosts.items()},
    }


def secrets_of(gateways: Fleet, planted: dict[str, Any]) -> dict[str, str]:
    """Every secret that went through a run: tokens, and what the gateways now hold."""
    secrets = {f"token of {host}": token for host, token in planted["tokens"].items()}
    for host in planted["tokens"]:
        response = json.loads((gateways.root(host) / PATH[1:] / "current" / "credentials.json").read_text())
        login = response.get("rtcmCredentials", response)
        keys = response.get("dynamickeys", {})
        values = {
            "key": response.get("privateKey"),
            "user": login.get("userName") or login.get("username"),
            "password": login.get("password"),
            "dynamic key": keys.get("current", {}).get("value"),
        }
        secrets.update({f"{name} of {host}": value for name, value in values.items() if value})
    return secrets


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


def test_nothing_shows_or_keeps_a_secret(gateways: Fleet, planted: dict[str, Any], tmp_path: Path) -> None:
    """Success, repair with the response read back, renewal, and failure; at -vvvv with --diff, logged and watched."""
    since = time.time() - 1
    watcher = ProcessWatcher()
    watcher.start()
    logged = {"ANSIBLE_LOG_PATH": str(tmp_path / "ansible.log"), "ANSIBLE_CACHE_PLUGIN": "jsonfile"}
    logged["ANSIBLE_CACHE_PLUGIN_CONNECTION"] = str(tmp_path / "facts")
    outputs = [run_all(gateways, planted, tmp_path, **logged)]
    secrets = secrets_of(gateways, planted)
    for host in planted["tokens"]:
        (gateways.root(host) / PATH[1:] / "current" / "credentials.env").unlink()
    outputs.append(run_all(gateways, planted, tmp_path, **logged))
    assert outputs[-1].values("action") == dict.fromkeys(sorted(planted["tokens"]), "repaired"), outputs[-1].output
    outputs.append(run_all(gateways, planted, tmp_path, "-e", "thingstream_gateway_force=true", **logged))
    secrets.update({f"renewed {name}": value for name, value in secrets_of(gateways, planted).items()})
    outputs.append(run_all(gateways, planted, tmp_path, "-e", "thingstream_gateway_field_map={'host':'nowhere'}",
                           "-e", "thingstream_gateway_force=true", **logged))  # fmt: skip
    assert "missing_field" in outputs[-1].values("error_code").values()
    shutil.rmtree(tmp_path / "escrow")
    for playbook in ("verify", "rollback", "retire", "audit"):
        outputs.append(run_all(gateways, planted, tmp_path, playbook=playbook, **logged))
    assert set(outputs[-4].values("error_code").values()) == {"unreachable"}, "nobody listens where it connects to"
    assert len(list(tmp_path.glob("thingstream-audit.*"))) == 4, "they are searched below"
    unhealthy = {"health_command": f"cat {PATH}/current/credentials.*; false", "health_timeout": 1, "force": True}
    variables = json.dumps({f"thingstream_gateway_{name}": value for name, value in unhealthy.items()})
    outputs.append(run_all(gateways, planted, tmp_path, "-e", variables, **logged))
    assert "health_check_failed" in outputs[-1].values("error_code").values()
    watcher.stop.set()
    watcher.join()

    assert len(secrets) > 20
    for run in outputs:
        assert "PLAY RECAP" in run.output
        assert found_in(run.output.encode(), secrets) == set()
    assert found_in(b"\0".join(watcher.seen), secrets) == set()
    shutil.rmtree(tmp_path / "escrow")  # kept the answers of the last run, as it must
    planted["inventory"].unlink()
    assert found_in_files(secrets, since, tmp_path) == {}
    left_behind = [Path(tempfile.gettempdir()) / name for name in os.listdir(tempfile.gettempdir())]
    own = tmp_path.parents[0]
    assert (
        found_in_files(secrets, since, *(path for path in left_behind if path not in own.parents and path.is_dir()))
        == {}
    )
    for host in planted["tokens"]:
        root = gateways.root(host)
        assert found_in_files(secrets, since, root / "tmp", root / "var/tmp", root / "root", root / "home") == {}
        tokens = {name: value for name, value in secrets.items() if "token" in name}
        assert found_in_files(tokens, since, root / "etc") == {}


def test_runner_artifacts_hold_no_secret(gateways: Fleet, planted: dict[str, Any], tmp_path: Path) -> None:
    """What AWX would keep for years: job events and output."""
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
    assert found_in_files(secrets_of(gateways, planted), 0, private / "artifacts", tmp_path / "home") == {}

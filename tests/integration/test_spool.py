# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An answer that cannot be used yet is kept, encrypted where the run has a vault secret, and used by the next run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from integration.ansible_run import Run, run_playbook, spool_files, write_inventory
from simulator.client import RunningSimulator

FIELD_MAP = '{"thingstream_gateway_field_map": {"username": "login.name", "password": "login.pass"}}'


class Attempt:
    """Runs over one CloudLocate gateway whose response has unexpected field names."""

    def __init__(self, simulator: RunningSimulator, platform: dict[str, Any], work: Path) -> None:
        renamed = {"username": "login.name", "password": "login.pass"}
        token = simulator.put_profile("spool", service="cloudlocate", simulator={"field_names": renamed})
        options = {"service": "cloudlocate", "token": token, "hardware_id": "spool", "path": work / "one"}
        hosts = {"one": {f"thingstream_gateway_{name}": value for name, value in options.items()}}
        self.inventory = write_inventory(work / "inventory.yml", hosts, platform)
        self.work = work
        self.vault = work / "vault-password"
        self.vault.write_text("correct horse")

    def run(self, *arguments: str) -> Run:
        return run_playbook(self.work, self.inventory, *arguments)

    @property
    def kept(self) -> bytes:
        (entry,) = spool_files(self.work / "spool")
        assert entry.stat().st_mode & 0o777 == 0o600
        return entry.read_bytes()


@pytest.fixture
def attempt(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Attempt:
    return Attempt(simulator, platform, tmp_path)


@pytest.mark.full
def test_an_answer_waits_for_a_field_map(attempt: Attempt, simulator: RunningSimulator) -> None:
    run = attempt.run()
    assert run.values("error_code") == {"one": "missing_field"}
    assert "login.name" in run.hosts["one"]["msg"]
    assert "not encrypted" in run.output
    assert attempt.kept.startswith(b"{")
    assert attempt.run().values("error_code") == {"one": "missing_field"}
    assert attempt.run("-e", FIELD_MAP, "--check").values("action") == {"one": "created"}
    assert attempt.run("-e", FIELD_MAP).values("action") == {"one": "created"}
    assert spool_files(attempt.work / "spool") == []
    assert len(simulator.requests()) == 1  # every request would be another Thing
    assert attempt.run("-e", FIELD_MAP).values("changed") == {"one": False}


def test_gateways_with_one_name_get_their_own_answers(
    simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path
) -> None:
    """Without a hardware ID only the given name distinguishes them; names need not be unique, and long ones are cut."""
    token = simulator.put_profile("fleet", service="cloudlocate", simulator={"field_names": {"username": "login"}})
    path = f"{tmp_path}/gateways/{{{{ inventory_hostname }}}}"
    options = {"service": "cloudlocate", "token": token, "anonymous": True, "path": path}
    common = {f"thingstream_gateway_{name}": value for name, value in options.items()}
    names = [f"{'long' * 13}-{number}" for number in range(3)]
    inventory = write_inventory(tmp_path / "inventory.yml", {name: {} for name in names}, {**platform, **common})
    kept = run_playbook(tmp_path, inventory)
    assert set(kept.values("error_code").values()) == {"missing_field"}
    made = {thing["client_id"] for thing in simulator.things(profile="fleet")}
    assert len(simulator.requests()) == len(made) == 3
    field_map = '{"thingstream_gateway_field_map": {"username": "login"}}'
    assert set(run_playbook(tmp_path, inventory, "-e", field_map).values("action").values()) == {"created"}
    used = {
        json.loads((tmp_path / "gateways" / name / "current/thing.json").read_text())["client_id"] for name in names
    }
    assert used == made
    assert spool_files(tmp_path / "spool") == []


def test_a_request_whose_answer_got_lost_is_not_repeated(attempt: Attempt, simulator: RunningSimulator) -> None:
    simulator.add_fault("cut_after", hardware_id="spool")
    run = attempt.run("-e", FIELD_MAP)
    (request,) = spool_files(attempt.work / "spool")
    assert run.values("error_code") == {"one": "unreachable"}
    assert str(request) in run.hosts["one"]["msg"]
    again = attempt.run("-e", FIELD_MAP)
    assert again.values("error_code") == {"one": "response_lost"}
    assert str(request) in again.hosts["one"]["msg"]
    assert len(simulator.requests()) == 1
    request.unlink()
    assert attempt.run("-e", FIELD_MAP).values("action") == {"one": "created"}
    assert spool_files(attempt.work / "spool") == []


def test_with_a_vault_secret_the_spool_is_encrypted(attempt: Attempt, simulator: RunningSimulator) -> None:
    secret = ("--vault-password-file", str(attempt.vault))
    run = attempt.run(*secret)
    assert run.values("error_code") == {"one": "missing_field"}
    assert "not encrypted" not in run.output
    assert attempt.kept.startswith(b"$ANSIBLE_VAULT;")
    without = attempt.run("-e", FIELD_MAP)
    assert without.values("error_code") == {"one": "spool_failed"}
    assert "Vault" in without.hosts["one"]["msg"]
    attempt.vault.write_text("wrong horse")
    assert attempt.run("-e", FIELD_MAP, *secret).values("error_code") == {"one": "spool_failed"}
    attempt.vault.write_text("correct horse")
    assert attempt.run("-e", FIELD_MAP, *secret).values("action") == {"one": "created"}
    assert len(simulator.requests()) == 1

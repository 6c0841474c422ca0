# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Import of credentials from downloads of the portal, from an inventory, and from a store on the controller."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.ansible_run import Run, plain, run_playbook, write_inventory
from simulator.client import RunningSimulator

MODULES = {"provision": "thingstream.ztp.thingstream_ztp", "import": "thingstream.ztp.thingstream_import"}


@dataclass
class Site:
    """One gateway with a local connection, and the downloads of the portal for its Thing."""

    simulator: RunningSimulator
    platform: dict[str, Any]
    work: Path
    name: str

    def run(self, module: str, *arguments: str, **options: Any) -> Run:
        """Run one task with the module; the API is the simulator, and everything has a place below ``work``."""
        own = {name.removeprefix("thingstream_gateway_"): value for name, value in self.platform.items()}
        if module == "import":
            own = {"broker_ca_path": own["broker_ca_path"]}
        options = {"service": "pointperfect", "path": self.work / "one", **own, **options}
        playbook = self.work / "playbook.yml"
        task = {"name": "Do it", MODULES[module]: plain(options)}
        playbook.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
        inventory = write_inventory(self.work / "inventory.yml", {"one": {}}, {})
        return run_playbook(self.work, inventory, *arguments, playbook=str(playbook))

    def in_portal(self, **settings: Any) -> tuple[str, dict[str, Any]]:
        """Create a Thing as if by hand, and return the token of its profile and the response as the portal shows it."""
        token = self.simulator.put_profile(self.name, **{"service": "pointperfect", "plan": "mqtt", **settings})
        response: dict[str, Any] = self.simulator.post(token, "pointperfect", hardwareId=self.name).json()
        self.simulator.clear_requests()
        return token, response

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.work / "one/current/thing.json").read_text())
        return record


@pytest.fixture
def site(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    return Site(simulator, platform, tmp_path, re.sub(r"\W", "-", request.node.name))


def check_run_again_check(site: Site, **options: Any) -> None:
    for arguments, action in ((["--check"], "created"), ([], "created"), ([], "none"), (["--check"], "none")):
        run = site.run("import", *arguments, **options)
        assert run.values("action") == {"one": action}, run.output
        assert run.values("changed") == {"one": action != "none"}


def test_files_of_the_portal_are_adopted_and_then_renewed(site: Site) -> None:
    """Not one Thing is made, and the day the keys are due the same Thing gets newer ones."""
    token, response = site.in_portal()
    (site.work / "cert.crt").write_text(response["certificate"])
    (site.work / "key.pem").write_text(response["privateKey"])
    files = {"certificate_path": site.work / "cert.crt", "private_key_path": site.work / "key.pem"}
    fields = {"client_id": response["clientId"], "host": response["brokerHost"]}
    check_run_again_check(site, **files, fields=fields, hardware_id=site.name)
    assert (site.record()["origin"], site.record()["client_id"]) == ("files", response["clientId"])
    assert site.simulator.requests() == []

    ztp = {"token": token, "hardware_id": site.name}
    assert site.run("provision", **ztp).values("reason") == {"one": "none"}
    renewed = site.run("provision", **ztp, force=True)
    assert renewed.values("action") == {"one": "refreshed"}, renewed.output  # now with keys and topics
    assert site.record()["origin"] == "ztp"
    assert site.record()["retired"] == []
    assert len(site.simulator.things(hardware_id=site.name)) == 1
    # the download is older by now, and does not come back
    again = site.run("import", **files, fields=fields, hardware_id=site.name)
    assert again.values("action") == {"one": "none"}, again.output
    assert site.record()["origin"] == "ztp"


@pytest.mark.full
def test_a_ucenter_file_that_is_encrypted(site: Site) -> None:
    token, _response = site.in_portal()
    first = site.run("provision", token=token, hardware_id=site.name, formats=["ucenter"])
    assert first.values("action") == {"one": "created"}, first.output
    download = site.work / "ucenter.json"
    (site.work / "one/current/ucenter-config.json").rename(download)
    secret = site.work / "vault-password"
    secret.write_text("correct horse")
    vault = ("--vault-password-file", str(secret))
    subprocess.run(
        [f"{sys.prefix}/bin/ansible-vault", "encrypt", *vault, str(download)], check=True, capture_output=True
    )
    assert site.run("import", ucenter_path=download, path=site.work / "two").values("error_code") == {
        "one": "bad_option"
    }
    encrypted = site.run("import", *vault, ucenter_path=download, path=site.work / "two")
    assert encrypted.values("action") == {"one": "created"}, encrypted.output
    assert encrypted.hosts["one"]["thing"]["client_id"] == first.hosts["one"]["thing"]["client_id"]
    assert encrypted.hosts["one"]["thing"]["keys_expire_at"] == first.hosts["one"]["thing"]["keys_expire_at"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "bad_option"),
        ({"ucenter_path": "/absent"}, "bad_option"),
        ({"store_path": "/absent"}, "bad_option"),
        ({"certificate_path": "/etc/hostname"}, "bad_option"),
        ({"fields": {"ntrip_host": "h"}}, "missing_field"),
        ({"fields": {"ntrip_host": "h"}, "store_path": "/absent"}, "bad_option"),
        ({"fields": {"nonsense": "planted-secret"}}, "bad_option"),
    ],
)
def test_sources_that_cannot_be_used(site: Site, options: dict[str, Any], code: str) -> None:
    run = site.run("import", "-vvv", **options)
    assert run.values("error_code") == {"one": code}, run.output
    assert "planted-secret" not in run.output
    assert not (site.work / "one").exists()


@pytest.mark.full
def test_a_production_line(site: Site) -> None:
    """Provision into an encrypted store without a gateway, then import from it without a platform."""
    token, _response = site.in_portal()
    secret = site.work / "vault-password"
    secret.write_text("correct horse")
    vault = ("--vault-password-file", str(secret))
    store = site.work / "store" / "one"
    encrypted = {"token": token, "hardware_id": site.name, "path": store, "vault_encrypted": True}
    assert site.run("provision", **encrypted).values("error_code") == {"one": "bad_option"}
    assert site.simulator.requests() == []
    for action in ("created", "none"):
        run = site.run("provision", *vault, **encrypted)
        assert run.values("action") == {"one": action}, run.output
    unchanged = site.run("provision", *vault, **encrypted, force=True)
    assert unchanged.values("action") == {"one": "unchanged"}, unchanged.output
    current = store / "current"
    assert sorted(entry.name for entry in current.iterdir()) == ["credentials.json", "thing.json"]
    assert (current / "credentials.json").read_bytes().startswith(b"$ANSIBLE_VAULT;")
    client_id = json.loads((current / "thing.json").read_text())["client_id"]
    site.simulator.clear_requests()

    without = site.run("import", store_path=store)
    assert without.values("error_code") == {"one": "bad_option"}
    for arguments, action in ((["--check"], "created"), ([], "created"), ([], "none"), (["--check"], "none")):
        run = site.run("import", *vault, *arguments, store_path=store, formats=["pem", "mosquitto"])
        assert run.values("action") == {"one": action}, run.output
    record = site.record()
    assert (record["origin"], record["client_id"], record["hardware_id"]) == ("store", client_id, site.name)
    assert {"client.key", "mosquitto.conf"} < set(record["files"])
    assert "PRIVATE KEY" in (site.work / "one/current/client.key").read_text()
    assert site.simulator.requests() == []
    # and later, with a connection, the platform is asked when something is due, and not before
    assert site.run("provision", token=token, hardware_id=site.name, formats=["pem", "mosquitto"]).values("action") == {
        "one": "none"
    }
    assert site.simulator.requests() == []


@pytest.mark.full
def test_an_encrypted_response_is_decrypted_for_an_encrypted_store_only(site: Site) -> None:
    """A compromised gateway could hold the encrypted response of another one, and get it in clear by a repair."""
    token, _response = site.in_portal()
    secret = site.work / "vault-password"
    secret.write_text("correct horse")
    vault = ("--vault-password-file", str(secret))
    encrypted = {"token": token, "hardware_id": site.name, "vault_encrypted": True}
    assert site.run("provision", *vault, **encrypted).values("action") == {"one": "created"}
    site.simulator.clear_requests()
    before = (site.work / "one/current/credentials.json").read_bytes()
    opened = site.run("provision", *vault, token=token, hardware_id=site.name)
    assert opened.values("error_code") == {"one": "bad_option"}, opened.output
    assert (site.work / "one/current/credentials.json").read_bytes() == before
    assert site.simulator.requests() == []
    forced = site.run("provision", *vault, token=token, hardware_id=site.name, force=True)
    assert forced.values("action") == {"one": "refreshed"}, forced.output
    closed = site.run("provision", *vault, **encrypted)
    assert closed.values("action") == {"one": "repaired"}, closed.output
    assert sorted(entry.name for entry in (site.work / "one/current").iterdir()) == ["credentials.json", "thing.json"]
    assert len(site.simulator.requests()) == 1

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's own templates, rendered by playbooks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.tests.unit.support import tree
from integration.ansible_run import Run, run_playbook, write_inventory
from integration.programs import literal
from simulator.client import RunningSimulator

LEAK = """
def leak(text):
    raise ValueError(f"cannot work with {text}")


class FilterModule:
    def filters(self):
        return {"leak": leak}
"""
LOOKS_LIKE_A_TEMPLATE = "{{ 7*7 }}{% if %}{#"


@dataclass
class Gateway:
    """One gateway with a local connection, and its templates beside the playbook's inventory."""

    platform: dict[str, Any]
    work: Path
    options: dict[str, Any]

    def write(self, **templates: str) -> None:
        (self.work / "templates").mkdir(exist_ok=True)
        for name, text in templates.items():
            (self.work / "templates" / f"{name}.j2").write_text(text)

    def run(self, templates: list[dict[str, Any]], *arguments: str, **options: Any) -> Run:
        return self.run_all({"one": templates}, *arguments, **options)

    def run_all(self, hosts: Mapping[str, list[dict[str, Any]]], *arguments: str, **options: Any) -> Run:
        """Run the playbook, each host with templates of its own."""
        own = {
            host: {
                "hardware_id": f"{self.work.name}-{host}",
                "path": self.work / host,
                "templates": templates,
                **self.options,
                **options,
            }
            for host, templates in hosts.items()
        }
        variables = {
            host: {f"thingstream_gateway_{name}": value for name, value in mine.items()} for host, mine in own.items()
        }
        inventory = write_inventory(self.work / "inventory.yml", variables, self.platform)
        return run_playbook(self.work, inventory, *arguments, playbook=str(self.work / "site.yml"))

    def rendered_by_ansible(self, src: str, **variables: Any) -> str:
        """Return the text that ansible.builtin.template makes of a template."""
        task = {"ansible.builtin.template": {"src": src, "dest": str(self.work / "twin")}}
        play = {"hosts": "all", "gather_facts": False, "vars": variables, "tasks": [task]}
        (self.work / "twin.yml").write_text(yaml.safe_dump([play]))
        run = run_playbook(self.work, self.work / "inventory.yml", playbook=str(self.work / "twin.yml"))
        assert run.status == 0, run.output
        return (self.work / "twin").read_text()

    @property
    def current(self) -> Path:
        return self.work / "one" / "current"

    def text(self, name: str) -> str:
        return (self.current / name).read_text()

    def response(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text("credentials.json"))["rtcmCredentials"]
        return found


@pytest.fixture
def gateway(platform: dict[str, Any], simulator: RunningSimulator, tmp_path: Path) -> Gateway:
    """A gateway whose playbook lies where its templates are."""
    token = simulator.put_profile("templates", service="pointperfect", format="RTCM")
    (tmp_path / "site.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  vars: {region: eu}\n  roles: [thingstream.ztp.thingstream_gateway]\n"
    )
    (tmp_path / "filter_plugins").mkdir()
    (tmp_path / "filter_plugins" / "leak.py").write_text(LEAK)
    return Gateway(platform, tmp_path, {"service": "pointperfect", "token": token})


def test_several_templates_follow_their_source(gateway: Gateway, simulator: RunningSimulator) -> None:
    gateway.write(
        rover="user = {{ credentials.ntrip_username | to_json }}\n",
        caster='{"password": {{ credentials.ntrip_password | to_json }}, "region": "{{ region }}"}',
        common="# {{ ansible_managed }}, {{ thing.ntrip_host }}, {{ inventory_hostname }}\n",
        whole="{% include 'common.j2' %}\n{% for one in [1, 2] %}\n{{ one }}\n{% endfor %}\nend\n\n",
        nothing="{{ credentials.certificate }}",
    )
    templates: list[dict[str, Any]] = [
        {"src": "rover.j2"},
        {"src": "caster.j2", "dest": "caster.json", "mode": "0600"},
        {"src": "whole.j2", "dest": "whole.txt", "mode": "0644"},
        {"src": "nothing.j2"},
    ]
    check = gateway.run(templates, "--check")
    assert check.values("action") == {"one": "created"}, check.output
    assert not (gateway.work / "one").exists()
    assert simulator.requests() == []

    run = gateway.run(templates)
    assert run.values("action") == {"one": "created"}, run.output
    response = gateway.response()
    modes = {path.name: path.stat().st_mode & 0o777 for path in gateway.current.iterdir()}
    expected = {"rover": 0o640, "caster.json": 0o600, "whole.txt": 0o644, "nothing": 0o640}
    assert {name: modes.get(name) for name in expected} == expected
    assert gateway.text("rover") == f"user = {json.dumps(response['userName'])}\n"
    assert json.loads(gateway.text("caster.json")) == {"password": response["password"], "region": "eu"}
    assert gateway.text("whole.txt") == "# Ansible managed, ppntrip.services.u-blox.com, one1\n2\nend\n\n"
    thing = {"ntrip_host": "ppntrip.services.u-blox.com"}
    assert gateway.text("whole.txt") == gateway.rendered_by_ansible("whole.j2", thing=thing)
    assert gateway.text("nothing") == ""
    assert gateway.run(templates).values("changed") == {"one": False}

    # another text, and another mode, without a request
    simulator.clear_requests()
    gateway.write(rover="login = {{ credentials.ntrip_username }}\n")
    templates[1]["mode"] = "0640"
    before = tree(gateway.work / "one")
    would = gateway.run(templates, "--check")
    assert (would.values("action"), would.values("changed")) == ({"one": "repaired"}, {"one": True}), would.output
    assert tree(gateway.work / "one") == before
    changed = gateway.run(templates)
    assert (changed.values("action"), changed.values("reason")) == ({"one": "repaired"}, {"one": "drift"})
    assert gateway.text("rover") == f"login = {response['userName']}\n"
    assert (gateway.current / "caster.json").stat().st_mode & 0o777 == 0o640
    gone = gateway.run(templates[:1])
    assert gone.values("changed") == {"one": True}
    assert not (gateway.current / "caster.json").exists()
    assert simulator.requests() == []


def test_what_looks_like_a_template_is_a_value(gateway: Gateway) -> None:
    """Whether as a text, within a text or through a filter."""
    gateway.write(
        alone="{{ credentials.ntrip_password }}",
        within="[{{ credentials.ntrip_password }}]\n{{ credentials.subscriptions }}{{ thing.ntrip_mountpoint }}",
        filtered="{{ credentials | to_json }}",
    )
    templates = [{"src": f"{name}.j2"} for name in ("alone", "within", "filtered")]
    run = gateway.run(templates, field_map={"ntrip_password": literal(LOOKS_LIKE_A_TEMPLATE)})
    assert run.values("action") == {"one": "created"}, run.output
    assert gateway.text("alone") == LOOKS_LIKE_A_TEMPLATE
    assert gateway.text("within") == f"[{LOOKS_LIKE_A_TEMPLATE}]\n[]NEAR-RTCM"
    assert json.loads(gateway.text("filtered"))["ntrip_password"] == LOOKS_LIKE_A_TEMPLATE


BROKEN = {
    "missing": (None, "missing.j2 cannot be read"),
    "syntax": ("fine\n{% if credentials %}\n{{ broken }\n", "syntax.j2, line 3"),
    "undefined": ("{{ not_there_at_all }}", "undefined.j2 cannot be rendered"),
    "leaking": ("{{ credentials.ntrip_password | leak }}", "leaking.j2 cannot be rendered"),
    "unknown_filter": ("{{ credentials.ntrip_password | no_such_filter }}", "unknown_filter.j2 cannot be rendered"),
    "nested": ("{{ credentials[credentials.ntrip_password] }}", "nested.j2 cannot be rendered"),
}


def test_a_template_that_fails_leaves_everything_as_it_was(gateway: Gateway, simulator: RunningSimulator) -> None:
    gateway.write(good="{{ credentials.ntrip_username }}", **{n: t for n, (t, _message) in BROKEN.items() if t})
    good = [{"src": "good.j2"}]
    run = gateway.run_all(dict.fromkeys(BROKEN, good))
    assert set(run.values("action").values()) == {"created"}, run.output
    passwords = {
        name: json.loads((gateway.work / name / "current" / "credentials.json").read_text())["rtcmCredentials"][
            "password"
        ]
        for name in BROKEN
    }
    before = {name: tree(gateway.work / name) for name in BROKEN}
    simulator.clear_requests()
    run = gateway.run_all({name: [*good, {"src": f"{name}.j2"}] for name in BROKEN}, "-vvvv")
    for name, (_text, message) in BROKEN.items():
        assert run.hosts[name]["error_code"] == "bad_option", name
        assert message in run.hosts[name]["msg"], name
        assert tree(gateway.work / name) == before[name], name
    shown = run.output + json.dumps(list(run.results))
    for password in passwords.values():
        assert password not in shown
        assert json.dumps(password)[1:-1] not in shown
        assert json.dumps(json.dumps(password))[3:-3] not in shown
    assert simulator.requests() == []
    assert set(gateway.run_all(dict.fromkeys(BROKEN, good)).values("changed").values()) == {False}


UNREADABLE: dict[str, tuple[dict[str, str], str]] = {
    "missing": ({"src": "missing.j2"}, "missing.j2 cannot be read"),
    "binary": ({"src": "binary.j2"}, "binary.j2 cannot be read"),
    "syntax": ({"src": "syntax.j2"}, "syntax.j2, line 1"),
    "path": ({"src": "good.j2", "dest": "../escape"}, "no file name"),
    "hidden": ({"src": "good.j2", "dest": ".hidden"}, "no file name"),
    "mode": ({"src": "good.j2", "mode": "rw"}, "templates.mode"),
}


def test_nothing_is_asked_with_a_template_that_cannot_be_read(gateway: Gateway, simulator: RunningSimulator) -> None:
    gateway.write(good="x", syntax="{% nonsense %}")
    (gateway.work / "templates" / "binary.j2").write_bytes(b"\xff\xfe\x00")
    twice = [{"src": "good.j2"}, {"src": "good.j2"}]
    run = gateway.run_all({"twice": twice, **{name: [entry] for name, (entry, _message) in UNREADABLE.items()}})
    for name, message in {"twice": "same dest", **{name: text for name, (_entry, text) in UNREADABLE.items()}}.items():
        assert run.hosts[name]["error_code"] == "bad_option", run.output
        assert message in run.hosts[name]["msg"]
        assert not (gateway.work / name).exists()
    assert simulator.requests() == []


@pytest.mark.full
def test_a_name_that_the_bundle_has(gateway: Gateway, simulator: RunningSimulator) -> None:
    """Known when it is rendered: the answer is kept, and a better name needs no further request."""
    gateway.write(good="x")
    for name in ("credentials.env", "thing.json"):
        run = gateway.run([{"src": "good.j2", "dest": name}])
        assert run.values("error_code") == {"one": "bad_option"}, run.output
        assert f"{name} is a file of the bundle already" in run.hosts["one"]["msg"]
        assert not os.path.lexists(gateway.current)
    assert gateway.run([{"src": "good.j2"}]).values("action") == {"one": "created"}
    assert len(simulator.requests()) == 1

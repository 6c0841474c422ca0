# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile options and inventories: a host gets exactly the identity that is written, or is refused; nothing is run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import protocol
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory
from faults.conftest import Trial
from faults.hostile import TEXTS, for_all
from hypothesis import strategies as st
from integration.ansible_run import run_playbook, write_inventory
from simulator.client import RunningSimulator

CANARY = "canary"
NAMES = (
    "$(touch canary)", "`touch canary`", "a;touch canary", "a b", "a'b", 'a"b', "../../x", "-oProxyCommand=id",
    "x" * 300, "日本語", "ü" * 60, "a|b", "a&b", "~", "*", "%s%n",
)  # fmt: skip
# As a string of an inventory that is not a template; what looks like one is one, by design of Ansible.
IDENTITIES = tuple(
    text for text in TEXTS if "{{" not in text and "{%" not in text and len(text) < 1000 and text != "\ud800"
)
REFUSED = ("bad_option", "bad_path", "permission", "gateway_unsupported", "spool_failed")
OPTIONS: dict[str, tuple[Any, ...]] = {
    "path": ("../x", "/etc/../x", "/tmp/$(touch canary)\n", "/" + "x" * 600, "/ü", "relative", "/a//b"),
    "group": ("$(touch canary)", "a b", "-x", "x\ny", "x" * 300),
    "owner": ("`touch canary`", "root; touch canary", "\n", "ü"),
    "secret_mode": ("0777", "u=rwx", "$(touch canary)", "-1", "9640"),
    "templates": ([{"src": "../../../etc/passwd\0"}], [{"src": "x", "dest": "../../x"}], [{"src": "/nowhere"}]),
    "formats": (["../../x"], ["$(touch canary)"]),
    "api_url": ("file:///etc/passwd", "http://example.com", "https://$(touch canary)/", "-x"),
    "field_map": ({"client_id": "$(touch canary)"}, {"../x": "a"}),
}


def test_hostile_hosts_and_options(
    trials: Trial, simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path
) -> None:
    token = simulator.put_profile("hostile-arguments", plan="mqtt")
    hosts: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(NAMES):
        hosts[name] = {"thingstream_gateway_hardware_id": f"named-{number}", "thingstream_gateway_given_name": "g"}
    for number, text in enumerate(IDENTITIES):
        hosts[f"identity-{number}"] = {
            "thingstream_gateway_hardware_id": f"id{text}",
            "thingstream_gateway_tags": [text],
            "thingstream_gateway_given_name": text[:50],
        }
    wrong = [(option, value) for option, values in OPTIONS.items() for value in values]
    for number, (option, value) in enumerate(wrong):
        own = {f"thingstream_gateway_{option}": value, "thingstream_gateway_hardware_id": f"wrong-{number}"}
        hosts[f"wrong-{number}"] = own
    numbers = {name: number for number, name in enumerate(hosts)}
    for name, variables in hosts.items():
        # a path that would run what is in it, were it ever not quoted
        path = f"{tmp_path}/gw/{numbers[name]} $(touch {tmp_path}/{CANARY}) `touch {CANARY}`;touch {CANARY}"
        variables.setdefault("thingstream_gateway_path", path)
    common = {**platform, "thingstream_gateway_service": "pointperfect", "thingstream_gateway_token": token}
    inventory = write_inventory(tmp_path / "inventory.yml", hosts, common)
    run = run_playbook(tmp_path, inventory, seconds=300)
    assert not list(tmp_path.rglob(CANARY))
    requested = {
        (entry["hardware_id"], tuple(entry["tags"])) for entry in simulator.requests() if entry["status"] == 200
    }
    results = run.of("Ensure credentials")
    assert set(results) == set(hosts), run.output[-3000:]
    for name, variables in hosts.items():
        with trials("Arguments: hosts" if name in NAMES else f"Arguments: {name.partition('-')[0]}"):
            result = results[name]
            identity = variables["thingstream_gateway_hardware_id"]
            tags = tuple(tag for tag in variables.get("thingstream_gateway_tags", ()) if tag)
            if result["status"] == "ok":
                assert result["thing"]["hardware_id"] == identity
                assert (identity, tags) in requested
                assert not name.startswith("wrong-")
            else:
                assert result.get("error_code") in (*REFUSED, "refused"), (name, result)
                assert name not in NAMES, result
    assert {hardware_id for hardware_id, _tags in requested} <= {
        variables["thingstream_gateway_hardware_id"] for variables in hosts.values()
    }


def test_spool_never_mixes_two_identities_nor_leaves_its_directory(full: bool, trials: Trial) -> None:
    identities = (
        st.none()
        | st.sampled_from(TEXTS[1:]).filter(lambda text: text != "\ud800")
        | st.text(st.characters(exclude_categories=["Cs"]))
    )
    pairs = st.tuples(identities, st.text(st.characters(exclude_categories=["Cs"])), identities)

    def check(case: tuple[str | None, str, str | None]) -> None:
        one, gateway, other = case
        places = [directory.location("/x/spool", "pointperfect", identity, gateway) for identity in (one, other)]
        assert all(place.parent == Path("/x/spool") and place.name.isascii() for place in places)
        assert (places[0] == places[1]) == (one == other)
        # an identity is not mistaken for a gateway
        assert one is None or places[0] != directory.location("/x/spool", "pointperfect", None, one)

    for_all(full, trials, "Arguments: spool", pairs, check, short=200)


def test_a_shell_reads_what_was_written(full: bool, trials: Trial) -> None:
    """Every word of a request, read back by the rules of ``sh``."""
    texts = st.sampled_from(TEXTS) | st.text()

    def check(text: str) -> None:
        line = protocol.assignments({"owner": text})
        assert shlex.split(line.replace("\0", "?")) == [f"request_owner={text}".replace("\0", "?")]

    for_all(full, trials, "Arguments: quoting", texts, check, short=100)

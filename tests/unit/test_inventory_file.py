# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's own readers of inventories return hardware IDs exactly as they were written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible_collections.thingstream.ztp.plugins.filter.hardware_id_inventory import hardware_id_inventory
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.inventory_file import FORMATS, VARIABLE, inventory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# What YAML 1.1 and 1.2, INI with Python literals, shlex or Ansible change if it is not quoted.
ODD = [
    "012345", "1e5", "1E5", "0x1F", "0o17", "0b11", "1_000", "12345678901234567890", "1.0", ".5", "-7", "+7", "inf",
    ".inf", ".nan", "NaN", "NO", "no", "Yes", "on", "OFF", "y", "N", "true", "False", "None", "null", "~", "12:30:45",
    "190:20:30", "2026-11-22", "2026-11-22T04:13:00Z", "A#1", "A #1", "#1", ";1", "a: b", "a:", ": a", "- a", "-", "--",
    "---", "...", "? a", "!unsafe x", "!!int 1", "&a", "*a", "%a", "@a", "`a`", "[1, 2]", "[a", "(1, 2)", "(1)", "a,b",
    "'1'", '"1"', "'", '"', "it's", 'say "x"', "\\", "\\n", "a\\", "$HOME", "$(id)", "a=b", "=", "<<", "=1", " a", "a ",
    "a  b", "\t", "a\tb", "b'x'", "u'x'", "r'\\x'", "1 + 1", "...", "Ellipsis", "1j", "''", '""', "a\nb", "a\r\nb",
    "\x00", "\x07", "\x1b[0m", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\ufffe", "Ünïcode", "😀", "{a", "a}", "{}",
]  # fmt: skip


def read(text: str, directory: Path, form: str) -> dict[str, Any]:
    """Return what Ansible reads: host to hardware ID."""
    file = directory / f"hosts.{'yml' if form == 'yaml' else 'ini'}"
    file.write_text(text, encoding="ascii")
    manager = InventoryManager(loader=DataLoader(), sources=[str(file)])
    return {host.name: host.vars.get(VARIABLE) for host in manager.get_hosts()}


def assert_same(found: dict[str, Any], ids: dict[str, str]) -> None:
    assert found == ids
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize("form", FORMATS)
def test_ids_that_readers_would_change(tmp_path: Path, form: str) -> None:
    ids = {f"gw{number}": text for number, text in enumerate(ODD)}
    assert_same(read(inventory(ids, form), tmp_path, form), ids)


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(min_size=1, max_size=128), min_size=1, max_size=8))
def test_every_text(tmp_path: Path, form: str, texts: list[str]) -> None:
    ids = {f"gw{number}": text for number, text in enumerate(texts)}
    assert_same(read(inventory(ids, form), tmp_path, form), ids)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=8))
def test_other_yaml_readers(texts: list[str]) -> None:
    text = inventory(dict(enumerate(texts)), "yaml")
    for loader in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        hosts = yaml.load(text, loader)["all"]["hosts"]  # both are safe
        assert [entry[VARIABLE] for entry in hosts.values()] == texts


HOSTS = ["gw1", "gw-1.example.com", "1e5", "012", "2001:db8::1", "yes", "a#b"]


# the name of a host has no escapes in INI
@pytest.mark.parametrize(("form", "host"), [*((form, host) for form in FORMATS for host in HOSTS), ("yaml", "gw é")])
def test_names_of_hosts(tmp_path: Path, form: str, host: str) -> None:
    assert_same(read(inventory({host: "012345"}, form), tmp_path, form), {host: "012345"})


@pytest.mark.parametrize("form", FORMATS)
def test_no_host(tmp_path: Path, form: str) -> None:
    assert read(inventory({}, form), tmp_path, form) == {}


def test_numbers_count_as_texts() -> None:
    assert inventory({"gw1": 356938035643809}) == inventory({"gw1": "356938035643809"})


def test_the_form_for_people() -> None:
    assert inventory({"gw1": "012345"}) == f'all:\n  hosts:\n    "gw1":\n      {VARIABLE}: "012345"\n'
    assert inventory({"gw1": "012345"}, "ini").splitlines()[-1] == f'"gw1" {VARIABLE}="\'012345\'"'


@pytest.mark.parametrize(("ids", "form"), [([], "yaml"), ("gw1", "ini"), ({}, "toml"), ({}, "")])
def test_wrong_arguments_of_the_filter(ids: Any, form: str) -> None:
    with pytest.raises(AnsibleFilterError, match="hardware_id_inventory"):
        hardware_id_inventory(ids, form)

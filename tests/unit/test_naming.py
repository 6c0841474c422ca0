# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of a Thing reach the platform as they were written, or are refused."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.values import typed
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.naming import (
    given_name_of,
    hardware_id_of,
    tags_of,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

SHY, ZWSP, NBSP, BOM, RTL = "\u00ad", "\u200b", "\u00a0", "\ufeff", "\u202e"

REFUSED: dict[str, list[Any]] = {
    "Quote it": [
        float("inf"),
        801234e3,
        12345,
        10**13 - 1,
        -(10**15),
        False,
        True,
        datetime.date(2024, 1, 1),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
        ["356938035643809"],
        {"imei": "356938035643809"},
        b"356938035643809",
        (),
    ],
    "blank": [" 356938035643809", "356938035643809 ", "356938 035643809", "abc\n", "\tabc", " "],
    "invisible": [f"a{hidden}b" for hidden in f"{SHY}{ZWSP}{BOM}{RTL}\0\t\x7f\u2003\u2060\u3164\ufe0f\u034f"],
    "looks like another": ["\uff11\uff12\uff13", "e\u0301", "\ufb01x"],
    "missing": ["None", "null", "nan", "inf", "undefined", "N/A", "True"],
    "not rendered": ["{{imei}}", "{%if%}"],
    "quotation mark": ["'356938035643809'", '"abc"'],
    "1 to 128 are possible": ["a" * 129],
}  # fmt: skip
ACCEPTED = {
    "356938035643809": "356938035643809",
    356938035643809: "356938035643809",
    10**13: "10000000000000",
    89490200001234567890: "89490200001234567890",
    "010234567012345": "010234567012345",
    "80E126001234": "80E126001234",
    "NO": "NO",
    "00:1b:21:00:00:01": "00:1b:21:00:00:01",
    "a" * 128: "a" * 128,
    "Ger\u00e4t-1": "Ger\u00e4t-1",
    "": None,
    None: None,
}


@pytest.mark.parametrize(("finding", "value"), [(text, value) for text, values in REFUSED.items() for value in values])
def test_a_hardware_id_that_may_not_be_what_was_written_is_refused(finding: str, value: object) -> None:
    with pytest.raises(ProvisioningError, match=finding) as caught:
        hardware_id_of(value, "gw1")
    assert caught.value.code == "bad_option"
    assert caught.value.message.startswith("hardware_id of gw1: ")
    assert "class" not in caught.value.message
    assert caught.value.message.isprintable(), "the message shows what is invisible"


@pytest.mark.parametrize(("value", "expected"), ACCEPTED.items())
def test_a_hardware_id_is_taken_as_it_is(value: object, expected: str | None) -> None:
    assert hardware_id_of(value, "gw1") == expected


def test_a_number_in_another_notation_is_refused() -> None:
    with pytest.raises(ProvisioningError, match="Quote it"):
        hardware_id_of(0x00124B0012345678, "gw1", is_decimal=False)


@pytest.mark.parametrize("value", [12345, 1.5, True, " rover", "rover\n", f"ro{ZWSP}ver", "r" * 51, ["rover"], " "])
def test_a_given_name_is_checked_alike(value: object) -> None:
    with pytest.raises(ProvisioningError, match=r"^given_name of gw1: "):
        given_name_of(value, "gw1")


def test_a_given_name_may_have_spaces() -> None:
    assert given_name_of("Rover 7 (north)", "gw1") == "Rover 7 (north)"


@pytest.mark.parametrize("value", [7, 2.5, False, "ztp ", ["ztp"], f"z{BOM}tp"])
def test_tags_are_checked_alike(value: object) -> None:
    with pytest.raises(ProvisioningError, match=r"^tags of gw1: "):
        tags_of(["ok", value], "gw1")


def test_empty_tags_are_left_out() -> None:
    assert tags_of(["ztp", "", None, "two words"], "gw1") == ["ztp", "two words"]


# ---- what Ansible's own readers make of it ----

digits = st.text("0123456789", min_size=1, max_size=20)
tricky = st.one_of(
    digits,
    digits.map(lambda text: f"0x{text}"),
    digits.map(lambda text: f"0o{text}"),
    st.text("01234567", min_size=13, max_size=20).map(lambda text: f"0{text}"),
    st.text("01", min_size=44, max_size=60).map(lambda text: f"0b{text}"),
    st.text("0123456789_", min_size=14, max_size=24),
    st.text("0123456789abcdefABCDEF", min_size=12, max_size=16),
    st.text("0123456789abcdef", min_size=14, max_size=16).map(lambda text: f"0x{text}"),
    st.text("0123456789eE.+-", min_size=1, max_size=20),
    st.text("0123456789:-T.Z", min_size=1, max_size=25),
    st.sampled_from(("yes", "NO", "on", "Off", "True", "null", "~", "", ".inf", ".NaN", "2024-01-01", "12:30:45", "=")),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\"\\#&*!|>%@`{}[],"), min_size=1),
    st.text(st.characters(min_codepoint=161, max_codepoint=0x30FF), min_size=1, max_size=10),
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.lists(tricky, min_size=1, max_size=8))
@example(values=["0x00124b0012345678", "0300000000000000", "0b" + "1" * 50, "1_000_000_000_000_00", "356938035643809"])
@example(values=["356938035643809:10", "190:20:30:40:50:59", "+356938035643809", "(356938035643809)", "80E126001234"])
def test_every_scalar_of_an_inventory_arrives_as_written_or_is_refused(
    values: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("inventory")
    for found, written in (*_yaml(values, directory), *_ini(values, directory)):
        try:
            hardware_id = typed({"hardware_id": {"type": "str"}}, {"hardware_id": found}, "gw")["hardware_id"]
        except ProvisioningError:
            continue
        assert hardware_id in (written, None), f"{written!r} became {hardware_id!r}"


def _yaml(values: Iterable[str], directory: Path) -> Iterable[tuple[object, str]]:
    """Yield the value that YAML reads from each unquoted text, and the text; skip each text that is not one scalar."""
    for number, value in enumerate(values):
        if not _is_plain(value):
            continue
        file = directory / f"hosts-{number}.yml"
        file.write_text(f"all:\n  hosts:\n    gw:\n      id: {value}\n", encoding="utf-8")
        yield _variables(file).get("id"), value


def _ini(values: Iterable[str], directory: Path) -> Iterable[tuple[object, str]]:
    for number, value in enumerate(values):
        file = directory / f"hosts-{number}.ini"
        file.write_text(f"gw id={value}\n[all:vars]\nid2={value}\n", encoding="utf-8")
        found = _variables(file)
        yield from ((found[name], value) for name in ("id", "id2") if name in found)


def _variables(file: Path) -> Mapping[str, Any]:
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(file)])
    host = inventory.get_host("gw")
    if host is None:
        return {}  # Ansible refuses the inventory
    variables: Mapping[str, Any] = VariableManager(loader=loader, inventory=inventory).get_vars(
        host=host, include_hostvars=False
    )
    return variables


def _is_plain(value: str) -> bool:
    """Return whether YAML reads a text, written without quotes, as one scalar."""
    try:
        tokens = list(yaml.scan(f"id: {value}\n"))
    except yaml.YAMLError:
        return False
    scalars = [token for token in tokens if isinstance(token, yaml.ScalarToken)]
    return len(scalars) == 2 and scalars[1].value == value

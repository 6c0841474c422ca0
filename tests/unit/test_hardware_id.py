# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity that a gateway reports, and the values that can be a hardware ID."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import hardware_id, plausibility
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.hardware_id import Candidate

IMEI = "356938035643809"
LOWER_IMEI = "353816058851462"
MACHINE_ID = "51df0b4bc3b04c9780e299b98ca373b8"
ROLE = Path(__file__).resolve().parents[2] / "roles/thingstream_gateway"


def judge(source: str, value: str) -> Candidate:
    """Return the candidate that one value of one source becomes."""
    (candidate,) = hardware_id.candidates([source], [f"{source} {value}"])
    return candidate


def refusal(source: str, value: str) -> str:
    refused = judge(source, value).refused
    assert refused is not None, value
    return refused


# ---- what is plausible ----


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ("modem_imei", IMEI, IMEI),
        ("modem_imei", f"  {IMEI}\t", IMEI),
        ("dmi_serial", "PF0ABCDE", "PF0ABCDE"),
        ("dmi_serial", "VMware-564d3a0c", "VMware-564d3a0c"),
        ("dmi_serial", "00", None),
        ("dmi_serial", "x" * 127 + "y", "x" * 127 + "y"),
        ("device_tree_serial", "10000000a1b2c3d4", "10000000a1b2c3d4"),
        ("mac", "B8:27:EB:01:02:03", "b8:27:eb:01:02:03"),
    ],
)
def test_plausible_values(source: str, value: str, expected: str | None) -> None:
    candidate = judge(source, value)
    assert (None if candidate.refused else candidate.value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("356938035643808", "check digit"),
        ("356938035634809", "check digit"),  # two digits exchanged
        ("35693803564380", "15 digits, not 14"),
        ("3569380356438099", "15 digits, not 16; an IMEISV changes"),
        ("000000000000000", "placeholder"),
        ("111111111111119", "placeholder"),
        ("012345678901237", "placeholder"),
        ("123456789012347", "placeholder"),
        ("987654321098769", "placeholder"),
        ("000000001234564", "placeholder"),
        ("004999010640000", "many devices have it"),  # of emulators, and of modems without calibration data
        ("490154203237518", "many devices have it"),  # the example of every text about IMEIs
        ("A1000043B2C3D4", "MEID"),  # of a CDMA modem
        ("a1000043b2c3d4", "MEID"),
        ("--", "does not know it yet"),
        ("35-693803-564380-9", "no IMEI"),
        ("٣٥٦٩٣٨٠٣٥٦٤٣٨٠٩", "printable ASCII"),
        ("", "empty"),
    ],
)
def test_what_is_no_imei(value: str, reason: str) -> None:
    assert reason in refusal("modem_imei", value)


@pytest.mark.parametrize("value", ["VMware-56 4d 3a 0c", "Default String 7"])
def test_a_blank_is_refused_as_in_an_inventory(value: str) -> None:
    assert "blank" in refusal("dmi_serial", value)


@pytest.mark.parametrize("place", range(15))
def test_every_wrong_digit_is_noticed(place: int) -> None:
    right = int(IMEI[place])
    for digit in range(10):
        text = f"{IMEI[:place]}{digit}{IMEI[place + 1 :]}"
        assert plausibility.luhn_is_valid(text) == (digit == right)


@pytest.mark.parametrize(
    "value",
    [
        "None",
        "Default string",
        "To be filled by O.E.M.",
        "To Be Filled By OEM",
        "TO BE FILLED",
        "System Serial Number",
        "Chassis Serial Number",
        "0",
        "0123456789",
        "123456789",
        "0000000000000000",
        "00-00-00",
        "Not Specified",
        "NOT APPLICABLE",
        "N/A",
        "n/a",
        "Unknown",
        "unknown (bad index)",
        "xxxxxxxx",
        "FFFFFFFF",
        "........",
        "---",
        "uninitialized",
        # refused by fleet inventories
        "MB-1234567890",
        "SYS-1234567890",
        "SYS-9876543210",
        "SN-12345",
        "SN-1234567890",
        "Serial Number xxxxxx",
        "(null string)",
        "EVAL",
        "IATPASS",
        "Tulip Computers",
        "Unknow",
        "NNNNNNN",
        "123456789000",
        "1111111",
        "0123456789ABCDEF",
        "Type2 - Board Serial Number",
        "Base Board Serial Number",
        "OEM_Serial",
        "Fill By OEM",
        "O.E.M.",
        "No Asset Tag",
        "<OUT OF SPEC>",
        "<BAD INDEX>",
        "03000200-0400-0500-0006-000700080009",
        # counting and repeated
        "BSN12345678901234567",
        "SSN12345678901234567",
        "Asset-1234567890",
        "87654321",
        "9012345678",
        "1234",
        "1212121212",
        "abcabcabc",
        "DEADDEADDEAD",
        # what YAML and INI readers, or Ansible itself, would take for a boolean
        "NO",
        "TRUE",
        "false",
        "Off",
        "null",
    ],
)
@pytest.mark.parametrize("source", ["dmi_serial", "device_tree_serial"])
def test_placeholders(source: str, value: str) -> None:
    assert refusal(source, value) == "it is a placeholder"


@pytest.mark.parametrize("value", ["-64", "75", "A1B", "1-2-3", "Z9"])
@pytest.mark.parametrize("source", ["dmi_serial", "device_tree_serial"])
def test_a_serial_number_that_is_too_short(source: str, value: str) -> None:
    assert "too short" in refusal(source, value)


@pytest.mark.parametrize(
    "value",
    [
        "1235",
        "4CE0460D0G",
        "SN12346",
        "PC-12341234",
        "10000000a1b2c3d4",
        "C02XL0GTJGH5",
        "/7BXXX2/CN1296345600A1/",
        "NONE-1",
        "TEST0042",
        "2000000000",
    ],
)
def test_serial_numbers_that_only_look_like_placeholders(value: str) -> None:
    assert judge("dmi_serial", value) == Candidate("dmi_serial", value)


@pytest.mark.parametrize("ending", ["\r", "\r\n", " \r", "\t"])
@pytest.mark.parametrize("source", ["dmi_serial", "device_tree_serial"])
def test_line_endings_are_no_part_of_a_value(source: str, ending: str) -> None:
    assert judge(source, f"PF0ABCDE{ending}") == Candidate(source, "PF0ABCDE")


@pytest.mark.parametrize(
    "value",
    [
        "0c:5b:8f:27:9a:64",
        "0C:5B:8F:27:9A:64",
        "58:2c:80:13:92:63",
        "00:1e:10:1f:00:00",
        "00:1e:10:1f:00:01",
        "00:a0:c6:00:00:00",
        "00:e0:4c:87:00:00",
        "88:88:88:88:87:88",
        "88:88:88:88:88:88",
        "00:11:22:33:44:55",
        "b8:27:eb:ff:ff:ff",
        "44:45:53:54:61:6f",
        "20:41:53:59:4e:ff",
        "00:00:5e:00:01:0a",
        "00:00:00:00:00:01",
        "00:08:a1:46:06:35",
    ],
)
def test_addresses_that_many_devices_have(value: str) -> None:
    assert refusal("mac", value) == "many devices have it"


def test_built_in_interfaces_come_before_usb_and_ethernet_before_wireless() -> None:
    lines = [
        "mac usb_wireless 00:1b:21:00:00:01",
        "mac usb_ethernet 00:1b:21:00:00:02",
        "mac wireless 00:1b:21:00:00:03",
        "mac ethernet 00:1b:21:00:00:05",
        "mac ethernet 00:1b:21:00:00:04",
        "mac usb_ethernet 00:1b:21:00:00:05",  # one address, several interfaces
        "mac token_ring 00:1b:21:00:00:06",
        "mac ethernet 0c:5b:8f:27:9a:64",
    ]
    found = hardware_id.candidates(["mac"], lines)
    assert [candidate.value for candidate in found if not candidate.refused] == [
        f"00:1b:21:00:00:0{digit}" for digit in (4, 5, 3, 2, 1)
    ]
    refused = {candidate.value: candidate.refused for candidate in found if candidate.refused}
    assert refused == {
        "token_ring 00:1b:21:00:00:06": "it is no MAC address",
        "0c:5b:8f:27:9a:64": "many devices have it",
    }


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("too_old", "update it"),
        ("denied", "use become"),
        ("not_running", "start it"),
        ("vanished", "run again"),
        ("failed", "mmcli -L"),
    ],
)
def test_what_is_wrong_with_modem_manager(reason: str, remedy: str) -> None:
    (found,) = hardware_id.candidates(["modem_imei"], [f"none modem_imei {reason}"])
    assert found.value is None
    assert remedy in (found.refused or "")
    assert ("become" in (found.refused or "")) == (reason == "denied")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("00:00:00:00:00:00", "placeholder"),
        ("02:42:ac:11:00:02", "locally administered"),
        ("52:54:00:12:34:56", "locally administered"),
        ("01:00:5e:00:00:01", "address of a group"),
        ("ff:ff:ff:ff:ff:ff", "address of a group"),
        ("b8-27-eb-01-02-03", "no MAC address"),
        ("b8:27:eb:01:02", "no MAC address"),
        ("80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:10:3b", "no MAC address"),  # InfiniBand
    ],
)
def test_what_is_no_mac_address(value: str, reason: str) -> None:
    assert reason in refusal("mac", value)


# ---- the machine ID, which is confidential ----


def test_a_machine_id_becomes_what_systemd_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is a test of systemd's own."""
    monkeypatch.setattr(plausibility, "APPLICATION_ID", "f03daaeb1c334b43a732172944bf772e")
    assert judge("machine_id", MACHINE_ID).value == "1dee5954e75c4d6fb96cc6c04ca18a86"


def test_the_application_id_never_changes() -> None:
    """Another one would mean another Thing for every gateway."""
    assert judge("machine_id", MACHINE_ID).value == "5b198058dcb244bb912ebd8537069f79"


@pytest.mark.parametrize(
    "value", ["uninitialized", "0" * 32, MACHINE_ID[:-1], f"{MACHINE_ID}0", MACHINE_ID.upper(), f"{MACHINE_ID} {{"]
)
def test_a_machine_id_that_is_refused_is_not_shown(value: str) -> None:
    candidate = judge("machine_id", value)
    assert candidate.value is None
    assert candidate.refused is not None
    with pytest.raises(ProvisioningError) as caught:
        hardware_id.choose([candidate])
    assert value not in caught.value.message


# ---- the order of the sources ----


def test_the_first_source_with_a_plausible_value_wins() -> None:
    lines = ["dmi_serial Default string", "dmi_serial BOARD-7", "mac b8:27:eb:01:02:03", "none modem_imei no_program"]
    found = hardware_id.candidates(["modem_imei", "dmi_serial", "mac"], lines)
    assert hardware_id.choose(found) == Candidate("dmi_serial", "BOARD-7")
    assert [candidate.describe() for candidate in found] == [
        {"source": "modem_imei", "value": None, "refused": "there is no ModemManager (mmcli)"},
        {"source": "dmi_serial", "value": "BOARD-7"},
        {"source": "dmi_serial", "value": "Default string", "refused": "it is a placeholder"},
        {"source": "mac", "value": "b8:27:eb:01:02:03"},
    ]
    assert hardware_id.choose(hardware_id.candidates(["mac", "dmi_serial"], lines)).source == "mac"


def test_of_several_serials_the_first_and_of_several_modems_or_interfaces_the_lowest() -> None:
    lines = [
        "dmi_serial Z9-100",
        "dmi_serial A1-100",
        "mac b8:27:eb:00:00:02",
        "mac B8:27:EB:00:00:01",
        "mac 02:00:00:00:00:00",
    ]
    lines += [f"modem_imei {IMEI}", f"modem_imei {LOWER_IMEI}", f"modem_imei {IMEI}"]
    chosen = {
        source: hardware_id.choose(hardware_id.candidates([source], lines)).value
        for source in ("dmi_serial", "mac", "modem_imei")
    }
    assert chosen == {"dmi_serial": "Z9-100", "mac": "b8:27:eb:00:00:01", "modem_imei": LOWER_IMEI}
    assert len(hardware_id.candidates(["modem_imei"], lines)) == 2, "both keys of one modem count once"


def test_without_any_plausible_value_the_error_tells_what_each_source_said() -> None:
    lines = ["none modem_imei timeout", "dmi_serial Default string", "none dmi_serial unreadable"]
    found = hardware_id.candidates(["modem_imei", "dmi_serial", "mac"], lines)
    with pytest.raises(ProvisioningError) as caught:
        hardware_id.choose(found)
    assert caught.value.code == "hardware_id_required"
    for text in (
        "did not respond within 10 s",
        "dmi_serial 'Default string': it is a pl",
        "become",
        "mac: there is none",
    ):
        assert text in caught.value.message
    assert "set hardware_id" in caught.value.message


# ---- what is sent ----


def answering(output: str, status: int = 0) -> tuple[Any, list[tuple[str, bytes, bool]]]:
    """Return a connection that returns one output, and the list of the commands sent over it."""
    sent: list[tuple[str, bytes, bool]] = []

    def execute(command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        sent.append((command, standard_input, secret))
        return status, output, ""

    return execute, sent


def test_one_command_that_asks_for_what_was_wanted() -> None:
    execute, sent = answering("Welcome!\nbegin 1\nqueried mac\nmac b8:27:eb:01:02:03\ndmi_serial unasked\nend\n")
    found = hardware_id.discover(execute, ["mac", "modem_imei", "mac"])
    assert [(one.source, one.value) for one in found] == [("mac", "b8:27:eb:01:02:03"), ("modem_imei", None)]
    ((command, text, secret),) = sent
    assert command == "exec sh -s"
    assert text.startswith(
        b"request_command=identify\nrequest_sources='mac modem_imei'\nrequest_root=''\nrequest_seconds=10\n"
    )
    assert not secret


def test_a_machine_id_is_asked_for_as_a_secret() -> None:
    execute, sent = answering(f"begin 1\nmachine_id {MACHINE_ID}\nend\n")
    found = hardware_id.discover(execute, ["mac", "machine_id"])
    assert MACHINE_ID not in repr(found)
    assert sent[0][2]


@pytest.mark.parametrize("sources", [[], ["serial"], ["mac", "mac; reboot"]])
def test_unknown_sources_are_refused_before_anything_is_sent(sources: list[str]) -> None:
    execute, sent = answering("")
    with pytest.raises(ProvisioningError) as caught:
        hardware_id.discover(execute, sources)
    assert caught.value.code == "bad_option"
    assert sent == []


# ---- a gateway that means harm ----


@pytest.mark.parametrize("output", ["", "begin 1\nmac b8:27:eb:01:02:03\n", "mac b8:27:eb:01:02:03\nend\n"])
def test_half_an_answer_is_none(output: str) -> None:
    execute, _sent = answering(output)
    with pytest.raises(ProvisioningError) as caught:
        hardware_id.discover(execute, ["mac"])
    assert caught.value.code == "gateway_unsupported"


@pytest.mark.parametrize(
    "value",
    [
        "{{ lookup('pipe', 'id') }}",
        "{% for x in y %}",
        "{# comment #}",
        "a}",
        "a\x1b[2Jb",
        "a\x00b",
        "a\u202eb",
        "Ünïcode",
        "\udcff",
        "x" * 63 + "y" * 66,
        "",
        " \t ",
    ],
)
@pytest.mark.parametrize("source", ["dmi_serial", "device_tree_serial", "mac", "modem_imei", "machine_id"])
def test_hostile_values(source: str, value: str) -> None:
    candidate = judge(source, value)
    assert candidate.refused
    shown = candidate.value or ""
    assert shown.isprintable()
    assert len(shown) <= hardware_id.MAX_ID
    assert not set(shown) & set("{}")


def test_an_endless_answer_is_cut() -> None:
    lines = [f"dmi_serial S-{number}" for number in range(5000)] + [
        f"none dmi_serial {number}" for number in range(5000)
    ]
    found = hardware_id.candidates(["dmi_serial"], lines)
    assert len(found) == hardware_id.MAX_VALUES + 1
    assert found[-1].refused == "the gateway gave a reason that is not known"


def test_a_line_of_another_kind_is_no_value() -> None:
    lines = ["dmi_serialX", "dmi_serial_X y", "none", "none mac", "none dmi_serial", " dmi_serial Y", "DMI_SERIAL Z"]
    assert hardware_id.candidates(["dmi_serial"], lines) == [Candidate("dmi_serial", None, "there is none")]


# ---- hardware IDs that several hosts have ----


def test_duplicates() -> None:
    ids = {"b": "1", "a": 1, "c": " 1 ", "d": "2", "e": None, "f": None, "g": "", "h": "", "j": "Z", "i": "Z", "k": "z"}
    assert hardware_id.duplicates(ids) == {"1": ["a", "b", "c"], "Z": ["i", "j"]}
    assert hardware_id.duplicates({}) == {}


def test_the_role_knows_the_same_sources() -> None:
    specs = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]
    option = specs["identify"]["options"]["thingstream_gateway_hardware_id_sources"]
    assert option["choices"] == list(hardware_id.SOURCES)


def test_the_main_job_stays_one_task() -> None:
    """Whoever writes hardware IDs down pays nothing for finding them."""
    assert len(yaml.safe_load((ROLE / "tasks/main.yml").read_text())) == 1

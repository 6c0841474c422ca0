# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware IDs that identify.sh finds in the files of a gateway and gets from ModemManager."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import hardware_id
from shell.host import Host

IMEI, OTHER_IMEI = "356938035643809", "353816058851462"
MACHINE_ID = "51df0b4bc3b04c9780e299b98ca373b8"
DMI = "sys/class/dmi/id"
TREE = "sys/firmware/devicetree/base"
MODEM = "/org/freedesktop/ModemManager1/Modem"
EVERY_SOURCE = list(hardware_id.SOURCES)
# Each modem with the lines that mmcli prints for it; of most there are a hundred.
MMCLI = """#!/bin/sh
echo "$*" >>'{log}'
case $* in
    -L) printf '{modems}' ;;
    '-m 0 -K') printf 'modem.dbus-path : {path}/0\\nmodem.generic.equipment-identifier : {first}\\n'
        printf 'modem.3gpp.imei : {first}\\n' ;;
    '-m 12 -K') printf 'modem.generic.own-numbers.value[1] : +49170\\nmodem.generic.equipment-identifier   : --\\n'
        printf 'modem.3gpp.imei                      : {second}\\n' ;;
    *) exit 7 ;;
esac
"""


class Gateway:
    """The files of a gateway below a directory, and a place for its programs."""

    def __init__(self, host: Host, work: Path) -> None:
        self.root, self.programs = work / "root", work / "programs"
        self.root.mkdir()
        self.programs.mkdir()
        self.log = work / "log"
        path = f"{self.programs}:{host.tools}:/usr/bin:/bin"
        self.host = replace(host, environment={**host.environment, "PATH": path}, outputs=[])

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def interface(
        self, name: str, address: str, kind: str = "0", *, device: str | None = "platform/eth", wlan: bool = False
    ) -> None:
        """Add a network interface; one without a device is virtual."""
        self.file(f"sys/class/net/{name}/address", f"{address}\n")
        self.file(f"sys/class/net/{name}/addr_assign_type", f"{kind}\n")
        if device:
            place = self.root / "sys/devices" / device
            place.mkdir(parents=True, exist_ok=True)
            (self.root / f"sys/class/net/{name}/device").symlink_to(place)
        if wlan:
            (self.root / f"sys/class/net/{name}/phy80211").mkdir()

    def program(self, text: str) -> None:
        """Write the program that runs here as ``mmcli``."""
        (self.programs / "mmcli").write_text(text)
        (self.programs / "mmcli").chmod(0o755)

    def modems(self, *numbers: int, first: str = IMEI, second: str = OTHER_IMEI) -> None:
        lines = "".join(f"    {MODEM}/{number} [QUALCOMM *] Modem/3 /etc/*\\n" for number in numbers)
        lines = lines or "No modems were found\\n"
        self.program(MMCLI.format(log=self.log, modems=lines, path=MODEM, first=first, second=second))

    def ask(self, *sources: str, **options: Any) -> list[tuple[str, str | None, str | None]]:
        found = hardware_id.discover(self.host.execute, sources, root=str(self.root), **options)
        return [(one.source, one.value, one.refused) for one in found]

    @property
    def calls(self) -> list[str]:
        """The arguments of each call of ``mmcli``."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def gateway(plain_host: Host, tmp_path: Path) -> Gateway:
    return Gateway(plain_host, tmp_path)


# ---- files ----


def test_a_gateway_that_knows_nothing(gateway: Gateway) -> None:
    found = gateway.ask(*EVERY_SOURCE)
    assert [(source, value) for source, value, _refused in found] == [(source, None) for source in EVERY_SOURCE]
    assert found[0][2] == "there is no ModemManager (mmcli)"
    assert {refused for _source, _value, refused in found[1:]} == {"there is none"}


def test_every_source_at_once(gateway: Gateway) -> None:
    gateway.modems(0)
    gateway.file(f"{DMI}/product_serial", "PRODUCT-1\n")
    gateway.file(f"{DMI}/board_serial", "BOARD-2\n")
    gateway.file(f"{TREE}/serial-number", b"10000000a1b2c3d4\0")
    gateway.interface("eth0", "b8:27:eb:01:02:03")
    gateway.file("etc/machine-id", f"{MACHINE_ID}\n")
    assert gateway.ask(*reversed(EVERY_SOURCE)) == [
        ("machine_id", "5b198058dcb244bb912ebd8537069f79", None),
        ("mac", "b8:27:eb:01:02:03", None),
        ("device_tree_serial", "10000000a1b2c3d4", None),
        ("dmi_serial", "PRODUCT-1", None),
        ("dmi_serial", "BOARD-2", None),
        ("modem_imei", IMEI, None),
    ]


def test_only_what_was_asked_for_is_told(gateway: Gateway) -> None:
    gateway.modems(0)
    gateway.file(f"{DMI}/product_serial", "PRODUCT-1\n")
    gateway.file("etc/machine-id", f"{MACHINE_ID}\n")
    assert gateway.ask("dmi_serial") == [("dmi_serial", "PRODUCT-1", None)]
    assert gateway.host.outputs == ["begin 1\nqueried dmi_serial\ndmi_serial PRODUCT-1\nend\n"]
    assert gateway.calls == []


def test_the_device_tree_in_proc_and_in_sys_is_one(gateway: Gateway) -> None:
    gateway.file(f"{TREE}/serial-number", b"10000000a1b2c3d4\0")
    (gateway.root / "proc").mkdir()
    (gateway.root / "proc/device-tree").symlink_to(gateway.root / TREE)
    assert gateway.ask("device_tree_serial") == [("device_tree_serial", "10000000a1b2c3d4", None)]


@pytest.mark.parametrize("content", [b"", b"\n", b"\0"])
def test_an_empty_file_is_none(gateway: Gateway, content: bytes) -> None:
    gateway.file(f"{DMI}/product_serial", content)
    gateway.file(f"{DMI}/board_serial", "BOARD-2\n")
    assert gateway.ask("dmi_serial") == [("dmi_serial", "BOARD-2", None)]


@pytest.mark.parametrize("value", ["  a\\nb\\c  ", "$(id)", "-n", "*", "end", "failed bad_path", "'\"`", "begin 1"])
def test_a_value_arrives_as_it_is(gateway: Gateway, value: str) -> None:
    gateway.file(f"{DMI}/product_serial", f"{value}\nsecond line\nend\n")
    ((_source, found, _refused),) = gateway.ask("dmi_serial")
    assert found == value.strip()


def test_a_root_with_blanks_and_quotes(gateway: Gateway, tmp_path: Path) -> None:
    gateway.root = tmp_path / "a 'b' $c *"
    gateway.file("etc/machine-id", f"{MACHINE_ID}\n")
    gateway.interface("eth 0", "b8:27:eb:01:02:03")
    assert all(value for _source, value, _refused in gateway.ask("machine_id", "mac"))


def test_who_may_not_read_is_told_so(gateway: Gateway, public_path: Path, root: None, owner: Any) -> None:
    """As the serial numbers of a PC, which are for root only."""
    gateway.root = public_path
    gateway.file(f"{DMI}/product_serial", "PRODUCT-1\n").chmod(0o400)
    user = replace(gateway.host, user=(owner.pw_uid, owner.pw_gid))
    (found,) = hardware_id.discover(user.execute, ["dmi_serial"], root=str(public_path))
    assert found.value is None
    assert "become" in (found.refused or "")
    assert gateway.ask("dmi_serial") == [("dmi_serial", "PRODUCT-1", None)]


def test_permanent_addresses_of_physical_interfaces(gateway: Gateway) -> None:
    gateway.interface("br0", "b8:27:eb:00:00:01", device=None)
    gateway.interface("eth0", "b8:27:eb:00:00:04")
    gateway.interface("eth1", "b8:27:eb:00:00:03")
    gateway.interface("eth2", "b8:27:eb:00:00:02", kind="3")  # set by an administrator
    gateway.interface("usb0", "02:00:00:00:00:01")
    (gateway.root / "sys/class/net/bonding_masters").write_text("bond0\n")
    assert gateway.ask("mac") == [
        ("mac", "b8:27:eb:00:00:03", None),
        ("mac", "b8:27:eb:00:00:04", None),
        ("mac", "02:00:00:00:00:01", "it is locally administered, not that of the device"),
    ]


USB = "pci0000:00/usb1/1-1/1-1:1.0"


def test_what_is_built_in_comes_first_then_ethernet_then_the_lowest(gateway: Gateway) -> None:
    gateway.interface("eth1", "00:1b:21:00:00:01", device=USB)
    gateway.interface("wlan1", "00:1b:21:00:00:02", device=USB, wlan=True)
    gateway.interface("wlan0", "dc:a6:32:11:22:33", device="platform/sdio", wlan=True)
    gateway.interface("eth0", "dc:a6:32:11:22:34")
    gateway.interface("enp3s0", "dc:a6:32:11:22:35", device="pci0000:00/0000:00:1c.0")
    assert [value for _source, value, _refused in gateway.ask("mac")] == [
        "dc:a6:32:11:22:34",
        "dc:a6:32:11:22:35",
        "dc:a6:32:11:22:33",
        "00:1b:21:00:00:01",
        "00:1b:21:00:00:02",
    ]


def test_a_modem_whose_address_all_of_its_model_have(gateway: Gateway) -> None:
    gateway.interface("eth0", "0c:5b:8f:27:9a:64", device=USB)
    gateway.interface("docker0", "02:42:ac:11:00:02", "3", device=None)
    gateway.interface("eth0.7", "dc:a6:32:11:22:34", device=None)  # a VLAN
    assert gateway.ask("mac") == [("mac", "0c:5b:8f:27:9a:64", "many devices have it")]


@pytest.mark.parametrize("kind", ["1", "2", "3", "", "4"])
def test_an_address_that_is_not_permanent_is_none(gateway: Gateway, kind: str) -> None:
    """Random, taken over from another interface, set."""
    gateway.interface("eth0", "dc:a6:32:11:22:34", kind)
    assert gateway.ask("mac") == [("mac", None, "there is none")]


@pytest.mark.parametrize(("number", "counts"), [("1", True), ("803", False), ("32", False)])
def test_an_interface_that_is_no_ethernet(gateway: Gateway, number: str, counts: bool) -> None:
    """As a WLAN interface that monitors, or InfiniBand."""
    gateway.interface("mon0", "dc:a6:32:11:22:34")
    gateway.file("sys/class/net/mon0/type", f"{number}\n")
    assert (gateway.ask("mac")[0][1] is not None) is counts


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\0", "\0\n", "\n\n", " \n", ""])
def test_the_ending_of_a_file_is_no_part_of_a_value(gateway: Gateway, ending: str) -> None:
    for name in (f"{DMI}/product_serial", f"{TREE}/serial-number"):
        gateway.file(name, f"PF0ABCDE{ending}")
    gateway.file("etc/machine-id", f"{MACHINE_ID}{ending}")
    values = {value for _source, value, _refused in gateway.ask("dmi_serial", "device_tree_serial", "machine_id")}
    assert values == {"PF0ABCDE", "5b198058dcb244bb912ebd8537069f79"}


# ---- ModemManager ----


DENIED = "GDBus.Error:org.freedesktop.DBus.Error.AccessDenied: Sender is not authorized to send message"


@pytest.mark.parametrize("case", ["-L", "-m"])
@pytest.mark.parametrize(
    ("complaint", "says"),
    [
        ("error: Unknown option -K", "older than 1.10"),
        (f"error: couldn't get modem: '{DENIED}'", "use become"),
        ("error: couldn't create manager: Permission denied", "use become"),
        ("error: couldn't find the ModemManager process in the bus", "start it"),
        ("error: couldn't get bus: Could not connect: No such file or directory", "start it"),
        ("error: couldn't find modem", "disappeared"),
        ("error: $(id) `id` * \\n %s", "run mmcli -L"),
    ],
)
def test_an_old_modem_manager_is_told_from_missing_rights(
    gateway: Gateway, tmp_path: Path, complaint: str, says: str, case: str
) -> None:
    (tmp_path / "complaint").write_text(complaint + "\n")
    gateway.program(f"#!/bin/sh\ncase $1 in {case}) cat '{tmp_path}/complaint' >&2; exit 1 ;; esac\necho '{MODEM}/0'\n")
    ((_source, value, refused),) = gateway.ask("modem_imei")
    assert value is None
    assert says in (refused or "")
    assert "GDBus" not in gateway.host.outputs[-1]


def test_the_lowest_imei_of_several_modems(gateway: Gateway) -> None:
    gateway.modems(0, 12)
    assert gateway.ask("modem_imei") == [
        ("modem_imei", OTHER_IMEI, None),
        ("modem_imei", IMEI, None),
        ("modem_imei", "--", "it is no IMEI: ModemManager does not know it yet"),
    ]
    assert gateway.calls == ["-L", "-m 0 -K", "-m 12 -K"]
    assert "+49170" not in gateway.host.outputs[-1], "only what identifies the modem may be printed"


def test_no_modem(gateway: Gateway) -> None:
    gateway.modems()
    assert gateway.ask("modem_imei") == [("modem_imei", None, "there is none")]


def test_a_modem_that_vanishes_meanwhile(gateway: Gateway) -> None:
    gateway.modems(3, 0)
    assert gateway.ask("modem_imei") == [
        ("modem_imei", IMEI, None),
        ("modem_imei", None, "ModemManager (mmcli) reports an error: run mmcli -L on the gateway to see it"),
    ]


@pytest.mark.parametrize("status", [1, 127, 143])
def test_mmcli_that_fails(gateway: Gateway, status: int) -> None:
    gateway.program(f"#!/bin/sh\necho error: cannot find ModemManager >&2\nexit {status}\n")
    ((_source, value, refused),) = gateway.ask("modem_imei")
    assert value is None
    assert "reports an error" in (refused or "")


@pytest.mark.parametrize("number", ["", "x", "-1", "1;id", "$(id)"])
def test_a_modem_without_a_number_is_not_asked(gateway: Gateway, number: str) -> None:
    gateway.program(f"#!/bin/sh\necho \"$*\" >>'{gateway.log}'\necho '{MODEM}/{number}'\n")
    assert gateway.ask("modem_imei") == [("modem_imei", None, "there is none")]
    assert gateway.calls == ["-L"]


def test_many_modems_end(gateway: Gateway) -> None:
    gateway.program(f"#!/bin/sh\necho \"$*\" >>'{gateway.log}'\nfor n in $(seq 500); do echo {MODEM}/$n; done\n")
    assert gateway.ask("modem_imei") == [("modem_imei", None, "there is none")]
    assert len(gateway.calls) == 9


@pytest.mark.parametrize("hangs", ["exec sleep 30", "trap '' TERM HUP PIPE; sleep 30", "sleep 30 & wait"])
@pytest.mark.parametrize("case", ["-L", "-m"])
def test_mmcli_that_hangs_is_stopped(gateway: Gateway, hangs: str, case: str) -> None:
    """One time limit, and no second question to a program that does not respond."""
    gateway.file("etc/machine-id", f"{MACHINE_ID}\n")
    gateway.program(
        f"#!/bin/sh\necho \"$1 $$\" >>'{gateway.log}'\n"
        f"case $1 in {case}) {hangs} ;; *) echo '{MODEM}/0'; echo '{MODEM}/1' ;; esac\n"
    )
    began = time.monotonic()
    found = gateway.ask("modem_imei", "machine_id", seconds=1)
    assert time.monotonic() - began < 10
    assert [source for source, _value, _refused in found] == ["modem_imei", "machine_id"]
    assert "did not respond" in (found[0][2] or "")
    assert found[1][1]
    calls = [call.split() for call in gateway.calls]
    assert [call[0] for call in calls] == (["-L"] if case == "-L" else ["-L", "-m"])
    assert not os.path.exists(f"/proc/{calls[-1][1]}")


@pytest.mark.parametrize(
    "wrapper", ["sleep 30", "sleep 30 | cat", "sh -c 'sleep 30 & sleep 30'", "(sleep 30 &); echo 'modem /0'; exit 3"]
)
def test_wrapper_of_mmcli(gateway: Gateway, wrapper: str) -> None:
    """A program that a wrapper starts keeps the output of mmcli open, whether the wrapper hangs or ends."""
    gateway.program(f"#!/bin/sh\n{wrapper}\n")
    began = time.monotonic()
    found = gateway.ask("modem_imei", seconds=1)
    assert time.monotonic() - began < 15
    assert ("did not respond" in (found[0][2] or "")) == ("exit" not in wrapper)


def test_without_setsid_and_timeout(gateway: Gateway, tmp_path: Path) -> None:
    """OpenWrt may have neither."""
    tools = tmp_path / "few"
    tools.mkdir()
    for name in ("sh", "sleep"):
        found = gateway.host.tools / name
        (tools / name).symlink_to(found.resolve() if found.exists() else Path("/bin", name).resolve())
    (tools / "mmcli").symlink_to(gateway.programs / "mmcli")
    host = replace(gateway.host, environment={"PATH": str(tools)})
    script = hardware_id.SCRIPT.replace("PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin\n", "")
    assert script != hardware_id.SCRIPT
    gateway.program("#!/bin/sh\nexec sleep 30\n")
    request = f"request_command=identify\nrequest_sources=modem_imei\nrequest_seconds=1\nrequest_root=''\n{script}"
    began = time.monotonic()
    status, output, complaint = host.execute("sh -s", request.encode(), False)
    assert (status, output, complaint) == (0, "begin 1\nqueried modem_imei\nnone modem_imei timeout\nend\n", "")
    assert time.monotonic() - began < 10


def test_no_program_is_started_without_a_modem_to_ask(gateway: Gateway, tmp_path: Path) -> None:
    """So that the script works where hardly any program is."""
    empty = tmp_path / "empty"
    empty.mkdir()
    script = hardware_id.SCRIPT.replace("PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin\n", f"PATH={empty}\n")
    gateway.file("etc/machine-id", f"{MACHINE_ID}\n")
    gateway.interface("eth0", "b8:27:eb:01:02:03")
    request = (
        "request_command=identify\n"
        f"request_sources='mac machine_id modem_imei dmi_serial'\nrequest_seconds=1\nrequest_root={gateway.root}\n"
    )
    status, output, complaint = gateway.host.execute("sh -s", (request + script).encode(), False)
    assert (status, complaint) == (0, "")
    assert output.splitlines() == [
        "begin 1",
        "queried mac",
        "mac ethernet b8:27:eb:01:02:03",
        "queried machine_id",
        f"machine_id {MACHINE_ID}",
        "queried modem_imei",
        "none modem_imei no_program",
        "queried dmi_serial",
        "end",
    ]

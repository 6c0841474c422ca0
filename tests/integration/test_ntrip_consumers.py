# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The consumers of the examples for NTRIP: real programs with what is deployed, and the health command of each.

Their commands come out of the units, their options out of the inventories. What is different on this machine is
replaced: directory and receiver. ROS 2 and pointperfect-client-mavlink are in no package registry: their files are read
by a parser, and stand-ins print what the programs print.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from integration.ansible_run import PROJECT, run_playbook, write_inventory
from integration.broker import PROGRAMS
from integration.caster import MOUNT_POINT, running_caster
from integration.patience import PATIENCE, eventually
from integration.programs import DOCUMENTED, Network, free_port, literal, own_network, program, replaced, running
from simulator.client import RunningSimulator

if sys.version_info >= (3, 11):
    import tomllib

EXAMPLE = PROJECT / "examples" / "ntrip"
GPSD = PROJECT / "examples" / "debian-gpsd"
# & " ' \ $ % # { and more; no program may take one of them for its own
HOSTILE = "a&b\"c'd\\e$f%41#g{{h}}{%`i ;|j@k:l/ü"
PREFIX = "thingstream_gateway_"


@dataclass
class Consumer:
    """A gateway of the example on this machine, with credentials."""

    name: str
    work: Path
    port: int
    user: str
    password: str

    @property
    def options(self) -> dict[str, Any]:
        """The variables of the example's host."""
        if self.name == "gpsd":
            (group,) = yaml.safe_load((GPSD / "inventory.yml").read_text()).values()
            return dict(group["vars"])
        found: dict[str, Any] = yaml.safe_load((EXAMPLE / "host_vars" / f"{self.name}.yml").read_text())
        return found

    @property
    def current(self) -> Path:
        return self.work / "gateway" / "current"

    def command(self, unit: str, changes: Mapping[str, str]) -> list[str]:
        """Return a unit's command in a shell in place of systemd, with variables, credentials, and ``$`` for ``$$``."""
        text = (GPSD / "files/thingstream.conf" if unit == "gpsd" else EXAMPLE / f"files/{unit}.service").read_text()
        (command,) = re.findall("^ExecStart=(.+)$", text, re.M)
        script = ["set -a"]
        for file in re.findall("^EnvironmentFile=(.*)$", text, re.M):
            script.append(f". {file}")
        for name, file in re.findall("^LoadCredential=(.*):(.*)$", text, re.M):
            script.append(f"CREDENTIALS_DIRECTORY={self.work}/{unit}; mkdir -p {self.work}/{unit}")
            script.append(f"cp {file} {self.work}/{unit}/{name}")
        script.append("exec " + replaced(command, changes).replace("$$", "$"))
        return ["sh", "-euc", "\n".join(script).replace(str(DOCUMENTED), str(self.current))]

    def healthy(self, network: Network, changes: Mapping[str, str]) -> bool:
        """Return whether the documented health command succeeds."""
        command = replaced(self.options[f"{PREFIX}health_command"], changes)
        path = f"{sys.prefix}/bin:{PROGRAMS}"
        shell = network.within("sh", "-c", command)
        return subprocess.run(shell, env={"PATH": path}, timeout=PATIENCE, check=False).returncode == 0


def provisioned(
    name: str, simulator: RunningSimulator, platform: dict[str, Any], work: Path, password: str = HOSTILE
) -> Consumer:
    port = free_port()
    switches = {"host": "127.0.0.1", "port": port, "mount_point": MOUNT_POINT}
    token = simulator.put_profile(name, service="pointperfect", format="RTCM", simulator=switches)
    consumer = Consumer(name, work, port, "", password)
    options = consumer.options
    templates = [
        {**template, "src": str(EXAMPLE / "templates" / template["src"])}
        for template in options.get(f"{PREFIX}templates", [])
    ]
    host = {
        "service": "pointperfect",
        "delivery": "ntrip",
        "token": token,
        "hardware_id": f"{work.name}-{name}",
        "path": consumer.current.parent,
        "formats": options[f"{PREFIX}formats"],
        "templates": templates,
        "field_map": {"ntrip_password": literal(password)},
    }
    inventory = {name: {f"{PREFIX}{option}": value for option, value in host.items()}}
    run = run_playbook(work, write_inventory(work / "inventory.yml", inventory, platform))
    assert run.values("action") == {name: "created"}, run.output
    response = (consumer.current / "credentials.json").read_text()
    consumer.user = yaml.safe_load(response)["rtcmCredentials"]["userName"]
    return consumer


@contextmanager
def started(consumer: Consumer, network: Network, units: Mapping[str, Mapping[str, str]]) -> Iterator[None]:
    """Run the programs of a consumer's units until the block ends, each with its changes for this machine."""
    with ExitStack() as stack:
        for unit, different in units.items():
            command = network.within(*consumer.command(unit, different))
            stack.enter_context(running(command, consumer.work / f"{unit}.log"))
        yield


def health_follows_the_caster(
    consumer: Consumer,
    units: Mapping[str, Mapping[str, str]],
    changes: Mapping[str, str] = MappingProxyType({}),
    *,
    wants_position: bool = True,
) -> None:
    """Check that the health command fails at a refused login, succeeds while the caster streams, fails once it stops.

    Some programs listen on every address, so all have a network of their own.
    """
    log = consumer.work / "caster.log"
    with own_network(consumer.work / "network.log") as network:
        with running_caster(network, consumer.port, None, log), started(consumer, network, units):
            assert not consumer.healthy(network, changes), "refused"
        login = f"{consumer.user}:{consumer.password}"
        with ExitStack() as caster:
            caster.enter_context(running_caster(network, consumer.port, login, log, wants_position=wants_position))
            with started(consumer, network, units):
                assert eventually(lambda: consumer.healthy(network, changes)), [
                    (consumer.work / f"{unit}.log").read_text()[-2000:] for unit in units
                ]
                caster.close()
                assert eventually(lambda: not consumer.healthy(network, changes)), "stopped"


@pytest.mark.full
def test_str2str(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> None:
    program("str2str")
    consumer = provisioned("str2str-1", simulator, platform, tmp_path)
    health_follows_the_caster(consumer, {"str2str": {"serial://ttyACM0:38400": "file://receiver"}})
    assert (tmp_path / "receiver").stat().st_size > 0


@pytest.mark.full
def test_rtkrcv(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> None:
    """With its configuration, but without a receiver."""
    program("rtkrcv")
    consumer = provisioned("rtkrcv-1", simulator, platform, tmp_path)
    changes = {"inpstr1-type=serial": "inpstr1-type=off"}
    (tmp_path / "rtkrcv.conf").write_text(replaced((EXAMPLE / "files" / "rtkrcv.conf").read_text(), changes))
    units = {
        "str2str": {"serial://ttyACM0:38400": "file://receiver"},
        "rtkrcv": {"/etc/rtkrcv.conf": str(tmp_path / "rtkrcv.conf")},
    }
    health_follows_the_caster(consumer, units)


def test_gnssntripclient(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> None:
    client = program("gnssntripclient")
    consumer = provisioned("pygnssutils-1", simulator, platform, tmp_path)
    health_follows_the_caster(consumer, {"gnssntripclient": {"/opt/pygnssutils/bin/gnssntripclient": client}})


@pytest.mark.full
def test_gpsd(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> None:
    """Without a receiver, so that no position is sent. gpsd has room for 44 bytes of user and password."""
    program("gpsd"), program("gpspipe")
    consumer = provisioned("gpsd", simulator, platform, tmp_path, "a&b\"c'd\\e$f%41#g{{h}}@:/")
    unit = {"$$GPSD_OPTIONS $$OPTIONS $$DEVICES": "-n -N"}
    health_follows_the_caster(consumer, {"gpsd": unit}, wants_position=False)


@pytest.mark.parametrize(
    "password",
    [
        HOSTILE,
        *(
            pytest.param(text, marks=pytest.mark.full)
            for text in ("1e3", "'", '"', "\\", "{{ 7 * 7 }}", "\U0001f600", " a ", "# b")
        ),
    ],
)
def test_files_for_programs_that_cannot_run_here(
    simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path, password: str
) -> None:
    for name in ("ros-1", "mavlink-1"):
        (tmp_path / name).mkdir()
    ros = provisioned("ros-1", simulator, platform, tmp_path / "ros-1", password)
    parameters = yaml.safe_load((ros.current / "ntrip_client.yaml").read_text())
    assert parameters == {
        "/**": {
            "ros__parameters": {
                "host": "127.0.0.1",
                "port": ros.port,
                "mountpoint": MOUNT_POINT,
                "authenticate": True,
                "username": ros.user,
                "password": password,
                "ntrip_version": "Ntrip/2.0",
                "rtcm_message_package": "rtcm_msgs",
            }
        }
    }
    mavlink = provisioned("mavlink-1", simulator, platform, tmp_path / "mavlink-1", password)
    text = (mavlink.current / "pointperfect.toml").read_text()
    if sys.version_info >= (3, 11):
        assert tomllib.loads(text) == {
            "connection_url": "udp://:14552",
            "ntrip_host": "127.0.0.1",
            "ntrip_port": mavlink.port,
            "ntrip_mountpoint": MOUNT_POINT,
            "ntrip_username": mavlink.user,
            "ntrip_password": password,
            "use_tls": False,
            "send_gga": True,
            "correction_format": "rtcm",
            "use_mga": False,
        }
    for one in (ros, mavlink):
        assert {path.stat().st_mode & 0o777 for path in one.current.glob("*.[yt]*ml")} == {0o600}


@pytest.mark.parametrize(
    ("name", "changes", "stand_in", "fails", "succeeds"),
    [
        ("ros-1", {". /opt/ros/jazzy/setup.sh": ":"}, "ros2", "exit 1", "echo 'data: [211, 0]'"),
        (
            "mavlink-1",
            {},
            "journalctl",
            "echo 'Corrections: 5106 bytes received, 39 sent'; echo 'Corrections: 0 bytes received, 0 sent'",
            "echo 'Corrections: 0 bytes received, 0 sent'; echo 'Corrections: 5106 bytes received, 39 sent'",
        ),
    ],
)
def test_health_commands_of_programs_that_cannot_run_here(
    tmp_path: Path, name: str, changes: dict[str, str], stand_in: str, fails: str, succeeds: str
) -> None:
    """The shell code with a stand-in for the program; that the program prints this was read in its source."""
    command = replaced(Consumer(name, tmp_path, 0, "", "").options[f"{PREFIX}health_command"], changes)
    for text, expected in ((fails, False), (succeeds, True)):
        (tmp_path / stand_in).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / stand_in).chmod(0o755)
        path = f"{tmp_path}:{PROGRAMS}"
        run = subprocess.run(["sh", "-c", command], env={"PATH": path}, timeout=PATIENCE, check=False)
        assert (run.returncode == 0) == expected, text


def test_units_are_sound(tmp_path: Path) -> None:
    """Let systemd itself check the units, without the programs that are not installed here."""
    verify = program("systemd-analyze")
    for unit in (EXAMPLE / "files").glob("*.service"):
        text = re.sub("^ExecStart=/opt/[^ ]*", "ExecStart=/bin/true", unit.read_text(), flags=re.M)
        (tmp_path / unit.name).write_text(text)
    for unit in tmp_path.glob("*.service"):
        done = subprocess.run([verify, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), unit.name

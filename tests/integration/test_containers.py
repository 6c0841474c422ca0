# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of podman read what is deployed: by a mount, and by ``--env-file``.

The image is made of programs of this machine. ``docker compose`` of the example is podman-compose here, in a network
with loopback alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import FORMATS, Layout
from ansible_collections.thingstream.ztp.tests.unit.support import parse, rtcm
from integration.ansible_run import PROJECT, run_playbook, write_inventory
from integration.broker import PROGRAMS
from integration.bundle import collections
from integration.caster import MOUNT_POINT, running_caster
from integration.patience import PATIENCE, eventually
from integration.programs import DOCUMENTED, Network, free_port, own_network, program, replaced
from simulator.client import RunningSimulator

EXAMPLE = PROJECT / "examples" / "container"
PREFIX = "thingstream_gateway_"
HOSTILE = "a&b\"c'd\\e$f%41#g{{h}}{%`i ;|j@k:l/ü"
IMAGE = "localhost/rtklib"
SETTINGS = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@dataclass
class Podman:
    """Podman with storage of its own, in a network of its own."""

    work: Path
    network: Network

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        path = f"{self.work}/bin:{sys.prefix}/bin:{PROGRAMS}"
        return subprocess.run(
            self.network.within(*command),
            env={"PATH": path, "CONTAINERS_CONF": f"{self.work}/containers.conf", "HOME": str(self.work)},
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=check,
        )


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    work = tmp_path / "podman"
    (work / "bin").mkdir(parents=True)
    place = Path(tempfile.mkdtemp(prefix="podman-"))  # podman takes no run root with more than 50 characters
    own = f"--root {place}/storage --runroot {place}/run --storage-driver vfs"
    (work / "bin/podman").write_text(f'#!/bin/sh\nexec {program("podman")} {own} "$@"\n')
    (work / "bin/podman").chmod(0o755)
    (work / "containers.conf").write_text(SETTINGS)
    root = work / "image"
    (root / "bin").mkdir(parents=True)
    shutil.copy(program("busybox"), root / "bin/busybox")
    for name in ("sh", "cat", "env", "head", "sleep", "timeout"):
        (root / "bin" / name).symlink_to("busybox")
    client = program("str2str")
    needed = re.findall(r"/\S+", subprocess.run(["ldd", client], capture_output=True, text=True, check=True).stdout)
    for file in (client, *needed):
        (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / file[1:])
    with own_network(work / "network.log") as network:
        one = Podman(work, network)
        one.run("sh", "-euc", f"tar -C {root} -c . | podman import - {IMAGE}")
        try:
            yield one
        finally:
            one.run("podman", "rm", "--all", "--force", "--time", "0", check=False)
            shutil.rmtree(place, ignore_errors=True)


@dataclass
class Box:
    """A gateway of the example on this machine."""

    work: Path
    port: int
    host: dict[str, Any]
    platform: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.work / "box"

    def provision(self, **options: Any) -> None:
        host = {f"{PREFIX}{option}": value for option, value in {**self.host, **options}.items()}
        inventory = write_inventory(self.work / "inventory.yml", {"box-1": host}, self.platform)
        run = run_playbook(self.work, inventory)
        assert run.status == 0, run.output

    def login(self) -> str:
        found = yaml.safe_load((self.path / "current/credentials.json").read_text())["rtcmCredentials"]
        return f"{found['userName']}:{found['password']}"


@pytest.fixture
def box(simulator: RunningSimulator, platform: dict[str, Any], tmp_path: Path) -> Box:
    port = free_port()
    switches = {"host": "127.0.0.1", "port": port, "mount_point": MOUNT_POINT, "new_thing_on_repeat": True}
    token = simulator.put_profile("box", service="pointperfect", format="RTCM", simulator=switches)
    host = {
        "service": "pointperfect",
        "delivery": "ntrip",
        "token": token,
        "hardware_id": "box-1",
        "path": tmp_path / "box",
        "formats": ["env", "env-plain", "str2str"],
    }
    return Box(tmp_path, port, host, platform)


@pytest.mark.full
def test_the_example_follows_a_renewal(box: Box, podman: Podman) -> None:
    """By its own reload and health commands; after the renewal the caster knows the new login alone."""
    (group,) = yaml.safe_load((EXAMPLE / "inventory.yml").read_text()).values()
    place = podman.work / "corrections"
    place.mkdir()
    compose = replaced((EXAMPLE / "files/compose.yml").read_text(), {str(DOCUMENTED.parent): str(box.path)})
    (place / "compose.yml").write_text(compose)
    here = {"docker compose -f /opt/corrections/compose.yml": f"podman-compose -f {place}/compose.yml"}
    reload = replaced(group["vars"][f"{PREFIX}reload_command"], here)
    health = replaced(group["vars"][f"{PREFIX}health_command"], here)

    def healthy() -> bool:
        return podman.run("sh", "-c", health, check=False).returncode == 0

    for renewed in (False, True):
        box.provision(force=renewed)
        with running_caster(podman.network, box.port, box.login(), podman.work / "caster.log"):
            if renewed:
                assert not healthy(), "still with the old login"
            podman.run("sh", "-euc", reload)
            assert eventually(healthy), podman.run("podman", "logs", "--latest", check=False)
        assert eventually(lambda: not healthy()), "the caster stopped"


def test_what_a_mount_shows_after_a_renewal(box: Box, podman: Podman) -> None:
    """The directory above ``current`` shows the new files to a container that runs; ``current`` itself the old ones."""
    box.provision()
    old = (box.path / "current/credentials.env").read_text()
    mounts = [f"--volume={box.path}:/above:ro", f"--volume={box.path}/current:/pinned:ro"]
    podman.run("podman", "run", "--detach", "--name=reader", *mounts, "--network=host", IMAGE, "/bin/sleep", "1000")
    box.provision(force=True)
    new = (box.path / "current/credentials.env").read_text()
    assert new != old

    def seen(path: str) -> str:
        return podman.run("podman", "exec", "reader", "/bin/cat", f"{path}/credentials.env").stdout

    assert (seen("/above/current"), seen("/pinned")) == (new, old)


def test_an_environment_file_of_podman(podman: Podman) -> None:
    """Every value arrives as it is, which those of ``credentials.env`` do not."""
    layout = Layout("/x", 0o600, "")
    for password in (HOSTILE, "'quoted'", '"quoted"', "#", "=", "\\", "{{ 7 * 7 }}", "$HOME"):
        for name, arrives in (("env-plain", True), ("env", False)):
            (file,) = FORMATS[name].render(parse(rtcm(password=password)), layout).values()
            (podman.work / "file.env").write_bytes(file.content)
            run = ["podman", "run", "--rm", "--network=host", "--env-file=file.env", IMAGE, "/bin/env"]
            values = dict(line.partition("=")[::2] for line in podman.run(*run).stdout.splitlines())
            assert (values["THINGSTREAM_NTRIP_PASSWORD"] == password) == arrives, password


@pytest.mark.full
def test_a_container_is_a_gateway(box: Box, podman: Podman, simulator: RunningSimulator) -> None:
    """Over the connection plugin of containers.podman, which runs ``podman exec``; the container has no Python."""
    install = "/bin/busybox --install -s /bin && mkdir -p /etc && exec sleep 1000"
    start = [
        "podman",
        "run",
        "--detach",
        "--name=gateway",
        "--network=host",
        IMAGE,
        "/bin/busybox",
        "sh",
        "-c",
        install,
    ]
    podman.run(*start)
    programs = ["podman", "exec", "gateway", "/bin/sh", "-c", "sha256sum /bin/busybox && test -d /etc"]
    assert eventually(lambda: podman.run(*programs, check=False).returncode == 0)
    host = {
        **{f"{PREFIX}{option}": value for option, value in box.host.items()},
        f"{PREFIX}path": "/etc/thingstream/box",
        "ansible_host": "gateway",
    }
    common = {
        **box.platform,
        "ansible_connection": "containers.podman.podman",
        "ansible_podman_executable": podman.work / "bin/podman",
    }
    inventory = write_inventory(box.work / "inventory.yml", {"box-1": host}, common)
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": f"{PROJECT / '.cache'}:{collections()}",
        "CONTAINERS_CONF": f"{podman.work}/containers.conf",
        "PATH": f"{podman.work}/bin:{sys.prefix}/bin:{PROGRAMS}",
    }
    expected = [([], "created"), ([], "none"), (["-e", f"{PREFIX}force=true"], "renewed")]
    for arguments, action in expected:
        run = run_playbook(box.work, inventory, *arguments, environment=environment)
        assert run.values("action") == {"box-1": action}, run.output
    listing = podman.run("podman", "exec", "gateway", "/bin/ls", "/etc/thingstream/box/generations").stdout
    assert listing.split() == ["000001", "000002"]

    podman.run("podman", "rm", "--force", "--time", "0", "gateway")
    before = len(simulator.requests())
    gone = run_playbook(box.work, inventory, *expected[-1][0], environment=environment)
    assert (gone.hosts["box-1"]["status"], gone.values("error_code")) == ("unreachable", {"box-1": "unreachable"})
    assert len(simulator.requests()) == before

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that the formats are for read what is deployed, and connect with nothing else.

Their lines come out of docs/consumers.md; what is different on this machine is replaced: directory, host, port.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.formats import Layout, _env
from ansible_collections.thingstream.ztp.tests.unit.support import parse, rtcm
from integration.ansible_run import Run, run_playbook, write_inventory
from integration.broker import PROGRAMS, Broker, running_broker, simulate
from integration.patience import PATIENCE, eventually
from integration.programs import (
    DOCUMENTED,
    RTCM,
    Network,
    blocks,
    free_port,
    literal,
    own_network,
    program,
    replaced,
    running,
    supervised,
)
from simulator.client import RunningSimulator

HOSTILE = "a/b@c:d'e\"f g%41#&$\\`[h]?"


@dataclass
class Site:
    """Gateways on this machine, and the options that all have."""

    platform: dict[str, Any]
    work: Path
    options: dict[str, Any] = field(default_factory=dict)

    def provision(self, *names: str, **options: Any) -> Run:
        hosts = {
            name: {
                f"thingstream_gateway_{option}": value
                for option, value in {
                    "hardware_id": f"{self.work.name}-{name}",
                    "path": self.work / name,
                    **self.options,
                    **options,
                }.items()
            }
            for name in names
        }
        return run_playbook(self.work, write_inventory(self.work / "inventory.yml", hosts, self.platform))

    def current(self, name: str = "one") -> Path:
        return self.work / name / "current"

    def response(self, name: str = "one") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.current(name) / "credentials.json").read_text())
        return found


@pytest.fixture
def site(platform: dict[str, Any], tmp_path: Path) -> Site:
    return Site(platform, tmp_path)


def shell(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-euc", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **{"env": {"PATH": f"{sys.prefix}/bin:{PROGRAMS}", "LANG": "C.UTF-8"}, **options},
    )


def subscribe(files: Path, client_id: str, seconds: int = 120) -> subprocess.CompletedProcess[str]:
    """Run the documented line of mosquitto_sub, for one message."""
    (line,) = blocks("mosquitto_sub", "sh")
    changes = {str(DOCUMENTED): str(files), '"$THINGSTREAM_HOST"': "localhost", '"$THINGSTREAM_CLIENT_ID"': client_id}
    return shell(f"{replaced(line, changes).rstrip()} -C 1 -W {seconds}")


@contextmanager
def bridging(site: Site, port: int, name: str = "one") -> Iterator[str]:
    """Run a gateway's own mosquitto with the deployed files until the block ends; yield the command for a restart."""
    (include,) = blocks("mosquitto", "conf")
    settings = site.work / "gateway.conf"
    own = f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_type all\n"
    settings.write_text(own + replaced(include, {str(DOCUMENTED): str(site.current(name))}))
    with supervised(f"{program('mosquitto')} -c {settings}", site.work / "gateway.log") as restart:
        yield restart


def bridge_commands(port: int, service: str = "pointperfect") -> dict[str, Any]:
    """Return the options of the documented health check, for a broker on another port."""
    text = blocks("mosquitto", "yaml")[0]
    (health,) = re.findall("^thingstream_gateway_health_command: (.*)$", text, re.M)
    changes = {
        "mosquitto_sub": f"mosquitto_sub -h 127.0.0.1 -p {port}",
        "thingstream-pointperfect": f"thingstream-{service}",
    }
    return {"health_command": replaced(health, changes), "health_timeout": 120}


def again(restart: str, port: int, service: str = "pointperfect") -> None:
    """Restart a gateway's mosquitto, and wait until its bridge is connected."""
    shell(restart)
    health = bridge_commands(port, service)["health_command"]
    assert eventually(lambda: shell(health).returncode == 0)


def passes(broker_pub: list[str], broker_sub: list[str], topic: str, text: str) -> bool:
    """Return whether a message published at one broker arrives at another."""
    receive = [program("mosquitto_sub"), *broker_sub, "-t", topic, "-C", "1", "-W", "120"]
    with subprocess.Popen(receive, stdout=subprocess.PIPE, text=True) as receiver:
        # published again and again, because no program reports when its subscription is in place
        arrived = eventually(
            lambda: (
                receiver.poll() is not None
                or subprocess.run(
                    [program("mosquitto_pub"), *broker_pub, "-t", topic, "-m", text],
                    check=True,
                    timeout=PATIENCE,
                )
                is None
            )
        )
        output, _errors = receiver.communicate(timeout=PATIENCE)
    return arrived and output == f"{text}\n"


def tls(files: Path, port: int, client_id: str) -> list[str]:
    pair = ["--cafile", f"{files}/ca.crt", "--cert", f"{files}/client.crt", "--key", f"{files}/client.key"]
    return ["-h", "localhost", "-p", str(port), "-i", client_id, *pair]


# ---- MQTT with a certificate ----


@dataclass
class Fleet:
    """Two Things, and what their broker knows of them; the second one publishes."""

    site: Site
    simulator: RunningSimulator
    work: Path
    port: int
    one: str
    two: str

    @contextmanager
    def broker(self, acl: str) -> Iterator[Broker]:
        """Run the broker until the block ends, with this ACL and the current revocation list, as after a restart."""
        (self.work / "acl").write_text(f"{acl}user {self.two}\ntopic write /pp/#\ntopic read /pp/ip/us\n")
        simulate("crl", self.simulator.directory, self.work / "crl.pem")
        mutual = f"require_certificate true\nuse_identity_as_username true\ncrlfile {self.work}/crl.pem"
        options = f"{mutual}\nacl_file {self.work}/acl"
        with running_broker(self.simulator, self.work, options, ("127.0.0.1", self.port)) as broker:
            retained = ["-t", "/pp/ip/eu", "-m", "correction", "-r", "-q", "1"]
            subprocess.run([program("mosquitto_pub"), *self.publisher, *retained], check=True, timeout=PATIENCE)
            yield broker

    @property
    def publisher(self) -> list[str]:
        return tls(self.site.current("two"), self.port, self.two)


def readers(*client_ids: str) -> str:
    return "".join(f"user {client_id}\ntopic read /pp/#\n" for client_id in client_ids)


@pytest.fixture
def things(simulator: RunningSimulator, site: Site, tmp_path: Path) -> Fleet:
    port = free_port()
    switches = {"host": "localhost", "new_thing_on_repeat": True}
    token = simulator.put_profile("programs", service="pointperfect", simulator=switches, plan="mqtt")
    site.options = {
        "service": "pointperfect",
        "token": token,
        "field_map": {"port": f"`{port}`"},
        "formats": ["env", "pem", "mosquitto", "topics"],
    }
    run = site.provision("one", "two")
    assert run.values("action") == {"one": "created", "two": "created"}, run.output
    work = tmp_path / "broker"
    work.mkdir()
    return Fleet(site, simulator, work, port, *(run.hosts[name]["thing"]["client_id"] for name in ("one", "two")))


def test_mosquitto_with_certificates(things: Fleet, tmp_path: Path) -> None:
    """mosquitto_sub, and mosquitto as a bridge, which follows a rotation; then the old pair is refused."""
    site, port = things.site, free_port()
    gateway = ["-h", "127.0.0.1", "-p", str(port)]
    old = tmp_path / "old"
    with bridging(site, port) as restart:
        with things.broker(readers(things.one)) as broker:
            received = subscribe(site.current("one"), things.one)
            assert (received.returncode, received.stdout) == (0, "correction\n"), received.stderr
            assert subscribe(site.current("two"), things.two, 3).stdout == "", "this Thing may not read there"
            again(restart, port)
            assert passes(things.publisher, gateway, "/pp/ip/us", "through the bridge")
            assert f"as {things.one} " in broker.log_file.read_text()
        shutil.copytree(site.current("one").resolve(), old)

        # a new Thing is not on the list at first: for a while every Thing may read
        with things.broker("pattern read /pp/#\n") as broker:
            rotated = site.provision("one", force=True, reload_command=restart, **bridge_commands(port))
            assert rotated.values("action") == {"one": "renewed"}, rotated.output
            new = rotated.hosts["one"]["thing"]["client_id"]
            assert new != things.one
            assert f"as {new} " in broker.log_file.read_text(), "the bridge had followed when the run ended"
            assert passes(things.publisher, gateway, "/pp/ip/us", "after the rotation")

        (thing,) = [thing for thing in things.simulator.things() if thing["client_id"] == things.one]
        things.simulator.deactivate(thing["id"])
        with things.broker(readers(things.one, new)) as broker:
            refused = subscribe(old, things.one)
            assert refused.returncode != 0
            assert refused.stdout == ""
            assert broker.log("certificate verify failed"), broker.log_file.read_text()
            accepted = subscribe(site.current("one"), new)
            assert (accepted.returncode, accepted.stdout) == (0, "correction\n"), accepted.stderr


# ---- MQTT with a password ----


@pytest.mark.full
def test_mosquitto_with_passwords(simulator: RunningSimulator, site: Site, tmp_path: Path) -> None:
    """CloudLocate over TLS: requests go out and responses come in; a removed user is refused."""
    work = tmp_path / "broker"
    work.mkdir()
    port, gateway_port = free_port(), free_port()
    token = simulator.put_profile("login", service="cloudlocate", simulator={"host": "localhost", "port": port})
    site.options = {"service": "cloudlocate", "token": token, "formats": ["env", "mosquitto"]}
    # a password that the line of a configuration must carry as it is
    assert site.provision("one", field_map={"password": literal(HOSTILE)}).values("action") == {"one": "created"}
    users = work / "users"

    def know(user: str, secret: str) -> None:
        users.unlink(missing_ok=True)
        subprocess.run(
            [program("mosquitto_passwd"), "-c", "-b", str(users), user, secret], check=True, timeout=PATIENCE
        )
        subprocess.run(
            [program("mosquitto_passwd"), "-b", str(users), "backend", "backend"], check=True, timeout=PATIENCE
        )

    def at_broker() -> Any:
        return running_broker(simulator, work, f"allow_anonymous false\npassword_file {users}", ("127.0.0.1", port))

    def login(user: str, secret: str, client_id: str) -> list[str]:
        secure = ["--cafile", str(site.current() / "ca.crt"), "-h", "localhost", "-p", str(port)]
        return [*secure, "-i", client_id, "-u", user, "-P", secret]

    first = site.response()
    know(first["username"], HOSTILE)
    gateway = ["-h", "127.0.0.1", "-p", str(gateway_port)]
    backend = login("backend", "backend", "backend")
    with bridging(site, gateway_port) as restart:
        with at_broker():
            again(restart, gateway_port, "cloudlocate")
            response = f"CloudLocate/{first['clientId']}/GNSS/response"
            assert passes(gateway, backend, "CloudLocate/GNSS/request", "where am I"), "out"
            assert passes(backend, gateway, response, "here"), "in"
        users.unlink()
        shutdown = site.provision("one", force=True)  # another Thing, with the password that the platform gave it
        assert shutdown.values("action") == {"one": "renewed"}, shutdown.output
        second = site.response()
        know(second["username"], second["password"])
        with at_broker() as broker:
            again(restart, gateway_port, "cloudlocate")
            response = f"CloudLocate/{second['clientId']}/GNSS/response"
            assert passes(backend, gateway, response, "here again")
            old = login(first["username"], HOSTILE, first["clientId"])
            refused = subprocess.run(
                [program("mosquitto_pub"), *old, "-t", "x", "-m", "x"],
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            assert refused.returncode != 0
            assert "not authorised" in refused.stderr.decode() or broker.log(f"{first['clientId']} (null) (0, 5)")


# ---- pygnssutils and PyGPSClient over MQTT ----


def ubx(class_id: int, message_id: int, payload: bytes) -> bytes:
    body = bytes([class_id, message_id]) + len(payload).to_bytes(2, "little") + payload
    first = second = 0
    for byte in body:
        first = (first + byte) & 0xFF
        second = (second + first) & 0xFF
    return b"\xb5\x62" + body + bytes([first, second])


def test_pygnssutils_and_pygpsclient_over_mqtt(simulator: RunningSimulator, site: Site, tmp_path: Path) -> None:
    program("gnssmqttclient")
    work = tmp_path / "broker"
    work.mkdir()
    port = free_port()
    token = simulator.put_profile("portal", service="pointperfect", simulator={"host": "localhost"}, plan="mqtt")
    site.options = {"service": "pointperfect", "token": token, "field_map": {"port": f"`{port}`"}}
    run = site.provision("one", formats=["pygnssutils", "ucenter"])
    assert run.values("action") == {"one": "created"}, run.output
    client_id = run.hosts["one"]["thing"]["client_id"]
    mutual = "require_certificate true\nuse_identity_as_username true"
    with running_broker(simulator, work, mutual, ("127.0.0.1", port)) as broker:
        output, message = tmp_path / "corrections.bin", ubx(0x02, 0x36, bytes([1, 0, 0, 0]))
        changes = {
            str(DOCUMENTED): str(site.current()),
            "pp.services.u-blox.com": "localhost",
            "8883": str(port),
            "corrections.bin": str(output),
        }
        line = replaced(blocks("pygnssutils", "sh")[0], changes)
        # it has no option for the CA: here it is made a CA of the system
        trusted = {"SSL_CERT_FILE": str(simulator.ca_path)}
        with running(
            ["sh", "-euc", line.replace("gnssmqttclient", "exec gnssmqttclient")], tmp_path / "log", trusted
        ) as client:
            assert broker.log(f"as {client_id} "), (tmp_path / "log").read_text()
            assert broker.log("/pp/ubx/0236/ip (QoS 0)")
            files = replaced_by_loader(site.current() / "ucenter-config.json", tmp_path / "loaded")
            publish = [program("mosquitto_pub"), *tls(files, port, "another"), "-t", "/pp/ubx/0236/ip", "-s"]
            subprocess.run(publish, input=message, check=True, timeout=PATIENCE)
            assert broker.log(f"Sending PUBLISH to {client_id}")
            client.send_signal(signal.SIGINT)  # only then it writes
            client.wait(timeout=PATIENCE)
        assert output.read_bytes() == message, (tmp_path / "log").read_text()


def replaced_by_loader(path: Path, directory: Path) -> Path:
    """Read u-center's file with PyGPSClient's own loader, and make PEM files of the result."""
    source = distribution("pygpsclient").locate_file("pygpsclient/spartn_json_config.py")
    found = importlib.util.spec_from_file_location("spartn_json_config", str(source))  # no display, no tkinter
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    loaded = module.SpartnJsonConfig(str(path))
    response = json.loads((path.parent / "credentials.json").read_text())
    assert loaded.clientid == response["clientId"]
    assert loaded.server.startswith("ssl://localhost:")
    for name, key in (("current", loaded.current_key), ("next", loaded.next_key)):
        expected = response["dynamickeys"][name]
        start = datetime.fromtimestamp(expected["start"] / 1000, timezone.utc)
        assert (key[0], key[1].astimezone(timezone.utc)) == (expected["value"], start)
        assert round((key[2] - key[1]).total_seconds() * 1000) == expected["duration"]
    topics = [topic for kind in ("Key", "AssistNow", "Data") for topic in loaded.topics[kind]]
    assert sorted(topics) == sorted(subscription["path"] for subscription in response["subscriptions"])
    assert loaded.topics["Key"] == ("/pp/ubx/0236/ip",)
    directory.mkdir()
    for name, frame, body in (
        ("ca.crt", "CERTIFICATE", loaded.rootca),
        ("client.crt", "CERTIFICATE", loaded.cert),
        ("client.key", "RSA PRIVATE KEY", loaded.key),
    ):
        (directory / name).write_text(f"-----BEGIN {frame}-----\n{body}\n-----END {frame}-----\n")
    return directory


# ---- NTRIP ----

MOUNT = "pygnssutils"  # the only one that gnssserver has
STR = f"{MOUNT};RTCM 3.3;1005(1);2;GPS;NET;DEU;52.50;13.40;0;0;generator;none;B;N;9600;"


# a client of gpsd: what it decodes, as JSON
WATCH = """
import socket, time
for attempt in range(100):
    try:
        connection = socket.create_connection(("127.0.0.1", 2947), 10)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
connection.sendall(b'?WATCH={"enable":true,"json":true};')
while received := connection.recv(4096):
    print(received.decode(), flush=True)
"""


@pytest.fixture
def rover(simulator: RunningSimulator, site: Site) -> tuple[Site, int, str, str]:
    """A gateway with an NTRIP login that is hard to quote, and its port, user and password."""
    port = free_port()
    switches = {"host": "127.0.0.1", "port": port, "mount_point": MOUNT}
    token = simulator.put_profile("rover", service="pointperfect", format="RTCM", simulator=switches)
    run = site.provision(
        "one",
        service="pointperfect",
        token=token,
        formats=["env", "pygnssutils", "gpsd", "str2str"],
        field_map={"ntrip_password": literal(HOSTILE)},
    )
    assert run.values("action") == {"one": "created"}, run.output
    return site, port, site.response()["rtcmCredentials"]["userName"], HOSTILE


@contextmanager
def caster_of_rtklib(network: Network, login: str, port: int, log: Path) -> Iterator[None]:
    """Run a caster for NTRIP 1 until the block ends; it listens on every address, so it has a network of its own."""
    out = f"ntripc://{login}@:{port}/{MOUNT}:{STR}"
    with running(network.within(program("str2str"), "-out", out), log, feed=RTCM) as process:

        def listens() -> bool:
            table = Path(f"/proc/{process.pid}/net/tcp").read_text()
            return f":{port:04X} 00000000:0000 0A" in table

        assert eventually(listens), log.read_text()
        yield


def received(output: Path, seconds: float = PATIENCE) -> bool:
    """Return whether a correction comes into a file in time."""
    return eventually(lambda: output.exists() and RTCM in output.read_bytes(), seconds)


def unit_command(section: str) -> str:
    """Return the command of a documented unit as a shell would write it: systemd takes one of two dollars away."""
    (command,) = re.findall("^ExecStart=(.*)$", blocks(section, "ini")[0], re.M)
    return str(command).replace("$$", "$")


def test_str2str_and_gpsd(rover: tuple[Site, int, str, str], tmp_path: Path) -> None:
    site, port, user, password = rover
    program("str2str"), program("gpsd")
    place = {str(DOCUMENTED): str(site.current())}
    with (
        own_network(tmp_path / "network.log") as network,
        caster_of_rtklib(network, f"{user}:{password}", port, tmp_path / "caster.log"),
    ):
        for name, line in (
            ("unit", replaced(unit_command("str2str of RTKLIB"), {**place, "serial://ttyACM0:38400": "file://unit"})),
            ("xargs", f"xargs -a {site.current()}/str2str.args str2str -out file://xargs"),
        ):
            with running(network.within(*shlex.split(line)), tmp_path / f"{name}.log"):
                assert received(tmp_path / name), name

        # proof that the caster looks
        arguments = (site.current() / "str2str.args").read_text()
        (tmp_path / "wrong.args").write_text(arguments.replace(user, "stranger"))
        wrong = f"xargs -a {tmp_path}/wrong.args str2str -out file://wrong"
        with running(network.within(*shlex.split(wrong)), tmp_path / "wrong.log"):
            assert not received(tmp_path / "wrong", 2)

        line = replaced(unit_command("gpsd"), {**place, " /dev/ttyACM0": ""})
        with running(network.within(*shlex.split(line)), tmp_path / "gpsd.log"):
            watch = [sys.executable, "-c", WATCH]
            with running(network.within(*watch), tmp_path / "watch.log"):
                log = tmp_path / "watch.log"
                assert eventually(lambda: '"type":1005,"length":19' in log.read_text()), log.read_text()[:2000]


@contextmanager
def receiver() -> Iterator[int]:
    """Run a receiver that sends RTCM to each client until the block ends; yield its port."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)

        def serve() -> None:
            while not done.is_set():
                with suppress(OSError):
                    connection, _peer = listener.accept()
                    with connection:
                        while not done.wait(0.05):
                            connection.sendall(RTCM * 40)  # programs write full buffers only

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            thread.join(5)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_gnssntripclient(rover: tuple[Site, int, str, str], tmp_path: Path, version: str) -> None:
    """With a caster of its own house, for both versions of the protocol."""
    site, port, user, password = rover
    program("gnssntripclient")
    changes = {str(DOCUMENTED): str(site.current()), "corrections.bin": str(tmp_path / "corrections.bin")}
    client = replaced(blocks("pygnssutils", "sh")[1], changes).rstrip() + f" --ntripversion {version} --retries 0"
    with receiver() as source:
        listen = ["--hostip", "127.0.0.1", "--outport", str(port), "--ntripmode", "1", "--ntripversion", version]
        server = [program("gnssserver"), "--socket", f"127.0.0.1:{source}", *listen]
        for login, served in ((user, True), ("stranger", False)):
            (tmp_path / "corrections.bin").unlink(missing_ok=True)
            known = {"PYGPSCLIENT_USER": login, "PYGPSCLIENT_PASSWORD": password}
            with running(server, tmp_path / "server.log", known):
                assert eventually(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
                with running(["sh", "-euc", client], tmp_path / "client.log"):
                    arrived = received(tmp_path / "corrections.bin", PATIENCE if served else 2)
            assert arrived == served, (tmp_path / "client.log").read_text()


# ---- systemd ----


def test_units_are_sound(tmp_path: Path) -> None:
    verify = program("systemd-analyze")
    for section in ("str2str of RTKLIB", "gpsd"):
        unit = tmp_path / f"{section.split()[0]}.service"
        unit.write_text(blocks(section, "ini")[0])
        done = subprocess.run([verify, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), section


@pytest.mark.parametrize(
    "password",
    ["plain", "a b", " a ", 'a"b', "a'b", "a\\b", "\\", "a`b`", "a#b", "#", "50%", "a=b;c&d", "grüße", "[a]*?"],
)
def test_the_environment_file_is_read_by_systemd(tmp_path: Path, password: str) -> None:
    """By the one parser that systemd has for such files, here in the generator for environment.d.

    That generator expands variables afterwards, which EnvironmentFile= does not, so that no password has a dollar.
    """
    program("systemd-analyze")
    generator = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
    (file,) = _env(parse(rtcm(password=password)), Layout("/x", 0o600, "")).values()
    (tmp_path / "environment.d").mkdir()
    (tmp_path / "environment.d" / "credentials.conf").write_bytes(file.content)
    done = subprocess.run(
        [generator], env={"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nonexistent"}, capture_output=True, check=True
    )
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("THINGSTREAM_")]
    assert len(lines) == file.content.count(b"\n")
    # what it prints is quoted for a shell
    printed = shell("\n".join([*lines, 'printf "%s" "$THINGSTREAM_NTRIP_PASSWORD"']))
    assert printed.stdout == password

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example as it is, over SSH: check, run, run again, check again; and its consumer reads what was deployed.

What differs from a reader's site, and why:

- Addresses, port and user of the SSH connections, by ``-e``: the gateways are on loopback. ``operator`` needs sudo.
- Address and CA of the platform, by the documented environment variables of the controller: it is the simulator.
- ``systemctl`` on the Debian gateways: a namespace has no systemd. The script here does what the examples ask of it,
  reads units and their drop-ins, and like systemd knows only those of the last ``daemon-reload``.
- mosquitto is the real one of this machine, copied with its libraries; ``/etc/hosts`` of its gateway leads the name of
  the platform's broker to a mosquitto on this machine. Its CA and, for the gateways share the network, the address that
  ``localhost`` has are those of the test.
- gpsd, the service ``corrections``, ``/etc/init.d`` and ``/etc/sysupgrade.conf``: scripts and a file, because the
  gateways have no receiver and no procd.
- The caster is one that answers any login on this machine.
- Some examples run for the first of their hosts only, because each costs seconds.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.tests.unit.support import serving
from gateways.fleet import Fleet
from integration.ansible_run import PROJECT, PROVISION, Run, plain, run_playbook
from integration.broker import PROGRAMS, running_broker
from integration.programs import RTCM as RTCM_MESSAGE
from integration.programs import replaced
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from simulator.client import RunningSimulator
from stage import running_fleet

EXAMPLES = PROJECT / "examples"
TESTED = ["busybox-router", "container", "debian-gpsd", "debian-mosquitto-bridge", "ntrip", "production-line"]
PLAYBOOKS = sorted(str(path) for path in EXAMPLES.glob("*/*.yml") if path.name != "inventory.yml")
CURRENT = "etc/thingstream/pointperfect/current"
ENSURE = "Ensure credentials"
RTCM = {"format": "RTCM"}

# The address of the platform's broker on the gateways. Its port is the real one, because responses do not name it.
BROKER = ("127.0.0.84", 8883)
BROKER_NAME = "pp.services.u-blox.com"

SYSTEMCTL = r"""#!/bin/sh
# As much of systemctl as the examples ask for; a unit is one program in the foreground.
verb=$1
shift
[ "$1" != --quiet ] || shift
unit=${1%.service}
cd /run
stop() {
    [ -e "$unit.pid" ] || return 0
    kill "$(cat "$unit.pid")"
    while kill -0 "$(cat "$unit.pid")"; do sleep 0.1; done
    rm "$unit.pid"
}
case $verb in
    daemon-reload)
        for file in /lib/systemd/system/*.service /etc/systemd/system/*.service; do
            [ -e "$file" ] || continue
            name=${file##*/}
            cat "$file" "/etc/systemd/system/$name.d"/*.conf >"$name" || :
        done
        ;;
    restart)
        stop
        export CREDENTIALS_DIRECTORY="/run/credentials/$unit.service"
        mkdir -p "$CREDENTIALS_DIRECTORY"
        for credential in $(sed -n 's/^LoadCredential=//p' "$unit.service"); do
            cp "${credential#*:}" "$CREDENTIALS_DIRECTORY/${credential%%:*}"
        done
        command=$(sed -n 's/^ExecStart=//p' "$unit.service" | tail -n 1 | sed 's/\$\$/$/g')
        set -a
        [ ! -e "/etc/default/$unit" ] || . "/etc/default/$unit"
        eval "setsid $command </dev/null >/dev/null 2>&1 &"
        echo $! >"$unit.pid"
        echo "$unit" >>started
        ;;
    is-active) kill -0 "$(cat "$unit.pid")" ;;
    show) printf '%s\n' "Id=$unit.service" LoadState=loaded ActiveState=active ;;
    *) exit 64 ;;
esac 2>>/run/systemctl.log
"""
GPSD = """#!/bin/sh
printf '%s\\n' "$@" >/run/gpsd.arguments
exec sleep 100000
"""
DOCKER = """#!/bin/sh
case $* in
    *" up -d") ;;
    *" restart corrections") echo corrections >>/run/started ;;
    *" exec "*) printf '\\323\\0\\023' ;;
    *) exit 64 ;;
esac
"""
GPSPIPE = """#!/bin/sh
! grep -q ^ntrip:// /run/gpsd.arguments || echo '{"class":"RTCM3"}'
"""
# The user is an ordinary one, and reads the deployed files through the group alone.
CORRECTIONS_UNIT = "[Service]\nExecStart=setpriv --reuid consumer --regid gnss --clear-groups /usr/bin/corrections\n"
CORRECTIONS = f"""#!/bin/sh
. /{CURRENT}/credentials.env
cat "$THINGSTREAM_PRIVATE_KEY" >/tmp/corrections.key || exit
exec sleep 100000
"""
INIT_SCRIPT = f"""#!/bin/sh
case $1 in
    restart)
        . /{CURRENT}/credentials.env || exit
        echo "$THINGSTREAM_NTRIP_USERNAME:$THINGSTREAM_NTRIP_PASSWORD" >/run/corrections.login
        echo restarted >>/run/started
        ;;
    running) test -s /run/corrections.login ;;
    *) exit 64 ;;
esac
"""
MOSQUITTO_CONFIGURATION = """\
pid_file /run/mosquitto/mosquitto.pid
persistence true
persistence_location /var/lib/mosquitto/
log_dest file /var/log/mosquitto/mosquitto.log
include_dir /etc/mosquitto/conf.d
"""


# ---- gateways and what runs on them ----


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Gateways of these tests alone: services are put on them."""
    with running_fleet(tmp_path_factory.mktemp("machines"), debian=5, busybox=2) as running:
        yield running


def on_gateway(machines: Fleet, gateway: str, command: str) -> str:
    run = machines.ssh(gateway, command)
    assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
    return run.stdout


def put(machines: Fleet, gateway: str, files: Mapping[str, str]) -> None:
    """Write files to a gateway; a text that begins like a script becomes executable."""
    for name, text in files.items():
        path = machines.root(gateway) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)


def put_unit(machines: Fleet, gateway: str, unit: str, text: str, files: Mapping[str, str]) -> None:
    """Put a unit of systemd on a gateway and start it, as the installation of its package does."""
    put(machines, gateway, {"usr/bin/systemctl": SYSTEMCTL, f"lib/systemd/system/{unit}.service": text, **files})
    on_gateway(machines, gateway, f"systemctl daemon-reload && systemctl restart {unit} && rm /run/started")


def put_program(machines: Fleet, gateway: str, name: str) -> None:
    """Put a program of this machine on a gateway, with its own loader and libraries, whatever the gateway has."""
    program = shutil.which(name, path=PROGRAMS)
    if program is None:
        pytest.skip(f"{name} is not installed")
    needed = re.findall(r"/\S+", subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout)
    place = machines.root(gateway) / "opt" / name
    place.mkdir(parents=True)
    for file in [program, *needed]:
        shutil.copy(file, place)
    (loader,) = (Path(file).name for file in needed if Path(file).name.startswith("ld-"))
    start = f'exec /opt/{name}/{loader} --library-path /opt/{name} /opt/{name}/{name} "$@"'
    put(machines, gateway, {f"usr/sbin/{name}": f"#!/bin/sh\n{start}\n"})


def started(machines: Fleet, gateway: str) -> int:
    """Return the number of times a service was started since the preparation."""
    record = machines.root(gateway) / "run" / "started"
    return len(record.read_text().splitlines()) if record.exists() else 0


def group_id(machines: Fleet, gateway: str, group: str) -> int:
    (number,) = re.findall(rf"^{group}:[^:]*:(\d+):", (machines.root(gateway) / "etc/group").read_text(), re.MULTILINE)
    return int(number)


# ---- an example, as its reader has it ----


@dataclass
class Site:
    """A copy of an example, with the vault file that its README asks for, and gateways in the place of its hosts."""

    machines: Fleet
    simulator: RunningSimulator
    directory: Path
    hosts: Mapping[str, str]
    token: str
    variables: dict[str, Any] = field(default_factory=dict)

    def run(self, playbook: str, *arguments: str, connect: bool = True) -> Run:
        """Run a playbook of the example, or of the collection."""
        extra = {**self.variables, **(self._connection() if connect else {})}
        bundle = self.directory.parent / "bundle.pem"
        bundle.write_text(Path(DEFAULT_CA_BUNDLE_PATH).read_text() + self.simulator.ca_path.read_text())
        (self.directory.parent / "extra.yml").write_text(yaml.safe_dump(plain(extra)))
        return run_playbook(
            self.directory.parent,
            self.directory / "inventory.yml",
            "--vault-password-file",
            str(self.directory.parent / "vault-password"),
            "-e",
            f"@{self.directory.parent / 'extra.yml'}",
            "--limit",
            ",".join(self.hosts),
            *arguments,
            playbook=playbook,
            environment={
                "THINGSTREAM_API_URL": self.simulator.url,
                "REQUESTS_CA_BUNDLE": str(bundle),
            },
        )

    def _connection(self) -> dict[str, Any]:
        inventory = self.machines.inventory.read_text()
        addresses = dict(re.findall(r"^(\S+) ansible_host=(\S+)$", inventory, re.MULTILINE))
        settings = dict(re.findall(r"^(ansible_(?:port|control_path_dir|ssh_common_args))=(.+)$", inventory, re.M))
        of_host = {host: addresses[gateway] for host, gateway in self.hosts.items()}
        settings["ansible_python_interpreter"] = "/usr/bin/python3"  # it need not be looked for
        return {**settings, "ansible_host": "{{ " + repr(of_host) + "[inventory_hostname] }}"}

    def check_run_again_check(self, playbook: str, task: str = ENSURE, *, asks: bool = True, **options: Any) -> Run:
        """Check, run, run again and check again; return the first real run.

        :param asks: whether the four runs send one request for each host, or none.
        """
        self.simulator.clear_requests()
        check, done, again, check_again = (
            self.run(playbook, *arguments, **options) for arguments in (["--check"], [], [], ["--check"])
        )
        for run in (check, done):
            assert run.status == 0, run.output
            ensured = {host: (result["changed"], result["action"]) for host, result in run.of(task).items()}
            assert ensured == dict.fromkeys(self.hosts, (True, "created")), run.output
        for run in (again, check_again):
            assert run.status == 0, run.output
            assert sorted(run.of(task)) == sorted(self.hosts)
            assert not any(entry["result"].get("changed") for entry in run.results), run.output
        wanted = [self.hardware_id(host) for host in self.hosts] if asks else []
        assert sorted(request["hardware_id"] for request in self.simulator.requests()) == sorted(wanted)
        return done

    def hardware_id(self, host: str) -> str:
        return str(self.inventory()["hosts"][host]["imei"])

    def inventory(self) -> dict[str, Any]:
        (group,) = yaml.safe_load((self.directory / "inventory.yml").read_text()).values()
        return dict(group)

    def modes(self, host: str, group: str = "root") -> dict[str, str]:
        """Return the mode of each file in use; all of them must belong to root and the group."""
        gateway = self.hosts[host]
        current, found = self.machines.root(gateway) / CURRENT, {}
        for file in current.iterdir():
            status = file.lstat()
            assert (status.st_uid, status.st_gid) == (0, group_id(self.machines, gateway, group)), file
            found[file.name] = f"{stat.S_IMODE(status.st_mode):04o}"
        return found


@contextmanager
def serving_any_login() -> Iterator[int]:
    """Run a caster that accepts any login until the block ends; yield its port."""
    with serving(lambda connection, _: connection.sendall(b"ICY 200 OK\r\n\r\n" + RTCM_MESSAGE)) as server:
        yield server.port


def make_site(
    machines: Fleet,
    simulator: RunningSimulator,
    work: Path,
    example: str,
    gateways: Sequence[str],
    profile: Mapping[str, Any],
) -> Site:
    directory = work / example
    shutil.copytree(EXAMPLES / example, directory)
    token = simulator.put_profile(example, service="pointperfect", hardware_code_mandatory=True, **profile)
    ((group, content),) = yaml.safe_load((directory / "inventory.yml").read_text()).items()
    (work / "vault-password").write_text("correct horse")
    vault = directory / "group_vars" / group / "vault.yml"
    assert f"ansible-vault create {vault.relative_to(directory)}\n" in (directory / "README.md").read_text()
    vault.parent.mkdir(parents=True)
    vault.write_text(f'vault_thingstream_token: "{token}"\n')
    password = ["--vault-password-file", str(work / "vault-password")]
    tool = f"{sys.prefix}/bin/ansible-vault"
    subprocess.run([tool, "encrypt", *password, str(vault)], check=True, capture_output=True)
    return Site(machines, simulator, directory, dict(zip(content["hosts"], gateways, strict=False)), token)


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()) == TESTED
    for example in TESTED:
        assert len((EXAMPLES / example / "README.md").read_text().splitlines()) <= 40


def test_syntax(tmp_path: Path) -> None:
    """As they lie there, without a vault file."""
    assert len(PLAYBOOKS) == 6
    first, *others = [str(EXAMPLES / example / "inventory.yml") for example in TESTED]
    together = tmp_path / "together.yml"
    together.write_text(yaml.safe_dump([{"ansible.builtin.import_playbook": playbook} for playbook in PLAYBOOKS]))
    run = run_playbook(
        tmp_path, Path(first), "--syntax-check", *(f"-i{other}" for other in others), playbook=str(together)
    )
    assert (run.status, "WARNING" in run.output) == (0, False), run.output


# ---- the examples ----


@pytest.mark.full
def test_a_bridge_of_mosquitto(machines: Fleet, simulator: RunningSimulator, tmp_path: Path) -> None:
    """Real corrections arrive over the bridge: without them the example's health command would fail."""
    site = make_site(machines, simulator, tmp_path, "debian-mosquitto-bridge", ["gw1"], {"plan": "mqtt"})
    site.variables = {"ansible_user": "operator", "thingstream_gateway_broker_ca_path": simulator.ca_path}
    for number, gateway in enumerate(site.hosts.values(), start=1):
        for program in ("mosquitto", "mosquitto_sub"):
            put_program(machines, gateway, program)
        on_gateway(machines, gateway, "useradd --system --user-group mosquitto && cd /var && mkdir lib/mosquitto")
        on_gateway(machines, gateway, "mkdir /run/mosquitto /var/log/mosquitto && cd / && chown mosquitto:mosquitto "
                   "run/mosquitto var/log/mosquitto var/lib/mosquitto")  # fmt: skip
        files = {
            "etc/hosts": f"127.0.1.{number} localhost\n{BROKER[0]} {BROKER_NAME}\n",
            "etc/mosquitto/mosquitto.conf": MOSQUITTO_CONFIGURATION,
            "etc/mosquitto/conf.d/local.conf": "listener 1883 localhost\nallow_anonymous true\n",
        }
        unit = "[Service]\nExecStart=/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf\n"
        put_unit(machines, gateway, "mosquitto", unit, files)
    with platform_broker(simulator, site.token, tmp_path):
        done = site.check_run_again_check(PROVISION)
    for host, gateway in site.hosts.items():
        pair = {"client.crt": "0644", "client.key": "0640", "client.pem": "0640", "ca.crt": "0644"}
        both = {"credentials.json": "0600", "thing.json": "0640"}
        assert site.modes(host, "mosquitto") == {"mosquitto.conf": "0640", **pair, **both}
        root = machines.root(gateway)
        link = root / "etc/mosquitto/conf.d/thingstream.conf"
        assert str(link.readlink()) == f"/{CURRENT}/mosquitto.conf"
        assert (
            f"remote_clientid {done.of(ENSURE)[host]['thing']['client_id']}\n"
            in (root / CURRENT / "mosquitto.conf").read_text()
        )
        assert started(machines, gateway) == 1

    absent = site.run(PROVISION, "-e", "thingstream_gateway_state=absent")
    assert absent.status == 0, absent.output
    for gateway in site.hosts.values():
        assert not (machines.root(gateway) / "etc/mosquitto/conf.d/thingstream.conf").is_symlink()
        on_gateway(
            machines, gateway, "systemctl is-active mosquitto && mosquitto_sub -C 1 -W 5 -t '$SYS/broker/version'"
        )


@contextmanager
def platform_broker(simulator: RunningSimulator, token: str, tmp_path: Path) -> Iterator[None]:
    """Run the broker of the platform, with a correction from it five times a second, until the block ends."""
    work = tmp_path / "broker"
    work.mkdir()
    own = simulator.post(token, hardwareId="publisher").json()
    (work / "client.crt").write_text(own["certificate"])
    (work / "client.key").write_text(own["privateKey"])
    files = ["--cafile", simulator.ca_path, "--cert", work / "client.crt", "--key", work / "client.key"]
    address = ["-h", BROKER[0], "-p", BROKER[1], "--insecure"]
    command = ["mosquitto_pub", *map(str, [*address, *files]), "-i", own["clientId"], "-t", "/pp/ip/eu", "-l"]
    mutual = "require_certificate true\nuse_identity_as_username true"
    over = threading.Event()
    with running_broker(simulator, work, mutual, BROKER, BROKER_NAME):
        publisher = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

        def publish() -> None:
            assert publisher.stdin is not None
            while not over.wait(0.2):
                print("correction", file=publisher.stdin, flush=True)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            publisher.communicate(timeout=10)


@pytest.mark.full
def test_ntrip_into_gpsd(machines: Fleet, simulator: RunningSimulator, tmp_path: Path) -> None:
    with serving_any_login() as port:
        switches = {"host": "127.0.0.1", "port": port}
        gateways = ["gw2"]
        site = make_site(machines, simulator, tmp_path, "debian-gpsd", gateways, {**RTCM, "simulator": switches})
        site.variables = {"ansible_user": "operator"}
        for gateway in gateways:
            unit = "[Service]\nExecStart=/usr/sbin/gpsd $GPSD_OPTIONS $OPTIONS $DEVICES\n"  # Debian's
            settings = 'DEVICES="/dev/ttyACM0"\nGPSD_OPTIONS="-n"\n'
            put_unit(machines, gateway, "gpsd", unit, {"etc/default/gpsd": settings, "usr/sbin/gpsd": GPSD,
                     "usr/bin/gpspipe": GPSPIPE})  # fmt: skip
        site.check_run_again_check(str(site.directory / "site.yml"))
    for host, gateway in site.hosts.items():
        root = machines.root(gateway)
        assert site.modes(host) == {"gpsd.url": "0600", "credentials.json": "0600", "thing.json": "0640"}
        url = (root / CURRENT / "gpsd.url").read_text().strip()
        assert re.fullmatch(rf"ntrip://[^:]+:.+@127\.0\.0\.1:{port}/NEAR-RTCM", url)
        assert (root / "run/gpsd.arguments").read_text().splitlines() == ["-n", "/dev/ttyACM0", url]
        assert started(machines, gateway) == 2  # with the new unit, and with the URL

    # what the comment in the unit says: gpsd starts without credentials, too
    on_gateway(machines, "gw2", f"rm /{CURRENT} && systemctl restart gpsd && sleep 0.5 && systemctl is-active gpsd")
    assert (machines.root("gw2") / "run/gpsd.arguments").read_text().splitlines() == ["-n", "/dev/ttyACM0"]


@pytest.mark.full
def test_ntrip_into_str2str(machines: Fleet, simulator: RunningSimulator, tmp_path: Path) -> None:
    """One program of the example, whose units and health commands test_ntrip_consumers.py runs for all of them.

    Here str2str writes into a file and not to a port, for the gateways share the network.
    """
    with serving_any_login() as port:
        switches = {"host": "127.0.0.1", "port": port}
        site = make_site(machines, simulator, tmp_path, "ntrip", ["gw4"], {**RTCM, "simulator": switches})
        put_program(machines, "gw4", "str2str")
        put(machines, "gw4", {"usr/bin/systemctl": SYSTEMCTL})
        unit = site.directory / "files" / "str2str.service"
        outputs = "-out serial://ttyACM0:38400 -out tcpsvr://:2103"
        unit.write_text(replaced(unit.read_text(), {outputs: "-out file:///run/corrections"}))
        site.variables = {
            "ansible_user": "operator",
            "thingstream_gateway_health_command": "test -s /run/corrections",
        }
        site.check_run_again_check(str(site.directory / "site.yml"))
    expected = {"str2str.args": "0600", "credentials.json": "0600", "thing.json": "0640"}
    assert site.modes("str2str-1") == expected
    assert started(machines, "gw4") == 1
    on_gateway(machines, "gw4", "kill $(cat /run/str2str.pid)")


@pytest.mark.full
def test_ntrip_into_a_container(machines: Fleet, simulator: RunningSimulator, tmp_path: Path) -> None:
    """With a script for docker; test_containers.py runs the compose file."""
    site = make_site(machines, simulator, tmp_path, "container", ["gw5"], RTCM)
    site.variables = {"ansible_user": "operator"}
    put(machines, "gw5", {"usr/bin/docker": DOCKER})
    site.check_run_again_check(str(site.directory / "site.yml"))
    assert site.modes("box-1") == {"str2str.args": "0600", "credentials.json": "0600", "thing.json": "0640"}
    assert started(machines, "gw5") == 1


@pytest.mark.full
def test_a_router_with_busybox(machines: Fleet, simulator: RunningSimulator, tmp_path: Path) -> None:
    site = make_site(machines, simulator, tmp_path, "busybox-router", ["bb1", "bb2"], RTCM)
    for gateway in site.hosts.values():
        put(machines, gateway, {"etc/init.d/corrections": INIT_SCRIPT, "etc/sysupgrade.conf": "# kept\n"})
    site.check_run_again_check(str(site.directory / "site.yml"))
    for host, gateway in site.hosts.items():
        root = machines.root(gateway)
        assert site.modes(host) == {"credentials.env": "0640", "credentials.json": "0600", "thing.json": "0640"}
        hardware_id = site.hardware_id(host)
        login = simulator.post(site.token, hardwareId=hardware_id).json()["rtcmCredentials"]
        assert (root / "run/corrections.login").read_text() == f"{login['userName']}:{login['password']}\n"
        assert started(machines, gateway) == 1
        assert (root / "etc/sysupgrade.conf").read_text() == "# kept\n/etc/thingstream/\n"
        assert not (root / "root/.ansible").exists()
        (thing,) = simulator.things(hardware_id=hardware_id)
        assert thing["given_name"] == host.partition(".")[0]


@pytest.mark.full
def test_a_production_line(machines: Fleet, simulator: RunningSimulator, tmp_path: Path) -> None:
    site = make_site(machines, simulator, tmp_path, "production-line", ["gw3"], {"plan": "mqtt"})
    # the first half knows nothing of the gateways: their addresses are those of the example
    site.check_run_again_check(str(site.directory / "store.yml"), "Ensure credentials in the store", connect=False)
    for host in site.hosts:
        store = site.directory / "store" / host / "current"
        assert sorted(file.name for file in store.iterdir()) == ["credentials.json", "thing.json"]
        assert (store / "credentials.json").read_bytes().startswith(b"$ANSIBLE_VAULT;")

    site.variables = {"ansible_user": "operator"}
    files = {"usr/bin/corrections": CORRECTIONS}
    for gateway in site.hosts.values():
        on_gateway(machines, gateway, "groupadd gnss")
        put_unit(machines, gateway, "corrections", CORRECTIONS_UNIT, files)
    done = site.check_run_again_check(
        str(site.directory / "deploy.yml"), "Install the credentials of the store", asks=False
    )
    renewed = site.run("thingstream.ztp.renew")
    assert {entry["reason"] for entry in renewed.of("Renew what is due").values()} == {"none"}, renewed.output
    assert simulator.requests() == []
    for host, gateway in site.hosts.items():
        pair = {"client.crt": "0644", "client.key": "0640", "client.pem": "0640", "ca.crt": "0644"}
        both = {"credentials.env": "0640", "credentials.json": "0600", "thing.json": "0640"}
        assert site.modes(host, "gnss") == {**pair, **both}
        root = machines.root(gateway)
        assert (root / "tmp/corrections.key").read_text() == (root / CURRENT / "client.key").read_text()
        assert started(machines, gateway) == 1
        thing = done.of("Install the credentials of the store")[host]["thing"]
        assert thing["hardware_id"] == site.hardware_id(host)

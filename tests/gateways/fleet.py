# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""A fleet of real gateways on loopback: each has its own root, namespaces, SSH server and host key.

README.md beside this file tells how to use it, from a shell and from pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import ipaddress
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from gateways import firmware  # noqa: E402

BASE = PROJECT / ".cache" / "gateways"
UNSHARE = ("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private")
START_TIMEOUT = 60.0
EXIT_UNAVAILABLE = 77

# sun_path holds 108 bytes; Ansible adds "/" and 10 characters, ssh 17 more while it binds, and a NUL ends it.
MAX_CONTROL_DIRECTORY = 108 - 1 - 10 - 17 - 1

LINK_KEYS = """
for home in root home/*; do
  mkdir -p "$home/.ssh"
  ln -s /etc/ssh/authorized_keys "$home/.ssh/authorized_keys"
done
"""

# Passwords are '*' where there is none: without PAM, sshd refuses an account that is locked with '!'.
CUSTOMIZE_DEBIAN = f"""
set -eu
cd /
rm -f etc/ssh/ssh_host_* etc/resolv.conf var/cache/apt/archives/*.deb
mkdir -p run/sshd
groupadd --system thingstream
useradd --create-home --shell /bin/sh --password '*' --groups thingstream consumer
useradd --create-home --shell /bin/sh --password '*' --gid operator operator
useradd --create-home --shell /bin/sh careful
echo careful:careful-password | chpasswd
echo 'operator ALL=(ALL) NOPASSWD: ALL' >etc/sudoers.d/operator
echo 'careful ALL=(ALL) ALL' >etc/sudoers.d/careful
chmod 440 etc/sudoers.d/*
{LINK_KEYS}
"""

# The programs of the firmware are there already, in bin and libexec.
BUILD_BUSYBOX = f"""
set -eu
cd "$1"
mkdir -p sbin usr/bin usr/sbin dev/pts etc/ssh proc run var root home/consumer
mkdir -m 1777 tmp
ln -s ../run var/run
dropbear=$(command -v dropbear)
cp "$dropbear" usr/sbin/dropbear
for library in $(ldd "$dropbear" libexec/busybox | grep -o '/[^ ]*'); do
    case $library in *:) continue ;; esac
    mkdir -p ".${{library%/*}}"
    cp -L "$library" ".$library"
done
while read -r device major minor; do
  mknod -m 666 "dev/$device" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
ptmx 5 2
END
cat >etc/passwd <<END
root:*:0:0:root:/root:/bin/sh
consumer:*:1000:1000::/home/consumer:/bin/sh
END
cat >etc/group <<END
root:*:0:
tty:*:5:
thingstream:*:990:consumer
consumer:*:1000:
END
chown 1000:1000 home/consumer
{LINK_KEYS}
"""

# Runs as the first process of its namespaces, while /proc is still the machine's: so it can tell the pid by which
# others know it, and keeps that pid until it is the SSH server. It records its parent, the unshare, as well. `down`
# removes the key before it reads these records: what it could not find there ends by itself.
START_GATEWAY = """
set -eu
umask 022
cd "$1"
base=$2 key=$3 name=${1##*/}
shift 3
read -r pid _ _ parent _ </proc/self/stat
echo "$pid" >pid
read -r record <"/proc/$parent/stat"
echo "$record" >parent
[ -e "$key" ]
mkdir -p own/etc/ssh own/etc/dropbear disk root
ssh-keygen -q -t ed25519 -N '' -C '' -f own/etc/ssh/ssh_host_ed25519_key
if [ -e "$base/usr/sbin/dropbear" ]; then
  dropbearconvert openssh dropbear own/etc/ssh/ssh_host_ed25519_key own/etc/dropbear/dropbear_ed25519_host_key
fi
cp "$key" own/etc/ssh/authorized_keys
echo "$name" >own/etc/hostname
echo "127.0.0.1 localhost $name" >own/etc/hosts
# The writable layer of an overlay cannot lie on an overlay, which is what a container's own root is.
[ "$(stat -f -c %T .)" != overlayfs ] || mount -t tmpfs tmpfs disk
mkdir -p disk/upper disk/work
mount -t overlay -o "lowerdir=own:$base,upperdir=disk/upper,workdir=disk/work" overlay root
cd root
mount -t proc proc proc
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
echo "$name" >/proc/sys/kernel/hostname
exec chroot . "$@"
"""

# For a shell on a gateway: ends the SSH session that it runs in, the first time only.
END_SESSION = """
process=$$
until read -r name </proc/$process/comm && case $name in sshd*|dropbear*) true ;; *) false ;; esac; do
    while read -r key value _; do [ "$key" != PPid: ] || process=$value; done </proc/$process/status
done
[ -e /tmp/cut ] || { touch /tmp/cut && kill -9 "$process"; }
"""

TRY_MOUNTS = """
mount -t tmpfs tmpfs /tmp && cd /tmp && mkdir lower upper work root &&
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay root &&
mount -t devpts -o newinstance,gid=5 devpts root
"""


class FleetError(Exception):
    """The fleet cannot be started or stopped as requested."""


class Unavailable(FleetError):
    """This machine cannot run gateways: tests skip."""


@dataclass(frozen=True)
class Kind:
    """One kind of gateway: how its SSH server is started, and what that server logs once it listens."""

    network: str
    server: str
    ready: str


KINDS = {
    "debian": Kind("127.0.1.0", "/usr/sbin/sshd -D -e -o UsePAM=no -o ListenAddress={}:{}", "Server listening"),
    "busybox": Kind("127.0.101.0", "/usr/sbin/dropbear -F -E -s -p {}:{}", "Not backgrounding"),
}
FIRMWARE_NETWORK = "127.0.102.0"


@dataclass(frozen=True)
class Gateway:
    """One gateway of a fleet: its kind, and the name of its shared root directory in the base."""

    kind: str
    name: str
    address: str
    root: str


@dataclass(frozen=True)
class Fleet:
    """A fleet that is up."""

    where: Path

    @property
    def inventory(self) -> Path:
        """The inventory: groups ``debian``, ``busybox`` and, with both in it, ``gateways``."""
        return self.where / "inventory.ini"

    def root(self, name: str) -> Path:
        """Return a gateway's root directory, as this machine sees it."""
        return Path("/proc", (self.where / name / "pid").read_text().strip(), "root")

    def ssh(self, destination: str, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on a gateway, as root or as ``user@name`` says."""
        argv = ["ssh", "-F", str(self.where / "ssh_config"), destination, command]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def fleet(
    tmp: Path, debian: int, busybox: int = 0, base: Path = BASE, firmwares: Sequence[str] = ()
) -> Iterator[Fleet]:
    """Run a fleet in ``tmp / "fleet"`` for as long as the context lasts.

    :param firmwares: lists of applets; for each there is one more BusyBox gateway, with the name of the list.
    """
    where = tmp / "fleet"
    up(base, where, debian, busybox, firmwares)
    try:
        yield Fleet(where)
    finally:
        down(where)


def build(base: Path, roots: Collection[str] | None = None) -> None:
    """Make the root directories that gateways share, or only some of them, unless they are there."""
    lists = {_firmware_root(name): name for name in firmware.TESTED}
    missing = [name for name in (roots or ("debian", *lists)) if not (base / name).is_dir()]
    if not missing:
        return
    _require("debootstrap", "dropbear", "ldd")
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in missing:
            if (base / name).is_dir():
                continue
            partial = base / f"{name}.partial"
            if partial.exists():
                shutil.rmtree(partial)
            partial.mkdir()
            with (base / f"{name}.log").open("wb") as log:
                try:
                    if name == "debian":
                        _make_debian(partial, log.fileno())
                    else:
                        _make_busybox(firmware.read(lists[name]), base, partial, log.fileno())
                except subprocess.CalledProcessError as error:
                    raise FleetError(f"building the root {name} failed, see {log.name}") from error
            partial.rename(base / name)


def up(base: Path, where: Path, debian: int, busybox: int = 0, firmwares: Sequence[str] = ()) -> None:
    """Start a fleet in a directory of its own; all of it, or nothing."""
    _require("ssh", "ssh-keygen", "dropbearconvert")
    unknown = set(firmwares) - set(firmware.TESTED)
    if unknown:
        raise FleetError(f"no such list of applets: {', '.join(sorted(unknown))}")
    gateways = _gateways(debian, busybox, firmwares)
    build(base, {gateway.root for gateway in gateways})
    where = where.absolute()
    try:
        where.mkdir(parents=True)
    except FileExistsError:
        raise FleetError(f"{where} is there already") from None
    try:
        _start(base.absolute(), where, gateways)
    except BaseException:
        down(where)
        raise


def down(where: Path) -> None:
    """Stop every process of a fleet, however far its start came, and remove its directory."""
    if not where.exists():
        return
    control = where / "control"
    if not os.path.lexists(control):
        if any(where.iterdir()):
            raise FleetError(f"{where} is not a fleet")
        where.rmdir()
        return
    for master in control.glob("*"):
        _close_master(master)
    (where / "id.pub").unlink(missing_ok=True)
    for record in where.glob("*/parent"):
        _stop(record.read_text())
    shutil.rmtree(control.resolve(), ignore_errors=True)
    shutil.rmtree(where)


def status(where: Path) -> bool:
    """Print a line for each gateway; return whether all of them run."""
    complete = True
    for name, address in re.findall(r"^(\S+) ansible_host=(\S+)$", (where / "inventory.ini").read_text(), re.MULTILINE):
        record = where / name / "parent"
        running = record.exists() and _is_running(record.read_text())
        complete = complete and running
        print(name, address, f"pid {(where / name / 'pid').read_text().strip()}" if running else "stopped")
    return complete


def _require(*tools: str) -> None:
    if os.geteuid() != 0:
        raise Unavailable("gateways need root")
    missing = [tool for tool in ("unshare", *tools) if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"gateways need {', '.join(missing)}")
    trial = subprocess.run([*UNSHARE, "sh", "-c", TRY_MOUNTS], capture_output=True, text=True, check=False)
    if trial.returncode != 0:
        raise Unavailable("gateways need namespaces and overlayfs: " + " ".join(trial.stderr.split()))


def _make_debian(root: Path, log: int) -> None:
    mirror, suite = _mirror()
    packages = root.with_suffix(".packages")  # kept until the end, so that a second attempt downloads only the rest
    packages.mkdir(exist_ok=True)
    debootstrap = ["debootstrap", "--variant=minbase", "--include=openssh-server,python3,sudo"]
    # In namespaces of its own, what it mounts and starts ends with it, even if it is killed.
    subprocess.run(
        [*UNSHARE, "--mount-proc", *debootstrap, f"--cache-dir={packages.absolute()}", suite, str(root), mirror],
        env={**os.environ, **_proxy()},
        stdout=log,
        stderr=log,
        check=True,
    )
    subprocess.run(["chroot", str(root), "sh", "-c", CUSTOMIZE_DEBIAN], stdout=log, stderr=log, check=True)
    shutil.rmtree(packages)


def _make_busybox(system: firmware.Firmware, base: Path, root: Path, log: int) -> None:
    try:
        busybox = firmware.fetch(base)
    except firmware.BusyBoxMissing as reason:
        raise Unavailable(str(reason)) from reason
    firmware.lay_out(system, busybox, root, Path("/"))
    subprocess.run(["sh", "-c", BUILD_BUSYBOX, "sh", str(root)], stdout=log, stderr=log, check=True)


def _apt(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def _mirror() -> tuple[str, str]:
    """Return the mirror and suite that apt uses here, or Debian's own mirror and bookworm on another system."""
    targets = _apt("apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE) $(RELEASE)", "Created-By: Packages")
    found = re.search(r"^Debian (http\S+) ([a-z]+)$", targets, re.MULTILINE)
    return (found[1], found[2]) if found else ("http://deb.debian.org/debian", "bookworm")


def _proxy() -> dict[str, str]:
    proxy = _apt("apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy").strip()
    return {"http_proxy": proxy} if proxy else {}


def _firmware_root(name: str) -> str:
    """Return the name of a root that is built anew when its list, or how it is built, has changed."""
    parts = (firmware.LISTS / f"{name}.txt").read_bytes(), Path(firmware.__file__).read_bytes(), BUILD_BUSYBOX.encode()
    return f"{name}-{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}"


def _gateways(debian: int, busybox: int, firmwares: Sequence[str]) -> list[Gateway]:
    usual = _firmware_root(firmware.USUAL)
    return [
        *(Gateway("debian", f"gw{i}", _address(KINDS["debian"].network, i), "debian") for i in range(1, debian + 1)),
        *(Gateway("busybox", f"bb{i}", _address(KINDS["busybox"].network, i), usual) for i in range(1, busybox + 1)),
        *(
            Gateway("busybox", name, _address(FIRMWARE_NETWORK, i), _firmware_root(name))
            for i, name in enumerate(firmwares, start=1)
        ),
    ]


def _address(network: str, number: int) -> str:
    return str(ipaddress.IPv4Address(network) + number)


def _start(base: Path, where: Path, gateways: list[Gateway]) -> None:
    control = _make_control_directory(where)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(where / "id")], check=True)
    with _one_at_a_time():  # a port is free until its server listens
        port = _free_port([gateway.address for gateway in gateways], int(os.environ.get("FLEET_PORT", "2222")))
        _write_ssh_config(where, gateways, port)
        _write_inventory(where, gateways, port, control)
        pids = {gateway: _spawn(base, where, gateway, port) for gateway in gateways}
        deadline = time.monotonic() + START_TIMEOUT
        for gateway, pid in pids.items():
            _await_server(where / gateway.name / "log", KINDS[gateway.kind].ready, pid, deadline)
    with (where / "known_hosts").open("w") as known_hosts:
        for gateway in gateways:
            public = where / gateway.name / "own/etc/ssh/ssh_host_ed25519_key.pub"
            known_hosts.write(f"[{gateway.address}]:{port} {public.read_text()}")


def _make_control_directory(where: Path) -> Path:
    control = where / "control"
    if len(os.fsencode(control)) <= MAX_CONTROL_DIRECTORY:
        control.mkdir(mode=0o700)
    else:
        control.symlink_to(tempfile.mkdtemp(prefix="fleet-", dir="/tmp"))
    return control.resolve()


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait until no other fleet of this machine is between the choice of its port and its start."""
    with Path(tempfile.gettempdir(), "thingstream-fleet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_port(addresses: list[str], first: int) -> int:
    """Return the first port, from ``first`` on, that is free on all addresses; another fleet may be up."""
    for port in range(first, first + 100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for address in addresses:
                trial = stack.enter_context(socket.socket())
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((address, port))
            return port
    raise FleetError(f"no free port from {first} on")


def _write_ssh_config(where: Path, gateways: list[Gateway], port: int) -> None:
    hosts = "".join(f"Host {gateway.name}\n  HostName {gateway.address}\n" for gateway in gateways)
    (where / "ssh_config").write_text(f"""{hosts}Host *
  User root
  Port {port}
  BatchMode yes
  IdentitiesOnly yes
  IdentityFile "{where}/id"
  StrictHostKeyChecking yes
  UserKnownHostsFile "{where}/known_hosts"
""")


def _write_inventory(where: Path, gateways: list[Gateway], port: int, control: Path) -> None:
    hosts = dict.fromkeys(KINDS, "")
    for gateway in gateways:
        hosts[gateway.kind] += f"{gateway.name} ansible_host={gateway.address}\n"
    (where / "inventory.ini").write_text(f"""[debian]
{hosts["debian"]}
[busybox]
{hosts["busybox"]}
[gateways:children]
debian
busybox

[gateways:vars]
ansible_user=root
ansible_port={port}
ansible_ssh_common_args=-F "{where}/ssh_config"
ansible_control_path_dir={control}

[debian:vars]
ansible_python_interpreter=/usr/bin/python3

[busybox:vars]
ansible_shell_executable=/bin/sh
""")


def _spawn(base: Path, where: Path, gateway: Gateway, port: int) -> int:
    directory = where / gateway.name
    directory.mkdir()
    server = KINDS[gateway.kind].server.format(gateway.address, port).split()
    start = ["sh", "-c", START_GATEWAY, "sh", str(directory), str(base / gateway.root), str(where / "id.pub"), *server]
    return os.posix_spawnp(
        UNSHARE[0],
        [*UNSHARE, *start],
        {"PATH": os.environ["PATH"]},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(directory / "log"), os.O_WRONLY | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _await_server(log: Path, ready: str, pid: int, deadline: float) -> None:
    while ready not in log.read_text(errors="replace"):
        if os.waitpid(pid, os.WNOHANG) != (0, 0) or time.monotonic() > deadline:
            raise FleetError(f"{log.parent.name} did not start: " + " ".join(log.read_text(errors="replace").split()))
        time.sleep(0.02)


def _identity(stat: str) -> list[str]:
    """Return the pid and name, and the start time; no two processes share all of them."""
    before, _separator, after = stat.rpartition(")")
    return [before, after.split()[19]]


def _is_running(record: str) -> bool:
    if not record:  # being written, by a gateway that will find its key gone
        return False
    try:
        stat = Path("/proc", record.split(maxsplit=1)[0], "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return _identity(stat) == _identity(record) and ") Z " not in stat


def _stop(record: str) -> None:
    """End a gateway. Its first process takes all others of the gateway along, and unshare ends after it."""
    if not _is_running(record):
        return
    pid = int(record.split(maxsplit=1)[0])
    with _process(pid) as process, contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if process is not None and _is_running(record):
            children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            for victim in children or [pid]:
                os.kill(victim, signal.SIGKILL)
            _await_end(process)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _close_master(path: Path) -> None:
    """End the ssh that Ansible left behind to share its connection, if there is one behind the socket."""
    ask = ("ssh", "-F", os.devnull, "-o", f"ControlPath={path}", "-O")
    check = subprocess.run([*ask, "check", "gateway"], capture_output=True, text=True, check=False)
    found = re.search(r"pid=(\d+)", check.stderr)
    if not found:
        return
    with _process(int(found[1])) as process:
        subprocess.run([*ask, "exit", "gateway"], capture_output=True, check=False)
        if process is not None:
            _await_end(process)


@contextlib.contextmanager
def _process(pid: int) -> Iterator[int | None]:
    """Yield a handle that stays with the process when another process gets its pid, or None if it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _await_end(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll(10_000)


def main() -> int:
    """Run what the command line asks for; return the exit status of the process."""
    parser = argparse.ArgumentParser(description="A fleet of real gateways on loopback.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("base", "build the root directories in DIR, once"),
        ("up", "start N Debian, B BusyBox gateways, and one of each LIST in the new directory FLEET"),
        ("down", "stop the gateways of FLEET and remove it"),
        ("status", "show the gateways of FLEET; fails if one has stopped"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name in ("base", "up"):
            command.add_argument("base", metavar="DIR", type=Path)
        if name != "base":
            command.add_argument("fleet", metavar="FLEET", type=Path)
        if name == "up":
            command.add_argument("debian", metavar="N", type=int)
            command.add_argument("busybox", metavar="B", type=int, nargs="?", default=0)
            command.add_argument("firmware", metavar="LIST", nargs="*")
    arguments = parser.parse_args()
    try:
        if arguments.command == "base":
            build(arguments.base)
        elif arguments.command == "up":
            up(arguments.base, arguments.fleet, arguments.debian, arguments.busybox, arguments.firmware)
        elif arguments.command == "down":
            down(arguments.fleet)
        else:
            return 0 if status(arguments.fleet) else 1
    except FleetError as error:
        print(f"fleet: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE if isinstance(error, Unavailable) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

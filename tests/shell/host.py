# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway made of one shell and one directory of this machine, and what must hold on its disk."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, preflight, protocol
from ansible_collections.thingstream.ztp.tests.unit.states import altered

SHELLS = ("dash", "bash", "busybox")
SHORT = ("dash", "busybox")  # without --full; bash runs the main job only, like other shells
DIRECTORY_MODE = 0o750
MODES: Mapping[str, int] = {
    "thing.json": 0o640,
    "credentials.json": 0o600,
    "client.crt": 0o644,
    "client.key": 0o640,
    "client.pem": 0o640,
    "ca.crt": 0o644,
}
PUBLIC = {name for name, mode in MODES.items() if mode & stat.S_IROTH}
MODIFIED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

# Hides the programs of this machine behind those of a firmware. The scripts add the system directories to PATH.
CONFINE = """
mount=$1 programs=$2
shift 2
for directory in /sbin /bin /usr/sbin /usr/bin; do
    [ -L "$directory" ] || "$mount" --bind "$programs" "$directory" || exit 126
done
exec "$@"
"""

_nonces = itertools.count()


def new_nonce() -> str:
    """Return a name for a staging directory that no other run of this process has."""
    return f"n{os.getpid()}x{next(_nonces)}"


def change(
    *,
    keep: int = 1,
    nonce: str | None = None,
    directory_mode: int = DIRECTORY_MODE,
    history: str | None = None,
    reload_command: str | None = None,
    health_command: str | None = None,
    health_timeout: int = 5,
) -> commands.Change:
    """Return a change of a path, with defaults for tests."""
    hooks = commands.Hooks(reload_command, health_command, health_timeout)
    return commands.Change(directory_mode, keep, nonce or new_nonce(), hooks, history)


def bundle(marker: str, contents: Mapping[str, bytes] | None = None) -> dict[str, protocol.File]:
    """Return files as the collection writes them; no two markers share any content, and the record has every digest."""
    files = {
        name: protocol.File(f"{name} of {marker}\n".encode() * 40, mode)
        for name, mode in MODES.items()
        if name != "thing.json"
    }
    files.update({name: protocol.File(content, MODES[name]) for name, content in (contents or {}).items()})
    digests = {name: hashlib.sha256(file.content).hexdigest() for name, file in files.items()}
    record = json.dumps({"marker": marker, "files": digests}, indent=2) + "\n"
    return {"thing.json": protocol.File(record.encode(), MODES["thing.json"]), **files}


@dataclass(frozen=True)
class Confinement:
    """A private mount namespace in which the system directories hold the programs of a firmware, and nothing else.

    :param programs: the directory of these programs.
    :param helpers: a directory outside of PATH, with the ``mount`` and ``setpriv`` of this machine.
    """

    programs: Path
    helpers: Path

    def around(self, argv: Sequence[str], user: tuple[int, int] | None) -> list[str]:
        """Return the command that runs another one in the namespace, as this user (uid, gid)."""
        unshare = shutil.which("unshare") or "unshare"
        namespace = [unshare, "--mount", "--propagation", "private", "/bin/sh", "-c", CONFINE, "sh"]
        become: list[str] = []
        if user:
            become = [str(self.helpers / "setpriv"), f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups"]
        return [*namespace, str(self.helpers / "mount"), str(self.programs), *become, *argv]


@dataclass(frozen=True)
class Host:
    """Run commands the way a connection does.

    :param shell: its name, for messages.
    :param argv: how it is called.
    :param tools: a directory of links to ``sh`` and to the programs of this gateway, which is first in PATH.
    :param path: where its bundle lives.
    :param user: the (uid, gid) that runs the commands, or ``None`` for whoever runs the tests.
    :param environment: more variables for the commands.
    :param banner: what a login shell runs before the command, which it starts as a process of its own.
    :param terminal: whether line feeds arrive as they do from a terminal.
    :param killed_after: seconds after which every process of the command gets SIGKILL.
    :param deaf_after: seconds after which the output of the command is no longer read.
    :param confinement: hides the other programs of this machine; ``None`` where the shell is one of this machine's.
    :param full: whether tests try every moment of a run, and not a selection.
    """

    shell: str
    argv: tuple[str, ...]
    tools: Path
    path: Path
    user: tuple[int, int] | None = None
    umask: int = 0o022
    environment: Mapping[str, str] = field(default_factory=dict)
    banner: str = ""
    terminal: bool = False
    killed_after: float | None = None
    deaf_after: float | None = None
    confinement: Confinement | None = None
    full: bool = False
    outputs: list[str] = field(default_factory=list)

    def execute(self, command: str, standard_input: bytes, _secret: bool) -> tuple[int, str, str]:
        """Run a command as ``protocol.Execute`` requires."""
        user = None if self.confinement else self.user  # it becomes that user once its namespace is made
        with (
            subprocess.Popen(
                self.command_line(f"{self.banner}({command})" if self.banner else command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": f"{self.tools}:/usr/bin:/bin", **self.environment},
                cwd="/",
                umask=self.umask,
                start_new_session=True,
                user=user[0] if user else None,
                group=user[1] if user else None,
                extra_groups=[] if user else None,
            ) as process,
            _timer(self.killed_after, lambda: _kill(process)),
            _timer(60, lambda: _kill(process)),
        ):
            if self.deaf_after is not None:
                return self._ignore(process, standard_input)
            output, complaint = process.communicate(standard_input)
        if self.terminal:
            output = output.replace(b"\n", b"\r\n")
        text = output.decode("utf-8", "surrogateescape")
        self.outputs.append(text)
        return process.returncode, text, complaint.decode("utf-8", "surrogateescape")

    def command_line(self, command: str) -> list[str]:
        """Return how the shell of this gateway is called with a command."""
        argv = [*self.argv, "-c", command]
        return self.confinement.around(argv, self.user) if self.confinement else argv

    def _ignore(self, process: subprocess.Popen[bytes], standard_input: bytes) -> tuple[int, str, str]:
        """Feed the command its input, and close its output while it runs."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with _timer(self.deaf_after, process.stdout.close), contextlib.suppress(BrokenPipeError):
            process.stdin.write(standard_input)
            process.stdin.close()
        complaint = process.stderr.read()
        return process.wait(), "", complaint.decode("utf-8", "replace")

    def has(self, program: str) -> bool:
        """Return whether this gateway reaches a program."""
        return replace(self, deaf_after=None).execute(f"command -v {program}", b"", False)[0] == 0

    def at(self, path: Path) -> Host:
        """Return the same gateway with its bundle at another path."""
        return replace(self, path=path)

    def look(self, owner: str | None = None, group: str | None = None) -> protocol.GatewayState:
        return commands.look(self.execute, str(self.path), owner, group)

    def checked(self, owner: str | None = None, group: str | None = None) -> protocol.GatewayState:
        """Return the gateway's state after the look that comes before every change."""
        state = commands.look(self.execute, str(self.path), owner, group, thorough=True)
        problem = preflight.install_problem(state, owner, group)
        if problem is not None:
            raise problem
        return state

    def believing(self, state: protocol.GatewayState) -> protocol.GatewayState:
        """Return the state that a look would find if only current generation and history changed since: much faster."""
        link, history = self.path / "current", self.path / "history.json"
        return altered(
            state,
            current=os.readlink(link).rpartition("/")[2] if link.is_symlink() else None,
            history=history.read_text().rstrip("\n") if history.exists() else "",
        )

    def install(
        self,
        marker: str,
        state: protocol.GatewayState | None = None,
        *,
        contents: Mapping[str, bytes] | None = None,
        how: commands.Change | None = None,
        **options: Any,
    ) -> str:
        """Install a bundle; the options are those of ``change``."""
        files = bundle(marker, contents)
        return commands.install(self.execute, state or self.checked(), files, how or change(**options), MODIFIED_AT)

    def set_attributes(
        self, state: protocol.GatewayState | None = None, *, how: commands.Change | None = None, **options: Any
    ) -> str:
        return commands.set_attributes(self.execute, state or self.checked(), MODES, how or change(**options))

    def roll_back(
        self,
        target: str,
        state: protocol.GatewayState | None = None,
        *,
        how: commands.Change | None = None,
        **options: Any,
    ) -> str:
        record = json.loads((self.path / "generations" / target / "thing.json").read_bytes())
        return commands.roll_back(
            self.execute, state or self.checked(), target, MODES, record["files"], how or change(**options)
        )

    def write_history(self, history: str, state: protocol.GatewayState | None = None) -> None:
        commands.write_history(self.execute, state or self.checked(), change(history=history))

    def remove(self, **options: Any) -> None:
        commands.remove(self.execute, self.look(), change(**options))

    def drift(self, state: protocol.GatewayState | None = None) -> list[str]:
        return preflight.attribute_drift(state or self.look(), MODES, DIRECTORY_MODE)

    # ---- what is on the disk ----

    def plant(self, *markers: str, contents: Mapping[str, bytes] | None = None) -> None:
        """Write an installation without the script, as installing each marker in turn would leave it: much faster."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for number, marker in enumerate(markers, start=1):
            plant_generation(self, f"{number:06d}", marker, contents)
        for directory in (self.path, self.path / "generations"):
            directory.chmod(DIRECTORY_MODE)
        (self.path / "current").symlink_to(f"generations/{len(markers):06d}")

    def steps(self, first: int = 1, every: int = 4) -> range:
        """Return the steps of a run, from ``first`` on, that are tried under this shell: with ``--full`` all of them.

        :param every: otherwise the shells share each so many of them.
        """
        if self.full:
            return range(first, 99)
        return range(first + every * SHORT.index(self.shell), 99, every * len(SHORT))

    @property
    def generations(self) -> list[str]:
        directory = self.path / "generations"
        return sorted(os.listdir(directory)) if directory.exists() else []

    @property
    def leftovers(self) -> list[str]:
        """The entries at the path that are no part of an installation."""
        names = set(os.listdir(self.path)) if self.path.exists() else set()
        return sorted(names - {"current", "generations", ".last-change"})

    @property
    def marker(self) -> str | None:
        """The marker of the complete bundle that is in use, or ``None`` where there is no link."""
        link = self.path / "current"
        if not link.is_symlink():
            assert not link.exists()
            return None
        assert re.fullmatch(r"generations/[0-9]{6}", os.readlink(link))
        return marker_of(self.path / os.readlink(link))

    def assert_in_order(self, marker: str, generations: Sequence[str]) -> None:
        """Check that the path holds exactly these generations, the last one in use and complete, and nothing else."""
        assert self.marker == marker
        assert self.generations == list(generations)
        assert os.readlink(self.path / "current") == f"generations/{generations[-1]}"
        assert self.leftovers == []


def marker_of(generation: Path) -> str:
    """Return the marker of a generation, which must be complete."""
    record = json.loads((generation / "thing.json").read_bytes())
    assert set(os.listdir(generation)) == {"thing.json", *record["files"]}
    for name, digest in record["files"].items():
        assert hashlib.sha256((generation / name).read_bytes()).hexdigest() == digest, name
    return str(record["marker"])


def plant_generation(host: Host, name: str, marker: str, contents: Mapping[str, bytes] | None = None) -> Path:
    """Write a complete generation that no link names, as a run that died just before the switch leaves it."""
    generation = host.path / "generations" / name
    generation.mkdir(parents=True)
    for file_name, file in bundle(marker, contents).items():
        (generation / file_name).write_bytes(file.content)
        (generation / file_name).chmod(file.mode)
    generation.chmod(DIRECTORY_MODE)
    return generation


def plant_leftovers(host: Host) -> list[str]:
    """Create the leftovers of dead runs, and return their names: staging directories, and a link not yet renamed."""
    staging = host.path / ".staging-dead1" / "files"
    staging.mkdir(parents=True)
    (staging / "client.key").write_bytes(b"half a k")
    (host.path / ".staging-dead2").mkdir()
    (host.path / ".staging-link-dead3").symlink_to("generations/000077")
    return [".staging-dead1", ".staging-dead2", ".staging-link-dead3"]


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Return everything that a change of the tree would change, except access times."""
    entries = [root, *root.rglob("*")]
    return {str(entry.relative_to(root)): _look(entry) for entry in sorted(entries)}


def _look(entry: Path) -> tuple[object, ...]:
    status = entry.lstat()
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(entry)
    elif stat.S_ISREG(status.st_mode):
        content = entry.read_bytes()
    return (
        status.st_ino,
        stat.filemode(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_nlink,
        status.st_mtime_ns,
        status.st_ctime_ns,
        content,
    )


def outcome(action: Callable[[], object]) -> str:
    """Run an action and return ``done``, or the code of its error."""
    try:
        action()
    except ProvisioningError as error:
        return error.code
    return "done"


@contextlib.contextmanager
def refused(*codes: str) -> Iterator[None]:
    """Check that the block ends with one of these error codes."""
    with pytest.raises(ProvisioningError) as caught:
        yield
    assert caught.value.code in codes, caught.value


@contextlib.contextmanager
def _timer(seconds: float | None, action: Callable[[], object]) -> Iterator[None]:
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def is_alive(process: int) -> bool:
    """Return whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch a directory while a gateway is changed: no user can ever open a secret that is not for that user."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

NOBODY = 65534

# (root, what has been seen, how often): notes what it sees below the root
Look = Callable[[str, "Counter[str]"], None]


@contextlib.contextmanager
def watched(root: Path, group_id: int, public: set[str]) -> Iterator[None]:
    """Watch everything below a directory in a loop: another user tries to read it, root compares modes.

    :param group_id: the group that the secrets are for.
    :param public: the names of files that everybody may read; that they are read shows that the watch works.
    """
    with _looping(_open_all, root, NOBODY) as opened, _looping(lambda *seen: _stat_all(group_id, *seen), root) as modes:
        yield
    assert opened["rounds"] > 10
    assert modes["rounds"] > 10
    read = set(opened) - {"rounds"}
    assert read & public, "the other user reached no file at all"
    assert read <= public, f"another user could read {sorted(read - public)}"
    exposed = {name for name in modes if name.rpartition(" ")[2] not in public | {"rounds"}}
    assert exposed == set(), exposed


def _open_all(root: str, seen: Counter[str]) -> None:
    for directory, _directories, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError), open(os.path.join(directory, name), "rb") as stream:
                stream.read(1)
                seen[name] += 1


def _stat_all(group_id: int, root: str, seen: Counter[str]) -> None:
    for directory, directories, files in os.walk(root):
        if os.path.basename(directory).startswith(".staging-"):
            with contextlib.suppress(OSError):
                if stat.S_IMODE(os.lstat(directory).st_mode) == 0o700:
                    directories.clear()  # no other user reaches what is in it
                    continue
        for name in files:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(directory, name))
                if not stat.S_ISREG(status.st_mode):
                    continue
                if status.st_mode & stat.S_IRWXO:
                    seen[f"others may use {name}"] += 1
                elif status.st_mode & stat.S_IRWXG and status.st_gid != group_id:
                    seen[f"the wrong group may use {name}"] += 1


@contextlib.contextmanager
def _looping(look: Look, root: Path, user: int | None = None) -> Iterator[Counter[str]]:
    """Look until the block ends, in a process of its own, and yield what it has seen by then."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_loop, args=(look, str(root), user, there))
    process.start()
    seen: Counter[str] = Counter()
    try:
        yield seen
    finally:
        here.send("stop")
        seen.update(here.recv())
        process.join()


def _loop(look: Look, root: str, user: int | None, pipe: Connection) -> None:
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    seen: Counter[str] = Counter()
    while not pipe.poll():
        look(root, seen)
        seen["rounds"] += 1
    pipe.send(seen)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs against one shell and one directory of this machine; only platform and clock are scripted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Runtime
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig, install_by_hand
from ansible_collections.thingstream.ztp.tests.unit.support import Pair
from shell.host import Host, new_nonce, snapshot


@dataclass
class HostRig(Rig):
    """A rig whose gateway is a shell with its own tools.

    :param before_change: what happens between the look and the next change, once.
    :param standing: what the platform responds to every request; without it only to expected ones.
    :param nonce: that of the present run.
    """

    host: Host = field(kw_only=True)
    before_change: Callable[[], object] | None = None
    standing: Mapping[str, Any] | None = None
    nonce: str = ""

    def post(self, endpoint: api.Endpoint, payload: bytes, sending: api.Sending) -> api.HttpResponse:
        if self.standing is not None:
            self.replies = [self.standing]
        return super().post(endpoint, payload, sending)

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        self.commands.append(command)
        if b"request_command=look" not in standard_input and self.before_change is not None:
            happening, self.before_change = self.before_change, None
            happening()
        return self.host.execute(command, standard_input, secret)

    def runtime(self) -> Runtime:
        self.nonce = new_nonce()
        return replace(super().runtime(), nonce=lambda: self.nonce)

    def give(self, **changes: Any) -> None:
        """Give the gateway other tools, another umask or another environment."""
        self.host = replace(self.host, **changes)

    def begin(self, pair: Pair) -> None:
        """Start with one generation, in order, and an empty spool."""
        self.clear()
        self.spool.parent.mkdir(exist_ok=True)
        install_by_hand(self, pair)

    def clear(self) -> None:
        """Start with nothing, neither on the gateway nor in the spool."""
        for place in (self.root / "etc", self.spool):
            shutil.rmtree(place, ignore_errors=True)

    @property
    def spooled(self) -> list[Path]:
        """The responses in the spool."""
        return responses.entry_files(self.spool_place)

    def assert_as_it_was(self, current: str | None, before: dict[str, tuple[object, ...]]) -> None:
        """Check that nothing was switched, and that every file of every generation is what it was."""
        assert (self.current.readlink().name if self.current.is_symlink() else None) == current
        assert contents(self.path) == before
        known = {"current", "generations", "history.json", ".last-change"}
        assert not self.path.exists() or {entry.name for entry in self.path.iterdir()} <= known


def contents(path: Path) -> dict[str, tuple[object, ...]]:
    """Return every file and its content, without empty directories and times of directories."""
    found = snapshot(path) if path.exists() else {}
    return {name: entry for name, entry in found.items() if str(entry[1]).startswith("-")}


def error_of(action: Callable[[], object]) -> ProvisioningError | None:
    """Return what an action ended with, if it did not succeed."""
    try:
        action()
    except ProvisioningError as error:
        return error
    return None

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
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.order import Runtime
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig, install_by_hand
from ansible_collections.thingstream.ztp.tests.unit.support import Pair
from shell.host import Host, snapshot

NONCE = "planted"


@dataclass
class HostRig(Rig):
    """A rig whose gateway is a shell with its own tools.

    :param before_change: what happens between the look and the next change, once.
    :param standing: what the platform answers to whoever asks; without it only to what is expected.
    """

    host: Host = field(kw_only=True)
    before_change: Callable[[], object] | None = None
    standing: Mapping[str, Any] | None = None

    def post(self, endpoint: api.Endpoint, payload: bytes) -> api.Answer:
        if self.standing is not None:
            self.replies = [self.standing]
        return super().post(endpoint, payload)

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        self.commands.append(command)
        if b"request_command=probe\n" not in standard_input and self.before_change is not None:
            happening, self.before_change = self.before_change, None
            happening()
        return self.host.execute(command, standard_input, secret)

    def runtime(self) -> Runtime:
        return replace(super().runtime(), nonce=lambda: NONCE)

    def give(self, **changes: Any) -> None:
        """Gives the gateway other tools, another umask or another environment."""
        self.host = replace(self.host, **changes)

    def begin(self, pair: Pair) -> None:
        """Nothing but one generation, in order."""
        self.clear()
        self.spool_place.parent.parent.mkdir(exist_ok=True)
        install_by_hand(self, pair)

    def clear(self) -> None:
        """Nothing at all, neither on the gateway nor in the spool."""
        for place in (self.root / "etc", self.spool_place.parent):
            shutil.rmtree(place, ignore_errors=True)

    @property
    def kept(self) -> list[Path]:
        """What is in the spool."""
        return spool.files(self.spool_place)

    def assert_as_it_was(self, current: str | None, before: dict[str, tuple[object, ...]]) -> None:
        """Nothing was switched, and every file of every generation is what it was."""
        assert (self.current.readlink().name if self.current.is_symlink() else None) == current
        assert contents(self.path) == before
        assert not self.path.exists() or {entry.name for entry in self.path.iterdir()} <= {
            "current",
            "generations",
            "history.json",
        }


def contents(path: Path) -> dict[str, tuple[object, ...]]:
    """Every file and what is in it; neither empty directories nor times of directories."""
    looks = snapshot(path) if path.exists() else {}
    return {name: look for name, look in looks.items() if str(look[1]).startswith("-")}


def error_of(action: Callable[[], object]) -> ProvisioningError | None:
    """What an action ended with, if it did not succeed."""
    try:
        action()
    except ProvisioningError as error:
        return error
    return None

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A consumer of the credentials of a gateway, made of two commands and two files."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from shell.host import Host


@dataclass
class Consumer:
    """A consumer that works with credentials whose marker is not ``bad…``, and notes when it is called."""

    host: Host
    directory: Path
    options: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        key, used, log = (
            shlex.quote(str(path)) for path in (self.host.path / "current/client.key", self.used, self.log)
        )
        note = f'echo "$name $(readlink {shlex.quote(str(self.host.path / "current"))})" >>{log}\n'
        self.options = {
            "reload_command": f"name=reload; {note} if [ -e {key} ]; then cat {key} >{used}; else rm -f {used}; fi",
            "health_command": f"name=health; {note} [ -s {used} ] && ! grep -q 'of bad' {used}",
        }

    @property
    def used(self) -> Path:
        return self.directory / "used"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def calls(self) -> list[str]:
        """The calls, each with the generation that was current then."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.replace("generations/", "").strip() for line in lines]

    def assert_up_to_date(self) -> None:
        current = self.host.path / "current" / "client.key"
        used = self.used.read_bytes() if self.used.exists() else None
        assert used == (current.read_bytes() if current.exists() else None)


def failing(host: Host, marker: str = "bad", **options: Any) -> str:
    """Install a bundle whose health check fails, and return the error message."""
    with pytest.raises(ProvisioningError) as caught:
        host.install(marker, **{"health_timeout": 1, **options})
    assert caught.value.code == "health_check_failed"
    return str(caught.value)

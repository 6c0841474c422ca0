# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run is asked for, what it touches, and what it did.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ..bundle import formats
from ..bundle import render as bundle
from ..gateway import commands as gateway
from ..platform import api, credentials
from ..platform.services import Service
from ..spool import responses as spool
from . import policy

# When credentials are proven by using them: never, before new ones are switched to, or in addition those in use.
Proving = Literal["never", "before_switch", "always"]


@dataclass(frozen=True)
class Target:
    """Where a bundle lives and how it must look there; ``owner`` and ``group`` are ``None`` for the user there.

    :param layout: path and modes.
    :param keep: how many previous generations stay for a roll back.
    """

    layout: formats.Layout
    directory_mode: int
    owner: str | None
    group: str | None
    keep: int
    consumers: gateway.Consumers = field(default_factory=gateway.Consumers)


@dataclass(frozen=True)
class Order:
    """Everything that one run wants of one gateway. Only ``token`` is a secret; times are seconds.

    :param given_name: the name of the Thing in the portal.
    :param only_installed: whether a gateway that holds nothing is left alone.
    :param renew_refused: whether credentials in use that turn out to be refused are renewed.
    :param spool_place: ``spool.location`` of the Thing.
    :param spool_make_parents: as for ``spool.prepare``.
    :param origin: where the answer comes from, for the record.
    :param answer: an answer that came from elsewhere; then nobody is asked.
    :param answered_at: when it arrived (aware), if not now.
    :param sealed: whether files with a secret are encrypted, for a store that others can read.
    """

    service: Service
    wanted: policy.Wanted
    target: Target
    token: str | None = field(repr=False)
    given_name: str
    tags: tuple[str, ...] | None
    field_map: Mapping[str, str]
    endpoint: api.Endpoint
    repeatable: bool
    activation_timeout: float
    spool_place: Path
    spool_make_parents: bool = True
    templates: bundle.Templates | None = None
    origin: str = "ztp"
    answer: bytes | None = field(default=None, repr=False)
    answered_at: datetime | None = None
    sealed: bool = False
    only_installed: bool = False
    proving: Proving = "never"
    renew_refused: bool = False


@dataclass(frozen=True)
class Runtime:
    """What a run touches besides its order; tests put their own in place.

    :param prove: uses credentials, and raises ``ProvisioningError`` if they do not work.
    """

    execute: gateway.Execute
    post: api.Post
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    uniform: Callable[[float, float], float]
    nonce: Callable[[], str]
    encrypt: spool.Cipher | None
    decrypt: spool.Cipher
    prove: Callable[[credentials.Credentials], Any]


@dataclass(frozen=True)
class Outcome:
    """What a run did: an action and its reason, the records before and after, and what is installed now."""

    action: str
    reason: str
    before: Mapping[str, Any] | None
    thing: Mapping[str, Any] | None
    generation: str | None
    files: tuple[Mapping[str, Any], ...]
    due_at: datetime | None = None

    @property
    def changed(self) -> bool:
        """Whether anything on the gateway is, or in check mode would be, different."""
        return self.action not in ("none", "unchanged")

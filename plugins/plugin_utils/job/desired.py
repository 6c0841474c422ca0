# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of one gateway, the source of its response, and the tools of a run.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from ..bundle.formats import Layout
from ..bundle.render import Templates
from ..errors import ProvisioningError
from ..gateway.commands import Hooks
from ..gateway.protocol import Execute
from ..platform.api import Endpoint, Post
from ..platform.credentials import Credentials
from ..platform.services import Service
from ..spool.directory import Cipher
from .renewal import RenewalPolicy

# When credentials are verified by using them: never, new ones before the switch, or those in use on every run as well.
VerifyWhen = Literal["never", "before_switch", "always"]


@dataclass(frozen=True)
class Target:
    """Where a bundle lives and how it must look there; ``owner`` and ``group`` are ``None`` for the user there.

    :param layout: path and modes.
    :param keep: how many previous generations stay for a rollback.
    """

    layout: Layout
    directory_mode: int
    owner: str | None
    group: str | None
    keep: int
    hooks: Hooks = field(default_factory=Hooks)

    @property
    def path(self) -> str:
        """The directory on the gateway."""
        return self.layout.path


@dataclass(frozen=True)
class Desired:
    """The desired state of one gateway. No secret is in it.

    :param host: the inventory name of the gateway.
    :param given_name: the name of the Thing in the portal.
    :param anonymous: whether a request without hardware ID is wanted, of which each may create a Thing.
    :param delivery: ``mqtt``, ``ntrip`` or ``lband``; ``None`` for whatever the device profile delivers.
    :param formats: ``None`` for the default ones.
    :param vault_encrypted: whether the response is encrypted, for a store that others can read.
    :param broker_ca_sha256: digest of the CA that becomes ``ca.crt``.
    :param allow_volatile: whether storage that a restart clears is good enough where each request may create a Thing.
    :param create: whether a gateway without credentials gets some.
    :param rotate_before: credentials that arrived before this moment (aware) must be replaced by others.
    :param renew_refused: whether credentials in use are renewed if a server refuses them beyond doubt.
    """

    service: Service
    host: str
    hardware_id: str | None
    given_name: str
    target: Target
    renewal: RenewalPolicy = field(default_factory=RenewalPolicy)
    delivery: str | None = None
    formats: tuple[str, ...] | None = None
    templates: Templates | None = None
    vault_encrypted: bool = False
    field_map: Mapping[str, str] = field(default_factory=dict)
    broker_ca_sha256: str | None = None
    anonymous: bool = False
    allow_volatile: bool = False
    create: bool = True
    force: bool = False
    rotate_before: datetime | None = None
    verify: VerifyWhen = "never"
    renew_refused: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether a repeated request never creates a second Thing; without a hardware ID, every request creates one."""
        return self.service.repeatable and self.hardware_id is not None

    @property
    def hardware_id_problem(self) -> ProvisioningError | None:
        """Why no request may be sent: the gateway has no hardware ID, and that is not wanted."""
        if self.hardware_id is not None or self.anonymous:
            return None
        return ProvisioningError(
            "hardware_id_required",
            f"hardware_id of {self.host} is not set or empty. No request was sent, because each request without a "
            "hardware ID may create another Thing. Set hardware_id, or set anonymous: true if that is what you want.",
        )


@dataclass(frozen=True)
class Platform:
    """The platform as the source of a response.

    :param tags: what the Thing is tagged with, or ``None``.
    :param activation_timeout: seconds to wait for the platform to activate a new Thing.
    :param place: the ``spool.directory.location`` of the Thing.
    :param make_spool_parents: whether the directory above the spool may be made.
    """

    token: str | None = field(repr=False)
    endpoint: Endpoint
    tags: tuple[str, ...] | None
    activation_timeout: float
    place: Path
    make_spool_parents: bool = True


@dataclass(frozen=True)
class Given:
    """A response that the user gives.

    :param received_at: when it arrived (aware), if not now.
    :param origin: the kind of file it came from, for the record.
    :param name: the options and files it came from, as messages call them.
    """

    response: bytes = field(repr=False)
    origin: str
    received_at: datetime | None = None
    name: str = "The credentials"


Source = Platform | Given


@dataclass(frozen=True)
class Runtime:
    """The tools of a run: the connection, the platform, the clock; tests substitute their own.

    :param encrypt: with the Vault secret of the run, or ``None`` where it has none.
    :param verify: uses credentials of the platform, and raises ``ProvisioningError`` if they do not work.
    :param verify_in_use: the same for credentials that the gateway stores; returns a warning about what remains
        unknown, for example because a refused login may be one in use.
    :param reach: connects to the API and sends nothing; raises ``ProvisioningError`` if that fails.
    :param check_inventory: raises ``ProvisioningError`` if another host of the inventory has the same hardware ID.
    """

    execute: Execute
    post: Post
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    uniform: Callable[[float, float], float]
    nonce: Callable[[], str]
    encrypt: Cipher | None
    decrypt: Cipher
    verify: Callable[[Credentials], object]
    verify_in_use: Callable[[Credentials], str | None] = lambda _credentials: None
    reach: Callable[[Endpoint], object] = lambda _endpoint: None
    check_inventory: Callable[[], object] = lambda: None

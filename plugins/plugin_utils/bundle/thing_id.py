# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity that distinguishes one Thing from another.

Private to the collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..platform.services import CLIENT_ID

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ThingId:
    """The identity of a Thing: its client ID, or where the platform sends none (NTRIP) a fingerprint of its login.

    At least one of the two is known, so that two unknown Things never count as one.

    :param client_id: the client ID as the platform sends it.
    :param login_sha256: the SHA-256 of the user name, which is unique to a Thing (documented) and, unlike the password,
        assumed to stay when the platform returns an existing Thing.
    """

    client_id: str | None = None
    login_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.client_id is None and self.login_sha256 is None:
            raise ValueError("a Thing without client ID and login has no identity")

    def same_as(self, other: ThingId) -> bool:
        """Return whether both name one Thing."""
        if self.client_id is not None and other.client_id is not None:
            return self.client_id == other.client_id
        return self.login_sha256 is not None and self.login_sha256 == other.login_sha256


def same_thing(one: ThingId | None, other: ThingId | None) -> bool:
    """Return whether both are known and name one Thing."""
    return one is not None and other is not None and one.same_as(other)


def parse_thing_id(client_id: object, login_sha256: object) -> ThingId | None:
    """Return the identity that these values of a file name, or ``None`` if they name none."""
    is_client_id = isinstance(client_id, str) and CLIENT_ID.fullmatch(client_id) is not None
    is_digest = isinstance(login_sha256, str) and _DIGEST.fullmatch(login_sha256) is not None
    if not is_client_id and not is_digest:
        return None
    return ThingId(str(client_id) if is_client_id else None, str(login_sha256) if is_digest else None)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the certificates by which a consumer verifies the MQTT broker, which the platform does not send.

Private to the collection.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from ..bundle import render as bundle
from ..errors import ProvisioningError
from ..platform import trust


@functools.cache
def read(path: str | None) -> str:
    """Return the certificates in a file or, without a path, Amazon Root CA 1 from the CA bundle, as PEM text.

    :raises ProvisioningError: ``bad_option``.
    """
    # the CAs for the API, such as that of a proxy that inspects TLS, are not valid for the broker
    source = path or trust.LIBRARY_CA_BUNDLE
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ProvisioningError("bad_option", f"Cannot read {source} on the controller: see broker_ca_path.") from None
    if path is None:
        return bundle.broker_ca(text)
    if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY" in text:
        raise ProvisioningError("bad_option", "broker_ca_path must hold certificates in PEM and no key.")
    return text


# read once, before Ansible forks its workers
with contextlib.suppress(ProvisioningError):
    read(None)

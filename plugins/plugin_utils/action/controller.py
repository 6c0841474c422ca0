# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check in check mode what a run needs on the controller: a trusted connection to the API, and a spool.

Private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import ProvisioningError
from ..job.desired import Platform, Runtime
from ..job.observe import spool_problem
from ..platform import api, transport


@dataclass(frozen=True)
class Readiness:
    """The findings of a run on the controller.

    :param message: one line for people.
    :param api_code: the error code of the failed connection to the API, or ``None`` if the connection succeeded.
    :param api_message: why the connection failed.
    """

    message: str
    is_ready: bool
    api_code: str | None
    api_message: str

    def require_api(self) -> None:
        """Raise ``ProvisioningError`` if a request could not be sent."""
        if self.api_code is not None:
            raise ProvisioningError(self.api_code, self.api_message)


def check(source: Platform, runtime: Runtime) -> dict[str, Any]:
    """Return the fields of ``Readiness``; send nothing and change nothing."""
    code, problem, version = None, "", None
    try:
        unusable = api.endpoint_problem(source.token, source.endpoint.url)
        if unusable is not None:
            raise unusable
        version = transport.connect(source.endpoint)
    except ProvisioningError as error:
        code, problem = error.code, error.message
    host, spool = urlsplit(source.endpoint.url).netloc, spool_problem(source, runtime)
    trusted = f"trusted ({version})" if source.endpoint.validate_certs else f"not verified ({version})"
    parts = [
        problem or f"{host} is reachable and {trusted if version else 'without TLS'}.",
        spool.message if spool else f"The spool {source.place.parent} can be used.",
        "The Python libraries are installed.",
    ]
    return {
        "message": f"Controller: {' '.join(parts)}",
        "is_ready": code is None and spool is None,
        "api_code": code,
        "api_message": problem,
    }

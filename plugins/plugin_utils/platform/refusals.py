# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn statuses other than 200 into errors.

u-blox documents no errors. A text is stated as a fact only if a client of the platform has logged it or looks for it;
every other refusal is ``refused``, with what to compare.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ProvisioningError
from .exchange import HttpResponse

# (status, text in lower case, code, advice); each text is seen in client code or logs
_SEEN: Sequence[tuple[int, str, str, str]] = (
    (422, "token invalid token format", "token_invalid",  # client log of 2022, JSON
     "The platform says that the token is malformed: copy it again from the device profile."),
    (403, "device already registered", "already_registered",  # client log, plain text
     "This hardware ID is registered already. Set the device profile to return the existing credentials, or remove the "
     "Thing that has it; it may belong to another device profile."),
    (403, "no plan for device", "no_plan",  # client code; followed by the ID of the Thing
     "The Thing of this hardware ID exists but has no plan or was deactivated: activate it in the portal."),
    (403, "device hardware code not whitelisted", "not_allowed",  # client code and log
     "This hardware ID is not on the allow-list of the device profile: add it there."),
)  # fmt: skip

_PROFILE = "token, service and hardware_id with type, status and hardware codes of the device profile in the portal"
_COMPARE = {
    400: f"Compare {_PROFILE}, and given_name and tags with what the portal accepts",
    404: f"Compare api_url with the endpoint of the device profile, and {_PROFILE}",
    405: "Compare api_url with the endpoint of the device profile",
    407: "A proxy on the way requires a login: set proxy or HTTPS_PROXY",
    422: f"Compare {_PROFILE}, and given_name and tags with what the portal accepts",
}


def error_of(response: HttpResponse) -> ProvisioningError:
    """Return the meaning of a status other than 200. The body is searched for known texts and never quoted.

    429 and 5xx have the meaning that HTTP gives them (RFC 6585, RFC 9110); no client has seen them from the platform.
    """
    status, text = response.status, response.body[:4096].decode("utf-8", "replace").lower()
    for known_status, known_text, code, advice in _SEEN:
        if status == known_status and known_text in text:
            return ProvisioningError(code, f"{advice} (HTTP {status})", status)
    if status == 429:
        return ProvisioningError(
            "rate_limited", "The platform asks for fewer requests (HTTP 429): lower forks.", status
        )
    if status >= 500:
        return ProvisioningError(
            "server_error", f"The platform has a problem (HTTP {status}): run again later.", status
        )
    if 400 <= status < 500:
        return ProvisioningError(
            "refused",
            f"The platform refused the request (HTTP {status}) for a reason that this collection does not know. "
            f"{_COMPARE.get(status, f'Compare {_PROFILE}')}.",
            status,
        )
    return ProvisioningError(
        "bad_response",
        f"The response has the unexpected status {status}; redirects are not followed. See api_url.",
        status,
    )

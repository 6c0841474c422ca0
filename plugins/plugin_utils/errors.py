# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of this collection: a stable code, a sentence that says what to do next, never a secret.

Private to the collection.
"""

from __future__ import annotations

ERROR_CODES = (
    "unreachable",
    "tls",
    "proxy_refused",
    "timeout",
    "rate_limited",
    "server_error",
    "bad_response",
    "missing_field",
    "pair_mismatch",
    "token_invalid",
    "already_registered",
    "no_plan",
    "not_allowed",
    "hardware_id_required",
    "volatile_path",
    "refused",
    "activation_pending",
    "bad_option",
    "bad_path",
    "gateway_unsupported",
    "disk_full",
    "permission",
    "concurrent_change",
    "health_check_failed",
    "no_generation",
    "credentials_refused",
    "refused_or_in_use",
    "host_not_allowed",
    "wrong_delivery",
    "not_rotated",
    "response_lost",
    "spool_failed",
    "report_failed",
    "audit_incomplete",
)


class ProvisioningError(Exception):
    """Why credentials could not be ensured.

    :param code: one of ``ERROR_CODES``; an unknown one is a programming error and raises ``ValueError``.
    :param message: what happened and what to do next. It must not hold a response body, a token or a credential.
    :param status: the HTTP status, if the platform responded.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        if code not in ERROR_CODES:
            raise ValueError(f"unknown error code {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status

    def with_advice(self, advice: str) -> ProvisioningError:
        """Return the same error with one more sentence at its end."""
        return ProvisioningError(self.code, f"{self.message} {advice}", self.status)


def bad_field(name: str, problem: str) -> ProvisioningError:
    """Return the error for a field of credentials whose value cannot be used; ``problem`` does not show the value."""
    return ProvisioningError("bad_response", f"The field {name} {problem}.")


class GatewayUnreachable(Exception):
    """The connection to the gateway failed; Ansible reports such a host as unreachable."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def with_advice(self, advice: str) -> GatewayUnreachable:
        """Return the same error with one more sentence at its end."""
        return GatewayUnreachable(f"{self.message} {advice}")

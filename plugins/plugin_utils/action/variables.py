# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of all options, by which a misspelled variable is found and a default of the module group is recognized.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ProvisioningError
from .values import nearest

# Every option of every module; a test compares them.
OPTIONS = frozenset(
    (
        "activation_timeout",
        "allow_volatile",
        "allowed_hosts",
        "anonymous",
        "api_url",
        "broker_ca_path",
        "ca_path",
        "caster_ca_path",
        "certificate_path",
        "create",
        "delivery",
        "directory",
        "directory_mode",
        "field_map",
        "fields",
        "force",
        "formats",
        "generation",
        "given_name",
        "group",
        "hardware_id",
        "health_command",
        "health_timeout",
        "keep",
        "keys_renew_before",
        "ledger_only",
        "max_age",
        "metrics_directory",
        "owner",
        "path",
        "paths",
        "position",
        "private_key_path",
        "proxy",
        "reload_command",
        "renew_before",
        "renew_spread",
        "results_from",
        "retries",
        "rotate_before",
        "secret_mode",
        "service",
        "sources",
        "spool",
        "spool_path",
        "state",
        "store_path",
        "tags",
        "templates",
        "things",
        "timeout",
        "token",
        "ucenter_path",
        "validate_certs",
        "vault_encrypted",
        "verifications_from",
        "verify",
        "waiting",
    )
)
# Variables that the role and the playbooks take or set in addition to the options.
_ROLE_VARIABLES = frozenset(("hardware_id_sources", "retire_tasks", "hardware", "duplicates", "result", "deactivated"))
_GROUP = "group/thingstream.ztp."


def check_variables(variables: Mapping[str, Any], prefix: str | None) -> None:
    """Refuse variables with the prefix whose names are no options: a misspelled hardware ID must not be ignored.

    :param variables: those of one host.
    :raises ProvisioningError: ``bad_option``.
    """
    if not prefix:
        return
    names = (name.removeprefix(prefix) for name in variables if name.startswith(prefix))
    unknown = sorted(name for name in names if name not in OPTIONS and name not in _ROLE_VARIABLES)
    if unknown:
        proposal = nearest(unknown[0], OPTIONS | _ROLE_VARIABLES, prefix)
        raise ProvisioningError(
            "bad_option",
            f"The variable {prefix}{unknown[0]} is unknown.{proposal} Every variable that begins with {prefix} must be "
            "an option: give a variable of your own another name.",
        )


def group_defaults(module_defaults: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the names of the options that ``module_defaults`` sets for the whole group of modules."""
    return {
        name
        for entry in module_defaults or ()
        for group, options in entry.items()
        if group.startswith(_GROUP) and isinstance(options, Mapping)
        for name in options
    }

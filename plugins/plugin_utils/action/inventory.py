# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the hosts of the inventory that have the same hardware ID, once for all hosts of a task.

Two gateways with one hardware ID get one Thing, or take it from each other.

Private to the collection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleError

from ..errors import ProvisioningError
from ..fleet.text import first_of
from ..gateway.hardware_id import duplicates
from ..platform.naming import hardware_id_of
from .values import is_template

# service to hardware ID to its hosts; only those that several hosts have
Shared = Mapping[str, Mapping[str, Sequence[str]]]


def check_is_unique(service: str, hardware_id: str, host: str, shared: Shared) -> None:
    """Refuse a hardware ID that other hosts of the inventory have for the same service.

    :param shared: what ``shared_hardware_ids`` returned.
    :raises ProvisioningError: ``bad_option``.
    """
    others = [other for other in shared.get(service, {}).get(hardware_id, ()) if other != host]
    if others:
        raise ProvisioningError(
            "bad_option",
            f"hardware_id of {host}: {hardware_id} is also that of {first_of(others)}, so that they would share one "
            "Thing. No request was sent. Correct the hardware ID of the wrong host, or remove that host from the "
            "inventory.",
        )


def shared_hardware_ids(variables: Mapping[str, Any], prefix: str, service: str) -> Shared:
    """Return the hardware IDs that several hosts of the inventory have, whether they are in this play or not.

    :param variables: those of one host, with ``hostvars`` and ``groups``.
    :param prefix: that of the variables that hold hardware ID, service and state.
    :param service: that of a host whose variables name none.
    """
    hardware_ids: dict[str, dict[str, str]] = defaultdict(dict)  # service to host to hardware ID
    for host in variables["groups"]["all"]:
        found = _identity(variables["hostvars"], host, prefix)
        if found is not None:
            hardware_ids[found[0] or service][host] = found[1]
    return {of_service: duplicates(ids) for of_service, ids in hardware_ids.items()}


def _identity(hostvars: Mapping[str, Any], host: str, prefix: str) -> tuple[str | None, str] | None:
    """Return service and hardware ID of a host; ``None`` if it has none that can be used, or is not to have a Thing."""
    names = [f"{prefix}{name}" for name in ("hardware_id", "service", "state")]
    try:
        hardware_id, service, state = host_values(hostvars, host, names)
        found = hardware_id_of(hardware_id, host)
    except (AnsibleError, ProvisioningError):
        return None  # the host's own task reports it
    return None if found is None or state == "absent" else (service, found)


def host_values(
    hostvars: Mapping[str, Any], host: str, names: Sequence[str], raw: Mapping[str, Any] | None = None
) -> list[Any]:
    """Return variables of a host of the inventory, ``None`` for those that it does not have.

    Only templates are rendered, because rendering takes milliseconds for each host.

    :param raw: the ``raw_values`` of the host, if the caller has read them.
    :raises AnsibleError: if a template cannot be rendered.
    """
    known = raw_values(hostvars, host) if raw is None else raw
    return [hostvars[host].get(name) if is_template(known.get(name)) else known.get(name) for name in names]


def registered(hostvars: Mapping[str, Any], host: str, name: str) -> Any:
    """Return what a task has registered on a host, ``None`` for a host without it.

    Ansible itself returns all variables of a host or none, which takes 2 ms for each host. Its store of results is in
    this place since ansible-core 2.16; a later one may keep it elsewhere.
    """
    try:
        return hostvars._variable_manager._nonpersistent_fact_cache.get(host, {}).get(name)  # type: ignore[attr-defined]
    except AttributeError:
        return raw_values(hostvars, host).get(name)


def raw_values(hostvars: Mapping[str, Any], host: str) -> Mapping[str, Any]:
    """Return all variables of a host without rendering them. It takes milliseconds, so call it once for each host."""
    found: Mapping[str, Any] = hostvars.raw_get(host)  # type: ignore[attr-defined]
    return found

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: observe, plan, apply.

Private to the collection.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ProvisioningError
from .apply import apply, predict
from .desired import Desired, Platform, Runtime, Source
from .observe import Observed, installed_credentials, observe, observe_before_change, read_recorded
from .outcome import Outcome
from .plan import Nothing, Plan, Request, needs_complete_observation, plan, plan_removal


def ensure_present(desired: Desired, source: Source, runtime: Runtime, *, check_mode: bool = False) -> Outcome:
    """Ensure that the gateway has sound credentials that are not due for renewal.

    :raises ProvisioningError: with one of ``errors.ERROR_CODES``; see there and in each layer.
    :raises GatewayUnreachable: if the connection fails.
    """
    if desired.vault_encrypted and runtime.encrypt is None:
        raise ProvisioningError(
            "bad_option", "vault_encrypted needs an Ansible Vault secret: set --vault-password-file, for example."
        )
    observed = observe(desired, source, runtime)
    planned = plan(desired, source, observed, runtime.now())
    if isinstance(planned, Nothing) and desired.verify == "always" and observed.is_installed and not check_mode:
        observed = _with_verification(observed, desired, runtime)
        planned = plan(desired, source, observed, runtime.now())
    if needs_complete_observation(planned, observed):
        runtime.check_inventory()
        observed = observe_before_change(observed, desired, source, runtime)
        planned = plan(desired, source, observed, runtime.now())
    return _execute(planned, desired, source, observed, runtime, check_mode=check_mode)


def ensure_absent(desired: Desired, source: Source, runtime: Runtime, *, check_mode: bool = False) -> Outcome:
    """Ensure that neither gateway nor spool has credentials, and that their Things are on the retirement list.

    :raises ProvisioningError: as ``ensure_present``, as far as the gateway and the spool are concerned.
    :raises GatewayUnreachable: if the connection fails.
    """
    observed = observe(desired, source, runtime)
    planned = plan_removal(desired, observed, runtime.now())
    if needs_complete_observation(planned, observed):
        observed = observe_before_change(observed, desired, source, runtime)
        planned = plan_removal(desired, observed, runtime.now())
    return _execute(planned, desired, source, observed, runtime, check_mode=check_mode)


def _execute(
    planned: Plan, desired: Desired, source: Source, observed: Observed, runtime: Runtime, *, check_mode: bool
) -> Outcome:
    if check_mode:
        if isinstance(planned, Request) and isinstance(source, Platform):
            runtime.reach(source.endpoint)
        return predict(planned, desired, observed, runtime)
    return apply(planned, desired, source, observed, runtime)


def _with_verification(observed: Observed, desired: Desired, runtime: Runtime) -> Observed:
    """Use the credentials in use; if a server refuses them beyond doubt and that is wanted, they are due.

    :raises ProvisioningError: as ``Runtime.verify_in_use`` and ``read_recorded``.
    """
    response = read_recorded(observed, runtime, vault_encrypted=desired.vault_encrypted)
    in_use = installed_credentials(observed, desired.service, desired.field_map, response, runtime)
    try:
        return replace(observed, unverified=runtime.verify_in_use(in_use))
    except ProvisioningError as error:
        if error.code != "credentials_refused" or not desired.renew_refused:
            raise
        return replace(observed, login_refused=True)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options for the verification of credentials.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ansible.module_utils.common.validation import check_type_bool

from ..errors import ProvisioningError
from ..platform import trust
from ..platform.credentials import Credentials
from ..verify import hosts

if TYPE_CHECKING:
    from ..verify.verification import Verification, VerifySettings

VERIFY_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "timeout": {"type": "float", "default": 20},
    "position": {"type": "list", "elements": "float"},
    "caster_ca_path": {"type": "path"},
    "allowed_hosts": {"type": "list", "elements": "str", "default": list(hosts.DEFAULT_HOSTS)},
}


def verify_of(value: Any, options: Mapping[str, Any]) -> Any:
    """Return the suboptions that ``true``, ``false`` or a value of ``when`` stands for.

    :param value: as given; everything else is returned as it is.
    :param options: the suboptions.
    """
    if isinstance(value, str) and value in options["when"]["choices"]:
        return {"when": value}
    try:
        return {} if check_type_bool(value) else {"when": "never"}
    except TypeError:
        return value


def verifier(
    arguments: Mapping[str, Any], broker_ca: str, *, any_host: bool = False, in_use: bool = False
) -> Callable[[Credentials], list[Verification]]:
    """Return a function that verifies credentials as validated arguments describe.

    :param arguments: the options of ``VERIFY_ARGUMENTS``.
    :param broker_ca: PEM text of the CA of the MQTT broker.
    :param any_host: whether the credentials may name any host, because they come from the platform itself.
    :param in_use: whether the credentials may be in use.
    :raises ProvisioningError: ``bad_option``.
    """
    make_settings = _settings_maker(arguments, broker_ca, any_host=any_host, in_use=in_use)

    def verify(credentials: Credentials) -> list[Verification]:
        # imported here, because importing paho-mqtt takes longer than a run in which nothing is due
        from ..verify import verification  # noqa: PLC0415

        return verification.verify(credentials, make_settings())

    return verify


def verifier_in_use(
    arguments: Mapping[str, Any], broker_ca: str, *, interrupt: bool
) -> Callable[[Credentials], str | None]:
    """Return a function that verifies credentials that a gateway stores and may be using; see ``verify_in_use``.

    :param interrupt: whether the consumer may be disconnected.
    :raises ProvisioningError: ``bad_option``.
    """
    make_settings = _settings_maker(arguments, broker_ca, any_host=False, in_use=True)

    def verify(credentials: Credentials) -> str | None:
        from ..verify import verification  # noqa: PLC0415

        return verification.verify_in_use(credentials, make_settings(), interrupt=interrupt)

    return verify


def _settings_maker(
    arguments: Mapping[str, Any], broker_ca: str, *, any_host: bool, in_use: bool
) -> Callable[[], VerifySettings]:
    """Check the arguments now; return a function that makes settings of them."""
    position = arguments["position"]
    if position is not None and not (len(position) == 2 and abs(position[0]) <= 90 and abs(position[1]) <= 180):
        raise ProvisioningError("bad_option", "position must be latitude and longitude in degrees: [52.52, 13.4].")
    if arguments["timeout"] <= 0:
        raise ProvisioningError("bad_option", "The timeout of a verification must be above 0 seconds.")
    allowed = hosts.AllowedHosts.parse(arguments["allowed_hosts"] or ())

    def make() -> VerifySettings:
        from ..verify import verification  # noqa: PLC0415

        return verification.VerifySettings(
            timeout=arguments["timeout"],
            position=(position[0], position[1]) if position else None,
            broker_ca=broker_ca,
            caster_ca_path=arguments["caster_ca_path"] or trust.DEFAULT_CA_BUNDLE.path,
            allowed_hosts=None if any_host else allowed,
            in_use=in_use,
        )

    return make

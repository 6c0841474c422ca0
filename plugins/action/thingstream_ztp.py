# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensure Thingstream credentials on a host; documented in the module of the same name."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import broker_ca, controller
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import templates as user_templates
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import (
    VARIABLES_ARGUMENTS,
    ZtpActionBase,
    from_environment,
    result_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.content_options import CONTENT_ARGUMENTS
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.inventory import (
    check_is_unique,
    shared_hardware_ids,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.once import once
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.renewal_options import (
    RENEWAL_ARGUMENTS,
    renewal_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.target_options import TARGET_ARGUMENTS, target_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.verify_options import (
    VERIFY_ARGUMENTS,
    verifier,
    verifier_in_use,
    verify_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import formats
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render as bundle
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import optional_date
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Platform, Runtime
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.ensure import ensure_absent, ensure_present
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.pasted import api_url_of, token_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, responses

VERIFY_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "when": {"type": "str", "default": "before_switch", "choices": ["never", "before_switch", "always"]},
    "renew_refused": {"type": "bool", "default": False},
    "interrupt": {"type": "bool", "default": False},
    **VERIFY_ARGUMENTS,
}


class ActionModule(ZtpActionBase):
    """The Ansible face of ``provision``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        **TARGET_ARGUMENTS,
        "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
        "create": {"type": "bool", "default": True},
        "token": {"type": "str", "no_log": True, "fallback": (from_environment, ["THINGSTREAM_ZTP_TOKEN"])},
        "hardware_id": {"type": "str"},
        "anonymous": {"type": "bool", "default": False},
        "allow_volatile": {"type": "bool", "default": False},
        "given_name": {"type": "str"},
        "tags": {"type": "list", "elements": "str"},
        "delivery": {"type": "str", "choices": ["mqtt", "ntrip", "lband"]},
        **CONTENT_ARGUMENTS,
        "vault_encrypted": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "rotate_before": {"type": "str"},
        **RENEWAL_ARGUMENTS,
        "verify": {"type": "dict", "options": VERIFY_OPTIONS},
        "api_url": {
            "type": "str",
            "default": api.DEFAULT_URL,
            "fallback": (from_environment, ["THINGSTREAM_API_URL"]),
        },
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path", "fallback": (from_environment, ["THINGSTREAM_CA_PATH"])},
        "proxy": {"type": "str", "no_log": True},
        "timeout": {"type": "float", "default": 30},
        "retries": {"type": "int", "default": 3},
        "activation_timeout": {"type": "float", "default": 120},
        "spool_path": {"type": "path", "default": directory.default_directory(C.ANSIBLE_HOME)},
        **VARIABLES_ARGUMENTS,
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def _given(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        given = super()._given(task_vars)
        return {**given, "verify": verify_of(given["verify"], VERIFY_OPTIONS)} if "verify" in given else given

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result for validated arguments."""
        host = str(task_vars.get("inventory_hostname", ""))
        templates = user_templates.read(self, arguments["templates"], task_vars)
        desired = _desired(arguments, templates, host)
        if arguments["state"] == "present" and desired.create and desired.hardware_id_problem:
            raise desired.hardware_id_problem  # now, and not only when a request is due
        source = _source(arguments, desired)
        runtime = replace(
            self._verifying_runtime(arguments, desired.target.layout.broker_ca),
            check_inventory=lambda: self._check_is_unique(arguments["variables_prefix"], desired, task_vars),
        )
        if self._task.check_mode and arguments["state"] == "present":
            runtime = self._with_readiness(source, runtime, tell=desired.create)
        ensure = ensure_absent if arguments["state"] == "absent" else ensure_present
        try:
            outcome = ensure(desired, source, runtime, check_mode=bool(self._task.check_mode))
        except ProvisioningError:
            # a spool that cannot be read must not replace the error of the task
            with contextlib.suppress(ProvisioningError):
                if runtime.encrypt is None and responses.entry_files(source.place):
                    self._display.warning(
                        f"{source.place}-* holds credentials that are not encrypted (mode 0600). Run with an Ansible "
                        "Vault secret to encrypt them."
                    )
            raise
        return result_of(outcome, desired.target, with_diff=bool(self._task.diff))

    def _verifying_runtime(self, arguments: Mapping[str, Any], broker_ca_text: str) -> Runtime:
        """Return a runtime that verifies credentials of the platform, and those that the gateway stores."""
        verify = arguments["verify"]
        if not verify:
            return self.runtime()
        any_host = bool(arguments["validate_certs"])  # otherwise anybody may have sent them
        return replace(
            self.runtime(verifier(verify, broker_ca_text, any_host=any_host)),
            verify_in_use=verifier_in_use(verify, broker_ca_text, interrupt=verify["interrupt"]),
        )

    def _check_is_unique(self, prefix: str | None, desired: Desired, task_vars: Mapping[str, Any]) -> None:
        """Compare the hardware ID with those of all other hosts, which are known where they come from variables.

        :param prefix: the prefix of these variables, if the options come from variables.
        """
        if desired.hardware_id is None or not prefix:
            return
        service = desired.service.name
        shared = once(self._cache(prefix), lambda: shared_hardware_ids(task_vars, prefix, service))
        check_is_unique(service, desired.hardware_id, desired.host, shared)

    def _with_readiness(self, source: Platform, runtime: Runtime, *, tell: bool) -> Runtime:
        """Check the controller once for all hosts with the same settings, and say in one line what was found."""
        settings = f"{source.endpoint} {source.endpoint.proxy} {source.place.parent}"

        def check() -> dict[str, Any]:
            found = controller.check(source, runtime)
            (self._display.display if found["is_ready"] else self._display.warning)(found["message"])
            return found

        def readiness() -> controller.Readiness:
            return controller.Readiness(**once(self._cache(hashlib.sha256(settings.encode()).hexdigest()), check))

        if tell:
            readiness()
        return replace(runtime, reach=lambda _endpoint: readiness().require_api())

    def _cache(self, name: str) -> Path:
        """Return the path of the file for a result that is computed once for all hosts of this task."""
        return Path(C.DEFAULT_LOCAL_TMP, f"thingstream-{self._task._uuid}-{name}.json")


def _desired(arguments: Mapping[str, Any], templates: bundle.Templates | None, host: str) -> Desired:
    service = SERVICES[arguments["service"]]
    credentials.check_field_map(arguments["field_map"])
    verify = arguments["verify"] or {}
    chosen = tuple(arguments["formats"]) if arguments["formats"] is not None else None
    if arguments["vault_encrypted"]:
        if chosen or templates:
            raise ProvisioningError(
                "bad_option", "vault_encrypted writes no files for consumers: remove formats and templates."
            )
        chosen = ()
    if arguments["delivery"] not in (None, *service.deliveries):
        raise ProvisioningError(
            "bad_option",
            f"delivery: {service.name} has {' and '.join(service.deliveries)}, not {arguments['delivery']}.",
        )
    formats.check_formats(
        arguments["formats"], [arguments["delivery"]] if arguments["delivery"] else service.deliveries
    )
    trusted = broker_ca.read(arguments["broker_ca_path"])
    return Desired(
        service=service,
        host=host,
        hardware_id=arguments["hardware_id"],
        anonymous=arguments["anonymous"],
        allow_volatile=arguments["allow_volatile"],
        given_name=arguments["given_name"] or api.default_given_name(host),
        target=target_of(arguments, service, trusted),
        renewal=renewal_of(arguments),
        delivery=arguments["delivery"],
        formats=chosen,
        templates=templates,
        vault_encrypted=arguments["vault_encrypted"],
        field_map=arguments["field_map"],
        broker_ca_sha256=bundle.digest(trusted.encode()),
        create=arguments["create"],
        force=arguments["force"],
        rotate_before=_date("rotate_before", arguments["rotate_before"]),
        verify=verify.get("when") or "never",
        renew_refused=bool(verify.get("renew_refused")),
    )


def _source(arguments: Mapping[str, Any], desired: Desired) -> Platform:
    for name, least in (("retries", 0), ("timeout", 0.001), ("activation_timeout", 0)):
        if arguments[name] < least:
            raise ProvisioningError("bad_option", f"{name} must not be below {least}.")
    service, spool_path = desired.service, arguments["spool_path"]
    gateway = f"{desired.host} {desired.target.path}"
    return Platform(
        token=_token(arguments),
        endpoint=api.Endpoint(
            url=api_url_of(arguments["api_url"], service) + service.path,
            validate_certs=arguments["validate_certs"],
            ca_path=arguments["ca_path"],
            proxy=arguments["proxy"],
            timeout=arguments["timeout"],
            retries=arguments["retries"],
        ),
        tags=tuple(arguments["tags"]) if arguments["tags"] is not None else None,
        activation_timeout=arguments["activation_timeout"],
        place=directory.location(spool_path, service.name, desired.hardware_id, gateway),
        make_spool_parents=spool_path == ActionModule.ARGUMENTS["spool_path"]["default"],
    )


def _token(arguments: Mapping[str, Any]) -> str | None:
    """Return the token, or ``None``; a token that no request needs is not checked."""
    if arguments["state"] == "absent" or not arguments["token"]:
        return None
    token = token_of(arguments["token"])
    for name in ("hardware_id", "given_name"):
        if token is not None and token in (arguments[name] or "").lower():
            raise ProvisioningError("bad_option", f"{name} contains the token. Set {name} to that of the gateway.")
    return token


def _date(name: str, value: str | None) -> datetime | None:
    try:
        return optional_date(value)
    except ValueError:
        raise ProvisioningError("bad_option", f"{name} must be a date in UTC such as 2026-11-22T04:13:00Z.") from None

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensures Thingstream credentials on the host it is aimed at; documented in the module of the same name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import broker_ca
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import templates as user_templates
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import (
    ZtpActionBase,
    from_environment,
    result_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.renewal_options import (
    RENEWAL_ARGUMENTS,
    renewal_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.target_options import TARGET_ARGUMENTS, target_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.templates import TEMPLATE_OPTIONS
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.verify_options import VERIFY_ARGUMENTS, prover
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import formats
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render as bundle
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import policy, provision
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.order import Order
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool

VERIFY_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "when": {"type": "str", "default": "before_switch", "choices": ["never", "before_switch", "always"]},
    "renew_refused": {"type": "bool", "default": False},
    **VERIFY_ARGUMENTS,
}


class ActionModule(ZtpActionBase):
    """The Ansible face of ``provision``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "service": {"type": "str", "required": True, "choices": sorted(SERVICES)},
        "state": {"type": "str", "default": "present", "choices": ["present", "renewed", "absent"]},
        "token": {"type": "str", "no_log": True, "fallback": (from_environment, ["THINGSTREAM_ZTP_TOKEN"])},
        "hardware_id": {"type": "str"},
        "given_name": {"type": "str"},
        "tags": {"type": "list", "elements": "str"},
        "delivery": {"type": "str", "choices": ["mqtt", "ntrip", "lband"]},
        **TARGET_ARGUMENTS,
        "formats": {"type": "list", "elements": "str", "choices": sorted(formats.FORMATS)},
        "templates": {"type": "list", "elements": "dict", "default": [], "options": TEMPLATE_OPTIONS},
        "sealed": {"type": "bool", "default": False},
        "field_map": {"type": "dict", "default": {}},
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
        "client_cert": {"type": "path"},
        "client_key": {"type": "path", "no_log": False},
        "proxy": {"type": "str", "no_log": True},
        "timeout": {"type": "float", "default": 30},
        "retries": {"type": "int", "default": 3},
        "repeatable": {"type": "bool"},
        "activation_timeout": {"type": "float", "default": 120},
        "broker_ca_path": {"type": "path"},
        "spool_path": {"type": "path", "default": spool.default_directory(C.ANSIBLE_HOME)},
        "variables_prefix": {"type": "str"},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Validated arguments in, result out."""
        templates = user_templates.read(self, arguments["templates"], task_vars)
        order = _order(arguments, templates, str(task_vars.get("inventory_hostname", "")))
        verify = arguments["verify"]
        runtime = self.runtime(prover(verify, order.target.layout.broker_ca) if verify else None)
        ensure = provision.ensure_absent if arguments["state"] == "absent" else provision.ensure_present
        try:
            outcome = ensure(order, runtime, check_mode=bool(self._task.check_mode))
        except ProvisioningError:
            # spool that is refused is no reason to tell less of what has failed
            with contextlib.suppress(ProvisioningError):
                if runtime.encrypt is None and spool.files(order.spool_place):
                    self._display.warning(
                        f"{order.spool_place}-* holds credentials that are not encrypted (mode 0600); with an Ansible "
                        "Vault secret they would be."
                    )
            raise
        return result_of(outcome, order.target, with_diff=bool(self._task.diff))


def _order(arguments: Mapping[str, Any], templates: bundle.Templates | None, inventory_name: str) -> Order:
    service = SERVICES[arguments["service"]]
    credentials.check_field_map(arguments["field_map"])
    verify = arguments["verify"] or {}
    chosen = tuple(arguments["formats"]) if arguments["formats"] is not None else None
    if arguments["sealed"]:
        if chosen or templates:
            raise ProvisioningError("bad_option", "A sealed store has no formats and no templates: nobody reads it.")
        chosen = ()
    trusted = broker_ca.read(arguments["broker_ca_path"])
    target = target_of(arguments, service, trusted)
    given_name = arguments["given_name"]
    if given_name is None:
        given_name = api.default_given_name(inventory_name)
    hardware_id = arguments["hardware_id"] or None
    repeatable = arguments["repeatable"]
    if arguments["delivery"] not in (None, *service.deliveries):
        raise ProvisioningError(
            "bad_option",
            f"delivery: {service.name} has {' and '.join(service.deliveries)}, not {arguments['delivery']}.",
        )
    formats.check_formats(
        arguments["formats"], [arguments["delivery"]] if arguments["delivery"] else service.deliveries
    )
    for name, least in (("retries", 0), ("timeout", 0.001), ("activation_timeout", 0)):
        if arguments[name] < least:
            raise ProvisioningError("bad_option", f"{name} must not be below {least}.")
    return Order(
        service=service,
        wanted=policy.Wanted(
            service=service.name,
            hardware_id=hardware_id,
            delivery=arguments["delivery"],
            rotate_before=_moment("rotate_before", arguments["rotate_before"]),
            formats=chosen,
            templates_sha256=templates.sha256 if templates else None,
            broker_ca_sha256=bundle.digest(trusted.encode()),
            force=arguments["force"],
            **renewal_of(arguments),
        ),
        target=target,
        token=arguments["token"],
        given_name=given_name,
        tags=tuple(arguments["tags"]) if arguments["tags"] is not None else None,
        field_map=arguments["field_map"],
        endpoint=api.Endpoint(
            url=arguments["api_url"].rstrip("/") + service.path,
            validate_certs=arguments["validate_certs"],
            ca_path=arguments["ca_path"],
            client_cert=arguments["client_cert"],
            client_key=arguments["client_key"],
            proxy=arguments["proxy"],
            timeout=arguments["timeout"],
            retries=arguments["retries"],
        ),
        # without a hardware ID every request creates a Thing
        repeatable=(service.repeatable and hardware_id is not None) if repeatable is None else repeatable,
        activation_timeout=arguments["activation_timeout"],
        spool_place=spool.location(
            arguments["spool_path"], service.name, hardware_id, f"{inventory_name} {target.layout.path}"
        ),
        spool_make_parents=arguments["spool_path"] == ActionModule.ARGUMENTS["spool_path"]["default"],
        templates=templates,
        sealed=arguments["sealed"],
        only_installed=arguments["state"] == "renewed",
        proving=verify.get("when") or "never",
        renew_refused=bool(verify.get("renew_refused")),
    )


def _moment(name: str, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return policy.moment({name: value}, name)
    except ValueError:
        raise ProvisioningError("bad_option", f"{name} must be a date in UTC such as 2026-11-22T04:13:00Z.") from None

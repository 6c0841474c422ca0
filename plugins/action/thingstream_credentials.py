# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Handles credentials without the platform; documented in the module of the same name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import broker_ca
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import templates as user_templates
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import ZtpActionBase, result_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.target_options import TARGET_ARGUMENTS, target_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.templates import TEMPLATE_OPTIONS
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import formats
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render as bundle
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import (
    policy,
    provision,
    retirement,
    rollback,
    sources,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.order import Order, Outcome, Target
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES, Service
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import responses as spool

_SOURCES = ("ucenter_path", "certificate_path", "fields", "store_path")


class ActionModule(ZtpActionBase):
    """The Ansible face of ``sources``, ``rollback`` and ``retirement``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "service": {"type": "str", "required": True, "choices": sorted(SERVICES)},
        "state": {"type": "str", "default": "present", "choices": ["present", "rolled_back", "retired"]},
        "ucenter_path": {"type": "path"},
        "certificate_path": {"type": "path"},
        "private_key_path": {"type": "path", "no_log": False},
        "fields": {"type": "dict", "no_log": True},
        "store_path": {"type": "path"},
        "hardware_id": {"type": "str"},
        "given_name": {"type": "str"},
        "formats": {"type": "list", "elements": "str", "choices": sorted(formats.FORMATS)},
        "templates": {"type": "list", "elements": "dict", "default": [], "options": TEMPLATE_OPTIONS},
        "field_map": {"type": "dict", "default": {}},
        "broker_ca_path": {"type": "path"},
        "generation": {"type": "str"},
        "force": {"type": "bool", "default": False},
        "things": {"type": "list", "elements": "dict", "default": []},
        **TARGET_ARGUMENTS,
        "variables_prefix": {"type": "str"},
    }
    VALIDATOR = ArgumentSpecValidator(
        dict(ARGUMENTS),
        required_together=[["certificate_path", "private_key_path"]],
        mutually_exclusive=[["ucenter_path", "certificate_path", "store_path"]],
        required_if=[["state", "present", _SOURCES, True]],
    )

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Validated arguments in, result out."""
        service = SERVICES[arguments["service"]]
        trusted = broker_ca.read(arguments["broker_ca_path"])
        target = target_of(arguments, service, trusted)
        perform = {"present": self._install, "rolled_back": self._roll_back, "retired": self._retire}
        outcome = perform[arguments["state"]](arguments, service, target, task_vars)
        result = result_of(outcome, target, with_diff=bool(self._task.diff))
        del result["due_at"]  # depends on options of thingstream_ztp
        return result

    def _install(
        self, arguments: Mapping[str, Any], service: Service, target: Target, task_vars: Mapping[str, Any]
    ) -> Outcome:
        credentials.check_field_map(arguments["field_map"])
        source = _source(arguments, service, self.decrypter())
        templates = user_templates.read(self, arguments["templates"], task_vars)
        given_name = arguments["given_name"] or source.given_name
        if given_name is None:
            given_name = api.default_given_name(str(task_vars.get("inventory_hostname", "")))
        hardware_id = arguments["hardware_id"] or source.hardware_id
        order = Order(
            service=service,
            # by a date nothing is due here: there is nobody to ask
            wanted=policy.Wanted(
                service=service.name,
                hardware_id=hardware_id,
                formats=tuple(arguments["formats"]) if arguments["formats"] is not None else None,
                templates_sha256=templates.sha256 if templates else None,
                broker_ca_sha256=bundle.digest(target.layout.broker_ca.encode()),
                force=arguments["force"],
                renew_before="0",
                keys_renew_before_days=0,
            ),
            target=target,
            token=None,
            given_name=given_name,
            tags=None,
            field_map=arguments["field_map"],
            endpoint=api.Endpoint(url=""),
            repeatable=True,
            activation_timeout=0,
            spool_place=spool.location("/", service.name, hardware_id, target.layout.path),
            templates=templates,
            origin=source.origin,
            answer=source.answer,
            answered_at=source.answered_at,
        )
        return provision.ensure_present(order, self.runtime(), check_mode=bool(self._task.check_mode))

    def _roll_back(
        self, arguments: Mapping[str, Any], _service: Service, target: Target, _task_vars: Mapping[str, Any]
    ) -> Outcome:
        generation, force = arguments["generation"] or None, arguments["force"]
        check_mode = bool(self._task.check_mode)
        return rollback.ensure_rolled_back(target, self.runtime(), generation, force=force, check_mode=check_mode)

    def _retire(
        self, arguments: Mapping[str, Any], _service: Service, target: Target, _task_vars: Mapping[str, Any]
    ) -> Outcome:
        if not all(isinstance(thing.get("service"), str) for thing in arguments["things"]):
            raise ProvisioningError("bad_option", "things are entries of the list retired of a record.")
        check_mode = bool(self._task.check_mode)
        return retirement.ensure_retired(target, self.runtime(), arguments["things"], check_mode=check_mode)


@dataclass(frozen=True)
class _Source:
    """An answer that came from elsewhere, and what is known of it."""

    origin: str
    answer: bytes = field(repr=False)
    hardware_id: str | None = None
    given_name: str | None = None
    answered_at: datetime | None = None


def _source(arguments: Mapping[str, Any], service: Service, decrypt: spool.Cipher) -> _Source:
    if arguments["store_path"]:
        return _from_store(Path(arguments["store_path"]), service, decrypt)
    fields = dict(arguments["fields"] or {})
    origin = "fields"
    if arguments["ucenter_path"]:
        origin = "ucenter"
        fields = {**sources.ucenter_fields(_text("ucenter_path", arguments["ucenter_path"], decrypt)), **fields}
    elif arguments["certificate_path"]:
        origin = "files"
        for name in ("certificate", "private_key"):
            fields[name] = _text(f"{name}_path", arguments[f"{name}_path"], decrypt)
    return _Source(origin, sources.answer_of(fields, service, arguments["field_map"]))


def _from_store(path: Path, service: Service, decrypt: spool.Cipher) -> _Source:
    try:
        record = policy.readable(json.loads(_text("store_path", path / "current" / "thing.json", decrypt)))
    except ValueError:
        record = None
    if record is None or record["service"] != service.name:
        raise ProvisioningError("bad_option", f"store_path: {path} is no store of credentials for {service.name}.")
    answer = _text("store_path", path / "current" / "credentials.json", decrypt).encode()
    return _Source("store", answer, record["hardware_id"], record["given_name"], policy.moment(record, "issued_at"))


def _text(option: str, path: str | Path, decrypt: spool.Cipher) -> str:
    """A file on the controller; one that Ansible Vault has encrypted in clear."""
    try:
        return decrypt(Path(path).read_bytes()).decode("utf-8")
    except OSError as error:
        raise ProvisioningError("bad_option", f"{option}: cannot read {path}: {error.strerror}.") from None
    except ValueError:
        raise ProvisioningError(
            "bad_option", f"{option}: {path} is no text, or encrypted with another Ansible Vault secret."
        ) from None

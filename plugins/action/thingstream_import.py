# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install credentials that came from elsewhere; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import broker_ca
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import templates as user_templates
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.base import (
    VARIABLES_ARGUMENTS,
    ZtpActionBase,
    result_of,
)
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.content_options import CONTENT_ARGUMENTS
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.target_options import TARGET_ARGUMENTS, target_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle import render as bundle
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.record import Record
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import sources
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Given
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.ensure import ensure_present
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES, Service
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.directory import Cipher

_SOURCES = ["ucenter_path", "certificate_path", "fields", "store_path"]


class ActionModule(ZtpActionBase):
    """The Ansible face of ``sources``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        **TARGET_ARGUMENTS,
        "ucenter_path": {"type": "path"},
        "certificate_path": {"type": "path"},
        "private_key_path": {"type": "path", "no_log": False},
        "fields": {"type": "dict", "no_log": True},
        "store_path": {"type": "path"},
        "hardware_id": {"type": "str"},
        "given_name": {"type": "str"},
        **CONTENT_ARGUMENTS,
        "force": {"type": "bool", "default": False},
        **VARIABLES_ARGUMENTS,
    }
    VALIDATOR = ArgumentSpecValidator(
        dict(ARGUMENTS),
        required_together=[["certificate_path", "private_key_path"]],
        mutually_exclusive=[["ucenter_path", "certificate_path", "store_path"], ["fields", "store_path"]],
        required_one_of=[_SOURCES],
    )

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result for validated arguments."""
        service = SERVICES[arguments["service"]]
        target = target_of(arguments, service, broker_ca.read(arguments["broker_ca_path"]))
        credentials.check_field_map(arguments["field_map"])
        found = _read(arguments, service, self.decrypter())
        templates = user_templates.read(self, arguments["templates"], task_vars)
        host = str(task_vars.get("inventory_hostname", ""))
        desired = Desired(
            service=service,
            host=host,
            hardware_id=arguments["hardware_id"] or found.hardware_id,
            given_name=arguments["given_name"] or found.given_name or api.default_given_name(host),
            target=target,
            # nothing is due by a date, because there is no platform to request something from
            renewal=RenewalPolicy.parse("0", 0, 0),
            formats=tuple(arguments["formats"]) if arguments["formats"] is not None else None,
            templates=templates,
            field_map=arguments["field_map"],
            broker_ca_sha256=bundle.digest(target.layout.broker_ca.encode()),
            force=arguments["force"],
        )
        outcome = ensure_present(desired, found.source, self.runtime(), check_mode=bool(self._task.check_mode))
        # dates of renewals depend on options of thingstream_ztp
        return result_of(outcome, target, with_diff=bool(self._task.diff), without=["due_at"])


@dataclass(frozen=True)
class _Found:
    """A response from files of the user, and what they say of its Thing."""

    source: Given
    hardware_id: str | None = None
    given_name: str | None = None


def _read(arguments: Mapping[str, Any], service: Service, decrypt: Cipher) -> _Found:
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
    return _Found(Given(sources.response_of(fields, service, arguments["field_map"]), origin))


def _from_store(path: Path, service: Service, decrypt: Cipher) -> _Found:
    record = Record.parse(_text("store_path", path / "current" / "thing.json", decrypt))
    if record is None or record.service != service.name:
        raise ProvisioningError("bad_option", f"store_path: {path} is no store of credentials for {service.name}.")
    response = _text("store_path", path / "current" / "credentials.json", decrypt).encode()
    return _Found(Given(response, "store", record.issued_at), record.hardware_id, record.given_name)


def _text(option: str, path: str | Path, decrypt: Cipher) -> str:
    """A file on the controller; one that Ansible Vault has encrypted in clear."""
    try:
        return decrypt(Path(path).read_bytes()).decode("utf-8")
    except OSError as error:
        raise ProvisioningError("bad_option", f"{option}: cannot read {path}: {error.strerror}.") from None
    except ValueError:
        raise ProvisioningError(
            "bad_option", f"{option}: {path} is no text, or encrypted with another Ansible Vault secret."
        ) from None

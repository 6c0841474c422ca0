# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install credentials that came from elsewhere; documented in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
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
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import sources
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.desired import Desired, Given
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.ensure import ensure_present
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job.renewal import RenewalPolicy
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, credentials
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES, Service
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.user_files import (
    MAX_USER_FILE,
    UserFile,
    refuse,
    text_of,
)
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
    """Read the source and check it, whether or not the gateway needs it.

    The dates of a certificate are left out: a gateway may have a newer one by now.
    """
    found = (
        _from_store(arguments, service, decrypt)
        if arguments["store_path"]
        else _from_files(arguments, service, decrypt)
    )
    sources.parse_given(found.source, service, arguments["field_map"], datetime.min.replace(tzinfo=timezone.utc))
    return found


def _from_files(arguments: Mapping[str, Any], service: Service, decrypt: Cipher) -> _Found:
    given = arguments["fields"] or {}
    origin, names = "fields", ["fields"] if given else []
    ucenter_file = pair_files = None
    if arguments["ucenter_path"]:
        origin, ucenter_file = "ucenter", _file("ucenter_path", arguments["ucenter_path"], decrypt)
        names = [ucenter_file.name, *names]
    elif arguments["certificate_path"]:
        certificate = _file("certificate_path", arguments["certificate_path"], decrypt)
        origin, pair_files = "files", (certificate, _file("private_key_path", arguments["private_key_path"], decrypt))
        names = [certificate.name, *names]
    fields = sources.fields_of(given, ucenter_file, pair_files)
    response = sources.response_of(fields, service, arguments["field_map"])
    return _Found(Given(response, origin, name=" with ".join(names)))


def _from_store(arguments: Mapping[str, Any], service: Service, decrypt: Cipher) -> _Found:
    path = Path(arguments["store_path"]) / "current"
    record_file = _file("store_path", path / "thing.json", decrypt)
    record = Record.parse(text_of(record_file))
    if record is None:
        raise refuse(record_file.name, "is not the record of a store")
    if record.service != service.name:
        raise refuse(record_file.name, f"is of the service {record.service}, not {service.name}")
    response = _file("store_path", path / "credentials.json", decrypt)
    source = Given(text_of(response).encode(), "store", record.issued_at, response.name)
    return _Found(source, record.hardware_id, record.given_name)


def _file(option: str, path: str | Path, decrypt: Cipher) -> UserFile:
    """Read a file on the controller; decrypt it if Ansible Vault has encrypted it."""
    name = f"{option}: {path}"
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_USER_FILE + 1)
    except OSError as error:
        raise refuse(name, f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise refuse(option, "is not a path") from None
    try:
        return UserFile(name, decrypt(content))
    except ValueError:
        raise refuse(name, "is encrypted with Ansible Vault, and no Vault secret of this run decrypts it") from None

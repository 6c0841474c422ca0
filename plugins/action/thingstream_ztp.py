# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensures Thingstream credentials on the host it is aimed at; documented in the module of the same name."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import secrets
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.basic import env_fallback
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.vault import is_encrypted
from ansible_collections.thingstream.ztp.plugins.plugin_utils import api, bundle, credentials, escrow, policy, provision
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action_base import ZtpActionBase
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.modes import MODE_ARGUMENTS, mode
from ansible_collections.thingstream.ztp.plugins.plugin_utils.services import SERVICES

DEFAULT_ESCROW = f"{C.ANSIBLE_HOME}/thingstream/escrow"


class ActionModule(ZtpActionBase):
    """The Ansible face of ``provision``."""

    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
        "service": {"type": "str", "required": True, "choices": sorted(SERVICES)},
        "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
        "token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["THINGSTREAM_ZTP_TOKEN"])},
        "hardware_id": {"type": "str"},
        "given_name": {"type": "str"},
        "tags": {"type": "list", "elements": "str"},
        "path": {"type": "str"},
        "owner": {"type": "str"},
        "group": {"type": "str"},
        **MODE_ARGUMENTS,
        "formats": {"type": "list", "elements": "str", "choices": sorted(bundle.FORMATS)},
        "field_map": {"type": "dict", "default": {}},
        "force": {"type": "bool", "default": False},
        "renew_before": {"type": "str", "default": "30"},
        "renew_spread": {"type": "float", "default": 7},
        "keys_renew_before": {"type": "float", "default": 14},
        "max_age": {"type": "float"},
        "keep": {"type": "int", "default": 2},
        "api_url": {
            "type": "str",
            "default": api.DEFAULT_URL,
            "fallback": (env_fallback, ["THINGSTREAM_API_URL"]),
        },
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path"},
        "client_cert": {"type": "path"},
        "client_key": {"type": "path", "no_log": False},
        "proxy": {"type": "str", "no_log": True},
        "timeout": {"type": "float", "default": 30},
        "retries": {"type": "int", "default": 3},
        "repeatable": {"type": "bool"},
        "activation_timeout": {"type": "float", "default": 120},
        "broker_ca_path": {"type": "path"},
        "escrow_path": {"type": "path", "default": DEFAULT_ESCROW},
        "variables_prefix": {"type": "str"},
    }
    VALIDATOR = ArgumentSpecValidator(dict(ARGUMENTS))

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Validated arguments in, result out."""
        order = _order(arguments, str(task_vars.get("inventory_hostname", "")))
        world = self._world()
        ensure = provision.ensure_absent if arguments["state"] == "absent" else provision.ensure_present
        try:
            outcome = ensure(order, world, check_mode=bool(self._task.check_mode))
        except ProvisioningError:
            if world.encrypt is None and order.escrow_file.exists():
                self._display.warning(
                    f"{order.escrow_file} holds credentials that are not encrypted (mode 0600); with an Ansible Vault "
                    "secret they would be."
                )
            raise
        return _result(outcome, order, with_diff=bool(self._task.diff))

    def _world(self) -> provision.World:
        vault = self._loader._vault  # the secrets that this run was given

        def decrypt(content: bytes) -> bytes:
            if not is_encrypted(content):
                return content
            try:
                return bytes(vault.decrypt(content))
            except AnsibleError:
                raise ValueError("cannot be decrypted") from None

        return provision.World(
            execute=self.execute,
            post=api.post,
            now=lambda: datetime.now(timezone.utc),
            sleep=time.sleep,
            uniform=random.uniform,
            nonce=lambda: secrets.token_hex(8),
            encrypt=vault.encrypt if vault.secrets else None,
            decrypt=decrypt,
        )


def _order(arguments: Mapping[str, Any], inventory_name: str) -> provision.Order:
    service = SERVICES[arguments["service"]]
    credentials.check_field_map(arguments["field_map"])
    path = arguments["path"] or f"/etc/thingstream/{service.name}"
    broker_ca = _broker_ca(arguments["broker_ca_path"])
    given_name = arguments["given_name"]
    if given_name is None:
        given_name = api.default_given_name(inventory_name)
    hardware_id = arguments["hardware_id"] or None
    repeatable = arguments["repeatable"]
    for name, least in (("keep", 0), ("retries", 0), ("timeout", 0.001), ("activation_timeout", 0)):
        if arguments[name] < least:
            raise ProvisioningError("bad_option", f"{name} must not be below {least}.")
    return provision.Order(
        service=service,
        wanted=policy.Wanted(
            service=service.name,
            hardware_id=hardware_id,
            formats=tuple(arguments["formats"]) if arguments["formats"] is not None else None,
            broker_ca_sha256=bundle.digest(broker_ca.encode()),
            force=arguments["force"],
            renew_before=arguments["renew_before"],
            renew_spread_days=arguments["renew_spread"],
            keys_renew_before_days=arguments["keys_renew_before"],
            max_age_days=arguments["max_age"],
        ),
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
        layout=bundle.Layout(
            path=path,
            secret_mode=mode("secret_mode", arguments["secret_mode"]),
            public_mode=mode("public_mode", arguments["public_mode"]),
            broker_ca=broker_ca,
        ),
        directory_mode=mode("directory_mode", arguments["directory_mode"]),
        owner=arguments["owner"] or None,
        group=arguments["group"] or None,
        keep=arguments["keep"],
        escrow_file=escrow.location(arguments["escrow_path"], service.name, hardware_id, given_name),
    )


@functools.cache
def _broker_ca(path: str | None) -> str:
    source = path or api.CA_BUNDLE
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ProvisioningError("bad_option", f"Cannot read {source} on the controller: see broker_ca_path.") from None
    if path is None:
        return bundle.broker_ca(text)
    if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY" in text:
        raise ProvisioningError("bad_option", "broker_ca_path must hold certificates in PEM and no key.")
    return text


# read once, before Ansible forks its workers
with contextlib.suppress(ProvisioningError):
    _broker_ca(None)


def _result(outcome: provision.Outcome, order: provision.Order, with_diff: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "changed": outcome.changed,
        "action": outcome.action,
        "reason": outcome.reason,
        "path": order.layout.path,
        "generation": outcome.generation,
        "thing": outcome.thing,
        "files": list(outcome.files),
        "due_at": policy.timestamp(outcome.due_at),
    }
    if with_diff and outcome.changed:
        before, after = outcome.before, outcome.thing
        result["diff"] = {
            "before_header": f"{order.layout.path} (before)",
            "after_header": f"{order.layout.path} ({outcome.action}: {outcome.reason})",
            "before": _diff_text(before),
            "after": _diff_text(after),
        }
    return result


def _diff_text(record: Mapping[str, Any] | None) -> str:
    return json.dumps(record, indent=2, sort_keys=True) + "\n" if record else ""

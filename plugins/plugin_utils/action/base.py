# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared parts of the action plugins: validate arguments, use the connection, turn errors into results.

Private to the collection.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.basic import missing_required_lib
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import AnsibleFallbackNotFound
from ansible.parsing.vault import is_encrypted
from ansible.plugins.action import ActionBase

from ..bundle.dates import optional_timestamp
from ..errors import GatewayUnreachable, ProvisioningError
from ..job.desired import Runtime, Target
from ..job.outcome import Outcome
from ..platform import api, trust
from ..platform.credentials import JMESPATH_MISSING
from ..platform.key_pair import CRYPTOGRAPHY_MISSING
from ..spool.directory import Cipher
from . import connection as link
from .environment import without_secrets
from .values import in_clear, is_template, typed
from .variables import OPTIONS, check_variables, group_defaults

VARIABLES_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {"variables_prefix": {"type": "str"}}

_MAX_STANDARD_ERROR = 4096  # characters; the reason of a failure is at the end
_LIBRARIES = (
    ("cryptography", CRYPTOGRAPHY_MISSING),
    ("jmespath", JMESPATH_MISSING),
    ("requests", trust.REQUESTS_MISSING),
)


def from_environment(name: str) -> str:
    """Return the value of an environment variable for an option that is not set.

    An empty variable counts as not set: a field that is left blank in a credential of AWX arrives as one.

    :raises AnsibleFallbackNotFound: if there is none.
    """
    value = os.environ.get(name)
    if not value:
        raise AnsibleFallbackNotFound
    return value


class ZtpActionBase(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """An action plugin with the manners of a module.

    A subclass has ``ARGUMENTS``, the ``VALIDATOR`` made of them at import, once for all hosts, and ``perform``.
    """

    TRANSFERS_FILES = False  # no temporary directory on the gateway
    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {}
    VALIDATOR = ArgumentSpecValidator({})
    _token: str | None = None

    def perform(self, arguments: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Do the job with validated arguments and return the result, which contains ``changed``."""
        raise NotImplementedError

    def run(self, tmp: None = None, task_vars: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the result to Ansible.

        A result with ``unreachable`` has the same effect as ``AnsibleConnectionFailure``.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        for library, problem in _LIBRARIES:
            if problem is not None:
                return {**result, "failed": True, "msg": missing_required_lib(library)}
        try:
            arguments = self._validated(task_vars or {})
            self._token = arguments.get("token")
            result.update(self.perform(arguments, task_vars or {}))
        except ProvisioningError as error:
            result.update(failed=True, changed=False, msg=error.message, error_code=error.code, status=error.status)
        except GatewayUnreachable as error:
            result.update(unreachable=True, changed=False, msg=error.message, error_code="unreachable")
        return result

    def execute(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        """Run one command on the gateway; see ``protocol.Execute``.

        :raises GatewayUnreachable: if the connection fails.
        :raises ProvisioningError: ``gateway_unsupported``; ``permission`` if the become method wants another password;
            ``unreachable`` if the connection cannot be used as it is configured.
        """
        link.check_connection(self._connection)
        if secret and C.DEFAULT_DEBUG:
            raise ProvisioningError(
                "gateway_unsupported",
                "With ANSIBLE_DEBUG set, Ansible would print the secret that must be read: run without it.",
            )
        if self._connection.transport == "local":
            # without it, a become method that asks for a password gets a terminal instead of standard input
            self._connection.set_option("pipelining", True)
        # At -vvv the ssh connection prints what a command answers, unless its own context says otherwise.
        context = self._connection._play_context
        no_log = context.no_log
        context.no_log = no_log or secret
        try:
            # Without the name of the shell Ansible appends a `sleep`, against a race of terminals. There is none here,
            # and the gateway layer notices output that was cut.
            with without_secrets(self._token):
                answer = self._low_level_execute_command(
                    link.TERMINAL_CHECK + command, in_data=standard_input, executable=self._play_context.executable
                )
        except AnsibleError as error:
            raise link.described(error, self._connection.become) from None
        finally:
            context.no_log = no_log
        status, output, complaint = answer["rc"], answer["stdout"], answer["stderr"][-_MAX_STANDARD_ERROR:]
        link.check_terminal(self._connection, status, output)
        if status != 0 and not output and self._connection.become:
            problem = link.become_problem(self._connection.become, complaint)
            if problem is not None:
                raise problem
        return status, output, complaint

    def runtime(self, verify: Callable[..., object] | None = None) -> Runtime:
        """Return the runtime of a run: this connection, the platform, the clock, and the Vault secrets of the run.

        :param verify: see ``Runtime``; without it, credentials are not verified.
        """
        vault = self._loader._vault
        return Runtime(
            execute=self.execute,
            post=api.post,
            now=lambda: datetime.now(timezone.utc),
            sleep=time.sleep,
            uniform=random.uniform,
            nonce=lambda: secrets.token_hex(8),
            encrypt=vault.encrypt if vault.secrets else None,
            decrypt=self.decrypter(),
            verify=verify or (lambda _credentials: None),
        )

    def decrypter(self) -> Cipher:
        """Return what decrypts a spool entry with the Vault secrets of the run; see ``responses.load``."""
        vault = self._loader._vault

        def decrypt(content: bytes) -> bytes:
            if not is_encrypted(content):
                return content
            try:
                return bytes(vault.decrypt(content))
            except AnsibleError:
                raise ValueError("cannot be decrypted") from None

        return decrypt

    def _validated(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        try:
            given = in_clear(self._given(task_vars))
        except AnsibleError:
            raise ProvisioningError(
                "bad_option", "A value cannot be decrypted: run with the Ansible Vault secret that encrypted it."
            ) from None
        host = str(task_vars.get("inventory_hostname", ""))
        checked = self.VALIDATOR.validate(typed(self.ARGUMENTS, given, host))
        if checked.error_messages:
            text = "; ".join(checked.error_messages)
            for name, option in self.ARGUMENTS.items():
                if option.get("no_log") and given.get(name):
                    text = text.replace(str(given[name]), "(not shown)")
            raise ProvisioningError("bad_option", f"{text}.")
        return dict(checked.validated_parameters)

    def _given(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the task, and those that come from variables."""
        defaults = group_defaults(self._task.module_defaults)
        own = {
            name: value
            for name, value in self._task.args.items()
            if name in self.ARGUMENTS or name not in defaults or name not in OPTIONS
        }
        check_variables(task_vars, own.get("variables_prefix"))
        return {**self._from_variables(task_vars), **own}

    def _from_variables(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that come from variables; see the option ``variables_prefix``."""
        return self._variables(self.ARGUMENTS, task_vars)

    def _variables(self, names: Iterable[str], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables with the prefix that are set, by their names without the prefix.

        Ansible compiles each template expression anew for every host, so constants are not templated.
        """
        prefix = self._task.args.get("variables_prefix")
        if not prefix:
            return {}
        found = {name: task_vars[prefix + name] for name in names if prefix + name in task_vars}
        to_render = {name: value for name, value in found.items() if not _is_constant(value)}
        values: dict[str, Any] = {**found, **(self._templar.template(to_render) if to_render else {})}
        return {name: value for name, value in values.items() if value != task_vars.get("omit")}


def result_of(outcome: Outcome, target: Target, *, with_diff: bool, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the result of a task, which holds no secret.

    :param without: keys that have no meaning for the module.
    """
    thing = outcome.thing
    values: dict[str, Any] = {
        "changed": outcome.changed,
        "action": outcome.action,
        "reason": outcome.reason,
        "msg": outcome.message,
        "path": target.path,
        "generation": outcome.generation,
        "thing": thing,
        "files": [{**vars(file), "mode": f"{file.mode:04o}"} for file in outcome.files],
        "due_at": optional_timestamp(outcome.due_at),
    }
    result = {name: value for name, value in values.items() if name not in without}
    if outcome.warnings:
        result["warnings"] = list(outcome.warnings)
    if with_diff and outcome.changed:
        result["diff"] = {
            "before_header": f"{target.path} (before)",
            "after_header": f"{target.path} ({outcome.action}: {outcome.reason})",
            "before": _diff_text(outcome.before.to_dict() if outcome.before else None),
            "after": _diff_text(thing if outcome.action != "removed" else None),
        }
    return result


def _is_constant(value: object) -> bool:
    return isinstance(value, (str, bool, int, float)) and not is_template(value)


def _diff_text(record: Mapping[str, Any] | None) -> str:
    return json.dumps(record, indent=2, sort_keys=True) + "\n" if record else ""

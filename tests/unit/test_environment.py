# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of the controller: options come from it, and no gateway gets the secrets in it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.action.thingstream_ztp import ActionModule
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.environment import without_secrets
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api
from ansible_collections.thingstream.ztp.tests.unit.support import TOKEN

VARIABLES = {"token": "THINGSTREAM_ZTP_TOKEN", "api_url": "THINGSTREAM_API_URL", "ca_path": "THINGSTREAM_CA_PATH"}


def options(**given: Any) -> dict[str, Any]:
    checked = ActionModule.VALIDATOR.validate({"service": "pointperfect", **given})
    assert not checked.error_messages
    return {name: checked.validated_parameters[name] for name in VARIABLES}


def test_a_variable_is_used_where_the_option_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, variable in VARIABLES.items():
        monkeypatch.setenv(variable, f"/environment/{name}")
    assert options(ca_path="/own") == {
        "token": "/environment/token",
        "api_url": "/environment/api_url",
        "ca_path": "/own",
    }


@pytest.mark.parametrize("blank", [True, False])
def test_a_blank_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, blank: bool) -> None:
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
        if blank:
            monkeypatch.setenv(variable, "")
    assert options() == {"token": None, "api_url": api.DEFAULT_URL, "ca_path": None}


HIDDEN = {
    "THINGSTREAM_ZTP_TOKEN": "a token of another profile",
    "THINGSTREAM_VAULT_PASSWORD": "correct horse",
    "THINGSTREAM_API_URL": "https://api.example.com",
    "MY_TOKEN": TOKEN,
    "TOKENS": f"flex={TOKEN},rtcm=other",
}


def test_secrets_are_hidden_from_programs_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HIDDEN.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with without_secrets(TOKEN):
        assert dict(os.environ) == {name: value for name, value in before.items() if name not in HIDDEN}
    assert dict(os.environ) == before
    with pytest.raises(ZeroDivisionError), without_secrets(TOKEN):
        raise ZeroDivisionError
    assert dict(os.environ) == before


@pytest.mark.parametrize("token", [None, "", "x"])
def test_a_token_that_is_missing_or_short_hides_nothing_else(
    monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("SENTENCE", "an x in it")
    with without_secrets(token):
        assert os.environ["SENTENCE"] == "an x in it"
        assert "EMPTY" in os.environ
        assert "PATH" in os.environ


def test_no_command_of_a_task_inherits_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """As hooks on a local connection would."""
    for name, value in HIDDEN.items():
        monkeypatch.setenv(name, value)
    seen: list[dict[str, str]] = []

    def run(*_arguments: Any, **_options: Any) -> dict[str, Any]:
        seen.append(dict(os.environ))
        return {"rc": 0, "stdout": "", "stderr": ""}

    action: Any = object.__new__(ActionModule)
    action._connection = SimpleNamespace(
        transport="ssh",
        has_pipelining=True,
        force_persistence=False,
        allow_executable=True,
        become=None,
        _play_context=SimpleNamespace(no_log=False),
    )
    action._play_context = SimpleNamespace(executable="/bin/sh")
    action._low_level_execute_command = run
    action._token = TOKEN
    action.execute("sh -s", b"", False)
    assert not set(HIDDEN) & set(seen[0])
    assert not [name for name, value in seen[0].items() if TOKEN in value]
    assert os.environ["THINGSTREAM_ZTP_TOKEN"] == HIDDEN["THINGSTREAM_ZTP_TOKEN"]

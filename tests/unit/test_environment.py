# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that come from the environment of the controller, as a credential of AWX sets it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.action.thingstream_ztp import ActionModule
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api

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

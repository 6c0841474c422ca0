# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values are accepted where their meaning is certain; else one sentence names option, value and remedy."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.action.thingstream_ztp import VERIFY_OPTIONS, ActionModule
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action import variables
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.values import nearest, typed
from ansible_collections.thingstream.ztp.plugins.plugin_utils.action.verify_options import verify_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.pasted import api_url_of, token_of
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.services import SERVICES
from ansible_collections.thingstream.ztp.tests.role_argument_specs import arguments

MODULES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "plugins/modules").glob("*.py"))
TOKEN = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
UTC = datetime.timezone.utc


def value_of(name: str, value: object, spec: Mapping[str, Any] = ActionModule.ARGUMENTS) -> Any:
    return typed(spec, {name: value}, "gw1")[name]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("renew_before", 30, "30"),
        ("renew_before", "33%", "33%"),
        ("max_age", "90d", 90),
        ("max_age", "90 days", 90),
        ("max_age", "1 day", 1),
        ("keys_renew_before", " 7 ", 7),
        ("timeout", "30s", 30),
        ("timeout", "2.5", 2.5),
        ("retries", "3", 3),
        ("retries", 3.0, 3),
        ("force", "yes", True),
        ("force", "No", False),
        ("owner", 1000, "1000"),
        ("formats", "env,pem", ["env", "pem"]),
        ("rotate_before", datetime.datetime(2026, 11, 22, 4, 13, tzinfo=UTC), "2026-11-22T04:13:00Z"),
        ("verify", {"timeout": "20s", "position": ["52.52", 13]}, {"timeout": 20, "position": [52.52, 13]}),
        ("token", None, None),
    ],
)
def test_a_value_whose_meaning_is_certain(name: str, value: object, expected: object) -> None:
    assert value_of(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("path", 12, "path: 12 is a number, but must be text. Quote it."),
        ("path", ["a"], "path: the value is a list, but must be text."),
        ("reload_command", True, "reload_command: True is a boolean, but must be text. Quote it."),
        ("rotate_before", datetime.date(2026, 11, 22), "rotate_before: 2026-11-22 is a date, but must be text."),
        ("token", 1234, "token: the value is a number, but must be text. Quote it."),
        ("retries", "many", "retries: 'many' is not a whole number."),
        ("retries", True, "retries: True is not a whole number."),
        ("retries", 2.5, "retries: 2.5 is not a whole number."),
        ("timeout", "soon", "timeout: 'soon' is not a number of seconds, for example 30 or 30s."),
        ("timeout", "nan", "timeout: 'nan' is not a number of seconds"),
        ("timeout", float("inf"), "timeout: inf is not a number of seconds"),
        ("max_age", "90s", "max_age: '90s' is not a number of days, for example 30 or 30d."),
        ("max_age", [1], "max_age: the value is not a number of days"),
        ("force", "maybe", "force: 'maybe' is neither true nor false."),
        ("force", {}, "force: the value is neither true nor false."),
        ("verify", 5, "verify: 5 is a number, but must be a mapping, as in verify: {…}."),
        ("verify", {"timeout": "x"}, "verify.timeout: 'x' is not a number of seconds"),
        ("verify", {"tiemout": 5}, "verify.tiemout is not an option. Did you mean verify.timeout?"),
        ("formats", 7.5, "formats: 7.5 is a number, but must be a list."),
        ("formats", {"env": 1}, "formats: the value is a mapping, but must be a list."),
        ("hardwareid", "x", "hardwareid is not an option. Did you mean hardware_id?"),
        ("colour", "x", "colour is not an option."),
    ],
)
def test_a_value_that_fits_no_option(name: str, value: object, message: str) -> None:
    with pytest.raises(ProvisioningError) as caught:
        value_of(name, value)
    assert caught.value.code == "bad_option"
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("module", MODULES)
def test_no_message_names_a_class(module: str) -> None:
    class Odd:
        """An object that no reader makes."""

    values = [
        "x",
        1,
        1.5,
        True,
        None,
        [],
        [[]],
        {},
        {"a": []},
        datetime.date(2026, 1, 1),
        float("nan"),
        b"x",
        Odd(),
        ...,
    ]
    spec = arguments(module)
    for name in spec:
        for message in (refusal(spec, name, value) for value in values):
            assert message is None or (name in message and "<" not in message and "Odd" not in message), message


def refusal(spec: Mapping[str, Any], name: str, value: object) -> str | None:
    try:
        value_of(name, value, spec)
    except ProvisioningError as error:
        return error.message
    return None


def test_the_names_of_options_are_those_of_all_modules() -> None:
    assert {name for module in MODULES for name in arguments(module)} - {"variables_prefix"} == variables.OPTIONS


def test_an_unknown_variable_is_refused_with_the_nearest_name() -> None:
    known = {"thingstream_gateway_path": "/x", "thingstream_gateway_result": {}, "other_hardwareid": "x"}
    variables.check_variables(known, "thingstream_gateway_")
    variables.check_variables({"thingstream_gateway_hardwareid": "x"}, None)
    variables.check_variables({"thingstream_gateway_hardwareid": "x"}, "site_")
    with pytest.raises(ProvisioningError, match=r"Did you mean thingstream_gateway_hardware_id\?"):
        variables.check_variables({**known, "thingstream_gateway_hardwareid": "x"}, "thingstream_gateway_")
    with pytest.raises(ProvisioningError, match=r"site_colour is unknown\. Every variable"):
        variables.check_variables({"site_colour": "blue"}, "site_")


def test_defaults_of_the_group_are_told_from_others() -> None:
    group = {"group/thingstream.ztp.ztp": {"token": "x", "timeout": 5}}
    other = {"thingstream.ztp.thingstream_ztp": {"force": True}, "group/amazon.aws.aws": {"region": "x"}}
    assert variables.group_defaults([group, other]) == {"token", "timeout"}
    assert variables.group_defaults([]) == set()


def test_nearest_proposes_nothing_where_nothing_is_near() -> None:
    assert nearest("xyz", ["hardware_id", "path"]) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, {}), ("yes", {}), (False, {"when": "never"}), ("off", {"when": "never"}), ("always", {"when": "always"}),
     ({"when": "never"}, {"when": "never"}), ("sometimes", "sometimes"), (None, None)],
)  # fmt: skip
def test_short_forms_of_verify(value: object, expected: object) -> None:
    assert verify_of(value, VERIFY_OPTIONS) == expected


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"{TOKEN}\n",
        f"  {TOKEN}\r\n",
        f'"{TOKEN}"',
        f"'{TOKEN}' ",
        f"\u201c{TOKEN}\u201d",
        TOKEN.upper(),
        f"\ufeff{TOKEN}",
    ],
)
def test_a_token_as_it_is_pasted(text: str) -> None:
    assert token_of(text) == TOKEN


@pytest.mark.parametrize("text", ["", " ", "\n", '""'])
def test_an_empty_token_is_none(text: str) -> None:
    assert token_of(text) is None


@pytest.mark.parametrize(
    "text", [TOKEN[:-1], f"{TOKEN}0", TOKEN.replace("-", ""), f"{TOKEN} {TOKEN}", "changeme", TOKEN.replace("a", "g")]
)
def test_what_is_no_token_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ProvisioningError, match="not a UUID") as caught:
        token_of(text)
    assert caught.value.code == "token_invalid"
    assert text not in caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://api.thingstream.io", "https://api.thingstream.io"),
        ("https://api.thingstream.io/", "https://api.thingstream.io"),
        (" https://api.thingstream.io/ztp/pointperfect/credentials\n", "https://api.thingstream.io"),
        ("https://api.thingstream.io//ztp/pointperfect/credentials/", "https://api.thingstream.io"),
        ('"HTTPS://api.thingstream.io/ztp/pointperfect/credentials"', "https://api.thingstream.io"),
        ("api.thingstream.io/ztp/pointperfect/credentials", "https://api.thingstream.io"),
        ("api.thingstream.io", "https://api.thingstream.io"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
        ("https://proxy.example.com/thingstream/", "https://proxy.example.com/thingstream"),
    ],
)
def test_an_address_as_it_is_pasted(text: str, expected: str) -> None:
    assert api_url_of(text, SERVICES["pointperfect"]) == expected


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("https://api.thingstream.io/ztp/cloudlocate/credentials", "the service cloudlocate"),
        ("https://api.thingstream.io/ztp/pointperfect-live/credentials", "the service pointperfect-live"),
        ("https://api.thingstream.io/ztp/assistnow/credentials", "not an endpoint of the service pointperfect"),
        ("https://api.thingstream.io/ztp", "without, /ztp"),
        ("https://api.thingstream.io/ztp/cloudlocate/credentials?token=geheim", "the service cloudlocate"),
        ("https://api.thingstream.io/ztp/x#geheim", "without, /ztp"),
        ("https://me:geheim@api.thingstream.io", "user name or a password"),
        ("https://", "not a URL"),
        ("https://a b", "not a URL"),
        ("-x", "not a URL"),
        ("https://-x.example.com", "not a URL"),
        ("https://$(id)", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://host:port", "not a URL"),
    ],
)
def test_an_address_that_cannot_be_meant(text: str, finding: str) -> None:
    with pytest.raises(ProvisioningError, match=finding) as caught:
        api_url_of(text, SERVICES["pointperfect"])
    assert caught.value.code == "bad_option"
    assert "geheim" not in caught.value.message

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals of the platform: four texts are known, and every other one is only reported."""

from __future__ import annotations

import json

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.exchange import HttpResponse
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform.refusals import error_of
from ansible_collections.thingstream.ztp.tests.unit.support import MQTT_PASSWORD, TOKEN, assert_no_secret

_TEXTS = [
    # what clients of the platform have logged or look for, as text and in JSON
    (422, '{"errors":["token invalid token format"]}', "token_invalid"),
    (403, "Device already registered", "already_registered"),
    (403, '{"message": "DEVICE ALREADY REGISTERED"}', "already_registered"),
    (403, "No plan for device device:11111111-2222-4333-8444-555555555555", "no_plan"),
    (403, "Device hardware code not whitelisted", "not_allowed"),
    # the same words with another status, or in another sentence
    (400, '{"errors":["token invalid token format"]}', "refused"),
    (409, "Device already registered", "refused"),
    (404, "No plan for device device:11111111-2222-4333-8444-555555555555", "refused"),
    (422, "Device hardware code not whitelisted", "refused"),
    (403, "This account is already registered for another product", "refused"),
    (403, "There is no plan to support this device", "refused"),
    (403, "Your IP address is not whitelisted", "refused"),
    (403, "Request not allowed by the firewall", "refused"),
    (403, "Scripting is disabled in your browser", "refused"),
    (403, "hardware acceleration required", "refused"),
    # any text with the word token
    (403, "Unknown token", "refused"),
    (403, "CSRF token missing", "refused"),
    (403, "<html>The security token of the proxy has expired</html>", "refused"),
    (404, "token not found", "refused"),
    (400, "invalid token", "refused"),
    (400, "SyntaxError: Unexpected token < in JSON at position 0", "refused"),
    (422, '{"errors":["token is not known"]}', "refused"),
    (401, "Bad token", "refused"),
    # what the platform may say, without any source
    (403, "Device profile is disabled", "refused"),
    (422, '{"errors":["hardwareId is mandatory"]}', "refused"),
    (422, '{"errors":["givenName too long"]}', "refused"),
    (400, '{"errors":["tags must be an array"]}', "refused"),
    # no text
    (400, "", "refused"),
    (401, "", "refused"),
    (403, "", "refused"),
    (404, "Not found", "refused"),
    (405, "Method not allowed", "refused"),
    (407, "", "refused"),
    (418, "", "refused"),
    (499, "", "refused"),
    # what HTTP says
    (429, "", "rate_limited"),
    (429, "Bad token", "rate_limited"),
    (500, "token invalid token format", "server_error"),
    (503, "Device already registered", "server_error"),
    (599, "", "server_error"),
    (201, "{}", "bad_response"),
    (204, "", "bad_response"),
    (301, "", "bad_response"),
    (302, "Device already registered", "bad_response"),
    (304, "", "bad_response"),
    (307, "", "bad_response"),
]


@pytest.mark.parametrize(("status", "text", "code"), _TEXTS)
def test_each_refusal(status: int, text: str, code: str) -> None:
    error = error_of(HttpResponse(status, {}, f"{text} {TOKEN} {MQTT_PASSWORD}".encode()))
    assert (error.code, error.status) == (code, status)
    assert_no_secret(error, error.message)
    assert str(status) in error.message
    if text:
        assert text not in error.message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 422])
@pytest.mark.parametrize("text", ["", "invalid token", json.dumps({"errors": ["hardwareId"]})])
def test_a_refusal_without_a_known_meaning_states_no_fact(status: int, text: str) -> None:
    """The message says what to compare, and does not depend on the text."""
    error = error_of(HttpResponse(status, {}, text.encode()))
    assert error.message == error_of(HttpResponse(status, {}, b"another text")).message
    assert "for a reason that this collection does not know" in error.message
    assert "Compare" in error.message
    assert "does not know this token" not in error.message
    assert ("api_url" in error.message) == (status in (404, 405))


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"x" * 100_000 + b"device already registered", b"\x1b[31m{{ 7*7 }}"])
def test_a_hostile_refusal(body: bytes) -> None:
    error = error_of(HttpResponse(403, {}, body))
    assert error.code == "refused"
    assert len(error.message) < 400
    assert error.message.isprintable()

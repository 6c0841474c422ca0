# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Every refusal, with its status and its text."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests
from simulator.client import RunningSimulator

# All but the tests of NTRIP and RSA use a service whose Things cost no key.
CLOUD = {"service": "cloudlocate"}
LIVE = {"service": "pointperfect-live"}


def test_malformed_token_is_refused_in_the_platforms_own_shape(simulator: RunningSimulator) -> None:
    response = simulator.post("not-a-uuid")
    assert (response.status_code, response.json()) == (422, {"errors": ["token invalid token format"]})
    assert response.headers["Content-Type"] == "application/json"


def test_missing_token_is_refused_like_a_malformed_one(simulator: RunningSimulator) -> None:
    url = f"{simulator.url}/ztp/cloudlocate/credentials"
    response = requests.post(url, json={}, verify=str(simulator.ca_path), timeout=20)
    assert (response.status_code, response.json()) == (422, {"errors": ["token invalid token format"]})


@pytest.mark.parametrize("status", [403, 401, 404])
def test_unknown_token(simulator: RunningSimulator, status: int) -> None:
    simulator.set_unknown_token_status(status)
    response = simulator.post(str(uuid.uuid4()), **CLOUD)
    assert (response.status_code, response.text) == (status, "Invalid token")
    assert response.headers["Content-Type"].startswith("text/plain")


def test_unknown_token_as_a_refused_field(simulator: RunningSimulator) -> None:
    simulator.set_unknown_token_status(422)
    response = simulator.post(str(uuid.uuid4()), **CLOUD)
    assert (response.status_code, response.json()) == (422, {"errors": ["token is not known"]})


def test_token_of_another_service_is_unknown(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("wrong-service", **LIVE)
    response = simulator.post(token, **CLOUD)
    assert (response.status_code, response.text) == (403, "Invalid token")
    assert simulator.things(profile="wrong-service") == []


def test_tokens_are_case_sensitive(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("case", token="abcdefab-cdef-4abc-8abc-abcdefabcdef", **CLOUD)
    assert simulator.post(token, **CLOUD).status_code == 200
    assert simulator.post(token.upper(), **CLOUD).status_code == 403


def test_disabled_profile(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("disabled", status="disabled", **CLOUD)
    response = simulator.post(token, **CLOUD)
    assert (response.status_code, response.text) == (403, "Device profile is disabled")
    assert simulator.things(profile="disabled") == []


def test_missing_hardware_id_is_refused_only_where_it_is_mandatory(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("mandatory", hardware_code_mandatory=True, **CLOUD)
    response = simulator.post(token, **CLOUD)
    assert (response.status_code, response.json()) == (422, {"errors": ["hardwareId is mandatory"]})
    assert simulator.post(token, hardwareId="given", **CLOUD).status_code == 200
    simulator.put_profile("mandatory", **CLOUD)
    assert simulator.post(token, **CLOUD).status_code == 200


def test_allow_list(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("listed", allow_list=["known"], **CLOUD)
    for fields in ({"hardwareId": "stranger"}, {}):
        response = simulator.post(token, **CLOUD, **fields)
        assert (response.status_code, response.text) == (403, "Device hardware code not whitelisted")
    assert simulator.post(token, hardwareId="known", **CLOUD).status_code == 200


def test_already_registered_if_the_profile_answers_with_an_error(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("strict", already_exists="error", **LIVE)
    assert simulator.post(token, hardwareId="strict-1", **LIVE).status_code == 200
    response = simulator.post(token, hardwareId="strict-1", **LIVE)
    assert (response.status_code, response.text) == (403, "Device already registered")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert len(simulator.things(hardware_id="strict-1")) == 1


def test_already_registered_with_another_profile(simulator: RunningSimulator) -> None:
    first = simulator.put_profile("first", **LIVE)
    second = simulator.put_profile("second", already_exists="existing", **LIVE)
    assert simulator.post(first, hardwareId="moved", **LIVE).status_code == 200
    response = simulator.post(second, hardwareId="moved", **LIVE)
    assert (response.status_code, response.text) == (403, "Device already registered")


def test_no_plan(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("planless", plan="none", **LIVE)
    response = simulator.post(token, hardwareId="planless", **LIVE)
    (thing,) = simulator.things(hardware_id="planless")
    assert (response.status_code, response.text) == (403, f"No plan for device device:{thing['id']}")


def test_the_hardware_id_of_a_removed_thing_is_free(simulator: RunningSimulator) -> None:
    """Removal in the portal is the only way to another Thing of the same hardware ID and profile."""
    token = simulator.put_profile("removed", **LIVE)
    for _removal in range(2):
        assert simulator.post(token, hardwareId="removed", **LIVE).status_code == 200
        (thing,) = simulator.things(hardware_id="removed")
        simulator.remove(thing["id"])
        assert simulator.things(hardware_id="removed") == []
    with pytest.raises(ValueError, match="404"):
        simulator.remove(thing["id"])


@pytest.mark.parametrize("already_exists", ["existing", "error"])
def test_deactivated_thing_has_no_plan(simulator: RunningSimulator, already_exists: str) -> None:
    token = simulator.put_profile("deactivated", **LIVE)
    hardware_id = f"deactivated-{already_exists}"
    assert simulator.post(token, hardwareId=hardware_id, **LIVE).status_code == 200
    (thing,) = simulator.things(hardware_id=hardware_id)
    simulator.deactivate(thing["id"])
    simulator.put_profile("deactivated", already_exists=already_exists, **LIVE)
    response = simulator.post(token, hardwareId=hardware_id, **LIVE)
    assert (response.status_code, response.text) == (403, f"No plan for device device:{thing['id']}")
    simulator.put_profile("deactivated", **LIVE)
    simulator.activate(thing["id"])
    assert simulator.post(token, hardwareId=hardware_id, **LIVE).status_code == 200


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"givenName": "x" * 51}, "givenName must be a string of 1 to 50 characters"),
        ({"givenName": ""}, "givenName must be a string of 1 to 50 characters"),
        ({"givenName": 5}, "givenName must be a string of 1 to 50 characters"),
        ({"hardwareId": ""}, "hardwareId must be a string that is not empty"),
        ({"hardwareId": ["a"]}, "hardwareId must be a string that is not empty"),
        ({"tags": "ztp"}, "tags must be a list of strings"),
        ({"tags": ["ztp", 5]}, "tags must be a list of strings"),
        ({"tags": None}, "tags must be a list of strings"),
    ],
)
def test_refused_field(simulator: RunningSimulator, fields: dict[str, Any], error: str) -> None:
    token = simulator.put_profile("fields", **CLOUD)
    response = simulator.post(token, **CLOUD, **fields)
    assert (response.status_code, response.json()) == (422, {"errors": [error]})


def test_all_refused_fields_are_named_at_once(simulator: RunningSimulator) -> None:
    errors = simulator.post("bad", givenName="", tags=[1]).json()["errors"]
    assert [error.split()[0] for error in errors] == ["token", "givenName", "tags"]


def test_longest_given_name(simulator: RunningSimulator) -> None:
    token = simulator.put_profile("longest", **CLOUD)
    assert simulator.post(token, givenName="x" * 50, **CLOUD).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"token": "\\ud800"}', b"[" * 100_000])
def test_body_that_is_no_json_object(simulator: RunningSimulator, body: bytes) -> None:
    url = f"{simulator.url}/ztp/pointperfect/credentials"
    response = requests.post(url, data=body, verify=str(simulator.ca_path), timeout=20)
    assert (response.status_code, response.json()) == (400, {"errors": ["body is not a JSON object"]})


def test_paths_and_methods_that_do_not_exist_are_logged(simulator: RunningSimulator) -> None:
    for method, path, status in (
        ("POST", "/ztp/nothing/credentials", 404),
        ("GET", "/ztp/cloudlocate/credentials", 405),
    ):
        url = f"{simulator.url}{path}"
        assert requests.request(method, url, verify=str(simulator.ca_path), timeout=20).status_code == status
        last = simulator.requests()[-1]
        assert (last["method"], last["path"], last["status"], last["service"]) == (method, path, status, None)

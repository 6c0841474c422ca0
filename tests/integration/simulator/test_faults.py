# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""Every fault, as it looks from the other end of the wire."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from typing import Any

import pytest
import requests
from simulator.client import RunningSimulator

LIVE = {"service": "pointperfect-live"}


@pytest.fixture
def token(simulator: RunningSimulator) -> str:
    return simulator.put_profile("faults", **LIVE)


def raw(simulator: RunningSimulator, token: str, hardware_id: str) -> tuple[bytes, str]:
    """Return what the server sends on one connection, and how that ends: "orderly" (TLS says so), "FIN" or "RST".

    TLS is done in memory here, because a TLS socket does not tell the last two apart.
    """
    body = json.dumps({"token": token, "hardwareId": hardware_id}).encode()
    head = f"POST /ztp/pointperfect-live/credentials HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(simulator.ca_path))
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    received = b""
    with socket.create_connection(("127.0.0.1", int(simulator.url.rsplit(":", 1)[1])), 20) as connection:
        while tls.version() is None or outgoing.pending:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                tls.write(head.encode() + body)
            connection.sendall(outgoing.read())
            if tls.version() is None:
                incoming.write(connection.recv(65536))
        try:
            while data := connection.recv(65536):
                incoming.write(data)
                with contextlib.suppress(ssl.SSLWantReadError):
                    while plain := tls.read(65536):
                        received += plain
                    return received, "orderly"
        except ConnectionResetError:
            return received, "RST"
    return received, "FIN"


def test_fixed_status_with_headers_and_body(simulator: RunningSimulator, token: str) -> None:
    simulator.add_fault("status", status=429, headers={"Retry-After": "7"}, body="slow down", count=2)
    for _round in range(2):
        response = simulator.post(token, hardwareId="status", **LIVE)
        assert (response.status_code, response.text) == (429, "slow down")
        assert response.headers["Retry-After"] == "7"
    assert simulator.things(hardware_id="status") == []
    assert simulator.post(token, hardwareId="status", **LIVE).status_code == 200
    assert [request["status"] for request in simulator.requests()] == [429, 429, 200]
    assert [request["fault"] for request in simulator.requests()] == ["status", "status", None]


def test_status_is_503_by_default_and_may_come_after_processing(simulator: RunningSimulator, token: str) -> None:
    simulator.add_fault("status", after_processing=True)
    assert simulator.post(token, hardwareId="after", **LIVE).status_code == 503
    assert len(simulator.things(hardware_id="after")) == 1


def test_redirect(simulator: RunningSimulator, token: str) -> None:
    simulator.add_fault("redirect", location="https://elsewhere.example/ztp")
    response = simulator.post(token, hardwareId="redirect", **LIVE)
    assert (response.status_code, response.headers["Location"]) == (307, "https://elsewhere.example/ztp")
    assert simulator.things(hardware_id="redirect") == []


@pytest.mark.parametrize(("kind", "things_meanwhile"), [("delay_before", 0), ("delay_after", 1)])
def test_delay(simulator: RunningSimulator, token: str, kind: str, things_meanwhile: int) -> None:
    simulator.add_fault(kind, seconds=0.6)
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(
            f"{simulator.url}/ztp/pointperfect-live/credentials",
            json={"token": token, "hardwareId": kind},
            verify=str(simulator.ca_path),
            timeout=0.3,
        )
    assert len(simulator.things(hardware_id=kind)) == things_meanwhile
    time.sleep(0.5)
    assert len(simulator.things(hardware_id=kind)) == 1
    simulator.add_fault(kind, seconds=0.2)
    start = time.monotonic()
    assert simulator.post(token, hardwareId=kind, **LIVE).status_code == 200
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(("kind", "things"), [("cut_before", 0), ("cut_after", 1)])
@pytest.mark.parametrize("reset", [False, True])
def test_cut(simulator: RunningSimulator, token: str, kind: str, things: int, reset: bool) -> None:
    hardware_id = f"{kind}-{reset}"
    simulator.add_fault(kind, reset=reset, count=2)
    with pytest.raises(requests.exceptions.ConnectionError):
        simulator.post(token, hardwareId=hardware_id, **LIVE)
    # Below the HTTP library: not one byte, and no end of the TLS session either.
    assert raw(simulator, token, hardware_id) == (b"", "RST" if reset else "FIN")
    assert len(simulator.things(hardware_id=hardware_id)) == things
    assert [(request["status"], request["fault"]) for request in simulator.requests()] == [(None, kind)] * 2
    assert simulator.post(token, hardwareId=hardware_id, **LIVE).status_code == 200
    assert "Traceback" not in (simulator.directory / "server.log").read_text()


def test_truncated_body(simulator: RunningSimulator, token: str) -> None:
    whole = simulator.post(token, hardwareId="truncated", **LIVE).content
    simulator.add_fault("truncated", count=2)
    received, end = raw(simulator, token, "truncated")
    head, _separator, body = received.partition(b"\r\n\r\n")
    assert end == "orderly"
    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert body == whole[: len(whole) // 2]
    with pytest.raises(requests.exceptions.RequestException):
        simulator.post(token, hardwareId="truncated", **LIVE)
    assert "Traceback" not in (simulator.directory / "server.log").read_text()


def test_wrong_content_type(simulator: RunningSimulator, token: str) -> None:
    good = simulator.post(token, hardwareId="type", **LIVE).content
    simulator.add_fault("content_type")
    response = simulator.post(token, hardwareId="type", **LIVE)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.content == good


def test_not_json(simulator: RunningSimulator, token: str) -> None:
    simulator.add_fault("not_json")
    response = simulator.post(token, hardwareId="page", **LIVE)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert response.text.startswith("<html>")


def test_not_an_object(simulator: RunningSimulator, token: str) -> None:
    good = simulator.post(token, hardwareId="list", **LIVE).json()
    simulator.add_fault("not_object")
    assert simulator.post(token, hardwareId="list", **LIVE).json() == [good]


def test_malformed_json(simulator: RunningSimulator, token: str) -> None:
    good = simulator.post(token, hardwareId="malformed", **LIVE).text
    simulator.add_fault("malformed")
    response = simulator.post(token, hardwareId="malformed", **LIVE)
    assert response.status_code == 200
    assert response.text == good[: len(good) // 2]


def test_huge_body(simulator: RunningSimulator, token: str) -> None:
    simulator.add_fault("huge", bytes=3_000_000)
    response = simulator.post(token, hardwareId="huge", **LIVE)
    assert len(response.content) > 3_000_000
    assert response.json()["rtcmCredentials"]["password"]


def test_drip(simulator: RunningSimulator, token: str) -> None:
    good = simulator.post(token, hardwareId="drip", **LIVE).text
    simulator.add_fault("drip", seconds=0.002)
    start = time.monotonic()
    assert simulator.post(token, hardwareId="drip", **LIVE).text == good
    assert time.monotonic() - start > len(good) * 0.002


def test_a_drip_ends_with_its_listener(simulator: RunningSimulator, token: str) -> None:
    simulator.add_fault("drip", seconds=0.05)
    with requests.post(
        f"{simulator.url}/ztp/pointperfect-live/credentials",
        json={"token": token},
        verify=str(simulator.ca_path),
        timeout=5,
        stream=True,
    ) as response:
        response.raw.read(1)
    time.sleep(0.3)
    assert "Traceback" not in (simulator.directory / "server.log").read_text()


def test_faults_that_some_requests_meet(simulator: RunningSimulator, token: str) -> None:
    def draw() -> list[bool]:
        simulator.clear_requests()
        simulator.clear_faults()
        simulator.add_fault("status", count=1000, probability=0.3)
        return [simulator.post(token, hardwareId=f"some-{i % 20}", **LIVE).status_code == 503 for i in range(200)]

    met = draw()
    assert 30 < sum(met) < 90
    assert any(met[:20]), "another gateway draws anew"
    assert {sum(met[i::20]) for i in range(20)} != {0, 10}, "so does another request"
    assert simulator.faults()[0]["remaining"] == 1000 - sum(met)
    assert draw() == met


def test_faults_spoil_refusals_too(simulator: RunningSimulator) -> None:
    for kind in ("content_type", "not_object", "huge", "malformed", "truncated"):
        simulator.add_fault(kind, bytes=10)
    unknown = "00000000-0000-4000-8000-000000000000"
    assert simulator.post(unknown).headers["Content-Type"].startswith("text/html")
    assert simulator.post(unknown).json() == ["Invalid token"]
    assert simulator.post(unknown).json() == {"message": "Invalid token", "padding": "x" * 10}
    assert simulator.post(unknown).text == '"Invalid'[:7]
    with pytest.raises(requests.exceptions.RequestException):
        simulator.post(unknown)


def test_faults_apply_in_order_to_the_requests_that_match(simulator: RunningSimulator, token: str) -> None:
    simulator.add_fault("status", status=500, hardware_id="a", count=2)
    simulator.add_fault("status", status=501, service="pointperfect-live")
    simulator.add_fault("status", status=502, service="cloudlocate")
    simulator.add_fault("status", status=504)
    sent = [
        simulator.post(token, hardwareId=hardware_id, **LIVE).status_code for hardware_id in ("b", "a", "b", "a", "b")
    ]
    assert sent == [501, 500, 504, 500, 200]
    assert [(fault["status"], fault["remaining"]) for fault in simulator.faults()] == [(502, 1)]
    simulator.clear_faults()
    assert simulator.faults() == []


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "nothing"},
        {"kind": "redirect"},
        {"kind": "status", "count": 0},
        {"kind": "status", "probability": 0},
        {"kind": "status", "status": 204, "body": "x"},
        {"kind": "status", "headers": {"Content-Length": "5"}},
        {"kind": "status", "headers": {"X": "a\r\nb"}},
        {"kind": "status", "surprise": 1},
    ],
)
def test_impossible_faults_are_refused(simulator: RunningSimulator, fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="422"):
        simulator.add_fault(**fault)
    assert simulator.faults() == []

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No Thing is created twice, and none is forgotten: runs that overlap, fail, are interrupted, or have a wrong clock."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import timestamp
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import GatewayUnreachable, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.job import ensure, observe
from ansible_collections.thingstream.ztp.plugins.plugin_utils.platform import api, transport
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool import directory, ledger, requests, responses
from ansible_collections.thingstream.ztp.tests.unit.rig import Rig, Run, unreachable
from ansible_collections.thingstream.ztp.tests.unit.support import (
    DAY,
    NOW,
    Behavior,
    Pair,
    cloudlocate,
    encoded,
    make_pair,
    rtcm,
    serving,
    spartn,
    tree,
)

PENDING = {"clientId": "11111111-2222-4333-8444-555555555555", "subscriptionsTitle": "Topics"}
REGISTERED = api.HttpResponse(403, {}, b"Device already registered")
FULL = OSError(errno.ENOSPC, "No space left on device")


class TaskTimeout(BaseException):
    """An interruption as Ansible raises it in the middle of a task; no ``Exception``."""


def device(number: int) -> dict[str, Any]:
    return cloudlocate(clientId=f"device:{number}", username=f"USER{number}")


@pytest.fixture
def costly(rig: Rig) -> Rig:
    """A gateway whose service creates another Thing for each request."""
    rig.service = "cloudlocate"
    return rig


@pytest.fixture(params=["installed", "bare"])
def either(costly: Rig, request: pytest.FixtureRequest) -> Rig:
    """The same, with credentials that are due, or without any."""
    if request.param == "installed":
        costly.now = NOW - 100 * DAY
        costly.present(device(1))
        costly.now = NOW
    return costly


def renew(rig: Rig, *replies: Any, **changes: Any) -> Run:
    """Carry out a run that requests a Thing, whether one is installed or not."""
    return rig.present(*replies, max_age=50, **changes)


# ---- settings that would never settle ----


def test_a_short_certificate_is_not_due_in_every_run(rig: Rig, ec_pair: Pair) -> None:
    """The lead of 30 days and the spread of 7 would make a certificate of 30 days due at once."""
    short = make_pair(ec_pair.key, not_before=NOW, not_after=NOW + 30 * DAY)
    created = rig.present(spartn(short, dynamickeys=None), renew_before="30", renew_spread=7)
    assert created.due_at is not None
    assert created.due_at > NOW + 7 * DAY
    assert [warning for warning in created.warnings if "capped" in warning]
    for hours in (0, 1, 24):
        rig.now = NOW + hours * DAY / 24
        assert rig.present(renew_before="30", renew_spread=7).action == "none"


def test_a_short_max_age_is_not_due_in_every_run(costly: Rig) -> None:
    """The spread of 7 days would make credentials due at once that live for 3: a new Thing in every run."""
    created = costly.present(device(1), max_age=3, renew_spread=7)
    assert created.due_at is not None
    assert created.due_at > NOW + DAY
    assert [warning for warning in created.warnings if "capped" in warning]
    for hours in (0, 1, 24):
        costly.now = NOW + hours * DAY / 24
        assert costly.present(max_age=3, renew_spread=7).action == "none"
    costly.now = NOW + 3 * DAY
    renewed = costly.present(device(2), max_age=3, renew_spread=7)
    assert (renewed.action, renewed.reason) == ("renewed", "max_age")
    assert costly.present(max_age=3, renew_spread=7).action == "none"


# ---- runs that overlap ----


def another_run(rig: Rig) -> Rig:
    """Return the rig of another run on the same controller."""
    return replace(rig, replies=[], bodies=[], commands=[], sleeps=[], hook=None)


def test_a_run_during_the_request_of_another_one_is_refused(either: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    other, post = another_run(either), either.post
    errors: list[ProvisioningError] = []

    def meanwhile(*arguments: Any) -> api.HttpResponse:
        for check_mode in (True, False):
            errors.append(other.fails(max_age=50, check_mode=check_mode))
        return post(*arguments)

    monkeypatch.setattr(either, "post", meanwhile)
    assert renew(either, device(2)).changed
    assert [error.code for error in errors] == ["concurrent_change"] * 2
    assert other.bodies == []
    either.assert_in_order()
    assert renew(other).action == "none"


def after(owner: object, step: str, action: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Do something once, right after this function."""
    original, is_first = getattr(owner, step), iter([True])

    def call(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if next(is_first, False):
            action()
        return result

    patch.setattr(owner, step, call)


@pytest.mark.parametrize(
    ("owner", "step", "notices"),
    [
        (ledger, "read", False),
        (observe, "look", False),
        (responses, "load", False),
        (ensure, "observe_before_change", True),
        (requests, "find", True),
        (directory, "prepare", True),
        (responses, "allocate", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_that_another_one_has_overtaken_sends_no_request(
    either: Rig, owner: object, step: str, notices: bool
) -> None:
    """Wherever it is when the other one begins and ends: it sees what the other one has done, or refuses."""
    other = another_run(either)
    with pytest.MonkeyPatch.context() as patch:
        after(owner, step, lambda: renew(other, device(2)), patch)
        try:
            action = renew(either).action
        except ProvisioningError as error:
            action = error.code
    assert action in (["concurrent_change"] if notices else ["concurrent_change", "none"])
    assert (len(other.bodies), either.bodies) == (1, [])
    assert renew(either).action == "none"
    either.assert_in_order()
    assert either.record["client_id"] == "device:2"


def test_a_run_that_overtakes_and_cannot_install_leaves_its_response_to_the_next_one(either: Rig) -> None:
    other = another_run(either)

    def fail_to_install() -> None:
        other.hook = unreachable
        with pytest.raises(GatewayUnreachable):
            renew(other, device(2))

    with pytest.MonkeyPatch.context() as patch:
        after(directory, "prepare", fail_to_install, patch)
        assert either.fails(max_age=50).code == "concurrent_change"
    assert either.bodies == []
    assert renew(either).changed
    assert either.record["client_id"] == "device:2"
    either.assert_in_order()


def test_overlapping_runs_of_processes_create_one_thing(costly: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many at once; each says whether it has sent a request."""
    sent = costly.root / "sent"
    post = costly.post

    def slow(*arguments: Any) -> api.HttpResponse:
        with sent.open("a") as stream:
            stream.write("x")
        time.sleep(0.3)
        return post(*arguments)

    monkeypatch.setattr(costly, "post", slow)
    processes = []
    for number in range(6):
        process = os.fork()
        if process == 0:
            status = 1
            try:
                costly.controller = "spool"
                costly.present(device(number))
                status = 0
            except (ProvisioningError, AssertionError):
                status = 42
            finally:
                os._exit(status)
        processes.append(process)
    for process in processes:
        os.waitpid(process, 0)
    assert sent.read_text() == "x"
    assert costly.present().action in ("none", "created")
    costly.assert_in_order()
    assert len(costly.ledger) == 1


# ---- no client ID, no hardware ID ----


def test_things_without_client_id_and_hardware_id_are_all_listed(rig: Rig) -> None:
    """``None`` is not equal to ``None``: each request has created a Thing."""
    rig.hardware_id = None
    for number in range(4):
        rig.now = NOW + number * DAY
        rig.present(rtcm(userName=f"user{number}"), force=number > 0)
    listed = rig.retired
    assert [entry["client_id"] for entry in listed] == [None] * 3
    assert len({entry["login_sha256"] for entry in listed}) == 3
    assert rig.record["login_sha256"] not in {entry["login_sha256"] for entry in listed}
    rig.retire(listed[1])
    assert rig.retired == [listed[0], listed[2]]
    assert [entry["left_at"] is None for entry in rig.ledger] == [False, False, False, True]


# ---- a full disk ----


def no_space(*_arguments: object) -> NoReturn:
    raise FULL


def no_space_at_all(path: str) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 1000, 1, 1, 100, 100, 100, 0, 255))


@pytest.mark.parametrize(
    ("owner", "step", "problem"),
    [(os, "posix_fallocate", no_space), (os, "statvfs", no_space_at_all), (os, "fsync", no_space)],
)
@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_a_full_disk_sends_no_request(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: object, step: str, problem: Callable[..., object], service: str
) -> None:
    rig.service = service
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, problem)
        error = rig.fails()
    assert (error.code, rig.bodies) == ("spool_failed", [])
    assert not rig.path.exists()
    assert rig.present(rtcm() if service == "pointperfect" else device(1)).action == "created"
    rig.assert_in_order()


def mount(path: Path, size: str) -> bool:
    """Mount a small file system in memory, where that is allowed."""
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(costly: Rig) -> Iterator[Rig]:
    """A controller whose spool has room for one response, and not for two."""
    if os.geteuid() != 0 or not mount(costly.spool, "3m"):
        pytest.skip("only root can mount a file system, and not everywhere")
    yield costly
    subprocess.run(["umount", str(costly.spool)], check=True)


def test_a_disk_that_really_is_full(small_disk: Rig) -> None:
    ballast = small_disk.spool / "ballast"
    ballast.write_bytes(bytes(2 * 1024 * 1024))
    for check_mode in (True, False):
        error = small_disk.fails(check_mode=check_mode)
        assert (error.code, "No request was sent." in error.message) == ("spool_failed", True)
        assert small_disk.bodies == []
    ballast.unlink()
    assert small_disk.present(device(1)).action == "created"
    small_disk.assert_in_order()


def test_a_limit_on_the_size_of_files(costly: Rig) -> None:
    """It is not seen in the free space, only when the space is allocated."""
    limit = 64 * 1024
    process = os.fork()
    if process == 0:
        import resource  # noqa: PLC0415  # in this process only

        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            error = costly.fails()
            status = 42 if (error.code, costly.bodies) == ("spool_failed", []) else 2
        finally:
            os._exit(status)
    _process, result = os.waitpid(process, 0)
    assert os.WEXITSTATUS(result) == 42
    assert costly.spool_files == []
    assert costly.present(device(1)).action == "created"


# ---- wiped gateways ----


@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_the_thing_of_a_wiped_gateway_is_retired(rig: Rig, ec_pair: Pair, service: str) -> None:
    rig.service = service
    flex = [spartn(ec_pair, clientId=f"device:{number}") for number in range(3)]
    first, second, third = flex if service == "pointperfect" else [device(number) for number in range(3)]
    rig.present(first)
    rig.present(second, force=True)
    shutil.rmtree(rig.path)
    predicted = rig.present(check_mode=True)
    assert predicted.action == "created"
    assert [warning for warning in predicted.warnings if "wiped" in warning]
    outcome = rig.present(third)
    assert outcome.action == "created"
    assert outcome.thing is not None
    assert [entry["client_id"] for entry in outcome.thing["retired"]] == ["device:0", "device:1"] == rig.retired_ids
    assert [bool(entry["left_at"]) for entry in rig.ledger] == [True, True, False]
    assert [warning for warning in rig.present().warnings if "wiped" in warning] == []
    rig.assert_in_order()


def test_a_wiped_gateway_that_gets_its_thing_again_retires_no_thing(rig: Rig, ec_pair: Pair) -> None:
    rig.present(spartn(ec_pair))
    shutil.rmtree(rig.path)
    rig.present(spartn(ec_pair))
    assert rig.retired == []
    assert [entry["left_at"] for entry in rig.ledger] == [None]


def test_a_wiped_gateway_that_gets_its_response_from_the_spool_retires_its_thing(costly: Rig) -> None:
    costly.present(device(1))
    costly.hook = unreachable
    with pytest.raises(GatewayUnreachable):
        costly.present(device(2), force=True)
    shutil.rmtree(costly.path)
    assert costly.present(create=False).action == "created"
    assert costly.record["client_id"] == "device:2"
    assert costly.retired_ids == ["device:1"]
    costly.assert_in_order()


def test_a_wiped_gateway_without_a_ledger_is_no_error(costly: Rig) -> None:
    costly.present(device(1))
    shutil.rmtree(costly.path)
    shutil.rmtree(directory.ledger_directory(costly.spool))
    assert costly.present(device(2)).action == "created"
    assert costly.retired == []


def test_a_gateway_with_another_path_knows_nothing_of_the_things_of_the_first(costly: Rig, tmp_path: Path) -> None:
    """They may be in use there."""
    costly.present(device(1))
    other = Rig(tmp_path / "elsewhere", "cloudlocate")
    place = costly.spool_place
    other.present(device(2), place=place)
    assert other.retired == []
    assert {entry.path: entry.left_at for entry in ledger.read(place).entries} == {
        str(costly.path): None,
        str(other.path): None,
    }


# ---- absent ----


@pytest.mark.parametrize("response", [device(1), b"<html>"], ids=["usable", "unusable"])
@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_absent_leaves_nothing_that_a_later_run_would_install(
    rig: Rig, ec_pair: Pair, service: str, response: Any
) -> None:
    """The gateway never got the response."""
    rig.service = service
    if not isinstance(response, bytes) and service == "pointperfect":
        response = spartn(ec_pair)
    rig.hook = unreachable
    with pytest.raises((GatewayUnreachable, ProvisioningError)):
        rig.present(response)
    assert rig.spool_file.exists()
    rig.hook = None
    before = tree(rig.root)
    assert rig.absent(check_mode=True).action == "removed"
    assert tree(rig.root) == before
    assert rig.absent().action == "removed"
    assert rig.spool_files == []
    assert not rig.path.exists()
    assert [bool(entry["left_at"]) for entry in rig.ledger] == [True]
    assert rig.absent().action == "none"
    for changes in ({}, {"force": True}, {"rotate_before": NOW}):
        outcome = rig.present(create=False, token=None, **changes)
        assert (outcome.action, outcome.reason, rig.bodies) == ("none", "absent", [])


def test_the_thing_that_absent_has_removed_from_the_spool_is_retired_by_the_next_installation(costly: Rig) -> None:
    costly.hook = unreachable
    with pytest.raises(GatewayUnreachable):
        costly.present(device(1))
    costly.absent()
    costly.present(device(2))
    assert costly.retired_ids == ["device:1"]
    assert [bool(entry["left_at"]) for entry in costly.ledger] == [True, False]


def test_absent_on_a_gateway_that_was_wiped(costly: Rig) -> None:
    """Nothing is left to remove; the ledger still knows the Thing."""
    costly.present(device(1))
    shutil.rmtree(costly.path)
    assert costly.absent().action == "none"
    assert [entry["client_id"] for entry in costly.ledger] == ["device:1"]


# ---- check mode ----


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("service", ["pointperfect", "cloudlocate"])
def test_a_missing_volume_is_refused_in_check_mode_too(rig: Rig, service: str, check_mode: bool) -> None:
    rig.service = service
    place = directory.location(str(rig.root / "volume" / "spool"), service, "hw-1", "gw1 /x")
    error = rig.fails(place=place, make_spool_parents=False, check_mode=check_mode)
    assert (error.code, "volume" in error.message, rig.bodies) == ("spool_failed", True, [])
    assert list(rig.root.iterdir()) == []


def test_check_mode_refuses_what_a_real_run_refuses(costly: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same words, and it changes nothing."""
    (costly.root / "spool").mkdir(mode=0o700)
    refusals: list[tuple[str, Callable[[], object]]] = [
        ("response_lost", lambda: costly.fails(api.OutcomeUnknown(ProvisioningError("timeout", "No response.")))),
        ("spool_failed", lambda: costly.spool.chmod(0o755)),
    ]
    for code, prepare in refusals:
        prepare()
        before = tree(costly.root)
        predicted = costly.fails(check_mode=True)
        assert tree(costly.root) == before
        error = costly.fails()
        assert (predicted.code, predicted.message) == (error.code, error.message)
        assert error.code == code


# ---- interrupted runs ----


def interrupt() -> None:
    """Interrupt the main thread, from any thread."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)


@pytest.fixture
def timeouts() -> Iterator[None]:
    """Each ``interrupt`` raises ``TaskTimeout``."""

    def expire(_number: int, _frame: object) -> NoReturn:
        raise TaskTimeout

    before = signal.signal(signal.SIGALRM, expire)
    yield
    signal.signal(signal.SIGALRM, before)


def in_two_parts(body: bytes, first: Callable[[], object], then: Callable[[], object], pause: float = 0.3) -> Behavior:
    """Send half of a response, do something, and send the other half after a pause."""

    def behave(connection: socket.socket, _request: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with suppress(OSError):
            connection.sendall(head + body[:9])
            first()
            time.sleep(pause)
            connection.sendall(body[9:])
            then()

    return behave


def nothing() -> None:
    pass


def over_http(rig: Rig, port: int, **changes: Any) -> Run:
    """Carry out a run that sends its request over HTTP, as outside the tests."""
    endpoint = api.Endpoint(f"http://127.0.0.1:{port}/ztp", timeout=5, retries=1)
    rig.post = api.post  # type: ignore[method-assign]
    try:
        return rig.present(endpoint=endpoint, **changes)
    finally:
        del rig.post


@pytest.mark.usefixtures("timeouts")
def test_an_interruption_while_the_response_arrives_loses_nothing(costly: Rig) -> None:
    with serving(in_two_parts(encoded(device(1)), interrupt, nothing)) as server, pytest.raises(TaskTimeout):
        over_http(costly, server.port)
    assert costly.spool_files == [costly.spool_file], "and the request is settled"
    assert costly.present().action == "created"
    costly.assert_in_order()


@pytest.mark.usefixtures("timeouts")
def test_an_interruption_after_the_response_arrived_loses_nothing(costly: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of its storage."""
    store = responses.Allocation.store

    def slow(*arguments: Any) -> Any:
        interrupt()
        time.sleep(0.3)
        return store(*arguments)

    monkeypatch.setattr(responses.Allocation, "store", slow)
    with serving(in_two_parts(encoded(device(1)), nothing, nothing, pause=0)) as server, pytest.raises(TaskTimeout):
        over_http(costly, server.port)
    assert costly.spool_files == [costly.spool_file]
    assert costly.present().action == "created"
    costly.assert_in_order()


@pytest.mark.usefixtures("timeouts")
@pytest.mark.parametrize("grace", [0.1, 5])
def test_an_interruption_without_a_response_leaves_the_marker(
    costly: Rig, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    """The platform may have created a Thing. A response that arrives later is written nowhere."""
    monkeypatch.setattr(transport, "GRACE_SECONDS", grace)
    is_sent = threading.Event()
    behavior = in_two_parts(encoded(device(1)), interrupt, is_sent.set, pause=1) if grace < 1 else cut_after(interrupt)
    with serving(behavior) as server:
        with pytest.raises(TaskTimeout):
            over_http(costly, server.port)
        assert grace > 1 or is_sent.wait(10)
    assert [file.suffix for file in costly.spool_files] == [requests.SUFFIX]
    assert costly.fails().code == "response_lost"


def cut_after(action: Callable[[], object]) -> Behavior:
    """Close the connection in the middle of the response."""

    def behave(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf")
        action()

    return behave


@pytest.mark.usefixtures("timeouts")
def test_an_interruption_before_anything_was_sent_leaves_no_marker(costly: Rig) -> None:
    """While the connection to a proxy comes about."""

    def silent(_connection: socket.socket, _request: bytes) -> None:
        interrupt()
        time.sleep(0.3)

    with serving(raw=silent) as proxy:
        endpoint = api.Endpoint("https://127.0.0.1:1/ztp", timeout=5, retries=0, proxy=f"http://127.0.0.1:{proxy.port}")
        costly.post = api.post  # type: ignore[method-assign]
        with pytest.raises(TaskTimeout):
            costly.present(endpoint=endpoint)
        del costly.post
    assert costly.spool_files == []
    assert costly.present(device(1)).action == "created"


@pytest.mark.parametrize("problem", [KeyboardInterrupt, TaskTimeout, SystemExit, RuntimeError, MemoryError])
@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (requests, "sync"),
        (ledger, "read"),
        (responses, "entry_files"),
        (api, "request"),
        (requests.OpenRequest, "settle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_exception_before_the_request_leaves_no_marker(
    costly: Rig, owner: object, step: str, problem: type[BaseException]
) -> None:
    """Wherever it occurs, from the moment at which the marker is there."""
    place = costly.spool_place
    original = getattr(owner, step)

    def fail(*arguments: Any, **options: Any) -> Any:
        marker = place.with_name(place.name + requests.SUFFIX)
        if not marker.exists():
            return original(*arguments, **options)
        if step == "settle":
            original(*arguments, **options)
        raise problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, fail)
        with pytest.raises(problem):
            costly.present(api.NotSent("No network."), api.NotSent("No network."))
    costly.replies.clear()
    assert costly.spool_files == []
    assert costly.present(device(1)).action == "created"
    costly.assert_in_order()


@pytest.mark.parametrize("problem", [KeyboardInterrupt, TaskTimeout])
def test_an_exception_after_the_request_leaves_the_marker(costly: Rig, problem: type[BaseException]) -> None:
    def fail(_endpoint: api.Endpoint, _payload: bytes, sending: api.Sending) -> NoReturn:
        sending.may_have_arrived = True
        raise problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costly, "post", fail)
        with pytest.raises(problem):
            costly.present()
    assert [file.suffix for file in costly.spool_files] == [requests.SUFFIX]
    assert costly.fails().code == "response_lost"


@pytest.mark.parametrize("problem", [KeyboardInterrupt, TaskTimeout])
@pytest.mark.parametrize(
    ("owner", "step"), [(requests.OpenRequest, "settle"), (requests.OpenRequest, "close"), (ledger, "append")]
)
def test_an_exception_after_the_response_loses_nothing(
    costly: Rig, owner: object, step: str, problem: type[BaseException]
) -> None:
    original = getattr(owner, step)

    def fail(*arguments: Any, **options: Any) -> NoReturn:
        original(*arguments, **options)
        raise problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, fail)
        with pytest.raises(problem):
            costly.present(device(1))
    assert costly.present().action == "created"
    assert costly.bodies == []
    costly.assert_in_order()


# ---- a wrong clock ----

FUTURE = NOW + 3650 * DAY


def test_a_response_after_one_from_the_future_is_not_outdated(costly: Rig) -> None:
    """The first run has a clock that is ten years ahead."""
    costly.now = FUTURE
    costly.present(device(1))
    costly.now, costly.hook = NOW, unreachable
    with pytest.raises(GatewayUnreachable):
        costly.present(device(2), force=True)
    outcome = costly.present()
    assert (outcome.action, outcome.reason) == ("renewed", "forced")
    assert costly.record["client_id"] == "device:2"
    assert costly.retired_ids == ["device:1"]
    costly.assert_in_order()


def test_a_response_from_the_future_is_installed_like_any_other(costly: Rig) -> None:
    costly.now, costly.hook = FUTURE, unreachable
    with pytest.raises(GatewayUnreachable):
        costly.present(device(1))
    costly.now = NOW
    outcome = costly.present()
    assert (outcome.action, costly.record["client_id"]) == ("created", "device:1")
    assert [warning for warning in outcome.warnings if "lies in the future" in warning]


@pytest.mark.parametrize("changes", [{"max_age": 30}, {"rotate_before": NOW - DAY}])
def test_credentials_from_the_future_are_renewed_once(costly: Rig, changes: dict[str, Any]) -> None:
    """Their age is unknown; a renewal by the right clock settles that."""
    costly.now = FUTURE
    costly.present(device(1))
    costly.now = NOW
    kept = costly.present()
    assert kept.action == "none"
    assert [warning for warning in kept.warnings if "lies in the future" in warning]
    outcome = costly.present(device(2), **changes)
    assert outcome.action == "renewed"
    assert [warning for warning in outcome.warnings if "lies in the future" in warning] == []
    assert costly.present(**changes).action == "none"
    assert costly.present().warnings == ()
    costly.assert_in_order()


def test_the_same_credentials_again_settle_a_date_in_the_future(installed: Rig, ec_pair: Pair) -> None:
    installed.now = FUTURE
    installed.rewrite(issued_at=timestamp(FUTURE))
    installed.now = NOW
    outcome = installed.present(spartn(ec_pair), max_age=30)
    assert (outcome.action, outcome.reason) == ("unchanged", "max_age")
    assert installed.present(max_age=30).action == "none"


# ---- the platform activates the Thing ----


def test_a_thing_that_was_pending_and_is_registered_now(rig: Rig) -> None:
    """This controller registered it; another profile has nothing to do with it."""
    error = rig.fails(PENDING, REGISTERED)
    assert (error.code, error.status) == ("already_registered", 403)
    assert "An earlier request of this controller registered this hardware ID" in error.message
    assert "return the existing device credentials" in error.message
    error = rig.fails(REGISTERED)
    assert "An earlier request of this controller" in error.message, "also in a later run"


def test_a_run_that_is_interrupted_while_the_thing_is_pending(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def expire(_seconds: float) -> NoReturn:
        raise TaskTimeout

    with monkeypatch.context() as patch:
        runtime = rig.runtime()
        patch.setattr(rig, "runtime", lambda: replace(runtime, sleep=expire))
        with pytest.raises(TaskTimeout):
            rig.present(PENDING)
    assert "An earlier request of this controller" in rig.fails(REGISTERED).message


def test_a_thing_that_was_pending_and_is_active_now(rig: Rig, ec_pair: Pair) -> None:
    assert rig.fails(PENDING, activation_timeout=0).code == "activation_pending"
    assert rig.present(spartn(ec_pair)).action == "created"
    rig.assert_in_order()
    error = rig.fails(REGISTERED, force=True)
    assert "An earlier request" not in error.message, "it may belong to another profile after all"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The input that a gateway gets for each command, and the result of its output."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import Change, Hooks
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import File, GatewayState
from ansible_collections.thingstream.ztp.tests.unit.states import (
    ESCAPES,
    LONG,
    PATH,
    STATE,
    Connection,
    altered,
    failure,
    framed,
    gnu,
    installed,
)
from ansible_collections.thingstream.ztp.tests.unit.support import MQTT_PASSWORD, NOW, assert_no_secret, run_locally

# ---- looks ----


def test_a_look_sends_the_script_on_standard_input() -> None:
    connection = Connection(framed(*installed()))
    commands.look(connection, "/etc/it's $(here)/x", "some'one", None)
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("exec sh -s", False)
    text = standard_input.decode()
    assert text.startswith("request_command=look\nrequest_path='/etc/it'\"'\"'s $(here)/x'\n")
    assert "request_owner='some'\"'\"'one'\n" in text
    assert text.endswith(commands.LOOK_SCRIPT)


def test_a_look_at_generations_reads_every_path_and_every_generation() -> None:
    empty = ["identity uid=0(root) gid=0(root)", "@listing", gnu("drwxr-xr-x", 0, 0, "/"), "@"]
    connection = Connection(
        framed(
            f"path {PATH}",
            *installed(),
            "generation 000001",
            'record {"service": "old"}',
            "generation 000002",
            "record nonsense",
            "generation 000004",
            "generation 000003.bad",
            'record {"service": "aside"}',
            "generation ../../etc",
            "path /etc/other",
            *empty,
        )
    )
    first, second = commands.look_at_generations(connection, [PATH, "/etc/other"])
    assert first == altered(
        commands.look(Connection(framed(*installed())), PATH),
        owner_id=0,
        group_id=7,
        directory_owner_id=0,
        generations={"000001": '{"service": "old"}', "000002": "nonsense", "000004": None},
    )
    assert (second.path, second.bundle.current, second.exists, second.bundle.generations) == (
        "/etc/other",
        None,
        False,
        {},
    )
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("exec sh -s", False)
    assert standard_input.decode().startswith(f"set -- {PATH} /etc/other\n")


@pytest.mark.parametrize("paths", [0, 1, 3])
def test_a_look_at_too_few_or_too_many_paths_is_not_understood(paths: int) -> None:
    answer = framed(*(line for number in range(paths) for line in (f"path /p{number}", *installed())))
    error = failure(lambda: commands.look_at_generations(Connection(answer), ["/a/b", "/c/d"]))
    assert error.code == "gateway_unsupported"


# ---- what install sends ----

FILES = {
    "client.key": File(MQTT_PASSWORD.encode(), 0o640),
    "client.crt": File(b"public", 0o644),
    "empty": File(b"", 0o600),
}


MODES = {name: file.mode for name, file in FILES.items()}
CHANGE = Change(directory_mode=0o750, keep=2, nonce="0123abcd")
DIGESTS = {"client.key": "d" * 64, "client.crt": "e" * 64}


def install(
    connection: Connection, state: GatewayState = STATE, how: Change = CHANGE, modified_at: datetime = NOW
) -> str:
    return commands.install(connection, state, FILES, how, modified_at)


def request_of(text: str) -> dict[str, str]:
    """Return the assignments in front of the script, as a shell reads them."""
    assert text.endswith(commands.CHANGE_SCRIPT)
    words = shlex.split(text[: -len(commands.CHANGE_SCRIPT)])
    return {name.removeprefix("request_"): value for name, _is, value in (word.partition("=") for word in words)}


def script_of(standard_input: bytes) -> str:
    """Return the script that is run, from the archive of an install or from the input as it is."""
    if standard_input[257:262] != b"ustar":
        return standard_input.decode()
    with tarfile.open(fileobj=io.BytesIO(standard_input)) as archive:
        reader = archive.extractfile("change.sh")
        assert reader is not None
        return reader.read().decode()


def test_the_stream_of_an_install() -> None:
    connection = Connection(framed("installed 000003"))
    assert install(connection) == "000003"
    ((_command, stream, secret),) = connection.sent
    assert secret is False
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        members = {member.name: member for member in archive.getmembers()}
        content = {name: archive.extractfile(name) for name, member in members.items() if member.isfile()}
        read = {name: reader.read() for name, reader in content.items() if reader is not None}
    names = list(members)
    assert [name for name in names if members[name].isfile()] == [
        "change.sh", "digests", "files/client.key", "files/client.crt", "files/empty",
    ]  # fmt: skip
    assert names.index("change.sh") < min(names.index(name) for name in names if name.startswith("files/"))
    assert {name: member.mode for name, member in members.items()} == {
        "change.sh": 0o600,
        "digests": 0o600,
        "files": 0o700,
        "files/client.key": 0o640,
        "files/client.crt": 0o644,
        "files/empty": 0o600,
    }
    assert {member.mtime for member in members.values() if member.isfile()} == {int(NOW.timestamp())}
    assert {name: read[f"files/{name}"] for name in FILES} == {name: file.content for name, file in FILES.items()}
    assert read["digests"].decode().splitlines() == [
        f"{hashlib.sha256(file.content).hexdigest()}  files/{name}" for name, file in FILES.items()
    ]
    script = read["change.sh"].decode()
    assert script.endswith(commands.CHANGE_SCRIPT)
    assert request_of(script) == {
        "command": "install",
        "path": PATH,
        "current": "000002",
        "user_id": "0",
        "owner_id": "0",
        "group_id": "0",
        "directory_mode": "0750",
        "keep": "2",
        "nonce": "0123abcd",
        "files": "0640 -rw-r----- client.key 0644 -rw-r--r-- client.crt 0600 -rw------- empty",
        "history": "",
        "known_history": "",
        "reload_command": "",
        "health_command": "",
        "health_timeout": "30",
    }


def test_nothing_long_and_no_secret_is_in_a_command() -> None:
    path = "/" + "/".join(["x" * 50] * 10)
    connection = Connection(framed("installed 000003", "attributes_set 000002"))
    state = altered(STATE, path=path)
    install(connection, state)
    modes = {f"file{number}": 0o640 for number in range(500)}
    commands.set_attributes(connection, state, modes, CHANGE)
    for command, _standard_input, _secret in connection.sent:
        assert len(command) < 4096
        assert_no_secret(command)
    assert connection.sent[1][0] == "exec sh -s"


HOSTILE = f'it\'s $(id) `id`; "{MQTT_PASSWORD}"\nrequest_path=/etc\n' + "x" * 10_000
TOLD = replace(
    CHANGE,
    history=json.dumps({"things": [{"given_name": HOSTILE}]}),
    hooks=Hooks(reload_command=HOSTILE, health_command=f"{HOSTILE}2", health_timeout=7),
)


@pytest.mark.parametrize(
    ("answer", "call"),
    [
        ("installed 000003", lambda execute: install(execute, how=TOLD)),
        ("attributes_set 000002", lambda execute: commands.set_attributes(execute, STATE, MODES, TOLD)),
        ("rolled_back 000001", lambda execute: commands.roll_back(execute, STATE, "000001", MODES, DIGESTS, TOLD)),
        ("history_written", lambda execute: commands.write_history(execute, STATE, TOLD)),
        ("removed", lambda execute: commands.remove(execute, STATE, TOLD)),
    ],
    ids=["install", "repair", "roll_back", "write_history", "remove"],
)
def test_history_and_commands_travel_on_standard_input_only(answer: str, call: Callable[[Connection], object]) -> None:
    connection = Connection(framed(answer))
    call(connection)
    ((command, standard_input, secret),) = connection.sent
    assert secret is False
    assert_no_secret(command)
    assert not [word for word in ("history", "$(id)", "given_name", "xxxx") if word in command]
    assert len(command) < 1000
    request = request_of(script_of(standard_input))
    assert request["path"] == PATH, "no value ends its own assignment"
    assert request["history"] == TOLD.history
    assert (request["reload_command"], request["health_command"]) == (HOSTILE, f"{HOSTILE}2")
    assert request["health_timeout"] == "7"


def test_the_archive_is_plain_enough_for_every_tar() -> None:
    connection = Connection(framed("installed 000003"))
    install(connection, modified_at=NOW.replace(microsecond=123_456))
    stream = connection.sent[0][1]
    assert stream[257:265] == b"ustar\x0000"
    assert len(stream) % 512 == 0
    assert stream[156:157] in b"05", "no extension header at its begin"
    assert b"PaxHeader" not in stream
    assert b"LongLink" not in stream


@pytest.mark.parametrize("user_id", [0, 1000, 65534, 2_097_151, 2_097_152, 1_234_600_001, 4_294_967_294])
def test_any_user_id_that_linux_has_can_install(user_id: int) -> None:
    """Domain accounts have numbers that the fields of a plain archive cannot hold."""
    state = altered(STATE, user_id=user_id, owner_id=user_id)
    assert install(Connection(framed("installed 000003")), state) == "000003"


def test_a_path_with_quotes_stays_one_word() -> None:
    connection = Connection(framed("installed 000003"))
    install(connection, altered(STATE, path="/etc/it's; touch x/$(id)"))
    command = connection.sent[0][0]
    assert command.startswith("LC_ALL=C; export LC_ALL; trap : HUP PIPE; p='/etc/it'\"'\"'s; touch x/$(id)';")
    assert "touch" not in command.partition("';")[2]


def test_a_login_shell_of_sudo_expands_no_variable() -> None:
    """``sudo -i`` quotes the command for its login shell, except letters, digits, ``_``, ``-`` and ``$``."""
    connection = Connection(framed("installed 000003"))
    install(connection)
    assert re.findall(r"\$[A-Za-z_0-9]", connection.sent[0][0]) == []


def test_the_first_install_expects_no_current() -> None:
    connection = Connection(framed("installed 000001"))
    install(connection, altered(STATE, current=None))
    assert b"\nrequest_current=''\n" in connection.sent[0][1]


@pytest.mark.parametrize(
    ("status", "output", "complaint", "code"),
    [
        (0, framed("failed concurrent_change current is 000003"), "", "concurrent_change"),
        (0, framed("failed disk_full the disk did not keep it"), "", "disk_full"),
        (2, "", "tar: client.key: Cannot write: No space left on device\n", "disk_full"),
        (2, "", "tar: client.key: Cannot open: No such file or directory\ncleared away\n", "concurrent_change"),
        (2, "", "tar: client.key: Cannot utime: No such file or directory\n", "concurrent_change"),
        (2, "", "tar: can't open 'client.key': No such file or directory\n", "concurrent_change"),
        (2, "", "sh: 0: cannot open ./change.sh: No such file\n", "concurrent_change"),
        (127, "", "sh: ./change.sh: No such file or directory\n", "concurrent_change"),
        (127, "", "sh: tar: not found\n", "gateway_unsupported"),
        (2, "", "tar: write error: Disk quota exceeded", "disk_full"),
        (2, "", "tar: write error: File too large", "disk_full"),
        (2, "", "tar: client.key: Wrote only 512 of 1704 bytes\ntar: Exiting with failure status", "disk_full"),
        (1, "", "mkdir: can't create directory '/etc/x': Read-only file system\n", "permission"),
        (1, "", "mkdir: cannot create directory: Permission denied\n", "permission"),
        (127, "", "sh: tar: not found", "gateway_unsupported"),
        (1, "", "", "gateway_unsupported"),
        (1, "noise", ESCAPES + LONG, "gateway_unsupported"),
        (0, "", "", "gateway_unsupported"),
        (0, "begin 1\n", "", "gateway_unsupported"),
        (0, framed("nonsense"), "", "gateway_unsupported"),
        (0, framed("installed"), "", "gateway_unsupported"),
        (0, framed("installed ../../etc"), "", "gateway_unsupported"),
        (0, framed("installed 3"), "", "gateway_unsupported"),
        (0, framed("installed 000003 "), "", "gateway_unsupported"),
    ],
)
def test_an_install_that_fails(status: int, output: str, complaint: str, code: str) -> None:
    error = failure(lambda: install(Connection(output, status, complaint)))
    assert error.code == code


# What a compromised gateway can repeat without end
PIECES = [
    "tar: ",
    "change.sh ",
    "1(",
    "1(a)",
    "uid=1(",
    " gid=1",
    "no such fil",
    "1 ",
    "\\",
    "(",
    "9",
    "record {",
    "\t",
    "-> ",
]


def test_the_last_line_of_gnu_tar_is_no_reason() -> None:
    complaint = "tar: change.sh: Cannot change mode\ntar: Exiting with failure status due to previous errors\n"
    assert "Cannot change mode" in failure(lambda: install(Connection("", 2, complaint))).message


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_for_hostile_output_grows_with_its_length_only(piece: str) -> None:
    """200 KB take less than 2 seconds of processor time; what is quadratic takes minutes."""
    long = piece * (200_000 // len(piece))
    looks = [
        framed(*installed(identity=f"uid=0(root) gid=0(root) groups={long}")),
        framed(*installed(identity=f"uid=0({long}) gid=0(root)")),
        framed(*installed(), long),
        framed(*installed(ls=lambda mode, owner, group, name: f"{mode} 2 {owner} {group} {long} {name}")),
        f"begin 1\nidentity {long}\nend\n",
        long,
    ]
    begin = time.process_time()
    for output in looks:
        with suppress(ProvisioningError):
            commands.look(Connection(output, 0, long), PATH, None, None)
    for complaint in (long, f"{long}\n" * 2):
        failure(lambda complaint=complaint: install(Connection("", 2, complaint)))  # type: ignore[misc]
    assert time.process_time() - begin < 2 * (len(looks) + 2)


# ---- the other commands ----


def test_set_attributes_names_the_modes_and_not_the_content() -> None:
    connection = Connection(framed("attributes_set 000002"))
    assert commands.set_attributes(connection, STATE, MODES, CHANGE) == "000002"
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("exec sh -s", False)
    assert b"request_command=set_attributes\n" in standard_input
    assert MQTT_PASSWORD.encode() not in standard_input


def test_a_removal() -> None:
    connection = Connection(framed("removed"))
    commands.remove(connection, STATE, CHANGE)
    assert connection.sent[0][1].startswith(b"request_command=remove\n")
    assert failure(lambda: commands.remove(Connection(framed("nothing")), STATE, CHANGE)).code == "gateway_unsupported"


def roll_back(connection: Connection, state: GatewayState = STATE, how: Change = CHANGE) -> str:
    return commands.roll_back(connection, state, "000001", MODES, DIGESTS, how)


def test_a_roll_back_names_its_target_with_modes_and_digests_and_no_content() -> None:
    connection = Connection(framed("rolled_back 000001"))
    assert roll_back(connection) == "000001"
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("exec sh -s", False)
    assert MQTT_PASSWORD.encode() not in standard_input
    request = request_of(standard_input.decode())
    assert {name: request[name] for name in ("command", "path", "current", "target", "keep", "nonce")} == {
        "command": "roll_back",
        "path": PATH,
        "current": "000002",
        "target": "000001",
        "keep": "2",
        "nonce": "0123abcd",
    }
    assert request["digests"].splitlines() == [f"{digest}  {name}" for name, digest in DIGESTS.items()]
    assert request["files"].split()[2::3] == list(FILES)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (("failed no_generation generation 000001 is gone",), "no_generation"),
        (("failed no_generation generation 000001 is damaged",), "no_generation"),
        (("failed health_check_failed health_command ended with status 1",), "health_check_failed"),
        (("failed concurrent_change current is 000003",), "concurrent_change"),
        (("nothing",), "gateway_unsupported"),
        (("rolled_back",), "gateway_unsupported"),
        (("rolled_back ../../etc",), "gateway_unsupported"),
        (("installed 000001",), "gateway_unsupported"),
    ],
)
def test_a_roll_back_that_fails(lines: tuple[str, ...], code: str) -> None:
    assert failure(lambda: roll_back(Connection(framed(*lines)))).code == code


@pytest.mark.parametrize(("text", "known"), [("", ""), ('{"things": []}', '{"things": []}'), ("\udcff", "?")])
def test_what_is_known_of_the_history_is_sent_along(text: str, known: str) -> None:
    connection = Connection(framed("history_written"))
    commands.write_history(connection, altered(STATE, history=text), replace(CHANGE, history='{"things": []}'))
    assert request_of(connection.sent[0][1].decode())["known_history"] == known


def test_a_history_is_written_without_any_file() -> None:
    connection = Connection(framed("history_written"))
    commands.write_history(connection, STATE, replace(CHANGE, history='{"things": []}'))
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("exec sh -s", False)
    request = request_of(standard_input.decode())
    assert (request["command"], request["history"], request["files"]) == ("write_history", '{"things": []}', "")
    for lines, code in ((("nothing",), "gateway_unsupported"), (("failed permission x",), "permission")):
        error = failure(lambda lines=lines: commands.write_history(Connection(framed(*lines)), STATE, CHANGE))  # type: ignore[misc]
        assert error.code == code


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, ("0", "0")),
        ({"owner_id": 998, "group_id": 997}, ("998", "997")),
        ({"user_id": 1000, "groups": {1001: "pi"}, "owner_id": None, "group_id": None}, ("1000", "1001")),
        ({"groups": {}, "owner_id": None, "group_id": None}, ("0", "0")),
    ],
)
def test_a_history_can_be_written_where_the_wanted_owner_is_unknown(
    changes: dict[str, Any], ids: tuple[str, str]
) -> None:
    connection = Connection(framed("history_written"))
    commands.write_history(connection, altered(STATE, **changes), CHANGE)
    request = request_of(connection.sent[0][1].decode())
    assert (request["owner_id"], request["group_id"]) == ids


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}',
        b'{"a": 1}\n',
        b'{\n  "a": 1\n}\n\n\n',
        b'{\r\n  "a": 1\r\n}\r\n',
        b"",
        b"\n",
        "grüße".encode(),
        b"\xff\xfe",
        b'{"x":\n"begin 1"}',
        b"end",
        b"{\nend\n}",
    ],
)
def test_the_installed_response_is_read_back_byte_by_byte(content: bytes) -> None:
    """As the script prints it: the file, and a line feed of its own."""
    output = "begin 1\nresponse\n" + content.decode("utf-8", "surrogateescape") + "\nend\n"
    connection = Connection("Welcome\n" + output)
    assert commands.read_response(connection, STATE) == content
    ((_command, standard_input, secret),) = connection.sent
    assert secret is True, "the one answer that is a secret"
    assert b"request_current=000002\n" in standard_input


def test_a_response_that_cannot_be_read() -> None:
    for output in ("", framed("nothing"), framed("failed bad_path cannot read the installed response")):
        failure(lambda output=output: commands.read_response(Connection(output), STATE))  # type: ignore[misc]


# ---- a report that was lost ----


def losing(lost: list[str]) -> Callable[[str, bytes, bool], tuple[int, str, str]]:
    """Return a connection that breaks once the gateway has done its work, and makes ssh send the same again."""

    def execute(command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        _status, output, _complaint = run_locally(command, standard_input, secret)
        lost.append(output)
        return run_locally(command, standard_input, secret)

    return execute


def test_the_same_request_twice_changes_a_gateway_once(tmp_path: Path) -> None:
    """Each command with the script itself: the second attempt reports what the first one did."""
    path, lost = tmp_path / "etc" / "thingstream", list[str]()
    execute = losing(lost)

    def state() -> GatewayState:
        return commands.look(run_locally, str(path), thorough=True)

    def how(number: int, history: str | None = None) -> Change:
        return Change(0o750, 2, f"nonce{number}", history=history)

    assert commands.install(execute, state(), FILES, how(1), NOW) == "000001"
    assert commands.install(execute, state(), FILES, how(2, '{"things": []}'), NOW) == "000002"
    digests = {name: hashlib.sha256(file.content).hexdigest() for name, file in FILES.items()}
    assert commands.roll_back(execute, state(), "000001", MODES, digests, how(3)) == "000001"
    assert commands.set_attributes(execute, state(), MODES, how(4)) == "000001"
    commands.write_history(execute, state(), how(5, '{"things": [1]}'))
    assert sorted(entry.name for entry in (path / "generations").iterdir()) == ["000001", "000002"]
    assert state().bundle.leftovers == ()
    commands.remove(execute, state(), how(6, '{"things": [1, 2]}'))
    assert [entry.name for entry in path.iterdir()] == ["history.json"]
    (path / "history.json").unlink()
    commands.remove(execute, state(), how(7))
    assert not path.exists()
    assert [output.splitlines()[1] for output in lost] == [
        "installed 000001",
        "installed 000002",
        "rolled_back 000001",
        "attributes_set 000001",
        "history_written",
        "removed",
        "removed",
    ]


@pytest.mark.parametrize("nonce", ["", "a b", "$(id)", "A", "../x", "x" * 65, "a\n"])
def test_a_nonce_is_plain(nonce: str) -> None:
    with pytest.raises(ValueError, match="not a nonce"):
        Change(0o750, 1, nonce)


def test_representations_hide_content() -> None:
    assert_no_secret(FILES, FILES["client.key"], STATE)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to a gateway, and what is made of its answers: those of real systems and those of hostile ones."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES, ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands as gateway
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.commands import (
    Attributes,
    Change,
    Consumers,
    File,
    Held,
)
from ansible_collections.thingstream.ztp.tests.unit.support import MQTT_PASSWORD, NOW, assert_no_secret

PATH = "/etc/thingstream/pointperfect"
RECORD = {"service": "pointperfect", "files": {"client.key": "d" * 64}}


@dataclass
class Answering:
    """A connection that gives canned answers and keeps what was sent."""

    output: str = ""
    status: int = 0
    complaint: str = ""
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def __call__(self, command: str, standard_input: bytes, secret: bool) -> tuple[int, str, str]:
        self.sent.append((command, standard_input, secret))
        return self.status, self.output, self.complaint


def framed(*lines: str) -> str:
    return "\n".join(("begin 1", *lines, "end", ""))


def gnu(mode: str, owner: int, group: int, name: str) -> str:
    return f"{mode} 2 {owner} {group} 4096 Nov 22 01:46 {name}"


def gnu_selinux(mode: str, owner: int, group: int, name: str) -> str:
    return f"{mode}. 2 {owner} {group}  4096 Nov 22  2025 {name}"


def busybox(mode: str, owner: int, group: int, name: str) -> str:
    return f"{mode}    2 {owner:<8d} {group:<8d}      4096 Nov 22 01:46 {name}"


Listing = Callable[[str, int, int, str], str]

GNU_DF = ("Filesystem     1024-blocks    Used Available Capacity Mounted on",
          "/dev/mmcblk0p2     30338056 2893648  26197016      10% /")  # fmt: skip
BUSYBOX_DF = ("Filesystem           1024-blocks    Used Available Capacity Mounted on",
              "overlayfs:/overlay        26197016      2048     26197016   0% /")  # fmt: skip
SPACED_DF = ("Filesystem 1024-blocks Used Available Capacity Mounted on",
             "//server/share 30338056 2893648 26197016 10% /mnt/my disk")  # fmt: skip


def installed(
    ls: Listing = gnu, identity: str = "uid=0(root) gid=0(root) groups=0(root)", df: tuple[str, ...] = GNU_DF
) -> list[str]:
    """What a gateway prints that holds two generations and a leftover."""
    return [
        f"identity {identity}",
        f"physical_path {PATH}",
        f"current {PATH}/generations/000002",
        *(f"record {line}" for line in json.dumps(RECORD, indent=2).splitlines()),
        "@digests",
        f"{'d' * 64}  client.key",
        f"{'e' * 64}  thing.json",
        "@listing",
        ls("drwxr-xr-x", 0, 0, "/"),
        ls("drwxr-xr-x", 0, 0, "/etc"),
        ls("drwxr-xr-x", 0, 0, "/etc/thingstream"),
        ls("drwxr-x---", 0, 7, PATH),
        ls("drwx------", 0, 0, f"{PATH}/.staging-abc"),
        ls("lrwxrwxrwx", 0, 0, f"{PATH}/current -> generations/000002"),
        ls("drwxr-x---", 0, 7, f"{PATH}/generations"),
        ls("drwxr-x---", 0, 7, f"{PATH}/generations/000001"),
        ls("drwxr-x---", 0, 7, f"{PATH}/generations/000002"),
        ls("-rw-r-----", 0, 7, f"{PATH}/generations/000002/client.key"),
        ls("-rw-r-----", 0, 7, f"{PATH}/generations/000002/thing.json"),
        "@space",
        *df,
        "@",
    ]


def probe(output: str, owner: str | None = None, group: str | None = None) -> Held:
    return gateway.probe(Answering(output), PATH, owner, group)


def failure(action: Callable[[], object]) -> ProvisioningError:
    """The error of an action: one that can be shown to anybody on any terminal."""
    with pytest.raises(ProvisioningError) as caught:
        action()
    error = caught.value
    assert error.code in ERROR_CODES
    assert error.message.isprintable()
    assert len(error.message) < 2000
    assert_no_secret(error)
    return error


# ---- probe: what real systems print ----


@pytest.mark.parametrize("df", [GNU_DF, BUSYBOX_DF, SPACED_DF])
@pytest.mark.parametrize("ls", [gnu, gnu_selinux, busybox])
def test_a_probe(ls: Listing, df: tuple[str, ...]) -> None:
    held = probe(framed(*installed(ls, df=df)))
    assert held == Held(
        path=PATH,
        user_id=0,
        user_name="root",
        groups={0: "root"},
        owner_id=0,
        group_id=0,
        ancestors=[
            ("/", Attributes("drwxr-xr-x", 0, 0)),
            ("/etc", Attributes("drwxr-xr-x", 0, 0)),
            ("/etc/thingstream", Attributes("drwxr-xr-x", 0, 0)),
            (PATH, Attributes("drwxr-x---", 0, 7)),
        ],
        free_kib=26197016,
        current="000002",
        record=RECORD,
        digests={"client.key": "d" * 64, "thing.json": "e" * 64},
        files={"client.key": Attributes("-rw-r-----", 0, 7), "thing.json": Attributes("-rw-r-----", 0, 7)},
        directories={
            "generations": Attributes("drwxr-x---", 0, 7),
            ".": Attributes("drwxr-x---", 0, 7),
            "current": Attributes("drwxr-x---", 0, 7),
        },
        newest="000002",
        leftovers=(".staging-abc",),
    )
    assert held.exists


@pytest.mark.parametrize(
    ("identity", "user", "groups"),
    [
        ("uid=0(root) gid=0(root) groups=0(root)", (0, "root"), {0: "root"}),
        ("uid=0(root) gid=0(root)", (0, "root"), {0: "root"}),
        (
            "uid=1000(pi) gid=1000(pi) groups=1000(pi),20(dialout),27(sudo2)",
            (1000, "pi"),
            {1000: "pi", 20: "dialout", 27: "sudo2"},
        ),
        ("uid=1000 gid=1000 groups=1000,27(sudo)", (1000, "1000"), {1000: "1000", 27: "sudo"}),
        (
            "uid=0(root) gid=0(root) groups=0(root) context=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023",
            (0, "root"),
            {0: "root"},
        ),
        (
            "uid=1234600001(DOM\\some one) gid=1234600513(domain users) groups=1234600513(domain users)",
            (1234600001, "DOM\\some one"),
            {1234600513: "domain users"},
        ),
    ],
)
def test_who_runs_the_commands(identity: str, user: tuple[int, str], groups: dict[int, str]) -> None:
    held = probe(framed(*installed(identity=identity)))
    assert (held.user_id, held.user_name) == user
    assert held.groups == groups
    assert (held.owner_id, held.group_id) == (user[0], next(iter(groups))), "the primary group comes first"


@pytest.mark.parametrize(
    ("owner", "group", "lines", "ids"),
    [
        (None, None, (), (0, 0)),
        ("consumer", None, ("owner_id 998",), (998, 0)),
        ("consumer", None, ("owner_id 998 996",), (998, 996)),
        ("consumer", "staff", ("owner_id 998 996", "group_id 50 a,b"), (998, 50)),
        ("consumer", "nor-here", ("owner_id 998 996", "group_id "), (998, None)),
        (None, "consumer", ("group_id 997",), (0, 997)),
        ("consumer", "consumer", ("owner_id 998", "group_id 997"), (998, 997)),
        ("nobody-here", "nor-here", ("owner_id ", "group_id "), (None, None)),
        ("nobody-here", None, (), (None, 0)),
        ("x", None, ("owner_id root",), (None, 0)),
        ("x", None, ("owner_id -1",), (None, 0)),
    ],
)
def test_the_wanted_owner_and_group(
    owner: str | None, group: str | None, lines: tuple[str, ...], ids: tuple[int | None, int | None]
) -> None:
    held = probe(framed(*installed(), *lines), owner, group)
    assert (held.owner_id, held.group_id) == ids


def test_a_gateway_that_has_nothing_yet() -> None:
    lines = [
        "identity uid=0(root) gid=0(root)",
        "missing sha256sum",
        "not_writable /etc",
        "missing mv -T",
        "@listing",
        busybox("drwxr-xr-x", 0, 0, "/"),
        busybox("drwxr-xr-x", 0, 0, "/etc"),
        "@space",
        *BUSYBOX_DF,
        "@",
    ]
    held = probe(framed(*lines))
    assert (held.current, held.record, held.exists, held.directories, held.files) == (None, None, False, {}, {})
    assert held.missing_tools == ("sha256sum", "mv -T")
    assert held.not_writable == "/etc"


@pytest.mark.parametrize(
    "df", [(), ("",), ("df: /etc: can't find mount point",), ("rootfs - - - - /",), ("a b c ² /",), GNU_DF[:1]]
)
def test_free_space_that_cannot_be_read_is_left_to_the_writing(df: tuple[str, ...]) -> None:
    assert probe(framed(*installed(df=df))).free_kib is None


def test_a_link_among_the_ancestors_is_named_without_its_target() -> None:
    line = gnu("lrwxrwxrwx", 0, 0, "/etc/thingstream -> /data/ts")
    held = probe(change(gnu("drwxr-xr-x", 0, 0, "/etc/thingstream"), line))
    assert held.ancestors[2] == ("/etc/thingstream", Attributes("lrwxrwxrwx", 0, 0))


def test_a_path_below_a_link_is_listed_by_its_physical_name() -> None:
    """The directories down to the path keep the name that was asked for, what is inside does not."""
    down_to_it = gnu("drwxr-x---", 0, 7, PATH)
    lines = [line if line == down_to_it else line.replace(PATH, "/data/ts/pointperfect") for line in installed()]
    held = probe(framed(*lines))
    assert (held.path, held.current, held.exists) == (PATH, "000002", True)
    assert set(held.files) == {"client.key", "thing.json"}
    assert set(held.directories) == {".", "generations", "current"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("Welcome to OpenWrt!\n\n  -----\n", ""),
        ("Last login: today\r\n", "logout\r\n"),
        ("end\n", "\n\n"),
        ("failed disk_full a message of the day\n", "Connection closed\n"),
        ("\x1b[2J\x1b[H\ufffd\udcff", "\x1b[0m"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_a_login_shell_prints_around_it(before: str, after: str, line_end: str) -> None:
    quiet = probe(framed(*installed()))
    assert probe(before + framed(*installed()).replace("\n", line_end) + after) == quiet


def test_a_probe_sends_the_script_on_standard_input() -> None:
    connection = Answering(framed(*installed()))
    gateway.probe(connection, "/etc/it's $(here)/x", "some'one", None)
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("sh -s", False)
    text = standard_input.decode()
    assert text.startswith("request_command=probe\nrequest_path='/etc/it'\"'\"'s $(here)/x'\n")
    assert "request_owner='some'\"'\"'one'\n" in text
    assert text.endswith(gateway.LOOK_SCRIPT)


# ---- probe: what hostile ones print ----


def change(line: str, *replacements: str) -> str:
    """The answer of a gateway in order, with the lines that begin with ``line`` replaced by others."""
    lines = installed()
    at = next(number for number, text in enumerate(lines) if text.startswith(line))
    lines = [text for text in lines if not text.startswith(line)]
    return framed(*lines[:at], *replacements, *lines[at:])


@pytest.mark.parametrize(
    "output",
    [
        "",
        "begin 1\n",
        "begin 1\nend\n",
        "begin 2\nend\n",
        "begin 1",
        "sh: not found\n",
        framed(*installed())[:-5],
        framed(*installed())[:200],
        "\0" * 1000,
        change("identity"),
        change("identity", "identity root"),
        change("identity", "identity uid=x(root) gid=0(root)"),
        change("identity", "identity uid=" + "9" * 5000 + "(root) gid=0(root)"),
        change("@listing"),
        change("@listing", "@listing", ""),
        change("@listing", "@listing", "drwxr-xr-x"),
        change("@listing", "@listing", "drwxr-xr-x 2 root root 4096 Nov 22 01:46 /"),
        change("@listing", "@listing", "drwxr-xr-x 2 0 0 4096 Nov 22 01:46"),
        change("@listing", "@listing", f"drwxr-xr-x 2 {'9' * 5000} 0 4096 Nov 22 01:46 /"),
        framed("\udcff\udcfe"),
    ],
    ids=lambda output: repr(output[:30]),
)
def test_an_answer_that_is_none(output: str) -> None:
    error = failure(lambda: probe(output))
    assert error.code == "gateway_unsupported"


def test_an_answer_without_an_end_is_refused_unread() -> None:
    output = framed("\n".join(["@listing", *["x" * 100] * 100_000]))
    begin = time.process_time()
    error = failure(lambda: probe(output))
    assert (error.code, "MiB" in error.message) == ("gateway_unsupported", True)
    assert time.process_time() - begin < 0.05


def test_a_shell_that_fails_is_quoted_short_and_printable() -> None:
    complaint = "noise\n" + "\x1b[31m{{ 7*7 }} sorry, you must have a tty\x00 " + "x" * 10_000
    error = failure(lambda: gateway.probe(Answering("", 1, complaint), PATH))
    assert (error.code, "exit status 1" in error.message) == ("gateway_unsupported", True)
    assert "{{ 7*7 }} sorry, you must have a tty" in error.message
    assert len(error.message) < 600


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/",
        "/etc",
        "/etc/shadow",
        "/tmp/generations/000002",
        f"{PATH}/generations",
        f"{PATH}/generations/",
        f"{PATH}/generations/2",
        f"{PATH}/generations/0000002",
        f"{PATH}/generations/000002/",
        f"{PATH}/generations/../../000002",
        f"{PATH}/generations/000002/../../../000002",
        f"{PATH}/generations/00000\u0662",
        f"{PATH}/000002",
        f"../{PATH}/generations/000002",
        "generations/000002",
    ],
)
def test_a_current_that_points_elsewhere_is_none(target: str) -> None:
    held = probe(change("current", f"current {target}"))
    assert (held.current, held.record, held.digests, held.files) == (None, None, {}, {})
    assert "000002" in held.leftovers, "what never became current is to be cleared away"


@pytest.mark.parametrize("mode", ["drwxr-x---", "-rw-r-----"])
def test_a_current_that_is_no_link_is_none(mode: str) -> None:
    answer = framed(*(line.replace("lrwxrwxrwx", mode).replace(" -> generations/000002", "") for line in installed()))
    assert probe(answer).current is None


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", ".hidden", "", "a b", "-rf", "a/b", "a" * 129, "\x1b[31m", "ü", "a\0"]
)
def test_a_digest_of_a_name_that_no_bundle_has_is_dropped(name: str) -> None:
    answer = change("@digests", "@digests", f"{'d' * 64}  {name}", "@rest")
    assert probe(answer).digests == {}


@pytest.mark.parametrize("digest", ["", "d" * 63, "d" * 65, "D" * 64, "x" * 64, "\\" + "d" * 64])
def test_a_digest_that_is_none_is_dropped(digest: str) -> None:
    assert probe(change("@digests", "@digests", f"{digest}  client.key", "@rest")).digests == {}


@pytest.mark.parametrize(
    "record",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "5",
        '{"a": 1',
        "[" * 200_000,
        '{"a":' * 20_000,
        json.dumps({"a": "x" * 300_000}),
        "9" * 5000,
        '{"a": \udcff}',
    ],
    ids=lambda record: repr(record[:20]),
)
def test_a_record_that_is_none(record: str) -> None:
    held = probe(change("record", f"record {record}"))
    assert (held.current, held.record) == ("000002", None)


def test_thousands_of_lines_are_read_quickly() -> None:
    begin = time.process_time()
    digests = [f"{number:064x}  file{number}" for number in range(5_000)]
    listed = [gnu("-rw-------", 0, 0, f"{PATH}/generations/000002/file{number}") for number in range(5_000)]
    noise = ["noise of some length" * 5] * 10_000
    held = probe(framed(*installed(), "@digests", *digests, "@listing", *listed, "@noise", *noise, "@", *noise))
    assert len(held.digests) == 5_002
    assert time.process_time() - begin < 2


_ESCAPES = "\x1b[31m{{ lookup('pipe', 'id') }}\u202e\x00\x07"
_LONG = "x" * 100_000


@pytest.mark.parametrize("text", [_ESCAPES, _LONG, "\udcff"], ids=["escapes", "long", "not UTF-8"])
@pytest.mark.parametrize("keyword", ["missing", "not_writable", "user", "group"])
def test_what_a_hostile_gateway_prints_stays_bounded_and_printable(keyword: str, text: str) -> None:
    text = text.replace(")", "]")  # which would end a name
    if keyword == "user":
        answer = change("identity", f"identity uid=1000({text}) gid=1000(x)", "not_writable /etc")
    elif keyword == "group":
        answer = change("identity", f"identity uid=1000(x) gid=1000({text})", "not_writable /etc")
    else:
        answer = framed(*installed(), f"{keyword} {text}")
    held = probe(answer)
    error = failure(lambda: gateway.require_installable(held, None, None))
    assert error.code == ("gateway_unsupported" if keyword == "missing" else "permission")


def test_thousands_of_missing_tools_stay_bounded() -> None:
    held = probe(framed(*installed(), *(f"missing tool-{number}" for number in range(10_000))))
    failure(lambda: gateway.require_installable(held, None, None))


def test_names_that_reach_a_result_are_bounded_and_printable() -> None:
    hostile = (_ESCAPES + _LONG).replace(")", "]")  # which would end a name
    identity = f"uid=0({hostile}) gid=0({hostile})"
    held = probe(framed(*installed(identity=identity)))
    for name in (held.user_name, held.groups[0]):
        assert name.isprintable()
        assert len(name) <= 256


@pytest.mark.parametrize("mode", ["+", ".", "d", "-", "@@@", "drwx", "d" * 1000, "dr\x1bxr-xr-x", "?????????"])
@pytest.mark.parametrize("which", ["/", PATH, f"{PATH}/generations/000002/client.key"])
def test_a_hostile_mode_is_no_crash(which: str, mode: str) -> None:
    lines = [gnu(mode, 0, 0, which) if line.endswith(f" {which}") and line[0] in "d-" else line for line in installed()]
    try:
        held = probe(framed(*lines))
        gateway.require_installable(held, None, None)
        gateway.drift(held, {"client.key": 0o640}, 0o750)
    except ProvisioningError as error:
        assert error.code in ("bad_path", "gateway_unsupported")  # noqa: PT017  # both are right


# ---- probe: what beside the generations tells of their past ----


@pytest.mark.parametrize(
    ("current", "newest", "expected", "leftovers"),
    [
        ("000002", None, "000002", {"000003"}),
        ("000002", "000003", "000003", set()),
        ("000001", "000003", "000003", set()),
        ("000001", "000002", "000002", {"000003"}),
        ("000003", "000002", "000003", set()),
        (None, "000002", "000002", {"000003"}),
        (None, None, None, {"000001", "000002", "000003"}),
        ("000002", "", "000002", {"000003"}),
        ("000002", "nonsense", "000002", {"000003"}),
        ("000002", "../../000009", "000002", {"000003"}),
        ("000002", "00000\u0663", "000002", {"000003"}),
        (None, "nonsense", None, {"000001", "000002", "000003"}),
    ],
)
def test_the_last_generation_that_was_ever_in_use(
    current: str | None, newest: str | None, expected: str | None, leftovers: set[str]
) -> None:
    """What comes after it never was, and is left over from a run that died."""
    lines = [
        "identity uid=0(root) gid=0(root)",
        f"physical_path {PATH}",
        *([f"current {PATH}/generations/{current}"] if current else []),
        "@listing",
        gnu("drwxr-x---", 0, 7, PATH),
        *([gnu("lrwxrwxrwx", 0, 0, f"{PATH}/current -> generations/{current}")] if current else []),
        *([gnu("lrwxrwxrwx", 0, 0, f"{PATH}/.newest -> {newest}")] if newest is not None else []),
        *(gnu("drwxr-x---", 0, 7, f"{PATH}/generations/00000{number}") for number in (1, 2, 3)),
        "@",
    ]
    held = probe(framed(*lines))
    assert (held.current, held.newest, set(held.leftovers)) == (current, expected, leftovers)


@pytest.mark.parametrize(
    ("name", "is_left_over"),
    [
        (".trial", True),
        (".current-abc", True),
        (".staging-history-abc", True),
        (".newest", False),
        (".lock", False),
        ("history.json", False),
        (".trial-of-somebody", False),
        ("notes.txt", False),
    ],
)
def test_what_counts_as_left_over(name: str, is_left_over: bool) -> None:
    held = probe(framed(*installed(), "@listing", gnu("-rw-r-----", 0, 7, f"{PATH}/{name}"), "@"))
    assert held.leftovers == ((".staging-abc", name) if is_left_over else (".staging-abc",))


HISTORY = {"things": [{"client_id": "device:1"}], "confirmed": {"at": "2026-11-22T12:00:00Z"}}


def test_the_history_is_read_whether_or_not_anything_is_in_use() -> None:
    lines = [f"history {line}" for line in json.dumps(HISTORY, indent=2).splitlines()]
    assert probe(framed(*installed(), *lines)).history == HISTORY
    held = probe(change("current", *lines))
    assert (held.current, held.history) == (None, HISTORY)


@pytest.mark.parametrize(
    "history", ["", "nonsense", "[]", "null", "5", '{"a": 1', "[" * 200_000, json.dumps({"a": "x" * 300_000})],
    ids=lambda history: repr(history[:20]),
)  # fmt: skip
def test_a_history_that_is_none(history: str) -> None:
    assert probe(framed(*installed(), f"history {history}")).history is None


# ---- what the script says ----


@pytest.mark.parametrize("code", ["bad_path", "permission", "disk_full", "concurrent_change", "health_check_failed"])
def test_error_codes_of_the_script(code: str) -> None:
    error = failure(lambda: probe(framed(f"failed {code} something is wrong")))
    assert (error.code, error.message) == (code, "The gateway reports: something is wrong.")


@pytest.mark.parametrize("detail", ["", " ", _ESCAPES, _LONG, "a\vb", "{{ 7*7 }}"])
def test_hostile_details(detail: str) -> None:
    error = failure(lambda: probe(framed(f"failed bad_path {detail}")))
    assert error.code == "bad_path"
    assert len(error.message) < 300


@pytest.mark.parametrize(
    "line",
    [
        "failed token_invalid x",
        "failed",
        "failed ",
        "failed nonsense x",
        "failed BAD_PATH x",
        "failed: bad_path",
        " failed bad_path",
    ],
)
def test_an_unknown_error_code_is_not_passed_on(line: str) -> None:
    assert failure(lambda: probe(framed(line))).code == "gateway_unsupported"


# ---- survey ----


def test_a_survey_reads_every_path_and_every_generation() -> None:
    empty = ["identity uid=0(root) gid=0(root)", "@listing", gnu("drwxr-xr-x", 0, 0, "/"), "@"]
    connection = Answering(
        framed(
            f"path {PATH}",
            *installed(),
            "generation 000001",
            'record {"service": "old"}',
            "generation 000002",
            "record nonsense",
            "generation 000003.bad",
            'record {"service": "aside"}',
            "generation ../../etc",
            "path /etc/other",
            *empty,
        )
    )
    first, second = gateway.survey(connection, [PATH, "/etc/other"])
    assert first == replace(
        probe(framed(*installed())),
        owner_id=0,
        group_id=7,
        keeper_id=0,
        generations={"000001": {"service": "old"}, "000002": None},
    )
    assert (second.path, second.current, second.exists, second.generations) == ("/etc/other", None, False, {})
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("sh -s", False)
    assert standard_input.decode().startswith(f"set -- {PATH} /etc/other\n")


@pytest.mark.parametrize("paths", [0, 1, 3])
def test_a_survey_of_too_few_or_too_many_paths_is_not_understood(paths: int) -> None:
    answer = framed(*(line for number in range(paths) for line in (f"path /p{number}", *installed())))
    error = failure(lambda: gateway.survey(Answering(answer), ["/a/b", "/c/d"]))
    assert error.code == "gateway_unsupported"


# ---- paths ----


@pytest.mark.parametrize(
    "path",
    [
        "/etc/thingstream",
        "/srv",
        '/a b/c\'d/"e"/$(f)',
        "/-rf",
        "/a/.hidden",
        "/a/...",
        "/" + "x" * 511,
    ],
)
def test_paths_that_are_taken(path: str) -> None:
    gateway.check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        ".",
        "etc/thingstream",
        "~/thingstream",
        "/etc/",
        "/etc//x",
        "//etc/x",
        "/etc/./x",
        "/etc/../x",
        "/..",
        "/etc/x/..",
        "/etc/a\nb",
        "/etc/a\0b",
        "/etc/a\x1bb",
        "/etc/a\udcffb",
        "/etc/a\u2028b",
        "/" + "x" * 512,
        "/grüße/日本",
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    connection = Answering(framed(*installed()))
    for look in (lambda: gateway.probe(connection, path), lambda: gateway.survey(connection, [PATH, path])):
        assert failure(look).code == "bad_path"
    assert connection.sent == []


# ---- can it be installed at all ----

HELD = Held(
    path=PATH,
    user_id=0,
    user_name="root",
    groups={0: "root"},
    owner_id=0,
    group_id=0,
    ancestors=(
        ("/", Attributes("drwxr-xr-x", 0, 0)),
        ("/etc", Attributes("drwxr-xr-x", 0, 0)),
        (PATH, Attributes("drwxr-x---", 0, 0)),
    ),
    free_kib=1000,
    current="000002",
)


def below(mode: str, owner: int = 0, name: str = "/etc") -> dict[str, Any]:
    """Changes one directory above the path, or the path itself."""
    return {
        "ancestors": tuple(
            (found, Attributes(mode, owner, 0) if found == name else attributes) for found, attributes in HELD.ancestors
        )
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"free_kib": None},
        {"free_kib": gateway.MIN_FREE_KIB},
        {"owner_id": 998, "group_id": 997},
        {"user_id": 1000, "owner_id": 1000, "group_id": 20, "groups": {1000: "pi", 20: "dialout"},
         **below("drwxr-x---", 1000, PATH)},
        below("drwxrwxrwt"),
        below("drwxrwxr-x"),
        below("lrwxrwxrwx"),
        {"owner_id": 998, **below("drwxr-xr-x", 998)},
        {"user_id": 1000, "owner_id": 1000, "groups": {0: "x"}, **below("drwxr-xr-x", 1000)},
        {"owner_id": 998, **below("drwxr-x---", 998, PATH)},
        below("drwxrwxrwx", 0, PATH),  # what is there is checked by its digests, and the mode is repaired
        {"ancestors": HELD.ancestors[:2], "current": None},
    ],
)  # fmt: skip
def test_what_can_be_installed(changes: dict[str, Any]) -> None:
    gateway.require_installable(replace(HELD, **changes), "consumer", "consumer")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"missing_tools": ("tar", "mv -T")}, "gateway_unsupported", "tar, mv -T"),
        (below("-rw-r--r--"), "bad_path", "/etc is not a directory"),
        (below("-rw-r--r--", 0, PATH), "bad_path", f"{PATH} is not a directory"),
        (below("prw-r--r--"), "bad_path", "/etc is not a directory"),
        (below("drwxrwxrwx"), "bad_path", "/etc is writable by every user"),
        (below("drwxrwx-w-"), "bad_path", "/etc is writable by every user"),
        (below("drwxr-xr-x", 1000), "bad_path", "/etc belongs to another user (ID 1000)"),
        (below("drwxrwxrwt", 1000), "bad_path", "/etc belongs to another user (ID 1000)"),
        (below("lrwxrwxrwx", 1000), "bad_path", "/etc belongs to another user (ID 1000)"),
        (below("lrwxrwxrwx", 0, PATH), "bad_path", "symbolic link"),
        ({**below("drwxrwxrwx", 0, PATH), "current": None}, "bad_path", "writable by every user"),
        ({**below("drwxr-x-w-", 0, PATH), "current": None}, "bad_path", "writable by every user"),
        (below("drwxr-x---", 1000, PATH), "bad_path", "belongs to another user (ID 1000)"),
        (
            {"user_id": 1000, "owner_id": 1000, "groups": {0: "x"}, **below("drwxr-x---", 1001, PATH)},
            "bad_path",
            "1001",
        ),
        ({"not_writable": "/etc"}, "permission", "cannot write to /etc"),
        ({"owner_id": None}, "bad_option", "no owner 'consumer'"),
        ({"group_id": None}, "bad_option", "no group 'staff'"),
        ({"user_id": 1000, "groups": {1000: "pi"}, "owner_id": 0, "group_id": 1000}, "permission", "become"),
        ({"user_id": 1000, "groups": {1000: "pi"}, "owner_id": 1000, "group_id": 0}, "permission", "become"),
        ({"free_kib": gateway.MIN_FREE_KIB - 1}, "disk_full", "255 KiB"),
        ({"free_kib": 0}, "disk_full", "0 KiB"),
    ],
)
def test_what_cannot_be_installed(changes: dict[str, Any], code: str, words: str) -> None:
    error = failure(lambda: gateway.require_installable(replace(HELD, **changes), "consumer", "staff"))
    assert error.code == code
    assert words in error.message


@pytest.mark.parametrize("changes", [{"owner_id": None}, {"free_kib": 0}, {"owner_id": 5, "user_id": 1000}])
def test_what_can_still_be_removed(changes: dict[str, Any]) -> None:
    gateway.require_changeable(replace(HELD, **changes))


# ---- drift ----

IN_ORDER = replace(
    HELD,
    owner_id=998,
    group_id=997,
    files={
        "client.key": Attributes("-rw-r-----", 998, 997),
        "client.crt": Attributes("-rw-r--r--", 998, 997),
        "unknown": Attributes("-rwxrwxrwx", 5, 5),
    },
    directories={name: Attributes("drwxr-x---", 0, 997) for name in (".", "generations", "current")},
)
MODES = {"client.key": 0o640, "client.crt": 0o644}


def attributes(changes: Mapping[str, Attributes], where: str) -> Held:
    merged: dict[str, Any] = {where: {**getattr(IN_ORDER, where), **changes}}
    return replace(IN_ORDER, **merged)


@pytest.mark.parametrize(
    ("held", "names"),
    [
        (IN_ORDER, []),
        (attributes({"client.key": Attributes("-rw-r--r--", 998, 997)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("-rw-------", 998, 997)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("-rw-r-----", 0, 997)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("-rw-r-----", 998, 0)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("lrwxrwxrwx", 998, 997)}, "files"), ["client.key"]),
        (attributes({"client.key": Attributes("-rwsr-----", 998, 997)}, "files"), ["client.key"]),
        (attributes({"client.crt": Attributes("-rw-rw-r--", 998, 997)}, "files"), ["client.crt"]),
        (attributes({".": Attributes("drwxr-xr-x", 0, 997)}, "directories"), ["./"]),
        (attributes({"current": Attributes("drwxr-x---", 998, 997)}, "directories"), ["current/"]),
        (attributes({"generations": Attributes("drwxr-x---", 0, 0)}, "directories"), ["generations/"]),
        (replace(IN_ORDER, owner_id=1), ["client.crt", "client.key"]),
        (replace(IN_ORDER, owner_id=None), ["client.crt", "client.key"]),
        (replace(IN_ORDER, keeper_id=998), ["./", "current/", "generations/"]),
        (replace(IN_ORDER, group_id=1), ["./", "client.crt", "client.key", "current/", "generations/"]),
        (replace(IN_ORDER, group_id=None), ["./", "client.crt", "client.key", "current/", "generations/"]),
        (replace(IN_ORDER, files={}, directories={}), []),
    ],
)
def test_drift(held: Held, names: list[str]) -> None:
    assert gateway.drift(held, MODES, 0o750) == names


# ---- what install sends ----

FILES = {
    "client.key": File(MQTT_PASSWORD.encode(), 0o640),
    "client.crt": File(b"public", 0o644),
    "empty": File(b"", 0o600),
}


CHANGE = Change(directory_mode=0o750, keep=2, nonce="0123abcd")
DIGESTS = {"client.key": "d" * 64, "client.crt": "e" * 64}


def install(connection: Answering, held: Held = HELD, how: Change = CHANGE, modified_at: datetime = NOW) -> str:
    return gateway.install(connection, held, FILES, how, modified_at)


def request_of(text: str) -> dict[str, str]:
    """The assignments in front of the script, as a shell reads them."""
    assert text.endswith(gateway.SCRIPT)
    words = shlex.split(text[: -len(gateway.SCRIPT)])
    return {name.removeprefix("request_"): value for name, _is, value in (word.partition("=") for word in words)}


def script_of(standard_input: bytes) -> str:
    """What is run, out of the stream of an install or as it is."""
    if standard_input[257:262] != b"ustar":
        return standard_input.decode()
    with tarfile.open(fileobj=io.BytesIO(standard_input)) as archive:
        reader = archive.extractfile("gateway.sh")
        assert reader is not None
        return reader.read().decode()


def test_the_stream_of_an_install() -> None:
    connection = Answering(framed("installed 000003"))
    assert install(connection) == "000003"
    ((_command, stream, secret),) = connection.sent
    assert secret is False
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        members = {member.name: member for member in archive.getmembers()}
        content = {name: archive.extractfile(name) for name, member in members.items() if member.isfile()}
        read = {name: reader.read() for name, reader in content.items() if reader is not None}
    names = list(members)
    assert [name for name in names if members[name].isfile()] == [
        "gateway.sh", "digests", "files/client.key", "files/client.crt", "files/empty",
    ]  # fmt: skip
    assert names.index("gateway.sh") < min(names.index(name) for name in names if name.startswith("files/"))
    assert {name: member.mode for name, member in members.items()} == {
        "gateway.sh": 0o600,
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
    script = read["gateway.sh"].decode()
    assert script.endswith(gateway.SCRIPT)
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
    connection = Answering(framed("installed 000003", "repaired 000002"))
    held = replace(HELD, path=path)
    install(connection, held)
    modes = {f"file{number}": File(b"", 0o640) for number in range(500)}
    gateway.repair(connection, held, modes, CHANGE)
    for command, _standard_input, _secret in connection.sent:
        assert len(command) < 4096
        assert_no_secret(command)
    assert connection.sent[1][0] == "sh -s"


HOSTILE = f'it\'s $(id) `id`; "{MQTT_PASSWORD}"\nrequest_path=/etc\n' + "x" * 10_000
TOLD = replace(
    CHANGE,
    history=json.dumps({"things": [{"given_name": HOSTILE}]}),
    consumers=Consumers(reload_command=HOSTILE, health_command=f"{HOSTILE}2", health_timeout=7),
)


@pytest.mark.parametrize(
    ("answer", "call"),
    [
        ("installed 000003", lambda execute: install(execute, how=TOLD)),
        ("repaired 000002", lambda execute: gateway.repair(execute, HELD, FILES, TOLD)),
        ("rolled_back 000001", lambda execute: gateway.roll_back(execute, HELD, "000001", FILES, DIGESTS, TOLD)),
        ("remembered", lambda execute: gateway.remember(execute, HELD, TOLD)),
        ("removed", lambda execute: gateway.remove(execute, HELD, TOLD)),
    ],
    ids=["install", "repair", "roll_back", "remember", "remove"],
)
def test_history_and_commands_travel_on_standard_input_only(answer: str, call: Callable[[Answering], object]) -> None:
    connection = Answering(framed(answer))
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
    connection = Answering(framed("installed 000003"))
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
    held = replace(HELD, user_id=user_id, owner_id=user_id)
    assert install(Answering(framed("installed 000003")), held) == "000003"


def test_a_path_with_quotes_stays_one_word() -> None:
    connection = Answering(framed("installed 000003"))
    install(connection, replace(HELD, path="/etc/it's; touch x/$(id)"))
    command = connection.sent[0][0]
    assert command.startswith("LC_ALL=C; export LC_ALL; p='/etc/it'\"'\"'s; touch x/$(id)';")
    assert "touch" not in command.partition("';")[2]


def test_the_first_install_expects_no_current() -> None:
    connection = Answering(framed("installed 000001"))
    install(connection, replace(HELD, current=None))
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
        (2, "", "sh: 0: cannot open ./gateway.sh: No such file\n", "concurrent_change"),
        (127, "", "sh: ./gateway.sh: No such file or directory\n", "concurrent_change"),
        (127, "", "sh: tar: not found\n", "gateway_unsupported"),
        (2, "", "tar: write error: Disk quota exceeded", "disk_full"),
        (2, "", "tar: write error: File too large", "disk_full"),
        (2, "", "tar: client.key: Wrote only 512 of 1704 bytes\ntar: Exiting with failure status", "disk_full"),
        (1, "", "mkdir: can't create directory '/etc/x': Read-only file system\n", "permission"),
        (1, "", "mkdir: cannot create directory: Permission denied\n", "permission"),
        (127, "", "sh: tar: not found", "gateway_unsupported"),
        (1, "", "", "gateway_unsupported"),
        (1, "noise", _ESCAPES + _LONG, "gateway_unsupported"),
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
    error = failure(lambda: install(Answering(output, status, complaint)))
    assert error.code == code


# ---- the other commands ----


def test_a_repair_names_the_modes_and_not_the_content() -> None:
    connection = Answering(framed("repaired 000002"))
    assert gateway.repair(connection, HELD, FILES, CHANGE) == "000002"
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("sh -s", False)
    assert b"request_command=repair\n" in standard_input
    assert MQTT_PASSWORD.encode() not in standard_input


def test_a_removal() -> None:
    connection = Answering(framed("removed"))
    gateway.remove(connection, HELD, CHANGE)
    assert connection.sent[0][1].startswith(b"request_command=remove\n")
    assert failure(lambda: gateway.remove(Answering(framed("nothing")), HELD, CHANGE)).code == "gateway_unsupported"


def roll_back(connection: Answering, held: Held = HELD, how: Change = CHANGE) -> str:
    return gateway.roll_back(connection, held, "000001", FILES, DIGESTS, how)


def test_a_roll_back_names_its_target_with_modes_and_digests_and_no_content() -> None:
    connection = Answering(framed("rolled_back 000001"))
    assert roll_back(connection) == "000001"
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("sh -s", False)
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
    assert failure(lambda: roll_back(Answering(framed(*lines)))).code == code


@pytest.mark.parametrize(("text", "known"), [("", ""), ('{"things": []}', '{"things": []}'), ("\udcff", "?")])
def test_what_is_known_of_the_history_is_sent_along(text: str, known: str) -> None:
    connection = Answering(framed("remembered"))
    gateway.remember(connection, replace(HELD, history_text=text), replace(CHANGE, history='{"things": []}'))
    assert request_of(connection.sent[0][1].decode())["known_history"] == known


def test_a_history_is_remembered_without_any_file() -> None:
    connection = Answering(framed("remembered"))
    gateway.remember(connection, HELD, replace(CHANGE, history='{"things": []}'))
    ((command, standard_input, secret),) = connection.sent
    assert (command, secret) == ("sh -s", False)
    request = request_of(standard_input.decode())
    assert (request["command"], request["history"], request["files"]) == ("remember", '{"things": []}', "")
    for lines, code in ((("nothing",), "gateway_unsupported"), (("failed permission x",), "permission")):
        error = failure(lambda lines=lines: gateway.remember(Answering(framed(*lines)), HELD, CHANGE))  # type: ignore[misc]
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
    connection = Answering(framed("remembered"))
    gateway.remember(connection, replace(HELD, **changes), CHANGE)
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
    connection = Answering("Welcome\n" + output)
    assert gateway.read_response(connection, HELD) == content
    ((_command, standard_input, secret),) = connection.sent
    assert secret is True, "the one answer that is a secret"
    assert b"request_current=000002\n" in standard_input


def test_a_response_that_cannot_be_read() -> None:
    for output in ("", framed("nothing"), framed("failed bad_path cannot read the installed response")):
        failure(lambda output=output: gateway.read_response(Answering(output), HELD))  # type: ignore[misc]


def test_representations_hide_content() -> None:
    assert_no_secret(FILES, FILES["client.key"], HELD)

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Output of gateways, real and hostile ones, and its parsed form."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway import commands, preflight, protocol
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import (
    Attributes,
    Bundle,
    GatewayState,
    Storage,
    User,
)
from ansible_collections.thingstream.ztp.tests.unit.states import (
    BUSYBOX_DF,
    ESCAPES,
    GNU_DF,
    LONG,
    PATH,
    RECORD,
    SPACED_DF,
    Connection,
    Listing,
    assert_presentable,
    busybox,
    failure,
    framed,
    gnu,
    gnu_selinux,
    installed,
)


def look(output: str, owner: str | None = None, group: str | None = None) -> GatewayState:
    return commands.look(Connection(output), PATH, owner, group)


# ---- looks at real systems ----


@pytest.mark.parametrize("df", [GNU_DF, BUSYBOX_DF, SPACED_DF])
@pytest.mark.parametrize("ls", [gnu, gnu_selinux, busybox])
def test_a_look(ls: Listing, df: tuple[str, ...]) -> None:
    state = look(framed(*installed(ls, df=df)))
    assert state == GatewayState(
        path=PATH,
        user=User(user_id=0, user_name="root", groups={0: "root"}, owner_id=0, group_id=0),
        storage=Storage(
            ancestors=[
                ("/", Attributes("drwxr-xr-x", 0, 0)),
                ("/etc", Attributes("drwxr-xr-x", 0, 0)),
                ("/etc/thingstream", Attributes("drwxr-xr-x", 0, 0)),
                (PATH, Attributes("drwxr-x---", 0, 7)),
            ],
            free_kib=26197016,
        ),
        bundle=Bundle(
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
        ),
    )
    assert state.exists


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
    state = look(framed(*installed(identity=identity)))
    assert (state.user.user_id, state.user.user_name) == user
    assert state.user.groups == groups
    assert (state.user.owner_id, state.user.group_id) == (user[0], next(iter(groups))), "the primary group comes first"


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
    state = look(framed(*installed(), *lines), owner, group)
    assert (state.user.owner_id, state.user.group_id) == ids


def test_a_gateway_that_has_nothing_yet() -> None:
    lines = [
        "identity uid=0(root) gid=0(root)",
        "not_writable /etc",
        "thorough",
        "missing sha256sum",
        "missing mv -T",
        "@listing",
        busybox("drwxr-xr-x", 0, 0, "/"),
        busybox("drwxr-xr-x", 0, 0, "/etc"),
        "@space",
        *BUSYBOX_DF,
        "@",
    ]
    state = look(framed(*lines))
    assert not state.exists
    assert state.bundle == Bundle()
    assert state.storage.thorough
    assert state.storage.missing_tools == ("sha256sum", "mv -T")
    assert state.storage.not_writable == "/etc"


@pytest.mark.parametrize(
    "df", [(), ("",), ("df: /etc: can't find mount point",), ("rootfs - - - - /",), ("a b c ² /",), GNU_DF[:1]]
)
def test_free_space_that_cannot_be_read_is_unknown(df: tuple[str, ...]) -> None:
    assert look(framed(*installed(df=df))).storage.free_kib is None


def test_a_link_among_the_ancestors_is_named_without_its_target() -> None:
    line = gnu("lrwxrwxrwx", 0, 0, "/etc/thingstream -> /data/ts")
    state = look(output_with(gnu("drwxr-xr-x", 0, 0, "/etc/thingstream"), line))
    assert state.storage.ancestors[2] == ("/etc/thingstream", Attributes("lrwxrwxrwx", 0, 0))


def test_a_path_below_a_link_is_listed_by_its_physical_name() -> None:
    """The directories down to the path keep the name that was given, what is inside does not."""
    down_to_it = gnu("drwxr-x---", 0, 7, PATH)
    lines = [line if line == down_to_it else line.replace(PATH, "/data/ts/pointperfect") for line in installed()]
    state = look(framed(*lines))
    assert (state.path, state.bundle.current, state.exists) == (PATH, "000002", True)
    assert set(state.bundle.files) == {"client.key", "thing.json"}
    assert set(state.bundle.directories) == {".", "generations", "current"}


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
    quiet = look(framed(*installed()))
    assert look(before + framed(*installed()).replace("\n", line_end) + after) == quiet


# ---- looks at hostile ones ----


def output_with(line: str, *replacements: str) -> str:
    """Return the output of a gateway in order, with the lines that begin with ``line`` replaced by others."""
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
        output_with("identity"),
        output_with("identity", "identity root"),
        output_with("identity", "identity uid=x(root) gid=0(root)"),
        output_with("identity", "identity uid=" + "9" * 5000 + "(root) gid=0(root)"),
        output_with("@listing"),
        output_with("@listing", "@listing", ""),
        output_with("@listing", "@listing", "drwxr-xr-x"),
        output_with("@listing", "@listing", "drwxr-xr-x 2 root root 4096 Nov 22 01:46 /"),
        output_with("@listing", "@listing", "drwxr-xr-x 2 0 0 4096 Nov 22 01:46"),
        output_with("@listing", "@listing", f"drwxr-xr-x 2 {'9' * 5000} 0 4096 Nov 22 01:46 /"),
        framed("\udcff\udcfe"),
    ],
    ids=lambda output: repr(output[:30]),
)
def test_output_that_is_none(output: str) -> None:
    error = failure(lambda: look(output))
    assert error.code == "gateway_unsupported"


def test_output_without_an_end_is_refused_unread() -> None:
    output = framed("\n".join(["@listing", *["x" * 100] * 100_000]))
    begin = time.process_time()
    error = failure(lambda: look(output))
    assert (error.code, "MiB" in error.message) == ("gateway_unsupported", True)
    assert time.process_time() - begin < 0.05


def test_a_shell_that_fails_is_quoted_short_and_printable() -> None:
    complaint = "noise\n" + "\x1b[31m{{ 7*7 }} sorry, you must have a tty\x00 " + "x" * 10_000
    error = failure(lambda: commands.look(Connection("", 1, complaint), PATH))
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
    state = look(output_with("current", f"current {target}"))
    assert (state.bundle.current, state.bundle.record, state.bundle.digests, state.bundle.files) == (None, None, {}, {})
    assert "000002" in state.bundle.leftovers, "what never became current is left over"


@pytest.mark.parametrize("mode", ["drwxr-x---", "-rw-r-----"])
def test_a_current_that_is_no_link_is_none(mode: str) -> None:
    output = framed(*(line.replace("lrwxrwxrwx", mode).replace(" -> generations/000002", "") for line in installed()))
    assert look(output).bundle.current is None


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", ".hidden", "", "a b", "-rf", "a/b", "a" * 129, "\x1b[31m", "ü", "a\0"]
)
def test_a_digest_of_a_name_that_no_bundle_has_is_dropped(name: str) -> None:
    output = output_with("@digests", "@digests", f"{'d' * 64}  {name}", "@rest")
    assert look(output).bundle.digests == {}


@pytest.mark.parametrize("digest", ["", "d" * 63, "d" * 65, "D" * 64, "x" * 64, "\\" + "d" * 64])
def test_a_digest_that_is_none_is_dropped(digest: str) -> None:
    assert look(output_with("@digests", "@digests", f"{digest}  client.key", "@rest")).bundle.digests == {}


@pytest.mark.parametrize(
    "record",
    ["", "nonsense", "null", '{"a": 1', "[" * 200_000, '{"a": \udcff}', "x" * protocol.MAX_TEXT, "a\nb\n\nc"],
    ids=lambda record: repr(record[:20]),
)
def test_a_record_is_read_as_it_is(record: str) -> None:
    """Who knows what it should hold judges it."""
    state = look(output_with("record", *(f"record {line}" for line in record.split("\n"))))
    assert (state.bundle.current, state.bundle.record) == ("000002", record)


def test_a_record_that_is_absent_or_too_long_is_none() -> None:
    for lines in ((), ("record " + "x" * (protocol.MAX_TEXT + 1),), ("record x",) * protocol.MAX_TEXT):
        assert look(output_with("record", *lines)).bundle.record is None


def test_thousands_of_lines_are_read_quickly() -> None:
    begin = time.process_time()
    digests = [f"{number:064x}  file{number}" for number in range(5_000)]
    listed = [gnu("-rw-------", 0, 0, f"{PATH}/generations/000002/file{number}") for number in range(5_000)]
    noise = ["noise of some length" * 5] * 10_000
    state = look(framed(*installed(), "@digests", *digests, "@listing", *listed, "@noise", *noise, "@", *noise))
    assert len(state.bundle.digests) == 5_002
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("text", [ESCAPES, LONG, "\udcff"], ids=["escapes", "long", "not UTF-8"])
@pytest.mark.parametrize("keyword", ["missing", "not_writable", "user", "group"])
def test_what_a_hostile_gateway_prints_stays_bounded_and_printable(keyword: str, text: str) -> None:
    text = text.replace(")", "]")  # which would end a name
    if keyword == "user":
        output = output_with("identity", f"identity uid=1000({text}) gid=1000(x)", "not_writable /etc")
    elif keyword == "group":
        output = output_with("identity", f"identity uid=1000(x) gid=1000({text})", "not_writable /etc")
    else:
        output = framed(*installed(), f"{keyword} {text}")
    state = look(output)
    error = preflight.install_problem(state, None, None)
    assert error is not None
    assert_presentable(error)
    assert error.code == ("gateway_unsupported" if keyword == "missing" else "permission")


def test_thousands_of_missing_tools_stay_bounded() -> None:
    state = look(framed(*installed(), *(f"missing tool-{number}" for number in range(10_000))))
    problem = preflight.install_problem(state, None, None)
    assert problem is not None
    assert_presentable(problem)


def test_names_that_reach_a_result_are_bounded_and_printable() -> None:
    hostile = (ESCAPES + LONG).replace(")", "]")  # which would end a name
    identity = f"uid=0({hostile}) gid=0({hostile})"
    state = look(framed(*installed(identity=identity)))
    for name in (state.user.user_name, state.user.groups[0]):
        assert name.isprintable()
        assert len(name) <= 256


@pytest.mark.parametrize("mode", ["+", ".", "d", "-", "@@@", "drwx", "d" * 1000, "dr\x1bxr-xr-x", "?????????"])
@pytest.mark.parametrize("which", ["/", PATH, f"{PATH}/generations/000002/client.key"])
def test_a_hostile_mode_is_no_crash(which: str, mode: str) -> None:
    lines = [gnu(mode, 0, 0, which) if line.endswith(f" {which}") and line[0] in "d-" else line for line in installed()]
    try:
        state = look(framed(*lines))
        problem = preflight.install_problem(state, None, None)
        assert problem is None or problem.code == "bad_path"
        preflight.attribute_drift(state, {"client.key": 0o640}, 0o750)
    except ProvisioningError as error:
        assert error.code == "gateway_unsupported"  # noqa: PT017  # where it cannot be read at all


# ---- what lies beside the generations ----


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
    """Later generations were never in use: they are left over from a run that died."""
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
    state = look(framed(*lines))
    assert (state.bundle.current, state.bundle.newest, set(state.bundle.leftovers)) == (current, expected, leftovers)


@pytest.mark.parametrize(
    ("name", "is_left_over"),
    [
        (".health-check", True),
        (".staging-link-abc", True),
        (".last-change", False),
        (".staging-history-abc", True),
        (".newest", False),
        (".lock", False),
        ("history.json", False),
        (".health-check-of-somebody", False),
        ("notes.txt", False),
    ],
)
def test_what_counts_as_left_over(name: str, is_left_over: bool) -> None:
    state = look(framed(*installed(), "@listing", gnu("-rw-r-----", 0, 7, f"{PATH}/{name}"), "@"))
    assert state.bundle.leftovers == ((".staging-abc", name) if is_left_over else (".staging-abc",))


def test_the_record_of_the_last_change_is_left_over_where_nothing_is_installed() -> None:
    listed = [gnu("drwxr-x---", 0, 7, PATH), gnu("lrwxrwxrwx", 0, 0, f"{PATH}/.last-change -> nonce.000001")]
    state = look(framed("identity uid=0(root) gid=0(root)", f"physical_path {PATH}", "@listing", *listed, "@"))
    assert state.bundle.leftovers == (".last-change",)


HISTORY = json.dumps({"things": [{"client_id": "device:1"}], "confirmed": {"at": "2026-11-22T12:00:00Z"}}, indent=2)


def test_the_history_is_read_whether_or_not_anything_is_in_use() -> None:
    lines = [f"history {line}" for line in HISTORY.splitlines()]
    assert look(framed(*installed(), *lines)).bundle.history == HISTORY
    state = look(output_with("current", *lines))
    assert (state.bundle.current, state.bundle.history) == (None, HISTORY)


@pytest.mark.parametrize(
    ("lines", "text", "known"),
    [
        ((), "", ""),
        (("",), "", ""),
        (("{", "", "}", "", ""), "{\n\n}", "{\n\n}"),
        (("nonsense",), "nonsense", "nonsense"),
        (("\udcff",), "\udcff", "?"),
        (("x" * protocol.MAX_TEXT,), "x" * protocol.MAX_TEXT, "x" * protocol.MAX_TEXT),
        (("x" * (protocol.MAX_TEXT + 1),), "x" * (protocol.MAX_TEXT + 1), "?"),
        (("x" * 1_000_000,), "x" * (protocol.MAX_TEXT + 1), "?"),
    ],
    ids=range(8),
)
def test_a_history_is_read_as_it_is(lines: tuple[str, ...], text: str, known: str) -> None:
    """A history that this collection cannot have written may be overwritten."""
    bundle = look(framed(*installed(), *(f"history {line}" for line in lines))).bundle
    assert bundle.history == text
    assert protocol.known_history(bundle) == known


# ---- errors that a script reports ----


@pytest.mark.parametrize("code", ["bad_path", "permission", "disk_full", "concurrent_change", "health_check_failed"])
def test_error_codes_of_the_script(code: str) -> None:
    error = failure(lambda: look(framed(f"failed {code} something is wrong")))
    assert (error.code, error.message) == (code, "The gateway reports: something is wrong.")


@pytest.mark.parametrize("detail", ["", " ", ESCAPES, LONG, "a\vb", "{{ 7*7 }}"])
def test_hostile_details(detail: str) -> None:
    error = failure(lambda: look(framed(f"failed bad_path {detail}")))
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
    assert failure(lambda: look(framed(line))).code == "gateway_unsupported"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of an audit in its four forms: complete, correct, and safe whatever a gateway claims."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.thingstream.ztp.plugins.plugin_utils.bundle.dates import timestamp
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import audit, audit_files, audit_metrics, audit_page
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.csv_table import to_csv
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.gateway_rows import COLUMNS, UNSEEN
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.gateway_rows import STATES as STATES_IN_ORDER
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.ledger import LEDGER_COLUMNS, STATUSES, Inventory
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.shared import SHARED_COLUMNS
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet.timeline import MONTHS
from ansible_collections.thingstream.ztp.plugins.plugin_utils.gateway.protocol import GatewayState
from ansible_collections.thingstream.ztp.plugins.plugin_utils.spool.ledger import LedgerEntry
from ansible_collections.thingstream.ztp.tests.unit.looks import (
    FAILED,
    HOSTILE,
    PATH,
    UNREACHABLE,
    changed,
    fleet,
    held,
    ledger_entry,
    look,
    nothing_held,
    with_other_group,
)
from ansible_collections.thingstream.ztp.tests.unit.support import DAY, NOW, SECRETS
from prometheus_client.parser import text_string_to_metric_families

OLD = {"client_id": "device:old", "service": "cloudlocate", "hardware_id": "hw", "given_name": "gw"}
WAITING = {"file": "/x/y.spool", "service": "cloudlocate", "readable": True, "hardware_id": "hw-9", "given_name": "g",
           "reason": "absent", "received_at": "2026-11-21T03:10:09Z"}  # fmt: skip
LOST = {"file": "/x/z.request", "service": "cloudlocate", "hardware_id": "hw-8", "given_name": "h",
        "requested_at": "2026-11-21T03:10:08Z"}  # fmt: skip


def at(days: float) -> str:
    return timestamp(NOW + days * DAY)


def dated(**days: float) -> dict[str, Any]:
    return {"not_before": at(-400), **{name: at(count) for name, count in days.items()}}


# What the inventory says of them, where that is known
HARDWARE_IDS = {
    "wrong_thing": "another",
    "in_order": "hw of in_order",
    "due": "hw of due",
    "absent": "x",
    "failed": "y",
}


def report_of(
    results: Mapping[str, Any],
    responses: Sequence[Any] = (),
    abandoned_requests: Sequence[Any] = (),
    ledger: Sequence[LedgerEntry] = (),
    error: str | None = None,
    inventory: Inventory | None = None,
) -> audit.Report:
    inventory = inventory or Inventory(hardware_ids=HARDWARE_IDS)
    return audit.fleet_report(results, audit.SpoolSurvey(responses, abandoned_requests, ledger, error), NOW, inventory)


def forms(report: audit.Report) -> dict[str, str]:
    return {name: render(report) for name, (_mode, render) in audit_files.FORMS.items()}


# ---- rows ----

RETIRED = [{**OLD, "since": at(-9), "deactivated_at": None}]
HISTORY = json.dumps({"things": RETIRED})


def own(name: str, **changes: Any) -> GatewayState:
    """Return a gateway with a Thing of its own."""
    return held(client_id=f"device:{name.replace(' ', '-')}", hardware_id=f"hw of {name}", **changes)


CASES = {
    "in_order": look(own("in_order", **dated(not_after=100, keys_expire_at=60))),
    "without dates": look(own("without dates")),
    "drift": look(with_other_group(own("drift"))),
    "leftovers": look(changed(own("leftovers"), leftovers=(".staging-dead",))),
    "due": look(with_other_group(own("due", **dated(not_after=20)))),
    "keys due": look(own("keys due", **dated(not_after=100, keys_expire_at=7))),
    "expired": look(own("expired", **dated(not_after=-1))),
    "expires now": look(own("expires now", **dated(not_after=0))),
    "keys expired": look(own("keys expired", **dated(not_after=100, keys_expire_at=-1))),
    "damaged": look(changed(own("damaged", **dated(not_after=-1)), digests={})),
    "record damaged": look(changed(own("record damaged"), record='{"service": 5}')),
    "wrong_thing": look(own("wrong_thing", **dated(not_after=-1))),
    "absent": look(nothing_held()),
    "failed": FAILED,
    "unreachable": UNREACHABLE,
    "no result": None,
    "skipped": {"skipped": True},
}
STATES = {
    **{name: name for name in STATES_IN_ORDER if name in CASES},
    **{"without dates": "in_order", "leftovers": "drift", "keys due": "due", "keys expired": "expired"},
    "expires now": "expired",
    **{"record damaged": "damaged", "no result": "failed", "skipped": "failed"},
}


def test_a_thing_of_another_gateway_on_a_list_is_a_conflict() -> None:
    victim = look(held())
    (bundle,) = victim["bundles"]
    hostile = look(held(client_id="device:hostile", retired=[{**bundle["thing"], "since": at(-9)}, *RETIRED]))
    report = report_of({"bad": hostile, "good": victim})
    assert [entry.thing.client_id for entry in report.retired] == ["device:old"]
    assert [(conflict.entry.host, conflict.used_by) for conflict in report.conflicts] == [("bad", ("good",))]
    assert (report.totals.retired, report.totals.conflicts) == (1, 1)
    assert "thingstream_retirement_conflicts 1\n" in forms(report)["thingstream-audit.prom"]


def test_every_gateway_has_its_state() -> None:
    report = report_of(CASES)
    assert {row.host: row.state for row in report.gateways} == STATES
    assert report.totals.states == {state: [*STATES.values()].count(state) for state in STATES_IN_ORDER}
    assert report.totals.gateways == len(CASES)
    assert not report.complete


LOGIN = {"delivery": "mqtt", "host": "pp.services.u-blox.com", "port": 8883, "tls": True}
CORRECTIONS = {
    **LOGIN,
    "delivery": "ntrip",
    "message_types": ["RTCM 1005", "RTCM 1077"],
    "first_correction_ms": 320,
}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, None),
        ({"skipped": True}, None),
        ({"verifications": []}, None),
        ({"verifications": [LOGIN]}, "mqtt, pp.services.u-blox.com:8883, TLS"),
        (
            {"verifications": [{**LOGIN, "tls": False}, CORRECTIONS]},
            "mqtt, pp.services.u-blox.com:8883, no TLS; "
            "ntrip, pp.services.u-blox.com:8883, TLS, RTCM 1005, RTCM 1077, first after 320 ms",
        ),
        ({"failed": True, "error_code": "timeout", "msg": "nothing\nfor 20 s"}, "timeout: nothing for 20 s"),
        ({"unreachable": True, "error_code": "unreachable", "msg": "gone"}, "unreachable: gone"),
        ({"path": "/elsewhere", "verifications": [LOGIN]}, None),
    ],
)
def test_how_a_login_went(result: dict[str, Any] | None, text: str | None) -> None:
    report = audit.fleet_report({"a": look(held())}, audit.SpoolSurvey(), NOW, verifications={"a": result})
    assert [(row.verification, row.state) for row in report.gateways] == [(text, "in_order")]


def test_a_hardware_id_that_differs_from_the_inventory() -> None:
    rows = {row.host: row for row in report_of(CASES).gateways}
    assert (rows["wrong_thing"].hardware_id, rows["wrong_thing"].inventory_hardware_id) == (
        "hw of wrong_thing",
        "another",
    )
    assert {row.inventory_hardware_id for name, row in rows.items() if name != "wrong_thing"} == {None}
    nameless = report_of({"a": look(held(hardware_id=None))}, inventory=Inventory(hardware_ids={"a": "hw-1"}))
    assert nameless.gateways[0].state == "in_order", "credentials from elsewhere may have no hardware ID"


@pytest.mark.parametrize("name", CASES)
def test_a_row_has_all_columns_and_a_report_of_it_alone_works(name: str) -> None:
    report = report_of({name: CASES[name]}, [WAITING])
    (row,) = report.to_dict()["gateways"]
    assert tuple(row) == COLUMNS
    assert report.complete is (STATES[name] not in UNSEEN)
    assert all(name in text for form, text in forms(report).items())


def test_why_a_gateway_was_not_seen() -> None:
    rows = {row.host: row for row in report_of(CASES).gateways}
    assert (rows["unreachable"].error or "").endswith("port 22: Connection timed out")
    assert (rows["failed"].error_code, rows["failed"].error) == ("gateway_unsupported", FAILED["msg"])
    assert rows["no result"].error


def test_each_bundle_of_a_gateway_has_a_row() -> None:
    other = "/etc/thingstream/cloudlocate"
    live = "/etc/thingstream/pointperfect-live"
    both = look(held(), nothing_held(live), held(other))
    gone = look(nothing_held(), nothing_held(live), changed(nothing_held(other), history=HISTORY))
    rows = report_of({"both": both, "gone": gone, "none": look(nothing_held(), nothing_held(other))}).gateways
    assert [(row.host, row.path, row.state) for row in rows] == [
        ("both", PATH, "in_order"),
        ("both", other, "in_order"),
        ("gone", other, "absent"),
        ("none", None, "absent"),
    ]
    assert [row.retired for row in rows] == [0, 0, 1, 0]


def test_a_report_on_a_fleet_that_was_seen_is_complete() -> None:
    results = {"a": look(changed(held(), history=HISTORY))}
    report = report_of(results, [WAITING], [LOST])
    assert report.complete
    assert [(entry.host, entry.thing.client_id) for entry in report.retired] == [("a", "device:old")]
    assert (report.totals.retired, report.totals.spool, report.to_dict()["spool"]) == (1, 1, [WAITING])
    assert (report.totals.abandoned_requests, report.to_dict()["abandoned_requests"]) == (1, [LOST])
    assert not report_of(results, error="cannot").complete
    assert report_of({}).complete
    assert forms(report_of({}))


# ---- the ledger, and shared Things ----


def test_things_of_gateways_that_are_gone() -> None:
    ledger = [
        ledger_entry("device:wiped", host="wiped"),
        ledger_entry("device:removed", host="removed", delivered_at=NOW - 3 * DAY),
        ledger_entry("device:used", host="user"),
        ledger_entry("device:away", host="away"),
        ledger_entry("device:waiting", host="wiped", response="y.response"),
    ]
    results = {"wiped": look(nothing_held()), "user": look(held(client_id="device:used")), "away": UNREACHABLE}
    report = report_of(results, [{**WAITING, "file": "/x/.y.response"}], ledger=ledger)
    content = report.to_dict()
    assert [(row["host"], row["status"]) for row in content["ledger"]] == [
        ("removed", "removed"),
        ("wiped", "missing"),
        ("away", "unreachable"),
    ]
    assert all(tuple(row) == LEDGER_COLUMNS for row in content["ledger"])
    assert content["ledger"][0]["delivered_at"] == at(-3)
    assert [(entry["client_id"], entry["from_ledger"]) for entry in content["retired"]] == [
        ("device:removed", True),
        ("device:wiped", True),
    ]
    assert report.totals.retired == 2
    assert report.totals.ledger == {"removed": 1, "missing": 1, "left": 0, "unreachable": 1}
    found = samples_of(report)
    assert found["thingstream_ledger_things"]["missing",] == 1
    assert set(found["thingstream_ledger_things"]) == {(status,) for status in STATUSES}
    assert found["thingstream_retired_things"] == {(): 2}


def test_a_thing_that_two_gateways_use() -> None:
    other = held("/other", client_id="device:own", hardware_id="own")
    results = {"a": look(held()), "b": look(held()), "c": look(other)}
    report = report_of(results)
    content = report.to_dict()
    assert [(found["hosts"], tuple(found)) for found in content["shared"]] == [(["a", "b"], SHARED_COLUMNS)]
    assert {row.host: (row.state, row.shared_with) for row in report.gateways} == {
        "a": ("wrong_thing", ["b"]),
        "b": ("wrong_thing", ["a"]),
        "c": ("in_order", []),
    }
    assert report.totals.shared == 1
    assert samples_of(report)["thingstream_shared_things"] == {(): 1}
    rows = list(csv.DictReader(io.StringIO(audit_files.to_table(report), newline="")))
    assert [row["shared_with"] for row in rows] == ["b", "a", ""]


def test_a_fleet_of_copies_is_quick() -> None:
    results = {f"gw-{number:04d}": look(held()) for number in range(3000)}
    begin = time.process_time()
    report = report_of(results)
    assert time.process_time() - begin < 10
    assert report.gateways[0].shared_with == [*(f"gw-{number:04d}" for number in range(1, 21)), "(2979 more)"]
    assert len(report.shared[0].hosts) == 3000


# ---- the timeline ----


def test_the_timeline_counts_each_date_once() -> None:
    days = (-40, -1, 0, 0.1, 6, 7, 30, 77, 84, 300, 400)  # NOW is the noon of a Sunday
    results = {str(day): look(held(**dated(not_after=day, keys_expire_at=day))) for day in days}
    timeline = report_of(results).timeline
    for periods in timeline.values():
        assert periods[0]["from"] == "overdue"
        assert periods[-1]["from"] == "later"
        for event in ("certificates", "keys", "renewals"):
            assert sum(period[event] for period in periods) == len(days)
        assert periods[0]["certificates"] == 3
    weeks = {period["from"]: period["certificates"] for period in timeline["weeks"] if period["certificates"]}
    starts = {"2026-11-16": 1, "2026-11-23": 2, "2026-12-21": 1, "2027-02-01": 1}
    assert weeks == {"overdue": 3, **starts, "later": 3}
    months = {period["from"]: period["certificates"] for period in timeline["months"] if period["certificates"]}
    assert months == {"overdue": 3, "2026-11-01": 3, "2026-12-01": 1, "2027-02-01": 2, "2027-09-01": 1, "later": 1}
    assert len(timeline["months"]) == MONTHS + 2


# ---- what a hostile gateway says ----


def claiming(result: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    """Return a result whose record has these values, as if nothing had checked them."""
    found = result or look(held())
    (bundle,) = found["bundles"]
    bundle["thing"] = {**bundle["thing"], **values}
    return found


def hostile_fleet() -> dict[str, Any]:
    texts = {
        "client_id": HOSTILE,
        "given_name": "=HYPERLINK(1)",
        "hardware_id": '"\\\n{{ 7*7 }}',
        "service": "</script>",
    }
    planted = {f"password{number}": secret for number, secret in enumerate(SECRETS)}
    long: dict[str, Any] = {
        "client_id": "x" * 100_000,
        "hardware_id": "\u2028<!--",
        "delivery": [HOSTILE, 5],
        "fingerprint_sha256": "-1",
    }
    return {
        'a"\\b': claiming(None, **texts, **planted),
        "b": claiming(look(changed(held(), leftovers=tuple(f".staging-{number}" for number in range(1000)))), **long),
        "c": {"unreachable": True, "msg": f"@{HOSTILE}\r\n\x1b[31m" + "y" * 100_000},
    }


def test_what_a_gateway_claims_is_bounded_and_has_no_secret() -> None:
    report = report_of(hostile_fleet())
    for name, text in forms(report).items():
        assert len(text) < 60_000, name
        assert not any(secret in text for secret in SECRETS), name
        assert "\x1b" not in text
    assert all(len(str(value)) < 2000 for row in report.to_dict()["gateways"] for value in row.values())


def test_the_page_holds_data_and_no_markup_of_others() -> None:
    page = audit_page.render(report_of(hostile_fleet()))
    assert len(re.findall("<script", page)) == 2
    assert len(re.findall("</script", page)) == 2
    assert "<img" not in page
    assert page.count("<!--") == 1  # the license
    assert "\u2028" not in page
    (data,) = re.findall('<script type="application/json" id="report">(.*?)</script>', page, re.DOTALL)
    read = json.loads(data)
    rows = [dict(zip(read["gateways"]["columns"], row, strict=True)) for row in read["gateways"]["rows"]]
    assert rows == json.loads(json.dumps(report_of(hostile_fleet()).to_dict()["gateways"]))
    assert rows[0]["client_id"] == HOSTILE


SIGNS = tuple("=+-@\u2212\uff1d\uff0b\uff0d\uff20")


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", ["", " ", "x;", "x\t", "x|", "x, ", "x:", 'x"', "x'"])
def test_a_formula_gets_an_apostrophe_after_every_separator(sign: str, before: str) -> None:
    text = to_csv([{"a": f"{before}{sign}1+1", "b": [f"{sign}x", "y"]}], ["a", "b"])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row == {"a": f"{before}'{sign}1+1", "b": f"'{sign}x y"}


def test_texts_without_formulas_stay_as_they_are() -> None:
    texts = ["2026-11-22T04:13:00Z", "/etc/thingstream", "a-b", "user@example.com", "1+1", "00:1b:21", ""]
    (row,) = csv.DictReader(io.StringIO(to_csv([dict(zip("abcdefg", texts, strict=True))], list("abcdefg"))))
    assert list(row.values()) == texts


def test_the_table_has_no_formula_and_can_be_read_back() -> None:
    report = report_of({**hostile_fleet(), **CASES})
    rows = list(csv.DictReader(io.StringIO(audit_files.to_table(report), newline="")))
    assert [row["host"] for row in rows] == [row["host"] for row in report.to_dict()["gateways"]]
    assert rows[0]["given_name"] == "'=HYPERLINK(1)"
    for separator in ",;\t|: ":  # whatever a spreadsheet is set to
        for line in audit_files.to_table(report).splitlines():
            assert not [
                cell for cell in line.split(separator) if cell.strip("\"' ").startswith(SIGNS) and "'" not in cell
            ]
    assert {row["host"]: row["state"] for row in rows if row["host"] in CASES} == STATES


# ---- metrics ----


def samples_of(report: audit.Report) -> dict[str, dict[tuple[str, ...], float]]:
    families = list(text_string_to_metric_families(audit_metrics.render(report)))
    assert all(family.type == "gauge" and family.documentation for family in families)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in families:
        for sample in family.samples:
            key = tuple(sample.labels.values())
            assert key not in found.setdefault(sample.name, {})
            found[sample.name][key] = sample.value
    return found


def test_a_real_parser_reads_the_metrics() -> None:
    found = samples_of(report_of({**CASES, "ünïcode": look(own("unicode"))}, [WAITING], [LOST, LOST]))
    assert all(name.startswith("thingstream_") for name in found)
    assert found["thingstream_audit_timestamp_seconds"] == {(): NOW.timestamp()}
    assert found["thingstream_audit_complete"] == {(): 0}
    assert found["thingstream_gateways"] == {(): len(CASES) + 1}
    assert found["thingstream_bundles"]["unreachable",] == 1
    assert set(found["thingstream_bundles"]) == {(state,) for state in STATES_IN_ORDER}
    assert found["thingstream_spool_responses"] == {(): 1}
    assert found["thingstream_abandoned_requests"] == {(): 2}
    assert found["thingstream_gateway_seen"]["unreachable",] == 0
    assert found["thingstream_gateway_seen"]["ünïcode",] == 1
    ends = found["thingstream_certificate_end_timestamp_seconds"]
    assert ends["in_order", PATH, "cloudlocate"] == (NOW + 100 * DAY).timestamp()
    assert (
        found["thingstream_keys_end_timestamp_seconds"]["in_order", PATH, "cloudlocate"] == (NOW + 60 * DAY).timestamp()
    )
    assert found["thingstream_bundle_in_order"]["due", PATH, "cloudlocate"] == 0
    assert found["thingstream_bundle_in_order"]["in_order", PATH, "cloudlocate"] == 1


def test_labels_survive_whatever_is_in_them() -> None:
    found = samples_of(report_of(hostile_fleet()))
    assert set(found["thingstream_gateway_seen"]) == {('a"\\b',), ("b",), ("c",)}
    assert ('a"\\b', PATH, "unknown") in found["thingstream_bundle_in_order"]


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text()


def test_the_documentation_has_every_metric_column_and_state() -> None:
    names = set(re.findall(r"^# TYPE (\w+)", audit_metrics.render(report_of(CASES)), re.MULTILINE))
    assert set(re.findall(r"^\| `(thingstream_\w+)` \|.*\|.*\|$", PAGE, re.MULTILINE)) >= names
    assert all(f"`{column}`" in PAGE for column in COLUMNS)
    assert re.findall(r"^\| `([a-z_]+)` \|", PAGE.partition("## States")[2].partition("##")[0], re.MULTILINE) == [
        *STATES_IN_ORDER
    ]
    assert all(f"`{key}`" in PAGE for key in report_of({}).to_dict())


def test_the_rules_of_the_documentation_name_metrics_that_exist() -> None:
    names = set(re.findall(r"^# TYPE (\w+)", audit_metrics.render(report_of(CASES)), re.MULTILINE))
    (block,) = re.findall("^```yaml$(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (group,) = yaml.safe_load(block)["groups"]
    used = {name for rule in group["rules"] for name in re.findall(r"thingstream_\w+", rule["expr"])}
    assert used
    assert used <= names
    states = {state for rule in group["rules"] for found in re.findall('state=~"(.*?)"', rule["expr"])
              for state in found.split("|")}  # fmt: skip
    assert states
    assert states <= set(STATES_IN_ORDER)


# ---- files ----


def test_files_are_replaced_whole_with_their_modes(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    for results in (CASES, {"a": CASES["due"]}):
        paths = audit_files.write(report_of(results), str(tmp_path), str(metrics))
    modes = {path.name: path.stat().st_mode & 0o777 for path in map(Path, paths)}
    assert modes == {name: mode for name, (mode, _render) in audit_files.FORMS.items()}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(
        set(modes) - {"thingstream-audit.prom"}
    )
    assert [path.name for path in metrics.iterdir()] == ["thingstream-audit.prom"]
    report = json.loads((tmp_path / "thingstream-audit.json").read_text())
    assert [row["host"] for row in report["gateways"]] == ["a"]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match="thingstream-audit") as caught:
        audit_files.write(report_of({}), str(tmp_path / "no"), str(tmp_path / "no"))
    assert caught.value.code == "report_failed"


# ---- size ----

LARGE = """
import resource, sys, time
sys.path.insert(0, {collections!r})
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import audit
from ansible_collections.thingstream.ztp.plugins.plugin_utils.fleet import audit_files
from ansible_collections.thingstream.ztp.tests.unit.looks import NOW, fleet
results = fleet(10_000)
start = time.monotonic()
report = audit.fleet_report(results, audit.SpoolSurvey(), NOW)
sizes = [len(render(report)) for _mode, render in audit_files.FORMS.values()]
print(time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, *sizes)
"""


def test_ten_thousand_gateways() -> None:
    """Measured: 2 seconds for all four forms, 130 MiB including the results, 8 MB for the largest form."""
    program = LARGE.format(collections=str(Path(audit.__file__).parents[6]))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, mebibytes, *sizes = map(float, run.stdout.split())
    assert seconds < 40
    assert mebibytes < 400
    assert max(sizes) < 12e6


def test_the_fleet_of_the_tests_has_every_state() -> None:
    assert all(report_of(fleet(100)).totals.states.values())

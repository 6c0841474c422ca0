# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what can go wrong with one gateway, and what brings it about."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from simulator.client import RunningSimulator


@dataclass(frozen=True)
class Case:
    """One problem: how it comes about, which code it must have, and how many requests it may cost.

    ``options`` are options of the module, ``profile`` settings of a device profile made for the case, ``fault`` one of
    the simulator's. ``says`` must be in the message, which says what to do. In texts ``{work}`` is a directory of the
    controller, ``{place}`` one of the gateway, ``{token}`` the token; see ``host_variables`` for the others.
    """

    code: str
    says: str
    requests: int
    options: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    fault: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)


CASES = {
    # found out before anything is sent
    "no-token": Case("token_invalid", "THINGSTREAM_ZTP_TOKEN", 0, options={"token": ""}),
    "token-with-space": Case("token_invalid", "Copy the token", 0, options={"token": "{token} again"}),
    "name-too-long": Case("bad_option", "1 to 50", 0, options={"given_name": "x" * 51}),
    "name-is-number": Case("bad_option", "Quote it", 0, options={"given_name": 1234}),
    "malformed-token": Case("token_invalid", "not a UUID", 0, options={"token": "{token}0"}),
    "no-hardware-id": Case("hardware_id_required", "anonymous", 0, options={"hardware_id": ""}),
    "hardware-id-is-number": Case("bad_option", "Quote it", 0, options={"hardware_id": 80e120}),
    "endpoint-of-another": Case(
        "bad_option", "cloudlocate", 0, options={"api_url": "https://api.thingstream.io/ztp/cloudlocate/credentials"}
    ),
    "unknown-service": Case("bad_option", "service", 0, options={"service": "pointperfect-extra"}),
    "unknown-format": Case("bad_option", "formats", 0, options={"formats": ["pkcs12"]}),
    "unknown-field": Case("bad_option", "field_map", 0, options={"field_map": {"colour": "x"}}),
    "bad-expression": Case("bad_option", "JMESPath", 0, options={"field_map": {"host": "a..b"}}),
    "open-mode": Case("bad_option", "secret_mode", 0, options={"secret_mode": "0644"}),
    "bad-renew-before": Case("bad_option", "renew_before", 0, options={"renew_before": "soon"}),
    "plain-http": Case("bad_option", "https://", 0, options={"api_url": "http://192.0.2.1"}),
    "no-ca-file": Case("bad_option", "ca_path", 0, options={"ca_path": "/nonexistent/ca.pem"}),
    "no-broker-ca": Case("bad_option", "broker_ca_path", 0, options={"broker_ca_path": "/nonexistent/ca.pem"}),
    "relative-path": Case("bad_path", "absolute", 0, options={"path": "etc/thingstream"}),
    "path-with-dots": Case("bad_path", "..", 0, options={"path": "/etc/../etc/thingstream"}),
    "path-is-link": Case("bad_path", "symbolic link", 0, options={"path": "{place}/link"}),
    "path-is-file": Case("bad_path", "not a directory", 0, options={"path": "{place}/file"}),
    "path-below-file": Case("bad_path", "not a directory", 0, options={"path": "{place}/file/below"}),
    "path-open": Case("bad_path", "writable by every user", 0, options={"path": "{place}/open"}),
    "path-below-open": Case("bad_path", "writable by every user", 0, options={"path": "{place}/open/below"}),
    "unknown-owner": Case("bad_option", "owner 'nobody-here'", 0, options={"owner": "nobody-here"}),
    "unknown-group": Case("bad_option", "group 'nobody-here'", 0, options={"group": "nobody-here"}),
    "spool-blocked": Case("spool_failed", "spool_path", 0, options={"spool_path": "{work}/file/spool"}),
    "spool-unmounted": Case("spool_failed", "mounted", 0, options={"spool_path": "{work}/volume/spool"}),
    "spool-open": Case("spool_failed", "0700", 0, options={"spool_path": "{work}/open"}),
    "deaf-connection": Case("gateway_unsupported", "standard input", 0, variables={"ansible_connection": "deaf"}),
    "unreachable-api": Case(
        "unreachable", "Cannot connect", 0, options={"api_url": "https://127.0.0.1:1", "retries": 0}
    ),
    "unreachable-proxy": Case(
        "unreachable", "proxy", 0, options={"proxy": "http://{proxy_login}@127.0.0.1:1", "retries": 0}
    ),
    # the simulator speaks TLS and tunnels nothing
    "refusing-proxy": Case("proxy_refused", "does not allow connections", 0, options={"proxy": "{simulator_url}"}),
    "proxy-without-version": Case("bad_option", "names no version", 0, options={"proxy": "socks://127.0.0.1:1080/"}),
    "untrusted-api": Case("tls", "ca_path", 0, options={"ca_path": "{other_ca}"}),
    "wrong-host-name": Case("tls", "host name", 0, options={"api_url": "{url_by_name}"}),
    # refused by the platform
    "unknown-token": Case("refused", "device profile", 1, options={"token": "{unknown_token}"}),
    "hardware-id-mandatory": Case(
        "refused",
        "hardware_id",
        1,
        options={"hardware_id": "", "anonymous": True},
        profile={"hardware_code_mandatory": True},
    ),
    "not-allowed": Case("not_allowed", "allow-list", 1, profile={"allow_list": ["somebody-else"]}),
    "registered": Case(
        "already_registered",
        "return the existing",
        1,
        options={"hardware_id": "taken-{name}"},
        profile={"already_exists": "error"},
    ),
    "no-plan": Case("no_plan", "activate", 1, profile={"plan": "none"}),
    "disabled": Case("refused", "status", 1, profile={"status": "disabled"}),
    "never-activated": Case(
        "activation_pending", "Auto Activate", 1, options={"activation_timeout": 0}, profile={"auto_activate": False}
    ),
    "teapot": Case("refused", "HTTP 418", 1, fault={"kind": "status", "status": 418, "body": "{token} makes tea"}),
    "rate-limited": Case(
        "rate_limited", "forks", 1, fault={"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}}
    ),
    "server-error": Case(
        "server_error", "HTTP 500", 1, options={"retries": 0}, fault={"kind": "status", "status": 500}
    ),
    "redirect": Case(
        "bad_response", "api_url", 1, fault={"kind": "redirect", "location": "https://127.0.0.1:1/elsewhere?{token}"}
    ),
    "slow": Case(
        "timeout", "timeout", 1, options={"timeout": 1, "retries": 0}, fault={"kind": "delay_before", "seconds": 4}
    ),
    "cut": Case("unreachable", "broke", 1, options={"retries": 0}, fault={"kind": "cut_before"}),
    # answers that cannot be used
    "not-json": Case("bad_response", "not valid JSON", 1, fault={"kind": "not_json", "body": "<html>{token}"}),
    "malformed": Case("bad_response", "not valid JSON", 1, fault={"kind": "malformed"}),
    "not-an-object": Case("bad_response", "not an object", 1, fault={"kind": "not_object"}),
    "truncated": Case("bad_response", "before it was whole", 1, options={"retries": 0}, fault={"kind": "truncated"}),
    "huge": Case(
        "bad_response", "256 KiB", 1, options={"retries": 0}, fault={"kind": "huge", "bytes": 2 * 1024 * 1024}
    ),
    "other-names": Case(
        "missing_field",
        "login.name",
        1,
        options={"service": "cloudlocate"},
        profile={"service": "cloudlocate", "simulator": {"field_names": {"username": "login.name"}}},
    ),
    "wrong-pair": Case("pair_mismatch", "does not belong", 1, profile={"simulator": {"mismatched_pair": True}}),
    "expired": Case("bad_response", "has expired", 1, profile={"simulator": {"certificate_days": -1}}),
}

SOUND = Case("", "", 1)


def prepare(place: Path) -> None:
    """Make the file, the link and the open directory that some cases need, on a gateway or the controller."""
    place.mkdir(parents=True)
    (place / "file").write_text("")
    (place / "link").symlink_to(".")
    (place / "open").mkdir()
    (place / "open").chmod(0o777)


def host_variables(
    simulator: RunningSimulator, name: str, case: Case, work: Path, place: Path, **more: str
) -> dict[str, Any]:
    """Return the variables of one host that has the problem, and set up the simulator for it.

    :param name: the name of the host and of its device profile, and part of its hardware ID.
    :param work: a directory of the controller that is prepared.
    :param place: a directory of the gateway that is prepared.
    :param more: texts for further braces, ``proxy_login`` and ``unknown_token``.
    """
    token = simulator.put_profile(name, **{"service": "pointperfect", "plan": "mqtt", **case.profile})
    values = {
        "name": name,
        "work": work,
        "place": place,
        "token": token,
        "other_ca": DEFAULT_CA_BUNDLE_PATH,
        # the certificate of the simulator is for localhost and 127.0.0.1
        "url_by_name": simulator.url.replace("127.0.0.1", "127.1"),
        "simulator_url": simulator.url,
        "proxy_login": "somebody:something",
        "unknown_token": str(uuid.uuid4()),
        **more,
    }
    if case.code == "already_registered":
        simulator.post(token, hardwareId=f"taken-{name}").raise_for_status()
    if case.fault:
        simulator.add_fault(hardware_id=f"id-{name}", **_filled(case.fault, values))
    options = {
        "service": "pointperfect",
        "token": token,
        "hardware_id": f"id-{name}",
        "path": place / "gateways" / name,
        **_filled(case.options, values),
    }
    return {f"thingstream_gateway_{option}": value for option, value in options.items()} | case.variables


def _filled(texts: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: text.format(**values) if isinstance(text, str) else text for name, text in texts.items()}

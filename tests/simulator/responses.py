# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The body of a successful response, per service and format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from simulator.dynamic_keys import DynamicKey
from simulator.profiles import Profile
from simulator.things import Thing

# Prefix of descriptions and segment of topics, per plan: seen in client code.
FAMILIES = {"mqtt": ("IP", "ip"), "lband": ("L-band", "Lb"), "both": ("L-band + IP", "Lb")}

# Regions and their order per plan: seen in client code. An L-band plan has the frequencies topic and no region (assumed
# for this response, seen in client code for the portal's download).
REGIONS = {
    "mqtt": {"EU": "eu", "US": "us", "KR": "kr", "AU": "au", "Japan": "jp"},
    "lband": {},
    "both": {"EU": "eu", "US": "us", "AU": "au", "Japan": "jp"},
}

PARTS = {
    "gad": "geographic area definition",
    "hpac": "high-precision atmosphere correction",
    "ocb": "GNSS orbit, clocks and bias",
    "clk": "GNSS clock",
}


def family_of(profile: Profile) -> str:
    """Return the word of topics and dynamic keys for a plan: `ip` or `Lb`."""
    return FAMILIES[profile.topics][1]


def success(profile: Profile, thing: Thing, keys: Mapping[str, DynamicKey], ready: bool) -> dict[str, Any]:
    """Return the JSON object of a response with status 200.

    A Thing that is not `ready` (pending or not activated) gets the object without its credentials: seen in client code
    for PointPerfect, assumed for CloudLocate and for the fields that remain.
    """
    if profile.service == "cloudlocate":
        body = _cloudlocate(profile, thing, ready)
    elif "certificate" in thing.credentials:  # the format that the profile had when the Thing was created (assumed)
        body = _keys(profile, thing, keys, ready)
    else:
        body = _ntrip(profile, thing, ready)
    return rename(body, profile.simulator.field_names)


def subscriptions(plan: str, with_descriptions: bool = True) -> list[dict[str, str]]:
    """Return the topics of a plan in the platform's order (seen in client code)."""
    title, segment = FAMILIES[plan]

    def topic(description: str, path: str) -> dict[str, str]:
        return {"description": f"{title} {description}", "path": path} if with_descriptions else {"path": path}

    frequencies = [] if plan == "mqtt" else [topic("frequencies topic", "/pp/frequencies/Lb")]
    topics = [topic("key distribution topic", f"/pp/ubx/0236/{segment}"), topic("AssistNow topic", "/pp/ubx/mga")]
    for region, code in REGIONS[plan].items():
        base = f"/pp/{segment}/{code}"
        topics.append(topic(f"correction topic for {region} region", base))
        if code == "au":  # Australia has the main topic only
            continue
        parts = [topic(f"{name} topic for {region} region", f"{base}/{part}") for part, name in PARTS.items()]
        if code == "us":  # the frequencies belong to the United States
            parts += frequencies
        topics += [*parts, {"path": ";".join(part["path"] for part in parts)}]
    return topics if REGIONS[plan] else topics + frequencies


def rename(body: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of `body` with values moved from one dotted path to another; paths it does not have are ignored."""
    if not names:
        return dict(body)
    renamed: dict[str, Any] = json.loads(json.dumps(body))
    moved = []
    for old, new in names.items():
        *parents, last = old.split(".")
        holder: Any = renamed
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and last in holder:
            moved.append((new, holder.pop(last)))
        if parents and renamed.get(parents[0]) == {}:
            del renamed[parents[0]]
    # Only now, so that two names can be swapped.
    for new, value in moved:
        *parents, last = new.split(".")
        holder = renamed
        for parent in parents:
            if not isinstance(holder.get(parent), dict):
                holder[parent] = {}
            holder = holder[parent]
        holder[last] = value
    return renamed


def _keys(profile: Profile, thing: Thing, keys: Mapping[str, DynamicKey], ready: bool) -> dict[str, Any]:
    """Return the body for PointPerfect Flex, SPARTN over MQTT or L-band: names and types seen in client code."""
    title = FAMILIES[profile.topics][0]
    secret = thing.credentials
    pair = {"certificate": secret["certificate"], "privateKey": secret["private_key"]} if ready else {}
    return {
        **pair,
        "clientId": thing.client_id,
        "subscriptionsTitle": "Topics",
        "brokerHost": profile.simulator.host or "pp.services.u-blox.com",
        "supportsLband": profile.topics in ("lband", "both"),
        "supportsMqtt": profile.topics in ("mqtt", "both"),
        "subscriptions": subscriptions(profile.topics, not profile.simulator.without_descriptions),
        "rotatingKeyTitle": f"{title} Dynamic Keys",
        "dynamickeys": dict(keys),
    }


def _ntrip(profile: Profile, thing: Thing, ready: bool) -> dict[str, Any]:
    """Return the body for NTRIP.

    PointPerfect Flex as RTCM was seen in client code; the block's name for SPARTN over NTRIP, and Live, are assumed.
    """
    switches = profile.simulator
    spartn = profile.service == "pointperfect" and profile.format == "SPARTN"
    port = switches.port or 2101
    caster: dict[str, Any] = {
        "endpoint": switches.host or "ppntrip.services.u-blox.com",
        "httpPort": str(port) if switches.http_port_as == "string" else port,
    }
    if switches.ntrip_shape == "endpoints":
        caster = {"endPoints": [{"region": region, **caster} for region in ("North America", "Europe")]}
    mount_point = {"mountPoint": switches.mount_point or ("NEAR-SPARTN" if spartn else "NEAR-RTCM")}
    login = {"userName": thing.credentials["username"], "password": thing.credentials["password"]}
    return {
        "spartnCredentials" if spartn else "rtcmCredentials": {**caster, **mount_point, **login}
        if ready
        else mount_point
    }


def _cloudlocate(profile: Profile, thing: Thing, ready: bool) -> dict[str, Any]:
    """Return the body for CloudLocate.

    Content is documented, key names are assumed; host name and value shapes were seen in client code.
    """
    switches = profile.simulator
    login = {"clientId": thing.client_id, **thing.credentials} if ready else {}
    # 8883 is assumed: that TLS is offered was seen in client code.
    return {"hostname": switches.host or "mqtt.thingstream.io", "port": switches.port or 8883, **login}

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of one path: the Things that were in use there and must be deactivated on the platform by somebody.

A generation never changes, but what became of its Thing does. So the history lies beside the generations, survives
their removal, and is what counts; the list in a record is the history as it was when its generation was made. It may
name the Thing that is in use: whoever reads it leaves that one out, so that it can be written before a switch.

Pure functions over parsed JSON: ``{"things": [...], "confirmed": {...}}``. Private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..job import policy
from ..platform.services import CLIENT_ID

History = Mapping[str, Any]
Thing = Mapping[str, Any]

IDENTITY = ("client_id", "service", "hardware_id", "given_name")
MAX_THINGS = 200
MAX_DONE = 20  # only a roll back to one of them needs to know

_MAX_TEXT = 256  # characters


def readable(history: Mapping[str, Any] | None, record: Mapping[str, Any] | None) -> History:
    """The parts of a history that have their types; what a gateway claims is not trusted.

    :param history: as parsed, or ``None`` where there is none; then the list in the record counts.
    """
    found = history if history is not None else {"things": (record or {}).get("retired")}
    things, confirmed = found.get("things"), found.get("confirmed")
    entries = [_clean(entry) for entry in things if _is_entry(entry)] if isinstance(things, list) else []
    clean: dict[str, Any] = {"things": entries[-MAX_THINGS:]}
    if isinstance(confirmed, dict) and _date(confirmed.get("at")) and isinstance(confirmed.get("identity_sha256"), str):
        clean["confirmed"] = {name: confirmed[name] for name in ("at", "identity_sha256")}
    return clean


def same_thing(one: Thing, other: Thing) -> bool:
    """Whether two records or entries name one Thing: by client ID or, where none came, by what it was asked with."""
    if one.get("client_id") or other.get("client_id"):
        return one.get("client_id") == other.get("client_id")
    return all(one.get(name) == other.get(name) for name in ("service", "hardware_id"))


def retired(history: History, record: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The Things that are not in use and that nobody has reported as deactivated: identity, and ``since`` when."""
    return [
        {name: entry[name] for name in (*IDENTITY, "since")}
        for entry in history["things"]
        if not entry["done_at"] and not (record and same_thing(entry, record))
    ]


def retirement_list(history: History, record: Mapping[str, Any] | None, current: str | None) -> list[dict[str, Any]]:
    """``retired``, or nothing while the generation in use has no record that can be read: its Thing may be any."""
    return [] if current is not None and record is None else retired(history, record)


def is_done(history: History, record: Thing) -> bool:
    """Whether somebody has reported the Thing of a record as deactivated."""
    return any(entry["done_at"] and same_thing(entry, record) for entry in history["things"])


def leave(history: History, record: Thing | None, since: datetime) -> History:
    """The history once the Thing of a record (if there is one) is no longer in use."""
    if record is None:
        return history
    others = [entry for entry in history["things"] if not same_thing(entry, record)]
    entry = {**{name: record.get(name) for name in IDENTITY}, "since": policy.timestamp(since), "done_at": None}
    return {**history, "things": _bounded([*others, entry])}


def note(history: History, things: Sequence[Thing], since: datetime) -> History:
    """The history with these Things, as far as it does not know them; what a gateway claims of them is not trusted."""
    for thing in readable({"things": list(things)}, None)["things"]:
        if not any(same_thing(known, thing) for known in history["things"]):
            history = leave(history, thing, since)
    return history


def mark_done(history: History, things: Sequence[Thing], at: datetime) -> History:
    """The history once these Things are deactivated."""
    done_at = policy.timestamp(at)
    entries = [
        {**entry, "done_at": done_at}
        if not entry["done_at"] and any(same_thing(entry, thing) for thing in things)
        else entry
        for entry in history["things"]
    ]
    return {**history, "things": _bounded(entries)}


def confirm(history: History, record: Mapping[str, Any], at: datetime) -> History:
    """The history once the platform has returned the installed credentials again."""
    return {**history, "confirmed": {"at": policy.timestamp(at), "identity_sha256": record.get("identity_sha256")}}


def told(record: Mapping[str, Any] | None, history: History) -> Mapping[str, Any] | None:
    """A record together with what the history says of it: ``retired`` as it is now, ``confirmed_at`` if it was."""
    if record is None:
        return None
    now = {**record, "retired": retired(history, record)}
    confirmed = history.get("confirmed")
    if confirmed and confirmed["identity_sha256"] == record.get("identity_sha256"):
        now["confirmed_at"] = confirmed["at"]
    return now


def encode(history: History) -> str:
    """One line of ASCII."""
    return json.dumps(history, sort_keys=True)


def _bounded(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    done = [entry for entry in entries if entry["done_at"]][-MAX_DONE:]
    return [entry for entry in entries if not entry["done_at"] or entry in done][-MAX_THINGS:]


def _is_entry(entry: object) -> bool:
    """Whether it can name a Thing; one whose client ID is none would name another Thing without it."""
    if not isinstance(entry, dict):
        return False
    client_id = entry.get("client_id")
    return client_id is None or (isinstance(client_id, str) and CLIENT_ID.fullmatch(client_id) is not None)


def _clean(entry: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: _text(entry.get(name)) for name in IDENTITY}
    return {**texts, "since": _date(entry.get("since")), "done_at": _date(entry.get("done_at"))}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() and len(value) <= _MAX_TEXT else None


def _date(value: object) -> str | None:
    try:
        policy.moment({"date": value}, "date")
    except ValueError:
        return None
    return value if isinstance(value, str) else None

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the values that name a Thing: hardware ID, given name, tags.

A wrong value creates a Thing for no gateway, or takes the Thing of another one. YAML and INI turn unquoted text into
numbers, dates and booleans, and the text is lost: ``80E126001234`` and ``80E126005678`` both become ``inf``. Therefore
only text is accepted, and whole numbers only if they are long enough to be an IMEI.

Private to the collection.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from ..errors import ProvisioningError

MAX_HARDWARE_ID = 128  # characters; no limit of the platform is known (assumed)
MAX_GIVEN_NAME = 50  # characters (seen in client code)
MAX_TAG = 128  # characters (assumed)
MIN_NUMBER_DIGITS = 14  # an IMEI without its check digit; shorter numbers may have lost leading zeros

# Invisible characters that Unicode counts as letters, marks or symbols.
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
# What templates, scripts and databases write where they have no value.
_PLACEHOLDERS = frozenset(("none", "null", "nil", "nan", "inf", "-inf", "undefined", "unknown", "n/a", "true", "false"))
_VARIATIONS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))


def hardware_id_of(value: Any, host: str, *, is_decimal: bool = True) -> str | None:
    """Return the hardware ID that a variable or option holds, or ``None`` if it holds none.

    :param value: as YAML, INI or a template made it.
    :param host: the inventory name of the gateway, for the message of an error.
    :param is_decimal: whether a whole number is written in decimal digits, as far as that is known.
    :raises ProvisioningError: ``bad_option`` for everything that may not be what the user wrote.
    """
    text = _text("hardware_id", host, value, MAX_HARDWARE_ID, is_decimal=is_decimal)
    if text is None:
        return None
    if any(character.isspace() for character in text):
        raise _bad("hardware_id", host, f"{text!r} contains a blank. Hardware IDs have none")
    if text.lower() in _PLACEHOLDERS:
        raise _bad("hardware_id", host, f"{text!r} stands for a value that is missing. Set the ID of the gateway")
    if "{{" in text or "{%" in text:
        raise _bad("hardware_id", host, f"{text!r} is a template that was not rendered. Write the ID itself")
    if text[0] == text[-1] and text[0] in "'\"":
        raise _bad("hardware_id", host, f"{text} begins and ends with a quotation mark. Remove one pair of them")
    return text


def given_name_of(value: Any, host: str, *, is_decimal: bool = True) -> str | None:
    """Return the given name that an option holds, or ``None`` if it holds none.

    :param value: see ``hardware_id_of`` for all of them.
    :raises ProvisioningError: ``bad_option``.
    """
    return _text("given_name", host, value, MAX_GIVEN_NAME, is_decimal=is_decimal)


def tags_of(values: Iterable[Any], host: str) -> list[str]:
    """Return tags; empty ones are left out.

    :raises ProvisioningError: ``bad_option``.
    """
    found = (_text("tags", host, value, MAX_TAG) for value in values)
    return [tag for tag in found if tag is not None]


def kind_of(value: Any) -> str:
    """Return what a value is, in the words of YAML."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, date):  # and a datetime
        return "a date"
    if isinstance(value, str):
        return "text"
    return (
        "a mapping"
        if isinstance(value, Mapping)
        else "a list"
        if isinstance(value, (list, tuple))
        else "of no known kind"
    )


def _text(name: str, host: str, value: Any, most: int, *, is_decimal: bool = True) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
        if value < 0 or len(text) < MIN_NUMBER_DIGITS or not is_decimal:
            raise _bad(name, host, f"{text} is a number, which may not be what you wrote", quote=True)
        value = text
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        shown = str(value) if isinstance(value, (bool, float, date)) else "the value"
        raise _bad(name, host, f"{shown} is {kind_of(value)}, which may not be what you wrote", quote=True)
    text = str(value)
    if not text.strip():
        raise _bad(name, host, "the value consists of blanks. Remove them")
    if text != text.strip():
        raise _bad(name, host, f"{text!r} begins or ends with a blank. Remove it")
    hidden = next((character for character in text if _is_hidden(character)), None)
    if hidden is not None:
        raise _bad(name, host, f"{text!a} contains the invisible character U+{ord(hidden):04X}. Type it again")
    if not unicodedata.is_normalized("NFKC", text):
        raise _bad(name, host, f"{text!a} contains a character that looks like another one. Type it again")
    if len(text) > most:
        raise _bad(name, host, f"the value has {len(text)} characters; 1 to {most} are possible. Shorten it")
    return text


def _is_hidden(character: str) -> bool:
    """Return whether a character cannot be seen; a space inside a text can."""
    if character in _FILLERS or any(ord(character) in variations for variations in _VARIATIONS):
        return True
    return not character.isprintable()


def _bad(name: str, host: str, problem: str, *, quote: bool = False) -> ProvisioningError:
    advice = f""". Quote it: {name}: '…' in YAML, {name}="'…'" in an INI inventory.""" if quote else "."
    return ProvisioningError("bad_option", f"{name} of {host}: {problem}{advice}")

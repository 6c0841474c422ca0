# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn the values that users give into the types of their options, or say what is wrong with them.

Ansible's own validation turns every value into text where text is wanted, and names Python classes where it fails. Here
a value is accepted where its meaning is certain; everything else is refused with option, value and remedy.

Private to the collection.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.common.validation import check_type_bool, check_type_dict

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # ansible-core before 2.19
    from ansible.parsing.yaml.objects import AnsibleVaultEncryptedUnicode

    Origin = None
else:
    AnsibleVaultEncryptedUnicode = None

from ..bundle.dates import timestamp
from ..errors import ProvisioningError
from ..platform.naming import given_name_of, hardware_id_of, kind_of, tags_of

Option = Mapping[str, Any]

# The unit of an option that is a number, which may be written behind the number.
_UNITS = {
    "renew_spread": "d",
    "keys_renew_before": "d",
    "max_age": "d",
    "timeout": "s",
    "health_timeout": "s",
    "activation_timeout": "s",
}
_UNIT_NAMES = {"d": "days", "s": "seconds"}
# Text options that may be given as a number: IDs of users and groups, and a number of days.
_NUMBERS_AS_TEXT = frozenset(("owner", "group", "renew_before"))


class _Unsuitable(ValueError):
    """A value that does not fit; the text says what it must be."""


def typed(options: Mapping[str, Option], given: Mapping[str, Any], host: str, within: str = "") -> dict[str, Any]:
    """Return given values with the types of their options.

    :param options: argument specs by name.
    :param host: the inventory name of the gateway, for the messages of errors.
    :param within: for suboptions, the name of their option.
    :raises ProvisioningError: ``bad_option``.
    """
    found = {}
    for name, value in given.items():
        option = options.get(name)
        if option is None:
            proposal = nearest(name, options, within)
            raise ProvisioningError("bad_option", f"{within}{name} is not an option.{proposal}")
        try:
            found[name] = _typed(name, option, value, host, f"{within}{name}")
        except _Unsuitable as problem:
            shown = "the value" if option.get("no_log") else _shown(value)
            raise ProvisioningError("bad_option", f"{within}{name}: {shown} {problem}.") from None
    return found


def in_clear(value: Any) -> Any:
    """Return a value in which nothing is encrypted by Ansible Vault any more.

    ansible-core 2.19 and later decrypts where a value is used. Before that, ``!vault`` makes an object that is no text.

    :raises AnsibleError: if it cannot be decrypted.
    """
    if AnsibleVaultEncryptedUnicode is None:
        return value
    if isinstance(value, AnsibleVaultEncryptedUnicode):
        return str(value)
    if isinstance(value, Mapping):
        return {in_clear(key): in_clear(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [in_clear(item) for item in value]
    return value


def is_decimal(value: Any) -> bool:
    """Return whether a number is written in decimal digits where it comes from, as far as that can be found out.

    YAML and INI read ``0x00124b0012345678`` and ``0300000000000000`` as numbers, too. ansible-core 2.19 and later knows
    the line that a value comes from; before that, a number counts as decimal.
    """
    origin = Origin.get_tag(value) if Origin is not None and isinstance(value, int) else None
    if origin is None or not origin.path or not origin.line_num:
        return True
    try:
        with Path(origin.path).open(encoding="utf-8") as lines:
            line = next(itertools.islice(lines, origin.line_num - 1, None), "")
    except (OSError, ValueError):
        return True
    return re.search(rf"(?<![^\s=:,{{\[]){int(value)}(?![^\s,}}\]])", line) is not None


def is_template(value: object) -> bool:
    """Return whether a value is text that Ansible would render."""
    return isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value or value.startswith("#jinja2:"))


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a sentence that proposes the known name that is most like a given one, or an empty text.

    :param prefix: what the proposal begins with.
    """
    found = difflib.get_close_matches(name, sorted(known), n=1)
    return f" Did you mean {prefix}{found[0]}?" if found else ""


def _typed(name: str, option: Option, value: Any, host: str, full_name: str) -> Any:
    if value is None:
        return None
    if name == "hardware_id":
        return hardware_id_of(value, host, is_decimal=is_decimal(value))
    if name == "given_name":
        return given_name_of(value, host, is_decimal=is_decimal(value))
    if name == "tags":
        return tags_of(_list(name, value), host)
    convert = _CONVERTERS.get(option["type"])
    converted = convert(name, value) if convert else value
    if option["type"] == "list" and option.get("elements") in _CONVERTERS:
        convert_element = _CONVERTERS[option["elements"]]
        converted = [convert_element(name, element) for element in converted]
    if "options" in option:
        if option["type"] == "list":
            return [typed(option["options"], element, host, f"{full_name}.") for element in converted]
        return typed(option["options"], converted, host, f"{full_name}.")
    return converted


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return _plain_text(value)  # validation deep-copies it, which is slow for tagged text
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and name in _NUMBERS_AS_TEXT:
        return str(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return timestamp(value.astimezone(timezone.utc))  # YAML makes a date of 2026-11-22T04:13:00Z
    raise _Unsuitable(f"is {kind_of(value)}, but must be text. Quote it" if not _is_container(value)
                      else f"is {kind_of(value)}, but must be text")  # fmt: skip


def _number(name: str, value: Any) -> float:
    unit = _UNITS.get(name)
    text = _plain_text(value).strip().lower() if _is_scalar(value) else ""
    if unit is not None:
        text = re.sub(rf"\s*({unit}|{_UNIT_NAMES[unit]}|{_UNIT_NAMES[unit][:-1]})$", "", text)
    if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", text, re.ASCII):
        number = float(text)
        if math.isfinite(number):
            return number
    of_unit = f" of {_UNIT_NAMES[unit]}, for example 30 or 30{unit}" if unit else ""
    raise _Unsuitable(f"is not a number{of_unit}")


def _whole_number(_name: str, value: Any) -> int:
    text = _plain_text(value).strip() if _is_scalar(value) else ""
    if re.fullmatch(r"[+-]?\d{1,18}(\.0)?", text, re.ASCII):
        return int(text.removesuffix(".0"))
    raise _Unsuitable("is not a whole number")


def _boolean(_name: str, value: Any) -> bool:
    try:
        return bool(check_type_bool(value))
    except TypeError:
        raise _Unsuitable("is neither true nor false") from None


def _list(_name: str, value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.split(",")
    if isinstance(value, (list, tuple)):
        return list(value)
    raise _Unsuitable(f"is {kind_of(value)}, but must be a list")


def _mapping(name: str, value: Any) -> dict[str, Any]:
    try:
        return dict(check_type_dict(value))
    except (TypeError, ValueError):
        raise _Unsuitable(f"is {kind_of(value)}, but must be a mapping, as in {name}: {{…}}") from None


_CONVERTERS: Mapping[str, Callable[[str, Any], Any]] = {
    "str": _text,
    "path": _text,
    "float": _number,
    "int": _whole_number,
    "bool": _boolean,
    "list": _list,
    "dict": _mapping,
}


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _is_container(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(_plain_text(value))
    return str(value) if isinstance(value, (bool, int, float, date)) else "the value"


def _plain_text(value: Any) -> str:
    """Return a value as text of Python's own type, whose ``repr`` names no class of Ansible."""
    return str.__str__(value) if isinstance(value, str) else str(value)

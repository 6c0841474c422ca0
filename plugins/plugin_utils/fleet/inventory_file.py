# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware IDs as an inventory in YAML or INI, quoted so that Ansible reads back exactly the same texts.

Without quotes a YAML reader takes ``012345``, ``1e5``, ``NO`` or ``12:30:45`` for numbers and booleans, an INI reader
takes ``1e5`` or ``None`` for Python values, and both take what follows ``#`` for a comment.

Private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

VARIABLE = "thingstream_gateway_hardware_id"


def yaml_inventory(ids: Mapping[str, str]) -> str:
    """Return an inventory in YAML; host to hardware ID."""
    lines = [f"    {_yaml(host)}:\n      {VARIABLE}: {_yaml(hardware_id)}\n" for host, hardware_id in ids.items()]
    return "".join(["all:\n", "  hosts:\n" if lines else "  hosts: {}\n", *lines])


def ini_inventory(ids: Mapping[str, str]) -> str:
    """Return an inventory in INI; host to hardware ID.

    Ansible splits a line as a shell does, and evaluates each value as a Python literal.
    """
    lines = [f"{_shell(host)} {VARIABLE}={_shell(ascii(hardware_id))}\n" for host, hardware_id in ids.items()]
    return "".join(["# hardware IDs\n", *lines])


FORMATS: Mapping[str, Callable[[Mapping[str, str]], str]] = {"yaml": yaml_inventory, "ini": ini_inventory}


def inventory(ids: Mapping[Any, object], form: str = "yaml") -> str:
    """Return hardware IDs as an inventory.

    :param ids: host to its hardware ID; numbers count as texts.
    :param form: a key of ``FORMATS``.
    :raises ValueError: for another form.
    """
    if form not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}")
    return FORMATS[form]({str(host): str(hardware_id) for host, hardware_id in ids.items()})


def _yaml(text: str) -> str:
    """Return a double-quoted scalar of printable ASCII; every YAML version reads its escapes alike."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if 0x20 <= code < 0x7F:
        return character
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _shell(text: str) -> str:
    """Return a double-quoted word, as Python's shlex reads it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

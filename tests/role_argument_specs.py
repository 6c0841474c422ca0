# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the argument specs of the role from the documentation of the modules; ``make argument-specs`` runs this.

Each option of ``thingstream_ztp`` is a variable of the role, with the same description, type and default.
"""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
SPECS = PROJECT / "roles/thingstream_gateway/meta/argument_specs.yml"
PREFIX = "thingstream_gateway_"
MODULE = "thingstream.ztp.thingstream_ztp"
NOT_IN_THE_ROLE = ("variables_prefix",)

_HEADER = """\
---
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Made from the documentation of the modules: change that, and run `make argument-specs`.
"""
_AUTHORS = ["The thingstream.ztp authors"]
_MAIN = {
    "short_description": "Ensure that a gateway has valid Thingstream credentials",
    "version_added": "1.0.0",
    "author": _AUTHORS,
    "description": [
        "Ensures that a gateway has valid credentials for its own Thing, that they are not due for renewal, and that"
        " owner and modes are right.",
        f"The role is one task, which takes one remote command where nothing is due. Each variable is the option of"
        f" M({MODULE}) with the same name, and has the same default.",
    ],
}
_IDENTIFY = {
    "short_description": "Find the hardware ID of a gateway",
    "version_added": "1.0.0",
    "author": _AUTHORS,
    "description": [
        f"Reads the hardware ID of a gateway that has no O({PREFIX}hardware_id), and sets that variable for the rest of"
        " the run. It fails if another gateway of the play has the same hardware ID. It sends no request to the"
        " platform.",
        "It requires the strategy C(linear), so that the hardware IDs of all gateways are known before they are"
        " compared. With C(serial), a gateway is compared with those of its batch and of earlier batches.",
    ],
}
_IDENTIFY_HARDWARE_ID = {
    "description": ["The hardware ID, if it is known. Such a gateway is not read, only compared."],
    "type": "str",
}
_LINK = re.compile(r"\b(O|RV)\(([^()#]+)\)")
_WIDTH = 120


def documentation(module: str, name: str = "DOCUMENTATION") -> Any:
    """Return one of the documentation variables of a module, without its fragments."""
    tree = ast.parse((PROJECT / f"plugins/modules/{module}.py").read_text())
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == name:
            return yaml.safe_load(ast.literal_eval(statement.value))
    raise LookupError(f"{module} has no {name}")


def documented_options(module: str) -> dict[str, Any]:
    """Return the options of a module by name, including those of its documentation fragments."""
    own = documentation(module)
    options = dict(own["options"])
    for fragment in own["extends_documentation_fragment"]:
        name, _dot, section = fragment.removeprefix("thingstream.ztp.").partition(".")
        plugin = importlib.import_module(f"ansible_collections.thingstream.ztp.plugins.doc_fragments.{name}")
        text = getattr(plugin.ModuleDocFragment, (section or "DOCUMENTATION").upper())
        for option, described in yaml.safe_load(text)["options"].items():
            options.setdefault(option, described)
    return options


def arguments(module: str) -> dict[str, dict[str, Any]]:
    """Return the argument spec of the action plugin of a module."""
    plugin = importlib.import_module(f"ansible_collections.thingstream.ztp.plugins.action.{module}")
    return dict(plugin.ActionModule.ARGUMENTS)


def render() -> str:
    """Return the content of ``SPECS``."""
    documented, spec = documented_options("thingstream_ztp"), arguments("thingstream_ztp")
    main = {
        PREFIX + name: _variable(documented[name], no_log=bool(argument.get("no_log")))
        for name, argument in spec.items()
        if name not in NOT_IN_THE_ROLE
    }
    sources = _variable(documented_options("thingstream_hardware_id")["sources"])
    del sources["required"]
    sources["description"].append(f"It is required for a gateway without O({PREFIX}hardware_id).")
    identify = {f"{PREFIX}hardware_id_sources": sources, f"{PREFIX}hardware_id": _IDENTIFY_HARDWARE_ID}
    specs = {"main": {**_MAIN, "options": main}, "identify": {**_IDENTIFY, "options": identify}}
    text = yaml.dump({"argument_specs": specs}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))
    return _HEADER + "".join(f"{line}\n" for line in map(_wrapped, text.splitlines()))


def _variable(option: Mapping[str, Any], *, no_log: bool = False) -> dict[str, Any]:
    """Return the spec of the variable for a documented option."""
    variable = {**option, "description": [_linked(line) for line in option["description"]]}
    suboptions = variable.pop("suboptions", {})
    if suboptions:
        variable["options"] = {name: _variable(suboption) for name, suboption in suboptions.items()}
    return {**variable, **({"no_log": True} if no_log else {})}


def _linked(text: str) -> str:
    """Replace links to options by links to variables, and links to return values by links to those of the module."""

    def replacement(link: re.Match[str]) -> str:
        kind, name = link.groups()
        return f"O({PREFIX}{name})" if kind == "O" else f"RV({MODULE}#module:{name})"

    return _LINK.sub(replacement, text)


def _wrapped(line: str) -> str:
    """Wrap a line with one scalar; the dumper would wrap after the first word that goes beyond the width."""
    indentation = " " * (len(line) - len(line.lstrip(" -")))
    return textwrap.fill(line, _WIDTH, subsequent_indent=indentation, break_long_words=False, break_on_hyphens=False)


class _Dumper(yaml.SafeDumper):
    """Indent lists, and repeat what occurs twice instead of an alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    SPECS.write_text(render())

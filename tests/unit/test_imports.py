# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports of the plugins point down, and nothing below ``plugin_utils/action`` imports Ansible."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
PACKAGE = "ansible_collections.thingstream.ztp.plugins"
LAYERS = ("errors", "gateway", "platform", "bundle", "spool", "verify", "job", "fleet", "action")  # lowest first
DOCUMENTATION = ("modules", "doc_fragments")
ANSIBLE = ("ansible", "ansible_test", "jinja2")

# The rules
POINT_DOWN = "imports point down"
NO_CYCLES = "modules of one layer import each other without cycles"
NO_ANSIBLE = "below plugin_utils/action nothing imports Ansible"
NO_IMPORTS = "modules and doc_fragments are documentation and import nothing"
PLUGIN_UTILS_ONLY = "of collections, plugins import only their own plugin_utils"

# Violations that still exist: file, and what it imports. This set only shrinks.
KNOWN: set[tuple[str, str]] = set()

Sources = Mapping[str, str]  # path below plugins/ to text
Edges = Mapping[str, set[str]]  # module to the modules of its own layer that it imports


@dataclass(frozen=True, order=True)
class Import:
    """One imported name.

    :param path: of the importing file, below ``plugins/``.
    :param target: absolute dotted name; of a name in a module of this collection, the module.
    """

    path: str
    line: int
    target: str

    @property
    def key(self) -> tuple[str, str]:
        """File and target, without the line, as in ``KNOWN``."""
        return self.path, self.target.removeprefix(f"{PACKAGE}.")


@dataclass(frozen=True)
class Violation:
    """An import that breaks a rule."""

    found: Import
    rule: str

    def __str__(self) -> str:
        path, target = self.found.key
        return f"plugins/{path}:{self.found.line}: imports {target}: {self.rule}"


def module_of(path: str) -> str:
    """Return the absolute name of a file's module, or of its package for an ``__init__.py``."""
    return ".".join([PACKAGE, *PurePosixPath(path).with_suffix("").parts]).removesuffix(".__init__")


def folder_and_layer(module: str) -> tuple[str, str]:
    """Return the folder of ``plugins`` that holds a module and the layer within ``plugin_utils``, or empty texts."""
    if not module.startswith(f"{PACKAGE}."):
        return "", ""
    folder, *rest = module.removeprefix(f"{PACKAGE}.").split(".")
    return folder, rest[0] if rest and folder == "plugin_utils" else ""


def imports_of(path: str, source: str, modules: Collection[str]) -> Iterator[Import]:
    """Return every import of a file, wherever it stands: in functions and under ``TYPE_CHECKING``, too."""
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = absolute_base(path, statement)
            names = [base if alias.name == "*" else f"{base}.{alias.name}" for alias in statement.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
            yield Import(path, statement.lineno, next((prefix for prefix in prefixes if prefix in modules), name))


def absolute_base(path: str, statement: ast.ImportFrom) -> str:
    """Return the absolute name of the module that a ``from`` statement imports from."""
    if not statement.level:
        return statement.module or ""
    package = [*PACKAGE.split("."), *PurePosixPath(path).parent.parts]
    parent = package[: len(package) - statement.level + 1]
    return ".".join([*parent, statement.module] if statement.module else parent)


def broken_rule(found: Import, edges: Edges) -> str | None:
    """Return the rule that an import breaks, if any."""
    own = module_of(found.path)
    folder, layer = folder_and_layer(own)
    target_folder, target_layer = folder_and_layer(found.target)
    top = found.target.partition(".")[0]
    if folder in DOCUMENTATION:
        return None if top == "__future__" else NO_IMPORTS
    if unknown := {layer, target_layer} - {*LAYERS, ""}:
        return f"LAYERS has no {unknown.pop()}"
    if not target_folder:
        if top == "ansible_collections":
            return PLUGIN_UTILS_ONLY
        if top in ANSIBLE and folder == "plugin_utils" and layer != "action":
            return NO_ANSIBLE
        return None
    if not target_layer:
        return PLUGIN_UTILS_ONLY
    if layer and LAYERS.index(target_layer) > LAYERS.index(layer):
        return f"{POINT_DOWN}, and {layer} is below {target_layer}"
    if layer == target_layer and own in reachable(found.target, edges):
        return NO_CYCLES
    return None


def reachable(start: str, edges: Edges) -> set[str]:
    """Return a module and the modules that it imports, directly or indirectly."""
    seen: set[str] = set()
    pending = [start]
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending += edges.get(module, ())
    return seen


def all_imports(sources: Sources) -> list[Import]:
    """Return every import in the plugins, by file and line."""
    modules = {module_of(path) for path in sources}
    return sorted({found for path, source in sources.items() for found in imports_of(path, source, modules)})


def violations(sources: Sources) -> list[Violation]:
    """Return every violation in the plugins, by file and line."""
    imports = all_imports(sources)
    edges: dict[str, set[str]] = {}
    for found in imports:
        own = module_of(found.path)
        if folder_and_layer(own) == folder_and_layer(found.target):
            edges.setdefault(own, set()).add(found.target)
    broken = [(found, broken_rule(found, edges)) for found in imports]
    return [Violation(found, rule) for found, rule in broken if rule]


@pytest.fixture(scope="module")
def sources() -> Sources:
    """Every Python file of the plugins."""
    return {path.relative_to(PLUGINS).as_posix(): path.read_text() for path in PLUGINS.rglob("*.py")}


def test_every_layer_is_read(sources: Sources) -> None:
    assert {folder_and_layer(module_of(path))[1] for path in sources} == {*LAYERS, ""}
    assert len(all_imports(sources)) > 200


def test_imports_point_down(sources: Sources) -> None:
    found = [str(one) for one in violations(sources) if one.found.key not in KNOWN]
    assert not found, "\n" + "\n".join(found)


def test_known_violations_still_exist(sources: Sources) -> None:
    gone = KNOWN - {one.found.key for one in violations(sources)}
    assert not gone, f"Remove from KNOWN what is no longer violated: {sorted(gone)}"


# A small collection without violations, to which each case adds one file.
TREE = {
    "plugin_utils/errors.py": "",
    "plugin_utils/gateway/commands.py": "from ..errors import ProvisioningError",
    "plugin_utils/job/plan.py": "from ..errors import ProvisioningError\nfrom ..gateway import commands",
    "plugin_utils/job/apply.py": "from . import plan\nfrom .plan import plan_of",
    "plugin_utils/fleet/audit.py": f"import json\nimport {PACKAGE}.plugin_utils.job.plan as plan",
    "plugin_utils/action/base.py": "import jinja2\nfrom ansible.errors import AnsibleError\nfrom ..job import apply",
    "action/thingstream_ztp.py": (
        f"from ansible import constants\nfrom {PACKAGE}.plugin_utils.job import plan\n"
        "from ..plugin_utils.action.base import ZtpActionBase"
    ),
    "callback/progress.py": "from ansible.plugins.callback import CallbackBase",
    "modules/thingstream_ztp.py": "from __future__ import annotations",
}


def test_a_tree_without_violations() -> None:
    assert violations(TREE) == []


@pytest.mark.parametrize(
    ("path", "statement", "rule"),
    [
        # upwards, in every way to write it
        ("plugin_utils/gateway/new.py", f"from {PACKAGE}.plugin_utils.job.plan import x", POINT_DOWN),
        ("plugin_utils/gateway/new.py", f"from {PACKAGE}.plugin_utils.job import plan", POINT_DOWN),
        ("plugin_utils/gateway/new.py", f"from {PACKAGE}.plugin_utils import job", POINT_DOWN),
        ("plugin_utils/gateway/new.py", f"import {PACKAGE}.plugin_utils.job.plan", POINT_DOWN),
        ("plugin_utils/gateway/new.py", f"import json, {PACKAGE}.plugin_utils.job.plan as plan", POINT_DOWN),
        ("plugin_utils/gateway/new.py", "from ..job.plan import x", POINT_DOWN),
        ("plugin_utils/gateway/new.py", "from ..job.plan import *", POINT_DOWN),
        ("plugin_utils/gateway/new.py", "from ..job import plan", POINT_DOWN),
        ("plugin_utils/gateway/new.py", "from .. import errors, job", POINT_DOWN),
        ("plugin_utils/gateway/new.py", "from ...plugin_utils.job import plan", POINT_DOWN),
        ("plugin_utils/gateway/__init__.py", "from ..job import plan", POINT_DOWN),
        ("plugin_utils/gateway/deeper/new.py", "from ...job import plan", POINT_DOWN),
        ("plugin_utils/errors.py", "from .gateway import commands", POINT_DOWN),
        ("plugin_utils/job/new.py", "from ..fleet import audit", POINT_DOWN),
        ("plugin_utils/fleet/new.py", "from ..action import base", POINT_DOWN),
        # other collections and Ansible
        ("plugin_utils/job/new.py", "import ansible", NO_ANSIBLE),
        ("plugin_utils/job/new.py", "import ansible.errors as errors", NO_ANSIBLE),
        ("plugin_utils/fleet/new.py", "from ansible.errors import AnsibleError", NO_ANSIBLE),
        ("plugin_utils/bundle/new.py", "from jinja2 import Environment", NO_ANSIBLE),
        ("plugin_utils/job/new.py", "from ansible_collections.community.general import x", PLUGIN_UTILS_ONLY),
        ("action/new.py", "import ansible_collections.community.general", PLUGIN_UTILS_ONLY),
        ("action/new.py", "from ansible_collections.thingstream.ztp.tests.unit import rig", PLUGIN_UTILS_ONLY),
        ("plugin_utils/job/new.py", "from ....tests.unit import rig", PLUGIN_UTILS_ONLY),
        # plugins
        ("action/new.py", "from . import thingstream_ztp", PLUGIN_UTILS_ONLY),
        ("action/new.py", f"from {PACKAGE}.callback.progress import x", PLUGIN_UTILS_ONLY),
        ("filter/new.py", "from ..action import thingstream_ztp", PLUGIN_UTILS_ONLY),
        ("callback/new.py", f"import {PACKAGE}.action.thingstream_ztp", PLUGIN_UTILS_ONLY),
        ("plugin_utils/action/new.py", "from ...action import thingstream_ztp", PLUGIN_UTILS_ONLY),
        ("action/new.py", "from .. import filter", PLUGIN_UTILS_ONLY),
        ("modules/new.py", "from ..plugin_utils import errors", NO_IMPORTS),
        ("doc_fragments/new.py", "import json", NO_IMPORTS),
        # a package that has no place in the order
        ("plugin_utils/new/new.py", "import json", "LAYERS has no new"),
        ("plugin_utils/job/new.py", "from ..new import new", "LAYERS has no new"),
    ],
)
def test_a_violation_is_found(path: str, statement: str, rule: str) -> None:
    """Wherever the import stands; the message names file, line and rule."""
    for line, before in enumerate(["", "if TYPE_CHECKING:\n    ", "class A:\n    def f():\n        "], 1):
        (found,) = map(str, violations({**TREE, path: f"{before}{statement}"}))
        assert found.startswith(f"plugins/{path}:{line}: imports ")
        assert rule in found


def test_a_cycle_within_a_package_is_found() -> None:
    """At every import that is a part of it, and at no other one."""
    cycle = {
        "plugin_utils/job/a.py": "from . import b, plan",
        "plugin_utils/job/b.py": "def f():\n    from .c import x",
        "plugin_utils/job/c.py": f"if TYPE_CHECKING:\n    import {PACKAGE}.plugin_utils.job.a",
        "plugin_utils/job/d.py": "from . import a",
    }
    found = [(one.found.path, one.found.line) for one in violations({**TREE, **cycle}) if one.rule == NO_CYCLES]
    assert found == [("plugin_utils/job/a.py", 1), ("plugin_utils/job/b.py", 2), ("plugin_utils/job/c.py", 2)]
    assert len(violations({**TREE, **cycle})) == len(found)


def test_a_module_that_imports_itself_is_a_cycle() -> None:
    (found,) = violations({**TREE, "plugin_utils/job/a.py": "from .a import x"})
    assert found.rule == NO_CYCLES

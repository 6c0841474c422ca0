# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates of the user: read and checked before a request, rendered when there are credentials.

Private to the collection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    from ansible.template import trust_as_template
except ImportError:  # core before 2.19 trusts every text
    trust_as_template = None
from ansible.utils.unsafe_proxy import wrap_var

from ..bundle.render import Templates
from ..errors import ProvisioningError
from ..gateway.protocol import FILE_NAME
from .modes import mode

TEMPLATE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "src": {"type": "str", "required": True},
    "dest": {"type": "str"},
    "mode": {"type": "raw", "default": "0640"},
}


@dataclass(frozen=True)
class _Template:
    src: str
    directory: str
    dest: str
    text: str
    mode: int


def read(action: ActionBase, entries: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> Templates | None:
    """Read templates, and find their files as the module ``template`` does.

    :param entries: validated, with ``src``, ``dest`` and ``mode``.
    :param variables: what a template may use in addition to ``thing`` and ``credentials``.
    :raises ProvisioningError: ``bad_option`` for one that is not there, no text, no Jinja2, or has a bad name.
    """
    if not entries:
        return None
    templates = [_read(action, entry) for entry in entries]
    names = [template.dest for template in templates]
    if len(set(names)) < len(names):
        raise ProvisioningError("bad_option", "templates: two of them have the same dest.")
    sources = [(template.dest, template.text, template.mode) for template in templates]

    def render(thing: Mapping[str, Any], credentials: Mapping[str, Any]) -> dict[str, bytes]:
        # values, not templates: a password may hold what looks like one
        values = {"thing": wrap_var(dict(thing)), "credentials": wrap_var(dict(credentials))}
        known = {"ansible_managed": "Ansible managed", **variables, **values}
        return {template.dest: _rendered(action, template, known) for template in templates}

    return Templates(
        sha256=hashlib.sha256(json.dumps(sources).encode()).hexdigest(),
        modes={template.dest: template.mode for template in templates},
        render=render,
    )


def _read(action: ActionBase, entry: Mapping[str, Any]) -> _Template:
    src = entry["src"]
    try:
        path = Path(action._find_needle("templates", src))
        text = path.read_text(encoding="utf-8")
        # Only the syntax counts here; that filters and variables are there shows when it is rendered.
        jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"]).parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise ProvisioningError(
            "bad_option", f"templates: {src}, line {error.lineno}: {error.message}. No request was sent."
        ) from None
    except (AnsibleError, OSError, ValueError):
        raise ProvisioningError(
            "bad_option", f"templates: {src} cannot be read as text; it is looked for as by ansible.builtin.template."
        ) from None
    dest = entry["dest"] or PurePosixPath(src).name.removesuffix(".j2")
    if not FILE_NAME.fullmatch(dest):
        raise ProvisioningError(
            "bad_option", f"templates: {dest!r} is no file name; dest takes letters, digits, dots, dashes, underscores."
        )
    return _Template(src, str(path.parent), dest, text, mode("templates.mode", entry["mode"]))


def _rendered(action: ActionBase, template: _Template, variables: Mapping[str, Any]) -> bytes:
    # what it includes or imports lies beside it
    templar = action._templar.copy_with_new_env(searchpath=[template.directory], available_variables=variables)
    try:
        if trust_as_template is None:
            text = templar.do_template(template.text, preserve_trailing_newlines=True, escape_backslashes=False)
        else:
            text = templar.template(trust_as_template(template.text), escape_backslashes=False)
    except Exception as error:  # whatever a filter raises; its text may hold the value that it was given
        raise ProvisioningError(
            "bad_option",
            f"templates: {template.src} cannot be rendered ({type(error).__name__}); what exactly is wrong is not "
            "shown, because it could hold a secret. Try it with ansible.builtin.template and made-up credentials.",
        ) from None
    return b"" if text is None else str(text).encode()

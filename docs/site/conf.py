# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes the documentation site out of the Markdown of this repository and the pages of antsibull-docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from pygments.lexers import TextLexer
from sphinx.application import Sphinx

GALAXY = yaml.safe_load((Path(__file__).resolve().parents[2] / "galaxy.yml").read_text())
REPOSITORY = GALAXY["repository"]
ANSIBLE = "https://docs.ansible.com/ansible/latest/"
BUILTIN = "ansible_collections.ansible.builtin."  # labels such as that of ansible.builtin.debug_module
# Other pages of Ansible that antsibull-docs refers to. Listed here, because a build must not need a network.
ANSIBLE_PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "callback_plugins": "plugins/callback.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}

project = "thingstream.ztp"
author = "The thingstream.ztp authors"
project_copyright = author
extensions = ["myst_parser", "sphinx_antsibull_ext"]
exclude_patterns = ["README.md", "docs/site", "docs/docsite"]
nitpicky = True
myst_heading_anchors = 3
highlight_language = "text"
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


def link_to_ansible(app: Sphinx, env: Any, node: nodes.Element, content: nodes.TextElement) -> nodes.reference | None:
    """Return a link to Ansible's own documentation for a target that is not on this site, or ``None``."""
    target = node["reftarget"]
    if target.startswith(BUILTIN):
        page = f"collections/ansible/builtin/{target.removeprefix(BUILTIN)}.html"
        return nodes.reference("", "", content, refuri=ANSIBLE + page, internal=False)
    is_setting = node["reftype"] == "envvar" and target.startswith("ANSIBLE_")
    page = f"reference_appendices/config.html#envvar-{target}" if is_setting else ANSIBLE_PAGES.get(target)
    return nodes.reference("", "", content, refuri=ANSIBLE + page, internal=False) if page else None


def link_within_the_site(app: Sphinx, relative_path: Any, parent: str, content: list[str]) -> None:
    """Replace the full URLs of the README, which Galaxy and Automation Hub need, by pages and pictures of this site."""
    url = rf"\]\({re.escape(REPOSITORY)}/(?:blob|raw)/main/([^)#]*\.(?:md|svg|png))"
    content[0] = re.sub(url, r"](/\1", content[0])


def setup(app: Sphinx) -> None:
    app.add_lexer("conf", TextLexer)
    app.connect("missing-reference", link_to_ansible)
    app.connect("include-read", link_within_the_site)

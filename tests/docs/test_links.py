# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No Markdown file refers to what is not there. Addresses outside of the repository are not looked at."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from docs.markdown import FILES, PROJECT, parse
from markdown_it.token import Token

REPOSITORY = yaml.safe_load((PROJECT / "galaxy.yml").read_text())["repository"]
PAGES = (REPOSITORY, f"{REPOSITORY}/issues", f"{REPOSITORY}/security")  # of the repository's site, no files


def tokens(file: Path) -> list[Token]:
    return [inner for token in parse(file) for inner in (token, *(token.children or ()))]


@cache
def anchors(file: Path) -> frozenset[str]:
    """Return the anchors that GitHub makes of headings: lower case, spaces as hyphens, no punctuation."""
    parsed = parse(file)
    headings = [parsed[place + 1] for place, token in enumerate(parsed) if token.type == "heading_open"]
    texts = ["".join(part.content for part in heading.children or ()) for heading in headings]
    return frozenset(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts)


def problem(file: Path, link: str) -> str | None:
    """Return the problem of a link in a Markdown file, or None if it has none."""
    path, _hash, anchor = unquote(link).partition("#")
    if found := re.match(rf"{re.escape(REPOSITORY)}/(?:blob|raw)/main/(.*)", path):
        target = PROJECT / found[1]
    elif path.startswith(REPOSITORY):
        return None if path.removesuffix(".git") in PAGES else "no page of the repository"
    elif re.match(r"[a-z]+:", path):
        return None
    elif file.name == "README.md" and file.parent == PROJECT and path:
        return "not a full URL, which Galaxy and Automation Hub need"
    else:
        target = (file.parent / path) if path else file
    if not target.exists():
        return "no such file"
    return "no such heading" if anchor and anchor not in anchors(target) else None


@pytest.mark.parametrize("name", FILES)
def test_no_reference_is_dead(name: str) -> None:
    file = PROJECT / name
    links = {str(token.attrs.get("href") or token.attrs.get("src") or "") for token in tokens(file)} - {""}
    assert {link: said for link in links if (said := problem(file, link))} == {}


def test_every_test_that_a_page_names_is_there() -> None:
    """The security model names a test for each promise."""
    named = set()
    for page in (PROJECT / "docs").glob("*.md"):
        named |= set(re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", page.read_text()))
    assert len(named) > 30
    assert [f"{file}::{name}" for file, name in named if f"def {name}(" not in (PROJECT / file).read_text()] == []

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of the Markdown files: text wraps at 100 columns, and code blocks that look like YAML are YAML."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

PROJECT = Path(__file__).resolve().parents[2]
FILES = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=PROJECT, capture_output=True, text=True, check=True,
).stdout.split()  # fmt: skip
COLUMNS = 100
LOOKS_LIKE_YAML = re.compile(r"(#.*\n|\s*\n)*\s*(- )?[\w.]+:( |\n)")


class Loader(yaml.SafeLoader):
    """Accept the tags of Ansible, such as ``!vault``."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: suffix)


def yaml_blocks(text: str) -> Iterator[str]:
    """Yield the code blocks of a Markdown text that are YAML; output is in blocks of the language ``text``."""
    for token in MarkdownIt().parse(text):
        language = token.info.strip()
        if token.type not in ("fence", "code_block") or language not in ("", "yaml"):
            continue
        if language == "yaml" or LOOKS_LIKE_YAML.match(token.content):
            yield token.content


def read(block: str) -> Any:
    """Return the content of a block; fail if it is not a mapping or a list."""
    try:
        content = yaml.load(block, Loader)
    except yaml.YAMLError as error:
        pytest.fail(f"This is not YAML:\n{block}\n{error}")
    assert isinstance(content, (dict, list)), block
    return content


@pytest.mark.parametrize("name", FILES)
def test_text_wraps(name: str) -> None:
    """A line may be longer if it is one word, such as a URL."""
    text = (PROJECT / name).read_text()
    lines = text.splitlines()
    tokens = MarkdownIt().enable("table").parse(text)
    paragraphs = [token.map for token in tokens if token.type == "paragraph_open" and token.map is not None]
    inside = [line for first, end in paragraphs for line in lines[first:end]]
    assert [line for line in inside if len(line) > COLUMNS and is_wrappable(line)] == []


def is_wrappable(line: str) -> bool:
    """Return whether a line has a space at which it can be wrapped, after the sign of a list."""
    return " " in re.sub(r"^\s*([-*]|\d+\.)?\s*", "", line).strip()


@pytest.mark.parametrize("name", FILES)
def test_every_block_can_be_read(name: str) -> None:
    for block in yaml_blocks((PROJECT / name).read_text()):
        read(block)


def test_the_readme_has_its_requirements_and_its_inventory() -> None:
    contents = [read(block) for block in yaml_blocks((PROJECT / "README.md").read_text())]
    first_keys = [next(iter(content)) for content in contents]
    assert first_keys == ["collections", "gateways", "thingstream_gateway_field_map"]
    assert contents[0]["collections"][0].keys() == {"name", "type", "version"}

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of the Markdown files: text wraps at 100 columns, and code blocks that look like YAML are YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.markdown import FILES, PROJECT, parse

COLUMNS = 100
LOOKS_LIKE_YAML = re.compile(r"(#.*\n|\s*\n)*\s*(- )?[\w.]+:( |\n)")


def yaml_blocks(file: Path) -> Iterator[str]:
    """Yield the code blocks of a file that are YAML; output is in blocks of the language ``text``."""
    for token in parse(file):
        language = token.info.strip()
        if token.type not in ("fence", "code_block") or language not in ("", "yaml"):
            continue
        if language == "yaml" or LOOKS_LIKE_YAML.match(token.content):
            yield token.content


def read(block: str) -> Any:
    """Return the content of a block; fail if it is not a mapping or a list."""
    try:
        content = yaml.safe_load(block)
    except yaml.YAMLError as error:
        pytest.fail(f"This is not YAML:\n{block}\n{error}")
    assert isinstance(content, (dict, list)), block
    return content


@pytest.mark.parametrize("name", FILES)
def test_text_wraps(name: str) -> None:
    """A line may be longer if it is one word, such as a URL."""
    lines = (PROJECT / name).read_text().splitlines()
    paragraphs = [
        token.map for token in parse(PROJECT / name) if token.type == "paragraph_open" and token.map is not None
    ]
    inside = [line for first, end in paragraphs for line in lines[first:end]]
    assert [line for line in inside if len(line) > COLUMNS and is_wrappable(line)] == []


def is_wrappable(line: str) -> bool:
    """Return whether a line has a space at which it can be wrapped, after the sign of a list."""
    return " " in re.sub(r"^\s*([-*]|\d+\.)?\s*", "", line).strip()


@pytest.mark.parametrize("name", FILES)
def test_every_block_can_be_read(name: str) -> None:
    for block in yaml_blocks(PROJECT / name):
        read(block)


def test_the_readme_has_its_requirements_and_its_inventory() -> None:
    contents = [read(block) for block in yaml_blocks(PROJECT / "README.md")]
    first_keys = [next(iter(content)) for content in contents]
    assert first_keys == ["collections", "gateways", "thingstream_gateway_field_map"]
    assert contents[0]["collections"][0].keys() == {"name", "type", "version"}

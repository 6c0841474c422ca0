# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation site as `make docs` has built it: everything has its page, and every page is reached and found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import snowballstemmer
from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ERROR_CODES

PROJECT = Path(__file__).resolve().parents[2]
HTML = PROJECT / ".cache/docs/html"
CONTENT = [
    *(f"{path.stem}_module" for path in (PROJECT / "plugins/modules").glob("*.py")),
    *(f"{path.stem}_filter" for path in (PROJECT / "plugins/filter").glob("*.py")),
    *(f"{path.name}_role" for path in (PROJECT / "roles").iterdir()),
    *(f"{path.stem}_callback" for path in (PROJECT / "plugins/callback").glob("*.py")),
]
GUIDES = sorted(path.relative_to(PROJECT).with_suffix("").as_posix() for path in (PROJECT / "docs").glob("*.md"))
EXAMPLES = sorted(
    path.parent.relative_to(PROJECT).as_posix() + "/README"
    for parent in ("examples", "extensions")
    for path in (PROJECT / parent).glob("*/README.md")
)


class Page(HTMLParser):
    """The anchors of a page, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors |= {value for value in (attributes.get("id"), attributes.get("name")) if value}
        self.links |= {value for value in (attributes.get("href"), attributes.get("src")) if value}


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """Path below the site, such as ``docs/security.html``, to the page."""
    return {path.relative_to(HTML).as_posix(): Page(path.read_text()) for path in HTML.rglob("*.html")}


def local(page: str, links: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the path below the site and the anchor of every link of a page that stays on the site."""
    for link in links:
        parts = urlsplit(urljoin(f"http://site/{page}", link))
        if parts.netloc == "site":
            yield unquote(parts.path).lstrip("/"), unquote(parts.fragment)


def test_every_module_filter_and_role_has_a_page(pages: dict[str, Page]) -> None:
    found = {Path(page).stem for page in pages if page.startswith("collection/")}
    assert found - {"environment_variables"} == {*CONTENT, "index"}


@pytest.mark.parametrize("code", ERROR_CODES)
def test_every_error_code_has_an_anchor(pages: dict[str, Page], code: str) -> None:
    assert code in pages["docs/troubleshooting.html"].anchors


def test_every_page_is_reached_from_the_index(pages: dict[str, Page]) -> None:
    """By links alone, as a reader would."""
    reached, pending = set(), ["index.html"]
    while pending:
        page = pending.pop()
        if page in pages and page not in reached:
            reached.add(page)
            pending += [target for target, _anchor in local(page, pages[page].links)]
    guides = {f"{guide}.html" for guide in (*GUIDES, *EXAMPLES)}
    assert len(guides) > 10
    assert guides | {f"collection/{name}.html" for name in CONTENT} <= reached
    assert set(pages) - reached == set()


def test_no_link_within_the_site_is_dead(pages: dict[str, Page]) -> None:
    dead = {
        f"{page}: {target}#{anchor}"
        for page, content in pages.items()
        for target, anchor in local(page, content.links)
        if not (HTML / target).exists() or (anchor and target in pages and anchor not in pages[target].anchors)
    }
    assert dead == set()


def test_nothing_is_loaded_from_elsewhere() -> None:
    """The site works without a network."""
    loading = re.compile(r"""(?:src=|<link[^>]* rel="(?:stylesheet|preload|icon)"[^>]* href=)["'](?:https?:)?//""")
    assert [page.name for page in HTML.rglob("*.html") if loading.search(page.read_text())] == []


@pytest.mark.parametrize(
    ("word", "page"),
    [
        *((code, "docs/troubleshooting") for code in ERROR_CODES),
        ("batches", "docs/rotation"),
        ("adopted", "docs/production-line"),
        ("compromised", "docs/security"),
        ("renew_before", "collection/thingstream_ztp_module"),
    ],
)
def test_the_search_finds_it(word: str, page: str) -> None:
    """In the index that the search of the site reads: stemmed word to numbers of pages."""
    index = json.loads((HTML / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    stem = snowballstemmer.stemmer("english").stemWord(word)
    found = [index[part].get(stem, []) for part in ("terms", "titleterms")]
    numbers = [number for one in found for number in (one if isinstance(one, list) else [one])]
    assert page in [index["docnames"][number] for number in numbers]


def test_every_playbook_is_explained() -> None:
    texts = "".join((PROJECT / f"{guide}.md").read_text() for guide in GUIDES)
    assert [path.stem for path in (PROJECT / "playbooks").glob("*.yml") if f"`{path.stem}`" not in texts] == []

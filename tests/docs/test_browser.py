# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation site in headless Chromium: no script error, nothing missing, telephones, and the search."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

HTML = Path(__file__).resolve().parents[2] / ".cache/docs/html"
PAGES = sorted(path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html"))
DEADLINE = 300  # seconds; a browser on a busy machine is slow, and success ends the wait early
# A table or a block of code may scroll within itself; the page may not.
OVERFLOW = "return Math.max(0, document.documentElement.scrollWidth - innerWidth)"
BROKEN_IMAGES = "return [...document.images].filter((image) => !image.naturalWidth).map((image) => image.src)"


class Site(ThreadingHTTPServer):
    """The site on loopback; ``missing`` are the paths that were requested in vain."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(HTML)))
        self.missing: list[str] = []

    def url(self, page: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{page}"


class Handler(SimpleHTTPRequestHandler):
    """Serve files without a log. The site has no icon for a browser to show."""

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            super().do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        assert isinstance(self.server, Site)
        self.server.missing.append(self.path)
        super().send_error(code, message, explain)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if not all(programs.values()):
        pytest.skip(f"not installed: {[name for name, path in programs.items() if not path]}")
    options = ChromeOptions()
    options.binary_location = programs["chromium"] or ""
    for argument in ("headless=new", "no-sandbox", "disable-gpu", f"user-data-dir={tmp_path_factory.mktemp('chrome')}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(programs["chromedriver"])) as running:
        running.set_page_load_timeout(DEADLINE)
        running.set_script_timeout(DEADLINE)
        yield running


def show(browser: Chrome, url: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(url)


@pytest.mark.parametrize("width", [400, 1300])
def test_every_page_is_shown_whole(browser: Chrome, site: Site, width: int) -> None:
    assert len(PAGES) > 40
    found = {}
    for page in PAGES:
        show(browser, site.url(page), width)
        problems = {
            "pixels too wide": browser.execute_script(OVERFLOW),
            "broken images": browser.execute_script(BROKEN_IMAGES),
            "console": [entry["message"] for entry in browser.get_log("browser")],
        }
        found[page] = {name: problem for name, problem in problems.items() if problem}
    assert {page: problems for page, problems in found.items() if problems} == {}
    assert site.missing == []


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("response_lost", "docs/troubleshooting.html"),
        ("canary", "docs/glossary.html"),
        ("two hosts same hardware ID", "docs/mistakes.html"),
        ("keys_renew_before", "collection/thingstream_ztp_module.html"),
    ],
)
def test_the_search_leads_to_the_page(browser: Chrome, site: Site, words: str, page: str) -> None:
    show(browser, site.url("index.html"), 1300)
    field = browser.find_element(By.CSS_SELECTOR, "input[name=q]")
    field.send_keys(words)
    field.submit()
    link = WebDriverWait(browser, DEADLINE).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, f"#search-results a[href*='{page}']")
    )[0]
    browser.execute_script("arguments[0].click()", link)
    WebDriverWait(browser, DEADLINE).until(lambda driver: page in driver.current_url)
    assert browser.find_element(By.TAG_NAME, "h1").text
    assert browser.get_log("browser") == []


def test_every_link_of_the_navigation_opens_its_page(browser: Chrome, site: Site) -> None:
    """As links are after the scripts of the theme have run."""
    show(browser, site.url("index.html"), 1300)
    links = "return [...document.querySelectorAll('.sidebar-tree a')].map((link) => link.href)"
    urls = browser.execute_script(links)
    assert len(urls) > 20
    for url in urls:
        browser.get(url)
        assert browser.find_element(By.TAG_NAME, "h1").text
    assert site.missing == []

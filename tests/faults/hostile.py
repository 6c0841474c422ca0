# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile values, and how many of them a test tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.thingstream.ztp.plugins.plugin_utils.errors import ProvisioningError
from faults.conftest import Trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.database import DirectoryBasedExampleDatabase
from integration.ansible_run import PROJECT

set_hypothesis_home_dir(PROJECT / ".cache" / "hypothesis")

# Planted into every hostile text: it stands for a secret, and must be seen nowhere.
MARKER = "pl4nted5ecret"

TEXTS = (
    "",
    "\n",
    "a\nb",
    "a\r\nSet-Cookie: x",
    "\x00",
    "\x1b[2J\x1b]0;owned\x07",
    "\ud800",
    "\u202egnol",
    "../../x",
    "/etc/passwd",
    "$(touch canary)",
    "`touch canary`",
    "'; touch canary; '",
    '"; touch canary; "',
    "\\",
    "$IFS|&;<>*?[]~#!%{}",
    "{{ lookup('pipe', 'touch canary') }}",
    "{% raw %}{{ 7 * 7 }}",
    "!unsafe x",
    "!vault |\n  $ANSIBLE_VAULT;1.1;AES256",
    "-oProxyCommand=touch canary",
    " leading and trailing ",
    "ü" * 300,
    "日本語",
    "x" * 300,
    "x" * 100_000,
)
OTHERS: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**63, 10**400, -(10**400), 1e308, float("nan"), float("inf"), [], {}, [[]], [{}],
)  # fmt: skip


def any_json(leaves: int = 20) -> st.SearchStrategy[Any]:
    """Return a strategy for any JSON."""
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from((*TEXTS, *OTHERS))
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=leaves,
    )


def attempt(call: Callable[[], Any]) -> tuple[Any, ProvisioningError | None]:
    """Return what a call returns, or the error with which it refuses; any other exception fails the test."""
    try:
        return call(), None
    except ProvisioningError as error:
        return None, error


def for_all(
    full: bool,
    trials: Trial,
    name: str,
    strategy: st.SearchStrategy[Any],
    check: Callable[[Any], object],
    *,
    short: int,
) -> None:
    """Try a check with ``short`` cases, always the same; with ``--full`` with forty times as many, and others."""

    @settings(
        max_examples=short * 40 if full else short,
        derandomize=not full,
        database=DirectoryBasedExampleDatabase(PROJECT / ".cache" / "hypothesis") if full else None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def survives(case: Any) -> None:
        with trials(name):
            check(case)

    survives()

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write every task result of a test run as a line of JSON to the file that TEST_RESULTS names."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: results
type: aggregate
short_description: Write task results for tests
description: Writes every task result as a line of JSON to the file that TEST_RESULTS names.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible has no types
    """Listen to the four ways in which a task can end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "results"

    def _write(self, status: str, result: Any) -> None:
        line = {"status": status, "host": result._host.get_name(), "task": result._task.get_name()}
        line["once"] = bool(result._task.run_once)
        with open(os.environ["TEST_RESULTS"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps({**line, "result": result._result}, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write("unreachable", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write("skipped", result)

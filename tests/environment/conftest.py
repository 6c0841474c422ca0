# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform of the integration tests."""

from __future__ import annotations

from stage import platform, running_simulator, simulator

__all__ = ["platform", "running_simulator", "simulator"]

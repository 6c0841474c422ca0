# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of the integration tests."""

from __future__ import annotations

from stage import gateways, platform, running_simulator, simulator

__all__ = ["gateways", "platform", "running_simulator", "simulator"]

#!/usr/bin/env bash
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
# ansible-test runs this: the life of a credential against the simulator of the platform, with no fleet and no root.
set -eu
# A copy of this directory runs; the simulator is where the collection is.
collection="${ANSIBLE_COLLECTIONS_PATH%%:*}/ansible_collections/thingstream/ztp"
PYTHONPATH="$collection/tests:${PYTHONPATH:-}" exec python run.py "$@"

#!/usr/bin/env bash
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds the collection and imports it as Galaxy and Automation Hub do; anything it finds is a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$PWD/.cache/venv/importer/bin work=$PWD/.cache/importer
export PATH="$bin:$PATH" HOME="$work/home" GALAXY_IMPORTER_CONFIG="$PWD/tests/importer/config.ini"
rm -rf "$work"
mkdir -p "$HOME"
ansible-galaxy collection build --output-path "$work" >/dev/null
cd "$work" # the importer writes where it runs
python -m galaxy_importer.main thingstream-ztp-*.tar.gz 2>&1 | tee importer.log
# it exits with 0 whatever it finds
if grep -E "ERROR|WARNING" importer.log >/dev/null || ! grep -q "Importer processing completed" importer.log; then
    echo "The importer is not content: see above." >&2
    exit 1
fi

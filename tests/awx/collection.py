# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take awx.awx out of the wheel of the ansible bundle, the one place on PyPI that has it.

usage: collection.py WHEEL DIRECTORY
"""

from __future__ import annotations

import sys
import zipfile

PREFIX = "ansible_collections/awx/awx/"


def main(wheel: str, directory: str) -> None:
    with zipfile.ZipFile(wheel) as bundle:
        bundle.extractall(directory, [name for name in bundle.namelist() if name.startswith(PREFIX)])


if __name__ == "__main__":
    main(*sys.argv[1:])

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an audit on the controller: each form of one report, written all or nothing.

Private to the collection.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ProvisioningError
from . import audit, audit_metrics, audit_page
from .report import to_csv

Report = Mapping[str, Any]


def to_json(report: Report) -> str:
    """The report as it is."""
    return json.dumps(report, indent=2) + "\n"


def table(report: Report) -> str:
    """One line for each gateway and path; lists as words."""
    rows = [
        {name: " ".join(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in report["gateways"]
    ]
    return to_csv(rows, audit.COLUMNS)


# Name to mode and content. The collector of Prometheus runs as a user of its own.
FORMS: Mapping[str, tuple[int, Callable[[Report], str]]] = {
    "thingstream-audit.json": (0o640, to_json),
    "thingstream-audit.csv": (0o640, table),
    "thingstream-audit.html": (0o640, audit_page.render),
    "thingstream-audit.prom": (0o644, audit_metrics.render),
}


def write(report: Report, directory: str, metrics_directory: str) -> list[str]:
    """Writes every form, each by one rename, so that nobody reads half of one.

    :param metrics_directory: where the metrics go.
    :returns: the paths.
    :raises ProvisioningError: ``report_failed``.
    """
    paths = places(directory, metrics_directory)
    for name, path in paths.items():
        mode, render = FORMS[name]
        try:
            _replace(path, render(report).encode(), mode)
        except OSError as error:
            raise ProvisioningError("report_failed", f"Cannot write {path}: {error.strerror}.") from error
    return [str(path) for path in paths.values()]


def places(directory: str, metrics_directory: str) -> dict[str, Path]:
    """Name to path of each form."""
    return {name: Path(metrics_directory if name.endswith(".prom") else directory) / name for name in FORMS}


def _replace(path: Path, content: bytes, mode: int) -> None:
    # a name that begins with a dot and has no ending of its own: the collector reads *.prom
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise

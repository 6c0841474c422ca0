# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the files of an audit on the controller.

Private to the collection.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import ProvisioningError
from . import audit_metrics, audit_page
from .audit import Report
from .csv_table import to_csv
from .gateway_rows import COLUMNS


def to_json(report: Report) -> str:
    """Return the whole report as JSON, with each row of a table in a line of its own."""
    parts = [f"{json.dumps(name)}: {_to_json(value)}" for name, value in report.to_dict().items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _to_json(value: object) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
    return json.dumps(value)


def to_table(report: Report) -> str:
    """Return one line of CSV for each gateway and path."""
    return to_csv((row.to_dict() for row in report.gateways), COLUMNS)


# File name to mode and content. The collector of Prometheus runs as another user and must be able to read its file.
FORMS: Mapping[str, tuple[int, Callable[[Report], str]]] = {
    "thingstream-audit.json": (0o640, to_json),
    "thingstream-audit.csv": (0o640, to_table),
    "thingstream-audit.html": (0o640, audit_page.render),
    "thingstream-audit.prom": (0o644, audit_metrics.render),
}


def write(report: Report, directory: str, metrics_directory: str) -> list[str]:
    """Write each file under a temporary name and rename it, so that a reader never sees an incomplete file.

    :param metrics_directory: the directory of the metrics.
    :returns: the paths.
    :raises ProvisioningError: ``report_failed``.
    """
    found = paths(directory, metrics_directory)
    for name, path in found.items():
        mode, render = FORMS[name]
        try:
            _replace(path, render(report).encode(), mode)
        except OSError as error:
            raise ProvisioningError("report_failed", f"Cannot write {path}: {error.strerror}.") from error
    return [str(path) for path in found.values()]


def paths(directory: str, metrics_directory: str) -> dict[str, Path]:
    """Return the path of each file by its name."""
    return {name: Path(metrics_directory if name.endswith(".prom") else directory) / name for name in FORMS}


def _replace(path: Path, content: bytes, mode: int) -> None:
    # The collector reads every *.prom, so the temporary name must end otherwise.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise

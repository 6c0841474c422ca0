# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The simulator's state, in one SQLite file that survives a restart."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS keys (id INTEGER PRIMARY KEY, private_key TEXT NOT NULL, public_key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS profiles (name TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS things (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    profile TEXT NOT NULL,
    hardware_id TEXT,
    given_name TEXT,
    tags TEXT NOT NULL,
    status TEXT NOT NULL,
    answered INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    client_id TEXT NOT NULL,
    serial TEXT,
    credentials TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS things_by_hardware_id ON things (service, hardware_id);
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    service TEXT,
    hardware_id TEXT,
    remaining INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS requests (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    service TEXT,
    status INTEGER,
    profile TEXT,
    hardware_id TEXT,
    given_name TEXT,
    tags TEXT NOT NULL,
    thing TEXT,
    fault TEXT
);
INSERT OR IGNORE INTO settings VALUES ('clock_offset', '0');
INSERT OR IGNORE INTO settings VALUES ('unknown_token_status', '403');
INSERT OR IGNORE INTO settings VALUES ('key_seed', lower(hex(randomblob(32))));
"""


class Store:
    """One connection to the database, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        # Other processes (the command line) use the same file: they wait for each other up to this many seconds.
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside a transaction that no other thread or process can interleave with.

        Taking the write lock at the start, not at the first write, keeps what was read true until the end: two
        simultaneous requests for one hardware ID create one Thing.
        """
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection; the store cannot be used afterwards."""
        with self._lock:
            self._connection.close()


def setting(connection: sqlite3.Connection, name: str) -> str:
    """Return the value of a setting that the schema created."""
    return str(connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()["value"])


def set_setting(connection: sqlite3.Connection, name: str, value: object) -> None:
    """Change the value of a setting that the schema created."""
    connection.execute("UPDATE settings SET value = ? WHERE name = ?", (str(value), name))


def now(connection: sqlite3.Connection) -> float:
    """Return the simulated time, in seconds since the Unix epoch."""
    return time.time() + float(setting(connection, "clock_offset"))

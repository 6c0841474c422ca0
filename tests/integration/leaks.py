# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look for planted secrets, in every form that they could take: in texts, in files, in what processes show."""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from simulator import dynamic_keys, profiles
from simulator.client import RunningSimulator

DER_PIECE = 16  # bytes; what is long is found by any piece of it


@functools.cache
def forms(secret: str) -> frozenset[bytes]:
    """Return the forms in which a secret could appear: of a key, any line of its body and any piece of its numbers."""
    found = {form for text in _texts(secret) for form in _text_forms(text)}
    for piece in _pieces_of_numbers(secret):
        found |= {form for form in (piece, *_byte_forms(piece)) if b"\n" not in form}
    return frozenset(found)


def _texts(secret: str) -> list[str]:
    body = [line for line in secret.splitlines() if line and not line.startswith("-----")]
    return [line for line in body if len(line) > DER_PIECE] if len(body) > 1 else [secret]


def _text_forms(text: str) -> Iterator[bytes]:
    for form in (text, json.dumps(text)[1:-1], repr(text)[1:-1], html.escape(text), quote_plus(text)):
        yield form.encode()
    percent = quote(text, safe="")
    yield from (percent.encode(), quote(text).encode(), percent.lower().encode())
    yield from _byte_forms(text.encode())


def _byte_forms(value: bytes) -> Iterator[bytes]:
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for alignment in range(3):
        # without the characters that depend on what is before and after
        encoded = base64.b64encode(b"\0" * alignment + value)
        whole = encoded[(0, 2, 3)[alignment] : (None, -3, -2)[(alignment + len(value)) % 3]]
        yield whole
        yield whole.translate(bytes.maketrans(b"+/", b"-_"))


def _pieces_of_numbers(secret: str) -> Iterator[bytes]:
    """Yield the private numbers of a key as its DER holds them, in pieces; the modulus is in the certificate, too."""
    if not secret.startswith("-----BEGIN"):
        return
    key = load_pem_private_key(secret.encode(), None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, rsa.RSAPrivateKey):
        private = key.private_numbers()
        numbers = [private.d, private.p, private.q]
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        numbers = [key.private_numbers().private_value]
    for number in numbers:
        value = number.to_bytes((number.bit_length() + 7) // 8, "big")
        yield from (value[start : start + DER_PIECE] for start in range(0, len(value) - DER_PIECE + 1, DER_PIECE))


def found_in(content: bytes, secrets: Mapping[str, str]) -> set[str]:
    """Return the names of the secrets in a content."""
    with _searching(secrets) as (grep, names, handle):
        done = subprocess.run([*grep, "-h"], input=content, capture_output=True, pass_fds=[handle], check=False)
    assert done.returncode <= 1, done.stderr
    return {names[match] for match in done.stdout.split(b"\n")[:-1]}


def found_in_files(
    secrets: Mapping[str, str], since: float, *directories: Path, without: Collection[Path] = ()
) -> dict[str, set[str]]:
    """Return the names of the secrets in each file that has changed since a moment (seconds since the epoch)."""
    there = [str(directory) for directory in directories if directory.is_dir()]
    if not there:
        return {}
    pruned = [word for path in without for word in ("-path", str(path), "-prune", "-o")]
    # the root of another process is a link
    find = ["find", "-H", *there, *pruned, "-type", "f", "-newerct", f"@{since:f}", "-print0"]
    # what is gone meanwhile is no failure
    files = subprocess.run(find, capture_output=True, check=False).stdout
    found: dict[str, set[str]] = {}
    with _searching(secrets) as (grep, names, handle):
        command = ["xargs", "--null", "--no-run-if-empty", *grep, "--with-filename", "--null"]
        done = subprocess.run(command, input=files, capture_output=True, pass_fds=[handle], check=False)
    assert done.returncode in (0, 123), done.stderr
    for line in done.stdout.split(b"\n")[:-1]:
        path, _null, match = line.partition(b"\0")
        found.setdefault(os.fsdecode(path), set()).add(names[match])
    return found


@contextmanager
def _searching(secrets: Mapping[str, str]) -> Iterator[tuple[list[str], dict[bytes, str], int]]:
    """Yield a grep for all forms of all secrets, the name of each form's secret, and the file in memory that it reads.

    The forms are on no disk and in no arguments, where they would be found.
    """
    names = {form: name for name, secret in secrets.items() for form in forms(secret)}
    handle = os.memfd_create("forms")
    try:
        with os.fdopen(os.dup(handle), "wb") as stream:
            stream.write(b"\n".join(names))
        pattern_file = f"/proc/self/fd/{handle}"
        yield ["env", "LC_ALL=C", "grep", "-F", "-a", "-o", "-s", "-D", "skip", "-f", pattern_file], names, handle
    finally:
        os.close(handle)


@contextmanager
def watching_processes() -> Iterator[set[bytes]]:
    """Sample the arguments and environments of all processes, all the time, until the block ends."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            for process in os.listdir("/proc"):
                if process.isdecimal():
                    seen.update(_shown_by(process))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def _shown_by(process: str) -> Iterator[bytes]:
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{process}/{name}", "rb", buffering=0) as stream:
                yield stream.read()
        except OSError:  # ended meanwhile
            continue


def platform_secrets(simulator: RunningSimulator) -> dict[str, str]:
    """Return every secret that the platform knows: all tokens, the credentials of all Things, and all dynamic keys."""
    database = sqlite3.connect(f"file:{simulator.directory}/state.db?mode=ro", uri=True)
    try:
        secrets = {f"token of {name}": token for name, token in database.execute("SELECT name, token FROM profiles")}
        for profile, identity, credentials in database.execute("SELECT profile, id, credentials FROM things"):
            for name, value in json.loads(credentials).items():
                if name != "certificate":
                    secrets[f"{name} of {profile} {identity}"] = value
        (seed,) = database.execute("SELECT value FROM settings WHERE name = 'key_seed'").fetchone()
        periods = {
            profiles.Profile.model_validate_json(document).simulator.key_period_days
            for (document,) in database.execute("SELECT document FROM profiles")
        }
    finally:
        database.close()
    for period in periods:
        for family in ("ip", "Lb"):
            for which, key in dynamic_keys.current_and_next(seed, family, time.time(), period).items():
                secrets[f"{which} dynamic key {family} {period}"] = key["value"]
    return secrets

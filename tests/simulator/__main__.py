# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The command line: python -m simulator."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simulator import pki, profiles, request_log, server, things
from simulator.admin import PublicThing
from simulator.store import Store


def main(arguments: list[str] | None = None) -> None:
    """Run one command; `arguments` default to the command line's."""
    options = _parser().parse_args(arguments)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulator", description="A simulator of the Thingstream ZTP API.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(run=run)
        added.add_argument("directory", metavar="DIR", type=Path, help="where the simulator keeps its state")
        return added

    command("init", _init, "create certificate authority, server certificate and database, where missing")

    serve = command("serve", _serve, "serve until SIGTERM; prints the URL when ready")
    serve.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    serve.add_argument("--port", type=int, default=0, help="0 means any free port (default)")
    serve.add_argument("--key-pool", type=int, default=0, metavar="N", help="generate keys first until there are N")

    profile = command("profile", _profile, "add or replace a device profile; prints its token")
    profile.add_argument("file", metavar="FILE", type=Path, nargs="?", help="JSON object of name and settings")
    profile.add_argument("--name")
    profile.add_argument("--service")
    profile.add_argument(
        "--set",
        metavar="KEY=JSON",
        action="append",
        default=[],
        help="one more setting, such as plan='\"both\"' or simulator.pending_calls=2; plain words need no quotes",
    )

    requests = command("requests", _requests, "print the request log, one JSON object per line")
    requests.add_argument("--hardware-id")
    command("things", _things, "print the Things without their secrets, one JSON object per line")

    pool = command("pool", _pool, "generate keys until the pool holds N")
    pool.add_argument("size", metavar="N", type=int)

    certificate = command("server-certificate", _server_certificate, "issue a certificate for a broker or caster")
    certificate.add_argument("--name", action="append", default=[], help="DNS name; may be repeated")
    certificate.add_argument("--address", action="append", default=[], help="IP address; may be repeated")
    certificate.add_argument("--output", type=Path, metavar="OUT", help="directory (default: DIR/broker)")

    crl = command("crl", _crl, "write the list of revoked certificates: those of deactivated Things")
    crl.add_argument("file", metavar="FILE", type=Path)
    return parser


def _init(options: argparse.Namespace) -> None:
    server.initialize(options.directory)


def _serve(options: argparse.Namespace) -> None:
    if not server.is_loopback(options.host):
        sys.exit(f"{options.host} is not a loopback address: the simulator serves this machine only")
    server.serve(options.directory, options.host, options.port, options.key_pool)


def _profile(options: argparse.Namespace) -> None:
    document = json.loads(options.file.read_text()) if options.file else {}
    document |= {key: value for key in ("name", "service") if (value := getattr(options, key))}
    for assignment in options.set:
        path, _separator, value = assignment.partition("=")
        *parents, last = path.split(".")
        holder = document
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = _value(value)
    name = document.pop("name", None)
    if not name:
        sys.exit("a profile needs a name")
    try:
        settings = profiles.ProfileSettings.model_validate(document)
        with _transaction(options.directory) as connection:
            print(profiles.put(connection, name, settings).token)
    except ValidationError as error:
        sys.exit("\n".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()))
    except sqlite3.IntegrityError:
        sys.exit("another profile has this token")


def _requests(options: argparse.Namespace) -> None:
    with _transaction(options.directory) as connection:
        for request in request_log.select(connection, hardware_id=options.hardware_id):
            print(request.model_dump_json())


def _things(options: argparse.Namespace) -> None:
    with _transaction(options.directory) as connection:
        for thing in things.select(connection):
            print(PublicThing.model_validate(thing).model_dump_json())


def _pool(options: argparse.Namespace) -> None:
    with _store(options.directory) as store:
        pki.fill_pool(store, options.size)


def _server_certificate(options: argparse.Namespace) -> None:
    if not options.name and not options.address:
        sys.exit("a server certificate needs a --name or an --address")
    server.initialize(options.directory)
    output = options.output or options.directory / "broker"
    output.mkdir(parents=True, exist_ok=True)
    authority = pki.load_authority(options.directory)
    pki.create_server_certificate(authority, output, options.name, options.address)
    (output / "ca.crt").write_bytes((options.directory / "ca.crt").read_bytes())


def _crl(options: argparse.Namespace) -> None:
    with _transaction(options.directory) as connection:
        serials = things.revoked_serials(connection)
    options.file.write_bytes(pki.revocation_list(pki.load_authority(options.directory), serials))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def _store(directory: Path) -> Iterator[Store]:
    server.initialize(directory)
    store = Store(directory / "state.db")
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _transaction(directory: Path) -> Iterator[sqlite3.Connection]:
    with _store(directory) as store, store.transaction() as connection:
        yield connection


if __name__ == "__main__":
    main()

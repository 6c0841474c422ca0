# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the tarball of the last commit and its checksum; `make release` runs this.

The tarballs of ansible-galaxy depend on the clock and on the order of directory entries. They are packed again with the
date of the commit and in alphabetical order, so that everyone who builds a commit gets the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write the tarball and SHA256SUMS into the directory of the command line; return the exit status."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    changed = git("status", "--porcelain").decode()
    if changed:
        print(f"These changes are not committed, but a release is built from a commit:\n{changed}", file=sys.stderr)
        return 1
    for stale in target.glob("*.tar.gz"):
        stale.unlink()
    tarball = build(target)
    checksum = hashlib.sha256(tarball.read_bytes()).hexdigest()
    (target / "SHA256SUMS").write_text(f"{checksum}  {tarball.name}\n")
    print(f"{tarball} is built from {git('describe', '--always').decode().strip()}")
    return 0


def build(target: Path) -> Path:
    """Build the collection from the last commit; return the tarball."""
    with tempfile.TemporaryDirectory() as work:
        source = Path(work, "source")
        with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as archive:
            archive.extractall(source, filter="data")
        subprocess.run(
            [f"{sys.prefix}/bin/ansible-galaxy", "collection", "build", source, "--output-path", work],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        (built,) = Path(work).glob("*.tar.gz")
        tarball = target / built.name
        tarball.write_bytes(repacked(built, int(git("show", "--no-patch", "--format=%ct", "HEAD"))))
    return tarball


def repacked(tarball: Path, date: int) -> bytes:
    """Return the content of a tarball of ansible-galaxy in alphabetical order, with one date for everything.

    :param date: in seconds since 1970.
    """
    with tarfile.open(tarball) as archive:
        members = {member.name: member for member in archive}
        opened = {name: archive.extractfile(member) for name, member in members.items()}
        content = {name: file.read() for name, file in opened.items() if file}
    files, manifest = json.loads(content["FILES.json"]), json.loads(content["MANIFEST.json"])
    files["files"].sort(key=lambda entry: entry["name"])
    content["FILES.json"] = json.dumps(files, indent=True).encode()
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(content["FILES.json"]).hexdigest()
    content["MANIFEST.json"] = json.dumps(manifest, indent=True).encode()

    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=date) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, member in sorted(members.items()):
            member.mtime, member.uid, member.gid, member.uname, member.gname = date, 0, 0, "", ""
            member.size = len(content.get(name, b""))
            archive.addfile(member, io.BytesIO(content.get(name, b"")))
    return packed.getvalue()


def git(*arguments: str) -> bytes:
    """Return what git prints about the repository."""
    return subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())

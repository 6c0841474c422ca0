# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of real firmware: links to BusyBox for the applets of one list, and no other program.

A list in ``applets`` names the applets that the default configuration of a system compiles in; README.md describes
them. BusyBox comes from Debian's dynamically linked package: the static one runs applets that have no link.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTS = Path(__file__).parent / "applets"

# The lists that the tests run the main job with, and what is special about each.
TESTED = (
    "openwrt-19.07",  # no mv -T, no setsid
    "openwrt-22.03",  # no setsid
    "openwrt-24.10",  # no base64
    "rutos-7.17",  # no setsid, no base64
    "yocto-kirkstone",  # the one with stat
    "buildroot-2021.02",  # no mv -T
)
WEAKEST = "openwrt-19.07"
USUAL = "openwrt-22.03"

# `mv -T` is in BusyBox 1.34 and newer.
MV_WITHOUT_T = """#!/bin/sh
for argument in "$@"; do
    case $argument in
        --) break ;;
        -*T*) echo "mv: unrecognized option: T" >&2 && exit 1 ;;
    esac
done
exec {program} "$@"
"""
SLEEP_WHOLE_SECONDS = """#!/bin/sh
case $* in
    *.*) echo "sleep: invalid number '$*'" >&2 && exit 1 ;;
esac
exec {program} "$@"
"""


class BusyBoxMissing(Exception):
    """This machine has no dynamically linked BusyBox, and cannot download it."""


@dataclass(frozen=True)
class Firmware:
    """The BusyBox of one system: its version, its applets, and whether its ``sleep`` takes fractions of a second."""

    name: str
    version: tuple[int, int]
    fractions: bool
    applets: tuple[str, ...]


def names() -> list[str]:
    """Return the name of every list."""
    return sorted(path.name.removesuffix(".txt") for path in LISTS.iterdir())


def read(name: str) -> Firmware:
    """Read one list. Its comments hold the version of BusyBox and the kind of sleep."""
    lines = (LISTS / f"{name}.txt").read_text().splitlines()
    facts = dict(re.findall(r"^# (busybox|sleep): (.+)$", "\n".join(lines), re.MULTILINE))
    major, minor = facts["busybox"].split(".")
    applets = tuple(line for line in lines if line and not line.startswith("#"))
    return Firmware(name, (int(major), int(minor)), facts["sleep"] == "fractions", applets)


def lay_out(firmware: Firmware, busybox: Path, root: Path, seen_at: Path) -> None:
    """Write the programs of a firmware: links and wrappers in ``root/bin``, what they run in ``root/libexec``.

    :param busybox: the dynamically linked BusyBox of ``fetch``.
    :param seen_at: the path at which the gateway sees ``root``. The links are absolute, so that ``bin`` can be mounted
        elsewhere.
    """
    (root / "bin").mkdir()
    (root / "libexec").mkdir()
    shutil.copy(busybox, root / "libexec" / "busybox")
    known = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in firmware.applets:
        if applet in known:  # not those of a patch of OpenWrt, and not hush
            (root / "bin" / applet).symlink_to(seen_at / "libexec" / "busybox")
    if firmware.version < (1, 34):
        _wrap(root, seen_at, "mv", MV_WITHOUT_T)
    if not firmware.fractions:
        _wrap(root, seen_at, "sleep", SLEEP_WHOLE_SECONDS)


def _wrap(root: Path, seen_at: Path, name: str, text: str) -> None:
    wrapper = root / "bin" / name
    wrapper.rename(root / "libexec" / name)
    wrapper.write_text(text.format(program=seen_at / "libexec" / name))
    wrapper.chmod(0o755)


def fetch(cache: Path) -> Path:
    """Return Debian's dynamically linked BusyBox, downloaded into ``cache`` the first time.

    The package is unpacked and not installed, because it conflicts with busybox-static.

    :raises BusyBoxMissing: this is no Debian, or its mirror cannot be reached.
    """
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / "busybox-dynamic"
    with _locked(cache / "busybox-dynamic.lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=cache) as name:
                _download(Path(name)).rename(kept)
    return kept


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(directory: Path) -> Path:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise BusyBoxMissing(f"the applets of firmware need Debian's package busybox: there is no {tool}")
    download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "busybox"]
    result = _run(download, directory)
    if result.returncode != 0 and _run(["apt-get", "-qq", "update"], directory).returncode == 0:
        result = _run(download, directory)
    packages = list(directory.glob("busybox_*.deb"))
    if not packages:
        raise BusyBoxMissing("apt-get cannot download the package busybox: " + " ".join(result.stderr.split()))
    unpack = _run(["dpkg-deb", "--extract", packages[0].name, "."], directory)
    found = [path for path in (directory / "usr/bin/busybox", directory / "bin/busybox") if path.exists()]
    if not found:
        raise BusyBoxMissing(f"{packages[0].name} holds no busybox: " + " ".join(unpack.stderr.split()))
    return found[0]


def _run(argv: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False)

#!/bin/sh
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs the programs that tests and linters run, where they are missing and this user may install them.
set -eu
PATH=$PATH:/usr/sbin:/sbin

# program:Debian package; the arguments name others that are wanted, too
wanted='sshd:openssh-server ssh:openssh-client dropbear:dropbear-bin busybox:busybox-static debootstrap:debootstrap
sudo:sudo setfacl:acl mosquitto:mosquitto mosquitto_sub:mosquitto-clients shellcheck:shellcheck openssl:openssl bash:bash dash:dash
unshare:util-linux flock:util-linux ip:iproute2 faketime:faketime str2str:rtklib gpsd:gpsd gpspipe:gpsd-clients
systemd-analyze:systemd podman:podman runc:runc chromium:chromium
chromedriver:chromium-driver pdftotext:poppler-utils'" $*"

missing=
packages=
for entry in $wanted; do
    command -v "${entry%%:*}" >/dev/null 2>&1 && continue
    missing="$missing ${entry%%:*}"
    packages="$packages ${entry#*:}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed, so what needs them is skipped:$missing (Debian packages:$packages)"
    exit 0
fi
echo "Installing:$packages"
export DEBIAN_FRONTEND=noninteractive
# Services must not start here: the tests start what they need, on loopback.
policy=/usr/sbin/policy-rc.d
[ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=yes; }
trap '[ -z "${made_policy:-}" ] || rm -f "$policy"' EXIT
apt-get update -qq
# shellcheck disable=SC2086  # a list of words
apt-get install -qq -y --no-install-recommends $packages >/dev/null

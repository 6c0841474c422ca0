# shellcheck shell=sh
# shellcheck disable=SC2154  # the request_* variables are assigned in the lines sent before this text
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What a gateway says about its identity. POSIX sh (dash, bash, BusyBox ash); changes nothing.
#
# It arrives on standard input behind lines that assign request_sources (words), request_seconds (the time that mmcli
# gets) and request_root (empty, or the directory where tests keep files of a gateway). It answers between "begin 1"
# and "end", for each source with a line "asked source", lines of "source value", and "none source code" where something
# went wrong. The controller trusts none of it.
# Nothing here reads standard input, and no program is started but for a modem.

set -u
LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
unset IFS CDPATH

say() { printf '%s\n' "$*"; }

# Sets `line` to the first line of a file; every shell leaves out the NUL that ends a property of a device tree.
read_line() { # file
    line=''
    { IFS= read -r line <"$1"; } 2>/dev/null
    [ -n "$line" ]
}

# Says the first line of each file that has one.
say_files() { # source files
    source=$1
    shift
    for file in "$@"; do
        if [ -e "$file" ] && [ ! -r "$file" ]; then
            say "none $source unreadable"
        elif read_line "$file"; then
            say "$source $line"
        fi
    done
}

ask_dmi_serial() {
    say_files dmi_serial "$request_root/sys/class/dmi/id/product_serial" "$request_root/sys/class/dmi/id/board_serial"
}

ask_device_tree_serial() {
    say_files device_tree_serial "$request_root/proc/device-tree/serial-number" \
        "$request_root/sys/firmware/devicetree/base/serial-number"
}

ask_machine_id() { say_files machine_id "$request_root/etc/machine-id"; }

# The addresses that interfaces of real devices were made with; 0 is NET_ADDR_PERM.
ask_mac() {
    for interface in "$request_root"/sys/class/net/*; do
        if [ -e "$interface/device" ] && read_line "$interface/addr_assign_type" && [ "$line" = 0 ] &&
            read_line "$interface/address"; then
            say "mac $line"
        fi
    done
}

# Becomes a program that leads its own process group, if setsid is there, so that it is stopped with all it started.
lead() { # program arguments
    if command -v setsid >/dev/null 2>&1; then exec setsid "$@"; fi
    exec "$@"
}

# Runs a program for so many seconds at most; its status is 137 if it was stopped. Not every system has timeout.
run_within() { # seconds program arguments
    seconds=$1
    shift
    (lead "$@") </dev/null 2>/dev/null &
    command=$!
    # of the ways to name a signal and a group this is the one that every shell has
    # shellcheck disable=SC2016  # to be expanded by the shell that is started here
    (lead sh -c 'sleep "$1"; kill -KILL "-$2" || kill -KILL "$2"' sh "$seconds" "$command") </dev/null >/dev/null 2>&1 &
    watch=$!
    wait "$command" 2>/dev/null
    status=$?
    kill -KILL "-$watch" 2>/dev/null || kill -KILL "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    return "$status"
}

# Asks ModemManager; where it has no answer, says why.
ask_modem_manager() { # arguments of mmcli
    answer=$(run_within "$request_seconds" mmcli "$@") && return
    case $? in
        137) code=timeout ;;
        *) code=failed ;;
    esac
    say "none modem_imei $code"
    return 1
}

# Says what identifies the modem, out of the hundred lines that mmcli prints for it.
say_imei() { # what mmcli printed
    say "$1" | while read -r key _ value; do
        case $key in
            modem.generic.equipment-identifier | modem.3gpp.imei) say "modem_imei $value" ;;
        esac
    done
}

# ModemManager knows each modem by a number, which says nothing about its identity. The first answer that does not come
# in time is the last question.
ask_modem_imei() {
    command -v mmcli >/dev/null 2>&1 || { say "none modem_imei no_program" && return; }
    ask_modem_manager -L || return
    count=0 code=none
    set -f # names of modems are no patterns
    for word in $answer; do
        number=${word##*/org/freedesktop/ModemManager1/Modem/}
        [ "$number" != "$word" ] || continue
        case $number in
            '' | *[!0-9]*) continue ;;
        esac
        count=$((count + 1))
        if [ "$count" -gt 8 ] || [ "$code" = timeout ]; then break; fi
        if ask_modem_manager -m "$number" -K; then say_imei "$answer"; fi
    done
    set +f
}

say "begin 1"
for wanted in $request_sources; do
    say "asked $wanted"
    "ask_$wanted"
done
say end

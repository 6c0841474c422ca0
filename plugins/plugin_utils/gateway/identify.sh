# shellcheck shell=sh
# shellcheck disable=SC2154  # the request_* variables are assigned in the lines sent before this text
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Reads what could identify a gateway and changes nothing. It follows prelude.sh.
#
# On disk: files that kernel and system provide in /sys, /proc and /etc. No program is started, except mmcli for a modem.
#
# Requested by:
#   request_command  identify
#   request_sources  the sources to read, in words: each has a function read_SOURCE
#   request_seconds  how long each call of mmcli may take
#   request_root     empty, or the directory in which tests keep the files of a gateway
#
# Globals: `line` is what read_line has read, `modems` and `properties` what mmcli has printed, `modem_problem` why that
# is of no use. Every other variable belongs to one function.
#
# Prints for each source:
#   queried SOURCE      what follows is about this source
#   SOURCE VALUE        one value, as it was found; of mac, the kind of the interface and its address
#   none SOURCE REASON  no value, because: unreadable, no_program, not_running, denied, too_old, vanished, failed, timeout

identify() {
    for wanted in $request_sources; do
        say "queried $wanted"
        "read_$wanted"
    done
}

read_dmi_serial() {
    print_first_lines dmi_serial "$request_root/sys/class/dmi/id/product_serial" \
        "$request_root/sys/class/dmi/id/board_serial"
}

read_device_tree_serial() {
    print_first_lines device_tree_serial "$request_root/proc/device-tree/serial-number" \
        "$request_root/sys/firmware/devicetree/base/serial-number"
}

read_machine_id() { print_first_lines machine_id "$request_root/etc/machine-id"; }

# The permanent addresses of Ethernet and WLAN interfaces of real devices; 0 is NET_ADDR_PERM, 1 is ARPHRD_ETHER. A
# bridge, bond, VLAN or container has no device, and an address that was set, drawn at random or taken over is not 0.
read_mac() {
    for interface in "$request_root"/sys/class/net/*; do
        if [ -e "$interface/device" ] && read_line "$interface/addr_assign_type" && [ "$line" = 0 ] &&
            { ! read_line "$interface/type" || [ "$line" = 1 ]; } && read_line "$interface/address"; then
            say "mac $(kind_of_interface "$interface") $line"
        fi
    done
}

# Prints ethernet or wireless, with usb_ before it if the interface is on a USB bus and thus may be unplugged.
kind_of_interface() { # directory
    kind=ethernet
    if [ -e "$1/wireless" ] || [ -e "$1/phy80211" ]; then kind=wireless; fi
    case $(cd -P -- "$1/device" 2>/dev/null && pwd -P) in
        */usb[0-9]*) kind=usb_$kind ;;
    esac
    say "$kind"
}

# ModemManager numbers the modems; the number is no part of their identity. After a timeout, no other modem is queried.
read_modem_imei() {
    command -v mmcli >/dev/null 2>&1 || { say "none modem_imei no_program" && return; }
    modem_problem=''
    modems=$(query_modem_manager -L) || { report_modem_problem $? "$modems" && return; }
    count=0
    set -f # names of modems are no patterns
    for word in $modems; do
        number=${word##*/org/freedesktop/ModemManager1/Modem/}
        [ "$number" != "$word" ] || continue
        case $number in
            '' | *[!0-9]*) continue ;;
        esac
        count=$((count + 1))
        if [ "$count" -gt 8 ] || [ "$modem_problem" = timeout ]; then break; fi
        properties=$(query_modem_manager -m "$number" -K) || { report_modem_problem $? "$properties" && continue; }
        print_imei "$properties"
    done
    set +f
}

# Prints the output of mmcli and returns its exit status. Its error messages are part of the output, because only they
# distinguish an old version from missing rights. A process that it leaves behind keeps the pipe open, so reading ends
# with the line that follows the output.
query_modem_manager() { # arguments of mmcli
    {
        # shellcheck disable=SC2016  # the shell that is started here expands it
        run_within "$request_seconds" sh -c 'exec mmcli "$@" 2>&1' sh "$@"
        say "
thingstream-status $?"
    } | while IFS= read -r printed; do
        case $printed in
            "thingstream-status "*) exit "${printed#* }" ;;
        esac
        say "$printed"
    done
}

report_modem_problem() { # exit status and output of mmcli
    case $1:$2 in
        137:*) modem_problem=timeout ;;
        *nknown\ option*) modem_problem=too_old ;;
        *AccessDenied* | *not\ authorized* | *ermission\ denied* | *Unauthorized*) modem_problem=denied ;;
        *"couldn't find modem"*) modem_problem=vanished ;;
        *"find the ModemManager"* | *ServiceUnknown* | *NameHasNoOwner* | *"couldn't get bus"*) modem_problem=not_running ;;
        *) modem_problem=failed ;;
    esac
    say "none modem_imei $modem_problem"
}

# Prints what identifies the modem, out of the hundred lines that mmcli prints for it.
print_imei() { # output of mmcli
    say "$1" | while read -r key _ value; do
        case $key in
            modem.generic.equipment-identifier | modem.3gpp.imei) say "modem_imei $value" ;;
        esac
    done
}

# Prints the first line of each file that has one.
print_first_lines() { # source files
    source_name=$1
    shift
    for file in "$@"; do
        if [ -e "$file" ] && [ ! -r "$file" ]; then
            say "none $source_name unreadable"
        elif read_line "$file"; then
            say "$source_name $line"
        fi
    done
}

# Sets `line` to the first line of a file; every shell leaves out the NUL that ends a property of a device tree.
read_line() { # file
    line=''
    { IFS= read -r line <"$1"; } 2>/dev/null
    [ -n "$line" ]
}

reply "$request_command" "$@"

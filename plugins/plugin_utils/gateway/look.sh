# shellcheck shell=sh
# shellcheck disable=SC2154  # the request_* variables are assigned in the lines sent before this text
# shellcheck disable=SC2015  # A && B || fail: `fail` ends the script, so it never runs after a B that succeeded
# shellcheck disable=SC2012  # ls -ln is the one way to read permissions that every system has
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Looks at a path and changes nothing: look, look_at_generations, read_response. It follows prelude.sh.
#
# Every run starts with a look, and most end with it. What costs time here is to start a program, so a look at
# credentials in order starts two: ls and sha256sum.
#
# On disk: change.sh describes the layout. From the generation in use, a look reads thing.json and the digest of every
# file; beside it history.json and the names, owners, groups and modes of everything. States of the path:
#   absent    its nearest existing directory is examined instead
#   empty     it exists, but nothing is in use: no "current" is printed
#   in use    `current` leads to a generation
# An empty or absent path is examined thoroughly, because an installation follows.
#
# Requested by:
#   request_command   look, look_at_generations or read_response
#   request_path      the path; for look_at_generations, "$@" holds the paths
#   request_owner     wanted owner, a name or a number; may be empty
#   request_group     wanted group, likewise
#   request_thorough  "yes": also check what could make an installation fail
#   request_current   for read_response: the generation to read from
#
# Globals: `nearest` is the nearest existing directory of the path. Every other variable belongs to one
# function, or means the same in several.
#
# Prints, each only where it applies:
#   identity TEXT         who runs this, as id prints it
#   owner_id, group_id    the numbers of the wanted owner (with its primary group) and group; empty if unknown here
#   not_writable DIR      a directory that must be writable and is not
#   thorough              the thorough checks were made: missing TOOL, no_setfacl, file_system TYPE, and in @space what
#                         df prints
#   physical_path DIR     the path without symbolic links
#   history, record LINE  each line of history.json, and of thing.json in the generation in use
#   current DIR           the generation in use
#   @digests              of the files in it
#   @above                what leads to the path by symbolic links
#   @listing              the directories down to the path, what is in it, in `generations`, in the generation in use
#   path PATH             look_at_generations: what follows is about this path
#   generation NAME       look_at_generations: the records that follow are of this generation
#   response              read_response: the rest, up to the last line feed, is the installed response

look() {
    print_identity
    [ -z "$request_owner" ] || say "owner_id $(number_of passwd "$request_owner")"
    [ -z "$request_group" ] || say "group_id $(number_of group "$request_group")"
    check_storage
    print_links_above
    print_bundle
}

look_at_generations() { # paths
    for request_path in "$@"; do
        say "path $request_path"
        (look)
        [ ! -L "$request_path/generations" ] || continue
        for generation in "$request_path"/generations/*; do
            if [ -d "$generation" ] && [ ! -L "$generation" ]; then
                say "generation ${generation##*/}"
                (cd -P -- "$generation" && print_file record thing.json)
            fi
        done
    done
}

# The one place where a secret leaves a gateway: the raw response, so that files can be rendered from it again.
read_response() {
    for level in "$request_path" "$request_path/generations" "$request_path/generations/$request_current"; do
        [ ! -L "$level" ] && cd -P -- "$level" 2>/dev/null || fail bad_path "cannot enter $level"
    done
    [ -f credentials.json ] && [ ! -L credentials.json ] || fail bad_path "cannot read the installed response"
    say "response"
    cat credentials.json
    say ""
}

# ---- users ----

# Prints what `id` prints, without starting a program where /proc has it.
print_identity() {
    user='' primary='' groups=''
    [ ! -r "/proc/$$/status" ] || while read -r key first second rest; do
        case $key in
            Uid:) user=$second ;;
            Gid:) primary=$second ;;
            Groups:)
                groups="$first $second $rest"
                break # a shell reads byte by byte, and the rest of the file is long
                ;;
        esac
    done <"/proc/$$/status"
    if [ -z "$user" ] || [ -z "$primary" ]; then
        say "identity $(id)"
        return
    fi
    name_of passwd "$user"
    identity="uid=$user($name)"
    name_of group "$primary"
    identity="$identity gid=$primary($name) groups=$primary"
    for member in $groups; do identity="$identity,$member"; done
    say "identity $identity"
}

# Sets `name` to that of a numeric user or group, or to the number where the files do not know it.
name_of() { # database number
    name=root
    [ "$2" != 0 ] || return 0
    name=$2
    while IFS=: read -r entry _ number _; do
        [ "$number" != "$2" ] || { name=$entry && return; }
    done <"/etc/$1"
}

# Prints the number of a user or group, and after that of a user the number of the primary group. A number that is
# unknown stands for itself. The files are read first because BusyBox has no getent.
number_of() { # database, name or number
    while IFS=: read -r entry _ number more _; do
        if [ "$entry" = "$2" ] || [ "$number" = "$2" ]; then say "$number $more" && return; fi
    done <"/etc/$1"
    if command -v getent >/dev/null 2>&1; then
        known=$(getent "$1" "$2" | while IFS=: read -r _ _ number more _; do say "$number $more"; done)
        [ -z "$known" ] || { say "$known" && return; }
    fi
    case $2 in
        *[!0-9]*) ;;
        *) say "$2" ;;
    esac
}

# ---- storage ----

check_storage() {
    nearest=$request_path
    until [ -d "${nearest:-/}" ]; do nearest=${nearest%/*}; done
    nearest=${nearest:-/}
    [ -w "$nearest" ] || say "not_writable $nearest"
    if [ "$request_thorough" = yes ] || [ ! -L "$request_path/current" ]; then check_thoroughly; fi
}

# Checks what only matters before an installation.
check_thoroughly() {
    say "thorough"
    print_missing_tools tar sha256sum mv ln ls chown chmod sync id mkdir rm rmdir cat readlink sleep
    # for root, BusyBox reports that everything is writable; the attempt to remove what does not exist shows the truth
    case $(rmdir -- "$nearest/.thingstream-absent" 2>&1) in
        *[Rr]ead-only*) say "not_writable $nearest" ;;
    esac
    command -v setfacl >/dev/null 2>&1 || say "no_setfacl"
    print_file_systems
    say "@space"
    df -Pk "$nearest" 2>/dev/null
    say "@"
}

# Prints the type of the file system, and of an overlay that of its upper layer, if that can be seen from here.
print_file_systems() {
    read_mount "$(cd -P -- "$nearest" && say "$PWD")"
    [ -n "$mount_type" ] || return 0
    say "file_system $mount_type"
    upper=${mount_options#*upperdir=}
    case $mount_type,$upper in
        overlay*,/*)
            read_mount "${upper%%,*}"
            say "file_system $mount_type"
            ;;
    esac
}

# Sets `mount_type` and `mount_options` to those of the file system that holds a directory.
read_mount() { # directory
    mount_point='' mount_type='' mount_options=''
    [ -r /proc/mounts ] || return 0
    while read -r _ point type options _; do
        prefix=${point%/}
        case $1/ in
            "$prefix"/*)
                [ ${#point} -lt ${#mount_point} ] || mount_point=$point mount_type=$type mount_options=$options
                ;;
        esac
    done </proc/mounts
}

print_missing_tools() { # tools
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 || say "missing $tool"
    done
}

# ---- the way to the path ----

print_links_above() {
    set --
    above=${request_path%/*}
    while [ -n "$above" ]; do
        if [ -L "$above" ]; then
            [ -e "$above" ] || fail bad_path "$above is a symbolic link that leads nowhere"
            set -- "$(print_target "$above")" "$@"
        fi
        above=${above%/*}
    done
    [ $# -gt 0 ] || return 0
    say "@above"
    follow_links "$@"
    say "@"
}

# Lists the targets of symbolic links and every directory above these: a user who may change one of them may change
# where the path is.
follow_links() { # targets
    links=$#
    while [ $# -gt 0 ]; do
        place=$1
        shift
        while [ -n "$place" ]; do
            ls -ldn -- "$place" 2>/dev/null
            if [ -L "$place" ]; then
                links=$((links + 1))
                # as many as a kernel follows
                [ "$links" -le 40 ] || fail bad_path "too many symbolic links lead to $request_path"
                set -- "$@" "$(print_target "$place")"
            fi
            place=${place%/*}
        done
    done
}

print_target() { # link
    target=$(readlink "$1")
    case $target in
        /*) say "$target" ;;
        *) say "${1%/*}/$target" ;;
    esac
}

# ---- the bundle ----

# Prints history, record and digests, and lists the directories from / down to the path, what is in it, in
# `generations` and in the generation in use.
print_bundle() {
    set --
    part=$request_path
    while [ -n "$part" ]; do
        if [ -e "$part" ] || [ -L "$part" ]; then set -- "$part" "$@"; fi
        part=${part%/*}
    done
    if [ -d "$request_path" ] && [ ! -L "$request_path" ] && cd -P -- "$request_path" 2>/dev/null; then
        say "physical_path $PWD"
        print_file history history.json
        set -- "$@" "$PWD"/.[!.]* "$PWD"/* "$PWD"/generations/*
        if enter_generation_in_use; then
            say "current $PWD"
            set -- "$@" "$PWD"/*
            print_file record thing.json
            say "@digests"
            print_digests
        fi
    fi
    say "@listing"
    ls -ldn / "$@" 2>/dev/null
    say "@"
}

# Prints a file of the working directory, each line behind a keyword.
print_file() { # keyword file
    [ -f "$2" ] && [ ! -L "$2" ] && [ -r "$2" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do say "$1 $line"; done <"$2"
}

# Prints the digests of the files in the working directory; reading anything else would follow a link, or never end.
print_digests() {
    set --
    for file in *; do
        if [ -f "$file" ] && [ ! -L "$file" ]; then set -- "$@" "$file"; fi
    done
    [ $# -eq 0 ] || sha256sum -- "$@" 2>/dev/null
}

reply "$request_command" "$@"

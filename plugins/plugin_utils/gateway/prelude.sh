# shellcheck shell=sh
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What look.sh, change.sh and identify.sh share. POSIX sh (dash, bash, BusyBox ash).
#
# A gateway runs three parts as one script: lines that assign request_* variables, this file, and one of the three
# scripts. All of it arrives on standard input, or at the head of a tar stream; comment lines are not sent.
#
# Output: only what stands between "begin 1" and "end" counts. It is made of lines "keyword value" and of blocks: the
# output of a program, from a line "@name" to the next line that begins with "@". "failed code sentence" reports an
# error with a code of the collection. The controller trusts none of it.
#
# Rules for all three: nothing reads standard input, which may be the script itself. Nothing follows a symbolic link
# inside request_path. Nothing prints a secret, except read_response.
#
# Globals: none, apart from those that shells and programs read (PATH, LC_ALL, umask). Functions have no variables of
# their own in POSIX sh; seconds, program_id, watch_id and exit_status belong to run_within.

set -u
umask 077
LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
unset IFS TIME_STYLE QUOTING_STYLE BLOCK_SIZE BLOCKSIZE POSIXLY_CORRECT CDPATH # what changes the output of programs
unset THINGSTREAM_ZTP_TOKEN # a local connection inherits the environment of the controller
trap '' HUP PIPE # a broken connection does not stop a change halfway

# Runs one function and frames its output. The last line of each script calls it, so a script that was cut does nothing.
reply() { # function arguments
    say "begin 1"
    "$@"
    say end
}

say() { printf '%s\n' "$*"; }

# Ends the script with an error code and a sentence that says what is wrong.
fail() { # code sentence
    say "failed $1 $2"
    say end
    exit 0
}

# Changes from request_path into the generation in use, if `current` leads to one and nowhere else.
enter_generation_in_use() {
    root=$PWD
    [ -L current ] && [ ! -L generations ] && cd -P -- ./current 2>/dev/null || return 1
    case $PWD in
        "$root"/generations/[0-9][0-9][0-9][0-9][0-9][0-9]) ;;
        *) cd -P -- "$root" && return 1 ;;
    esac
}

# Runs a program for at most so many seconds and returns its exit status, which is 137 if it was stopped. The program
# gets the signals, umask and directory that programs expect. Not every system has timeout.
run_within() { # seconds program arguments
    seconds=$1
    shift
    (
        trap - HUP PIPE EXIT
        umask 022
        cd /
        lead_group "$@"
    ) </dev/null 2>/dev/null &
    program_id=$!
    # this way to name a signal and a process group works in every shell
    # shellcheck disable=SC2016  # the shell that is started here expands it
    (lead_group sh -c 'sleep "$1"; kill -KILL "-$2" || kill -KILL "$2"' sh "$seconds" "$program_id") \
        </dev/null >/dev/null 2>&1 &
    watch_id=$!
    wait "$program_id" 2>/dev/null
    exit_status=$?
    kill -KILL "-$watch_id" 2>/dev/null || kill -KILL "$watch_id" 2>/dev/null
    wait "$watch_id" 2>/dev/null
    return "$exit_status"
}

# Becomes a program that leads a process group, where setsid exists, so that it can be stopped with all its children.
lead_group() { # program arguments
    if command -v setsid >/dev/null 2>&1; then exec setsid "$@"; fi
    exec "$@"
}

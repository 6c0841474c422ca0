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
# their own in POSIX sh; seconds, program_id, watch_id and exit_status belong to run_within, and the other variables to
# the function in which they are set.

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
    command -v printf >/dev/null 2>&1 || {
        echo "begin 1"
        echo "failed gateway_unsupported the shell lacks printf, and there is no program of that name"
        echo end
        exit 0
    }
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
# gets the signals, umask and directory that programs expect. Not every system has timeout, or setsid.
run_within() { # seconds program arguments
    seconds=$1
    shift
    (
        trap - HUP PIPE EXIT
        umask 022
        cd /
        # a signal to the group of this script does not reach what it runs, where that can be had
        if command -v setsid >/dev/null 2>&1; then exec setsid "$@"; fi
        exec "$@"
    ) </dev/null 2>/dev/null &
    program_id=$!
    (
        trap - EXIT
        sleep "$seconds"
        stop "$program_id"
        kill -KILL "-$program_id" # the rest of its group, if setsid made one: what has lost its parent
    ) </dev/null >/dev/null 2>&1 &
    watch_id=$!
    wait "$program_id" 2>/dev/null
    exit_status=$?
    stop "$watch_id"
    wait "$watch_id" 2>/dev/null
    case $exit_status in
        265 | 393) exit_status=137 ;; # of ksh and yash
    esac
    return "$exit_status"
}

# Ends a process with its descendants. Each is halted before its children are listed, so that it can start no more.
stop() { # process ID
    kill -STOP "$1" 2>/dev/null
    for child in $(children_of "$1"); do stop "$child"; done
    kill -KILL "$1" 2>/dev/null
}

children_of() { # process ID
    set +f
    for entry in /proc/[0-9]*; do
        read_status "$entry"
        # state and parent follow the name, which is in parentheses and may hold anything
        process=${process##*) }
        process=${process#* }
        [ "${process%% *}" != "$1" ] || say "${entry#/proc/}"
    done
}

# Sets `process` to what the kernel says of a process, in one line; empty for one that does not exist.
read_status() { # directory of the process
    process=''
    { while read -r line; do process="$process $line"; done <"$1/stat"; } 2>/dev/null
}

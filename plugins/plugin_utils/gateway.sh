# shellcheck shell=sh
# shellcheck disable=SC2154  # the request_* variables are assigned in the lines sent before this text
# shellcheck disable=SC2015  # A && B || fail: `fail` ends the script, so it never runs after a B that succeeded
# shellcheck disable=SC2012  # ls -ln is the one way to read permissions that every system has; names are our own
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The hands of thingstream.ztp on a gateway: probe, install, repair, read, remove. POSIX sh (dash, bash, BusyBox ash).
#
# It arrives on standard input, or at the head of a tar stream, behind lines that assign request_* variables. It
# answers between "begin 1" and "end" in lines of "keyword value", and in what a program prints from a line "@name" to
# the next one. The controller trusts none of it.
# Nothing here reads standard input, follows a link inside `request_path`, or shows a secret (except `read_response`).

set -u
umask 077
LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
unset IFS TIME_STYLE QUOTING_STYLE BLOCK_SIZE BLOCKSIZE POSIXLY_CORRECT CDPATH # what changes the output of programs
trap '' HUP PIPE # a connection that breaks does not stop a change half way

say() { printf '%s\n' "$*"; }

# Ends the script with an error code of the collection; $2 says what was found.
fail() {
    say "failed $1 $2"
    say end
    exit 0
}

# ---- probe: look at everything, change nothing. Starting a program is what costs time here: where credentials are in
# order, there are two of them, ls and sha256sum. ----

# Prints the numeric ID of a user or group; the files are read first because BusyBox has no getent.
find_id() { # database name
    case $2 in
        *[!0-9]*) ;;
        *) say "$2" && return ;;
    esac
    while IFS=: read -r entry _ number _; do
        [ "$entry" != "$2" ] || { say "$number" && return; }
    done <"/etc/$1"
    if command -v getent >/dev/null 2>&1; then
        getent "$1" "$2" | while IFS=: read -r _ _ number _; do say "$number"; done
    fi
}

# Sets `name` to that of a numeric user or group, or to the number where the files do not know it.
find_name() { # database number
    name=root
    [ "$2" != 0 ] || return 0
    name=$2
    while IFS=: read -r entry _ number _; do
        [ "$number" != "$2" ] || { name=$entry && return; }
    done <"/etc/$1"
}

# Prints what `id` prints, without starting a program where /proc tells it.
print_identity() {
    user='' primary='' groups=''
    [ ! -r "/proc/$$/status" ] || while read -r key first second rest; do
        case $key in
            Uid:) user=$second ;;
            Gid:) primary=$second ;;
            Groups:) groups="$first $second $rest" ;;
        esac
    done <"/proc/$$/status"
    if [ -z "$user" ] || [ -z "$primary" ]; then
        say "identity $(id)"
        return
    fi
    find_name passwd "$user"
    identity="uid=$user($name)"
    find_name group "$primary"
    identity="$identity gid=$primary($name) groups=$primary"
    for number in $groups; do identity="$identity,$number"; done
    say "identity $identity"
}

# Prints the record of the generation that is the working directory.
print_record() {
    [ -f thing.json ] && [ ! -L thing.json ] && [ -r thing.json ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do say "record $line"; done <thing.json
}

print_digests() {
    set --
    for file in *; do
        if [ -f "$file" ] && [ ! -L "$file" ]; then set -- "$@" "$file"; fi
    done
    [ $# -eq 0 ] || sha256sum -- "$@" 2>/dev/null
}

missing_tools() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 || say "missing $tool"
    done
}

# Enters the generation in use from the path, if the link leads to one and not somewhere else.
enter_current() {
    root=$PWD
    [ -L current ] && [ ! -L generations ] && cd -P -- ./current 2>/dev/null || return 1
    case $PWD in
        "$root"/generations/[0-9][0-9][0-9][0-9][0-9][0-9]) ;;
        *) cd -P -- "$root" && return 1 ;;
    esac
}

# What matters only to a run that is about to ask the platform and to install the answer.
probe_thoroughly() { # the existing directory nearest to the path
    missing_tools tar sha256sum mv ln ls chown chmod sync id mkdir rm rmdir cat readlink
    # the one tool option that old BusyBox versions lack
    case $(mv -T -- /thingstream-absent-1 /thingstream-absent-2 2>&1) in
        *option*) say "missing mv -T" ;;
    esac
    # BusyBox tells root that everything is writable; the attempt to remove what does not exist tells the truth
    case $(rmdir -- "$1/.thingstream-absent" 2>&1) in
        *[Rr]ead-only*) say "not_writable $1" ;;
    esac
    say "@space"
    df -Pk "$1" 2>/dev/null
    say "@"
}

probe() {
    print_identity
    [ -z "$request_owner" ] || say "owner_id $(find_id passwd "$request_owner")"
    [ -z "$request_group" ] || say "group_id $(find_id group "$request_group")"
    nearest=$request_path
    until [ -d "${nearest:-/}" ]; do nearest=${nearest%/*}; done
    [ -w "${nearest:-/}" ] || say "not_writable ${nearest:-/}"
    if [ "$request_thorough" = yes ] || [ ! -L "$request_path/current" ]; then probe_thoroughly "${nearest:-/}"; fi

    # the directories from / down to the path, then what is in it, in `generations` and in the current generation
    set --
    directory=$request_path
    while [ -n "$directory" ]; do
        if [ -e "$directory" ] || [ -L "$directory" ]; then set -- "$directory" "$@"; fi
        directory=${directory%/*}
    done
    if [ -d "$request_path" ] && [ ! -L "$request_path" ] && cd -P -- "$request_path" 2>/dev/null; then
        say "physical_path $PWD"
        set -- "$@" "$PWD"/.[!.]* "$PWD"/* "$PWD"/generations/*
        if enter_current; then
            say "current $PWD"
            set -- "$@" "$PWD"/*
            print_record
            say "@digests"
            print_digests
        fi
    fi
    say "@listing"
    ls -ldn / "$@" 2>/dev/null
    say "@"
}

# Probes every path that was given and prints the record of each of its generations.
survey() {
    for request_path in "$@"; do
        say "path $request_path"
        (probe)
        for generation in "$request_path"/generations/*; do
            if [ -d "$generation" ] && [ ! -L "$generation" ]; then
                say "generation ${generation##*/}"
                (cd -P -- "$generation" && print_record)
            fi
        done
    done
}

# Says why a name in the path could not be made.
cannot_create() { # name
    if [ -e "$1" ] || [ -L "$1" ]; then fail bad_path "$request_path/$1 is in the way"; fi
    [ -d "$request_path" ] || fail concurrent_change "another run has removed $request_path"
    case $(rmdir .thingstream-absent 2>&1) in
        *[Rr]ead-only*) fail permission "$request_path is on a read-only file system" ;;
    esac
    fail disk_full "cannot create $request_path/$1"
}

# ---- changes: one at a time, checked before they count ----

# Enters the path and keeps every other run out until this one ends, however it ends.
enter_path() {
    [ ! -L "$request_path" ] || fail bad_path "$request_path is a symbolic link"
    cd -P -- "$request_path" 2>/dev/null || fail bad_path "cannot enter $request_path"
    [ -w . ] || fail permission "cannot write to $request_path"
    take_lock
}

# The lock is a link that leads nowhere and names its owner: made in one step, and told from that of a dead run by
# the start time of the process. flock would do, but not every BusyBox has it.
take_lock() {
    me=$(identify $$)
    ln -sn "$me" .lock 2>/dev/null || {
        if [ ! -L .lock ] && [ ! -e .lock ]; then
            ln -sn "$me" .lock 2>/dev/null || cannot_create .lock
        else
            take_over_lock
        fi
    }
    trap 'release_lock' EXIT
}

release_lock() {
    rm -rf "$request_path/.current-${request_nonce:-none}"
    [ "$(readlink "$request_path/.lock")" != "$me" ] || rm -f "$request_path/.lock"
}

take_over_lock() {
    owner=$(readlink .lock)
    process=${owner#*.}
    if [ -n "$owner" ] && [ "$(identify "${process%%.*}")" = "$owner" ]; then
        fail concurrent_change "another run is changing $request_path"
    fi
    aside=.staging-lock-$$
    mv -T -- .lock "$aside" 2>/dev/null || fail concurrent_change "another run is changing $request_path"
    if [ "$(readlink "$aside")" != "$owner" ]; then
        mv -T -- "$aside" .lock # the lock of a run that was faster in noticing the dead one
        fail concurrent_change "another run is changing $request_path"
    fi
    rm -rf "$aside"
    ln -sn "$me" .lock 2>/dev/null || fail concurrent_change "another run is changing $request_path"
}

# A process as boot.number.start, the same for nobody else; without /proc only the number.
identify() { # process ID
    boot='' start=''
    { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
    { read -r line <"/proc/$1/stat"; } 2>/dev/null && {
        # shellcheck disable=SC2086  # to be split into words, after the name in parentheses
        set -- "$1" ${line##*) }
        case $2 in
            [ZX]) return ;;
            *) start=${21} ;;
        esac
    }
    [ -n "$start" ] || kill -0 "$1" 2>/dev/null && say "$boot.$1.$start"
}

current_generation() {
    (enter_current && say "${PWD##*/}")
}

# The names of complete generations, oldest first; what was set aside has a suffix and is not among them.
generations() {
    for directory in generations/[0-9][0-9][0-9][0-9][0-9][0-9]; do
        [ -d "$directory" ] && [ ! -L "$directory" ] && say "${directory#generations/}"
    done
}

# 000009 -> 000010, without letting the shell read it as an octal number
successor() {
    number=${1:-0}
    number=${number#"${number%%[!0]*}"}
    printf '%06d\n' $((${number:-0} + 1))
}

# Compares owner, group and mode of the files in a directory with what was asked for: a file system that cannot keep a
# private key private must not get one. request_files holds "octal-mode symbolic-mode name" for each file.
check_attributes() { # directory
    found=$(ls -ldn "$1"/* | while read -r mode _ owner group _ _ _ _ file; do
        say "/${mode%[.+@]} $owner:$group ${file##*/}/"
    done)
    # shellcheck disable=SC2086  # to be split into words
    set -- $request_files
    while [ $# -gt 2 ]; do
        case $found in
            *"/$2 $request_owner_id:$request_group_id $3/"*) shift 3 ;;
            *) fail permission "the file system of $request_path does not keep owner, group and mode of $3" ;;
        esac
    done
}

# Not left to tar, which keeps owner and mode for some users only.
own_files() { # directory
    directory=$1
    # shellcheck disable=SC2086  # to be split into words
    set -- $request_files
    while [ $# -gt 2 ]; do
        file=$directory/$3
        [ -f "$file" ] && [ ! -L "$file" ] && chown -h "$request_owner_id:$request_group_id" "$file" 2>/dev/null &&
            chmod "$1" "$file" 2>/dev/null || fail permission "cannot set owner, group and mode of $request_path/$file"
        shift 3
    done
}

own_directory() { # directory
    [ -d "$1" ] && [ ! -L "$1" ] || fail bad_path "$request_path/$1 is not a directory"
    # an octal mode leaves the set-group-ID bit of a directory as it is
    chown "$request_owner_id:$request_group_id" "$1" 2>/dev/null && chmod ug-s,o-t "$1" 2>/dev/null &&
        chmod "$request_directory_mode" "$1" 2>/dev/null ||
        fail permission "cannot set owner, group and mode of $request_path/$1"
}

make_link() { # generation; the one rename that switches
    link=.current-$request_nonce
    ln -sn "generations/$1" "$link" 2>/dev/null || {
        rm -rf "generations/$1"
        cannot_create "$link"
    }
    mv -T -- "$link" current 2>/dev/null || {
        rm -rf "generations/$1"
        fail bad_path "cannot replace $request_path/current"
    }
}

# Removes what dead runs left (staging directories, and generations after the given one, which never became current)
# and the oldest generations that no rollback needs. It runs after a change, when nothing can be lost any more.
tidy() { # the last generation that became current before this run, if any; the new one, if any
    for leftover in .staging-* .current-*; do
        [ "$leftover" = ".staging-$request_nonce" ] || rm -rf "$leftover"
    done
    passed=${1:-none}
    for candidate in $(generations); do
        if [ "$passed" = none ] && [ "$candidate" != "${2:-}" ]; then rm -rf "generations/$candidate"; fi
        [ "$candidate" != "$passed" ] || passed=none
    done
    surplus=$((-request_keep - 1))
    for candidate in $(generations); do surplus=$((surplus + 1)); done
    for candidate in $(generations); do
        [ "$surplus" -gt 0 ] || break
        surplus=$((surplus - 1))
        rm -rf "generations/$candidate"
    done
}

check_expectation() {
    found=$(current_generation)
    [ "$found" = "$request_current" ] ||
        fail concurrent_change "current is ${found:-absent}, it was ${request_current:-absent} before"
}

# Runs in the staging directory, which holds `files/` and their digests.
install() {
    enter_path
    check_expectation
    files=.staging-$request_nonce/files
    [ -d "$files" ] || fail concurrent_change "another run has cleared $request_path"
    (cd "$files/.." && sha256sum -c digests) >/dev/null 2>&1 ||
        fail disk_full "the disk did not keep what was written to it"
    own_directory "$files"
    own_files "$files"
    check_attributes "$files"
    if command -v restorecon >/dev/null 2>&1; then restorecon -RF "$files" >/dev/null 2>&1; fi
    sync "$files"/* "$files" 2>/dev/null || sync

    own_directory .
    [ -d generations ] || mkdir generations 2>/dev/null || cannot_create generations
    own_directory generations
    for generation in $(generations); do :; done
    generation=$(successor "${generation:-}")
    mv -T -- "$files" "generations/$generation" 2>/dev/null ||
        fail concurrent_change "another run has taken generation $generation"
    make_link "$generation"
    sync . generations 2>/dev/null || sync
    tidy "$request_current" "$generation"
    say "installed $generation"
}

# Gives the installed files their owner, group and modes again, and clears away what dead runs left.
repair() {
    enter_path
    check_expectation
    own_directory .
    own_directory generations
    own_directory "generations/$request_current"
    own_files "generations/$request_current"
    check_attributes "generations/$request_current"
    tidy "$request_current"
    say "repaired $request_current"
}

# The one place where a secret leaves a gateway: the raw response, so that files can be rendered from it again.
read_response() {
    for directory in "$request_path" "$request_path/generations" "$request_path/generations/$request_current"; do
        [ ! -L "$directory" ] && cd -P -- "$directory" 2>/dev/null || fail bad_path "cannot enter $directory"
    done
    [ -f credentials.json ] && [ ! -L credentials.json ] || fail bad_path "cannot read the installed response"
    say "response"
    cat credentials.json
    say ""
}

remove() {
    enter_path
    rm -f current 2>/dev/null
    rm -rf generations .staging-* .current-* 2>/dev/null
    [ ! -e generations ] && [ ! -L current ] || fail permission "cannot remove everything in $request_path"
    rm -rf .lock
    cd / && rmdir "$request_path" 2>/dev/null
    say "removed"
}

say "begin 1"
"$request_command" "$@"
say end

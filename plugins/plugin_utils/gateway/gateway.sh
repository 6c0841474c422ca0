# shellcheck shell=sh
# shellcheck disable=SC2154  # the request_* variables are assigned in the lines sent before this text
# shellcheck disable=SC2015  # A && B || fail: `fail` ends the script, so it never runs after a B that succeeded
# shellcheck disable=SC2012  # ls -ln is the one way to read permissions that every system has; names are our own
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The hands of thingstream.ztp on a gateway: probe, install, roll back, repair, read, remove. POSIX sh (dash, bash,
# BusyBox ash).
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

# Prints the number of a user or group, and of a user that of the primary group; a number is its own. The files are
# read first because BusyBox has no getent.
find_id() { # database, name or number
    while IFS=: read -r entry _ number more _; do
        if [ "$entry" = "$2" ] || [ "$number" = "$2" ]; then say "$number $more" && return; fi
    done <"/etc/$1"
    if command -v getent >/dev/null 2>&1; then
        found=$(getent "$1" "$2" | while IFS=: read -r _ _ number more _; do say "$number $more"; done)
        [ -z "$found" ] || { say "$found" && return; }
    fi
    case $2 in
        *[!0-9]*) ;;
        *) say "$2" ;;
    esac
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

# Prints a file of the working directory, each line behind a keyword.
print_file() { # keyword file
    [ -f "$2" ] && [ ! -L "$2" ] && [ -r "$2" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do say "$1 $line"; done <"$2"
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
    missing_tools tar sha256sum mv ln ls chown chmod sync id mkdir rm rmdir cat readlink sleep
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

# Lists what leads to the path by way of symbolic links: their targets, and every directory above these. Whoever may
# change one of them may change where the path is.
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

probe() {
    print_identity
    [ -z "$request_owner" ] || say "owner_id $(find_id passwd "$request_owner")"
    [ -z "$request_group" ] || say "group_id $(find_id group "$request_group")"
    nearest=$request_path
    until [ -d "${nearest:-/}" ]; do nearest=${nearest%/*}; done
    [ -w "${nearest:-/}" ] || say "not_writable ${nearest:-/}"
    if [ "$request_thorough" = yes ] || [ ! -L "$request_path/current" ]; then probe_thoroughly "${nearest:-/}"; fi

    set --
    directory=${request_path%/*}
    while [ -n "$directory" ]; do
        if [ -L "$directory" ]; then
            [ -e "$directory" ] || fail bad_path "$directory is a symbolic link that leads nowhere"
            set -- "$(print_target "$directory")" "$@"
        fi
        directory=${directory%/*}
    done
    if [ $# -gt 0 ]; then
        say "@above"
        follow_links "$@"
        say "@"
    fi

    # the directories from / down to the path, then what is in it, in `generations` and in the current generation
    set --
    directory=$request_path
    while [ -n "$directory" ]; do
        if [ -e "$directory" ] || [ -L "$directory" ]; then set -- "$directory" "$@"; fi
        directory=${directory%/*}
    done
    if [ -d "$request_path" ] && [ ! -L "$request_path" ] && cd -P -- "$request_path" 2>/dev/null; then
        say "physical_path $PWD"
        print_file history history.json
        set -- "$@" "$PWD"/.[!.]* "$PWD"/* "$PWD"/generations/*
        if enter_current; then
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

# Probes every path that was given and prints the record of each of its generations.
survey() {
    for request_path in "$@"; do
        say "path $request_path"
        (probe)
        [ ! -L "$request_path/generations" ] || continue
        for generation in "$request_path"/generations/*; do
            if [ -d "$generation" ] && [ ! -L "$generation" ]; then
                say "generation ${generation##*/}"
                (cd -P -- "$generation" && print_file record thing.json)
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
    [ -z "${unlinked:-}" ] || rm -rf "${request_path:?}/$unlinked"
    rm -rf "$request_path/.current-${request_nonce:-none}" "$request_path/.staging-history-${request_nonce:-none}"
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

# The last generation that has ever been in use; after a roll back it is not the current one. What comes after it was
# left by a run that died.
last_generation() {
    newest=$(readlink .newest)
    case $newest in
        [0-9][0-9][0-9][0-9][0-9][0-9]) [ "$newest" -lt "${request_current:-0}" ] || { say "$newest" && return; } ;;
    esac
    say "$request_current"
}

is_generation() { # name
    case $1 in
        [0-9][0-9][0-9][0-9][0-9][0-9]) [ -d "generations/$1" ] && [ ! -L "generations/$1" ] ;;
        *) return 1 ;;
    esac
}

# The names of complete generations, oldest first; what was set aside has a suffix and is listed only with that.
generations() { # suffix, if any
    for directory in generations/[0-9][0-9][0-9][0-9][0-9][0-9]"${1:-}"; do
        [ -d "$directory" ] && [ ! -L "$directory" ] || continue
        directory=${directory#generations/}
        say "${directory%"${1:-}"}"
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

# Whether every file in the working directory is one: reading anything else would follow a link, or wait for ever.
holds_files() {
    # shellcheck disable=SC2086  # to be split into words
    set -- $request_files
    while [ $# -gt 2 ]; do
        [ -f "$3" ] && [ ! -L "$3" ] || return 1
        shift 3
    done
}

# Not left to tar, which keeps owner and mode for some users only.
own_files() { # directory
    directory=$1
    # a file that has another name, too, may be somebody else's outside of the path
    linked=$(ls -ldn "$directory"/* 2>/dev/null | while read -r mode links _; do
        case $mode,$links in -*,1 | [!-]*) ;; *) say linked ;; esac
    done)
    [ -z "$linked" ] || fail bad_path "a file in $request_path/$directory has a hard link elsewhere"
    # shellcheck disable=SC2086  # to be split into words
    set -- $request_files
    while [ $# -gt 2 ]; do
        file=$directory/$3
        [ -f "$file" ] && [ ! -L "$file" ] && chown -h "$request_owner_id:$request_group_id" "$file" 2>/dev/null &&
            chmod "$1" "$file" 2>/dev/null || fail permission "cannot set owner, group and mode of $request_path/$file"
        shift 3
    done
}

# Directories belong to whoever runs this, even where the files have another owner: who owns a directory can put a link
# in the place of what is about to get owner and mode. So outer ones come first.
own_directory() { # directory
    [ -d "$1" ] && [ ! -L "$1" ] || fail bad_path "$request_path/$1 is not a directory"
    # an octal mode leaves the set-group-ID bit of a directory as it is
    chown -h "$request_user_id:$request_group_id" "$1" 2>/dev/null && chmod ug-s,o-t "$1" 2>/dev/null &&
        chmod "$request_directory_mode" "$1" 2>/dev/null ||
        fail permission "cannot set owner, group and mode of $request_path/$1"
}

# Makes a link, or makes it lead elsewhere, by one rename.
set_link() { # name target
    link=.current-$request_nonce
    ln -sn "$2" "$link" 2>/dev/null || cannot_create "$link"
    mv -T -- "$link" "$1" 2>/dev/null || fail bad_path "cannot replace $request_path/$1"
}

# Writes down which Things were in use here before. Whoever reads it leaves out the one that is in use, so that it is
# written before the switch. What another run has written since the look is not written over.
write_history() {
    [ -n "$request_history" ] || return 0
    known=''
    if [ -f history.json ] && [ ! -L history.json ]; then known=$(cat history.json); fi
    [ "$request_known_history" = '?' ] || [ "$request_known_history" = "$known" ] ||
        fail concurrent_change "another run has written $request_path/history.json"
    # in a directory of this run, where nobody can have planted a link to write through
    staging=.staging-history-$request_nonce
    new=$staging/history.json
    mkdir "$staging" 2>/dev/null || cannot_create "$staging"
    say "$request_history" 2>/dev/null >"$new" || fail disk_full "cannot write $request_path/$new"
    sync "$new" 2>/dev/null || sync
    chown "$request_owner_id:$request_group_id" "$new" 2>/dev/null && chmod 0640 "$new" 2>/dev/null &&
        mv -T -- "$new" history.json 2>/dev/null || fail permission "cannot replace $request_path/history.json"
    rmdir "$staging"
}

# ---- consumers: what was switched is on trial until they have come back. The link `.trial` names the generation to
# return to; where a run dies before the end of the trial, the next one finds it and repeats the trial. ----

has_commands() { [ -n "$request_reload_command$request_health_command" ]; }

# Prints what `.trial` names: a generation that is there, or "none" where nothing was in use.
trial_origin() {
    origin=$(readlink .trial)
    if [ "$origin" = none ] || is_generation "$origin"; then say "$origin"; fi
}

# The trial of a dead run goes on, but for that of a removal, which has left nothing to return to.
begin_trial() {
    has_commands || return 0
    [ -n "$request_current" ] && [ -n "$(trial_origin)" ] || set_link .trial "${request_current:-none}"
}

# Seconds since the start of the system, which no change of the clock disturbs; without /proc, those of the clock.
uptime_seconds() {
    uptime=''
    { read -r uptime _ </proc/uptime; } 2>/dev/null
    [ -n "$uptime" ] || uptime=$(date +%s)
    say "${uptime%%.*}"
}

# Becomes a program that leads its own process group, if setsid is there, so that it is stopped with all it started.
lead() { # program arguments
    if command -v setsid >/dev/null 2>&1; then exec setsid "$@"; fi
    exec "$@"
}

# Runs a command of the user, for so many seconds at most, with signals, umask and directory as a program expects them.
run_within() { # seconds command
    (
        trap - HUP PIPE EXIT
        umask 022
        cd /
        lead sh -c "$2"
    ) </dev/null >/dev/null 2>&1 &
    command=$!
    # of the ways to name a signal and a group this is the one that every shell has
    # shellcheck disable=SC2016  # to be expanded by the shell that is started here
    (lead sh -c 'sleep "$1"; kill -KILL "-$2" || kill -KILL "$2"' sh "$1" "$command") </dev/null >/dev/null 2>&1 &
    watch=$!
    wait "$command" 2>/dev/null
    status=$?
    kill -KILL "-$watch" 2>/dev/null || kill -KILL "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    [ "$status" -ne 137 ] || status="$status (it was stopped after $1 seconds)"
    [ "$status" = 0 ]
}

reload_consumers() {
    [ -z "$request_reload_command" ] || run_within "$request_health_timeout" "$request_reload_command" || {
        problem="reload_command ended with status $status"
        return 1
    }
}

# The health command is repeated until it succeeds or the time is over: consumers need a moment to connect.
consumers_are_healthy() {
    reload_consumers || return 1
    [ -n "$request_health_command" ] || return 0
    deadline=$(($(uptime_seconds) + request_health_timeout))
    remaining=$request_health_timeout
    until run_within "$remaining" "$request_health_command"; do
        problem="health_command ended with status $status"
        remaining=$((deadline - $(uptime_seconds) - 1))
        [ "$remaining" -gt 0 ] || return 1
        sleep 1
    done
}

# Ends the trial of the generation in use: it stays, or the gateway itself returns to what was in use before.
end_trial() { # generation
    has_commands && [ -L .trial ] || return 0
    consumers_are_healthy || fall_back "$1"
    rm -f .trial
}

discard_failed() { rm -rf generations/[0-9][0-9][0-9][0-9][0-9][0-9]-failed; }

fall_back() { # generation that failed
    previous=$(trial_origin)
    # somebody else has removed the link, which does not mean that nothing was in use
    previous=${previous:-$request_current}
    [ "$previous" != "$1" ] ||
        fail health_check_failed "$problem; generation $1 is in use, and there is none to return to"
    if is_generation "$previous"; then
        set_link current "generations/$previous"
        result="generation $previous is in use again"
    elif [ "$previous" = none ]; then
        rm -f current
        previous=0
        result="no generation is in use"
    else
        fail concurrent_change "$problem; generation $1 is in use, and what was in use before it is gone"
    fi
    # only what has never worked; the generation that a roll back wanted has
    newest=$(readlink .newest)
    if [ "$1" -gt "$previous" ] && [ "$1" -gt "${newest:-0}" ]; then
        discard_failed
        mv -T -- "generations/$1" "generations/$1-failed" && result="$result, $1 is kept aside as $1-failed"
    fi
    found=$problem
    reload_consumers || result="$result, but reload_command failed"
    rm -f .trial
    sync . generations 2>/dev/null || sync
    fail health_check_failed "$found; $result"
}

# Removes what dead runs left (staging directories, and generations after the given one, which never became current)
# and the oldest generations that no roll back needs. It runs after a change, when nothing can be lost any more. The
# generation that `.newest` names stays, whatever request_keep says, so that a roll back can be taken back.
tidy() { # the last generation that became current before this run, if any
    for leftover in .staging-* .current-* .trial; do
        [ "$leftover" = ".staging-$request_nonce" ] || rm -rf "$leftover"
    done
    in_use=$(current_generation)
    newest=$(readlink .newest)
    passed=${1:-none}
    for candidate in $(generations); do
        if [ "$passed" = none ] && [ "$candidate" != "$in_use" ]; then rm -rf "generations/$candidate"; fi
        [ "$candidate" != "$passed" ] || passed=none
    done
    surplus=$((-request_keep - 1))
    for candidate in $(generations); do surplus=$((surplus + 1)); done
    for candidate in $(generations); do
        [ "$surplus" -gt 0 ] || break
        [ "$candidate" != "$in_use" ] && [ "$candidate" != "$newest" ] || continue
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
    own_directory .
    files=.staging-$request_nonce/files
    [ -d "$files" ] || fail concurrent_change "another run has cleared $request_path"
    (cd "$files/.." && sha256sum -c digests) >/dev/null 2>&1 ||
        fail disk_full "the disk did not keep what was written to it"
    own_directory "$files"
    own_files "$files"
    check_attributes "$files"
    if command -v restorecon >/dev/null 2>&1; then restorecon -RF "$files" >/dev/null 2>&1; fi
    sync "$files"/* "$files" 2>/dev/null || sync

    [ -d generations ] || mkdir generations 2>/dev/null || cannot_create generations
    own_directory generations
    # a number that was in use is not used again
    generation=$(last_generation)
    for candidate in $(generations) $(generations -failed); do
        [ "$candidate" -le "${generation:-0}" ] || generation=$candidate
    done
    generation=$(successor "$generation")
    mv -T -- "$files" "generations/$generation" 2>/dev/null ||
        fail concurrent_change "another run has taken generation $generation"
    unlinked=generations/$generation
    write_history
    begin_trial
    set_link current "$unlinked"
    unlinked=''
    sync . generations 2>/dev/null || sync
    end_trial "$generation"
    rm -f .newest
    discard_failed
    tidy "$request_current"
    say "installed $generation"
}

# Puts an earlier generation in use again, or a later one after that; what was in use stays where it is.
roll_back() {
    enter_path
    check_expectation
    target=generations/$request_target
    is_generation "$request_target" || fail no_generation "generation $request_target is gone"
    (cd -P -- "$target" && holds_files && say "$request_digests" | sha256sum -c -) >/dev/null 2>&1 ||
        fail no_generation "generation $request_target is damaged"
    own_directory .
    own_directory generations
    own_directory "$target"
    own_files "$target"
    check_attributes "$target"
    newest=$(last_generation)
    [ "$(readlink .newest)" = "$newest" ] || set_link .newest "$newest"
    write_history
    begin_trial
    set_link current "$target"
    sync . generations 2>/dev/null || sync
    end_trial "$request_target"
    tidy "$newest"
    say "rolled_back $request_target"
}

# Writes the history down and changes nothing else.
remember() {
    enter_path
    check_expectation
    write_history
    say "remembered"
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
    end_trial "$request_current"
    tidy "$(last_generation)"
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

# Removes everything but the history. Consumers are told once there is nothing to read any more.
remove() {
    enter_path
    check_expectation
    write_history
    begin_trial
    rm -f current .newest 2>/dev/null
    reload_consumers || reloaded=no
    rm -rf generations .staging-* .current-* 2>/dev/null
    [ ! -e generations ] && [ ! -L current ] || fail permission "cannot remove everything in $request_path"
    [ "${reloaded:-yes}" = yes ] || fail health_check_failed "$problem after the credentials were removed"
    rm -rf .trial .lock
    cd / && rmdir "$request_path" 2>/dev/null
    say "removed"
}

say "begin 1"
"$request_command" "$@"
say end

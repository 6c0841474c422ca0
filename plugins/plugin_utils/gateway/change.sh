# shellcheck shell=sh
# shellcheck disable=SC2154  # the request_* variables are assigned in the lines sent before this text
# shellcheck disable=SC2015  # A && B || fail: `fail` ends the script, so it never runs after a B that succeeded
# shellcheck disable=SC2012  # ls -ln is the one way to read permissions that every system has; names are our own
# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Changes a path: install, roll_back, set_attributes, write_history, remove. It follows prelude.sh. The commands come
# first, what they are made of below them.
#
# On disk, in request_path:
#   current -> generations/000002    the generation in use; every switch is one rename of this link
#   generations/000001/ 000002/      complete bundles; their content never changes
#   generations/000003-failed/       the last bundle that failed its health check
#   history.json                     Things that were in use here before
#   .newest -> 000003                after a roll back: the last generation that was ever in use
#   .last-change -> NONCE.000002     the last install or roll_back, and the generation to which it switched, or
#                                    "reverted" if that failed its health check
#   .health-check -> 000001          from the switch to the passed health check: what to return to, a generation or "none"
#   .lock -> BOOT.PID.START.NONCE    while an attempt changes something: which process that is
#   .staging-*                       what an attempt has made that does not count yet; .staging-heir-*: see take_lock
#
# States. Every command takes the path from one of these to another, and a crash leaves it in one of these:
#   absent     no `current`, no `generations`
#   in use     `current` leads to a complete generation
#   prepared   as before, with a generation later than any that was in use: a crash before the switch. Ignored, and
#              removed by the next change
#   switched   .health-check is there: a crash after the switch. The next change repeats the health check
#   removing   `generations` or .health-check without `current`: a crash in `remove`. The next removal completes it
#
# Attempts. If a connection breaks, Ansible's ssh connection sends the same request again (ansible_ssh_retries) while
# the first attempt may still run. Both have the same request_nonce. The second waits for the first (take_lock), sees
# what it has done (.last-change), completes it and reports the same result.
#
# Requested by:
#   request_command         the command
#   request_path            the path
#   request_nonce           letters and digits that name this change, the same in all attempts to make it
#   request_current         the generation that is believed to be in use; empty: none
#   request_target          roll_back: the generation to return to
#   request_digests         roll_back: the SHA-256 digests of its files, as sha256sum prints them
#   request_files           "octal-mode symbolic-mode name" of each file of the bundle, in words
#   request_user_id         owner of directories
#   request_owner_id        owner of files
#   request_group_id        group of both
#   request_directory_mode  octal mode of directories
#   request_keep            how many previous generations stay
#   request_history         new content of history.json; empty: leave it as it is
#   request_known_history   its content as the run has seen it; "?": overwrite whatever is there
#   request_reload_command  hook after a switch and after a removal; may be empty
#   request_health_command  hook that must succeed after a switch; may be empty
#   request_health_timeout  seconds that each hook may take
#
# Globals:
#   attempt            names the files of this attempt
#   lock               content of the lock of this attempt
#   staging            install: the directory with the unpacked stream: this script, `digests` and `files`
#   generation         install: the generation of the new bundle
#   unused_generation  directory of a generation that is not in use yet and is removed if the attempt fails
#   problem            what is wrong with the hook that failed last
#   tries, give_up_at  of take_lock: how often it has failed, and until when it waits
# Every other variable belongs to one function, or means the same in several.
#
# Prints one of: installed GENERATION, rolled_back GENERATION, attributes_set GENERATION, history_written, removed, or
# failed CODE SENTENCE.

attempt=$request_nonce-$$
unused_generation=''

# Installs the unpacked bundle as the next generation. Its working directory is the staging directory.
install() {
    staging=${PWD##*/}
    open_path
    if is_switched; then
        generation=$(generation_in_use)
    else
        require_expected_generation
        check_staged_files
        add_generation
        replace_history
        switch_to "$generation"
    fi
    sync_path
    finish_health_check "$generation"
    rm -f .newest
    discard_failed_generations
    clean_up_leftovers "$request_current"
    prune_generations
    say "installed $generation"
}

# Switches to a generation that is still there. The one in use stays where it is.
roll_back() {
    open_path
    if ! is_switched; then
        require_expected_generation
        require_intact_target
        set_ownership_of_directory .
        set_ownership_of_directory generations
        set_ownership_of_directory "generations/$request_target"
        set_ownership_of_files "generations/$request_target"
        mark_newest
        replace_history
        switch_to "$request_target"
    fi
    sync_path
    finish_health_check "$request_target"
    clean_up_leftovers "$(last_generation)"
    prune_generations
    say "rolled_back $request_target"
}

# Gives the installed files and the directories their owner, group and modes, and cleans up.
set_attributes() {
    open_path
    require_expected_generation
    set_ownership_of_directory .
    set_ownership_of_directory generations
    set_ownership_of_directory "generations/$request_current"
    set_ownership_of_files "generations/$request_current"
    finish_health_check "$request_current"
    clean_up_leftovers "$(last_generation)"
    prune_generations
    say "attributes_set $request_current"
}

write_history() {
    open_path
    require_expected_generation
    replace_history
    say "history_written"
}

# Removes everything but the history. The reload hook runs once no credentials are left to read.
remove() {
    open_path
    # without `current`, an earlier attempt or another run has begun to remove the rest
    if [ -L current ] || [ -e current ]; then require_expected_generation; fi
    replace_history
    reloaded=yes
    if [ -L current ] || [ -e generations ] || [ -L .health-check ]; then
        begin_health_check
        rm -f current .newest 2>/dev/null
        reload_consumers || reloaded=no
    fi
    rm -rf generations .staging-* 2>/dev/null
    [ ! -e generations ] && [ ! -L current ] || fail permission "cannot remove everything in $request_path"
    [ "$reloaded" = yes ] || fail health_check_failed "$problem after the credentials were removed"
    rm -rf .health-check .last-change .lock
    cd / && rmdir "$request_path" 2>/dev/null
    say "removed"
}

# ---- the path: entered and locked before every change ----

open_path() {
    [ ! -L "$request_path" ] || fail bad_path "$request_path is a symbolic link"
    [ -e "$request_path" ] || path_is_gone
    cd -P -- "$request_path" 2>/dev/null || fail bad_path "cannot enter $request_path"
    [ -w . ] || fail permission "cannot write to $request_path"
    take_lock
    trap close_path EXIT
    [ "$(readlink .last-change)" != "$request_nonce.reverted" ] ||
        fail health_check_failed "an earlier attempt of this run was reverted; generation $(generation_in_use) is in use"
}

# Runs when the script ends, however it ends, except by SIGKILL.
close_path() {
    [ -z "$unused_generation" ] || rm -rf "${request_path:?}/$unused_generation"
    rm -rf "$request_path/.staging-link-$attempt" "$request_path/.staging-history-$attempt"
    [ "$(readlink "$request_path/.lock")" != "$lock" ] || rm -f "$request_path/.lock"
}

# Ends the script where the path does not exist, or no longer: then there is nothing left to remove.
path_is_gone() {
    [ -x "${request_path%/*}/" ] || fail bad_path "cannot enter $request_path"
    if [ "$request_command" = remove ] && [ -z "$request_history" ]; then
        say "removed"
        say end
        exit 0
    fi
    fail concurrent_change "another run has removed $request_path"
}

# Takes the lock: a link that leads nowhere and names the process that holds it. A link is made in one step, and not if
# its name exists. flock would do, but not every BusyBox has it.
#
# The lock of a process that died is not removed, because of two runs that try, the slower one would remove the lock of
# the faster one. It is inherited: .staging-heir-PROCESS names the heir of a dead process. No name of a process ever
# comes back (process_identity), so each of them has one heir.
#
# 1. Make the link .lock. If that succeeds, the lock is taken.
# 2. Otherwise read which process holds it. If it was released meanwhile, go back to 1.
# 3. If that process is alive: an earlier attempt of this run will end, so wait and go back to 1. Any other: give up.
# 4. If it is dead: make the link to its heir. If that exists, the heir holds the lock: go on with that process at 3.
# 5. Read .lock again. If it no longer names the process of step 2, a faster run has inherited the lock and has removed
#    the links to the heirs: remove the one just made, and go back to 1.
# 6. Rename an own link to .lock, and remove the links to the heirs. The lock is taken.
#
# If none of this succeeds often enough, links cannot be made here.
take_lock() {
    lock=$(process_identity $$).$request_nonce
    give_up_at='' tries=0
    until ln -sn "$lock" .lock 2>/dev/null || inherit_lock; do # 1
        [ "$tries" -lt 99 ] || cannot_create .lock
    done
    [ ! -d .lock ] || fail bad_path "$request_path/.lock is in the way" # a directory, in which ln has made the link
}

# Steps 2 to 6; fails if step 1 is to be tried again.
inherit_lock() {
    dead=$(read_holder .lock) # 2
    holder=$dead
    until is_alive "$holder"; do # 3
        tries=$((tries + 1))
        [ -n "$holder" ] && [ "$tries" -lt 99 ] || return 1
        heir=.staging-heir-$holder
        if ln -sn "$lock" "$heir" 2>/dev/null && [ -L "$heir" ]; then # 4; in a directory, ln makes the link inside
            if [ "$(read_holder .lock)" = "$dead" ] && replace_link .lock "$lock"; then # 5 and 6
                rm -rf .staging-heir-*
                return 0
            fi
            rm -rf "$heir" ".staging-link-$attempt"
            return 1
        fi
        holder=$(read_holder "$heir")
    done
    [ "${holder##*.}" = "$request_nonce" ] || fail concurrent_change "another run is changing $request_path"
    wait_for_earlier_attempt
    return 1
}

# Prints which process a link names, or "unknown" if something else is there, or nothing if nothing is there.
read_holder() { # link
    [ -L "$1" ] || [ -e "$1" ] || return 0
    named=$(readlink "$1")
    case $named in
        '' | *[!0-9a-z.]*) say unknown ;;
        *) say "$named" ;;
    esac
}

# Waits a second, for as long as an earlier attempt can take: up to three hooks, and a minute for everything else.
wait_for_earlier_attempt() {
    if [ -z "$give_up_at" ]; then
        give_up_at=$(($(uptime_seconds) + 60))
        has_hooks && give_up_at=$((give_up_at + 3 * request_health_timeout))
    fi
    [ "$(uptime_seconds)" -lt "$give_up_at" ] ||
        fail concurrent_change "an earlier attempt of this run is still changing $request_path"
    sleep 1
}

is_alive() { # process as the lock names it
    process_id=${1#*.}
    process_id=${process_id%%.*}
    case $process_id in
        '' | *[!0-9]*) return 1 ;;
    esac
    [ "$(process_identity "$process_id")" = "${1%.*}" ]
}

# Prints BOOT.PID.START, which no other process ever has; without /proc only the PID between two dots. Nothing for a
# process that does not exist. The boot ID is cut, because a file system stores a link of 60 characters or more in a
# block of its own, which a full disk does not have.
process_identity() { # process ID
    boot='' start=''
    { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
    read_status "/proc/$1"
    [ -z "$process" ] || {
        # shellcheck disable=SC2086  # to be split into words, after the name in parentheses
        set -- "$1" ${process##*") "}
        case $2 in
            [ZX]) return ;;
            *) start=${21} ;;
        esac
    }
    [ -n "$start" ] || kill -0 "$1" 2>/dev/null && say "${boot%%-*}.$1.$start"
}

# Seconds since the system started, which a change of the clock does not affect; without /proc, those of the clock.
uptime_seconds() {
    uptime=''
    { read -r uptime _ </proc/uptime; } 2>/dev/null
    [ -n "$uptime" ] || uptime=$(date +%s)
    say "${uptime%%.*}"
}

# ---- generations ----

# Whether an earlier attempt of this run has switched already.
is_switched() { [ "$(readlink .last-change)" = "$request_nonce.$(generation_in_use)" ]; }

require_expected_generation() {
    in_use=$(generation_in_use)
    [ "$in_use" = "$request_current" ] ||
        fail concurrent_change "current is ${in_use:-absent}, it was ${request_current:-absent} before"
}

generation_in_use() { (enter_generation_in_use && say "${PWD##*/}"); }

# The last generation that was ever in use; after a roll back it is not the one in use. Later ones come from a crash.
last_generation() {
    newest=$(readlink .newest)
    case $newest in
        [0-9][0-9][0-9][0-9][0-9][0-9]) [ "$newest" -lt "${request_current:-0}" ] || { say "$newest" && return; } ;;
    esac
    say "$request_current"
}

# The names of complete generations, oldest first; with a suffix, of those that have it, without it.
generations() { # suffix, if any
    for entry in generations/[0-9][0-9][0-9][0-9][0-9][0-9]"${1:-}"; do
        [ -d "$entry" ] && [ ! -L "$entry" ] || continue
        name=${entry#generations/}
        say "${name%"${1:-}"}"
    done
}

is_generation() { # name
    case $1 in
        [0-9][0-9][0-9][0-9][0-9][0-9]) [ -d "generations/$1" ] && [ ! -L "generations/$1" ] ;;
        *) return 1 ;;
    esac
}

# The number after every number that was in use, so that none is used twice. 000009 is followed by 000010; leading
# zeros are cut off because a shell would read an octal number.
next_generation() {
    highest=$(last_generation)
    for candidate in $(generations) $(generations -failed); do
        [ "$candidate" -le "${highest:-0}" ] || highest=$candidate
    done
    digits=${highest#"${highest%%[!0]*}"}
    printf '%06d\n' $((${digits:-0} + 1))
}

# Checks the unpacked files and makes them final: content, owner, group, modes, and that they are on the disk.
check_staged_files() {
    [ -d "$staging/files" ] || fail concurrent_change "another run has cleared $request_path"
    command -v setfacl >/dev/null 2>&1 || require_umask_counts
    (cd "$staging" && have_digests "$(cat digests)" && cd files && holds_regular_files) 2>/dev/null ||
        fail disk_full "the disk did not keep what was written to it"
    set_ownership_of_directory .
    set_ownership_of_directory "$staging/files"
    set_ownership_of_files "$staging/files"
    if command -v restorecon >/dev/null 2>&1; then restorecon -RF "$staging/files" >/dev/null 2>&1; fi
    sync "$staging/files"/* "$staging/files" 2>/dev/null || sync
}

# Moves the files to the next generation. A directory is never renamed onto one that holds files.
add_generation() {
    [ -d generations ] || mkdir generations 2>/dev/null || cannot_create generations
    set_ownership_of_directory generations
    generation=$(next_generation)
    { mv -- "$staging/files" "$staging/$generation" && mv -- "$staging/$generation" generations/; } 2>/dev/null ||
        fail concurrent_change "another run has taken generation $generation"
    unused_generation=generations/$generation
}

require_intact_target() {
    is_generation "$request_target" || fail no_generation "generation $request_target is gone"
    (cd -P -- "generations/$request_target" && holds_regular_files && have_digests "$request_digests") 2>/dev/null ||
        fail no_generation "generation $request_target is damaged"
}

mark_newest() {
    last=$(last_generation)
    [ "$(readlink .newest)" = "$last" ] || set_link .newest "$last"
}

# Records which generation this run switches to, and switches.
switch_to() { # generation
    set_link .last-change "$request_nonce.$1"
    begin_health_check
    set_link current "generations/$1"
    unused_generation=''
}

# Whether the files in the working directory have these digests. Not every sha256sum can compare them itself.
have_digests() { # lines as sha256sum prints them
    [ "$1" = "$(say "$1" | {
        set --
        while read -r _ file; do set -- "$@" "$file"; done
        sha256sum -- "$@"
    })" ]
}

sync_path() { sync . generations 2>/dev/null || sync; }

# ---- owner, group and mode ----

# Sets them for the files of the bundle, and reads them back: a file system that cannot keep a private key private must
# not get one. tar keeps owner and mode for some users only.
set_ownership_of_files() { # directory
    # a file that has another name, too, may be in use outside of the path
    linked=$(ls -ldn "$1"/* 2>/dev/null | while read -r mode links _; do
        case $mode,$links in (-*,1 | [!-]*) ;; (*) say linked ;; esac
    done)
    [ -z "$linked" ] || fail bad_path "a file in $request_path/$1 has a hard link elsewhere"
    remove_access_lists "$1"/*
    bundle=$1
    # shellcheck disable=SC2086  # to be split into words
    set -- $request_files
    while [ $# -gt 2 ]; do
        file=$bundle/$3
        [ -f "$file" ] && [ ! -L "$file" ] && chown -h "$request_owner_id:$request_group_id" "$file" 2>/dev/null &&
            chmod "$1" "$file" 2>/dev/null || fail permission "cannot set owner, group and mode of $request_path/$file"
        shift 3
    done
    require_ownership_of_files "$bundle"
}

require_ownership_of_files() { # directory
    listing=$(ls -ldn "$1"/* | while read -r mode _ owner group entry; do
        say "/${mode%[.@]} $owner:$group ${entry##*/}/"
    done)
    # shellcheck disable=SC2086  # to be split into words
    set -- $request_files
    while [ $# -gt 2 ]; do
        case $listing in
            *"/$2 $request_owner_id:$request_group_id $3/"*) shift 3 ;;
            *) fail permission "the file system of $request_path does not keep owner, group and mode of $3" ;;
        esac
    done
}

# Directories belong to the user that runs this, even where the files have another owner: the owner of a directory can
# put a link in the place of what is about to get its owner and mode. For the same reason outer directories come first.
set_ownership_of_directory() { # directory
    [ -d "$1" ] && [ ! -L "$1" ] || fail bad_path "$request_path/$1 is not a directory"
    remove_access_lists "$1"
    # an octal mode leaves the set-group-ID bit of a directory as it is
    chown -h "$request_user_id:$request_group_id" "$1" 2>/dev/null && chmod ug-s,o-t "$1" 2>/dev/null &&
        chmod "$request_directory_mode" "$1" 2>/dev/null ||
        fail permission "cannot set owner, group and mode of $request_path/$1"
}

# Removes access control lists, which a directory hands down to what is made in it: they let others read what the modes
# keep from them. ls marks them with a plus, but that of BusyBox does not, so setfacl runs wherever it exists. It follows
# links, which are therefore left out.
remove_access_lists() { # files and directories
    for entry in "$@"; do
        shift
        [ -L "$entry" ] || set -- "$@" "$entry"
    done
    [ $# -gt 0 ] || return 0
    if command -v setfacl >/dev/null 2>&1; then setfacl -b -k -- "$@" 2>/dev/null; fi
    kept=$(access_lists "$@")
    [ -z "$kept" ] || fail permission "cannot remove the access control list of $request_path/$kept"
}

# An access control list that is handed down overrides the umask. Where ls does not show it, that does.
require_umask_counts() {
    mkdir "$staging/umask" 2>/dev/null || cannot_create "$staging/umask"
    case $(ls -ldn "$staging/umask") in
        drwx------*) rmdir "$staging/umask" ;;
        *) fail permission "$request_path has an access control list, and there is no setfacl to remove it" ;;
    esac
}

# Prints the names of those that have an access control list.
access_lists() { # files and directories
    ls -ldn -- "$@" 2>/dev/null | while read -r mode entry; do
        case $mode in (*+) say "${entry##* }" ;; esac
    done
}

# Whether every file of the bundle in the working directory is one: reading anything else follows a link or never ends.
holds_regular_files() {
    # shellcheck disable=SC2086  # to be split into words
    set -- $request_files
    while [ $# -gt 2 ]; do
        [ -f "$3" ] && [ ! -L "$3" ] || return 1
        shift 3
    done
}

# ---- history ----

# Writes history.json before a switch, so that no Thing is ever missing from it; readers leave out the Thing in use.
# The changes of another run since the look are not overwritten; an earlier attempt of this run has written the same.
replace_history() {
    [ -n "$request_history" ] || return 0
    written=''
    if [ -f history.json ] && [ ! -L history.json ]; then written=$(cat history.json); fi
    [ "$written" != "$request_history" ] || return 0
    [ "$request_known_history" = '?' ] || [ "$request_known_history" = "$written" ] ||
        fail concurrent_change "another run has written $request_path/history.json"
    # in a directory of this attempt, where no link can have been planted to write through
    draft=.staging-history-$attempt/history.json
    mkdir "${draft%/*}" 2>/dev/null || cannot_create "${draft%/*}"
    say "$request_history" 2>/dev/null >"$draft" || fail disk_full "cannot write $request_path/$draft"
    sync "$draft" 2>/dev/null || sync
    chown "$request_owner_id:$request_group_id" "$draft" 2>/dev/null && chmod 0640 "$draft" 2>/dev/null &&
        mv -f -- "$draft" . 2>/dev/null || fail permission "cannot replace $request_path/history.json"
    rmdir "${draft%/*}"
}

# ---- health check: the hooks run after a switch, and if they fail, the gateway itself reverts the switch ----

has_hooks() { [ -n "$request_reload_command$request_health_command" ]; }

# A health check that a crash has interrupted goes on, unless a removal was interrupted, which leaves nothing to return
# to.
begin_health_check() {
    has_hooks || return 0
    [ -n "$request_current" ] && [ -n "$(generation_to_return_to)" ] ||
        set_link .health-check "${request_current:-none}"
}

# Prints what .health-check names, if that is still there: a generation, or "none" where nothing was in use.
generation_to_return_to() {
    origin=$(readlink .health-check)
    if [ "$origin" = none ] || is_generation "$origin"; then say "$origin"; fi
}

finish_health_check() { # generation in use
    has_hooks && [ -L .health-check ] || return 0
    consumers_are_healthy || revert "$1"
    rm -f .health-check
}

# The health command is repeated until it succeeds or the time is over: consumers need a moment to connect.
consumers_are_healthy() {
    reload_consumers || return 1
    [ -n "$request_health_command" ] || return 0
    deadline=$(($(uptime_seconds) + request_health_timeout))
    remaining=$request_health_timeout
    until run_hook health_command "$request_health_command" "$remaining"; do
        remaining=$((deadline - $(uptime_seconds) - 1))
        [ "$remaining" -gt 0 ] || return 1
        sleep 1
    done
    return 0 # and not the status of the last sleep
}

reload_consumers() {
    [ -z "$request_reload_command" ] ||
        run_hook reload_command "$request_reload_command" "$request_health_timeout"
}

run_hook() { # name command seconds
    run_within "$3" sh -c "$2" >/dev/null
    hook_status=$?
    [ "$hook_status" -ne 0 ] || return 0
    [ "$hook_status" -ne 137 ] || hook_status="137 (it was stopped after $3 seconds)"
    problem="$1 ended with status $hook_status"
    return 1
}

# Returns to what was in use before the switch, and ends the script.
revert() { # generation that failed
    reason=$problem
    previous=$(generation_to_return_to)
    # a missing link was removed by another process, and does not mean that nothing was in use
    previous=${previous:-$request_current}
    [ "$previous" != "$1" ] ||
        fail health_check_failed "$reason; generation $1 is in use, and there is none to return to"
    if is_generation "$previous"; then
        set_link current "generations/$previous"
        result="generation $previous is in use again"
    elif [ "$previous" = none ]; then
        rm -f current
        result="no generation is in use"
    else
        fail concurrent_change "$reason; generation $1 is in use, and what was in use before it is gone"
    fi
    set_aside_failed "$1" "${previous#none}" && result="$result, $1 is kept aside as $1-failed"
    reload_consumers || result="$result, but reload_command failed"
    rm -f .health-check
    replace_link .last-change "$request_nonce.reverted"
    sync_path
    fail health_check_failed "$reason; $result"
}

# Only a generation that has never worked is set aside; the target of a roll back has worked before.
set_aside_failed() { # generation that failed, previous generation if any
    newest=$(readlink .newest)
    [ "$1" -gt "${2:-0}" ] && [ "$1" -gt "${newest:-0}" ] || return 1
    discard_failed_generations
    mv -- "generations/$1" "generations/$1-failed"
}

discard_failed_generations() { rm -rf generations/[0-9][0-9][0-9][0-9][0-9][0-9]-failed; }

# ---- cleaning up: after a change, when nothing can be lost any more ----

# Removes what crashed attempts left, under the lock: what they had staged, an interrupted health check that has no
# hooks any more, and generations that never were in use.
clean_up_leftovers() { # the last generation that was in use before this change, if any
    for leftover in .staging-* .health-check; do
        is_living_attempt "$leftover" || rm -rf "$leftover"
    done
    in_use=$(generation_in_use)
    for candidate in $(generations); do
        [ "$candidate" -le "${1:-0}" ] || [ "$candidate" = "$in_use" ] || rm -rf "generations/$candidate"
    done
}

# Whether a living attempt of this run, maybe this one, has unpacked its stream there.
is_living_attempt() { # name
    case $1 in
        ".staging-$request_nonce-"*) kill -0 "${1##*-}" 2>/dev/null ;;
        *) return 1 ;;
    esac
}

# Removes the oldest generations beyond request_keep. The newest stays in any case, so that a roll back can be undone.
prune_generations() {
    in_use=$(generation_in_use)
    newest=$(readlink .newest)
    surplus=$((-request_keep - 1))
    for candidate in $(generations); do surplus=$((surplus + 1)); done
    for candidate in $(generations); do
        [ "$surplus" -gt 0 ] || break
        [ "$candidate" != "$in_use" ] && [ "$candidate" != "$newest" ] || continue
        surplus=$((surplus - 1))
        rm -rf "generations/$candidate"
    done
}

# ---- links ----

set_link() { # name target
    replace_link "$1" "$2" && return
    draft=.staging-link-$attempt
    { [ -d "$draft" ] && [ ! -L "$draft" ]; } || cannot_create "$draft"
    [ -L "$draft/$1" ] || cannot_create "$draft/$1"
    fail bad_path "cannot replace $request_path/$1"
}

# Makes a link, or makes it lead elsewhere, by one rename: a move into a directory replaces what has the name there. A
# move to the name would go into the directory to which it leads, and not every mv has an option against that.
replace_link() { # name target
    mkdir ".staging-link-$attempt" 2>/dev/null && ln -s "$2" ".staging-link-$attempt/$1" 2>/dev/null &&
        mv -f -- ".staging-link-$attempt/$1" . 2>/dev/null && rmdir ".staging-link-$attempt"
}

# Ends the script and says why a name in the path could not be created.
cannot_create() { # name
    [ -d "$request_path" ] || path_is_gone
    case $(rmdir .thingstream-absent 2>&1) in
        *[Rr]ead-only*) fail permission "$request_path is on a read-only file system" ;;
    esac
    if [ -e "$1" ] || [ -L "$1" ]; then fail bad_path "$request_path/$1 is in the way"; fi
    fail disk_full "cannot create $request_path/$1"
}

reply "$request_command" "$@"

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say where a bundle lives, how it must look, and who reads it. Private to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of ``target_options.TARGET_ARGUMENTS``."""

    DOCUMENTATION = r"""
options:
  path:
    description:
      - The directory on the host that holds the bundle. Missing parents are created with mode V(0755).
      - It must be absolute and no symbolic link. It and every directory above it must belong to V(root), to the user
        that runs the commands, or to O(owner), and none may be writable by everybody unless it is sticky. What
        symbolic links above it lead through is looked at, too.
      - If not set, V(/etc/thingstream/) followed by the O(service).
      - Consumers read RV(path)C(/current/)I(file) and nothing else.
    type: str
  owner:
    description:
      - The user on the host that the files belong to, a name or a number.
      - If not set, the user that runs the commands there, with C(become) mostly V(root).
      - The directories belong to the user that runs the commands in any case, so that no other one can plant a link
        where V(root) is about to set owner and mode.
    type: str
  group:
    description:
      - The group on the host that the files belong to, a name or a number. Its members can read the secrets, if
        O(secret_mode) says so.
      - If not set, the primary group of O(owner), or of the user that runs the commands.
      - An O(owner) who is not V(root) has to be in this group to enter directories of mode V(0750).
    type: str
  directory_mode:
    description:
      - The mode of O(path) and the directories in it, in octal digits.
    type: raw
    default: "0750"
  secret_mode:
    description:
      - The mode of files that hold a secret, in octal digits. Nobody but owner and group may be given access.
      - The raw response is always V(0600), and the record C(thing.json) always V(0640).
    type: raw
    default: "0640"
  public_mode:
    description:
      - The mode of certificates, in octal digits.
    type: raw
    default: "0644"
  keep:
    description:
      - How many previous generations stay on the host for a roll back.
    type: int
    default: 2
  reload_command:
    description:
      - A command on the host that makes consumers read the files again, in the language of C(sh), for example
        V(systemctl reload mosquitto). It runs as the user that runs the commands there, whenever other files have been
        switched to, and when they were removed.
      - Neither its output nor that of O(health_command) is read, so that it may hold anything.
    type: str
  health_command:
    description:
      - A command on the host that succeeds once consumers work with what they have read. It is repeated until it does.
      - If it does not within O(health_timeout), or if O(reload_command) fails, the host itself returns to what was in
        use before and reloads again, even if the connection is gone by then; the task fails with
        C(health_check_failed), and what failed is kept beside the other generations under a name that ends with
        C(-failed).
    type: str
  health_timeout:
    description:
      - How many seconds O(reload_command) may take, and O(health_command) with all its repetitions.
    type: float
    default: 30
"""

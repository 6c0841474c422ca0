# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options for the place and the owner of a bundle. Private to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of ``target_options.LOCATION_ARGUMENTS``."""

    DOCUMENTATION = r"""
options:
  service:
    description:
      - The service of the platform. It must match the device type of the device profile.
      - V(pointperfect) is PointPerfect Flex, V(pointperfect-live) is PointPerfect Live, V(cloudlocate) is CloudLocate.
    type: str
    required: true
    choices: [cloudlocate, pointperfect, pointperfect-live]
  path:
    description:
      - The directory on the host that holds the bundle. Missing parent directories are created with mode V(0755).
      - It must be an absolute path, and must not be a symbolic link. The directory and all its parents must belong to
        V(root), to the user that runs the commands, or to O(owner). None of them may be world-writable, except for
        sticky parents. The same holds for the targets of symbolic links above it.
      - If not set, V(/etc/thingstream/) followed by the O(service).
      - Consumers read only O(path)C(/current/)I(file).
    type: str
  owner:
    description:
      - The user on the host that owns the files, as a name or a number.
      - If not set, the user that runs the commands there; with C(become) this usually is V(root).
      - Directories always belong to the user that runs the commands, so that no other user can plant a link where
        V(root) sets owner and mode.
    type: str
  group:
    description:
      - The group on the host that owns the files, as a name or a number. By default its members can read the secrets.
      - If not set, the primary group of O(owner), or of the user that runs the commands.
      - An O(owner) other than V(root) must be in this group to enter directories of mode V(0750).
    type: str
"""

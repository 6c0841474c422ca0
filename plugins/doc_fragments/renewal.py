# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say when credentials are renewed. Private to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of ``renewal_options.RENEWAL_ARGUMENTS``."""

    DOCUMENTATION = r"""
options:
  renew_before:
    description:
      - How long before its end a certificate is renewed, in days (V(30)) or as a percentage of its lifetime (V(33%)).
      - Days are capped to half of the lifetime, and O(renew_spread) to half of what then remains, with a warning. The
        same date makes the next request due 20 hours after a response at the earliest.
    type: str
    default: "30"
  renew_spread:
    description:
      - The maximum number of days by which a renewal comes earlier, so that a fleet is not renewed on one day. The
        number depends only on the hardware ID, and is the same in every run.
    type: float
    default: 7
  keys_renew_before:
    description:
      - How many days before the end of the last dynamic key new keys are fetched.
      - The platform publishes the next key 28 days before its start (seen in client code). The sum of
        O(keys_renew_before) and O(renew_spread) is capped to V(28), with a warning.
    type: float
    default: 14
  max_age:
    description:
      - After how many days credentials are renewed although no date in them makes a renewal due. Use it for logins with
        a user name and a password, which have no end date.
      - If the platform returns the same credentials again, their age restarts at that time.
      - At least V(1). O(renew_spread) is capped to half of it, with a warning.
      - If not set, age alone makes no renewal due.
    type: float
"""

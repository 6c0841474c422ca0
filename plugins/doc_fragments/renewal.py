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
      - How long before the end of a certificate it is renewed, in days (V(30)) or as a percentage of its lifetime
        (V(33%)).
    type: str
    default: "30"
  renew_spread:
    description:
      - Renewals come earlier by up to this many days. How many depends on the hardware ID only, so that it is always
        the same day for one host and never the same day for all.
    type: float
    default: 7
  keys_renew_before:
    description:
      - How many days before the end of the last dynamic key new keys are fetched.
      - The platform has the next key 28 days before it is needed (seen in client code), so that O(keys_renew_before)
        and O(renew_spread) together should stay below V(28).
    type: float
    default: 14
  max_age:
    description:
      - After how many days credentials are renewed although no date in them asks for it. Meant for those with user and
        password, which carry no date.
      - Where the platform returns the same credentials, their age counts from then on.
      - If not set, age alone is no reason.
    type: float
"""

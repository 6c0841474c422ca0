# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""A simulator of the Thingstream Zero Touch Provisioning API, for tests, demonstrations and benchmarks.

Three words tell how well a behavior of the platform is known: *documented* (by u-blox), *seen in client code*
(public programs that talk to the real service), *assumed* (the simulator had to choose something).
"""

# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts to which the controller connects with credentials that a gateway stores.

An attacker with control of a gateway can put any host and port into its credentials. Without a limit, the controller
would connect to servers of its own network on behalf of the attacker.

Private to the collection.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ProvisioningError

# The brokers and casters of the platform (seen in client code): pp.services.u-blox.com, ppntrip.services.u-blox.com,
# mqtt.thingstream.io.
DEFAULT_HOSTS = ("u-blox.com", "thingstream.io")

_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class AllowedHosts:
    """Domains with all their hosts, and networks.

    :param domains: in lower case.
    """

    domains: tuple[str, ...]
    networks: tuple[_Network, ...]

    @classmethod
    def parse(cls, entries: Sequence[str]) -> AllowedHosts:
        """Return the hosts that the entries of an option name: domains, addresses and networks such as 10.0.0.0/8.

        :raises ProvisioningError: ``bad_option``.
        """
        domains: list[str] = []
        networks: list[_Network] = []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                domain = entry.lower().removeprefix("*.").rstrip(".")
                if not _NAME.fullmatch(domain):
                    raise ProvisioningError(
                        "bad_option",
                        f"allowed_hosts: {entry!r} is neither a domain such as u-blox.com nor an address or network "
                        "such as 10.0.0.0/8.",
                    ) from None
                domains.append(domain)
        return cls(tuple(domains), tuple(networks))

    def check_host(self, host: str) -> None:
        """Check a host as credentials name it.

        :raises ProvisioningError: ``host_not_allowed``.
        """
        address = _address_of(host)
        if address is not None:
            allowed = self._is_in_a_network(address)
        else:
            name = host.lower().removesuffix(".")
            allowed = bool(_NAME.fullmatch(name)) and any(
                name == domain or name.endswith(f".{domain}") for domain in self.domains
            )
        if not allowed:
            raise ProvisioningError(
                "host_not_allowed",
                f"The credentials on the gateway name the host {host}, to which the controller does not connect on "
                "behalf of a gateway. If it is the right host, add it to allowed_hosts; otherwise the files on the "
                "gateway were changed.",
            )

    def check_address(self, host: str, address: str) -> None:
        """Check an address to which the name of an allowed host resolves.

        :raises ProvisioningError: ``host_not_allowed``.
        """
        found = _address_of(address)
        if found is None or not (self._is_in_a_network(found) or (found.is_global and not found.is_multicast)):
            raise ProvisioningError(
                "host_not_allowed",
                f"The name {host} resolves to {address}, which is not a public address. If that is right, add the "
                "address or its network to allowed_hosts; otherwise check the DNS of the controller.",
            )

    def _is_in_a_network(self, address: _Address) -> bool:
        return any(address in network for network in self.networks)


def _address_of(text: str) -> _Address | None:
    """Return an IP address, or ``None`` for a name. An IPv4 address in the form of an IPv6 address becomes itself."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

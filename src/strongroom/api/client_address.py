"""Where a call comes from: the client's address behind trusted proxies, for allow-lists and rate limits.

The right-most `X-Forwarded-For` hop that is not a trusted proxy is the client (the contract's section 2). Hops further
left were written by the client itself and say nothing. The header only counts when the peer is a trusted proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
"""Most hops of `X-Forwarded-For` that are looked at, from the right."""

_MAPPED_PREFIX: Final = 96
_LONGEST_ADDRESS: Final = 64
_CACHED: Final = 16_384


class Client(NamedTuple):
    """A caller's address, None when it cannot be determined, and the bucket of its rate limits.

    All addresses of one IPv6 /64 have one bucket, and so have all callers without an address.
    """

    address: Address | None
    bucket: int


UNKNOWN: Final = Client(None, -1)
"""A caller whose address cannot be determined: on no allow-list."""


@lru_cache(_CACHED)
def read_address(text: str) -> Client:
    """Return the client at the IPv4 or IPv6 address that `text` spells, IPv4-mapped ones unmapped; UNKNOWN if none."""
    if len(text) > _LONGEST_ADDRESS:
        return UNKNOWN
    try:
        address = ip_address(text)
    except ValueError:
        return UNKNOWN
    if isinstance(address, IPv4Address):
        return Client(address, int(address))
    if address.ipv4_mapped is not None:
        return Client(address.ipv4_mapped, int(address.ipv4_mapped))
    # Without its zone, which names an interface of this machine and is no part of the address.
    return Client(IPv6Address(int(address)), 1 << 64 | int(address) >> 64)


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks that settings or a key's allow-list name (`10.0.0.0/8`, `192.0.2.7`); raises ValueError."""
    return tuple(_unmapped(ip_network(text.strip())) for text in texts)


def _unmapped(network: Network) -> Network:
    """Return an IPv4-mapped network as the IPv4 network it stands for."""
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_PREFIX:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))
    return network


def in_networks(address: Address | None, networks: Sequence[Network]) -> bool:
    """Say whether `address` lies in one of `networks`; one that cannot be determined lies in none."""
    return address is not None and any(address in network for network in networks)


class ClientAddresses:
    """Finds the clients of one server, whose proxies are in the `trusted` networks."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def find(self, peer: str | None, forwarded: Sequence[bytes] = ()) -> Client:
        """Return the client that speaks through `peer`, given the values of all `X-Forwarded-For` headers in order.

        UNKNOWN when the peer has no address (a local socket), or when a trusted proxy names a hop that is none.
        """
        client = read_address(peer) if peer else UNKNOWN
        if not forwarded or not self._trusted or not in_networks(client.address, self._trusted):
            return client
        hops = b",".join(forwarded).decode("latin-1").rsplit(",", MAX_HOPS)
        for hop in reversed(hops[-MAX_HOPS:]):
            client = read_address(hop.strip(" \t"))
            if not in_networks(client.address, self._trusted):
                return client
        # Only trusted proxies as far as we look: the first of them speaks for itself.
        return client if len(hops) <= MAX_HOPS else UNKNOWN

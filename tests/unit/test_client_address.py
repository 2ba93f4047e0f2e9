"""A client's address is the one that a trusted proxy saw, never one that the client wrote itself."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.api.client_address import MAX_HOPS, UNKNOWN, ClientAddresses, in_networks, read_address, read_networks

PROXIES = read_networks(["10.0.0.0/8", "fd00::/8"])


def found(peer: str | None, *forwarded: bytes) -> str | None:
    """Return the address that a server behind `PROXIES` finds."""
    address = ClientAddresses(PROXIES).find(peer, forwarded).address
    return None if address is None else str(address)


def test_without_the_header_the_peer_is_the_client() -> None:
    """A direct connection, also one from a proxy itself, comes from its peer."""
    assert found("198.51.100.7") == "198.51.100.7"
    assert found("10.0.0.1") == "10.0.0.1"
    assert found("2001:db8::1") == "2001:db8::1"


def test_without_trusted_proxies_the_header_says_nothing() -> None:
    """By default nobody can choose an address."""
    assert ClientAddresses().find("10.0.0.1", [b"192.0.2.1"]) == read_address("10.0.0.1")


def test_the_header_of_a_stranger_says_nothing() -> None:
    """Only a trusted peer may name another address."""
    assert found("198.51.100.7", b"10.0.0.2", b"192.0.2.1") == "198.51.100.7"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([b"192.0.2.1"], "192.0.2.1"),
        ([b"203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        ([b"203.0.113.9,192.0.2.1 ,\t10.0.0.2"], "192.0.2.1"),
        ([b"203.0.113.9", b"192.0.2.1, 10.0.0.2", b"10.0.0.3"], "192.0.2.1"),
        ([b"10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        ([b"2001:DB8::0:1, fd00::1"], "2001:db8::1"),
        ([b"::ffff:192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1"),
    ],
)
def test_behind_proxies_the_right_most_stranger_is_the_client(forwarded: list[bytes], client: str) -> None:
    """Several headers count as one; trusted hops are passed over; what is further left was written by the client."""
    assert found("10.0.0.1", *forwarded) == client


@pytest.mark.parametrize(
    "forwarded",
    [b"unknown", b"", b"192.0.2.1,", b"192.0.2.1, nonsense, 10.0.0.2", b"192.0.2.256", b"\xff", b"1" * 9000],
)
def test_a_hop_that_is_no_address_leaves_the_client_unknown(forwarded: bytes) -> None:
    """The walk stops there, so that nobody further left is believed."""
    assert found("10.0.0.1", forwarded) is None


def test_a_hop_left_of_the_client_may_be_anything() -> None:
    """What the client wrote is not even read."""
    assert found("10.0.0.1", b"nonsense, 192.0.2.1") == "192.0.2.1"


def test_a_peer_without_an_address_is_unknown() -> None:
    """A local socket has no address."""
    assert found(None) is None
    assert found("") is None
    assert found("/run/strongroom.sock", b"192.0.2.1") is None


def test_only_so_many_hops_are_looked_at() -> None:
    """A chain of more proxies than anybody runs has no determinable client."""
    assert found("10.0.0.1", b",".join([b"192.0.2.1", *[b"10.0.0.2"] * (MAX_HOPS - 1)])) == "192.0.2.1"
    assert found("10.0.0.1", b",".join([b"192.0.2.1", *[b"10.0.0.2"] * MAX_HOPS])) is None


def test_ipv4_mapped_addresses_are_ipv4_addresses() -> None:
    """A dual-stack socket's peer is on the same allow-list and in the same bucket as the plain address."""
    assert read_address("::ffff:192.0.2.1") == read_address("192.0.2.1")
    assert in_networks(read_address("::ffff:192.0.2.1").address, read_networks(["192.0.2.0/24"]))
    assert in_networks(read_address("192.0.2.1").address, read_networks(["::ffff:192.0.2.0/120"]))


def test_one_ipv6_subnet_is_one_bucket() -> None:
    """A household or a server has a whole /64 at its disposal."""
    assert read_address("2001:db8:0:1::1").bucket == read_address("2001:db8:0:1:ffff::2").bucket
    buckets = {
        read_address(text).bucket for text in ["2001:db8:0:1::1", "2001:db8:0:2::1", "192.0.2.1", "192.0.2.2", "x"]
    }
    assert len(buckets) == 5
    assert read_address("::").bucket != read_address("0.0.0.0").bucket


def test_a_zone_is_no_part_of_an_address() -> None:
    """A link-local peer is the same on every interface."""
    assert read_address("fe80::1%eth0") == read_address("fe80::1")


def test_an_allow_list_names_networks_and_single_addresses() -> None:
    """Both kinds match, in their own family only; an unknown address is on no list, nor is anybody on an empty one."""
    allowed = read_networks(["192.0.2.0/24", " 198.51.100.7 ", "2001:db8::/32"])
    for text, expected in {
        "192.0.2.200": True,
        "198.51.100.7": True,
        "198.51.100.8": False,
        "2001:db8::9": True,
    }.items():
        assert in_networks(ip_address(text), allowed) is expected
    assert not in_networks(UNKNOWN.address, read_networks(["0.0.0.0/0", "::/0"]))
    assert not in_networks(ip_address("192.0.2.1"), ())
    assert not in_networks(ip_address("::1"), read_networks(["0.0.0.0/0"]))


@pytest.mark.parametrize("text", ["192.0.2.1/24", "example.org", "", "192.0.2.0/33"])
def test_a_mistaken_network_is_told(text: str) -> None:
    """Host bits, names and wrong lengths are errors, not guesses."""
    with pytest.raises(ValueError, match=r"network|host bits"):
        read_networks([text])


@given(st.text(max_size=20) | st.none(), st.lists(st.binary(max_size=40) | st.sampled_from([b"10.0.0.1", b"::1"])))
def test_any_header_has_an_outcome(peer: str | None, forwarded: list[bytes]) -> None:
    """Nothing that a peer sends breaks the search."""
    for via in (peer, "10.0.0.1"):
        assert isinstance(ClientAddresses(PROXIES).find(via, forwarded).bucket, int)

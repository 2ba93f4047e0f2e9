"""Addresses under any text: a normal spelling or a `ValueError` comes out, and no slip of the pen gets in."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from strongroom.custody import formats
from strongroom.custody.derivation import TAGS_OF_A_BRANCH, Branch, account_xpubs
from strongroom.custody.families import BITCOIN, LITECOIN, NETWORKS, RIPPLE, Network
from strongroom.custody.formats import AddressFormat
from strongroom.records.addresses import position_of

FORMATS: list[AddressFormat] = [
    formats.BITCOIN_MAINNET,
    formats.BITCOIN_REGTEST,
    formats.LITECOIN_MAINNET,
    formats.LITECOIN_REGTEST,
    formats.EVM,
    formats.RIPPLE,
]
XPUBS = account_xpubs(bytes(range(64)), NETWORKS.values())
BRANCHES = {network.id: Branch(network, XPUBS[network.id]) for network in NETWORKS.values()}
POSITIONS = st.builds(position_of, st.integers(0, 62), st.integers(0, TAGS_OF_A_BRANCH - 1))
NEAR_MISSES = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from(["bc1", "bcrt1", "BCRT1", "ltc1", "rltc1q", "0x", "0X", "r", "1", "3", "m", "2", "M", "L"]),
    st.text(alphabet=string.ascii_letters + string.digits + "\0 é٣", max_size=100),
)
TEXTS = st.text() | NEAR_MISSES | st.text(alphabet=string.printable, min_size=30, max_size=70)


@given(TEXTS)
def test_any_text_is_an_address_in_its_normal_spelling_or_a_value_error(text: str) -> None:
    """No text breaks a format, and normalising twice is normalising once."""
    for form in FORMATS:
        for normalise in (form.normalise, form.normalise_tag):
            try:
                normal = normalise(text)
            except ValueError:
                continue
            assert normalise(normal) == normal


@pytest.mark.parametrize(
    "text", ["a" * 10_000, "1" * 10_000, "0x" + "0" * 10_000, "\0", "", "\ud800", "bcrt1" + "q" * 9_999]
)
def test_a_monstrous_text_is_refused_at_once(text: str) -> None:
    """Length is bounded before anything is computed, and what is not a character is no reason to fall over."""
    for form in FORMATS:
        with pytest.raises(ValueError, match=r"\w"):
            _ = form.normalise(text)


@given(
    network=st.sampled_from([BITCOIN, LITECOIN, RIPPLE]),
    position=POSITIONS,
    place=st.integers(0, 89),
    wrong=st.sampled_from(string.ascii_letters + string.digits),
)
def test_one_wrong_character_is_always_noticed(network: Network, position: int, place: int, wrong: str) -> None:
    """The checksums of bech32 and base58 catch any single slip, wherever it is."""
    address = BRANCHES[network.id].address(position).address
    place %= len(address)
    assume(address[place] != wrong)
    with pytest.raises(ValueError, match=r"\w"):
        _ = network.format.normalise(address[:place] + wrong + address[place + 1 :])


@given(index=st.integers(0, 2**31 - 1), place=st.integers(2, 41))
def test_one_letter_in_the_wrong_case_is_always_noticed_on_the_evm(index: int, place: int) -> None:
    """EIP-55 spells the checksum in upper and lower case: turning one letter round breaks it."""
    address = BRANCHES["ERC20"].address(index).address
    turned = address[:place] + address[place].swapcase() + address[place + 1 :]
    assume(turned not in (address, address.lower(), "0x" + address[2:].upper()))
    with pytest.raises(ValueError, match="EIP-55"):
        _ = formats.EVM.normalise(turned)


@given(network=st.sampled_from(list(NETWORKS.values())), position=POSITIONS)
def test_what_is_derived_is_valid_and_in_its_normal_spelling(network: Network, position: int) -> None:
    """Addresses we give out are taken back as they are: by us, and by whoever pays there."""
    address, tag = BRANCHES[network.id].address(position)
    assert network.format.normalise(address) == address
    assert network.format.normalise_tag(tag) == tag

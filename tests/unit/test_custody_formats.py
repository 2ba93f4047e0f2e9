"""Address formats: published vectors are told apart as their authors say."""

from __future__ import annotations

import pytest

from strongroom.custody import formats
from strongroom.custody.formats import AddressFormat

VALID: list[tuple[AddressFormat, str, str]] = [
    # BIP-173 and BIP-350
    (
        formats.BITCOIN_MAINNET,
        "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    ),
    (
        formats.BITCOIN_MAINNET,
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
    ),
    (
        formats.BITCOIN_MAINNET,
        "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
        "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
    ),
    (
        formats.BITCOIN_REGTEST,
        "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    ),
    # The first block's key, the pizza-era script hash of BIP-16's announcement, and their kin on other networks
    (formats.BITCOIN_MAINNET, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    (formats.BITCOIN_MAINNET, "3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "3P14159f73E4gFr7JterCCQh9QjiTjiZrG"),
    (formats.BITCOIN_REGTEST, "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"),
    (formats.BITCOIN_REGTEST, "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc", "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc"),
    # EIP-55
    *[
        (formats.EVM, spelling, address)
        for address in (
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0xde709f2102306220921060314715629080e2fb77",
        )
        for spelling in (address, address.lower(), "0x" + address[2:].upper(), address.upper())
    ],
    # The XRP Ledger's genesis account, and its special addresses
    *[
        (formats.RIPPLE, address, address)
        for address in (
            "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh",
            "rrrrrrrrrrrrrrrrrrrrrhoLvTp",
            "rrrrrrrrrrrrrrrrrrrrBZbvji",
            "rDTXLQ7ZKZVKz33zJbHjgVShjsBnqMBhmN",
        )
    ],
]

INVALID: list[tuple[AddressFormat, str, str]] = [
    (formats.BITCOIN_MAINNET, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "BIP-173: wrong checksum"),
    (formats.BITCOIN_MAINNET, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "another network's prefix"),
    (formats.BITCOIN_REGTEST, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "the main network's prefix"),
    (formats.BITCOIN_MAINNET, "bc1rw5uspcuh", "BIP-173: program too short"),
    (formats.BITCOIN_MAINNET, "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P", "BIP-173: wrong length for version 0"),
    (formats.BITCOIN_MAINNET, "bc1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "mixed case"),
    (formats.BITCOIN_MAINNET, "bc1zw508d6qejxtdg4y5r3zarvaryvqyzf3du", "BIP-173: bech32 where bech32m belongs"),
    (formats.BITCOIN_MAINNET, "bc1gmk9yu", "BIP-173: no program at all"),
    (
        formats.BITCOIN_MAINNET,
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
        "BIP-350: bech32 instead of bech32m",
    ),
    (formats.BITCOIN_MAINNET, "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL", "BIP-350: the same"),
    (formats.BITCOIN_MAINNET, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh", "BIP-350: bech32m instead of bech32"),
    (
        formats.BITCOIN_MAINNET,
        "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
        "BIP-350: bad character",
    ),
    (formats.BITCOIN_MAINNET, "bc1pw5dgrnzv", "BIP-350: one byte of program"),
    (
        formats.BITCOIN_MAINNET,
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
        "BIP-350: 41 bytes of program",
    ),
    (formats.BITCOIN_MAINNET, "BC1SW50QGDZ25J", "encodable, but nobody knows who could spend it"),
    (formats.BITCOIN_MAINNET, "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "a test network's version byte"),
    (formats.BITCOIN_MAINNET, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", "wrong checksum"),
    (formats.BITCOIN_MAINNET, "11111111111111111111111111111111111", "zeros"),
    (formats.BITCOIN_MAINNET, "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "another alphabet"),
    (formats.LITECOIN_MAINNET, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "Bitcoin's prefix"),
    (formats.EVM, "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "one letter in the wrong case"),
    (formats.EVM, "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "no 0x"),
    (formats.EVM, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe", "39 digits"),
    (formats.EVM, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\n", "a line end"),
    (formats.EVM, "0x" + "٣" * 40, "digits of another script"),
    (formats.RIPPLE, "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTi", "wrong checksum"),
    (formats.RIPPLE, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "Bitcoin's alphabet"),
    (formats.RIPPLE, "XVLhHMPHU98es4dbozjVtdWzVrDjtV18pX8yuPT7y4xaEHi", "an X-address"),
    (formats.RIPPLE, "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh:1", "the tag belongs beside it"),
]


@pytest.mark.parametrize(("form", "address", "normal"), VALID)
def test_a_published_address_is_valid_and_has_one_spelling(form: AddressFormat, address: str, normal: str) -> None:
    """Every accepted spelling leads to the same text, which is its own normal form."""
    assert form.normalise(address) == normal
    assert form.normalise(normal) == normal


@pytest.mark.parametrize(("form", "address", "why"), INVALID, ids=[row[2] for row in INVALID])
def test_an_address_nobody_can_be_paid_at_is_refused(form: AddressFormat, address: str, why: str) -> None:
    """Wrong checksums, networks, lengths and kinds are refused with a reason."""
    with pytest.raises(ValueError, match=r"\w"):
        _ = form.normalise(address)


def test_an_old_litecoin_script_address_is_spelled_as_today() -> None:
    """Two spellings of one destination would get past an allow-list: 3... and M... are one address."""
    assert (
        formats.LITECOIN_MAINNET.normalise("3MSvaVbVFFLML86rt5eqgA9SvW23upaXdY") == "MTf4tP1TCNBn8dNkyxeBVoPrFCcVzxJvvh"
    )


@pytest.mark.parametrize("tag", ["0", "1", "100000", "4294967295"])
def test_a_destination_tag_is_a_number_of_32_bits(tag: str) -> None:
    """Both ends of the range are tags."""
    assert formats.RIPPLE.normalise_tag(tag) == tag


@pytest.mark.parametrize(
    "tag", ["", "-1", "+1", "00", "01", "4294967296", "1" * 5000, "1.0", "1e3", " 1", "1\n", "٣", "²", "\0"]
)
def test_anything_else_is_no_destination_tag(tag: str) -> None:
    """Only the one plain spelling of a number is a tag, and a missing one is not."""
    with pytest.raises(ValueError, match="tag"):
        _ = formats.RIPPLE.normalise_tag(tag)


@pytest.mark.parametrize("form", [formats.BITCOIN_REGTEST, formats.LITECOIN_REGTEST, formats.EVM])
def test_a_network_without_tags_wants_none(form: AddressFormat) -> None:
    """No tag is fine, any tag is not."""
    assert not form.needs_extension
    assert form.normalise_tag("") == ""
    with pytest.raises(ValueError, match="no tags"):
        _ = form.normalise_tag("1")

"""Derivation: the addresses every other wallet derives from the same words, from public keys alone."""

from __future__ import annotations

import msgspec
import pytest
from bip_utils import EthAddrEncoder
from coincurve import PublicKey

from strongroom.clock import Clock, Ids
from strongroom.custody import formats
from strongroom.custody.derivation import (
    FIRST_TAG,
    TAGS_OF_A_BRANCH,
    Branch,
    BranchKeys,
    account_xpubs,
    address_of_key,
    hot_key,
    master_fingerprint,
    new_mnemonic,
    seed_of,
)
from strongroom.custody.families import BITCOIN, ERC20, LITECOIN, NETWORKS, RIPPLE
from strongroom.custody.signer import LocalSigner, SealError, open_seed, payment_digest, seal_seed
from strongroom.errors import InvariantBroken
from strongroom.records.addresses import position_of

WORDS = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
SEED = seed_of(WORDS)
BIP84_ZPUB = (
    "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs"
)
MASTER_KEY = bytes(range(32))


def test_bitcoin_addresses_are_those_of_bip_84() -> None:
    """The published account key gives the published receiving and change addresses."""
    mainnet = msgspec.structs.replace(BITCOIN, coin_type=0, bitcoin=formats.BITCOIN_MAINNET)
    receiving = Branch(mainnet, BIP84_ZPUB)
    assert receiving.address(0).address == "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"
    assert receiving.address(1).address == "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"
    assert receiving.address(position_of(1, 0)).address == "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"
    assert Branch(mainnet, account_xpubs(SEED, [mainnet])["BITCOIN"]).address(0) == receiving.address(0)


def test_evm_and_ripple_addresses_are_those_of_bip_44() -> None:
    """The well-known words give the well-known first accounts."""
    xpubs = account_xpubs(SEED, NETWORKS.values())
    assert Branch(ERC20, xpubs["ERC20"]).address(0) == ("0x9858EfFD232B4033E47d90003D41EC34EcaEda94", "")
    assert Branch(RIPPLE, xpubs["RIPPLE"]).address(0).address == "rHsMGQEkVNJmpGWs8XUBoTBiAAbwxZN5v3"


def test_practice_networks_have_their_own_prefixes() -> None:
    """An address of the demo can not be mistaken for one with money."""
    xpubs = account_xpubs(SEED, NETWORKS.values())
    assert Branch(BITCOIN, xpubs["BITCOIN"]).address(0).address.startswith("bcrt1q")
    assert Branch(LITECOIN, xpubs["LITECOIN"]).address(0).address.startswith("rltc1q")


def test_a_ripple_account_is_one_address_with_a_tag_for_each_position() -> None:
    """The tags tell customers apart, and a fresh branch has tags of its own, up to the largest that there are."""
    xpub = account_xpubs(SEED, [RIPPLE])["RIPPLE"]
    row = Branch(RIPPLE, xpub).addresses(5, 3)
    assert [tag for _, tag in row] == [str(FIRST_TAG + index) for index in (5, 6, 7)]
    assert len({address for address, _ in row}) == 1
    again = Branch(RIPPLE, xpub).address(position_of(1, 5))
    assert again == (row[0].address, str(FIRST_TAG + TAGS_OF_A_BRANCH + 5))
    for beyond in (TAGS_OF_A_BRANCH, position_of(64, 0), -1, 2**62):
        with pytest.raises(InvariantBroken):
            _ = Branch(RIPPLE, xpub).address(beyond)
    assert int(Branch(RIPPLE, xpub).address(position_of(62, TAGS_OF_A_BRANCH - 1)).tag) < 2**32


def test_no_address_is_derived_twice() -> None:
    """Indexes, branches and networks never meet, whatever their prefixes."""
    xpubs = account_xpubs(SEED, NETWORKS.values())
    rows = [
        derived
        for network in NETWORKS.values()
        for branch in (0, 1)
        for derived in Branch(network, xpubs[network.id]).addresses(position_of(branch, 0), 20)
    ]
    assert len(set(rows)) == len(rows)
    assert xpubs["BITCOIN"] != xpubs["LITECOIN"]


def test_each_position_has_the_key_of_its_address() -> None:
    """What is paid to an address of any branch can be spent with the key at the same position."""
    keys, branch = BranchKeys(SEED, BITCOIN), Branch(BITCOIN, account_xpubs(SEED, [BITCOIN])["BITCOIN"])
    for position in (0, 7, position_of(1, 0), position_of(2, 7), 2**62 - 1):
        public = PublicKey.from_secret(keys.private_key(position)).format()
        assert address_of_key(BITCOIN, public) == branch.address(position).address
    for beyond in (-1, 2**62):
        with pytest.raises(InvariantBroken):
            _ = keys.private_key(beyond)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "xpub",
        "xpub" + "1" * 107,
        "xpub\0é" + "q" * 100,
        BIP84_ZPUB[:-1] + "t",
        "x" + BIP84_ZPUB[1:],
        "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi",
        "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
    ],
    ids=["nothing", "prefix", "ones", "garbage", "checksum", "version", "private", "master"],
)
def test_what_is_no_account_key_is_refused(text: str) -> None:
    """A private key or a key of another depth in the settings is a mistake to hear of at once."""
    with pytest.raises(ValueError, match="extended public key"):
        _ = Branch(BITCOIN, text)


def test_wrong_words_are_refused() -> None:
    """A slip in a written-down word breaks its checksum."""
    assert seed_of(new_mnemonic(bytes(16))) == SEED
    with pytest.raises(ValueError, match=r"\w"):
        _ = seed_of(WORDS.replace("about", "abandon"))


def test_a_sealed_seed_opens_with_its_master_key_only() -> None:
    """What lies on the disk tells nothing, is different each time, and does not open when changed."""
    ids = Ids(Clock())
    sealed = seal_seed(SEED, MASTER_KEY, ids)
    assert open_seed(sealed, MASTER_KEY) == SEED
    assert SEED not in sealed
    assert seal_seed(SEED, MASTER_KEY, ids) != sealed
    broken = [sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :] for place in range(len(sealed))]
    for text in (*broken, sealed[:-1], sealed + b"\0", b""):
        with pytest.raises(SealError):
            _ = open_seed(text, MASTER_KEY)
    with pytest.raises(SealError):
        _ = open_seed(sealed, bytes(32))
    with pytest.raises(InvariantBroken):
        _ = open_seed(sealed, b"short")


async def test_the_signer_signs_with_the_key_it_names() -> None:
    """A signature verifies against the network's own public key, and against no other's."""
    signer = LocalSigner(SEED, NETWORKS.values())
    signature = await signer.sign("BITCOIN", 0, b"a payment")
    mine, other = [PublicKey(await signer.public_key(network)) for network in ("BITCOIN", "LITECOIN")]
    assert mine.verify(signature, payment_digest(b"a payment"), hasher=None)
    assert not mine.verify(signature, payment_digest(b"another"), hasher=None)
    assert not other.verify(signature, payment_digest(b"a payment"), hasher=None)
    assert await signer.sign("BITCOIN", 0, b"a payment") == signature


def test_the_hot_key_is_out_of_reach_of_the_deposit_keys() -> None:
    """It is no child of the account whose public key the API's process knows."""
    assert len({hot_key(SEED, network) for network in NETWORKS.values()}) == len(NETWORKS)
    account = Branch(ERC20, account_xpubs(SEED, [ERC20])["ERC20"])
    hot = PublicKey.from_secret(hot_key(SEED, ERC20))
    assert EthAddrEncoder.EncodeKey(hot.format()) not in {row.address for row in account.addresses(0, 50)}


def test_a_master_key_has_its_published_fingerprint() -> None:
    """Hardware knows the well-known words' keys by these four bytes, and the way to each by its numbers."""
    seed = seed_of(" ".join(["abandon"] * 11 + ["about"]))
    assert master_fingerprint(seed).hex() == "73c5da0a"
    branch = Branch(BITCOIN, account_xpubs(seed, [BITCOIN])["BITCOIN"])
    position = (3 << 31) + 7
    assert branch.path(position) == (2**31 + 84, 2**31 + 1, 2**31, 3, 7)
    assert address_of_key(BITCOIN, branch.public_key(position)) == branch.address(position).address

"""Deposit addresses from extended public keys (BIP-32): as many as are wanted, without a private key in reach.

    mnemonic -> seed -> account xpub, m/purpose'/coin'/0'      once, where the seed is kept
    account xpub -> branch -> address 0, 1, 2, ...              in the API's process, about 0.15 ms an address

An address is named by its position, which counts on from branch to branch. A restored system goes on with a fresh
branch, so that nothing given out after the backup is given out again. Deriving is work for a thread, ahead of the
commands that give addresses out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from bip_utils import (  # pyright: ignore[reportMissingTypeStubs]
    Base58ChecksumError,
    Bip32KeyError,
    Bip32KeyNetVersions,
    Bip32Slip10Secp256k1,
    Bip39MnemonicGenerator,
    Bip39SeedGenerator,
    EthAddrEncoder,
    MnemonicChecksumError,
    P2TRAddrEncoder,
    P2WPKHAddrEncoder,
    XrpAddrEncoder,
)
from bip_utils.bip.bip32.base import Bip32Base  # pyright: ignore[reportMissingTypeStubs]

from strongroom.custody.families import Family, Network
from strongroom.errors import check
from strongroom.records.addresses import INDEX_BITS, branch_of, index_of

FIRST_TAG: Final = 100_000
"""The destination tag of position 0; small tags are left to other uses of the account."""

TAGS_OF_A_BRANCH: Final = 2**26
"""So many tags does a branch have on a network with tags, whose tags are 32 bits."""

MAX_TAG: Final = 2**32 - 1
MAX_POSITION: Final = 2 ** (2 * INDEX_BITS) - 1
"""The last address of the last branch: each of the two numbers is an unhardened child's (BIP-32)."""

TAPROOT_PURPOSE: Final = 86
"""A bitcoin network with this purpose has taproot addresses that a key alone spends (BIP-86)."""

HARDENED: Final = 2**31
"""What BIP-32 adds to the number of a hardened child."""

NO_FINGERPRINT: Final = bytes(4)
"""What stands for a master key's fingerprint where nobody knows it (BIP-174 leaves it to the signer then)."""

_ACCOUNT_DEPTH: Final = 3
_DEPOSIT_ACCOUNT: Final = 0
_HOT_ACCOUNT: Final = 1
_PUBLIC_VERSIONS: Final = {
    "xpub": Bip32KeyNetVersions(bytes.fromhex("0488b21e"), bytes.fromhex("0488ade4")),
    "tpub": Bip32KeyNetVersions(bytes.fromhex("043587cf"), bytes.fromhex("04358394")),
    "zpub": Bip32KeyNetVersions(bytes.fromhex("04b24746"), bytes.fromhex("04b2430c")),
    "vpub": Bip32KeyNetVersions(bytes.fromhex("045f1cf6"), bytes.fromhex("045f18bc")),
}


class DerivedAddress(NamedTuple):
    """A deposit address in its normal spelling, with its tag (`""` where the network has none)."""

    address: str
    tag: str


class Branch:
    """The deposit addresses of an account, by their positions: an endless row on each of its unhardened branches.

    On a network with tags all of them are one address, and the row is the row of its tags.
    """

    def __init__(self, network: Network, xpub: str) -> None:
        """Read an account's extended public key (xpub, zpub, tpub or vpub); raises `ValueError` for anything else."""
        self.network = network
        self._branches = _Children(_account_key(xpub))
        self._shared = self._encode(0) if network.format.needs_extension else None

    def address(self, position: int) -> DerivedAddress:
        """Return the address at a position (0 to 2^62 - 1)."""
        check(0 <= position <= MAX_POSITION, "branch and index of an address are an unhardened child's")
        if self._shared is not None:
            return DerivedAddress(self._shared, str(_tag_of(position)))
        return DerivedAddress(self._encode(position), "")

    def addresses(self, first: int, count: int) -> list[DerivedAddress]:
        """Return the `count` addresses from position `first` on; for a thread, when `count` is large."""
        return [self.address(position) for position in range(first, first + count)]

    def public_key(self, position: int) -> bytes:
        """Return the compressed public key (33 bytes) of the address at a position (0 to 2^62 - 1)."""
        check(0 <= position <= MAX_POSITION, "branch and index of an address are an unhardened child's")
        return self._branches.key(position).PublicKey().RawCompressed().ToBytes()

    def path(self, position: int) -> tuple[int, ...]:
        """Return the way from the master key to that of a position, a number for each step (BIP-32)."""
        hardened = (self.network.purpose, self.network.coin_type, _DEPOSIT_ACCOUNT)
        return (*(HARDENED + step for step in hardened), branch_of(position), index_of(position))

    def _encode(self, position: int) -> str:
        return address_of_key(self.network, self.public_key(position))


class _Children:
    """The keys at an account's positions; those of the branches are derived once."""

    def __init__(self, account: Bip32Base) -> None:
        self._account = account
        self._branches: dict[int, Bip32Base] = {}

    def key(self, position: int) -> Bip32Base:
        """Return the key at a position."""
        number = branch_of(position)
        branch = self._branches.get(number)
        if branch is None:
            branch = self._branches[number] = self._account.ChildKey(number)
        return branch.ChildKey(index_of(position))


def _tag_of(position: int) -> int:
    """Return the tag of a position: each branch has its own part of the numbers, so that no tag comes again."""
    branch, index = branch_of(position), index_of(position)
    check(index < TAGS_OF_A_BRANCH, "a branch's tags are not used up")
    tag = FIRST_TAG + branch * TAGS_OF_A_BRANCH + index
    check(tag <= MAX_TAG, "a tag is a number of 32 bits")
    return tag


def address_of_key(network: Network, public_key: bytes) -> str:
    """Return the address of a compressed public key (33 bytes) on a network, in its normal spelling."""
    if network.bitcoin is not None:
        encoder = P2TRAddrEncoder if network.purpose == TAPROOT_PURPOSE else P2WPKHAddrEncoder
        return encoder.EncodeKey(public_key, hrp=network.bitcoin.hrp)
    encoder = EthAddrEncoder if network.family is Family.EVM else XrpAddrEncoder
    return encoder.EncodeKey(public_key)


def new_mnemonic(entropy: bytes) -> str:
    """Return the BIP-39 words of `entropy` (16 to 32 bytes, 32 for 24 words): the whole wallet on a sheet of paper."""
    return Bip39MnemonicGenerator().FromEntropy(entropy).ToStr()


def seed_of(mnemonic: str, passphrase: str = "") -> bytes:
    """Return the 64-byte BIP-39 seed of `mnemonic`; raises `ValueError` if a word or the checksum is wrong."""
    try:
        return Bip39SeedGenerator(mnemonic).Generate(passphrase)
    except MnemonicChecksumError:
        raise ValueError("the words' checksum is wrong") from None


def account_xpubs(seed: bytes, networks: Iterable[Network]) -> dict[str, str]:
    """Return the xpub of each network's deposit account by network id: all that the API's process needs to know."""
    master = Bip32Slip10Secp256k1.FromSeed(seed)
    return {
        network.id: master.DerivePath(_path(network, _DEPOSIT_ACCOUNT)).PublicKey().ToExtended() for network in networks
    }


def master_fingerprint(seed: bytes) -> bytes:
    """Return the four bytes by which other signers know the master key of a seed (BIP-32)."""
    return Bip32Slip10Secp256k1.FromSeed(seed).FingerPrint().ToBytes()


class BranchKeys:
    """The private keys of a network's deposit account, those of the addresses that `Branch` derives."""

    def __init__(self, seed: bytes, network: Network) -> None:
        """Derive the account's own key; the seed is not kept."""
        self._branches = _Children(Bip32Slip10Secp256k1.FromSeed(seed).DerivePath(_path(network, _DEPOSIT_ACCOUNT)))

    def private_key(self, position: int) -> bytes:
        """Return the private key (32 bytes) of the address at a position (0 to 2^62 - 1)."""
        check(0 <= position <= MAX_POSITION, "branch and index of an address are an unhardened child's")
        return self._branches.key(position).PrivateKey().Raw().ToBytes()


def hot_key(seed: bytes, network: Network) -> bytes:
    """Return the private key of the network's hot wallet (32 bytes).

    It is in a hardened account of its own: whoever has an account's xpub and one of its child keys has them all.
    """
    path = _path(network, _HOT_ACCOUNT) + "/0/0"
    return Bip32Slip10Secp256k1.FromSeed(seed).DerivePath(path).PrivateKey().Raw().ToBytes()


def _path(network: Network, account: int) -> str:
    return f"m/{network.purpose}'/{network.coin_type}'/{account}'"


def _account_key(xpub: str) -> Bip32Base:
    versions = _PUBLIC_VERSIONS.get(xpub[:4])
    if versions is None:
        raise ValueError(f"an extended public key begins with one of {', '.join(_PUBLIC_VERSIONS)}")
    try:
        key = Bip32Slip10Secp256k1.FromExtendedKey(xpub, versions)
    except (Base58ChecksumError, Bip32KeyError, ValueError) as problem:
        raise ValueError(f"not an extended public key: {problem}") from None
    if key.Depth().ToInt() != _ACCOUNT_DEPTH:
        raise ValueError("an extended public key of another depth than an account's, m/purpose'/coin'/account'")
    return key

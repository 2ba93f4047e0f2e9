"""Address formats of each family of networks: what is a valid address, and its one normal spelling.

Every function here takes any text at all and raises nothing but `ValueError`, with a reason a person can read.
Checksums are the library's (bip-utils); what is ours is which of the encodable things we are willing to pay to.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Protocol

import msgspec
from bip_utils import (  # pyright: ignore[reportMissingTypeStubs]
    Base58ChecksumError,
    Base58Decoder,
    Base58Encoder,
    Bech32ChecksumError,
    SegwitBech32Decoder,
    XrpAddrDecoder,
)
from bip_utils.utils.crypto import Kekkak256  # pyright: ignore[reportMissingTypeStubs]

MAX_ADDRESS_CHARS: Final = 90
"""No address of any format here is longer (BIP-173); a longer text is refused before it is looked at."""

MAX_TAG: Final = 2**32 - 1
"""The largest destination tag of the XRP Ledger, an unsigned 32-bit number."""

_RECENT: Final = 1_024
"""Addresses whose checksums are remembered: one is looked at when it is asked for, paid, drafted and signed."""

_KEY_HASH_BYTES: Final = 20
_TAPROOT_VERSION: Final = 1
_TAPROOT_BYTES: Final = 32
_EVM: Final = re.compile(r"0x[0-9a-fA-F]{40}|0X[0-9A-F]{40}", re.ASCII)
_TAG: Final = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


class AddressFormat(Protocol):
    """What the addresses of one network look like."""

    @property
    def needs_extension(self) -> bool:
        """Tell whether an address is only whole with a tag (`address:tag`)."""
        ...

    def normalise(self, address: str) -> str:
        """Return the one normal spelling of `address`; raises `ValueError(reason)` if nobody can be paid there."""
        ...

    def normalise_tag(self, tag: str) -> str:
        """Return the normal spelling of `tag`, `""` where the network has none; raises `ValueError(reason)`."""
        ...


class BitcoinFormat(msgspec.Struct, frozen=True):
    """Bitcoin and its relatives: P2WPKH, P2WSH and P2TR in bech32(m), P2PKH and P2SH in base58.

    `versions` maps each accepted base58 version byte to the one it is normally spelled with. Witness versions above 1
    are refused: nothing defines yet who could spend them.
    """

    hrp: str
    versions: dict[int, int]

    @property
    def needs_extension(self) -> bool:
        """No tags."""
        return False

    def normalise(self, address: str) -> str:
        """Return `address` in lower case if bech32, in the current version byte if base58."""
        _bound(address)
        if address.lower().startswith(self.hrp + "1"):
            return self._segwit(address)
        return self._base58(address)

    def normalise_tag(self, tag: str) -> str:
        """Return `""` for no tag; any other is not wanted."""
        return _no_tag(tag)

    def _segwit(self, address: str) -> str:
        version, program = _witness(self.hrp, address)
        if version > _TAPROOT_VERSION or (version == _TAPROOT_VERSION and len(program) != _TAPROOT_BYTES):
            raise ValueError("a witness program of no known kind")
        return address.lower()

    def _base58(self, address: str) -> str:
        try:
            payload = Base58Decoder.CheckDecode(address)
        except (Base58ChecksumError, ValueError):
            raise ValueError("not a base58 address: wrong character or checksum") from None
        if len(payload) != 1 + _KEY_HASH_BYTES or payload[0] not in self.versions:
            raise ValueError("an address of another network")
        usual = self.versions[payload[0]]
        return address if usual == payload[0] else Base58Encoder.CheckEncode(bytes([usual]) + payload[1:])


@lru_cache(maxsize=_RECENT)
def _witness(hrp: str, address: str) -> tuple[int, bytes]:
    """Return witness version and program of an address. Raises `ValueError`."""
    try:
        return SegwitBech32Decoder.Decode(hrp, address)
    except (Bech32ChecksumError, ValueError) as problem:
        raise ValueError(f"not a bech32 address: {problem}") from None


class EvmFormat(msgspec.Struct, frozen=True):
    """Ethereum and its relatives: 20 bytes in hex, normally spelled with the checksum of EIP-55.

    All lower and all upper case carry no checksum and are taken as they are; mixed case must be right.
    """

    @property
    def needs_extension(self) -> bool:
        """No tags."""
        return False

    def normalise(self, address: str) -> str:
        """Return `address` in the mixed case of EIP-55."""
        _bound(address)
        if not _EVM.fullmatch(address):
            raise ValueError("not 0x and 40 hex digits")
        digits = address[2:]
        whole = "0x" + _eip55(digits.lower())
        if address != whole and digits not in (digits.lower(), digits.upper()):
            raise ValueError("wrong EIP-55 checksum")
        return whole

    def normalise_tag(self, tag: str) -> str:
        """Return `""` for no tag; any other is not wanted."""
        return _no_tag(tag)


class RippleFormat(msgspec.Struct, frozen=True):
    """The XRP Ledger: classic r-addresses, each with a destination tag that says whose deposit it is."""

    @property
    def needs_extension(self) -> bool:
        """One account takes everybody's deposits; the tag tells them apart."""
        return True

    def normalise(self, address: str) -> str:
        """Return `address` itself: it has one spelling only."""
        _bound(address)
        try:
            _ = XrpAddrDecoder.DecodeAddr(address)
        except ValueError:
            raise ValueError("not a classic XRP Ledger address: wrong length, character or checksum") from None
        return address

    def normalise_tag(self, tag: str) -> str:
        """Return `tag`: decimal, 0 to 2^32 - 1, ASCII digits, no leading zero; raises `ValueError` when absent."""
        if len(tag) > len(str(MAX_TAG)) or not _TAG.fullmatch(tag) or int(tag) > MAX_TAG:
            raise ValueError(f"a destination tag is a whole number from 0 to {MAX_TAG}")
        return tag


def _bound(address: str) -> None:
    if not address or len(address) > MAX_ADDRESS_CHARS or not address.isascii():
        raise ValueError(f"an address is 1 to {MAX_ADDRESS_CHARS} ASCII characters")


def _no_tag(tag: str) -> str:
    if tag:
        raise ValueError("this network has no tags")
    return ""


def _eip55(digits: str) -> str:
    """Return lower-case hex `digits` with each letter raised whose place in the keccak-256 of the text is 8 or more."""
    places = Kekkak256.QuickDigest(digits.encode()).hex()
    return "".join(d.upper() if place >= "8" else d for d, place in zip(digits, places, strict=False))


BITCOIN_MAINNET: Final = BitcoinFormat("bc", {0x00: 0x00, 0x05: 0x05})
BITCOIN_TESTNET: Final = BitcoinFormat("tb", {0x6F: 0x6F, 0xC4: 0xC4})
BITCOIN_REGTEST: Final = BitcoinFormat("bcrt", {0x6F: 0x6F, 0xC4: 0xC4})
LITECOIN_MAINNET: Final = BitcoinFormat("ltc", {0x30: 0x30, 0x32: 0x32, 0x05: 0x32})
"""L..., M..., and the older 3..., which is normally spelled M... today."""

LITECOIN_TESTNET: Final = BitcoinFormat("tltc", {0x6F: 0x6F, 0x3A: 0x3A, 0xC4: 0x3A})
LITECOIN_REGTEST: Final = BitcoinFormat("rltc", {0x6F: 0x6F, 0x3A: 0x3A, 0xC4: 0x3A})
EVM: Final = EvmFormat()
RIPPLE: Final = RippleFormat()

"""The public keys file: all that the API's process needs to know of the keys, so that it never sees a seed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from coincurve import PrivateKey

from strongroom.custody.derivation import NO_FINGERPRINT, account_xpubs, hot_key, master_fingerprint
from strongroom.custody.families import Network

XPUBS_FILE: Final = "xpubs.json"
MAX_FILE_BYTES: Final = 1024 * 1024
_VERSION: Final = 1


class PublicKeysError(ValueError):
    """The public keys file cannot be used; the message says why."""


class NetworkKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network's public keys: the deposit account's xpub, and the hot wallet's compressed key in hex (66 digits)."""

    xpub: str
    hot_public_key: str


class PublicKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public keys of every network, by the network's id.

    `fingerprint` is the master key's in hex (8 digits), all zeros where the file does not say.
    """

    version: int
    networks: dict[str, NetworkKeys]
    fingerprint: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}\Z")] = NO_FINGERPRINT.hex()

    def hot(self, network: str) -> bytes:
        """Return the hot wallet's compressed public key (33 bytes). Raises `PublicKeysError`."""
        if network not in self.networks:
            raise PublicKeysError(f"there are no public keys for {network}")
        return bytes.fromhex(self.networks[network].hot_public_key)


def public_keys_of(seed: bytes, networks: Iterable[Network]) -> PublicKeys:
    """Return the public keys of a seed."""
    served = list(networks)
    xpubs = account_xpubs(seed, served)
    hot = {network.id: PrivateKey(hot_key(seed, network)).public_key.format().hex() for network in served}
    keys = {code: NetworkKeys(xpub, hot[code]) for code, xpub in xpubs.items()}
    return PublicKeys(_VERSION, keys, master_fingerprint(seed).hex())


def encode_public_keys(keys: PublicKeys) -> bytes:
    """Return the content of the public keys file."""
    return msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n"


def read_public_keys(path: Path) -> PublicKeys:
    """Read the public keys file. Raises `PublicKeysError`, `OSError`."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    try:
        keys = msgspec.json.decode(content[:MAX_FILE_BYTES], type=PublicKeys)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PublicKeysError(f"{path}: not a public keys file: {error}") from None
    if keys.version != _VERSION:
        raise PublicKeysError(f"{path}: of version {keys.version}, and only version {_VERSION} is known here")
    return keys

"""What the tests of payments that are signed elsewhere share: somebody else's wallet with our keys in it."""

from __future__ import annotations

from typing import Any, Final

from bip_utils import Bip32KeyNetVersions, Bip32Slip10Secp256k1, WifEncoder

from strongroom.custody.derivation import TAPROOT_PURPOSE, BranchKeys
from strongroom.custody.families import Network
from support.nodes import CoinNode
from support.utxo import SEED

FOREIGN: Final = "foreign"
KEYS: Final = 10
_PRACTICE: Final = Bip32KeyNetVersions(bytes.fromhex("043587cf"), bytes.fromhex("04358394"))


class ForeignWallet:
    """A node's own wallet, which has our keys and none of our coins: it signs what it is given."""

    def __init__(self, node: CoinNode) -> None:
        self._node = node

    async def rpc(self, method: str, *parameters: Any) -> Any:
        """Return a method's result in this wallet."""
        return await self._node.rpc_at(self._node.wallet_url(FOREIGN), method, *parameters)

    async def create(self) -> None:
        """Make the wallet, without a key."""
        await self._node.rpc("createwallet", FOREIGN, False, True)

    async def learn_account(self, network: Network) -> None:
        """Give it the account's private descriptor, as a restored wallet has it."""
        master = Bip32Slip10Secp256k1.FromSeed(SEED, _PRACTICE).PrivateKey().ToExtended()
        kind = "tr" if network.purpose == TAPROOT_PURPOSE else "wpkh"
        descriptor = f"{kind}({master}/{network.purpose}h/{network.coin_type}h/0h/0/*)"
        checksum = (await self.rpc("getdescriptorinfo", descriptor))["checksum"]
        asked = {"desc": f"{descriptor}#{checksum}", "timestamp": "now", "range": [0, KEYS]}
        [answer] = await self.rpc("importdescriptors", [asked])
        assert answer["success"], answer

    async def learn_keys(self, network: Network) -> None:
        """Give it our first keys one by one, as wallets without descriptors take them."""
        keys = BranchKeys(SEED, network)
        for position in range(KEYS):
            text = WifEncoder.Encode(keys.private_key(position), b"\xef")
            await self.rpc("importprivkey", text, "", False)

    async def signed(self, psbt: str, *parameters: Any) -> str:
        """Return a PSBT with this wallet's signatures."""
        return (await self.rpc("walletprocesspsbt", psbt, *parameters))["psbt"]

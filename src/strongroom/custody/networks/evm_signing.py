"""How payments on an EVM network are signed: with the hot wallet's key, and nothing but payments."""

from __future__ import annotations

from eth_account import Account

from strongroom.custody.chain import Rejected
from strongroom.custody.derivation import hot_key
from strongroom.custody.families import Network
from strongroom.custody.networks.evm_transactions import EvmPayment, decode_payment, explain, payee_of, transaction_of
from strongroom.custody.signer import Explained


def hot_address(seed: bytes, network: Network) -> str:
    """Return the address of the network's hot wallet, in EIP-55."""
    return str(Account.from_key(hot_key(seed, network)).address)  # pyright: ignore[reportUnknownMemberType]


class EvmScheme:
    """Signs payments of one hot wallet on one chain; the network's `decimals` name the tokens it pays."""

    def __init__(self, seed: bytes, network: Network, chain_id: int) -> None:
        self._account = Account.from_key(hot_key(seed, network))  # pyright: ignore[reportUnknownMemberType]
        self._assets = frozenset(network.decimals)
        self._chain_id = chain_id

    @property
    def address(self) -> str:
        """Return the hot wallet's address, in EIP-55."""
        return str(self._account.address)

    def explain(self, body: bytes) -> Explained:
        """Return what a body comes to; its fee is the gas limit at the highest fee. Raises `Rejected`. Pure."""
        _ = self._checked(body)
        return explain(body)

    def sign(self, body: bytes) -> bytes:
        """Return the raw signed transaction of a body, the same each time (RFC 6979). Raises `Rejected`."""
        transaction = transaction_of(self._checked(body))
        return bytes(self._account.sign_transaction(transaction).raw_transaction)  # pyright: ignore[reportUnknownMemberType]

    def _checked(self, body: bytes) -> EvmPayment:
        payment = decode_payment(body)
        if payment.chain_id != self._chain_id:
            raise Rejected("the payment is for another chain")
        if payment.sender != self.address:
            raise Rejected("the payment is from another wallet")
        if payee_of(payment).asset_id not in self._assets:
            raise Rejected("the payment is in a token that is not paid here")
        return payment

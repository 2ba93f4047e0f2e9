"""How payments on an EVM network are signed: with the key of the address that pays, and nothing but payments."""

from __future__ import annotations

import msgspec
from coincurve import PrivateKey
from eth_account import Account

from strongroom.custody.chain import Rejected
from strongroom.custody.derivation import BranchKeys, address_of_key
from strongroom.custody.families import Network
from strongroom.custody.networks.evm_transactions import EvmPayment, decode_payment, explain, payee_of, transaction_of
from strongroom.custody.signer import Explained


class EvmScheme:
    """Signs payments of one chain with the keys of a network's addresses: the hot wallet is the one at position 0."""

    def __init__(self, seed: bytes, network: Network, chain_id: int) -> None:
        self._network = network
        self._keys = BranchKeys(seed, network)
        self._chain_id = chain_id

    def explain(self, body: bytes) -> Explained:
        """Return what a body comes to; its fee is the gas limit at the highest fee. Raises `Rejected`. Pure.

        What goes to an address whose key is here stays ours, and is no payee.
        """
        explained = explain(body)
        payment = self._checked(body)
        if payment.target < 0:
            return explained
        [payee] = explained.payees
        if payee.address != self._address(payment.target):
            raise Rejected("the receiver is not the address of ours that it is said to be")
        return msgspec.structs.replace(explained, payees=())

    def sign(self, body: bytes) -> bytes:
        """Return the raw signed transaction of a body, the same each time (RFC 6979). Raises `Rejected`."""
        _ = self.explain(body)
        payment = self._checked(body)
        account = Account.from_key(self._keys.private_key(payment.source))  # pyright: ignore[reportUnknownMemberType]
        return bytes(account.sign_transaction(transaction_of(payment)).raw_transaction)  # pyright: ignore[reportUnknownMemberType]

    def _checked(self, body: bytes) -> EvmPayment:
        payment = decode_payment(body)
        if payment.chain_id != self._chain_id:
            raise Rejected("the payment is for another chain")
        if payment.sender != self._address(payment.source):
            raise Rejected("the payment is from another wallet")
        _ = payee_of(payment)
        return payment

    def _address(self, position: int) -> str:
        key = PrivateKey(self._keys.private_key(position))
        return address_of_key(self._network, key.public_key.format())

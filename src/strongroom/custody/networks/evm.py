"""The chain port on an EVM network's node, by JSON-RPC: the native coin, and tokens of the ERC-20 kind.

One hot wallet pays, one nonce a payment; what lies on deposit addresses is swept to it first. What a deposit is:

    native coin    the value of a transaction that succeeded, index 0; the coin that a contract forwards inside a
                   transaction is in no block and no log, only in a trace of the execution, and is not seen
    token          a `Transfer` log of the contract, whoever called it; index 1 + the log's ordinal in its receipt

Amounts and fees are in wei, or the token's smallest unit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from strongroom.custody import formats
from strongroom.custody.chain import (
    Block,
    Candidate,
    Fate,
    Funds,
    InsufficientFunds,
    NeedsGas,
    Output,
    Payee,
    PositionOf,
    Rejected,
    Spending,
    TransactionStatus,
    Unreachable,
)
from strongroom.custody.families import NATIVE, Network
from strongroom.custody.networks import evm_transactions as transactions
from strongroom.custody.networks.evm_balances import question, taken
from strongroom.custody.networks.evm_fees import PLAIN_GAS, Fees, FeeTerms, fees_from, gas_limit, raised
from strongroom.custody.networks.evm_reading import (
    FullBlock,
    Header,
    Receipt,
    Transaction,
    address_of,
    native_output,
    outputs,
    quantity,
    read,
)
from strongroom.custody.networks.evm_spendings import of_positions, spendings
from strongroom.custody.networks.evm_transactions import EvmPayment
from strongroom.custody.networks.evm_unsigned import signed_raw, unsigned_text
from strongroom.custody.rpc import Node, RpcError
from strongroom.errors import check
from strongroom.wallet.moves import Move
from strongroom.wallet.payments import Draft, nonce_of, position_of
from strongroom.wallet.pots import SWEEP_WORTH

RIVAL_BLOCKS: Final = 128
"""How far back the rival that spent a nonce is looked for: nodes keep the state of so many blocks."""

HOT: Final = 0
"""The position of the hot wallet's address."""

POLL_S: Final = 0.5
"""How often the node is asked whether anything changed."""

_BATCH: Final = 100
_SWEEP_ROOM: Final = 2
_NEXT_TO_NOTHING: Final = "1"  # wei: what pays nothing is no payment, which no signer signs
_REASONS_FOR_NO: Final = (
    "underpriced",
    "nonce too low",
    "nonce too high",
    "gas too low",
    "intrinsic gas",
    "gas limit",
    "less than block base fee",
    "fee cap",
    "tip above",
    "invalid",
    "exceeds",
    "reverted",
)


class EvmChain:
    """One EVM network as its node tells it; `tokens` are the contracts, in EIP-55, in which it pays.

    `address_at` gives our address of a position; that of 0 is the hot wallet.
    """

    def __init__(
        self,
        network: Network,
        chain_id: int,
        address_at: Callable[[int], str],
        tokens: Collection[str],
        node: Node,
        *,
        terms: FeeTerms | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        hot_address = address_at(HOT)
        check(all(formats.EVM.normalise(it) == it for it in (hot_address, *tokens)), "addresses are in EIP-55")
        check(poll_s > 0, "some time passes between two polls")
        self._spec = network
        self._chain_id = chain_id
        self._address_at = address_at
        self._hot = hot_address
        self._assets = frozenset((NATIVE, *tokens))
        self._node = node
        self._terms = terms or FeeTerms()
        self._poll_s = poll_s
        self._change = 0
        self._shown: tuple[Any, ...] | None = None
        self._is_known = False

    @property
    def network(self) -> str:
        """Return the network's id."""
        return self._spec.id

    async def check_identity(self) -> None:
        """Raise `Unreachable` when the node is on another chain, or not up to date with its own."""
        chain_id = quantity(await self._ask("eth_chainId"))
        if chain_id != self._chain_id:
            raise Unreachable(f"the node is on chain {chain_id}, not {self._chain_id}")
        if await self._ask("eth_syncing") is not False:
            raise Unreachable("the node is still catching up with its chain")

    async def _identify(self) -> None:
        """See once that the node is the one that is meant; another one later shows by its blocks."""
        if not self._is_known:
            await self.check_identity()
            self._is_known = True

    # -- blocks

    async def tip(self) -> Block:
        """Return the newest block of the best chain."""
        await self._identify()
        return read(await self._ask("eth_getBlockByNumber", "latest", False), Header).block()

    async def block_at(self, height: int) -> Block | None:
        """Return the best chain's block at `height`, or None above its tip."""
        await self._identify()
        if height < 0:
            return None
        answer = await self._ask("eth_getBlockByNumber", hex(height), False)
        return None if answer is None else read(answer, Header).block()

    async def outputs_in(self, block_hash: str) -> Sequence[Output]:
        """Return every output of a block, in order; also of a block no longer on the best chain, none if unknown."""
        return outputs(*await self._carried_out(block_hash), self._hot)

    async def spends_in(self, block_hash: str, position_of: PositionOf) -> Sequence[Spending]:
        """Return the transactions of our addresses in a block, in order; none for a block the node does not know."""
        return spendings(*await self._carried_out(block_hash), position_of, self._hot)

    async def waiting(self, position_of: PositionOf) -> Sequence[str]:
        """Return the transactions of our addresses that wait to be mined, by their txids."""
        return [it.hash for _, it in of_positions(await self._waiting(), position_of)]

    async def _carried_out(self, block_hash: str) -> tuple[Sequence[Transaction], list[Receipt]]:
        """Return a block's transactions with their receipts; none of either where the node knows the block no more."""
        answer = await self._ask("eth_getBlockByHash", block_hash, True)
        block = None if answer is None else read(answer, FullBlock)
        if block is None or not block.transactions:
            return (), []
        receipts = await self._receipts(block_hash)
        if receipts is None:
            if await self.block_at(quantity(block.number)) == block.block():
                raise Unreachable("the node has no receipts of a block")
            return (), []
        return block.transactions, receipts

    async def _receipts(self, block_hash: str) -> list[Receipt] | None:
        """Return a block's receipts; None when the node, which gave the block up, has thrown them away."""
        answer = await self._ask("eth_getBlockReceipts", block_hash)
        receipts = None if answer is None else read(answer, list[Receipt])
        if receipts and any(receipt.block_hash != block_hash for receipt in receipts):
            return None
        return receipts

    async def mempool(self) -> Sequence[Output]:
        """Return the native coin that waiting transactions pay.

        Waiting token transfers are left out: which log of its receipt a transfer will be is known only once it ran, and
        under another index one deposit would look like two.
        """
        waiting = [native_output(transaction, self._hot) for transaction in await self._waiting()]
        return [output for output in waiting if output is not None]

    async def _waiting(self) -> tuple[Transaction, ...]:
        """Return the transactions of the pending block; none where the node shows its newest block in its place."""
        tip = await self.tip()
        answer = await self._ask("eth_getBlockByNumber", "pending", True)
        if answer is None:
            return ()
        pending = read(answer, FullBlock)
        return pending.transactions if quantity(pending.number) > tip.height else ()

    # -- transactions

    async def transaction(self, txid: str, spends: Sequence[str] = ()) -> TransactionStatus:
        """Return where a transaction stands now; with the nonce it `spends`, one of ours also where a rival was mined.

        A rival older than the newest 128 blocks is not found: the transaction is then `UNKNOWN`.
        """
        if (mined := await self._mined(txid)) is not None:
            return mined
        if spends and (rival := await self._rival(self._address_at(position_of(spends[0])), nonce_of(spends[0]))):
            block, winner = rival
            if winner != txid:
                return TransactionStatus(Fate.CONFLICTED, block, rival=winner)
            # It was mined while it was being looked for.
            return await self._mined(txid) or TransactionStatus(Fate.UNKNOWN)
        answer = await self._ask("eth_getTransactionByHash", txid)
        return TransactionStatus(Fate.UNKNOWN if answer is None else Fate.MEMPOOL)

    async def _mined(self, txid: str) -> TransactionStatus | None:
        """Return where a transaction was mined on the best chain, or None."""
        answer = await self._ask("eth_getTransactionReceipt", txid)
        if answer is None:
            return None
        receipt = read(answer, Receipt)
        block = await self.block_at(quantity(receipt.block_number))
        if block is None or block.hash != receipt.block_hash:
            return None
        return TransactionStatus(Fate.MINED if receipt.succeeded else Fate.REVERTED, block, receipt.fee)

    async def _rival(self, sender: str, nonce: int) -> tuple[Block, str] | None:
        """Return the block in which an address's nonce was spent, and by which txid; None if it is not found."""
        if await self._count(sender, "latest") <= nonce:
            return None
        height = (await self.tip()).height
        oldest = max(0, height - RIVAL_BLOCKS + 1)
        if oldest and await self._count(sender, hex(oldest - 1)) > nonce:
            return None
        low = oldest
        while low < height:
            middle = (low + height) // 2
            low, height = (low, middle) if await self._count(sender, hex(middle)) > nonce else (middle + 1, height)
        answer = await self._ask("eth_getBlockByNumber", hex(low), True)
        if answer is None:
            return None
        block = read(answer, FullBlock)
        for transaction in block.transactions:
            if quantity(transaction.nonce) == nonce and address_of(transaction.sender) == sender:
                return block.block(), transaction.hash
        return None

    async def _count(self, sender: str, block: str) -> int:
        """Return how many nonces an address has spent, as of a block."""
        return quantity(await self._ask("eth_getTransactionCount", sender, block))

    # -- payments

    async def watch(self, addresses: Collection[str]) -> None:
        """Do nothing: the watcher looks at every block whole."""

    async def balance(self, asset_id: str) -> int:
        """Return what the hot wallet holds in blocks, less what its waiting transactions take at most."""
        held = await self._held(self._hot, asset_id)
        ours = [it for it in await self._waiting() if address_of(it.sender) == self._hot]
        return max(0, held - sum(taken(transaction, asset_id) for transaction in ours))

    async def _held(self, address: str, asset_id: str) -> int:
        method, *parameters = question(address, asset_id)
        return quantity(await self._ask(method, *parameters))

    async def held(self, positions: Sequence[int], asset_id: str) -> Sequence[int]:
        """Return what lies on each of our addresses, in blocks, by their positions."""
        found: list[int] = []
        for first in range(0, len(positions), _BATCH):
            questions = [question(self._address_at(it), asset_id) for it in positions[first : first + _BATCH]]
            try:
                answers = await self._node.call_all(questions[0][0], [question[1:] for question in questions])
            except RpcError as error:
                raise Unreachable(f"{questions[0][0]}: {error}") from None
            found += [quantity(answer) for answer in answers]
        return found

    async def lies_at(self, address: str, asset_id: str) -> int:
        """Return what lies on any address, in blocks."""
        return await self._held(address, asset_id)

    async def inputs_of(self, txid: str) -> Sequence[str]:
        """Return none: a stranger's nonce is not told apart."""
        return ()

    async def unspent(self, outpoints: Sequence[str], *, waiting: bool = False) -> Collection[str]:
        """Return none: a chain of accounts has no coins."""
        return ()

    @property
    def spends_coins(self) -> bool:
        """Payments spend nonces."""
        return False

    @property
    def needs_sweeps(self) -> bool:
        """Payments are made by the hot wallet, from what it has itself."""
        return True

    @property
    def payees_at_once(self) -> int:
        """One: a transaction has one receiver."""
        return 1

    async def draft(self, payees: Sequence[Payee], funds: Funds) -> Draft:
        """Return a payment with the lowest free nonce, at the fee to pay now. Raises `InsufficientFunds`, `Rejected`,
        the latter also for one that would revert."""
        check(len(payees) == 1, "a transaction has one receiver")
        payee = payees[0]
        if payee.asset_id not in self._assets:
            raise Rejected(f"{self.network} does not pay {payee.asset_id}")
        if payee.amount > await self.balance(payee.asset_id):
            raise InsufficientFunds(f"the hot wallet has too little {payee.asset_id or 'native coin'}")
        payment = await self._payment(payee, HOT, funds.nonce)
        if await self._count(self._hot, "pending") > payment.nonce:
            # One that was signed elsewhere, and sent from there: a rival of it would only fail.
            raise Rejected("a transaction of the hot wallet waits for its block that the books do not know")
        if int(payment.value) + payment.fee > await self.balance(NATIVE):
            raise InsufficientFunds("the hot wallet has too little native coin for the fee")
        return _draft(payment)

    async def gas(self, position: int, units: int, funds: Funds) -> Move:
        """Return a move of so much of the native coin from the hot wallet to an address of ours. Raises as `draft`."""
        address = self._address_at(position)
        draft = await self.draft([Payee(address, "", NATIVE, units)], funds)
        return Move(_to_ours(draft, position), units, address, HOT, position)

    async def sweep(self, position: int, asset_id: str, units: int) -> Move:
        """Return a move to the hot wallet of `units` that lie on a deposit address.

        Of the native coin twice the fee stays behind, so that a dearer replacement can be paid. Raises `NeedsGas` for a
        token whose address cannot pay the fee, `Rejected` where what lies there is not ten times the fee.
        """
        sender = self._address_at(position)
        gas = PLAIN_GAS if asset_id == NATIVE else None
        payment = await self._payment(Payee(self._hot, "", asset_id, units), position, 0, gas)
        coin = await self._held(sender, NATIVE)
        if asset_id == NATIVE:
            units = min(units, coin) - _SWEEP_ROOM * payment.fee
            if units < SWEEP_WORTH * payment.fee:
                raise Rejected(f"less lies there than {SWEEP_WORTH} times what its sweep would cost")
            payment = msgspec.structs.replace(payment, value=str(units))
        elif coin < payment.fee:
            raise NeedsGas(_SWEEP_ROOM * payment.fee - coin)
        return Move(_to_ours(_draft(payment), HOT), units, self._hot, position, HOT)

    async def _payment(self, payee: Payee, source: int, nonce: int, gas: int | None = None) -> EvmPayment:
        """Return a payment of one of our addresses, with the lowest free nonce from `nonce` on; gas is estimated."""
        to, value, data = transactions.target_of(payee)
        sender = self._address_at(source)
        gas = gas or await self._estimate(sender, to, value, data)
        fees = await self._fees()
        return EvmPayment(
            chain_id=self._chain_id,
            sender=sender,
            nonce=max(nonce, await self._count(sender, "latest")),
            to=to,
            value=str(value),
            data="0x" + data.hex(),
            gas_limit=gas,
            max_fee_per_gas=str(fees.highest),
            priority_fee_per_gas=str(fees.priority),
            source=source,
        )

    async def _estimate(self, sender: str, to: str, value: int, data: bytes) -> int:
        call = {"from": sender, "to": to, "value": hex(value), "data": "0x" + data.hex()}
        try:
            return gas_limit(quantity(await self._node.call("eth_estimateGas", call)), self._terms)
        except RpcError as error:
            raise _refusal(error, unclear=Rejected) from None

    async def _fees(self) -> Fees:
        return fees_from(await self._ask("eth_feeHistory", "0x5", "latest", [50]), self._terms)

    async def redraft(self, draft: Draft) -> Draft | None:
        """Return the same payment with both fees raised by an eighth, or to what is paid now; None beyond the cap."""
        payment = transactions.decode_payment(draft.body)
        before = Fees(int(payment.max_fee_per_gas), int(payment.priority_fee_per_gas))
        fees = raised(before, await self._fees(), self._terms)
        if fees is None:
            return None
        return _draft(
            msgspec.structs.replace(payment, max_fee_per_gas=str(fees.highest), priority_fee_per_gas=str(fees.priority))
        )

    async def fill(self, draft: Draft) -> Draft | None:
        """Return a payment of next to nothing to the hot wallet itself, with a draft's nonce and for fees that have it
        replace that draft; None beyond the cap."""
        dearer = await self.redraft(draft)
        if dearer is None:
            return None
        payment = transactions.decode_payment(dearer.body)
        return _draft(
            msgspec.structs.replace(
                payment, to=self._hot, value=_NEXT_TO_NOTHING, data="0x", gas_limit=PLAIN_GAS, target=HOT
            )
        )

    def assemble(self, body: bytes, signature: bytes) -> Candidate:
        """Return the candidate of a body and the raw transaction that the signer made of it. Raises `Rejected`."""
        return transactions.assemble(body, signature)

    def unsigned(self, body: bytes) -> str:
        """Return a body as JSON and as unsigned bytes, for a signer elsewhere. Raises `Rejected`."""
        return unsigned_text(body)

    def import_signed(self, body: bytes, text: str) -> Candidate:
        """Return the candidate of a body and its signed transaction in hex. Raises `Rejected`."""
        return signed_raw(body, text)

    async def broadcast(self, blob: bytes) -> str:
        """Hand a raw transaction to the node and return its txid; one that the node knows already is fine."""
        txid = transactions.txid_of(blob)
        try:
            _ = await self._node.call("eth_sendRawTransaction", "0x" + blob.hex())
        except RpcError as error:
            # "Already known", and "nonce too low" where it was mined: whatever the words, the node has it.
            if await self._ask("eth_getTransactionByHash", txid) is None:
                raise _refusal(error, unclear=Unreachable) from None
        return txid

    # -- changes

    async def wait_change(self, seen: int, timeout_s: float) -> int:
        """Return the change number once it is not `seen` any more, at the latest after `timeout_s`; never raises.

        The node is asked for its newest block and for how many transactions wait.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            await self._look(max(self._poll_s, deadline - loop.time()))
            left_s = deadline - loop.time()
            if self._change != seen or left_s <= 0:
                return self._change
            await asyncio.sleep(min(self._poll_s, left_s))

    async def _look(self, timeout_s: float) -> None:
        """Count a change if the node shows something else than before; nothing while it does not answer."""
        try:
            async with asyncio.timeout(timeout_s):
                tip = await self.tip()
                shown = (tip.height, tip.hash, await self._ask("eth_getBlockTransactionCountByNumber", "pending"))
        except (Unreachable, TimeoutError):
            return
        if shown != self._shown:
            self._shown = shown
            self._change += 1

    async def _ask(self, method: str, *parameters: Any) -> Any:
        """Return a method's result; a node that says no to a question settles nothing: `Unreachable`."""
        try:
            return await self._node.call(method, *parameters)
        except RpcError as error:
            raise Unreachable(f"{method}: {error}") from None


def _draft(payment: EvmPayment) -> Draft:
    return Draft(payment.spends, transactions.encode_payment(payment), payment.fee)


def _to_ours(draft: Draft, target: int) -> Draft:
    """Return a draft that says at which position its receiver's key is."""
    payment = msgspec.structs.replace(transactions.decode_payment(draft.body), target=target)
    return _draft(payment)


def _refusal(error: RpcError, unclear: type[Rejected] | type[Unreachable]) -> Rejected | Unreachable:
    """Return what a node's no comes to; `unclear` for one whose reason is not known here."""
    reason = error.reason.lower()
    if "insufficient funds" in reason:
        return InsufficientFunds(error.reason)
    if any(known in reason for known in _REASONS_FOR_NO):
        return Rejected(error.reason)
    return unclear(str(error))

"""A chain of inputs and outputs as its own node tells it: Bitcoin, Litecoin.

The node has no wallet: it holds no key and knows none of our addresses, so it can be anybody's. Blocks are read whole,
coins are kept in the books. It must run with an index of transactions (`txindex=1`): without one it cannot say where a
transaction is that it has mined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final, cast

import msgspec
from btclib.exceptions import BTClibValueError
from btclib.tx.tx import Tx

from strongroom.custody.chain import (
    Block,
    Candidate,
    ChainError,
    Fate,
    Funds,
    Output,
    Payee,
    PositionOf,
    Rejected,
    Spending,
    TransactionStatus,
    Unreachable,
)
from strongroom.custody.derivation import NO_FINGERPRINT, Branch
from strongroom.custody.families import Network
from strongroom.custody.networks import utxo_transactions as transactions
from strongroom.custody.networks.utxo_parameters import CoinChain
from strongroom.custody.networks.utxo_psbt import psbt_of, signed_psbt
from strongroom.custody.networks.utxo_reading import (
    block_of,
    each_transaction,
    field_of,
    hash_of,
    is_coinbase,
    list_of,
    outpoints_of,
    outputs_of,
    record_of,
    records_of,
    transactions_of,
    units_of,
    whole_of,
)
from strongroom.custody.networks.utxo_rivals import RivalSearch
from strongroom.custody.rpc import Node, RpcError
from strongroom.errors import check
from strongroom.records.coins import Coin
from strongroom.wallet.moves import Move
from strongroom.wallet.payments import Draft

MAX_WAITING: Final = 100_000
"""So many waiting transactions are looked at and kept; what is beyond is first seen in a block."""

MAX_NEW: Final = 5_000
"""So many transactions of the mempool are fetched at once; the rest follow at the next look."""

TURN_S: Final = 0.005
"""A block is read for so long at a time: requests are answered in between."""

POLL_S: Final = 0.5
"""The node is asked so often whether anything changed."""

MAX_BEHIND: Final = 5
"""A node may lack so many blocks whose headers it has: new blocks take a moment to arrive."""

_BATCH: Final = 100
_NOT_FOUND: Final = (-5, -8)
_FEE_BLOCKS: Final = 6
_NOT_VALID: Final = (-22, -25, -26)
_IN_CHAIN: Final = -27
_KNOWN: Final = ("txn-already-known", "txn-already-in-mempool")


class FeePolicy(msgspec.Struct, frozen=True):
    """What a payment offers, in the smallest unit for 1,000 virtual bytes: the node's estimate for six blocks between
    `floor` and `cap`, or `fallback` where the node has none. Coins are consolidated at a rate of `quiet` at most."""

    floor: int = 1_000
    fallback: int = 10_000
    cap: int = 500_000
    quiet: int = 5_000


class UtxoChain:
    """The chain port for one network; `address_at` gives our address of a position, change returns to that of 0.

    `keys` derives those addresses, and `fingerprint` names the master key: what a signer elsewhere is told of our keys.
    """

    def __init__(
        self,
        network: Network,
        parameters: CoinChain,
        node: Node,
        address_at: Callable[[int], str],
        *,
        fees: FeePolicy | None = None,
        poll_s: float = POLL_S,
        keys: Branch | None = None,
        fingerprint: bytes = NO_FINGERPRINT,
    ) -> None:
        check(network.bitcoin == parameters.format, "a network spells its addresses as its chain does")
        self._network = network
        self._parameters = parameters
        self._node = node
        self._address_at = address_at
        self._fees = fees or FeePolicy()
        check(0 < self._fees.floor <= self._fees.fallback <= self._fees.cap, "a fallback lies between floor and cap")
        self._poll_s = poll_s
        self._keys = keys
        self._fingerprint = fingerprint
        self._rivals = RivalSearch(self._find)
        self._waiting: dict[str, tuple[Output, ...]] = {}
        self._seen: tuple[Any, ...] = ()
        self._change = 0
        self._is_known = False
        self._newest_read: tuple[str, list[Output]] = ("", [])

    @property
    def network(self) -> str:
        """Return the network's id."""
        return self._network.id

    @property
    def spends_coins(self) -> bool:
        """Payments spend coins."""
        return True

    @property
    def needs_sweeps(self) -> bool:
        """A coin is spent from wherever it lies."""
        return False

    @property
    def payees_at_once(self) -> int:
        """Return how many payees one transaction may have."""
        return transactions.MAX_PAYEES

    async def check_identity(self) -> None:
        """Raise `Unreachable` unless the node follows this chain, is up to date and indexes transactions."""
        self._is_known = False
        told = await self._ask("getblockchaininfo")
        name = field_of(told, "chain")
        first = await self._ask("getblockhash", 0)
        if self._parameters.first_blocks.get(name) != first:
            raise Unreachable(f"the node follows another chain ({name}) than {self._parameters.name}")
        if field_of(told, "initialblockdownload") and not self._parameters.practice:
            raise Unreachable("the node is still loading the chain")
        blocks, headers = whole_of(told, "blocks"), whole_of(told, "headers")
        if headers - blocks > MAX_BEHIND:
            raise Unreachable(f"the node is behind: it has {blocks} blocks of {headers}")
        if field_of(told, "pruned"):
            raise Unreachable("the node is pruned: it throws blocks away, and can have no index of transactions")
        if "txindex" not in record_of(await self._ask("getindexinfo", "txindex")):
            raise Unreachable("the node runs without an index of transactions (txindex=1)")
        self._is_known = True

    async def _identify(self) -> None:
        """See that the node is the one that is meant, unless that is known."""
        if not self._is_known:
            await self.check_identity()

    # -- blocks

    async def unspent(self, outpoints: Sequence[str], *, waiting: bool = False) -> Collection[str]:
        """Return those of the outputs that the best chain's blocks have and have not spent.

        With `waiting` those that no transaction that waits to be mined spends either, and what such ones make.
        """
        found: list[str] = []
        for first in range(0, len(outpoints), _BATCH):
            part = outpoints[first : first + _BATCH]
            questions = [[txid, int(index), waiting] for txid, _, index in (it.partition(":") for it in part)]
            try:
                answers = await self._node.call_all("gettxout", questions)
            except RpcError as no:
                raise Unreachable(f"gettxout: {no}") from None
            found += [outpoint for outpoint, answer in zip(part, answers, strict=True) if answer is not None]
        return frozenset(found)

    async def tip(self) -> Block:
        """Return the newest block of the best chain."""
        await self._identify()
        return block_of(await self._ask("getblockheader", await self._ask("getbestblockhash")))

    async def block_at(self, height: int) -> Block | None:
        """Return the best chain's block at `height`, or None above its tip."""
        await self._identify()
        block_hash = await self._find("getblockhash", height)
        return None if block_hash is None else block_of(await self._ask("getblockheader", block_hash))

    async def outputs_in(self, block_hash: str) -> Sequence[Output]:
        """Return every output of a block that pays an address, in order; none for a block the node does not know."""
        if self._newest_read[0] == block_hash:
            return self._newest_read[1]
        block = await self._found("getblock", self._node.call_raw("getblock", block_hash, 2))
        if block is None:
            return []
        found: list[Output] = []
        loop = asyncio.get_running_loop()
        turn_ends_s = loop.time() + TURN_S
        for transaction in each_transaction(block):
            found += outputs_of(transaction)
            if loop.time() >= turn_ends_s:
                await asyncio.sleep(0)
                turn_ends_s = loop.time() + TURN_S
        # Every payment that a block settles asks for its outputs again.
        self._newest_read = (block_hash, found)
        return found

    async def spends_in(self, block_hash: str, position_of: PositionOf) -> Sequence[Spending]:
        """Return every transaction of a block, in order; none for a block the node does not know."""
        block = await self._find("getblock", block_hash, 2)
        if block is None:
            return []
        return [
            Spending(
                hash_of(field_of(told, "txid")),
                tuple(f"{txid}:{index}" for txid, index in outpoints_of(told)),
                tuple(outputs_of(told)),
            )
            for told in transactions_of(block)
        ]

    # -- mempool

    async def mempool(self) -> Sequence[Output]:
        """Return the outputs of the transactions that wait to be mined, as far as they have been fetched."""
        txids = list_of({"txids": await self._ask("getrawmempool")}, "txids")
        waiting = {hash_of(txid) for txid in txids}
        self._waiting = {txid: outputs for txid, outputs in self._waiting.items() if txid in waiting}
        room = min(MAX_NEW, MAX_WAITING - len(self._waiting))
        new = [txid for txid in txids if txid not in self._waiting]
        for first in range(0, min(room, len(new)), _BATCH):
            for txid, transaction in await self._fetch(new[first : min(first + _BATCH, room)]):
                self._waiting[txid] = tuple(outputs_of(transaction))
        if len(new) > room > 0:
            self._change += 1
        return [output for outputs in self._waiting.values() for output in outputs]

    async def _fetch(self, txids: Sequence[str]) -> list[tuple[str, Any]]:
        """Return the transactions that are still there."""
        try:
            found = await self._node.call_all("getrawtransaction", [(txid, 1) for txid in txids])
        except RpcError:
            # One of them has left the mempool meanwhile, and the answer tells only of that one.
            found = [await self._find("getrawtransaction", txid, 1) for txid in txids]
        return [(txid, told) for txid, told in zip(txids, found, strict=True) if told is not None]

    # -- transactions

    async def transaction(self, txid: str, spends: Sequence[str] = ()) -> TransactionStatus:
        """Return where a transaction stands now; needs the node's index of transactions.

        `CONFLICTED` only where a block of the best chain holds another transaction that spends one of `spends`.
        """
        told = await self._find("getrawtransaction", txid, 2)
        if told is not None and "blockhash" not in record_of(told):
            entry = await self._find("getmempoolentry", txid)
            fee = 0 if entry is None else units_of(field_of(field_of(entry, "fees"), "base"))
            return TransactionStatus(Fate.MEMPOOL, None, fee)
        if told is not None:
            header = await self._ask("getblockheader", told["blockhash"])
            if whole_of(header, "confirmations") >= 1:
                return TransactionStatus(Fate.MINED, block_of(header), await self._fee(told))
        rival = await self._rivals.find(spends)
        return TransactionStatus(Fate.UNKNOWN if rival is None else Fate.CONFLICTED, rival)

    async def inputs_of(self, txid: str) -> Sequence[str]:
        """Return the outpoints that a transaction spends, none for one that the node does not know."""
        told = await self._find("getrawtransaction", txid, 1)
        return [] if told is None else [f"{origin}:{index}" for origin, index in outpoints_of(told)]

    async def _fee(self, told: Any) -> int:
        """Return what a mined transaction pays: the node's word, or with an older node what comes in less goes out."""
        if "fee" in told:
            return units_of(told["fee"])
        if is_coinbase(told):
            return 0
        spent = list(outpoints_of(told))
        origins = list(dict.fromkeys(txid for txid, _ in spent))
        made: dict[str, Any] = {}
        for first in range(0, len(origins), _BATCH):
            made |= await self._fetch(origins[first : first + _BATCH])
        if len(made) != len(origins):
            raise Unreachable("the node does not know what a mined transaction spends")
        values = {txid: [units_of(field_of(it, "value")) for it in records_of(made[txid], "vout")] for txid in origins}
        if any(index >= len(values[txid]) for txid, index in spent):
            raise Unreachable("the node tells of a transaction that spends what is not there")
        paid = sum(units_of(field_of(output, "value")) for output in records_of(told, "vout"))
        fee = sum(values[txid][index] for txid, index in spent) - paid
        if fee < 0:
            raise Unreachable("the node tells of a transaction that makes money")
        return fee

    async def watch(self, addresses: Collection[str]) -> None:
        """Do nothing: the node need not know our addresses."""

    async def balance(self, asset_id: str) -> int:
        """Return 0: the node knows none of our addresses; what can be spent is the sum of the coins in the books."""
        return 0

    # -- payments

    async def draft(self, payees: Sequence[Payee], funds: Funds) -> Draft:
        """Return a payment of the free coins, at the fee to pay now. Raises `InsufficientFunds`, `Rejected`."""
        rate = await self._rate()
        return transactions.select(payees, funds, rate, self._parameters, self._address_at).draft

    async def consolidation(self, coins: Sequence[Coin]) -> Move:
        """Return a move that makes one coin at the house's own address of many. Raises `Rejected` while the fee to pay
        now is above the quiet one, and for coins that are not worth it."""
        rate = await self._rate()
        if rate > self._fees.quiet:
            raise Rejected(f"a fee of {rate} for 1,000 virtual bytes is too high to consolidate coins")
        body = transactions.consolidate(coins, rate, self._parameters, self._address_at)
        check(body.change is not None, "a consolidation gives everything back")
        return Move(body.draft, sum(paid.units for paid in body.paid), self._address_at(0))

    async def redraft(self, draft: Draft) -> Draft | None:
        """Return a draft that spends and pays the same for a quarter more, or the node's estimate if that is higher.

        None where the cap or the change leaves no room for a fee that replaces the old one, or nodes replace nothing.
        """
        if not self._parameters.replaces:
            return None
        body = transactions.decode(draft.body)
        old = transactions.rate_of(body, self._parameters)
        rate = min(max(await self._rate(), -(-old * 5 // 4)), self._fees.cap)
        if rate < old + self._parameters.relay_per_kvb:
            return None
        raised = transactions.raise_fee(body, rate, self._parameters)
        return None if raised is None else raised.draft

    def assemble(self, body: bytes, signature: bytes) -> Candidate:
        """Return the candidate of a body and the signer's raw transaction. Raises `Rejected` if that is another."""
        wanted = transactions.transaction_of(transactions.decode(body), self._parameters.format)
        signed = _parse(signature)
        if signed.serialize(include_witness=True, check_validity=False) != signature:
            raise Rejected("the signer's answer is more than a transaction")
        if signed.id != wanted.id:
            raise Rejected("the signed transaction is not the one that was drafted")
        if signed.weight > self._parameters.max_weight:
            raise Rejected("the transaction is too large to be relayed")
        if not all(len(spent.script_witness) for spent in signed.vin):
            raise Rejected("an input is not signed")
        return Candidate(signed.id.hex(), signature)

    def txid_of(self, body: bytes) -> str:
        """Return the txid of a body: witnesses, whoever makes them, are no part of it."""
        return transactions.transaction_of(transactions.decode(body), self._parameters.format).id.hex()

    def unsigned(self, body: bytes) -> str:
        """Return a body as a PSBT in base64 for a signer elsewhere. Raises `Rejected`."""
        check(self._keys is not None, "a chain whose payments are signed elsewhere knows its keys")
        return psbt_of(body, self._parameters.format, cast(Branch, self._keys), self._fingerprint)

    def import_signed(self, body: bytes, text: str) -> Candidate:
        """Return the candidate of a body and a signed PSBT, or a transaction in hex. Raises `Rejected`."""
        return self.assemble(body, signed_psbt(body, text, self._parameters.format).blob)

    async def broadcast(self, blob: bytes) -> str:
        """Hand a signed transaction to the node and return its txid; one that it has already is fine.

        Raises `Rejected` when the node refuses it, `Unreachable` when it is not known whether it was taken.
        """
        txid = _parse(blob).id.hex()
        try:
            return hash_of(await self._node.call("sendrawtransaction", blob.hex()))
        except RpcError as no:
            if no.code == _IN_CHAIN or any(known in no.reason for known in _KNOWN):
                return txid
            if no.code in _NOT_VALID:
                raise Rejected(no.reason) from None
            raise Unreachable(str(no)) from None

    async def _rate(self) -> int:
        """Return the rate to offer now: the node's estimate, never less than its mempool takes, within the policy."""
        told = await self._ask("estimatesmartfee", _FEE_BLOCKS)
        rate = units_of(told["feerate"]) if "feerate" in record_of(told) else self._fees.fallback
        least = units_of(field_of(await self._ask("getmempoolinfo"), "mempoolminfee"))
        return min(max(rate, least, self._fees.floor), self._fees.cap)

    # -- changes

    async def wait_change(self, seen: int, timeout_s: float) -> int:
        """Return the chain's change number once it is not `seen` any more, at the latest after `timeout_s`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while True:
            left_s = end_s - loop.time()
            await self._look(max(left_s, self._poll_s))
            if self._change != seen or left_s <= 0:
                return self._change
            await asyncio.sleep(min(self._poll_s, left_s))

    async def _look(self, timeout_s: float) -> None:
        """Count a change if the tip or the mempool is another; a node that does not answer has not changed."""
        try:
            async with asyncio.timeout(timeout_s):
                tip = await self._ask("getbestblockhash")
                told = record_of(await self._ask("getmempoolinfo"))
        except (ChainError, TimeoutError):
            return
        now = (tip, *(told.get(name) for name in ("size", "bytes", "total_fee")))
        if now != self._seen:
            self._seen = now
            self._change += 1

    # -- questions

    async def _ask(self, method: str, *parameters: Any) -> Any:
        """Return the node's answer. Raises `Unreachable`, for a no as well."""
        try:
            return await self._node.call(method, *parameters)
        except RpcError as no:
            raise Unreachable(f"{method}: {no}") from None

    async def _find(self, method: str, *parameters: Any) -> Any:
        """Return the node's answer, None where it knows no such thing. Raises `Unreachable`."""
        return await self._found(method, self._node.call(method, *parameters))

    async def _found(self, method: str, answer: Awaitable[Any]) -> Any:
        """Return a method's answer, None where the node knows no such thing. Raises `Unreachable`."""
        try:
            return await answer
        except RpcError as no:
            # A node whose index is not complete, or that has none, cannot say that a transaction is not mined.
            if no.code not in _NOT_FOUND or "index" in no.reason:
                raise Unreachable(f"{method}: {no}") from None
            return None


def _parse(blob: bytes) -> Tx:
    """Return the transaction of raw bytes. Raises `Rejected`."""
    try:
        return Tx.parse(blob, check_validity=False)
    except (BTClibValueError, ValueError, IndexError, EOFError):
        raise Rejected("not a transaction") from None

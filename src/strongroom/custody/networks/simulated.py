"""One simulated node for any number of networks: it mines, takes payments, pays deposits, and fails when told to.

It plays the outside world for the demo and the tests, in a file of its own. Every network is an account chain with one
hot wallet, whose money is all that was ever paid to the addresses the wallet had watched. A payment spends a nonce, and
two payments with the same nonce exclude each other; nonces need not be used in order, so that one which is never used
stops no other.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from coincurve import PublicKey

from strongroom.clock import Clock
from strongroom.custody.chain import (
    Block,
    Candidate,
    Fate,
    Funds,
    InsufficientFunds,
    Output,
    Payee,
    PositionOf,
    Rejected,
    Spending,
    TransactionStatus,
    Unreachable,
)
from strongroom.custody.families import NATIVE, Family, Network
from strongroom.custody.networks import simulated_transactions as transactions
from strongroom.custody.networks.simulated_store import FOREIGN, KnownTransaction, SimulatedStore, State
from strongroom.custody.networks.simulated_transactions import Payment
from strongroom.custody.signer import payment_digest
from strongroom.errors import check
from strongroom.wallet.payments import Draft, nonce_of, nonce_text, position_of

MAX_WAITING: Final = 50_000
"""A network's mempool takes at most this many transactions; beyond it the node is `Unreachable` for new ones."""

MAX_BLOCKS_AT_ONCE: Final = 1_000
"""One call mines at most this many blocks."""

_WAITING: Final = (State.WAITING, State.DOOMED, State.UNDOING)
_IN_BLOCK: Final = (State.MINED, State.UNDONE)
_SPENT: Final = (*_IN_BLOCK, State.VOID)
_MAX_SIGNATURE_CHARS: Final = 200
_MOST_RAISES: Final = 8
"""A payment's fee is raised to so many times the usual one at most."""


class SimulatedNode:
    """The node and its miner: what the outside world does is a method here, what the wallet sees is `chain(network)`.

    `seconds_per_block` overrides every network's own pace for `run`. Opening the file of an earlier run goes on where
    it stopped.
    """

    def __init__(
        self, path: Path, networks: Iterable[Network], clock: Clock, seconds_per_block: float | None = None
    ) -> None:
        check(seconds_per_block is None or seconds_per_block > 0, "a block takes some time")
        self._store = SimulatedStore(path)
        self._clock = clock
        self._seconds_per_block = seconds_per_block
        self._chains = {network.id: SimulatedChain(self._store, network) for network in networks}
        with self._store.commit():
            for chain in self._chains.values():
                if self._store.tip(chain.network) is None:
                    _ = self._add_block(chain, [])

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        self._store.close()

    def chain(self, network: str) -> SimulatedChain:
        """Return the wallet's view of a network."""
        check(network in self._chains, "the simulated node runs the network")
        return self._chains[network]

    def knows(self, network: str, block_hash: str) -> bool:
        """Say whether a block was ever made on a network."""
        return self._store.block(network, block_hash) is not None

    def register(self, network: str, public_key: bytes) -> None:
        """Make `public_key` (compressed, 33 bytes) the one that signs a network's payments."""
        with self._store.commit():
            self._store.set_hot_wallet(self.chain(network).network, public_key)

    async def run(self) -> None:
        """Mine every network at its pace until cancelled."""
        async with asyncio.TaskGroup() as miners:
            for chain in self._chains.values():
                _ = miners.create_task(self._mine_on(chain))

    async def mine(self, network: str, count: int = 1) -> list[Block]:
        """Mine `count` blocks; the first takes what waits."""
        check(1 <= count <= MAX_BLOCKS_AT_ONCE, "a call mines a bounded number of blocks")
        chain = self.chain(network)
        with self._store.commit():
            mined = [self._mine_waiting(chain) for _ in range(count)]
        chain.changes.fire()
        return mined

    async def faucet(
        self, network: str, address: str, tag: str, asset_id: str, amount: int, *, foreign: bool = False
    ) -> str:
        """Let a stranger pay `amount` to an address, and return the txid; a `foreign` wallet pays what it had of us.

        Raises `ValueError` if the address, tag, asset or amount is no good there, `Unreachable` if the mempool is full.
        """
        chain = self.chain(network)
        payee = Payee(chain.spec.format.normalise(address), tag, asset_id, amount)
        transactions.check_payee(chain.spec, payee)
        chain.check_room()
        with self._store.commit():
            parts = (self._store.transaction_count() + 1, payee.address, tag, asset_id, amount)
            txid = transactions.identifier(chain.spec, b"faucet", *(str(part).encode() for part in parts))
            fee, payer = (0, FOREIGN) if foreign else (chain.spec.payment_fee, 0)
            arrived = KnownTransaction(txid, None, fee, State.WAITING, None, payer)
            self._store.add_transaction(network, arrived, [payee])
        chain.changes.fire()
        return txid

    async def reorg(
        self, network: str, depth: int, drop: Collection[str] = (), mend: Collection[str] = ()
    ) -> list[Block]:
        """Replace the last `depth` blocks by `depth` + 1 new ones, which are returned.

        The orphans' transactions are mined again in the newest block, except those in `drop`: something else spent what
        they spent, and they can never be mined again. Those in `mend`, which their block had undone, do well now.
        """
        chain = self.chain(network)
        height = chain.newest().height
        check(1 <= depth <= height, "a reorganisation spares the first block")
        with self._store.commit():
            self._store.orphan_from(network, height - depth + 1)
            for txid in drop:
                self._void(network, txid)
            for txid in mend:
                self._store.set_state(network, txid, State.WAITING)
            fresh = [self._add_block(chain, []) for _ in range(depth)]
            fresh.append(self._mine_waiting(chain))
        chain.changes.fire()
        return fresh

    async def void(self, network: str, txid: str) -> None:
        """Let something else spend what a waiting transaction spends: it can never be mined."""
        chain = self.chain(network)
        with self._store.commit():
            self._void(network, txid)
        chain.changes.fire()

    def fail_next(self, network: str) -> None:
        """Take the next payment into the mempool, and make it void with the next block."""
        self.chain(network).doom_next = True

    def undo_next(self, network: str) -> None:
        """Take the next payment into the mempool, and have its block take the fee and pay nobody."""
        self.chain(network).undo_next = True

    def lose_next_answer(self, network: str) -> None:
        """Carry out the next broadcast, but answer it with `Unreachable`."""
        self.chain(network).lose_next_answer = True

    def pause(self, network: str) -> None:
        """Make the wallet's view of a network `Unreachable`; the network itself goes on."""
        self.chain(network).paused = True

    def resume(self, network: str) -> None:
        """Make a network reachable again."""
        chain = self.chain(network)
        chain.paused = False
        chain.changes.fire()

    def _void(self, network: str, txid: str) -> None:
        known = self._store.transaction(network, txid)
        check(known is not None and known.state in _WAITING, "only a waiting transaction can be made void")
        self._store.set_state(network, txid, State.VOID)

    async def _mine_on(self, chain: SimulatedChain) -> None:
        pace_s = chain.spec.seconds_per_block if self._seconds_per_block is None else self._seconds_per_block
        while True:
            await asyncio.sleep(pace_s)
            _ = await self.mine(chain.network)

    def _mine_waiting(self, chain: SimulatedChain) -> Block:
        waiting = [known for known in self._store.waiting(chain.network) if chain.can_be_mined(known)]
        for known in waiting:
            if known.state is State.DOOMED:
                self._store.set_state(chain.network, known.txid, State.VOID)
        return self._add_block(chain, [known.txid for known in waiting if known.state is not State.DOOMED])

    def _add_block(self, chain: SimulatedChain, txids: Sequence[str]) -> Block:
        parent = self._store.tip(chain.network)
        height, parent_hash = (parent.height + 1, parent.hash) if parent else (0, "")
        time_ms = self._clock.now_ms()
        # The count of all blocks ever made tells two at the same height apart.
        parts = (self._store.block_count(), height, parent_hash, time_ms, *txids)
        block_hash = transactions.identifier(chain.spec, b"block", *(str(part).encode() for part in parts))
        block = Block(height, block_hash, parent_hash, time_ms)
        self._store.add_block(chain.network, block, txids)
        return block


class SimulatedChain:
    """The wallet's view of one simulated network: the chain port."""

    def __init__(self, store: SimulatedStore, spec: Network) -> None:
        self._store = store
        self.spec = spec
        self.changes = Changes()
        self.paused = False
        self.doom_next = False
        self.undo_next = False
        self.lose_next_answer = False

    @property
    def network(self) -> str:
        """Return the network's id."""
        return self.spec.id

    def newest(self) -> Block:
        """Return the tip, reachable or not."""
        block = self._store.tip(self.network)
        if block is None:
            raise Unreachable(f"{self.network} has no block yet")
        return block

    def check_room(self) -> None:
        """Raise `Unreachable` when the mempool is full."""
        if self._store.waiting_count(self.network) >= MAX_WAITING:
            raise Unreachable("the mempool is full")

    async def check_identity(self) -> None:
        """Raise `Unreachable` while the node does not answer: it is of no other chain, and never behind."""
        self._reach()

    async def tip(self) -> Block:
        """Return the newest block of the best chain."""
        self._reach()
        return self.newest()

    async def block_at(self, height: int) -> Block | None:
        """Return the best chain's block at `height`, or None above its tip."""
        self._reach()
        return self._store.block_at(self.network, height)

    async def outputs_in(self, block_hash: str) -> Sequence[Output]:
        """Return every output of a block, in order; also of an orphan, none if unknown."""
        self._reach()
        return self._store.outputs_in(self.network, block_hash)

    async def spends_in(self, block_hash: str, position_of: PositionOf) -> Sequence[Spending]:
        """Return the transactions of our addresses in a block, in order; also of an orphan, none if unknown."""
        self._reach()
        return [self._spending(*found) for found in self._store.payments_in(self.network, block_hash)]

    def _spending(self, txid: str, nonce: int, position: int) -> Spending:
        known = self._store.transaction(self.network, txid)
        undone = known is not None and known.state in (State.UNDONE, State.UNDOING)
        pays = tuple(self._store.outputs_of(self.network, txid))
        return Spending(txid, (nonce_text(nonce, position),), pays, undone=undone)

    async def mempool(self) -> Sequence[Output]:
        """Return the outputs of the transactions that wait to be mined."""
        self._reach()
        return self._store.waiting_outputs(self.network)

    async def transaction(self, txid: str, spends: Sequence[str] = ()) -> TransactionStatus:
        """Return where a transaction stands now."""
        self._reach()
        known = self._store.transaction(self.network, txid)
        if known is None:
            return self._fate_of(self._with_nonce(spends[0]) if spends else [])
        if known.state is State.REPLACED:
            return self._replaced(known)
        fates = {State.MINED: Fate.MINED, State.UNDONE: Fate.REVERTED, State.VOID: Fate.CONFLICTED}
        return TransactionStatus(fates.get(known.state, Fate.MEMPOOL), self._block_of(known), known.fee)

    async def watch(self, addresses: Collection[str]) -> None:
        """Count what `addresses` receive, and have received, to the hot wallet's money."""
        self._reach()
        with self._store.commit():
            self._store.watch(self.network, addresses)

    async def balance(self, asset_id: str) -> int:
        """Return what the hot wallet can spend of an asset."""
        self._reach()
        return self._spendable(asset_id)

    async def lies_at(self, address: str, asset_id: str) -> int:
        """Return what any address has received, less what `faucet` has paid as its own, in blocks."""
        self._reach()
        return self._store.lies_at(self.network, address, asset_id)

    async def inputs_of(self, txid: str) -> Sequence[str]:
        """Return none: what something else has spent is told at once."""
        return ()

    async def unspent(self, outpoints: Sequence[str], *, waiting: bool = False) -> Collection[str]:
        """Return none: a chain of accounts has no coins."""
        return ()

    @property
    def spends_coins(self) -> bool:
        """Payments spend nonces, on every simulated chain."""
        return False

    @property
    def needs_sweeps(self) -> bool:
        """The simulated hot wallet spends what lies on every watched address."""
        return False

    @property
    def payees_at_once(self) -> int:
        """As many as a transaction takes where the family's has outputs, else one."""
        return transactions.MAX_PAYEES if self.spec.family is Family.BITCOIN else 1

    async def draft(self, payees: Sequence[Payee], funds: Funds) -> Draft:
        """Return a payment with the lowest nonce above all that were ever used, at the network's usual fee."""
        self._reach()
        nonce = max(funds.nonce, self._store.next_nonce(self.network))
        return self.draft_with(payees, nonce, self.spec.payment_fee * max(1, len(payees)))

    def draft_with(self, payees: Sequence[Payee], nonce: int, fee: int) -> Draft:
        """Return a payment with a given nonce and fee; pure."""
        return self.drafted(Payment(self.network, nonce, fee, tuple(payees)))

    def drafted(self, payment: Payment) -> Draft:
        """Return the draft of a payment; pure."""
        spends = nonce_text(payment.nonce, payment.source)
        return Draft((spends,), transactions.encode_payment(payment), payment.fee)

    async def redraft(self, draft: Draft) -> Draft | None:
        """Return the same payment for twice the fee, up to eight times the usual one."""
        self._reach()
        payment = transactions.decode_payment(draft.body)
        fee = 2 * payment.fee
        if fee > self.most_raises(payment) * self.spec.payment_fee * len(payment.payees):
            return None
        return self.drafted(msgspec.structs.replace(payment, fee=fee))

    def most_raises(self, payment: Payment) -> int:
        """Return how many times the usual fee a payment may come to pay."""
        return _MOST_RAISES

    def can_be_mined(self, known: KnownTransaction) -> bool:
        """Say whether the next block may take a transaction that waits."""
        return True

    def assemble(self, body: bytes, signature: bytes) -> Candidate:
        """Put a draft's bytes and the signature over them together."""
        return transactions.assemble(self.spec, body, signature)

    def unsigned(self, body: bytes) -> str:
        """Return a draft's bytes in base64, for a signer elsewhere."""
        return base64.b64encode(body).decode()

    def import_signed(self, body: bytes, text: str) -> Candidate:
        """Return the candidate of a draft's bytes and the hot wallet's signature in hex. Raises `Rejected`."""
        if len(text) > _MAX_SIGNATURE_CHARS:
            raise Rejected("the signature is too long")
        try:
            signature = bytes.fromhex("".join(text.split()))
        except ValueError:
            raise Rejected("the signature is not in hex") from None
        self._check_signature(body, signature)
        return self.assemble(body, signature)

    async def broadcast(self, blob: bytes) -> str:
        """Take a payment into the mempool: it needs the hot wallet's signature, a nonce nothing has spent, and funds.

        A candidate replaces a waiting one with its nonce when it pays a higher fee.
        """
        self._reach()
        payment, body, signature = transactions.open_blob(self.spec, blob)
        self._check_signature(body, signature)
        txid = transactions.payment_txid(self.spec, body)
        if self._is_new(txid):
            self._accept(txid, payment)
            self.changes.fire()
        if self.lose_next_answer:
            self.lose_next_answer = False
            raise Unreachable("the connection broke before the answer")
        return txid

    async def wait_change(self, seen: int, timeout_s: float) -> int:
        """Return the change number once it is not `seen` any more, at the latest after `timeout_s`."""
        return await self.changes.wait(seen, timeout_s)

    def _reach(self) -> None:
        if self.paused:
            raise Unreachable(f"{self.network} does not answer")

    def _block_of(self, known: KnownTransaction) -> Block | None:
        return self._store.block(self.network, known.block_hash) if known.block_hash else None

    def _replaced(self, known: KnownTransaction) -> TransactionStatus:
        """A replaced candidate's fate is its rivals': nothing is settled until one of them is."""
        return msgspec.structs.replace(self._fate_of(self._rivals(known)), fee=known.fee)

    def _fate_of(self, rivals: Iterable[KnownTransaction]) -> TransactionStatus:
        """Return the fate of a transaction that is not here, by those with its nonce."""
        for rival in rivals:
            if rival.state in _SPENT:
                return TransactionStatus(Fate.CONFLICTED, self._block_of(rival), rival=rival.txid)
        return TransactionStatus(Fate.UNKNOWN)

    def _rivals(self, known: KnownTransaction) -> list[KnownTransaction]:
        if known.nonce is None:
            return []
        with_nonce = self._store.with_nonce(self.network, known.nonce, known.position)
        return [rival for rival in with_nonce if rival.txid != known.txid]

    def _with_nonce(self, spends: str) -> list[KnownTransaction]:
        return self._store.with_nonce(self.network, nonce_of(spends), position_of(spends))

    def _check_signature(self, body: bytes, signature: bytes) -> None:
        public_key = self._store.hot_wallet(self.network)
        if public_key is None:
            raise Rejected("no hot wallet is registered")
        try:
            good = PublicKey(public_key).verify(signature, payment_digest(body), hasher=None)
        except ValueError:
            good = False
        if not good:
            raise Rejected("the signature is not the hot wallet's")

    def _is_new(self, txid: str) -> bool:
        known = self._store.transaction(self.network, txid)
        if known is not None and known.state not in (*_WAITING, *_IN_BLOCK):
            raise Rejected("another transaction replaced this one or took its nonce")
        return known is None

    def _accept(self, txid: str, payment: Payment) -> None:
        rivals = self._store.with_nonce(self.network, payment.nonce, payment.source)
        if any(rival.state in _SPENT for rival in rivals):
            raise Rejected("the nonce is spent")
        waiting = [rival for rival in rivals if rival.state in _WAITING]
        if any(rival.fee >= payment.fee for rival in waiting):
            raise Rejected("a transaction with this nonce waits and pays no less")
        self.check_room()
        state = State.DOOMED if self.doom_next else State.UNDOING if self.undo_next else State.WAITING
        with self._store.commit():
            for rival in waiting:
                self._store.set_state(self.network, rival.txid, State.REPLACED)
            self._check_funds(payment)
            fresh = KnownTransaction(txid, payment.nonce, payment.fee, state, None, payment.source)
            self._store.add_transaction(self.network, fresh, payment.payees)
        self.doom_next = self.undo_next = False

    def _check_funds(self, payment: Payment) -> None:
        needed = {NATIVE: payment.fee}
        for payee in payment.payees:
            needed[payee.asset_id] = needed.get(payee.asset_id, 0) + payee.amount
        for asset_id, amount in needed.items():
            if amount > self._spendable(asset_id, payment.source):
                raise InsufficientFunds(f"the hot wallet has too little {asset_id or 'native coin'}")

    def _spendable(self, asset_id: str, source: int = 0) -> int:
        """Return what a payment can spend; all that was received is the hot wallet's here."""
        fees = self._store.fees(self.network) if asset_id == NATIVE else 0
        return self._store.received(self.network, asset_id) - self._store.paid(self.network, asset_id) - fees


class Changes:
    """A number that grows with each change, and a way to wait for the next without missing one."""

    def __init__(self) -> None:
        self._number = 0
        self._next = asyncio.Event()

    def fire(self) -> None:
        """Count one change and wake everybody who waits."""
        self._number += 1
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Return the number once it is not `seen` any more, at the latest after `timeout_s`."""
        if self._number == seen:
            try:
                async with asyncio.timeout(timeout_s):
                    _ = await self._next.wait()
            except TimeoutError:
                pass
        return self._number

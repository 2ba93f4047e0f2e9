"""A simulated network as one of coins: payments spend named outputs, bring change back, and exclude each other.

The outside is the product's simulated node, which mines, reorganises and loses; what each transaction spends stands in
a table of the test's own beside its tables. How coins are chosen, signed and named is the product's own code for real
networks (`custody.networks.utxo`), of which only the node's answers to questions of fees are made up here.

As on a real network nothing undoes a payment, and nobody else can spend what is ours: a payment that the node dooms is
only forgotten, and may be offered again. What can never be mined any more is a payment that spends the output of a
transaction that was left out for good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final, cast

import msgspec
from btclib.script.script_pub_key import ScriptPubKey
from btclib.tx.tx import Tx
from btclib.tx.tx_out import TxOut

from strongroom.custody.chain import (
    Candidate,
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
from strongroom.custody.derivation import Branch
from strongroom.custody.families import BITCOIN, NATIVE
from strongroom.custody.networks.simulated import SimulatedChain
from strongroom.custody.networks.simulated_store import KnownTransaction, SimulatedStore, State
from strongroom.custody.networks.simulated_transactions import identifier
from strongroom.custody.networks.utxo import FeePolicy, UtxoChain
from strongroom.custody.networks.utxo_parameters import CHAINS
from strongroom.custody.networks.utxo_signing import UtxoScheme
from strongroom.custody.rpc import Node
from strongroom.custody.signer import LocalSigner
from strongroom.records.coins import Coin
from strongroom.wallet.moves import Move
from strongroom.wallet.payments import Draft

COINED: Final = BITCOIN.id
"""The network that is one of coins, in seeds that have one."""

CONSOLIDATE_ABOVE: Final = 6
"""With more free coins than that the smallest become one."""

_PARAMETERS: Final = CHAINS["bitcoin-regtest"]
_FEES: Final = FeePolicy(floor=1_000, fallback=5_000, cap=60_000, quiet=5_000)
_WAITING: Final = (State.WAITING, State.UNDOING)
_GONE: Final = "bad-txns-inputs-missingorspent"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS input (
    network TEXT, txid TEXT, position INTEGER, outpoint TEXT NOT NULL, PRIMARY KEY (network, txid, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS input_outpoint ON input (network, outpoint);
"""


class _Quiet:
    """A node that knows of fees only: there is no estimate, and room in its mempool."""

    async def call(self, method: str, *_parameters: Any) -> Any:
        """Return the answer to a question of fees."""
        return {"estimatesmartfee": {}, "getmempoolinfo": {"mempoolminfee": Decimal("0.00001")}}[method]


class CoinedChain(SimulatedChain):
    """The wallet's view of such a network, and what the outside may do there (`Consolidating`)."""

    def __init__(self, store: SimulatedStore, branch: Branch) -> None:
        super().__init__(store, BITCOIN)
        self._wallet = UtxoChain(BITCOIN, _PARAMETERS, cast(Node, _Quiet()), self.address_at, fees=_FEES, keys=branch)
        self._branch = branch
        store._run(_SCHEMA)

    def address_at(self, position: int) -> str:
        """Return our address at a position."""
        return self._branch.address(position).address

    @property
    def spends_coins(self) -> bool:
        """Payments spend coins."""
        return True

    @property
    def payees_at_once(self) -> int:
        """Return how many payees one transaction may have."""
        return self._wallet.payees_at_once

    # -- what the node knows

    def spent_by(self, txid: str) -> list[str]:
        """Return the outpoints that a transaction spends; none where a stranger's own money pays."""
        sql = "SELECT outpoint FROM input WHERE network = ? AND txid = ? ORDER BY position"
        return [cast(str, row[0]) for row in self._store._rows(sql, self.network, txid)]

    def _spenders(self, outpoint: str) -> list[KnownTransaction]:
        """Return every transaction ever seen that spends an outpoint."""
        sql = "SELECT txid FROM input WHERE network = ? AND outpoint = ?"
        found = [self._known(cast(str, row[0])) for row in self._store._rows(sql, self.network, outpoint)]
        return [it for it in found if it is not None]

    def _known(self, txid: str) -> KnownTransaction | None:
        return self._store.transaction(self.network, txid)

    def _output(self, outpoint: str) -> Output | None:
        """Return an output of a transaction that is mined or can be."""
        txid, _, index = outpoint.partition(":")
        known = self._known(txid)
        if known is None or (known.state is not State.MINED and not self._waits(known)):
            return None
        return next((it for it in self._store.outputs_of(self.network, txid) if it.index == int(index)), None)

    def _waits(self, known: KnownTransaction) -> bool:
        """Say whether a transaction waits, and all that it spends is there, or waits as well."""
        return known.state in _WAITING and all(self._is_there(it, known.txid) for it in self.spent_by(known.txid))

    def _is_there(self, outpoint: str, spender: str) -> bool:
        """Say whether a waiting transaction may spend an outpoint: it is made, and no block has spent it."""
        rivals = [it for it in self._spenders(outpoint) if it.txid != spender]
        return self._output(outpoint) is not None and not any(it.state is State.MINED for it in rivals)

    def can_be_mined(self, known: KnownTransaction) -> bool:
        """Say whether the next block may take a transaction, or forgets one that is doomed."""
        return known.state is State.DOOMED or self._waits(known)

    def unspent_coins(self, addresses: Collection[str]) -> dict[str, int]:
        """Return what of the best chain's outputs to these addresses no block has spent: units by outpoint."""
        found: dict[str, int] = {}
        for block in self._blocks():
            for it in self._store.outputs_in(self.network, block):
                if it.address in addresses:
                    found[f"{it.txid}:{it.index}"] = it.amount
        return {it: units for it, units in found.items() if self._is_unspent(it, waiting=False)}

    def spent_coins(self) -> list[str]:
        """Return every outpoint that a transaction of the best chain spends, as often as one does."""
        txids = [txid for block in self._blocks() for txid in self._transactions_in(block)]
        return [outpoint for txid in txids for outpoint in self.spent_by(txid)]

    def paid_in(self, block_hash: str) -> list[Output]:
        """Return what the house's payments in a block pay others."""
        outputs, home = self._store.outputs_in(self.network, block_hash), self.address_at(0)
        return [it for it in outputs if it.ours and it.address != home]

    def _blocks(self) -> Iterable[str]:
        for height in range(self.newest().height + 1):
            if (block := self._store.block_at(self.network, height)) is not None:
                yield block.hash

    def _transactions_in(self, block_hash: str) -> list[str]:
        sql = "SELECT txid FROM inclusion WHERE network = ? AND block_hash = ? ORDER BY position"
        return [cast(str, row[0]) for row in self._store._rows(sql, self.network, block_hash)]

    # -- what the wallet sees

    async def outputs_in(self, block_hash: str) -> Sequence[Output]:
        """Return every output of a block; which are of payments of ours a node of coins cannot tell."""
        return [_anybodys(it) for it in await super().outputs_in(block_hash)]

    async def mempool(self) -> Sequence[Output]:
        """Return the outputs of what waits to be mined and can be."""
        self._reach()
        waiting = [it for it in self._store.waiting(self.network) if self._waits(it)]
        return [_anybodys(it) for known in waiting for it in self._store.outputs_of(self.network, known.txid)]

    async def spends_in(self, block_hash: str, position_of: PositionOf) -> Sequence[Spending]:
        """Return every transaction of a block, in order."""
        self._reach()
        found: list[Spending] = []
        for txid in self._transactions_in(block_hash):
            outputs = tuple(_anybodys(it) for it in self._store.outputs_of(self.network, txid))
            found.append(Spending(txid, tuple(self.spent_by(txid)), outputs))
        return found

    async def transaction(self, txid: str, spends: Sequence[str] = ()) -> TransactionStatus:
        """Return where a transaction stands now; `CONFLICTED` only by a block that has spent one of `spends`, and where
        a stranger has taken back what was to be ours."""
        self._reach()
        known = self._known(txid)
        if known is not None and known.state is State.MINED:
            return TransactionStatus(Fate.MINED, self._block_of(known), known.fee)
        if known is not None and (known.state is State.DOOMED or self._waits(known)):
            return TransactionStatus(Fate.MEMPOOL, None, known.fee)
        if known is not None and known.nonce is None:
            return TransactionStatus(Fate.CONFLICTED, None, known.fee)
        for outpoint in spends:
            for rival in self._spenders(outpoint):
                if rival.state is State.MINED and rival.txid != txid:
                    return TransactionStatus(Fate.CONFLICTED, self._block_of(rival))
        return TransactionStatus(Fate.UNKNOWN)

    async def inputs_of(self, txid: str) -> Sequence[str]:
        """Return what a transaction spends."""
        self._reach()
        return self.spent_by(txid)

    async def unspent(self, outpoints: Sequence[str], *, waiting: bool = False) -> Collection[str]:
        """Return those of the outputs that are unspent."""
        self._reach()
        return [it for it in outpoints if self._is_unspent(it, waiting=waiting)]

    def _is_unspent(self, outpoint: str, *, waiting: bool) -> bool:
        made = self._known(outpoint.partition(":")[0])
        if made is None or not (made.state is State.MINED or (waiting and self._waits(made))):
            return False
        return not any(it.state is State.MINED or (waiting and self._waits(it)) for it in self._spenders(outpoint))

    # -- payments

    async def draft(self, payees: Sequence[Payee], funds: Funds) -> Draft:
        """Return a payment of the free coins."""
        self._reach()
        return await self._wallet.draft(payees, funds)

    async def redraft(self, draft: Draft) -> Draft | None:
        """Return the same payment for a higher fee."""
        self._reach()
        return await self._wallet.redraft(draft)

    async def consolidation(self, coins: Sequence[Coin]) -> Move:
        """Return a move that makes one coin of many."""
        self._reach()
        return await self._wallet.consolidation(coins)

    def txid_of(self, body: bytes) -> str:
        """Return what a body's transaction will be called."""
        return self._wallet.txid_of(body)

    def assemble(self, body: bytes, signature: bytes) -> Candidate:
        """Return the candidate of a body and its signed transaction."""
        return self._wallet.assemble(body, signature)

    def unsigned(self, body: bytes) -> str:
        """Return a body as a PSBT."""
        return self._wallet.unsigned(body)

    def import_signed(self, body: bytes, text: str) -> Candidate:
        """Return the candidate of a body and what a signer elsewhere made of it."""
        return self._wallet.import_signed(body, text)

    async def broadcast(self, blob: bytes) -> str:
        """Take a payment into the mempool, in the place of one that spends the same for less."""
        self._reach()
        transaction = Tx.parse(blob, check_validity=False)
        txid = transaction.id.hex()
        known = self._known(txid)
        if known is None or not (known.state in (State.MINED, State.DOOMED) or self._waits(known)):
            spends = [f"{it.prev_out.tx_id.hex()}:{it.prev_out.vout}" for it in transaction.vin]
            paid = [Payee(_address_of(it), "", NATIVE, it.value) for it in transaction.vout]
            self._accept_coins(txid, spends, paid, known)
            self.changes.fire()
        if self.lose_next_answer:
            self.lose_next_answer = False
            raise Unreachable("the connection broke before the answer")
        return txid

    def _accept_coins(
        self, txid: str, spends: Sequence[str], paid: Sequence[Payee], known: KnownTransaction | None
    ) -> None:
        coins = [self._output(it) for it in spends if self._is_there(it, txid)]
        if len(coins) != len(spends):
            raise Rejected(_GONE)
        fee = sum(it.amount for it in coins if it is not None) - sum(it.amount for it in paid)
        rivals = {it.txid: it for outpoint in spends for it in self._spenders(outpoint) if it.txid != txid}
        waiting = [it for it in rivals.values() if it.state is State.DOOMED or self._waits(it)]
        if fee < 0 or any(it.fee >= fee for it in waiting):
            raise Rejected("insufficient fee")
        self.check_room()
        state = State.DOOMED if self.doom_next else State.WAITING
        with self._store.commit():
            for rival in waiting:
                self._store.set_state(self.network, rival.txid, State.REPLACED)
            if known is None:
                number = self._store.transaction_count() + 1
                self._store.add_transaction(self.network, KnownTransaction(txid, number, fee, state, None), paid)
                self._keep_inputs(txid, spends)
            else:
                self._store.set_state(self.network, txid, state)
        self.doom_next = self.undo_next = False

    def _keep_inputs(self, txid: str, spends: Sequence[str]) -> None:
        for position, outpoint in enumerate(spends):
            self._store._run("INSERT INTO input VALUES (?, ?, ?, ?)", self.network, txid, position, outpoint)

    # -- what others do

    def remember(self) -> int:
        """Let the node be shown every payment of ours that it has forgotten and may take; return how many it takes."""
        gone = "nonce IS NOT NULL AND state IN ('void', 'replaced')"
        sql = f"SELECT txid FROM tx WHERE network = ? AND {gone} ORDER BY number"
        taken = 0
        for row in self._store._rows(sql, self.network):
            txid = cast(str, row[0])
            spends, paid = self.spent_by(txid), self._store.outputs_of(self.network, txid)
            payees = [Payee(it.address, it.tag, it.asset_id, it.amount) for it in paid]
            rivals = [it for outpoint in spends for it in self._spenders(outpoint) if it.txid != txid]
            if not any(it.state is State.DOOMED or self._waits(it) for it in rivals):
                try:
                    self._accept_coins(txid, spends, payees, self._known(txid))
                except Rejected:
                    continue
                taken += 1
        if taken:
            self.changes.fire()
        return taken

    def thaw(self, cold: str, address: str, units: int) -> str:
        """Let the cold wallet pay an address, with change; return the txid, empty where it has too little."""
        spends: list[str] = []
        total = 0
        for outpoint, has in sorted(self.unspent_coins({cold}).items()):
            if total < units and self._is_unspent(outpoint, waiting=True):
                spends.append(outpoint)
                total += has
        if total < units:
            return ""
        number = self._store.transaction_count() + 1
        txid = identifier(BITCOIN, b"thaw", str(number).encode())
        paid = [Payee(address, "", NATIVE, units), Payee(cold, "", NATIVE, total - units)]
        with self._store.commit():
            arrived = KnownTransaction(txid, None, 0, State.WAITING, None)
            self._store.add_transaction(self.network, arrived, [it for it in paid if it.amount])
            self._keep_inputs(txid, spends)
        self.changes.fire()
        return txid


def _address_of(output: TxOut) -> str:
    return ScriptPubKey(output.scriptPubKey, "regtest", check_validity=False).address


def _anybodys(output: Output) -> Output:
    return msgspec.structs.replace(output, ours=False) if output.ours else output


class CoinSigner(LocalSigner):
    """A signer in this process that signs payments of coins as on a real network."""

    def __init__(self, seed: bytes, networks: Iterable[Any]) -> None:
        super().__init__(seed, networks)
        self._scheme = UtxoScheme(seed, BITCOIN, _PARAMETERS)

    async def sign(self, network: str, payment: int, body: bytes) -> bytes:
        """Return a payment's body signed as its network's payments are."""
        if network == COINED:
            return self._scheme.sign(body)
        return await super().sign(network, payment, body)


def use_coins(treasury: Any) -> None:
    """Let a house see its network of coins as one."""
    [number] = [number for number, it in treasury._sources.items() if it.chain.network == COINED]
    source = treasury._sources[number]
    chain = CoinedChain(treasury.node._store, source.branch)
    treasury.node._chains[COINED] = chain
    watcher = treasury.watchers[COINED]
    watcher._chain = watcher.restoration._chain = treasury.senders[COINED]._chain = chain
    treasury.pools._sources = treasury._sources = treasury._sources | {number: source._replace(chain=chain)}

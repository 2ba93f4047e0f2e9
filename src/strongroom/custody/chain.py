"""The chain port: all that custody asks of a network's node, the same for every family.

    ChainError (Exception)
      Unreachable              no answer, or none that settles it: what was asked for may have happened or not
      Rejected                 a no: the node will not take this transaction as it is
        InsufficientFunds      a no that money changes: the same transaction may be taken once funds have arrived
        NeedsGas               an address cannot pay for its own sweep

A payment reserves something that can be spent once: coins (outputs that our keys can spend) on a chain of inputs and
outputs, a nonce on a chain of accounts. A payment may have several candidate transactions (a higher fee, say), which
all spend the same coins or nonce: they exclude each other, and at most one of them is ever mined. Only the chain's own
word that one of them is buried, or that something else spent what they spend, ends a payment; `Unreachable` never does,
and `Rejected` speaks of one candidate only.

Amounts are integers in the chain's smallest unit of the asset (wei, satoshi, drop).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

import msgspec

from strongroom.records.coins import Coin
from strongroom.wallet.payments import Draft


class ChainError(Exception):
    """A node did not do what it was asked."""


class Unreachable(ChainError):
    """The node gave no answer, or none that settles it: ask again, and take nothing for granted."""


class Rejected(ChainError):
    """The node will not take this transaction; the message is its reason, for the operator."""


class InsufficientFunds(Rejected):
    """The hot wallet cannot pay this now; the same transaction may be taken once funds have arrived."""


class NeedsGas(Rejected):
    """An address has too little of the native coin to pay for its sweep: `units` more are needed, in the chain's."""

    def __init__(self, units: int) -> None:
        super().__init__(f"the address needs {units} more units of the native coin for its sweep")
        self.units = units


class Block(msgspec.Struct, frozen=True):
    """A block of the chain; `time_ms` is the miner's clock in Unix milliseconds."""

    height: int
    hash: str
    parent_hash: str
    time_ms: int


class Output(msgspec.Struct, frozen=True):
    """One payment to one address inside a transaction; (txid, index) names it for ever, whichever block it is in.

    `asset_id` is the chain's own name for what was paid, `""` for the native coin. `ours` is true when the node knows
    that our own keys funded the transaction, which is never a deposit; the books know of those that they have signed.
    `coinbase` is what a block pays its miner, which cannot be spent before a hundred blocks are on it.
    """

    txid: str
    index: int
    address: str
    tag: str
    asset_id: str
    amount: int
    ours: bool = False
    coinbase: bool = False


class Spending(msgspec.Struct, frozen=True):
    """A transaction in a block, with what it spends (`txid:index`, or a nonce's text) and its outputs to addresses.

    Of one that its block has `undone` they are those that it would have had, as far as that can be told.
    """

    txid: str
    spends: tuple[str, ...]
    outputs: tuple[Output, ...]
    undone: bool = False


class Payee(msgspec.Struct, frozen=True):
    """Somebody a payment pays: an address in its normal spelling, its tag or `""`, an asset id and an amount."""

    address: str
    tag: str
    asset_id: str
    amount: int


class Funds(msgspec.Struct, frozen=True):
    """What a payment may spend: coins that none of our payments spends, or nonces from `nonce` on."""

    nonce: int = 0
    coins: tuple[Coin, ...] = ()


class Candidate(msgspec.Struct, frozen=True):
    """A signed transaction ready to broadcast; its `txid` is known before the node has seen it."""

    txid: str
    blob: bytes


class Fate(Enum):
    """What the node knows of a transaction now."""

    UNKNOWN = "unknown"
    MEMPOOL = "mempool"
    MINED = "mined"
    REVERTED = "reverted"
    CONFLICTED = "conflicted"


class TransactionStatus(msgspec.Struct, frozen=True):
    """Where a transaction stands. `REVERTED` is in a block that took its fee and undid what it was to do.

    `block` is the block it is in; for `CONFLICTED` the block of the rival that spent the same nonce or inputs, or None
    when the transaction can never be mined again. A reorganisation may undo whatever has a `block`. `fee` is what the
    transaction pays, in the native coin's smallest unit (0 while unknown), `rival` the rival's txid where it is known.
    """

    fate: Fate
    block: Block | None = None
    fee: int = 0
    rival: str = ""


PositionOf: TypeAlias = Callable[[str], int | None]
"""Tells at which position the key of an address is, in its normal spelling; None for an address that is not ours."""


class Chain(Protocol):
    """A network as its node tells it; every method but the pure ones may raise `Unreachable`."""

    @property
    def network(self) -> str:
        """Return the network's id."""
        ...

    async def check_identity(self) -> None:
        """Raise `Unreachable` unless the node is of this chain, up to date, and can tell all that is needed."""
        ...

    async def tip(self) -> Block:
        """Return the newest block of the best chain."""
        ...

    async def block_at(self, height: int) -> Block | None:
        """Return the best chain's block at `height`, or None above its tip."""
        ...

    async def outputs_in(self, block_hash: str) -> Sequence[Output]:
        """Return every output of a block, in order; also of a block no longer on the best chain, none if unknown."""
        ...

    async def spends_in(self, block_hash: str, position_of: PositionOf) -> Sequence[Spending]:
        """Return the transactions of a block, in order: on a chain of accounts those of our addresses only, which
        `position_of` knows. None if unknown.

        So what the house has paid is found on the chain where the books do not know of it.
        """
        ...

    async def mempool(self) -> Sequence[Output]:
        """Return the outputs of the transactions that wait to be mined."""
        ...

    async def transaction(self, txid: str, spends: Sequence[str] = ()) -> TransactionStatus:
        """Return where a transaction stands now; with what it `spends` also where a rival was mined."""
        ...

    async def inputs_of(self, txid: str) -> Sequence[str]:
        """Return the coins (`txid:index`) that a stranger's transaction spends, as `transaction` takes them.

        None where the node does not know it, and on a chain of accounts.
        """
        ...

    async def watch(self, addresses: Collection[str]) -> None:
        """Tell the node that addresses are ours: what they receive becomes spendable. Telling twice is fine."""
        ...

    async def balance(self, asset_id: str) -> int:
        """Return what the hot wallet can spend: received in blocks, less what its payments, pending too, take."""
        ...

    async def unspent(self, outpoints: Sequence[str], *, waiting: bool = False) -> Collection[str]:
        """Return those of the outputs (`txid:index`) that the best chain's blocks have and have not spent.

        With `waiting` those that no transaction that waits to be mined spends either, and what such ones make.
        """
        ...

    @property
    def spends_coins(self) -> bool:
        """Tell whether payments spend coins, and not a nonce."""
        ...

    @property
    def needs_sweeps(self) -> bool:
        """Tell whether what arrives at a deposit address must be swept before payments can spend it."""
        ...

    @property
    def payees_at_once(self) -> int:
        """Return how many payees one transaction may have."""
        ...

    async def draft(self, payees: Sequence[Payee], funds: Funds) -> Draft:
        """Return a payment to be signed, at the fee to pay now. Raises `InsufficientFunds`, `Rejected`."""
        ...

    async def redraft(self, draft: Draft) -> Draft | None:
        """Return a draft that spends and pays the same for a fee high enough to replace it; None for one that pays
        enough already, or as much as may be paid."""
        ...

    def assemble(self, body: bytes, signature: bytes) -> Candidate:
        """Put a draft's bytes and the signer's answer together; pure. Raises `Rejected`."""
        ...

    def unsigned(self, body: bytes) -> str:
        """Return a draft's bytes as a text that signers elsewhere understand; pure. Raises `Rejected`."""
        ...

    def import_signed(self, body: bytes, text: str) -> Candidate:
        """Return the candidate of a draft's bytes and what a signer elsewhere made of them; pure.

        Raises `Rejected`, with the reason for the operator, unless it is the draft's transaction, signed by our keys.
        """
        ...

    async def broadcast(self, blob: bytes) -> str:
        """Hand a candidate's blob to the network and return its txid; the same blob twice is fine.

        Raises `Rejected` when the node refuses the candidate, `Unreachable` when it is not known whether it was taken.
        """
        ...

    async def wait_change(self, seen: int, timeout_s: float) -> int:
        """Return the chain's change number once it is not `seen` any more, at the latest after `timeout_s`.

        Blocks, reorganisations and arrivals in the mempool count as changes. Give -1 to get the number at once. It does
        not raise while the node is unreachable: it waits.
        """
        ...

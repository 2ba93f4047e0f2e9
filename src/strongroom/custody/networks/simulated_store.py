"""The simulated chains' own SQLite file: the outside world, which forgets nothing when the wallet is killed.

It shares nothing with the wallet's books. One thread uses it. Amounts are decimal text: wei do not fit 64 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, cast

import apsw

from strongroom.custody.chain import Block, Output, Payee
from strongroom.files import claim

MAX_BLOCK_TRANSACTIONS: Final = 5_000
"""A block takes at most this many transactions; the others wait for the next."""

FOREIGN: Final = -1
"""Stands in `position` for the one wallet outside that we have paid to, the cold one: what it pays is its own."""

Value: TypeAlias = int | str | bytes | None
"""What a column can hold here."""

_BUSY_MS: Final = 5_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS hot_wallet (network TEXT PRIMARY KEY, public_key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS watched (network TEXT, address TEXT, PRIMARY KEY (network, address)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block (
    number INTEGER PRIMARY KEY,
    network TEXT NOT NULL,
    height INTEGER NOT NULL,
    hash TEXT NOT NULL,
    parent_hash TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    best INTEGER NOT NULL,
    UNIQUE (network, hash)
);
CREATE UNIQUE INDEX IF NOT EXISTS block_best ON block (network, height) WHERE best;
CREATE TABLE IF NOT EXISTS inclusion (
    network TEXT, block_hash TEXT, position INTEGER, txid TEXT NOT NULL, PRIMARY KEY (network, block_hash, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tx (
    number INTEGER PRIMARY KEY,
    network TEXT NOT NULL,
    txid TEXT NOT NULL,
    nonce INTEGER,
    fee TEXT NOT NULL,
    state TEXT NOT NULL,
    block_hash TEXT,
    position INTEGER NOT NULL DEFAULT 0,
    UNIQUE (network, txid)
);
CREATE INDEX IF NOT EXISTS tx_waiting ON tx (network, number) WHERE state IN ('waiting', 'doomed', 'undoing');
CREATE INDEX IF NOT EXISTS tx_nonce ON tx (network, nonce) WHERE nonce IS NOT NULL;
CREATE TABLE IF NOT EXISTS output (
    network TEXT, txid TEXT, position INTEGER,
    address TEXT NOT NULL, tag TEXT NOT NULL, asset_id TEXT NOT NULL, amount TEXT NOT NULL,
    PRIMARY KEY (network, txid, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS output_address ON output (network, address);
"""
_BLOCK: Final = "SELECT height, hash, parent_hash, time_ms FROM block"
_TRANSACTION: Final = "SELECT txid, nonce, fee, state, block_hash, position FROM tx"
_OUTPUT: Final = (
    "SELECT o.txid, o.position, o.address, o.tag, o.asset_id, o.amount, t.nonce IS NOT NULL"
    " FROM output o JOIN tx t USING (network, txid)"
)


class State(Enum):
    """What has become of a transaction.

    A doomed one waits until the next block makes it void. One that is to be undone waits for a block that takes its fee
    and its nonce, and pays nobody.
    """

    WAITING = "waiting"
    DOOMED = "doomed"
    UNDOING = "undoing"
    MINED = "mined"
    UNDONE = "undone"
    REPLACED = "replaced"
    VOID = "void"


class KnownTransaction(NamedTuple):
    """A transaction the node has seen; `nonce` is None when somebody else's keys funded it.

    `position` is that of our address whose nonce it is, 0 for the hot wallet's.
    """

    txid: str
    nonce: int | None
    fee: int
    state: State
    block_hash: str | None
    position: int = 0


class SimulatedStore:
    """The tables of all simulated chains; the caller groups calls into one commit with `with store.commit():`."""

    def __init__(self, path: Path) -> None:
        claim(path)
        self._db = apsw.Connection(str(path))
        # A statement on a partial index is prepared once, and not again for every value.
        self._db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        self._db.set_busy_timeout(_BUSY_MS)
        self._run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        self._run(_SCHEMA)
        if not any(row[1] == "position" for row in self._rows("PRAGMA table_info(tx)")):
            self._run("ALTER TABLE tx ADD COLUMN position INTEGER NOT NULL DEFAULT 0")

    @contextmanager
    def commit(self) -> Generator[None]:
        """Commit the changes made inside together, or none of them when it is left by an exception."""
        with self._db:
            yield

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def set_hot_wallet(self, network: str, public_key: bytes) -> None:
        """Make `public_key` the one whose signature a network's payments need."""
        self._run("INSERT OR REPLACE INTO hot_wallet VALUES (?, ?)", network, public_key)

    def hot_wallet(self, network: str) -> bytes | None:
        """Return the public key payments are checked against, None while none is registered."""
        row = self._one("SELECT public_key FROM hot_wallet WHERE network = ?", network)
        return cast(bytes, row[0]) if row else None

    def watch(self, network: str, addresses: Collection[str]) -> None:
        """Count what `addresses` receive to the hot wallet's funds from now on, and what they have received."""
        for address in addresses:
            self._run("INSERT OR IGNORE INTO watched VALUES (?, ?)", network, address)

    def tip(self, network: str) -> Block | None:
        """Return the newest block of the best chain; None before there is any."""
        return self._block(f"{_BLOCK} WHERE network = ? AND best ORDER BY height DESC LIMIT 1", network)

    def block_at(self, network: str, height: int) -> Block | None:
        """Return the best chain's block at `height`."""
        return self._block(f"{_BLOCK} WHERE network = ? AND best AND height = ?", network, height)

    def block(self, network: str, block_hash: str) -> Block | None:
        """Return the block with that hash, on the best chain or not."""
        return self._block(f"{_BLOCK} WHERE network = ? AND hash = ?", network, block_hash)

    def block_count(self) -> int:
        """Return how many blocks were ever made, orphans included."""
        return cast(int, self._value("SELECT COALESCE(MAX(number), 0) FROM block"))

    def add_block(self, network: str, block: Block, txids: Sequence[str]) -> None:
        """Put a block with its transactions on the best chain, whose tip is its parent."""
        self._run(
            "INSERT INTO block (network, height, hash, parent_hash, time_ms, best) VALUES (?, ?, ?, ?, ?, 1)",
            network,
            block.height,
            block.hash,
            block.parent_hash,
            block.time_ms,
        )
        for position, txid in enumerate(txids):
            self._run("INSERT INTO inclusion VALUES (?, ?, ?, ?)", network, block.hash, position, txid)
            self._run(
                "UPDATE tx SET state = iif(state = 'undoing', 'undone', 'mined'), block_hash = ?"
                " WHERE network = ? AND txid = ?",
                block.hash,
                network,
                txid,
            )

    def orphan_from(self, network: str, height: int) -> None:
        """Take the blocks from `height` up off the best chain; their transactions wait again."""
        self._run(
            "UPDATE tx SET state = iif(state = 'undone', 'undoing', 'waiting'), block_hash = NULL"
            " WHERE network = ?1 AND state IN ('mined', 'undone')"
            " AND block_hash IN (SELECT hash FROM block WHERE network = ?1 AND best AND height >= ?2)",
            network,
            height,
        )
        self._run("UPDATE block SET best = 0 WHERE network = ? AND best AND height >= ?", network, height)

    def transaction_count(self) -> int:
        """Return how many transactions were ever seen."""
        return cast(int, self._value("SELECT COALESCE(MAX(number), 0) FROM tx"))

    def transaction(self, network: str, txid: str) -> KnownTransaction | None:
        """Return what is known of a transaction."""
        found = self._transactions(f"{_TRANSACTION} WHERE network = ? AND txid = ?", network, txid)
        return found[0] if found else None

    def with_nonce(self, network: str, nonce: int, position: int = 0) -> list[KnownTransaction]:
        """Return every payment ever seen that spends `nonce` of the address at a position, oldest first."""
        where = "WHERE network = ? AND nonce = ? AND position = ? ORDER BY number"
        return self._transactions(f"{_TRANSACTION} {where}", network, nonce, position)

    def waiting(self, network: str) -> list[KnownTransaction]:
        """Return the next block's worth of transactions that wait, oldest first."""
        return self._transactions(
            f"{_TRANSACTION} WHERE network = ? AND state IN ('waiting', 'doomed', 'undoing') ORDER BY number LIMIT ?",
            network,
            MAX_BLOCK_TRANSACTIONS,
        )

    def waiting_count(self, network: str) -> int:
        """Return how many transactions wait."""
        return cast(
            int,
            self._value(
                "SELECT COUNT(*) FROM tx WHERE network = ? AND state IN ('waiting', 'doomed', 'undoing')", network
            ),
        )

    def next_nonce(self, network: str, position: int = 0) -> int:
        """Return the lowest nonce of the address at a position above all ever used."""
        sql = "SELECT COALESCE(MAX(nonce), -1) + 1 FROM tx WHERE network = ? AND nonce IS NOT NULL AND position = ?"
        return cast(int, self._value(sql, network, position))

    def add_transaction(self, network: str, transaction: KnownTransaction, payees: Iterable[Payee]) -> None:
        """Keep a transaction that has arrived."""
        txid, nonce, fee, state, block_hash, position = transaction
        self._run(
            "INSERT INTO tx (network, txid, nonce, fee, state, block_hash, position) VALUES (?, ?, ?, ?, ?, ?, ?)",
            network,
            txid,
            nonce,
            str(fee),
            state.value,
            block_hash,
            position,
        )
        for index, payee in enumerate(payees):
            self._run(
                "INSERT INTO output VALUES (?, ?, ?, ?, ?, ?, ?)",
                network,
                txid,
                index,
                payee.address,
                payee.tag,
                payee.asset_id,
                str(payee.amount),
            )

    def set_state(self, network: str, txid: str, state: State) -> None:
        """Change what has become of a transaction that is in no block."""
        self._run(
            "UPDATE tx SET state = ?, block_hash = NULL WHERE network = ? AND txid = ?", state.value, network, txid
        )

    def outputs_in(self, network: str, block_hash: str) -> list[Output]:
        """Return a block's outputs in order."""
        return self._outputs(
            f"{_OUTPUT} JOIN inclusion i USING (network, txid)"
            " WHERE i.network = ? AND i.block_hash = ? AND t.state NOT IN ('undoing', 'undone')"
            " ORDER BY i.position, o.position",
            network,
            block_hash,
        )

    def payments_in(self, network: str, block_hash: str) -> list[tuple[str, int, int]]:
        """Return txid and nonce of our payments in a block, in order, each with the position of its sender."""
        rows = self._rows(
            "SELECT t.txid, t.nonce, t.position FROM tx t JOIN inclusion i USING (network, txid)"
            " WHERE i.network = ? AND i.block_hash = ? AND t.nonce IS NOT NULL"
            " ORDER BY i.position",
            network,
            block_hash,
        )
        return cast(list[tuple[str, int, int]], rows)

    def outputs_of(self, network: str, txid: str) -> list[Output]:
        """Return a transaction's outputs."""
        return self._outputs(f"{_OUTPUT} WHERE t.network = ? AND t.txid = ? ORDER BY o.position", network, txid)

    def waiting_outputs(self, network: str) -> list[Output]:
        """Return the outputs of the transactions that wait."""
        return self._outputs(
            f"{_OUTPUT} WHERE t.network = ? AND t.state IN ('waiting', 'doomed', 'undoing')"
            " ORDER BY t.number, o.position",
            network,
        )

    def received(self, network: str, asset_id: str) -> int:
        """Return the sum of what watched addresses have received in blocks of the best chain."""
        return self._sum(
            "SELECT o.amount FROM watched w JOIN output o USING (network, address) JOIN tx t USING (network, txid)"
            " WHERE w.network = ? AND o.asset_id = ? AND t.state = 'mined'",
            network,
            asset_id,
        )

    def paid(self, network: str, asset_id: str) -> int:
        """Return the sum of what the hot wallet's payments pay, mined or waiting, without their fees."""
        return self._sum(
            "SELECT o.amount FROM tx t JOIN output o USING (network, txid) WHERE t.network = ? AND t.nonce IS NOT NULL"
            " AND t.state IN ('waiting', 'doomed', 'undoing', 'mined') AND o.asset_id = ?",
            network,
            asset_id,
        )

    def fees(self, network: str) -> int:
        """Return the sum of the fees of the hot wallet's payments, mined or waiting."""
        return self._sum(
            "SELECT fee FROM tx WHERE network = ? AND nonce IS NOT NULL"
            " AND state IN ('waiting', 'doomed', 'undoing', 'mined', 'undone')",
            network,
        )

    def lies_at(self, network: str, address: str, asset_id: str) -> int:
        """Return what an address outside has received, less what the foreign wallet has paid, in blocks."""
        return self._sum(
            "SELECT o.amount FROM output o JOIN tx t USING (network, txid)"
            " WHERE o.network = ? AND o.address = ? AND o.asset_id = ? AND t.state = 'mined'",
            network,
            address,
            asset_id,
        ) - self._sum(
            "SELECT o.amount FROM output o JOIN tx t USING (network, txid)"
            " WHERE o.network = ? AND t.position = ? AND o.asset_id = ? AND t.state = 'mined'",
            network,
            FOREIGN,
            asset_id,
        )

    def lying(self, network: str, position: int, address: str, asset_id: str, *, waiting: bool) -> int:
        """Return what lies on our address at a position: received in blocks, less what its payments take there.

        With `waiting` what those take that are in no block yet is gone as well.
        """
        received = self._sum(
            "SELECT o.amount FROM output o JOIN tx t USING (network, txid)"
            " WHERE o.network = ? AND o.address = ? AND o.asset_id = ? AND t.state = 'mined'",
            network,
            address,
            asset_id,
        )
        return received - self._sum(
            "SELECT o.amount FROM tx t JOIN output o USING (network, txid)"
            " WHERE t.network = ? AND t.position = ? AND t.nonce IS NOT NULL AND o.asset_id = ?"
            " AND (t.state = 'mined' OR (? AND t.state IN ('waiting', 'doomed', 'undoing')))",
            network,
            position,
            asset_id,
            int(waiting),
        )

    def fees_of(self, network: str, position: int, *, waiting: bool) -> int:
        """Return the fees of the payments of our address at a position, those in no block too if `waiting`."""
        return self._sum(
            "SELECT fee FROM tx WHERE network = ? AND position = ? AND nonce IS NOT NULL"
            " AND (state IN ('mined', 'undone') OR (? AND state IN ('waiting', 'doomed', 'undoing')))",
            network,
            position,
            int(waiting),
        )

    def _run(self, sql: str, *values: Value) -> None:
        _ = self._rows(sql, *values)

    def _rows(self, sql: str, *values: Value) -> list[tuple[Value, ...]]:
        found = self._db.execute(sql, values)  # pyright: ignore[reportUnknownMemberType]
        return list(cast(Iterable[tuple[Value, ...]], found))

    def _one(self, sql: str, *values: Value) -> tuple[Value, ...] | None:
        return next(iter(self._rows(sql, *values)), None)

    def _value(self, sql: str, *values: Value) -> Value:
        return self._rows(sql, *values)[0][0]

    def _sum(self, sql: str, *values: Value) -> int:
        return sum(int(cast(str, row[0])) for row in self._rows(sql, *values))

    def _block(self, sql: str, *values: Value) -> Block | None:
        row = self._one(sql, *values)
        return Block(*cast(tuple[int, str, str, int], row)) if row else None

    def _transactions(self, sql: str, *values: Value) -> list[KnownTransaction]:
        rows = cast(list[tuple[str, int | None, str, str, str | None, int]], self._rows(sql, *values))
        return [
            KnownTransaction(txid, nonce, int(fee), State(state), at, position)
            for txid, nonce, fee, state, at, position in rows
        ]

    def _outputs(self, sql: str, *values: Value) -> list[Output]:
        rows = cast(list[tuple[str, int, str, str, str, str, int]], self._rows(sql, *values))
        return [
            Output(txid, index, address, tag, asset_id, int(amount), ours=bool(ours))
            for txid, index, address, tag, asset_id, amount, ours in rows
        ]

"""The node's proof that a payment lost: a mined transaction that spends one of the same coins.

A node keeps no index of who spent what, so the blocks are read, newest first, once: what was looked through before, and
is on the best chain still, is not looked through again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from strongroom.custody.chain import Block, Unreachable
from strongroom.custody.networks.utxo_reading import block_of, field_of, hash_of, outpoints_of, transactions_of
from strongroom.custody.networks.utxo_transactions import parse_outpoint

MAX_BLOCKS: Final = 1_000
"""A search goes back so many blocks at most; a rival that is older was not mined while the payment was followed."""

_MAX_KEPT: Final = 10_000

Ask = Callable[..., Awaitable[Any]]


class RivalSearch:
    """Looks for the block in which an output was spent; `ask` puts one question to the node, None where it has no
    such thing."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._found: dict[tuple[str, int], str] = {}
        self._searched: dict[tuple[str, int], str] = {}

    async def find(self, spends: Sequence[str]) -> Block | None:
        """Return a block of the best chain that spends one of the outpoints; None if none was found.

        Raises `Unreachable`.
        """
        for outpoint in map(parse_outpoint, spends):
            if await self._is_spent(*outpoint) and (block := await self._spender(outpoint)) is not None:
                return block
        return None

    async def _is_spent(self, txid: str, index: int) -> bool:
        """Say whether an output of a mined transaction is not there any more, the mempool left out of account."""
        if await self._ask("gettxout", txid, index, False) is not None:
            return False
        made = await self._ask("getrawtransaction", txid, 1)
        return made is not None and await self._in_best(made.get("blockhash")) is not None

    async def _in_best(self, block_hash: str | None) -> Block | None:
        header = None if block_hash is None else await self._ask("getblockheader", block_hash)
        return block_of(header) if header is not None and field_of(header, "confirmations") >= 1 else None

    async def _spender(self, outpoint: tuple[str, int]) -> Block | None:
        known = await self._in_best(self._found.get(outpoint))
        if known is not None:
            return known
        tip = at = hash_of(await self._ask("getbestblockhash"))
        seen = await self._in_best(self._searched.get(outpoint))
        for _ in range(MAX_BLOCKS):
            if seen is not None and at == seen.hash:
                break
            block = await self._ask("getblock", at, 2)
            if block is None:
                raise Unreachable("the node has lost a block of its best chain")
            if any(outpoint in outpoints_of(transaction) for transaction in transactions_of(block)):
                _keep(self._found, outpoint, at)
                return await self._in_best(at)
            if not (parent := block.get("previousblockhash")):
                break
            at = hash_of(parent)
        _keep(self._searched, outpoint, tip)
        return None


def _keep(kept: dict[tuple[str, int], str], outpoint: tuple[str, int], block_hash: str) -> None:
    while len(kept) >= _MAX_KEPT:
        del kept[next(iter(kept))]
    kept[outpoint] = block_hash

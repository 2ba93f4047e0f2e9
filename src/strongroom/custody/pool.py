"""The pool of deposit addresses: derived ahead in a thread, kept in the books, told to the node, then given out.

An address is free only when all of that has happened, so that whatever is paid to a given one is seen. After a restore
the addresses of earlier epochs come first, which are watched and given to nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import structlog

from strongroom.crashpoints import reach
from strongroom.custody.chain import Chain, ChainError
from strongroom.custody.derivation import Branch, DerivedAddress
from strongroom.engine.port import StoreError
from strongroom.errors import Refused
from strongroom.records.addresses import Address, Placed, index_of
from strongroom.wallet.addresses import HOUSE_POSITION, next_behind, next_position, prepare_stock
from strongroom.wallet.context import Context
from strongroom.wallet.foreseen import Foreseen

LOW: Final = 50
"""With fewer free addresses than this on a network, more are derived."""

STOCKED_AT_ONCE: Final = 64
"""So many addresses are derived and kept in one step."""

STOCKED_BEHIND_AT_ONCE: Final = 500
"""So many addresses of earlier epochs are derived and kept in one step."""

_MAX_POOLED: Final = 1_000
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("pool")


class Source(NamedTuple):
    """Where a network's addresses come from, and the node that must watch them."""

    branch: Branch
    chain: Chain


class _Free:
    """A network's free addresses, and the positions of all that are free or taken but not given yet."""

    def __init__(self) -> None:
        self.addresses: deque[Placed] = deque()
        self.known: set[int] = set()
        self.low = asyncio.Event()
        self.filled = asyncio.Event()


class AddressPools:
    """The free addresses of every network, by the network's number (`wallet.addresses.AddressPool`)."""

    def __init__(self, context: Context, sources: Mapping[int, Source]) -> None:
        self._context = context
        self._sources = sources
        self._free = {network: _Free() for network in sources}

    def take(self, network: int) -> Placed | None:
        """Return a free address of a network, None if none is ready."""
        free = self._free.get(network)
        if free is None:
            return None
        if self._context.reads.is_shared:
            self._shuffle(free)
        if len(free.addresses) <= LOW:
            free.filled.clear()
            free.low.set()
        return free.addresses.popleft() if free.addresses else None

    def _shuffle(self, free: _Free) -> None:
        """Bring any address to the front that no other node has given out meanwhile.

        The nodes have the same ones free: if all took the first, all but one would take theirs in vain.
        """
        while free.addresses:
            free.addresses.rotate(self._context.ids.below(len(free.addresses)))
            placed = free.addresses[0]
            if not self._context.reads.row(Address, placed.network, placed.address, placed.tag).given_ms:
                return
            _ = free.addresses.popleft()

    def put_back(self, placed: Placed) -> None:
        """Make an address that was taken in vain free again."""
        self._free[placed.network].addresses.appendleft(placed)

    async def ready(self) -> None:
        """Wait until every network has its stock of addresses to give out."""
        for free in self._free.values():
            _ = await free.filled.wait()

    async def run(self) -> None:
        """Keep every network's addresses above the low mark until cancelled."""
        async with asyncio.TaskGroup() as keepers:
            for network in self._sources:
                _ = keepers.create_task(self._keep(network))

    async def _keep(self, network: int) -> None:
        free, pause_s = self._free[network], _FIRST_PAUSE_S
        while True:
            free.low.clear()
            try:
                await self._catch_up(network)
                while len(free.addresses) < LOW:
                    await self._fill(network, free)
            except (ChainError, Refused, StoreError) as problem:
                log.warning("addresses_not_stocked", network=network, problem=str(problem))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            free.filled.set()
            pause_s = _FIRST_PAUSE_S
            _ = await free.low.wait()

    async def _catch_up(self, network: int) -> None:
        """Keep and watch the addresses of earlier epochs that may have been given out after a backup."""
        source = self._sources[network]
        while (behind := next_behind(self._context.reads, network)) is not None:
            first, missing = behind
            count = min(missing, STOCKED_BEHIND_AT_ONCE)
            derived = await asyncio.to_thread(source.branch.addresses, first, count)
            await source.chain.watch({address.address for address in derived})
            await self._keep_stock(network, first, derived)

    async def _fill(self, network: int, free: _Free) -> None:
        """Free what the books have in stock; derive more where that is too little."""
        source = self._sources[network]
        fresh = self._stocked(network, free)
        if len(free.addresses) + len(fresh) < LOW:
            await self._stock(network, source.branch)
            fresh = self._stocked(network, free)
        await source.chain.watch({address.address for address in fresh})
        for address in fresh:
            free.known.add(address.position)
            if not address.given_ms:
                free.addresses.append(Placed(network, address.position, address.address, address.tag))

    def _stocked(self, network: int, free: _Free) -> list[Address]:
        """Return what the books have that is given to nobody and not free yet, by position, the house's address too.

        Of this epoch only: what waited for somebody in a backup may have been given out after it.
        """
        reads = self._context.reads
        end = next_position(reads, network)
        newest = range(max(end - index_of(end), end - _MAX_POOLED), end)
        positions = {HOUSE_POSITION, *newest}
        rows = Foreseen(reads, (Placed.at(network, position) for position in positions))
        placed = [rows.row(Placed, network, position) for position in positions]
        rows.foresee(Address.at(network, it.address, it.tag) for it in placed if it.address)
        found = [rows.row(Address, network, it.address, it.tag) for it in placed if it.address]
        waiting = [row for row in found if not row.owner]
        free.known.intersection_update(row.position for row in waiting)
        return sorted((row for row in waiting if row.position not in free.known), key=lambda row: row.position)

    async def _stock(self, network: int, branch: Branch) -> None:
        """Derive and keep more; where another process has just done so, its addresses are found in the books."""
        first = next_position(self._context.reads, network)
        derived: list[DerivedAddress] = await asyncio.to_thread(branch.addresses, first, STOCKED_AT_ONCE)
        await self._keep_stock(network, first, derived)

    async def _keep_stock(self, network: int, first: int, derived: Sequence[DerivedAddress]) -> None:
        reach("before commit stock")
        _ = await self._context.submit(prepare_stock(network, first, derived))
        reach("after commit stock")

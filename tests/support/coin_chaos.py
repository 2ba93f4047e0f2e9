"""A seeded world around a server on a coin node: strangers pay, customers withdraw, miners disagree, the server dies.

Afterwards the chain itself is the judge: its blocks are read from the first one on, and what they hold must be what the
books say. Two promises bound the world, as confirmations do in the real one: a payment that was ever deeper than
`DEEPEST_UNDONE` blocks is not spent elsewhere, and no branch that wins leaves out more than `DEEPEST` blocks.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Final

import pytest

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.admin.protocol import AdminError
from strongroom.custody import watcher
from strongroom.custody.rpc import RpcError
from strongroom.engine.command import NOBODY
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Withdrawal, WithdrawalState
from strongroom.wallet.addresses import house_address
from strongroom.wallet.approvals import prepare_approval
from strongroom.wallet.context import perform_own
from support.coin_house import NETWORK, CoinHouse, coin_house, coin_settings
from support.coin_process import CoinProcess
from support.nodes import FIRST_COINS, CoinNode, wait_until
from support.server import Member

UNITS: Final = 10**8
CONFIRMATIONS: Final = 2
LEAST: Final = 100_000
"""The house pays nothing smaller out."""

DEEPEST: Final = 6
DEEPEST_UNDONE: Final = 3
"""A payment of ours that spends such a deposit has at most one confirmation of its two when the deposit is undone."""

REST_BLOCKS: Final = 60
"""The longest that the world may take to come to rest."""

_REFUSED: Final = (51523, 3508)


class CoinChaos:
    """One run: `steps` happen in an order that its seed alone decides; `done` counts what did happen."""

    def __init__(self, node: CoinNode, server: CoinProcess, chance: Random) -> None:
        self.node = node
        self.server = server
        self.chance = chance
        self.done: Counter[str] = Counter()
        self.addresses: dict[str, Member] = {}
        self.accepted: dict[str, tuple[str, int]] = {}
        """Address and units of each withdrawal that was accepted, by its reference; every address is a new one."""

        self._fresh: list[str] = []
        self._left: list[str] = []
        self._remembered: dict[str, str] = {}
        self._undone: set[str] = set()
        self._asked = 0

    def add(self, member: Member, addresses: list[str]) -> None:
        """Let a customer with deposit addresses take part."""
        self.addresses |= dict.fromkeys(addresses, member)

    async def run(self, steps: int) -> None:
        """Let so many things happen."""
        acts = [
            (6, self.pay),
            (6, self.withdraw),
            (8, self.mine),
            (4, self.catch_up),
            (2, self.reorganise),
            (3, self.undo_a_payment),
            (1, self.change_branches),
            (1, self.kill),
        ]
        for _ in range(steps):
            [act] = self.chance.choices([act for _, act in acts], [weight for weight, _ in acts])
            await act()
            await self._remind()
            await self._forget_deep_ones()

    def _amount(self, most: int) -> tuple[str, int]:
        units = self.chance.randint(LEAST, most)
        return f"{Decimal(units) / UNITS:f}", units

    # -- strangers

    async def pay(self) -> None:
        """Pay one address or several at once."""
        chosen = [self.chance.choice(list(self.addresses)) for _ in range(self.chance.randint(1, 3))]
        outputs = {address: Decimal(self._amount(UNITS // 4)[0]) for address in chosen}
        self._fresh.append(await self.node.stranger("sendmany", "", outputs))
        self.done["paid"] += 1

    async def mine(self) -> None:
        """Mine blocks, with what waits or without."""
        for _ in range(self.chance.randint(1, 3)):
            await self._mine(empty=self.chance.random() < 0.3)

    async def _mine(self, *, empty: bool, transactions: tuple[str, ...] = ()) -> str:
        address = await self.node.stranger("getnewaddress")
        if not empty and not transactions:
            return (await self.node.rpc("generatetoaddress", 1, address))[0]
        return (await self.node.rpc("generateblock", address, list(transactions)))["hash"]

    async def reorganise(self) -> None:
        """Replace the newest blocks by more of them; what was in them is mined again at once, or later."""
        depth = self.chance.randint(1, DEEPEST)
        self._left.append(await self._leave(depth))
        empty = self.chance.random() < 0.5
        for _ in range(depth + 1):
            _ = await self._mine(empty=empty)
        self.done[f"reorganised {depth}"] += 1

    async def _leave(self, depth: int) -> str:
        """Take the newest blocks off the chain; return the first of them."""
        height = await self.node.height()
        hashes = [await self.node.rpc("getblockhash", height - nth) for nth in reversed(range(depth))]
        for block in hashes:
            _, *transactions = (await self.node.rpc("getblock", block, 2))["tx"]
            self._remembered |= {it["txid"]: it["hex"] for it in transactions}
        await self.node.invalidate(hashes[0])
        return hashes[0]

    async def _remind(self) -> None:
        """Show the node what it had in blocks that were left, as other nodes would, which have kept it.

        A node forgets what spends a miner's pay that is not a hundred blocks deep any more.
        """
        for txid in self._undone & set(self._remembered):
            del self._remembered[txid]
        for raw in self._remembered.values():
            with suppress(RpcError):
                _ = await self.node.rpc("sendrawtransaction", raw)

    async def undo_a_payment(self) -> None:
        """Spend elsewhere what a payment to us spends that is not deep, and all that depends on it with it."""
        if not self._fresh:
            return
        txid = self.chance.choice(self._fresh)
        depth = await self._depth(txid)
        if not depth and self.chance.random() < 0.7:
            return
        rival = await self.node.rival_of(txid)
        if depth:
            # This branch never comes back: what it pays would be deep by then, and undone a second time.
            _ = await self._leave(depth)
        try:
            _ = await self._mine(empty=False, transactions=(rival,))
        except RpcError:
            # What it spends was undone itself, or is made by one that waits still.
            self.done["undone in vain"] += 1
        else:
            self._fresh.remove(txid)
            self._undone.add(txid)
            self.done[f"undone {depth}"] += 1
        for _ in range(depth):
            _ = await self._mine(empty=self.chance.random() < 0.5)

    async def change_branches(self) -> None:
        """Let a branch that was left win after all, if it has become the longer one by then."""
        if self._left:
            left = self._left.pop()
            if await self._is_shallow(left):
                _ = await self.node.rpc("reconsiderblock", left)
                self.done["reconsidered"] += 1

    async def _is_shallow(self, block: str) -> bool:
        """Say whether a branch that wins with this block leaves out no more blocks than may be."""
        header = await self.node.rpc("getblockheader", block)
        return await self.node.height() - header["height"] < DEEPEST

    async def _forget_deep_ones(self) -> None:
        """A payment that was ever deep is not undone any more, nor is one that has gone."""
        kept: list[str] = []
        for txid in self._fresh:
            try:
                depth = await self._depth(txid)
            except RpcError:
                continue
            if depth <= DEEPEST_UNDONE:
                kept.append(txid)
        self._fresh = kept

    async def _depth(self, txid: str) -> int:
        """Return how many blocks a transaction is deep, 0 while it waits. Raises `RpcError` for one that is gone."""
        return (await self.node.rpc("getrawtransaction", txid, 1)).get("confirmations", 0)

    # -- customers, and their server

    async def withdraw(self) -> None:
        """Ask for a withdrawal to an address that nobody else is paid at, until there is an answer."""
        member = self.chance.choice(list(self.addresses.values()))
        text, units = self._amount(UNITS // 12)
        address = await self.node.stranger("getnewaddress", "", "bech32")
        self._asked += 1
        body = {"currency": "BTC", "address": address, "amount": text, "tag": ""}
        answer = await self.server.post(member, "wallet/withdraw", body, f"withdrawal-{self._asked}")
        if self.chance.random() < 0.2:
            # The same again, as a client does that has heard nothing: it is the same withdrawal.
            await self.kill()
            again = await self.server.post(member, "wallet/withdraw", body, f"withdrawal-{self._asked}")
            if answer.status_code == 200:
                assert again.json() == answer.json()
            answer = again
        if answer.status_code == 200:
            self.accepted[answer.json()["withdrawId"]] = (address, units)
            self.done["withdrawn"] += 1
        else:
            assert answer.json()["code"] in _REFUSED, answer.text
            self.done["refused"] += 1

    async def catch_up(self) -> None:
        """Let the server work through what the node shows."""
        height = await self.node.height()

        async def has() -> bool:
            return (await self.server.network())["height"] >= height

        await wait_until(has, "the server has worked through the chain")

    async def kill(self) -> None:
        """End the server at once, perhaps let the world go on, and start it again."""
        await self.server.kill()
        if self.chance.random() < 0.5:
            await self.chance.choice([self.pay, self.mine, self.reorganise])()
        await self.server.start()
        self.done["killed"] += 1

    # -- rest

    async def come_to_rest(self, house: CoinHouse) -> None:
        """Repay what is owed and what the house has lost, and mine until nothing is under way any more."""
        context = house.house.application.context
        for address in [house_address(house.store, NETWORK).address, *self.addresses]:
            await self.node.pay(address, "2")
        for _ in range(REST_BLOCKS):
            await self._remind()
            _ = await self._mine(empty=False)
            await house.worked_through()
            for waiting in house.store.rows(Withdrawal, {"state": WithdrawalState.AWAITING}, 1_000):
                if not house.owes(waiting.owner):
                    await perform_own(context, lambda ref=waiting.ref: prepare_approval(context, NOBODY, ref))
            for paying in house.store.rows(Withdrawal, {"state": WithdrawalState.PAYING}, 1_000):
                with suppress(AdminError):
                    _ = await carry_out(house.house.application, protocol.GiveUpWithdrawal(paying.ref))
                    self.done["given up"] += 1
            if not any(house.store.rows(Withdrawal, {"state": state}, 1) for state in OPEN_WITHDRAWALS):
                break
        for _ in range(CONFIRMATIONS):
            _ = await self._mine(empty=False)
            await house.worked_through()

    async def judge(self, house: CoinHouse) -> None:
        """Hold the books against the chain's own blocks, and against themselves."""
        received = await self._received()
        states = {ref: WithdrawalState(house.store.row(Withdrawal, int(ref)).state) for ref in self.accepted}
        spent: Counter[int] = Counter()
        for ref, (address, units) in self.accepted.items():
            paid = received.get(address, [])
            if states[ref] is WithdrawalState.SETTLED:
                assert paid == [units], f"withdrawal {ref} is settled and was paid {paid} of {units}"
                spent[house.store.row(Withdrawal, int(ref)).owner] += units
            else:
                assert states[ref] is WithdrawalState.FAILED, f"withdrawal {ref} never ended: {states[ref]}"
                assert paid == [], f"withdrawal {ref} has failed and was paid {paid}"
        for member in set(self.addresses.values()):
            ours = [address for address, owner in self.addresses.items() if owner == member]
            brought = sum(units for address in ours for units in received.get(address, []))
            has = brought - spent[member.uid]
            assert await house.balance(member) == (Decimal(has) / UNITS, Decimal(has) / UNITS), member.name
        self._check_deposits(house)
        house.check_books()
        assert (await house.reconciled()).differences == ()

    def _check_deposits(self, house: CoinHouse) -> None:
        """See that every deposit is credited, or waits for a transaction that is in no block."""
        for deposit in house.store.each(Deposit):
            state = DepositState(deposit.state)
            waits = state in {DepositState.SEEN, DepositState.REVERSED, DepositState.DROPPED} and not deposit.block
            assert state is DepositState.CREDITED or waits, deposit

    async def _received(self) -> dict[str, list[int]]:
        """Return what each address was paid by the blocks of the best chain, output by output."""
        found: dict[str, list[int]] = {}
        for height in range(1, await self.node.height() + 1):
            block = await self.node.rpc("getblock", await self.node.rpc("getblockhash", height), 2)
            for output in (it for transaction in block["tx"] for it in transaction["vout"]):
                script = output["scriptPubKey"]
                # Litecoin Core 0.21 tells the one address in a list.
                for address in [script["address"]] if "address" in script else script.get("addresses", []):
                    found.setdefault(address, []).append(int(output["value"] * UNITS))
        return found


async def play(node: CoinNode, chain: str, folder: Path, seed: int, steps: int) -> CoinChaos:
    """Play one run on a node that has just started, and judge it."""
    _ = await node.mine(FIRST_COINS + 20)
    config = coin_settings(folder, node, chain)
    async with coin_house(config, node) as house:
        members = [await house.customer(name) for name in ("alice", "bob", "carol")]
        addresses = [(member, [await house.address(member)]) for member in members]
    async with CoinProcess(folder, node, chain) as server:
        chaos = CoinChaos(node, server, Random(seed))
        for member, given in addresses:
            chaos.add(member, given)
        await chaos.run(steps)
    # At rest nothing comes back any more: what the node does not know is gone.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
        async with coin_house(config, node) as house:
            await chaos.come_to_rest(house)
            await chaos.judge(house)
    return chaos

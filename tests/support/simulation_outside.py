"""Who else acts on a simulated house: strangers and miners on the chains, and the operator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any, Final

from strongroom.admin.cold import import_cold, prepare_cold
from strongroom.admin.protocol import AdminError, ImportCold, PrepareCold
from strongroom.custody import offline
from strongroom.custody.chain import ChainError
from strongroom.custody.networks.simulated import SimulatedNode
from strongroom.custody.networks.simulated_store import State
from strongroom.engine.command import NOBODY
from strongroom.errors import Refused
from strongroom.records.coins import Sent
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.users import User
from strongroom.records.withdrawals import Payment, Withdrawal, WithdrawalState
from strongroom.wallet.addresses import house_address
from strongroom.wallet.approvals import prepare_approval, prepare_cancellation, prepare_rejection
from strongroom.wallet.assignments import prepare_deposit_assignment, prepare_withdrawal_assignment
from strongroom.wallet.context import perform_own
from strongroom.wallet.epochs import epoch_of, prepare_end
from strongroom.wallet.moves import ReturnFromCold
from strongroom.wallet.payments import open_payments
from strongroom.wallet.users import MarkUser
from support.simulation_clients import Customer, Wallets, text_of
from support.simulation_coins import COINED, CoinedChain
from support.simulation_deeds import Faucet, Marking, Record, Return, Thawed, Verdict, address_of
from support.simulation_house import (
    ASSETS,
    BTC,
    CHAIN_UNIT,
    CODES,
    COIN,
    COLD,
    COLD_FEE,
    NETWORKS,
    NUMBERS,
    TOKENS,
    USDT,
    Member,
)
from support.simulation_life import Life

_WORDS: Final = {"approve": prepare_approval, "reject": prepare_rejection, "cancel": prepare_cancellation}
_DEEPEST: Final = 5
_DEEP_ENOUGH: Final = 4
_PACE_S: Final = 0.25
_MOST_NAMED: Final = 100
_COLD_UNITS: Final = {BTC: COIN // 2, USDT: 1_000 * COIN}


class World:
    """The chains' own life: blocks, payments of strangers, reorganisations, and money spent twice."""

    def __init__(self, life: Life, wallets: Wallets, chance: Random, rough: float) -> None:
        self._life = life
        self._record = wallets.record
        self._members = wallets.members
        self._chance = chance
        self._rough = rough
        self._thief = Customer(wallets, lambda: True)

    @property
    def node(self) -> SimulatedNode:
        """The node, with powers that nobody in the house has."""
        node = self._life.application.treasury.node
        assert node is not None
        return node

    async def turn(self, is_over: Callable[[], bool]) -> None:
        """Go on until it is over."""
        while not is_over():
            await asyncio.sleep(self._chance.random() * _PACE_S)
            self._life.check_alive()
            await self._once()

    async def _once(self) -> None:
        network = self._chance.choice(sorted(NUMBERS))
        rough = self._rough
        actions = {
            self._mine: 6,
            self._pay: 4,
            self._reorganise: rough,
            self._change_mind: 3 * rough,
            self._take_word_back: rough,
            self._doom: rough,
            self._fall_silent: rough / 2,
        }
        [action] = self._chance.choices(list(actions), list(actions.values()))
        await action(network)

    async def _mine(self, network: str) -> None:
        blocks = await self.node.mine(network, self._chance.choice((1, 1, 1, 2, 4)))
        self._life.note(f"{network} mined up to {blocks[-1].height}")

    async def rush(self, network: str, payments: int) -> None:
        """Let strangers pay several addresses, and now and then a block have it all."""
        for _ in range(payments):
            await self._pay(network)
        if self._chance.random() < 0.7:
            await self._mine(network)

    async def _pay(self, network: str) -> Faucet:
        """Let a stranger pay an address that a customer was given, also one that was given up."""
        asset = self._chance.choice([asset for asset in ASSETS if NETWORKS[asset] == network])
        user = self._chance.choice(sorted(self._members))
        given = [
            address_of(deed)
            for deed in self._record.addresses
            if (deed.kind, deed.user, deed.asset) == ("give", user, asset) and deed.done
        ]
        # Who has an address keeps it, whatever becomes of the house that gave it.
        given += [it for it, to in self._record.lost_addresses.items() if to == user and _is_of(asset, it)]
        address = self._chance.choice([self._members[user].homes[asset], *given])
        amount = self._record.next_amount(
            self._chance.choice((1, 20, 80)) * (COIN // 100 if asset == BTC else 10 * COIN)
        )
        if asset == BTC and self._chance.random() < 0.1:
            amount = self._record.next_amount(0, 1)
        paid = Faucet("", network, user, asset, amount, address)
        txid = await self.node.faucet(network, address, "", TOKENS[asset], paid.chain_units)
        self._record.faucets.append(paid._replace(txid=txid))
        self._life.note(f"{network}: somebody pays {user} {amount} of {asset} in {txid[:12]}")
        return paid

    async def _take_word_back(self, network: str) -> None:
        """Bury what there is deep enough to be final, and then take its blocks back."""
        if self._chance.random() < 0.5:
            self.node.undo_next(network)
            await asyncio.sleep(self._chance.random() * 0.3)
            self._life.check_alive()
        await self.node.mine(network, _DEEP_ENOUGH)
        # Sometimes so soon that the house is just booking what goes by the blocks.
        soon = self._chance.random() < 0.5
        if soon:
            await self._life.until_reached("before commit mine", 0.3)
        await asyncio.sleep(self._chance.random() * (0.005 if soon else 0.3))
        self._life.check_alive()
        await self._reorganise(network, _DEEPEST, 0.7 if soon else 0.3)

    async def _reorganise(self, network: str, depth: int = 0, odds: float = 0.3) -> None:
        """Replace the newest blocks; now and then what is in them is gone for good, by `odds` what the house paid."""
        height = self.node.chain(network).newest().height
        depth = min(depth or self._chance.choice((1, 2, 4, _DEEPEST)), height - 1)
        mined = [paid.txid for paid in self._record.faucets if paid.network == network]
        lost = [txid for txid in mined if self._chance.random() < 0.5 and await self._in_newest(network, txid, depth)]
        ours, mended = self._of_the_house(network, depth, odds)
        await self.node.reorg(network, depth, [*lost, *ours], mended)
        if self._chance.random() < 0.5:
            self._empty_newest(network)
        told = f"{len(lost)} lost, {len(ours)} of the house's, {len(mended)} mended"
        self._life.note(f"{network} reorganised {depth} deep, {told}")

    def _of_the_house(self, network: str, depth: int, odds: float) -> tuple[list[str], list[str]]:
        """Return the house's payments in the newest blocks that something else takes the nonce of, and those that were
        undone and are not undone the next time."""
        store, newest = self.node.chain(network)._store, self.node.chain(network).newest().height
        lost: list[str] = []
        mended: list[str] = []
        for height in range(newest - depth + 1, newest + 1):
            block = store.block_at(network, height)
            for txid, _, position in store.payments_in(network, block.hash) if block else ():
                if position:
                    continue
                fate, known = self._chance.random(), store.transaction(network, txid)
                if fate < odds:
                    lost.append(txid)
                elif fate < (1 + odds) / 2 and known is not None and known.state is State.UNDONE:
                    mended += [txid] if self._is_known(network, txid) else []
        return lost, mended

    def _is_known(self, network: str, txid: str) -> bool:
        """Say whether the books know whom a transaction pays: a restored house cannot of all (decision 17)."""
        books = self._life.application.store
        payment = books.row(Payment, books.row(Sent, NUMBERS[network], txid).payment)
        return not self._record.came_back or bool(payment.withdrawals)

    def _empty_newest(self, network: str) -> None:
        """Let the newest block be one without transactions: those it had wait again."""
        node, chain = self.node, self.node.chain(network)
        with node._store.commit():
            node._store.orphan_from(network, chain.newest().height)
            node._add_block(chain, [])
        chain.changes.fire()

    async def _change_mind(self, network: str) -> None:
        """Pay somebody, bury it deep enough to be credited and spent, and then take it back."""
        paid = await self._pay(network)
        await self.node.mine(network, _DEEP_ENOUGH)
        await asyncio.sleep(self._chance.random() * 0.5)
        self._life.check_alive()
        await self._thief.spend_all(paid.user, paid.asset)
        await asyncio.sleep(self._chance.random() * 0.3)
        self._life.check_alive()
        await self._reorganise(network)

    async def _in_newest(self, network: str, txid: str, depth: int) -> bool:
        chain = self.node.chain(network)
        block = chain._store.transaction(network, txid)
        if block is None or not block.block_hash:
            return False
        found = chain._store.block(network, block.block_hash)
        return found is not None and found.height > chain.newest().height - depth

    async def _doom(self, network: str) -> None:
        """Let the next payment of the house be taken, and never be mined, or be mined and undone."""
        if self._chance.random() < 0.5:
            self.node.fail_next(network)
            self._life.note(f"{network} dooms the next payment")
        else:
            self.node.undo_next(network)
            self._life.note(f"{network} undoes the next payment")

    async def _fall_silent(self, network: str) -> None:
        self.node.pause(network)
        self._life.note(f"{network} falls silent")
        await asyncio.sleep(self._chance.random() * 0.7)
        self._life.check_alive()
        self.node.resume(network)

    async def clear_up(self) -> None:
        """Let every network be reached, and doom nothing any more."""
        for network in sorted(NUMBERS):
            chain = self.node.chain(network)
            chain.doom_next = chain.undo_next = False
            if isinstance(chain, CoinedChain) and (again := chain.remember()):
                self._life.note(f"{network} is shown {again} payments again that it had forgotten")
            self.node.resume(network)


def _is_of(asset: int, address: str) -> bool:
    return address.startswith("0x") == (NETWORKS[asset] == "ERC20")


class Operator:
    """Says yes and no to what waits for a word, and freezes customers for a while."""

    def __init__(self, life: Life, record: Record, members: dict[str, Member], chance: Random, *, moves: bool) -> None:
        self._moves = moves
        self._life = life
        self._record = record
        self._members = members
        self._chance = chance

    async def work(self, is_over: Callable[[], bool]) -> None:
        """Go on until it is over."""
        while not is_over():
            await asyncio.sleep(self._chance.random())
            self._life.check_alive()
            if epoch_of(self._life.application.store):
                await self.name_somebody(self._chance.random() < 0.5)
            await self.give_up_lost()
            if self._moves and self._chance.random() < 0.3:
                await self._send_to_cold()
            if self._moves and self._chance.random() < 0.2:
                await self.bring_back(self._chance.random() < 0.7)
            if self._chance.random() < 0.85:
                await self._judge()
            else:
                await self._freeze()

    async def _judge(self) -> None:
        context = self._life.application.context
        waiting = context.reads.rows(Withdrawal, {"state": WithdrawalState.AWAITING}, 100)
        if not waiting:
            return
        ref = self._chance.choice(waiting).ref
        # Two people may be at it at the same time, and not of one mind.
        people = self._chance.choice((1, 1, 2))
        await asyncio.gather(*(self._say(ref, self._chance.choice(sorted(_WORDS))) for _ in range(people)))

    async def _say(self, ref: int, word: str) -> None:
        """Say yes or no to a withdrawal."""
        context = self._life.application.context
        place = len(self._record.verdicts)
        self._record.verdicts.append(Verdict(ref, word, known=False))
        outcome = await self._do(perform_own(context, lambda: _WORDS[word](context, NOBODY, ref)))
        if outcome:
            self._record.verdicts[place] = Verdict(ref, word if outcome == "done" else "nothing", known=True)
            self._life.note(f"operator: {word} {ref}: {outcome}")

    async def name_somebody(self, everybody: bool) -> None:
        """Say for whom the house has paid, and whose arrivals it holds, that a restored backup did not know."""
        context = self._life.application.context
        for row in context.reads.rows(Withdrawal, {"owner": 0, "state": WithdrawalState.SETTLED}, _MOST_NAMED):
            lost = [it for it in self._record.lost if (it.address, it.credited) == (row.address, row.to_address)]
            if lost and (everybody or self._chance.random() < 0.3):
                uid = self._members[lost[0].user].uid
                prepare = partial(prepare_withdrawal_assignment, context, NOBODY, row.ref, uid)
                named = perform_own(context, prepare)
                self._life.note(f"operator: {row.ref} was {lost[0].user}'s: {await self._do(named)}")
                self._life.count("somebody named")
        for deposit in context.reads.rows(Deposit, {"state": DepositState.WITHHELD}, _MOST_NAMED):
            if self._chance.random() < 0.3:
                uid = self._members[self._record.lost_addresses[deposit.address]].uid
                prepare = partial(prepare_deposit_assignment, context, NOBODY, deposit.ref, uid)
                named = perform_own(context, prepare)
                self._life.note(f"operator: deposit {deposit.ref} is {uid}'s: {await self._do(named)}")

    async def _send_to_cold(self) -> None:
        """Prepare a payment to the cold address, have it signed elsewhere, and bring it back after a while."""
        house, asset = self._life.application, self._chance.choice(ASSETS)
        units = self._record.next_amount(_COLD_UNITS[asset])
        try:
            unsigned = await prepare_cold(house, PrepareCold(NETWORKS[asset], CODES[asset], text_of(units)))
            body = offline.decode(unsigned.file.encode()).body
            signer: Any = house.treasury._signer
            signature = await signer.sign(unsigned.network, 0, body)
            await asyncio.sleep(self._chance.random() ** 2 * 2)
            self._life.check_alive()
            payment = await import_cold(house, ImportCold(int(unsigned.ref), signature.hex().encode()))
        except (AdminError, Refused) as no:
            self._life.note(f"operator: {units} of {asset} do not go to the cold address: {no}")
            return
        self._life.note(f"operator: {units} of {asset} go to the cold address: {payment.ref}")
        self._life.count("to the cold address")

    async def bring_back(self, comes: bool) -> None:
        """Let some of the cold money come back, or book what has come."""
        house, asset = self._life.application, self._chance.choice(ASSETS)
        network = NETWORKS[asset]
        if comes:
            units, home = (
                self._record.next_amount(_COLD_UNITS[asset] // 2),
                house_address(house.store, NUMBERS[network]),
            )
            paid = units // CHAIN_UNIT[asset]
            txid = await self._thaw(network, home.address, home.tag, TOKENS[asset], paid)
            if not txid:
                return
            self._record.thawed[txid] = Thawed(network, asset, units)
            self._life.note(f"{network}: {units} of {asset} come back from the cold address")
            return
        for came in self._record.thawed.values():
            tried = [it for it in self._record.returns if it.units == came.units]
            if not tried:
                place, back = (
                    len(self._record.returns),
                    Return(came.asset, came.units, COLD_FEE[came.asset], known=False),
                )
                self._record.returns.append(back)
                command = ReturnFromCold(NOBODY, back.asset, back.units, back.fee)
                outcome = await self._do(perform_own(house.context, lambda command=command: command))
                if outcome == "done":
                    self._record.returns[place] = back._replace(known=True)
                    self._life.count("back from the cold address")
                elif outcome:
                    self._record.returns[place] = back._replace(units=0, known=True)
                self._life.note(f"operator: {came.units} of {came.asset} are back: {outcome}")
                return

    async def _thaw(self, network: str, address: str, tag: str, token: str, paid: int) -> str:
        """Let the cold wallet pay an address; return the txid, empty where it has too little in coins."""
        node: Any = self._life.application.treasury.node
        chain = node.chain(network)
        if isinstance(chain, CoinedChain):
            return chain.thaw(COLD[network], address, paid)
        return await node.faucet(network, address, tag, token, paid, foreign=True)

    async def give_up_lost(self) -> None:
        """Give up whatever can never be mined, because a coin that it spends is gone."""
        house = self._life.application
        for payment in open_payments(house.store, NUMBERS[COINED], _MOST_NAMED) if self._life.coins else ():
            if not payment.candidates:
                continue
            try:
                outcome = await self._do(house.treasury.give_up(payment))
            except ChainError:
                continue
            if outcome == "done":
                self._life.note(f"operator: payment {payment.ref} is given up")
                self._life.count("payment given up")

    async def release(self, network: int) -> None:
        """Let a network's payments go on by hand."""
        context = self._life.application.context
        outcome = await self._do(perform_own(context, lambda: prepare_end(context, network, by_hand=True)))
        self._life.note(f"operator: releases network {network}: {outcome}")

    async def _freeze(self) -> None:
        """Freeze a customer or let it free again."""
        context, user = self._life.application.context, self._chance.choice(sorted(self._members))
        row = context.reads.row(User, self._members[user].uid)
        command = MarkUser(NOBODY, row.uid, not row.frozen, row.active)
        place, sent = len(self._record.markings), self._record.tick()
        self._record.markings.append(Marking(user, command.frozen, sent, 0))
        outcome = await self._do(perform_own(context, lambda: command))
        if outcome == "done":
            self._record.markings[place] = Marking(user, command.frozen, sent, self._record.tick())
        self._life.note(f"operator: {'thaws' if row.frozen else 'freezes'} {user}: {outcome}")

    async def _do(self, work: Coroutine[Any, Any, Any]) -> str:
        """Return what became of a command: "done", a refusal, or "" where nobody knows."""
        try:
            await work
        except Refused as refusal:
            return "" if self._life.dead else refusal.message
        return "" if self._life.dead else "done"

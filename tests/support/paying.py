"""A house that pays out: the small world with XRP and its tags, a simulated node, a signer, and coins on the chains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from strongroom.clock import DAY_MS
from strongroom.crashpoints import reach
from strongroom.custody.derivation import Branch, DerivedAddress, account_xpubs
from strongroom.custody.families import NETWORKS
from strongroom.custody.networks.simulated import SimulatedChain, SimulatedNode
from strongroom.custody.networks.simulated_transactions import open_blob
from strongroom.custody.sender import PaymentTerms, Sender
from strongroom.custody.signer import LocalSigner
from strongroom.engine.command import NOBODY, Command, Decision, Guard, View
from strongroom.engine.settle import Outcome
from strongroom.ledger.accounts import CUSTOMER_PURPOSES, Purpose, available, held, omnibus, unpack
from strongroom.ledger.entries import Posting
from strongroom.money import FeeFormula
from strongroom.records.chains import Holding, Tip
from strongroom.records.heads import Head, head_of
from strongroom.records.kept import Key
from strongroom.records.settings import AssetSettings, NetworkSettings, OfferSettings, Settings, Snapshot
from strongroom.records.users import User
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, Withdrawal
from strongroom.wallet.addresses import AddressRule, GiveAddress, prepare_stock
from strongroom.wallet.approvals import prepare_approval
from strongroom.wallet.context import perform, perform_own
from strongroom.wallet.holdings import chain_units, ledger_units
from strongroom.wallet.payments import Draft, next_nonce, nonce_text, prepare_reservation
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.users import MarkUser
from strongroom.wallet.withdrawals import RequestWithdrawal, WithdrawalRequested, prepare_withdrawal
from support.world import BITCOIN, BTC, ERC20, NOW_MS, SNAPSHOT, AnyStore, World, opened

XRP, RIPPLE = 5, 3
COIN = 100_000_000
CODES = {BITCOIN: "BITCOIN", ERC20: "ERC20", RIPPLE: "RIPPLE"}
TODAY = NOW_MS // DAY_MS

_SEED = bytes(range(64))
_XPUBS = account_xpubs(_SEED, NETWORKS.values())
_SIGNER = LocalSigner(_SEED, NETWORKS.values())
OURS = {n: Branch(NETWORKS[code], _XPUBS[code]).addresses(0, 8) for n, code in CODES.items()}
_STRANGERS = account_xpubs(bytes(range(1, 65)), NETWORKS.values())
THEIRS = {n: Branch(NETWORKS[code], _STRANGERS[code]).address(1) for n, code in CODES.items()}
"""Addresses of our branches, from the house's own on, and one of a stranger on each network."""

PAYING: Snapshot = msgspec.structs.replace(
    SNAPSHOT,
    assets=(*SNAPSHOT.assets, AssetSettings(XRP, "XRP", "XRP", fiat=False)),
    networks=(
        *SNAPSHOT.networks,
        NetworkSettings(RIPPLE, "RIPPLE", "Ripple", "Ripple", "ripple", 1, extension="tag", fee_asset=XRP),
    ),
    offers=(
        *SNAPSHOT.offers,
        OfferSettings(XRP, RIPPLE, decimals=6, default=True, withdraw_fee=FeeFormula(25_000_050)),
    ),
)


class Endow(Command, frozen=True):
    """Give a user coins that lie on a chain."""

    owner: int
    asset: int
    network: int
    units: int
    before: str
    chain_units: str

    def needs(self) -> list[Key]:
        """Everything that is touched."""
        accounts = (omnibus(self.network, self.asset), available(self.owner, self.asset))
        return [Holding.at(self.network, self.asset), *map(head_of, accounts)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book them."""
        total = int(self.before) + int(self.chain_units)
        postings = [
            Posting(omnibus(self.network, self.asset), -self.units),
            Posting(available(self.owner, self.asset), self.units),
        ]
        return Decision(postings, [Holding(self.network, self.asset, str(total))])


class BookAnything(Command, frozen=True):
    """Book two postings, as something that the tests of it show elsewhere would."""

    postings: tuple[Posting, ...]

    def needs(self) -> list[Key]:
        """The accounts."""
        return [head_of(posting.account) for posting in self.postings]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book them."""
        return Decision(self.postings)


def book(*postings: Posting) -> BookAnything:
    """Return the command that books postings."""
    return BookAnything(NOBODY, postings)


class NoteTip(Command, frozen=True):
    """Note a chain's newest block, as the watcher does."""

    tip: Tip

    def needs(self) -> list[Key]:
        """The tip."""
        return [self.tip.key()]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note it."""
        return Decision(rows=[self.tip])


def note_tip(tip: Tip) -> NoteTip:
    """Return the command that notes a chain's newest block."""
    return NoteTip(NOBODY, tip)


class Payouts:
    """The house, its node and its senders."""

    def __init__(self, world: World, node: SimulatedNode) -> None:
        self.world = world
        self.node = node
        self.reads = world.store
        self.signer = _SIGNER
        self.alice = 0
        self.bob = 0

    def chain(self, network: int = BITCOIN) -> SimulatedChain:
        """Return the wallet's view of a network."""
        return self.node.chain(CODES[network])

    def sender(
        self, network: int = BITCOIN, crash_points: Callable[[str], None] = reach, terms: PaymentTerms | None = None
    ) -> Sender:
        """Return a fresh sender, as a restart would make it."""
        return Sender(self.world.context, self.chain(network), _SIGNER, network, crash_points, terms=terms)

    async def open(self) -> None:
        """Declare the settings, stock addresses, and make alice and bob, or find what an earlier run left."""
        self.world.context.formats = {network.id: network.format for network in NETWORKS.values()}
        for code in CODES.values():
            self.node.register(code, await _SIGNER.public_key(code))
        if self.reads.rows(User, {}, 2):
            self.alice, self.bob = (user.uid for user in self.reads.rows(User, {}, 2))
            return
        await self.settings(PAYING)
        for network in CODES:
            await self.do(lambda network=network: prepare_stock(network, 0, OURS[network]))
        # Ordered by their ids, so that a second run finds them by the same names.
        self.alice, self.bob = sorted([await self.world.user("alice"), await self.world.user("bob")])

    def reservation(self, withdrawal: Withdrawal, nonce: int = 0, fee: int = 100) -> Command:
        """Return the command that begins a withdrawal's payment, with a nonce not below one, and without a node."""
        context = self.world.context
        spends = (nonce_text(max(nonce, next_nonce(context, withdrawal.network))),)
        return prepare_reservation(context, [withdrawal], Draft(spends, b"body", fee))

    async def do(self, prepare: Callable[[], Command]) -> Outcome:
        """Carry out a command of the house itself."""
        return await perform_own(self.world.context, prepare)

    async def settings(self, snapshot: Snapshot) -> None:
        """Replace the settings."""
        await self.do(lambda: prepare_settings(self.world.context, NOBODY, snapshot))

    async def offer(self, asset: int, **changes: Any) -> None:
        """Change an asset's offer."""
        now = self.reads.row(Settings, 0).snapshot
        offers = tuple(msgspec.structs.replace(o, **changes) if o.asset == asset else o for o in now.offers)
        await self.settings(msgspec.structs.replace(now, offers=offers))

    async def mark(self, uid: int, *, frozen: bool = False, active: bool = True) -> None:
        """Freeze a user, or make it inactive."""
        await self.do(lambda: MarkUser(NOBODY, uid, frozen, active))

    async def endow(self, owner: int, asset: int, network: int, units: int) -> None:
        """Give a user coins on a chain, in the books and on the node."""
        await self.do(lambda: self.endow_books(owner, asset, network, units))
        await self.endow_node(asset, network, units)

    def endow_books(self, owner: int, asset: int, network: int, units: int) -> Endow:
        """Return the command that gives a user coins in the books only."""
        before = self.reads.row(Holding, network, asset).chain_units
        _, on_chain = self._on_chain(asset, network, units)
        return Endow(NOBODY, owner, asset, network, units, before, str(on_chain))

    async def endow_node(self, asset: int, network: int, units: int) -> None:
        """Let coins arrive at the house's address on a chain."""
        token, on_chain = self._on_chain(asset, network, units)
        home = OURS[network][0]
        await self.chain(network).watch([home.address])
        await self.node.faucet(CODES[network], home.address, home.tag, token, on_chain)
        await self.node.mine(CODES[network])

    def _on_chain(self, asset: int, network: int, units: int) -> tuple[str, int]:
        catalogue = self.world.context.catalogue
        offer = catalogue.offer_at(asset, network)
        assert offer is not None
        return offer.token, chain_units(units, offer, catalogue.assets[asset])

    async def give(self, owner: int, asset: int, network: int, position: int) -> DerivedAddress:
        """Give a user a deposit address."""
        place = OURS[network][position]
        rule = AddressRule.TEN_UNUSED
        await self.do(lambda: GiveAddress(NOBODY, owner, asset, network, position, place.address, place.tag, rule))
        return place

    async def ask(
        self,
        amount: str,
        address: str | None = None,
        *,
        owner: int = 0,
        asset: str = "BTC",
        network: str | None = None,
        tag: str | None = None,
        include_fee: bool = True,
    ) -> Outcome:
        """Ask for a withdrawal, of alice's bitcoin to a stranger unless told otherwise."""
        guard = self.world.guard(owner or self.alice)
        more = {"asset": asset, "network": network, "tag": tag, "include_fee": include_fee}
        return await perform(self.world.context, guard, lambda: self.prepared(guard, amount, address, **more))

    def prepared(
        self,
        guard: Guard,
        amount: str,
        address: str | None = None,
        *,
        asset: str = "BTC",
        network: str | None = None,
        tag: str | None = None,
        include_fee: bool = True,
    ) -> RequestWithdrawal:
        """Return the command that asks for a withdrawal."""
        context = self.world.context
        to = THEIRS[BITCOIN].address if address is None else address
        return prepare_withdrawal(
            context, guard, asset, network, to, tag, amount, include_fee=include_fee, uuid=context.ids.uuid()
        )

    def fee(self, asset: int) -> FeeFormula:
        """Return the formula of an asset's withdrawal fee."""
        return self.world.context.catalogue.offers_of(asset)[0].withdraw_fee

    async def withdraw(self, amount: str, address: str | None = None, **more: Any) -> Withdrawal:
        """Ask for a withdrawal that is accepted, and return its row."""
        outcome = await self.ask(amount, address, **more)
        assert outcome.refusal is None, outcome.refusal
        return self.row(msgspec.json.decode(outcome.result, type=WithdrawalRequested).ref)

    async def approve(self, withdrawal: Withdrawal) -> Outcome:
        """Approve a withdrawal."""
        return await self.do(lambda: prepare_approval(self.world.context, NOBODY, withdrawal.ref))

    def row(self, ref: int) -> Withdrawal:
        """Return a withdrawal as it is now."""
        return self.reads.row(Withdrawal, ref)

    def withdrawals(self) -> list[Withdrawal]:
        """Return every withdrawal as it is now."""
        return self.reads.rows(Withdrawal, {}, 1000)

    def payment(self, withdrawal: Withdrawal) -> Payment:
        """Return the payment of a withdrawal."""
        return self.reads.row(Payment, self.row(withdrawal.ref).payment)

    def balances(self) -> list[tuple[int, int, int]]:
        """Return all balances, to compare."""
        return sorted(self.reads.balances())

    def balance(self, account: Any) -> int:
        """Return an account's balance."""
        return self.reads.row(Head, account.pack()).after

    def available(self, owner: int, asset: int = BTC) -> int:
        """Return what a user can spend."""
        return self.balance(available(owner, asset))

    def held(self, owner: int, asset: int = BTC) -> int:
        """Return what is held of a user's."""
        return self.balance(held(owner, asset))

    def sent(self, network: int, payment: Payment) -> list[tuple[str, str, int]]:
        """Return whom a payment's blob pays: address, tag and chain units."""
        paid, _, _ = open_blob(NETWORKS[CODES[network]], payment.blob)
        return [(payee.address, payee.tag, payee.amount) for payee in paid.payees]

    def agree(self) -> None:
        """Check what always holds: assets sum to zero, holds are the open withdrawals, coins are the omnibus."""
        sums: dict[int, int] = {}
        held_sums: dict[tuple[int, int], int] = {}
        for packed, balance, _ in self.reads.balances():
            account = unpack(packed)
            sums[account.asset] = sums.get(account.asset, 0) + balance
            assert balance >= 0 or account.purpose not in CUSTOMER_PURPOSES
            if account.purpose == Purpose.HELD and balance:
                held_sums[account.owner, account.asset] = balance
        assert not any(sums.values())
        expected: dict[tuple[int, int], int] = {}
        for withdrawal in self.withdrawals():
            if withdrawal.owner and withdrawal.state in OPEN_WITHDRAWALS:
                key = withdrawal.owner, withdrawal.asset
                expected[key] = expected.get(key, 0) + withdrawal.held
        assert held_sums == expected
        self._holdings_agree()

    def _holdings_agree(self) -> None:
        catalogue = self.world.context.catalogue
        for holding in self.reads.rows(Holding, {}, 100):
            offer = catalogue.offer_at(holding.asset, holding.network)
            assert offer is not None
            floor = ledger_units(int(holding.chain_units), offer, catalogue.assets[holding.asset])
            assert self.balance(omnibus(holding.network, holding.asset)) == -floor

    async def paid_on(self, network: int = BITCOIN) -> list[tuple[str, str, int]]:
        """Return whom the house has paid on a network's best chain, waiting ones included."""
        chain = self.chain(network)
        outputs = list(await chain.mempool())
        for height in range((await chain.tip()).height + 1):
            block = await chain.block_at(height)
            assert block is not None
            outputs += await chain.outputs_in(block.hash)
        return [(output.address, output.tag, output.amount) for output in outputs if output.ours]

    async def until_waiting(self, count: int, network: int = BITCOIN, timeout_s: float = 10) -> None:
        """Wait until so many payments wait in a network's mempool; fail after a while."""
        chain, seen = self.chain(network), -1
        async with asyncio.timeout(timeout_s):
            while len(await chain.mempool()) != count:
                seen = await chain.wait_change(seen, timeout_s)

    async def pay(
        self,
        sender: Sender,
        *withdrawals: Withdrawal,
        network: int = BITCOIN,
        follow: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Let a sender work and blocks be mined until withdrawals are closed; a watcher is to `follow` them, if any."""
        for _ in range(20):
            if follow:
                await follow()
            await sender.step()
            if all(self.row(withdrawal.ref).state not in OPEN_WITHDRAWALS for withdrawal in withdrawals):
                return
            await self.node.mine(CODES[network])
        raise AssertionError(f"still open: {sender.status}")

    async def agrees_with_node(self, network: int, asset: int) -> bool:
        """Say whether the node has what the books say."""
        offer = self.world.context.catalogue.offer_at(asset, network)
        assert offer is not None
        on_node = await self.chain(network).balance(offer.token)
        return on_node == int(self.reads.row(Holding, network, asset).chain_units)


@asynccontextmanager
async def paying(store: AnyStore, folder: Path) -> AsyncIterator[Payouts]:
    """Run a house that pays out, on a store and with a node's file in a folder."""
    async with opened(store) as world:
        node = SimulatedNode(folder / "chains.sqlite", [NETWORKS[code] for code in CODES.values()], world.clock)
        try:
            payouts = Payouts(world, node)
            await payouts.open()
            yield payouts
        finally:
            node.close()


async def until(payouts: Payouts, condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait until a commit makes a condition hold; fail after a while."""
    changed = asyncio.Event()
    payouts.reads.subscribe(lambda _: changed.set())
    async with asyncio.timeout(timeout_s):
        while not condition():
            await changed.wait()
            changed.clear()

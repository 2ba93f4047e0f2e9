"""A server that was lost and restored from an older backup beside a real Bitcoin chain that has moved on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.admin.protocol import AdminError
from strongroom.config.settings import Config, Offer
from strongroom.records.addresses import Address, branch_of
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.withdrawals import Payment, Withdrawal, WithdrawalState
from strongroom.wallet import addresses
from support.coin_house import NETWORK, CoinHouse, coin_house, coin_settings
from support.demos import Ran, run
from support.nodes import FIRST_COINS, Bitcoind, CoinNode, Litecoind
from support.server import Member

STRANGER = Bitcoind.nobody


@pytest.fixture
def config(tmp_path: Path, bitcoind: Bitcoind) -> Config:
    """A house whose operator looks at larger withdrawals."""
    return looked_at(tmp_path, bitcoind)


def looked_at(folder: Path, node: CoinNode) -> Config:
    """Return the settings of such a house on a node."""
    offers = {"BTC": {"BITCOIN": Offer(decimals=8, default=True, approve_above="0.05")}}
    config = coin_settings(folder, node, node.chain)
    return msgspec.structs.replace(config, offers=offers)


async def command(*arguments: str | Path) -> Ran:
    """Run a command of the program in a process of its own, beside what runs here."""
    return await asyncio.to_thread(run, *arguments)


async def ask(house: CoinHouse, request: protocol.Request) -> Any:
    """Carry out a request of the operator's."""
    return await carry_out(house.house.application, request)


async def approve(house: CoinHouse, reference: str) -> None:
    """Let a withdrawal be paid."""
    [row] = [it for it in house.store.rows(Withdrawal, {}, 100) if reference in {it.uuid, str(it.ref)}]
    _ = await ask(house, protocol.ApproveWithdrawal(row.ref))


@asynccontextmanager
async def reading_by_hand(config: Config, node: CoinNode) -> AsyncIterator[CoinHouse]:
    """Serve the house, and wait until it has read the chain to its tip."""
    async with coin_house(config, node) as house:
        await house.worked_through()
        assert house.house.application.treasury.watchers["BITCOIN"].restoration.has_read
        yield house


def lose(data: Path) -> None:
    """Lose the books of a data folder."""
    for path in data.glob("strongroom.sqlite*"):
        path.unlink()


class Lost:
    """A house that was backed up, went on, and was lost."""

    def __init__(self, tmp_path: Path, config: Config, node: CoinNode) -> None:
        self.data, self.backup = Path(config.data), tmp_path / "backup.sqlite"
        self.config, self.node = config, node
        self.old: set[str] = set()
        self.alice: Member
        self.bob: Member
        self.later = ""

    async def live(self) -> None:
        """Take deposits, be backed up with a withdrawal that waits for a word, and go on as if nothing could happen."""
        async with coin_house(self.config, self.node) as house:
            self.alice, self.bob = await house.customer("alice"), await house.customer("bob")
            to_alice, to_bob = await house.address(self.alice), await house.address(self.bob)
            await self.deposit(house, self.alice, to_alice, "1")
            await self.deposit(house, self.bob, to_bob, "0.5")
            first = await house.withdraw(self.alice, self.node.nobody, "0.2")
            made = await command("backup", "--data", self.data, "--to", self.backup)
            assert (made.code, made.err) == (0, "")
            await self._go_on(house, first, to_alice)
            self.old = {row.address for row in house.store.rows(Address, {"network": NETWORK}, 1_000)}

    async def _go_on(self, house: CoinHouse, first: str, to_alice: str) -> None:
        """Pay what was asked for before, twice what is asked for after, from change and from an address given after."""
        await approve(house, first)
        await house.mine_until_status(self.alice, "COMPLETED", "COMPLETED")
        await self.deposit(house, self.alice, to_alice, "0.3")
        await approve(house, await house.withdraw(self.bob, self.node.nobody, "0.25"))
        await house.mine_until_status(self.bob, "COMPLETED", "COMPLETED")
        self.later = await house.address(self.bob)
        await self.deposit(house, self.bob, self.later, "2")
        await approve(house, await house.withdraw(self.bob, self.node.nobody, "1.5"))
        await house.mine_until_status(self.bob, *["COMPLETED"] * 4)
        assert await self.paid() == Decimal("1.95")

    async def deposit(self, house: CoinHouse, member: Member, address: str, amount: str) -> None:
        """Let a stranger pay a customer, and wait for the credit."""
        rows = len(await house.statuses(member)) + 1
        await self.node.pay(address, amount)
        await house.mine_until_status(member, *["COMPLETED"] * rows)

    async def paid(self) -> Decimal:
        """Return what the stranger has been paid in blocks, as the node tells it."""
        return await self.node.paid_to(self.node.nobody)

    async def restore(self) -> None:
        """Lose the books, and make new ones of the backup."""
        lose(self.data)
        made = await command("restore", self.backup, "--data", self.data)
        assert (made.code, made.err) == (0, "")
        assert "epoch   1" in made.out

    async def put_back(self) -> None:
        """Lose the books, put the backup in their place by hand, and say so."""
        lose(self.data)
        shutil.copyfile(self.backup, self.data / "strongroom.sqlite")
        assert (await command("restore", "--here", "--data", self.data)).code == 0


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have fewer addresses of before the restore derived than a house really does: it takes seconds."""
    monkeypatch.setattr(addresses, "AHEAD", 100)


@pytest.fixture
async def lost(tmp_path: Path, config: Config, bitcoind: Bitcoind) -> Lost:
    """A house that was lost."""
    lost = Lost(tmp_path, config, bitcoind)
    await lost.live()
    await lost.restore()
    return lost


async def test_a_restored_house_pays_nobody_twice_and_comes_to_what_the_chain_says(lost: Lost) -> None:
    """Payments and deposits of after the backup are found, and withdrawals go on once the operator has named whose."""
    await find_the_way_back(lost)


@pytest.mark.usefixtures("few")
async def test_so_does_one_on_litecoin(tmp_path: Path) -> None:
    """Its older node tells what the blocks since the backup spend of ours, and what waits, as well."""
    async with Litecoind(tmp_path / "node") as node:
        _ = await node.mine(FIRST_COINS)
        lost = Lost(tmp_path, looked_at(tmp_path, node), node)
        await lost.live()
        await lost.restore()
        await find_the_way_back(lost)


async def find_the_way_back(lost: Lost) -> None:
    """Come back beside the chain, be told who was paid, and pay again."""
    async with reading_by_hand(lost.config, lost.node) as house:
        await house.withdraw(lost.alice, lost.node.nobody, "0.04")
        await house.mine_until_status(lost.alice, "PROCESSING", "COMPLETED", "COMPLETED", "COMPLETED")
        assert await lost.paid() == Decimal("1.95")
        assert await lost.node.rpc("getrawmempool") == []
        assert await house.balance(lost.alice) == (Decimal("1.1"), Decimal("1.06"))
        assert await house.balance(lost.bob) == (Decimal("0.5"), Decimal("0.5"))
        [network] = await ask(house, protocol.ListNetworks())
        assert network.waits == "2 payments were found that nobody is named for"
        await name_bob(house)
        await house.mine_until_status(lost.alice, *["COMPLETED"] * 4)
        assert await lost.paid() == Decimal("1.99")
        assert await house.balance(lost.alice) == (Decimal("1.06"), Decimal("1.06"))
        assert await house.balance(lost.bob) == (Decimal("0.75"), Decimal("0.75"))
        assert (await house.reconciled()).differences == ()
        house.check_books()


async def name_bob(house: CoinHouse) -> None:
    """Say that what the backup did not know was all bob's."""
    [deposit] = await ask(house, protocol.ListDeposits("withheld"))
    assert (deposit.amount, deposit.user) == ("2", "")
    _ = await ask(house, protocol.AssignDeposit(int(deposit.ref), "bob"))

    async def is_settled() -> bool:
        return all(it.state == WithdrawalState.SETTLED for it in house.store.rows(Withdrawal, {"owner": 0}, 10))

    await house.until(is_settled, "what nobody is named for is settled")
    for row in house.store.rows(Withdrawal, {"owner": 0}, 10):
        _ = await ask(house, protocol.AssignWithdrawal(row.ref, "bob"))


@pytest.mark.usefixtures("few")
async def test_no_address_of_before_is_given_out_and_all_are_watched(lost: Lost) -> None:
    """New addresses come from a branch of their own; an output to one of those that waited is told and withheld."""
    async with reading_by_hand(lost.config, lost.node) as house:
        fresh = await house.address(lost.alice)
        assert fresh not in lost.old
        [row] = [it for it in house.store.rows(Address, {"network": NETWORK}, 20_000) if it.address == fresh]
        assert branch_of(row.position) == 1
        given = {it.address for it in house.store.rows(Address, {"network": NETWORK}, 20_000) if it.given_ms}
        waited = next(address for address in sorted(lost.old) if address not in {*given, lost.later})
        watcher = house.house.application.treasury.watchers["BITCOIN"]
        before = watcher.unbooked
        await lost.node.pay(waited, "0.1")
        _ = await lost.node.mine(2)
        await house.worked_through()
        assert watcher.unbooked == before + 1
        withheld = house.store.rows(Deposit, {"network": NETWORK, "state": DepositState.WITHHELD}, 10)
        assert sorted(it.amount for it in withheld) == [10_000_000, 200_000_000]
        refused = await house.house.post(
            lost.alice,
            "/api/v3.2/user/wallet/withdraw",
            {"currency": "BTC-BITCOIN", "address": waited, "amount": "0.01", "tag": ""},
        )
        assert refused.status_code == 400
        house.check_books()


@pytest.mark.usefixtures("few")
async def test_the_operator_may_let_payments_go_on_without_naming_anybody(lost: Lost) -> None:
    """The house bears what was paid for nobody known; a second word is refused, as is one before all was read."""
    await lost.node.stop()
    async with coin_house(lost.config, lost.node) as house:
        with pytest.raises(AdminError, match="has not been read"):
            _ = await ask(house, protocol.ReleaseNetwork("BITCOIN"))
    await lost.node.start()
    async with reading_by_hand(lost.config, lost.node) as house:
        await house.withdraw(lost.alice, STRANGER, "0.04")
        told = await ask(house, protocol.ReleaseNetwork("BITCOIN"))
        assert (told.by_hand, told.unknown_payments, told.waits) == (True, 2, "")
        with pytest.raises(AdminError, match="does not wait"):
            _ = await ask(house, protocol.ReleaseNetwork("BITCOIN"))
        await house.mine_until_status(lost.alice, *["COMPLETED"] * 4)
        assert await lost.paid() == Decimal("1.99")
        assert (await house.reconciled()).differences == ()
        house.check_books()


@pytest.mark.usefixtures("few")
async def test_a_restored_house_that_dies_again_adopts_nothing_twice(lost: Lost) -> None:
    """Closed and opened over and over while it finds its way back, it has each payment of the chain once."""
    for _ in range(3):
        async with coin_house(lost.config, lost.node):
            await asyncio.sleep(0)
    async with reading_by_hand(lost.config, lost.node) as house:
        await house.mine_until_status(lost.alice, *["COMPLETED"] * 3)

        async def all_are_settled() -> bool:
            states = [row.state for row in house.store.rows(Withdrawal, {}, 10)]
            return states == [WithdrawalState.SETTLED] * 3

        await house.until(all_are_settled, "every payment is in the books")
        assert len(house.store.rows(Payment, {}, 10)) == 3
        house.check_books()


@pytest.mark.usefixtures("few")
async def test_a_payment_that_still_waits_to_be_mined_holds_everything_up(
    tmp_path: Path, config: Config, bitcoind: Bitcoind
) -> None:
    """A transaction that nobody here knows spends our coins: nothing is sent until it is in a block and adopted."""
    lost = Lost(tmp_path, config, bitcoind)
    async with coin_house(config, bitcoind) as house:
        alice = await house.customer("alice")
        await lost.deposit(house, alice, await house.address(alice), "1")
        first = await house.withdraw(alice, STRANGER, "0.2")
        assert (await command("backup", "--data", lost.data, "--to", lost.backup)).code == 0
        await approve(house, first)
        async with asyncio.timeout(60):
            while not await bitcoind.rpc("getrawmempool"):
                _ = await house.house.application.treasury.senders["BITCOIN"].step()
    await lost.put_back()
    async with reading_by_hand(config, bitcoind) as house:
        await house.worked_through()
        [network] = await ask(house, protocol.ListNetworks())
        assert network.waits == "1 of our coins are spent by transactions that wait for their block"
        with pytest.raises(AdminError, match="waits to be reconciled"):
            _ = await ask(house, protocol.RejectWithdrawal(house.store.rows(Withdrawal, {}, 1)[0].ref))
        assert len(await bitcoind.rpc("getrawmempool")) == 1
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
        [network] = await ask(house, protocol.ListNetworks())
        assert (network.waits, network.reconciled_in) == ("", 1)
        assert await lost.paid() == Decimal("0.2")
        assert (await house.reconciled()).differences == ()
        house.check_books()


@pytest.mark.usefixtures("few")
async def test_so_does_one_that_spends_what_a_payment_is_to_bring_back_yet(
    tmp_path: Path, config: Config, bitcoind: Bitcoind
) -> None:
    """The backup has the first payment, not final, and so nothing of its change, which an unknown second one spends."""
    lost = Lost(tmp_path, config, bitcoind)
    async with coin_house(config, bitcoind) as house:
        alice = await house.customer("alice")
        await lost.deposit(house, alice, await house.address(alice), "1")
        first = await house.withdraw(alice, STRANGER, "0.2")
        await approve(house, first)
        await house.until_waiting(1)
        assert (await command("backup", "--data", lost.data, "--to", lost.backup)).code == 0
        [block] = await bitcoind.mine(1)
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
        await approve(house, await house.withdraw(alice, STRANGER, "0.3"))
        await house.until_waiting(1)
        # Back to a branch on which the first one is in no block: both wait.
        await bitcoind.invalidate(block)
        assert len(await bitcoind.rpc("getrawmempool")) == 2
    await lost.put_back()
    async with reading_by_hand(config, bitcoind) as house:
        await house.worked_through()
        [network] = await ask(house, protocol.ListNetworks())
        assert network.waits == "1 of our coins are spent by transactions that wait for their block"
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
        [network] = await ask(house, protocol.ListNetworks())
        assert network.waits == "1 payments were found that nobody is named for"
        assert await lost.paid() == Decimal("0.5")
        assert (await house.reconciled()).differences == ()
        house.check_books()

"""A server that was lost and restored from an older backup beside a real EVM chain that has moved on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from strongroom.admin import protocol, restoring
from strongroom.admin.commands import carry_out
from strongroom.admin.views import NetworkView
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.heads import Head
from strongroom.records.withdrawals import PaymentPurpose, PaymentState, Withdrawal
from strongroom.wallet import addresses
from strongroom.wallet.payments import nonce_of, position_of
from strongroom.wallet.pots import due_pots
from support.evm import call_data
from support.evm_house import ETH, ETHER, ETHEREUM, OUTSIDE, USDT, EvmHouse, evm_house, reopened, signed_elsewhere
from support.nodes import Anvil, wait_until
from support.server import Member

COLD: Final = "0x000000000000000000000000000000000000dEaD"
WITHDRAWALS, SWEEP, GAS, CONSOLIDATION, COLD_MOVE = PaymentPurpose
FINAL, VOIDED = PaymentState.FINAL, PaymentState.VOIDED
REFUSES: Final = "0x5f5ffd"
"""A contract that reverts whatever it is asked."""

Story = Callable[[EvmHouse], Awaitable[None]]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have fewer addresses of before the restore derived than a house really does: it takes seconds."""
    monkeypatch.setattr(addresses, "AHEAD", 50)


def lose(data: Path) -> None:
    """Lose the books of a data folder."""
    for path in data.glob("strongroom.sqlite*"):
        path.unlink()


class Lost:
    """A house with two customers that is backed up, goes on, and is lost."""

    def __init__(self, folder: Path, anvil: Anvil) -> None:
        self.folder = folder
        self.anvil = anvil
        self.alice: Member
        self.bob: Member
        self.token = ""
        self.ether = ""
        self.tokens = ""
        self.owned: dict[str, Any] = {}

    async def live(self, after: Story, before: Story | None = None) -> None:
        """Live until the backup, go on as told, and come back of the backup."""
        async with evm_house(self.folder, self.anvil, cold_address=COLD) as home:
            await home.stock(tokens=10_000_000)
            self.token = home.token
            self.alice, self.bob = await home.customer("alice"), await home.customer("bob")
            self.ether, self.tokens = await home.address(self.alice), await home.address(self.bob, "USDT")
            await deposit(home, self.ether, 3)
            if before is not None:
                await before(home)
            data, backup = Path(home.house.application.config.data), self.folder / "backup.sqlite"
            _ = await asyncio.to_thread(restoring.back_up, home.house.application.config, backup)
            await after(home)
            self.owned = owned(home)
        lose(data)
        _ = await asyncio.to_thread(restoring.restore, backup, data)

    @asynccontextmanager
    async def back(self) -> AsyncIterator[EvmHouse]:
        """Serve the restored house, which has read the chain to its tip."""
        async with reopened(self.folder, self.anvil, self.token, cold_address=COLD) as home:
            await home.worked_through()
            assert home.house.application.treasury.watchers["ERC20"].restoration.has_read
            yield home


@pytest.fixture
def lost(tmp_path: Path, anvil: Anvil) -> Lost:
    """A house that is to be lost."""
    return Lost(tmp_path, anvil)


def owned(home: EvmHouse) -> dict[str, Any]:
    """Return what the books say of the house's own money, wherever it lies."""
    accounts = [(purpose, asset) for purpose in (Purpose.CHAIN_FEE, Purpose.COLD) for asset in (ETH, USDT)]
    return {
        "holdings": [home.holding(asset) for asset in (ETH, USDT)],
        "pots": home.pots(),
        "accounts": [home.store.row(Head, house(*account).pack()).after for account in accounts],
    }


async def deposit(home: EvmHouse, address: str, ether: int) -> None:
    """Let a stranger pay ether to a customer, and wait until it is swept."""
    sweeps = sum(it.purpose == SWEEP for it in home.payments())
    await home.anvil.pay(address, ether * ETHER)
    await home.mine_until(lambda: is_swept(home, sweeps + 1))


def is_swept(home: EvmHouse, sweeps: int) -> bool:
    """Say whether there were so many sweeps, and all is at rest."""
    return sum(it.purpose == SWEEP for it in home.payments()) == sweeps and not home.is_busy()


async def deposit_tokens(home: EvmHouse, address: str, units: int) -> None:
    """Let a stranger pay tokens to a customer, and wait until they are swept."""
    sweeps = sum(it.purpose == SWEEP for it in home.payments())
    await home.mint(address, units)
    await home.mine_until(lambda: is_swept(home, sweeps + 1))


async def ask(home: EvmHouse, request: protocol.Request) -> Any:
    """Carry out a request of the operator's."""
    return await carry_out(home.house.application, request)


async def network(home: EvmHouse) -> NetworkView:
    """Return how the network stands after the restore."""
    [found] = await ask(home, protocol.ListNetworks())
    return found


async def to_cold(home: EvmHouse, asset: str, amount: str) -> None:
    """Pay to the cold address, signed by whoever has the key, until it is final."""
    unsigned = await ask(home, protocol.PrepareCold("ERC20", asset, amount))
    _ = await ask(home, await signed_elsewhere(home, unsigned))
    await home.mine_until(lambda: not home.is_busy())


async def is_whole(home: EvmHouse, strangers_on_cold: int = 0) -> None:
    """See that books and chain agree to the last unit, and that the books are whole.

    So many units on the cold address are somebody else's.
    """
    found = await home.reconciled_all()
    assert [(it.unexplained_units, it.books_units - it.chain_units) for it in found] == [(0, 0)] * 2
    assert sum(it.unexplained_units for it in await home.reconciled_cold()) == strangers_on_cold
    home.check_books()


def nonces(home: EvmHouse) -> list[int]:
    """Return the nonces of the hot wallet that payments have reserved."""
    return sorted(nonce_of(it.spends[0]) for it in home.payments() if not position_of(it.spends[0]))


async def test_moves_of_after_the_backup_are_adopted_and_payments_go_on_by_themselves(lost: Lost) -> None:
    """Sweeps of ether and tokens, gas, and what went to the cold address: all is booked once, as before the loss."""

    async def after(home: EvmHouse) -> None:
        await deposit(home, lost.ether, 2)
        await deposit_tokens(home, lost.tokens, 250_000_000)
        await to_cold(home, "ETH", "4")
        await to_cold(home, "USDT", "100.5")
        await deposit(home, lost.ether, 1)

    await lost.live(after)
    # It dies once more on its way back.
    async with reopened(lost.folder, lost.anvil, lost.token, cold_address=COLD):
        for _ in range(20):
            await asyncio.sleep(0)
    async with lost.back() as home:
        await home.mine_until(lambda: not home.is_busy())
        assert (await network(home)).waits == ""
        assert [it.purpose for it in home.payments()] == [SWEEP, SWEEP, GAS, SWEEP, COLD_MOVE, COLD_MOVE, SWEEP]
        assert {it.state for it in home.payments()} == {FINAL}
        assert owned(home) == lost.owned
        assert await home.balance(lost.alice) == (Decimal(6), Decimal(6))
        assert await home.balance(lost.bob, "USDT") == (Decimal(250), Decimal(250))
        assert due_pots(home.store, ETHEREUM) == []
        assert nonces(home) == [0, 1, 2]
        await is_whole(home)
        await home.withdraw(lost.alice, OUTSIDE, "1.5")
        await deposit(home, lost.ether, 1)
        assert await home.ether(OUTSIDE) == 3 * ETHER // 2
        assert nonces(home) == [0, 1, 2, 3]
        await is_whole(home)


async def test_a_payment_to_a_stranger_that_matches_nothing_waits_for_the_operator(lost: Lost) -> None:
    """What was asked for after the backup is somebody's; of before, also one to the cold address is the customer's."""

    async def after(home: EvmHouse) -> None:
        await home.mine_until(lambda: not home.is_busy())
        carol = await home.customer("carol")
        await deposit(home, await home.address(carol), 2)
        await home.withdraw(lost.alice, OUTSIDE, "1")
        await home.mine_until(lambda: not home.is_busy())

    async def before(home: EvmHouse) -> None:
        _ = await home.withdraw(lost.alice, COLD, "0.5")

    await lost.live(after, before)
    async with lost.back() as home:
        await home.mine_until(lambda: len(home.payments()) == 4 and not home.is_busy())
        assert (await network(home)).waits == "1 payments were found that nobody is named for"
        [withheld] = home.store.rows(Deposit, {"network": ETHEREUM, "state": DepositState.WITHHELD}, 10)
        assert (withheld.owner, withheld.amount) == (0, 200_000_000)
        assert [it.purpose for it in home.payments()] == [SWEEP, WITHDRAWALS, SWEEP, WITHDRAWALS]
        assert home.store.row(Head, house(Purpose.COLD, ETH).pack()).after == 0
        assert owned(home) == lost.owned
        await is_whole(home, strangers_on_cold=50_000_000)
        [unknown] = home.store.rows(Withdrawal, {"owner": 0}, 10)
        _ = await ask(home, protocol.AssignWithdrawal(unknown.ref, "alice"))
        assert await home.balance(lost.alice) == (Decimal("1.5"), Decimal("1.5"))
        await home.mine_until(lambda: not home.house.application.treasury.watchers["ERC20"].restoration.is_waiting)
        await is_whole(home, strangers_on_cold=50_000_000)


async def test_sweeps_that_were_replaced_or_undone_are_found_as_they_ended(lost: Lost) -> None:
    """One signed before the backup and replaced after it is one move; what a block undid costs its fee, and its tokens
    still lie on their address and are swept then."""

    async def before(home: EvmHouse) -> None:
        await home.anvil.pay(lost.ether, 2 * ETHER)
        await home.mine_until(lambda: len(home.payments()) == 2)
        await until_waiting(home, 1)

    async def after(home: EvmHouse) -> None:
        _ = await ask(home, protocol.HurryPayment(home.payments()[-1].ref))
        await home.until(lambda: has_candidates(home, 2), "the sweep is offered for a higher fee")
        await home.mine_until(lambda: not home.is_busy())
        await home.mint(lost.tokens, 70_000_000)
        await home.mine_until(lambda: [it.purpose for it in home.payments()][2:] == [GAS, SWEEP])
        code = await home.anvil.rpc("eth_getCode", home.token, "latest")
        await until_waiting(home, 1)
        await home.anvil.rpc("anvil_setCode", home.token, REFUSES)
        _ = await home.anvil.mine(1)
        await home.anvil.rpc("anvil_setCode", home.token, code)

    await lost.live(after, before)
    async with lost.back() as home:
        await home.mine_until(lambda: is_swept(home, 4))
        assert [(it.purpose, it.state) for it in home.payments()] == [
            (SWEEP, FINAL), (SWEEP, FINAL), (GAS, FINAL), (SWEEP, VOIDED), (SWEEP, FINAL),
        ]  # fmt: skip
        assert [len(it.candidates) for it in home.payments()][:2] == [1, 2]
        assert (await network(home)).waits == ""
        assert await home.held(home.hot) == 80_000_000
        await is_whole(home)


async def until_waiting(home: EvmHouse, count: int) -> None:
    """Wait until so many transactions wait for their block."""

    async def is_so() -> bool:
        return int(await home.anvil.rpc("eth_getBlockTransactionCountByNumber", "pending"), 16) == count

    await wait_until(is_so, f"{count} transactions wait")


async def has_candidates(home: EvmHouse, count: int) -> bool:
    """Say whether the newest payment has so many candidates, and the node has the last of them."""
    return await home.is_offered(home.payments()[-1], count)


async def test_a_key_of_ours_used_outside_is_reported_and_waits(lost: Lost) -> None:
    """A deposit address that has paid somebody is no move: nothing is booked of it, to a customer neither."""
    wrong: list[str] = []

    async def after(home: EvmHouse) -> None:
        for to in (OUTSIDE, await home.address(lost.bob)):
            await home.anvil.rpc("anvil_impersonateAccount", lost.ether)
            price = int((await home.anvil.rpc("eth_feeHistory", "0x1", "latest", []))["baseFeePerGas"][-1], 16)
            sent = {"from": lost.ether, "to": to, "value": hex(10**12), "gas": hex(21_000), "gasPrice": hex(price)}
            wrong.append(await home.anvil.rpc("eth_sendTransaction", sent))
            _ = await home.anvil.mine(1)
        transfer = call_data("transfer(address,uint256)", lost.tokens, 5)
        await home.anvil.rpc("anvil_impersonateAccount", home.hot)
        sent = {"from": home.hot, "to": home.token, "data": transfer, "gas": hex(200_000)}
        wrong.append(await home.anvil.rpc("eth_sendTransaction", sent))
        _ = await home.anvil.mine(3)

    await lost.live(after)
    async with lost.back() as home:
        assert "without a cause" in (await network(home)).waits
        restoration = home.house.application.treasury.watchers["ERC20"].restoration
        assert list(restoration.not_adopted) == wrong
        assert len(home.payments()) == 1
        assert len(home.store.rows(Deposit, {}, 10)) == 3
        assert await home.balance(lost.bob) == (Decimal(0), Decimal(0))
        assert (await ask(home, protocol.ReleaseNetwork("ERC20"))).waits == ""
        home.check_books()


async def test_a_transaction_of_ours_that_waits_for_its_block_holds_everything_up(lost: Lost) -> None:
    """What was sent shortly before the loss spends a nonce: nothing is paid by another before it is mined."""

    async def after(home: EvmHouse) -> None:
        await home.anvil.pay(lost.ether, 2 * ETHER)
        await home.mine_until(lambda: len(home.payments()) == 2)
        _ = await home.withdraw(lost.alice, OUTSIDE, "1")
        await until_waiting(home, 2)

    await lost.live(after)
    async with lost.back() as home:
        told = "2 transactions of ours that the books do not know wait for their block"
        assert (await network(home)).waits == told
        assert len(home.payments()) == 1
        await home.mine_until(lambda: len(home.payments()) == 3 and not home.is_busy())
        assert (await network(home)).waits == "1 payments were found that nobody is named for"
        await is_whole(home)


async def test_a_sweep_that_is_mined_after_payments_were_let_go_on_is_booked_all_the_same(lost: Lost) -> None:
    """The operator did not wait for it: what it moved is the hot wallet's, and nobody looks for it where it was."""

    async def after(home: EvmHouse) -> None:
        await home.anvil.pay(lost.ether, 2 * ETHER)
        await home.mine_until(lambda: len(home.payments()) == 2)
        await until_waiting(home, 1)

    await lost.live(after)
    async with lost.back() as home:
        told = "1 transactions of ours that the books do not know wait for their block"
        assert (await network(home)).waits == told
        _ = await ask(home, protocol.ReleaseNetwork("ERC20"))
        assert (await network(home)).waits == ""
        await home.mine_until(lambda: len(home.payments()) == 2 and not home.is_busy())
        assert [(it.purpose, it.state) for it in home.payments()] == [(SWEEP, FINAL), (SWEEP, FINAL)]
        assert due_pots(home.store, ETHEREUM) == []
        assert await home.balance(lost.alice) == (Decimal(5), Decimal(5))
        await is_whole(home)

"""Payments to the cold address that were signed for too low a fee: hurried or given up, nothing waits behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.admin.protocol import AdminError
from strongroom.custody.sender import SLOW, PaymentTerms
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.heads import Head
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from support.evm_house import ETH, ETHER, OUTSIDE, USDT, EvmHouse, evm_house, signed_elsewhere
from support.nodes import Anvil, wait_until
from support.server import Member

COLD: Final = "0x000000000000000000000000000000000000dEaD"
GWEI: Final = 10**9
DEAR: Final = 30 * GWEI
"""What a unit of gas comes to cost, in wei: more than any payment of before offers."""


class Slow:
    """A house with a payment to the cold address that no block takes."""

    def __init__(self, home: EvmHouse, alice: Member) -> None:
        self.home = home
        self.alice = alice
        self.raw = ""

    @property
    def payment(self) -> Payment:
        """The payment to the cold address."""
        [found] = [it for it in self.home.payments() if it.purpose == PaymentPurpose.COLD]
        return found

    async def ask(self, request: protocol.Request) -> Any:
        """Carry out a request of the operator's."""
        return await carry_out(self.home.house.application, request)

    async def refused(self, request: protocol.Request, why: str) -> None:
        """Carry out what is refused, which changes nothing."""
        before = self._of_the_operator()
        with pytest.raises(AdminError, match=why):
            _ = await self.ask(request)
        assert self._of_the_operator() == before

    def _of_the_operator(self) -> list[Payment]:
        """Return the payments that no loop of the server's takes further meanwhile."""
        return [it for it in self.home.payments() if it.purpose == PaymentPurpose.COLD]

    async def exported(self, asset: str, amount: str) -> protocol.ImportCold:
        """Have a payment signed elsewhere, and return the request that brings it back."""
        signed = await signed_elsewhere(self.home, await self.ask(protocol.PrepareCold("ERC20", asset, amount)))
        self.raw = "0x" + signed.content.decode()
        return signed

    async def stick(self, asset: str, amount: str) -> int:
        """Bring a payment back signed and let gas become dearer, with a withdrawal behind it; return its reference."""
        ref = (await self.ask(await self.exported(asset, amount))).ref
        await self.home.withdraw(self.alice, OUTSIDE, "1")
        await wait_until(self._are_sent, "both are sent")
        await self.mine(DEAR)
        assert (self.payment.state, await self.home.ether(OUTSIDE)) == (PaymentState.SIGNED, 0)
        return int(ref)

    async def _are_sent(self) -> bool:
        waiting = await self.home.anvil.rpc("txpool_status")
        return int(waiting["pending"], 16) == 2

    async def mine(self, fee: int = GWEI) -> None:
        """Mine a block in which a unit of gas costs so much."""
        await self.home.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(fee))
        _ = await self.home.anvil.mine(1)
        await self.home.worked_through()

    async def waits_too_long(self) -> None:
        """Let the sender find that the payment has waited too long, and tell it."""
        sender = self.home.house.application.treasury.senders["ERC20"]
        terms, sender._terms = sender._terms, PaymentTerms(redraft_after_s=0)

        async def is_told() -> bool:
            shown = await self.ask(protocol.ListPayments())
            return any(it.waits.startswith(SLOW) for it in shown if it.purpose == "cold")

        sender.wake()
        await wait_until(is_told, "it is told that the payment waits")
        sender._terms = terms

    async def rest(self) -> None:
        """Mine until nothing is under way, and see that all is whole and the withdrawal was paid."""
        await self.mine()
        await self.home.mine_until(lambda: not self.home.is_busy())
        found = await self.home.reconciled_all()
        assert [(it.unexplained_units, it.books_units - it.chain_units) for it in found] == [(0, 0)] * 2
        self.home.check_books()

    async def has_candidates(self, count: int) -> bool:
        """Say whether the payment has so many candidates, and the node has the last of them."""
        return await self.home.is_offered(self.payment, count)

    def cold(self, asset: int) -> int:
        """Return what the books have on the cold address."""
        return -self.home.store.row(Head, house(Purpose.COLD, asset).pack()).after


@pytest.fixture
async def slow(tmp_path: Path, anvil: Anvil) -> AsyncIterator[Slow]:
    """A server with money on its hot wallet, a customer's among it."""
    async with evm_house(tmp_path, anvil, cold_address=COLD) as home:
        await home.stock(tokens=500_000_000)
        alice = await home.customer("alice")
        await home.anvil.pay(await home.address(alice), 3 * ETHER)
        await home.mine_until(lambda: [it.state for it in home.payments()] == [PaymentState.FINAL])
        await home.anvil.rpc("anvil_setBalance", OUTSIDE, "0x0")
        yield Slow(home, alice)


async def test_a_payment_signed_for_too_little_is_signed_again_for_more(slow: Slow) -> None:
    """The dearer transaction replaces it, spends the same nonce, and is what the books have; all behind it goes on."""
    ref = await slow.stick("ETH", "4")
    await slow.waits_too_long()
    await slow.refused(protocol.HurryPayment(ref), "'cold hurry' writes its file")
    unsigned = await slow.ask(protocol.HurryCold(ref))
    assert len(slow.payment.candidates) == 1
    assert (await slow.ask(protocol.ExportCold(ref))).file == unsigned.file
    await slow.refused(protocol.ImportCold(ref, slow.raw.encode()), "is not the payment's")
    dearer = await signed_elsewhere(slow.home, unsigned)
    assert (await slow.ask(dearer)).candidates == 2
    await slow.refused(dearer, "does not wait")
    await slow.rest()
    assert slow.payment.txid == slow.payment.candidates[-1]
    assert (await slow.home.ether(COLD), slow.cold(ETH), await slow.home.ether(OUTSIDE)) == (
        4 * ETHER, 400_000_000, ETHER,
    )  # fmt: skip
    for request in (protocol.HurryCold(ref), protocol.GiveUpCold(ref)):
        await slow.refused(request, "only a payment that came back signed")


async def test_a_payment_that_is_given_up_moves_nothing_unless_the_chain_says_so(slow: Slow) -> None:
    """The hot wallet spends the nonce itself; when a reorganisation brings the first one back, that is booked."""
    ref = await slow.stick("USDT", "100.5")
    _ = await slow.ask(protocol.GiveUpCold(ref))
    await slow.home.until(lambda: slow.has_candidates(2), "the filler is signed")
    await slow.refused(protocol.GiveUpCold(ref), "only a payment that came back signed")
    await slow.rest()
    assert (slow.payment.is_filled, slow.cold(USDT), await slow.home.held(COLD)) == (True, 0, 0)
    assert await slow.home.ether(OUTSIDE) == ETHER
    shown = await slow.ask(protocol.ListPayments("final"))
    assert "filled" in [it.purpose for it in shown]
    depth = await slow.home.anvil.height() - slow.payment.height + 1
    await slow.home.anvil.rpc("anvil_reorg", depth, [[slow.raw, 0]])
    await slow.rest()
    assert (slow.payment.is_filled, slow.cold(USDT), await slow.home.held(COLD)) == (False, 10_050_000_000, 100_500_000)
    assert await slow.home.ether(OUTSIDE) == ETHER


async def test_one_that_never_came_back_may_be_sent_all_the_same(slow: Slow) -> None:
    """Given up, its nonce is the hot wallet's; whoever sends the signed one is quicker, and that is what is booked."""
    signed = await slow.exported("ETH", "2")
    unused = await slow.ask(protocol.PrepareCold("ERC20", "ETH", "1"))
    assert "is given up" in (await slow.ask(protocol.GiveUpCold(signed.ref))).done
    await slow.home.until(lambda: slow.has_candidates(1), "the filler is signed")
    assert "its nonce was used" in (await slow.ask(protocol.GiveUpCold(int(unused.ref)))).done
    await slow.refused(protocol.GiveUpCold(int(unused.ref)), "no such payment")
    await slow.refused(signed, "does not wait")
    await slow.home.anvil.rpc("anvil_reorg", 1, [[slow.raw, 0]])
    await slow.rest()
    assert (len(slow.payment.candidates), slow.payment.is_filled) == (2, False)
    assert (await slow.home.ether(COLD), slow.cold(ETH)) == (2 * ETHER, 200_000_000)

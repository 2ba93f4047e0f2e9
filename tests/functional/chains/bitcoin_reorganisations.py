"""Chains that change their mind on real nodes: at every depth, by a real fork, with deposits spent elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.admin.protocol import AdminError
from strongroom.config.settings import Config
from strongroom.custody import watcher
from strongroom.custody.sender import PaymentTerms
from strongroom.records.coins import Coin
from strongroom.records.withdrawals import Payment, PaymentState, Withdrawal
from strongroom.wallet.payments import open_payments
from strongroom.wallet.verification import verify
from support.coin_house import NETWORK, V3, CoinHouse, coin_house, coin_settings
from support.nodes import FIRST_COINS, Bitcoind, CoinNode
from support.server import Member, transfer_to

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
COLD = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry"
CONFIRMATIONS = 3
DEPTHS = (1, CONFIRMATIONS - 1, CONFIRMATIONS, CONFIRMATIONS + 2)


@pytest.fixture
async def bitcoind(tmp_path: Path) -> AsyncIterator[Bitcoind]:
    """A node whose stranger has coins to spend."""
    async with Bitcoind(tmp_path / "node") as node:
        _ = await node.mine(FIRST_COINS + 5)
        yield node


def settings(folder: Path, node: Bitcoind, declared: dict[str, Any] | None = None, **offer: Any) -> Config:
    """Return the settings of a house that waits for three confirmations, with other terms of its node and the offer."""
    config = coin_settings(folder, node, "bitcoin-regtest", **(declared or {}))
    networks = {"BITCOIN": msgspec.structs.replace(config.networks["BITCOIN"], confirmations=CONFIRMATIONS)}
    offers = {"BTC": {"BITCOIN": msgspec.structs.replace(config.offers["BTC"]["BITCOIN"], **offer)}}
    return msgspec.structs.replace(config, networks=networks, offers=offers)


@pytest.fixture
async def house(tmp_path: Path, bitcoind: Bitcoind) -> AsyncIterator[CoinHouse]:
    """A server on it."""
    async with coin_house(settings(tmp_path, bitcoind), bitcoind) as house:
        yield house


async def mine(house: CoinHouse, count: int, *transactions: str) -> list[str]:
    """Mine a block of exactly these transactions and empty ones on it; return their hashes once they are passed."""
    blocks: list[str] = []
    for nth in range(count):
        address = await house.node.stranger("getnewaddress")
        held = list(transactions) if nth == 0 else []
        blocks.append((await house.node.rpc("generateblock", address, held))["hash"])
    await house.worked_through()
    return blocks


async def credited(house: CoinHouse, member: Member, amount: str) -> str:
    """Let a stranger pay a customer, and return the txid once it is credited."""
    txid = await house.node.pay(await house.address(member), amount)
    _ = await mine(house, CONFIRMATIONS, txid)
    assert (await house.statuses(member))[0] == "COMPLETED"
    return txid


async def undo(house: CoinHouse, txid: str) -> str:
    """Replace the block of a transaction, and all on it, by a longer branch in which what it spends is gone.

    Return the hash of that branch's first block.
    """
    told = await house.node.rpc("getrawtransaction", txid, 1)
    rival = await house.node.rival_of(txid)
    await house.node.invalidate(told["blockhash"])
    [first, *_] = await mine(house, told["confirmations"] + 1, rival)
    return first


async def paid(node: CoinNode) -> Decimal:
    """Return what the stranger's address was paid in blocks."""
    told = await node.rpc("scantxoutset", "start", [f"addr({STRANGER})"])
    return Decimal(told["total_amount"])


async def test_a_deposit_survives_a_reorganisation_of_any_depth(house: CoinHouse) -> None:
    """Undone before or after its credit a deposit waits, and counts once when it is deep again."""
    alice = await house.customer("alice")
    for nth, depth in enumerate(DEPTHS):
        had = await house.balance(alice)
        txid = await house.node.pay(await house.address(alice), "0.5")
        [block, *_] = await mine(house, depth, txid)
        assert (await house.statuses(alice))[0] == ("COMPLETED" if depth >= CONFIRMATIONS else "PROCESSING")
        await house.node.invalidate(block)
        _ = await mine(house, depth + 1)
        assert await house.balance(alice) == had, f"at depth {depth}"
        assert (await house.statuses(alice))[0] == "PROCESSING"
        house.check_books()
        _ = await mine(house, CONFIRMATIONS, txid)
        assert await house.statuses(alice) == ["COMPLETED"] * (nth + 1)
        assert await house.balance(alice) == (had[0] + Decimal("0.5"), had[1] + Decimal("0.5"))
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def test_a_withdrawal_survives_a_reorganisation_of_any_depth(house: CoinHouse) -> None:
    """Undone before or after it was final a payment is mined again, the same one, and the receiver is paid once."""
    alice, node = await house.customer("alice"), house.node
    _ = await credited(house, alice, "2")
    sender = house.house.application.treasury.senders["BITCOIN"]
    for nth, depth in enumerate(DEPTHS, 1):
        await house.withdraw(alice, STRANGER, "0.25")
        while not (waiting := await node.rpc("getrawmempool")):
            _ = await sender.step()
        [block, *_] = await mine(house, depth, *waiting)
        _ = await sender.step()
        deep = "COMPLETED" if depth >= CONFIRMATIONS else "PROCESSING"
        await house.until_status(alice, deep, *["COMPLETED"] * nth)
        await node.invalidate(block)
        _ = await mine(house, depth + 1)
        _ = await sender.step()
        assert await node.rpc("getrawmempool") == waiting
        house.check_books()
        _ = await mine(house, CONFIRMATIONS, *waiting)
        await house.until_status(alice, *["COMPLETED"] * (nth + 1))
        assert await paid(node) == nth * Decimal("0.25")
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def test_the_losing_branch_of_a_real_fork_is_left(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """Two halves of the network mine apart; when they meet the server follows its node to the longer branch."""
    async with Bitcoind(tmp_path / "other") as other, coin_house(settings(tmp_path, bitcoind), bitcoind) as house:
        await bitcoind.connect(other)
        await bitcoind.agree(other)
        alice = await house.customer("alice")
        _ = await credited(house, alice, "1")
        await bitcoind.agree(other)
        await bitcoind.disconnect(other)
        await bitcoind.rpc("setnetworkactive", False)
        second = await credited(house, alice, "0.5")
        await house.withdraw(alice, STRANGER, "1.25")
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED", "COMPLETED")
        lost = await bitcoind.height() - await other.height()
        _ = await other.mine(lost + 1)
        await bitcoind.rpc("setnetworkactive", True)
        await bitcoind.connect(other)
        await bitcoind.agree(other)
        await house.worked_through()
        assert second in await bitcoind.rpc("getrawmempool")
        assert (await house.statuses(alice))[1:] == ["PROCESSING", "COMPLETED"]
        assert verify(house.store).findings == []
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED", "COMPLETED")
        assert await paid(bitcoind) == Decimal("1.25")
        assert await house.balance(alice) == (Decimal("0.25"), Decimal("0.25"))
        house.check_books()


async def test_a_deposit_that_is_spent_elsewhere_before_its_credit_is_dropped(
    house: CoinHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The customer never has it, and sees it end once the node has not known its transaction for long enough."""
    alice = await house.customer("alice")
    txid = await house.node.pay(await house.address(alice), "0.5")
    _ = await mine(house, 1, txid)
    await undo(house, txid)
    assert (await house.statuses(alice), await house.balance(alice)) == (["PROCESSING"], (0, 0))
    monkeypatch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
    _ = await mine(house, 1)
    assert (await house.statuses(alice), await house.balance(alice)) == (["CANCELLED"], (0, 0))
    house.check_books()


async def test_a_credited_deposit_that_is_spent_elsewhere_is_owed(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """The house takes what is left and is owed the rest; nothing is paid out until the customer has repaid it."""
    async with coin_house(settings(tmp_path, bitcoind, approve_above="0.25"), bitcoind) as house:
        application = house.house.application
        alice, bob = await house.customer("alice"), await house.customer("bob")
        txid = await credited(house, alice, "1")
        sent = await house.house.post(alice, f"{V3}wallet/transfer", transfer_to(bob, "0.5"))
        assert sent.status_code == 200
        ref = await house.withdraw(alice, STRANGER, "0.375")
        with capture_logs() as logged:
            await undo(house, txid)
        # 0.125 was available, 0.375 is held by the withdrawal, and 0.5 is bob's.
        assert await house.balance(alice) == (Decimal("0.375"), 0)
        assert await house.balance(bob) == (Decimal("0.5"), Decimal("0.5"))
        [told] = [line for line in logged if line["event"] == "deposit_reversed"]
        assert (told["log_level"], told["owner"], told["owes"]) == ("error", alice.uid, 87_500_000)
        [debt] = await carry_out(application, protocol.ListDebts())
        assert (debt.user, debt.asset, debt.owes, debt.total) == ("alice", "BTC", "0.875", "0.375")
        [deposit] = await carry_out(application, protocol.ListDeposits("reversed"))
        assert (deposit.user, deposit.amount, deposit.txid) == ("alice", "1", txid)
        metrics = (await house.house.client.get("/metrics")).text
        assert 'strongroom_deposits_reversed_total{network="BITCOIN"} 1.0' in metrics
        with pytest.raises(AdminError, match="Balance is owed"):
            _ = await carry_out(application, protocol.ApproveWithdrawal(int(ref)))
        body = {"currency": "BTC-BITCOIN", "address": STRANGER, "amount": "0.01", "tag": ""}
        refused = await house.house.post(alice, f"{V3}wallet/withdraw", body)
        assert (refused.status_code, refused.json()["code"]) == (400, 3508)
        house.check_books()

        _ = await credited(house, alice, "1")
        assert await house.balance(alice) == (Decimal("0.5"), Decimal("0.125"))
        assert await carry_out(application, protocol.ListDebts()) == []
        _ = await carry_out(application, protocol.ApproveWithdrawal(int(ref)))
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED", "COMPLETED", "PROCESSING")
        assert await paid(bitcoind) == Decimal("0.375")
        house.check_books()


async def test_a_payment_whose_coin_is_gone_waits_for_the_operators_word(
    house: CoinHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be mined, and no block proves it: it is given up by hand, once its deposit has been dropped."""
    alice, application = await house.customer("alice"), house.house.application
    txid = await credited(house, alice, "1")
    ref = await house.withdraw(alice, STRANGER, "0.75")
    sender = application.treasury.senders["BITCOIN"]
    while not await house.node.rpc("getrawmempool"):
        _ = await sender.step()
    with pytest.raises(AdminError, match="may come back"):
        _ = await carry_out(application, protocol.GiveUpWithdrawal(int(ref)))
    await undo(house, txid)
    _ = await sender.step()
    assert list(sender.status.stuck.values()) == ["bad-txns-inputs-missingorspent"]
    with pytest.raises(AdminError, match="may come back"):
        _ = await carry_out(application, protocol.GiveUpWithdrawal(int(ref)))
    monkeypatch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
    _ = await mine(house, 1)
    given_up = await carry_out(application, protocol.GiveUpWithdrawal(int(ref)))
    assert given_up.state == "failed"
    with pytest.raises(AdminError, match="no payment that waits"):
        _ = await carry_out(application, protocol.GiveUpWithdrawal(int(ref)))
    assert (await house.statuses(alice), await house.balance(alice)) == (["FAILURE", "CANCELLED"], (0, 0))
    assert await carry_out(application, protocol.ListDebts()) == []
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def test_what_was_paid_from_the_change_of_a_payment_that_is_gone_can_be_given_up_after_it(
    house: CoinHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reorganisation past two payments, one of them paid from the other's change, leaves no money held for ever."""
    alice, application = await house.customer("alice"), house.house.application
    deposit = await credited(house, alice, "1")
    first = await house.withdraw(alice, STRANGER, "0.25")
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
    second = await house.withdraw(alice, STRANGER, "0.5")
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED", "COMPLETED")
    await undo(house, deposit)
    await house.until_status(alice, "PROCESSING", "PROCESSING", "PROCESSING")
    monkeypatch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
    _ = await mine(house, 1)
    await house.until_status(alice, "PROCESSING", "PROCESSING", "CANCELLED")
    with pytest.raises(AdminError, match="may come back"):
        _ = await carry_out(application, protocol.GiveUpWithdrawal(int(second)))
    for ref in (first, second):
        assert (await carry_out(application, protocol.GiveUpWithdrawal(int(ref)))).state == "failed"
    assert await house.statuses(alice) == ["FAILURE", "FAILURE", "CANCELLED"]
    assert (await house.balance(alice), await carry_out(application, protocol.ListDebts())) == ((0, 0), [])
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def refused(house: CoinHouse, request: protocol.Request, why: str) -> None:
    """Carry out what is refused, which changes nothing."""
    before = list(house.store.each(Payment)), list(house.store.each(Coin))
    with pytest.raises(AdminError, match=why):
        _ = await carry_out(house.house.application, request)
    assert (list(house.store.each(Payment)), list(house.store.each(Coin))) == before


async def moving(house: CoinHouse, purpose: str) -> int:
    """Wait until a move of the house's own money is under way, and return its payment's reference."""

    async def is_moving() -> bool:
        return bool(await carry_out(house.house.application, protocol.ListPayments()))

    await house.until(is_moving, f"a {purpose} is under way")
    [payment] = await carry_out(house.house.application, protocol.ListPayments())
    assert payment.purpose == purpose
    return int(payment.ref)


async def test_a_consolidation_whose_coin_is_gone_is_given_up_and_leaves_its_other_coins(
    tmp_path: Path, bitcoind: Bitcoind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be reserved for ever by what can not be mined; after the operator's word they pay a withdrawal."""
    declared = {"consolidate_above": 2, "consolidate_fee": 300}
    async with coin_house(settings(tmp_path, bitcoind, declared), bitcoind) as house:
        alice, application = await house.customer("alice"), house.house.application
        for amount in ("0.5", "0.25"):
            _ = await credited(house, alice, amount)
        lost = await credited(house, alice, "0.125")
        ref, sender = await moving(house, "consolidation"), application.treasury.senders["BITCOIN"]
        while not await bitcoind.rpc("getrawmempool"):
            _ = await sender.step()
        give_up = protocol.GiveUpPayment(ref)
        await refused(house, give_up, "may come back")
        await undo(house, lost)
        _ = await sender.step()
        assert sender.status.stuck == {ref: "bad-txns-inputs-missingorspent"}
        await refused(house, give_up, "may come back")
        monkeypatch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
        _ = await mine(house, 1)
        given_up = await carry_out(application, give_up)
        assert (given_up.state, given_up.waits) == ("voided", "")
        assert open_payments(house.store, NETWORK, 10) == []
        await refused(house, give_up, "that no block has can be given up")
        assert await house.balance(alice) == (Decimal("0.75"), Decimal("0.75"))
        assert (await house.reconciled()).differences == ()
        house.check_books()

        withdrawal = await house.withdraw(alice, STRANGER, "0.7")
        while not await bitcoind.rpc("getrawmempool"):
            _ = await sender.step()
        [paying] = [it.payment for it in house.store.each(Withdrawal) if it.ref == int(withdrawal)]
        await refused(house, protocol.GiveUpPayment(paying), f"'withdrawal give-up {withdrawal}'")
        await house.mine_until_status(alice, "COMPLETED", "CANCELLED", "COMPLETED", "COMPLETED")
        assert await paid(bitcoind) == Decimal("0.7")
        assert (await house.reconciled()).differences == ()
        house.check_books()


async def test_a_payment_that_is_away_to_be_signed_is_given_up_when_its_coin_is_gone(
    tmp_path: Path, bitcoind: Bitcoind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would have sent to the cold address is hot again, and the signed file is not taken any more."""
    async with coin_house(settings(tmp_path, bitcoind, {"cold_address": COLD}), bitcoind) as house:
        alice, application = await house.customer("alice"), house.house.application
        _ = await credited(house, alice, "1")
        lost = await credited(house, alice, "0.5")
        ref = int((await carry_out(application, protocol.PrepareCold("BITCOIN", "BTC", "1.25"))).ref)
        signed = await application.treasury.senders["BITCOIN"]._signer.sign(
            "BITCOIN", ref, house.store.row(Payment, ref).body
        )
        await undo(house, lost)
        monkeypatch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
        _ = await mine(house, 1)
        assert (await carry_out(application, protocol.GiveUpPayment(ref))).state == "voided"
        await refused(house, protocol.ImportCold(ref, signed.hex().encode()), "does not wait to be signed elsewhere")
        [free] = [it for it in house.store.each(Coin) if it.height and not it.payment]
        assert free.units == 100_000_000
        assert [it.differences for it in await application.treasury.reconcile()] == [(), ()]
        house.check_books()


async def test_a_consolidation_that_was_given_up_may_be_mined_after_all(
    tmp_path: Path, bitcoind: Bitcoind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the coins that it left; the withdrawal that was to be paid from one of them fails, and its customer has
    the money again."""
    declared = {"consolidate_above": 2, "consolidate_fee": 300}
    async with coin_house(settings(tmp_path, bitcoind, declared), bitcoind) as house:
        alice, application = await house.customer("alice"), house.house.application
        for amount in ("0.5", "0.25"):
            _ = await credited(house, alice, amount)
        lost = await credited(house, alice, "0.125")
        ref, sender = await moving(house, "consolidation"), application.treasury.senders["BITCOIN"]
        while not (waiting := await bitcoind.rpc("getrawmempool")):
            _ = await sender.step()
        kept = [await bitcoind.rpc("getrawtransaction", it) for it in (lost, *waiting)]
        branch = await undo(house, lost)
        monkeypatch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
        _ = await mine(house, 1)
        assert (await carry_out(application, protocol.GiveUpPayment(ref))).state == "voided"
        await house.withdraw(alice, STRANGER, "0.7")
        await house.until_status(alice, "PROCESSING", "CANCELLED", "COMPLETED", "COMPLETED")
        while not await bitcoind.rpc("getrawmempool"):
            _ = await sender.step()

        length = await bitcoind.height() - (await bitcoind.rpc("getblockheader", branch))["height"] + 1
        await bitcoind.invalidate(branch)
        _ = await mine(house, length + 1, *kept)
        await house.until_status(alice, "FAILURE", "COMPLETED", "COMPLETED", "COMPLETED")

        async def is_final() -> bool:
            return house.store.row(Payment, ref).state == PaymentState.FINAL

        await house.until(is_final, "the consolidation is final")
        assert (await house.balance(alice), await paid(bitcoind)) == ((Decimal("0.875"), Decimal("0.875")), 0)
        [coin] = [it for it in house.store.each(Coin) if it.height and not it.payment]
        assert coin.units == 87_500_000 - int(house.store.row(Payment, ref).chain_fee_units)
        assert (await house.reconciled()).differences == ()
        house.check_books()


async def both_on_their_way(house: CoinHouse, alice: Member) -> tuple[str, str]:
    """Pay twice, the second time from the first one's change, and take both back; return the withdrawals."""
    _ = await credited(house, alice, "1")
    first = await house.withdraw(alice, STRANGER, "0.25")
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
    second = await house.withdraw(alice, STRANGER, "0.5")
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED", "COMPLETED")
    block = await house.node.rpc("getblock", house.store.row(Payment, payment_of(house, first)).block)
    await house.node.invalidate(block["hash"])
    _ = await mine(house, block["confirmations"] + 1)
    await house.until_status(alice, "PROCESSING", "PROCESSING", "COMPLETED")
    return first, second


def payment_of(house: CoinHouse, withdrawal: str) -> int:
    """Return the reference of a withdrawal's payment."""
    return house.store.row(Withdrawal, int(withdrawal)).payment


def candidates(house: CoinHouse, withdrawal: str) -> tuple[str, ...]:
    """Return the transactions of a withdrawal's payment."""
    return house.store.row(Payment, payment_of(house, withdrawal)).candidates


async def test_a_payment_whose_change_is_spent_already_is_made_no_dearer_by_itself(house: CoinHouse) -> None:
    """After a reorganisation both wait long: the second one is offered for more, the first as it was, and both end."""
    alice, sender = await house.customer("alice"), house.house.application.treasury.senders["BITCOIN"]
    first, second = await both_on_their_way(house, alice)
    sender._terms = PaymentTerms(redraft_after_s=0)
    sender.wake()

    async def is_dearer() -> bool:
        return len(candidates(house, second)) > 1

    await house.until(is_dearer, "the second payment is offered for more")
    assert len(candidates(house, first)) == 1
    sender._terms = PaymentTerms()
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED", "COMPLETED")
    assert (await paid(house.node), await house.balance(alice)) == (Decimal("0.75"), (Decimal("0.25"), Decimal("0.25")))
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def test_what_spends_the_change_of_a_payment_that_was_made_dearer_can_be_given_up(house: CoinHouse) -> None:
    """A person had it hurried: then the old change is none any more, and the second customer has the money again."""
    alice, application = await house.customer("alice"), house.house.application
    first, second = await both_on_their_way(house, alice)
    give_up = protocol.GiveUpWithdrawal(int(second))
    sender = application.treasury.senders["BITCOIN"]

    async def is_signed() -> bool:
        return house.store.row(Payment, payment_of(house, first)).state == PaymentState.SIGNED

    while await house.node.rpc("getrawmempool") != [candidates(house, first)[-1]]:
        # A node takes it once it pays for both that it drives out. The sender is at work beside this.
        await house.until(is_signed, "the dearer one is signed")
        _ = await carry_out(application, protocol.HurryPayment(payment_of(house, first)))
        _ = await sender.step()
    with pytest.raises(AdminError, match="may come back"):
        _ = await carry_out(application, give_up)
    await house.mine_until_status(alice, "PROCESSING", "COMPLETED", "COMPLETED")
    assert (await carry_out(application, give_up)).state == "failed"
    assert await house.statuses(alice) == ["FAILURE", "COMPLETED", "COMPLETED"]
    assert (await paid(house.node), await house.balance(alice)) == (Decimal("0.25"), (Decimal("0.75"), Decimal("0.75")))
    assert (await house.reconciled()).differences == ()
    house.check_books()

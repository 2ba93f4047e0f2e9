"""The signer behind its socket: it signs what the books reserve, below its own caps, and says no to every lie."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.clock import DAY_MS, Ids, SetClock
from strongroom.custody.chain import Payee, Rejected, Unreachable
from strongroom.custody.families import NETWORKS
from strongroom.custody.networks.simulated_transactions import decode_payment, encode_payment
from strongroom.custody.policy import CapsError, read_caps
from strongroom.custody.remote_signer import RemoteSigner
from strongroom.custody.sender import PaymentTerms
from strongroom.custody.signed_log import SignedLog, SignedLogError
from strongroom.custody.signing_service import MAX_CONNECTIONS, SigningService, SocketError, signing_socket
from strongroom.custody.xpubs import PublicKeysError, public_keys_of
from strongroom.records.settings import Settings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, WithdrawalState
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.payments import prepare_reservation
from support.demos import environment
from support.paying import COIN, OURS, RIPPLE, THEIRS, XRP, paying
from support.signing import SEED, Desk
from support.world import BITCOIN, BTC, ERC20, ETH, NOW_MS, USDT


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A house with ten bitcoin of alice's, and a signer that listens."""
    async with paying(SqliteStore(tmp_path, Ids(SetClock(NOW_MS))), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        desk = Desk(payouts, tmp_path)
        async with desk.open():
            yield desk


async def refused(desk: Desk, payment: Payment, message: str, network: str = "BITCOIN") -> None:
    """Check that the signer says no with this message, and has neither signed nor counted."""
    before = desk.lines
    with pytest.raises(Rejected) as caught:
        await desk.sign(payment, network)
    assert str(caught.value) == f"the signer refuses: {message}"
    assert desk.lines == before


async def raw(desk: Desk, line: bytes) -> bytes:
    """Return what the signer answers to bytes."""
    reader, writer = await asyncio.open_unix_connection(str(desk.socket))
    writer.write(line)
    answer = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_withdrawal_is_paid_by_a_process_without_a_key(desk: Desk) -> None:
    """The sender asks the signer over the socket, and the receiver is paid once."""
    withdrawal = await desk.payouts.withdraw("1.5")
    await desk.payouts.pay(desk.sender(), withdrawal)
    assert desk.payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED
    assert await desk.payouts.paid_on() == [(*THEIRS[BITCOIN], 149_999_500)]
    assert len(desk.lines) == 1
    desk.payouts.agree()


async def test_tokens_and_tags_are_compared_too(desk: Desk) -> None:
    """A token's payment and one with a tag are signed and settled as any other."""
    payouts = desk.payouts
    await payouts.endow(payouts.alice, USDT, ERC20, 100 * COIN)
    await payouts.endow(payouts.alice, ETH, ERC20, COIN)
    await payouts.endow(payouts.alice, XRP, RIPPLE, 100 * COIN)
    usdt = await payouts.withdraw("10", THEIRS[ERC20].address, asset="USDT")
    xrp = await payouts.withdraw("10", ":".join(THEIRS[RIPPLE]), asset="XRP")
    await payouts.pay(desk.sender(ERC20), usdt, network=ERC20)
    await payouts.pay(desk.sender(RIPPLE), xrp, network=RIPPLE)
    assert await payouts.paid_on(RIPPLE) == [(*THEIRS[RIPPLE], 9_749_999)]
    payouts.agree()


async def test_the_same_body_is_signed_again_and_counted_once(desk: Desk) -> None:
    """Whoever lost the answer asks again and gets the same bytes."""
    payment = await desk.reserved("3")
    first = await desk.sign(payment)
    assert [await desk.sign(payment) for _ in range(3)] == [first] * 3
    assert len(desk.lines) == 1


async def test_a_payment_that_is_not_reserved_is_refused(desk: Desk) -> None:
    """What does not exist, is signed already or is over is not signed."""
    payment = await desk.reserved("1")
    for state in (PaymentState.SIGNED, PaymentState.MINED, PaymentState.FINAL, PaymentState.VOIDED):
        await desk.change(payment, state=state)
        await refused(desk, payment, "the payment is not reserved")
    await refused(desk, Payment(7), "there is no such payment")


async def test_a_withdrawal_that_is_not_this_payments_is_refused(desk: Desk) -> None:
    """Each withdrawal must be under way, and name this payment."""
    payment = await desk.reserved("1")
    withdrawal = desk.payouts.row(payment.withdrawals[0])
    for state in (WithdrawalState.AWAITING, WithdrawalState.APPROVED, WithdrawalState.SETTLED, WithdrawalState.FAILED):
        await desk.change(withdrawal, state=state)
        await refused(desk, payment, f"withdrawal {withdrawal.ref} is not being paid")
    await desk.change(withdrawal, payment=7)
    await refused(desk, payment, f"withdrawal {withdrawal.ref} belongs to another payment")
    await desk.lie(withdrawal)
    for refs in ((), payment.withdrawals * 2, tuple(range(1, 1_002))):
        await desk.change(payment, withdrawals=refs)
        await refused(desk, payment, "a payment carries out 1 to 1000 withdrawals, each once")
    await desk.change(payment, withdrawals=(7,))
    await refused(desk, payment, "withdrawal 7 is not being paid")
    await desk.lie(payment)
    assert await desk.sign(payment)


async def test_another_amount_address_or_tag_is_refused(desk: Desk) -> None:
    """What a withdrawal says and what the transaction pays are the same to the last unit."""
    payment = await desk.reserved("1")
    withdrawal = desk.payouts.row(payment.withdrawals[0])
    lies: list[dict[str, Any]] = [
        {"to_address": withdrawal.to_address + 1},
        {"to_address": withdrawal.to_address - 1},
        {"address": OURS[BITCOIN][1].address},
        {"tag": "1"},
    ]
    for lie in lies:
        await desk.change(withdrawal, **lie)
        await refused(desk, payment, "the transaction does not pay what the withdrawals say")


def changed(payment: Payment, **changes: Any) -> bytes:
    """Return a payment's body with something of it changed."""
    return encode_payment(msgspec.structs.replace(decode_payment(payment.body), **changes))


async def test_a_move_is_signed_only_if_it_pays_nobody(desk: Desk) -> None:
    """What is said to move the house's own money, and pays a stranger, is refused; so is what is signed elsewhere."""
    payment = await desk.reserved("1")
    for purpose in (PaymentPurpose.SWEEP, PaymentPurpose.GAS, PaymentPurpose.CONSOLIDATION):
        await desk.change(payment, withdrawals=(), purpose=purpose)
        await refused(desk, payment, "the transaction does not pay what the withdrawals say")
    await desk.change(payment, withdrawals=(), purpose=PaymentPurpose.COLD)
    await refused(desk, payment, "what goes to the cold address is signed elsewhere")
    await desk.change(payment, withdrawals=(), purpose=PaymentPurpose.COLD, filling=True)
    await refused(desk, payment, "the transaction does not pay what the withdrawals say")


async def test_another_body_is_refused(desk: Desk) -> None:
    """A body that pays somebody else, or somebody more, or spends something else is not signed."""
    payment = await desk.reserved("1")
    [payee] = decode_payment(payment.body).payees
    thief = Payee(OURS[BITCOIN][1].address, "", "", payee.amount)
    for payees in ((thief,), (payee, thief), (payee, payee)):
        await desk.change(payment, body=changed(payment, payees=payees))
        await refused(desk, payment, "the transaction does not pay what the withdrawals say")
    await desk.change(payment, body=changed(payment, nonce=99))
    await refused(desk, payment, "the transaction does not spend what the payment has reserved")
    await desk.change(payment, body=changed(payment, network="ERC20"))
    await refused(desk, payment, "the transaction is for another network")
    await desk.change(payment, body=payment.body + b" ")
    await refused(desk, payment, "the transaction is not in its canonical encoding")
    await desk.change(payment, body=b"x")
    await refused(desk, payment, "the transaction is malformed")


async def test_payees_may_stand_in_any_order(desk: Desk) -> None:
    """A transaction of several withdrawals is signed however the chain orders its outputs."""
    payouts = desk.payouts
    await payouts.endow(payouts.bob, BTC, BITCOIN, 5 * COIN)
    ones = [await payouts.withdraw("1"), await payouts.withdraw("2", owner=payouts.bob)]
    draft = desk.draft(ones[::-1])
    await payouts.do(lambda: prepare_reservation(payouts.world.context, ones, draft))
    assert await desk.sign(payouts.payment(ones[0]))


async def test_another_network_or_asset_is_refused(desk: Desk) -> None:
    """The request, the payment, its withdrawals and the body agree on both."""
    payment = await desk.reserved("1")
    await refused(desk, payment, "the payment is on another network", "ERC20")
    await refused(desk, payment, "there is no key for network 'NOWHERE'", "NOWHERE")
    await refused(desk, payment, "there are no caps for network 'LITECOIN', and nothing is signed without", "LITECOIN")
    withdrawal = desk.payouts.row(payment.withdrawals[0])
    for lie in ({"network": ERC20}, {"asset": ETH}):
        await desk.change(withdrawal, **lie)
        await refused(desk, payment, f"withdrawal {withdrawal.ref} is of another asset or network than its payment")
    await desk.change(withdrawal, asset=ETH)
    await desk.change(payment, asset=ETH)
    await refused(desk, payment, "BADREQUEST: asset is not on the network")


async def test_a_fee_above_the_cap_is_refused(desk: Desk) -> None:
    """The cap itself may be paid, a unit more may not, whatever the books say of it."""
    await refused(desk, await desk.reserved("1", fee=20_001), "the fee of 20001 is above the cap of 20000")
    assert await desk.sign(await desk.reserved("1", fee=20_000))


async def test_a_days_payments_stay_below_the_cap(desk: Desk) -> None:
    """Once 24 hours' sum with its fees is reached nothing more is signed, until a day has gone by."""
    first, second = await desk.reserved("3"), await desk.reserved("2")
    assert await desk.sign(first)
    spent = 3 * COIN - 500 + 1_000
    amount = 2 * COIN - 500 + 1_000
    assert spent + amount == 5 * COIN + 1_000
    message = f"native: {amount} more than the {spent} of 24 hours would go above the cap of {5 * COIN}"
    await refused(desk, second, message)
    assert await desk.sign(first)
    desk.clock.at_ms += DAY_MS - 1
    await refused(desk, second, message)
    desk.clock.at_ms += 1
    assert await desk.sign(second)


async def test_an_asset_without_a_cap_is_refused(desk: Desk) -> None:
    """Each asset of a network has a cap of its own, or none of it leaves."""
    payouts = desk.payouts
    await payouts.endow(payouts.alice, USDT, ERC20, 100 * COIN)
    payment = await desk.reserved("60", address=THEIRS[ERC20].address, asset="USDT")
    await refused(
        desk, payment, "USDT: 55000000 more than the 0 of 24 hours would go above the cap of 50000000", "ERC20"
    )
    settings = payouts.reads.row(Settings, 0)
    offers = tuple(
        msgspec.structs.replace(offer, token="USDC") if offer.asset == USDT else offer
        for offer in settings.snapshot.offers
    )
    await desk.change(settings, snapshot=msgspec.structs.replace(settings.snapshot, offers=offers))
    body = changed(payment, payees=(Payee(THEIRS[ERC20].address, "", "USDC", 55 * 10**6),))
    await desk.change(payment, body=body)
    await refused(desk, payment, "there is no cap for USDC on ERC20, and nothing is signed without", "ERC20")


async def test_a_replacement_pays_the_same_for_a_higher_fee(desk: Desk) -> None:
    """Another body of a signed payment is signed only if it spends and pays the same, and pays the miners more."""
    payment = await desk.reserved("1")
    assert await desk.sign(payment)
    for fee in (500, 999):
        await desk.change(payment, body=changed(payment, fee=fee))
        await refused(desk, payment, f"a replacement pays a higher fee than 1000, not {fee}")
    await desk.change(payment, body=changed(payment, fee=2_000))
    assert await desk.sign(payment)
    await desk.change(payment, body=changed(payment, fee=1_500))
    await refused(desk, payment, "a replacement pays a higher fee than 2000, not 1500")
    body = changed(payment, nonce=9, fee=3_000)
    await desk.change(payment, body=body, spends=(f"hot/{9:020d}",))
    await refused(desk, payment, "a replacement spends the same as what was signed for the payment before")
    withdrawal = desk.payouts.row(payment.withdrawals[0])
    thief = OURS[BITCOIN][1].address
    [payee] = decode_payment(payment.body).payees
    await desk.change(withdrawal, address=thief)
    payees = (msgspec.structs.replace(payee, address=thief),)
    await desk.change(payment, body=changed(payment, payees=payees, fee=3_000))
    await refused(desk, payment, "a replacement pays the same as what was signed for the payment before")
    assert len(desk.lines) == 2


async def test_a_withdrawal_is_signed_for_as_one_payment_only(desk: Desk) -> None:
    """Rows that say that a withdrawal, once signed for, belongs to a fresh payment do not get it paid twice."""
    payment = await desk.reserved("1")
    assert await desk.sign(payment)
    withdrawal = desk.payouts.row(payment.withdrawals[0])
    body, spends = changed(payment, nonce=5), (f"hot/{5:020d}",)
    twin = msgspec.structs.replace(payment, ref=payment.ref + 1, body=body, spends=spends)
    await desk.lie(twin, msgspec.structs.replace(withdrawal, payment=twin.ref))
    await refused(desk, twin, f"withdrawal {withdrawal.ref} was signed for as another payment")


async def test_a_payment_that_waits_is_offered_for_a_higher_fee_up_to_the_cap(desk: Desk) -> None:
    """The sender's own redrafts pass the signer until its cap, and the first candidates settle all the same."""
    withdrawal, sender = await desk.payouts.withdraw("2"), desk.sender(terms=PaymentTerms(redraft_after_s=600))
    await sender.step()
    for _ in range(4):
        desk.payouts.world.clock.at_ms += 600_000
        await sender.step()
    payment = desk.payouts.payment(withdrawal)
    assert len(desk.lines) == len(payment.candidates) == 3
    assert sender.status.stuck == {payment.ref: "the signer refuses: the fee of 22560 is above the cap of 20000"}


async def test_the_sender_waits_while_the_signer_is_away(tmp_path: Path) -> None:
    """Without a signer nothing is signed and nothing is lost; once it is there the payment goes out."""
    async with paying(SqliteStore(tmp_path, Ids(SetClock(NOW_MS))), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        desk = Desk(payouts, tmp_path)
        withdrawal, sender = await payouts.withdraw("1"), desk.sender()
        assert not await sender.step()
        assert "the signer does not answer" in sender.status.trouble
        assert payouts.payment(withdrawal).state == PaymentState.RESERVED
        async with desk.open():
            await payouts.pay(sender, withdrawal)
        assert payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED


async def test_what_is_no_request_gets_a_no(desk: Desk) -> None:
    """Other lines, other fields, a body to be signed and lines without end are turned down, and the next is served."""
    no = {"error": "not a request for a signature"}
    for line in (b"\n", b"{}\n", b"\xff\n", b"x" * 3_000 + b"\n", b'{"network":"BITCOIN","payment":1,"body":"eA=="}\n'):
        assert json.loads(await raw(desk, line)) == no
    for number in (b"0", b"-1", b"9223372036854775808"):
        answer = json.loads(await raw(desk, b'{"network":"BITCOIN","payment":' + number + b"}\n"))
        assert answer == {"error": "not the reference of a payment"}
    payment = await desk.reserved("1")
    answer = json.loads(await raw(desk, b'{"network":"BITCOIN","payment":%d}\n' % payment.ref))
    assert list(answer) == ["signature"]


async def test_the_socket_is_for_its_user_alone(desk: Desk) -> None:
    """Nobody else can reach the folder or the socket."""
    assert stat.S_IMODE(desk.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(desk.socket.parent.stat().st_mode) == 0o700


async def test_a_group_may_talk_to_the_signer(desk: Desk) -> None:
    """With a group its members get through to the socket, and nobody else."""
    path = desk.folder / "shared" / "s"
    async with signing_socket(path, SigningService(desk.judge()), grp.getgrgid(os.getgid()).gr_name):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    with pytest.raises(SocketError, match="no group nowhere-to-be-found"):
        async with signing_socket(path, SigningService(desk.judge()), "nowhere-to-be-found"):
            pass


async def test_a_signer_takes_nobodys_place(desk: Desk) -> None:
    """A second signer on the socket or over the log stops at once; a dead one's socket is cleared away."""
    with pytest.raises(SocketError, match="another signer listens"):
        async with signing_socket(desk.socket, SigningService(desk.judge())):
            pass
    with pytest.raises(SignedLogError, match="another signer uses"):
        SignedLog(desk.folder / "signer")
    stale = desk.folder / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    async with signing_socket(stale, SigningService(desk.judge())):
        pass
    stale.write_text("a file")
    with pytest.raises(SocketError, match="is no socket"):
        async with signing_socket(stale, SigningService(desk.judge())):
            pass


async def test_a_crowd_does_not_wear_the_signer_down(desk: Desk) -> None:
    """Beyond its number of connections callers are sent away at once, to ask again."""
    payment = await desk.reserved("1")
    idle = [await asyncio.open_unix_connection(str(desk.socket)) for _ in range(MAX_CONNECTIONS)]
    with pytest.raises(Unreachable):
        await desk.sign(payment)
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(60):
        while True:
            try:
                assert await desk.sign(payment)
                break
            except Unreachable:
                await asyncio.sleep(0)


async def test_without_books_there_is_no_answer(desk: Desk) -> None:
    """A signer that cannot read the books does not say no: it is asked again later."""
    payment = await desk.reserved("1")
    desk.folder.joinpath("strongroom.sqlite").rename(desk.folder / "away")
    try:
        with pytest.raises(Unreachable, match="without an answer"):
            await desk.sign(payment)
    finally:
        desk.folder.joinpath("away").rename(desk.folder / "strongroom.sqlite")
    assert await desk.sign(payment)


async def test_public_keys_come_from_their_file(desk: Desk) -> None:
    """The API's process knows the hot wallets' public keys, and of unknown networks none."""
    signer = RemoteSigner(desk.socket, public_keys_of(SEED, NETWORKS.values()))
    assert await signer.public_key("BITCOIN") == await desk.payouts.signer.public_key("BITCOIN")
    with pytest.raises(PublicKeysError):
        await signer.public_key("NOWHERE")


_KILLED_WHILE = """
import os, signal, sys
from pathlib import Path
from strongroom.custody.signed_log import SignedLog
from support.signing import judge_of

def die(point):
    if point == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
judge_of(folder, SignedLog(folder / "signer"), die).sign("BITCOIN", int(sys.argv[3]))
"""


@pytest.mark.parametrize(("point", "counted"), [("before counting", 0), ("after counting", 1)])
async def test_a_signer_that_is_killed_counts_a_payment_once(tmp_path: Path, point: str, counted: int) -> None:
    """Killed before or after it counted, it signs when asked again, and the sum holds the payment once."""
    async with paying(SqliteStore(tmp_path, Ids(SetClock(NOW_MS))), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        desk = Desk(payouts, tmp_path)
        payment = await desk.reserved("3")
        desk.log.close()
        tests = str(Path(__file__).parents[1])
        env = environment()
        env["PYTHONPATH"] = f"{env['PYTHONPATH']}:{tests}"
        command = [sys.executable, "-c", _KILLED_WHILE, str(tmp_path), point, str(payment.ref)]
        ended = await asyncio.to_thread(subprocess.run, command, env=env, timeout=60, check=False)
        assert ended.returncode == -signal.SIGKILL
        assert len(desk.lines) == counted
        desk = Desk(payouts, tmp_path)
        async with desk.open():
            assert await desk.sign(payment)
            assert len(desk.lines) == 1
            assert desk.log.paid_since("BITCOIN", "", 0) == 3 * COIN - 500 + 1_000


async def test_what_cannot_be_counted_is_not_signed(desk: Desk) -> None:
    """A full disk gives no signature and no answer, and the signer signs nothing more until it is started again."""
    payment, size = await desk.reserved("1"), len(b"".join(desk.lines))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(Unreachable, match="without an answer"):
            await desk.sign(payment)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(Unreachable, match="without an answer"):
        await desk.sign(payment)
    assert desk.lines == []


async def test_half_a_line_is_no_signature(desk: Desk) -> None:
    """What a crash left half written is cut off, and what somebody changed is not read over."""
    payment = await desk.reserved("1")
    assert await desk.sign(payment)
    desk.log.close()
    path = desk.folder / "signer" / "signed.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    log = SignedLog(desk.folder / "signer")
    assert len(log.of_payment(payment.ref)) == 1
    assert path.read_bytes() == whole
    log.close()
    path.write_bytes(b"x\n" + whole)
    with pytest.raises(SignedLogError, match="was changed"):
        SignedLog(desk.folder / "signer")
    path.write_bytes(whole)
    desk.log = SignedLog(desk.folder / "signer")


def test_caps_are_read_in_the_chains_units(tmp_path: Path) -> None:
    """Amounts are digits in quotes, for they may go beyond any number of a file's format."""
    path = tmp_path / "caps.toml"
    path.write_text('[networks.ERC20]\nmax_fee = "9"\n[networks.ERC20.daily]\nnative = "1000000000000000000000"\n')
    assert read_caps(path)["ERC20"].daily == {"": 10**21}
    bare, table = "[networks.A]\n", "daily = {}\n"
    for wrong in ("x", bare, f'{bare}max_fee = "-1"\n{table}', f"{bare}max_fee = 1\n{table}"):
        path.write_text(wrong)
        with pytest.raises(CapsError):
            read_caps(path)

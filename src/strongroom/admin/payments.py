"""Payments under way, and the hot wallets."""

from __future__ import annotations

from typing import Final

from strongroom.admin import protocol, views
from strongroom.admin.protocol import AdminError
from strongroom.admin.states import states_named
from strongroom.application import Application
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.payments import OPEN_PAYMENTS, payments_in, reserved_coins

MAX_LISTED: Final = 1_000


async def list_payments(house: Application, request: protocol.ListPayments) -> list[views.PaymentView]:
    """Return payments in a state, oldest first, at most 1,000."""
    found: list[Payment] = []
    for network in house.context.catalogue.snapshot.networks:
        states = states_named(request.state, PaymentState, OPEN_PAYMENTS)
        found += payments_in(house.store, network.number, states, MAX_LISTED)
    return [shown(house, it) for it in sorted(found, key=lambda payment: payment.ref)[:MAX_LISTED]]


async def hurry_payment(house: Application, request: protocol.HurryPayment) -> views.PaymentView:
    """Have a payment that waits offered for a higher fee. Raises `AdminError`."""
    payment = payment_of(house, request.ref)
    if payment.purpose == PaymentPurpose.COLD and not payment.filling:
        raise AdminError("it is signed elsewhere, and so is a dearer one: 'cold hurry' writes its file")
    if payment.state == PaymentState.RESERVED:
        raise AdminError("its newest transaction is still being signed: try again when it is out")
    if payment.state != PaymentState.SIGNED:
        raise AdminError("only a payment that we signed and that no block has can be hurried")
    code = house.context.catalogue.network(payment.network).code
    if not house.treasury.leads(code):
        raise AdminError(f"another node pays on {code} at the moment: ask there ('leads' in the details of /readyz)")
    house.treasury.senders[code].hurry(payment.ref)
    return shown(house, payment)


async def give_up_payment(house: Application, request: protocol.GiveUpPayment) -> views.PaymentView:
    """Void a move of the house's own money of which a coin is gone for good. Raises `AdminError`, `Refused`."""
    payment = payment_of(house, request.ref)
    if payment.withdrawals:
        raise AdminError(f"it pays withdrawals, which fail with it: 'withdrawal give-up {payment.withdrawals[0]}'")
    away = payment.state == PaymentState.RESERVED and payment.is_away
    if payment.state != PaymentState.SIGNED and not away:
        raise AdminError("only a payment that is signed, or away to be, and that no block has can be given up")
    await house.treasury.give_up(payment)
    return shown(house, payment_of(house, request.ref))


async def show_hot_wallets(house: Application, _request: protocol.ShowHotWallets) -> list[views.HotWalletView]:
    """Return what each hot wallet has of the assets that have marks."""
    found: list[views.HotWalletView] = []
    for keeper in house.treasury.keepers.values():
        if not await keeper.step():
            raise AdminError(keeper.status.trouble)
        for asset, marks in keeper.terms.marks.items():
            found.append(views.hot_wallet_view(house.context.catalogue, keeper, asset, marks))
    return found


def payment_of(house: Application, ref: int) -> Payment:
    """Return a payment. Raises `AdminError` where there is none."""
    payment = house.store.row(Payment, ref)
    if not payment.state:
        raise AdminError("there is no such payment, or the server was started again since it was prepared")
    return payment


def shown(house: Application, payment: Payment) -> views.PaymentView:
    """Return a payment as it is shown, with why it waits."""
    code = house.context.catalogue.network(payment.network).code
    sender = house.treasury.senders.get(code)
    waits = sender.status.stuck.get(payment.ref, "") if sender and payment.state in OPEN_PAYMENTS else ""
    if payment.state == PaymentState.VOIDED and (kept := reserved_coins(house.store, payment)):
        waits = f"keeps {kept} coins: a block may have a transaction of it still"
    return views.payment_view(house.context.catalogue, payment, waits)


HANDLERS: Final = {
    protocol.ListPayments: list_payments,
    protocol.HurryPayment: hurry_payment,
    protocol.GiveUpPayment: give_up_payment,
    protocol.ShowHotWallets: show_hot_wallets,
}
"""What each request of this kind is carried out by."""

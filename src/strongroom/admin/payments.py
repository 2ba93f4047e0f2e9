"""Payments under way, the hot wallets, and what goes to a cold address and comes back from it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from strongroom.admin import protocol, views
from strongroom.admin.protocol import AdminError
from strongroom.admin.states import states_named
from strongroom.application import Application
from strongroom.custody import offline
from strongroom.custody.chain import ChainError, Payee
from strongroom.custody.keeper import Keeper
from strongroom.engine.command import NOBODY
from strongroom.money import AmountError, parse_amount
from strongroom.records.settings import OfferSettings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.amounts import read_amount
from strongroom.wallet.context import perform_own
from strongroom.wallet.holdings import chain_units, unit_of
from strongroom.wallet.moves import Move, ReserveMove, ReturnFromCold, prepare_move
from strongroom.wallet.payments import OPEN_PAYMENTS, Draft, prepare_signing

MAX_LISTED: Final = 1_000
MAX_OFFERED: Final = 100
"""So many payments of chains of accounts may be away to be signed."""

_USED: Final = "what the payment spends was used meanwhile: prepare it again"


async def list_payments(house: Application, request: protocol.ListPayments) -> list[views.PaymentView]:
    """Return payments in a state, oldest first, at most 1,000."""
    found: list[Payment] = []
    for network in house.context.catalogue.snapshot.networks:
        for state in states_named(request.state, PaymentState, OPEN_PAYMENTS):
            found += house.store.rows(Payment, {"network": network.number, "state": state}, MAX_LISTED)
    return [_shown(house, it) for it in sorted(found, key=lambda payment: payment.ref)[:MAX_LISTED]]


async def hurry_payment(house: Application, request: protocol.HurryPayment) -> views.PaymentView:
    """Have a payment that waits offered for a higher fee. Raises `AdminError`."""
    payment = _payment(house, request.ref)
    if payment.state != PaymentState.SIGNED or payment.purpose == PaymentPurpose.COLD:
        raise AdminError("only a payment that we signed and that no block has can be hurried")
    code = house.context.catalogue.network(payment.network).code
    if not house.treasury.leads(code):
        raise AdminError(f"another node pays on {code} at the moment: ask there ('leads' in the details of /readyz)")
    house.treasury.senders[code].hurry(payment.ref)
    return _shown(house, payment)


async def show_hot_wallets(house: Application, _request: protocol.ShowHotWallets) -> list[views.HotWalletView]:
    """Return what each hot wallet has of the assets that have marks."""
    found: list[views.HotWalletView] = []
    for keeper in house.treasury.keepers.values():
        if not await keeper.step():
            raise AdminError(keeper.status.trouble)
        for asset, marks in keeper.terms.marks.items():
            found.append(views.hot_wallet_view(house.context.catalogue, keeper, asset, marks))
    return found


async def prepare_cold(house: Application, request: protocol.PrepareCold) -> views.UnsignedView:
    """Prepare a payment to a network's cold address, to be signed elsewhere. Raises `AdminError`.

    On a chain of coins they are reserved for it; on one of accounts nothing is, since its nonce would hold up every
    later payment: if another one was quicker, what comes back signed is refused.
    """
    asset = house.context.catalogue.asset(request.asset)
    offer = house.context.catalogue.offer(asset, request.network)
    keeper = _keeper(house, house.context.catalogue.network(offer.network).code)
    if not keeper.terms.cold_address:
        raise AdminError("the network has no cold_address in the settings")
    units = read_amount(request.amount, asset)
    if units % unit_of(offer, asset):
        raise AdminError(f"the chain keeps {offer.decimals} decimals only")
    try:
        move = await keeper.cold_move(asset.number, chain_units(units, offer, asset))
    except ChainError as no:
        raise AdminError(str(no)) from None
    coins = keeper.chain.spends_coins
    command = prepare_move(house.context, PaymentPurpose.COLD, offer.network, asset.number, move, coins=coins)
    if coins:
        _ = await _perform(house, command)
    else:
        if len(keeper.offered) >= MAX_OFFERED:
            del keeper.offered[next(iter(keeper.offered))]
        keeper.offered[command.payment] = command
    return _unsigned(house, keeper, command.payment, offer, move)


async def export_cold(house: Application, request: protocol.ExportCold) -> views.UnsignedView:
    """Return a payment that was prepared for a cold address and waits for its signature. Raises `AdminError`."""
    payment = _waiting(house, request.ref)
    offer = house.context.catalogue.offer_at(payment.asset, payment.network)
    keeper = _keeper(house, house.context.catalogue.network(payment.network).code)
    if offer is None:
        raise AdminError("the asset is not on the network any more")
    draft = Draft(payment.spends, payment.body, int(payment.chain_fee_units))
    move = Move(draft, int(payment.units), payment.address)
    return _unsigned(house, keeper, payment.ref, offer, move)


async def import_cold(house: Application, request: protocol.ImportCold) -> views.PaymentView:
    """Take a payment back that was signed elsewhere; it is broadcast at once. Raises `AdminError`."""
    keeper = _keeper_of(house, request.ref)
    code = keeper.chain.network
    offered = keeper.offered.get(request.ref)
    body = offered.draft.body if offered else _waiting(house, request.ref).body
    try:
        text = offline.signed_text(request.content, code, request.ref)
        candidate = keeper.chain.import_signed(body, text)
    except (ChainError, offline.OfflineError) as no:
        raise AdminError(str(no)) from None
    if offered:
        signed = msgspec.structs.replace(offered, txid=candidate.txid, blob=candidate.blob)
        _ = await _perform(house, signed)
        _ = keeper.offered.pop(request.ref, None)
    else:
        payment = _waiting(house, request.ref)
        _ = await perform_own(house.context, lambda: prepare_signing(payment, candidate.txid, candidate.blob))
    house.treasury.senders[code].wake()
    return _shown(house, _payment(house, request.ref))


async def return_from_cold(house: Application, request: protocol.ReturnedFromCold) -> views.Done:
    """Book that money of a cold address came back to the house's own address. Raises `AdminError`."""
    asset = house.context.catalogue.asset(request.asset)
    try:
        fee = parse_amount(request.fee, asset.scale) if request.fee.strip("0.") else 0
    except AmountError as error:
        raise AdminError(f"the fee {error}") from None
    command = ReturnFromCold(NOBODY, asset.number, read_amount(request.amount, asset), fee)
    _ = await perform_own(house.context, lambda: command)
    return views.Done(f"{request.amount} {asset.code} are no longer on the cold address")


async def _perform(house: Application, command: ReserveMove) -> Any:
    """Reserve a move once: what it spends is as it was drafted, or the operator is told."""
    outcome = await house.context.submit(command)
    if outcome.refusal is not None:
        raise outcome.refusal
    if outcome.stale:
        raise AdminError(_USED)
    return outcome


def _unsigned(house: Application, keeper: Keeper, ref: int, offer: OfferSettings, move: Move) -> views.UnsignedView:
    code = keeper.chain.network
    payees = [Payee(move.address, "", offer.token, move.units)]
    text = keeper.chain.unsigned(move.draft.body)
    spec = house.treasury.spec(code)
    file = offline.unsigned_payment(spec, ref, "cold", payees, move.draft.fee_units, move.draft.body, text)
    return views.UnsignedView(str(ref), code, offline.encode(file).decode())


def _keeper(house: Application, code: str) -> Keeper:
    keeper = house.treasury.keepers.get(code)
    if keeper is None:
        raise AdminError(f"{code} is no real network")
    return keeper


def _keeper_of(house: Application, ref: int) -> Keeper:
    """Return whose payment it is, among those that were handed out or reserved."""
    for keeper in house.treasury.keepers.values():
        if ref in keeper.offered:
            return keeper
    return _keeper(house, house.context.catalogue.network(_payment(house, ref).network).code)


def _waiting(house: Application, ref: int) -> Payment:
    """Return a payment that waits to be signed elsewhere. Raises `AdminError`."""
    payment = _payment(house, ref)
    if payment.purpose != PaymentPurpose.COLD or payment.state != PaymentState.RESERVED:
        raise AdminError("the payment does not wait to be signed elsewhere")
    return payment


def _payment(house: Application, ref: int) -> Payment:
    payment = house.store.row(Payment, ref)
    if not payment.state:
        raise AdminError("there is no such payment, or the server was started again since it was prepared")
    return payment


def _shown(house: Application, payment: Payment) -> views.PaymentView:
    code = house.context.catalogue.network(payment.network).code
    sender = house.treasury.senders.get(code)
    waits = sender.status.stuck.get(payment.ref, "") if sender else ""
    return views.payment_view(house.context.catalogue, payment, waits)


HANDLERS: Final = {
    protocol.ListPayments: list_payments,
    protocol.HurryPayment: hurry_payment,
    protocol.ShowHotWallets: show_hot_wallets,
    protocol.PrepareCold: prepare_cold,
    protocol.ExportCold: export_cold,
    protocol.ImportCold: import_cold,
    protocol.ReturnedFromCold: return_from_cold,
}
"""What each request of this kind is carried out by."""

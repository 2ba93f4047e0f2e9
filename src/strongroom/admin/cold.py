"""What goes to a cold address, is signed elsewhere, and comes back from there."""

from __future__ import annotations

from typing import Final, cast

import msgspec

from strongroom.admin import protocol, views
from strongroom.admin.payments import payment_of, shown
from strongroom.admin.protocol import AdminError
from strongroom.application import Application
from strongroom.crashpoints import reach
from strongroom.custody import offline
from strongroom.custody.chain import ChainError, Fate, Payee
from strongroom.custody.keeper import Keeper, Sweepable
from strongroom.engine.command import NOBODY, Command
from strongroom.money import AmountError, parse_amount
from strongroom.records.coins import Sent
from strongroom.records.settings import OfferSettings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, Reserved
from strongroom.wallet.adoptions import AdoptCandidate
from strongroom.wallet.amounts import read_amount
from strongroom.wallet.context import perform_own
from strongroom.wallet.holdings import chain_units, unit_of
from strongroom.wallet.moves import Move, ReturnFromCold
from strongroom.wallet.payments import Draft, prepare_signing
from strongroom.wallet.replacements import prepare_filling, prepare_replacement

MAX_OFFERED: Final = 100
"""So many payments of chains of accounts may be away to be signed."""

_USED: Final = "what the payment spends was used meanwhile: prepare it again"
_DEAR: Final = "it offers as much as may be paid already, or as much as is needed"


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
    command = keeper.prepare(PaymentPurpose.COLD, asset.number, move)
    if keeper.chain.spends_coins:
        await _perform(house, command)
    else:
        if len(keeper.offered) >= MAX_OFFERED:
            del keeper.offered[next(iter(keeper.offered))]
        keeper.offered[command.payment] = command
    return _unsigned(house, keeper, command.payment, offer, move)


async def export_cold(house: Application, request: protocol.ExportCold) -> views.UnsignedView:
    """Return a payment that was prepared for a cold address and waits for its signature. Raises `AdminError`."""
    keeper = _keeper_of(house, request.ref)
    if (dearer := keeper.replacing.get(request.ref)) is not None:
        return _again(house, keeper, payment_of(house, request.ref), dearer)
    payment = _waiting(house, request.ref)
    return _again(house, keeper, payment, _draft_of(payment))


async def import_cold(house: Application, request: protocol.ImportCold) -> views.PaymentView:
    """Take a payment back that was signed elsewhere; it is broadcast at once. Raises `AdminError`."""
    keeper = _keeper_of(house, request.ref)
    code, ref = keeper.chain.network, request.ref
    offered, dearer = keeper.offered.get(ref), keeper.replacing.get(ref)
    draft = offered.draft if offered else dearer or _draft_of(_waiting(house, ref))
    try:
        candidate = keeper.chain.import_signed(draft.body, offline.signed_text(request.content, code, ref))
    except (ChainError, offline.OfflineError) as no:
        raise AdminError(str(no)) from None
    if offered:
        if sent := house.store.row(Sent, offered.network, candidate.txid).payment:
            _forget(keeper, ref)
            raise AdminError(f"it was sent already, and is payment {sent}")
        await _perform(house, msgspec.structs.replace(offered, txid=candidate.txid, blob=candidate.blob))
    elif dearer:
        await _perform(house, prepare_replacement(payment_of(house, ref), dearer, candidate.txid, candidate.blob))
    else:
        payment = _waiting(house, ref)
        _ = await perform_own(house.context, lambda: prepare_signing(payment, candidate.txid, candidate.blob))
    _forget(keeper, ref)
    house.treasury.senders[code].wake()
    return shown(house, payment_of(house, ref))


async def hurry_cold(house: Application, request: protocol.HurryCold) -> views.UnsignedView:
    """Draft a payment that came back signed, and waits for its block, for a higher fee. Raises `AdminError`.

    Nothing is kept of it before it comes back signed as well, but on a chain of coins its txid: whoever sends it, it is
    a transaction of this payment.
    """
    payment = await _slow(house, request.ref)
    keeper = _keeper_of(house, request.ref)
    try:
        dearer = await keeper.chain.redraft(_draft_of(payment))
    except ChainError as no:
        raise AdminError(str(no)) from None
    if dearer is None:
        raise AdminError(_DEAR)
    if keeper.chain.spends_coins:
        await _note(house, payment, keeper.txid_of(dearer))
    if len(keeper.replacing) >= MAX_OFFERED:
        del keeper.replacing[next(iter(keeper.replacing))]
    keeper.replacing[payment.ref] = dearer
    return _again(house, keeper, payment, dearer)


async def give_up_cold(house: Application, request: protocol.GiveUpCold) -> views.Done:
    """Have the hot wallet spend the nonce of a payment that is signed elsewhere. Raises `AdminError`.

    What is signed already, or is signed yet, may be mined all the same: then that is what is booked.
    """
    keeper, ref = _keeper_of(house, request.ref), request.ref
    if keeper.chain.spends_coins:
        raise AdminError("a payment of coins is not given up: bring it back signed ('payment give-up': a coin is gone)")
    offered = keeper.offered.get(ref)
    if offered and all(house.store.row(Reserved, offered.network, it).payment for it in offered.draft.spends):
        _forget(keeper, ref)
        return views.Done(f"payment {ref} is forgotten: its nonce was used meanwhile")
    if offered:
        filler = await _filler(keeper, offered.draft)
        await _perform(house, msgspec.structs.replace(offered, draft=filler, filling=True))
    else:
        payment = await _slow(house, ref)
        await _perform(house, prepare_filling(payment, await _filler(keeper, _draft_of(payment))))
    _forget(keeper, ref)
    house.treasury.senders[keeper.chain.network].wake()
    return views.Done(f"payment {ref} is given up: the hot wallet spends its nonce, unless the chain has it already")


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


async def _note(house: Application, payment: Payment, txid: str) -> None:
    """Take a transaction that is to be signed elsewhere as one more of a payment's, unless it is known."""
    if not house.store.row(Sent, payment.network, txid).payment:
        await _perform(house, AdoptCandidate(NOBODY, payment.ref, payment.network, txid))


async def _perform(house: Application, command: Command) -> None:
    """Carry a command out once: what it goes by is as it was drafted, or the operator is told."""
    reach("before commit cold")
    outcome = await house.context.submit(command)
    reach("after commit cold")
    if outcome.refusal is not None:
        raise outcome.refusal
    if outcome.stale:
        raise AdminError(_USED)


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


def _again(house: Application, keeper: Keeper, payment: Payment, draft: Draft) -> views.UnsignedView:
    """Return the file of a payment that is in the books, as it is drafted now."""
    offer = house.context.catalogue.offer_at(payment.asset, payment.network)
    if offer is None:
        raise AdminError("the asset is not on the network any more")
    return _unsigned(house, keeper, payment.ref, offer, Move(draft, int(payment.units), payment.address))


def _draft_of(payment: Payment) -> Draft:
    """Return the newest transaction of a payment before its signature."""
    return Draft(payment.spends, payment.body, int(payment.chain_fee_units))


async def _filler(keeper: Keeper, draft: Draft) -> Draft:
    """Return what spends a draft's nonce on nothing. Raises `AdminError`."""
    try:
        filler = await cast(Sweepable, keeper.chain).fill(draft)
    except ChainError as no:
        raise AdminError(str(no)) from None
    if filler is None:
        raise AdminError(_DEAR)
    return filler


def _forget(keeper: Keeper, ref: int) -> None:
    """Forget what was away to be signed."""
    _ = keeper.offered.pop(ref, None)
    _ = keeper.replacing.pop(ref, None)


def _keeper_of(house: Application, ref: int) -> Keeper:
    """Return whose payment it is, among those that were handed out or reserved."""
    for keeper in house.treasury.keepers.values():
        if ref in keeper.offered:
            return keeper
    return _keeper(house, house.context.catalogue.network(payment_of(house, ref).network).code)


def _waiting(house: Application, ref: int) -> Payment:
    """Return a payment that waits to be signed elsewhere. Raises `AdminError`."""
    payment = payment_of(house, ref)
    if payment.purpose != PaymentPurpose.COLD or payment.state != PaymentState.RESERVED:
        raise AdminError("the payment does not wait to be signed elsewhere")
    return payment


async def _slow(house: Application, ref: int) -> Payment:
    """Return a payment that came back signed and is in no block. Raises `AdminError`."""
    payment = payment_of(house, ref)
    if payment.purpose != PaymentPurpose.COLD or payment.state != PaymentState.SIGNED or payment.filling:
        raise AdminError("only a payment that came back signed, and is in no block, can be hurried or given up")
    if not payment.body:
        raise AdminError("it was found on the chain: there is nothing to draft it from")
    chain = _keeper_of(house, ref).chain
    try:
        fates = [(await chain.transaction(txid, payment.spends)).fate for txid in payment.candidates]
    except ChainError as no:
        raise AdminError(str(no)) from None
    if any(fate not in (Fate.MEMPOOL, Fate.UNKNOWN) for fate in fates):
        raise AdminError("a block has it, or what spent its nonce: wait for its confirmations")
    return payment


HANDLERS: Final = {
    protocol.PrepareCold: prepare_cold,
    protocol.ExportCold: export_cold,
    protocol.ImportCold: import_cold,
    protocol.HurryCold: hurry_cold,
    protocol.GiveUpCold: give_up_cold,
    protocol.ReturnedFromCold: return_from_cold,
}
"""What each request of this kind is carried out by."""

"""The operator's commands over an open house: the same functions beside a running server and without one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from strongroom.admin import arrivals, cold, payments, protocol, views
from strongroom.admin.prices import set_price
from strongroom.admin.protocol import AdminError
from strongroom.admin.states import states_named
from strongroom.application import Application
from strongroom.custody.chain import ChainError, Unreachable
from strongroom.custody.networks.simulated import MAX_BLOCKS_AT_ONCE, SimulatedNode
from strongroom.custody.outside import Outside
from strongroom.engine.command import NOBODY, Command, Guard
from strongroom.engine.settle import Outcome
from strongroom.errors import InvariantBroken, Refused
from strongroom.money import format_amount
from strongroom.records.deposits import Deposit, DepositState, Outpoint
from strongroom.records.history import LineType
from strongroom.records.keys import ALL_PERMISSIONS, ApiKey, Permission
from strongroom.records.settings import AssetSettings, OfferSettings
from strongroom.records.users import Profile, User
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet.addresses import AddressRule, GivenAddress, give_address, listed_addresses
from strongroom.wallet.amounts import read_amount
from strongroom.wallet.approvals import prepare_approval, prepare_rejection
from strongroom.wallet.assignments import prepare_deposit_assignment, prepare_withdrawal_assignment
from strongroom.wallet.balances import balance_of
from strongroom.wallet.bookings import prepare_booking
from strongroom.wallet.context import perform_own
from strongroom.wallet.epochs import prepare_end
from strongroom.wallet.holdings import chain_units, unit_of
from strongroom.wallet.keys import KeyTerms, keys_of, prepare_key, prepare_revocation
from strongroom.wallet.users import MarkUser, find_user, prepare_user, subaccounts_of

MAX_LISTED: Final = 1_000
CREDITED_WITHIN_S: Final = 60
"""How long a faucet that waits does so."""

_LOOKS: Final = 1_200
_ALL: Final = "all"
_ENDED: Final = (DepositState.CREDITED, DepositState.TOO_SMALL, DepositState.DROPPED)


async def carry_out(house: Application, request: protocol.Request) -> Any:
    """Carry a request out and return what is to be shown, made of structs and lists. Raises `AdminError`."""
    try:
        return await _COMMANDS[type(request)](house, request)
    except Refused as refusal:
        raise AdminError(refusal.message.removeprefix("BADREQUEST: ")) from None
    except (InvariantBroken, Unreachable, ValueError) as error:
        raise AdminError(str(error)) from None


async def _do(house: Application, prepare: Callable[[], Command]) -> Outcome:
    return await perform_own(house.context, prepare)


# -- users


async def _add_user(house: Application, request: protocol.AddUser) -> views.UserView:
    parent = _user(house, request.parent).uid if request.parent else 0
    command = prepare_user(house.context, NOBODY, request.username, request.email, parent)
    _ = await _do(house, lambda: command)
    return views.user_view(house.store, house.store.row(User, command.uid))


async def _list_users(house: Application, _request: protocol.ListUsers) -> list[views.UserView]:
    found = [views.user_view(house.store, user) for user in house.store.rows(User, {}, MAX_LISTED)]
    return sorted(found, key=lambda user: user.username)


async def _show_user(house: Application, request: protocol.ShowUser) -> views.UserDetails:
    user = _user(house, request.user)
    now_ms = house.clock.now_ms()
    names = [house.store.row(Profile, sub.uid).username for sub in subaccounts_of(house.store, user.uid)]
    working = [key for key in keys_of(house.context, user.uid) if views.key_view(key, now_ms).state == "works"]
    shown = msgspec.structs.asdict(views.user_view(house.store, user))
    return views.UserDetails(**shown, subaccounts=sorted(names), working_keys=len(working))


async def _freeze_user(house: Application, request: protocol.FreezeUser) -> views.UserView:
    user = _user(house, request.user)
    _ = await _do(house, lambda: MarkUser(NOBODY, user.uid, request.frozen, user.active))
    return views.user_view(house.store, house.store.row(User, user.uid))


def _user(house: Application, name: str) -> User:
    user = find_user(house.store, name)
    if not user.created_ms:
        raise AdminError(f"there is no user {name}")
    return user


# -- keys


async def _create_key(house: Application, request: protocol.CreateKey) -> views.NewKey:
    user = _user(house, request.user)
    if request.tier and request.tier not in house.config.rate_limits:
        raise AdminError(f"there is no tier {request.tier}: the settings have {', '.join(house.config.rate_limits)}")
    terms = KeyTerms(
        _permissions(request.permissions), tuple(request.networks), request.expires_ms, request.tier, request.label
    )
    command, secret = prepare_key(house.context, NOBODY, house.box, user.uid, terms)
    _ = await _do(house, lambda: command)
    shown = views.key_view(house.store.row(ApiKey, command.text), house.clock.now_ms())
    username = house.store.row(Profile, user.uid).username
    return views.NewKey(username, shown.key, secret, shown.permissions, shown.networks, shown.expires)


async def _list_keys(house: Application, request: protocol.ListKeys) -> list[views.KeyView]:
    now_ms = house.clock.now_ms()
    keys = sorted(keys_of(house.context, _user(house, request.user).uid), key=lambda key: key.created_ms)
    return [views.key_view(key, now_ms) for key in keys]


async def _revoke_key(house: Application, request: protocol.RevokeKey) -> views.KeyView:
    _ = await _do(house, lambda: prepare_revocation(house.context, NOBODY, request.key))
    return views.key_view(house.store.row(ApiKey, request.key), house.clock.now_ms())


def _permissions(names: Iterable[str]) -> int:
    found = 0
    for name in names:
        if name.lower() == _ALL:
            found |= int(ALL_PERMISSIONS)
        elif name.upper() in Permission.__members__:
            found |= int(Permission[name.upper()])
        else:
            known = ", ".join(views.permission_names(int(ALL_PERMISSIONS)))
            raise AdminError(f"there is no permission {name}: the permissions are {known}, or all")
    return found


# -- money


async def _pay(house: Application, request: protocol.PayFromFaucet) -> views.FaucetView:
    user, asset = _user(house, request.user), house.context.catalogue.asset(request.asset)
    units = read_amount(request.amount, asset)
    shown = (house.store.row(Profile, user.uid).username, asset.code, format_amount(units, asset.scale))
    if not house.context.catalogue.offers_of(asset.number):
        _ = await _do(
            house, lambda: prepare_booking(house.context, NOBODY, user.uid, asset.number, LineType.DEPOSIT, units)
        )
        return views.FaucetView(*shown, "", "", "", "", credited=True)
    offer = house.context.catalogue.offer(asset, request.network)
    if units % unit_of(offer, asset):
        raise AdminError(f"the chain keeps {offer.decimals} decimals only")
    network = house.context.catalogue.network(offer.network)
    to, outside = await _address(house, user, asset, offer), _outside(house, network.code)
    txid = await outside.faucet(network.code, to.address, to.tag, offer.token, chain_units(units, offer, asset))
    if request.mine:
        _ = await outside.mine(network.code, network.confirmations)
    credited = request.wait and await _is_credited(house, network.number, txid)
    return views.FaucetView(*shown, network.code, to.address, to.tag, txid, credited)


async def _address(house: Application, user: User, asset: AssetSettings, offer: OfferSettings) -> GivenAddress:
    """Return the user's newest address, or its first one."""
    listed = listed_addresses(house.store, user.uid, asset.number, offer.network, 1)
    if listed:
        return listed[0]
    network = house.context.catalogue.network(offer.network).code
    guard, pools = Guard(user.uid), house.treasury.pools
    outcome = await give_address(house.context, guard, pools, asset.code, network, AddressRule.TEN_UNUSED)
    if outcome.refusal is not None:
        raise outcome.refusal
    return msgspec.json.decode(outcome.result, type=GivenAddress)


async def _is_credited(house: Application, network: int, txid: str) -> bool:
    """Wait until a deposit has come to its end; return whether it did well, and in time."""
    for _ in range(_LOOKS):
        state = _state_of(house, network, txid)
        if state in _ENDED:
            return state == DepositState.CREDITED
        await asyncio.sleep(CREDITED_WITHIN_S / _LOOKS)
    return False


def _state_of(house: Application, network: int, txid: str) -> int:
    """Return the state of a faucet's deposit, 0 before it is seen."""
    paid = house.store.rows(Outpoint, {"network": network, "txid": txid}, 1)
    return house.store.row(Deposit, paid[0].ref).state if paid else 0


async def _show_balance(house: Application, request: protocol.ShowBalance) -> list[views.BalanceView]:
    user = _user(house, request.user)
    found = [
        (asset, balance_of(house.store, user.uid, asset.number)) for asset in house.context.catalogue.snapshot.assets
    ]
    return [
        views.BalanceView(
            asset.code, format_amount(balance.available, asset.scale), format_amount(balance.total, asset.scale)
        )
        for asset, balance in found
    ]


# -- withdrawals


async def _list_withdrawals(house: Application, request: protocol.ListWithdrawals) -> list[views.WithdrawalView]:
    states = states_named(request.state, WithdrawalState, OPEN_WITHDRAWALS)
    found = house.store.rows(Withdrawal, {"state": states}, MAX_LISTED)
    return [views.withdrawal_view(house.store, house.context.catalogue, withdrawal) for withdrawal in found]


async def _approve(house: Application, request: protocol.ApproveWithdrawal) -> views.WithdrawalView:
    _ = await _do(house, lambda: prepare_approval(house.context, NOBODY, request.ref))
    return _withdrawal(house, request.ref)


async def _reject(house: Application, request: protocol.RejectWithdrawal) -> views.WithdrawalView:
    _ = await _do(house, lambda: prepare_rejection(house.context, NOBODY, request.ref))
    return _withdrawal(house, request.ref)


async def _give_up(house: Application, request: protocol.GiveUpWithdrawal) -> views.WithdrawalView:
    payment = house.store.row(Payment, house.store.row(Withdrawal, request.ref).payment)
    if payment.state != PaymentState.SIGNED:
        raise AdminError("the withdrawal has no payment that waits for the chain")
    await house.treasury.give_up(payment)
    return _withdrawal(house, request.ref)


async def _assign_withdrawal(house: Application, request: protocol.AssignWithdrawal) -> views.WithdrawalView:
    uid = _user(house, request.user).uid
    _ = await _do(house, lambda: prepare_withdrawal_assignment(house.context, NOBODY, request.ref, uid))
    return _withdrawal(house, request.ref)


async def _assign_deposit(house: Application, request: protocol.AssignDeposit) -> arrivals.DepositView:
    uid = _user(house, request.user).uid
    _ = await _do(house, lambda: prepare_deposit_assignment(house.context, NOBODY, request.ref, uid))
    return arrivals.deposit_view(house.store, house.context.catalogue, house.store.row(Deposit, request.ref))


def _withdrawal(house: Application, ref: int) -> views.WithdrawalView:
    return views.withdrawal_view(house.store, house.context.catalogue, house.store.row(Withdrawal, ref))


# -- rates


async def _show_rates(house: Application, _request: protocol.ShowRates) -> list[views.RateView]:
    now_ms = house.clock.now_ms()
    return [views.rate_view(price, now_ms) for price in house.context.rates.prices]


async def _set_rate(house: Application, request: protocol.SetRate) -> views.RateView:
    return views.rate_view(set_price(house, request.pair, request.price), house.clock.now_ms())


# -- chains


async def _reconcile(house: Application, _request: protocol.Reconcile) -> list[views.ReconciliationView]:
    try:
        found = await house.treasury.reconcile()
    except ChainError as problem:
        raise AdminError(f"not reconciled: {problem}") from None
    return [views.reconciliation_view(it) for it in found]


async def _list_networks(house: Application, _request: protocol.ListNetworks) -> list[views.NetworkView]:
    return [
        views.network_view(house.store, network, house.treasury.watchers[network.code].restoration.reason)
        for network in house.context.catalogue.networks.values()
        if network.code in house.treasury.watchers
    ]


async def _release(house: Application, request: protocol.ReleaseNetwork) -> views.NetworkView:
    network = house.context.catalogue.network_named(request.network)
    watcher = house.treasury.watchers.get(network.code)
    if watcher is not None and watcher.restoration.is_waiting and not watcher.restoration.has_read:
        raise AdminError("the chain has not been read to its tip yet: what was paid since the backup is not known")
    _ = await _do(house, lambda: prepare_end(house.context, network.number, by_hand=True))
    return views.network_view(house.store, network, "")


# -- practice chains


async def _mine(house: Application, request: protocol.MineBlocks) -> list[views.BlockView]:
    if not 1 <= request.count <= MAX_BLOCKS_AT_ONCE:
        raise AdminError(f"between 1 and {MAX_BLOCKS_AT_ONCE} blocks are mined at once")
    network = _network(house, request.network)
    blocks = await _outside(house, network).mine(network, request.count)
    return [views.BlockView(network, block.height, block.hash) for block in blocks]


async def _reorganise(house: Application, request: protocol.Reorganise) -> list[views.BlockView]:
    network = _network(house, request.network)
    blocks = await _outside(house, network).reorg(network, request.depth)
    return [views.BlockView(network, block.height, block.hash) for block in blocks]


async def _fail_next(house: Application, request: protocol.FailNext) -> views.Done:
    network = _network(house, request.network)
    if request.undone:
        _outside(house, network).undo_next(network)
    else:
        _node(house, network).fail_next(network)
    return views.Done(f"the next payment on {network} will fail")


def _outside(house: Application, network: str) -> Outside:
    """Return who plays the world outside on a network. Raises `AdminError` where money is for real."""
    outside = house.outside(network)
    if outside is None:
        raise AdminError(f"{network} is a real network")
    return outside


def _node(house: Application, network: str) -> SimulatedNode:
    node = house.treasury.node
    if node is None or not house.treasury.is_simulated(network):
        raise AdminError(f"{network} is not simulated")
    return node


def _network(house: Application, name: str) -> str:
    return house.context.catalogue.network_named(name).code


_COMMANDS: Final[dict[type[protocol.Request], Callable[[Application, Any], Awaitable[Any]]]] = {
    protocol.AddUser: _add_user,
    protocol.ListUsers: _list_users,
    protocol.ShowUser: _show_user,
    protocol.FreezeUser: _freeze_user,
    protocol.CreateKey: _create_key,
    protocol.ListKeys: _list_keys,
    protocol.RevokeKey: _revoke_key,
    protocol.PayFromFaucet: _pay,
    protocol.ShowBalance: _show_balance,
    protocol.ListDeposits: arrivals.list_deposits,
    protocol.ListDebts: arrivals.list_debts,
    protocol.ListWithdrawals: _list_withdrawals,
    protocol.ApproveWithdrawal: _approve,
    protocol.RejectWithdrawal: _reject,
    protocol.GiveUpWithdrawal: _give_up,
    protocol.AssignWithdrawal: _assign_withdrawal,
    protocol.AssignDeposit: _assign_deposit,
    protocol.ShowRates: _show_rates,
    protocol.SetRate: _set_rate,
    protocol.Reconcile: _reconcile,
    protocol.ListNetworks: _list_networks,
    protocol.ReleaseNetwork: _release,
    **payments.HANDLERS,
    **cold.HANDLERS,
    protocol.MineBlocks: _mine,
    protocol.Reorganise: _reorganise,
    protocol.FailNext: _fail_next,
}

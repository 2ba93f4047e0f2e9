"""The operator's commands: users, keys, money, withdrawals, prices and practice chains of a house."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from strongroom.admin import protocol
from strongroom.cli.folders import Place, carry_out, find_place
from strongroom.cli.root import root
from strongroom.cli.showing import show

_DURATION: Final = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class House:
    """The house that a command means, and how its answer is shown."""

    def __init__(self, place: Place, as_json: bool) -> None:
        self._place = place
        self._as_json = as_json

    def ask(self, request: protocol.Request, alone: protocol.Request | None = None) -> Any:
        """Carry a request out, or `alone` where no server runs and it is given; show the result, and return it."""
        result = carry_out(self._place, request, alone)
        show(result, as_json=self._as_json)
        return result

    def ask_quietly(self, request: protocol.Request) -> Any:
        """Carry a request out and return the result, which the command tells itself."""
        return carry_out(self._place, request)


def of_house(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which house it means; it is called with a `House` first."""

    def called(config: Path | None, data: Path | None, as_json: bool, **arguments: Any) -> None:
        command(House(find_place(config, data), as_json), **arguments)

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one line of JSON."),
        click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The house's data folder."),
        click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="The house's settings file."),
    ):
        called = option(called)
    return called


def _expiry_ms(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int:
    """Return a moment as Unix milliseconds: `2027-01-31`, `2027-01-31T12:00:00Z`, or from now `90d`, `12h`, `5m`."""
    if not text:
        return 0
    if match := _DURATION.fullmatch(text):
        return (int(time.time()) + int(match[1]) * _UNITS_S[match[2]]) * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("give a date, 2027-01-31 or 2027-01-31T12:00:00Z, or a time from now, 90d") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * 1000


@root.group()
def user() -> None:
    """Customers."""


@user.command("add")
@click.argument("username")
@click.argument("email")
@of_house
def user_add(house: House, username: str, email: str) -> None:
    """Open a user."""
    house.ask(protocol.AddUser(username, email))


@user.command("list")
@of_house
def user_list(house: House) -> None:
    """List all users."""
    house.ask(protocol.ListUsers())


@user.command("show")
@click.argument("user")
@of_house
def user_show(house: House, user: str) -> None:
    """Show a user, by username, mail or uid."""
    house.ask(protocol.ShowUser(user))


@user.command("freeze")
@click.argument("user")
@of_house
def user_freeze(house: House, user: str) -> None:
    """Let a user receive, but not spend."""
    house.ask(protocol.FreezeUser(user, frozen=True))


@user.command("unfreeze")
@click.argument("user")
@of_house
def user_unfreeze(house: House, user: str) -> None:
    """Let a frozen user spend again."""
    house.ask(protocol.FreezeUser(user, frozen=False))


@root.group()
def subaccount() -> None:
    """Sub-accounts of customers."""


@subaccount.command("add")
@click.argument("parent")
@click.argument("username")
@click.argument("email")
@of_house
def subaccount_add(house: House, parent: str, username: str, email: str) -> None:
    """Open a sub-account of PARENT: a user of its own that its parent's history covers."""
    house.ask(protocol.AddUser(username, email, parent))


@root.group()
def key() -> None:
    """API keys."""


@key.command("create")
@click.argument("user")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    default=["Read"],
    show_default=True,
    help="Read, Trading, Transfer, Wallet, Withdraw or all; may be given several times.",
)
@click.option("--network", "networks", multiple=True, help="Only from this network (CIDR); may be given several times.")
@click.option("--expires", "expires_ms", callback=_expiry_ms, help="A date, or a time from now such as 90d or 12h.")
@click.option("--tier", default="", help="Tier of rate limits, by its name in the settings.")
@click.option("--label", default="", help="What the key is for.")
@of_house
def key_create(house: House, user: str, permissions: tuple[str, ...], networks: tuple[str, ...], **terms: Any) -> None:
    """Make a key for USER. Its secret is shown this once and never again."""
    house.ask(protocol.CreateKey(user, list(permissions), list(networks), **terms))


@key.command("list")
@click.argument("user")
@of_house
def key_list(house: House, user: str) -> None:
    """List USER's keys."""
    house.ask(protocol.ListKeys(user))


@key.command("revoke")
@click.argument("key")
@of_house
def key_revoke(house: House, key: str) -> None:
    """Make a key useless from the next request on."""
    house.ask(protocol.RevokeKey(key))


@root.command()
@click.argument("user")
@click.argument("asset")
@click.argument("amount")
@click.option("--network", help="Network of the deposit; default: the asset's default one.")
@click.option("--mine", is_flag=True, help="Mine the blocks that the deposit needs at once.")
@click.option("--wait", is_flag=True, help="Return when the deposit is credited, after a minute at most.")
@of_house
def faucet(house: House, user: str, asset: str, amount: str, network: str | None, mine: bool, wait: bool) -> None:
    """Pay USER out of nothing: coins as a deposit on the practice chain, money into the bank.

    Where no server runs, the blocks are mined at once and the deposit is waited for.
    """
    house.ask(
        protocol.PayFromFaucet(user, asset, amount, network, mine, wait),
        protocol.PayFromFaucet(user, asset, amount, network, mine=True, wait=True),
    )


@root.command()
@click.argument("user")
@of_house
def balance(house: House, user: str) -> None:
    """Show what USER has of each asset."""
    house.ask(protocol.ShowBalance(user))


@root.group()
def deposit() -> None:
    """What arrived for customers and the house."""


@deposit.command("list")
@click.option("--state", default="open", show_default=True, help="seen, confirming, credited, reversed, ..., open.")
@of_house
def deposit_list(house: House, state: str) -> None:
    """List deposits, oldest first: those below the minimum are too_small, those that a chain took back reversed."""
    house.ask(protocol.ListDeposits(state))


@deposit.command("assign")
@click.argument("ref", type=int)
@click.argument("user")
@of_house
def deposit_assign(house: House, ref: int, user: str) -> None:
    """Credit a withheld deposit to USER, who has its address from then on."""
    house.ask(protocol.AssignDeposit(ref, user))


@root.group()
def debt() -> None:
    """What customers owe, where a reorganisation took back what they had spent."""


@debt.command("list")
@of_house
def debt_list(house: House) -> None:
    """List the customers who owe. Their next credits repay it; until then nothing is paid out to them."""
    house.ask(protocol.ListDebts())


@root.group()
def withdrawal() -> None:
    """Withdrawals that wait for your word."""


@withdrawal.command("list")
@click.option("--state", default="open", show_default=True, help="awaiting, approved, paying, settled, ..., open, all.")
@of_house
def withdrawal_list(house: House, state: str) -> None:
    """List withdrawals, oldest first."""
    house.ask(protocol.ListWithdrawals(state))


@withdrawal.command("approve")
@click.argument("ref", type=int)
@of_house
def withdrawal_approve(house: House, ref: int) -> None:
    """Let a withdrawal be paid."""
    house.ask(protocol.ApproveWithdrawal(ref))


@withdrawal.command("reject")
@click.argument("ref", type=int)
@of_house
def withdrawal_reject(house: House, ref: int) -> None:
    """Turn a withdrawal down: the customer has the money again."""
    house.ask(protocol.RejectWithdrawal(ref))


@withdrawal.command("give-up")
@click.argument("ref", type=int)
@of_house
def withdrawal_give_up(house: House, ref: int) -> None:
    """Fail a withdrawal whose payment can never be mined: a coin that it spends is gone, and its deposit dropped.

    All withdrawals of the same payment fail with it. Refused while the chain may mine it still.
    """
    house.ask(protocol.GiveUpWithdrawal(ref))


@withdrawal.command("assign")
@click.argument("ref", type=int)
@click.argument("user")
@of_house
def withdrawal_assign(house: House, ref: int, user: str) -> None:
    """Name USER for a payment that was found after a restore: it comes out of the balance, the rest is owed."""
    house.ask(protocol.AssignWithdrawal(ref, user))


@root.group()
def network() -> None:
    """Networks, and whether their payments wait after a restore."""


@network.command("list")
@of_house
def network_list(house: House) -> None:
    """List the networks; `waits` says why payments do not go on."""
    house.ask(protocol.ListNetworks())


@network.command("release")
@click.argument("network")
@of_house
def network_release(house: House, network: str) -> None:
    """Let payments on NETWORK go on after a restore, though something is unexplained."""
    house.ask(protocol.ReleaseNetwork(network))


@root.command()
@of_house
def reconcile(house: House) -> None:
    """Hold the books against the chains; exit with 0 only if every difference has its cause.

    Amounts are in each chain's smallest unit.
    """
    rows = house.ask(protocol.Reconcile())
    sys.exit(0 if all(row["unexplained"] == "0" for row in rows) else 1)


@root.group()
def rates() -> None:
    """Prices."""


@rates.command("show")
@of_house
def rates_show(house: House) -> None:
    """Show every price, its source, and whether it is too old."""
    house.ask(protocol.ShowRates())


@rates.command("set")
@click.argument("pair")
@click.argument("price")
@of_house
def rates_set(house: House, pair: str, price: str) -> None:
    """Declare that one of PAIR's first asset costs PRICE of the second: BTC/USDT 66680.5."""
    house.ask(protocol.SetRate(pair, price))


@root.group()
def chain() -> None:
    """Practice chains: let happen what happens."""


@chain.command("mine")
@click.argument("network")
@click.argument("count", type=click.IntRange(1, 1_000), default=1)
@of_house
def chain_mine(house: House, network: str, count: int) -> None:
    """Mine COUNT blocks on NETWORK."""
    house.ask(protocol.MineBlocks(network, count))


@chain.command("reorg")
@click.argument("network")
@click.argument("depth", type=click.IntRange(1, 1_000))
@of_house
def chain_reorg(house: House, network: str, depth: int) -> None:
    """Replace the newest DEPTH blocks of NETWORK by others."""
    house.ask(protocol.Reorganise(network, depth))


@chain.command("fail-next")
@click.argument("network")
@click.option("--undone", is_flag=True, help="In a block that takes its fee all the same, as EVM chains do.")
@of_house
def chain_fail_next(house: House, network: str, undone: bool) -> None:
    """Let the next payment on NETWORK fail for good. It is forgotten when the server stops.

    Of nodes, the demo's EVM node can do that, with --undone.
    """
    house.ask(protocol.FailNext(network, undone))

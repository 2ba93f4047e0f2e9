"""The cashier's commands: payments under way, the hot wallets, and what goes to a cold address."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from strongroom.admin import protocol
from strongroom.cli.failures import fail
from strongroom.cli.operator import House, of_house
from strongroom.cli.root import root

_OUT: Final = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write; it must be new."
)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@root.group()
def payment() -> None:
    """Payments on chains: those of withdrawals, and moves of the house's own money."""


@payment.command("list")
@click.option("--state", default="open", show_default=True, help="reserved, signed, mined, final, voided, open, all.")
@of_house
def payment_list(house: House, state: str) -> None:
    """List payments, oldest first, with what each waits for."""
    house.ask(protocol.ListPayments(state))


@payment.command("hurry")
@click.argument("ref", type=int)
@of_house
def payment_hurry(house: House, ref: int) -> None:
    """Offer a payment that waits for a higher fee, as far as its chain and the cap allow."""
    house.ask(protocol.HurryPayment(ref))


@payment.command("give-up")
@click.argument("ref", type=int)
@of_house
def payment_give_up(house: House, ref: int) -> None:
    """Void payment REF of the house's own money that can never be mined: a coin that it spends is gone from the chain.

    Its other coins can be spent again. Refused while the chain may mine it still; `withdrawal give-up` is for payments
    of withdrawals.
    """
    house.ask(protocol.GiveUpPayment(ref))


@root.command()
@of_house
def hot(house: House) -> None:
    """Show what the hot wallets have of the assets that have marks in the settings."""
    house.ask(protocol.ShowHotWallets())


@root.group()
def cold() -> None:
    """Money that goes to a cold address, whose payments are signed elsewhere."""


@cold.command("prepare")
@click.argument("network")
@click.argument("asset")
@click.argument("amount")
@_OUT
@of_house
def cold_prepare(house: House, network: str, asset: str, amount: str, out: Path) -> None:
    """Prepare a payment of AMOUNT to NETWORK's cold address, and write the file that is to be signed."""
    _check_new(out)
    _write(out, house.ask_quietly(protocol.PrepareCold(network, asset, amount)))


@cold.command("export")
@click.argument("ref", type=int)
@_OUT
@of_house
def cold_export(house: House, ref: int, out: Path) -> None:
    """Write the file of a payment that waits to be signed; the server prepares some itself, above the high mark."""
    _check_new(out)
    _write(out, house.ask_quietly(protocol.ExportCold(ref)))


@cold.command("import")
@click.argument("ref", type=int)
@click.argument("file", type=_FILE)
@of_house
def cold_import(house: House, ref: int, file: Path) -> None:
    """Take back payment REF, signed: FILE is a vault's, a PSBT, or a transaction in hex. It is broadcast at once."""
    from strongroom.custody.offline import MAX_SIGNED_BYTES

    with file.open("rb") as opened:
        content = opened.read(MAX_SIGNED_BYTES + 1)
    house.ask(protocol.ImportCold(ref, content))


@cold.command("hurry")
@click.argument("ref", type=int)
@_OUT
@of_house
def cold_hurry(house: House, ref: int, out: Path) -> None:
    """Write the file of payment REF again for a higher fee: it came back signed, and waits for its block."""
    _check_new(out)
    _write(out, house.ask_quietly(protocol.HurryCold(ref)))


@cold.command("give-up")
@click.argument("ref", type=int)
@of_house
def cold_give_up(house: House, ref: int) -> None:
    """Give up payment REF to the cold address, on a network of accounts.

    The hot wallet spends its nonce on nothing, so that later payments go on. Whoever has the signed transaction may be
    quicker still: the chain takes one of the two.
    """
    house.ask(protocol.GiveUpCold(ref))


@cold.command("returned")
@click.argument("asset")
@click.argument("amount")
@click.option("--fee", default="0", show_default=True, help="What the chain took on the way, in the asset.")
@of_house
def cold_returned(house: House, asset: str, amount: str, fee: str) -> None:
    """Book that AMOUNT of a cold address has arrived at the house's own address, where it was taken for new stock."""
    house.ask(protocol.ReturnedFromCold(asset, amount, fee))


def _check_new(path: Path) -> None:
    if path.exists():
        fail(f"{path} is there already, and nothing is overwritten")


def _write(path: Path, told: dict[str, str]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    with os.fdopen(descriptor, "w") as file:
        _ = file.write(told["file"])
    print(f"payment {told['ref']} on {told['network']} is to be signed: {path}")

"""From a block to the credit, with few addresses and with many: a server process on bitcoind in regtest.

    PYTHONPATH=src:tests .venv/bin/python bench/blocks.py [--addresses 1000,100000] [--blocks 40] [--mixes 1+0,100+5000]

A mix says how many of our addresses a block pays, drawn at random, and how many of strangers. The time is taken from
the moment that the node has the block until a signed request reads the new balance; the server asks its node twice a
second. Beside it stands the server's CPU time for a block, with all that it was asked meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec
from processes import cpu_s, memory_mib

from strongroom.config.settings import Config
from strongroom.engine.command import NOBODY, Guard
from strongroom.records.addresses import Branch, Placed
from strongroom.wallet.addresses import AddressRule, GiveAddress, prepare_stock
from strongroom.wallet.context import perform_own
from strongroom.wallet.users import prepare_user
from support.coin_house import ASSET, NETWORK, V3, CoinHouse, coin_house, coin_settings
from support.coin_process import CoinProcess
from support.nodes import FIRST_COINS, Bitcoind
from support.server import Member
from support.utxo import BITCOIN, branch_of

CHAIN = "bitcoin-regtest"
EACH = 10
AT_ONCE = 500
MOST_OUTPUTS = 2_500
"""A transaction of more is not relayed."""

LOOK_S = 0.003


class Mix(NamedTuple):
    """How many addresses a block pays."""

    ours: int
    foreign: int


class Row(NamedTuple):
    """What one line of the table says; times in ms, memory in MiB."""

    addresses: int
    mix: Mix
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    memory_mib: float


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def give_out(house: CoinHouse, count: int) -> list[str]:
    """Give so many addresses to customers, ten each, and return them."""
    application = house.house.application
    context, source = application.context, application.treasury._sources[NETWORK]
    while (first := house.store.row(Branch, NETWORK, 0).derived) <= count:
        derived = await asyncio.to_thread(source.branch.addresses, first, AT_ONCE)
        _ = await perform_own(context, lambda first=first, derived=derived: prepare_stock(NETWORK, first, derived))
    owners: list[int] = []
    for start in range(0, count // EACH, AT_ONCE):
        names = range(start, min(start + AT_ONCE, count // EACH))
        users = [prepare_user(context, NOBODY, f"customer{it}", f"customer{it}@example.com") for it in names]
        _ = await asyncio.gather(*map(context.submit, users))
        owners += [user.uid for user in users]
    # The first two are the house's own and the watched customer's.
    places = [house.store.row(Placed, NETWORK, position) for position in range(2, count + 2)]
    for start in range(0, count, AT_ONCE):
        given = [
            GiveAddress(Guard(owner), owner, ASSET, NETWORK, place.position, place.address, "", AddressRule.TEN_UNUSED)
            for nth, place in enumerate(places[start : start + AT_ONCE], start)
            for owner in [owners[nth // EACH]]
        ]
        outcomes = await asyncio.gather(*map(context.submit, given))
        if any(outcome.refusal or outcome.stale for outcome in outcomes):
            raise SystemExit("an address was not given out")
    return [place.address for place in places]


async def pay(node: Bitcoind, addresses: Sequence[str]) -> None:
    """Pay addresses, in as few transactions as are relayed."""
    for first in range(0, len(addresses), MOST_OUTPUTS):
        outputs = dict.fromkeys(addresses[first : first + MOST_OUTPUTS], Decimal("0.00001"))
        _ = await node.stranger("sendmany", "", outputs)


async def until_credited(server: CoinProcess, member: Member, before: Decimal) -> Decimal:
    """Return the balance once it is another."""
    path = f"{V3}wallet"
    while True:
        rows = (await server.client.get(path, headers=member.headers(path))).json(parse_float=Decimal)
        [total] = [Decimal(row["total"]) for row in rows if row["currency"] == "BTC"]
        if total != before:
            return total
        await asyncio.sleep(LOOK_S)


async def measure(
    node: Bitcoind, server: CoinProcess, watched: tuple[Member, str], ours: list[str], blocks: int, mix: Mix
) -> Row:
    """Return the line of one mix of outputs."""
    chance, branch = random.Random(1), branch_of(BITCOIN)
    strangers = [it.address for it in await asyncio.to_thread(branch.addresses, 1_000_000, mix.foreign)]
    member, address = watched
    balance = await until_credited(server, member, Decimal(-1))
    times_ms: list[float] = []
    cpu_ms: list[float] = []
    for _ in range(blocks):
        await pay(node, [*chance.sample(ours, mix.ours - 1), address, *strangers])
        await asyncio.sleep(chance.uniform(1, 2))
        used_s = cpu_s(server.pid)
        _ = await node.mine(1)
        started_s = time.perf_counter()
        balance = await until_credited(server, member, balance)
        times_ms.append((time.perf_counter() - started_s) * 1_000)
        await asyncio.sleep(0.6)
        cpu_ms.append((cpu_s(server.pid) - used_s) * 1_000)
    times_ms.sort()
    p99 = times_ms[min(len(times_ms) - 1, round(len(times_ms) * 0.99))]
    middle = statistics.median(times_ms)
    return Row(len(ours), mix, middle, p99, statistics.median(cpu_ms), memory_mib(server.pid)[0])


def settings(folder: Path, node: Bitcoind) -> Config:
    """Return the settings of a house that credits in the first block."""
    config = coin_settings(folder, node, CHAIN)
    network = msgspec.structs.replace(config.networks["BITCOIN"], confirmations=1)
    return msgspec.structs.replace(config, networks={"BITCOIN": network})


async def run(folder: Path, addresses: int, blocks: int, mixes: Sequence[Mix]) -> list[Row]:
    """Return the lines of a house with so many addresses."""
    async with Bitcoind(folder / "node") as node:
        _ = await node.mine(FIRST_COINS + 20)
        async with coin_house(settings(folder, node), node) as house:
            say(f"{addresses} addresses are given out")
            member = await house.customer("watched")
            address = await house.address(member)
            ours = await give_out(house, addresses)
        async with CoinProcess(folder, node, CHAIN) as server:
            rows: list[Row] = []
            for mix in mixes:
                say(f"{addresses} addresses, {mix.ours} of them and {mix.foreign} others paid by a block")
                rows.append(await measure(node, server, (member, address), ours, blocks, mix))
            return rows


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def mixes(text: str) -> list[Mix]:
    return [Mix(int(ours), int(foreign)) for part in text.split(",") for ours, _, foreign in [part.partition("+")]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addresses", type=numbers, default=[1_000, 100_000])
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--mixes", type=mixes, default=mixes("1+0,1+5000,100+0,100+5000"))
    options = parser.parse_args()
    print("| addresses | paid by a block | others paid | p50 ms | p99 ms | CPU ms a block | memory MiB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for addresses in options.addresses:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # a real disk, as bench/run.py has it
            for row in asyncio.run(run(Path(folder), addresses, options.blocks, options.mixes)):
                print(
                    f"| {row.addresses:,} | {row.mix.ours} | {row.mix.foreign:,} | {row.p50_ms:.0f} | {row.p99_ms:.0f} "
                    f"| {row.cpu_ms:.0f} | {row.memory_mib:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""Customers who do what they like with their money, all at once, and note every answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from decimal import Decimal
from itertools import count, product
from random import Random
from typing import Any, Final, NamedTuple

from support.harness import V1, V3, Answer, Server, Signed, Unanswered, Wire
from support.harness_model import ASSETS, Balances, Deed, Model, Row

USERS: Final = ("alice", "bob", "alice-sub1")
WORKERS: Final = 12
PAGE: Final = 500

STRANGERS: Final = {
    "BTC": ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", ""),
    "USDT": ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", ""),
    "XRP": ("rrrrrrrrrrrrrrrrrrrrBZbvji", "42"),
}
"""Addresses of nobody in the house: examples of BIP-173, EIP-55 and the XRP ledger."""

_NETWORKS: Final = {"BTC": "BITCOIN", "USDT": "ERC20", "XRP": "RIPPLE"}
_LEAST: Final = {"BTC": Decimal("0.002"), "USDT": Decimal(50), "XRP": Decimal(25)}
_STEP: Final = {"BTC": Decimal("0.00000001"), "USDT": Decimal("0.000001"), "XRP": Decimal("0.000001")}
_TOO_MUCH: Final = 1_000_000
_TOO_LITTLE: Final = Decimal("0.0001")


class Wish(NamedTuple):
    """What somebody is going to ask for."""

    kind: str
    path: str
    body: dict[str, Any]
    receiver: str = ""
    target: str = ""
    on_top: bool = False


class Customers:
    """Three users over many connections; every amount they use is a new one, so that it names what they did."""

    def __init__(self, server: Server, chance: Random) -> None:
        self.server = server
        self.chance = chance
        self.homes: dict[tuple[str, str], tuple[str, str]] = {}
        self._numbers = count(1)

    async def settle_in(self) -> None:
        """Get a deposit address for everybody."""
        async with self.server.connected() as wire:
            for user, asset in product(USERS, ASSETS):
                body = json.dumps({"crypto": asset, "network": _NETWORKS[asset]}).encode()
                answer = await wire.send("POST", self.server.sign(user, f"{V1}user/crypto/address", body))
                assert answer.status == 200, answer
                given = answer.json()["data"]
                self.homes[user, asset] = (given["address"], given["addressExtension"] or "")

    async def act(self, model: Model) -> None:
        """Ask for one thing after the other, on one connection, until there is no answer any more."""
        with suppress(Unanswered):
            async with self.server.connected() as wire:
                while True:
                    keyed = [deed for deed in model.deeds[-WORKERS:] if deed.key]
                    if keyed and self.chance.random() < 0.1:
                        again = self.chance.choice(keyed)
                        await self.attempt(wire, again, self.renewed(again))
                    else:
                        model.deeds.append(deed := self.think())
                        await self.attempt(wire, deed, deed.first)

    async def attempt(self, wire: Wire, deed: Deed, request: Signed) -> Answer:
        """Send a deed's request and note what becomes of it."""
        deed.unanswered += 1
        answer = await wire.send("POST", request)
        deed.unanswered -= 1
        deed.answers.append(answer)
        return answer

    def renewed(self, deed: Deed) -> Signed:
        """Return a deed's request with the same Idempotency-Key and a signature of now."""
        return self.server.sign(deed.user, deed.first.path, deed.first.body, {"idempotency-key": deed.key})

    def think(self) -> Deed:
        """Return a deed that nobody has asked for yet, now and then one that must be refused."""
        chance, number = self.chance, next(self._numbers)
        user, asset = chance.choice(USERS), chance.choice(ASSETS)
        amount = _LEAST[asset] + number * _STEP[asset]
        doomed = chance.random() < 0.1
        if doomed:
            amount += _TOO_MUCH
        kinds = (self._transfer, self._send, self._convert, self._withdraw)
        wish = chance.choices(kinds, (4, 4, 2, 2))[0](user, asset, str(amount))
        more = {"idempotency-key": f"deed-{number}-{chance.random()}"} if chance.random() < 0.5 else {}
        first = self.server.sign(user, wish.path, json.dumps(wish.body).encode(), more)
        return Deed(user, wish.kind, asset, amount, first, wish.receiver, wish.target, wish.on_top, doomed)

    def _other(self, user: str) -> str:
        return self.chance.choice([other for other in USERS if other != user])

    def _transfer(self, user: str, asset: str, amount: str) -> Wish:
        to = self._other(user)
        body = {"amount": amount, "asset": asset, "toUser": to, "toUserMail": f"{to}@example.com"}
        return Wish("transfer", f"{V3}user/wallet/transfer", body, to)

    def _send(self, user: str, asset: str, amount: str) -> Wish:
        to = self._other(user)
        body = {"asset": asset, "amount": amount, "receiverUsername": to}
        return Wish("transfer", f"{V1}user/assets/sendTo", body, to)

    def _convert(self, user: str, asset: str, amount: str) -> Wish:
        path = self.chance.choice((f"{V3}user/wallet/convert", f"{V1}user/assets/convert"))
        target = self.chance.choice([other for other in ASSETS if other != asset])
        return Wish("convert", path, {"amount": amount, "fromAsset": asset, "toAsset": target}, target=target)

    def _withdraw(self, user: str, asset: str, amount: str) -> Wish:
        """Withdraw to somebody of the house, or in one of four cases to a stranger on the chain."""
        to = "" if self.chance.random() < 0.25 else self._other(user)
        address, tag = self.homes[to, asset] if to else STRANGERS[asset]
        on_top = self.chance.random() < 0.3
        if self.chance.random() < 0.5:
            body = {"currency": f"{asset}-{_NETWORKS[asset]}", "address": address, "tag": tag, "amount": amount}
            path, name = f"{V3}user/wallet/withdraw", "includeWithdrawFee"
        else:
            body = {"crypto": asset, "network": _NETWORKS[asset], "address": address, "amount": amount}
            body |= {"addressExtension": tag} if tag else {}
            path, name = f"{V1}user/crypto/withdraw", "amountIncludeFee"
        return Wish("withdraw", path, body | {name: not on_top}, to, on_top=on_top)

    # What the server shows.

    async def history(self, since_ms: int) -> list[Row]:
        """Return every history row of everybody since a time, as v3 lists them."""
        rows: list[Row] = []
        async with self.server.connected() as wire:
            for user, asset in product(USERS, ASSETS):
                request = self.server.sign(user, f"{V3}user/wallet_history")
                page = await wire.send("GET", request, f"?currency={asset}&startTime={since_ms}&count={PAGE}")
                assert len(page.json()) < PAGE, "a round has fewer rows than a page"
                rows += page.json()
        return rows

    async def references(self, since_ms: int) -> list[str]:
        """Return the reference of every history row since a time, page by page, as v1 lists them."""
        async with self.server.connected() as wire:
            return [
                reference
                for user, asset in product(USERS, ASSETS)
                for reference in await self._references(wire, user, f"asset={asset}&startTime={since_ms}")
            ]

    async def _references(self, wire: Wire, user: str, which: str) -> list[str]:
        found: list[str] = []
        for page in count(1):
            query = f"?walletType=SPOT&{which}&pageSize={PAGE}&page={page}"
            answer = await wire.send("GET", self.server.sign(user, f"{V1}user/walletHistory"), query)
            rows = answer.json()["data"]
            found += [row["transactionRef"] for row in rows]
            if len(rows) < PAGE:
                break
        return found

    async def balances(self) -> Balances:
        """Return what everybody can spend."""
        balances: Balances = {}
        async with self.server.connected() as wire:
            for user in USERS:
                rows = (await wire.send("GET", self.server.sign(user, f"{V3}user/wallet"))).json()
                known = [row for row in rows if row["currency"] in ASSETS]
                balances |= {(user, row["currency"]): Decimal(row["available"]) for row in known}
        return balances


async def together(customers: Customers, model: Model, seconds: float) -> None:
    """Let everybody act at once, and kill the server after so long."""
    acting = [asyncio.create_task(customers.act(model)) for _ in range(WORKERS)]
    await asyncio.sleep(seconds)
    customers.server.kill()
    await asyncio.gather(*acting)

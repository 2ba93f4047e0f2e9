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
from support.harness_addresses import MOST_LISTED, Listed, spelled
from support.harness_model import ASSETS, GIVE_UP, MAKE, Balances, Deed, Model, Row

USERS: Final = ("alice", "bob", "alice-sub1")
WORKERS: Final = 12
PAGE: Final = 500

UNAVAILABLE: Final = 503
"""Nothing was done, not even the signature is used up."""

LONGEST_PAUSE_S: Final = 0.1
"""Whoever is told to come again does so after at most this."""

STRANGERS: Final = {
    "BTC": ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", ""),
    "USDT": ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", ""),
    "XRP": ("rrrrrrrrrrrrrrrrrrrrBZbvji", "42"),
}
"""Addresses of nobody in the house: examples of BIP-173, EIP-55 and the XRP ledger."""

NETWORKS: Final = {"BTC": "BITCOIN", "USDT": "ERC20", "XRP": "RIPPLE"}
_LEAST: Final = {"BTC": Decimal("0.002"), "USDT": Decimal(50), "XRP": Decimal(25)}
_STEP: Final = {"BTC": Decimal("0.00000001"), "USDT": Decimal("0.000001"), "XRP": Decimal("0.000001")}
_TOO_MUCH: Final = 1_000_000
_ADDRESSES: Final = 1 / 40
"""So many of the customers' wishes are about their addresses."""

_FEWEST: Final = 2
"""Who has no more addresses than this keeps them: a stranger pays to the newest, and gets one made where none is."""


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
        self.listed: Listed = {}
        self._numbers = count(1)

    async def settle_in(self) -> None:
        """Get a deposit address for everybody."""
        async with self.server.connected() as wire:
            for user, asset in product(USERS, ASSETS):
                body = json.dumps({"crypto": asset, "network": NETWORKS[asset]}).encode()
                answer = await wire.send("POST", self.server.sign(user, f"{V1}user/crypto/address", body))
                assert answer.status == 200, answer
                given = answer.json()["data"]
                self.homes[user, asset] = (given["address"], given["addressExtension"] or "")
        self.listed = await self.addresses()

    async def act(self, model: Model) -> None:
        """Ask for one thing after the other, on one connection, until there is no answer any more."""
        with suppress(Unanswered):
            async with self.server.connected() as wire:
                while True:
                    keyed = [deed for deed in model.deeds[-WORKERS:] if deed.key]
                    if keyed and self.chance.random() < 0.1:
                        again = self.chance.choice(keyed)
                        answer = await self.attempt(wire, again, self.renewed(again))
                    else:
                        model.deeds.append(deed := self.think(model))
                        answer = await self.attempt(wire, deed, deed.first)
                    if answer.status == UNAVAILABLE:
                        await asyncio.sleep(self.chance.uniform(0, LONGEST_PAUSE_S))

    async def attempt(self, wire: Wire, deed: Deed, request: Signed) -> Answer:
        """Send a deed's request and note what becomes of it."""
        deed.unanswered += 1
        answer = await wire.send(request.method, request)
        deed.unanswered -= 1
        deed.answers.append(answer)
        return answer

    def renewed(self, deed: Deed) -> Signed:
        """Return a deed's request with the same Idempotency-Key and a signature of now."""
        first, more = deed.first, {"idempotency-key": deed.key}
        return self.server.sign(deed.user, first.path, first.body, more, first.method)

    def think(self, model: Model) -> Deed:
        """Return a deed that nobody has asked for yet, now and then one that must be refused."""
        chance = self.chance
        user, asset = chance.choice(USERS), chance.choice(ASSETS)
        if chance.random() < _ADDRESSES and (deed := self._readdress(model, user, asset)):
            return deed
        amount = self.new_amount(asset)
        doomed = chance.random() < 0.1
        if doomed:
            amount += _TOO_MUCH
        kinds = (self._transfer, self._send, self._convert, self._withdraw)
        wish = chance.choices(kinds, (4, 4, 2, 2))[0](user, asset, str(amount))
        first = self.server.sign(user, wish.path, json.dumps(wish.body).encode(), self._perhaps_a_key())
        return Deed(user, wish.kind, asset, amount, first, wish.receiver, wish.target, wish.on_top, doomed)

    def new_amount(self, asset: str) -> Decimal:
        """Return an amount that nothing else has."""
        return _LEAST[asset] + next(self._numbers) * _STEP[asset]

    def _perhaps_a_key(self) -> dict[str, str]:
        chance = self.chance
        return {"idempotency-key": f"deed-{next(self._numbers)}-{chance.random()}"} if chance.random() < 0.5 else {}

    def _readdress(self, model: Model, user: str, asset: str) -> Deed | None:
        """Make another address or give one up; nobody has so many that some are not listed, and each goes once."""
        book = [deed for deed in model.deeds if not deed.moves_money and (deed.user, deed.asset) == (user, asset)]
        going = {deed.address for deed in book}
        left = [address for address in self.listed[user, asset] if address not in going]
        made = sum(deed.kind == MAKE for deed in book)
        full = len(self.listed[user, asset]) + made >= MOST_LISTED - 1
        body = {"crypto": asset, "network": NETWORKS[asset]}
        kind, method, address = MAKE, "POST", ""
        if len(left) > _FEWEST and (full or self.chance.random() < 0.5):
            kind, method, address = GIVE_UP, "DELETE", self.chance.choice(left)
            body["address"], _, tag = address.partition(":")
            body |= {"addressExtension": tag} if tag else {}
        elif full:
            return None
        path, more = f"{V1}user/crypto/address", self._perhaps_a_key()
        first = self.server.sign(user, path, json.dumps(body).encode(), more, method)
        return Deed(user, kind, asset, Decimal(0), first, address=address)

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
            body = {"currency": f"{asset}-{NETWORKS[asset]}", "address": address, "tag": tag, "amount": amount}
            path, name = f"{V3}user/wallet/withdraw", "includeWithdrawFee"
        else:
            body = {"crypto": asset, "network": NETWORKS[asset], "address": address, "amount": amount}
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

    async def addresses(self) -> Listed:
        """Return the addresses that everybody has."""
        listed: dict[tuple[str, str], list[str]] = {}
        async with self.server.connected() as wire:
            for user, asset in product(USERS, ASSETS):
                request = self.server.sign(user, f"{V1}user/crypto/address")
                answer = await wire.send("GET", request, f"?crypto={asset}&network={NETWORKS[asset]}")
                rows = answer.json()["data"]
                listed[user, asset] = [spelled(row["address"], row["addressExtension"]) for row in rows]
        return listed

    async def balances(self) -> Balances:
        """Return what everybody can spend."""
        balances: Balances = {}
        async with self.server.connected() as wire:
            for user in USERS:
                rows = (await wire.send("GET", self.server.sign(user, f"{V3}user/wallet"))).json()
                known = [row for row in rows if row["currency"] in ASSETS]
                balances |= {(user, row["currency"]): Decimal(row["available"]) for row in known}
        return balances

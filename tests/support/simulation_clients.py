"""The customers of a simulation: each sends one request after the other, loses patience, asks again, and looks."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from hashlib import sha384
from random import Random
from typing import Any, Final

from strongroom.ledger.accounts import CUSTOMER_PURPOSES, Account, Purpose
from strongroom.records.heads import Head
from support.simulation_deeds import NOT_TRIED, Answer, Attempt, Deed, Record, Signed, address_of
from support.simulation_house import ASSETS, BTC, CODES, COIN, NETWORKS, USDT, Member
from support.simulation_life import Failure, Life

V3: Final = "/api/v3.2/"
V1: Final = "/public-api/wallet/v1/"
STRANGERS: Final = {
    BTC: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    USDT: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
}
"""Addresses of nobody in the house: examples of BIP-173 and EIP-55."""

_BASES: Final = {BTC: COIN // 100, USDT: 10 * COIN}
_LITTLE: Final = 12
_DOOMED: Final = 1_000
_RECENT: Final = 60


class Wallets:
    """Sends signed requests straight into the ASGI application and writes down what comes back."""

    def __init__(self, life: Life, members: dict[str, Member], record: Record, chance: Random) -> None:
        self.life = life
        self.members = members
        self.record = record
        self.chance = chance
        self._nonces: dict[str, int] = {}

    def sign(self, user: str, method: str, path: str, body: bytes = b"", *, key: str = "", query: str = "") -> Signed:
        """Return a request of a user with a signature of now."""
        member = self.members[user]
        nonce_ms = max(self.life.application.clock.now_ms(), self._nonces.get(user, 0) + 1)
        self._nonces[user] = nonce_ms
        nonce = str(nonce_ms)
        signature = hmac.new(member.secret.encode(), path.encode() + nonce.encode() + body, sha384).hexdigest()
        headers = {"request-api": member.key, "request-nonce": nonce, "request-sign": signature}
        if key:
            headers["idempotency-key"] = key
        return Signed(method, path, tuple((k.encode(), v.encode()) for k, v in headers.items()), body, query)

    def post(self, user: str, path: str, body: dict[str, Any], key: str = "") -> Signed:
        """Return a signed POST."""
        return self.sign(user, "POST", path, json.dumps(body).encode(), key=key)

    async def send(self, request: Signed, then: Callable[[], None] = lambda: None) -> Answer | None:
        """Send a request over a line of some length; None where no answer was heard before the server's end.

        `then` is called at the very moment that the server has answered.
        """
        await asyncio.sleep(self.chance.random() ** 2 * 0.02)
        self.life.check_alive()
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": request.query.encode(),
            "headers": request.headers,
            "client": ("203.0.113.7", 1),
        }
        pieces = self._pieces(request.body)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            piece = pieces.pop(0)
            if pieces:
                await asyncio.sleep(self.chance.random() * 0.01)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def reply(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.life.application.front(scope, receive, reply)
        then()
        await asyncio.sleep(self.chance.random() ** 2 * 0.02)
        return None if self.life.dead else self._heard(request, sent)

    def _pieces(self, body: bytes) -> list[bytes]:
        if len(body) > 2 and self.chance.random() < 0.05:
            return [body[: len(body) // 2], body[len(body) // 2 :]]
        return [body]

    def _heard(self, request: Signed, sent: list[dict[str, Any]]) -> Answer:
        answer = Answer(sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"])
        self.life.note(f"{request.method} {request.path} -> {answer.status} {answer.body[:160].decode()}")
        if answer.status >= 500 and answer.status not in NOT_TRIED:
            self.life.fail(Failure(f"{request.path} was answered {answer.status}: {answer.body.decode()}"))
        return answer

    async def attempt(self, deed: Deed, request: Signed) -> Answer | None:
        """Send a deed's request and keep what becomes of it."""
        place = len(deed.attempts)
        sent = self.record.tick()
        deed.attempts.append(Attempt(request, None, sent))
        self.life.note(f"asked: {deed.told()}")
        answer = await self.send(request)
        if answer is not None:
            self.life.note(f"answered {answer.status}{' again' * answer.repeated}: {deed.told()}")
            deed.attempts[place] = Attempt(request, answer, sent, self.record.tick())
        return answer

    def renewed(self, deed: Deed) -> Signed:
        """Return a deed's request with the same Idempotency-Key and a signature of now."""
        first = deed.first
        return self.sign(deed.user, first.method, first.path, first.body, key=deed.key, query=first.query)


class Customer:
    """One connection: what it does next is drawn."""

    def __init__(self, wallets: Wallets, is_over: Callable[[], bool]) -> None:
        self._wallets = wallets
        self._chance = wallets.chance
        self._record = wallets.record
        self._members = wallets.members
        self._is_over = is_over

    async def act(self) -> None:
        """Do one thing after the other until it is over; an error ends the simulation."""
        life = self._wallets.life
        try:
            while not self._is_over():
                await asyncio.sleep(self._chance.random() ** 2 * 0.3)
                life.check_alive()
                await self._once()
        except AssertionError as error:
            life.fail(error)

    async def _once(self) -> None:
        actions = (self._new, self._again, self._twice, self._look, self._change_addresses)
        await self._chance.choices(actions, (10, 4, 1, 3, 1))[0]()

    async def _new(self) -> None:
        deed = self._think()
        self._record.deeds.append(deed)
        await self._wallets.attempt(deed, deed.first)

    async def spend_all(self, user: str, asset: int) -> None:
        """Send nearly all that a user has to somebody else: what it was paid may be gone tomorrow."""
        base = _BASES[asset]
        spendable = self._committed(user)[CODES[asset]][0] // base - 1
        if spendable > 0:
            deed = self._transfer(user, asset, self._record.next_amount(spendable * base), "")
            self._record.deeds.append(deed)
            await self._wallets.attempt(deed, deed.first)

    async def send_out(self, user: str, asset: int) -> None:
        """Withdraw a little."""
        amount = self._record.next_amount(self._chance.randrange(1, _LITTLE) * _BASES[asset])
        deed = self._withdraw(user, asset, amount, "")
        self._record.deeds.append(deed)
        await self._wallets.attempt(deed, deed.first)

    async def _twice(self) -> None:
        """Send the same bytes over two connections at the same time."""
        deed = self._think()
        self._record.deeds.append(deed)
        await asyncio.gather(*(self._wallets.attempt(deed, deed.first) for _ in range(2)))

    async def _again(self) -> None:
        """Ask again, by its key or exactly as it was: for what had no answer, for what was refused, or for anything."""
        deeds = [deed for deed in self._record.deeds[-_RECENT:] if not deed.barred]
        doubtful = [deed for deed in deeds if deed.in_doubt and not deed.done]
        refused = [deed for deed in deeds if deed.answers and not deed.done]
        chosen = self._chance.choices((doubtful, refused, deeds), (3, 1, 2))[0] or deeds
        if chosen:
            deed = self._chance.choice(chosen)
            renewed = deed.key and self._chance.random() < 0.7
            await self._wallets.attempt(deed, self._wallets.renewed(deed) if renewed else deed.first)

    # -- looking

    async def _look(self) -> None:
        """Read balances, or the newest page of a history."""
        user = self._chance.choice(sorted(self._members))
        if self._chance.random() < 0.5:
            await self.look_at_balances(user)
        else:
            await self.look_at_history(user)

    async def look_at_balances(self, user: str) -> None:
        """Read a wallet and hold it against the committed balances of that very moment."""
        committed: list[dict[str, tuple[int, int]]] = []
        request = self._wallets.sign(user, "GET", f"{V3}user/wallet")
        answer = await self._wallets.send(request, lambda: committed.append(self._committed(user)))
        if answer is None or answer.status != 200:
            return
        rows = json.loads(answer.body, parse_float=str, parse_int=str)
        told = {row["currency"]: (units_of(row["available"]), units_of(row["total"])) for row in rows}
        if told != committed[0]:
            raise Failure(f"{user}'s wallet says {told}, the books {committed[0]}")
        if any(available < 0 or total < available for available, total in told.values()):
            raise Failure(f"{user} has less than nothing: {told}")

    async def look_at_history(self, user: str) -> None:
        """Read the newest history lines: whoever saw one sees it for ever."""
        query = f"walletType=SPOT&asset={CODES[self._chance.choice(ASSETS)]}&pageSize=20"
        answer = await self._wallets.send(self._wallets.sign(user, "GET", f"{V1}user/walletHistory", query=query))
        if answer is not None and answer.status == 200:
            self._record.seen_refs |= {int(row["transactionRef"]): user for row in answer.json()["data"]}

    def _committed(self, user: str) -> dict[str, tuple[int, int]]:
        store, uid = self._wallets.life.application.store, self._members[user].uid
        found: dict[str, tuple[int, int]] = {}
        for asset, code in CODES.items():
            parts = [store.row(Head, Account(uid, asset, purpose).pack()).after for purpose in CUSTOMER_PURPOSES]
            found[code] = (parts[CUSTOMER_PURPOSES.index(Purpose.AVAILABLE)], sum(parts))
        return found

    # -- thinking

    def _think(self) -> Deed:
        """Return a deed that nobody has asked for yet."""
        chance = self._chance
        user, asset = chance.choice(sorted(self._members)), chance.choice(ASSETS)
        amount = self._record.next_amount(self._base(user, asset))
        key = f"deed-{self._record.numbers}" if chance.random() < 0.5 else ""
        kinds = (self._transfer, self._convert, self._withdraw)
        return chance.choices(kinds, (5, 2, 4))[0](user, asset, amount, key)

    def _base(self, user: str, asset: int) -> int:
        """Return a round amount: small, or nearly all that the user has, or more than anybody has."""
        kind, base = self._chance.random(), _BASES[asset]
        if kind < 0.05:
            return _DOOMED * base
        if kind < 0.3:
            return max(1, self._committed(user)[CODES[asset]][0] // base - self._chance.randrange(2)) * base
        return self._chance.randrange(1, self._chance.choice((3, 12, 60)) + 1) * base

    def _transfer(self, user: str, asset: int, amount: int, key: str) -> Deed:
        to = self._chance.choice([name for name in sorted(self._members) if name != user])
        if self._chance.random() < 0.5:
            body = {"amount": text_of(amount), "asset": CODES[asset], "toUser": to, "toUserMail": f"{to}@example.com"}
            path = f"{V3}user/wallet/transfer"
        else:
            body = {"asset": CODES[asset], "amount": text_of(amount), "receiverUsername": to}
            path = f"{V1}user/assets/sendTo"
        return Deed("transfer", user, asset, amount, self._wallets.post(user, path, body, key), key, to)

    def _convert(self, user: str, asset: int, amount: int, key: str) -> Deed:
        path = self._chance.choice((f"{V3}user/wallet/convert", f"{V1}user/assets/convert"))
        target = BTC if asset == USDT else USDT
        body = {"amount": text_of(amount), "fromAsset": CODES[asset], "toAsset": CODES[target]}
        return Deed("convert", user, asset, amount, self._wallets.post(user, path, body, key), key, target=target)

    def _withdraw(self, user: str, asset: int, amount: int, key: str) -> Deed:
        """Withdraw to a stranger, or to somebody of the house."""
        others = [name for name in sorted(self._members) if name != user]
        to = self._chance.choice(others) if self._chance.random() < 0.35 else ""
        address, on_top = self._members[to].homes[asset] if to else STRANGERS[asset], self._chance.random() < 0.3
        network = NETWORKS[asset]
        if self._chance.random() < 0.5:
            body = {"currency": f"{CODES[asset]}-{network}", "address": address, "amount": text_of(amount)}
            path, name = f"{V3}user/wallet/withdraw", "includeWithdrawFee"
        else:
            body = {"crypto": CODES[asset], "network": network, "address": address, "amount": text_of(amount)}
            path, name = f"{V1}user/crypto/withdraw", "amountIncludeFee"
        first = self._wallets.post(user, path, body | {name: not on_top}, key)
        return Deed("withdraw", user, asset, amount, first, key, to, on_top=on_top, address=address)

    # -- addresses

    async def _change_addresses(self) -> None:
        """Get one more address, or give one up."""
        user = self._chance.choice(sorted(self._members))
        known = [deed for deed in self._record.addresses if deed.kind == "give" and deed.done and deed.user == user]
        if known and self._chance.random() < 0.3:
            await self._give_up(self._chance.choice(known))
        else:
            await self.ask_for_address(user)

    async def ask_for_address(self, user: str) -> None:
        """Get one more address."""
        asset = self._chance.choice(ASSETS)
        body = {"crypto": CODES[asset], "network": NETWORKS[asset]}
        key = f"address-{len(self._record.addresses)}" if self._chance.random() < 0.5 else ""
        deed = Deed("give", user, asset, 0, self._wallets.post(user, f"{V1}user/crypto/address", body, key), key)
        self._record.addresses.append(deed)
        answer = await self._wallets.attempt(deed, deed.first)
        if self._record.lost_addresses and deed.done:
            self._wallets.life.count("given after a restore")
        if key and (answer is None or self._chance.random() < 0.3):
            await self._wallets.attempt(deed, self._wallets.renewed(deed))

    async def _give_up(self, given: Deed) -> None:
        query = f"crypto={CODES[given.asset]}&network={NETWORKS[given.asset]}&address={address_of(given)}"
        first = self._wallets.sign(given.user, "DELETE", f"{V1}user/crypto/address", query=query)
        deed = Deed("delete", given.user, given.asset, 0, first, address=address_of(given))
        self._record.addresses.append(deed)
        await self._wallets.attempt(deed, deed.first)


def text_of(units: int) -> str:
    """Return an amount as a client writes it."""
    return f"{units // COIN}.{units % COIN:08}"


def units_of(text: str) -> int:
    """Return an amount of at most 8 decimals as ledger units."""
    whole, _, rest = text.removeprefix("-").partition(".")
    units = int(whole) * COIN + int(rest.ljust(8, "0") or 0)
    return -units if text.startswith("-") else units

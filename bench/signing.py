"""Requests, signed into a file just before a run: each once, with a nonce of its own."""

from __future__ import annotations

import hmac
import random
import time
from collections.abc import Callable, Iterator
from hashlib import sha384
from itertools import islice
from pathlib import Path

from world import Customer, World

READ_PATH = "/api/v3.2/user/wallet"
TRANSFER_PATH = "/api/v3.2/user/wallet/transfer"
HISTORY_PATH = "/api/v3.2/user/wallet_history"
AHEAD_MS = 22_000
"""How far the first nonces lie in the future: with a window of 30 s they are good at once, and for 50 s."""

_JSON = "content-type: application/json\r\n"
_MOST_UNITS = 1_000_000
_SEED = 7


class Signer:
    """Makes requests. No two have one signature: each customer's nonces grow by one, from `ahead_ms` after now."""

    def __init__(self, ahead_ms: int = AHEAD_MS) -> None:
        self._ahead_ms = ahead_ms
        self._nonces: dict[str, int] = {}
        self._first = 0

    def begin(self) -> None:
        """Take the time from now on."""
        self._first = time.time_ns() // 1_000_000 + self._ahead_ms

    def request(
        self, customer: Customer, method: str, path: str, body: str = "", query: str = "", more: str = ""
    ) -> bytes:
        """Return the bytes of a signed HTTP request; `more` has whole header lines."""
        key = customer.key
        nonce = self._nonces[key] = max(self._nonces.get(key, 0) + 1, self._first)
        signature = hmac.digest(customer.secret.encode(), f"{path}{nonce}{body}".encode(), sha384).hex()
        return (
            f"{method} {path}{query} HTTP/1.1\r\nhost: bench\r\nrequest-api: {key}\r\nrequest-nonce: {nonce}\r\n"
            f"request-sign: {signature}\r\n{more}content-length: {len(body)}\r\n\r\n{body}"
        ).encode()


def reads(world: World, signer: Signer) -> Iterator[bytes]:
    """Yield balance reads of random customers."""
    rng, customers = random.Random(_SEED), world.customers
    while True:
        yield signer.request(rng.choice(customers), "GET", READ_PATH)


def tour(world: World, signer: Signer) -> Iterator[bytes]:
    """Yield a read by every customer and a transfer from each to the next, again and again."""
    customers = world.customers
    while True:
        for customer, following in zip(customers, [*customers[1:], customers[0]], strict=True):
            yield signer.request(customer, "GET", READ_PATH)
            yield signer.request(customer, "POST", TRANSFER_PATH, _body("1", world.assets[0], following), more=_JSON)


def transfers(world: World, signer: Signer, *, idempotent: bool = False) -> Iterator[bytes]:
    """Yield transfers between random customers in random assets, each with an Idempotency-Key or none."""
    rng, customers, assets = random.Random(time.time_ns()), world.customers, world.assets
    while True:
        sender, receiver = rng.choice(customers), rng.choice(customers)
        if sender is receiver:
            continue
        body = _body(f"0.{rng.randrange(1, _MOST_UNITS):08d}", rng.choice(assets), receiver)
        more = f"{_JSON}idempotency-key: {rng.getrandbits(128):032x}\r\n" if idempotent else _JSON
        yield signer.request(sender, "POST", TRANSFER_PATH, body, more=more)


def _body(amount: str, asset: str, to: Customer) -> str:
    return f'{{"amount":"{amount}","asset":"{asset}","toUser":"{to.username}","toUserMail":"{to.mail}"}}'


def pages(customer: Customer, signer: Signer, end_times: Callable[[], int | None]) -> Iterator[bytes]:
    """Yield reads of a customer's history, 50 lines a page: the newest, or those before a moment (Unix ms)."""
    while True:
        end_ms = end_times()
        query = "?count=50" if end_ms is None else f"?count=50&endTime={end_ms}"
        yield signer.request(customer, "GET", HISTORY_PATH, query=query)


def write(path: Path, requests: Iterator[bytes], signer: Signer, count: int) -> bytes:
    """Write so many requests into a file as `replay.lua` reads it, and return one more that is not in it."""
    signer.begin()
    with path.open("wb", buffering=1 << 20) as file:
        for request in islice(requests, count):
            _ = file.write(b"%05d" % len(request))
            _ = file.write(request)
    return next(requests)

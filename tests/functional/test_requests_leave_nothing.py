"""A request that was answered is forgotten at once: no garbage waits for the collector, however it was answered."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.api.requests import Request
from strongroom.engine.command import Command
from strongroom.engine.settle import Outcome
from strongroom.errors import UNAVAILABLE, InvariantBroken
from strongroom.wallet.context import Answer
from support.server import TRANSFER, WALLET, Member, join, served, settings, transfer_to

ADDRESS = "/api/v3.2/user/wallet/address"


class Told:
    """Whoever is told the answer to one request."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __call__(self, status: int, headers: str, body: bytes) -> None:
        self.status.set_result(status)


def busy(command: Command, answer: Answer) -> None:
    """Accept nothing."""
    raise UNAVAILABLE("System busy")


OFFERS: dict[str, Callable[[Command, Answer], None]] = {
    "not accepted": busy,
    "withdrawn": lambda command, answer: answer(UNAVAILABLE("System busy")),
    "stale for ever": lambda command, answer: answer(Outcome(1, stale=True)),
    "our mistake": lambda command, answer: answer(InvariantBroken("a test breaks it")),
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing but counting references frees anything while the test lasts."""
    gc.disable()
    yield
    gc.enable()


def made(member: Member, method: str, path: str, body: dict[str, Any] | bytes = b"") -> tuple[Request, bytes]:
    """Return a signed request and its body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {name.encode(): value.encode() for name, value in member.headers(path, content).items()}
    return Request(method, path.encode(), b"", headers, {}, "127.0.0.1"), content


async def test_whatever_becomes_of_a_request_it_is_forgotten(tmp_path: Path, no_collector: None) -> None:
    """Successes, refusals of every kind and our own mistakes keep nothing of the request."""
    async with served(settings(tmp_path)) as server:
        api, context = server.application.api, server.application.context
        alice, bob = await join(server.application, "alice", 100_000_000), await join(server.application, "bob")

        remembered: list[weakref.ref[Told]] = []

        async def answer(request: Request, body: bytes, status: int) -> None:
            told = Told()
            remembered.append(weakref.ref(told))
            api.handle(request, body, 0.0, told)
            assert await told.status == status

        await answer(*made(alice, "GET", WALLET), 200)
        await answer(*made(alice, "GET", WALLET, b"{"), 400)
        await answer(*made(alice, "GET", "/nothing"), 404)
        await answer(*made(alice._replace(secret="other"), "GET", WALLET), 401)
        await answer(*made(alice, "GET", ADDRESS), 400)
        await answer(*made(alice, "POST", TRANSFER, transfer_to(bob)), 200)
        await answer(*made(alice, "POST", TRANSFER, transfer_to(bob, "50")), 400)
        await answer(*made(alice, "POST", TRANSFER, transfer_to(bob, "-1")), 400)
        await answer(*made(alice, "POST", ADDRESS, {"currency": "BTC"}), 200)
        ordinary = context.offer
        for name, offer in OFFERS.items():
            context.offer = offer  # pyright: ignore[reportAttributeAccessIssue]
            await answer(*made(alice, "POST", TRANSFER, transfer_to(bob)), 500 if name == "our mistake" else 503)
        context.offer = ordinary
        # The writer holds its latest batch until it has another one.
        await answer(*made(bob, "POST", TRANSFER, transfer_to(alice)), 200)
    assert [place for place, told in enumerate(remembered[:-1]) if told() is not None] == []

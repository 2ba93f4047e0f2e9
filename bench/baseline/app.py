"""The peer: the same transfer as a good team writes it in a week, with FastAPI, psycopg and PostgreSQL.

It checks the same signature over the same headers, keeps nonces unique, locks both balances in order, writes the
transfer and its postings, and answers after the commit. Keys are kept in memory once they were read.
"""
# It runs in an environment of its own, which the type checker does not see.
# pyright: reportMissingImports=false

from __future__ import annotations

import hmac
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import sha384
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field, ValidationError

WINDOW_MS = 30_000
UNITS = Decimal(10) ** 8

pool = AsyncConnectionPool(
    os.environ["BASELINE_DSN"], min_size=4, max_size=int(os.environ["BASELINE_CONNECTIONS"]), open=False
)
keys: dict[str, tuple[int, bytes]] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with pool:
        yield


app = FastAPI(lifespan=lifespan)


class Transfer(BaseModel):
    amount: Decimal = Field(gt=0, max_digits=18, decimal_places=8)
    asset: str
    toUser: str  # noqa: N815 - the wire's name
    toUserMail: str  # noqa: N815


class Signed(BaseModel):
    key: str
    nonce: int
    user: int
    body: bytes


async def key_of(text: str) -> tuple[int, bytes]:
    found = keys.get(text)
    if found is None:
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT user_id, secret FROM api_keys WHERE key = %s", (text,))
            row = await cursor.fetchone()
        if row is None:
            raise HTTPException(401, "unknown key")
        found = keys[text] = row[0], row[1].encode()
    return found


async def signed(
    request: Request,
    request_api: Annotated[str, Header()],
    request_nonce: Annotated[int, Header()],
    request_sign: Annotated[str, Header()],
) -> Signed:
    user, secret = await key_of(request_api)
    body = await request.body()
    expected = hmac.digest(secret, f"{request.url.path}{request_nonce}".encode() + body, sha384).hex()
    if not hmac.compare_digest(expected, request_sign.lower()):
        raise HTTPException(401, "wrong signature")
    if abs(request_nonce - time.time_ns() // 1_000_000) > WINDOW_MS:
        raise HTTPException(401, "nonce out of window")
    return Signed(key=request_api, nonce=request_nonce, user=user, body=body)


@app.post("/api/v3.2/user/wallet/transfer")
async def transfer(call: Annotated[Signed, Depends(signed)]) -> dict[str, str]:
    try:
        wanted = Transfer.model_validate_json(call.body)
    except ValidationError as error:
        raise HTTPException(400, "malformed transfer") from error
    async with pool.connection() as connection:
        await use_nonce(connection, call)
        receiver = await receiver_of(connection, wanted)
        if receiver == call.user:
            raise HTTPException(400, "receiver is the sender")
        await move(connection, call.user, receiver, wanted.asset, int(wanted.amount * UNITS))
    # Leaving the block has committed: what is answered is durable.
    return {"amount": str(wanted.amount), "asset": wanted.asset, "toUser": wanted.toUser}


async def use_nonce(connection: Any, call: Signed) -> None:
    cursor = await connection.execute(
        "INSERT INTO nonces (key, nonce) VALUES (%s, %s) ON CONFLICT DO NOTHING", (call.key, call.nonce)
    )
    if not cursor.rowcount:
        raise HTTPException(400, "nonce was used")


async def receiver_of(connection: Any, wanted: Transfer) -> int:
    cursor = await connection.execute(
        "SELECT id FROM users WHERE username = %s AND mail = %s", (wanted.toUser, wanted.toUserMail)
    )
    row = await cursor.fetchone()
    if row is None:
        raise HTTPException(400, "unknown receiver")
    return row[0]


async def move(connection: Any, sender: int, receiver: int, asset: str, units: int) -> None:
    cursor = await connection.execute(
        "SELECT user_id, amount FROM balances WHERE asset = %s AND user_id IN (%s, %s) ORDER BY user_id FOR UPDATE",
        (asset, sender, receiver),
    )
    before = dict(await cursor.fetchall())
    if before.get(sender, 0) < units or receiver not in before:
        raise HTTPException(400, "insufficient balance")
    await connection.execute(
        "UPDATE balances SET amount = amount + CASE user_id WHEN %s THEN -%s::bigint ELSE %s::bigint END"
        " WHERE asset = %s AND user_id IN (%s, %s)",
        (sender, units, units, asset, sender, receiver),
    )
    sent = (sender, asset, units, before[sender] - units)
    received = (receiver, asset, units, before[receiver] + units)
    await connection.execute(
        "WITH made AS (INSERT INTO transfers (sender, receiver, asset, amount) VALUES (%s, %s, %s, %s) RETURNING id)"
        " INSERT INTO postings (transfer, user_id, asset, amount, after)"
        " SELECT made.id, v.* FROM made, (VALUES (%s::bigint, %s, -%s::bigint, %s::bigint),"
        " (%s::bigint, %s, %s::bigint, %s::bigint)) AS v",
        (sender, receiver, asset, units, *sent, *received),
    )

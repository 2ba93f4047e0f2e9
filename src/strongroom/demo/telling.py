"""What a demo says of itself once it is ready: one line of JSON for tools, or all that a person needs to begin."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from strongroom.demo.house import DemoUser
from strongroom.demo.nodes import NodeView

OUTSIDE_ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
"""An address of nobody in the house: the example of BIP-173, with the prefix of a practice chain."""


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """A demo that takes requests. Its line of JSON is a contract with the tools that start demos; `nodes` is in it
    where some chains are not simulated."""

    base_url: str
    data: str
    users: Sequence[DemoUser]
    nodes: Sequence[NodeView] = ()


def json_line(ready: Ready) -> str:
    """Return the demo as one line of JSON."""
    return msgspec.json.encode(ready).decode()


def greeting(ready: Ready) -> str:
    """Return the demo as text for people; every line that can be pasted is whole, however long it is."""
    url, users = ready.base_url, ready.users
    lines = [f"Strongroom is ready: {url}", _coins(ready.nodes), ""]
    lines += [f"  API reference  {url}/docs", f"  OpenAPI        {url}/openapi.json", f"  health         {url}/readyz"]
    lines += [f"  data           {ready.data}"]
    lines += [f"  {node.program:<13}  {node.url}, process {node.pid}, data {node.data}" for node in ready.nodes]
    lines += [""]
    for user in users:
        of = f", sub-account of {user.parent}" if user.parent else ""
        lines += [f"{user.username} <{user.email}>, uid {user.uid}{of}"]
        lines += [f"  api key     {user.api_key}", f"  api secret  {user.api_secret}", ""]
    alice, bob = users[0], users[1]
    for what, line in curl_lines(url, alice, bob):
        lines += [f"# {what}", line, ""]
    faucet = f"{_program()} faucet alice BTC 0.5 --data {shlex.quote(ready.data)}"
    lines += ["# coins for alice, as a deposit on the practice chain", faucet, ""]
    lines += ["Ctrl-C stops the server and its nodes." if ready.nodes else "Ctrl-C stops the server."]
    return "\n".join(lines)


def _coins(nodes: Sequence[NodeView]) -> str:
    """Return what kind of money this is."""
    if not nodes:
        return "The coins are simulated, and everything here is worth nothing."
    *first, last = [node.title for node in nodes]
    real = f"{', '.join(first)} and {last} run on nodes of their own" if first else f"{last} runs on a node of its own"
    return f"{real}, the other chains are simulated, and everything here is worth nothing."


def _program() -> str:
    """Return how this program was called, so that the line works where it was: `.venv/bin/strongroom`, say."""
    return shlex.quote(sys.argv[0] if Path(sys.argv[0]).name == "strongroom" else "strongroom")


def curl_lines(url: str, alice: DemoUser, bob: DemoUser) -> list[tuple[str, str]]:
    """Return what alice can do, each as a title and a line for any shell that signs and sends one request."""
    transfer = {"asset": "USDT", "amount": "1.25", "toUser": bob.username, "toUserMail": bob.email}
    withdrawal = {"currency": "BTC-Bitcoin", "address": OUTSIDE_ADDRESS, "tag": "", "amount": "0.002"}
    address = {"crypto": "BTC", "network": "BITCOIN"}
    wallet, unified = "/api/v3.3/user/wallet", "/public-api/wallet/v1/user/crypto/address"
    # The same key gives the same answer again, so that the line can be pasted as often as anybody likes.
    once = "Idempotency-Key: demo-address"
    return [
        ("alice's balance", _line(url, alice, wallet, mount="/spot")),
        ("a transfer to bob", _line(url, alice, f"{wallet}/transfer", transfer, mount="/spot")),
        ("a deposit address of alice's", _line(url, alice, unified, address, header=once)),
        ("her newest deposit addresses", _line(url, alice, unified, query="crypto=BTC&network=BITCOIN")),
        ("a withdrawal", _line(url, alice, f"{wallet}/withdraw", withdrawal, mount="/spot")),
        ("her history", _line(url, alice, f"{wallet}_history", query="count=20", mount="/spot")),
    ]


def _line(
    url: str,
    user: DemoUser,
    path: str,
    body: dict[str, str] | None = None,
    *,
    mount: str = "",
    query: str = "",
    header: str = "",
) -> str:
    """Return a line that makes its own nonce and signature, for a POSIX shell with curl, openssl and GNU date."""
    text = msgspec.json.encode(body).decode() if body is not None else ""
    message = f'"{path}$N"{shlex.quote(text)}' if text else f'"{path}$N"'
    sign = f"printf %s {message} | openssl dgst -sha384 -hmac {user.api_secret} | sed 's/^.*= *//'"
    # One substitution gives both headers, four words in all, so that nonce and signature belong together.
    headers = f"$(N=$(date +%s%3N); printf '%s ' -H request-nonce:$N -H request-sign:$({sign}))"
    parts = [f"curl -sS --fail-with-body -H request-api:{user.api_key} {headers}"]
    if header:
        parts.append(f"-H {shlex.quote(header)}")
    if body is not None:
        parts.append(f"-H content-type:application/json -d {shlex.quote(text)}")
    target = f"{url}{mount}{path}" + (f"?{query}" if query else "")
    return " ".join([*parts, shlex.quote(target)])

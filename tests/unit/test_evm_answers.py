"""What a real node answers seldom: a node of our own over HTTP says it here, and nothing is taken for granted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from strongroom.custody.chain import Fate, InsufficientFunds, Rejected, Unreachable
from strongroom.custody.networks.evm import EvmChain
from strongroom.custody.networks.evm_transactions import network_of
from strongroom.custody.rpc import Node
from strongroom.wallet.payments import nonce_text

HOT = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
THEIRS = "0x00000000000000000000000000000000DeaDBeef"
TXID = "0x" + "a" * 64
RIVAL = "0x" + "b" * 64


def block(number: int, *transactions: dict[str, str], letter: str = "c") -> dict[str, Any]:
    """Return a block as a node tells it."""
    hashes = {"hash": "0x" + letter * 64, "parentHash": "0x" + "d" * 64}
    return {"number": hex(number), "timestamp": "0x10", "transactions": list(transactions), **hashes}


def paying(txid: str = TXID, nonce: int = 0) -> dict[str, str]:
    """Return a transaction of the hot wallet as a node tells it."""
    money = {"value": "0x5", "gas": "0x5208", "gasPrice": "0x2", "input": "0x"}
    return {"hash": txid, "from": HOT.lower(), "to": THEIRS.lower(), "nonce": hex(nonce), **money}


class No(msgspec.Struct):
    """A node's refusal."""

    message: str
    code: int = -32000


def _answer(question: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    said = answers[question["method"]]
    said = said(*question["params"]) if callable(said) else said
    return {"id": question["id"], **({"error": said} if isinstance(said, No) else {"result": said})}


@asynccontextmanager
async def node_that_says(answers: dict[str, Any]) -> AsyncIterator[EvmChain]:
    """Give the chain of a node that has an answer, or a function for it, to each method; it is on chain 1."""
    answers = {"eth_chainId": "0x1", "eth_syncing": False, **answers}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = msgspec.json.encode(_answer(msgspec.json.decode(await reader.readexactly(length)), answers))
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    node = Node(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield EvmChain(network_of("ETHEREUM", {}), 1, lambda _: HOT, [], node, poll_s=0.02)
    finally:
        await node.close()
        server.close()
        await server.wait_closed()


async def test_a_node_behind_its_chain_is_not_used() -> None:
    """A node that is still catching up is refused, for it does not know yet what happened."""
    async with node_that_says({"eth_chainId": "0x1", "eth_syncing": {"currentBlock": "0x1"}}) as chain:
        with pytest.raises(Unreachable, match="catching up"):
            await chain.check_identity()


async def test_a_block_without_receipts_is_empty_only_where_it_was_given_up() -> None:
    """Missing receipts of a block on the best chain are asked for again, those of an orphan are gone."""
    ours = block(7, paying())
    answers = {"eth_getBlockByHash": ours, "eth_getBlockReceipts": None, "eth_getBlockByNumber": ours}
    async with node_that_says(answers) as chain:
        with pytest.raises(Unreachable, match="no receipts"):
            _ = await chain.outputs_in(ours["hash"])
    async with node_that_says(answers | {"eth_getBlockByNumber": block(7, letter="e")}) as chain:
        assert list(await chain.outputs_in(ours["hash"])) == []


@pytest.mark.parametrize("pending", [None, block(7, paying())])
async def test_a_node_without_a_pending_block_shows_nothing_waiting(pending: Any) -> None:
    """A node that has no pending block, or shows its newest in its place, shows nothing as waiting."""

    def by_number(which: str, _: bool) -> Any:
        return pending if which == "pending" else block(7, paying())

    async with node_that_says({"eth_getBlockByNumber": by_number}) as chain:
        assert list(await chain.mempool()) == []


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("insufficient funds for gas * price + value", InsufficientFunds),
        ("replacement transaction underpriced", Rejected),
        ("nonce too low", Rejected),
        ("internal error", Unreachable),
    ],
)
async def test_a_refusal_is_told_by_its_reason(reason: str, kind: type[Exception]) -> None:
    """What a node refuses for a known reason is refused, and any other reason settles nothing."""
    answers = {"eth_sendRawTransaction": No(reason), "eth_getTransactionByHash": None}
    async with node_that_says(answers) as chain:
        with pytest.raises(kind):
            _ = await chain.broadcast(b"\x02")
    async with node_that_says(answers | {"eth_getTransactionByHash": paying()}) as chain:
        assert (await chain.broadcast(b"\x02")).startswith("0x")


@pytest.mark.parametrize(("winner", "fate"), [(RIVAL, Fate.CONFLICTED), (TXID, Fate.UNKNOWN)])
async def test_a_transaction_mined_while_it_is_looked_for_is_not_its_own_rival(winner: str, fate: Fate) -> None:
    """Where the nonce was spent by the transaction itself, nothing conflicts, though its receipt is late."""
    answers = {
        "eth_getTransactionReceipt": None,
        "eth_getTransactionCount": "0x1",
        "eth_getBlockByNumber": block(0, paying(winner)),
        "eth_getTransactionByHash": None,
    }
    async with node_that_says(answers) as chain:
        assert (await chain.transaction(TXID, (nonce_text(0),))).fate is fate


async def test_a_receipt_of_a_block_given_up_does_not_count() -> None:
    """A node that still tells the receipt of an orphan does not make its transaction mined."""
    receipt = {"transactionHash": TXID, "blockHash": "0x" + "c" * 64, "blockNumber": "0x7", "gasUsed": "0x1"}
    answers = {"eth_getTransactionReceipt": receipt | {"status": "0x1"}, "eth_getTransactionByHash": paying()}
    async with node_that_says(answers | {"eth_getBlockByNumber": block(7, letter="e")}) as chain:
        assert (await chain.transaction(TXID)).fate is Fate.MEMPOOL
    async with node_that_says(answers | {"eth_getBlockByNumber": block(7)}) as chain:
        assert (await chain.transaction(TXID)).fate is Fate.MINED

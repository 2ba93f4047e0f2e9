"""The way to a node over a bad line: no answer is told as none, and never as a wrong one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from strongroom.custody.chain import Unreachable
from strongroom.custody.rpc import Node, RpcError
from support.fault_proxy import FaultProxy, Mode
from support.nodes import FIRST_COINS, Anvil, Bitcoind, asking

TIMEOUT_S = 0.5
QUESTIONS = 300


@pytest.fixture
async def anvil(tmp_path: Path) -> AsyncIterator[Anvil]:
    """A node that answers quickly."""
    async with Anvil(tmp_path) as node:
        yield node


@pytest.fixture
async def proxy(anvil: Anvil) -> AsyncIterator[FaultProxy]:
    """The line to it."""
    async with FaultProxy(anvil.port) as line:
        yield line


@pytest.fixture
async def node(proxy: FaultProxy) -> AsyncIterator[Node]:
    """The client at the other end of the line, which does not wait long."""
    async with asking(f"http://127.0.0.1:{proxy.port}", TIMEOUT_S) as client:
        yield client


async def test_a_good_line_changes_nothing(node: Node) -> None:
    """Over a good line the node's answers arrive, one at a time or many in one go."""
    assert await node.call("eth_chainId") == "0x7a69"
    blocks = await node.call_all("eth_getBlockByNumber", [["0x0", False], ["0x1", False]])
    assert [block and block["number"] for block in blocks] == ["0x0", None]


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.STALL, Mode.CUT_ANSWER])
@pytest.mark.parametrize("warm", [False, True], ids=["first", "later"])
async def test_a_bad_line_is_unreachable(node: Node, proxy: FaultProxy, mode: Mode, warm: bool) -> None:
    """A fault is told as such on a new connection and on one that has worked, and is over when the line is good."""
    if warm:
        assert await node.call("eth_chainId") == "0x7a69"
    proxy.mode = mode
    with pytest.raises(Unreachable):
        await node.call("eth_blockNumber")
    with pytest.raises(Unreachable):
        await node.call_all("eth_getBlockByNumber", [["0x0", False]])

    proxy.mode = Mode.PASS
    assert await node.call("eth_chainId") == "0x7a69"


async def test_nobody_listening_is_unreachable(node: Node, proxy: FaultProxy) -> None:
    """An address at which nothing listens is told as unreachable."""
    await proxy.close()
    with pytest.raises(Unreachable):
        await node.call("eth_chainId")


async def test_a_node_that_is_stopped_is_unreachable_until_it_is_back(anvil: Anvil) -> None:
    """A node that was killed under an open connection is unreachable, and answers the same client once it is back."""
    async with asking(anvil.url, TIMEOUT_S) as node:
        assert await node.call("eth_chainId") == "0x7a69"
        await anvil.kill()
        with pytest.raises(Unreachable):
            await node.call("eth_chainId")
        await anvil.start()
        assert await node.call("eth_chainId") == "0x7a69"


@pytest.mark.parametrize("answer_bytes", [1, 20, 100, 150, 200])
async def test_part_of_an_answer_is_no_answer(node: Node, proxy: FaultProxy, answer_bytes: int) -> None:
    """An answer that is cut anywhere, in its headers or in its body, is told as unreachable."""
    proxy.mode, proxy.answer_bytes = Mode.CUT_ANSWER, answer_bytes
    with pytest.raises(Unreachable):
        await node.call("eth_getBlockByNumber", "latest", False)


async def test_what_was_asked_may_have_happened(node: Node, proxy: FaultProxy, anvil: Anvil) -> None:
    """A question whose answer was cut off has reached the node, and done there what it asked for."""
    proxy.mode = Mode.CUT_ANSWER
    with pytest.raises(Unreachable):
        await node.call("anvil_mine", "0x1")
    assert await anvil.height() == 1


async def test_a_slow_line_is_waited_for(node: Node, proxy: FaultProxy) -> None:
    """An answer that comes in slow pieces arrives whole."""
    assert await node.call("eth_chainId") == "0x7a69"
    proxy.mode, proxy.delay_s = Mode.SLOW, 0.001
    assert (await node.call("eth_getBlockByNumber", "latest", False))["number"] == "0x0"


async def test_a_line_that_is_too_slow_is_unreachable(node: Node, proxy: FaultProxy) -> None:
    """A line whose next piece does not come in time is given up."""
    proxy.mode, proxy.delay_s = Mode.SLOW, TIMEOUT_S * 2
    with pytest.raises(Unreachable):
        await node.call("eth_chainId")


async def test_no_question_gets_the_answer_of_another(node: Node, proxy: FaultProxy) -> None:
    """Over a line that fails again and again, every answer belongs to its question, and some do arrive."""
    chance = random.Random(7)

    async def echoed(number: int) -> bool:
        try:
            unit = await node.call("eth_getStorageAt", f"0x{number:040x}", "0x0", "latest")
            count = await node.call("eth_getTransactionCount", f"0x{number:040x}", "latest")
        except Unreachable:
            return False
        assert (int(unit, 16), int(count, 16)) == (number, 0)
        return True

    async def trouble() -> None:
        while True:
            proxy.mode = chance.choice([Mode.PASS, Mode.PASS, Mode.REFUSE, Mode.CUT_ANSWER, Mode.STALL])
            await asyncio.sleep(chance.uniform(0.001, 0.02))

    for number in range(QUESTIONS):
        await node.call("anvil_setStorageAt", f"0x{number:040x}", "0x" + "0" * 64, f"0x{number:064x}")
    troublemaker = asyncio.create_task(trouble())
    try:
        numbers = [chance.randrange(QUESTIONS) for _ in range(QUESTIONS)]
        arrived = [
            ok
            for start in range(0, QUESTIONS, 10)
            for ok in await asyncio.gather(*(echoed(number) for number in numbers[start : start + 10]))
        ]
    finally:
        _ = troublemaker.cancel()
    assert True in arrived
    assert False in arrived


async def test_a_nodes_no_is_told_with_its_number(node: Node) -> None:
    """A node that understands and refuses is told apart from one that does not answer."""
    with pytest.raises(RpcError) as told:
        await node.call("eth_noSuchMethod")
    assert told.value.code == -32601
    with pytest.raises(RpcError):
        await node.call_all("eth_getBalance", [["0x" + "00" * 20, "latest"], ["no address", "latest"]])


async def test_a_coin_nodes_answers_are_exact(tmp_path: Path) -> None:
    """Amounts come to the last digit as decimals, a refusal as the node's own number, a wrong password as no answer."""
    async with Bitcoind(tmp_path) as bitcoind, asking(bitcoind.url) as node:
        _ = await bitcoind.mine(FIRST_COINS)
        address = await bitcoind.stranger("getnewaddress")
        txid = await bitcoind.pay(address, "12.30000001")
        outs = (await node.call("getrawtransaction", txid, 1))["vout"]
        assert Decimal("12.30000001") in [out["value"] for out in outs]
        assert all(isinstance(out["value"], Decimal) for out in outs)

        with pytest.raises(RpcError) as told:
            await node.call("getblockhash", 10_000)
        assert told.value.code == -8
        with pytest.raises(RpcError):
            await node.call_all("getblockhash", [[1], [10_000]])

        async with asking(f"http://strongroom:wrong@127.0.0.1:{bitcoind.port}") as stranger:
            with pytest.raises(Unreachable, match="password"):
                await stranger.call("getblockcount")

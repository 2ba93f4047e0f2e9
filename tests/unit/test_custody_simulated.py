"""The simulated node behaves as a network does: it mines, pays, refuses, reorganises, fails, and forgets nothing."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from strongroom.clock import Clock, SetClock
from strongroom.custody.chain import Candidate, Fate, Funds, InsufficientFunds, Payee, Rejected, Unreachable
from strongroom.custody.derivation import Branch, account_xpubs
from strongroom.custody.families import NETWORKS
from strongroom.custody.networks.simulated import SimulatedChain, SimulatedNode
from strongroom.custody.signer import LocalSigner
from strongroom.errors import InvariantBroken
from strongroom.wallet.payments import nonce_of

SEED = bytes(range(64))
SIGNER = LocalSigner(SEED, NETWORKS.values())
XPUBS = account_xpubs(SEED, NETWORKS.values())
OURS = {network.id: Branch(network, XPUBS[network.id]).address(0) for network in NETWORKS.values()}
STRANGERS = account_xpubs(bytes(range(1, 65)), NETWORKS.values())
THEIRS = {network.id: Branch(network, STRANGERS[network.id]).address(0) for network in NETWORKS.values()}
COIN = {network.id: 10 ** network.decimals[""] for network in NETWORKS.values()}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SimulatedNode]:
    """A node with every network of the demo, which mines only when told to."""
    fresh = SimulatedNode(tmp_path / "chains.sqlite", NETWORKS.values(), Clock())
    yield fresh
    fresh.close()


async def funded(node: SimulatedNode, network: str, amount: int = 0) -> SimulatedChain:
    """Return a network whose hot wallet has `amount`, ten coins by default, in one mined deposit."""
    chain = node.chain(network)
    node.register(network, await SIGNER.public_key(network))
    await chain.watch([OURS[network].address])
    _ = await node.faucet(network, *OURS[network], "", amount or 10 * COIN[network])
    _ = await node.mine(network)
    return chain


async def next_nonce(chain: SimulatedChain) -> int:
    """Return the nonce that a payment drafted now would have."""
    address, tag = THEIRS[chain.network]
    return nonce_of((await chain.draft([Payee(address, tag, "", 1)], Funds())).spends[0])


async def payment(chain: SimulatedChain, amount: int, nonce: int = 0, fee: int = 100, asset_id: str = "") -> Candidate:
    """Return a signed payment to a stranger."""
    address, tag = THEIRS[chain.network]
    body = chain.draft_with([Payee(address, tag, asset_id, amount)], nonce, fee).body
    return chain.assemble(body, await SIGNER.sign(chain.network, 0, body))


@pytest.mark.parametrize("network", NETWORKS)
async def test_a_deposit_waits_and_then_is_in_a_block(node: SimulatedNode, network: str) -> None:
    """What the mempool shows first is in the next block under the same name, and counts as funds only then."""
    chain = node.chain(network)
    await chain.watch([OURS[network].address])
    txid = await node.faucet(network, *OURS[network], "", 3 * COIN[network])
    [seen] = await chain.mempool()
    assert (seen.txid, seen.index, seen.address, seen.tag) == (txid, 0, *OURS[network])
    assert (seen.asset_id, seen.amount, seen.ours) == ("", 3 * COIN[network], False)
    assert (await chain.transaction(txid)).fate is Fate.MEMPOOL
    assert await chain.balance("") == 0
    [block] = await node.mine(network)
    assert await chain.outputs_in(block.hash) == [seen]
    assert await chain.mempool() == []
    assert (await chain.transaction(txid)).block == block
    assert await chain.balance("") == 3 * COIN[network]


async def test_each_block_knows_its_parent(node: SimulatedNode) -> None:
    """Heights are dense from the first block on, and parents form one chain."""
    chain = node.chain("BITCOIN")
    _ = await node.mine("BITCOIN", 5)
    tip = await chain.tip()
    assert tip.height == 5
    for height in range(1, 6):
        block, parent = await chain.block_at(height), await chain.block_at(height - 1)
        assert block is not None
        assert parent is not None
        assert (block.height, block.parent_hash) == (height, parent.hash)
    assert await chain.block_at(6) is None
    assert await chain.outputs_in("unknown") == []


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        ("BITCOIN", "[0-9a-f]{64}"),
        ("LITECOIN", "[0-9a-f]{64}"),
        ("ERC20", "0x[0-9a-f]{64}"),
        ("RIPPLE", "[0-9A-F]{64}"),
    ],
)
async def test_identifiers_look_as_they_do_on_the_real_network(node: SimulatedNode, network: str, shape: str) -> None:
    """Transactions of deposits and payments, and blocks, are spelled in the family's way."""
    chain = await funded(node, network)
    candidate = await payment(chain, 1)
    deposit = await node.faucet(network, *OURS[network], "", 1)
    for text in (candidate.txid, deposit, (await chain.tip()).hash):
        assert re.fullmatch(shape, text)


async def test_two_equal_deposits_are_two(node: SimulatedNode) -> None:
    """Nothing but their order tells them apart, and still each has a txid of its own."""
    txids = {await node.faucet("BITCOIN", *OURS["BITCOIN"], "", 5) for _ in range(3)}
    assert len(txids) == 3


@pytest.mark.parametrize(
    ("network", "address", "tag", "asset_id", "amount"),
    [
        ("BITCOIN", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "", "", 1),
        ("BITCOIN", THEIRS["BITCOIN"].address, "7", "", 1),
        ("BITCOIN", THEIRS["BITCOIN"].address, "", "USDT", 1),
        ("BITCOIN", THEIRS["BITCOIN"].address, "", "", 0),
        ("ERC20", THEIRS["ERC20"].address, "", "", 2**256),
        ("RIPPLE", THEIRS["RIPPLE"].address, "", "", 1),
    ],
)
async def test_nobody_can_be_paid_who_is_not_there(
    node: SimulatedNode, network: str, address: str, tag: str, asset_id: str, amount: int
) -> None:
    """The faucet takes neither a wrong address nor a wrong tag, asset or amount."""
    with pytest.raises(ValueError, match=r"\w"):
        _ = await node.faucet(network, address, tag, asset_id, amount)
    assert await node.chain(network).mempool() == []


@pytest.mark.parametrize("network", NETWORKS)
async def test_a_signed_payment_is_mined_and_leaves_the_funds(node: SimulatedNode, network: str) -> None:
    """It is taken, waits, is mined as ours, and costs its amount and its fee; a second time it is the same one."""
    chain = await funded(node, network)
    candidate = await payment(chain, COIN[network], nonce=await next_nonce(chain))
    assert await chain.broadcast(candidate.blob) == candidate.txid
    assert await chain.broadcast(candidate.blob) == candidate.txid
    assert await chain.balance("") == 9 * COIN[network] - 100
    assert await next_nonce(chain) == 1
    [block] = await node.mine(network)
    [output] = await chain.outputs_in(block.hash)
    assert (output.txid, output.address, output.ours) == (candidate.txid, THEIRS[network].address, True)
    status = await chain.transaction(candidate.txid)
    assert (status.fate, status.block, status.fee) == (Fate.MINED, block, 100)
    assert await chain.broadcast(candidate.blob) == candidate.txid
    assert await chain.balance("") == 9 * COIN[network] - 100


async def test_a_token_is_paid_from_the_tokens_and_its_fee_from_the_coins(node: SimulatedNode) -> None:
    """Amounts beyond 64 bits are exact, and assets do not mix."""
    chain = await funded(node, "ERC20", 123_456_789 * 10**18 + 7)
    _ = await node.faucet("ERC20", *OURS["ERC20"], "USDT", 5_000_000)
    _ = await node.mine("ERC20")
    _ = await chain.broadcast((await payment(chain, 2_000_000, asset_id="USDT", fee=3)).blob)
    assert await chain.balance("USDT") == 3_000_000
    assert await chain.balance("USDC") == 0
    assert await chain.balance("") == 123_456_789 * 10**18 + 4


async def test_a_payment_beyond_the_funds_is_refused_until_they_arrive(node: SimulatedNode) -> None:
    """The fee counts, a deposit that still waits does not, and the same payment is taken later."""
    chain = await funded(node, "BITCOIN", 1_000)
    candidate = await payment(chain, 901)
    with pytest.raises(InsufficientFunds):
        _ = await chain.broadcast(candidate.blob)
    _ = await node.faucet("BITCOIN", *OURS["BITCOIN"], "", 1)
    with pytest.raises(InsufficientFunds):
        _ = await chain.broadcast(candidate.blob)
    assert (await chain.transaction(candidate.txid)).fate is Fate.UNKNOWN
    _ = await node.mine("BITCOIN")
    assert await chain.broadcast(candidate.blob) == candidate.txid
    assert await chain.balance("") == 0


async def test_a_payment_needs_the_signature_of_the_hot_wallet(node: SimulatedNode) -> None:
    """Another key's, another payment's, a broken or missing signature moves nothing."""
    chain = await funded(node, "BITCOIN")
    candidate = await payment(chain, 5)
    body, good = msgspec.msgpack.decode(candidate.blob)
    other = await payment(chain, 6)
    forged = [
        chain.assemble(body, await SIGNER.sign("LITECOIN", 0, body)).blob,
        chain.assemble(body, msgspec.msgpack.decode(other.blob)[1]).blob,
        chain.assemble(body, good[:-1]).blob,
        chain.assemble(body, b"").blob,
        chain.assemble(body.replace(b'"amount":5', b'"amount":6'), good).blob,
    ]
    for blob in forged:
        with pytest.raises(Rejected, match="signature"):
            _ = await chain.broadcast(blob)
    assert await chain.balance("") == 10 * COIN["BITCOIN"]


async def test_a_malformed_blob_is_refused(node: SimulatedNode) -> None:
    """Whatever is in it, the answer is a reasoned no."""
    chain = await funded(node, "BITCOIN")
    body = msgspec.msgpack.decode((await payment(chain, 5)).blob)[0]
    bodies = [
        b"",
        b"{}",
        b"\xff" * 20,
        b" " + body,
        body.replace(b"BITCOIN", b"RIPPLE"),
        body.replace(b'"nonce":0', b'"nonce":-1'),
        body.replace(b'"amount":5', b'"amount":0'),
        body.replace(b'"amount":5', b'"amount":5.5'),
        body.replace(b'"tag":""', b'"tag":"1"'),
    ]
    blobs = [chain.assemble(wrong, await SIGNER.sign("BITCOIN", 0, wrong)).blob for wrong in bodies]
    for blob in (*blobs, b"", b"\0" * 10, b"\xc1", b"x" * 1_000_000):
        with pytest.raises(Rejected):
            _ = await chain.broadcast(blob)


async def test_two_candidates_with_one_nonce_exclude_each_other(node: SimulatedNode) -> None:
    """A higher fee replaces, a lower one does not; the loser is settled only when the winner is mined."""
    chain = await funded(node, "BITCOIN")
    first, second, third = [await payment(chain, 5, fee=fee) for fee in (100, 200, 150)]
    _ = await chain.broadcast(first.blob)
    _ = await chain.broadcast(second.blob)
    with pytest.raises(Rejected, match="waits"):
        _ = await chain.broadcast(third.blob)
    with pytest.raises(Rejected, match="replaced"):
        _ = await chain.broadcast(first.blob)
    assert (await chain.transaction(first.txid)).fate is Fate.UNKNOWN
    [block] = await node.mine("BITCOIN")
    assert len(await chain.outputs_in(block.hash)) == 1
    assert (await chain.transaction(second.txid)).fate is Fate.MINED
    lost = await chain.transaction(first.txid)
    assert (lost.fate, lost.block) == (Fate.CONFLICTED, block)
    with pytest.raises(Rejected, match="spent"):
        _ = await chain.broadcast(third.blob)
    assert await chain.balance("") == 10 * COIN["BITCOIN"] - 205


async def test_a_nonce_that_is_never_used_stops_no_other(node: SimulatedNode) -> None:
    """Nonces are tickets, not a queue."""
    chain = await funded(node, "ERC20")
    later = await payment(chain, 5, nonce=7)
    _ = await chain.broadcast(later.blob)
    _ = await node.mine("ERC20")
    assert (await chain.transaction(later.txid)).fate is Fate.MINED
    assert await next_nonce(chain) == 8


async def test_a_reorganisation_takes_confirmations_back(node: SimulatedNode) -> None:
    """The orphans' transactions are in the newest block; the orphans can still be read, but are not on the chain."""
    chain = await funded(node, "BITCOIN")
    txid = await node.faucet("BITCOIN", *OURS["BITCOIN"], "", 77)
    orphans = await node.mine("BITCOIN", 3)
    fresh = await node.reorg("BITCOIN", 3)
    assert [block.height for block in fresh] == [2, 3, 4, 5]
    assert fresh[0].parent_hash == orphans[0].parent_hash
    assert not {block.hash for block in fresh} & {block.hash for block in orphans}
    assert await chain.tip() == fresh[-1]
    assert await chain.block_at(2) == fresh[0]
    assert (await chain.transaction(txid)).block == fresh[-1]
    assert [output.txid for output in await chain.outputs_in(orphans[0].hash)] == [txid]
    assert [output.txid for output in await chain.outputs_in(fresh[-1].hash)] == [txid]
    assert await chain.balance("") == 10 * COIN["BITCOIN"] + 77


async def test_a_reorganisation_can_drop_a_deposit_and_a_payment_for_good(node: SimulatedNode) -> None:
    """What is dropped is conflicted, never mined again, and its money is back where it was."""
    chain = await funded(node, "BITCOIN")
    deposit = await node.faucet("BITCOIN", *OURS["BITCOIN"], "", 77)
    paid = await payment(chain, 5)
    _ = await chain.broadcast(paid.blob)
    _ = await node.mine("BITCOIN", 2)
    _ = await node.reorg("BITCOIN", 2, drop=[deposit, paid.txid])
    _ = await node.mine("BITCOIN", 2)
    for txid in (deposit, paid.txid):
        status = await chain.transaction(txid)
        assert (status.fate, status.block) == (Fate.CONFLICTED, None)
    assert await chain.balance("") == 10 * COIN["BITCOIN"]
    with pytest.raises(Rejected):
        _ = await chain.broadcast(paid.blob)
    with pytest.raises(Rejected, match="spent"):
        _ = await chain.broadcast((await payment(chain, 6)).blob)


async def test_a_reorganisation_that_can_not_be_changes_nothing(node: SimulatedNode) -> None:
    """The first block stays, and only what is orphaned can be dropped."""
    chain = await funded(node, "BITCOIN")
    [txid] = {output.txid for output in await chain.outputs_in((await chain.tip()).hash)}
    _ = await node.mine("BITCOIN")
    tip = await chain.tip()
    for depth in (0, 3):
        with pytest.raises(InvariantBroken):
            _ = await node.reorg("BITCOIN", depth)
    with pytest.raises(InvariantBroken):
        _ = await node.reorg("BITCOIN", 1, drop=[txid])
    assert await chain.tip() == tip
    assert (await chain.transaction(txid)).fate is Fate.MINED


async def test_a_payment_told_to_fail_is_taken_and_then_conflicted(node: SimulatedNode) -> None:
    """It looks like any other until the next block; its nonce is gone, its money is not, and the next one is fine."""
    chain = await funded(node, "BITCOIN")
    node.fail_next("BITCOIN")
    doomed, fine = await payment(chain, 5), await payment(chain, 6, nonce=1)
    _ = await chain.broadcast(doomed.blob)
    _ = await chain.broadcast(fine.blob)
    assert (await chain.transaction(doomed.txid)).fate is Fate.MEMPOOL
    _ = await node.mine("BITCOIN")
    assert (await chain.transaction(doomed.txid)).fate is Fate.CONFLICTED
    assert (await chain.transaction(fine.txid)).fate is Fate.MINED
    assert await chain.balance("") == 10 * COIN["BITCOIN"] - 106
    with pytest.raises(Rejected):
        _ = await chain.broadcast(doomed.blob)


async def test_a_payment_made_void_settles_all_its_candidates(node: SimulatedNode) -> None:
    """Whatever took the nonce took it from the replaced candidate, too; what is mined cannot be made void."""
    chain = await funded(node, "BITCOIN")
    first, second = [await payment(chain, 5, fee=fee) for fee in (100, 200)]
    _ = await chain.broadcast(first.blob)
    _ = await chain.broadcast(second.blob)
    await node.void("BITCOIN", second.txid)
    for candidate in (first, second):
        status = await chain.transaction(candidate.txid)
        assert (status.fate, status.block) == (Fate.CONFLICTED, None)
    with pytest.raises(InvariantBroken):
        await node.void("BITCOIN", second.txid)


async def test_a_lost_answer_hides_a_broadcast_that_happened(node: SimulatedNode) -> None:
    """The sender hears nothing, asks again, and finds the one transaction there is."""
    chain = await funded(node, "BITCOIN")
    candidate = await payment(chain, 5)
    node.lose_next_answer("BITCOIN")
    with pytest.raises(Unreachable):
        _ = await chain.broadcast(candidate.blob)
    assert (await chain.transaction(candidate.txid)).fate is Fate.MEMPOOL
    assert await chain.broadcast(candidate.blob) == candidate.txid
    assert len(await chain.mempool()) == 1


async def test_a_paused_network_is_unreachable_and_goes_on(node: SimulatedNode) -> None:
    """Every question fails, others networks answer, blocks and deposits are there afterwards."""
    chain = await funded(node, "BITCOIN")
    candidate = await payment(chain, 5)
    node.pause("BITCOIN")
    for question in (chain.tip(), chain.mempool(), chain.broadcast(candidate.blob), chain.transaction("x")):
        with pytest.raises(Unreachable):
            _ = await question
    assert (await node.chain("RIPPLE").tip()).height == 0
    txid = await node.faucet("BITCOIN", *OURS["BITCOIN"], "", 7)
    _ = await node.mine("BITCOIN")
    node.resume("BITCOIN")
    assert (await chain.tip()).height == 2
    assert (await chain.transaction(txid)).fate is Fate.MINED
    assert (await chain.transaction(candidate.txid)).fate is Fate.UNKNOWN


async def test_whoever_waits_for_a_change_misses_none(node: SimulatedNode) -> None:
    """A change between the look and the wait counts, one afterwards wakes, and none at all is a time-out."""
    chain = node.chain("BITCOIN")
    seen = await chain.wait_change(-1, 60)
    assert await chain.wait_change(seen, 0.01) == seen
    _ = await node.mine("BITCOIN")
    between = await chain.wait_change(seen, 60)
    assert between != seen
    waiting = asyncio.create_task(chain.wait_change(between, 60))
    await asyncio.sleep(0)
    _ = await node.faucet("BITCOIN", *OURS["BITCOIN"], "", 7)
    assert await waiting != between


async def test_the_miner_mines_every_network_until_it_is_cancelled(tmp_path: Path) -> None:
    """Blocks come at the given pace and stop with the task."""
    node = SimulatedNode(tmp_path / "chains.sqlite", NETWORKS.values(), Clock(), seconds_per_block=0.005)
    miner = asyncio.create_task(node.run())
    for network in NETWORKS:
        chain = node.chain(network)
        seen = await chain.wait_change(0, 30)
        _ = await chain.wait_change(seen, 30)
    _ = miner.cancel()
    _ = await asyncio.wait([miner])
    assert miner.cancelled()
    heights = [(await node.chain(network).tip()).height for network in NETWORKS]
    assert all(height >= 2 for height in heights)
    node.close()


async def test_blocks_carry_the_time_of_the_clock(tmp_path: Path) -> None:
    """A past can be written with dates of its own."""
    clock = SetClock(1_700_000_000_000)
    node = SimulatedNode(tmp_path / "chains.sqlite", NETWORKS.values(), clock)
    clock.at_ms += 5_000
    [block] = await node.mine("RIPPLE")
    assert block.time_ms == 1_700_000_005_000
    node.close()


async def test_a_second_start_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    """Blocks, funds, waiting transactions, nonces and the registered key are all in the file."""
    path = tmp_path / "chains.sqlite"
    first = SimulatedNode(path, NETWORKS.values(), Clock())
    chain = await funded(first, "ERC20")
    waiting = await payment(chain, 5)
    _ = await chain.broadcast(waiting.blob)
    tip = await chain.tip()
    first.close()
    second = SimulatedNode(path, NETWORKS.values(), Clock())
    chain = second.chain("ERC20")
    assert await chain.tip() == tip
    assert await next_nonce(chain) == 1
    assert await chain.balance("") == 10 * COIN["ERC20"] - 105
    _ = await chain.broadcast((await payment(chain, 6, nonce=1)).blob)
    _ = await second.mine("ERC20")
    assert (await chain.transaction(waiting.txid)).fate is Fate.MINED
    second.close()


KILLED = """
import asyncio, sys
from pathlib import Path
from strongroom.clock import Clock
from strongroom.custody.families import BITCOIN
from strongroom.custody.networks.simulated import SimulatedNode

async def main():
    node = SimulatedNode(Path(sys.argv[1]), [BITCOIN], Clock())
    while True:
        txid = await node.faucet("BITCOIN", sys.argv[2], "", "", 7)
        [block] = await node.mine("BITCOIN")
        print(txid, block.hash, block.height, flush=True)

asyncio.run(main())
"""


def told_before_the_kill(path: Path, lines: int) -> list[list[str]]:
    """Return the first lines a mining process reports, which is then killed at work."""
    command = [sys.executable, "-c", KILLED, str(path), OURS["BITCOIN"].address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(sys.path)}) as child:
        assert child.stdout is not None
        told = [child.stdout.readline().split() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
    return told


async def test_a_killed_node_keeps_every_block_it_told_of(tmp_path: Path) -> None:
    """kill -9 in the middle of mining: what was reported is there, and the chain is whole."""
    path = tmp_path / "chains.sqlite"
    told = told_before_the_kill(path, lines=20)
    node = SimulatedNode(path, [NETWORKS["BITCOIN"]], Clock())
    chain = node.chain("BITCOIN")
    for txid, block_hash, height in told:
        block = await chain.block_at(int(height))
        assert block is not None
        assert block.hash == block_hash
        assert [output.txid for output in await chain.outputs_in(block_hash)] == [txid]
    assert (await chain.tip()).height >= 20
    node.close()


@pytest.mark.parametrize("network", NETWORKS)
async def test_a_payment_may_be_signed_elsewhere(node: SimulatedNode, network: str) -> None:
    """A body leaves as text, and its signature alone comes back as the candidate; another's signature does not."""
    chain = await funded(node, network)
    body = chain.draft_with([Payee(*THEIRS[network], "", 5)], 0, 100).body
    assert base64.b64decode(chain.unsigned(body)) == body
    signature = await SIGNER.sign(network, 0, body)
    candidate = chain.import_signed(body, f" {signature.hex()}\n")
    assert candidate == chain.assemble(body, signature)
    assert await chain.broadcast(candidate.blob) == candidate.txid
    other = await SIGNER.sign(network, 0, chain.draft_with([Payee(*THEIRS[network], "", 6)], 0, 100).body)
    for wrong in (other.hex(), signature.hex()[:-2], "", "no signature", "0" * 1_000):
        with pytest.raises(Rejected):
            _ = chain.import_signed(body, wrong)

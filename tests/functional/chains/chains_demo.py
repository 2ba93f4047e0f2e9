"""A demo on nodes of its own, as whoever starts it sees it: the same house, on chains that it brings along."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from strongroom.demo.house import KEYS_FILE
from support.client import V1, V3, ApiClient
from support.demos import STOPS_WITHIN_S, Demo, history_of, invoke, invoke_json, launch, output, run, running
from support.nodes import asking, need_node
from support.serving import eventually

CHAINS = ["bitcoin", "litecoin", "evm"]
PROGRAMS = {"BITCOIN": "bitcoind", "LITECOIN": "litecoind", "ERC20": "anvil"}
COINS = {"BITCOIN": "BTC", "LITECOIN": "LTC"}
OUTSIDE = "0x00000000000000000000000000000000DeaDBeef"


class Founded(NamedTuple):
    """A demo that was founded and stopped: its folder, which is to be copied, and what it has said."""

    folder: Path
    said: list[str]
    log: str


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    """What a first start and Ctrl-C leave behind."""
    for program in PROGRAMS.values():
        need_node(program)
    folder = tmp_path_factory.mktemp("founded") / "house"
    process = launch(folder, folder.with_name("log"), "--chains", "evm, bitcoin,Litecoin")
    try:
        said = said_by(process, folder.with_name("log"))
        process.send_signal(signal.SIGINT)
        assert process.wait(STOPS_WITHIN_S) == 0
    finally:
        end(process)
    return Founded(folder, said, folder.with_name("log").read_text())


@pytest.fixture
def folder(founded: Founded, tmp_path: Path) -> Path:
    """A copy of it, for a test of one's own."""
    return Path(shutil.copytree(founded.folder, tmp_path / "house"))


@pytest.fixture(scope="module")
def demo(founded: Founded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that is started again without a word about its chains, and leaves books that are whole."""
    folder = Path(shutil.copytree(founded.folder, tmp_path_factory.mktemp("demo") / "house"))
    with running(folder) as demo:
        yield demo
        assert demo.stop() == (0, "")
    assert invoke("ledger", "verify", "--data", folder).code == 0


def said_by(process: subprocess.Popen[str], errors: Path) -> list[str]:
    """Return what a demo says to people, once it has said all."""
    lines: list[str] = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(output(process).readline())
        assert lines[-1], errors.read_text()
    return [line.rstrip("\n") for line in lines]


def end(process: subprocess.Popen[str]) -> None:
    """See that a demo's process is gone, whatever became of the test."""
    process.kill()
    process.wait(STOPS_WITHIN_S)
    output(process).close()


def is_alive(pid: int) -> bool:
    """Say whether a process runs, and has not merely ended unnoticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def nodes_of(demo: Demo) -> dict[str, dict[str, Any]]:
    """Return what the demo says of its nodes, by their network."""
    return {node["network"]: node for node in demo.ready["nodes"]}


def ask(demo: Demo, network: str, method: str, *parameters: Any, wallet: str = "") -> Any:
    """Ask a demo's node, with what the demo says of it."""
    node = nodes_of(demo)[network]
    url = node["url"]
    if node["user"]:
        password = Path(node["password_file"]).read_text()
        url = url.replace("://", f"://{node['user']}:{password}@") + (f"/wallet/{wallet}" if wallet else "")

    async def answer() -> Any:
        async with asking(url) as client:
            return await client.call(method, *parameters)

    return asyncio.run(answer())


def available(client: ApiClient, asset: str) -> Decimal:
    """Return what a user can spend of an asset."""
    rows = client.get(f"{V1}user/assets").json()["data"]
    return next(Decimal(row["availableAmount"]) for row in rows if row["asset"] == asset)


def movement(client: ApiClient, ref: str) -> dict[str, Any]:
    """Return a line of a user's history."""
    rows: list[dict[str, Any]] = client.get(f"{V3}user/wallet_history").json()
    return next(row for row in rows if row["orderId"] == ref)


@pytest.mark.parametrize("network", COINS)
def test_a_deposit_is_credited_and_a_withdrawal_is_paid(demo: Demo, network: str) -> None:
    """The faucet's coins arrive with the next blocks, and what is withdrawn is on the node, paid to whom it was for."""
    alice, asset = demo.client("alice"), COINS[network]
    before = available(alice, asset)
    paid = demo.ask("faucet", "alice", asset, "0.75", "--wait")
    assert paid["credited"]
    assert available(alice, asset) == before + Decimal("0.75")
    assert ask(demo, network, "getrawtransaction", paid["txid"], 1)["confirmations"] > 0
    outside = ask(demo, network, "getnewaddress", "", "bech32", wallet="outside")
    body = {"currency": asset, "address": outside, "tag": "", "amount": "0.25"}
    ref = alice.post(f"{V3}user/wallet/withdraw", body).json()["withdrawId"]
    eventually(lambda: movement(alice, ref)["status"] == "COMPLETED")
    txid = movement(alice, ref)["txid"]
    outputs = ask(demo, network, "getrawtransaction", txid, 1)["vout"]
    fee = Decimal(str(movement(alice, ref)["fees"]))
    assert Decimal("0.25") - fee in [Decimal(out["value"]) for out in outputs]
    assert ask(demo, network, "getreceivedbyaddress", outside, wallet="outside") == Decimal("0.25") - fee
    alice.close()


def wei_of(demo: Demo, address: str) -> int:
    """Return what an address has in ether's smallest unit."""
    return int(ask(demo, "ERC20", "eth_getBalance", address, "latest"), 16)


@pytest.mark.parametrize("asset", ["ETH", "USDT"])
def test_ether_and_tokens_come_and_go(demo: Demo, asset: str) -> None:
    """What the faucet pays is credited, and what is withdrawn is paid by a transaction that succeeded on the node."""
    bob = demo.client("bob")
    before, had = available(bob, asset), wei_of(demo, OUTSIDE)
    assert demo.ask("faucet", "bob", asset, "75", "--wait")["credited"]
    assert available(bob, asset) == before + 75
    body = {"currency": f"{asset}-ERC20", "address": OUTSIDE, "tag": "", "amount": "50"}
    ref = bob.post(f"{V3}user/wallet/withdraw", body).json()["withdrawId"]
    eventually(lambda: movement(bob, ref)["status"] == "COMPLETED")
    receipt = ask(demo, "ERC20", "eth_getTransactionReceipt", movement(bob, ref)["txid"])
    assert receipt["status"] == "0x1"
    paid = 50 - Decimal(str(movement(bob, ref)["fees"]))
    if asset == "ETH":
        assert wei_of(demo, OUTSIDE) - had == paid * 10**18
    else:
        [transfer] = receipt["logs"]
        assert int(transfer["data"], 16) == paid * 10**6
    bob.close()


def test_blocks_of_the_past_are_as_old_as_the_books_say(demo: Demo) -> None:
    """The nodes' blocks lie in the week of the history, and not all on the day of the first start."""
    alice = demo.client("alice")
    rows = [row for row in alice.get(f"{V3}user/wallet_history").json() if row["currencyNetwork"] in COINS]
    past = [row for row in rows if row["status"] == "COMPLETED" and row["amount"] in (25, 500, 0.1)]
    assert [row["type"] for row in past] == ["Withdraw", "Deposit", "Deposit"]
    for row in past:
        mined_s = ask(demo, row["currencyNetwork"], "getrawtransaction", row["txid"], 1)["blocktime"]
        assert abs(mined_s * 1_000 - row["timestamp"]) < 3_600_000
    assert past[0]["timestamp"] - past[-1]["timestamp"] > 3 * 86_400_000
    alice.close()


def test_a_payment_that_the_chain_undoes_is_given_back(demo: Demo) -> None:
    """On a node as on a simulated chain the operator has a block take a payment's fee and pay nobody."""
    bob = demo.client("bob")
    before = available(bob, "USDT")
    assert "will fail" in demo.ask("chain", "fail-next", "ERC20", "--undone")["done"]
    body = {"currency": "USDT-ERC20", "address": OUTSIDE, "tag": "", "amount": "60"}
    ref = bob.post(f"{V3}user/wallet/withdraw", body).json()["withdrawId"]
    eventually(lambda: movement(bob, ref)["status"] == "FAILURE")
    assert available(bob, "USDT") == before
    bob.close()


def agreed(folder: Path) -> list[dict[str, Any]]:
    """Return the comparison of books and chains, nothing while a payment comes to its end in the middle of it."""
    ran = invoke("reconcile", "--data", folder, "--json")
    return json.loads(ran.out) if ran.code == 0 else []


def test_books_and_chains_agree(demo: Demo) -> None:
    """Of every network, real or simulated, nothing is unexplained, and the nodes' coins come to what the books say."""
    rows = eventually(lambda: agreed(demo.folder), 60)
    assert {row["network"] for row in rows} == {"BITCOIN", "LITECOIN", "ERC20", "RIPPLE"}
    assert {row["unexplained"] for row in rows} == {"0"}
    assert all(int(row["books"]) > 500 * 10**8 for row in rows if row["network"] in COINS)


def test_everything_is_as_in_a_simulated_demo(founded: Founded, demo: Demo, tmp_path: Path) -> None:
    """The same users with the same lines of history, but for what names a moment or a transaction."""
    with running(tmp_path / "simulated") as simulated:
        assert set(demo.ready) == {*simulated.ready, "nodes"}
        assert list(demo.users) == list(simulated.users)
        theirs = {name: history_of(simulated, name) for name in simulated.users}
    assert min(map(len, theirs.values())) > 5
    for name, rows in theirs.items():
        ours = history_of(demo, name)[-len(rows) :]
        # Each chain shows what was paid to it in its own time.
        assert sorted(map(json.dumps, ours)) == sorted(map(json.dumps, rows)), name
    kept = json.loads((founded.folder / KEYS_FILE).read_text())
    assert kept["chains"] == CHAINS


def block_hash(demo: Demo, network: str, height: int) -> str:
    """Return what a node says of a height of its chain, nothing above its tip."""
    if network == "ERC20":
        block = ask(demo, network, "eth_getBlockByNumber", hex(height), False)
        return block["hash"] if block else ""
    return ask(demo, network, "getblockhash", height) if ask(demo, network, "getblockcount") >= height else ""


@pytest.mark.parametrize("network", PROGRAMS)
def test_blocks_come_by_themselves_by_hand_and_in_the_place_of_others(demo: Demo, network: str) -> None:
    """The chain grows without anybody's doing; the operator mines and reorganises it as he does a simulated one."""
    mined = demo.ask("chain", "mine", network, "3")
    # Others may have come by themselves in between.
    heights = [block["height"] for block in mined]
    assert len(heights) == 3
    assert heights == sorted(set(heights))
    newest = mined[2]
    assert block_hash(demo, network, newest["height"]) == newest["hash"]
    eventually(lambda: block_hash(demo, network, newest["height"] + 1))
    renewed = demo.ask("chain", "reorg", network, "9")
    # One may have come by itself meanwhile.
    assert len(renewed) in {10, 11}
    assert newest["height"] >= renewed[0]["height"]
    assert block_hash(demo, network, newest["height"]) != newest["hash"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("faucet", "alice", "BTC", "1000000"), "cannot pay that: Insufficient funds"),
        (("chain", "fail-next", "BITCOIN"), "BITCOIN is not simulated"),
        (("chain", "fail-next", "BITCOIN", "--undone"), "on BITCOIN nothing that is in a block is undone"),
        (("chain", "reorg", "BITCOIN", "1000"), "a reorganisation spares the first block"),
        (("chain", "reorg", "ERC20", "1000"), "a reorganisation spares the older blocks"),
        (("faucet", "alice", "ETH", "10000000000"), "the Ethereum faucet has less than that"),
        (("faucet", "alice", "USDT", "40000000000"), "the Ethereum faucet has less than that"),
    ],
)
def test_what_a_node_cannot_do_is_refused_in_a_line(demo: Demo, arguments: tuple[str, ...], complaint: str) -> None:
    """The faucet pays no more than it has, and a node's chain does not do all that a simulated one does."""
    ran = invoke(*arguments, "--data", demo.folder)
    assert (ran.code, ran.out) == (1, "")
    assert complaint in ran.err
    assert ran.err.count("\n") == 1


def test_nodes_are_for_this_demo_only(demo: Demo) -> None:
    """They listen on loopback alone, their passwords are their owner's to read, and on no command line."""
    for network, node in nodes_of(demo).items():
        assert node["program"] == PROGRAMS[network]
        assert listening(node["pid"]) == {f"127.0.0.1:{httpx.URL(node['url']).port}"}
        if network == "ERC20":
            continue
        password = Path(node["password_file"])
        assert password.stat().st_mode & 0o077 == 0
        assert password.is_relative_to(demo.folder)
        assert all(path.stat().st_mode & 0o077 == 0 for path in password.parent.iterdir() if path.suffix == ".conf")
        assert password.read_text() not in Path(f"/proc/{node['pid']}/cmdline").read_text()
        assert ask(demo, network, "getpeerinfo") == []


def listening(pid: int) -> set[str]:
    """Return where a process listens."""
    inodes = {
        link.removeprefix("socket:[").removesuffix("]")
        for fd in Path(f"/proc/{pid}/fd").iterdir()
        if (link := str(fd.readlink())).startswith("socket:[")
    }
    found: set[str] = set()
    for line in [*Path("/proc/net/tcp").read_text().splitlines()[1:], *tcp6_lines()]:
        place, state, inode = line.split()[1], line.split()[3], line.split()[9]
        if state == "0A" and inode in inodes:
            address, port = place.split(":")
            host = ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
            found.add(f"{host}:{int(port, 16)}")
    return found


def tcp6_lines() -> list[str]:
    """Return the system's table of version 6, if it has one."""
    table = Path("/proc/net/tcp6")
    return table.read_text().splitlines()[1:] if table.exists() else []


def test_the_first_start_tells_of_its_nodes_and_leaves_none_behind(founded: Founded) -> None:
    """A person reads what is real and where the nodes are; after Ctrl-C they are gone."""
    text = "\n".join(founded.said)
    assert "Bitcoin, Litecoin and Ethereum run on nodes of their own, the other chains are simulated" in text
    for program in PROGRAMS.values():
        [line] = [line for line in founded.said if line.strip().startswith(program)]
        assert str(founded.folder / "nodes") in line
        assert not is_alive(int(line.partition("process ")[2].partition(",")[0]))
    assert "Ctrl-C stops the server and its nodes." in founded.said[-1]


def test_a_first_start_and_its_end_alarm_nobody(founded: Founded) -> None:
    """What goes wrong in the past is meant to, and stopping the nodes is no failure: the log has nothing above info."""
    assert "serving" in founded.log
    assert [line for line in founded.log.splitlines() if "[info " not in line] == []


def test_every_printed_line_works(folder: Path, tmp_path: Path) -> None:
    """The curl lines and the faucet's are good as they stand, on nodes as on simulated chains."""
    process = launch(folder, tmp_path / "log", "--chains", "litecoin,evm,bitcoin")
    try:
        commands = [line for line in said_by(process, tmp_path / "log") if line.startswith("curl ")]
        assert len(commands) == 6
        for command in commands:
            ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=False)
            assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
            assert json.loads(ran.stdout), command
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOPS_WITHIN_S) == 0
    finally:
        end(process)


def test_nodes_end_with_a_demo_that_is_killed_and_the_next_start_goes_on(folder: Path) -> None:
    """After kill -9 no node is left; the next start waits for their end, and has every deposit that was credited."""
    with running(folder) as first:
        client = first.client("bob")
        for asset in ("LTC", "ETH", "USDC"):
            assert first.ask("faucet", "bob", asset, "3", "--mine", "--wait")["credited"]
        before = client.get(f"{V3}user/wallet").json()
        pids = [node["pid"] for node in first.ready["nodes"]]
        assert all(map(is_alive, pids))
        client.close()
        first.kill()
    with running(folder) as second:
        assert not any(map(is_alive, pids))
        client = second.client("bob")
        assert client.get(f"{V3}user/wallet").json() == before
        eventually(lambda: agreed(folder))
        client.close()


def test_a_node_that_ends_by_itself_is_told_and_stops_nothing_else(folder: Path) -> None:
    """The log names the node and what to do; all other networks go on, and Ctrl-C ends the rest as ever."""
    with running(folder) as demo:
        pids = {network: node["pid"] for network, node in nodes_of(demo).items()}
        subprocess.run(["kill", "-9", str(pids["BITCOIN"])], check=True)
        eventually(lambda: "node_ended" in demo.errors.read_text())
        [line] = [line for line in demo.errors.read_text().splitlines() if "node_ended" in line]
        assert "program=bitcoind" in line
        assert "start the demo again" in line
        assert demo.ask("faucet", "alice", "LTC", "1", "--wait")["credited"]
        refused = invoke("faucet", "alice", "BTC", "1", "--data", folder)
        assert (refused.code, refused.out) == (1, "")
        assert "the node does not answer" in refused.err
        assert demo.stop(signal.SIGINT) == (0, "")
        assert not any(map(is_alive, pids.values()))
    with running(folder) as again:
        assert again.ask("faucet", "alice", "BTC", "1", "--wait")["credited"]


def test_commands_without_a_server_run_the_nodes_they_need(folder: Path) -> None:
    """The faucet and the comparison work beside no server, and what needs no chain needs no node's program."""
    for asset in ("BTC", "USDT"):
        assert invoke_json("faucet", "alice", asset, "5", "--data", folder)["credited"]
    eventually(lambda: agreed(folder))
    ran = run("balance", "alice", "--data", folder, "--json")
    assert {row["asset"] for row in json.loads(ran.out)} >= {"BTC", "LTC"}


def test_a_demo_keeps_its_chains(folder: Path) -> None:
    """A start with other chains than the first one's is refused before anything happens."""
    ran = invoke("demo", "--port", "0", "--data", folder, "--chains", "bitcoin", "--json")
    assert (ran.code, ran.out) == (2, "")
    told = "this demo began with --chains bitcoin,litecoin,evm, and goes on with that: give another --data folder"
    assert ran.err == f"strongroom: {told}\n"


@pytest.mark.parametrize(
    ("chains", "complaints"),
    [
        ("doge", ["there is no chain 'doge' for --chains: there are bitcoin, litecoin, evm"]),
        ("bitcoin,doge,ripple", ["there is no chain 'doge'", "there is no chain 'ripple'"]),
    ],
)
def test_chains_that_cannot_be_had_are_refused(tmp_path: Path, chains: str, complaints: list[str]) -> None:
    """What is no chain, and one that no node can be had for, ends with 2 and a line each, and no folder is made."""
    ran = invoke("demo", "--port", "0", "--data", tmp_path / "house", "--chains", chains)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert len(lines) == len(complaints)
    assert all(complaint in line for complaint, line in zip(complaints, lines, strict=True))
    assert not (tmp_path / "house").exists()


def test_programs_that_are_missing_are_named_with_what_to_do(tmp_path: Path) -> None:
    """A folder without the programs is refused by name, one line a program, before a folder is made."""
    (tmp_path / "empty").mkdir()
    chosen = ("--chains", "bitcoin,litecoin,evm", "--nodes", tmp_path / "empty")
    ran = invoke("demo", "--port", "0", "--data", tmp_path / "house", *chosen)
    assert (ran.code, ran.out) == (2, "")
    for program, line in zip(PROGRAMS.values(), ran.err.splitlines(), strict=True):
        assert line.startswith(f"strongroom: there is no {program} in {tmp_path / 'empty'}: ")
        assert "make nodes" in line
    assert not (tmp_path / "house").exists()


def test_a_node_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its own words are in the one line that is told, and no half a demo is taken for a whole one."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "bitcoind").write_text("#!/bin/sh\necho 'Error: no room on this disk' >&2\nexit 1\n")
    (programs / "bitcoind").chmod(0o755)
    ran = run("demo", "--port", "0", "--data", tmp_path / "house", "--chains", "bitcoin", "--nodes", programs)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "strongroom: bitcoind ended instead of starting: Error: no room on this disk\n"
    assert not (tmp_path / "house" / KEYS_FILE).exists()

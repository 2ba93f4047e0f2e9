"""What an operator relies on: health, metrics, logs, settings over restarts, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import structlog

from strongroom.application import Application
from strongroom.config.settings import Asset, Config, ConfigError, Network, Offer, Simulation
from strongroom.observe.logs import configure_logs
from strongroom.store.sqlite.connection import DataFolderBusy, DataFolderNewer, open_writer, run
from strongroom.wallet.balances import balance_of
from support.server import (
    MASTER_KEY,
    TRANSFER,
    WALLET,
    Member,
    Served,
    join,
    served,
    settings,
    transfer_to,
)

METRICS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
STRANGER = {"x-forwarded-for": "203.0.113.9"}
PROXIED = {"trusted_proxies": ("127.0.0.0/8",)}

SETTINGS = """
data = "data"
port = 0
drain_s = {drain_s}
[rates]
ecb = false
[rate_limits.default]
unlimited = true
[assets.BTC]
number = 1
name = "Bitcoin"
"""
PROGRAM = """
import os, sys
from pathlib import Path
from strongroom.admin.hosting import host_config
from strongroom.config.settings import load_config
from strongroom.observe.logs import configure_logs
config = load_config(Path(sys.argv[1]), os.environ)
configure_logs(config.logs.level, config.logs.format)
sys.exit(host_config(config, os.environ, lambda url: print(url, flush=True)))
"""


def small(folder: Path) -> Config:
    """Return the settings that a server of another process has too."""
    return settings(
        folder, assets={"BTC": Asset(number=1, name="Bitcoin")}, networks={}, offers={}, simulation=Simulation()
    )


@asynccontextmanager
async def process(folder: Path, drain_s: float = 0.3) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    """Run a server as a process of its own; yields it and its base URL."""
    (folder / "settings.toml").write_text(SETTINGS.format(drain_s=drain_s))
    environ = {**os.environ, "STRONGROOM_MASTER_KEY": MASTER_KEY.hex(), "PYTHONPATH": "src"}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(folder / "settings.toml"), env=environ, stdout=asyncio.subprocess.PIPE
    )
    assert running.stdout is not None
    try:
        async with asyncio.timeout(60):
            url = (await running.stdout.readline()).decode().strip()
        yield running, url
    finally:
        if running.returncode is None:
            running.kill()
        _ = await running.wait()


@contextmanager
def captured_logs() -> Generator[io.StringIO]:
    """Log everything into a text while the block runs."""
    text = io.StringIO()
    configure_logs("debug", "json", text)
    try:
        yield text
    finally:
        structlog.reset_defaults()


async def test_health_is_for_all_and_details_for_the_operator(tmp_path: Path) -> None:
    """Everybody may ask whether the server lives and is ready; only loopback and configured networks are told more."""
    async with served(settings(tmp_path, **PROXIED)) as server:
        for headers in ({}, STRANGER):
            assert (await server.client.get("/healthz", headers=headers)).json() == {"status": "ok"}
        assert (await server.client.get("/readyz", headers=STRANGER)).json() == {"status": "ready"}
        details = (await server.client.get("/readyz")).json()["details"]
        assert (details["writer"], details["loops"]) == ("", {})
        assert details["networks"]["BITCOIN"]["watcher"] == ""


async def test_metrics_do_not_exist_for_strangers(tmp_path: Path) -> None:
    """To anybody but the operator the metrics' path is one that does not exist, down to the body."""
    async with served(settings(tmp_path, **PROXIED)) as server:
        hidden, absent = [(await server.client.get(path, headers=STRANGER)) for path in ("/metrics", "/absent")]
        assert hidden.status_code == absent.status_code == 404
        assert {**hidden.json(), "time": 0} == {**absent.json(), "time": 0}
        assert (await server.client.get("/metrics")).status_code == 200


async def test_a_proxy_that_nobody_named_opens_nothing(tmp_path: Path) -> None:
    """What a proxy on this machine passes on does not come from loopback, although the proxy does."""
    async with served(settings(tmp_path)) as server:
        for headers in (STRANGER, {"x-forwarded-for": "127.0.0.1"}, {"x-real-ip": "::1"}, {"forwarded": "for=::1"}):
            assert (await server.client.get("/metrics", headers=headers)).status_code == 404
            assert "details" not in (await server.client.get("/readyz", headers=headers)).json()


async def test_every_metric_is_in_the_reference(tmp_path: Path) -> None:
    """An operator finds each metric explained."""
    page = METRICS_PAGE.read_text()
    async with served(settings(tmp_path)) as server:
        text = (await server.client.get("/metrics")).text
    names = {line.split()[2].removesuffix("_created") for line in text.splitlines() if line.startswith("# TYPE")}
    assert sorted(name for name in names if f"`{name.removesuffix('_total')}" not in page) == []


async def test_a_configured_network_may_see_the_metrics(tmp_path: Path) -> None:
    """An address of the operations networks is the operator's."""
    async with served(settings(tmp_path, **PROXIED, operations_networks=("203.0.113.0/24",))) as server:
        assert (await server.client.get("/metrics", headers=STRANGER)).status_code == 200
        assert "details" in (await server.client.get("/readyz", headers=STRANGER)).json()


async def metrics_of(server: Served) -> dict[str, float]:
    """Return every sample by its name and labels as they stand in the text."""
    lines = (await server.client.get("/metrics")).text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


async def test_metrics_tell_of_requests_the_writer_and_the_books(tmp_path: Path) -> None:
    """Requests, refusals, batches and balances are what was done; customers and house add up."""
    async with served(settings(tmp_path)) as server:
        alice, bob = await join(server.application, "alice", 150_000_000), await join(server.application, "bob")
        before = await metrics_of(server)
        await server.post(alice, TRANSFER, transfer_to(bob))
        await server.post(bob, TRANSFER, transfer_to(alice, "99"))
        await server.client.get("/no/such/path")
        after = await metrics_of(server)
    assert after['strongroom_requests_total{operation="transfer",status="200"}'] == 1
    assert after['strongroom_requests_total{operation="transfer",status="400"}'] == 1
    assert after['strongroom_requests_total{operation="unknown",status="404"}'] == 1
    assert after['strongroom_refusals_total{refusal="insufficient_balance"}'] == 1
    assert after['strongroom_request_seconds_count{operation="transfer"}'] == 2
    batches = "strongroom_batch_commands_count"
    assert after[batches] - before[batches] == 2
    assert after["strongroom_commit_seconds_count"] == after[batches]
    assert after["strongroom_queue_commands"] == 0
    assert after["strongroom_ready"] == 1
    assert after['strongroom_customers_balance{asset="BTC"}'] == 1.5
    assert after['strongroom_house_balance{asset="BTC",network="",purpose="bank"}'] == -1.5
    assert after['strongroom_withdrawals_open{state="awaiting"}'] == 0
    assert after['strongroom_deposits_open{network="BITCOIN",state="confirming"}'] == 0
    assert after['strongroom_network_up{network="BITCOIN"}'] == 1


async def test_no_client_can_make_the_metrics_grow(tmp_path: Path) -> None:
    """Paths, methods and keys that a client makes up add no series beyond those of the first."""
    async with served(settings(tmp_path)) as server:
        await server.client.get("/made/up")
        before = await metrics_of(server)
        for number in range(20):
            await server.client.get(f"/made/up/{number}", headers={"request-api": str(number)})
        assert set(await metrics_of(server)) == set(before)


async def test_logs_hold_nothing_secret_and_no_success(tmp_path: Path) -> None:
    """A day's work, failures included, leaves no key, secret, signature, mail or address in the logs."""
    with captured_logs() as logs:
        async with served(settings(tmp_path)) as server:
            alice, bob = await join(server.application, "alice", 100_000_000), await join(server.application, "bob")
            body = {"currency": "BTC", "network": "BITCOIN"}
            made = await server.post(alice, "/api/v3.2/user/wallet/address", body)
            address = made.json()[0]["address"]
            refused = await server.post(alice, "/api/v3.2/user/wallet/address", body)
            await server.post(alice, TRANSFER, transfer_to(bob))
            await server.get(alice, WALLET)
            await server.client.get(WALLET, headers={**alice.headers(WALLET), "request-sign": "0" * 96})
            await break_one_request(server, alice, address)
    assert refused.json()["code"] == 3528
    assert address in refused.json()["msg"]
    text = logs.getvalue()
    for secret in (alice.secret, alice.key, bob.secret, address, "alice@example.com", MASTER_KEY.hex()):
        assert secret not in text
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["event"] for event in events] == ["serving", "request failed"]
    assert "request_id" in events[-1]


class Broken:
    """A part whose every use is a mistake with a telling message."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __getattr__(self, name: str) -> None:
        """Fail."""
        raise RuntimeError(self.message)


async def break_one_request(server: Served, member: Member, address: str) -> None:
    """Make one request meet a mistake of ours whose message is full of secrets, and check its answer."""
    context, path = server.application.context, "/public-api/wallet/v1/assets/exchangeRate"
    rates, context.rates = context.rates, Broken(f"{member.secret} {address}")  # type: ignore[assignment]
    broken = await server.client.get(f"{path}?baseCurrency=BTC&quoteCurrency=USDT&amount=1")
    context.rates = rates
    assert (broken.status_code, broken.json()["code"]) == (500, -11)
    assert "retry-after" not in broken.headers


async def test_a_draining_server_says_so_and_does_nothing_new(tmp_path: Path) -> None:
    """While it drains, readiness is red, every request is a 503 with Retry-After, and the server still lives."""
    async with served(settings(tmp_path)) as server:
        alice, bob = await join(server.application, "alice", 100_000_000), await join(server.application, "bob")
        server.application.drain()
        ready = await server.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        refused = await server.post(alice, TRANSFER, transfer_to(bob))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await server.client.get("/healthz")).status_code == 200


async def prepared(folder: Path) -> tuple[Member, Member]:
    """Open a data folder with a rich user and a poor one."""
    application = Application(small(folder), MASTER_KEY)
    async with application.running():
        return await join(application, "alice", 10**12), await join(application, "bob")


async def test_a_stop_under_load_loses_no_accepted_request(tmp_path: Path) -> None:
    """After SIGTERM in the middle of transfers, exactly those that were answered are in the books."""
    alice, bob = await prepared(tmp_path)
    done = 0
    refused: set[int] = set()
    enough = asyncio.Event()

    async def send(url: str, client_number: int) -> None:
        nonlocal done
        async with httpx.AsyncClient(base_url=url) as client:
            for number in range(100_000):
                content = json.dumps({**transfer_to(bob, "0.00000001"), "n": f"{client_number}.{number}"}).encode()
                try:
                    answer = await client.post(TRANSFER, headers=alice.headers(TRANSFER, content), content=content)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    done += 1
                else:
                    refused.add(answer.status_code)
                if done >= 200:
                    enough.set()

    async with process(tmp_path) as (server, url):
        sending = [asyncio.create_task(send(url, number)) for number in range(8)]
        async with asyncio.timeout(60):
            await enough.wait()
            server.send_signal(signal.SIGTERM)
            assert await server.wait() == 0
            await asyncio.gather(*sending)
    assert refused == {503}
    application = Application(small(tmp_path), MASTER_KEY)
    assert balance_of(application.context.reads, bob.uid, 1).available == done
    application.store.close()


async def test_a_second_signal_hurries_the_stop(tmp_path: Path) -> None:
    """An operator who asks twice does not wait for the drain."""
    async with process(tmp_path, drain_s=60) as (server, url):
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            async with httpx.AsyncClient(base_url=url) as client:
                while (await client.get("/readyz")).status_code != 503:
                    pass
            server.send_signal(signal.SIGINT)
            assert await server.wait() == 0


async def test_a_second_server_on_one_data_folder_is_refused(tmp_path: Path) -> None:
    """Two servers never write the same books: the second is told which process has them."""
    async with process(tmp_path) as (server, _):
        with pytest.raises(DataFolderBusy, match=f"data is in use by process {server.pid}"):
            Application(small(tmp_path), MASTER_KEY)


async def test_a_server_whose_writer_breaks_stops(tmp_path: Path) -> None:
    """Without its writer a server is of no use: it ends with an error for whoever restarts it."""
    async with served(settings(tmp_path)) as server:
        alice, bob = await join(server.application, "alice", 100_000_000), await join(server.application, "bob")
        server.application.store.begin = None  # type: ignore[assignment]
        answer = await server.post(alice, TRANSFER, transfer_to(bob))
        assert answer.status_code == 500
        async with asyncio.timeout(60):
            assert await server.serving == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_data_folder_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    """Migrations go forward only: books with a schema from the future are not opened."""
    (tmp_path / "data").mkdir()
    connection = open_writer(tmp_path / "data")
    run(connection, "PRAGMA user_version=999")
    connection.close()
    with pytest.raises(DataFolderNewer, match="999"):
        Application(small(tmp_path), MASTER_KEY)


async def test_another_master_key_is_found_out_at_the_start(tmp_path: Path) -> None:
    """A server does not start with a key that cannot open its users' secrets."""
    await prepared(tmp_path)
    with pytest.raises(ConfigError, match="master key"):
        Application(small(tmp_path), bytes(32))
    Application(small(tmp_path), MASTER_KEY).store.close()


async def test_everything_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Users, keys, money and deposit addresses are those of before."""
    async with served(settings(tmp_path)) as server:
        alice = await join(server.application, "alice", 100_000_000)
        body = {"currency": "BTC", "network": "BITCOIN"}
        made = await server.post(alice, "/api/v3.2/user/wallet/address", body)
        balance = (await server.get(alice, WALLET)).json()
    async with served(settings(tmp_path)) as server:
        assert (await server.get(alice, WALLET)).json() == balance
        path = "/api/v3.2/user/wallet/address"
        listed = await server.client.get(f"{path}?currency=BTC", headers=alice.headers(path))
        assert [row["address"] for row in listed.json()] == [row["address"] for row in made.json()]


async def test_what_is_new_in_the_file_is_added_and_nothing_else_changes(tmp_path: Path) -> None:
    """A new asset appears after a restart; a fee the books know keeps the value it has there."""
    first = settings(tmp_path)
    async with served(first):
        pass
    offers = {"BTC": {"BITCOIN": Offer(decimals=8, default=True, withdraw_minimum="5")}}
    assets = {**first.assets, "ETH": Asset(number=9, name="Ether")}
    async with served(msgspec.structs.replace(first, assets=assets, offers=offers)) as server:
        snapshot = server.application.context.catalogue.snapshot
    assert [asset.code for asset in snapshot.assets] == ["BTC", "USDT", "ETH"]
    assert [offer.withdraw_minimum for offer in snapshot.offers] == [100_000]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"assets": {"BTC": Asset(number=1, name="Bitcoin", scale=6), "USDT": Asset(number=2, name="T")}}, "BTC"),
        ({"assets": {"BTC": Asset(number=1, name="Bitcoin"), "USDT": Asset(number=7, name="T")}}, "USDT"),
        ({"offers": {"BTC": {"BITCOIN": Offer(decimals=9, default=True)}}}, "BTC-BITCOIN"),
        ({"offers": {"BTC": {"BITCOIN": Offer(decimals=8, default=True, token="WBTC")}}}, "decimals or token"),
        ({"simulation": Simulation(enabled=False)}, "simulation.enabled"),
        (
            {
                "networks": {"MARS": Network(number=3, short_name="M", family="evm", confirmations=1, fee_asset="BTC")},
                "offers": {},
            },
            "MARS",
        ),
    ],
)
async def test_what_a_thing_is_cannot_change(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    """A file that contradicts the books, or asks for what is not there, stops the start and says what it is."""
    async with served(settings(tmp_path)):
        pass
    with pytest.raises(ConfigError, match=problem):
        Application(settings(tmp_path, **changes), MASTER_KEY)
    Application(settings(tmp_path), MASTER_KEY).store.close()

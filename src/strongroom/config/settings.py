"""The settings: every one with its type, its default and what it is for, read from a TOML file and the environment.

The structs below are the only list of settings there is: reading, checking and the reference page work from them.
An environment variable `STRONGROOM_RATES__ECB=false` sets `rates.ecb` and wins over the file. Amounts and rates are
texts, so that no digit is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

Port: TypeAlias = Annotated[int, Meta(ge=0, le=65_535)]
Positive: TypeAlias = Annotated[int, Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=31_536_000)]
DecimalText: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")]

UPPER: Final = "upper"
LOWER: Final = "lower"


class ConfigError(Exception):
    """The settings cannot be used; `problems` has a line for each mistake, all of them at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to standard error."""

    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="Least severity that is logged")] = (
        "info"
    )
    format: Annotated[str, Meta(pattern="^(json|console)$", description="`json`, a line an event, or `console`")] = (
        "json"
    )


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """The rate limits of one tier; an API key names its tier, everybody else has the tier `default`."""

    wallet_per_2s: Annotated[Positive, Meta(description="State-changing calls per user and operation in 2 s")] = 10
    operation_per_2s: Annotated[Positive, Meta(description="Other signed calls per key and operation in 2 s")] = 30
    user_per_2s: Annotated[Positive, Meta(description="Other signed calls per user in 2 s")] = 60
    public_per_2s: Annotated[Positive, Meta(description="Public calls per client address in 2 s")] = 50
    failures_per_2s: Annotated[
        Positive, Meta(description="Failed authentications per client address (IPv6: per /64) in 2 s")
    ] = 20
    receiver_refusals_per_hour: Annotated[
        Positive, Meta(description="Transfers per user and hour that may be refused for their receiver")
    ] = 20
    ladder_s: Annotated[
        tuple[Positive, ...], Meta(min_length=1, description="How long the 1st, 2nd and further excess blocks, in s")
    ] = (1, 300, 900)
    unlimited: Annotated[bool, Meta(description="Whether this tier has no limits at all")] = False


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Where prices come from, how old they may be, and what the customer pays on them."""

    table: Annotated[
        dict[str, DecimalText], Meta(description='Prices you declare: `{ "BTC/USDT" = "66680.5" }`; they go first')
    ] = {}
    table_as_of: Annotated[
        str, Meta(description="When the table's prices were observed (ISO 8601); empty: when the file was last written")
    ] = ""
    table_max_age_s: Annotated[Positive, Meta(description="How long the table's prices may be used, in s")] = 86_400
    ecb: Annotated[bool, Meta(description="Whether the packaged reference rates of the ECB are used")] = True
    ecb_max_age_s: Annotated[Positive, Meta(description="How long the ECB's rates may be used, in s")] = 604_800
    spread: Annotated[DecimalText, Meta(description="What the customer pays on every conversion: `0.001` is 0.1 %")] = (
        "0.001"
    )
    pair_spreads: Annotated[
        dict[str, DecimalText], Meta(description='Spreads of single pairs: `{ "USDT/USD" = "0.0005" }`')
    ] = {}
    common_quotes: Annotated[
        tuple[str, ...], Meta(max_length=8, description="What prices are crossed through, the first choice first")
    ] = ("USD", "USDT", "EUR")


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """The practice chains: a simulated node in this process, for demos and tests, with money that is worth nothing."""

    enabled: Annotated[bool, Meta(description="Whether all networks are simulated in this process")] = False
    seconds_per_block: Annotated[
        Seconds, Meta(description="Pace of every simulated chain in s a block; 0: each network's own pace")
    ] = 0


class Hot(msgspec.Struct, frozen=True, kw_only=True):
    """How much of an asset the hot wallet of a network should have; amounts are texts in the asset, 0: no such mark."""

    low: Annotated[DecimalText, Meta(description="With less than this the operator is told")] = "0"
    high: Annotated[
        DecimalText, Meta(description="With more than this the rest is to go to the network's `cold_address`")
    ] = "0"
    keep: Annotated[DecimalText, Meta(description="How much stays when the rest goes to the cold address")] = "0"
    sweep_above: Annotated[
        DecimalText, Meta(description="A deposit address with less than this is not swept; EVM networks only")
    ] = "0"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """The node of a network that is not simulated, and how payments on it are made."""

    url: Annotated[str, Meta(min_length=8, description="Where the node's JSON-RPC is: `http://127.0.0.1:8332`")]
    chain: Annotated[
        str,
        Meta(
            pattern="^(bitcoin-main|bitcoin-test|bitcoin-regtest|litecoin-main|litecoin-test|litecoin-regtest|evm)$",
            description="Which chain it is, for `evm` together with `chain_id`. A node of another one is not followed",
        ),
    ]
    chain_id: Annotated[int, Meta(ge=0, description="The chain's number (EIP-155), of an EVM network only")] = 0
    user: Annotated[str, Meta(description="The node's user for JSON-RPC, if it wants one")] = ""
    password_file: Annotated[
        str, Meta(description="File with that user's password, mode 0600; relative to the settings file")
    ] = ""
    taproot: Annotated[bool, Meta(description="Whether deposit addresses are taproot's (BIP-86); Bitcoin only")] = False
    start_height: Annotated[
        int, Meta(ge=-1, description="The first block that is looked at; -1: the newest one at the very first start")
    ] = -1
    fee_floor: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Least fee of our payments, in satoshi a virtual byte; on EVM networks the least priority fee, "
            "in gwei a unit of gas",
        ),
    ] = 1
    fee_cap: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Highest fee of our payments, replacements too, in the same unit"),
    ] = 300
    batch: Annotated[int, Meta(ge=1, le=100, description="How many withdrawals at most share a transaction")] = 1
    redraft_after_s: Annotated[
        Positive, Meta(description="After so long in no block a payment is offered again for a higher fee, in s")
    ] = 1_800
    answer_within_s: Annotated[
        float, Meta(gt=0, le=600, description="How long the node may take for one answer, in s")
    ] = 30
    stale_after_s: Annotated[
        Positive, Meta(description="A network that was not followed for so long is told as stale, in s")
    ] = 120
    suspend_deposits_after_s: Annotated[
        Positive, Meta(description="After so long no deposits are offered on it until it is followed again, in s")
    ] = 900
    hot: Annotated[dict[str, Hot], Meta(description="The hot wallet's marks by asset", extra={"keys": UPPER})] = {}
    cold_address: Annotated[
        str, Meta(max_length=128, description="Where to goes what the hot wallet has too much of; its key is elsewhere")
    ] = ""
    consolidate_above: Annotated[
        int,
        Meta(
            ge=0, le=5_000, description="With more free coins than this the smallest become one; 0: never. Not on EVM"
        ),
    ] = 200
    consolidate_fee: Annotated[
        int, Meta(ge=1, le=1_000_000, description="The highest fee at which that is done, in satoshi a virtual byte")
    ] = 5


class Fee(msgspec.Struct, frozen=True, kw_only=True):
    """A fee: max(minimum, amount x rate) + extra + extra_rate x amount, rounded up."""

    minimum: Annotated[DecimalText, Meta(description="Least fee, in the asset")] = "0"
    rate: Annotated[DecimalText, Meta(description="Part of the amount: `0.001` is 0.1 %; at most 8 decimals")] = "0"
    extra: Annotated[DecimalText, Meta(description="Fixed addition, in the asset")] = "0"
    extra_rate: Annotated[DecimalText, Meta(description="Further part of the amount; at most 8 decimals")] = "0"


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """An asset; its number, code, scale and kind cannot change once the server has started with it."""

    number: Annotated[int, Meta(ge=1, le=65_535, description="Its number in the ledger, for ever")]
    name: Annotated[str, Meta(min_length=1, max_length=64, description="What people call it")]
    fiat: Annotated[bool, Meta(description="Whether it is money of a state")] = False
    scale: Annotated[int, Meta(ge=0, le=8, description="Decimals in the ledger")] = 8
    enabled: Annotated[bool, Meta(description="Whether clients may use it")] = True
    actions: Annotated[tuple[str, ...], Meta(description="What it is offered for: CONVERT, WITHDRAW, SEND")] = (
        "CONVERT",
        "WITHDRAW",
        "SEND",
    )


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network; its number, id, family and extension cannot change once the server has started with it."""

    number: Annotated[int, Meta(ge=1, le=65_535, description="Its number in the ledger, for ever")]
    short_name: Annotated[str, Meta(min_length=1, max_length=64, description="Its short name, `Ethereum`")]
    name: Annotated[str, Meta(max_length=64, description="Its display name; empty: the short name")] = ""
    family: Annotated[str, Meta(pattern="^(bitcoin|evm|ripple)$", description="How addresses and payments look")]
    confirmations: Annotated[Positive, Meta(description="Blocks until a deposit or withdrawal is final")]
    extension: Annotated[str, Meta(max_length=32, description="Name of the address extension (`tag`), if any")] = ""
    fee_asset: Annotated[str, Meta(description="The asset in which the chain takes its own fees")]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """An asset on a network, with the customers' fees and limits; all amounts are texts in the asset."""

    decimals: Annotated[int, Meta(ge=0, le=30, description="Decimals that the chain keeps")]
    token: Annotated[str, Meta(max_length=128, description="The chain's name of a token; empty: the chain's coin")] = ""
    default: Annotated[bool, Meta(description="Whether this is the asset's default network")] = False
    deposits: Annotated[bool, Meta(description="Whether deposits are open")] = True
    withdrawals: Annotated[bool, Meta(description="Whether withdrawals are open")] = True
    deposit_minimum: Annotated[DecimalText, Meta(description="Least deposit that is credited")] = "0"
    deposit_fee: Annotated[Fee, Meta(description="What a deposit costs")] = Fee()
    withdraw_minimum: Annotated[DecimalText, Meta(description="Least withdrawal")] = "0"
    withdraw_fee: Annotated[Fee, Meta(description="What a withdrawal costs")] = Fee()
    approve_above: Annotated[DecimalText, Meta(description="Withdrawals above this wait for the operator; 0: none")] = (
        "0"
    )
    daily_limit: Annotated[DecimalText, Meta(description="Most a user may withdraw on a day (UTC); 0: no limit")] = "0"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one server."""

    data: Annotated[str, Meta(min_length=1, description="The data folder; relative to the settings file")] = "data"
    store: Annotated[
        str,
        Meta(
            description="Where the books are: `postgresql://user@host/database` for any number of nodes over one "
            "database; empty: in the data folder"
        ),
    ] = ""
    host: Annotated[str, Meta(min_length=1, description="The address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="The port to listen on; 0: any free one")] = 8080
    master_key_file: Annotated[
        str,
        Meta(
            description="File with the 32 bytes that encrypt secrets, in hex or base64, mode 0600; relative to the "
            "settings file. `STRONGROOM_MASTER_KEY` in the environment has the key itself"
        ),
    ] = ""
    admin_socket: Annotated[str, Meta(description="The operator's local socket; empty: `admin.sock` in the data")] = ""
    nonce_window_ms: Annotated[
        int, Meta(ge=1_000, le=600_000, description="How far a request's nonce may be from the server's clock, in ms")
    ] = 30_000
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="Networks of proxies whose `X-Forwarded-For` is believed")
    ] = ()
    cors_origins: Annotated[tuple[str, ...], Meta(description="Origins that browsers may call from")] = ()
    operations_networks: Annotated[
        tuple[str, ...], Meta(description="Networks that may see `/metrics` and details of `/readyz`, beside loopback")
    ] = ()
    drain_s: Annotated[Seconds, Meta(description="How long a stopping server says so before it stops listening")] = 2
    finish_s: Annotated[Seconds, Meta(description="How long requests in flight may take when the server stops")] = 30
    head_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="How long a request's head may take to arrive, in s")
    ] = 30
    keep_alive_s: Annotated[int, Meta(ge=1, le=3_600, description="How long an idle connection is kept, in s")] = 75
    max_connections: Annotated[Positive, Meta(description="Connections served at once; more are answered 503")] = 4_096
    approval_expires_s: Annotated[
        Positive, Meta(description="How long a withdrawal waits for the operator's approval, in s")
    ] = 259_200
    logs: Annotated[Logs, Meta(description="What is logged")] = Logs()
    rate_limits: Annotated[dict[str, Tier], Meta(description="Tiers of limits by name", extra={"keys": LOWER})] = (
        msgspec.field(default_factory=lambda: {"default": Tier()})
    )
    rates: Annotated[Rates, Meta(description="Prices")] = Rates()
    simulation: Annotated[Simulation, Meta(description="The practice chains")] = Simulation()
    signer_socket: Annotated[
        str, Meta(description="Socket of a `strongroom signer`; empty: this process holds the seed and signs itself")
    ] = ""
    nodes: Annotated[
        dict[str, Node],
        Meta(description="Nodes by their network's id; other networks are simulated", extra={"keys": UPPER}),
    ] = {}
    assets: Annotated[dict[str, Asset], Meta(description="Assets by code", extra={"keys": UPPER})] = {}
    networks: Annotated[dict[str, Network], Meta(description="Networks by id", extra={"keys": UPPER})] = {}
    offers: Annotated[
        dict[str, dict[str, Offer]],
        Meta(description="Assets on networks, by the asset's code and the network's id", extra={"keys": UPPER}),
    ] = {}

    @property
    def folder(self) -> Path:
        """The data folder."""
        return Path(self.data)

    @property
    def admin_socket_path(self) -> Path:
        """Where the operator's local socket is."""
        return Path(self.admin_socket) if self.admin_socket else self.folder / "admin.sock"


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Return the settings of a TOML file, if one is given, and of the environment, which wins.

    Raises `ConfigError` with every mistake at once.
    """
    from strongroom.config.reading import read_config

    return read_config(path, environ)

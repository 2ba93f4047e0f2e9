"""Signing on chains of inputs and outputs: the published addresses, and signatures that hold in every eye."""

from __future__ import annotations

import msgspec
import pytest
from btclib.script.engine import verify_transaction
from btclib.tx.tx import Tx
from coincurve import PrivateKey

from strongroom.custody import formats
from strongroom.custody.chain import Funds, Payee, Rejected, Unreachable
from strongroom.custody.families import BITCOIN, LITECOIN, Network
from strongroom.custody.networks import utxo_transactions as transactions
from strongroom.custody.networks.utxo import UtxoChain
from strongroom.custody.networks.utxo_parameters import CoinChain
from strongroom.custody.networks.utxo_signing import UtxoScheme, tweaked
from strongroom.custody.networks.utxo_transactions import Body, Paid, output_of
from strongroom.custody.rpc import Node
from strongroom.records.coins import Coin
from support.utxo import BITCOIN_CHAIN, LITECOIN_CHAIN, LITECOIN_TAPROOT, SEED, TAPROOT, branch_of

KINDS = [
    (BITCOIN, BITCOIN_CHAIN, "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"),
    (TAPROOT, BITCOIN_CHAIN, "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"),
    (LITECOIN, LITECOIN_CHAIN, branch_of(LITECOIN_TAPROOT).address(77).address),
    (LITECOIN_TAPROOT, LITECOIN_CHAIN, branch_of(LITECOIN).address(77).address),
]
NAMES = ["segwit", "taproot", "litecoin", "litecoin taproot"]
SEEDS = UtxoScheme(SEED, TAPROOT, BITCOIN_CHAIN)


def drafted(network: Network, parameters: CoinChain, stranger: str) -> Body:
    branch = branch_of(network)
    funds = Funds(coins=tuple(Coin(1, f"{index + 1:064x}:{index}", index, 50_000, 1) for index in range(3)))
    payees = [Payee(stranger, "", "", 120_000)]
    return transactions.select(payees, funds, 5_000, parameters, lambda index: branch.address(index).address)


def test_taproot_addresses_are_those_of_bip_86() -> None:
    """The well-known words give the published addresses of keys that alone can spend."""
    mainnet = msgspec.structs.replace(TAPROOT, coin_type=0, bitcoin=formats.BITCOIN_MAINNET)
    branch = branch_of(mainnet)
    assert branch.address(0).address == "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
    assert branch.address(1).address == "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"


def test_segwit_addresses_are_those_of_bip_84() -> None:
    """The well-known words give the published receiving addresses."""
    branch = branch_of(msgspec.structs.replace(BITCOIN, coin_type=0, bitcoin=formats.BITCOIN_MAINNET))
    assert branch.address(0).address == "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"
    assert branch.address(1).address == "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"


def test_the_tweaked_key_is_the_one_of_the_published_output() -> None:
    """The first internal key of BIP-86 becomes the output key that is printed there."""
    secret = bytes.fromhex("41f41d69260df4cf277826a9b65a3717e4eeddbeedf637f212ca096576479361")
    internal = PrivateKey(secret)
    assert internal.public_key.format()[1:].hex() == "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115"
    output = "a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c"
    assert tweaked(internal).public_key.format()[1:].hex() == output


@pytest.mark.parametrize(("network", "parameters", "stranger"), KINDS, ids=NAMES)
def test_a_second_implementation_accepts_every_signature(
    network: Network, parameters: CoinChain, stranger: str
) -> None:
    """Another library's script engine runs every input to a yes, and the size was not estimated too small."""
    body = drafted(network, parameters, stranger)
    signed = UtxoScheme(SEED, network, parameters).sign(transactions.encode(body))
    transaction = Tx.parse(signed)
    verify_transaction([output_of(it.address, it.units, parameters.format) for it in body.inputs], transaction)
    estimated = transactions.size_of(body, parameters)
    assert transaction.vsize <= estimated <= transaction.vsize + len(body.inputs)


@pytest.mark.parametrize(("network", "parameters", "stranger"), KINDS, ids=NAMES)
def test_signing_again_gives_the_same_bytes(network: Network, parameters: CoinChain, stranger: str) -> None:
    """A crash between signature and commit makes no second transaction."""
    raw = transactions.encode(drafted(network, parameters, stranger))
    first, second = UtxoScheme(SEED, network, parameters), UtxoScheme(SEED, network, parameters)
    assert first.sign(raw) == second.sign(raw) == first.sign(raw)


def test_a_body_is_explained_without_its_change() -> None:
    """The signer counts what leaves: the payees, the fee, and not what comes home."""
    network, parameters, stranger = KINDS[1]
    body = drafted(network, parameters, stranger)
    told = SEEDS.explain(transactions.encode(body))
    assert told.payees == (Payee(stranger, "", "", 120_000),)
    assert (told.fee, told.spends) == (body.fee, body.spends)


def test_change_to_a_stranger_and_inputs_of_others_are_not_signed() -> None:
    """Change goes home only, and an input's address must be the one of its position."""
    network, parameters, stranger = KINDS[1]
    body = drafted(network, parameters, stranger)
    assert body.change is not None
    first, *others = body.inputs
    wrong = [
        msgspec.structs.replace(body, change=Paid(stranger, body.change.units)),
        msgspec.structs.replace(body, inputs=(msgspec.structs.replace(first, position=9), *others)),
        msgspec.structs.replace(body, inputs=(msgspec.structs.replace(first, position=-1), *others)),
        msgspec.structs.replace(body, inputs=(msgspec.structs.replace(first, position=2**31), *others)),
        msgspec.structs.replace(body, inputs=(msgspec.structs.replace(first, position=2**62), *others)),
        msgspec.structs.replace(body, inputs=(msgspec.structs.replace(first, address=stranger), *others)),
    ]
    for each in wrong:
        with pytest.raises(Rejected):
            _ = SEEDS.sign(transactions.encode(each))


async def test_only_the_drafted_transaction_becomes_a_candidate() -> None:
    """What the signer answers is looked at: another payment, an unsigned one and nonsense are refused."""
    network, parameters, stranger = KINDS[1]
    body = drafted(network, parameters, stranger)
    raw, branch = transactions.encode(body), branch_of(network)
    signed = SEEDS.sign(raw)
    node = Node("http://127.0.0.1:9")
    chain = UtxoChain(network, parameters, node, lambda index: branch.address(index).address)
    candidate = chain.assemble(raw, signed)
    assert (candidate.txid, candidate.blob) == (Tx.parse(signed).id.hex(), signed)
    other = transactions.raise_fee(body, 9_000, parameters)
    assert other is not None
    unsigned = transactions.transaction_of(body, parameters.format).serialize(include_witness=True)
    for answer in (SEEDS.sign(transactions.encode(other)), unsigned, signed + b"\x00", signed[:-1], b"", b"\x00" * 40):
        with pytest.raises(Rejected):
            _ = chain.assemble(raw, answer)
    await node.close()


async def test_waiting_for_news_outlives_a_node_that_is_gone() -> None:
    """A node that does not answer makes questions fail, and the wait for changes ends in time all the same."""
    node = Node("http://127.0.0.1:9")
    chain = UtxoChain(BITCOIN, BITCOIN_CHAIN, node, str, poll_s=0.01)
    seen = await chain.wait_change(-1, 0)
    assert await chain.wait_change(seen, 0.05) == seen
    with pytest.raises(Unreachable):
        _ = await chain.tip()
    await node.close()

"""Payments of coins that are signed elsewhere: what leaves, and what is taken back and what is not."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import pytest
from btclib.script import sig_hash
from btclib.script.witness import Witness
from btclib.tx.out_point import OutPoint
from btclib.tx.tx import Tx
from btclib.tx.tx_in import TxIn
from btclib.tx.tx_out import TxOut
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.custody.chain import Candidate, Rejected
from strongroom.custody.derivation import BranchKeys, master_fingerprint
from strongroom.custody.families import BITCOIN, LITECOIN, Network
from strongroom.custody.networks import psbt
from strongroom.custody.networks import utxo_transactions as transactions
from strongroom.custody.networks.utxo_parameters import CoinChain
from strongroom.custody.networks.utxo_psbt import MAX_TEXT_CHARS, psbt_of, signed_psbt
from strongroom.custody.networks.utxo_signing import UtxoScheme, tweaked
from strongroom.custody.networks.utxo_transactions import Body, Paid, output_of, transaction_of
from strongroom.custody.networks.utxo_witnesses import check_witnesses
from support.utxo import BITCOIN_CHAIN, LITECOIN_CHAIN, SEED, TAPROOT, branch_of, three_coins

STRANGER: Final = {
    BITCOIN_CHAIN.name: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    LITECOIN_CHAIN.name: "rltc1qw508d6qejxtdg4y5r3zarvary0c5xw7k693xs3",
}
OTHER_SEED: Final = bytes(range(64))
ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OPEN_KINDS: Final = (
    sig_hash.NONE,
    sig_hash.SINGLE,
    sig_hash.ALL | sig_hash.ANYONECANPAY,
    sig_hash.NONE | sig_hash.ANYONECANPAY,
    sig_hash.SINGLE | sig_hash.ANYONECANPAY,
)


class Cold(NamedTuple):
    """A payment of one network, and all that is needed to sign it well or badly."""

    network: Network
    parameters: CoinChain
    body: Body

    @property
    def raw(self) -> bytes:
        return transactions.encode(self.body)

    @property
    def is_taproot(self) -> bool:
        return self.network is TAPROOT

    def psbt(self) -> str:
        return psbt_of(self.raw, self.parameters.format, branch_of(self.network), master_fingerprint(SEED))

    def signed(self, body: Body | None = None) -> bytes:
        """Return a raw transaction, signed by our own scheme."""
        raw = transactions.encode(body or self.body)
        return UtxoScheme(SEED, self.network, self.parameters).sign(raw)

    def taken(self, text: str) -> Candidate:
        return signed_psbt(self.raw, text, self.parameters.format)

    def refused(self, text: str, reason: str) -> None:
        """See that neither the payment itself nor anything like it is made of a text."""
        with pytest.raises(Rejected, match=reason):
            _ = signed_psbt(self.raw, text, self.parameters.format)

    def spent(self) -> list[TxOut]:
        return [output_of(it.address, it.units, self.parameters.format) for it in self.body.inputs]

    def key(self, position: int, seed: bytes = SEED) -> PrivateKey:
        return PrivateKey(BranchKeys(seed, self.network).private_key(position))

    def signature(self, transaction: Tx, index: int, kind: int, seed: bytes = SEED) -> list[bytes]:
        """Return the witness of an input with a signature of any kind."""
        spent, key = self.spent(), self.key(index, seed)
        hashed = sig_hash.PrecomputedTxData(transaction, spent)
        if self.is_taproot:
            digest = sig_hash.taproot(transaction, index, spent, kind, 0, b"", b"", hashed)
            return [tweaked(key).sign_schnorr(digest, bytes(32)) + bytes([kind] if kind else [])]
        code = b"\x76\xa9\x14" + spent[index].script_pub_key.script[2:] + b"\x88\xac"
        digest = sig_hash.segwit_v0(code, transaction, index, kind, spent[index].value, hashed)
        return [key.sign(digest, hasher=None) + bytes([kind]), key.public_key.format()]

    def filled(self, text: str, stacks: Sequence[Sequence[bytes]], *, final: bool) -> str:
        """Return a PSBT with witnesses, as a signer leaves them, or as one who finalises does."""
        maps = psbt.decode(text)
        for said, stack in zip(maps[1:], stacks, strict=False):
            if final:
                said[b"\x08"] = Witness(list(stack)).serialize()
            elif self.is_taproot:
                said[b"\x13"] = stack[0]
            else:
                said[b"\x02" + stack[1]] = stack[0]
        return psbt.encode(maps)

    def stacks(self) -> list[Sequence[bytes]]:
        return [it.script_witness.stack for it in Tx.parse(self.signed(), check_validity=False).vin]


def cold_of(network: Network, parameters: CoinChain) -> Cold:
    return Cold(network, parameters, three_coins(network, parameters, STRANGER[parameters.name]))


@pytest.fixture(
    params=[(BITCOIN, BITCOIN_CHAIN), (TAPROOT, BITCOIN_CHAIN), (LITECOIN, LITECOIN_CHAIN)],
    ids=["segwit", "taproot", "litecoin"],
)
def cold(request: pytest.FixtureRequest) -> Cold:
    """A payment of three coins with change."""
    return cold_of(*request.param)


def with_witnesses(transaction: Tx, stacks: Sequence[Sequence[bytes]]) -> str:
    for signed, stack in zip(transaction.vin, stacks, strict=True):
        signed.script_witness = Witness(list(stack))
    return transaction.serialize(include_witness=True, check_validity=False).hex()


def unsigned(cold: Cold) -> Tx:
    return transaction_of(cold.body, cold.parameters.format)


def test_a_psbt_says_which_coins_and_whose_keys(cold: Cold) -> None:
    """Each input has its coin and the way to its key, the change as well, and a payee nothing."""
    whole, *others = psbt.decode(cold.psbt())
    inputs, outputs = others[:3], others[3:]
    assert whole == {b"\x00": unsigned(cold).serialize(include_witness=False, check_validity=False)}
    purpose, coin = cold.network.purpose, cold.network.coin_type
    for position, (said, coin_spent) in enumerate(zip(inputs, cold.spent(), strict=True)):
        key = cold.key(cold.body.inputs[position].position).public_key.format()
        steps = struct.pack("<5I", 2**31 + purpose, 2**31 + coin, 2**31, 0, cold.body.inputs[position].position)
        origin = bytes.fromhex("73c5da0a") + steps
        expected = {b"\x06" + key: origin}
        if cold.is_taproot:
            expected = {b"\x16" + key[1:]: b"\x00" + origin, b"\x17": key[1:]}
        assert said == expected | {b"\x01": coin_spent.serialize()}
    assert outputs[0] == {}
    assert any(key.endswith(cold.key(0).public_key.format()[1:]) for key in outputs[1])


def test_a_signed_transaction_becomes_the_candidate(cold: Cold) -> None:
    """What our own scheme signs is taken in hex, with spaces or without, and is what is broadcast."""
    signed = cold.signed()
    txid = Tx.parse(signed).id.hex()
    for text in (signed.hex(), signed.hex().upper(), f"\n {signed.hex()[:99]} {signed.hex()[99:]}\r\n"):
        assert cold.taken(text) == Candidate(txid, signed)


@pytest.mark.parametrize("final", [False, True], ids=["signed", "finalised"])
def test_a_signed_psbt_becomes_the_same_candidate(cold: Cold, final: bool) -> None:
    """Signatures, and final witnesses too, are put into the transaction, however the text is wrapped."""
    text = cold.filled(cold.psbt(), cold.stacks(), final=final)
    wrapped = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    for each in (text, wrapped):
        assert cold.taken(each).blob == cold.signed()


def test_fields_of_other_wallets_are_passed_over(cold: Cold) -> None:
    """What a signer adds for itself changes nothing: earlier transactions, other keys' signatures, its own fields."""
    maps = psbt.decode(cold.filled(cold.psbt(), cold.stacks(), final=False))
    maps[0][b"\xfc\x05other"] = b"thing"
    maps[1][b"\x00"] = b"a whole transaction"
    if not cold.is_taproot:
        maps[1][b"\x02" + cold.key(9).public_key.format()] = b"somebody else's"
    assert cold.taken(psbt.encode(maps)).blob == cold.signed()


def other_amount(body: Body) -> Body:
    (paid,) = body.outputs
    assert body.change is not None
    change = Paid(body.change.address, body.change.units - 1_000)
    return msgspec.structs.replace(body, outputs=(Paid(paid.address, paid.units + 1_000),), change=change)


def other_address(body: Body) -> Body:
    (paid,) = body.outputs
    return msgspec.structs.replace(body, outputs=(Paid(body.inputs[2].address, paid.units),))


def other_fee(body: Body) -> Body:
    assert body.change is not None
    change = Paid(body.change.address, body.change.units - 700)
    return msgspec.structs.replace(body, change=change, fee=body.fee + 700)


def no_change(body: Body) -> Body:
    assert body.change is not None
    return msgspec.structs.replace(body, change=None, fee=body.fee + body.change.units)


def extra_input(body: Body) -> Body:
    more = msgspec.structs.replace(body.inputs[0], outpoint=f"{9:064x}:0")
    return msgspec.structs.replace(body, inputs=(*body.inputs, more), fee=body.fee + more.units)


def other_coin(body: Body) -> Body:
    more = msgspec.structs.replace(body.inputs[0], outpoint=f"{9:064x}:0")
    return msgspec.structs.replace(body, inputs=(more, *body.inputs[1:]))


CHANGED = [
    (other_amount, r"output 0 pays 121000 units, not 120000"),
    (other_address, r"output 0 does not pay (bcrt|rltc)1qw508"),
    (other_fee, r"output 1 pays \d+ units, not \d+"),
    (no_change, r"the transaction has 1 outputs, not 2"),
    (extra_input, r"spends other coins than were reserved"),
    (other_coin, r"spends other coins than were reserved"),
]
CHANGED_NAMES = ["amount", "address", "fee", "no change", "extra input", "another coin"]


@pytest.mark.parametrize(("change", "reason"), CHANGED, ids=CHANGED_NAMES)
def test_another_payment_is_refused_however_well_it_is_signed(
    cold: Cold, change: Callable[[Body], Body], reason: str
) -> None:
    """A changed amount, address, fee or input is told, as a transaction, as signatures and as final witnesses."""
    other = cold._replace(body=change(cold.body))
    cold.refused(other.signed().hex(), reason)
    for final in (False, True):
        cold.refused(other.filled(other.psbt(), other.stacks(), final=final), reason)


def test_another_frame_is_refused_though_its_signatures_hold(cold: Cold) -> None:
    """Another version, lock time, sequence or script of an input is another transaction."""

    def frame(change: Callable[[Tx], None]) -> str:
        transaction = unsigned(cold)
        change(transaction)
        stacks = [cold.signature(transaction, index, int(not cold.is_taproot)) for index in range(3)]
        check_witnesses(Tx.parse(bytes.fromhex(with_witnesses(transaction, stacks))), cold.spent())
        return with_witnesses(transaction, stacks)

    def final_sequence(transaction: Tx) -> None:
        first = transaction.vin[0]
        transaction.vin[0] = TxIn(first.prev_out, b"", 0xFFFFFFFF)

    def script(transaction: Tx) -> None:
        first = transaction.vin[0]
        transaction.vin[0] = TxIn(first.prev_out, b"\x51", first.sequence)

    def order(transaction: Tx) -> None:
        transaction.vout.reverse()

    cold.refused(frame(lambda it: setattr(it, "version", 1)), "the transaction's version is 1, not 2")
    cold.refused(frame(lambda it: setattr(it, "lock_time", 7)), "the transaction's lock time is 7, not 0")
    cold.refused(frame(final_sequence), "another sequence number, or a script of its own")
    cold.refused(frame(script), "another sequence number, or a script of its own")
    cold.refused(frame(order), "output 0 does not pay")


def test_what_is_not_signed_is_refused_and_the_input_named(cold: Cold) -> None:
    """Nothing signed, one input left out, and an empty witness are no payment yet."""
    stacks = cold.stacks()
    cold.refused(cold.psbt(), "input 0 is not signed")
    cold.refused(cold.filled(cold.psbt(), stacks[:2], final=False), "input 2 is not signed")
    cold.refused(cold.filled(cold.psbt(), stacks[:1], final=True), "input 1 is not signed")
    cold.refused(with_witnesses(unsigned(cold), [stacks[0], [], stacks[2]]), "input 1 is not signed")


def test_a_signature_of_another_key_is_refused(cold: Cold) -> None:
    """Another seed's keys, another input's key, and a signature that was exchanged for its neighbour's do not hold."""
    transaction, stacks = unsigned(cold), cold.stacks()
    kind = int(not cold.is_taproot)
    foreign = [cold.signature(transaction, index, kind, OTHER_SEED) for index in range(3)]
    reason = "input 0 has a signature of another" if cold.is_taproot else "input 0 is not signed by its own key"
    cold.refused(with_witnesses(unsigned(cold), foreign), reason)
    cold.refused(cold.filled(cold.psbt(), foreign, final=False), reason)
    cold.refused(cold.filled(cold.psbt(), foreign, final=True), reason)
    exchanged = [stacks[1], stacks[0], stacks[2]]
    cold.refused(with_witnesses(unsigned(cold), exchanged), reason)
    # Our own key's name on somebody else's signature.
    named = [[theirs[0], *ours[1:]] for theirs, ours in zip(foreign, stacks, strict=True)]
    cold.refused(with_witnesses(unsigned(cold), named), "input 0 has a signature of another")
    cold.refused(cold.filled(cold.psbt(), named, final=False), "input 0 has a signature of another")


@pytest.mark.parametrize("kind", OPEN_KINDS)
def test_a_signature_that_leaves_something_open_is_refused(cold: Cold, kind: int) -> None:
    """A valid signature that does not commit to every input and output could serve another payment too."""
    transaction = unsigned(cold)
    stacks = [cold.signature(transaction, 0, kind), *cold.stacks()[1:]]
    reason = "input 0 has a signature that leaves a part of the transaction open"
    cold.refused(with_witnesses(unsigned(cold), stacks), reason)
    for final in (False, True):
        cold.refused(cold.filled(cold.psbt(), stacks, final=final), reason)


def test_a_taproot_signature_may_say_that_it_commits_to_all() -> None:
    """Some signers add the byte of the kind ALL, which says the same; any other length is refused."""
    cold = cold_of(TAPROOT, BITCOIN_CHAIN)
    stacks = [cold.signature(unsigned(cold), index, sig_hash.ALL) for index in range(3)]
    text = with_witnesses(unsigned(cold), stacks)
    assert cold.taken(text).blob.hex() == text
    assert cold.taken(cold.filled(cold.psbt(), stacks, final=False)).blob.hex() == text
    good = cold.stacks()
    for wrong in (good[0][0] + b"\x01", good[0][0] + b"\x00", good[0][0][:-1], b"", good[0][0] + b"\x01\x01"):
        with pytest.raises(Rejected, match="input 0"):
            _ = cold.taken(with_witnesses(unsigned(cold), [[wrong], *good[1:]]))


def test_a_witness_with_more_in_it_is_refused(cold: Cold) -> None:
    """An annex, a script, one more signature: nothing rides along."""
    good = cold.stacks()
    for wrong in ([*good[0], b"\x50annex"], [b"", *good[0]], [*good[0], *good[0]]):
        cold.refused(with_witnesses(unsigned(cold), [wrong, *good[1:]]), "input 0 is not signed by its own key")
        cold.refused(cold.filled(cold.psbt(), [wrong, *good[1:]], final=True), "input 0 is not signed by its own key")


def test_the_second_form_of_a_signature_is_refused() -> None:
    """The one with a high S is the same to the mathematics, but no node passes it on, and it is another blob."""
    cold = cold_of(BITCOIN, BITCOIN_CHAIN)
    good = cold.stacks()
    der = good[0][0][:-1]
    r_size = der[3]
    r, s = der[4 : 4 + r_size], int.from_bytes(der[6 + r_size :])
    high = (ORDER - s).to_bytes(33).lstrip(b"\0")
    high = b"\0" + high if high[0] >= 0x80 else high
    inner = bytes([2, len(r)]) + r + bytes([2, len(high)]) + high
    stack = [bytes([0x30, len(inner)]) + inner + b"\x01", good[0][1]]
    cold.refused(with_witnesses(unsigned(cold), [stack, *good[1:]]), "input 0 has a signature of another")
    for wrong in (b"\x01", b"", der + b"\x00\x01", der[:-1] + b"\x01"):
        cold.refused(with_witnesses(unsigned(cold), [[wrong, good[0][1]], *good[1:]]), "input 0 has a signature")


def test_a_coin_whose_amount_was_changed_is_refused(cold: Cold) -> None:
    """A PSBT that says of a coin what the books do not say is not taken, even where its signatures hold."""
    maps = psbt.decode(cold.filled(cold.psbt(), cold.stacks(), final=False))
    coin = cold.spent()[1]
    maps[2][b"\x01"] = TxOut(coin.value - 1, coin.script_pub_key).serialize()
    cold.refused(psbt.encode(maps), "input 1 is said to be another coin")
    del maps[2][b"\x01"]
    assert cold.taken(psbt.encode(maps)).blob == cold.signed()


def test_a_signature_over_a_wrong_amount_is_refused() -> None:
    """A signer who was told another amount has signed something else, and the fee cannot grow unseen."""
    cold = cold_of(BITCOIN, BITCOIN_CHAIN)
    first = cold.body.inputs[0]
    cheaper = msgspec.structs.replace(first, units=first.units - 100)
    wrong = msgspec.structs.replace(cold.body, inputs=(cheaper, *cold.body.inputs[1:]), fee=cold.body.fee - 100)
    cold.refused(cold.signed(wrong).hex(), "input 0 has a signature of another transaction, amount or key")


def test_half_a_text_is_refused(cold: Cold) -> None:
    """What was cut off, anywhere, is told to be no payment, and so is what goes on after its end."""
    whole = cold.filled(cold.psbt(), cold.stacks(), final=False)
    for text in (cold.signed().hex(), whole):
        for size in range(0, len(text), 29):
            with pytest.raises(Rejected):
                _ = cold.taken(text[:size])
    raw = base64.b64decode(whole)
    for size in range(5, len(raw), 7):
        with pytest.raises(Rejected):
            _ = cold.taken(base64.b64encode(raw[:size]).decode())
    for more in (b"\0", b"\0\0\0", raw[5:], b"\x01"):
        cold.refused(base64.b64encode(raw + more).decode(), "cut off|says one thing twice")
        cold.refused((cold.signed() + more).hex(), "not a transaction")


def test_other_containers_are_refused(cold: Cold) -> None:
    """A later version, a transaction that has witnesses already, scripts, and one thing said twice are told."""
    text = cold.filled(cold.psbt(), cold.stacks(), final=True)
    maps = psbt.decode(text)
    cold.refused(psbt.encode([maps[0] | {b"\xfb": struct.pack("<I", 2)}, *maps[1:]]), "not a PSBT of version 0")
    cold.refused(psbt.encode([{}, *maps[1:]]), "not a PSBT of version 0")
    cold.refused(psbt.encode([]), "not a PSBT of version 0")
    cold.refused(psbt.encode([{b"\x00": cold.signed()}, *maps[1:]]), "has witnesses, or another spelling")
    cold.refused(psbt.encode([maps[0], maps[1] | {b"\x07": b"\x51"}, *maps[2:]]), "input 0 has a script of its own")
    cold.refused(psbt.encode([maps[0], maps[1] | {b"\x08": b"\x02\x01"}, *maps[2:]]), "input 0 has a witness that is")
    cold.refused(psbt.encode([*maps, {}]), "other inputs or outputs than its transaction")
    cold.refused(psbt.encode(maps[:-1]), "other inputs or outputs than its transaction")
    raw = base64.b64decode(text)
    one = b"\x01\xf0\x00"
    cold.refused(base64.b64encode(raw[:5] + one + one + raw[5:]).decode(), "says one thing twice")
    cold.refused("cHNidP" + "!" * 10, "not in base64")
    cold.refused(base64.b64encode(b"psbt\xfe" + raw[5:]).decode(), "not a PSBT")
    cold.refused("not a payment", "neither a PSBT in base64 nor a transaction in hex")
    cold.refused("é" * 10, "neither a PSBT")
    cold.refused("0" * (MAX_TEXT_CHARS + 1), "too long")
    cold.refused(base64.b64encode(b"psbt\xff" + b"\0" * 1_001).decode(), "too many parts")


def test_a_container_of_another_count_of_inputs_is_refused(cold: Cold) -> None:
    """A PSBT that fits in itself but not to the payment is another payment."""
    transaction = unsigned(cold)
    transaction.vin.append(TxIn(OutPoint(b"\x09" * 32, 0), b"", 0xFFFFFFFD))
    maps = psbt.decode(cold.psbt())
    stripped = transaction.serialize(include_witness=False, check_validity=False)
    text = psbt.encode([{b"\x00": stripped}, *maps[1:4], {}, *maps[4:]])
    cold.refused(text, "spends other coins than were reserved")


def test_only_our_own_keys_leave_in_a_psbt(cold: Cold) -> None:
    """A body whose inputs or change are elsewhere than at our addresses is not made ready for anybody to sign."""
    first, *rest = cold.body.inputs
    stranger = STRANGER[cold.parameters.name]
    assert cold.body.change is not None
    for wrong, reason in (
        (msgspec.structs.replace(cold.body, change=Paid(stranger, cold.body.change.units)), "change goes"),
        (
            msgspec.structs.replace(cold.body, inputs=(msgspec.structs.replace(first, position=5), *rest)),
            "not the one of its position",
        ),
        (
            msgspec.structs.replace(cold.body, inputs=(msgspec.structs.replace(first, position=-1), *rest)),
            "not the one of its position",
        ),
        (
            msgspec.structs.replace(cold.body, inputs=(msgspec.structs.replace(first, address=stranger), *rest)),
            "not the one of its position",
        ),
    ):
        with pytest.raises(Rejected, match=reason):
            _ = cold._replace(body=wrong).psbt()


def test_coins_of_a_kind_that_has_no_keys_of_ours_are_refused() -> None:
    """A script's coin is nothing that one key signs for."""
    cold = cold_of(BITCOIN, BITCOIN_CHAIN)
    script = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry"
    inputs = tuple(msgspec.structs.replace(it, address=script) for it in cold.body.inputs)
    other = cold._replace(body=msgspec.structs.replace(cold.body, inputs=inputs))
    other.refused(cold.signed().hex(), "input 0 is of a kind that we have no keys for")


TEXTS = cold_of(BITCOIN, BITCOIN_CHAIN)
GOOD = base64.b64decode(TEXTS.filled(TEXTS.psbt(), TEXTS.stacks(), final=False))


@settings(max_examples=200)
@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_a_changed_byte_never_becomes_another_payment(at: int, value: int) -> None:
    """Whatever byte of a signed PSBT is changed: it is refused, or the transaction is the one it was."""
    changed = GOOD[:at] + bytes([value]) + GOOD[at + 1 :]
    try:
        candidate = signed_psbt(TEXTS.raw, base64.b64encode(changed).decode(), TEXTS.parameters.format)
    except Rejected:
        return
    assert candidate.blob == TEXTS.signed()


@given(
    st.one_of(
        st.text(), st.binary().map(lambda it: base64.b64encode(b"psbt\xff" + it).decode()), st.binary().map(bytes.hex)
    )
)
def test_nonsense_is_refused(text: str) -> None:
    """Any text at all gets a reason, and nothing else happens."""
    with pytest.raises(Rejected):
        _ = signed_psbt(TEXTS.raw, text, TEXTS.parameters.format)

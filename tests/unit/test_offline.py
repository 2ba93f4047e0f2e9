"""The file in which a payment travels: what a person reads in it is what is signed, or nothing is."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.custody import offline
from strongroom.custody.chain import Payee, Rejected
from strongroom.custody.families import BITCOIN, NATIVE, RIPPLE
from strongroom.custody.networks import evm_transactions
from strongroom.custody.networks.evm_signing import EvmScheme
from strongroom.custody.networks.evm_transactions import EvmPayment, network_of
from strongroom.custody.networks.simulated_signing import SimulatedScheme
from strongroom.custody.networks.simulated_transactions import Payment, encode_payment
from strongroom.custody.networks.utxo_psbt import psbt_of, signed_psbt
from strongroom.custody.networks.utxo_signing import UtxoScheme
from strongroom.custody.networks.utxo_transactions import encode
from strongroom.custody.offline import OfflineError, Unsigned
from strongroom.custody.signer import Scheme
from support.utxo import BITCOIN_CHAIN, SEED, branch_of, three_coins

STRANGER: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
BODY: Final = encode(three_coins(BITCOIN, BITCOIN_CHAIN, STRANGER))
FEE: Final = three_coins(BITCOIN, BITCOIN_CHAIN, STRANGER).fee
SCHEME: Final = UtxoScheme(SEED, BITCOIN, BITCOIN_CHAIN)
PSBT: Final = psbt_of(BODY, BITCOIN_CHAIN.format, branch_of(BITCOIN))
TOKEN: Final = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
ETHEREUM: Final = network_of("ETHEREUM", {TOKEN: 6})


def file_of(**changes: Any) -> Unsigned:
    payees = [Payee(STRANGER, "", "", 120_000)]
    made = offline.unsigned_payment(BITCOIN, 2**60, "cold", payees, FEE, BODY, PSBT)
    return msgspec.structs.replace(made, **changes)


def test_a_person_can_read_what_is_paid() -> None:
    """The file says network, receiver, amount and fee as people write them, and comes back as it went."""
    read = json.loads(offline.encode(file_of()))
    assert read["network"] == "BITCOIN"
    assert read["payment"] == str(2**60)
    assert read["pays"] == [{"to": STRANGER, "tag": "", "asset": "native", "amount": "0.0012"}]
    assert read["fee"] == "0.00001385"
    assert read["unsigned"] == PSBT
    assert base64.b64decode(read["body"]) == BODY
    assert offline.decode(offline.encode(file_of())) == file_of()


def test_a_vault_signs_what_the_books_drafted() -> None:
    """What comes out of the vault is taken as the payment's candidate."""
    signed = offline.sign(offline.decode(offline.encode(file_of())), BITCOIN, SCHEME)
    text = offline.signed_text(offline.encode_signed(signed), "BITCOIN", 2**60)
    assert signed_psbt(BODY, text, BITCOIN_CHAIN.format).blob == SCHEME.sign(BODY)


def test_a_layout_of_another_hand_is_read() -> None:
    """An editor that put everything on one line, or on many, has changed nothing."""
    content = offline.encode(file_of())
    for indent in (None, 8):
        assert offline.decode(json.dumps(json.loads(content), indent=indent).encode()) == file_of()


PAID = file_of().pays[0]
TAMPERED: list[tuple[dict[str, Any], str]] = [
    ({"pays": (msgspec.structs.replace(PAID, amount="0.0011"),)}, "says 0.0011 'native' to .* and would pay 0.0012"),
    ({"pays": (msgspec.structs.replace(PAID, to=branch_of(BITCOIN).address(0).address),)}, "it says .* and would pay"),
    ({"pays": (msgspec.structs.replace(PAID, to="\x1b[2J"),)}, r"to '\\x1b\[2J', and would pay"),
    ({"pays": (msgspec.structs.replace(PAID, asset="BTC"),)}, "says 0.0012 'BTC'"),
    ({"pays": (msgspec.structs.replace(PAID, tag="7"),)}, "with the tag '7'"),
    ({"pays": (PAID, PAID)}, "says 2 payees, and would pay 1"),
    ({"pays": ()}, "says 0 payees, and would pay 1"),
    ({"fee": "0.00000001"}, "a fee of 0.00000001, and would pay 0.00001385"),
    ({"fee": "0.000013850"}, "a fee of 0.000013850, and would pay 0.00001385"),
    ({"network": "LITECOIN"}, "the file is for LITECOIN, not for BITCOIN"),
]


@pytest.mark.parametrize(("change", "reason"), TAMPERED)
def test_a_file_that_says_something_else_is_not_signed(change: dict[str, Any], reason: str) -> None:
    """Words that are not those of the payment are told beside the true ones, and nothing is signed."""
    with pytest.raises(OfflineError, match=reason):
        _ = offline.sign(file_of(**change), BITCOIN, SCHEME)


def test_the_words_come_from_what_is_signed() -> None:
    """The text for other signers is neither shown nor signed by the vault, whatever was put there."""
    checked = offline.checked(file_of(unsigned="anything"), BITCOIN, SCHEME)
    assert (checked.pays, checked.fee, checked.unsigned) == (file_of().pays, file_of().fee, "")
    signed = offline.sign(file_of(unsigned="anything"), BITCOIN, SCHEME)
    assert bytes.fromhex(signed.signed) == SCHEME.sign(BODY)


def test_another_vaults_payment_is_not_signed() -> None:
    """Change or inputs that are not the vault's own, another transaction and nonsense are refused."""
    other = UtxoScheme(bytes(range(64)), BITCOIN, BITCOIN_CHAIN)
    with pytest.raises(Rejected, match="not the house's own"):
        _ = offline.sign(file_of(), BITCOIN, other)
    body = three_coins(BITCOIN, BITCOIN_CHAIN, STRANGER)
    moved = msgspec.structs.replace(body.inputs[0], position=4)
    wrong = msgspec.structs.replace(body, inputs=(moved, *body.inputs[1:]))
    with pytest.raises(Rejected, match="not the one of its position"):
        _ = offline.sign(file_of(body=encode(wrong)), BITCOIN, SCHEME)
    for nonsense in (b"", b"{}", BODY + b" ", BODY[:-1]):
        with pytest.raises(Rejected):
            _ = offline.sign(file_of(body=nonsense), BITCOIN, SCHEME)


def test_a_changed_body_is_refused_or_told() -> None:
    """Who changes the body as well as the words has another payment, which is shown as the one it is."""
    body = three_coins(BITCOIN, BITCOIN_CHAIN, branch_of(BITCOIN).address(9).address)
    with pytest.raises(
        OfflineError, match="and would pay 0.0012 'native' to '" + branch_of(BITCOIN).address(9).address
    ):
        _ = offline.checked(file_of(body=encode(body)), BITCOIN, SCHEME)


def test_amounts_have_the_decimals_of_their_asset() -> None:
    """A token counts in its own decimals, and its fee in those of the network's coin."""
    scheme = EvmScheme(SEED, ETHEREUM, 1)
    payee = Payee("0x00000000000000000000000000000000DeaDBeef", "", TOKEN, 1_500_000)
    to, value, data = evm_transactions.target_of(payee)
    payment = EvmPayment(
        1, branch_of(ETHEREUM).address(0).address, 0, to, str(value), "0x" + data.hex(), 65_000, str(10**9), "1"
    )
    file = offline.unsigned_payment(
        ETHEREUM, 1, "cold", [payee], payment.fee, evm_transactions.encode_payment(payment), ""
    )
    assert [(it.amount, it.asset) for it in file.pays] == [("1.5", TOKEN)]
    assert file.fee == "0.000065"
    assert offline.checked(file, ETHEREUM, scheme).pays == file.pays
    with pytest.raises(OfflineError, match="BITCOIN has no asset"):
        _ = offline.unsigned_payment(BITCOIN, 1, "cold", [payee], 1, b"", "")


def test_a_tag_is_part_of_what_is_paid() -> None:
    """Where addresses are shared the file says the tag, and another one is not signed."""
    payee = Payee("rHsMGQEkVNJmpGWs8XUBoTBiAAbwxZN5v3", "77", NATIVE, 2_500_000)
    scheme: Scheme = SimulatedScheme(RIPPLE, SEED)
    body = encode_payment(Payment("RIPPLE", 3, 12, (payee,)))
    file = offline.unsigned_payment(RIPPLE, 1, "cold", [payee], 12, body, "")
    assert [(it.amount, it.tag) for it in file.pays] == [("2.5", "77")]
    assert offline.sign(file, RIPPLE, scheme).signed
    changed = msgspec.structs.replace(file, pays=(msgspec.structs.replace(file.pays[0], tag="78"),))
    with pytest.raises(OfflineError, match=r"with the tag '78', and would pay .* with the tag '77'"):
        _ = offline.sign(changed, RIPPLE, scheme)


def edited(**changes: Any) -> bytes:
    return json.dumps(json.loads(offline.encode(file_of())) | changes).encode()


def test_a_file_in_another_shape_is_refused() -> None:
    """Half a file, another version, fields more or fewer or twice, control characters and far too much are told."""
    content = offline.encode(file_of())
    for size in range(0, len(content) - 2, 41):
        with pytest.raises(OfflineError, match="not a payment to be signed, or it was changed"):
            _ = offline.decode(content[:size])
    with pytest.raises(OfflineError, match="of version 2, and only version 1 is known here"):
        _ = offline.decode(edited(version=2, more=1))
    twice = content.replace(b'"fee": "0.00001385"', b'"fee": "0.1",\n  "fee": "0.00001385"')
    swapped = json.dumps(dict(reversed(json.loads(content).items()))).encode()
    for wrong in (twice, swapped):
        with pytest.raises(OfflineError, match="says something twice, or in another spelling"):
            _ = offline.decode(wrong)
    for wrong in (
        edited(more=1),
        edited(version="1"),
        edited(version=True),
        edited(format="strongroom-signed-payment"),
        edited(network="BIT\x1b[2JCOIN"),
        edited(network="BITCOIN\n"),
        edited(kind="x" * 65),
        edited(payment="-1"),
        edited(payment=1),
        edited(fee="1e3"),
        edited(body="not base64!"),
        edited(pays=[{"to": "x", "tag": "", "asset": "native", "amount": "\x1b[2J"}]),
        b"[]",
        b"\xff",
        b"[" * 1_100,
        b"[" * 1_000_000,
        b'{"x":' * 200_000,
    ):
        with pytest.raises(OfflineError, match="not a payment to be signed"):
            _ = offline.decode(wrong)
    with pytest.raises(OfflineError, match="larger than"):
        _ = offline.decode(b" " * (offline.MAX_FILE_BYTES + 1))
    with pytest.raises(OfflineError, match="larger than"):
        _ = offline.encode(file_of(unsigned="x" * offline.MAX_FILE_BYTES))


def test_what_another_wallet_wrote_is_taken_as_it_is() -> None:
    """A PSBT in bytes or in base64 and a transaction in hex need no file of ours around them."""
    raw = base64.b64decode(PSBT)
    assert offline.signed_text(raw, "BITCOIN", 1) == PSBT
    assert offline.signed_text(PSBT.encode() + b"\n", "BITCOIN", 1) == PSBT
    assert offline.signed_text(b" 0200ab\r\n", "BITCOIN", 1) == "0200ab"


def test_a_signed_file_of_another_payment_is_refused() -> None:
    """What was signed for one payment or network is not taken for another, nor what was not signed at all."""
    content = offline.encode_signed(offline.sign(file_of(), BITCOIN, SCHEME))
    for network, payment in (("BITCOIN", 1), ("LITECOIN", 2**60)):
        with pytest.raises(OfflineError, match=f"signed is payment {2**60} of BITCOIN, not {payment} of {network}"):
            _ = offline.signed_text(content, network, payment)
    for wrong in (offline.encode(file_of()), b"{}", content[:-9], b"\xff\xfe", b" " * (offline.MAX_SIGNED_BYTES + 1)):
        with pytest.raises(OfflineError):
            _ = offline.signed_text(wrong, "BITCOIN", 2**60)


@given(st.binary())
def test_any_bytes_are_refused(content: bytes) -> None:
    """Whatever is in a file: it is a payment, or there is a reason why not."""
    with pytest.raises(OfflineError):
        _ = offline.decode(content)

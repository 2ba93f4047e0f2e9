"""The offline tool: `strongroom vault sign` shows what a file would pay, and signs it or says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from strongroom.custody import offline
from strongroom.custody.chain import Payee
from strongroom.custody.families import BITCOIN, RIPPLE
from strongroom.custody.networks.simulated_signing import SimulatedScheme
from strongroom.custody.networks.simulated_transactions import Payment, encode_payment
from strongroom.custody.networks.utxo_psbt import psbt_of, signed_psbt
from strongroom.custody.networks.utxo_transactions import encode
from support.demos import Ran, invoke, run
from support.utxo import BITCOIN_CHAIN, SEED, branch_of, three_coins

WORDS: Final = "abandon " * 11 + "about"
STRANGER: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
BODY: Final = encode(three_coins(BITCOIN, BITCOIN_CHAIN, STRANGER))
SHOWN: Final = f"""\
network  BITCOIN
to       {STRANGER}
amount   0.0012 native
fee      0.00001385 native at most
as the file says: payment 77 (cold)
"""
# Nobody listens there: whoever signs asks no node.
SETTINGS: Final = '[nodes.BITCOIN]\nurl = "http://127.0.0.1:9"\nchain = "bitcoin-regtest"\n'


class Desk:
    """An offline machine: a vault, its passphrase, the settings, and a file to sign."""

    def __init__(self, folder: Path, words: str = WORDS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "payment.json"
        self.signed = folder / "payment.json.signed"
        self.passphrase, self.settings = folder / "passphrase", folder / "house.toml"
        self.passphrase.write_text("correct horse battery staple\n")
        self.settings.write_text(SETTINGS)
        (folder / "words").write_text(words)
        self.options = ("--data", folder / "vault", "--passphrase-file", self.passphrase)
        ran = invoke(
            *("vault", "init", *self.options, "--config", self.settings, "--words-file", folder / "words"),
        )
        assert ran.code == 0, ran.err
        payees = [Payee(STRANGER, "", "", 120_000)]
        text = psbt_of(BODY, BITCOIN_CHAIN.format, branch_of(BITCOIN))
        self.put(offline.encode(offline.unsigned_payment(BITCOIN, 77, "cold", payees, 1_385, BODY, text)))

    def put(self, content: bytes) -> None:
        self.file.write_bytes(content)

    def change(self, **fields: Any) -> None:
        """Change fields of the file, as somebody on its way might."""
        self.put(json.dumps(json.loads(self.file.read_bytes()) | fields).encode())

    def sign(self, *more: str, typed: str | None = None) -> Ran:
        return invoke("vault", "sign", self.file, *self.options, "--config", self.settings, *more, typed=typed)

    def refuses(self, reason: str, *more: str) -> None:
        """See that nothing is signed, for a reason in one line."""
        ran = self.sign("--yes", *more)
        assert (ran.code, ran.out) == (1, ""), ran
        assert ran.err.startswith("strongroom: ")
        assert reason in ran.err
        assert not self.signed.exists()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_payment_is_shown_and_signed(desk: Desk) -> None:
    """Network, receiver, amount and fee are shown, and what comes back is the books' own candidate."""
    ran = desk.sign("--yes")
    assert (ran.code, ran.out, ran.err) == (0, f"{SHOWN}signed   {desk.signed}\n", "")
    assert desk.signed.stat().st_mode & 0o777 == 0o600
    text = offline.signed_text(desk.signed.read_bytes(), "BITCOIN", 77)
    assert signed_psbt(BODY, text, BITCOIN_CHAIN.format).blob.hex() == text


def test_the_custodian_is_asked_first(desk: Desk) -> None:
    """Nothing is signed without a yes: not after a no, and not where nobody answers."""
    ran = desk.sign(typed="n\n")
    assert (ran.code, ran.out) == (1, SHOWN)
    assert "Sign this? [y/N]" in ran.err
    assert ran.err.endswith("strongroom: nothing was signed\n")
    assert desk.sign(typed="").code == 1
    assert not desk.signed.exists()
    assert desk.sign(typed="y\n").code == 0
    assert desk.signed.exists()


def test_nothing_is_overwritten(desk: Desk) -> None:
    """A payment that was signed already is left as it is, before anybody is asked for a passphrase."""
    desk.signed.write_text("precious")
    desk.passphrase.unlink()
    ran = desk.sign("--yes")
    assert (ran.code, ran.err) == (1, f"strongroom: {desk.signed} is there already, and nothing is overwritten\n")
    assert desk.signed.read_text() == "precious"


def test_a_file_that_was_changed_is_refused(desk: Desk) -> None:
    """Words that are not the payment's, half a file and no file at all are told, and nothing is signed."""
    good = desk.file.read_bytes()
    paid = json.loads(good)["pays"][0]
    desk.change(pays=[paid | {"amount": "0.0013"}])
    desk.refuses("the file was changed: it says 0.0013 'native' to")
    desk.put(good)
    desk.change(pays=[paid | {"to": branch_of(BITCOIN).address(0).address}])
    desk.refuses(f"and would pay 0.0012 'native' to '{STRANGER}'")
    desk.put(good)
    desk.change(fee="0.00000001")
    desk.refuses("it says a fee of 0.00000001, and would pay 0.00001385")
    desk.put(good[:-40])
    desk.refuses("not a payment to be signed")
    desk.put(b" " * 2_000_000)
    desk.refuses("larger than 1048576 bytes")
    desk.file.unlink()
    desk.refuses("No such file")


def test_what_is_not_this_vaults_is_refused(desk: Desk, tmp_path: Path) -> None:
    """Another seed's payment, another network and a wrong passphrase sign nothing."""
    other = Desk(tmp_path / "other", words="zoo " * 11 + "wrong")
    other.refuses("this is not signed: change goes to an address that is not the house's own")
    desk.change(network="LITECOIN")
    desk.refuses("this is not signed: the transaction is malformed")
    desk.change(network="DOGECOIN")
    desk.refuses("there is no network DOGECOIN here")
    desk.change(network="BITCOIN")
    desk.passphrase.write_text("the wrong horse battery staple\n")
    desk.refuses("the passphrase is wrong, or the vault was changed")


def test_a_network_that_has_no_node_in_the_settings_is_a_simulated_one(desk: Desk) -> None:
    """Without the house's settings a real payment is not recognised, and is not signed."""
    ran = invoke("vault", "sign", desk.file, *desk.options, "--yes")
    assert ran.code == 1
    assert "this is not signed: the transaction is malformed" in ran.err
    assert "--config" in ran.err
    assert not desk.signed.exists()


def test_a_payment_with_a_tag_is_signed(desk: Desk) -> None:
    """Where an address is shared its tag is shown, and the signature is the one that the chain's scheme makes."""
    payee = Payee("rHsMGQEkVNJmpGWs8XUBoTBiAAbwxZN5v3", "77", "", 2_500_000)
    body = encode_payment(Payment("RIPPLE", 3, 12, (payee,)))
    desk.put(offline.encode(offline.unsigned_payment(RIPPLE, 1, "cold", [payee], 12, body, "")))
    ran = desk.sign("--yes")
    assert "to       rHsMGQEkVNJmpGWs8XUBoTBiAAbwxZN5v3 with the tag 77\namount   2.5 native\n" in ran.out
    signed = offline.signed_text(desk.signed.read_bytes(), "RIPPLE", 1)
    assert bytes.fromhex(signed) == SimulatedScheme(RIPPLE, SEED).sign(body)


def test_the_tool_needs_no_server(desk: Desk) -> None:
    """In a process of its own, without a house, it does all of this."""
    ran = run("vault", "sign", desk.file, *desk.options, "--config", desk.settings, "--yes")
    assert (ran.code, ran.out, ran.err) == (0, f"{SHOWN}signed   {desk.signed}\n", "")

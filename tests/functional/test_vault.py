"""The custodian's commands: a vault is made, shown and locked anew, and a signer starts from it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from strongroom.clock import Clock, Ids, SetClock
from strongroom.custody.chain import Rejected
from strongroom.custody.derivation import seed_of
from strongroom.custody.families import NETWORKS
from strongroom.custody.remote_signer import RemoteSigner
from strongroom.custody.sender import Sender
from strongroom.custody.token import TokenKey
from strongroom.custody.vault import (
    VaultError,
    open_with_passphrase,
    open_with_token,
    seal_with_passphrase,
    seal_with_token,
)
from strongroom.custody.xpubs import public_keys_of, read_public_keys
from strongroom.records.withdrawals import WithdrawalState
from strongroom.store.sqlite.store import SqliteStore
from support.demos import STRONGROOM, environment, invoke, invoke_json, run
from support.paying import COIN, paying
from support.signing import SEED
from support.world import BITCOIN, BTC, NOW_MS

WORDS = "abandon " * 23 + "art"
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
CAPS = '[networks.BITCOIN]\nmax_fee = "1000"\n[networks.BITCOIN.daily]\nnative = "100"\n'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a passphrase, another one, and the words of a seed."""
    (tmp_path / "passphrase").write_text("the first of passphrases\n")
    (tmp_path / "other").write_text("the second of passphrases\n")
    (tmp_path / "words").write_text(WORDS + "\n")
    return tmp_path


def made(files: Path) -> Path:
    """Return the folder of a new vault with known words."""
    house = files / "house"
    ran = invoke(
        "vault", "init", "--data", house, "--passphrase-file", files / "passphrase", "--words-file", files / "words"
    )
    assert ran.code == 0, ran.err
    assert "abandon" not in ran.out
    return house


def test_a_vault_is_made_of_known_words(files: Path) -> None:
    """The words on paper give the same keys again, in files for their owner alone."""
    house = made(files)
    content = (house / "vault.json").read_bytes()
    assert open_with_passphrase(content, "the first of passphrases") == seed_of(WORDS)
    assert read_public_keys(house / "xpubs.json") == public_keys_of(seed_of(WORDS), NETWORKS.values())
    for name in ("vault.json", "xpubs.json"):
        assert (house / name).stat().st_mode & 0o777 == 0o600


def test_new_words_are_printed_once_and_kept_nowhere(files: Path) -> None:
    """The words that init prints are the vault's, and stand in no file."""
    house = files / "house"
    ran = invoke("vault", "init", "--data", house, "--passphrase-file", files / "passphrase")
    words = ran.out.strip().splitlines()[-1]
    content = (house / "vault.json").read_bytes()
    assert len(words.split()) == 24
    assert open_with_passphrase(content, "the first of passphrases") == seed_of(words)
    assert words not in (house / "vault.json").read_text() + (house / "xpubs.json").read_text()


def test_nothing_is_overwritten(files: Path) -> None:
    """A second init leaves the vault as it is, as does one whose public keys alone are there."""
    house = made(files)
    before = (house / "vault.json").read_bytes()
    for _ in range(2):
        ran = invoke("vault", "init", "--data", house, "--passphrase-file", files / "passphrase")
        assert ran.code == 1
        assert "is there already" in ran.err
        (house / "vault.json").unlink(missing_ok=True)
    assert before
    assert not (house / "vault.json").exists()


def test_wrong_words_and_weak_passphrases_make_no_vault(files: Path) -> None:
    """A mistyped word and a short passphrase are said, and nothing is written."""
    house = files / "house"
    (files / "words").write_text("abandon " * 24)
    ran = invoke(
        "vault", "init", "--data", house, "--passphrase-file", files / "passphrase", "--words-file", files / "words"
    )
    assert (ran.code, ran.err) == (1, "strongroom: the words are not a seed's: the words' checksum is wrong\n")
    (files / "passphrase").write_text("short")
    ran = invoke("vault", "init", "--data", house, "--passphrase-file", files / "passphrase")
    assert ran.code == 1
    assert "12 to 1024 characters" in ran.err
    assert not house.exists()


def test_show_tells_public_keys_and_nothing_secret(files: Path) -> None:
    """Networks with their xpub and hot key, and what opens the vault; without a passphrase."""
    house = made(files)
    shown = invoke_json("vault", "show", "--data", house)
    keys = public_keys_of(seed_of(WORDS), NETWORKS.values())
    assert shown["opened_by"] == "a passphrase"
    assert {row["network"]: row["xpub"] for row in shown["networks"]} == {
        code: network.xpub for code, network in keys.networks.items()
    }
    assert keys.networks["BITCOIN"].hot_public_key in invoke("vault", "show", "--data", house).out
    ran = invoke("vault", "show", "--data", files / "nowhere")
    assert ran.code == 1
    assert "No such file" in ran.err


def test_the_passphrase_can_be_changed(files: Path) -> None:
    """The new one opens the same seed, the old one does not, and a wrong one changes nothing."""
    house = made(files)
    path = house / "vault.json"
    change = ("vault", "passphrase", "--data", house, "--passphrase-file")
    before = path.read_bytes()
    ran = invoke(*change, files / "other", "--new-passphrase-file", files / "passphrase")
    assert (ran.code, ran.err) == (1, "strongroom: the passphrase is wrong, or the vault was changed\n")
    assert path.read_bytes() == before
    assert invoke(*change, files / "passphrase", "--new-passphrase-file", files / "other").code == 0
    assert open_with_passphrase(path.read_bytes(), "the second of passphrases") == seed_of(WORDS)
    with pytest.raises(VaultError):
        open_with_passphrase(path.read_bytes(), "the first of passphrases")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_needs_its_module_and_label(files: Path) -> None:
    """Options that do not belong together are wrong usage."""
    house = files / "house"
    for wrong in (["--token-label", "t"], ["--pkcs11-module", "m"], ["--pin-file", str(files / "words")]):
        assert invoke("vault", "init", "--data", house, *wrong).code == 2
    assert not house.exists()


async def test_the_signer_starts_from_the_vault_and_stops_on_a_signal(files: Path) -> None:
    """It listens when it says so, has no answer without books, and clears its socket away when it ends."""
    house = made(files)
    state, path = files / "state", files / "run" / "signer"
    state.mkdir()
    arguments = ("signer", "--data", house, "--state", state, "--socket", path, "--passphrase-file")
    ran = await asyncio.to_thread(run, *arguments, files / "passphrase")
    assert ran.code == 1
    assert "caps.toml: No such file" in ran.err
    (state / "caps.toml").write_text(CAPS)
    ran = await asyncio.to_thread(run, *arguments, files / "other")
    assert ran.code == 1
    assert "the passphrase is wrong" in ran.err
    command = [*STRONGROOM, *map(str, arguments), str(files / "passphrase")]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == f"listening on {path}\n".encode()
        signer = RemoteSigner(path, read_public_keys(house / "xpubs.json"))
        with pytest.raises(Rejected, match="there are no caps for network 'RIPPLE'"):
            await signer.sign("RIPPLE", 1, b"")
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert b"signer_refused" in errors
    assert not path.exists()


@asynccontextmanager
async def signing(path: Path, *arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a signer in a process of its own, and kill it in the end."""
    command = [*STRONGROOM, "signer", "--socket", str(path), *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == f"listening on {path}\n".encode()
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_a_house_is_paid_for_by_a_signer_that_is_killed_and_started_again(files: Path) -> None:
    """The process that signs reads the books beside the one that writes them, and knows its sums after a kill."""
    house, state, path = files / "house", files / "state", files / "run" / "signer"
    for folder in (house, state):
        folder.mkdir()
    (house / "vault.json").write_bytes(seal_with_passphrase(SEED, "the first of passphrases", Ids(Clock())))
    (state / "caps.toml").write_text(CAPS.replace('"1000"', '"9999"').replace('"100"', '"300000000"'))
    arguments = ("--data", house, "--state", state, "--passphrase-file", files / "passphrase")
    signer = RemoteSigner(path, public_keys_of(SEED, NETWORKS.values()))
    async with paying(SqliteStore(house, Ids(SetClock(NOW_MS))), files) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        sender = Sender(payouts.world.context, payouts.chain(BITCOIN), signer, BITCOIN)
        first = await payouts.withdraw("2")
        async with signing(path, *arguments):
            await payouts.pay(sender, first)
        second, third = await payouts.withdraw("1.5"), await payouts.withdraw("0.5")
        assert not await sender.step()
        async with signing(path, *arguments):
            await payouts.pay(sender, third)
        assert payouts.row(first.ref).state == payouts.row(third.ref).state == WithdrawalState.SETTLED
        assert payouts.row(second.ref).state == WithdrawalState.PAYING
        [reason] = sender.status.stuck.values()
        assert "of 24 hours would go above the cap of 300000000" in reason
        payouts.agree()


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The label of a fresh token in software, whose PIN is 1234."""
    if shutil.which("softhsm2-util") is None or not Path(MODULE).exists():
        if os.environ.get("CI") == "true":
            pytest.fail("softhsm2 is missing, and CI has everything")
        pytest.skip("softhsm2 is not installed")
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "conf")
    command = ["softhsm2-util", "--init-token", "--free", "--label", "vaults", "--so-pin", "5678", "--pin", "1234"]
    subprocess.run(command, check=True, capture_output=True)
    return "vaults"


def test_a_key_in_a_token_opens_the_vault(token: str) -> None:
    """The token's key opens what it has locked, cannot be read, and another key or PIN opens nothing."""
    ids, seed = Ids(Clock()), bytes(range(64))
    key, other = TokenKey(MODULE, token, "1234", "one"), TokenKey(MODULE, token, "1234", "two")
    key.generate()
    content = seal_with_token(seed, key, ids)
    assert open_with_token(content, key) == seed
    with pytest.raises(VaultError, match="has a key one already"):
        key.generate()
    with pytest.raises(VaultError, match="has no keys two"):
        open_with_token(content, other)
    other.generate()
    with pytest.raises(VaultError, match="did not do it"):
        open_with_token(content, other)
    changed = json.loads(content)
    changed["header"]["lock"]["key_label"] = "two"
    with pytest.raises(VaultError, match="did not do it"):
        open_with_token(json.dumps(changed).encode(), key)
    with pytest.raises(VaultError, match="PIN is wrong"):
        open_with_token(content, TokenKey(MODULE, token, "0000", "one"))
    with pytest.raises(VaultError, match="no token nowhere"):
        open_with_token(content, TokenKey(MODULE, "nowhere", "1234", "one"))
    with pytest.raises(VaultError, match="did not do it"):
        open_with_token(content, TokenKey("/no/such/module.so", token, "1234", "one"))


def test_the_tokens_key_cannot_be_read(token: str) -> None:
    """The token keeps the key's value to itself, from us too."""
    import pkcs11
    from pkcs11.exceptions import AttributeSensitive

    TokenKey(MODULE, token, "1234", "hidden").generate()
    with pkcs11.lib(MODULE).get_token(token_label=token).open(user_pin="1234") as session:
        key = session.get_key(label="hidden")
        assert key[pkcs11.Attribute.SENSITIVE]
        assert not key[pkcs11.Attribute.EXTRACTABLE]
        with pytest.raises(AttributeSensitive):
            key[pkcs11.Attribute.VALUE]


async def test_a_vault_with_a_token_is_made_and_shown(files: Path, token: str) -> None:
    """The commands make the key in the token and name it, a signer starts with it, and no passphrase is left."""
    house = files / "house"
    (files / "pin").write_text("1234\n")
    where = ("--pkcs11-module", MODULE, "--token-label", token, "--pin-file", files / "pin", "--key-label", "house")
    init = ("vault", "init", "--data", house, "--words-file", files / "words", *where)
    ran = await asyncio.to_thread(run, *init)
    assert ran.code == 0, ran.err
    (files / "caps.toml").write_text(CAPS)
    path = files / "signer.sock"
    async with signing(path, "--data", house, "--state", files, *where):
        with pytest.raises(Rejected, match="there are no caps for network 'RIPPLE'"):
            await RemoteSigner(path, read_public_keys(house / "xpubs.json")).sign("RIPPLE", 1, b"")
    shown = invoke_json("vault", "show", "--data", house)
    assert shown["opened_by"] == "the key house in the token vaults"
    ran = invoke(
        *("vault", "passphrase", "--data", house, "--passphrase-file", files / "passphrase"),
        *("--new-passphrase-file", files / "other"),
    )
    assert "the vault's key is in a token" in ran.err
    assert open_with_token((house / "vault.json").read_bytes(), TokenKey(MODULE, token, "1234", "house")) == seed_of(
        WORDS
    )

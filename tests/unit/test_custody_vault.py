"""The vault file: it gives the seed back to whoever has the passphrase, and to nobody whom it was changed by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.clock import Clock, Ids
from strongroom.custody.derivation import Branch, hot_key
from strongroom.custody.families import NETWORKS
from strongroom.custody.vault import (
    Costs,
    PassphraseLock,
    VaultError,
    lock_of,
    open_with_passphrase,
    open_with_token,
    seal_with_passphrase,
    seal_with_token,
)
from strongroom.custody.xpubs import PublicKeysError, encode_public_keys, public_keys_of, read_public_keys

SEED = bytes(range(64))
PASSPHRASE = "a passphrase of some length"
CHEAP = Costs(memory_kib=19 * 1024, passes=2, lanes=1)
IDS = Ids(Clock())


@pytest.fixture(scope="module")
def content() -> bytes:
    """A vault's file."""
    return seal_with_passphrase(SEED, PASSPHRASE, IDS, CHEAP)


def edited(content: bytes, edit: Callable[[Any], object]) -> bytes:
    """Return a file with something of its JSON changed."""
    file = json.loads(content)
    edit(file)
    return json.dumps(file).encode()


def test_the_passphrase_gives_the_seed_back(content: bytes) -> None:
    """What was put in comes out, and nothing of it can be read from the file."""
    assert open_with_passphrase(content, PASSPHRASE) == SEED
    assert SEED not in content
    assert PASSPHRASE.encode() not in content


def test_the_costs_are_those_of_the_standard() -> None:
    """Without a word a vault takes 64 MiB, three passes and four lanes to try a passphrase."""
    lock = lock_of(seal_with_passphrase(SEED, PASSPHRASE, IDS))
    assert isinstance(lock, PassphraseLock)
    assert lock.costs == Costs(64 * 1024, 3, 4)


def test_two_vaults_of_one_seed_have_nothing_in_common() -> None:
    """Salt, nonce and ciphertext are fresh each time."""
    one, other = (json.loads(seal_with_passphrase(SEED, PASSPHRASE, IDS, CHEAP)) for _ in range(2))
    assert one["sealed"] != other["sealed"]
    assert one["header"]["nonce"] != other["header"]["nonce"]
    assert one["header"]["lock"]["salt"] != other["header"]["lock"]["salt"]


def test_a_wrong_passphrase_is_said_to_be_wrong(content: bytes) -> None:
    """One more character, other case, none at all: the vault stays shut."""
    for wrong in (PASSPHRASE + " ", PASSPHRASE.upper(), "", "x" * 10_000):
        with pytest.raises(VaultError, match="the passphrase is wrong, or the vault was changed"):
            open_with_passphrase(content, wrong)


def test_a_letter_may_be_composed_or_not() -> None:
    """A passphrase with an accent opens the vault from any keyboard."""
    sealed = seal_with_passphrase(SEED, "caf\u00e9 caf\u00e9 caf\u00e9", IDS, CHEAP)
    assert open_with_passphrase(sealed, "cafe\u0301 cafe\u0301 cafe\u0301") == SEED


def test_a_passphrase_has_a_length() -> None:
    """One that is guessed in no time is not taken."""
    for wrong in ("", "short", "x" * 11, "x" * 1_025):
        with pytest.raises(VaultError, match="has 12 to 1024 characters"):
            seal_with_passphrase(SEED, wrong, IDS, CHEAP)
    with pytest.raises(VaultError, match="is no text"):
        seal_with_passphrase(SEED, "\ud800" * 12, IDS, CHEAP)


@pytest.mark.parametrize("name", ["memory_kib", "passes", "lanes"])
def test_parameters_out_of_bounds_are_refused_before_they_are_used(content: bytes, name: str) -> None:
    """A file that asks for next to nothing, or for all memory and a year, is not opened."""

    def put(value: int) -> bytes:
        return edited(content, lambda file: file["header"]["lock"]["costs"].update({name: value}))

    for value in (-1, 0):
        with pytest.raises(VaultError, match=f"{name} is too weak"):
            open_with_passphrase(put(value), PASSPHRASE)
    for value in (2**21, 2**40):
        with pytest.raises(VaultError, match=f"{name} is absurd"):
            open_with_passphrase(put(value), PASSPHRASE)
    with pytest.raises(VaultError, match="wrong, or the vault was changed"):
        open_with_passphrase(put(getattr(CHEAP, name) + 8), PASSPHRASE)


def test_a_new_vault_is_not_made_weak() -> None:
    """The bounds hold for whoever makes a vault, too."""
    with pytest.raises(VaultError, match="too weak"):
        seal_with_passphrase(SEED, PASSPHRASE, IDS, Costs(8, 1, 1))


def test_a_later_version_is_named(content: bytes) -> None:
    """A file of a version that is not known says so, whatever else it holds."""
    later = edited(content, lambda file: file["header"].update(version=2, more={}))
    with pytest.raises(VaultError, match="of version 2, and only version 1 is known"):
        open_with_passphrase(later, PASSPHRASE)


def test_what_is_no_vault_is_said_to_be_none(content: bytes) -> None:
    """Nothing, half a file, another file, more fields and a file without end are turned down."""
    more = edited(content, lambda file: file.update(more=1))
    for wrong in (b"", b"x", b"{}", b"[]", b"\xff", content[:-20], more, b" " * 20_000 + content):
        with pytest.raises(VaultError, match="not a vault file"):
            open_with_passphrase(wrong, PASSPHRASE)


def test_every_part_of_the_file_is_authenticated(content: bytes) -> None:
    """Another salt, nonce or ciphertext, of another length or not, does not open."""
    edits: list[Callable[[Any], object]] = [
        lambda file: file["header"].update(nonce="AAAAAAAAAAAAAAAA"),
        lambda file: file["header"].update(nonce="AAAA"),
        lambda file: file["header"]["lock"].update(salt="AAAAAAAAAAAAAAAAAAAAAA=="),
        lambda file: file["header"]["lock"].update(salt="AAAA"),
        lambda file: file.update(sealed=""),
        lambda file: file.update(sealed=file["sealed"][4:]),
    ]
    for edit in edits:
        with pytest.raises(VaultError, match="changed"):
            open_with_passphrase(edited(content, edit), PASSPHRASE)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    """A byte that is changed anywhere gives an error or, in blank space, the same seed; never another seed."""
    content = seal_with_passphrase(SEED, PASSPHRASE, IDS, CHEAP)
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] = data.draw(st.integers(0, 255))
    try:
        assert open_with_passphrase(bytes(changed), PASSPHRASE) == SEED
    except VaultError:
        assert bytes(changed) != content


@settings(max_examples=10, deadline=None)
@given(seed=st.binary(min_size=64, max_size=64), passphrase=st.text(st.characters(codec="utf-8"), min_size=12))
def test_any_seed_and_passphrase_go_round(seed: bytes, passphrase: str) -> None:
    """Whatever seed and passphrase there are, the vault gives the seed back."""
    assert open_with_passphrase(seal_with_passphrase(seed, passphrase, IDS, CHEAP), passphrase) == seed


class Backwards:
    """A key-encryption key that only a test would use."""

    token_label = "a token"
    key_label = "a key"

    def wrap(self, nonce: bytes, key: bytes, context: bytes) -> bytes:
        """Keep what belongs to it beside it."""
        return key[::-1] + nonce + context

    def unwrap(self, nonce: bytes, wrapped: bytes, context: bytes) -> bytes:
        """Look whether it is the same."""
        if wrapped[32:] != nonce + context:
            raise VaultError("another context")
        return wrapped[:32][::-1]


def test_a_key_elsewhere_opens_its_vault() -> None:
    """The file names token and key, and a vault of one kind does not open as the other."""
    sealed = seal_with_token(SEED, Backwards(), IDS)
    assert open_with_token(sealed, Backwards()) == SEED
    assert json.loads(sealed)["header"]["lock"]["token_label"] == "a token"
    renamed = edited(sealed, lambda file: file["header"]["lock"].update(key_label="other"))
    with pytest.raises(VaultError, match="another context"):
        open_with_token(renamed, Backwards())
    with pytest.raises(VaultError, match="no passphrase opens it"):
        open_with_passphrase(sealed, PASSPHRASE)
    with pytest.raises(VaultError, match="not a token"):
        open_with_token(seal_with_passphrase(SEED, PASSPHRASE, IDS, CHEAP), Backwards())


def test_the_public_keys_file_is_all_that_addresses_need(tmp_path: Path) -> None:
    """From the file come the same addresses as from the seed, and no private key."""
    path = tmp_path / "xpubs.json"
    path.write_bytes(encode_public_keys(public_keys_of(SEED, NETWORKS.values())))
    keys = read_public_keys(path)
    assert keys == public_keys_of(SEED, NETWORKS.values())
    for network in NETWORKS.values():
        assert Branch(network, keys.networks[network.id].xpub).address(1).address
        assert hot_key(SEED, network).hex() not in path.read_text()
        assert len(keys.hot(network.id)) == 33


def test_a_broken_public_keys_file_is_said_to_be_broken(tmp_path: Path) -> None:
    """Another version, half a file and other fields are turned down."""
    path = tmp_path / "xpubs.json"
    fingerprint = '{"version":1,"networks":{},"fingerprint":"73C5DA0"}'
    for wrong in ('{"version":2,"networks":{}}', "{", '{"version":1,"networks":{},"more":1}', fingerprint):
        path.write_text(wrong)
        with pytest.raises(PublicKeysError):
            read_public_keys(path)


def test_a_public_keys_file_may_leave_the_fingerprint_out(tmp_path: Path) -> None:
    """A file that does not say which master key it comes from is used without."""
    path = tmp_path / "xpubs.json"
    path.write_text('{"version":1,"networks":{}}')
    assert read_public_keys(path).fingerprint == "00000000"

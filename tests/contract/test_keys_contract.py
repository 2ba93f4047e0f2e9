"""API keys in the books: what the journal tells an auditor, and what it must never hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.engine.command import NOBODY
from strongroom.errors import Refused
from strongroom.records.keys import ApiKey, Permission
from strongroom.wallet.context import perform_own
from strongroom.wallet.keys import KeyTerms, SecretBox, prepare_key, prepare_revocation
from support.world import EVERY_STORE, World, new_store, opened

BOX = SecretBox(bytes(32))
TERMS = KeyTerms(int(Permission.READ | Permission.WITHDRAW), ("203.0.113.0/24",), label="treasury laptop")


@pytest.fixture(params=EVERY_STORE)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A house on each store in turn."""
    async with opened(new_store(request.param, tmp_path)) as world:
        yield world


async def test_the_journal_tells_what_a_key_may_do_and_nothing_that_opens_it(world: World) -> None:
    """Permissions and owner stand in the item; text, secret, networks and label do not."""
    alice = await world.user("alice")
    command, secret = prepare_key(world.context, NOBODY, BOX, alice, TERMS)
    outcome = await perform_own(world.context, lambda: command)
    item = world.store.items(outcome.item, 1)[0]
    told = json.loads(bytes(item.command))
    assert (told["owner"], told["permissions"]) == (alice, TERMS.permissions)
    assert not {"text", "secret", "networks", "label"} & set(told)
    [(_, whole, _)] = world.store.journal(outcome.item, 1)
    assert not any(private.encode() in whole for private in (secret, command.text, "203.0.113", "treasury"))


async def test_a_secret_is_encrypted_in_its_row_and_opens_with_the_master_key_only(world: World) -> None:
    """The row holds no byte of the secret as it was shown."""
    alice = await world.user("alice")
    command, secret = prepare_key(world.context, NOBODY, BOX, alice, TERMS)
    await perform_own(world.context, lambda: command)
    row = world.store.row(ApiKey, command.text)
    assert secret.encode() not in row.secret
    assert BOX.open(row.secret, row.text) == secret


async def test_a_key_of_nobody_is_refused(world: World) -> None:
    """A key belongs to a user that exists; nothing is kept otherwise."""
    command, _ = prepare_key(world.context, NOBODY, BOX, 4242, TERMS)
    with pytest.raises(Refused, match="user is unknown"):
        await perform_own(world.context, lambda: command)
    assert not world.store.row(ApiKey, command.text).created_ms


async def test_a_key_is_revoked_once_and_for_all(world: World) -> None:
    """Revoking it again leaves the first moment as it is; an unknown key is refused."""
    alice = await world.user("alice")
    command, _ = prepare_key(world.context, NOBODY, BOX, alice, TERMS)
    await perform_own(world.context, lambda: command)
    await perform_own(world.context, lambda: prepare_revocation(world.context, NOBODY, command.text))
    revoked_ms = world.store.row(ApiKey, command.text).revoked_ms
    world.clock.at_ms += 5_000
    await perform_own(world.context, lambda: prepare_revocation(world.context, NOBODY, command.text))
    assert world.store.row(ApiKey, command.text).revoked_ms == revoked_ms > 0
    with pytest.raises(Refused, match="key is unknown"):
        await perform_own(world.context, lambda: prepare_revocation(world.context, NOBODY, "nothing"))

"""Power that fails: whatever of the last writes reached the disk, the books open whole and hold every answer.

The disk is recorded write by write; an image is what is left when of all that no sync has covered yet some writes are
there, some are gone and some are torn, or the log ends in the middle of them.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

import apsw
import pytest

from strongroom.clock import Ids, SetClock
from strongroom.records.history import LineType
from strongroom.store.sqlite import checkpoints
from strongroom.store.sqlite.connection import run
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.verification import verify
from support.harness_disk import DATABASE, FailingPower, Image
from support.harness_rounds import SEED
from support.world import BTC, NOW_MS, World, opened

COIN: Final = 100_000_000
SENDERS: Final = 6
SENDS: Final = 50
IMAGES: Final = 60


@pytest.fixture(autouse=True)
def _short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log be copied into the database, and start anew, all the time."""
    for name, value in (("START_AT_PAGES", 60), ("FINISH_AT_PAGES", 20), ("LOOK_EVERY_COMMITS", 1)):
        monkeypatch.setattr(checkpoints, name, value)


async def send(world: World, disk: FailingPower, alice: int, amounts: range) -> None:
    """Send one amount after the other, and note each that was answered."""
    for units in amounts:
        outcome = await world.transfer(world.guard(alice), "BTC", f"0.{units:08}", "bob")
        assert outcome.refusal is None
        disk.answered.add(units)


async def images_of(folder: Path, synchronous: str) -> list[Image]:
    """Return the images of power failures while money moves, with a log that is emptied all the time."""
    disk = FailingPower(folder, random.Random(SEED), often=0)
    try:
        async with opened(store := SqliteStore(folder, Ids(SetClock(NOW_MS)), vfs=disk.name)) as world:
            run(store._writer, f"PRAGMA synchronous={synchronous}")
            alice, _ = await world.user("alice"), await world.user("bob")
            await world.fund(alice, BTC, 10 * COIN)
            disk.often = 0.1
            ranges = [range(1 + SENDS * number, 1 + SENDS * (number + 1)) for number in range(SENDERS)]
            await asyncio.gather(*(send(world, disk, alice, amounts) for amounts in ranges))
    finally:
        disk.unregister()
    assert len(disk.images) > IMAGES
    return random.Random(SEED).sample(disk.images, IMAGES)


def arrived(image: Image, folder: Path) -> set[int]:
    """Open what a power failure left and return the amounts that bob got; the books must be whole."""
    folder.mkdir()
    for name, content in image.files.items():
        (folder / name).write_bytes(content)
    store = SqliteStore(folder, Ids(SetClock(NOW_MS)))
    try:
        assert verify(store).findings == []
        lines = [line for item in store.items(1, 10_000) for line in item.lines if line.type == LineType.TRANSFER_IN]
        (signatures,) = run(store._writer, "SELECT total(length(used)) / 64 FROM nonce").fetchone()
        amounts = {line.amount for line in lines}
        assert len(amounts) == len(lines) == signatures
        return amounts
    finally:
        store.close()


async def test_every_answer_survives_a_power_failure(tmp_path: Path) -> None:
    """After each of sixty failures the books are whole and have all that was answered; what else they have is whole."""
    images = await images_of(tmp_path / "house", "FULL")
    for number, image in enumerate(images):
        found = await asyncio.to_thread(arrived, image, tmp_path / str(number))
        assert image.answered <= found
    assert any(image.answered for image in images)


async def test_a_disk_that_is_not_waited_for_is_found_out(tmp_path: Path) -> None:
    """The same failures lose answers, or the books, when commits do not wait for the disk."""
    spoilt = 0
    for number, image in enumerate(await images_of(tmp_path / "house", "OFF")):
        try:
            spoilt += not image.answered <= arrived(image, tmp_path / str(number))
        except Exception:  # noqa: BLE001 - books with holes in them fail in many ways
            spoilt += 1
    print(f"{spoilt} of {IMAGES} images are spoilt without syncs")
    assert spoilt


def test_books_that_cannot_be_opened_leave_the_folder_free(tmp_path: Path) -> None:
    """Whoever puts the right file back can open the folder again, in the same process too."""
    (tmp_path / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(apsw.NotADBError):
        SqliteStore(tmp_path, Ids(SetClock(NOW_MS)))
    (tmp_path / DATABASE).unlink()
    SqliteStore(tmp_path, Ids(SetClock(NOW_MS))).close()

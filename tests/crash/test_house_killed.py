"""A house that is killed anywhere on its way, with everything that it does on a chain: paid once, and books that agree.

The courses are those of whole houses: watcher, keeper, sender, the operator and the way back from a backup. Each dies
at every point that it comes to; what its node saw then, and its books have, is all that the next process knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strongroom import crashpoints
from strongroom.crashpoints import BATCH_POINTS, POINTS
from strongroom.wallet import addresses
from support.course_moves import MOVES
from support.course_restores import RESTORES
from support.courses import WITHDRAWALS, Course
from support.dying import Killed, Killer
from support.paying import Payouts, paying
from support.restored import AHEAD

COURSES = (*WITHDRAWALS, *MOVES, *RESTORES)
CASES = [(course, point) for course in COURSES for point in course.points()]
MOST_ROUNDS = 40


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have fewer addresses of before a restore derived."""
    monkeypatch.setattr(addresses, "AHEAD", AHEAD)


@contextmanager
def armed(hook: Callable[[str], None]) -> Iterator[None]:
    """Have a hook called at every crash point."""
    crashpoints.arm(hook)
    try:
        yield
    finally:
        crashpoints.arm(None)


async def live(payouts: Payouts, course: Course) -> None:
    """Let a house and its world go on until all is over."""
    house = course.house(payouts)
    for _ in range(MOST_ROUNDS):
        await house.round()
        if await course.turn(house):
            await house.round()
            return
        if course.forgets:
            house = course.house(payouts)
    raise AssertionError(f"it does not come to its end: {house.sender.status}")


async def lived(course: Course, folder: Path, *hooks: Callable[[str], None]) -> None:
    """Go a course from its beginning, in as many processes as there are hooks; each but the last one is killed."""
    await course.found(folder)
    for nth, hook in enumerate(hooks):
        async with paying(course.store, folder) as payouts:
            payouts.world._signatures = 20_000 * (nth + 1)
            await course.open(payouts)
            if not nth:
                await course.begin(payouts)
            with armed(hook):
                if nth < len(hooks) - 1:
                    with pytest.raises(Killed):
                        await live(payouts, course)
                    course.leave(payouts)
                    continue
                await live(payouts, course)
            await course.check(payouts)


def test_every_crash_point_is_met() -> None:
    """No point is left out of the matrix but those inside a batch, which have tests of their own."""
    assert {point for _, point in CASES} | set(BATCH_POINTS) == set(POINTS)


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.__name__)
async def test_a_course_comes_by_the_points_that_it_says(tmp_path: Path, course: type[Course]) -> None:
    """A course without any accident ends as it should, and meets its own points and no other."""
    met: set[str] = set()
    await lived(course(), tmp_path, met.add)
    assert met - set(BATCH_POINTS) == set(course.points())


@pytest.mark.parametrize(("course", "point"), CASES, ids=[f"{course.__name__}-{point}" for course, point in CASES])
async def test_a_killed_house_pays_once_and_its_books_agree(tmp_path: Path, course: type[Course], point: str) -> None:
    """Whoever goes on after it comes to the same end as if nothing had been."""
    await lived(course(), tmp_path, Killer(point), lambda _: None)


class Counting:
    """Ends the process at the crash point number `at`, whichever that is."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, point: str) -> None:
        """Count, and end it."""
        self.left -= point not in BATCH_POINTS
        if not self.left:
            raise Killed


def folders(parent: Path, name: str) -> Path:
    """Return a new folder."""
    (parent / name).mkdir()
    return parent / name


@pytest.mark.soak
@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.__name__)
async def test_a_house_may_be_killed_each_time_that_it_comes_to_a_point(tmp_path: Path, course: type[Course]) -> None:
    """Not the first time only: every single step of a course is the last one in turn."""
    met: list[str] = []
    await lived(course(), folders(tmp_path, "plain"), met.append)
    for at in range(1, 1 + sum(point not in BATCH_POINTS for point in met)):
        await lived(course(), folders(tmp_path, f"{at}"), Counting(at), lambda _: None)

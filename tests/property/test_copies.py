"""What a node has in memory of a database that others write to as well: never older than what it has heard of."""

from __future__ import annotations

from typing import Final

from hypothesis import settings, strategies
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from strongroom.store.folio import Folio
from strongroom.store.postgres.copies import Commit, Copies, Copy

OWNERS: Final = strategies.sets(strategies.integers(1, 6), min_size=1)
MAX_ROWS: Final = 8
"""Of folios of two rows each four find room, so that some have to go."""


def folio(owner: int, edition: int) -> Folio:
    """Return what an edition of an owner's folio says."""
    return Folio({owner: edition}, {})


class Node(RuleBasedStateMachine):
    """A node with two lanes beside a database: each batch is decided under the lock, and may be refused or in doubt."""

    unsettled: Bundle[tuple[str, int]] = Bundle("unsettled")

    @initialize()
    def begin_with_nothing(self) -> None:
        """Begin with an empty database."""
        self.editions: dict[int, int] = {}
        self.commits: list[Commit] = []
        self.copies = Copies(MAX_ROWS)
        self.heard = 0

    def commit(self, id_: str, owners: set[int]) -> None:
        """Have a commit of whomever in the database."""
        for owner in owners:
            self.editions[owner] = self.editions.get(owner, 0) + 1
        self.commits.append(Commit(len(self.commits) + 1, "", id_, sorted(owners)))

    @rule(owners=OWNERS)
    def another_node_commits(self, owners: set[int]) -> None:
        """Nobody tells this node of it before it asks."""
        self.commit(f"theirs {len(self.commits)}", owners)

    @rule(again=strategies.integers(0, 3), fewer=strategies.integers(0, 3))
    def follow(self, again: int, fewer: int) -> None:
        """Hear of commits, some of them a second time because they were asked for before, and not of the newest."""
        heard = max(self.heard, len(self.commits) - fewer)
        self.copies.hear(self.commits[max(0, self.heard - again) : heard], heard)
        self.heard = heard

    @rule(target=unsettled, owners=OWNERS, end=strategies.sampled_from(["kept", "refused", "in doubt"]))
    def write(self, owners: set[int], end: str) -> tuple[str, int] | MultipleResults[tuple[str, int]]:
        """Decide a batch over what there is under the lock, and send it to be committed."""
        self.copies.hear(self.commits[self.heard :], len(self.commits))
        self.heard = len(self.commits)
        editions: dict[int, Copy] = {}
        for owner in owners:
            there = self.editions.get(owner, 0)
            found = self.copies.find(owner)
            if found is None:
                found = Copy(there, folio(owner, there))
                self.copies.keep(owner, found)
            assert (found.edition, found.folio.heads) == (there, {owner: there})
            editions[owner] = Copy(there + 1, folio(owner, there + 1))
        id_, number = f"ours {len(self.commits)} {end}", len(self.commits) + 1
        self.copies.send(id_, editions)
        if end == "refused":
            self.copies.settle(id_, number, is_kept=False)
            return multiple()
        self.commit(id_, owners)
        if end == "in doubt":
            self.copies.settle(id_, number, is_kept=False)
            return multiple()
        return id_, number

    @rule(batch=unsettled)
    def hear_the_answer(self, batch: tuple[str, int]) -> None:
        """Be told that a batch is kept: perhaps behind what the other lane has heard and done since."""
        id_, number = batch
        self.copies.settle(id_, number, is_kept=True)
        if number == self.heard + 1:
            self.heard = number

    @invariant()
    def nothing_is_newer_than_the_database(self) -> None:
        """No copy is an edition that there is not, nor says anything else than that edition does."""
        for owner in list(getattr(self, "editions", ())):
            copy = self.copies.find(owner)
            assert copy is None or copy.edition <= self.editions[owner]
            assert copy is None or copy.folio.heads == {owner: copy.edition}


Node.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestCopies = Node.TestCase


def test_what_was_not_used_for_longest_goes_first() -> None:
    """Copies have room for so many rows, and one that is looked at stays."""
    copies = Copies(MAX_ROWS)
    for owner in range(1, 5):
        copies.keep(owner, Copy(1, folio(owner, 1)))
    assert copies.find(1) is not None
    copies.keep(5, Copy(1, folio(5, 1)))
    assert [owner for owner in range(1, 6) if copies.find(owner)] == [1, 3, 4, 5]
    copies.keep(1, Copy(2, Folio(dict.fromkeys(range(MAX_ROWS), 1), {})))
    assert [owner for owner in range(1, 6) if copies.find(owner)] == []

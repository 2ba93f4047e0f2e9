"""Suspensions: networks that have not been followed for too long, on which no deposit is offered until they are again.

It is a fact of the moment, like the age of a price: nothing of it is in the books. What was given out before stays
watched, and is credited once the network is followed again.
"""

from __future__ import annotations

from collections.abc import Callable

from strongroom.records.settings import OfferSettings


class Suspensions:
    """`networks` has those that are suspended now, by their numbers; custody says which."""

    def __init__(self) -> None:
        self.networks: frozenset[int] = frozenset()
        self._notices: list[Callable[[], None]] = []

    def subscribe(self, notice: Callable[[], None]) -> None:
        """Have `notice` called whenever other networks are suspended than before."""
        self._notices.append(notice)

    def change(self, networks: frozenset[int]) -> None:
        """Suspend these networks and no others."""
        if networks != self.networks:
            self.networks = networks
            for notice in self._notices:
                notice()

    def takes_deposits(self, offer: OfferSettings) -> bool:
        """Say whether deposits of an asset are offered on a network now: by its settings, and by how it is followed."""
        return offer.deposits and offer.network not in self.networks

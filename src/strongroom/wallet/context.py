"""What every use case works with, and the one way a prepared command is carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import ClassVar, Final, Protocol, TypeAlias

from strongroom.clock import Clock, Ids
from strongroom.engine.command import Command, Decision, Guard, View
from strongroom.engine.port import DiskFailed, Reads
from strongroom.engine.settle import Outcome
from strongroom.errors import ERRORS, INVALID_NONCE, UNAVAILABLE, Refused
from strongroom.rates.book import RateBook
from strongroom.records.guards import Nonce
from strongroom.records.kept import Key
from strongroom.records.settings import Settings
from strongroom.wallet.catalogue import Catalogue, catalogue_of
from strongroom.wallet.suspensions import Suspensions

_MAX_TRIES: Final = 8

Answer: TypeAlias = Callable[[Outcome | Exception], None]
"""Who waits for a command: called with its durable outcome, or with why there is none; it must not raise."""


class Submit(Protocol):
    """How a command gets to the writer."""

    async def __call__(self, command: Command) -> Outcome:
        """Return the durable outcome of a command."""
        ...


class Offer(Protocol):
    """How a command gets to the writer from where nothing can be awaited."""

    def __call__(self, command: Command, answer: Answer) -> None:
        """Have `answer` called with the durable outcome. Raises `Refused` where the command is not accepted."""
        ...


class AddressFormat(Protocol):
    """How addresses of a network are written; `ValueError` for any other text."""

    @property
    def needs_extension(self) -> bool:
        """Whether an address is only complete with a tag."""
        ...

    def normalise(self, address: str) -> str:
        """Return the one spelling of an address."""
        ...

    def normalise_tag(self, tag: str) -> str:
        """Return the one spelling of a tag; the empty text is the only one where there are no tags."""
        ...


class Context:
    """The means of the use cases: the way to the writer, committed state, time, ids, prices and address formats.

    `formats` are by the network's code; `suspensions` are the networks without deposits for now; `offer` is the way to
    the writer for a door that calls back.
    """

    def __init__(self, submit: Submit, reads: Reads, clock: Clock, ids: Ids, offer: Offer | None = None) -> None:
        self.submit = submit
        self.offer = offer or _accept_nothing
        self.reads = reads
        self.clock = clock
        self.ids = ids
        self.rates = RateBook(())
        self.formats: Mapping[str, AddressFormat] = {}
        self.suspensions = Suspensions()

    def beside(self, reads: Reads) -> Context:
        """Return the same means for another thread, which reads for itself and whose time goes on by itself."""
        other = copy(self)
        other.reads, other.clock = reads, copy(self.clock)
        return other

    @property
    def catalogue(self) -> Catalogue:
        """The assets and networks as the settings have them now."""
        return catalogue_of(self.reads.row(Settings, 0).snapshot)


def _accept_nothing(command: Command, answer: Answer) -> None:
    """Take the place of `offer` where no door calls back."""
    raise UNAVAILABLE("System busy")


class Declined(Command, frozen=True):
    """A request that was turned down while it was prepared: it changes nothing, but its signature is used up."""

    PRIVATE: ClassVar[frozenset[str]] = frozenset({"message"})

    error: str
    message: str

    def decide(self, view: View, now_ms: int) -> Decision:
        """Refuse, as the preparation did."""
        raise Refused(ERRORS[self.error], self.message)


class Remember(Command, frozen=True):
    """Remember a signature seen on a GET whose path also has a state-changing method: it never authorises a change."""

    JOURNALED: ClassVar[bool] = False

    api_key: int
    signature: bytes
    expires_ms: int

    def needs(self) -> list[Key]:
        """The signature."""
        return [Nonce.at(self.api_key, self.signature)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note the signature as seen; refuse one that a change has used up."""
        nonce = view.get(Nonce, self.api_key, self.signature)
        if nonce.spent:
            raise INVALID_NONCE()
        return Decision(rows=[Nonce(self.api_key, self.signature, self.expires_ms)])


async def perform(context: Context, guard: Guard, prepare: Callable[[], Command]) -> Outcome:
    """Prepare a command and carry it out; prepare again when what it was prepared from has changed meanwhile.

    A refusal while preparing goes through the writer as well, where replays are told from fresh requests and the
    signature is used up. Raises `Refused` UNAVAILABLE when nothing was done.
    """
    for command in _tries(guard, prepare):
        outcome = await context.submit(command)
        if not outcome.stale:
            return outcome
    raise UNAVAILABLE("System busy")


def start(context: Context, guard: Guard, prepare: Callable[[], Command], answer: Answer) -> None:
    """Do as `perform` does, and have `answer` called with the outcome, or with what `perform` would raise.

    What the first preparation raises, and a first command that is not accepted, is raised here; then nothing is called.
    """
    _Started(context, _tries(guard, prepare), answer).offer()


class _Started:
    """A command that was put to the writer, and is prepared anew for as long as its outcome is stale."""

    __slots__ = ("_answer", "_context", "_tries")

    def __init__(self, context: Context, tries: Iterator[Command], answer: Answer) -> None:
        self._context = context
        self._tries = tries
        self._answer = answer

    def offer(self) -> None:
        """Prepare the command and put it to the writer. Raises what the preparation raises, and `Refused`."""
        command = next(self._tries, None)
        if command is None:
            raise UNAVAILABLE("System busy")
        self._context.offer(command, self.take)

    def take(self, outcome: Outcome | Exception) -> None:
        """Tell an outcome, or try again."""
        if isinstance(outcome, Outcome) and outcome.stale:
            try:
                self.offer()
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                self._answer(error)
        else:
            self._answer(outcome)


def _tries(guard: Guard, prepare: Callable[[], Command]) -> Iterator[Command]:
    """Yield what to put to the writer until an outcome is not stale: the command, or what its preparation refused.

    Raises `Refused` UNAVAILABLE where the books cannot be read.
    """
    for _ in range(_MAX_TRIES):
        try:
            command = prepare()
        except Refused as refusal:
            command = _declined(guard, refusal)
        except DiskFailed:
            raise UNAVAILABLE("Ledger cannot be read") from None
        yield command


async def decline(context: Context, guard: Guard, refusal: Refused) -> Outcome:
    """Carry out a refusal: the request changes nothing, but its signature is used up, unless it is a replay."""
    return await context.submit(_declined(guard, refusal))


def _declined(guard: Guard, refusal: Refused) -> Declined:
    return Declined(guard, refusal.error.name, refusal.message)


async def perform_own(context: Context, prepare: Callable[[], Command]) -> Outcome:
    """Carry out a command of the house itself (operator, watcher, sender). Raises what it is refused with."""
    for _ in range(_MAX_TRIES):
        outcome = await context.submit(prepare())
        if outcome.refusal is not None:
            raise outcome.refusal
        if not outcome.stale:
            return outcome
    raise UNAVAILABLE("System busy")

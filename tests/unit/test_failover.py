"""The parts of `make ha` that decide what is found and what is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from random import Random

from support.fault_proxy import FaultProxy, Mode
from support.ha_cluster import State, state_of
from support.ha_faults import FAULTS, deal
from support.ha_load import longest_gap_s
from support.ha_run import HEADER, Played, tally
from support.harness import Answer, Signed
from support.harness_model import Deed

DONE = Answer(200, {}, b"{}")


def deed(amount: str, *answers: Answer) -> Deed:
    """Return a transfer of bob's to alice."""
    first = Signed("/", {}, b"")
    return Deed("bob", "transfer", "BTC", Decimal(amount), first, receiver="alice", answers=list(answers))


def rows_of(*deeds: Deed) -> list[dict[str, str]]:
    """Return the history rows of deeds."""
    marks = [mark for it in deeds for mark in it.marks()]
    return [
        {"username": user, "currency": asset, "type": kind, "amount": str(amount)}
        for user, asset, kind, amount in marks
    ]


def test_what_was_acknowledged_and_left_no_trace_is_lost() -> None:
    """A deed without an answer may be missing; one that was acknowledged may not, and nothing may be there twice."""
    kept, gone, unknown = deed("1", DONE), deed("2", DONE), deed("3")
    assert tally([kept, gone, unknown], rows_of(kept)) == (1, 0)
    assert tally([kept, gone, unknown], rows_of(kept, gone, gone)) == (0, 1)
    half = rows_of(kept)[:1]
    assert tally([kept], half) == (1, 0)


def test_the_time_without_service_counts_from_the_beginning_to_the_end() -> None:
    """Also before the first acknowledged change and behind the last."""
    assert longest_gap_s(10.0, [11.0, 15.0, 12.0], 16.0) == 3.0
    assert longest_gap_s(10.0, [14.0], 15.0) == 4.0
    assert longest_gap_s(10.0, [], 15.0) == 5.0


def test_every_fault_comes_once_before_any_comes_again() -> None:
    """A seed deals the same faults again, and words choose among them."""
    dealt = deal(2 * len(FAULTS), Random("seed"))
    assert set(dealt[: len(FAULTS)]) == set(FAULTS)
    assert set(Counter(dealt).values()) == {2}
    assert deal(5, Random("seed")) == dealt[:5]
    assert {fault.name for fault in deal(3, Random("seed"), "isolated")} == {"leader isolated"}
    assert deal(3, Random("seed"), "no such words") == []


def test_the_cluster_is_read_as_patroni_tells_it() -> None:
    """Who follows is who streams; a leader that is still starting is none."""
    members = [
        {"name": "pg1", "role": "leader", "state": "running"},
        {"name": "pg2", "role": "sync_standby", "state": "streaming"},
        {"name": "pg3", "role": "replica", "state": "starting"},
    ]
    assert state_of({"members": members}) == State("pg1", "pg2", frozenset({"pg2"}))
    members[0]["state"] = "starting"
    assert state_of({"members": members}).leader == ""
    assert state_of({}) == State()


def test_a_round_is_a_row_of_the_table() -> None:
    """With a cell for each column."""
    played = Played("leader killed", "", 9, 5, Counter({"503": 2, "unanswered": 1}), 0, 0, 21.04)
    assert played.row(3) == "| 3 | leader killed | 9 | 5 | 2 | 1 | 0 | 0 | 21.0 s |"
    assert played.row(3).count("|") == HEADER.count("|")


async def test_a_line_can_fail_for_some_of_those_who_use_it() -> None:
    """Only connections that began with the chosen words are held up, and they go on when it heals."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(100):
            writer.write(piece)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
        proxy.chosen = b"standby"
        proxy.mode = Mode.STALL
        standby, node = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(2)]
        standby[1].write(b"a standby")
        node[1].write(b"a node")
        assert await node[0].readexactly(6) == b"a node"
        assert proxy.questions_bytes == len(b"a node"), "nothing of the other has passed"
        proxy.mode = Mode.PASS
        assert await standby[0].readexactly(9) == b"a standby"
        node[1].close()
        standby[1].close()

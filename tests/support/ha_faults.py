"""What may befall a cluster under load: each fault strikes, and lasts until somebody has taken over, or for a while."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, NamedTuple, TypeAlias

from support.fault_proxy import Mode
from support.ha_cluster import TTL_S, Cluster, State
from support.ha_house import House
from support.ha_lines import Lines
from support.nodes import wait_until

TAKEN_OVER_S: Final = 4 * TTL_S
"""Long after this somebody else leads, or nobody will; a busy machine included."""

CUT_S: Final = 12.0
"""So long a line is cut that nobody has to take over for: longer than anybody waits for it."""

KILLED_S: Final = 4.0
"""So long something is gone whose work others do at once."""


SURELY: Final = 20
"""So many acknowledged changes are held up before a loss."""


class Field:
    """Everything that can be struck."""

    def __init__(
        self, cluster: Cluster, house: House, lines: Lines, chance: Random, acknowledged: Callable[[], int]
    ) -> None:
        """`acknowledged` counts the changes of a round that were."""
        self.cluster = cluster
        self.house = house
        self.lines = lines
        self.chance = chance
        self.acknowledged = acknowledged

    async def taken_over(self, state: State) -> str:
        """Return in words how long it takes until another leads. Raises `TimeoutError`."""
        return f"led by another after {await self.cluster.led_by_another(state.leader, TAKEN_OVER_S):.0f} s"

    async def heal(self) -> None:
        """Restore everything, and return once the database is whole again."""
        self.lines.heal()
        self.cluster.revive()
        for name, node in self.house.nodes.items():
            assert not node.has_ended, f"{name} has ended of itself: {node.log}"
            if not node.runs:
                node.begin()
        _ = await self.cluster.whole()


Strike: TypeAlias = Callable[[Field, State], Awaitable[str]]
"""Strikes, and returns once it may heal what there is to say of it."""


async def kill_leader(field: Field, state: State) -> str:
    """Kill the leading PostgreSQL with its Patroni."""
    field.cluster.programs[state.leader].kill()
    return await field.taken_over(state)


async def freeze_leader(field: Field, state: State) -> str:
    """Stop the leading PostgreSQL with its Patroni as they stand; they go on beside their successor."""
    field.cluster.programs[state.leader].signal(signal.SIGSTOP)
    return await field.taken_over(state)


async def kill_etcd(field: Field, state: State) -> str:
    """Kill one etcd."""
    del state
    name = field.chance.choice(field.cluster.etcds)
    field.cluster.programs[name].kill()
    await asyncio.sleep(KILLED_S)
    return name


async def kill_node(field: Field, state: State) -> str:
    """Kill a Strongroom node."""
    del state
    name = field.chance.choice(list(field.house.nodes))
    field.house.nodes[name].kill()
    await asyncio.sleep(KILLED_S)
    return name


async def cut_replication(field: Field, state: State) -> str:
    """Cut the line from the leader to its synchronous standby: another one must become it."""
    chosen = f"application_name\0{state.standby}\0".encode()
    field.lines.cut("members", state.leader, chosen=chosen)
    await asyncio.sleep(CUT_S)
    return f"{state.leader} to {state.standby}"


async def cut_etcd(field: Field, state: State) -> str:
    """Cut the leader off all etcd: while all other members hear it, it may go on."""
    for etcd in field.cluster.etcds:
        field.lines.cut(state.leader, etcd)
    await asyncio.sleep(TTL_S + CUT_S)
    return state.leader


async def cut_node(field: Field, state: State) -> str:
    """Cut a Strongroom node off the database, so that nothing passes or that it is refused."""
    del state
    name, mode = field.chance.choice(list(field.house.nodes)), field.chance.choice((Mode.STALL, Mode.REFUSE))
    for member in field.cluster.members:
        field.lines.cut(name, member, mode)
    await asyncio.sleep(CUT_S)
    return f"{name}, {mode.value}"


async def isolate_leader(field: Field, state: State) -> str:
    """Cut the leader off etcd and the other members, while every Strongroom node still reaches it."""
    for etcd in field.cluster.etcds:
        field.lines.cut(state.leader, etcd)
    field.lines.cut("members", state.leader)
    field.lines.cut("members", f"{state.leader} rest")
    for other in field.cluster.members:
        # It asks the others whether it may go on without etcd; what they ask each other passes.
        if other != state.leader:
            field.lines.cut("members", f"{other} rest", chosen=b"POST /failsafe")
    return await field.taken_over(state)


def both(first: Strike, second: Strike) -> Strike:
    """Let two things befall the cluster at the same time."""

    async def strike(field: Field, state: State) -> str:
        notes = await asyncio.gather(first(field, state), second(field, state))
        return ", ".join(notes)

    return strike


class Fault(NamedTuple):
    """A fault: its name in the table, and what strikes and returns, once it may heal, what there is to say of it.

    One that is not `survived` loses what was acknowledged: from then on no node is ready.
    """

    name: str
    strike: Strike
    survived: bool = True


async def lose_leader(field: Field, state: State) -> str:
    """Hold up what goes to the standbys, and kill the leader once it has acknowledged more than they have."""
    before = field.acknowledged()

    async def has_more() -> bool:
        return field.acknowledged() >= before + SURELY

    field.lines.cut("members", state.leader, chosen=b"replication\0true\0")
    await wait_until(has_more, "more changes are acknowledged", TAKEN_OVER_S)
    return await kill_leader(field, state)


CONTROL: Final = Fault("leader killed before its standbys heard", lose_leader, survived=False)
FAULTS: Final = (
    Fault("leader killed", kill_leader),
    Fault("etcd killed", kill_etcd),
    Fault("Strongroom node killed", kill_node),
    Fault("leader cut off its standby", cut_replication),
    Fault("leader cut off etcd", cut_etcd),
    Fault("Strongroom node cut off the database", cut_node),
    Fault("leader isolated", isolate_leader),
    Fault("leader frozen", freeze_leader),
    Fault("leader and Strongroom node killed", both(kill_leader, kill_node)),
    Fault("leader and etcd killed", both(kill_leader, kill_etcd)),
    Fault("leader frozen and Strongroom node cut off the database", both(freeze_leader, cut_node)),
)


def deal(count: int, chance: Random, only: str = "") -> list[Fault]:
    """Return so many faults in an order of chance, each once before any comes again; `only` those so named."""
    dealt: list[Fault] = []
    named = [fault for fault in FAULTS if only in fault.name]
    while named and len(dealt) < count:
        dealt += chance.sample(named, len(named))
    return dealt[:count]

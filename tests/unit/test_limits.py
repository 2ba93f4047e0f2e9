"""Rate limits let a known number of calls through, block for longer each time, and forget nobody who matters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.api.client_address import read_address
from strongroom.api.limits import HOUR_US, UNLIMITED, LimitExceeded, RateLimits, Standing, TierLimits
from strongroom.clock import Clock
from strongroom.engine.blocks import Block
from strongroom.errors import InvariantBroken

MINUTE_US = 60_000_000


class Steps(Clock):
    """A clock that moves only when it is told to, by microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.at_us = 5_000_000_000

    def monotonic_s(self) -> float:
        """Return the moment it was moved to."""
        # A quarter of a microsecond keeps the rounding of the division from mattering.
        return (self.at_us + 0.25) / 1_000_000

    def now_ms(self) -> int:
        """Return the moment, as the time of day has it."""
        return self.at_us // 1_000

    def step(self, us: int) -> None:
        """Move forward."""
        self.at_us += us


class Server:
    """Limits with a clock of their own, and the calls a test makes."""

    def __init__(self, most_tracked: int = 1000, **tiers: TierLimits) -> None:
        self.clock = Steps()
        self.told: list[Block] = []
        terms = {"default": TierLimits(), **tiers}
        self.limits = RateLimits(self.clock, terms, most_tracked, tell=self.told.append)

    def transfer(self, user: int = 1) -> Standing | None:
        return self.limits.wallet_call("default", user, "transfer")

    def wait_of(self, user: int = 1) -> int:
        """Return for how many seconds a transfer is refused; 0 when it goes through."""
        try:
            self.transfer(user)
        except LimitExceeded as exceeded:
            return exceeded.retry_after_s or 0
        return 0

    def exceed(self, user: int = 1) -> int:
        """Make transfers until one is refused; return its Retry-After."""
        for _ in range(100):
            if wait_s := self.wait_of(user):
                return wait_s
        pytest.fail("a hundred calls in one moment exceed the limit")

    def allowed(self, calls: int, user: int = 1) -> int:
        """Return how many of so many transfers in one moment go through."""
        return sum(not self.wait_of(user) for _ in range(calls))


@pytest.fixture
def server() -> Server:
    """Return a server with the contract's numbers."""
    return Server()


def test_wallet_operations_are_5_a_second_with_two_seconds_in_hand(server: Server) -> None:
    """Ten at once, then one every 200 ms and not a microsecond sooner."""
    standings = [server.transfer() for _ in range(10)]
    assert standings[0] == Standing(10, 9, 1)
    assert standings[9] == Standing(10, 0, 2)
    server.clock.step(200_000)
    assert server.transfer() == Standing(10, 0, 2)
    server.clock.step(199_999)
    assert server.wait_of() == 1


def test_the_refusal_is_the_contracts_and_tells_when_to_come_back(server: Server) -> None:
    """A 429 with code 303, Retry-After, and the standing for the headers."""
    assert server.allowed(10) == 10
    with pytest.raises(LimitExceeded) as exceeded:
        server.transfer()
    refused = exceeded.value
    assert (refused.error.status, refused.error.code, refused.message) == (429, 303, "Rate limit exceeded")
    assert refused.retry_after_s == 1
    assert refused.standing == Standing(10, 0, 1)


def test_counters_are_per_operation_and_per_user(server: Server) -> None:
    """Exceeding the limit of transfers leaves withdrawals and other users alone."""
    server.exceed()
    assert server.limits.wallet_call("default", 1, "withdraw") == Standing(10, 9, 1)
    assert server.transfer(user=2) == Standing(10, 9, 1)


def test_other_signed_calls_are_15_a_second_per_key_and_operation(server: Server) -> None:
    """The thirty-first read of one operation is refused; another operation, or another key, is not."""
    for _ in range(30):
        server.limits.signed_call("default", 1, "a", "balance")
    with pytest.raises(LimitExceeded) as exceeded:
        server.limits.signed_call("default", 1, "a", "balance")
    assert exceeded.value.standing == Standing(30, 0, 1)
    assert server.limits.signed_call("default", 1, "a", "history") == Standing(30, 29, 1)
    assert server.limits.signed_call("default", 1, "b", "balance") == Standing(60, 28, 2)


def test_other_signed_calls_are_30_a_second_per_user(server: Server) -> None:
    """Several keys do not give one user more, and wallet operations are counted apart."""
    for _ in range(20):
        for key in "abc":
            server.limits.signed_call("default", 1, key, "balance")
    with pytest.raises(LimitExceeded) as exceeded:
        server.limits.signed_call("default", 1, "d", "balance")
    assert exceeded.value.standing.limit == 60
    assert server.allowed(10) == 10


def test_a_call_beyond_one_limit_is_charged_to_no_other(server: Server) -> None:
    """Refused reads of one operation leave the user's thirty a second to the others."""
    for _ in range(100):
        try:
            server.limits.signed_call("default", 1, "a", "balance")
        except LimitExceeded:
            pass
    assert server.limits.signed_call("default", 1, "b", "balance") == Standing(30, 29, 1)


def test_public_calls_are_50_in_2_seconds_per_client(server: Server) -> None:
    """The fifty-first of an address is refused, another address is not."""
    assert [server.limits.public_call(7) for _ in range(50)][-1] == Standing(50, 0, 2)
    with pytest.raises(LimitExceeded):
        server.limits.public_call(7)
    assert server.limits.public_call(8) == Standing(50, 49, 1)


def test_failed_authentications_block_their_address_before_anything_is_verified(server: Server) -> None:
    """Twenty failures are answered as such, the next one blocks the address; its public calls go on."""
    server.limits.check_client(7)
    for _ in range(20):
        server.limits.authentication_failed(7)
        server.limits.check_client(7)
    with pytest.raises(LimitExceeded):
        server.limits.authentication_failed(7)
    with pytest.raises(LimitExceeded) as exceeded:
        server.limits.check_client(7)
    assert exceeded.value.standing == Standing(20, 0, 1)
    server.limits.check_client(8)
    server.limits.public_call(7)
    server.clock.step(1_000_000)
    server.limits.check_client(7)


def test_blocks_last_1_second_then_5_minutes_then_15(server: Server) -> None:
    """Each excess climbs a rung; when the longest block ends the ladder starts again."""
    for wait_s in (1, 300, 900, 1, 300):
        assert server.exceed() == wait_s
        server.clock.step(wait_s * 1_000_000 - 1)
        assert server.wait_of() == 1
        server.clock.step(1)
        assert server.wait_of() == 0


def test_calls_during_a_block_neither_count_nor_prolong_it(server: Server) -> None:
    """A client that hammers through its block is let in when it ends, with the calls that it has saved up."""
    server.exceed()
    for _ in range(100):
        server.clock.step(10_000)
        if server.clock.at_us < 5_001_000_000:
            assert server.wait_of() == 1
    assert server.allowed(5) == 5
    assert server.wait_of() == 300


def test_the_ladder_starts_again_after_an_hour_without_excess(server: Server) -> None:
    """An excess within the hour is the second one, an excess after it the first."""
    server.exceed()
    server.clock.step(HOUR_US - 1)
    assert server.exceed() == 300
    server.clock.step(HOUR_US)
    assert server.exceed() == 1


def test_each_limit_that_one_call_breaks_is_blocked() -> None:
    """A call beyond two limits at once climbs both ladders, and the longer block is told."""
    server = Server(small=TierLimits(operation_per_2s=4, user_per_2s=4))
    for _ in range(4):
        server.limits.signed_call("small", 1, "a", "balance")
    with pytest.raises(LimitExceeded):
        server.limits.signed_call("small", 1, "a", "balance")
    with pytest.raises(LimitExceeded) as of_user:
        server.limits.signed_call("small", 1, "b", "history")
    assert of_user.value.standing == Standing(4, 0, 1)
    server.clock.step(1_000_000)
    server.limits.signed_call("small", 1, "b", "history")


def test_a_block_of_another_node_is_taken_over_with_its_place_on_the_ladder(server: Server) -> None:
    """Who was blocked elsewhere is refused here for as long, and the next excess blocks for the ladder's next time."""
    other = Server()
    assert (server.exceed(), len(server.told)) == (1, 1)
    other.limits.hear(server.told[0])
    assert (other.wait_of(), other.wait_of(user=2)) == (1, 0)
    for each in (server, other):
        each.clock.step(1_000_000)
    assert (other.exceed(), other.told[0].rung) == (300, 2)
    server.limits.hear(other.told[0])
    server.limits.hear(server.told[0])
    assert server.wait_of() == 300, "an older one that is heard later ends nothing"


def test_a_block_that_is_over_or_finds_no_room_changes_nothing(server: Server) -> None:
    """What was heard late leaves no trace, and a full table keeps those that it has."""
    server.exceed()
    other = Server(most_tracked=1)
    other.transfer(user=7)
    other.limits.hear(server.told[0])
    assert (other.limits.tracked, other.wait_of(user=7)) == (1, 0)
    late = Server()
    late.clock.step(2 * HOUR_US)
    late.limits.hear(server.told[0])
    assert late.limits.tracked == 0


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8:1234:5678::1", "no address"])
def test_an_address_that_failed_elsewhere_is_blocked_before_anything_is_verified(server: Server, address: str) -> None:
    """Blocks go by the same name at all nodes, also for a whole IPv6 network and for callers without an address."""
    bucket, other = read_address(address).bucket, Server()
    for _ in range(20):
        server.limits.authentication_failed(bucket)
    with pytest.raises(LimitExceeded):
        server.limits.authentication_failed(bucket)
    other.limits.hear(server.told[0])
    with pytest.raises(LimitExceeded):
        other.limits.check_client(bucket)
    other.limits.check_client(read_address("198.51.100.1").bucket)


@pytest.mark.parametrize(
    "name", ["", "both", "7", '["owner"]', '["tenant", 7]', '["owner", {}]', '["owner", [[7], 1]]', "[1, 2]"]
)
def test_a_block_with_a_name_of_another_release_changes_nothing(server: Server, name: str) -> None:
    """Nodes of two releases may run at the same time."""
    now_ms = server.clock.now_ms()
    server.limits.hear(Block(name, now_ms + 1_000, 1, now_ms + 10_000))
    assert (server.limits.tracked, server.wait_of()) == (0, 0)


def test_newcomers_that_share_a_counter_are_blocked_here_alone() -> None:
    """A name that was only unlucky with its counter is not given away to other nodes."""
    server = Server(most_tracked=1)
    server.transfer(user=1)
    assert server.exceed(user=2) == 1
    assert server.told == []


def test_a_tier_has_numbers_of_its_own() -> None:
    """A key's tier decides; one that is not configured counts as the default."""
    server = Server(large=TierLimits(wallet_per_2s=100, ladder_s=(5,)), free=UNLIMITED)
    assert [server.limits.wallet_call("large", 1, "transfer") for _ in range(100)][-1] == Standing(100, 0, 2)
    for _ in range(2):
        with pytest.raises(LimitExceeded) as exceeded:
            server.limits.wallet_call("large", 1, "transfer")
        assert exceeded.value.retry_after_s == 5
    assert server.limits.wallet_call("unheard-of", 2, "transfer") == Standing(10, 9, 1)
    assert {server.limits.wallet_call("free", 3, "transfer") for _ in range(100)} == {None}


def test_a_smaller_tier_holds_at_once(server: Server) -> None:
    """A user whose limit is lowered pays back no more than two seconds of the new one."""
    limits = Server(large=TierLimits(wallet_per_2s=100)).limits
    for _ in range(100):
        limits.wallet_call("large", 1, "transfer")
    with pytest.raises(LimitExceeded) as exceeded:
        limits.wallet_call("default", 1, "transfer")
    assert exceeded.value.standing.limit == 10


def test_all_limits_can_be_switched_off() -> None:
    """With no tier but an unlimited one, nothing is ever refused or tracked."""
    limits = RateLimits(Clock(), {"default": UNLIMITED})
    for _ in range(100):
        assert limits.wallet_call("gold", 1, "transfer") is None
        assert limits.signed_call("gold", 1, "a", "balance") is None
        assert limits.public_call(7) is None
        limits.authentication_failed(7)
        limits.check_client(7)
        limits.note_receiver_refusal(1)
        limits.check_receiver_refusals("gold", 1)
    assert limits.tracked == 0


@pytest.mark.parametrize("numbers", [{"wallet_per_2s": 0}, {"public_per_2s": -1}, {"ladder_s": ()}, {"ladder_s": (0,)}])
def test_a_tier_that_lets_nothing_through_is_a_mistake(numbers: dict[str, Any]) -> None:
    """Limits below one call, and blocks without a length, are refused when they are read."""
    with pytest.raises(InvariantBroken):
        TierLimits(**numbers)


def test_20_receiver_refusals_an_hour_are_allowed(server: Server) -> None:
    """After twenty within an hour the user waits until the oldest is an hour old; others do not."""
    for _ in range(20):
        server.limits.check_receiver_refusals("default", 1)
        server.limits.note_receiver_refusal(1)
        server.clock.step(MINUTE_US)
    with pytest.raises(LimitExceeded) as exceeded:
        server.limits.check_receiver_refusals("default", 1)
    assert exceeded.value.standing == Standing(20, 0, 2400)
    server.limits.check_receiver_refusals("default", 2)
    server.clock.step(40 * MINUTE_US)
    server.limits.check_receiver_refusals("default", 1)
    server.limits.note_receiver_refusal(1)
    with pytest.raises(LimitExceeded) as exceeded:
        server.limits.check_receiver_refusals("default", 1)
    assert exceeded.value.retry_after_s == 60


def test_clients_that_went_away_are_forgotten(server: Server) -> None:
    """A hundred thousand addresses, ten a second, leave next to nothing behind."""
    for client in range(100_000):
        server.limits.public_call(client)
        server.clock.step(100_000)
    assert server.limits.tracked < 50


def test_an_attack_from_many_addresses_takes_bounded_memory_and_frees_nobody() -> None:
    """While a full table is attacked, a blocked address stays blocked, and a quiet one keeps its bucket."""
    server = Server(most_tracked=100)
    server.limits.public_call("known")
    for _ in range(21):
        try:
            server.limits.authentication_failed("attacker")
        except LimitExceeded:
            pass
    for client in range(50_000):
        try:
            server.limits.public_call(client)
        except LimitExceeded:
            pass
    assert server.limits.tracked <= 100 + 1024
    with pytest.raises(LimitExceeded):
        server.limits.check_client("attacker")
    assert server.limits.public_call("known") == Standing(50, 48, 1)


def test_newcomers_to_a_full_table_are_limited_together() -> None:
    """Addresses beyond the table share buckets: they can call, but only so much, and wait a second at most."""
    server = Server(most_tracked=10, default=TierLimits(public_per_2s=5))
    allowed, waits = 0, set[int | None]()
    for call in range(20_000):
        try:
            server.limits.public_call(call)
            allowed += 1
        except LimitExceeded as exceeded:
            waits.add(exceeded.retry_after_s)
    assert 1000 < allowed <= 10 + 1024 * 5
    assert waits == {1}


def test_a_bucket_of_ones_own_starts_from_the_shared_one() -> None:
    """A client that was limited among the newcomers gains nothing when the table has room again."""
    server = Server(most_tracked=1)
    server.limits.public_call("first")
    server.clock.step(1_900_000)
    for _ in range(50):
        server.limits.public_call("second")
    server.clock.step(100_000)
    assert server.limits.public_call("second") == Standing(50, 1, 2)


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 30)), max_size=60),
    st.sampled_from([1000, 1]),
)
def test_never_more_than_the_capacity_and_what_time_gave_back(
    limit: int, bursts: list[tuple[int, int]], most_tracked: int
) -> None:
    """In every stretch of time at most limit + rate x time calls go through, for any pattern of calls."""
    server = Server(most_tracked, tier=TierLimits(wallet_per_2s=limit, ladder_s=(1, 2, 3)))
    let_through: list[int] = []
    for pause_us, calls in bursts:
        server.clock.step(pause_us)
        for number in range(calls):
            server.limits.public_call((pause_us, number))
            try:
                server.limits.wallet_call("tier", 1, "transfer")
            except LimitExceeded:
                continue
            let_through.append(server.clock.at_us)
    for first, since_us in enumerate(let_through):
        for last in range(first, len(let_through)):
            assert (last - first + 1 - limit) * 2_000_000 <= limit * (let_through[last] - since_us)


@given(st.integers(1, 40), st.integers(1, 50))
def test_a_steady_client_within_its_rate_is_never_refused(limit: int, calls: int) -> None:
    """Calls spaced at the rate go through for ever: nothing drifts."""
    server = Server(tier=TierLimits(wallet_per_2s=limit))
    for _ in range(calls):
        server.limits.wallet_call("tier", 1, "transfer")
        server.clock.step(-(-2_000_000 // limit))

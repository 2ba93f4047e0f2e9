"""Whatever the prices: no gain there and back, never above the exact rate, eight significant digits, one answer."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

from hypothesis import assume, given
from hypothesis import strategies as st

from strongroom import errors
from strongroom.clock import DAY_MS
from strongroom.money import convert
from strongroom.rates.book import RateBook
from strongroom.rates.prices import Price
from strongroom.rates.quotes import QuotedRate

NOW_MS = 1_793_362_200_000
ASSETS = ("BTC", "USDT", "USD", "EUR", "JPY")
PAIRS = list(permutations(ASSETS, 2))

terms = st.one_of(st.integers(1, 10**6), st.integers(1, 10**30))
ages_ms = st.sampled_from((0, 1, DAY_MS, DAY_MS + 1))
prices = st.builds(
    lambda pair, num, den, source, age_ms: Price(pair[0], pair[1], num, den, source, NOW_MS - age_ms, DAY_MS),
    st.sampled_from(PAIRS),
    terms,
    terms,
    st.sampled_from(("table", "ecb")),
    ages_ms,
)
price_lists = st.lists(prices, min_size=1, max_size=12)
spreads_e4 = st.integers(0, 9999)
amounts = st.integers(0, 1 << 62)
scales = st.integers(0, 8)


class Listed:
    """A source of the prices that were drawn."""

    def __init__(self, listed: list[Price]) -> None:
        self._listed = listed

    def prices(self) -> list[Price]:
        """Return the drawn prices."""
        return self._listed


def _quoted(book: RateBook, base: str, quote: str, now_ms: int = NOW_MS) -> QuotedRate | str:
    try:
        return book.quoted(base, quote, now_ms)
    except errors.Refused as refused:
        return refused.message


@given(price_lists, spreads_e4, st.sampled_from(PAIRS), amounts, scales, scales)
def test_converting_there_and_back_never_gains(
    listed: list[Price], spread_e4: int, pair: tuple[str, str], amount: int, from_scale: int, to_scale: int
) -> None:
    """Also without a spread, at any scales, and with prices that contradict each other."""
    book = RateBook([Listed(listed)], spread_e4)
    there, back = _quoted(book, pair[0], pair[1]), _quoted(book, pair[1], pair[0])
    assume(isinstance(there, QuotedRate))
    assert isinstance(there, QuotedRate)
    assert isinstance(back, QuotedRate)
    settlement = convert(amount, from_scale, to_scale, there.rate)
    assert convert(settlement, to_scale, from_scale, back.rate) <= amount


@given(terms, terms, spreads_e4, amounts, scales, scales)
def test_the_published_rate_is_the_exact_one_rounded_down_with_eight_significant_digits(
    num: int, den: int, spread_e4: int, amount: int, from_scale: int, to_scale: int
) -> None:
    """From one yen in bitcoin to ratios of 10^30, and the house's part of a conversion is never negative."""
    book = RateBook([Listed([Price("JPY", "BTC", num, den, "table", NOW_MS, DAY_MS)])], spread_e4)
    quoted = book.quoted("JPY", "BTC", NOW_MS)
    for rate, exact in (
        (quoted.rate, Fraction(num * (10_000 - spread_e4), den * 10_000)),
        (quoted.mid, Fraction(num, den)),
    ):
        assert rate.decimals >= 8
        assert rate.units >= 10**7
        assert rate.units <= exact * 10**rate.decimals < rate.units + 1
    assert quoted.rate.decimals == 8 or quoted.rate.units < 10**8, "no more decimals than it takes"
    settlement, spread = quoted.split(amount, from_scale, to_scale)
    assert settlement >= 0
    assert spread >= 0
    assert settlement + spread == convert(amount, from_scale, to_scale, quoted.mid)


@given(price_lists, st.lists(st.tuples(st.sampled_from(PAIRS), st.integers(-DAY_MS - 2, 2 * DAY_MS)), max_size=8))
def test_an_answer_depends_on_the_moment_only_and_never_on_what_was_asked_before(
    listed: list[Price], questions: list[tuple[tuple[str, str], int]]
) -> None:
    """A book that has answered other questions answers as a new one does, whichever way the moments go."""
    used = RateBook([Listed(listed)])
    for (base, quote), later_ms in questions:
        now_ms = NOW_MS + later_ms
        assert _quoted(used, base, quote, now_ms) == _quoted(RateBook([Listed(listed)]), base, quote, now_ms)


@given(price_lists, st.sampled_from(PAIRS), st.integers(-2 * DAY_MS, 2 * DAY_MS))
def test_no_rate_is_older_than_its_prices_may_be(listed: list[Price], pair: tuple[str, str], later_ms: int) -> None:
    """Every price drawn may be a day old: so may every rate, and no more."""
    quoted = _quoted(RateBook([Listed(listed)]), *pair, NOW_MS + later_ms)
    if isinstance(quoted, QuotedRate):
        assert NOW_MS + later_ms - quoted.rate.as_of_ms <= DAY_MS
    elif "too old" in quoted:
        assert any(abs(NOW_MS + later_ms - price.as_of_ms) > DAY_MS for price in listed)

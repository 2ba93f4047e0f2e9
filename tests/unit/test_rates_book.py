"""The rate book: direct, inverse and crossed rates, their age, their spread, and which of several ways is taken."""

from __future__ import annotations

from fractions import Fraction

import pytest

from strongroom import errors
from strongroom.clock import DAY_MS
from strongroom.money import Rate
from strongroom.rates.book import RateBook
from strongroom.rates.prices import Price, PriceSource
from strongroom.rates.table import TableSource

NOW_MS = 1_793_362_200_000
HOUR_MS = 3_600_000


class Listed:
    """A source of the prices that a test lists, each observed `age_ms` ago and good for a day."""

    def __init__(self, name: str, age_ms: int = 0, max_age_ms: int = DAY_MS, **prices: str) -> None:
        self._prices = [
            Price(base, quote, *Fraction(text).as_integer_ratio(), name, NOW_MS - age_ms, max_age_ms)
            for pair, text in prices.items()
            for base, quote in [pair.split("_")]
        ]

    def prices(self) -> list[Price]:
        """Return the listed prices."""
        return self._prices


def _refusal(book: RateBook, base: str, quote: str, now_ms: int = NOW_MS) -> str:
    with pytest.raises(errors.Refused) as refused:
        book.quote(base, quote, now_ms)
    assert refused.value.error is errors.CONVERSION_REFUSED
    return refused.value.message


def test_a_listed_pair_has_its_listed_price() -> None:
    """Without a spread the customer gets the price itself, with eight decimals."""
    book = RateBook([Listed("table", 5, BTC_USDT="66680.5")])
    assert book.quote("BTC", "USDT", NOW_MS) == Rate(6668050000000, 8, "table BTC/USDT", NOW_MS - 5)


def test_the_other_way_round_is_the_inverse_rounded_down() -> None:
    """1 / 66680.5 = 0.0000149968881757..., down to eight significant digits."""
    book = RateBook([Listed("table", BTC_USDT="66680.5")])
    rate = book.quote("USDT", "BTC", NOW_MS)
    assert (rate.text(), rate.source) == ("0.000014996888", "table BTC/USDT")


def test_a_pair_without_a_price_is_crossed_exactly_and_rounded_once() -> None:
    """2000 * 1.25 / 3 = 833.33...; rounding the parts (0.33333333 * 2500) would give less."""
    book = RateBook([Listed("table", 7, ETH_USD="2000", GBP_USD="3"), Listed("ecb", 9, EUR_USD="0.8")])
    assert book.quote("ETH", "GBP", NOW_MS).text() == "666.66666666"
    rate = book.quote("ETH", "EUR", NOW_MS)
    assert (rate.text(), rate.source, rate.as_of_ms) == ("2500", "table ETH/USD, ecb EUR/USD", NOW_MS - 9)


def test_up_to_three_common_quotes_are_crossed() -> None:
    """Bitcoin in tether, tether in dollars, dollars in euros, euros in Singapore dollars."""
    book = RateBook([Listed("table", BTC_USDT="60000", USDT_USD="0.5"), Listed("ecb", EUR_USD="1.2", EUR_SGD="1.5")])
    assert book.quote("BTC", "SGD", NOW_MS).text() == "37500"
    assert book.quote("BTC", "SGD", NOW_MS).source == "table BTC/USDT, table USDT/USD, ecb EUR/USD, ecb EUR/SGD"


def test_only_common_quotes_are_crossed() -> None:
    """A way through an asset that is nobody's quote is none."""
    book = RateBook([Listed("table", LTC_BTC="0.001", BTC_USD="60000")])
    assert _refusal(book, "LTC", "USD") == "BADREQUEST: No rate for LTC to USD"


@pytest.mark.parametrize(("base", "quote"), [("BTC", "XYZ"), ("XYZ", "BTC"), ("XYZ", "ABC"), ("BTC", "BTC")])
def test_a_pair_that_nothing_leads_to_has_no_rate(base: str, quote: str) -> None:
    """The refusal names the pair as it was asked for."""
    book = RateBook([Listed("table", BTC_USD="60000")])
    assert _refusal(book, base, quote) == f"BADREQUEST: No rate for {base} to {quote}"


def test_a_price_is_used_to_the_last_moment_of_its_maximum_age_and_not_after() -> None:
    """A rate that was given out before is refused too, and given again when the clock of a replay stands earlier."""
    book = RateBook([Listed("table", BTC_USD="60000")])
    assert book.quote("BTC", "USD", NOW_MS + DAY_MS).text() == "60000"
    assert _refusal(book, "BTC", "USD", NOW_MS + DAY_MS + 1) == "BADREQUEST: Rate for BTC to USD is too old"
    assert book.quote("BTC", "USD", NOW_MS + DAY_MS).text() == "60000"


def test_one_price_that_is_too_old_makes_the_crossed_rate_too_old() -> None:
    """Fresh bitcoin over stale euros is a stale rate."""
    book = RateBook([Listed("table", BTC_USD="60000"), Listed("ecb", 8 * DAY_MS, 7 * DAY_MS, EUR_USD="1.2")])
    assert _refusal(book, "BTC", "EUR") == "BADREQUEST: Rate for BTC to EUR is too old"


def test_a_price_dated_further_ahead_than_its_maximum_age_is_not_used() -> None:
    """A date in the wrong unit must not make a price good for ever."""
    assert _refusal(RateBook([Listed("table", -DAY_MS - 1, BTC_USD="60000")]), "BTC", "USD").endswith("is too old")
    assert RateBook([Listed("table", -DAY_MS, BTC_USD="60000")]).quote("BTC", "USD", NOW_MS).text() == "60000"


def test_a_longer_way_is_taken_when_the_short_one_is_too_old() -> None:
    """The way over USD serves when the table's own BTC/EUR has aged."""
    sources = [Listed("table", 2 * DAY_MS, BTC_EUR="1"), Listed("ecb", BTC_USD="60000", EUR_USD="1.2")]
    assert RateBook(sources).quote("BTC", "EUR", NOW_MS).text() == "50000"


def test_the_shortest_way_is_taken_even_if_it_is_older() -> None:
    """A price of the pair itself goes before fresher ones that have to be crossed."""
    sources = [Listed("table", HOUR_MS, BTC_EUR="40000"), Listed("ecb", BTC_USD="60000", EUR_USD="1.2")]
    assert RateBook(sources).quote("BTC", "EUR", NOW_MS).text() == "40000"


def test_the_freshest_source_of_a_pair_is_taken() -> None:
    """Whatever the order of the sources, and whichever way round they list the pair."""
    sources: list[PriceSource] = [Listed("old", HOUR_MS, BTC_USD="1"), Listed("new", USD_BTC="0.5")]
    for ordered in (sources, sources[::-1]):
        assert RateBook(ordered).quote("BTC", "USD", NOW_MS).source == "new USD/BTC"


def test_the_first_of_equally_fresh_sources_is_taken_both_ways() -> None:
    """There and back use one price, so that two sources that disagree give no gain."""
    sources = [Listed("first", BTC_USD="2"), Listed("second", USD_BTC="1")]
    book = RateBook(sources)
    assert (book.quote("BTC", "USD", NOW_MS).text(), book.quote("USD", "BTC", NOW_MS).text()) == ("2", "0.5")


def test_of_equally_long_ways_the_freshest_is_taken() -> None:
    """A way is as old as its oldest price."""
    sources = [Listed("a", 2, BTC_USD="2", EUR_USD="1"), Listed("b", 1, BTC_USDT="3", EUR_USDT="1")]
    assert RateBook(sources).quote("BTC", "EUR", NOW_MS).source == "b BTC/USDT, b EUR/USDT"


@pytest.mark.parametrize(("common_quotes", "expected"), [(("USD", "USDT"), "2"), (("USDT", "USD"), "3")])
def test_of_equally_long_and_fresh_ways_the_first_common_quote_decides(
    common_quotes: tuple[str, ...], expected: str
) -> None:
    """The operator's order of common quotes is the last word."""
    source = Listed("table", BTC_USD="2", EUR_USD="1", BTC_USDT="3", EUR_USDT="1")
    assert RateBook([source], common_quotes=common_quotes).quote("BTC", "EUR", NOW_MS).text() == expected


def test_equally_good_ways_are_decided_alike_there_and_back() -> None:
    """Seen from BTC the way over AAA comes first, seen from XYZ the one over BBB: taking both would give a gain."""
    over_a_and_d = Listed("table", BTC_AAA="1", AAA_DDD="1", DDD_XYZ="2")
    over_c_and_b = Listed("table", BTC_CCC="1", CCC_BBB="1", BBB_XYZ="1")
    book = RateBook([over_a_and_d, over_c_and_b], common_quotes=("AAA", "BBB", "CCC", "DDD"))
    assert (book.quote("BTC", "XYZ", NOW_MS).text(), book.quote("XYZ", "BTC", NOW_MS).text()) == ("2", "0.5")


def test_the_spread_is_taken_from_what_the_customer_gets_in_both_directions() -> None:
    """A quarter of a percent less than the middle rate, whichever side the customer is on."""
    book = RateBook([Listed("table", BTC_USDT="50000")], spread_e4=25)
    assert (book.quote("BTC", "USDT", NOW_MS).text(), book.mid("BTC", "USDT", NOW_MS).text()) == ("49875", "50000")
    assert (book.quote("USDT", "BTC", NOW_MS).text(), book.mid("USDT", "BTC", NOW_MS).text()) == (
        "0.00001995",
        "0.00002",
    )


def test_a_pair_may_have_a_spread_of_its_own() -> None:
    """It holds both ways round unless the other one is named too; a crossed rate pays its own pair's only."""
    book = RateBook(
        [Listed("table", BTC_USD="100", ETH_USD="100", EUR_USD="100")],
        spread_e4=1000,
        pair_spreads_e4={"btc/usd": 0, "USD/ETH": 2000, "ETH/USD": 500},
    )
    rates = [
        book.quote(*pair, NOW_MS).text() for pair in (("BTC", "USD"), ("USD", "BTC"), ("ETH", "USD"), ("USD", "ETH"))
    ]
    assert rates == ["100", "0.01", "95", "0.008"]
    assert book.quote("BTC", "EUR", NOW_MS).text() == "0.9"


def test_the_settlement_and_the_houses_spread_add_up_to_the_middle_rate() -> None:
    """10 BTC at 50000 less 0.25 %: 498750 for the customer, 1250 for the house."""
    quoted = RateBook([Listed("table", BTC_USDT="50000")], spread_e4=25).quoted("BTC", "USDT", NOW_MS)
    assert quoted.split(10 * 10**8, 8, 8) == (498750 * 10**8, 1250 * 10**8)


def test_a_new_table_replaces_the_old_one_and_nothing_else() -> None:
    """The operator's command: rates change at once, a pair left out has no rate any more, the ECB's stay."""
    book = RateBook([Listed("table", BTC_USD="1", ETH_USD="1"), Listed("ecb", EUR_USD="1.2")])
    assert book.quote("BTC", "USD", NOW_MS).text() == "1"
    book.set_table(TableSource({"BTC/USD": "2"}, NOW_MS).prices())
    assert book.quote("BTC", "USD", NOW_MS).text() == "2"
    assert _refusal(book, "ETH", "USD") == "BADREQUEST: No rate for ETH to USD"
    assert book.quote("EUR", "USD", NOW_MS).text() == "1.2"
    assert [price.pair for price in book.prices] == ["BTC/USD", "EUR/USD"]


def test_a_new_table_makes_a_rate_that_was_too_old_good_again() -> None:
    """That is what the operator refreshes it for."""
    book = RateBook([Listed("table", 2 * DAY_MS, BTC_USD="1")])
    assert _refusal(book, "BTC", "USD").endswith("is too old")
    book.set_table(TableSource({"BTC/USD": "2"}, NOW_MS).prices())
    assert book.quote("BTC", "USD", NOW_MS).text() == "2"


def test_a_table_with_another_sources_price_changes_nothing() -> None:
    """The command replaces the operator's own prices only."""
    book = RateBook([Listed("table", BTC_USD="1")])
    with pytest.raises(ValueError, match="the price of EUR/USD is of ecb, not of the table"):
        book.set_table([*Listed("table", BTC_USD="2").prices(), *Listed("ecb", EUR_USD="1").prices()])
    assert book.quote("BTC", "USD", NOW_MS).text() == "1"


@pytest.mark.parametrize("spread_e4", [-1, 10_000])
def test_a_spread_out_of_range_is_refused(spread_e4: int) -> None:
    """Below zero the house would pay the customer; at 100 % nothing would be left."""
    with pytest.raises(ValueError, match="the default spread must be between 0 and 9999"):
        RateBook([], spread_e4)
    with pytest.raises(ValueError, match="the spread of BTC/USD must be between 0 and 9999"):
        RateBook([], pair_spreads_e4={"BTC/USD": spread_e4})


def test_too_many_common_quotes_are_refused() -> None:
    """The ways to try grow with their third power."""
    with pytest.raises(ValueError, match="more than 8 common quotes"):
        RateBook([], common_quotes=tuple("ABCDEFGHI"))

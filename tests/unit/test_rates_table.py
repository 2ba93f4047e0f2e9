"""The operator's table: exact texts in, prices out, and a clear word about an entry that is wrong."""

from __future__ import annotations

import pytest

from strongroom.clock import DAY_MS
from strongroom.rates.prices import Price
from strongroom.rates.table import TableSource

AS_OF_MS = 1_793_000_000_000


def test_a_price_keeps_every_digit_of_its_text() -> None:
    """The text is read as a ratio of two integers, never through a float."""
    (price,) = TableSource({"BTC/USDT": "66680.10000000000000000001"}, AS_OF_MS).prices()
    assert price == Price("BTC", "USDT", 6668010000000000000000001, 10**20, "table", AS_OF_MS, DAY_MS)


def test_names_are_read_without_case() -> None:
    """The operator may write btc/usdt."""
    (price,) = TableSource({"btc/usdt": "1"}, AS_OF_MS).prices()
    assert price.pair == "BTC/USDT"


@pytest.mark.parametrize(
    "value", ["", "0", "0.00", "-1", "+1", "1e5", "1,5", ".5", "1.", " 1", "NaN", "١", "1" * 41, 66680.5, 66680, None]
)
def test_a_value_that_is_no_positive_decimal_text_is_refused_by_the_name_of_its_pair(value: object) -> None:
    """A number of the settings file is refused as well: it has lost digits on its way."""
    with pytest.raises(ValueError, match=r"the price of BTC/USDT must be a text such as '66680\.5'"):
        TableSource({"BTC/USDT": value}, AS_OF_MS)


@pytest.mark.parametrize(
    "name", ["BTC", "BTC/", "/USDT", "BTC-USDT", "BTC/USDT/EUR", "BTC /USDT", "ẞTC/USDT", "BTC/USDT\n"]
)
def test_a_name_that_is_no_pair_is_refused_by_its_text(name: str) -> None:
    """The message shows what was written and what a pair looks like."""
    with pytest.raises(ValueError, match="is not a pair such as 'BTC/USDT'") as refused:
        TableSource({name: "1"}, AS_OF_MS)
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("second", ["BTC/USDT", "btc/usdt", "USDT/BTC"])
def test_a_pair_has_one_price(second: str) -> None:
    """Two prices of one pair, the other way round included, would let a customer go round in circles."""
    first = "Btc/Usdt"
    with pytest.raises(ValueError, match=f"{second} has a price already, given as BTC/USDT"):
        TableSource({first: "66680.5", second: "2"}, AS_OF_MS)


def test_an_asset_has_no_price_in_itself() -> None:
    """BTC/BTC is a slip of the pen."""
    with pytest.raises(ValueError, match="BTC/BTC is a price of an asset in itself"):
        TableSource({"BTC/BTC": "1"}, AS_OF_MS)


def test_a_negative_maximum_age_is_refused() -> None:
    """No price could ever be used under it."""
    with pytest.raises(ValueError, match="the maximum age of BTC/USDT must not be negative"):
        TableSource({"BTC/USDT": "1"}, AS_OF_MS, -1)

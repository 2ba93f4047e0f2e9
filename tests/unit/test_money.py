"""Amounts: what texts are one, how units are told, and the two formulas, each against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.money import (
    MAX_UNITS,
    AmountError,
    AmountProblem,
    FeeFormula,
    JsonNumber,
    Rate,
    convert,
    format_amount,
    parse_amount,
)

MALFORMED, NOT_POSITIVE = AmountProblem.MALFORMED, AmountProblem.NOT_POSITIVE
TOO_FINE, TOO_LARGE = AmountProblem.TOO_FINE, AmountProblem.TOO_LARGE


def problem(text: str, scale: int = 8) -> AmountProblem:
    """Return why a text is no amount."""
    with pytest.raises(AmountError) as caught:
        parse_amount(text, scale)
    assert str(caught.value) == caught.value.problem.value
    return caught.value.problem


@pytest.mark.parametrize(
    ("text", "scale", "units"),
    [
        ("1", 8, 100_000_000),
        ("0.00000001", 8, 1),
        ("00012.50", 2, 1250),
        ("2.5000000000000000", 1, 25),
        ("100", 0, 100),
        ("100.000", 0, 100),
        ("0.00000001", 12, 10_000),
        ("46116860184.27387903", 8, MAX_UNITS - 1),
        ("4611686018427387903", 0, MAX_UNITS - 1),
        ("0" * 255 + "1", 0, 1),
        ("0." + "1" + "0" * 253, 8, 10_000_000),
    ],
)
def test_a_plain_decimal_is_an_amount(text: str, scale: int, units: int) -> None:
    """Digits with an optional fraction count units, whatever zeros stand around them."""
    assert parse_amount(text, scale) == units
    assert parse_amount(JsonNumber(text), scale) == units


@pytest.mark.parametrize(
    ("text", "scale", "units"),
    [
        ("1e3", 2, 100_000),
        ("1E+3", 2, 100_000),
        ("25e-1", 2, 250),
        ("1.50e1", 0, 15),
        ("120e-1", 0, 12),
        ("0.001e3", 0, 1),
        ("100000000e-16", 8, 1),
        ("4611686018427387903e0", 0, MAX_UNITS - 1),
    ],
)
def test_a_json_number_may_have_an_exponent(text: str, scale: int, units: int) -> None:
    """What a JSON body spells as a number is read exactly; the same text as a string is no amount."""
    assert parse_amount(JsonNumber(text), scale) == units
    assert problem(text, scale) == MALFORMED


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "1.", ".5", "+1", "-1", "1,5", "1_000", "0x10", "١", "½", "1.5.2", "nan", "inf", "1\n", "1e5"],
)
def test_what_is_no_decimal_number_is_malformed(text: str) -> None:
    """Signs, spaces, other scripts' digits and half numbers are no amount as a text."""
    assert problem(text) == MALFORMED


@pytest.mark.parametrize("text", ["", "+1", "1e", "e5", "1e1.5", "--1", ".5", "-", "1e--5", "١e1"])
def test_what_is_no_json_number_is_malformed(text: str) -> None:
    """A number token has at most one sign in front, and a whole exponent."""
    assert problem(JsonNumber(text)) == MALFORMED


def test_a_text_that_goes_on_and_on_is_malformed() -> None:
    """Up to 256 characters are read, and not one more."""
    assert problem("0" * 256 + "1", 0) == MALFORMED
    assert problem("1" * 257, 0) == MALFORMED
    assert problem("1" * 256, 0) == TOO_LARGE


@pytest.mark.parametrize("text", ["0", "0.0", "000", "0.000000000000"])
def test_nothing_is_no_amount(text: str) -> None:
    """Zero is refused for what it is, however many decimals it has."""
    assert problem(text) == problem(JsonNumber(text)) == NOT_POSITIVE


@pytest.mark.parametrize("text", ["-1", "-0", "-0.000000000001", "-1e999", "0e9", "-1e-999"])
def test_a_number_below_zero_is_not_positive(text: str) -> None:
    """The sign is judged before the decimals and the size."""
    assert problem(JsonNumber(text)) == NOT_POSITIVE


@pytest.mark.parametrize(
    ("text", "scale"),
    [("0.000000001", 8), ("0.000000001", 12), ("1.5", 0), ("0.01", 1), ("1e-9", 9), ("1e-1", 0), ("1e-999999", 8)],
)
def test_more_decimals_than_wire_or_asset_have_are_too_fine(text: str, scale: int) -> None:
    """At most 8 decimals count, and at most as many as the asset has."""
    assert problem(JsonNumber(text), scale) == TOO_FINE


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("46116860184.27387904", 8),
        ("4611686018427387904", 0),
        ("9" * 40, 0),
        ("9" * 41, 0),
        ("1e40", 0),
        ("1e999999999999", 8),
        ("1" * 200 + "e50", 8),
    ],
)
def test_what_reaches_the_ledgers_range_is_too_large(text: str, scale: int) -> None:
    """Every amount is below 2^62 units, and one far beyond is told at once."""
    assert problem(JsonNumber(text), scale) == TOO_LARGE


def test_each_problem_says_what_is_wrong() -> None:
    """The texts that clients are told after the word amount."""
    assert [p.value for p in AmountProblem] == [
        "is not a decimal number",
        "must be greater than 0",
        "has too many decimals",
        "is too large",
    ]


@pytest.mark.parametrize(
    ("units", "scale", "text"),
    [
        (0, 0, "0"),
        (0, 8, "0"),
        (-1, 0, "-1"),
        (1, 0, "1"),
        (120, 0, "120"),
        (1, 8, "0.00000001"),
        (-1, 8, "-0.00000001"),
        (150, 2, "1.5"),
        (-250_000_000, 8, "-2.5"),
        (1_000_000_000, 8, "10"),
        (-1_000_000_000, 8, "-10"),
        (MAX_UNITS - 1, 8, "46116860184.27387903"),
    ],
)
def test_units_are_told_without_padding(units: int, scale: int, text: str) -> None:
    """No exponent, no needless zero, and the sign in front."""
    assert format_amount(units, scale) == text


@given(st.integers(1, MAX_UNITS - 1), st.integers(0, 8))
def test_what_is_told_reads_as_the_same_amount(units: int, scale: int) -> None:
    """Text and integer are two spellings of one amount, and no digit is lost on the way."""
    text = format_amount(units, scale)
    assert parse_amount(text, scale) == parse_amount(JsonNumber(text), scale) == units
    assert Fraction(text) == Fraction(units, 10**scale)
    assert format_amount(-units, scale) == f"-{text}"


@given(
    st.integers(1, MAX_UNITS - 1), st.integers(0, 12), st.integers(0, 12), st.integers(1, 10**12), st.integers(0, 12)
)
def test_a_settlement_is_the_floor_of_amount_times_rate(
    amount: int, from_scale: int, to_scale: int, units: int, decimals: int
) -> None:
    """Whatever the scales, the house never pays a part of a unit more than the exact product."""
    rate = Rate(units, decimals, "test", 0)
    exact = Fraction(amount, 10**from_scale) * Fraction(units, 10**decimals) * 10**to_scale
    assert convert(amount, from_scale, to_scale, rate) == floor(exact)
    assert Fraction(rate.text()) == Fraction(units, 10**decimals)


parts = st.integers(0, 10**10)


@given(parts, parts, parts, parts, st.integers(0, 10**14), st.sampled_from([1, 100, 10**6]))
def test_a_fee_is_the_formulas_rounded_up_once(
    minimum: int, rate_e8: int, extra: int, extra_rate_e8: int, amount: int, unit: int
) -> None:
    """The larger of minimum and share, and what is added to it, rounded up to what the chain can move."""
    e8 = 10**8
    exact = max(minimum, Fraction(amount * rate_e8, e8)) + extra + Fraction(amount * extra_rate_e8, e8)
    formula = FeeFormula(minimum, rate_e8, extra, extra_rate_e8)
    assert formula.fee(amount, unit) == ceil(exact / unit) * unit
    assert formula.fee(amount) == ceil(exact)


def test_a_fee_that_is_not_declared_is_none() -> None:
    """Without a formula of its own an asset costs nothing to withdraw."""
    assert FeeFormula() == FeeFormula(minimum=0, rate_e8=0, extra=0, extra_rate_e8=0)
    assert FeeFormula().fee(10**18) == 0
    assert FeeFormula(7).fee(0) == FeeFormula(extra=7).fee(10**18) == 7

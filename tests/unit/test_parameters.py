"""Requests are filled in from what was sent, and whatever does not fit is told by the parameter's name."""

from __future__ import annotations

from typing import Annotated, Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.api.bodies import read_object, read_query
from strongroom.api.parameters import (
    MAX_MILLIS,
    MAX_NAMES,
    AmountText,
    Choice,
    Count,
    Flag,
    Millis,
    Names,
    Text,
    names,
    read,
    schema,
)
from strongroom.errors import InvariantBroken, Refused
from strongroom.money import JsonNumber


class Payment(msgspec.Struct, rename="camel"):
    """A request with every kind of parameter."""

    asset: Annotated[str, Text(8, "Asset to pay with", "BTC")]
    amount: Annotated[str, AmountText("How much", "1.5")]
    tag: Annotated[str | None, Text(10, "Destination tag", "533973779", numbers=True)] = None
    fee_included: Annotated[bool, Flag("Take the fee from the amount")] = True
    start_time: Annotated[int | None, Millis("Not before")] = None
    page_size: Annotated[int, Count(1, 50, "Rows of a page", "10")] = 10
    action: Annotated[str | None, Choice(("CONVERT", "SEND"), "What for", "SEND")] = None
    history_types: Annotated[tuple[str, ...] | None, Names(12, "Types of rows", '["DEPOSIT","WITHDRAW"]')] = None


REST = {"asset": "BTC", "amount": "1"}


def refusal(**values: Any) -> str:
    """Return the message with which a payment is refused."""
    with pytest.raises(Refused) as refused:
        read(Payment, REST | values)
    assert (refused.value.error.status, refused.value.error.code) == (400, -2)
    return refused.value.message


def test_every_kind_is_read_from_json() -> None:
    """Values arrive under their Python names and types, amounts as they were sent."""
    raw = b"""{"asset":"BTC","amount":1.50,"tag":"7","feeIncluded":false,"startTime":1624987283000,"pageSize":50,
               "action":"send","historyTypes":["DEPOSIT","x"],"unknown":[1]}"""
    payment = read(Payment, read_object(raw))
    assert payment == Payment("BTC", "1.50", "7", False, 1624987283000, 50, "SEND", ("DEPOSIT", "x"))
    assert isinstance(payment.amount, JsonNumber)


def test_every_kind_is_read_from_a_query() -> None:
    """The same request in a query string means the same."""
    raw = b"asset=BTC&amount=1.50&tag=7&feeIncluded=false&startTime=1624987283000&pageSize=50&action=send"
    raw += b"&historyTypes=%5B%22DEPOSIT%22,+%22x%22%5D&unknown=1"
    payment = read(Payment, read_query(raw, names(Payment)))
    assert payment == Payment("BTC", "1.50", "7", False, 1624987283000, 50, "SEND", ("DEPOSIT", "x"))
    assert not isinstance(payment.amount, JsonNumber)


def test_absent_parameters_have_their_defaults() -> None:
    """Absent, null and empty are the same."""
    absent = read(Payment, REST)
    assert absent == Payment("BTC", "1", None, True, None, 10, None, None)
    assert read(Payment, REST | dict.fromkeys(names(Payment) - REST.keys(), None)) == absent
    assert read(Payment, REST | dict.fromkeys(names(Payment) - REST.keys(), "")) == absent


@pytest.mark.parametrize("values", [{}, {"asset": None}, {"asset": ""}, {"amount": "1"}])
def test_a_missing_mandatory_parameter_is_told(values: dict[str, Any]) -> None:
    """The message is the contract's."""
    with pytest.raises(Refused) as refused:
        read(Payment, values)
    assert (refused.value.error.code, refused.value.message) == (-2, "BADREQUEST: asset parameter is mandatory")


@pytest.mark.parametrize("value", [JsonNumber("1"), True, [], {}, "123456789"])
def test_a_text_is_a_string_of_bounded_length(value: object) -> None:
    """Other types and longer texts are refused."""
    assert refusal(asset=value).startswith("BADREQUEST: asset parameter ")


def test_a_tag_may_be_sent_as_a_number() -> None:
    """Some clients send tags and uids as JSON integers; nothing else of a number is a text."""
    assert read(Payment, REST | read_object(b'{"tag":533973779}')).tag == "533973779"
    assert type(read(Payment, REST | read_object(b'{"tag":533973779}')).tag) is str
    for token in ("1.0", "1e3", "-1"):
        assert refusal(tag=JsonNumber(token)) == "BADREQUEST: tag parameter must be a text"
    assert refusal(tag=JsonNumber("12345678901")) == "BADREQUEST: tag parameter is longer than 10 characters"


def test_the_digits_of_an_amount_are_not_judged_here() -> None:
    """Asset and network are judged first, so any text or number passes; other types do not."""
    for sent in ("-5", "abc", JsonNumber("1e400"), "1" * 1000):
        assert read(Payment, REST | {"amount": sent}).amount == sent
    for sent in (True, [], {"a": "b"}):
        assert refusal(amount=sent) == "BADREQUEST: amount parameter must be a decimal number"


@pytest.mark.parametrize("value", ["TRUE", "yes", "1", JsonNumber("1"), [], ["true"], {}])
def test_a_flag_is_a_boolean_or_its_text(value: object) -> None:
    """`true` and `false` it is, nothing that looks like them."""
    assert refusal(feeIncluded=value) == "BADREQUEST: feeIncluded parameter must be true or false"


def test_a_flag_may_be_sent_as_text() -> None:
    """`"false"` is false, although it is a text that is not empty."""
    assert read(Payment, REST | {"feeIncluded": "false"}).fee_included is False
    assert read(Payment, REST | {"feeIncluded": "true"}).fee_included is True


@pytest.mark.parametrize("value", ["0", "51", "-1", "1.0", "1e1", "١", "1_0", " 1", "9" * 5000, True, []])
def test_a_count_is_an_integer_in_its_range(value: object) -> None:
    """Whatever else is sent, as text or as a number, is refused with the range."""
    message = "BADREQUEST: pageSize parameter must be an integer from 1 to 50"
    assert refusal(pageSize=value) == message
    if isinstance(value, str):
        assert refusal(pageSize=JsonNumber(value)) == message


def test_a_count_may_be_text_and_has_inclusive_bounds() -> None:
    """REF calls some of them strings."""
    assert [read(Payment, REST | {"pageSize": sent}).page_size for sent in ("1", "050", JsonNumber("50"))] == [
        1,
        50,
        50,
    ]


def test_a_moment_lies_between_the_epoch_and_2_to_the_53() -> None:
    """Beyond that clients lose digits."""
    assert read(Payment, REST | {"startTime": "0"}).start_time == 0
    assert read(Payment, REST | {"startTime": JsonNumber(str(MAX_MILLIS))}).start_time == MAX_MILLIS
    for sent in (str(MAX_MILLIS + 1), "-1", "1.5", "now", JsonNumber("1e12"), False, {}):
        assert refusal(startTime=sent) == "BADREQUEST: startTime parameter must be a time in milliseconds"


def test_a_choice_matches_without_case() -> None:
    """The request gets the choice as it is spelt in the contract."""
    assert read(Payment, REST | {"action": "Convert"}).action == "CONVERT"
    for sent in ("BUY", JsonNumber("1"), True, ["SEND"]):
        assert refusal(action=sent) == "BADREQUEST: action parameter must be one of CONVERT, SEND"


@pytest.mark.parametrize(
    "value",
    ["DEPOSIT", "{}", "[1]", "[", '["a"],"b":["c"]', '["a"]}{', [JsonNumber("1")], [None], ["x" * 13],
     ["a"] * (MAX_NAMES + 1), {}, True, JsonNumber("1"), '["\\ud800"]', [["a"]]],
)  # fmt: skip
def test_names_are_an_array_of_texts(value: object) -> None:
    """Anything else, or too much of it, is refused."""
    assert refusal(historyTypes=value).startswith("BADREQUEST: historyTypes parameter must ")


def test_names_may_be_none_at_all() -> None:
    """An empty array was sent, so it is no default."""
    assert read(Payment, REST | {"historyTypes": "[]"}).history_types == ()
    assert read(Payment, REST | {"historyTypes": []}).history_types == ()


def test_the_first_wrong_parameter_is_told() -> None:
    """Parameters are read in the order of the request, so that an answer never depends on the client's order."""
    assert refusal(pageSize="x", tag=[], startTime="y").startswith("BADREQUEST: tag parameter")


def test_the_schema_describes_each_parameter() -> None:
    """OpenAPI gets the wire name, whether it is mandatory, and the words of the request class."""
    described = {str(row["name"]): row for row in schema(Payment)}
    assert described.keys() == names(Payment)
    assert [name for name, row in described.items() if row["required"]] == ["asset", "amount"]
    assert described["asset"] == {
        "name": "asset",
        "required": True,
        "schema": {"type": "string", "maxLength": 8},
        "description": "Asset to pay with",
        "example": "BTC",
    }


JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=14),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(sorted(names(Payment))), JSON)
def test_what_the_schema_allows_is_what_is_read(name: str, value: object) -> None:
    """Any value is read or refused, and what is read fits the published schema (amounts are judged later)."""
    row = next(row for row in schema(Payment) if row["name"] == name)
    try:
        values = read_object(msgspec.json.encode({name: value}))
        read(Payment, REST | values)
    except Refused:
        return
    if value != "" and name not in {"amount", "action"}:
        jsonschema.validate(value, row["schema"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("row", schema(Payment), ids=lambda row: str(row["name"]))
def test_every_example_fits_its_schema_and_is_read(row: dict[str, Any]) -> None:
    """The documentation shows only what works."""
    jsonschema.validate(row["example"], row["schema"])
    read(Payment, REST | {row["name"]: row["example"]})


class Unmarked(msgspec.Struct):
    """A request with a field that no kind describes."""

    asset: str


def test_a_field_without_a_kind_is_a_mistake() -> None:
    """A request class that cannot be described is found when it is first used."""
    with pytest.raises(InvariantBroken, match=r"Unmarked.asset"):
        names(Unmarked)

"""Bodies and query strings are read exactly, and whatever cannot be read is a 400."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.api.bodies import MAX_DEPTH, MAX_QUERY_PAIRS, merge, read_object, read_query
from strongroom.errors import Refused
from strongroom.money import JsonNumber

KNOWN = frozenset({"currency", "count", "tag"})


def refusal_of_body(raw: bytes) -> str:
    """Return the message with which a body is refused."""
    with pytest.raises(Refused) as refused:
        read_object(raw)
    assert (refused.value.error.status, refused.value.error.code) == (400, -2)
    return refused.value.message.removeprefix("BADREQUEST: ")


def refusal_of_query(raw: bytes) -> str:
    """Return the message with which a query is refused."""
    with pytest.raises(Refused) as refused:
        read_query(raw, KNOWN)
    assert (refused.value.error.status, refused.value.error.code) == (400, -2)
    return refused.value.message.removeprefix("BADREQUEST: ")


def test_a_body_keeps_its_values() -> None:
    """Texts, booleans, null and nesting arrive as they were sent."""
    raw = b' {"asset": "BTC", "flag": true, "tag": null, "deep": {"list": ["a", false, []]}}\r\n'
    assert read_object(raw) == {"asset": "BTC", "flag": True, "tag": None, "deep": {"list": ["a", False, []]}}


def test_no_body_is_an_empty_object() -> None:
    """A POST without a body has no parameters."""
    assert read_object(b"") == {}


@pytest.mark.parametrize(
    "token", ["2", "-0", "0.10", "36.00000000", "1e-7", "1E+400", "12345678901234567890.123456789", "9" * 60_000]
)
def test_a_number_keeps_every_digit(token: str) -> None:
    """Numbers are the text that was sent, however long, and are told apart from strings."""
    value = read_object(b'{"amount":%s}' % token.encode())["amount"]
    assert isinstance(value, JsonNumber)
    assert value == token


def test_a_string_of_digits_is_not_a_number() -> None:
    """`"1"` and `1` are different kinds of values."""
    assert type(read_object(b'{"amount":"1"}')["amount"]) is str


@pytest.mark.parametrize("raw", [b"[]", b"null", b"1", b'"text"', b"true"])
def test_a_body_that_is_not_an_object_is_refused(raw: bytes) -> None:
    """A body is one object."""
    assert refusal_of_body(raw) == "the body is not a JSON object"


@pytest.mark.parametrize(
    "raw",
    [b"{", b"{}{}", b"{} x", b"a=1", b"{'a':1}", b'{"a":01}', b'{"a":1,}', b'{"a":+1}', b'{"a":.5}', b'{"a":"\n"}',
     b" ", b'{"a":"\0"}', b"{}\0", b'{"a":"\\x"}', b'{"a":"\\ud8"}', '{"a":١}'.encode(), b'{"a":0x10}'],
)  # fmt: skip
def test_malformed_json_is_refused(raw: bytes) -> None:
    """What is not JSON is a 400 that says where it stops being JSON."""
    assert refusal_of_body(raw).startswith("the body is not valid JSON (character ")


@pytest.mark.parametrize(
    "raw", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}', '{"a":1}'.encode("utf-16")]
)
def test_a_body_that_is_not_utf_8_is_refused(raw: bytes) -> None:
    """Other encodings, over-long forms and encoded surrogates are not UTF-8."""
    assert refusal_of_body(raw) == "the body is not UTF-8"


def test_a_byte_order_mark_is_refused() -> None:
    """JSON starts with its first bracket."""
    assert refusal_of_body(b'\xef\xbb\xbf{"a":1}') == "the body starts with a byte order mark"


@pytest.mark.parametrize("raw", [b'{"a":1,"a":1}', b'{"x":[{"a":1,"b":2,"a":3}]}', b'{"a":1,"\\u0061":2}'])
def test_a_repeated_key_is_refused_at_any_depth(raw: bytes) -> None:
    """Two readers of one body must not see two different values."""
    assert refusal_of_body(raw) == "a parameter is repeated"


def test_a_repeated_key_that_cannot_be_printed_still_gets_an_answer() -> None:
    """The message can always be encoded in a reply."""
    refusal_of_body(b'{"\\ud800":1,"\\ud800":1}').encode()


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(constant: str) -> None:
    """NaN and the infinities are not JSON."""
    assert constant in refusal_of_body(b'{"a":[%s]}' % constant.encode())


@pytest.mark.parametrize("raw", [b'{"a":"\\ud800"}', b'{"\\udc00":1}', b'{"a":[{"b":"\\udc00\\ud800"}]}'])
def test_lone_surrogates_are_refused(raw: bytes) -> None:
    """Half of a surrogate pair is no text."""
    assert refusal_of_body(raw) == "the body has half of a surrogate pair"


@pytest.mark.parametrize("raw", [b'{"a":"\\u0000"}', b'{"a\\u0000":1}', b'{"a":["b",{"c":"\\u0000"}]}'])
def test_nul_characters_are_refused(raw: bytes) -> None:
    """A NUL in a key or a value is refused, escaped too."""
    assert refusal_of_body(raw) == "the body has a NUL character"


def test_escaped_pairs_and_letters_are_text() -> None:
    """Whole surrogate pairs and other escapes are ordinary characters."""
    assert read_object(b'{"a":"\\ud83d\\ude00 \\u00e9 \\\\u0000"}') == {"a": "\U0001f600 é \\u0000"}


def test_nesting_has_a_bound() -> None:
    """The deepest allowed body is read, one level more is refused, a hundred thousand as well."""

    def nested(levels: int) -> bytes:
        return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert "a" in read_object(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 100_000):
        assert refusal_of_body(nested(levels)) == "the body is nested deeper than 32 levels"
    assert "nested" in refusal_of_body(b'{"a":' * 10_000)


def test_many_brackets_that_do_not_nest_are_read() -> None:
    """Only depth counts, not how many arrays there are, nor brackets inside strings."""
    raw = b'{"rows":[' + b",".join([b"[]"] * 100) + b'],"text":"' + b'[{\\"' * 100 + b'"}'
    assert len(read_object(raw)) == 2


def test_an_unclosed_string_costs_linear_time() -> None:
    """A body of escaped quotes is refused at once."""
    assert refusal_of_body(b'{"a' + b'\\"' * 30_000 + b"[" * 100).startswith("the body is not valid JSON")


@given(st.binary() | st.text(alphabet='{}[]":,\\ud0800NaI1e-.').map(str.encode))
def test_any_bytes_are_a_body_or_a_refusal(raw: bytes) -> None:
    """No body causes anything but a result or a refusal that can be sent."""
    try:
        read_object(raw)
    except Refused as refused:
        refused.message.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=10,
    ),
    st.booleans(),
)
def test_what_any_json_writer_writes_is_read_back(value: object, escape: bool) -> None:
    """A body written with and without escapes means the same."""
    assert read_object(json.dumps({"a": value}, ensure_ascii=escape).encode()) == {"a": value}


def test_a_query_gives_its_known_parameters() -> None:
    """`+` is a space, escapes are UTF-8, unknown parameters are ignored and empty ones absent."""
    raw = b"currency=B%54C&tag=a+b%2Bc%20%C3%A9=&count=&other=1&other=2&flag&"
    assert read_query(raw, KNOWN) == {"currency": "BTC", "tag": "a b+c é="}


def test_a_name_may_be_escaped() -> None:
    """The name of a parameter is decoded like its value."""
    assert read_query(b"curr%65ncy=BTC", KNOWN) == {"currency": "BTC"}


@pytest.mark.parametrize("raw", [b"tag=1&tag=1", b"tag=1&t%61g=2", b"tag=&tag=1", b"tag=1&tag="])
def test_a_known_parameter_twice_is_refused(raw: bytes) -> None:
    """A repeated parameter is a 400, whatever its values."""
    assert refusal_of_query(raw) == "tag parameter is repeated"


@pytest.mark.parametrize("raw", [b"tag=%", b"tag=%4", b"tag=%zz", b"%=1", b"tag=%+1", b"tag=% 1"])
def test_a_malformed_escape_is_refused(raw: bytes) -> None:
    """A percent sign is followed by two hexadecimal digits."""
    assert refusal_of_query(raw) == "the query has a malformed percent escape"


@pytest.mark.parametrize("raw", [b"tag=%ff", b"tag=\xff", b"tag=%ED%A0%80", b"tag=%C0%80"])
def test_a_query_that_is_not_utf_8_is_refused(raw: bytes) -> None:
    """Bytes and escapes together are strict UTF-8."""
    assert refusal_of_query(raw) == "the query is not UTF-8"


@pytest.mark.parametrize("raw", [b"tag=%00", b"tag=a\0", b"ta%00g=1"])
def test_a_nul_in_a_query_is_refused(raw: bytes) -> None:
    """NUL characters are refused in names and values."""
    assert refusal_of_query(raw) == "the query has a NUL character"


def test_a_query_has_bounds() -> None:
    """Too many parameters or too many bytes are refused."""
    assert read_query(b"&".join([b"x=1"] * MAX_QUERY_PAIRS), KNOWN) == {}
    assert "more than 100" in refusal_of_query(b"&".join([b"x=1"] * (MAX_QUERY_PAIRS + 1)))
    assert "longer than 8192" in refusal_of_query(b"x" * 8193)


@given(st.binary() | st.text(alphabet="&=%+0af\0tg").map(str.encode))
def test_any_bytes_are_a_query_or_a_refusal(raw: bytes) -> None:
    """No query causes anything but known parameters with a value, or a refusal."""
    try:
        found = read_query(raw, KNOWN)
    except Refused:
        return
    assert found.keys() <= KNOWN
    assert all(found.values())


def test_a_body_goes_before_the_query() -> None:
    """A GET or DELETE with a body is read from its body, one without (or with an empty object) from its query."""
    body, query = read_object(b'{"currency":"BTC"}'), {"tag": "1"}
    assert merge(body, query) == {"currency": "BTC"}
    assert merge(read_object(b""), query) == {"tag": "1"}
    assert merge(read_object(b"{}"), query) == {"tag": "1"}
    assert merge(body, {}) == {"currency": "BTC"}
    assert merge({}, {}) == {}


def test_a_parameter_in_both_with_equal_values_is_accepted() -> None:
    """Saying the same twice is no contradiction, whatever its spelling in JSON."""
    body = read_object(b'{"count":10,"flag":true,"currency":"BTC","types":["A","B"],"tag":null}')
    query = {"count": "10", "flag": "true", "currency": "BTC", "types": '["A","B"]', "tag": "x"}
    assert merge(body, query) is body


@pytest.mark.parametrize(("name", "value"), [("count", "11"), ("currency", "ETH"), ("flag", "false")])
def test_a_parameter_in_both_with_different_values_is_refused(name: str, value: str) -> None:
    """A contradiction between body and query is a 400 that names the parameter."""
    with pytest.raises(Refused, match=f"{name} parameter differs between the body and the query"):
        merge(read_object(b'{"count":10,"flag":true,"currency":"BTC"}'), {name: value})


NAMES = st.text("ab:,{} ", max_size=2)
PAIRS = st.lists(st.tuples(NAMES, st.one_of(NAMES, st.booleans(), st.none(), st.text('é"\\', max_size=3))), max_size=5)


@given(PAIRS, st.sampled_from(["", " ", "\n\t"]))
def test_a_name_that_is_there_twice_is_found_in_any_body(pairs: list[tuple[str, object]], space: str) -> None:
    """Whatever the names and values look like, a body is read as it was meant, and refused where a name comes twice."""
    members = (f"{json.dumps(n)}{space}:{space}{json.dumps(v, ensure_ascii=False)}" for n, v in pairs)
    raw = ("{" + space + f"{space},{space}".join(members) + "}").encode()
    if len(dict(pairs)) == len(pairs):
        assert read_object(raw) == dict(pairs)
    else:
        assert refusal_of_body(raw).endswith(" parameter is repeated")

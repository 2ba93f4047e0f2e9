"""Bad input, validly signed: whatever the bytes, it is refused as the client's mistake and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.api import parameters
from strongroom.api.dialects import OPERATIONS
from strongroom.api.operations import MOUNT, Access, Dialect, Operation
from support.background import Answer, Background, in_background
from support.client import Nonces, sign

MIB = 1 << 20
DIGITS_19 = "1234567890123456789"
LONG = "9" * 4_000
VALID = {
    "address": '"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"',
    "action": '"SEND"',
    "amount": "1",
    "crypto": '"BTC"',
    "network": '"BITCOIN"',
    "toUser": '"bob"',
    "toUserMail": '"bob@example.com"',
    "receiverUsername": '"bob"',
    "asset": '"BTC"',
    "fromAsset": '"BTC"',
    "toAsset": '"USDT"',
    "srcCurrency": '"BTC"',
    "targetCurrency": '"USDT"',
    "baseCurrency": '"BTC"',
    "quoteCurrency": '"USDT"',
    "currency": '"BTC"',
}
"""JSON texts with which an operation would do what it is for, so that the bad value beside them is what counts."""

BAD_NUMBERS = f"""
NaN Infinity -Infinity 1e400 -1e400 1e999999999 1e-999999999 0 0.0 0e5 -0 -0.0 -1 -1e-9 {DIGITS_19} 9223372036854775808
{LONG} 0.{LONG} 0.000000001 1e-9 01 +1 .5 1. 0x10 1_000 true false null [] {{}} [1] {{"a":1}} nonsense
""".split()
BAD_TEXTS = [
    *("", " ", " 1", "1 ", "1\n", "+1", "-1", "-0", "-0.0", "0", "0.0", ".5", "1.", "1,5", "1.0.0", "1e5", "1e400"),
    *("NaN", "Infinity", "0x10", "1_000", "0.000000001", DIGITS_19, LONG, "1\0", "\0", "\ud800", "1\udfff", "true"),
    *("\uff11", "\u0661", "\u00b2", "\u2160", "1\u00a0", "\u200b1", "\u22121", "null", "[1]"),
]
BAD_AMOUNTS = [
    *BAD_NUMBERS,
    *map(json.dumps, BAD_TEXTS),
    *(json.dumps(text, ensure_ascii=False) for text in ("１", "١")),
]
BAD_VALUES = st.one_of(
    st.sampled_from(BAD_AMOUNTS),
    st.text(max_size=300).map(json.dumps),
    st.integers().map(str),
    st.floats().map(json.dumps),
    st.sampled_from(
        ["[" * 40 + "]" * 40, '{"a":' * 5_000, "[" * 20_000, '["BTC",1]', '"' + "x" * 60_000 + '"', "\x00"]
    ),
)
BAD_BODIES = st.one_of(
    st.sampled_from(
        [
            b" " * MIB,
            b"0" * MIB,
            b"[" * MIB,
            b'{"a":' * (MIB // 5),
            b'"' * MIB,
            b'{"amount":' + b"9" * MIB + b"}",
            b"[" * 30_000,
            b'{"a":' * 12_000,
            b'{"a":' * 40 + b"1" + b"}" * 40,
            b'{"amount":1,"amount":2}',
            b'{"a":{"b":1,"b":1}}',
            b'{"amount":"\xff"}',
            b'{"amount":"\xed\xa0\x80"}',
            b'{"amount":"\xc0\xb1"}',
            b'\xef\xbb\xbf{"amount":1}',
            b"\xff\xfe{\x00}\x00",
            b'{"\\ud800":1}',
            b'{"\\u0000":1}',
            b'{"amount":"\\u0000"}',
            b'{"amount":\x00}',
            b'{"amount":1}\x00',
            b'{"amount":1}{}',
            b'{"amount":NaN}',
            b'{"amount":-Infinity}',
            b"[]",
            b"null",
            b'"{}"',
            b"1",
            b"\x1f\x8b\x08\x00",
            b"amount=1&asset=BTC",
        ]
    ),
    st.binary(min_size=1, max_size=200),
)
BAD_QUERIES = st.one_of(
    st.sampled_from(
        [b"%FF", b"%00", b"%ED%A0%80", b"%zz", b"%", b"\xff", b"\x00", b"%EF%BC%91", b"1e400", b"-0", b"NaN"]
    ),
    st.sampled_from(BAD_TEXTS).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=100),
    st.just(b"x" * 9_000),
)
SETTINGS = settings(
    max_examples=2 * settings.default.max_examples,  # pyright: ignore[reportOptionalMemberAccess]
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Attacker:
    """Signs and sends whatever it is given, and looks at the books before and after."""

    def __init__(self, house: Background) -> None:
        self._house = house
        self._nonces = Nonces()

    def send(self, operation: Operation, body: bytes = b"", query: bytes = b"") -> Answer:
        """Return the answer to a signed request, having checked that a refusal left every balance as it was."""
        return self._house.run(self._send(operation, body, query))

    async def _send(self, operation: Operation, body: bytes, query: bytes) -> Answer:
        path, member = operation.paths[0], self._house.alice
        nonce = self._nonces.fresh()
        headers = {
            "request-api": member.key,
            "request-nonce": nonce,
            "request-sign": sign(member.secret, path, nonce, body),
        }
        mounted = (MOUNT + path if operation.dialect is Dialect.V3 else path).encode()
        store = self._house.application.store
        before = sorted(store.balances())
        answer = await self._house.call(operation.method, mounted, query, headers, body)
        about = (operation.name, operation.dialect, body[:200], query[:200], answer)
        assert answer.status < 500, about
        if answer.status != 200:
            assert sorted(store.balances()) == before, about
            found = json.loads(answer.body)
            assert (found["success"], found["data"]) == (False, None), about
        return answer


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    """A customer who means no good, of a running server."""
    with in_background(tmp_path_factory.mktemp("house")) as house:
        yield Attacker(house)


def members(operation: Operation, changes: dict[str, str]) -> bytes:
    """Return a body that would do, but for the changes: JSON texts by parameter; a lone surrogate goes as its bytes."""
    names = [described["name"] for described in parameters.schema(operation.request)]
    texts = {str(name): VALID[str(name)] for name in names if name in VALID} | changes
    written = ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items())
    return f"{{{written}}}".encode("utf-8", "surrogatepass")


def takes(operation: Operation, name: str) -> bool:
    """Say whether an operation has a parameter."""
    return name in parameters.names(operation.request)


def label(operation: Operation) -> str:
    """Return what a test's name says of an operation."""
    return f"{operation.dialect.value}-{operation.name}"


MOVING = [op for op in OPERATIONS if op.access is Access.CHANGE and takes(op, "amount")]
WITH_PARAMETERS = [op for op in OPERATIONS if parameters.names(op.request)]
CHANGING_BY_BODY = [op for op in OPERATIONS if op.access is Access.CHANGE and op.method == "POST"]
QUERIED = [op for op in WITH_PARAMETERS if op.method != "POST"]


@pytest.mark.parametrize("operation", MOVING, ids=label)
def test_no_bad_amount_moves_money(attacker: Attacker, operation: Operation) -> None:
    """Every amount that is no amount is refused whatever would be moved, and a good one in its place is not."""
    for amount in BAD_AMOUNTS:
        answer = attacker.send(operation, members(operation, {"amount": amount}))
        assert answer.status == 400, (amount[:100], answer)
    assert attacker.send(operation, members(operation, {})).status == 200


@given(operation=st.sampled_from(CHANGING_BY_BODY), body=BAD_BODIES)
@SETTINGS
def test_a_body_that_is_no_object_changes_nothing(attacker: Attacker, operation: Operation, body: bytes) -> None:
    """A body of any bytes is refused by what changes state: as too large, or as what it is not."""
    assert attacker.send(operation, body).status in {400, 413}


@given(operation=st.sampled_from(OPERATIONS), body=BAD_BODIES, query=st.binary(max_size=300))
@SETTINGS
def test_any_bytes_get_an_answer(attacker: Attacker, operation: Operation, body: bytes, query: bytes) -> None:
    """No operation answers any bytes in body and query with an error of ours."""
    assert attacker.send(operation, body, query).status in {200, 400, 413}


@given(data=st.data(), operation=st.sampled_from(WITH_PARAMETERS))
@SETTINGS
def test_bad_values_get_an_answer(attacker: Attacker, data: st.DataObject, operation: Operation) -> None:
    """Any values of any parameters in a body get an answer, and one that is refused has changed nothing."""
    names = sorted(parameters.names(operation.request))
    changes = data.draw(st.dictionaries(st.sampled_from(names), BAD_VALUES, min_size=1))
    assert attacker.send(operation, members(operation, changes)).status in {200, 400, 413}


@given(data=st.data(), operation=st.sampled_from(QUERIED))
@SETTINGS
def test_bad_queries_get_an_answer(attacker: Attacker, data: st.DataObject, operation: Operation) -> None:
    """Any values of any parameters in a query get an answer, and one that is refused has changed nothing."""
    names = sorted(parameters.names(operation.request))
    good = [(name, VALID[name].strip('"').encode()) for name in names if name in VALID]
    bad = data.draw(st.lists(st.tuples(st.sampled_from(names), BAD_QUERIES), min_size=1, max_size=5))
    query = b"&".join(name.encode() + b"=" + value for name, value in [*good, *bad])
    assert attacker.send(operation, query=query).status in {200, 400}
    query = b"&".join(name.encode() + b"=" + value for name, value in {**dict(good), **dict(bad)}.items())
    assert attacker.send(operation, query=query).status in {200, 400}

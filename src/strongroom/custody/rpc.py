"""JSON-RPC over HTTP to a chain's node: every answer bounded in time and size, and read exactly.

    RpcError          the node understood the question and says no, with a code and its reason
    Unreachable       anything else: no connection, no answer in time, an answer that is none. What was asked may have
                      happened or not

Numbers with a point are read as `Decimal`: a node tells amounts that way, and no binary float is near money.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from strongroom.custody.chain import Unreachable

if TYPE_CHECKING:
    # At run time with the first question: it takes a fifth of a second to import, and most demos ask no node.
    import aiohttp

MAX_ANSWER_BYTES: Final = 256 * 2**20
"""A block of four megabytes with all that it spends is some 30 MB of JSON."""

TIMEOUT_S: Final = 30.0
"""How long a node may take for one answer."""

MAX_CONNECTIONS: Final = 16
"""To one node at once; more questions wait for one of them."""

_REASON_CHARS: Final = 300

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode
"""Read JSON as nodes tell it."""


class RpcError(Exception):
    """A node's no: `code` is the node's own number for the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} (code {code})")
        self.code = code
        self.reason = reason


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Answer(msgspec.Struct):
    id: Any = None
    result: Any = msgspec.UNSET
    error: _Error | None = None


class _RawAnswer(msgspec.Struct):
    id: Any = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


_decode_raw: Final = msgspec.json.Decoder(_RawAnswer).decode


@cache
def _certificates() -> ssl.SSLContext:
    """Return what a node behind TLS is held against: the system's, the same for every node, and slow to read."""
    return ssl.create_default_context()


class Node:
    """The way to one node: `url` may hold a user and a password, which are told to nobody else."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._url = url
        self._timeout_s = timeout_s
        self._next_id = 0

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def call(self, method: str, *parameters: Any) -> Any:
        """Return a method's result. Raises `RpcError`, `Unreachable`."""
        body = await self._ask(self._question(method, parameters))
        try:
            return _result(method, msgspec.convert(body, _Answer))
        except msgspec.ValidationError:
            raise Unreachable(f"{method}: the node's answer is none") from None

    async def call_raw(self, method: str, *parameters: Any) -> msgspec.Raw:
        """Return a method's result as JSON that is still to be read, in parts. Raises `RpcError`, `Unreachable`."""
        answer: _RawAnswer = await self._ask(self._question(method, parameters), _decode_raw)
        if answer.error is not None or isinstance(answer.result, msgspec.UnsetType):
            return _result(method, _Answer(error=answer.error))
        return answer.result

    async def call_all(self, method: str, parameters: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the results of one method for each list of parameters, asked in one go.

        Raises `RpcError` for the first that is refused, `Unreachable`.
        """
        if not parameters:
            return []
        questions = [self._question(method, these) for these in parameters]
        body = await self._ask(questions)
        try:
            answers = {answer.id: answer for answer in msgspec.convert(body, list[_Answer])}
        except msgspec.ValidationError:
            raise Unreachable(f"{method}: the node answered one question of {len(questions)}") from None
        return [_result(method, answers.get(question["id"])) for question in questions]

    def _question(self, method: str, parameters: Sequence[Any]) -> dict[str, Any]:
        self._next_id += 1
        return {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": list(parameters)}

    async def _ask(self, question: Any, decode: Callable[[bytearray], Any] = decode) -> Any:
        import aiohttp

        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s), self._post(_encode(question)) as response:
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise Unreachable("the node's answer is too large")
        except TimeoutError:
            raise Unreachable(f"the node has not answered in {self._timeout_s:g} s") from None
        except aiohttp.ClientError as error:
            raise Unreachable(f"the node does not answer: {type(error).__name__}") from None
        if response.status in (401, 403):
            raise Unreachable("the node refuses the user or the password")
        try:
            return decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unreachable(f"the node answers {response.status} and no JSON") from None

    def _post(self, question: bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        import aiohttp

        if self._session is None:
            # Made with the first question: it belongs to the loop that runs then.
            connector = aiohttp.TCPConnector(ssl=_certificates(), limit=MAX_CONNECTIONS)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"content-type": "application/json"},
                timeout=aiohttp.ClientTimeout(),
            )
        return self._session.post(self._url, data=io.BytesIO(question), allow_redirects=False)


def _result(method: str, answer: _Answer | None) -> Any:
    if answer is None or (answer.error is None and answer.result is msgspec.UNSET):
        raise Unreachable(f"{method}: the node's answer is none")
    if answer.error is not None:
        raise RpcError(answer.error.code, answer.error.message[:_REASON_CHARS])
    return answer.result
